// SPDX-License-Identifier: MPL-2.0

//! Publishers whose tracks have clocks of their own, and publishers that delay one track.

use gstrtmp2server::internal::feed::{
    Feed, FeedEvent, FeedOutput, FeedSettings, JumpKind, Reception,
};
use gstrtmp2server::internal::flv::{Tag, TagKind};
use gstrtmp2server::internal::memory::Memory;
use proptest::prelude::*;

const MILLI: u64 = 1_000_000;

/// Length of each publisher in milliseconds.
const LENGTH: u32 = 8000;

/// Most milliseconds between the first tags of both tracks.
const MAX_START: u32 = 200;

/// A publisher. All times are in milliseconds.
#[derive(Debug, Clone)]
struct Publisher {
    /// Timestamps of audio and video at the same moment.
    origins: [u32; 2],
    /// Times of the first audio and the first video.
    starts: [u32; 2],
    /// Delays of the arrival of audio and video.
    delays: [u32; 2],
    is_live: bool,
}

/// Kind, time of making, and arrival of a tag.
type Made = (TagKind, u32, u32);

fn tags(publisher: &Publisher) -> Vec<Made> {
    let mut tags = Vec::new();
    for (index, (kind, step)) in [(TagKind::Audio, 23), (TagKind::Video, 40)]
        .into_iter()
        .enumerate()
    {
        for time in (publisher.starts[index]..LENGTH).step_by(step) {
            tags.push((kind, time, time + publisher.delays[index]));
        }
    }
    tags.sort_by_key(|(kind, _, arrival)| (*arrival, *kind as u8));
    tags
}

/// Kinds and times of the emitted tags in milliseconds, and the reported jumps.
type Output = (Vec<(TagKind, i64)>, Vec<JumpKind>);

fn run(publisher: &Publisher) -> (Vec<Made>, Output) {
    let mut feed = Feed::<()>::new(FeedSettings {
        wait_for_keyframe: true,
        ..FeedSettings::default()
    });
    feed.start_publisher();
    let header = Memory::from_vec(vec![0x17, 0, 0, 0, 0, 1, 2, 3], 0);
    let header = Tag::new(TagKind::Video, 0, header).unwrap();
    feed.push(header, Reception::default());
    let tags = tags(publisher);
    let (mut emitted, mut jumps) = (Vec::new(), Vec::new());
    for (kind, time, arrival) in &tags {
        let index = usize::from(*kind == TagKind::Video);
        let body: &[u8] = match kind {
            TagKind::Video if time % 400 == publisher.starts[1] % 400 => &[0x17, 1, 0, 0, 0, 1],
            TagKind::Video => &[0x27, 1, 0, 0, 0, 1],
            _ => &[0xAF, 1, 1],
        };
        let stamp = publisher.origins[index].wrapping_add(*time);
        let tag = Tag::new(*kind, stamp, Memory::from_vec(body.to_vec(), 0)).unwrap();
        let arrival = match publisher.is_live {
            true => u64::from(*arrival) * MILLI,
            false => 0,
        };
        let reception = Reception {
            arrival,
            now: arrival,
            is_newest: true,
            discont: false,
        };
        feed.push(tag, reception);
        while let Some(output) = feed.pop() {
            match output {
                FeedOutput::Tag(tag) if tag.bytes[0] != b'F' && !tag.is_header => {
                    let kind = match tag.bytes[0] {
                        9 => TagKind::Video,
                        _ => TagKind::Audio,
                    };
                    emitted.push((kind, (tag.dts / MILLI) as i64));
                }
                FeedOutput::Event(FeedEvent::Jump(jump)) => jumps.push(jump.kind),
                _ => {}
            }
        }
    }
    (tags, (emitted, jumps))
}

/// Returns the distances of emitted times from the times of making, for audio and for video.
fn distances(tags: &[Made], emitted: &[(TagKind, i64)]) -> [Vec<i64>; 2] {
    [TagKind::Audio, TagKind::Video].map(|wanted| {
        let made = tags.iter().filter(|(kind, ..)| *kind == wanted);
        let emitted = emitted.iter().filter(|(kind, _)| *kind == wanted);
        made.zip(emitted)
            .map(|((_, made, _), (_, time))| time - i64::from(*made))
            .collect()
    })
}

fn starts() -> impl Strategy<Value = [u32; 2]> {
    [0..MAX_START, 0..MAX_START]
}

proptest! {
    #![proptest_config(properties::cases(300))]

    #[test]
    fn tracks_with_other_origins_are_brought_together(
        base in prop_oneof![Just(0), 0..100_000_u32, any::<u32>()],
        offset in prop_oneof![1200..10_000_u32, 10_000..100_000_000_u32, 100_000_000..4_000_000_000_u32],
        is_audio_ahead: bool,
        starts in starts(),
        is_live: bool,
    ) {
        let ahead = base.wrapping_add(offset);
        let origins = if is_audio_ahead { [ahead, base] } else { [base, ahead] };
        let publisher = Publisher { origins, starts, delays: [0, 0], is_live };
        let (tags, (emitted, jumps)) = run(&publisher);
        prop_assert_eq!(emitted.len(), tags.len(), "a tag is missing");
        prop_assert_eq!(jumps.len(), 1);
        let distances = distances(&tags, &emitted);
        // Each track runs at its own pace from its first tag on.
        for track in &distances {
            prop_assert!(track.iter().all(|distance| *distance == track[0]));
        }
        let skew = (distances[0][0] - distances[1][0]).abs();
        let most = if is_live { 1 } else { i64::from(MAX_START) + 40 };
        prop_assert!(skew <= most, "{skew} ms apart");
    }

    #[test]
    fn delayed_tracks_stay_in_step(
        base: u32,
        delay in 0..=1500_u32,
        is_audio_late: bool,
        starts in starts(),
        is_live: bool,
    ) {
        let delays = if is_audio_late { [delay, 0] } else { [0, delay] };
        let publisher = Publisher { origins: [base, base], starts, delays, is_live };
        let (tags, (emitted, jumps)) = run(&publisher);
        prop_assert_eq!(emitted.len(), tags.len(), "a tag is missing");
        prop_assert!(jumps.is_empty(), "{jumps:?}");
        let [audio, video] = distances(&tags, &emitted);
        // Tags of the late track from before the stream's start are at its start.
        let first = audio[audio.len() - 1];
        let late = if is_audio_late { &audio } else { &video };
        let clamped = late.iter().take_while(|distance| **distance != first).count();
        prop_assert!(clamped <= 10, "{clamped} tags are clamped");
        let rest = late.iter().skip(clamped);
        let other = if is_audio_late { &video } else { &audio };
        prop_assert!(rest.chain(other).all(|distance| *distance == first));
    }
}
