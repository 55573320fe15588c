// SPDX-License-Identifier: MPL-2.0

//! Cuts coded pictures and sound into segments of 60 frames.
//!
//! It has neither I/O nor a clock. A run is a stretch of a stream from one source: the session of
//! one publisher, passed through or cleaned. Times go on over all runs, and so do the counters of
//! the transport stream, so that players which ignore discontinuities see none.

use std::collections::VecDeque;

use crate::ts::{CLOCK, Tracks, TsWriter};

/// Frames of each segment.
pub const FRAMES: usize = 60;

/// Ticks between frames.
pub const FRAME: u64 = CLOCK / 30;

/// Ticks of a segment.
pub const LENGTH: u64 = FRAMES as u64 * FRAME;

/// Frames for which a segment waits for its sound: more than it is ever late, as long as it is
/// encoded at all.
const MAX_FRAMES_WITHOUT_SOUND: usize = 90;

/// A coded picture or piece of sound. Times are ticks since the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    pub time: i64,
    /// Decoding can start here. Always true for sound.
    pub is_idr: bool,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub bytes: Vec<u8>,
    pub frames: u64,
    /// Duration in ticks.
    pub duration: u64,
    /// It does not continue the segment before.
    pub is_discontinuous: bool,
}

#[derive(Debug)]
pub struct Segmenter {
    writer: TsWriter,
    /// The start of the run.
    base: u64,
    /// The end of the last segment.
    end: u64,
    /// There is a segment.
    has_started: bool,
    is_discontinuous: bool,
    /// The tracks of the run, and those of the last segment.
    tracks: Tracks,
    written: Tracks,
    /// A segment is complete only when the picture after it starts the next one.
    needs_next: bool,
    pictures: VecDeque<AccessUnit>,
    sounds: VecDeque<AccessUnit>,
}

impl Segmenter {
    /// Times start as in a stream with so many segments before.
    pub fn new(segments: u64) -> Self {
        Segmenter {
            writer: TsWriter::default(),
            base: 0,
            // Sound may come before the first picture.
            end: (segments + 1) * LENGTH,
            has_started: false,
            is_discontinuous: false,
            tracks: Tracks::default(),
            written: Tracks::default(),
            needs_next: false,
            pictures: VecDeque::new(),
            sounds: VecDeque::new(),
        }
    }

    /// Starts a run where the last segment ended; leftovers are dropped. With `needs_next`, the
    /// groups of pictures are the publisher's, and each has to prove that it is complete.
    pub fn start_run(&mut self, needs_next: bool) {
        self.needs_next = needs_next;
        self.is_discontinuous = self.has_started;
        self.base = self.end;
        self.tracks = Tracks::default();
        self.pictures.clear();
        self.sounds.clear();
    }

    /// Announces pictures, which ends a segment of sound alone.
    pub fn expect_pictures(&mut self) -> Option<Segment> {
        let rest = self.sound_until(i64::MAX);
        self.tracks.video = true;
        rest
    }

    pub fn expect_sound(&mut self) {
        self.tracks.audio = true;
    }

    pub fn picture(&mut self, unit: AccessUnit) -> Option<Segment> {
        // No decoder could start with it.
        if !self.pictures.is_empty() || unit.is_idr {
            self.pictures.push_back(unit);
        }
        self.cut(false)
    }

    pub fn sound(&mut self, unit: AccessUnit) -> Option<Segment> {
        if unit.time < 0 {
            // An encoder's priming samples would overlap the end of the run before.
            return None;
        }
        self.sounds.push_back(unit);
        if self.tracks.video {
            return self.cut(false);
        }
        let start = self.sounds.front().map_or(0, |unit| unit.time);
        let last = self.sounds.back().map_or(0, |unit| unit.time);
        let limit = start + LENGTH as i64;
        if last < limit {
            return None;
        }
        self.sound_until(limit)
    }

    /// Returns complete segments, whether their sound is complete or not.
    pub fn take_complete(&mut self) -> Vec<Segment> {
        std::iter::from_fn(|| self.cut(true)).collect()
    }

    /// Returns the complete segments at the end of the run: no media follows.
    pub fn finish_run(&mut self) -> Vec<Segment> {
        self.needs_next = false;
        let mut segments = self.take_complete();
        segments.extend(self.sound_until(i64::MAX));
        segments
    }

    /// Returns a segment of sound alone.
    fn sound_until(&mut self, limit: i64) -> Option<Segment> {
        if self.tracks.video || self.sounds.is_empty() {
            return None;
        }
        let count = self.sounds.partition_point(|unit| unit.time < limit);
        let last = self.sounds.get(count.checked_sub(1)?)?.time;
        let next = self.sounds.get(count);
        // 1024 samples at 48 kHz.
        let end = next.map_or(last + 1920, |unit| unit.time);
        Some(self.write(0, count, end))
    }

    /// Returns a segment whose pictures are complete, once its sound is complete too or not awaited
    /// any more.
    fn cut(&mut self, is_end: bool) -> Option<Segment> {
        if self.pictures.len() < FRAMES + usize::from(self.needs_next) {
            return None;
        }
        let start = self.pictures.front()?.time;
        // The time of the next keyframe, which is where it belongs when nothing is amiss.
        let end = match self.pictures.get(FRAMES) {
            Some(next) => next.time,
            None => start + LENGTH as i64,
        };
        let has_sound = self.sounds.back().is_some_and(|unit| unit.time >= end);
        let waited = self.pictures.len() >= FRAMES + MAX_FRAMES_WITHOUT_SOUND;
        if self.tracks.audio && !has_sound && !waited && !is_end {
            return None;
        }
        let sounds = self.sounds.partition_point(|unit| unit.time < end);
        Some(self.write(FRAMES, sounds, end))
    }

