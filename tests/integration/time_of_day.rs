// SPDX-License-Identifier: MPL-2.0

//! The time of day that publishers state: on buffers, through the demuxer, and in `stats`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::internal::amf0::{Value, write_all};

use support::flv::{self, Tag};
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, video_header};
use support::{PATIENCE, init};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

const TIMES: [u8; 16] = *b"\x0a\xec\xff\xe7\x52\x72\x4e\x2f\xa6\x2f\xd1\x9c\xd6\x1a\x93\xb5";
const SESSION: [u8; 16] = *b"\xca\x60\xe7\x1c\x6a\x8b\x43\x88\xa3\x77\x15\x1d\xf7\xbf\x8a\xc2";
const RENDITION: [u8; 16] = *b"\xf1\xfb\xc1\xd5\x10\x1e\x4f\xb5\xa6\x1e\xb8\xce\x3c\x07\xb8\xc0";

const FIELDS: [&str; 6] = [
    "capture-latency",
    "encode-latency",
    "send-latency",
    "encoder-lagged-frames",
    "encoder-dropped-frames",
    "encoder-skipped-frames",
];

/// A time of whole milliseconds some time ago, in nanoseconds since the Unix epoch.
fn ago(time: Duration) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (since - time).as_millis() as u64 * MILLISECOND
}

fn text(nanos: u64, format: &str) -> String {
    let time = glib::DateTime::from_unix_utc((nanos / SECOND) as i64).unwrap();
    let millis = nanos % SECOND / MILLISECOND;
    format!("{}.{millis:03}", time.format(format).unwrap())
}

fn rfc_3339(event: u8, nanos: u64) -> Vec<u8> {
    let text = text(nanos, "%Y-%m-%dT%H:%M:%S");
    [&[1, event], text.as_bytes(), b"Z\0"].concat()
}

/// The three messages of OBS about a frame that was composed at this time. Each step takes 10 ms.
fn messages(composed: u64, lagged: u32, dropped: u32, skipped: u32) -> [Vec<u8>; 3] {
    let at = |event: u8| rfc_3339(event, composed + u64::from(event - 1) * 10 * MILLISECOND);
    let counters = |counters: &[(u8, u32)]| {
        let counter = |(name, count): &(u8, u32)| [&[*name][..], &count.to_be_bytes()].concat();
        let bytes: Vec<u8> = counters.iter().flat_map(counter).collect();
        [&[counters.len() as u8 - 1][..], &bytes].concat()
    };
    let session = counters(&[(1, 100), (2, lagged), (3, dropped), (4, 99)]);
    let rendition = counters(&[(1, 100), (2, skipped), (3, 99)]);
    [
        [&TIMES[..], &[3], &at(1), &at(2), &at(3), &at(4)].concat(),
        [&SESSION[..], &[0], &at(4), &session].concat(),
        [&RENDITION[..], &[0], &at(4), &rendition].concat(),
    ]
}

/// An SEI NAL unit with its length field.
fn sei(header: &[u8], message: &[u8]) -> Vec<u8> {
    let mut nal = header.to_vec();
    let mut zeros = 0;
    for byte in [&[5, message.len() as u8], message, &[0x80]].concat() {
        if zeros == 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
    [&(nal.len() as u32).to_be_bytes()[..], &nal].concat()
}

const IDR: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 0x84];

fn avc_keyframe(timestamp: u32, messages: &[Vec<u8>]) -> Tag {
    let seis: Vec<u8> = messages.iter().flat_map(|m| sei(&[6], m)).collect();
    // 40 ms of composition time.
    let front = [0x17, 1, 0, 0, 40];
    Tag::new(flv::VIDEO, timestamp, [&front[..], &seis, IDR].concat())
}

fn on_fi(timestamp: u32, date: &str, time: &str) -> Tag {
    let properties = [("sd", date), ("st", time)];
    let properties = properties.map(|(name, text)| (name.to_owned(), text.into()));
    script(timestamp, "onFI", Value::Object(properties.into()))
}

