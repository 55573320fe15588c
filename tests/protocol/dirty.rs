// SPDX-License-Identifier: MPL-2.0

//! A live publisher with every known fault in the timestamps of real ones: irregular groups of
//! pictures and frame rates, clocks that jump, steps back and repeated timestamps, audio long
//! before video. The output is in order, and audio stays with video.

use gstrtmp2server::internal::feed::{Feed, FeedOutput, FeedSettings, Reception};
use gstrtmp2server::internal::flv::{Tag, TagKind};
use gstrtmp2server::internal::memory::Memory;
use proptest::prelude::*;

/// Largest distance between audio and video in milliseconds, whatever the publisher's clock does.
const MAX_SKEW: i64 = 20;

const MILLI: u64 = 1_000_000;

/// A source. All times are in milliseconds.
#[derive(Debug, Clone)]
struct Source {
    /// Durations of frames of video, and numbers of frames in the groups of pictures.
    frames: Vec<u32>,
    groups: Vec<u32>,
    /// Timestamp at the start.
    start: u32,
    /// Audio before the first video.
    lead: u32,
    /// Times of the clock's jumps, and their distances.
    jumps: Vec<(u32, i64)>,
    /// Errors of single timestamps of video, which are too low by them.
    noise: Vec<u32>,
}

const LENGTH: u32 = 30_000;
const AUDIO_STEP: u32 = 23;

/// Longest duration of a frame of video.
const MAX_FRAME: u32 = 111;

/// Least distance of a jump that the feed has to recognize.
const MIN_JUMP: i64 = 1200;

/// Longest jump ahead that is always taken for a gap.
const MAX_GAP: i64 = 2000;

/// Longest delay of a track that starts later than the other.
const MAX_LATENESS: i64 = 2000;

/// Time after which a clock without gaps counts as live: two windows and a tag of audio. A jump
/// ahead before is taken for a gap, as files that are sent fast have them.
const LIVE_TIME: u32 = 2100;

/// Returns distances in time of jumps from the jumps before them, and their own distances.
fn jumps(distances: std::ops::Range<u32>) -> impl Strategy<Value = Vec<(u32, i64)>> {
    let jump = prop_oneof![
        MIN_JUMP..3000i64,
        MIN_JUMP..3_000_000i64,
        -3000..-MIN_JUMP,
        -3_000_000..-MIN_JUMP,
        Just(-i64::from(u32::MAX / 3))
    ];
    let jumps = prop::collection::vec((distances, jump), 0..6);
    (100..LENGTH, jumps).prop_map(|(mut time, jumps)| {
        let jumps = jumps.into_iter().map(|(distance, by)| {
            time += distance;
            (time, by)
        });
        jumps.collect()
    })
}

/// Returns the jumps without those that a track can't recognize because others hide them.
///
/// A track sees the sum of the jumps between two of its tags, while the other one may see each of
/// them. Nothing in its tag tells that there was a jump back where the sum nearly takes it back or
/// is a gap, or where the other one is ahead by a gap. Video that starts
/// between a jump and the next audio may as well be late, by the jump less the gaps before.
fn recognizable(jumps: Vec<(u32, i64)>, lead: u32) -> Vec<(u32, i64)> {
    let mut kept: Vec<(u32, i64)> = Vec::new();
    let mut last_gap: Option<u32> = None;
    for (time, by) in jumps {
        let is_live = time >= last_gap.unwrap_or(0) + LIVE_TIME;
        let ahead: i64 = kept.iter().map(|(_, by)| (*by).max(0)).sum();
        let is_hidden_by_start =
            by + ahead >= -MAX_LATENESS && (time..time + AUDIO_STEP).contains(&lead);
        let is_hidden_by_gap = by < 0 && last_gap.is_some_and(|gap| time - gap <= MAX_FRAME);
        let recent = kept.iter().rev();
        let recent = recent.take_while(|(at, _)| time - at <= MAX_FRAME);
        let mut sums = recent.scan((by, by < 0), |(sum, goes_back), (_, by)| {
            *sum += by;
            *goes_back |= *by < 0;
            // Timestamps have 32 bits.
            Some((i64::from(*sum as i32), *goes_back))
        });
        let is_hidden_by_sum = sums
            .any(|(sum, goes_back)| goes_back && sum > -MIN_JUMP && !(is_live && sum > MAX_GAP));
        if is_hidden_by_start || is_hidden_by_gap || is_hidden_by_sum {
            continue;
        }
        if by > 0 && (by <= MAX_GAP || !is_live) {
            last_gap = Some(time);
        }
        kept.push((time, by));
    }
    kept
}