    /// Writes so many pictures and pieces of sound, in the order of their times.
    fn write(&mut self, pictures: usize, sounds: usize, end: i64) -> Segment {
        let mut pictures = self.pictures.drain(..pictures).peekable();
        let mut sounds = self.sounds.drain(..sounds).peekable();
        let frames = pictures.len() as u64;
        let at = |unit: &AccessUnit| self.base.saturating_add_signed(unit.time);
        let first = [pictures.peek(), sounds.peek()];
        let start = match self.tracks.video {
            true => first[0].map_or(self.end, at),
            false => first[1].map_or(self.end, at),
        };
        let mut bytes = Vec::new();
        self.writer.tables(&mut bytes, self.tracks);
        loop {
            let is_sound = match (pictures.peek(), sounds.peek()) {
                (None, None) => break,
                (Some(picture), Some(sound)) => sound.time < picture.time,
                (picture, _) => picture.is_none(),
            };
            if is_sound && let Some(unit) = sounds.next() {
                self.writer.sound(&mut bytes, at(&unit), &unit.bytes);
            } else if let Some(unit) = pictures.next() {
                let time = at(&unit);
                self.writer
                    .picture(&mut bytes, time, unit.is_idr, &unit.bytes);
            }
        }
        drop((pictures, sounds));
        self.end = self.base.saturating_add_signed(end);
        let has_changed = self.written != Tracks::default() && self.written != self.tracks;
        self.written = self.tracks;
        self.has_started = true;
        Segment {
            bytes,
            frames,
            duration: self.end.saturating_sub(start),
            is_discontinuous: std::mem::take(&mut self.is_discontinuous) || has_changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(index: i64) -> AccessUnit {
        AccessUnit {
            time: index * FRAME as i64,
            is_idr: index % FRAMES as i64 == 0,
            bytes: vec![0, 0, 1, 9, 0xF0],
        }
    }

    fn sound(index: i64) -> AccessUnit {
        AccessUnit {
            time: index * 1920,
            is_idr: true,
            bytes: vec![0xFF, 0xF1],
        }
    }

    #[test]
    fn pictures_alone_are_cut_after_60() {
        let mut segmenter = Segmenter::new(4);
        segmenter.start_run(false);
        assert!(segmenter.expect_pictures().is_none());
        for index in 0..180 {
            let segment = segmenter.picture(picture(index));
            assert_eq!(segment.is_some(), index % 60 == 59, "{index}");
            if let Some(segment) = segment {
                assert_eq!((segment.frames, segment.duration), (60, LENGTH));
                assert!(!segment.is_discontinuous);
            }
        }
    }

    #[test]
    fn a_segment_waits_for_its_sound_with_a_limit() {
        let mut segmenter = Segmenter::new(4);
        segmenter.start_run(false);
        segmenter.expect_sound();
        segmenter.expect_pictures();
        for index in 0..60 {
            assert!(segmenter.picture(picture(index)).is_none());
        }
        let index = (0..200).position(|index| segmenter.sound(sound(index)).is_some());
        assert_eq!(
            index,
            Some(94),
            "the first sound that belongs to the next one"
        );
        let late = (60..).position(|index| segmenter.picture(picture(index)).is_some());
        assert_eq!(late, Some(FRAMES + MAX_FRAMES_WITHOUT_SOUND - 1));
    }

    #[test]
    fn runs_are_continuous_and_marked() {
        let mut segmenter = Segmenter::new(4);
        for run in 0..3 {
            segmenter.start_run(false);
            segmenter.expect_pictures();
            // The second run produces nothing complete.
            let frames = if run == 1 { 30 } else { 60 };
            let segments: Vec<_> = (0..frames)
                .filter_map(|index| segmenter.picture(picture(index)))
                .collect();
            assert_eq!(segments.len(), frames as usize / 60);
            for segment in segments {
                assert_eq!(segment.is_discontinuous, run > 0);
            }
            assert!(segmenter.finish_run().is_empty());
        }
        assert_eq!(segmenter.end, 7 * LENGTH);
    }

    #[test]
    fn sound_alone_is_cut_until_pictures_come() {
        let mut segmenter = Segmenter::new(4);
        segmenter.start_run(false);
        segmenter.expect_sound();
        let segments: Vec<_> = (0..210)
            .filter_map(|index| segmenter.sound(sound(index)))
            .collect();
        assert_eq!(segments.len(), 2);
        assert_eq!(segments[0].duration, 94 * 1920);
        let rest = segmenter.expect_pictures().unwrap();
        assert_eq!(rest.duration, (210 - 2 * 94) * 1920);
        let time = 210 * 1920;
        let last = (0..200).find_map(|index| {
            let mut unit = picture(index);
            unit.time += time;
            segmenter.picture(unit)
        });
        let last = last.unwrap();
        assert!(last.is_discontinuous, "other tracks");
        assert_eq!(last.frames, 60);
    }

    #[test]
    fn a_publishers_group_is_complete_when_the_next_one_starts() {
        let mut segmenter = Segmenter::new(4);
        segmenter.start_run(true);
        segmenter.expect_pictures();
        for index in 0..120 {
            assert_eq!(segmenter.picture(picture(index)).is_some(), index == 60);
        }
        assert!(segmenter.take_complete().is_empty());
        assert_eq!(segmenter.finish_run().len(), 1);
    }

    #[test]
    fn pictures_before_the_first_keyframe_are_dropped() {
        let mut segmenter = Segmenter::new(4);
        segmenter.start_run(false);
        segmenter.expect_pictures();
        for index in 1..60 {
            assert!(segmenter.picture(picture(index)).is_none());
        }
        assert!(segmenter.pictures.is_empty());
    }
}
