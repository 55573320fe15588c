// SPDX-License-Identifier: MPL-2.0

//! Limits of what publishers may send: events and `stats`. Their clock is the publisher's timestamps,
//! so nothing here takes real time.

use gst::prelude::*;
use gstrtmp2server::StreamEvent;

use support::clients::{FFMPEG, publish};
use support::flv::{Tag, VIDEO};
use support::media::small;
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, video_header};

/// Frames from one time to another in milliseconds, of which each tenth is a keyframe.
fn frames(from: u32, to: u32, step: usize) -> Vec<Tag> {
    let times = (from..to).step_by(step).enumerate();
    times
        .map(|(index, time)| match index % 10 {
            0 => keyframe(time, 500),
            _ => delta_frame(time, 500),
        })
        .collect()
}

/// Event, limit, figure and bound of each verdict so far.
fn verdicts(recorder: &Recorder) -> Vec<(StreamEvent, String, f64, f64)> {
    let messages = recorder.messages("rtmp2-stream-event", 0);
    let verdict = |message: &gst::Structure| {
        let event: StreamEvent = message.get("event").unwrap();
        if !matches!(
            event,
            StreamEvent::QualityLow | StreamEvent::QualityRestored
        ) {
            return None;
        }
        let details: gst::Structure = message.get("details").unwrap();
        let number = |name: &str| details.get::<f64>(name).unwrap();
        let limit = details.get("limit").unwrap();
        Some((event, limit, number("value"), number("bound")))
    };
    messages.iter().filter_map(verdict).collect()
}

#[test]
fn figures_beyond_their_limits_are_reported_until_they_are_within() {
    let recorder = Recorder::start(
        "keep-listening=true \
         quality-limits=\"limits,min-framerate=20,max-video-bitrate=(guint64)1000000\"",
    );
    let set: gst::Structure = recorder.element.property("quality-limits");
    assert_eq!(set.get("min-framerate"), Ok(20));
    let low = [
        &[video_header(0)][..],
        &frames(0, 4000, 40),
        &frames(4000, 10_000, 200),
    ]
    .concat();
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &low);
    recorder.wait_until("the frames", |buffers| buffers.len() > low.len());
    let got = verdicts(&recorder);
    let [(event, limit, value, bound)] = &got[..] else {
        panic!("{got:?}");
    };
    assert_eq!(
        (*event, &limit[..], *bound),
        (StreamEvent::QualityLow, "min-framerate", 20.0)
    );
    assert!((4.0..=8.0).contains(value), "{value}");
    let stats: gst::Structure = recorder.stats().get("quality").unwrap();
    assert!(
        (4.0..=8.0).contains(&stats.get::<f64>("min-framerate").unwrap()),
        "{stats}"
    );

    let restored = frames(10_000, 15_000, 40);
    send(&mut client, &restored);
    let count = low.len() + restored.len();
    recorder.wait_until("more frames", |buffers| buffers.len() > count);
    let got = verdicts(&recorder);
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(
        (got[1].0, &got[1].1[..]),
        (StreamEvent::QualityRestored, "min-framerate")
    );
    let stats: gst::Structure = recorder.stats().get("quality").unwrap();
    assert_eq!(stats.n_fields(), 0, "{stats}");

    // A limit that is set while a publisher streams judges what comes from then on.
    let limits = gst::Structure::builder("limits").field("max-video-bitrate", 10_000);
    recorder
        .element
        .set_property("quality-limits", limits.build());
    let more = frames(15_000, 20_000, 40);
    send(&mut client, &more);
    let count = count + more.len();
    recorder.wait_until("even more frames", |buffers| buffers.len() > count);
    let got = verdicts(&recorder);
    assert_eq!(got.len(), 3, "{got:?}");
    assert_eq!(
        (got[2].0, &got[2].1[..]),
        (StreamEvent::QualityLow, "max-video-bitrate")
    );
    unpublish(client);
}

#[test]
fn publishers_without_limits_have_no_verdict() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(
        &mut client,
        &[&[video_header(0)][..], &frames(0, 10_000, 1000)].concat(),
    );
    unpublish(client);
    recorder.finish();
    assert_eq!(verdicts(&recorder).len(), 0);
}

#[test]
fn unknown_limits_are_an_error_at_the_start() {
    for (limits, part) in [
        ("limits,min-colour=1", "video-bitrate"),
        ("limits,min-framerate=fast", "no number"),
        ("limits,min-width=2,max-width=1", "above"),
    ] {
        let (error, text) = Recorder::refusal(&format!("quality-limits=\"{limits}\""));
        assert!(error.matches(gst::ResourceError::Settings), "{text}");
        assert!(
            text.contains("quality-limits") && text.contains(part),
            "{text}"
        );
    }
}

/// A sequence header with a picture size, unlike those of `support::synthetic`.
fn sized_header() -> Tag {
    let sps = [0x67, 0x42, 0xC0, 0x1E, 0xDA, 0x02, 0x80, 0xB6, 0x40];
    let record = [
        &[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 9][..],
        &sps,
        &[1, 0, 2, 0x68, 4],
    ];
    Tag::new(
        VIDEO,
        0,
        [&[0x17, 0, 0, 0, 0], &record.concat()[..]].concat(),
    )
}