fn script(timestamp: u32, name: &str, value: Value) -> Tag {
    let mut body = Vec::new();
    write_all(&mut body, &[name.into(), value]);
    Tag::new(flv::SCRIPT, timestamp, body)
}

/// Returns the times of day that a buffer carries.
fn times_of_day(buffer: &gst::BufferRef) -> Vec<u64> {
    let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    let named = metas.filter(|meta| {
        let caps = meta.reference();
        caps.structure(0).unwrap().has_name("timestamp/x-unix")
    });
    named.map(|meta| meta.timestamp().nseconds()).collect()
}

/// Returns kind, publisher's timestamp in milliseconds and time of day of each tag with media or
/// script data.
fn recorded(recorder: &Recorder) -> Vec<(u8, u64, Option<u64>)> {
    let mut recorded = Vec::new();
    for buffer in recorder.buffers() {
        let bytes = buffer.map_readable().unwrap();
        let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
        let times = times_of_day(&buffer);
        assert!(times.len() <= 1, "{times:?}");
        if !is_header {
            // The publisher's own timestamp comes first, as without a time of day.
            let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
            let own = meta.timestamp().mseconds();
            recorded.push((bytes[0], own, times.first().copied()));
        }
    }
    recorded
}

fn int(recorder: &Recorder, name: &str) -> i64 {
    let stats = recorder.stats();
    stats
        .get(name)
        .unwrap_or_else(|error| panic!("{error} in {stats}"))
}

fn count(recorder: &Recorder, name: &str) -> u64 {
    let stats = recorder.stats();
    stats
        .get(name)
        .unwrap_or_else(|error| panic!("{error} in {stats}"))
}

/// Asserts that a latency is at least this one, and not more by minutes.
#[track_caller]
fn assert_latency(recorder: &Recorder, name: &str, least: Duration) {
    let latency = int(recorder, name);
    let least = least.as_nanos() as i64;
    // The stated time has whole milliseconds.
    let range = least..least + (PATIENCE.as_nanos() as i64);
    assert!(range.contains(&latency), "{name}: {latency}");
}

#[test]
fn metrics_of_obs_give_each_buffer_its_time_of_day() {
    let recorder = Recorder::start("");
    let composed = ago(Duration::from_millis(2500));
    // The second keyframe says that its clock has drifted by 3 ms in a second.
    let second = composed + SECOND + 3 * MILLISECOND;
    let first_messages = messages(composed, 3, 256, 5);
    let tags = [
        video_header(0),
        audio_header(0),
        audio(990, 20),
        avc_keyframe(1000, &first_messages),
        audio(1013, 20),
        delta_frame(1040, 30),
        avc_keyframe(2000, &messages(second, 4, 0, 1)),
        delta_frame(2040, 30),
        audio(2050, 20),
        // The encoder repeats its messages: nothing new was lost.
        avc_keyframe(3000, &messages(second, 4, 0, 1)[1..]),
    ];
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &tags);
    unpublish(client);
    recorder.finish();
    let at = |millis: i64| Some(composed.saturating_add_signed(millis * MILLISECOND as i64));
    let expected = [
        (flv::AUDIO, 990, None),
        (flv::VIDEO, 1000, at(0)),
        // Presented 27 ms before the keyframe, which has 40 ms of composition time.
        (flv::AUDIO, 1013, at(-27)),
        (flv::VIDEO, 1040, at(0)),
        (flv::VIDEO, 2000, at(1003)),
        (flv::VIDEO, 2040, at(1003)),
        (flv::AUDIO, 2050, at(1013)),
        (flv::VIDEO, 3000, at(2003)),
    ];
    assert_eq!(recorded(&recorder), expected);
    assert_eq!(count(&recorder, "encoder-lagged-frames"), 3 + 4);
    assert_eq!(count(&recorder, "encoder-dropped-frames"), 256);
    assert_eq!(count(&recorder, "encoder-skipped-frames"), 5 + 1);
    assert_eq!(int(&recorder, "encode-latency"), 20 * MILLISECOND as i64);
    assert_latency(
        &recorder,
        "capture-latency",
        Duration::from_millis(2500 - 1003),
    );
    assert_latency(
        &recorder,
        "send-latency",
        Duration::from_millis(2500 - 1033),
    );
}

