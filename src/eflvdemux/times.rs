// SPDX-License-Identifier: MPL-2.0

//! Times of tags in the outgoing stream.

use super::parser::FlvTag;
use crate::feed::TimestampUnwrapper;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// A step back of a track by this much is no disorder but a restarted clock. flvdemux has the same
/// limit.
const RESET: i64 = 2_000 * NANOS_PER_MILLI;

/// Overlap of two files up to which the second one continues the recording of the first.
const MAX_OVERLAP: i64 = 200 * NANOS_PER_MILLI;

/// Hole between two files up to which the second one continues the recording of the first.
const MAX_HOLE: i64 = 60_000 * NANOS_PER_MILLI;

/// Range of timestamps.
const WRAP: i64 = (1 << 32) * NANOS_PER_MILLI;

/// Longest step between two packets that counts as the duration of the first one.
const MAX_PACKET: i64 = 1_000 * NANOS_PER_MILLI;

/// Times of tags, in nanoseconds.
///
/// Where upstream has no times, those of the tags go on when the clock of the publisher restarts,
/// as it does where another file begins. One shift moves all tracks after what came before, so
/// that they stay in step.
#[derive(Debug, Default)]
pub(super) struct TagTimes {
    /// Continues with the last packet of any track.
    unwrapper: TimestampUnwrapper,
    /// The last time from upstream, and the timestamp of its tag. Tags within a buffer keep their
    /// distance.
    anchor: Option<(gst::ClockTime, u32)>,
    /// Upstream's times are those of its segment.
    follows_upstream: bool,
    /// The latest shift, and a number for it.
    shift: i64,
    run: u32,
    /// The shift before it. A clock may go back to it after some wrong timestamps.
    previous_shift: Option<i64>,
    /// The run that the last file began with: what tracks had before does not matter.
    first_run_of_file: u32,
    /// Another file has begun, and nothing of it has a time yet.
    is_file_new: bool,
    /// End of everything that has a time.
    end: Option<i64>,
}

/// The clock of one track.
#[derive(Debug, Default)]
pub(super) struct TrackTimes {
    /// Continues with the last packet of this track. Steps to other tracks say nothing, since their
    /// clocks may be half the range apart, and then have no direction.
    unwrapper: Option<TimestampUnwrapper>,
    last: Option<LastTime>,
    /// The last jump ahead. A clock that returns soon has not jumped.
    jump: Option<JumpAhead>,
    run: u32,
    shift: i64,
}

/// A step ahead by more than [`RESET`], before the shift.
#[derive(Debug, Clone, Copy)]
struct JumpAhead {
    from: i64,
    to: i64,
}

#[derive(Debug, Clone, Copy)]
struct LastTime {
    /// Before and after the shift.
    raw: i64,
    shifted: i64,
}

impl TagTimes {
    pub(super) fn new(follows_upstream: bool) -> Self {
        TagTimes {
            follows_upstream,
            ..TagTimes::default()
        }
    }

    /// Returns the DTS of a packet, and true if the clock of its track has restarted.
    pub(super) fn of_packet(&mut self, tag: &FlvTag<'_>, track: &mut TrackTimes) -> (i64, bool) {
        if self.follows_upstream
            && let Some(dts) = tag.dts
        {
            self.anchor = Some((dts, tag.timestamp));
        }
        if let Some(time) = self.anchored(tag) {
            return (time, false);
        }
        if std::mem::take(&mut self.is_file_new) {
            self.begin_file(tag.timestamp, track);
        }
        let mut unwrapper = self.unwrapper(tag.timestamp, track);
        let raw = unwrapper.next(tag.timestamp) * NANOS_PER_MILLI;
        track.unwrapper = Some(unwrapper);
        self.unwrapper = unwrapper;
        self.shifted(raw, track)
    }

    /// Returns the time of a tag that need not be in step with the media.
    pub(super) fn of_script(&self, tag: &FlvTag<'_>) -> i64 {
        if let (true, Some(dts)) = (self.follows_upstream, tag.dts) {
            return i64::try_from(dts.nseconds()).unwrap_or(i64::MAX);
        }
        let raw = || self.unwrapper.peek(tag.timestamp) * NANOS_PER_MILLI;
        let end = self.end.filter(|_| self.is_file_new);
        self.anchored(tag)
            .or(end)
            .unwrap_or_else(|| raw().saturating_add(self.shift))
    }

    /// Handles the start of another file.
    pub(super) fn start_file(&mut self) {
        self.is_file_new = self.end.is_some();
    }

