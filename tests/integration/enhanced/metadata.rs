// SPDX-License-Identifier: MPL-2.0

//! Metadata and other script data, and facts of a stream that end with their publisher.

use support::demuxer::{Demuxer, Track};
use support::flv::{self, SCRIPT, Tag, VIDEO};
use support::synthetic::{audio, audio_header, keyframe, video_header};

use super::broken::file;
use super::cases::{case, live, push, stream_header};

/// `onMetaData` of an encoder.
fn metadata() -> Tag {
    let mut body = b"\x02\0\x0aonMetaData\x03".to_vec();
    let numbers = [
        ("framerate", 25.0_f64),
        ("AspectRatioX", 4.0),
        ("AspectRatioY", 3.0),
        ("videodatarate", 500.0),
    ];
    for (name, number) in numbers {
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(number.to_be_bytes());
    }
    body.extend(b"\0\x07encoder\x02\0\x04test\0\0\x09");
    Tag::new(SCRIPT, 0, body)
}

/// Colours of HDR, for the codec of the video header.
fn colours() -> Tag {
    let mut body = b"\xD4avc1\x02\0\x09colorInfo\x03\0\x0bcolorConfig\x03".to_vec();
    for (name, number) in [
        ("colorPrimaries", 9.0_f64),
        ("transferCharacteristics", 16.0),
        ("matrixCoefficients", 9.0),
    ] {
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(number.to_be_bytes());
    }
    body.extend([0, 0, 9, 0, 0, 9]);
    Tag::new(VIDEO, 0, body)
}

const DESCRIBED: [&str; 3] = ["colorimetry", "framerate", "pixel-aspect-ratio"];

/// The last tags of a track, of all scopes.
fn last_tags(track: &Track) -> Vec<gst::TagList> {
    let lists = track.events.iter().filter_map(|event| match event.view() {
        gst::EventView::Tag(event) => Some(event.tag().to_owned()),
        _ => None,
    });
    let lists: Vec<_> = lists.collect();
    [gst::TagScope::Global, gst::TagScope::Stream]
        .into_iter()
        .filter_map(|scope| lists.iter().rfind(|l| l.scope() == scope).cloned())
        .collect()
}

#[test]
fn facts_of_one_publisher_end_with_the_stream_header_of_the_next() {
    let all = [metadata(), video_header(0), colours(), audio_header(0)];
    let demuxer = live();
    demuxer.event(stream_header(&all));
    push(&demuxer, &keyframe(0, 10));
    push(&demuxer, &audio(0, 10));
    let first = demuxer.tracks()["video_0"].clone();
    for field in DESCRIBED {
        assert!(first.last_caps().has_field(field), "{field}");
    }
    let tags = last_tags(&first);
    assert!(tags[0].get::<gst::tags::Encoder>().is_some());
    assert!(tags[1].get::<gst::tags::NominalBitrate>().is_some());
    // The next publisher describes nothing, and has no audio.
    demuxer.event(stream_header(&[video_header(0)]));
    push(&demuxer, &keyframe(1_000, 10));
    push(&demuxer, &audio(1_000, 10));
    let tracks = demuxer.finish();
    let second = &tracks["video_0"];
    for field in DESCRIBED {
        assert!(!second.last_caps().has_field(field), "{field}");
    }
    assert!(last_tags(second).iter().all(|list| list.n_tags() == 0));
    assert_eq!(tracks["audio_0"].packets.len(), 1);
    assert_eq!(demuxer.count("without-configuration"), 1);
    // The same header again changes nothing.
    assert_eq!(second.caps.len(), 2);
}

#[test]
fn facts_of_one_file_end_with_the_next() {
    let first = file(&[metadata(), colours(), video_header(0), keyframe(0, 10)]);
    let second = file(&[video_header(0), keyframe(0, 10)]);
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&first).unwrap();
    demuxer.push(&second).unwrap();
    let tracks = demuxer.finish();
    let caps = &tracks["video_0"].caps;
    assert_eq!(caps.len(), 2);
    for field in DESCRIBED {
        assert!(caps[0].structure(0).unwrap().has_field(field), "{field}");
        assert!(!caps[1].structure(0).unwrap().has_field(field), "{field}");
    }
}