#[test]
fn metrics_are_read_from_hevc_and_av1() {
    let composed = ago(Duration::from_secs(60 * 86_400));
    let messages = messages(composed, 1, 2, 3);
    let hevc_header = [&b"\x90hvc1\x01"[..], &[0; 20], &[3, 0]].concat();
    let slice = [0, 0, 0, 4, 0x26, 1, 0xAF, 0x10];
    let seis = messages
        .each_ref()
        .map(|message| sei(&[40 << 1, 1], message));
    let hevc = [&b"\x91hvc1\0\0\0"[..], &slice, &seis.concat()].concat();
    let av1_header = b"\x90av01\x81\x00\x0C\x00".to_vec();
    let obus = messages.each_ref().map(|message| {
        let size = message.len() as u8 + 2;
        [&[0x2A, size | 0x80, size >> 7, 6], &message[..], &[0x80]].concat()
    });
    let av1 = [&b"\x91av01\x12\0\x32\x03\x10\x01\x02"[..], &obus.concat()].concat();
    for (header, frame) in [(hevc_header, hevc), (av1_header, av1)] {
        let recorder = Recorder::start("");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        let tags = [
            Tag::new(flv::VIDEO, 0, header),
            Tag::new(flv::VIDEO, 500, frame),
        ];
        send(&mut client, &tags);
        unpublish(client);
        recorder.finish();
        assert_eq!(recorded(&recorder), [(flv::VIDEO, 500, Some(composed))]);
        assert_eq!(count(&recorder, "encoder-dropped-frames"), 2);
        let days = int(&recorder, "capture-latency") / (86_400 * SECOND as i64);
        assert_eq!(days, 60);
    }
}

#[test]
fn script_data_gives_buffers_their_time_of_day() {
    let recorder = Recorder::start("");
    let stated = ago(Duration::from_secs(2));
    // The encoder states the local time of a zone of 5 hours and a half.
    let local = stated + (5 * 3600 + 1800) * SECOND;
    let date = text(local, "%d-%m-%Y");
    let (date, time) = (date.split('.').next().unwrap(), text(local, "%H:%M:%S"));
    let later = stated + 600 * SECOND;
    let text = text(later, "%Y-%m-%dT%H:%M:%S") + "Z";
    let object = Value::Object(vec![("text".to_owned(), text[..].into())]);
    let tags = [
        video_header(0),
        on_fi(1000, date, &time),
        keyframe(1000, 30),
        on_fi(1020, "32-13-2024", "25:61:61.000"),
        delta_frame(1040, 30),
        script(1080, "onTextData", object),
        // Not a time.
        script(1090, "onTextData", "hello".into()),
        delta_frame(1100, 30),
    ];
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &tags);
    unpublish(client);
    recorder.finish();
    let at = |millis: u64| Some(stated + millis * MILLISECOND);
    let expected = [
        (flv::SCRIPT, 1000, at(0)),
        (flv::VIDEO, 1000, at(0)),
        (flv::SCRIPT, 1020, at(20)),
        (flv::VIDEO, 1040, at(40)),
        (flv::SCRIPT, 1080, at(600_000)),
        (flv::SCRIPT, 1090, at(600_010)),
        (flv::VIDEO, 1100, at(600_020)),
    ];
    assert_eq!(recorded(&recorder), expected);
    // The publisher's clock is ahead.
    let latency = int(&recorder, "capture-latency");
    assert!(latency < -300 * SECOND as i64, "{latency}");
    for name in &FIELDS[1..] {
        assert!(!recorder.stats().has_field(*name), "{name}");
    }
}