#[test]
fn each_limit_is_judged() {
    // 25 frames per second of 500 bytes, a keyframe each 400 ms, and 50 audio tags per second of 100
    // bytes: limit, what is beyond it, and the least and most that are measured.
    let (width, height) = (640.0, 352.0);
    let cases = [
        ("max-keyframe-interval", 399.0, 400.0, 400.0),
        ("min-keyframe-interval", 401.0, 400.0, 400.0),
        ("min-video-bitrate", 110_000.0, 95_000.0, 105_000.0),
        ("max-video-bitrate", 90_000.0, 95_000.0, 105_000.0),
        ("min-framerate", 26.0, 24.0, 25.5),
        ("max-framerate", 23.0, 24.0, 25.5),
        ("min-audio-bitrate", 45_000.0, 36_000.0, 42_000.0),
        ("max-audio-bitrate", 35_000.0, 36_000.0, 42_000.0),
        ("min-width", width + 1.0, width, width),
        ("max-width", width - 1.0, width, width),
        ("min-height", height + 1.0, height, height),
        ("max-height", height - 1.0, height, height),
    ];
    let mut tags = vec![sized_header(), audio_header(0)];
    tags.extend(frames(0, 5000, 40));
    tags.extend((0..5000).step_by(20).map(|time| audio(time, 100)));
    tags.sort_by_key(|tag| tag.timestamp);
    for (limit, bound, least, most) in cases {
        let recorder = Recorder::start("");
        let limits = gst::Structure::builder("limits")
            .field(limit, bound)
            .build();
        recorder.element.set_property("quality-limits", limits);
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send(&mut client, &tags);
        unpublish(client);
        recorder.finish();
        let got = verdicts(&recorder);
        let [(StreamEvent::QualityLow, name, value, reported)] = &got[..] else {
            panic!("{limit}: {got:?}");
        };
        assert_eq!((&name[..], *reported), (limit, bound));
        assert!((least..=most).contains(value), "{limit}: {value}");
        let quality: gst::Structure = recorder.stats().get("quality").unwrap();
        let value = quality.get::<f64>(limit).unwrap();
        assert!((least..=most).contains(&value), "{limit}: {value}");
    }
}

#[test]
fn limits_that_change_judge_what_has_come_already() {
    let recorder = Recorder::start("");
    let set = |limits: Option<gst::Structure>| {
        recorder.element.set_property("quality-limits", limits);
    };
    let limit = |width: i32| gst::Structure::builder("limits").field("max-width", width);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let mut tags = vec![sized_header()];
    tags.extend(frames(0, 400, 40));
    send(&mut client, &tags);
    recorder.wait_until("the frames", |buffers| buffers.len() > 10);
    let mut time = 400;
    let mut more = || {
        let tags = frames(time, time + 400, 40);
        time += 400;
        send(&mut client, &tags);
        let count = time as usize / 40;
        recorder.wait_until("more frames", |buffers| buffers.len() > count);
    };
    // The size is in a header that came before.
    set(Some(limit(100).build()));
    more();
    set(Some(limit(2000).build()));
    more();
    set(Some(limit(200).build()));
    more();
    set(None);
    more();
    let got = verdicts(&recorder);
    let changes = got.iter().map(|(event, name, value, bound)| {
        assert_eq!((&name[..], *value), ("max-width", 640.0));
        (*event, *bound)
    });
    let expected = [
        (StreamEvent::QualityLow, 100.0),
        (StreamEvent::QualityRestored, 2000.0),
        (StreamEvent::QualityLow, 200.0),
        (StreamEvent::QualityRestored, 200.0),
    ];
    assert_eq!(changes.collect::<Vec<_>>(), expected);
    drop(client);
}

#[test]
fn limits_that_are_set_wrongly_later_are_a_warning() {
    let recorder = Recorder::start("");
    let limits = gst::Structure::builder("limits")
        .field("min-colour", 1)
        .build();
    recorder.element.set_property("quality-limits", limits);
    let message = recorder.wait_for(gst::MessageType::Warning);
    let gst::MessageView::Warning(warning) = message.view() else {
        unreachable!("of this type");
    };
    let text = warning.error().to_string();
    assert!(
        text.contains("quality-limits") && text.contains("min-colour"),
        "{text}"
    );
}

#[test]
fn stats_describe_what_is_published() {
    let recorder = Recorder::start("");
    publish(FFMPEG, &small(1), false, &recorder.url("live/key")).succeed();
    recorder.finish();
    let stats = recorder.stats();
    let text = |name: &str| stats.get::<String>(name).unwrap();
    let number = |name: &str| stats.get::<u32>(name).unwrap();
    assert_eq!(
        (&text("video-codec")[..], &text("audio-codec")[..]),
        ("H.264", "AAC")
    );
    assert_eq!(text("profile"), "high-4:4:4");
    assert_eq!((number("width"), number("height")), (320, 240));
    assert_eq!(stats.get("configured-frame-rate"), Ok(30.0));
    assert_eq!(
        (number("audio-rate"), number("audio-channels")),
        (48_000, 1)
    );
    assert!(text("encoder").starts_with("Lavf"), "{stats}");
    assert!(stats.get::<f64>("frame-rate").unwrap() > 29.0, "{stats}");
    assert!(stats.has_field("b-frames") && stats.has_field("gop-duration"));
}

#[test]
fn stats_count_b_frames() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    // I P B P B, with one frame of delay, as offsets in frames.
    let offsets = [1_u8, 2, 0, 2, 0];
    let tags = (0..11_u32).map(|index| {
        let position = index as usize % offsets.len();
        let first = if position == 0 { 0x17 } else { 0x27 };
        Tag::new(
            VIDEO,
            40 * index,
            [first, 1, 0, 0, 40 * offsets[position], 7, 7],
        )
    });
    send(
        &mut client,
        &[vec![video_header(0)], tags.collect()].concat(),
    );
    unpublish(client);
    recorder.finish();
    assert_eq!(recorder.stats().get("b-frames"), Ok(2_u32));
}
