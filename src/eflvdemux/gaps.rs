// SPDX-License-Identifier: MPL-2.0

//! Times for which a track gets a GAP: only those whose media can't come any more.
//!
//! The media time of the leading track is the clock here. A track gets a GAP when nothing of it has
//! arrived for as long as its allowance, and the GAP ends that allowance before the leading track.
//! A packet before the end of such a GAP proves that the track merely comes late. The allowance
//! then grows to the lag that the packet shows and a margin, so that the track loses nothing again.

use std::ops::Range;

use gst::ClockTime;

/// Smallest margin that a grown allowance has beyond the lag that was seen.
const MARGIN: ClockTime = ClockTime::from_mseconds(100);

/// Longest step between two packets that counts as the duration of the first one.
const MAX_PACKET: ClockTime = ClockTime::from_seconds(1);

/// Progress of one track, for its GAPs.
#[derive(Debug, Clone, Default)]
pub(super) struct TrackProgress {
    /// End of the packets and GAPs so far: nothing is missing before it.
    end: Option<ClockTime>,
    /// End of the last GAP for which media may still turn out to come.
    gap_end: Option<ClockTime>,
    last_dts: Option<ClockTime>,
    /// Position of the leading track when the last packet of this one arrived.
    heard_at: ClockTime,
    /// Lag that packets have proved, with its margin.
    proved: ClockTime,
}

impl TrackProgress {
    /// Handles a packet of this track. `leader` is the position of the leading track, this packet
    /// included.
    pub(super) fn add_packet(&mut self, leader: ClockTime, dts: ClockTime, pts: ClockTime) {
        if self.gap_end.is_some_and(|end| dts.min(pts) < end) {
            let lag = leader.saturating_sub(dts.min(pts));
            self.proved = self.proved.max(lag + (lag / 4).max(MARGIN));
        }
        let step = self.last_dts.and_then(|last| dts.checked_sub(last));
        let duration = step.unwrap_or_default().min(MAX_PACKET);
        self.last_dts = Some(dts);
        self.heard_at = leader;
        self.end = self.end.max(Some(pts + duration));
    }

    /// Returns the GAP that the track gets now, if any. `allowance` is the lag that every track may
    /// have. Nothing is missing of a track before the others began.
    pub(super) fn next_gap(
        &mut self,
        leader: ClockTime,
        allowance: ClockTime,
    ) -> Option<Range<ClockTime>> {
        let Some(start) = self.end else {
            self.end = Some(leader);
            self.heard_at = leader;
            return None;
        };
        let allowance = allowance.max(self.proved);
        if leader.saturating_sub(self.heard_at) < allowance {
            return None;
        }
        let end = leader.saturating_sub(allowance);
        (start < end).then(|| {
            self.end = Some(end);
            self.gap_end = Some(end);
            start..end
        })
    }

    /// Returns the part of upstream's GAP that the track has not had yet, from where the track
    /// ended: upstream has nothing more before the end of its GAP.
    pub(super) fn upstream_gap(&mut self, gap: &Range<ClockTime>) -> Option<Range<ClockTime>> {
        let start = self.end.unwrap_or(gap.start);
        self.heard_at = self.heard_at.max(gap.end);
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
        let mut leader = ClockTime::ZERO;
        for &(_, track, time) in arrivals {
            let dts = ClockTime::from_mseconds(time);
            leader = leader.max(dts);
            progress[track].add_packet(leader, dts, dts);
            outputs[track].push(Output::Packet(time));
            for (other, progress) in progress.iter_mut().enumerate() {
                if other != track
                    && let Some(gap) = progress.next_gap(leader, allowance)
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
                    assert!(*start >= end && gap_end > start, "{outputs:?}");
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

    #[test]
    fn a_gap_starts_after_the_presentation_of_what_came() {
        let mut progress = TrackProgress::default();
        let time = ClockTime::from_mseconds;
        progress.add_packet(time(0), time(0), time(80));
        progress.add_packet(time(40), time(40), time(160));
        let gap = progress.next_gap(time(2_000), ALLOWANCE);
        assert_eq!(gap, Some(time(200)..time(1_600)));
    }

    #[test]
    fn a_gap_of_upstream_continues_each_track() {
        let mut progress = TrackProgress::default();
        let time = ClockTime::from_mseconds;
        progress.add_packet(time(500), time(100), time(100));
        let gap = progress.upstream_gap(&(time(500)..time(900)));
        assert_eq!(gap, Some(time(100)..time(900)));
        assert_eq!(progress.upstream_gap(&(time(700)..time(900))), None);
        // Nothing was missing before the first GAP of a track without media.
        let mut progress = TrackProgress::default();
        let gap = progress.upstream_gap(&(time(500)..time(900)));
        assert_eq!(gap, Some(time(500)..time(900)));
    }
}
