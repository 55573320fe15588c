// SPDX-License-Identifier: MPL-2.0

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

/// Pictures and pieces of sound in the order of their arrival: time of arrival, time and kind.
fn arrivals(late: [i64; 2], burst: i64, count: i64) -> Vec<(i64, i64, bool)> {
    let at = |time: i64, late: i64| (time + late).div_euclid(burst) * burst + burst;
    let pictures = (0..count * 30).map(|index| index * SECOND / 30);
    let sound = (0..count * 50).map(|index| index * SECOND / 50);
    let pictures = pictures.map(|time| (at(time, late[0] * MS), time, true));
    let mut all: Vec<_> = pictures
        .chain(sound.map(|time| (at(time, late[1] * MS), time, false)))
        .collect();
    all.sort_by_key(|(arrival, ..)| *arrival);
    all
}

/// Whichever of the two is late, and however its media is bundled.
#[test]
fn a_late_track_loses_nothing() {
    for late in (0..=2_000).step_by(100) {
        for delays in [[late, 0], [0, late]] {
            for burst in [1, 100, 900] {
                let mut converter = FrameRateConverter::default();
                converter.expect_pictures();
                let all = arrivals(delays, burst * MS, 20);
                for (_, time, is_picture) in all {
                    match is_picture {
                        true => converter.picture(time, time as u32, false),
                        false => converter.sound(time, tone(20)),
                    }
                }
                let counts = converter.counts();
                let case = (delays, burst);
                assert_eq!((counts.duplicated, counts.dropped), (0, 0), "{case:?}");
                let out = converter.take();
                assert_eq!(samples(&out), 20 * RATE, "{case:?}");
                let is_silent = |output: &Converted<u32>| matches!(output, Converted::Sound(bytes, _) if bytes[0] == 0);
                assert!(!out.iter().any(is_silent), "{case:?}");
            }
        }
    }
}

/// It comes in bundles that are longer than its first allowance.
#[test]
fn a_track_in_long_bursts_loses_media_only_once() {
    for burst in [1_300, 2_000, 2_500] {
        let of_burst = |is_picture| {
            let mut converter = FrameRateConverter::default();
            let mut all = arrivals([0, 0], MS, 40);
            for entry in &mut all {
                if entry.2 == is_picture {
                    entry.0 = entry.1.div_euclid(burst * MS) * burst * MS + burst * MS;
                }
            }
            all.sort_by_key(|(arrival, ..)| *arrival);
            for (_, time, is_picture) in all {
                match is_picture {
                    true => converter.picture(time, time as u32, false),
                    false => converter.sound(time, tone(20)),
                }
            }
            converter
        };
        let pictures = of_burst(true).counts();
        assert!(pictures.dropped <= 60, "{burst}: {pictures:?}");
        let out = of_burst(false).take();
        let is_silent = |output: &&Converted<u32>| matches!(output, Converted::Sound(bytes, _) if bytes[0] == 0);
        let silence = out.iter().filter(is_silent).cloned().collect::<Vec<_>>();
        let silent: i64 = silence
            .iter()
            .map(|output| samples(std::slice::from_ref(output)))
            .sum();
        assert!(silent <= 2 * RATE, "{burst}: {silent}");
    }
}

#[test]
fn a_late_track_that_stops_is_filled_and_may_return() {
    let mut converter = FrameRateConverter::default();
    let all = arrivals([1_200, 0], MS, 60);
    for (_, time, is_picture) in all {
        match (is_picture, time / SECOND) {
            (true, 20..40) => {}
            (true, _) => converter.picture(time, time as u32, false),
            (false, _) => converter.sound(time, tone(20)),
        }
        let behind = converter.sample - converter.picture_sample();
        assert!(behind <= 5 * RATE / 2, "{behind}");
    }
    let counts = converter.counts();
    // Pictures that came while the allowance was that of every track.
    assert!(counts.dropped <= 10, "{counts:?}");
    assert!(counts.pictures_out >= 60 * 30 - 40, "{counts:?}");
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
