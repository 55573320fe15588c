// SPDX-License-Identifier: MPL-2.0

//! Converts pictures and sound at the times of a publisher to 30 pictures and 48,000 samples per
//! second.
//!
//! It has neither I/O nor a clock: the output depends on the input and its times alone. Each
//! picture is shown until the next one; a picture whose place is taken is dropped. Sound is moved
//! by inaudible amounts only; beyond that, silence is inserted or removed. A track that has stopped
//! is never far behind the other, so that a muxer need not wait for it. One that comes late loses
//! nothing.

use crate::lag::TrackLag;
use crate::segmenter::FRAMES;

/// Converts a count of units, `from` of which are as long as `to` of the result's. Nanoseconds
/// times samples exceed 64 bits after two days; this holds over ten years too.
pub fn convert(count: i64, to: i64, from: i64) -> i64 {
    let converted = i128::from(count) * i128::from(to) / i128::from(from);
    let limit = if converted < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(converted).unwrap_or(limit)
}

/// Samples per second.
pub const RATE: i64 = 48_000;

/// Pictures per second.
pub const PICTURES: i64 = 30;

pub const SECOND: i64 = 1_000_000_000;

/// Thousandths of a picture's place: the unit of times in here.
const MILLI: i64 = 1_000;

/// Thousandths of a place that a picture may be early: publishers round their timestamps, and
/// networks and cameras jitter.
const EARLY: i64 = 750;

/// Samples that the time between two pieces of sound may be off without a correction: 40 ms.
const SLACK: i64 = RATE / 25;

/// Seconds of missing media that are filled. A longer gap is left out: no segment consists of one
/// picture only because no publisher was there.
const MAX_FILL: i64 = 3;

/// Samples that may be left over after the last segment.
const MAX_SOUND_LEFT: i64 = RATE / 2;

/// Seconds of sound without pictures after which the stream counts as one without pictures.
const SOUND_ALONE: i64 = 2;

/// The same in seconds where pictures are known to come, and none has been decoded.
const PICTURES_MISSING: i64 = 10;

/// Pictures that are worth a segment.
const MIN_PICTURES: u64 = 15;

/// A picture or a piece of sound, ready to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Converted<P> {
    /// A picture and its place.
    Picture(P, u64),
    /// Samples, and the number of the first one.
    Sound(Vec<u8>, u64),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    pub pictures_in: u64,
    pub pictures_out: u64,
    pub duplicated: u64,
    pub dropped: u64,
}

#[derive(Debug)]
pub struct FrameRateConverter<P> {
    /// The time of the first picture and sample, moved where a gap was left out.
    zero: Option<i64>,
    last: Option<P>,
    /// The next place of a picture, and the next sample.
    place: i64,
    sample: i64,
    has_pictures: bool,
    has_sound: bool,
    picture_lag: TrackLag,
    sound_lag: TrackLag,
    /// Sound that came before it was known whether there are pictures.
    held: Vec<(i64, Vec<u8>)>,
    out: Vec<Converted<P>>,
    counts: FrameCounts,
}

/// Bytes per sample: two channels of 16 bits.
const FRAME: i64 = 4;

impl<P: Clone> Default for FrameRateConverter<P> {
    fn default() -> Self {
        FrameRateConverter {
            zero: None,
            last: None,
            place: 0,
            sample: 0,
            has_pictures: false,
            has_sound: false,
            picture_lag: TrackLag::default(),
            sound_lag: TrackLag::default(),
            held: Vec::new(),
            out: Vec::new(),
            counts: FrameCounts::default(),
        }
    }
}

impl<P: Clone> FrameRateConverter<P> {
    /// Announces that pictures will come.
    pub fn expect_pictures(&mut self) {
        self.has_pictures = true;
    }

    pub fn counts(&self) -> FrameCounts {
        self.counts
    }

    /// Returns the output so far, in order.
    pub fn take(&mut self) -> Vec<Converted<P>> {
        std::mem::take(&mut self.out)
    }

    /// Accepts a picture and its time in nanoseconds. Under `pressure` the last picture takes its
    /// place, which costs an encoder next to nothing.
    pub fn picture(&mut self, time: i64, picture: P, pressure: bool) {
        self.has_pictures = true;
        self.counts.pictures_in += 1;
        if self.last.is_none() {
            self.first_picture(time);
        }
        let mut at = self.places(time);
        if (at - self.place * MILLI).abs() > MAX_FILL * PICTURES * MILLI {
            self.skip_gap(time);
            at = self.places(time);
        }
        let position = convert(at, RATE / PICTURES, MILLI);
        self.picture_lag.hear(position, self.sample);
        while self.last.is_some() && self.place * MILLI + MILLI / 2 < at {
            self.repeat();
            self.keep_sound_up();
        }
        if at + EARLY < self.place * MILLI {
            self.counts.dropped += 1;
        } else if pressure && self.last.is_some() {
            self.counts.dropped += 1;
            self.repeat();
        } else {
            self.last = Some(picture.clone());
            self.emit(picture);
        }
        self.keep_sound_up();
    }

    /// Accepts samples, two channels of 16 bits, and their time in nanoseconds.
    pub fn sound(&mut self, time: i64, samples: Vec<u8>) {
        if self.zero.is_none() {
            self.held.push((time, samples));
            let first = self.held.first().map_or(time, |(time, _)| *time);
            let patience = match self.has_pictures {
                true => PICTURES_MISSING,
                false => SOUND_ALONE,
            };
            if time - first >= patience * SECOND {
                self.start(first);
            }
            return;
        }
        self.place_sound(time, samples);
        self.keep_pictures_up();
    }