#[test]
fn time_of_day_ends_with_its_publisher_and_at_a_jump() {
    let recorder = Recorder::start("keep-listening=true");
    let stated = ago(Duration::from_secs(1));
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = [
        video_header(50_000),
        avc_keyframe(50_000, &messages(stated, 1, 1, 1)),
        // The publisher's clock starts again.
        keyframe(10, 30),
        delta_frame(50, 30),
        avc_keyframe(90, &messages(stated + 5 * SECOND, 1, 1, 1)),
        delta_frame(130, 30),
    ];
    send(&mut client, &tags);
    unpublish(client);
    let media = |buffers: &[gst::Buffer]| {
        let is_media = |b: &&gst::Buffer| !b.flags().contains(gst::BufferFlags::HEADER);
        buffers.iter().filter(is_media).count()
    };
    recorder.wait_until("five frames", |buffers| media(buffers) == 5);
    assert!(recorder.stats().has_field("capture-latency"));
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(130), keyframe(170, 30)]);
    recorder.wait_until("six frames", |buffers| media(buffers) == 6);
    let times: Vec<_> = recorded(&recorder).iter().map(|(.., time)| *time).collect();
    let later = stated + 5 * SECOND;
    let expected = [Some(stated), None, None, Some(later), Some(later), None];
    assert_eq!(times, expected);
    for name in FIELDS {
        assert!(!recorder.stats().has_field(name), "{name}");
    }
}

#[test]
fn publishers_that_state_no_time_have_none() {
    let recorder = Recorder::start("");
    let other = script(0, "onTextData", "hello".into());
    // Unregistered user data of x264.
    let user_data =
        b"\xdc\x45\xe9\xbd\xe6\xd9\x48\xb7\x96\x2c\xd8\x20\xd9\x23\xee\xefx264".to_vec();
    let tags = [
        video_header(0),
        other,
        avc_keyframe(40, &[user_data]),
        delta_frame(80, 30),
    ];
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &tags);
    unpublish(client);
    recorder.finish();
    assert!(recorded(&recorder).iter().all(|(.., time)| time.is_none()));
    for name in FIELDS {
        assert!(!recorder.stats().has_field(name), "{name}");
    }
}

#[test]
fn time_of_day_passes_the_demuxer_and_the_source_of_many() {
    for (source, downstream) in [
        ("rtmp2serversrc", "eflvdemux ! fakesink"),
        ("rtmp2multiserversrc", "eflvdemux ! fakesink"),
        ("rtmp2serverbin", "fakesink"),
    ] {
        init();
        let pipeline = format!(
            "{source} name=src port=0 ! {downstream} name=sink sync=false async=false signal-handoffs=true"
        );
        let pipeline = gst::parse::launch(&pipeline).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (buffers, sink) = (Arc::new(Mutex::new(Vec::new())), pipeline.by_name("sink"));
        let kept = buffers.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        sink.unwrap().connect("handoff", false, move |values| {
            let buffer: gst::Buffer = values[1].get().unwrap();
            kept.lock().unwrap().push(buffer);
            let _ = sender.send(());
            None
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let source_element = pipeline.by_name("src").unwrap();
        let port = source_element.property::<u32>("current-port") as u16;
        let stated = ago(Duration::from_secs(1));
        let mut client = RawClient::publish(port, "live", "key");
        let tags = [
            video_header(0),
            avc_keyframe(1000, &messages(stated, 1, 1, 1)),
            delta_frame(1050, 30),
        ];
        send(&mut client, &tags);
        for _ in 0..2 {
            receiver.recv_timeout(PATIENCE).unwrap();
        }
        let times: Vec<_> = buffers
            .lock()
            .unwrap()
            .iter()
            .map(|b| times_of_day(b))
            .collect();
        assert_eq!(times, [[stated], [stated + 10 * MILLISECOND]], "{source}");
        for buffer in &*buffers.lock().unwrap() {
            let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
            let names = metas.map(|meta| meta.reference().structure(0).unwrap().name().to_string());
            assert_eq!(
                names.collect::<Vec<_>>(),
                ["timestamp/x-rtmp", "timestamp/x-unix"]
            );
        }
        drop(client);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