/// Caps and tags that `metadata` makes.
#[track_caller]
fn assert_is_described(metadata: Tag) {
    let tags = [metadata, video_header(0), keyframe(0, 10)];
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&file(&tags)).unwrap();
    let tracks = demuxer.finish();
    let caps = tracks["video_0"].last_caps();
    let rate = caps.get("framerate");
    assert_eq!(rate, Ok(gst::Fraction::new(25, 1)));
    let lists = last_tags(&tracks["video_0"]);
    assert!(lists[0].get::<gst::tags::Encoder>().is_some());
    assert_eq!(demuxer.count("bad-scripts"), 0);
}

#[test]
fn metadata_of_over_a_thousand_values_arrives() {
    let tags = flv::read_file(&case("09-metadata-3000-numbers.flv"));
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&file(&tags)).unwrap();
    demuxer.finish();
    assert_eq!(demuxer.count("bad-scripts"), 0);
    // The index of keyframes, and the properties after it.
    let long = tags.iter().find(|tag| tag.kind == SCRIPT).unwrap();
    let mut body = long.body[..long.body.len() - 3].to_vec();
    body.extend(&metadata().body[14..]);
    assert!(body.len() > 3_000 * 9);
    assert_is_described(Tag::new(SCRIPT, 0, body));
}

#[test]
fn metadata_after_other_values_arrives() {
    let body = metadata().body;
    let number = [&[0][..], &5.0_f64.to_be_bytes()].concat();
    let set = b"\x02\0\x0d@setDataFrame";
    let before = [
        [&number[..], &number, set].concat(),
        [&number[..], &number].concat(),
        set.to_vec(),
        vec![5, 1, 1],
        vec![0],
    ];
    for before in before {
        assert_is_described(Tag::new(SCRIPT, 0, [before, body.clone()].concat()));
    }
}

#[test]
fn metadata_before_other_bytes_arrives() {
    let body = metadata().body;
    for after in [&[0xFF][..], &[9], &[0; 7], &[3, 0, 1], &[0x11, 0x0A]] {
        assert_is_described(Tag::new(SCRIPT, 0, [&body, after].concat()));
    }
}

#[test]
fn script_data_is_an_event_with_its_time_and_a_message() {
    let text = |time, name: &str, text: &str| {
        let mut body = vec![2, 0, name.len() as u8];
        body.extend(name.as_bytes());
        body.extend(b"\x03\0\x04text\x02\0");
        body.push(text.len() as u8);
        body.extend(text.as_bytes());
        body.extend([0, 0, 9]);
        Tag::new(SCRIPT, time, body)
    };
    let demuxer = live();
    demuxer.event(stream_header(&[video_header(0), audio_header(0)]));
    // Before there is a pad.
    push(&demuxer, &text(900, "onCuePoint", "early"));
    push(&demuxer, &keyframe(1_000, 10));
    push(&demuxer, &metadata());
    push(&demuxer, &text(1_500, "onTextData", "hello"));
    push(&demuxer, &keyframe(2_000, 10));
    let seen = |structure: &gst::StructureRef| {
        assert_eq!(structure.name(), "rtmp2-script-data");
        let time: gst::ClockTime = structure.get("timestamp").unwrap();
        assert_eq!(structure.get("running-time"), Ok(time));
        let body: gst::Buffer = structure.get("body").unwrap();
        assert!(body.size() > 20);
        let name: String = structure.get("name").unwrap();
        (
            name,
            time.mseconds(),
            structure.get::<String>("values").unwrap(),
        )
    };
    let expected = [
        (
            "onCuePoint".to_owned(),
            900,
            "[{\"text\":\"early\"}]".to_owned(),
        ),
        (
            "onTextData".to_owned(),
            1_500,
            "[{\"text\":\"hello\"}]".to_owned(),
        ),
    ];
    let tracks = demuxer.finish();
    for track in tracks.values() {
        let events = track.events.iter().filter_map(|event| match event.view() {
            gst::EventView::CustomDownstream(event) => event.structure().map(seen),
            _ => None,
        });
        assert_eq!(events.collect::<Vec<_>>(), expected);
    }
    let messages = demuxer.messages(gst::MessageType::Element);
    let messages = messages.iter().map(|m| seen(m.structure().unwrap()));
    assert_eq!(messages.collect::<Vec<_>>(), expected);
}
