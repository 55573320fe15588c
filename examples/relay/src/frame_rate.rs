// SPDX-License-Identifier: MPL-2.0

//! Converts pictures and sound at the times of a publisher to 30 pictures and 48,000 samples per
//! second.
//!
//! It has neither I/O nor a clock: the output depends on the input and its times alone. Each
//! picture is shown until the next one; a picture whose place is taken is dropped. Sound is moved
//! by inaudible amounts only; beyond that, silence is inserted or removed. Neither of the two is
//! ever far behind the other, so that a muxer need not wait for a track that has stopped.

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

/// Seconds that pictures may be behind sound, and sound behind pictures.
const MAX_LAG: i64 = 1;

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
pub enum Output<P> {
    /// A picture and its place.
    Picture(P, u64),
    /// Samples, and the number of the first one.
    Sound(Vec<u8>, u64),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
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
    /// Sound that came before it was known whether there are pictures.
    held: Vec<(i64, Vec<u8>)>,
    out: Vec<Output<P>>,
    counts: Counts,
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
            held: Vec::new(),
            out: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl<P: Clone> FrameRateConverter<P> {
    /// Announces that pictures will come.
    pub fn expect_pictures(&mut self) {
        self.has_pictures = true;
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the output so far, in order.
    pub fn take(&mut self) -> Vec<Output<P>> {
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
            self.leave_out(time);
            at = self.places(time);
        }
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
        self.out.push(Output::Picture(picture, self.place as u64));
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
            self.leave_out(time);
            ahead = self.ahead(time);
        }
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
            self.out.push(Output::Sound(samples, self.sample as u64));
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

    fn keep_sound_up(&mut self) {
        self.keep_up_to(self.picture_sample() - MAX_LAG * RATE);
    }

    fn keep_pictures_up(&mut self) {
        while self.last.is_some() && self.picture_sample() + MAX_LAG * RATE < self.sample {
            self.repeat();
        }
    }

    /// Leaves a gap out: the next media is at this time, and continues from the end of a segment.
    fn leave_out(&mut self, time: i64) {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    fn pictures(out: &[Output<u32>]) -> Vec<(u32, u64)> {
        let of = |output: &Output<u32>| match output {
            Output::Picture(picture, place) => Some((*picture, *place)),
            Output::Sound(..) => None,
        };
        out.iter().filter_map(of).collect()
    }

    /// Returns the number of samples; asserts that each output continues the one before.
    fn samples(out: &[Output<u32>]) -> i64 {
        let (mut first, mut next) = (None, 0);
        for output in out {
            if let Output::Sound(samples, at) = output {
                let at = *at as i64;
                assert_eq!(at, *first.get_or_insert(at) + next);
                next += samples.len() as i64 / FRAME;
            }
        }
        next
    }

    fn first_sample(out: &[Output<u32>]) -> i64 {
        let of = |output: &Output<u32>| match output {
            Output::Sound(_, at) => Some(*at as i64),
            Output::Picture(..) => None,
        };
        out.iter().find_map(of).unwrap_or(0)
    }

    fn tone(ms: i64) -> Vec<u8> {
        vec![1; (ms * RATE / 1000 * FRAME) as usize]
    }

    #[test]
    fn a_steady_publisher_passes() {
        let mut cadence = FrameRateConverter::default();
        for index in 0..300 {
            // Rounded as in FLV.
            let time = (index * 1000 + 500) / 30 * MS;
            cadence.picture(time, index as u32, false);
        }
        let out = cadence.take();
        let expected: Vec<_> = (0..300).map(|index| (index as u32, index)).collect();
        assert_eq!(pictures(&out), expected);
        assert_eq!(cadence.counts().duplicated + cadence.counts().dropped, 0);
    }

    #[test]
    fn a_slow_one_is_repeated_and_a_fast_one_thinned_out() {
        let mut cadence = FrameRateConverter::default();
        for index in 0..10 {
            cadence.picture(5 * SECOND + index * SECOND / 10, index as u32, false);
        }
        assert_eq!(pictures(&cadence.take()).len(), 28);
        let mut cadence = FrameRateConverter::default();
        for index in 0..120 {
            cadence.picture(index * SECOND / 60, index as u32, false);
        }
        let count = pictures(&cadence.take()).len();
        assert!((60..=62).contains(&count), "{count}");
    }

    #[test]
    fn a_gap_is_filled_only_if_it_is_short() {
        let mut cadence = FrameRateConverter::default();
        cadence.picture(0, 1, false);
        cadence.picture(2 * SECOND, 2, false);
        assert_eq!(pictures(&cadence.take()).len(), 61);
        cadence.picture(60 * SECOND, 3, false);
        let out = pictures(&cadence.take());
        // The segment is filled up, and the next one starts with the new picture.
        assert_eq!(out.last(), Some(&(3, 120)));
        assert_eq!(out.len(), 60);
        cadence.picture(60 * SECOND + SECOND / 30, 4, false);
        assert_eq!(pictures(&cadence.take()), [(4, 121)]);
        // A clock that goes far back has been set.
        cadence.picture(0, 5, false);
        assert_eq!(pictures(&cadence.take()).last(), Some(&(5, 180)));
    }

    #[test]
    fn the_end_fills_a_segment_with_both() {
        let mut cadence = FrameRateConverter::default();
        cadence.expect_pictures();
        cadence.sound(0, tone(100));
        cadence.picture(50 * MS, 1, false);
        cadence.picture(550 * MS, 1, false);
        cadence.finish();
        let out = cadence.take();
        assert_eq!(pictures(&out).len(), 60);
        assert_eq!(samples(&out), 2 * RATE);
        cadence.finish();
        assert!(cadence.take().is_empty(), "nothing is added twice");
    }

    #[test]
    fn a_moment_is_not_worth_a_segment() {
        let mut cadence = FrameRateConverter::default();
        cadence.picture(0, 1, false);
        cadence.picture(100 * MS, 1, false);
        cadence.finish();
        assert_eq!(pictures(&cadence.take()).len(), 4);
    }

    #[test]
    fn sound_of_before_the_first_picture_is_left_out() {
        let mut cadence = FrameRateConverter::<u32>::default();
        cadence.expect_pictures();
        for index in 0..40 {
            cadence.sound(index * 100 * MS, tone(100));
        }
        assert!(cadence.take().is_empty());
        cadence.picture(3 * SECOND, 1, false);
        assert_eq!(samples(&cadence.take()), RATE);
    }

    #[test]
    fn sound_that_begins_shortly_before_the_first_picture_is_not_moved() {
        // The samples contain their time.
        let moments = |from: i64, count: i64| -> Vec<u8> {
            let moments = (from..from + count).map(|moment| moment as i32);
            moments.flat_map(i32::to_le_bytes).collect()
        };
        for early in [1, 500, 1024, SLACK, 3000, 5 * RATE] {
            let mut cadence = FrameRateConverter::<u32>::default();
            cadence.expect_pictures();
            let zero = 20 * SECOND;
            for index in 0..250 {
                let from = index * 1024 - early;
                // Late enough for earlier ones to have been held.
                if from >= 0 && cadence.zero.is_none() {
                    cadence.picture(zero, 1, false);
                }
                let time = zero + (from * SECOND).div_euclid(RATE);
                cadence.sound(time, moments(from, 1024));
            }
            let out = cadence.take();
            let (first, bytes) = out
                .iter()
                .find_map(|output| match output {
                    Output::Sound(samples, at) => Some((*at as i32, samples)),
                    Output::Picture(..) => None,
                })
                .unwrap();
            let heard = i32::from_le_bytes(bytes[..4].try_into().unwrap());
            // Times are in nanoseconds, and samples are not.
            assert!((first - heard).abs() <= 1, "{heard} at {first}, {early}");
            assert!(first < 1024);
        }
    }

    #[test]
    fn sound_that_jitters_stays_as_it_is() {
        let mut cadence = FrameRateConverter::<u32>::default();
        cadence.picture(0, 1, false);
        for index in 0..40 {
            let jitter = [0, 30, -30, 39, -39][index as usize % 5];
            cadence.sound((index * 20 + jitter) * MS, tone(20));
        }
        let out = cadence.take();
        let heard =
            |output: &Output<u32>| matches!(output, Output::Sound(bytes, _) if *bytes == tone(20));
        let count = out.iter().filter(|output| heard(output)).count();
        assert_eq!((count, samples(&out)), (40, 40 * RATE / 50));
    }

    #[test]
    fn sound_that_is_over_before_the_first_picture_is_none() {
        let mut cadence = FrameRateConverter::<u32>::default();
        cadence.picture(SECOND, 1, false);
        cadence.sound(SECOND - 30 * MS, tone(20));
        assert_eq!(samples(&cadence.take()), 0);
        assert!(!cadence.has_sound);
        cadence.sound(SECOND - 10 * MS, tone(20));
        let out = cadence.take();
        assert_eq!((first_sample(&out), samples(&out)), (0, RATE / 100));
    }

    #[test]
    fn sound_alone_starts_after_two_seconds_and_pictures_may_still_come() {
        let mut cadence = FrameRateConverter::<u32>::default();
        for index in 0..=20 {
            assert!(cadence.take().is_empty());
            cadence.sound(SECOND + index * 100 * MS, tone(100));
        }
        assert_eq!(samples(&cadence.take()), 21 * RATE / 10);
        cadence.picture(SECOND + 2_100 * MS, 7, false);
        assert_eq!(pictures(&cadence.take()), [(7, 63)]);
        cadence.picture(SECOND + 2_600 * MS, 8, false);
        cadence.finish();
        assert_eq!(pictures(&cadence.take()).len(), 59);
    }

    #[test]
    fn sound_that_comes_late_starts_there() {
        let mut cadence = FrameRateConverter::default();
        for index in 0..300 {
            cadence.picture(index * SECOND / 30, 1, false);
        }
        cadence.sound(10 * SECOND - 50 * MS, tone(100));
        let out = cadence.take();
        assert_eq!(first_sample(&out), 10 * RATE - RATE / 20);
        assert_eq!(samples(&out), RATE / 10);
        assert_eq!(pictures(&out).len(), 300);
    }

    #[test]
    fn neither_waits_for_the_other() {
        let mut cadence = FrameRateConverter::default();
        cadence.picture(0, 1, false);
        cadence.sound(0, tone(20));
        for index in 1..=100 {
            cadence.sound(index * 100 * MS, tone(100));
        }
        let out = cadence.take();
        assert_eq!(samples(&out), 101 * RATE / 10);
        assert_eq!(pictures(&out).len(), 273);
        for index in 0..300 {
            cadence.picture(10 * SECOND + index * SECOND / 30, 2, false);
        }
        let silence: i64 = cadence
            .take()
            .iter()
            .map(|output| match output {
                Output::Sound(samples, _) => samples.len() as i64 / FRAME,
                Output::Picture(..) => 0,
            })
            .sum();
        assert!((RATE * 8..RATE * 9).contains(&silence), "{silence}");
    }

    #[test]
    fn under_pressure_the_last_picture_stays() {
        let mut cadence = FrameRateConverter::default();
        for index in 0..30 {
            cadence.picture(index * SECOND / 30, index as u32, index > 0);
        }
        let out = pictures(&cadence.take());
        assert!(out.iter().all(|(picture, _)| *picture == 0));
        assert_eq!(out.len(), 30);
        assert_eq!(cadence.counts().dropped, 29);
    }

    #[test]
    fn ten_years_go_by() {
        let seconds = 10 * 366 * 86_400;
        assert_eq!(convert(seconds * SECOND, RATE, SECOND), seconds * RATE);
        assert_eq!(convert(seconds * RATE, SECOND, RATE), seconds * SECOND);
        assert_eq!(convert(-seconds * RATE, SECOND, RATE), -seconds * SECOND);
        assert_eq!(convert(i64::MIN, SECOND, 1), i64::MIN);
        // Pictures and sound that have gone on for a while, and then have a gap.
        let mut cadence = FrameRateConverter {
            zero: Some(0),
            last: Some(1),
            place: seconds * PICTURES,
            sample: seconds * RATE,
            has_pictures: true,
            has_sound: true,
            ..FrameRateConverter::default()
        };
        let gap = seconds + 100;
        cadence.picture(seconds * SECOND, 2, false);
        cadence.picture(gap * SECOND, 3, false);
        cadence.sound(gap * SECOND, tone(100));
        let out = cadence.take();
        let places = pictures(&out);
        assert_eq!(places[0], (2, (seconds * PICTURES) as u64));
        let last = places[places.len() - 1];
        assert_eq!((last.0, last.1 % 60, places.len()), (3, 0, 61));
        assert_eq!(first_sample(&out), seconds * RATE);
        // Sound alone.
        let mut cadence = FrameRateConverter::<u32> {
            zero: Some(0),
            sample: seconds * RATE,
            has_sound: true,
            ..FrameRateConverter::default()
        };
        cadence.sound(gap * SECOND, tone(100));
        assert_eq!(samples(&cadence.take()), RATE / 10);
        assert_eq!(cadence.ahead(gap * SECOND), -RATE / 10);
    }

    proptest! {
        /// With any times, places and samples are consecutive, and the end is that of a segment.
        #[test]
        fn there_are_no_holes(
            steps in prop::collection::vec((any::<bool>(), -5_000..8_000i64), 1..200),
        ) {
            let mut cadence = FrameRateConverter::default();
            let mut time = 0;
            for (is_picture, step) in steps {
                time += step / 16 * MS * if step % 50 == 0 { 100 } else { 1 };
                match is_picture {
                    true => cadence.picture(time, 0u32, false),
                    false => cadence.sound(time, tone(20)),
                }
            }
            cadence.finish();
            let out = cadence.take();
            let first = pictures(&out).first().map_or(0, |(_, place)| *place);
            for (index, (_, place)) in pictures(&out).iter().enumerate() {
                prop_assert_eq!(*place, first + index as u64);
            }
            let is_whole = pictures(&out).len().is_multiple_of(FRAMES);
            prop_assert!(is_whole || pictures(&out).len() < MIN_PICTURES as usize);
            let heard = samples(&out);
            if is_whole && heard > 0 && !pictures(&out).is_empty() {
                let seen = (first as i64 + pictures(&out).len() as i64) * RATE / PICTURES;
                let left = first_sample(&out) + heard - seen;
                prop_assert!((0..=MAX_SOUND_LEFT).contains(&left), "{}", left);
            }
        }
    }
}
