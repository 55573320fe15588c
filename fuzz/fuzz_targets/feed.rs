// SPDX-License-Identifier: MPL-2.0

//! Any publishers, one after the other, as one FLV stream: one file header, well-formed tags, time
//! that does not go back within a track, and bounded memory.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::feed::{Feed, FeedOutput, FeedSettings, OutputTag, Reception, TimestampMode};
use rtmp2server_core::flv::codec::AcceptedCodecs;
use rtmp2server_core::flv::{FILE_HEADER, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagInfo, TagKind};
use rtmp2server_core::memory::Memory;
use rtmp2server_core::meter;

/// Most bytes that a publisher may make the feed keep after all output was taken.
const MAX_HELD: usize = 8 * 1024 * 1024;

/// Most bytes of tags in one run: twice the limit, and still quick.
const BUDGET: usize = 2 * MAX_HELD;

/// One step: an action, and its differences from the step before.
struct Step<'a> {
    action: u8,
    time: u8,
    arrival: u8,
    padding: usize,
    body: &'a [u8],
}

fn steps(mut data: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let [action, time, arrival, padding, length, rest @ ..] = data else {
            return None;
        };
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        Some(Step {
            action: *action,
            time: *time,
            arrival: *arrival,
            padding: usize::from(*padding) * 100,
            body,
        })
    })
}

/// A summary of the output so far.
#[derive(Default)]
struct Emitted {
    file_headers: usize,
    stream_header: bool,
    segments: usize,
    media: u64,
    last: HashMap<(u8, u8), u64>,
}

impl Emitted {
    fn check(&mut self, output: FeedOutput<()>, mode: TimestampMode) {
        match output {
            FeedOutput::Headers(headers) => {
                assert_eq!(headers[0][..], FILE_HEADER);
                headers[1..].iter().for_each(|tag| check_framing(tag));
                self.stream_header = true;
            }
            FeedOutput::Segment { .. } => self.segments += 1,
            FeedOutput::Mark(())
            | FeedOutput::Reconfigured
            | FeedOutput::Standby(_)
            | FeedOutput::Event(_) => {}
            FeedOutput::Tag(tag) => self.tag(&tag, mode),
        }
    }

    fn tag(&mut self, tag: &OutputTag, mode: TimestampMode) {
        assert!(self.stream_header, "a tag before the stream header");
        assert!(self.segments > 0, "a tag before a segment");
        if tag.bytes[..] == FILE_HEADER {
            self.file_headers += 1;
            assert_eq!(self.file_headers, 1, "another file header");
            return;
        }
        assert_eq!(self.file_headers, 1, "a tag before the file header");
        check_framing(&tag.bytes);
        let time = tag.bytes[4..8].iter().map(|&byte| u64::from(byte));
        let time = time.collect::<Vec<_>>();
        let time = time[3] << 24 | time[0] << 16 | time[1] << 8 | time[2];
        assert_eq!(
            time,
            tag.dts / 1_000_000 % (1 << 32),
            "two times for one tag"
        );
        let (kind, body) = (tag.bytes[0], &tag.bytes[FRONT_LENGTH..]);
        let body = &body[..body.len() - TRAILER_LENGTH];
        let info = TagInfo::of(self::kind(kind), body).expect("emitted tags have a parsed header");
        if !info.is_coded() {
            return;
        }
        self.media += 1;
        // Tracks beyond a publisher's usual number are not distinguished.
        if mode == TimestampMode::RunningTime && info.track < 8 {
            let last = self.last.insert((kind, info.track), tag.dts);
            assert!(last <= Some(tag.dts), "time went back within a track");
        }
    }
}

fn kind(id: u8) -> TagKind {
    match id {
        8 => TagKind::Audio,
        9 => TagKind::Video,
        18 => TagKind::Script,
        other => panic!("tag type {other}"),
    }
}

fn check_framing(tag: &[u8]) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
    let length = number(&tag[1..4]);
    assert_eq!(tag.len(), FRONT_LENGTH + length + TRAILER_LENGTH);
    assert_eq!(number(&tag[FRONT_LENGTH + length..]), FRONT_LENGTH + length);
}

fuzz_target!(|data: &[u8]| {
    let Some((&settings, data)) = data.split_first() else {
        return;
    };
    let mode = match settings & 1 {
        0 => TimestampMode::RunningTime,
        _ => TimestampMode::Publisher,
    };
    let mut feed = Feed::<()>::new(FeedSettings {
        wait_for_keyframe: settings & 2 == 0,
        keyframe_timeout: u64::from(settings >> 4 & 1) * 1_000_000_000,
        timestamp_mode: mode,
        imbalance_timeout: u64::from(settings >> 2 & 1) * 100_000_000,
        max_lateness: u64::from(settings >> 3 & 1) * 100_000_000,
        max_drift: u32::from(settings >> 5 & 1) * 1000,
    });
    if settings & 4 != 0 {
        let codecs = AcceptedCodecs::parse(["avc1", "av01", "mp4a", "Opus"]);
        feed = feed.accepting(codecs.expect("these are codecs"));
    }
    let mut emitted = Emitted::default();
    let (mut timestamp, mut arrival, mut pushed, mut bytes_pushed) = (0_u32, 0_u64, 0_u64, 0);

    let (_, held) = meter::peak(|| {
        for step in steps(data) {
            arrival += u64::from(step.arrival) * 3_000_000;
            timestamp = match step.action & 0x30 {
                0x00 => timestamp.wrapping_add(step.time.into()),
                0x10 => timestamp.wrapping_sub(step.time.into()),
                0x20 => u32::from(step.time) << 24,
                _ => timestamp.wrapping_add(u32::from(step.time) << 10),
            };
            let kind = match step.action & 0x0F {
                0 => {
                    feed.end_publisher();
                    while let Some(output) = feed.pop() {
                        emitted.check(output, mode);
                    }
                    feed.start_publisher();
                    continue;
                }
                1 => {
                    feed.expire(arrival);
                    feed.finish();
                    continue;
                }
                2..7 => TagKind::Video,
                7..12 => TagKind::Audio,
                _ => TagKind::Script,
            };
            let mut body = step.body.to_vec();
            body.resize(step.body.len() + step.padding, 0);
            // The highest bits are the number of repetitions.
            for _ in 0..1 << (2 * (step.action >> 6)) {
                bytes_pushed += body.len();
                if bytes_pushed > BUDGET {
                    break;
                }
                let Ok(tag) = Tag::new(kind, timestamp, Memory::from_vec(body.clone(), 0)) else {
                    break;
                };
                pushed += u64::from(tag.info.is_coded());
                let reception = Reception {
                    arrival,
                    now: arrival,
                    is_newest: step.action & 0x40 == 0,
                    discont: false,
                };
                feed.push(tag, reception);
                while let Some(output) = feed.pop() {
                    emitted.check(output, mode);
                }
            }
        }
    });
    let limit = MAX_HELD + 64 * data.len() + 1024 * 1024;
    assert!(held <= limit, "{held} bytes held, {limit} are plenty");
    assert!(emitted.media + feed.dropped().before_keyframe <= pushed);
});
