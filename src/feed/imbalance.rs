// SPDX-License-Identifier: MPL-2.0

//! Notices when one of audio and video flows and the other does not.

use super::RunningTime;
use crate::flv::TagKind;

/// More than this between two tags is not time in which only one of them flowed: nothing did. In
/// nanoseconds.
const MAX_STEP: u64 = 500_000_000;

/// One of audio and video has stopped to come while the other flows on, or comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    pub missing: TagKind,
    /// For how long the other one has flowed alone, in nanoseconds.
    pub time: u64,
    /// It comes again.
    pub over: bool,
}

/// Driven by what flows alone: it takes no timer.
#[derive(Debug)]
pub(super) struct ImbalanceDetector {
    /// Nanoseconds, 0 for never.
    timeout: u64,
    audio: Side,
    video: Side,
    last: Option<RunningTime>,
}

#[derive(Debug, Default)]
struct Side {
    /// The publisher has sent some of it, or how it is coded. A publisher of audio alone lacks
    /// nothing.
    expected: bool,
    missing_for: u64,
    told: bool,
}

impl ImbalanceDetector {
    pub(super) fn new(timeout: u64) -> Self {
        ImbalanceDetector {
            timeout,
            audio: Side::default(),
            video: Side::default(),
            last: None,
        }
    }

    pub(super) fn start_publisher(&mut self) {
        *self = ImbalanceDetector::new(self.timeout);
    }

    /// A sequence header came.
    pub(super) fn expect(&mut self, kind: TagKind) {
        if let Some((side, _)) = self.sides(kind) {
            side.expected = true;
        }
    }

    /// Media came.
    pub(super) fn flow(&mut self, kind: TagKind, arrival: RunningTime) -> Option<Imbalance> {
        let timeout = self.timeout;
        let step = arrival.saturating_sub(self.last.unwrap_or(arrival));
        self.last = Some(arrival);
        let (side, (other, other_kind)) = self.sides(kind)?;
        side.expected = true;
        let missed = std::mem::take(&mut side.missing_for);
        if std::mem::take(&mut side.told) {
            return Some(Imbalance {
                missing: kind,
                time: missed,
                over: true,
            });
        }
        if timeout == 0 || !other.expected {
            return None;
        }
        other.missing_for += step.min(MAX_STEP);
        if other.told || other.missing_for < timeout {
            return None;
        }
        other.told = true;
        Some(Imbalance {
            missing: other_kind,
            time: other.missing_for,
            over: false,
        })
    }

    /// What came, and the other one.
    fn sides(&mut self, kind: TagKind) -> Option<(&mut Side, (&mut Side, TagKind))> {
        match kind {
            TagKind::Audio => Some((&mut self.audio, (&mut self.video, TagKind::Video))),
            TagKind::Video => Some((&mut self.video, (&mut self.audio, TagKind::Audio))),
            TagKind::Script => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TagKind::{Audio, Video};

    const MILLI: u64 = 1_000_000;

    /// When which kind was found missing (true) or came again (false), in milliseconds.
    fn run(
        balance: &mut ImbalanceDetector,
        tags: impl IntoIterator<Item = (TagKind, u64)>,
    ) -> Vec<(TagKind, u64, bool)> {
        let tags = tags.into_iter();
        tags.filter_map(|(kind, millis)| {
            let found = balance.flow(kind, millis * MILLI)?;
            Some((found.missing, millis, !found.over))
        })
        .collect()
    }

    fn audio(from: u64, to: u64) -> impl Iterator<Item = (TagKind, u64)> {
        (from..to).step_by(20).map(|millis| (Audio, millis))
    }

    #[test]
    fn video_that_stops_is_missed_once_and_noticed_when_it_is_back() {
        let mut balance = ImbalanceDetector::new(2000 * MILLI);
        let tags = [(Video, 0)].into_iter().chain(audio(0, 9000));
        let tags = tags.chain([(Video, 9000), (Audio, 9000)]);
        assert_eq!(
            run(&mut balance, tags),
            [(Video, 2000, true), (Video, 9000, false)]
        );
    }

    #[test]
    fn audio_that_was_only_announced_is_missed() {
        let mut balance = ImbalanceDetector::new(1000 * MILLI);
        balance.expect(Audio);
        let tags = (0..3000).step_by(40).map(|millis| (Video, millis));
        assert_eq!(run(&mut balance, tags), [(Audio, 1000, true)]);
    }

    #[test]
    fn who_sends_one_alone_lacks_nothing() {
        let mut balance = ImbalanceDetector::new(2000 * MILLI);
        assert_eq!(run(&mut balance, audio(0, 60_000)), []);
        balance.start_publisher();
        balance.expect(Video);
        balance.start_publisher();
        assert_eq!(run(&mut balance, audio(60_000, 90_000)), []);
    }

    #[test]
    fn time_in_which_nothing_came_is_no_imbalance() {
        let mut balance = ImbalanceDetector::new(2000 * MILLI);
        let tags = [(Video, 0), (Audio, 10), (Audio, 30_000), (Video, 30_001)];
        assert_eq!(run(&mut balance, tags), []);
    }

    #[test]
    fn zero_is_off() {
        let mut balance = ImbalanceDetector::new(0);
        let tags = [(Video, 0)].into_iter().chain(audio(0, 60_000));
        assert_eq!(run(&mut balance, tags), []);
    }
}
