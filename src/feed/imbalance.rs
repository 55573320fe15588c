// SPDX-License-Identifier: MPL-2.0

//! Detects that one of audio and video flows while the other does not.

use super::time::RunningTime;
use crate::flv::TagKind;

/// Longest time between two tags, in nanoseconds, that counts as time in which one of them flowed:
/// in a longer one nothing did.
const MAX_STEP: u64 = 500_000_000;

/// One of audio and video is missing while the other flows, or is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    pub missing: TagKind,
    /// Time for which the other one has flowed alone, in nanoseconds.
    pub time: u64,
    /// The missing one is back.
    pub is_over: bool,
}

/// Driven by the media that does flow: it needs no timer.
#[derive(Debug)]
pub(super) struct ImbalanceDetector {
    /// Nanoseconds, 0 for never.
    timeout: u64,
    audio: Flow,
    video: Flow,
    last_arrival: Option<RunningTime>,
}

#[derive(Debug, Default)]
struct Flow {
    /// The publisher has sent some of it, or its sequence header. A publisher of audio alone lacks
    /// nothing.
    is_expected: bool,
    /// Nanoseconds.
    missing_for: u64,
    is_reported: bool,
}

impl ImbalanceDetector {
    pub(super) fn new(timeout: u64) -> Self {
        ImbalanceDetector {
            timeout,
            audio: Flow::default(),
            video: Flow::default(),
            last_arrival: None,
        }
    }

    pub(super) fn start_publisher(&mut self) {
        *self = ImbalanceDetector::new(self.timeout);
    }

    /// Notes a sequence header.
    pub(super) fn expect(&mut self, kind: TagKind) {
        if let Some((flow, _)) = self.flows(kind) {
            flow.is_expected = true;
        }
    }

    /// Notes media.
    pub(super) fn count(&mut self, kind: TagKind, arrival: RunningTime) -> Option<Imbalance> {
        let timeout = self.timeout;
        let step = arrival.saturating_sub(self.last_arrival.unwrap_or(arrival));
        self.last_arrival = Some(arrival);
        let (flow, (other, other_kind)) = self.flows(kind)?;
        flow.is_expected = true;
        let missing_for = std::mem::take(&mut flow.missing_for);
        if std::mem::take(&mut flow.is_reported) {
            return Some(Imbalance {
                missing: kind,
                time: missing_for,
                is_over: true,
            });
        }
        if timeout == 0 || !other.is_expected {
            return None;
        }
        other.missing_for += step.min(MAX_STEP);
        if other.is_reported || other.missing_for < timeout {
            return None;
        }
        other.is_reported = true;
        Some(Imbalance {
            missing: other_kind,
            time: other.missing_for,
            is_over: false,
        })
    }

    /// Returns the flow of `kind`, and the other one.
    fn flows(&mut self, kind: TagKind) -> Option<(&mut Flow, (&mut Flow, TagKind))> {
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

    /// The kinds that were found missing (true) or back (false), and when, in milliseconds.
    fn run(
        detector: &mut ImbalanceDetector,
        tags: impl IntoIterator<Item = (TagKind, u64)>,
    ) -> Vec<(TagKind, u64, bool)> {
        let tags = tags.into_iter();
        tags.filter_map(|(kind, millis)| {
            let found = detector.count(kind, millis * MILLI)?;
            Some((found.missing, millis, !found.is_over))
        })
        .collect()
    }

    fn audio(from: u64, to: u64) -> impl Iterator<Item = (TagKind, u64)> {
        (from..to).step_by(20).map(|millis| (Audio, millis))
    }

    #[test]
    fn video_that_stops_is_reported_once_and_again_when_it_is_back() {
        let mut detector = ImbalanceDetector::new(2000 * MILLI);
        let tags = [(Video, 0)].into_iter().chain(audio(0, 9000));
        let tags = tags.chain([(Video, 9000), (Audio, 9000)]);
        assert_eq!(
            run(&mut detector, tags),
            [(Video, 2000, true), (Video, 9000, false)]
        );
    }

    #[test]
    fn audio_that_was_only_announced_is_reported_missing() {
        let mut detector = ImbalanceDetector::new(1000 * MILLI);
        detector.expect(Audio);
        let tags = (0..3000).step_by(40).map(|millis| (Video, millis));
        assert_eq!(run(&mut detector, tags), [(Audio, 1000, true)]);
    }

    #[test]
    fn a_publisher_of_audio_alone_lacks_nothing() {
        let mut detector = ImbalanceDetector::new(2000 * MILLI);
        assert_eq!(run(&mut detector, audio(0, 60_000)), []);
        detector.start_publisher();
        detector.expect(Video);
        detector.start_publisher();
        assert_eq!(run(&mut detector, audio(60_000, 90_000)), []);
    }

    #[test]
    fn time_without_any_media_is_no_imbalance() {
        let mut detector = ImbalanceDetector::new(2000 * MILLI);
        let tags = [(Video, 0), (Audio, 10), (Audio, 30_000), (Video, 30_001)];
        assert_eq!(run(&mut detector, tags), []);
    }

    #[test]
    fn a_timeout_of_zero_reports_nothing() {
        let mut detector = ImbalanceDetector::new(0);
        let tags = [(Video, 0)].into_iter().chain(audio(0, 60_000));
        assert_eq!(run(&mut detector, tags), []);
    }
}
