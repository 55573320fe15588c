// SPDX-License-Identifier: MPL-2.0

//! Bins that choose their elements by caps: they have to choose a demuxer of Enhanced FLV for
//! publishers that send it, and for no others where decodebin3 can use flvdemux.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use support::clients::NEW_FFMPEG;
use support::flv::{Tag, media, read_file};
use support::media::{SMALL_VIDEO, TONE, made_by, small};
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, keyframe, video_header};
use support::{init, rendered};

const OURS: &str = "eflvlivedemux";
const PLAIN: &str = "flvdemux";

/// From GStreamer 1.26 on, decodebin3 fails on some plain streams behind flvdemux.
fn are_plain_streams_ours() -> bool {
    let (major, minor, ..) = gst::version();
    (major, minor) >= (1, 25)
}

/// Result of a bin for a stream.
#[derive(Debug, Default)]
struct Output {
    /// Names of the demuxers that it chose, without those inside of them.
    demuxers: BTreeSet<String>,
    /// Number of video buffers, and whether audio came.
    video: u64,
    has_audio: bool,
}

/// Publishes tags into `rtmp2serversrc ! BIN`, and returns what left the bin.
fn output_of(bin: &str, tags: &[Tag]) -> Output {
    let recorder = Recorder::start_into("", &format!("{bin} name=bin"));
    let (video, audio) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = [video.clone(), audio.clone()];
    let pipeline = recorder.pipeline.downgrade();
    let demuxers = Arc::new(Mutex::new(BTreeSet::new()));
    let chosen = demuxers.clone();
    recorder
        .pipeline
        .connect_deep_element_added(move |_, parent, element| {
            let factory = element.factory().map(|factory| factory.name());
            let is_inner = parent
                .factory()
                .is_some_and(|factory| factory.name() == OURS);
            if let Some(name) = factory.filter(|name| name.contains("flv") && !is_inner) {
                chosen.lock().unwrap().insert(name.to_string());
            }
        });
    let element = recorder.pipeline.by_name("bin").unwrap();
    element.connect_pad_added(move |_, pad| {
        let pipeline = pipeline.upgrade().unwrap();
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let is_video = caps.structure(0).unwrap().name().starts_with("video");
        let count = counts[usize::from(!is_video)].clone();
        let text = "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! \
                    fakesink name=end sync=false async=false";
        let end = gst::parse::bin_from_description(text, true).unwrap();
        let sink = end.by_name("end").unwrap().static_pad("sink").unwrap();
        sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        pipeline.add(&end).unwrap();
        end.sync_state_with_parent().unwrap();
        pad.link(&end.static_pad("sink").unwrap()).unwrap();
    });
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, tags);
    unpublish(client);
    recorder.wait_for(gst::MessageType::Eos);
    let demuxers = demuxers.lock().unwrap().clone();
    Output {
        demuxers,
        video: video.load(Ordering::Relaxed),
        has_audio: audio.load(Ordering::Relaxed) > 0,
    }
}

/// Frames in each stream.
const FRAMES: u64 = 30;

#[track_caller]
fn assert_plays(tags: &[Tag], demuxer: &str) {
    for bin in ["decodebin3", "decodebin", "parsebin"] {
        let output = output_of(bin, tags);
        let chosen: Vec<&str> = output.demuxers.iter().map(String::as_str).collect();
        assert_eq!(chosen, [demuxer], "{bin}");
        assert_eq!(output.video, FRAMES, "{bin}");
        assert!(output.has_audio, "{bin}");
    }
}

fn encoded(name: &str, codecs: &str) -> Vec<Tag> {
    let arguments = format!("{SMALL_VIDEO} {TONE} -pix_fmt yuv420p -t 1 {codecs} -f flv");
    let file = made_by(&*NEW_FFMPEG, &format!("autoplugged-{name}.flv"), &arguments);
    media(&read_file(&file))
}

#[test]
fn hevc_and_opus_play() {
    let codecs = "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0:keyint=15 \
                  -c:a libopus";
    assert_plays(&encoded("hevc", codecs), OURS);
}

#[test]
fn av1_and_opus_play() {
    assert_plays(
        &encoded("av1", "-c:v libsvtav1 -preset 12 -g 30 -c:a libopus"),
        OURS,
    );
}

#[test]
fn h264_with_opus_plays() {
    let codecs = "-c:v libx264 -preset ultrafast -tune zerolatency -g 15 -c:a libopus";
    assert_plays(&encoded("h264-opus", codecs), OURS);
}

/// ffmpeg announces the channels of AAC in a tag of Enhanced FLV, on which flvdemux fails.
#[test]
fn h264_with_aac_of_six_channels_plays() {
    let codecs = "-c:v libx264 -preset ultrafast -tune zerolatency -g 15 -c:a aac -ac 6";
    assert_plays(&encoded("h264-aac", codecs), OURS);
}

