// SPDX-License-Identifier: MPL-2.0

//! Timestamps beyond 24, 31 and 32 bits, chunks of any size, and one stream from several
//! publishers.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use support::PATIENCE;
use support::clients::{FFMPEG, ffmpeg, publish};
use support::flv::{AUDIO, FILE_HEADER, Tag, VIDEO, assert_same_media, media, parse, read_file};
use support::media::{copy, made_by, small};
use support::raw::{RawClient, media_chunks};
use support::recorder::Recorder;

const CHUNK_SIZE: usize = 128;

/// Returns two sequence headers, then four seconds of video at 25 frames per second and of AAC, in
/// order. Sizes vary, and some are exact multiples of the chunk size.
fn four_seconds(start: i64) -> Vec<(i64, Tag)> {
    let mut tags = vec![
        (
            start,
            Tag::new(VIDEO, 0, [0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F]),
        ),
        (start, Tag::new(AUDIO, 0, [0xAF, 0, 0x11, 0x90])),
    ];
    let (mut audio_time, mut audio_count) = (0, 0);
    for frame in 0..100i64 {
        let time = frame * 40;
        while audio_time <= time {
            let length = 1 + audio_count as usize % 300;
            tags.push((
                start + audio_time,
                Tag::new(AUDIO, 0, filled(&[0xAF, 1], length)),
            ));
            audio_count += 1;
            audio_time = audio_count * 1024 / 48;
        }
        let front = if frame % 25 == 0 { 0x17 } else { 0x27 };
        let length = match frame {
            0 => 20_000,
            _ => CHUNK_SIZE * (1 + frame as usize % 5) - 5 - frame as usize % 2,
        };
        tags.push((
            start + time,
            Tag::new(VIDEO, 0, filled(&[front, 1, 0, 0, 0], length)),
        ));
    }
    tags
}

fn filled(front: &[u8], length: usize) -> Vec<u8> {
    let body = (0..length).map(|i| (i * 7 + length) as u8);
    front.iter().copied().chain(body).collect()
}

/// Returns the tags with timestamps cut to this number of bits, as some writers send them.
fn with_timestamp_bits(tags: &[(i64, Tag)], bits: u32) -> Vec<Tag> {
    let stamp = |(time, tag): &(i64, Tag)| Tag {
        timestamp: (time & ((1 << bits) - 1)) as u32,
        ..tag.clone()
    };
    tags.iter().map(stamp).collect()
}

/// Publishes tags in chunks of this size and returns the media of the output.
fn publish_through(properties: &str, tags: &[Tag], chunk_size: usize) -> Vec<Tag> {
    let recorder = Recorder::start(properties);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    if chunk_size != CHUNK_SIZE {
        client.set_chunk_size(chunk_size as u32);
    }
    for tag in tags {
        client.send(&media_chunks(
            tag.kind,
            tag.timestamp,
            &tag.body,
            chunk_size,
        ));
    }
    // Closing with unread replies would reset the connection and lose data in flight.
    client.socket.shutdown(Shutdown::Write).unwrap();
    media(&recorder.finish())
}

/// Asserts that a stream that starts two seconds before a limit passes, from a writer that keeps
/// this number of bits.
#[track_caller]
fn assert_crosses(limit: i64, bits: u32) {
    let tags = four_seconds(limit - 2000);
    let got = publish_through("", &with_timestamp_bits(&tags, bits), CHUNK_SIZE);
    // The true timestamps, not the wrapped ones.
    assert_same_media(&with_timestamp_bits(&tags, 32), &got);
    let first = got.iter().find(|tag| tag.is_coded()).unwrap();
    assert_eq!(first.timestamp, 0);
    let own = publish_through(
        "timestamp-mode=publisher",
        &with_timestamp_bits(&tags, bits),
        CHUNK_SIZE,
    );
    assert_same_media(&with_timestamp_bits(&tags, 32), &own);
    let first = own.iter().find(|tag| tag.is_coded()).unwrap();
    assert_eq!(i64::from(first.timestamp), limit - 2000);
}

#[test]
fn times_cross_24_bits() {
    assert_crosses(1 << 24, 32);
}

#[test]
fn times_cross_24_bits_in_a_writer_of_24_bits() {
    assert_crosses(1 << 24, 24);
}

#[test]
fn times_cross_31_bits() {
    assert_crosses(1 << 31, 32);
}

#[test]
fn times_cross_31_bits_in_a_writer_of_31_bits() {
    assert_crosses(1 << 31, 31);
}

#[test]
fn times_cross_32_bits() {
    assert_crosses(1 << 32, 32);
}

#[test]
fn times_start_above_24_bits() {
    assert_crosses((1 << 24) + 10_000, 32);
}

/// Asserts the same with ffmpeg, which sends most timestamps as deltas and keeps 31 bits.
#[track_caller]
fn assert_ffmpeg_crosses(limit: i64) {
    let file = small(4);
    let offset = (limit - 2000) as f64 / 1000.0;
    let options = format!(
        "-i {} -map 0 -c copy -output_ts_offset {offset} -f flv",
        file.display()
    );
    let expected = read_file(&made_by(
        FFMPEG,
        &format!("small-4-from-{offset}.flv"),
        &options,
    ));
    let recorder = Recorder::start("");
    ffmpeg(FFMPEG, &format!("{options} {}", recorder.url("live/key"))).succeed();
    assert_same_media(&without_wrap(expected), &recorder.finish());
}

/// Returns the true timestamps of a short stream that starts below 31 bits.
fn without_wrap(tags: Vec<Tag>) -> Vec<Tag> {
    let first = tags.iter().find(|tag| tag.is_coded()).unwrap().timestamp;
    let unwrap = |tag: Tag| Tag {
        timestamp: first + (tag.timestamp.wrapping_sub(first) & ((1 << 31) - 1)),
        ..tag
    };
    tags.into_iter().map(unwrap).collect()
}

