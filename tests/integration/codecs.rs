// SPDX-License-Identifier: MPL-2.0

//! `accepted-codecs`: the answer to `connect`, and the refusal of tracks.

use std::io::{Read, Write};
use std::net::TcpListener;

use gst::prelude::*;
use gstrtmp2server::StreamEvent;
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::session::{
    ConnectRequest, Offer, Session, SessionConfig, SessionEvent,
};

use support::clients::{FFMPEG, NEW_FFMPEG, ffmpeg, publish};
use support::flv::{self, AUDIO, SCRIPT, Tag, VIDEO, assert_same_media};
use support::media::{SMALL_VIDEO, TONE, copy, made_by, small};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::{keyframe, stream, video_header};
use support::wire::Wire;

/// Returns both objects of the answer to a `connect` with these properties.
fn connect_answer(port: u16, extra: &[(&str, Value)]) -> [Value; 2] {
    let mut client = RawClient::connect(port);
    let mut object = vec![("app".to_owned(), "live".into())];
    object.extend(extra.iter().map(|(n, v)| ((*n).to_owned(), v.clone())));
    client.handshake();
    client.command(0, "connect", 1.0, &[Value::Object(object)]);
    let result = client.expect_command("_result");
    result.arguments.try_into().unwrap()
}

fn list(names: &[&str]) -> Value {
    Value::StrictArray(names.iter().map(|name| (*name).into()).collect())
}

fn info_map(names: &[&str]) -> Value {
    let flags = names.iter().map(|name| ((*name).to_owned(), 4.0.into()));
    Value::Object(flags.collect())
}

const VIDEO_CODECS: [&str; 6] = ["vp08", "vp09", "av01", "avc1", "hvc1", "vvc1"];
const AUDIO_CODECS: [&str; 6] = ["ac-3", "ec-3", "Opus", ".mp3", "fLaC", "mp4a"];

#[test]
fn the_connect_answer_lists_the_accepted_codecs() {
    let offer = [
        ("fourCcList", list(&["*"])),
        ("videoFourCcInfoMap", info_map(&["avc1"])),
        ("audioFourCcInfoMap", info_map(&["*"])),
        ("capsEx", 2.0.into()),
        ("videoFunction", 4.0.into()),
    ];
    let recorder = Recorder::start("");
    let video = [&VIDEO_CODECS[..], &["*"]].concat();
    let audio = [&AUDIO_CODECS[..], &["*"]].concat();
    let both = [&VIDEO_CODECS[..], &AUDIO_CODECS, &["*"]].concat();
    for object in connect_answer(recorder.port(), &offer) {
        assert_eq!(object.get("fourCcList"), Some(&list(&both)));
        assert_eq!(object.get("videoFourCcInfoMap"), Some(&info_map(&video)));
        assert_eq!(object.get("audioFourCcInfoMap"), Some(&info_map(&audio)));
        assert_eq!(object.get("capsEx"), Some(&15.0.into()));
        assert_eq!(object.get("videoFunction"), Some(&6.0.into()));
    }
    for object in connect_answer(recorder.port(), &[]) {
        for (name, _) in &offer {
            assert_eq!(object.get(name), None);
        }
    }

    let recorder = Recorder::start("accepted-codecs=hvc1,mp4a,flv1");
    for object in connect_answer(recorder.port(), &offer) {
        assert_eq!(object.get("fourCcList"), Some(&list(&["hvc1", "mp4a"])));
        assert_eq!(object.get("videoFourCcInfoMap"), Some(&info_map(&["hvc1"])));
        assert_eq!(object.get("audioFourCcInfoMap"), Some(&info_map(&["mp4a"])));
    }
}

/// The element that a client will publish to is unknown at `connect`.
#[test]
fn the_connect_answer_covers_all_elements_of_the_port() {
    let first = Recorder::start("accepted-codecs=avc1 application=live stream-key=a");
    let port = first.port();
    let second = |application: &str| {
        let properties =
            format!("accepted-codecs=hvc1 port={port} application={application} stream-key=b");
        Recorder::start(&properties)
    };
    let offer = [("fourCcList", list(&["hvc1"]))];
    let assert_accepted = |expected: &[&str]| {
        let [properties, _] = connect_answer(port, &offer);
        assert_eq!(properties.get("fourCcList"), Some(&list(expected)));
    };
    assert_accepted(&["avc1"]);
    let other = second("other");
    assert_accepted(&["avc1"]);
    drop(other);
    let _same = second("live");
    assert_accepted(&["avc1", "hvc1"]);
}

