// SPDX-License-Identifier: MPL-2.0

//! Parsers, decoders and muxers accept the demuxer's output without further settings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;
use gstrtmp2server::StreamEvent;

use super::live::decoded_by_ffmpeg;
use support::clients::{FFMPEG, NEW_FFMPEG, ffmpeg, publish};
use support::media::{SMALL_VIDEO, TONE, made_by};
use support::recorder::Recorder;
use support::{PATIENCE, init, rendered};

fn new_file(name: &str, arguments: &str) -> PathBuf {
    let name = format!("linking-{name}.flv");
    made_by(&*NEW_FFMPEG, &name, &format!("{arguments} -f flv"))
}

/// Returns files of two seconds of audio and video, with their names.
fn files() -> Vec<(&'static str, PathBuf)> {
    let with = |name, codecs: &str| {
        let arguments = format!("{SMALL_VIDEO} {TONE} -pix_fmt yuv420p -t 2 {codecs}");
        (name, new_file(name, &arguments))
    };
    vec![
        with("h264-aac", "-c:v libx264 -bf 2 -g 15 -c:a aac"),
        with(
            "hevc-opus",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=2 -c:a libopus",
        ),
        with("av1-flac", "-c:v libsvtav1 -preset 12 -g 30 -c:a flac"),
        with(
            "vp9-ac3",
            "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a ac3",
        ),
        with("flv1-mp3", "-c:v flv -c:a libmp3lame -ar 44100"),
        with("h264-eac3", "-c:v libx264 -preset ultrafast -c:a eac3"),
    ]
}