#[test]
fn ffmpeg_crosses_24_bits() {
    assert_ffmpeg_crosses(1 << 24);
}

#[test]
fn ffmpeg_crosses_31_bits() {
    assert_ffmpeg_crosses(1 << 31);
}

#[test]
fn ffmpeg_starts_above_24_bits() {
    assert_ffmpeg_crosses((1 << 24) + 10_000);
}

#[test]
fn publisher_mode_keeps_the_times_of_ffmpeg() {
    let file = small(4);
    let options = format!(
        "-i {} -map 0 -c copy -output_ts_offset 100 -f flv",
        file.display()
    );
    let expected = read_file(&made_by(FFMPEG, "small-4-from-100.flv", &options));
    let recorder = Recorder::start("timestamp-mode=publisher");
    ffmpeg(FFMPEG, &format!("{options} {}", recorder.url("live/key"))).succeed();
    let got = recorder.finish();
    assert_same_media(&expected, &got);
    let first = |tags: &[Tag]| tags.iter().find(|tag| tag.is_coded()).unwrap().timestamp;
    assert_eq!(first(&got), first(&expected));
}

#[track_caller]
fn assert_chunk_size_passes(size: usize) {
    // Also with the extended timestamp, which each chunk repeats.
    for start in [0, 1 << 24] {
        let mut tags = four_seconds(start);
        tags.push((
            start + 4000,
            Tag::new(VIDEO, 0, filled(&[0x17, 1, 0, 0, 0], 200_000)),
        ));
        let tags = with_timestamp_bits(&tags, 32);
        assert_same_media(&tags, &publish_through("", &tags, size));
    }
}

#[test]
fn chunks_of_1_byte() {
    assert_chunk_size_passes(1);
}

#[test]
fn chunks_of_128_bytes() {
    assert_chunk_size_passes(128);
}

#[test]
fn chunks_of_4096_bytes() {
    assert_chunk_size_passes(4096);
}

#[test]
fn chunks_of_60000_bytes() {
    assert_chunk_size_passes(60_000);
}

#[test]
fn chunks_of_16777215_bytes() {
    assert_chunk_size_passes(16_777_215);
}

/// ffmpeg adopts the chunk size that the server announces.
#[test]
fn ffmpeg_follows_the_chunk_size() {
    let file = small(4);
    let expected = read_file(&copy(FFMPEG, &file));
    for size in [128, 1000, 4096, 60_000] {
        let recorder = Recorder::start(&format!("chunk-size={size}"));
        publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
        assert_same_media(&expected, &recorder.finish());
    }
}

/// Returns the number of buffers that `flvdemux ! h264parse` makes of a file.
fn decodable_frames(bytes: &[u8]) -> usize {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let pipeline = format!(
        "filesrc location={} ! flvdemux name=demux demux.video ! h264parse ! \
         fakesink name=sink async=false sync=false demux.audio ! fakesink async=false sync=false",
        file.path().display()
    );
    let pipeline = gst::parse::launch(&pipeline).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let pad = pipeline.by_name("sink").unwrap().static_pad("sink");
    pad.unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(patience, &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    let end = end.expect("the file plays to its end");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    count.load(Ordering::Relaxed)
}

#[test]
fn three_publishers_make_one_stream() {
    let small = small(4);
    let other = "-f lavfi -i testsrc=size=640x480:rate=30 -f lavfi -i sine=sample_rate=48000 \
                 -t 3 -c:v libx264 -preset ultrafast -g 30 -c:a aac -f flv";
    let other = made_by(FFMPEG, "other-3.flv", other);
    let recorder = Recorder::start("keep-listening=true");
    let mut expected = Vec::new();
    for file in [&small, &small, &other] {
        publish(FFMPEG, file, false, &recorder.url("live/key")).succeed();
        let sent = read_file(&copy(FFMPEG, file));
        expected.push(
            media(&sent)
                .into_iter()
                .filter(|tag| tag.is_coded())
                .collect::<Vec<_>>(),
        );
        // The next publisher must not meet this one, which is gone once everything was read.
        let count: usize = expected.iter().map(Vec::len).sum();
        recorder.wait_until("its last tag", |buffers| {
            let bytes = buffers.iter().map(|b| b.map_readable().unwrap());
            let coded = bytes.skip(1).filter(|bytes| is_coded(bytes));
            coded.count() == count
        });
        recorder.wait_until("its end", |_| {
            !recorder.stats().get::<bool>("publishing").unwrap()
        });
    }
    let bytes = recorder.bytes();
    let headers = bytes
        .windows(FILE_HEADER.len())
        .filter(|w| *w == FILE_HEADER);
    assert_eq!(headers.count(), 1);
    let got: Vec<_> = parse(&bytes).unwrap();
    let times = |kind| {
        got.iter()
            .filter(move |t| t.kind == kind)
            .map(|t| t.timestamp)
    };
    assert!(times(VIDEO).is_sorted() && times(AUDIO).is_sorted());
    let mut coded: Vec<_> = media(&got).into_iter().filter(|t| t.is_coded()).collect();
    for expected in &expected {
        let rest = coded.split_off(expected.len());
        assert_same_media(expected, &coded);
        coded = rest;
    }
    assert!(coded.is_empty());
    let frames = got.iter().filter(|tag| tag.is_frame()).count();
    assert_eq!(frames, 120 + 120 + 90);
    assert_eq!(decodable_frames(&bytes), frames);
}

fn is_coded(tag: &[u8]) -> bool {
    let body = &tag[11..tag.len() - 4];
    Tag::new(tag[0], 0, body).is_coded()
}