/// Returns the `connect` request of a real client.
fn connect_request(arguments: impl Fn(&str) -> String) -> ConnectRequest {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtmp://{}/live/key", listener.local_addr().unwrap());
    let client = arguments(&url);
    let client = if client.contains("enhanced") {
        ffmpeg(&*NEW_FFMPEG, &client)
    } else {
        ffmpeg(FFMPEG, &client)
    };
    let (mut socket, _) = listener.accept().unwrap();
    let mut session = Session::new(SessionConfig::default());
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "the client ended before connect");
        if let Some(SessionEvent::Connect(request)) = session.read(&mut &buffer[..count]).unwrap() {
            drop(client);
            return (*request).clone();
        }
        let replies = session.output().take_replies();
        socket.write_all(&replies).unwrap();
    }
}

#[test]
fn ffmpeg_offers_enhanced_codecs_only_when_told_to() {
    let file = small(2).display().to_string();
    let old = connect_request(|url| format!("-i {file} -c copy -f flv {url}"));
    assert_eq!(old.offer, Offer::default());
    let new = connect_request(|url| {
        format!("-i {file} -c copy -f flv -rtmp_enhanced_codecs hvc1,av01,vp09 {url}")
    });
    assert_ne!(new.offer, Offer::default());
}

/// Neither the answer nor a missing offer keeps a client from sending.
#[test]
fn a_client_may_send_codecs_that_it_did_not_offer() {
    let file = copy(&*NEW_FFMPEG, &small(2));
    for properties in ["", "accepted-codecs=avc1,mp4a"] {
        let recorder = Recorder::start(properties);
        let arguments = format!(
            "-i {} -map 0 -c copy -f flv -rtmp_enhanced_codecs av01,hvc1 {}",
            file.display(),
            recorder.url("live/key")
        );
        ffmpeg(&*NEW_FFMPEG, &arguments).succeed();
        assert_same_media(&flv::read_file(&file), &recorder.finish());
    }
}

fn refusals(recorder: &Recorder) -> Vec<(String, u32, String)> {
    let all = recorder.messages("rtmp2-stream-event", 0);
    let refused = all
        .iter()
        .filter(|s| s.get("event") == Ok(StreamEvent::CodecRefused));
    refused
        .map(|message| {
            let details: gst::Structure = message.get("details").unwrap();
            (
                details.get("kind").unwrap(),
                details.get("track").unwrap(),
                details.get("codec").unwrap(),
            )
        })
        .collect()
}

fn refusal(kind: &str, track: u32, codec: &str) -> (String, u32, String) {
    (kind.to_owned(), track, codec.to_owned())
}

#[test]
fn audio_flows_when_video_is_refused() {
    let file = copy(FFMPEG, &small(2));
    let recorder = Recorder::start("accepted-codecs=mp4a");
    publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
    let got = recorder.finish();
    let sent = flv::read_file(&file);
    let of_kind = |tags: &[Tag], kind| -> Vec<Tag> {
        let tags = tags.iter().filter(|tag| tag.kind == kind);
        tags.cloned().collect()
    };
    assert_same_media(&of_kind(&sent, AUDIO), &of_kind(&got, AUDIO));
    assert!(of_kind(&got, VIDEO).is_empty());
    assert!(!of_kind(&got, SCRIPT).is_empty());
    assert_eq!(refusals(&recorder), [refusal("video", 0, "avc1")]);
    let dropped = recorder.stats().get::<u64>("dropped-codec-refused");
    assert_eq!(dropped, Ok(of_kind(&sent, VIDEO).len() as u64));
    // Clients that join now do not learn of tracks that are refused.
    let caps = recorder.element.static_pad("src").unwrap();
    let caps = caps.current_caps().unwrap();
    let headers = caps.structure(0).unwrap();
    let headers: gst::Array = headers.get("streamheader").unwrap();
    assert_eq!(headers.len(), 3, "file header, metadata and AAC");
}