    /// Fills up the last segment, unless it is nearly empty and there is none before: a publisher
    /// that keeps restarting would make more segments than time passes.
    pub fn finish(&mut self) {
        if let (None, Some((first, _))) = (self.zero, self.held.first()) {
            self.start(*first);
        }
        if self.counts.pictures_out >= MIN_PICTURES {
            self.fill_segment();
        }
    }

    fn start(&mut self, time: i64) {
        self.zero = Some(time);
        for (at, samples) in std::mem::take(&mut self.held) {
            // Sound that ends before that is no gap, however long it is.
            let length = convert(samples.len() as i64 / FRAME, SECOND, RATE);
            if at.saturating_add(length) > time {
                self.place_sound(at, samples);
            }
        }
    }

    fn first_picture(&mut self, time: i64) {
        if self.zero.is_none() {
            return self.start(time);
        }
        // Sound has been alone so far. The places of pictures start here.
        self.place = (self.places(time) / MILLI).max(0);
    }

    /// Returns the time in thousandths of a place.
    fn places(&self, time: i64) -> i64 {
        let from_zero = time.saturating_sub(self.zero.unwrap_or(time));
        convert(from_zero, PICTURES * MILLI, SECOND)
    }

    fn emit(&mut self, picture: P) {
        self.out
            .push(Converted::Picture(picture, self.place as u64));
        self.place += 1;
        self.counts.pictures_out += 1;
    }

    fn repeat(&mut self) {
        if let Some(last) = self.last.clone() {
            self.counts.duplicated += 1;
            self.emit(last);
        }
    }

    fn place_sound(&mut self, time: i64, samples: Vec<u8>) {
        if !self.has_sound {
            // Sound may come late, and starts then.
            self.sample = self.picture_sample();
        }
        let mut ahead = self.ahead(time);
        if ahead.abs() > MAX_FILL * RATE {
            self.skip_gap(time);
            ahead = self.ahead(time);
        }
        let position = self.sample + ahead;
        self.sound_lag.hear(position, self.picture_sample());
        let mut slack = SLACK;
        if !self.has_sound {
            let first = (self.sample + ahead).max(0);
            ahead += self.sample - first;
            self.sample = first;
            // All later sound continues from it, and would be late by as much.
            slack = 0;
        }
        let mut samples = samples;
        if ahead < -slack {
            let late = usize::try_from(-ahead * FRAME).unwrap_or(0);
            samples.drain(..late.min(samples.len()));
        }
        if samples.is_empty() {
            return;
        }
        self.has_sound = true;
        if ahead > slack {
            self.silence(ahead);
        }
        self.emit_sound(samples);
    }

    /// Returns the samples by which this time is ahead of the next sample.
    fn ahead(&self, time: i64) -> i64 {
        let from_zero = time.saturating_sub(self.zero.unwrap_or(time));
        convert(from_zero, RATE, SECOND) - self.sample
    }

    fn emit_sound(&mut self, samples: Vec<u8>) {
        if !samples.is_empty() {
            let count = samples.len() as i64 / FRAME;
            self.out.push(Converted::Sound(samples, self.sample as u64));
            self.sample += count;
        }
    }

    fn silence(&mut self, count: i64) {
        let bytes = usize::try_from(count * FRAME).unwrap_or(0);
        self.emit_sound(vec![0; bytes]);
    }

    /// Returns the position of the pictures, in samples.
    fn picture_sample(&self) -> i64 {
        self.place * (RATE / PICTURES)
    }

    /// Fills sound up that has stopped.
    fn keep_sound_up(&mut self) {
        if let Some(end) = self.sound_lag.due(self.picture_sample())
            && self.sample < end
        {
            self.keep_up_to(end);
            self.sound_lag.fill(self.sample);
        }
    }

    /// Repeats the last picture where pictures have stopped.
    fn keep_pictures_up(&mut self) {
        let Some(end) = self.picture_lag.due(self.sample) else {
            return;
        };
        while self.last.is_some() && self.picture_sample() < end {
            self.repeat();
            self.picture_lag.fill(self.picture_sample());
        }
    }

    /// Leaves a gap out: the next media is at this time, and continues from the end of a segment.
    fn skip_gap(&mut self, time: i64) {
        self.fill_segment();
        let done = match self.last {
            Some(_) => convert(self.place, SECOND, PICTURES),
            None => convert(self.sample, SECOND, RATE),
        };
        self.zero = Some(time.saturating_sub(done));
    }

    fn fill_segment(&mut self) {
        if self.last.is_none() {
            return;
        }
        // Sound that is ahead by more than that needs pictures.
        let length = RATE / PICTURES;
        let place = match self.has_sound {
            true => (self.sample - MAX_SOUND_LEFT + length - 1) / length,
            false => 0,
        };
        // In step, since a muxer does not wait for long.
        while self.place < place || !self.counts.pictures_out.is_multiple_of(FRAMES as u64) {
            self.repeat();
            self.keep_up_to(self.picture_sample());
        }
        self.keep_up_to(self.picture_sample());
    }

    /// Fills pictures up to this sample, which sound has reached.
    fn keep_up_to(&mut self, sample: i64) {
        if self.has_sound && self.sample < sample {
            self.silence(sample - self.sample);
        }
    }
}

#[cfg(test)]
mod tests;
