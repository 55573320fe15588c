// SPDX-License-Identifier: MPL-2.0

mod codecs;
mod dirty;
mod headers;
mod keyframes;
mod publishers;
mod standby;
mod times;

use super::*;

const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 3];
const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];
const KEYFRAME: &[u8] = &[0x17, 1, 0, 0, 0, 9];
const FRAME: &[u8] = &[0x27, 1, 0, 0, 0, 9];
const AUDIO: &[u8] = &[0xAF, 1, 9];
const END: &[u8] = &[0x17, 2, 0, 0, 0];
const SECOND: u64 = 1_000_000_000;

/// A feed with the arrival of its next tag. Its output has a form that is quick to compare.
struct FeedTest {
    feed: Feed<u8>,
    arrival: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Emitted {
    Event(FeedEvent),
    Headers(usize),
    Segment(u64, u64),
    File,
    Video(u32, u8),
    Audio(u32, u8),
    Reconfigured,
    Mark(u8),
    Standby(StandbyChange),
    Refused(TagKind, u8, String),
}

fn jump(kind: JumpKind, track: TagKind, from: i64, to: i64) -> Emitted {
    Emitted::Event(FeedEvent::Jump(Jump {
        kind,
        track,
        from,
        to,
    }))
}

use Emitted::{Audio, File, Headers, Mark, Reconfigured, Segment, Video};

impl FeedTest {
    fn new(settings: FeedSettings) -> Self {
        let mut feed = Feed::new(settings);
        feed.start_publisher();
        FeedTest {
            feed,
            arrival: 4 * SECOND,
        }
    }

    fn default() -> Self {
        FeedTest::new(FeedSettings {
            wait_for_keyframe: true,
            imbalance_timeout: 2 * SECOND,
            ..FeedSettings::default()
        })
    }

    fn push(&mut self, kind: TagKind, timestamp: u32, body: &[u8]) -> &mut Self {
        let tag = Tag::new(kind, timestamp, Memory::from_vec(body.to_vec(), 0)).unwrap();
        let reception = Reception {
            arrival: self.arrival,
            now: self.arrival,
            is_newest: true,
            discont: false,
        };
        self.feed.push(tag, reception);
        self
    }

    fn video(&mut self, timestamp: u32, body: &[u8]) -> &mut Self {
        self.push(TagKind::Video, timestamp, body)
    }

    fn audio(&mut self, timestamp: u32, body: &[u8]) -> &mut Self {
        self.push(TagKind::Audio, timestamp, body)
    }

    fn next_publisher(&mut self, arrival: u64) -> &mut Self {
        self.feed.start_publisher();
        self.arrival = arrival;
        self
    }

    fn tags(&mut self) -> Vec<OutputTag> {
        std::iter::from_fn(|| self.feed.pop())
            .filter_map(|output| match output {
                FeedOutput::Tag(tag) => Some(tag),
                _ => None,
            })
            .collect()
    }

    fn emitted(&mut self) -> Vec<Emitted> {
        std::iter::from_fn(|| self.feed.pop())
            .map(|output| match output {
                FeedOutput::Headers(headers) => Headers(headers.len()),
                FeedOutput::Segment { start, base } => Segment(start, base),
                FeedOutput::Reconfigured => Reconfigured,
                FeedOutput::Mark(mark) => Mark(mark),
                FeedOutput::Standby(change) => Emitted::Standby(change),
                FeedOutput::Event(FeedEvent::TrackRefused(track)) => {
                    Emitted::Refused(track.kind, track.track, track.codec.to_string())
                }
                FeedOutput::Event(event) => Emitted::Event(event),
                FeedOutput::Tag(tag) => {
                    let bytes = &tag.bytes[..];
                    if bytes[..3] == *b"FLV" {
                        return File;
                    }
                    let time = u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]]);
                    assert_eq!(u64::from(time) * NANOS_PER_MILLI, tag.dts);
                    match bytes[0] {
                        8 => Audio(time, bytes[12]),
                        _ => Video(time, bytes[12]),
                    }
                }
            })
            .collect()
    }
}

/// A keyframe or another frame of H.264 on one of several tracks.
fn track_frame(is_key: bool, track: u8) -> Vec<u8> {
    let first = if is_key { 0x96 } else { 0xA6 };
    [&[first, 0x03][..], b"avc1", &[track, 9]].concat()
}

#[test]
fn memory_of_a_burst_is_given_back_once_it_is_long_over() {
    let mut test = FeedTest::default();
    test.video(0, VIDEO_HEADER).video(0, KEYFRAME);
    for time in 1..500 {
        test.video(time, FRAME);
    }
    test.feed.end_batch();
    test.emitted();
    assert!(test.feed.output.capacity() >= 500);
    for time in 500..700 {
        test.video(time, FRAME);
        test.feed.end_batch();
        assert_eq!(test.emitted().len(), 1);
    }
    let capacity = test.feed.output.capacity();
    assert!(capacity <= Slack::KEPT, "{capacity}");
}