/// ffmpeg sends two tracks of each kind through both elements: the accepted ones come out.
#[test]
fn codecs_are_refused_track_by_track() {
    let file = made_by(
        &*NEW_FFMPEG,
        "codecs-mixed.flv",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} -pix_fmt yuv420p -t 1 \
             -map 0 -map 1 -map 2 -map 3 -c:v:0 libx264 -preset:v:0 ultrafast -c:v:1 libx265 \
             -preset:v:1 ultrafast -x265-params log-level=none -c:a:0 aac -c:a:1 libopus -f flv"
        ),
    );
    let recorder = Recorder::start("accepted-codecs=hvc1,mp4a");
    publish(&*NEW_FFMPEG, &file, false, &recorder.url("live/key")).succeed();
    let bytes = {
        recorder.finish();
        recorder.bytes()
    };
    let mut refused = refusals(&recorder);
    refused.sort();
    assert_eq!(
        refused,
        [refusal("audio", 1, "Opus"), refusal("video", 0, "avc1")]
    );
    let sent = std::fs::read(&file).unwrap();
    let sent = support::demuxer::demux("eflvdemux", &sent, 1 << 20);
    let got = support::demuxer::demux("eflvdemux", &bytes, 1 << 20);
    let pads: Vec<&str> = got.keys().map(String::as_str).collect();
    assert_eq!(pads, ["audio_0", "video_1"]);
    let payloads = |track: &support::demuxer::Track| -> Vec<Vec<u8>> {
        track.packets.iter().map(|p| p.data.clone()).collect()
    };
    for pad in pads {
        assert!(payloads(&sent[pad]) == payloads(&got[pad]), "{pad}");
    }
}

/// Several tracks in one message: no available encoder sends this form.
#[test]
fn a_multitrack_message_loses_only_the_refused_tracks() {
    let track = |four_cc: &[u8; 4], id: u8| [four_cc, &[id, 0, 0, 2, b'p', id][..]].concat();
    let tag =
        |tracks: &[Vec<u8>]| Tag::new(AUDIO, 0, [&[0x95, 0x21][..], &tracks.concat()].concat());
    let recorder = Recorder::start("accepted-codecs=Opus,fLaC keep-listening=true");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let sent = tag(&[track(b"Opus", 0), track(b"ac-3", 1), track(b"fLaC", 2)]);
    for _ in 0..2 {
        client.send(&Wire::of(&sent).absolute(&sent).concat());
    }
    recorder.wait_until("both", |buffers| buffers.len() == 3);
    let expected = tag(&[track(b"Opus", 0), track(b"fLaC", 2)]);
    assert_eq!(recorder.tags(), [expected.clone(), expected]);
    assert_eq!(refusals(&recorder), [refusal("audio", 1, "ac-3")]);
    let dropped = recorder.stats().get::<u64>("dropped-codec-refused");
    assert_eq!(dropped, Ok(2));
}

#[test]
fn codec_refusals_are_posted_for_each_publisher() {
    let recorder = Recorder::start("accepted-codecs=mp4a keep-listening=true");
    for round in 1..=2 {
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        let tags = [video_header(0), keyframe(0, 50), keyframe(40, 50)];
        for tag in &tags {
            client.send(&Wire::of(tag).absolute(tag).concat());
        }
        drop(client);
        let mut known = 0;
        while refusals(&recorder).len() < round {
            known = recorder.messages("rtmp2-stream-event", known + 1).len();
        }
    }
}

#[test]
fn an_unknown_codec_is_an_error_at_start() {
    for (codecs, named) in [
        ("<\"avc1\",\"opuz\">", "opuz"),
        ("h264,hvc", "hvc"),
        ("<\"\">", ""),
    ] {
        let (error, text) = Recorder::refusal(&format!("accepted-codecs={codecs}"));
        assert!(error.matches(gst::ResourceError::Settings), "{error}");
        let expected = format!("Invalid accepted-codecs: \"{named}\" is no codec");
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains("avc1"), "{text}");
    }
}

#[test]
fn accepted_codecs_reads_back_as_it_was_set() {
    support::init();
    let element = gst::ElementFactory::make("rtmp2serversrc").build().unwrap();
    element.set_property(
        "accepted-codecs",
        vec!["Opus".to_owned(), "avc1".to_owned()],
    );
    let codecs: Vec<String> = element.property("accepted-codecs");
    assert_eq!(codecs, ["Opus", "avc1"]);
    // Naming the codecs that the publisher sends loses nothing.
    let tags = stream(0, 12);
    let recorder = Recorder::start("accepted-codecs=avc1,mp4a");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for tag in &tags {
        client.send(&Wire::of(tag).absolute(tag).concat());
    }
    drop(client);
    assert_same_media(&tags, &recorder.finish());
}
