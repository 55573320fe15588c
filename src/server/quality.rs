// SPDX-License-Identifier: MPL-2.0

//! Limits of what a publisher may send, and verdicts about it. Pure: its clock is the publisher's
//! timestamps, which neither the network nor this machine changes.

use crate::flv::config::Dimensions;
use crate::flv::description::dimensions;
use crate::flv::{Content, Tag, TagKind};

/// Length of a window of measuring, in milliseconds of media. Bitrates of shorter ones follow single
/// keyframes.
const WINDOW: u32 = 2000;

/// Longest time between consecutive tags, in milliseconds. A longer one is a jump, or an outage that
/// other events report.
const MAX_STEP: u32 = 10_000;

/// A figure with limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quality {
    /// Milliseconds.
    KeyframeInterval,
    /// Bits per second.
    VideoBitrate,
    AudioBitrate,
    /// Frames in 1000 s.
    FrameRate,
    /// Pixels.
    Width,
    Height,
}

impl Quality {
    pub(crate) const ALL: [Quality; COUNT] = [
        Quality::KeyframeInterval,
        Quality::VideoBitrate,
        Quality::AudioBitrate,
        Quality::FrameRate,
        Quality::Width,
        Quality::Height,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Quality::KeyframeInterval => "keyframe-interval",
            Quality::VideoBitrate => "video-bitrate",
            Quality::AudioBitrate => "audio-bitrate",
            Quality::FrameRate => "framerate",
            Quality::Width => "width",
            Quality::Height => "height",
        }
    }

    /// Returns the unit that people use.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Quality::KeyframeInterval => "ms",
            Quality::VideoBitrate | Quality::AudioBitrate => "bits/s",
            Quality::FrameRate => "fps",
            Quality::Width | Quality::Height => "pixels",
        }
    }

    /// Returns the unit of its numbers, as a fraction of the one that people use.
    fn scale(self) -> f64 {
        match self {
            Quality::FrameRate => 1000.0,
            _ => 1.0,
        }
    }

    /// Converts a figure to the number that people use.
    pub(crate) fn figure(self, number: u64) -> f64 {
        number as f64 / self.scale()
    }
}

const COUNT: usize = 6;

/// The limits of a figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Range {
    min: Option<u64>,
    max: Option<u64>,
}

/// Limits of all figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QualityLimits {
    ranges: [Range; COUNT],
}

impl QualityLimits {
    pub(crate) fn is_empty(&self) -> bool {
        *self == QualityLimits::default()
    }

    /// Sets the limit `min-` or `max-` and the name of a figure.
    pub(crate) fn set(&mut self, name: &str, figure: f64) -> Result<(), String> {
        let (is_min, rest) = match (name.strip_prefix("min-"), name.strip_prefix("max-")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => (false, ""),
        };
        let quality = Quality::ALL.iter().find(|quality| quality.name() == rest);
        let Some(quality) = quality else {
            let names = Quality::ALL.map(Quality::name).join(", ");
            return Err(format!(
                "{name} is no limit: a limit is min- or max- and one of {names}"
            ));
        };
        let number = figure * quality.scale();
        if !(0.0..1e15).contains(&number) {
            return Err(format!("{name} is {figure}, which is no number from 0 on"));
        }
        let range = &mut self.ranges[*quality as usize];
        let limit = if is_min {
            &mut range.min
        } else {
            &mut range.max
        };
        *limit = Some(number.round() as u64);
        match (range.min, range.max) {
            (Some(min), Some(max)) if min > max => Err(format!("min-{rest} is above max-{rest}")),
            _ => Ok(()),
        }
    }

    /// Returns the limit that a number is beyond, and true for a minimum.
    fn exceeded(&self, quality: Quality, number: u64) -> Option<(u64, bool)> {
        let range = self.ranges[quality as usize];
        let below = range.min.filter(|min| number < *min);
        let above = range.max.filter(|max| number > *max);
        below
            .map(|min| (min, true))
            .or(above.map(|max| (max, false)))
    }
}

