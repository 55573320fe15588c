// SPDX-License-Identifier: MPL-2.0

//! Broken streams: no content is an error of the element, except an end without any track.

use std::io::Write;

use gst::prelude::*;

use support::PATIENCE;
use support::clients::NEW_FFMPEG;
use support::demuxer::{Demuxer, demux};
use support::flv::{self, AUDIO, SCRIPT, Tag, VIDEO};
use support::media::{SMALL_VIDEO, TONE, made_by, small};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, metadata, video_header};

/// Repeatable noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

pub fn file(tags: &[Tag]) -> Vec<u8> {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for tag in tags {
        bytes.extend(tag.to_bytes());
    }
    bytes
}

/// Pushes arbitrary bytes, and fails if the element posts an error for them.
#[track_caller]
fn survive(bytes: &[u8], noise: &mut Noise) -> Demuxer {
    let demuxer = Demuxer::new("eflvdemux");
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = (1 + noise.below(20_000)).min(rest.len());
        demuxer.push(&rest[..piece]).unwrap();
        rest = &rest[piece..];
    }
    for track in demuxer.finish().values() {
        assert!(track.is_ended());
    }
    let errors = demuxer.messages(gst::MessageType::Error);
    assert_eq!(errors.len(), usize::from(demuxer.tracks().is_empty()));
    // One of each kind at most.
    let warnings = demuxer.messages(gst::MessageType::Warning);
    assert!(warnings.len() <= 10, "{warnings:?}");
    demuxer
}

fn samples() -> Vec<Vec<u8>> {
    let mixed = made_by(
        &*NEW_FFMPEG,
        "enhanced-mixed-short.flv",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} -pix_fmt yuv420p -t 1 -map 0 -map 1 -map 2 -map 3 \
             -c:v:0 libx264 -preset:v:0 ultrafast -c:v:1 libx265 -preset:v:1 ultrafast \
             -x265-params log-level=none -c:a:0 aac -c:a:1 libopus -f flv"
        ),
    );
    [mixed, small(2)]
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn random_bytes_cause_no_error() {
    let mut noise = Noise(1);
    for length in [0, 1, 12, 13, 14, 1000, 300_000] {
        for header in [&b""[..], b"FLV\x01\x05\0\0\0\x09\0\0\0\0"] {
            let noise_bytes = (0..length).map(|_| noise.next() as u8);
            let bytes: Vec<u8> = header.iter().copied().chain(noise_bytes).collect();
            survive(&bytes, &mut noise);
        }
    }
}

#[test]
fn mutated_files_cause_no_error() {
    let mut noise = Noise(2);
    for original in samples() {
        for round in 0..150 {
            let mut bytes = original.clone();
            for _ in 0..1 + noise.below(1 + round) {
                let at = noise.below(bytes.len());
                match noise.below(4) {
                    0 => bytes[at] = noise.next() as u8,
                    1 => bytes[at] ^= 1 << noise.below(8),
                    2 => drop(
                        bytes.drain(at..(at + 1 + noise.below(50)).min(original.len() / 2).max(at)),
                    ),
                    _ => bytes.insert(at, noise.next() as u8),
                }
            }
            survive(&bytes, &mut noise);
        }
    }
}

#[test]
fn mutated_tag_bodies_cause_no_error() {
    let mut noise = Noise(3);
    for original in samples() {
        let original = flv::parse(&original).unwrap();
        for _ in 0..100 {
            let mut tags = original.clone();
            for tag in &mut tags {
                if noise.below(3) == 0 && !tag.body.is_empty() {
                    let front = tag.body.len().min(40);
                    tag.body[noise.below(front)] = noise.next() as u8;
                }
                if noise.below(10) == 0 {
                    tag.body.truncate(noise.below(12));
                }
                if noise.below(20) == 0 {
                    tag.timestamp = noise.next() as u32;
                }
            }
            survive(&file(&tags), &mut noise);
        }
    }
}

/// Only the damaged bytes are lost.
#[test]
fn the_next_whole_tag_is_found_again() {
    let tags = [
        vec![video_header(0), audio_header(0), keyframe(0, 500)],
        (1..20).map(|n| delta_frame(n * 40, 300)).collect(),
    ]
    .concat();
    let whole = demux("eflvdemux", &file(&tags), 4096);
    let mut bytes = file(&tags[..8]);
    bytes.extend([0x55; 777]);
    for tag in &tags[8..] {
        bytes.extend(tag.to_bytes());
    }
    for piece in [1, 50, 4096, 100_000] {
        let demuxer = Demuxer::new("eflvdemux");
        for piece in bytes.chunks(piece) {
            demuxer.push(piece).unwrap();
        }
        let tracks = demuxer.finish();
        let (expected, got) = (&whole["video_0"].packets, &tracks["video_0"].packets);
        // The tag before the noise is whole, and its back pointer is not read.
        assert_eq!(expected.len(), got.len());
        assert!(expected == got);
        assert_eq!(demuxer.count("lost-bytes"), 777);
        let discont = gst::BufferFlags::DISCONT;
        let buffers = &tracks["video_0"].buffers;
        let marked = buffers
            .iter()
            .filter(|buffer| buffer.flags().contains(discont));
        assert_eq!(marked.count(), 2);
    }
}