fn sources(distances: std::ops::Range<u32>) -> impl Strategy<Value = Source> {
    (
        prop::collection::vec(66..=MAX_FRAME, 1..20),
        prop::collection::vec(1..60u32, 1..10),
        prop_oneof![
            Just(0),
            any::<u32>(),
            Just((1 << 24) - 9000),
            Just(u32::MAX - 9000)
        ],
        prop_oneof![Just(0), 0..4000u32],
        jumps(distances),
        prop::collection::vec(0..15u32, 1..30),
    )
        .prop_map(|(frames, groups, start, lead, jumps, noise)| Source {
            frames,
            groups,
            start,
            lead,
            jumps: recognizable(jumps, lead),
            noise,
        })
}

/// Returns the tags in order: kind, keyframe or not, time of making and sending, and timestamp.
fn tags(source: &Source) -> Vec<(TagKind, bool, u32, u32)> {
    let stamp = |time: u32| {
        let due = source.jumps.iter().filter(|(at, _)| *at <= time);
        let jumped: i64 = due.map(|(_, by)| *by).sum();
        (i64::from(source.start) + i64::from(time) + jumped) as u32
    };
    let mut tags = Vec::new();
    for time in (0..LENGTH).step_by(AUDIO_STEP as usize) {
        tags.push((TagKind::Audio, false, time, stamp(time)));
    }
    let mut time = source.lead;
    let mut frames = source.frames.iter().cycle();
    let mut noise = source.noise.iter().cycle();
    'source: for group in source.groups.iter().cycle() {
        for frame in 0..*group {
            if time >= LENGTH {
                break 'source;
            }
            let noise = if frame > 0 { *noise.next().unwrap() } else { 0 };
            let stamp = stamp(time).wrapping_sub(noise);
            tags.push((TagKind::Video, frame == 0, time, stamp));
            time += frames.next().unwrap();
        }
    }
    tags.sort_by_key(|(_, _, time, _)| *time);
    tags
}

fn tag(kind: TagKind, is_keyframe: bool, stamp: u32) -> Tag {
    let body: &[u8] = match (kind, is_keyframe) {
        (TagKind::Video, true) => &[0x17, 1, 0, 0, 0, 1],
        (TagKind::Video, false) => &[0x27, 1, 0, 0, 0, 1],
        _ => &[0xAF, 1, 1],
    };
    Tag::new(kind, stamp, Memory::from_vec(body.to_vec(), 0)).unwrap()
}