/// A figure that is beyond its limit, or within it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub quality: Quality,
    pub number: u64,
    pub limit: u64,
    /// The limit is a minimum.
    pub is_min: bool,
    pub is_low: bool,
}

impl Verdict {
    /// Returns true where the number is beyond the limit: a figure that is not low is so once its
    /// limit was removed.
    pub(crate) fn is_beyond(&self) -> bool {
        match self.is_min {
            true => self.number < self.limit,
            false => self.number > self.limit,
        }
    }

    /// Returns the name of the limit.
    pub(crate) fn limit_name(&self) -> String {
        let bound = if self.is_min { "min" } else { "max" };
        format!("{bound}-{}", self.quality.name())
    }
}

/// The figures beyond their limits.
pub(crate) type LowFigures = [Option<Verdict>; COUNT];

/// Measures one publisher against limits.
#[derive(Debug, Default)]
pub(crate) struct QualityMonitor {
    limits: QualityLimits,
    /// The measured video track: the first one that arrives.
    track: Option<u8>,
    has_frames: bool,
    last: Option<u32>,
    window: Window,
    last_keyframe: Option<u32>,
    /// The last figures, whether there is a limit for them or not.
    numbers: [Option<u64>; COUNT],
    low: LowFigures,
    /// The low figures have changed since they were last read.
    is_changed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    start: u32,
    frames: u32,
    video_bytes: u64,
    audio_bytes: u64,
    has_audio: bool,
}

impl QualityMonitor {
    pub(crate) fn new(limits: QualityLimits) -> Self {
        QualityMonitor {
            limits,
            ..QualityMonitor::default()
        }
    }

    /// Sets the size of a picture whose sequence header came before.
    pub(crate) fn with_size(mut self, track: u8, size: Dimensions) -> Self {
        self.track = Some(track);
        self.numbers[Quality::Width as usize] = Some(size.width.into());
        self.numbers[Quality::Height as usize] = Some(size.height.into());
        self
    }

    /// Replaces the limits, and judges the last figures by them: what was low may be within its new
    /// limit, and the next figure may be long in coming.
    pub(crate) fn set_limits(&mut self, limits: QualityLimits, mut post: impl FnMut(Verdict)) {
        self.limits = limits;
        for quality in Quality::ALL {
            if let Some(number) = self.numbers[quality as usize] {
                self.check(quality, number, &mut post);
            }
        }
    }

    pub(crate) fn limits(&self) -> &QualityLimits {
        &self.limits
    }

    /// Returns the figures beyond their limits, if they have changed since the last call.
    pub(crate) fn take_low(&mut self) -> Option<LowFigures> {
        std::mem::take(&mut self.is_changed).then_some(self.low)
    }

    /// Counts a tag, and calls `post` with each verdict that changes.
    pub(crate) fn count(&mut self, tag: &Tag, mut post: impl FnMut(Verdict)) {
        let is_video = tag.kind == TagKind::Video;
        let is_header = is_video && tag.info.content == Content::SequenceHeader;
        if tag.kind == TagKind::Script || !is_header && !tag.info.is_coded() {
            return;
        }
        let track = tag.lowest_track();
        if is_video && *self.track.get_or_insert(track) != track {
            return;
        }
        if is_header {
            if let Some(picture) = dimensions(tag.body()) {
                self.check(Quality::Width, picture.width.into(), &mut post);
                self.check(Quality::Height, picture.height.into(), &mut post);
            }
            return;
        }
        if is_video && !std::mem::replace(&mut self.has_frames, true) {
            // The window so far had audio for its clock, and no time of video.
            self.last = None;
        }
        // Audio is the clock of a publisher without video.
        let is_clock = is_video || !self.has_frames;
        if is_clock {
            self.advance(tag.timestamp, &mut post);
        }
        let bytes = tag.body().len() as u64;
        if !is_video {
            self.window.audio_bytes += bytes;
            self.window.has_audio = true;
            return;
        }
        self.window.video_bytes += bytes;
        self.window.frames += 1;
        if tag.info.content == Content::Keyframe {
            let last = self.last_keyframe.replace(tag.timestamp);
            if let Some(last) = last {
                let interval = tag.timestamp.wrapping_sub(last);
                self.check(Quality::KeyframeInterval, interval.into(), &mut post);
            }
        }
    }