fn pipeline(text: &str) -> gst::Element {
    init();
    gst::parse::launch(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Plays to the end, and returns the number of bytes that its element `sink` has got.
fn bytes_rendered(pipeline: &gst::Element) -> u64 {
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink");
    let pad = sink.unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            counted.fetch_add(buffer.size() as u64, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    rendered(pipeline);
    bytes.load(Ordering::Relaxed)
}

/// decodebin finds the decoder from the caps alone.
#[test]
fn files_of_every_codec_decode() {
    for (name, file) in files() {
        let mut by_ffmpeg = decoded_by_ffmpeg(&file, "a:0");
        if name == "hevc-opus" {
            // Samples at the start of libopus that ffmpeg cuts off and GStreamer does not.
            by_ffmpeg += 312 * 2;
        }
        let file = file.display();
        for decoder in ["decodebin", "decodebin3"] {
            let video = format!(
                "filesrc location={file} ! eflvdemux name=d d.video_0 ! queue ! {decoder} ! \
                 videoconvert ! fakesink name=sink"
            );
            assert_eq!(rendered(&pipeline(&video)), 60, "{name} with {decoder}");
            let audio = format!(
                "filesrc location={file} ! eflvdemux name=d d.audio_0 ! queue ! {decoder} ! \
                 audioconvert ! audio/x-raw,format=S16LE ! fakesink name=sink"
            );
            let pipeline = pipeline(&audio);
            let bytes = bytes_rendered(&pipeline);
            assert_eq!(bytes, by_ffmpeg, "{name} with {decoder}");
        }
    }
}

#[test]
fn parsers_accept_the_output() {
    let parsers = [
        ("h264-aac", "h264parse", "aacparse"),
        ("hevc-opus", "h265parse", "opusparse"),
        ("av1-flac", "av1parse", "flacparse"),
        ("vp9-ac3", "vp9parse", "ac3parse"),
        ("flv1-mp3", "identity", "mpegaudioparse"),
        ("h264-eac3", "h264parse", "ac3parse"),
    ];
    let files = files();
    for (name, video, audio) in parsers {
        let (_, file) = files.iter().find(|(n, _)| *n == name).unwrap();
        let file = file.display();
        for (pad, parser, least) in [("video_0", video, 60), ("audio_0", audio, 50)] {
            let text = format!(
                "filesrc location={file} ! eflvdemux name=d d.{pad} ! queue ! {parser} ! \
                 fakesink name=sink"
            );
            assert!(rendered(&pipeline(&text)) >= least, "{name}: {parser}");
        }
    }
}

/// Returns the number of video and audio packets, counted by `program`.
fn packets(program: impl AsRef<OsStr> + Copy, file: &Path) -> (usize, usize) {
    let count = |stream: &str| {
        let arguments = format!(
            "-i {} -map 0:{stream} -c copy -f framecrc -",
            file.display()
        );
        let output = ffmpeg(program, &arguments).wait();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    (count("v"), count("a"))
}

/// Straight into Matroska, the muxer with the most required fields.
#[test]
fn matroska_accepts_the_output() {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in files() {
        // Matroska has no Sorenson H.263.
        if name.starts_with("flv1") {
            continue;
        }
        let out = folder.path().join(format!("{name}.mkv"));
        let text = format!(
            "filesrc location={} ! eflvdemux name=d matroskamux name=m ! filesink location={} \
             d.video_0 ! queue ! m.video_0 d.audio_0 ! queue ! m.audio_0",
            file.display(),
            out.display()
        );
        let pipeline = pipeline(&text);
        pipeline.set_state(gst::State::Playing).unwrap();
        let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds);
        pipeline.set_state(gst::State::Null).unwrap();
        let message = message.unwrap_or_else(|| panic!("{name} does not end"));
        assert_eq!(
            message.type_(),
            gst::MessageType::Eos,
            "{name}: {message:?}"
        );
        // The old ffmpeg cannot read Enhanced FLV, and the new one reads no AAC from files
        // of this matroskamux.
        let expected = packets(NEW_FFMPEG.as_path(), &file);
        assert_eq!(packets(FFMPEG, &out), expected, "{name}");
    }
}

/// An unlinked track does not stop the others, whichever comes first.
#[test]
fn tracks_may_stay_unlinked() {
    let (_, file) = &files()[0];
    for pad in ["video_0", "audio_0"] {
        let text = format!(
            "filesrc location={} ! eflvdemux name=d d.{pad} ! queue ! fakesink name=sink",
            file.display()
        );
        assert!(rendered(&pipeline(&text)) >= 60, "{pad}");
    }
}

/// A track of a live stream may be linked later. A file is over by then.
#[test]
fn unlinked_live_streams_continue_and_unlinked_files_end() {
    let (_, file) = &files()[0];
    let recorder = Recorder::start_into("", "eflvdemux name=d");
    publish(FFMPEG, file, false, &recorder.url("live/key")).succeed();
    // Everything has arrived, and the publisher ends the stream.
    let is_gone = |message: &gst::Structure| message.get("event") == Ok(StreamEvent::PublisherGone);
    let mut messages = Vec::new();
    while !messages.iter().any(is_gone) {
        messages = recorder.messages("rtmp2-stream-event", messages.len() + 1);
    }
    let bus = recorder.pipeline.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
    let demuxer = recorder.pipeline.by_name("d").unwrap();
    let stats: gst::Structure = demuxer.property("stats");
    assert!(stats.get::<u64>("video-buffers").unwrap() >= 60);

    let text = format!("filesrc location={} ! eflvdemux", file.display());
    let pipeline = pipeline(&text);
    pipeline.set_state(gst::State::Playing).unwrap();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let kinds = [gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(message.is_some());
}

/// The streaming thread waits in a sink meanwhile.
#[test]
fn pipelines_of_files_stop_early() {
    let (_, file) = &files()[0];
    let text = format!(
        "filesrc location={} ! eflvdemux name=d d.video_0 ! fakesink name=sink sync=true",
        file.display()
    );
    let pipeline = pipeline(&text);
    pipeline.set_state(gst::State::Paused).unwrap();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let (result, state, _) = pipeline.state(patience);
    result.unwrap();
    assert_eq!(state, gst::State::Paused);
    pipeline.set_state(gst::State::Null).unwrap();
    let demuxer = pipeline.downcast_ref::<gst::Bin>().unwrap();
    assert_eq!(demuxer.by_name("d").unwrap().num_src_pads(), 0);
}

/// Push mode in small buffers, as from a network, equals pull mode from a file.
#[test]
fn push_and_pull_mode_have_the_same_output() {
    for (name, file) in files() {
        let counts = ["", "! queue"].map(|between| {
            let text = format!(
                "filesrc location={} {between} ! eflvdemux name=d d.video_0 ! queue ! \
                 fakesink name=sink",
                file.display()
            );
            rendered(&pipeline(&text))
        });
        assert_eq!(counts, [60, 60], "{name}");
    }
}
