// SPDX-License-Identifier: MPL-2.0

//! Changes in the middle of a stream, and tracks without media.

use std::sync::mpsc;

use gst::prelude::*;

use super::broken::file;
use support::demuxer::{Demuxer, Track};
use support::flv::{self, AUDIO, SCRIPT, Tag, VIDEO};
use support::media::small;
use support::synthetic::{audio, audio_header, keyframe, video_header};
use support::{PATIENCE, init};

const SECOND: u64 = 1_000_000_000;

/// Returns the tag as a buffer with the time that a source would set.
fn timed(tag: &Tag, start: gst::ClockTime) -> gst::Buffer {
    let time = start + gst::ClockTime::from_mseconds(tag.timestamp.into());
    let mut buffer = gst::Buffer::from_slice(tag.to_bytes());
    let parts = buffer.get_mut().unwrap();
    parts.set_dts(time);
    parts.set_pts(time);
    buffer
}

/// Plays media with audio for a part of the time only, and waits until `sink` has got media that is
/// 4 s later than its first. The stream does not end.
#[track_caller]
fn assert_continues(end: &str, audio: std::ops::Range<u32>) {
    init();
    let text = format!("appsrc name=source format=time caps=video/x-flv ! eflvdemux name=d {end}");
    let pipeline = gst::parse::launch(&text).unwrap();
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let sink = bin.by_name("sink").unwrap().static_pad("sink").unwrap();
    let (sender, times) = mpsc::channel();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    sink.add_probe(kinds, move |_, info| {
        let time = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => buffer.dts_or_pts(),
            // The output of a muxer.
            Some(gst::PadProbeData::BufferList(list)) => list.get(0).and_then(|b| b.dts_or_pts()),
            _ => None,
        };
        if let Some(time) = time {
            let _ = sender.send(time);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let source = bin.by_name("source").unwrap();
    let push = |buffer: gst::Buffer| {
        let flow: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    };
    push(gst::Buffer::from_slice(file(&[])));
    for tag in flv::read_file(&small(6)) {
        let is_sent =
            tag.kind != AUDIO || tag.is_sequence_header() || audio.contains(&tag.timestamp);
        if is_sent {
            push(timed(&tag, gst::ClockTime::ZERO));
        }
    }
    let first = times.recv_timeout(PATIENCE).expect("something comes");
    let wanted = first + gst::ClockTime::from_seconds(4);
    let is_there = std::iter::from_fn(|| times.recv_timeout(PATIENCE).ok()).any(|t| t > wanted);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(is_there, "it stands still: {end}");
}

/// After queues of one second, the default.
#[test]
fn a_track_without_media_does_not_hold_others_back() {
    let sinks = "d.video_0 ! queue ! fakesink name=sink d.audio_0 ! queue ! fakesink";
    assert_continues(sinks, 0..0);
    assert_continues(sinks, 0..1000);
    let muxer = "mpegtsmux name=m ! fakesink name=sink \
                 d.video_0 ! queue ! h264parse ! m. d.audio_0 ! queue ! aacparse ! m.";
    assert_continues(muxer, 0..1000);
    assert_continues(muxer, 0..0);
}

/// Start and end of each GAP, with the start of its segment.
fn gaps(track: &Track) -> Vec<(u64, u64, u64)> {
    let mut segment = None;
    let mut gaps = Vec::new();
    for event in &track.events {
        match event.view() {
            gst::EventView::Segment(event) => {
                let event = event.segment().downcast_ref::<gst::ClockTime>();
                segment = event.unwrap().start();
            }
            gst::EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                let end = start + duration.unwrap();
                let segment = segment.expect("there is a segment");
                gaps.push((segment.nseconds(), start.nseconds(), end.nseconds()));
            }
            _ => {}
        }
    }
    gaps
}

/// A publisher without audio follows one with audio.
#[test]
fn gaps_are_in_the_segment_of_their_publisher() {
    let segment = |start| {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(start));
        segment
    };
    let demuxer = Demuxer::with_segment("eflvdemux", segment(100).upcast_ref());
    demuxer.push(&file(&[])).unwrap();
    let push = |start, tag: Tag| {
        let start = gst::ClockTime::from_seconds(start);
        demuxer.push_buffer(timed(&tag, start)).unwrap();
    };
    push(100, video_header(0));
    push(100, audio_header(0));
    push(100, keyframe(500, 10));
    push(100, keyframe(1500, 10));
    push(100, audio(1500, 10));
    demuxer.event(gst::event::Segment::new(&segment(20)));
    push(20, keyframe(0, 10));
    push(20, keyframe(1000, 10));
    push(20, keyframe(2000, 10));

    let tracks = demuxer.finish();
    assert!(gaps(&tracks["video_0"]).is_empty());
    let gaps = gaps(&tracks["audio_0"]);
    let starts: Vec<_> = gaps
        .iter()
        .map(|(segment, start, _)| (*segment, *start))
        .collect();
    assert_eq!(starts[0], (100 * SECOND, 100 * SECOND + SECOND / 2));
    assert_eq!(starts[1], (20 * SECOND, 20 * SECOND));
    // Each starts at the end of the last one, and close enough to the other track.
    assert_eq!(gaps[2].1, gaps[1].2);
    assert!(gaps[2].2 >= 21 * SECOND + SECOND / 2, "{gaps:?}");
    assert_eq!(gaps.len(), 3);
}