    /// Moves the clock on, and checks the figures of a window that is over.
    fn advance(&mut self, timestamp: u32, post: &mut impl FnMut(Verdict)) {
        let last = self.last.replace(timestamp);
        let is_next = last.is_some_and(|last| timestamp.wrapping_sub(last) < MAX_STEP);
        if !is_next {
            self.window = Window {
                start: timestamp,
                ..Window::default()
            };
            self.last_keyframe = None;
            return;
        }
        let elapsed = timestamp.wrapping_sub(self.window.start);
        if elapsed < WINDOW {
            return;
        }
        let next = Window {
            start: timestamp,
            ..Window::default()
        };
        let window = std::mem::replace(&mut self.window, next);
        let rate = |count: u64| count * 1000 / u64::from(elapsed);
        if self.has_frames {
            self.check(Quality::VideoBitrate, rate(window.video_bytes * 8), post);
            self.check(
                Quality::FrameRate,
                rate(u64::from(window.frames) * 1000),
                post,
            );
        }
        if window.has_audio {
            self.check(Quality::AudioBitrate, rate(window.audio_bytes * 8), post);
        }
        // The next keyframe may be long in coming.
        if let Some(last) = self.last_keyframe {
            let since = u64::from(timestamp.wrapping_sub(last));
            if matches!(
                self.limits.exceeded(Quality::KeyframeInterval, since),
                Some((_, false))
            ) {
                self.check(Quality::KeyframeInterval, since, post);
            }
        }
    }