#[test]
fn a_wrong_length_costs_few_tags() {
    let tags: Vec<Tag> = [
        vec![video_header(0), keyframe(0, 500)],
        (1..40).map(|n| delta_frame(n * 40, 300)).collect(),
    ]
    .concat();
    let mut bytes = file(&tags);
    let at = file(&tags[..10]).len();
    bytes[at + 2] ^= 0x02;
    let tracks = demux("eflvdemux", &bytes, 4096);
    let count = tracks["video_0"].packets.len();
    assert!((37..=40).contains(&count), "{count}");
}

#[test]
fn each_kind_of_damage_is_counted_and_reported_once() {
    let script = |name: &[u8]| Tag::new(SCRIPT, 0, name);
    let damaged = [
        Tag::new(15, 0, [1, 2, 3]),
        Tag::new(VIDEO, 0, [0x17, 1]),
        Tag::new(VIDEO, 0, [0x16, 1, 2]),
        Tag::new(VIDEO, 0, *b"\x91xxxxabc"),
        Tag::new(VIDEO, 0, *b"\x98hvc1abc"),
        Tag::new(VIDEO, 0, *b"\x90hvc1abc"),
        Tag::new(VIDEO, 0, *b"\x91hvc1\0\0\0abc"),
        Tag::new(VIDEO, 0, *b"\x90hvc1"),
        Tag::new(AUDIO, 0, [0xD0, 1]),
        Tag::new(AUDIO, 0, *b"\x99Opusabc"),
        Tag::new(AUDIO, 0, [0xAF, 0, 0]),
        Tag::new(AUDIO, 0, []),
        script(b"\x02\0"),
    ];
    let good = [
        video_header(0),
        audio_header(0),
        keyframe(0, 100),
        audio(0, 20),
    ];
    let bytes = [
        file(&good),
        file(&damaged)[13..].to_vec(),
        file(&damaged)[13..].to_vec(),
    ]
    .concat();
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&bytes).unwrap();
    demuxer.push(&[9, 0, 0]).unwrap();
    let tracks = demuxer.finish();
    assert_eq!(tracks["video_0"].packets.len(), 1);
    assert_eq!(tracks["audio_0"].packets.len(), 1);
    let counts = [
        ("unknown-tags", 2),
        ("bad-tags", 2),
        ("unknown-codecs", 6),
        ("unknown-packets", 4),
        ("bad-configurations", 4),
        ("without-configuration", 2),
        ("empty", 4),
        ("bad-scripts", 2),
        ("cut-short", 1),
        ("lost-bytes", 0),
        ("tags", 30 - 2),
    ];
    for (name, count) in counts {
        assert_eq!(demuxer.count(name), count, "{name}: {}", demuxer.stats());
    }
    let warnings = demuxer.messages(gst::MessageType::Warning);
    assert_eq!(warnings.len(), 8, "{warnings:?}");
}

/// As in flvdemux up to 1.26, in push mode and in pull mode.
#[test]
fn a_file_without_a_track_is_an_error() {
    let is_reported = |factory: &str| factory != "flvdemux" || gst::version() < (1, 27, 0, 0);
    let files = [
        file(&[]),
        file(&[metadata(0), Tag::new(VIDEO, 0, *b"\x91xxxxabc")]),
    ];
    for bytes in files {
        for factory in ["flvdemux", "eflvdemux"] {
            if !is_reported(factory) {
                continue;
            }
            let demuxer = Demuxer::new(factory);
            // flvdemux ends even earlier, at the first unknown tag.
            let _ = demuxer.push(&bytes);
            assert!(demuxer.finish().is_empty());
            let errors = demuxer.messages(gst::MessageType::Error);
            assert!(!errors.is_empty(), "{factory}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let text = format!("filesrc location={} ! eflvdemux", file.path().display());
        let pipeline = gst::parse::launch(&text).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
        let message = pipeline
            .bus()
            .unwrap()
            .timed_pop_filtered(patience, &[gst::MessageType::Error]);
        pipeline.set_state(gst::State::Null).unwrap();
        let message = message.expect("there is an error");
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        assert!(error.error().matches(gst::StreamError::Demux), "{error:?}");
    }
}

/// There is no pad for the end of stream, and no publisher follows that could bring one.
#[test]
fn a_live_stream_that_ends_without_a_track_is_an_error() {
    let recorder = Recorder::start_into("", "eflvdemux");
    drop(RawClient::publish(recorder.port(), "live", "key"));
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let bus = recorder.pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Error]);
    let message = message.expect("there is an error");
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    assert!(error.error().matches(gst::StreamError::Demux), "{error:?}");
}

/// Bytes that wait for the rest of their tag are bounded by the largest tag.
#[test]
fn a_claimed_length_costs_no_memory() {
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&file(&[])).unwrap();
    demuxer
        .push(&[9, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    for _ in 0..17 {
        demuxer.push(&[0; 1 << 20]).unwrap();
    }
    // No tag follows that would confirm this one.
    assert!(demuxer.count("lost-bytes") > 16 << 20);
    assert!(demuxer.messages(gst::MessageType::Error).is_empty());
}