fn check(source: &Source) -> Result<(), TestCaseError> {
    let mut feed = Feed::<()>::new(FeedSettings {
        wait_for_keyframe: true,
        ..FeedSettings::default()
    });
    feed.start_publisher();
    let header = Memory::from_vec(vec![0x17, 0, 0, 0, 0, 1, 2, 3], 0);
    let header = Tag::new(TagKind::Video, source.start, header).unwrap();
    feed.push(header, Reception::default());
    let tags = tags(source);
    // Kinds of the emitted tags, and their times in milliseconds.
    let mut emitted = Vec::new();
    for (kind, is_keyframe, time, stamp) in &tags {
        let arrival = u64::from(*time) * MILLI;
        let reception = Reception {
            arrival,
            now: arrival,
            is_newest: true,
            discont: false,
        };
        feed.push(tag(*kind, *is_keyframe, *stamp), reception);
        while let Some(output) = feed.pop() {
            if let FeedOutput::Tag(tag) = output
                && tag.bytes[0] != b'F'
                && !tag.is_header
            {
                emitted.push((tag.bytes[0], (tag.dts / MILLI) as i64));
            }
        }
    }
    prop_assert_eq!(emitted.len(), tags.len(), "a tag is missing");
    let mut last = [i64::MIN; 2];
    // Audio that waited leaves with the keyframe, in the order of sending.
    let mut offsets = [None; 2];
    let mut jumps = source.jumps.iter().peekable();
    for ((kind, time), (_, _, made, _)) in emitted.iter().zip(&tags) {
        // Tags before a jump have no counterpart after it.
        while jumps.next_if(|(at, _)| at <= made).is_some() {
            offsets = [None; 2];
        }
        let index = usize::from(*kind == 9);
        prop_assert!(*time >= last[index], "a track went back");
        last[index] = *time;
        offsets[index] = Some(time - i64::from(*made));
        if let [Some(audio), Some(video)] = offsets {
            let skew = i64::abs(audio - video);
            prop_assert!(skew <= MAX_SKEW, "{skew} ms apart at {made} ms");
        }
    }
    Ok(())
}

/// A source with a keyframe in each frame.
fn source(frames: &[u32], start: u32, lead: u32, jumps: &[(u32, i64)]) -> Source {
    Source {
        frames: frames.to_vec(),
        groups: vec![1],
        start,
        lead,
        jumps: jumps.to_vec(),
        noise: vec![0],
    }
}

fn check_all(sources: &[Source]) {
    for source in sources {
        let kept = recognizable(source.jumps.clone(), source.lead);
        assert_eq!(kept, source.jumps);
        if let Err(error) = check(source) {
            panic!("{error} with {source:?}");
        }
    }
}

#[test]
fn a_track_that_misses_a_jump_stays_with_the_other() {
    let frames = [100, 77, 74, 71, 71, 67, 74, 104, 97, 107, 110, 91, 101];
    check_all(&[
        source(&[107, 84], 0, 0, &[(23_494, -1202), (23_599, -1202)]),
        source(&frames, 0, 0, &[(3332, 506_135), (3428, -1202)]),
        source(&[107, 84], 0, 0, &[(23_494, -1202), (23_599, 1_000_000)]),
        source(
            &[107, 84],
            0,
            0,
            &[(23_494, 2_000_000), (23_599, 1_000_000)],
        ),
    ]);
}

/// At its start, such video seems to have a clock of its own.
#[test]
fn video_that_starts_before_audio_sees_a_jump_stays_with_it() {
    check_all(&[
        source(&[66], 421_148, 567, &[(553, -2001), (568, -2080)]),
        source(&[66], 848_768, 321, &[(300, -2001), (322, -2087)]),
        source(
            &[71],
            2_558_982,
            802,
            &[(709, -1202), (783, -2001), (803, -1202)],
        ),
    ]);
}

#[test]
fn a_clock_that_goes_back_while_audio_waits_for_video_is_live() {
    let jumps = [(2000, -2502), (2129, 90_955), (2140, -1202)];
    check_all(&[source(&[80], 0, 2061, &jumps)]);
}

/// Its timestamps are the same as those of video with a delay of 801 milliseconds.
#[test]
fn a_jump_that_looks_like_a_delay_of_video_is_not_recognizable() {
    assert_eq!(
        recognizable(vec![(841, 1200), (967, -2001)], 977),
        [(841, 1200)]
    );
}

proptest! {
    #![proptest_config(properties::cases(300))]

    #[test]
    fn audio_stays_with_video_and_no_track_goes_back(source in sources(0..10_000)) {
        check(&source)?;
    }

    /// A track may miss jumps that the other one sees.
    #[test]
    fn jumps_within_a_frame_keep_audio_with_video(source in sources(0..150)) {
        check(&source)?;
    }
}
