// SPDX-License-Identifier: MPL-2.0

//! Timestamps, flags, caps, segments and queries of the output.

use gst::prelude::*;

use support::flv::{AUDIO, Tag, VIDEO};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::{
    audio, audio_header, delta_frame, end_of_sequence, keyframe, metadata, video_header,
};
use support::wire::Wire;

/// The publisher's timestamp of the first media, in milliseconds.
const START: u32 = 5000;

/// Returns a keyframe, B-frames and audio in decoding order, and the composition time of each tag.
fn tags() -> (Vec<Tag>, Vec<i64>) {
    let with_composition = |mut tag: Tag, millis: i32| {
        tag.body[2..5].copy_from_slice(&millis.to_be_bytes()[1..]);
        tag
    };
    let tags = vec![
        metadata(0),
        video_header(0),
        audio_header(0),
        with_composition(keyframe(START, 90), 40),
        audio(START + 5, 20),
        with_composition(delta_frame(START + 40, 80), 120),
        with_composition(delta_frame(START + 80, 70), 0),
        audio(START + 90, 20),
        with_composition(delta_frame(START + 120, 60), -40),
        end_of_sequence(START + 160),
    ];
    (tags, vec![0, 0, 0, 40, 0, 120, 0, 0, -40, 0])
}

fn publish(recorder: &Recorder, tags: &[Tag]) {
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for tag in tags {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    recorder.finish();
}

fn millis(time: impl Into<Option<gst::ClockTime>>) -> i64 {
    time.into().expect("there is a time").mseconds() as i64
}

#[test]
fn buffers_have_decoding_and_presentation_times() {
    let (tags, composition) = tags();
    let recorder = Recorder::start("");
    publish(&recorder, &tags);
    let buffers = recorder.buffers();
    assert_eq!(
        buffers.len(),
        tags.len() + 1,
        "the file header, then a buffer a tag"
    );
    assert_eq!((millis(buffers[0].dts()), millis(buffers[0].pts())), (0, 0));
    for ((buffer, tag), composition) in buffers[1..].iter().zip(&tags).zip(composition) {
        // Metadata and sequence headers are at the time of the first media.
        let time = i64::from(tag.timestamp.max(START) - START);
        assert_eq!(millis(buffer.dts()), time, "{tag:?}");
        assert_eq!(millis(buffer.pts()), time + composition, "{tag:?}");
    }
}

/// A ModEx prefix adds nanoseconds to a message's milliseconds. They count for the presentation
/// time only.
#[test]
fn mod_ex_nanoseconds_are_in_presentation_times() {
    // Video with and without a composition time, alone and as one of several tracks; audio.
    let [_, a, b, c] = (-20i32).to_be_bytes();
    let video = |time, nanoseconds: [u8; 3], rest: &[u8]| {
        let body = [&[0x97, 2], &nanoseconds[..], rest].concat();
        Tag::new(VIDEO, time, body)
    };
    let tags = [
        video(1000, [0, 0, 1], b"\x03av01key"),
        video(
            1040,
            [0x0F, 0x42, 0x3F],
            &[&[0x01][..], b"hvc1", &[a, b, c, 9]].concat(),
        ),
        video(1080, [0xFF, 0xFF, 0xFF], b"\x06\x01av01\x02key"),
        Tag::new(AUDIO, 1090, *b"\x97\x02\x00\x01\x00\x01Opusx"),
        // An unknown prefix comes first, then one that is too short.
        Tag::new(
            AUDIO,
            1100,
            *b"\x97\x00\x00\x57\x00\x00\x07\x02\x00\x00\x02\x01Opusx",
        ),
    ];
    let expected = [
        (1000, 1_000_000_001),
        (1040, 1_020_999_999),
        (1080, 1_080_999_999),
        (1090, 1_090_000_256),
        (1100, 1_100_000_002),
    ];
    for (mode, start) in [("publisher", 0), ("running-time", 1000)] {
        let recorder = Recorder::start(&format!("timestamp-mode={mode}"));
        publish(&recorder, &tags);
        let times: Vec<(i64, u64)> = recorder.buffers()[1..]
            .iter()
            .map(|buffer| {
                (
                    millis(buffer.dts()) + start,
                    buffer.pts().unwrap().nseconds(),
                )
            })
            .collect();
        let moved = |(dts, pts): (i64, u64)| (dts, pts - start as u64 * 1_000_000);
        assert_eq!(times, expected.map(moved), "{mode}");
        for (buffer, tag) in recorder.buffers()[1..].iter().zip(&tags) {
            let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
            let time = u64::from(tag.timestamp) * 1_000_000;
            assert_eq!(meta.timestamp().nseconds(), time);
        }
    }
}

#[test]
fn buffer_flags_mark_headers_and_sync_points() {
    let (tags, _) = tags();
    let recorder = Recorder::start("");
    publish(&recorder, &tags);
    let buffers = recorder.buffers();
    let flags = |flag| -> Vec<bool> { buffers.iter().map(|b| b.flags().contains(flag)).collect() };
    let header = [
        true, true, true, true, false, false, false, false, false, false, false,
    ];
    assert_eq!(flags(gst::BufferFlags::HEADER), header);
    let delta = [
        false, false, false, false, false, true, true, true, true, true, true,
    ];
    assert_eq!(flags(gst::BufferFlags::DELTA_UNIT), delta);
    let mut discont = [false; 11];
    discont[0] = true;
    assert_eq!(flags(gst::BufferFlags::DISCONT), discont);
}

#[test]
fn audio_only_buffers_are_all_sync_points() {
    let tags = [audio_header(0), audio(0, 20), audio(20, 20), audio(40, 20)];
    let recorder = Recorder::start("");
    publish(&recorder, &tags);
    for buffer in recorder.buffers() {
        assert!(!buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
    }
}

#[test]
fn caps_have_the_stream_header() {
    let (tags, _) = tags();
    let recorder = Recorder::start("");
    publish(&recorder, &tags);
    let caps = recorder
        .events()
        .into_iter()
        .find_map(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps_owned()),
            _ => None,
        });
    let caps = caps.expect("there are caps");
    let structure = caps.structure(0).unwrap();
    assert_eq!(structure.name(), "video/x-flv");
    let headers = structure.get::<gst::Array>("streamheader").unwrap();
    let headers: Vec<Vec<u8>> = headers
        .iter()
        .map(|value| {
            let buffer = value.get::<gst::Buffer>().unwrap();
            assert!(buffer.flags().contains(gst::BufferFlags::HEADER));
            buffer.map_readable().unwrap().to_vec()
        })
        .collect();
    let at_zero = |tag: &Tag| Tag::new(tag.kind, 0, tag.body.clone()).to_bytes();
    let mut expected = vec![b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00".to_vec()];
    expected.extend(tags[..3].iter().map(at_zero));
    assert_eq!(headers, expected);
}

#[test]
fn the_segment_maps_first_media_to_its_arrival() {
    let (tags, _) = tags();
    let recorder = Recorder::start("");
    let pipeline = &recorder.pipeline;
    // The clock is set once the live pipeline plays.
    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
    let before = pipeline.current_running_time().unwrap();
    publish(&recorder, &tags);
    let after = pipeline.current_running_time().unwrap();
    let segments: Vec<gst::Segment> = recorder
        .events()
        .iter()
        .filter_map(|event| match event.view() {
            gst::EventView::Segment(segment) => Some(segment.segment().clone()),
            _ => None,
        })
        .collect();
    assert_eq!(segments.len(), 1, "{segments:?}");
    let segment = segments[0]
        .downcast_ref::<gst::ClockTime>()
        .expect("it is of time");
    let first = segment.to_running_time(gst::ClockTime::ZERO).unwrap();
    assert!(
        before <= first && first <= after,
        "{before} <= {first} <= {after}"
    );
}

#[test]
fn buffers_carry_the_publishers_timestamp() {
    let (tags, _) = tags();
    let recorder = Recorder::start("");
    publish(&recorder, &tags);
    for (buffer, tag) in recorder.buffers()[1..].iter().zip(&tags) {
        let meta = buffer.meta::<gst::ReferenceTimestampMeta>();
        let time = meta.expect("there is a reference timestamp").timestamp();
        assert_eq!(time.mseconds(), u64::from(tag.timestamp), "{tag:?}");
    }
}

#[test]
fn publisher_timestamps_pass_unchanged_in_publisher_mode() {
    let (tags, _) = tags();
    let recorder = Recorder::start("timestamp-mode=publisher");
    publish(&recorder, &tags);
    let media = |tags: &[Tag]| -> Vec<Tag> {
        tags.iter()
            .filter(|tag| tag.is_media() && tag.timestamp > 0)
            .cloned()
            .collect()
    };
    let got: Vec<Tag> = recorder.tags();
    let got: Vec<Tag> = got
        .into_iter()
        .filter(|tag| !tag.is_sequence_header())
        .collect();
    assert_eq!(media(&got), media(&tags));
    let buffers = recorder.buffers();
    let times: Vec<i64> = buffers[4..]
        .iter()
        .map(|buffer| millis(buffer.dts()))
        .collect();
    assert_eq!(times, [5000, 5005, 5040, 5080, 5090, 5120, 5160]);
}

#[test]
fn the_latency_query_follows_the_property() {
    let recorder = Recorder::start("latency=300");
    let pad = recorder.element.static_pad("src").unwrap();
    let latency = || {
        let mut query = gst::query::Latency::new();
        assert!(pad.query(&mut query));
        let (live, minimum, _) = query.result();
        assert!(live);
        minimum.mseconds()
    };
    assert_eq!(latency(), 300);
    recorder.element.set_property("latency", 450u32);
    assert_eq!(latency(), 450);
}

#[test]
fn stats_count_received_media() {
    let (tags, _) = tags();
    let recorder = Recorder::start("keep-listening=true");
    let mut client = RawClient::publish(recorder.port(), "live", "stats");
    for tag in &tags[..9] {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
    recorder.wait_until("all tags", |buffers| buffers.len() == 10);
    let stats = recorder.stats();
    assert_eq!(stats.get::<u64>("tags"), Ok(9));
    assert_eq!(stats.get::<u64>("keyframes"), Ok(1));
    assert_eq!(stats.get::<String>("application").unwrap(), "live");
    assert_eq!(stats.get::<String>("stream-key").unwrap(), "stats");
    assert_eq!(stats.get::<u32>("in-chunk-size"), Ok(128));
    assert_eq!(stats.get::<u32>("out-chunk-size"), Ok(65_536));
    let address = client.socket.local_addr().unwrap().to_string();
    assert_eq!(stats.get::<String>("address").unwrap(), address);
    assert!(stats.get::<u64>("uptime").unwrap() > 0);
}

#[test]
fn num_buffers_limits_the_output() {
    let (tags, _) = tags();
    let recorder = Recorder::start("num-buffers=6");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for tag in &tags {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
    recorder.finish();
    assert_eq!(recorder.buffers().len(), 6);
}
