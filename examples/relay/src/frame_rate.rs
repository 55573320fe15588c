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

    fn keep_sound_up(&mut self) {
        self.keep_up_to(self.picture_sample() - MAX_LAG * RATE);
    }

    fn keep_pictures_up(&mut self) {
        while self.last.is_some() && self.picture_sample() + MAX_LAG * RATE < self.sample {
            self.repeat();
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    fn pictures(out: &[Converted<u32>]) -> Vec<(u32, u64)> {
        let of = |output: &Converted<u32>| match output {
            Converted::Picture(picture, place) => Some((*picture, *place)),
            Converted::Sound(..) => None,
        };
        out.iter().filter_map(of).collect()
    }

    /// Returns the number of samples; asserts that each output continues the one before.
    fn samples(out: &[Converted<u32>]) -> i64 {
        let (mut first, mut next) = (None, 0);
        for output in out {
            if let Converted::Sound(samples, at) = output {
                let at = *at as i64;
                assert_eq!(at, *first.get_or_insert(at) + next);
                next += samples.len() as i64 / FRAME;
            }
        }
        next
    }

    fn first_sample(out: &[Converted<u32>]) -> i64 {
        let of = |output: &Converted<u32>| match output {
            Converted::Sound(_, at) => Some(*at as i64),
            Converted::Picture(..) => None,
        };
        out.iter().find_map(of).unwrap_or(0)
    }

    fn tone(ms: i64) -> Vec<u8> {
        vec![1; (ms * RATE / 1000 * FRAME) as usize]
    }

    #[test]
    fn a_steady_publisher_passes_unchanged() {
        let mut converter = FrameRateConverter::default();
        for index in 0..300 {
            // Rounded as in FLV.
            let time = (index * 1000 + 500) / 30 * MS;
            converter.picture(time, index as u32, false);
        }
        let out = converter.take();
        let expected: Vec<_> = (0..300).map(|index| (index as u32, index)).collect();
        assert_eq!(pictures(&out), expected);
        assert_eq!(
            converter.counts().duplicated + converter.counts().dropped,
            0
        );
    }

    #[test]
    fn pictures_are_repeated_or_dropped_to_fit_the_rate() {
        let mut converter = FrameRateConverter::default();
        for index in 0..10 {
            converter.picture(5 * SECOND + index * SECOND / 10, index as u32, false);
        }
        assert_eq!(pictures(&converter.take()).len(), 28);
        let mut converter = FrameRateConverter::default();
        for index in 0..120 {
            converter.picture(index * SECOND / 60, index as u32, false);
        }
        let count = pictures(&converter.take()).len();
        assert!((60..=62).contains(&count), "{count}");
    }

    #[test]
    fn only_a_short_gap_is_filled() {
        let mut converter = FrameRateConverter::default();
        converter.picture(0, 1, false);
        converter.picture(2 * SECOND, 2, false);
        assert_eq!(pictures(&converter.take()).len(), 61);
        converter.picture(60 * SECOND, 3, false);
        let out = pictures(&converter.take());
        // The segment is filled up, and the next one starts with the new picture.
        assert_eq!(out.last(), Some(&(3, 120)));
        assert_eq!(out.len(), 60);
        converter.picture(60 * SECOND + SECOND / 30, 4, false);
        assert_eq!(pictures(&converter.take()), [(4, 121)]);
        // A clock that goes far back has been set.
        converter.picture(0, 5, false);
        assert_eq!(pictures(&converter.take()).last(), Some(&(5, 180)));
    }

    #[test]
    fn the_last_segment_is_filled_with_pictures_and_sound() {
        let mut converter = FrameRateConverter::default();
        converter.expect_pictures();
        converter.sound(0, tone(100));
        converter.picture(50 * MS, 1, false);
        converter.picture(550 * MS, 1, false);
        converter.finish();
        let out = converter.take();
        assert_eq!(pictures(&out).len(), 60);
        assert_eq!(samples(&out), 2 * RATE);
        converter.finish();
        assert!(converter.take().is_empty(), "nothing is added twice");
    }

    #[test]
    fn a_moment_of_media_makes_no_segment() {
        let mut converter = FrameRateConverter::default();
        converter.picture(0, 1, false);
        converter.picture(100 * MS, 1, false);
        converter.finish();
        assert_eq!(pictures(&converter.take()).len(), 4);
    }

    #[test]
    fn sound_before_the_first_picture_is_dropped() {
        let mut converter = FrameRateConverter::<u32>::default();
        converter.expect_pictures();
        for index in 0..40 {
            converter.sound(index * 100 * MS, tone(100));
        }
        assert!(converter.take().is_empty());
        converter.picture(3 * SECOND, 1, false);
        assert_eq!(samples(&converter.take()), RATE);
    }

    #[test]
    fn sound_that_begins_shortly_before_the_first_picture_is_not_moved() {
        // The samples contain their time.
        let moments = |from: i64, count: i64| -> Vec<u8> {
            let moments = (from..from + count).map(|moment| moment as i32);
            moments.flat_map(i32::to_le_bytes).collect()
        };
        for early in [1, 500, 1024, SLACK, 3000, 5 * RATE] {
            let mut converter = FrameRateConverter::<u32>::default();
            converter.expect_pictures();
            let zero = 20 * SECOND;
            for index in 0..250 {
                let from = index * 1024 - early;
                // Late enough for earlier ones to have been held.
                if from >= 0 && converter.zero.is_none() {
                    converter.picture(zero, 1, false);
                }
                let time = zero + (from * SECOND).div_euclid(RATE);
                converter.sound(time, moments(from, 1024));
            }
            let out = converter.take();
            let (first, bytes) = out
                .iter()
                .find_map(|output| match output {
                    Converted::Sound(samples, at) => Some((*at as i32, samples)),
                    Converted::Picture(..) => None,
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
        let mut converter = FrameRateConverter::<u32>::default();
        converter.picture(0, 1, false);
        for index in 0..40 {
            let jitter = [0, 30, -30, 39, -39][index as usize % 5];
            converter.sound((index * 20 + jitter) * MS, tone(20));
        }
        let out = converter.take();
        let heard = |output: &Converted<u32>| matches!(output, Converted::Sound(bytes, _) if *bytes == tone(20));
        let count = out.iter().filter(|output| heard(output)).count();
        assert_eq!((count, samples(&out)), (40, 40 * RATE / 50));
    }

    #[test]
    fn sound_that_ends_before_the_first_picture_is_ignored() {
        let mut converter = FrameRateConverter::<u32>::default();
        converter.picture(SECOND, 1, false);
        converter.sound(SECOND - 30 * MS, tone(20));
        assert_eq!(samples(&converter.take()), 0);
        assert!(!converter.has_sound);
        converter.sound(SECOND - 10 * MS, tone(20));
        let out = converter.take();
        assert_eq!((first_sample(&out), samples(&out)), (0, RATE / 100));
    }

    #[test]
    fn sound_alone_starts_after_two_seconds_and_pictures_may_still_come() {
        let mut converter = FrameRateConverter::<u32>::default();
        for index in 0..=20 {
            assert!(converter.take().is_empty());
            converter.sound(SECOND + index * 100 * MS, tone(100));
        }
        assert_eq!(samples(&converter.take()), 21 * RATE / 10);
        converter.picture(SECOND + 2_100 * MS, 7, false);
        assert_eq!(pictures(&converter.take()), [(7, 63)]);
        converter.picture(SECOND + 2_600 * MS, 8, false);
        converter.finish();
        assert_eq!(pictures(&converter.take()).len(), 59);
    }

    #[test]
    fn late_sound_starts_where_it_comes() {
        let mut converter = FrameRateConverter::default();
        for index in 0..300 {
            converter.picture(index * SECOND / 30, 1, false);
        }
        converter.sound(10 * SECOND - 50 * MS, tone(100));
        let out = converter.take();
        assert_eq!(first_sample(&out), 10 * RATE - RATE / 20);
        assert_eq!(samples(&out), RATE / 10);
        assert_eq!(pictures(&out).len(), 300);
    }

    #[test]
    fn pictures_and_sound_do_not_wait_for_each_other() {
        let mut converter = FrameRateConverter::default();
        converter.picture(0, 1, false);
        converter.sound(0, tone(20));
        for index in 1..=100 {
            converter.sound(index * 100 * MS, tone(100));
        }
        let out = converter.take();
        assert_eq!(samples(&out), 101 * RATE / 10);
        assert_eq!(pictures(&out).len(), 273);
        for index in 0..300 {
            converter.picture(10 * SECOND + index * SECOND / 30, 2, false);
        }
        let silence: i64 = converter
            .take()
            .iter()
            .map(|output| match output {
                Converted::Sound(samples, _) => samples.len() as i64 / FRAME,
                Converted::Picture(..) => 0,
            })
            .sum();
        assert!((RATE * 8..RATE * 9).contains(&silence), "{silence}");
    }

    #[test]
    fn the_last_picture_is_repeated_under_pressure() {
        let mut converter = FrameRateConverter::default();
        for index in 0..30 {
            converter.picture(index * SECOND / 30, index as u32, index > 0);
        }
        let out = pictures(&converter.take());
        assert!(out.iter().all(|(picture, _)| *picture == 0));
        assert_eq!(out.len(), 30);
        assert_eq!(converter.counts().dropped, 29);
    }

    #[test]
    fn a_stream_of_ten_years_stays_exact() {
        let seconds = 10 * 366 * 86_400;
        assert_eq!(convert(seconds * SECOND, RATE, SECOND), seconds * RATE);
        assert_eq!(convert(seconds * RATE, SECOND, RATE), seconds * SECOND);
        assert_eq!(convert(-seconds * RATE, SECOND, RATE), -seconds * SECOND);
        assert_eq!(convert(i64::MIN, SECOND, 1), i64::MIN);
        // Pictures and sound that have gone on for a while, and then have a gap.
        let mut converter = FrameRateConverter {
            zero: Some(0),
            last: Some(1),
            place: seconds * PICTURES,
            sample: seconds * RATE,
            has_pictures: true,
            has_sound: true,
            ..FrameRateConverter::default()
        };
        let gap = seconds + 100;
        converter.picture(seconds * SECOND, 2, false);
        converter.picture(gap * SECOND, 3, false);
        converter.sound(gap * SECOND, tone(100));
        let out = converter.take();
        let places = pictures(&out);
        assert_eq!(places[0], (2, (seconds * PICTURES) as u64));
        let last = places[places.len() - 1];
        assert_eq!((last.0, last.1 % 60, places.len()), (3, 0, 61));
        assert_eq!(first_sample(&out), seconds * RATE);
        // Sound alone.
        let mut converter = FrameRateConverter::<u32> {
            zero: Some(0),
            sample: seconds * RATE,
            has_sound: true,
            ..FrameRateConverter::default()
        };
        converter.sound(gap * SECOND, tone(100));
        assert_eq!(samples(&converter.take()), RATE / 10);
        assert_eq!(converter.ahead(gap * SECOND), -RATE / 10);
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        /// With any times, places and samples are consecutive, and the end is that of a segment.
        #[test]
        fn places_and_samples_have_no_holes(
            steps in prop::collection::vec((any::<bool>(), -5_000..8_000i64), 1..200),
        ) {
            let mut converter = FrameRateConverter::default();
            let mut time = 0;
            for (is_picture, step) in steps {
                time += step / 16 * MS * if step % 50 == 0 { 100 } else { 1 };
                match is_picture {
                    true => converter.picture(time, 0u32, false),
                    false => converter.sound(time, tone(20)),
                }
            }
            converter.finish();
            let out = converter.take();
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
