// SPDX-License-Identifier: MPL-2.0

use crate::flv::{Content, TagInfo};
use crate::server::stats::FrameStats;

/// Length of a window of counting, in milliseconds of media.
const FRAME_WINDOW: u32 = 1000;

/// Longest time between two consecutive frames, in milliseconds. A longer one is a jump.
const MAX_FRAME_STEP: u32 = 10_000;

/// Nanoseconds in a millisecond.
const MILLI: i64 = 1_000_000;

/// Measures frame rate, keyframe distance and B-frames by the publisher's timestamps, which neither the
/// network nor this machine changes.
#[derive(Debug, Default)]
pub(crate) struct FrameMeter {
    /// The measured track: the first one that arrives.
    track: Option<u8>,
    last: Option<u32>,
    window: Run,
    /// A whole window has been measured.
    has_rate: bool,
    /// Frames since the last keyframe.
    gop: Option<Run>,
    /// Latest presentation time so far. None while no frame has a composition time.
    latest: Option<u32>,
    stats: FrameStats,
}

/// Consecutive frames.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    start: u32,
    frames: u32,
    b_frames: u32,
}

impl Run {
    fn from(timestamp: u32) -> Self {
        Run {
            start: timestamp,
            frames: 1,
            b_frames: 0,
        }
    }

    fn millis_to(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_sub(self.start)
    }
}

impl FrameMeter {
    pub(crate) fn stats(&self) -> FrameStats {
        self.stats
    }

    pub(crate) fn count(&mut self, frame: &TagInfo, track: u8, timestamp: u32) {
        if *self.track.get_or_insert(track) != track {
            return;
        }
        let is_keyframe = frame.content == Content::Keyframe;
        let last = self.last.replace(timestamp);
        // Consecutive, and without a jump of the clock.
        if last.is_some_and(|last| timestamp.wrapping_sub(last) < MAX_FRAME_STEP) {
            self.continue_run(timestamp, is_keyframe);
        } else {
            self.window = Run::from(timestamp);
            self.gop = is_keyframe.then(|| Run::from(timestamp));
            self.latest = None;
        }
        if frame.composition_time != 0 || self.latest.is_some() {
            self.note_presentation(timestamp, frame.composition_time);
        }
    }

    /// Counts a frame that is shown before one that came earlier.
    fn note_presentation(&mut self, timestamp: u32, composition_time: i64) {
        let time = timestamp.wrapping_add((composition_time / MILLI) as u32);
        let ahead = self
            .latest
            .map_or(0, |latest| time.wrapping_sub(latest) as i32);
        if ahead >= 0 {
            self.latest = Some(time);
        } else if let Some(gop) = &mut self.gop {
            gop.b_frames = gop.b_frames.saturating_add(1);
        }
    }

    fn continue_run(&mut self, timestamp: u32, is_keyframe: bool) {
        let elapsed = self.window.millis_to(timestamp);
        let is_whole = elapsed >= FRAME_WINDOW;
        // Within the first second the rate is that of the part so far.
        if is_whole || !self.has_rate {
            self.stats.rate = (self.window.frames, elapsed);
        }
        if is_whole {
            self.has_rate = true;
            self.window = Run::from(timestamp);
        } else {
            self.window.frames = self.window.frames.saturating_add(1);
        }
        if is_keyframe {
            if let Some(gop) = self.gop.replace(Run::from(timestamp)) {
                self.stats.gop_length = gop.frames;
                self.stats.b_frames = gop.b_frames;
                self.stats.gop_millis = gop.millis_to(timestamp);
            }
        } else if let Some(gop) = &mut self.gop {
            gop.frames = gop.frames.saturating_add(1);
        }
    }
}

#[cfg(test)]
fn frame(is_keyframe: bool) -> TagInfo {
    TagInfo {
        content: match is_keyframe {
            true => Content::Keyframe,
            false => Content::Frame,
        },
        track: 0,
        composition_time: 0,
    }
}

/// Returns the stats after frames every 40 ms, each tenth a keyframe.
#[cfg(test)]
fn after(meter: &mut FrameMeter, start: u32, frames: u32) -> FrameStats {
    for index in 0..frames {
        let timestamp = start.wrapping_add(40 * index);
        meter.count(&frame(index % 10 == 0), 0, timestamp);
    }
    meter.stats()
}

#[test]
fn frames_are_counted_by_their_own_times() {
    let mut meter = FrameMeter::default();
    assert_eq!(after(&mut meter, 7, 1), FrameStats::default());
    let mut meter = FrameMeter::default();
    let stats = after(&mut meter, 7, 10);
    assert_eq!((stats.rate, stats.gop_length), ((9, 360), 0));
    // Also where timestamps wrap.
    let mut meter = FrameMeter::default();
    let stats = after(&mut meter, u32::MAX - 500, 40);
    assert_eq!((stats.rate, stats.frames_per_second()), ((25, 1000), 25.0));
    assert_eq!((stats.gop_length, stats.gop_millis), (10, 400));
    // Another track is another stream.
    meter.count(&frame(true), 1, 3_000_000);
    assert_eq!(meter.stats(), stats);
}

#[test]
fn clock_jumps_end_no_group_of_pictures() {
    let mut meter = FrameMeter::default();
    let before = after(&mut meter, 100_000, 25);
    for (timestamp, is_keyframe) in [(0, false), (40, true), (80, false), (90_000, true)] {
        meter.count(&frame(is_keyframe), 0, timestamp);
        assert_eq!(meter.stats().gop_length, before.gop_length);
        assert_eq!(meter.stats().gop_millis, before.gop_millis);
    }
    meter.count(&frame(true), 0, 90_040);
    assert_eq!(
        (meter.stats().gop_length, meter.stats().gop_millis),
        (1, 40)
    );
}

#[test]
fn b_frames_are_those_shown_before_earlier_ones() {
    // Composition times of a group of pictures in units of frames, and its B-frames.
    let cases: [(&[i64], u32); 5] = [
        (&[0, 0, 0, 0, 0, 0], 0),
        // A constant delay.
        (&[2, 2, 2, 2, 2, 2], 0),
        // I P B P B, with one frame of delay.
        (&[1, 2, 0, 2, 0, 1], 2),
        // I P B b b, a pyramid.
        (&[2, 5, 2, 0, 1, 2], 3),
        // Negative, as some cameras have them.
        (&[0, 1, -1, 1, -1, 0], 2),
    ];
    for (offsets, expected) in cases {
        let mut meter = FrameMeter::default();
        for index in 0..13 {
            let position = index % offsets.len();
            let info = TagInfo {
                composition_time: offsets[position] * 40 * MILLI,
                ..frame(position == 0)
            };
            // Also where timestamps wrap.
            let timestamp = (u32::MAX - 300).wrapping_add(40 * index as u32);
            meter.count(&info, 0, timestamp);
        }
        assert_eq!(meter.stats().b_frames, expected, "{offsets:?}");
    }
}