    /// Handles the first packet of another file, which may continue the recording of the one before.
    /// Otherwise it starts at the end of that one, and all its tracks on clocks of their own.
    fn begin_file(&mut self, timestamp: u32, track: &TrackTimes) {
        let end = self.end.unwrap_or(i64::MIN);
        let unwrapper = track.unwrapper.unwrap_or(self.unwrapper);
        let time = (unwrapper.peek(timestamp) * NANOS_PER_MILLI).saturating_add(self.shift);
        let is_near = |step| step * NANOS_PER_MILLI <= MAX_PACKET;
        let continues = (end.saturating_sub(MAX_OVERLAP)..=end.saturating_add(MAX_HOLE))
            .contains(&time)
            && unwrapper.step_over_wrap(timestamp).is_none_or(is_near);
        if !continues {
            self.unwrapper = TimestampUnwrapper::default();
            self.start_run(end.saturating_sub(i64::from(timestamp) * NANOS_PER_MILLI));
            self.first_run_of_file = self.run;
        }
    }

    /// Returns the unwrapper for the next packet of a track.
    fn unwrapper(&self, timestamp: u32, track: &TrackTimes) -> TimestampUnwrapper {
        let is_of_file = track.run >= self.first_run_of_file;
        let own = track.unwrapper.filter(|_| is_of_file);
        let known = own.into_iter().chain([self.unwrapper]);
        let mut fitting = known.filter(|unwrapper| !unwrapper.is_restart(timestamp));
        fitting.next().unwrap_or_default()
    }

    fn anchored(&self, tag: &FlvTag<'_>) -> Option<i64> {
        let (dts, timestamp) = self.anchor?;
        let step = tag.timestamp.wrapping_sub(timestamp) as i32;
        let dts = i64::try_from(dts.nseconds()).unwrap_or(i64::MAX);
        Some(dts.saturating_add(i64::from(step) * NANOS_PER_MILLI))
    }

    fn shifted(&mut self, raw: i64, track: &mut TrackTimes) -> (i64, bool) {
        let end = self.end.unwrap_or(i64::MIN);
        let mut is_reset = false;
        let mut has_returned = false;
        match track.last {
            // The latest run, which may have begun before the track came. A time before all others
            // is of a track that is half the range ahead: no time may be negative.
            None => {
                let is_ahead = raw.saturating_add(self.shift) < -RESET;
                let wrap = if is_ahead { WRAP } else { 0 };
                (track.run, track.shift) = (self.run, self.shift.saturating_add(wrap));
            }
            Some(_) if track.run < self.first_run_of_file => is_reset = true,
            Some(last) if raw - last.raw <= -RESET => {
                is_reset = true;
                has_returned = track.has_returned(raw);
            }
            Some(_) => {}
        }
        if is_reset && !has_returned {
            // The first track that restarts begins a run, and the others follow it. A track that
            // would still go back has restarted alone.
            let follows = track.run < self.run
                && track.last.is_none_or(|last| {
                    raw.saturating_add(self.shift) > last.shifted.saturating_sub(RESET)
                });
            if !follows {
                self.start_run(end - raw);
            }
            (track.run, track.shift) = (self.run, self.shift);
        }
        if let Some(last) = track.last
            && raw - last.raw >= RESET
        {
            let returns = self.return_to_clock(raw, end, track);
            is_reset |= returns;
            let jump = JumpAhead {
                from: last.raw,
                to: raw,
            };
            track.jump = (!returns).then_some(jump);
        }
        let shifted = raw.saturating_add(track.shift);
        let step = track
            .last
            .map_or(0, |last| shifted.saturating_sub(last.shifted));
        let duration = if is_reset {
            0
        } else {
            step.clamp(0, MAX_PACKET)
        };
        track.last = Some(LastTime { raw, shifted });
        let track_end = Some(shifted.saturating_add(duration));
        // The end of wrong timestamps was none.
        self.end = match has_returned {
            true => track_end,
            false => self.end.max(track_end),
        };
        (shifted, is_reset)
    }

    /// Handles a step ahead of a track. Returns true where it leads back to the clock of before a
    /// restart, which was none.
    fn return_to_clock(&mut self, raw: i64, end: i64, track: &mut TrackTimes) -> bool {
        let fits = |shift: i64| raw.saturating_add(shift).abs_diff(end) <= RESET.unsigned_abs();
        if fits(track.shift) {
            return false;
        }
        if track.run == self.run || !fits(self.shift) {
            let Some(previous) = self.previous_shift.filter(|shift| fits(*shift)) else {
                return false;
            };
            self.start_run(previous);
        }
        (track.run, track.shift) = (self.run, self.shift);
        true
    }

    fn start_run(&mut self, shift: i64) {
        self.run += 1;
        self.previous_shift = Some(std::mem::replace(&mut self.shift, shift));
    }
}