fn demux(tags: &[Tag]) -> Demuxer {
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&file(tags)).unwrap();
    demuxer.event(gst::event::Eos::new());
    demuxer
}

#[test]
fn no_sample_is_cut_in_two() {
    // 16 bits in stereo; 8 bits in mono.
    for (first, whole) in [(0x3F, 4), (0x3C, 1)] {
        let tag = |time, length: usize| {
            let body = [vec![first], vec![7; length]].concat();
            Tag::new(AUDIO, time, body)
        };
        let demuxer = demux(&[tag(0, 10), tag(10, 8), tag(20, 3)]);
        let track = &demuxer.tracks()["audio_0"];
        let lengths: Vec<_> = track.packets.iter().map(|p| p.data.len()).collect();
        let (expected, empty) = match whole {
            4 => (vec![8, 8], 1),
            _ => (vec![10, 8, 3], 0),
        };
        assert_eq!(lengths, expected);
        assert_eq!(demuxer.count("empty"), empty);
    }
}

#[track_caller]
fn assert_caps(tags: &[Tag], pad: &str, names: [&str; 2], expected: &[(i32, i32)]) {
    let tracks = demux(tags).tracks();
    let track = &tracks[pad];
    let seen = track.caps.iter().map(|caps| {
        let caps = caps.structure(0).unwrap();
        let [first, second] = names.map(|name| caps.get::<i32>(name).unwrap());
        (first, second)
    });
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert!(track.packets.len() > expected.len());
}

/// Codecs without a configuration describe themselves in each frame.
#[test]
fn caps_follow_the_frames() {
    let mp3 = |time, header: [u8; 4]| {
        let body = [&[0x2F][..], &header, &[0; 100]].concat();
        Tag::new(AUDIO, time, body)
    };
    let (one, other) = ([0xFF, 0xFB, 0x90, 0x00], [0xFF, 0xF3, 0x40, 0xC0]);
    let torn = [0; 4];
    let tags = [one, one, torn, other, torn, other, one];
    let tags: Vec<_> = (0..)
        .step_by(26)
        .zip(tags)
        .map(|(time, h)| mp3(time, h))
        .collect();
    let expected = [(44100, 2), (22050, 1), (44100, 2)];
    assert_caps(&tags, "audio_0", ["rate", "channels"], &expected);

    let ac3 = |time, mode: u8| {
        // 48 kHz, version 8.
        let frame = [0x0B, 0x77, 0, 0, 0x14, 0x40, mode << 5, 0, 0, 0];
        Tag::new(AUDIO, time, [&b"\x91ac-3"[..], &frame].concat())
    };
    let tags = [ac3(0, 1), ac3(32, 1), ac3(64, 3), ac3(96, 3)];
    let expected = [(48000, 1), (48000, 3)];
    assert_caps(&tags, "audio_0", ["rate", "channels"], &expected);
}

/// Sorenson H.263 has its size in the metadata, as far as caps go.
#[test]
fn caps_follow_the_metadata() {
    let size = |width: f64, height: f64| {
        let mut body = b"\x02\0\x0aonMetaData\x03".to_vec();
        for (name, length) in [("width", width), ("height", height)] {
            body.extend((name.len() as u16).to_be_bytes());
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(length.to_be_bytes());
        }
        body.extend([0, 0, 9]);
        Tag::new(SCRIPT, 0, body)
    };
    let frame = |time| Tag::new(VIDEO, time, [0x12, 0, 0, 0x84, 0, 1, 2]);
    let tags = [
        size(320.0, 240.0),
        frame(0),
        size(320.0, 240.0),
        frame(40),
        size(640.0, 360.0),
        frame(80),
    ];
    let expected = [(320, 240), (640, 360)];
    assert_caps(&tags, "video_0", ["width", "height"], &expected);
}