#[test]
fn h264_and_aac_go_to_flvdemux_where_decodebin3_can_use_it() {
    init();
    let demuxer = if are_plain_streams_ours() {
        OURS
    } else {
        PLAIN
    };
    assert_plays(&media(&read_file(&small(1))), demuxer);
}

#[test]
fn files_go_to_flvdemux() {
    init();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/enhanced-rtmp");
    for (file, demuxer) in [(small(1), PLAIN), (folder.join("testsrc.flv"), PLAIN)] {
        let text = format!("filesrc location={} ! decodebin name=bin", file.display());
        let pipeline = gst::parse::launch(&text).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        pipeline.connect_deep_element_added(move |_, _, element| {
            let factory = element.factory().map(|factory| factory.name());
            if let Some(name) = factory.filter(|name| name.contains("flv")) {
                let _ = sender.send(name.to_string());
            }
        });
        pipeline.set_state(gst::State::Paused).unwrap();
        assert_eq!(receiver.recv_timeout(support::PATIENCE).unwrap(), demuxer);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Returns the value of the field `enhanced` in each of the source's caps.
fn enhanced_in_caps(recorder: &Recorder) -> Vec<Option<bool>> {
    let caps = recorder
        .events()
        .into_iter()
        .filter_map(|event| match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps_owned()),
            _ => None,
        });
    caps.map(|caps| {
        assert!(caps.is_subset(&gst::Caps::new_empty_simple("video/x-flv")));
        caps.structure(0).unwrap().get("enhanced").ok()
    })
    .collect()
}

#[test]
fn caps_say_that_a_stream_is_enhanced_from_there_on() {
    let opus = Tag::new(
        support::flv::AUDIO,
        0,
        *b"\x90OpusOpusHead\x01\x02\0\0\x80\xBB\0\0\0\0\0",
    );
    let ac3 = Tag::new(support::flv::AUDIO, 0, *b"\x91ac-3\x0B\x77\x12\x34");
    let channels = Tag::new(support::flv::AUDIO, 0, *b"\x94mp4a\x01\x02\0\0\0\x03");
    let plain = [
        video_header(0),
        audio_header(0),
        keyframe(0, 30),
        audio(0, 20),
    ];
    let publish = |publishers: &[&[Tag]]| {
        let recorder = Recorder::start_into("keep-listening=true", "video/x-flv ! fakesink");
        for tags in publishers {
            let before = recorder.buffers().len();
            let mut client = RawClient::publish(recorder.port(), "live", "key");
            send(&mut client, tags);
            unpublish(client);
            let file_header = usize::from(before == 0);
            let count = before + file_header + tags.len();
            recorder.wait_until("all tags", |buffers| buffers.len() == count);
        }
        enhanced_in_caps(&recorder)
    };
    let without = are_plain_streams_ours().then_some(false);
    assert_eq!(publish(&[&plain]), [without]);
    let with_channels = [&[channels][..], &plain].concat();
    assert_eq!(publish(&[&with_channels]), [Some(true)]);
    let with_opus = [&[opus.clone()][..], &plain[..1], &plain[2..3]].concat();
    assert_eq!(publish(&[&with_opus]), [Some(true)]);
    // A codec without a sequence header.
    assert_eq!(publish(&[&[ac3]]), [Some(true)]);
    // A later publisher has it, and the one after that has not.
    let publishers: [&[Tag]; 3] = [&plain, &with_opus, &plain];
    assert_eq!(publish(&publishers), [without, Some(true), Some(true)]);
}

#[test]
fn caps_say_that_a_stream_has_become_enhanced() {
    let opus = Tag::new(
        support::flv::AUDIO,
        40,
        *b"\x90OpusOpusHead\x01\x02\0\0\x80\xBB\0\0\0\0\0",
    );
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 30)]);
    recorder.wait_until("the keyframe", |buffers| buffers.len() == 3);
    send(&mut client, &[opus]);
    unpublish(client);
    recorder.finish();
    let without = are_plain_streams_ours().then_some(false);
    assert_eq!(enhanced_in_caps(&recorder), [without, Some(true)]);
}

#[test]
fn plain_demuxers_take_the_caps_of_enhanced_streams() {
    init();
    let file = small(1);
    for demuxer in ["flvdemux", "eflvdemux", "eflvlivedemux"] {
        for caps in [
            "video/x-flv,enhanced=true",
            "video/x-flv,enhanced=false",
            "video/x-flv",
        ] {
            let text = format!(
                "filesrc location={} ! typefind force-caps={caps} ! {demuxer} name=d \
                 d.video_0 ! fakesink name=sink sync=false",
                file.display()
            );
            let text = match demuxer {
                "flvdemux" => text.replace("d.video_0", "d.video"),
                _ => text,
            };
            let pipeline = gst::parse::launch(&text).unwrap();
            assert_eq!(rendered(&pipeline), 30, "{demuxer} {caps}");
        }
    }
}