impl TrackTimes {
    /// Returns true where a step back leads to where the track was before wrong timestamps ahead.
    fn has_returned(&mut self, raw: i64) -> bool {
        let (jump, last) = (self.jump.take(), self.last);
        jump.zip(last).is_some_and(|(jump, last)| {
            let was_short = last.raw - jump.to <= RESET;
            was_short && (raw - jump.from).abs() <= RESET
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flv::TagKind;

    /// Shifted times in milliseconds of packets: track and timestamp. `None`: another file begins.
    fn times(packets: &[Option<(usize, u32)>]) -> Vec<i64> {
        let mut times = TagTimes::new(false);
        let mut tracks = [TrackTimes::default(), TrackTimes::default()];
        let mut shifted = Vec::new();
        for packet in packets {
            let Some((track, timestamp)) = *packet else {
                times.start_file();
                continue;
            };
            let tag = FlvTag {
                kind: TagKind::Audio,
                timestamp,
                body: &[],
                dts: None,
            };
            let (time, _) = times.of_packet(&tag, &mut tracks[track]);
            shifted.push(time / NANOS_PER_MILLI);
        }
        shifted
    }

    #[test]
    fn a_second_file_has_one_shift_for_all_tracks() {
        let packets = [
            Some((0, 0)),
            Some((1, 10)),
            Some((0, 40)),
            Some((1, 30)),
            Some((0, 1_000)),
            None,
            Some((1, 0)),
            Some((0, 33)),
            Some((1, 20)),
        ];
        // After the last packet, which takes as long as the one before it.
        let expected = [0, 10, 40, 30, 1_000, 1_960, 1_993, 1_980];
        assert_eq!(times(&packets), expected);
    }

    #[test]
    fn a_file_that_continues_keeps_its_times() {
        let packets = [
            Some((0, 5_000)),
            Some((1, 5_010)),
            None,
            Some((1, 5_030)),
            Some((0, 5_040)),
        ];
        assert_eq!(times(&packets), [5_000, 5_010, 5_030, 5_040]);
    }

    #[test]
    fn a_restarted_clock_has_one_shift_for_all_tracks() {
        let packets = [
            Some((0, 9_000)),
            Some((1, 9_010)),
            Some((0, 9_040)),
            Some((0, 0)),
            // Still from before.
            Some((1, 9_030)),
            Some((0, 40)),
            Some((1, 7)),
            Some((1, 27)),
        ];
        let expected = [9_000, 9_010, 9_040, 9_080, 9_030, 9_120, 9_087, 9_107];
        assert_eq!(times(&packets), expected);
    }

    /// In one track, or in both.
    #[test]
    fn wrong_timestamps_do_not_move_what_follows_them() {
        for start in [9_000, 3_600_000, 1 << 30] {
            for wrong in [0, 500, start / 2] {
                let at = |track: usize, time: u32| Some((track, start + time));
                let one = [at(0, 0), at(1, 10), at(0, 40), Some((0, wrong))];
                let one = one.into_iter().chain([at(1, 50), at(0, 120), at(1, 90)]);
                let both = [at(0, 0), at(1, 10), Some((0, wrong)), Some((1, wrong))];
                let both = both.into_iter().chain([at(0, 80), at(1, 90), at(0, 120)]);
                for (packets, right) in [
                    (one.collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6]),
                    (both.collect(), [0, 1, 4, 5, 6, 6]),
                ] {
                    let times = times(&packets);
                    for index in right {
                        let sent = packets[index].unwrap().1;
                        let case = (start, wrong, index);
                        assert_eq!(times[index], i64::from(sent), "{case:?}: {times:?}");
                    }
                }
            }
        }
    }

    /// In one track, or in both, once or several times in a row.
    #[test]
    fn wrong_timestamps_ahead_do_not_move_what_follows_them() {
        for start in [0, 9_000, 1 << 24, 1 << 31] {
            for ahead in [3_000, 60_000, 3_600_000, 1 << 30] {
                for (of_both, count) in [(false, 1), (false, 3), (true, 1), (true, 5)] {
                    let at = |track: usize, time: u32| Some((track, start + time));
                    let mut packets = vec![at(0, 0), at(1, 10), at(0, 40), at(1, 50)];
                    for step in 0..count {
                        packets.push(at(0, ahead + 20 * step));
                        packets.push(at(1, 70 + 20 * step + if of_both { ahead } else { 0 }));
                    }
                    let first_right = packets.len();
                    for step in 10..40 {
                        packets.push(at(0, 20 * step));
                        packets.push(at(1, 20 * step + 10));
                    }
                    let times = times(&packets);
                    for index in (0..4).chain(first_right..packets.len()) {
                        let (_, sent) = packets[index].unwrap();
                        let case = (start, ahead, of_both, count, index);
                        assert_eq!(times[index], i64::from(sent), "{case:?}: {times:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_track_over_half_the_range_ahead_keeps_its_steps() {
        let times = times(&[
            Some((0, 0)),
            Some((1, 3_000_000_000)),
            Some((0, 40)),
            Some((1, 3_000_000_023)),
        ]);
        assert_eq!(times, [0, 3_000_000_000, 40, 3_000_000_023]);
    }

    /// Wherever the clocks of two tracks are, each track keeps its own steps.
    #[test]
    fn tracks_half_the_range_apart_keep_their_steps() {
        let half = 1_u32 << 31;
        for distance in (half - 120..=half + 120).step_by(7) {
            for ahead in [0, 1] {
                for start in [0, 50_000] {
                    let origin = |track| start + if track == ahead { distance } else { 0 };
                    // The tracks overtake each other.
                    let packets: Vec<(usize, u32)> = (0..100)
                        .flat_map(|n: u32| [(0, n * 40), (1, n * 23 + n % 5 * 20)])
                        .collect();
                    let tags: Vec<_> = packets
                        .iter()
                        .map(|(track, time)| Some((*track, origin(*track).wrapping_add(*time))))
                        .collect();
                    let times = times(&tags);
                    for track in [0, 1] {
                        let of_track = packets.iter().zip(&times).filter(|(p, _)| p.0 == track);
                        let mut of_track = of_track.map(|(packet, time)| (packet.1, *time));
                        let (_, first) = of_track.next().unwrap();
                        for (sent, time) in of_track {
                            let case = (distance, ahead, start, track);
                            assert_eq!(time - first, i64::from(sent), "{case:?}");
                        }
                        assert!(first >= 0, "{first}");
                    }
                }
            }
        }
    }

    /// Starts of clocks on both sides of each count at which some writers wrap.
    fn origins() -> impl Iterator<Item = u32> {
        let wraps = [0, 1 << 24, 1 << 31];
        let distances = [-40_000, -29_000, -1_500, -500, 0, 500, 40_000];
        wraps.into_iter().flat_map(move |wrap: u32| {
            distances.map(|distance: i32| wrap.wrapping_add_signed(distance))
        })
    }

    /// Packets of two tracks for two seconds, the second one 10 ms after the first.
    fn recording(origin: u32) -> Vec<(usize, u32)> {
        let steps = (0..50).flat_map(|n: u32| [(0, n * 40), (1, n * 40 + 10)]);
        let packets = steps.map(|(track, step)| (track, origin.wrapping_add(step)));
        packets.collect()
    }

    /// Wherever the first one ends and the second one begins, with or without a file header.
    #[test]
    fn a_second_recording_follows_the_first_without_a_hole() {
        for first in origins() {
            for second in origins() {
                // The same recording goes on.
                let end = first.wrapping_add(2_000);
                if second.wrapping_sub(first) < 3_000 {
                    continue;
                }
                for has_header in [true, false] {
                    // Without a header, a step ahead is a hole. So is a small one with a header.
                    let hole = second.checked_sub(end);
                    if hole.is_some_and(|hole| !has_header || hole <= 60_000) {
                        continue;
                    }
                    // A clock that only steps back, and by less than a wrap, has its own tests.
                    let header = has_header.then_some(None);
                    let packets: Vec<_> = recording(first)
                        .into_iter()
                        .map(Some)
                        .chain(header)
                        .chain(recording(second).into_iter().map(Some))
                        .collect();
                    let times = times(&packets);
                    let case = (first, second, has_header);
                    let start = times[100];
                    let hole = start - times[99];
                    assert!((0..=31_000).contains(&hole), "{case:?}: {hole}");
                    assert!(!has_header || hole <= 1_000, "{case:?}: {hole}");
                    let steps: Vec<i64> = times[100..].iter().map(|time| time - start).collect();
                    let expected: Vec<i64> = recording(0)
                        .iter()
                        .map(|(_, time)| i64::from(*time))
                        .collect();
                    assert_eq!(steps, expected, "{case:?}");
                }
            }
        }
    }

    #[test]
    fn metadata_of_a_second_file_is_at_its_start() {
        let mut times = TagTimes::new(false);
        let mut track = TrackTimes::default();
        let mut tag = FlvTag {
            kind: TagKind::Audio,
            timestamp: 1 << 31,
            body: &[],
            dts: None,
        };
        times.of_packet(&tag, &mut track);
        times.start_file();
        tag.timestamp = 0;
        let start = (1_i64 << 31) * NANOS_PER_MILLI;
        assert_eq!(times.of_script(&tag), start);
        assert_eq!(times.of_packet(&tag, &mut track), (start, true));
    }

    #[test]
    fn a_track_that_restarts_alone_does_not_follow_an_old_shift() {
        let packets = [
            Some((0, 9_000)),
            Some((1, 9_000)),
            Some((0, 0)),
            Some((0, 3_600_000)),
            Some((1, 3_609_000)),
            Some((1, 0)),
        ];
        let times = times(&packets);
        assert!(times[5] >= times[4], "{times:?}");
    }
}