    fn check(&mut self, quality: Quality, number: u64, post: &mut impl FnMut(Verdict)) {
        self.numbers[quality as usize] = Some(number);
        let low = &mut self.low[quality as usize];
        let exceeded = self.limits.exceeded(quality, number);
        self.is_changed |= exceeded.is_some() || low.is_some();
        match (exceeded, *low) {
            (Some((limit, is_min)), before) => {
                let verdict = Verdict {
                    quality,
                    number,
                    limit,
                    is_min,
                    is_low: true,
                };
                *low = Some(verdict);
                // A figure that changes sides is another verdict.
                if before.is_none_or(|before| before.is_min != is_min) {
                    post(verdict);
                }
            }
            (None, Some(before)) => {
                *low = None;
                let range = self.limits.ranges[quality as usize];
                let limit = if before.is_min { range.min } else { range.max };
                post(Verdict {
                    number,
                    limit: limit.unwrap_or(before.limit),
                    is_low: false,
                    ..before
                });
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flv::config::AvcConfig;
    use crate::memory::Memory;

    fn limits(list: &[(&str, f64)]) -> QualityLimits {
        let mut limits = QualityLimits::default();
        for (name, figure) in list {
            limits.set(name, *figure).unwrap();
        }
        limits
    }

    fn tag(kind: TagKind, timestamp: u32, front: &[u8], length: usize) -> Tag {
        let mut body = front.to_vec();
        body.resize(length, 9);
        Tag::new(kind, timestamp, Memory::from_vec(body, 0)).unwrap()
    }

    /// Frames every `step` ms, of which each tenth is a keyframe.
    fn video(index: u32, step: u32, length: usize) -> Tag {
        let first = if index.is_multiple_of(10) { 0x17 } else { 0x27 };
        tag(TagKind::Video, index * step, &[first, 1, 0, 0, 0], length)
    }

    /// Returns name, figure and verdict of each change.
    fn verdicts(
        limits: QualityLimits,
        tags: impl IntoIterator<Item = Tag>,
    ) -> Vec<(String, f64, bool)> {
        let mut monitor = QualityMonitor::new(limits);
        let mut verdicts = Vec::new();
        for tag in tags {
            monitor.count(&tag, |verdict| {
                let figure = verdict.quality.figure(verdict.number);
                verdicts.push((verdict.limit_name(), figure, verdict.is_low));
            });
        }
        verdicts
    }

    #[test]
    fn video_is_not_measured_before_its_first_frame() {
        let limits = limits(&[("min-framerate", 24.0), ("min-video-bitrate", 40_000.0)]);
        let audio = (0..190).map(|index| tag(TagKind::Audio, index * 10, &[0xAF, 1], 50));
        let frames = (0..200).map(|index| {
            let first = if index % 10 == 0 { 0x17 } else { 0x27 };
            tag(TagKind::Video, 1900 + index * 40, &[first, 1, 0, 0, 0], 250)
        });
        assert_eq!(verdicts(limits, audio.chain(frames)), []);
    }

    #[test]
    fn figures_beyond_their_limits_are_low_until_they_are_within() {
        let limits = limits(&[("min-framerate", 20.0), ("max-video-bitrate", 100_000.0)]);
        // 25 fps of 50 kbit/s, then 10 fps of 200 kbit/s, then as before.
        let mut tags: Vec<Tag> = (0..101).map(|index| video(index, 40, 250)).collect();
        let at = |index: u32, time: u32, length| {
            tag(
                TagKind::Video,
                4000 + time,
                &[
                    if index.is_multiple_of(10) { 0x17 } else { 0x27 },
                    1,
                    0,
                    0,
                    0,
                ],
                length,
            )
        };
        tags.extend((1..51).map(|index| at(index, index * 100, 2500)));
        tags.extend((1..101).map(|index| at(index, 5000 + index * 40, 250)));
        let got = verdicts(limits, tags);
        let names: Vec<(&str, bool)> = got.iter().map(|(name, _, low)| (&name[..], *low)).collect();
        let expected = [
            ("max-video-bitrate", true),
            ("min-framerate", true),
            ("max-video-bitrate", false),
            ("min-framerate", false),
        ];
        assert_eq!(names, expected);
        // A window of 2 s starts with the frame that ended the one before.
        assert!((190_000.0..=200_000.0).contains(&got[0].1), "{got:?}");
        assert!((9.5..=10.5).contains(&got[1].1), "{got:?}");
        assert!((24.0..=25.5).contains(&got[3].1), "{got:?}");
    }

    #[test]
    fn keyframe_interval_is_low_before_the_next_keyframe() {
        let limits = limits(&[("max-keyframe-interval", 2000.0)]);
        let frame = |time: u32, is_key| {
            tag(
                TagKind::Video,
                time,
                &[if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0],
                100,
            )
        };
        let tags = (0..=100).map(|index| frame(index * 100, matches!(index, 0 | 20 | 80 | 90)));
        let got = verdicts(limits, tags);
        let name = || "max-keyframe-interval".to_owned();
        // Windows end each 2 s.
        assert_eq!(got, [(name(), 4000.0, true), (name(), 1000.0, false)]);
    }

    #[test]
    fn size_is_judged_by_the_sequence_header() {
        let sps = [0x67, 0x42, 0xC0, 0x1E, 0xDA, 0x02, 0x80, 0xB6, 0x40];
        let record = [
            &[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 9][..],
            &sps,
            &[1, 0, 2, 0x68, 4],
        ]
        .concat();
        let dimensions = AvcConfig::parse(&record)
            .and_then(|config| config.dimensions)
            .unwrap();
        let header = tag(
            TagKind::Video,
            0,
            &[&[0x17, 0, 0, 0, 0][..], &record].concat(),
            5 + record.len(),
        );
        let width = f64::from(dimensions.width);
        let got = verdicts(
            limits(&[("max-width", width - 1.0), ("max-height", 10_000.0)]),
            [header],
        );
        assert_eq!(got, [("max-width".to_owned(), width, true)]);
    }

    #[test]
    fn audio_alone_is_measured_by_its_own_clock() {
        let limits = limits(&[("min-audio-bitrate", 64_000.0), ("min-framerate", 20.0)]);
        let tags = (0..500).map(|index| tag(TagKind::Audio, index * 20, &[0xAF, 1], 80));
        let got = verdicts(limits, tags);
        assert_eq!(got.len(), 1);
        assert_eq!((&got[0].0[..], got[0].2), ("min-audio-bitrate", true));
    }

    #[test]
    fn jumps_of_the_clock_are_no_verdict() {
        let limits = limits(&[("max-keyframe-interval", 2000.0), ("min-framerate", 20.0)]);
        let times = [0, 40, 80, 4_000_000, 4_000_040, 10, 50];
        let tags = times.map(|time| tag(TagKind::Video, time, &[0x17, 1, 0, 0, 0], 100));
        assert_eq!(verdicts(limits, tags), []);
    }

    #[test]
    fn other_tracks_are_not_judged() {
        let limits = limits(&[("min-framerate", 20.0), ("max-video-bitrate", 60_000.0)]);
        let body = [0x80 | 0x10 | 6, 0x01, b'a', b'v', b'c', b'1', 1, 0, 0, 0];
        let tags = (0..200).flat_map(|index| {
            // A second track with ten times the bytes, in tags of its own.
            let second = tag(TagKind::Video, index * 40, &body, 2000);
            assert_eq!(second.info.track, 1);
            [video(index, 40, 200), second]
        });
        assert_eq!(verdicts(limits, tags), []);
    }

    #[test]
    fn new_limits_judge_the_last_figures() {
        let mut monitor = QualityMonitor::new(limits(&[("min-framerate", 30.0)]));
        (0..60).for_each(|index| monitor.count(&video(index, 40, 250), |_| {}));
        assert!(monitor.take_low().unwrap()[Quality::FrameRate as usize].is_some());
        let mut changed = |list: &[(&str, f64)]| {
            let mut verdicts = Vec::new();
            monitor.set_limits(limits(list), |verdict| {
                verdicts.push((verdict.limit_name(), verdict.is_low));
            });
            let low = monitor.take_low().unwrap_or_default();
            (verdicts, low.iter().flatten().count())
        };
        let is = |name: &str, is_low| vec![(name.to_owned(), is_low)];
        // Still low, within its limit, low by another one, and without a limit.
        assert_eq!(changed(&[("min-framerate", 26.0)]), (vec![], 1));
        let restored = (is("min-framerate", false), 0);
        assert_eq!(changed(&[("min-framerate", 24.0)]), restored);
        let low = (is("max-framerate", true), 1);
        assert_eq!(changed(&[("max-framerate", 20.0)]), low);
        assert_eq!(changed(&[]), (is("max-framerate", false), 0));
    }

    #[test]
    fn low_figures_are_read_once_for_each_change() {
        let limits = limits(&[("min-framerate", 20.0)]);
        let mut monitor = QualityMonitor::new(limits);
        let mut posted = 0;
        let mut count = |monitor: &mut QualityMonitor, index| {
            monitor.count(&video(index, 100, 200), |_| posted += 1);
        };
        (0..20).for_each(|index| count(&mut monitor, index));
        assert_eq!(monitor.take_low(), None);
        count(&mut monitor, 20);
        let low = monitor.take_low().unwrap();
        let verdict = low[Quality::FrameRate as usize].unwrap();
        assert_eq!(
            (verdict.number, verdict.limit, verdict.is_min),
            (10_000, 20_000, true)
        );
        assert_eq!(monitor.take_low(), None);
        (21..41).for_each(|index| count(&mut monitor, index));
        // Measured again, and no other verdict.
        assert!(monitor.take_low().is_some());
        assert_eq!(posted, 1);
    }

    #[test]
    fn bad_limits_are_errors_that_name_the_good_ones() {
        let set = |name: &str, figure| QualityLimits::default().set(name, figure);
        assert!(set("framerate", 1.0).unwrap_err().contains("min- or max-"));
        assert!(
            set("min-colour", 1.0)
                .unwrap_err()
                .contains("video-bitrate")
        );
        for figure in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(set("min-width", figure).unwrap_err().contains("min-width"));
        }
        let mut limits = limits(&[("min-width", 640.0)]);
        assert!(
            limits
                .set("max-width", 320.0)
                .unwrap_err()
                .contains("above")
        );
        assert!(!limits.is_empty());
    }
}
