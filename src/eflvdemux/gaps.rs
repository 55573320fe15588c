// SPDX-License-Identifier: MPL-2.0

//! Times for which a track gets a GAP: only those whose media can't come any more.
//!
//! The media time of the leading track is the clock here, without its jumps: other tracks may still
//! be where it was before, or have another origin. A track gets a GAP when nothing of it has arrived
//! for as long as its allowance, and the GAP ends that allowance before the leading track.
//! A packet before the end of such a GAP proves that the track merely comes late. The allowance
//! then grows to the lag that the packet shows and a margin, so that the track loses nothing again.

use std::ops::Range;

use gst::ClockTime;

/// Longest step of the leading track that counts as time that has passed.
const MAX_STEP: ClockTime = ClockTime::from_seconds(1);

/// Time without a first packet after which a track gets an empty GAP. A queue holds one second.
const MAX_START: ClockTime = ClockTime::from_mseconds(400);

/// Smallest margin that a grown allowance has beyond the lag that was seen.
const MARGIN: ClockTime = ClockTime::from_mseconds(100);

/// Longest step between two packets that counts as the duration of the first one.
const MAX_PACKET: ClockTime = ClockTime::from_seconds(1);

/// The leading track.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Leader {
    pub(super) position: ClockTime,
    /// Media time that has passed.
    elapsed: ClockTime,
}

impl Leader {
    pub(super) fn advance(&mut self, position: ClockTime) {
        let step = position.saturating_sub(self.position);
        self.elapsed += step.min(MAX_STEP);
        self.position += step;
    }

    /// Goes back to where the track is whose wrong timestamps ahead have ended.
    pub(super) fn go_back(&mut self, position: ClockTime) {
        self.position = self.position.min(position);
    }
}

/// Progress of one track, for its GAPs.
#[derive(Debug, Clone, Default)]
pub(super) struct TrackProgress {
    /// End of the packets and GAPs so far: nothing is missing before it.
    end: Option<ClockTime>,
    /// End of the last GAP for which media may still turn out to come.
    gap_end: Option<ClockTime>,
    last_dts: Option<ClockTime>,
    /// A packet or a GAP has started the track's sink.
    is_started: bool,
    /// Elapsed time when the last packet of this track arrived.
    heard_at: ClockTime,
    /// Lag that packets have proved, with its margin.
    proved: ClockTime,
}

impl TrackProgress {
    /// Handles a packet of this track. The leading track includes it.
    pub(super) fn add_packet(&mut self, leader: &Leader, dts: ClockTime, pts: ClockTime) {
        if self.gap_end.is_some_and(|end| dts.min(pts) < end) {
            let lag = leader.position.saturating_sub(dts.min(pts));
            self.proved = self.proved.max(lag + (lag / 4).max(MARGIN));
        }
        let step = self.last_dts.and_then(|last| dts.checked_sub(last));
        let duration = step.unwrap_or_default().min(MAX_PACKET);
        self.last_dts = Some(dts);
        self.is_started = true;
        self.heard_at = leader.elapsed;
        self.end = self.end.max(Some(pts + duration));
    }

    /// Returns the GAP that the track gets now, if any. `allowance` is the lag that every track may
    /// have. Nothing is missing of a track before the others began.
    pub(super) fn next_gap(
        &mut self,
        leader: &Leader,
        allowance: ClockTime,
    ) -> Option<Range<ClockTime>> {
        let Some(start) = self.end else {
            self.end = Some(leader.position);
            self.heard_at = leader.elapsed;
            return None;
        };
        let allowance = allowance.max(self.proved);
        let waited = leader.elapsed.saturating_sub(self.heard_at);
        if waited < allowance {
            let starts = !self.is_started && waited >= MAX_START;
            self.is_started |= starts;
            // Before anything that may come.
            let place = start.saturating_sub(allowance);
            return starts.then_some(place..place);
        }
        self.is_started = true;
        let end = leader.position.saturating_sub(allowance);
        (start < end).then(|| {
            self.end = Some(end);
            self.gap_end = Some(end);
            start..end
        })
    }

    /// Returns the part of upstream's GAP that the track has not had yet, from where the track
    /// ended: upstream has nothing more before the end of its GAP. The leading track includes it.
    pub(super) fn upstream_gap(
        &mut self,
        leader: &Leader,
        gap: &Range<ClockTime>,
    ) -> Option<Range<ClockTime>> {
        let start = self.end.unwrap_or(gap.start);
        if gap.end >= leader.position {
            self.heard_at = leader.elapsed;
        }
        (start < gap.end).then(|| {
            self.end = Some(gap.end);
            start..gap.end
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: ClockTime = ClockTime::from_mseconds(400);

    /// Repeatable random numbers.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// Milliseconds from the first packet to when a packet arrives, and its track and time.
    type Arrival = (u64, usize, u64);

    /// GAPs and packets of one track, in order.
    #[derive(Debug, PartialEq)]
    enum Output {
        Packet(u64),
        Gap(u64, u64),
    }

    /// Runs arrivals of any number of tracks through their progress.
    fn run(arrivals: &[Arrival], tracks: usize, allowance: ClockTime) -> Vec<Vec<Output>> {
        let mut progress = vec![TrackProgress::default(); tracks];
        let mut outputs: Vec<_> = progress.iter().map(|_| Vec::new()).collect();
        let mut leader = Leader::default();
        for &(_, track, time) in arrivals {
            let dts = ClockTime::from_mseconds(time);
            leader.advance(dts);
            progress[track].add_packet(&leader, dts, dts);
            outputs[track].push(Output::Packet(time));
            for (other, progress) in progress.iter_mut().enumerate() {
                if other != track
                    && let Some(gap) = progress.next_gap(&leader, allowance)
                {
                    let gap = Output::Gap(gap.start.mseconds(), gap.end.mseconds());
                    outputs[other].push(gap);
                }
            }
        }
        outputs
    }

    /// Packets whose time an earlier GAP of their track covers.
    fn lost(outputs: &[Output]) -> usize {
        let mut end = 0;
        let mut lost = 0;
        for output in outputs {
            match output {
                Output::Gap(_, gap_end) => end = *gap_end,
                Output::Packet(time) => lost += usize::from(*time < end),
            }
        }
        lost
    }

    /// Fails if a GAP goes back, or covers a packet that came before it.
    fn assert_forward(outputs: &[Output]) {
        let mut end = 0;
        for output in outputs {
            match output {
                Output::Gap(start, gap_end) => {
                    assert!(*start >= end && gap_end >= start, "{outputs:?}");
                    end = *gap_end;
                }
                Output::Packet(time) => end = end.max(*time),
            }
        }
    }

    /// Packets of two tracks, each of them after its time by its delay, with bursts of the second.
    fn arrivals(delays: [u64; 2], burst: u64, jitter: u64, seed: u64) -> Vec<Arrival> {
        let mut random = Random(seed | 1);
        let mut arrivals = Vec::new();
        for (track, step) in [(0, 40), (1, 23)] {
            let mut last = 0;
            for time in (0..20_000).step_by(step) {
                let mut at = time + delays[track] + random.below(jitter + 1);
                if track == 1 && burst > 0 {
                    at = at.next_multiple_of(burst);
                }
                last = at.max(last);
                arrivals.push((last, track, time));
            }
        }
        arrivals.sort();
        arrivals
    }

    #[test]
    fn a_lagging_track_loses_packets_only_until_it_has_proved_its_lag() {
        for (round, lag) in (0..3_000).step_by(50).enumerate() {
            for burst in [0, 100, 500, 2_000] {
                for jitter in [0, 30, 200] {
                    for delays in [[0, lag], [lag, 0]] {
                        let all = arrivals(delays, burst, jitter, round as u64 * 31 + burst);
                        let outputs = run(&all, 2, ALLOWANCE);
                        for output in &outputs {
                            assert_forward(output);
                            // The GAP before the proof covers these, and others if the lag varies.
                            let covered = (delays[0].max(delays[1]) + burst + jitter) / 23 + 1;
                            let limit = covered + jitter;
                            let case = format!("{delays:?}, {burst}, {jitter}");
                            assert!(lost(output) as u64 <= limit, "{case}: {}", lost(output));
                            // With bursts the lag varies by chance.
                            if burst == 0 && jitter < 200 {
                                let last = output.iter().rev().find_map(|output| match output {
                                    Output::Gap(_, end) => Some(*end),
                                    Output::Packet(_) => None,
                                });
                                let quiet = 3 * (lag + burst + jitter) + 1_000;
                                assert!(last.is_none_or(|end| end < quiet), "{case}: {last:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_lag_within_the_allowance_loses_nothing() {
        for lag in (0..400).step_by(20) {
            for delays in [[0, lag], [lag, 0]] {
                let outputs = run(&arrivals(delays, 0, 0, 1), 2, ALLOWANCE);
                assert_eq!(outputs.iter().map(|o| lost(o)).sum::<usize>(), 0, "{lag}");
            }
            let larger = ClockTime::from_mseconds(1_500);
            let outputs = run(&arrivals([0, 1_000 + lag], 0, 0, 1), 2, larger);
            assert_eq!(lost(&outputs[1]), 0, "{lag}");
        }
    }

    #[test]
    fn a_track_without_media_is_at_most_its_allowance_behind() {
        for until in [0, 1_000, 10_000] {
            for lag in [0, 300, 700] {
                let mut all = arrivals([0, lag], 0, 0, 3);
                all.retain(|(_, track, time)| *track == 0 || *time < until);
                let outputs = run(&all, 2, ALLOWANCE);
                let mut end = 0;
                for output in &outputs[1] {
                    end = match output {
                        Output::Packet(time) => end.max(*time),
                        Output::Gap(_, end) => *end,
                    };
                }
                let allowance = 400.max(lag + (lag / 4).max(100));
                assert!(end + allowance + 40 >= 19_960, "{until} {lag}: {end}");
            }
        }
    }

    /// Returns the leading track after steps to positions in milliseconds.
    fn leader(positions: impl IntoIterator<Item = u64>) -> Leader {
        let mut leader = Leader::default();
        for position in positions {
            leader.advance(ClockTime::from_mseconds(position));
        }
        leader
    }

    #[test]
    fn a_track_without_a_packet_starts_before_the_others_fill_their_queues() {
        for allowance in [400, 500, 1_500, 3_000] {
            for step in [20, 300, 900] {
                let all = (0..6_000).step_by(step).map(|time| (time, 0, time));
                // The second track is announced.
                let outputs = run(
                    &all.collect::<Vec<_>>(),
                    2,
                    ClockTime::from_mseconds(allowance),
                );
                let gaps: Vec<_> = outputs[1].iter().collect();
                let &&Output::Gap(start, end) = &gaps[0] else {
                    panic!("{gaps:?}");
                };
                let case = (allowance, step);
                // The first packet at which it is told.
                let told = 400_u64.div_ceil(step as u64) * step as u64;
                let is_early = told < allowance;
                assert_eq!((start, end == 0), (0, is_early), "{case:?}: {end}");
                let is_empty =
                    |gap: &&&Output| matches!(gap, Output::Gap(start, end) if start == end);
                let empty = gaps.iter().filter(is_empty).count();
                assert_eq!(empty, usize::from(is_early), "{case:?}");
                let Output::Gap(_, end) = gaps[gaps.len() - 1] else {
                    panic!("{gaps:?}");
                };
                assert!(
                    end + allowance + step as u64 >= 6_000 - step as u64,
                    "{case:?}"
                );
            }
        }
    }

    #[test]
    fn a_gap_starts_after_the_presentation_of_what_came() {
        let mut progress = TrackProgress::default();
        let time = ClockTime::from_mseconds;
        progress.add_packet(&leader([0]), time(0), time(80));
        progress.add_packet(&leader([40]), time(40), time(160));
        let gap = progress.next_gap(&leader([40, 1_000, 2_000]), ALLOWANCE);
        assert_eq!(gap, Some(time(200)..time(1_600)));
    }

    #[test]
    fn a_gap_of_upstream_continues_each_track() {
        let mut progress = TrackProgress::default();
        let time = ClockTime::from_mseconds;
        progress.add_packet(&leader([500]), time(100), time(100));
        let ahead = leader([500, 900]);
        let gap = progress.upstream_gap(&ahead, &(time(500)..time(900)));
        assert_eq!(gap, Some(time(100)..time(900)));
        assert_eq!(progress.upstream_gap(&ahead, &(time(700)..time(900))), None);
        // Nothing was missing before the first GAP of a track without media.
        let mut progress = TrackProgress::default();
        let gap = progress.upstream_gap(&ahead, &(time(500)..time(900)));
        assert_eq!(gap, Some(time(500)..time(900)));
    }

    /// However far apart the clocks of the tracks are.
    #[test]
    fn tracks_with_other_origins_get_no_gaps() {
        for distance in [4_000, 60_000, 18_000_000, 3_000_000_000] {
            for ahead in [0, 1] {
                for lag in [0, 300] {
                    let mut all = arrivals([0, lag], 0, 0, 5);
                    for (_, track, time) in &mut all {
                        *time += if *track == ahead { distance } else { 0 };
                    }
                    for allowance in [1_200, 3_000] {
                        let outputs = run(&all, 2, ClockTime::from_mseconds(allowance));
                        let is_gap = |output: &Output| matches!(output, Output::Gap(..));
                        let gaps = outputs.iter().flatten().filter(|output| is_gap(output));
                        assert_eq!(gaps.count(), 0, "{distance} {ahead} {lag}");
                    }
                }
            }
        }
    }

    /// Each of three tracks has a lag of its own, and one of them stops for a while.
    #[test]
    fn a_track_that_pauses_gets_its_gap_and_returns_without_a_loss() {
        for lags in [[0, 300, 700], [700, 0, 300], [300, 1_500, 0], [0, 0, 0]] {
            for pausing in 0..3 {
                let mut all = Vec::new();
                for (track, lag) in lags.into_iter().enumerate() {
                    for time in (0..30_000).step_by(20 + 7 * track) {
                        let is_missing = track == pausing && (10_000..20_000).contains(&time);
                        all.extend((!is_missing).then_some((time + lag, track, time)));
                    }
                }
                all.sort();
                let outputs = run(&all, 3, ALLOWANCE);
                for (track, output) in outputs.iter().enumerate() {
                    assert_forward(output);
                    let case = format!("{lags:?} {pausing} {track}");
                    let is_gap = |output: &&Output| matches!(output, Output::Gap(..));
                    let has_gap = output.iter().filter(is_gap).count() > 0;
                    // Before its first packet nothing has shown how late the track is.
                    let starts_late = lags[track] > 400;
                    assert_eq!(has_gap, track == pausing || starts_late, "{case}");
                    let before_proof = lags[track].saturating_sub(400) as usize / 20 + 1;
                    assert!(lost(output) <= before_proof, "{case}: {}", lost(output));
                }
            }
        }
    }

    /// Whichever track is the first one after a pause of both.
    #[test]
    fn a_pause_of_all_tracks_loses_nothing() {
        for lags in [[0, 0], [0, 300], [300, 0]] {
            let mut all = arrivals(lags, 0, 0, 7);
            for (at, _, time) in &mut all {
                let pause = if *time >= 10_000 { 7_000 } else { 0 };
                (*at, *time) = (*at + pause, *time + pause);
            }
            all.sort();
            let outputs = run(&all, 2, ALLOWANCE);
            for output in &outputs {
                assert_eq!(lost(output), 0, "{lags:?}");
            }
        }
    }

    #[test]
    fn a_lag_that_grows_loses_nothing_while_packets_come() {
        for millis_per_second in [1, 10, 50, 200] {
            let late = |time: u64| time * millis_per_second / 1000;
            let video = (0..60_000).step_by(40).map(|time| (time, 0, time));
            let audio = (0..60_000)
                .step_by(23)
                .map(|time| (time + late(time), 1, time));
            let mut all: Vec<Arrival> = video.chain(audio).collect();
            all.sort();
            let outputs = run(&all, 2, ALLOWANCE);
            assert_eq!(lost(&outputs[1]), 0, "{millis_per_second}");
        }
    }
}
