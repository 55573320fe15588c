// SPDX-License-Identifier: MPL-2.0

//! Messages with wrapped, empty or odd content.

use gstrtmp2server::internal::amf0::{self, Value};
use gstrtmp2server::internal::rtmp::message::type_id;

use super::{received, replay, send_tags, without_script};
use support::flv::{AUDIO, SCRIPT, Tag, VIDEO};
use support::raw::RawClient;
use support::synthetic::{
    audio, audio_header, delta_frame, keyframe, metadata, stream, video_header,
};
use support::wire::Wire;

fn aggregate_of(tags: &[Tag], with_last_back_pointer: bool) -> Vec<u8> {
    let mut body: Vec<u8> = tags.iter().flat_map(Tag::to_bytes).collect();
    if !with_last_back_pointer {
        body.truncate(body.len() - 4);
    }
    body
}

#[test]
fn aggregates_are_split() {
    let tags = stream(0, 12);
    for with_last_back_pointer in [true, false] {
        let got = received(|client| {
            for group in tags.chunks(5) {
                let body = aggregate_of(group, with_last_back_pointer);
                let message = Tag::new(type_id::AGGREGATE, group[0].timestamp, body);
                client.send(&Wire::on(6).absolute(&message).concat());
            }
        });
        assert_eq!(got, tags, "last back pointer: {with_last_back_pointer}");
    }
}

#[test]
fn aggregate_times_count_from_the_first_part() {
    let inner = [
        keyframe(90_000, 60),
        audio(90_010, 60),
        delta_frame(90_040, 60),
    ];
    let got = received(|client| {
        let before = keyframe(0, 70);
        send_tags(client, std::slice::from_ref(&before));
        let message = Tag::new(type_id::AGGREGATE, 40, aggregate_of(&inner, true));
        client.send(&Wire::on(6).absolute(&message).concat());
    });
    let times: Vec<u32> = got.iter().map(|tag| tag.timestamp).collect();
    assert_eq!(times, [0, 40, 50, 80]);
    for (tag, sent) in got[1..].iter().zip(&inner) {
        assert_eq!((tag.kind, &tag.body), (sent.kind, &sent.body));
    }
}

/// Runs `send` before media, and returns the script data that left the element.
fn script_data(send: impl FnOnce(&mut RawClient)) -> Vec<Vec<u8>> {
    let media = [video_header(0), keyframe(0, 60), delta_frame(40, 60)];
    let got = received(|client| {
        send(client);
        send_tags(client, &media);
    });
    let (script, rest): (Vec<Tag>, Vec<Tag>) = got.into_iter().partition(|tag| tag.kind == SCRIPT);
    assert_eq!(rest, media);
    script.into_iter().map(|tag| tag.body).collect()
}

/// Encodes `name` as an AMF0 string.
fn string(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    amf0::write_value(&mut bytes, &name.into());
    bytes
}

#[test]
fn only_set_data_frame_is_stripped() {
    let body = metadata(0).body;
    let wrapped = [string("@setDataFrame"), body.clone()].concat();
    for sent in [&wrapped, &body] {
        let got = script_data(|client| {
            client.message(4, type_id::DATA_AMF0, 1, sent);
        });
        assert_eq!(got, std::slice::from_ref(&body));
    }
}

#[test]
fn amf3_typed_metadata_is_received() {
    let body = metadata(0).body;
    let wrapped = [string("@setDataFrame"), body.clone()].concat();
    for selector in [&[0][..], &[]] {
        let sent = [selector, &wrapped].concat();
        let got = script_data(|client| {
            client.message(4, type_id::DATA_AMF3, 1, &sent);
        });
        assert_eq!(got, std::slice::from_ref(&body), "selector {selector:?}");
    }
}

#[test]
fn metadata_with_amf3_values_becomes_amf0() {
    // An AMF3 object without sealed members: {width: 320}.
    let mut amf3 = vec![0x11, 0x0A, 0x0B, 0x01, 0x0B];
    amf3.extend(b"width");
    amf3.extend([0x04, 0x82, 0x40, 0x01]);
    let sent = [vec![0], string("@setDataFrame"), string("onMetaData"), amf3].concat();
    let got = script_data(|client| {
        client.message(4, type_id::DATA_AMF3, 1, &sent);
    });
    assert_eq!(got.len(), 1);
    let values = amf0::read_all(&got[0]).unwrap();
    assert!(!values.had_amf3);
    assert_eq!(values.values[0], "onMetaData".into());
    let width = values.values[1].get("width").and_then(Value::as_number);
    assert_eq!(width, Some(320.0));
}

#[test]
fn metadata_after_other_values_is_received() {
    let case = include_bytes!("../../data/cases/21-metadata-after-two-numbers.bin");
    let (sent, got) = replay(case);
    let script: Vec<&Tag> = got.iter().filter(|tag| tag.kind == SCRIPT).collect();
    assert_eq!(script.len(), 1);
    let values = amf0::read_all(&script[0].body).unwrap().values;
    assert_eq!(values[0], "onMetaData".into());
    assert_eq!(
        values[1].get("width").and_then(Value::as_number),
        Some(160.0)
    );
    assert_eq!(without_script(got), sent);
}

#[test]
fn bytes_after_metadata_are_cut_off() {
    let body = metadata(0).body;
    let sent = [string("@setDataFrame"), body.clone(), vec![0xFF, 1, 2]].concat();
    let got = script_data(|client| {
        client.message(4, type_id::DATA_AMF0, 1, &sent);
    });
    assert_eq!(got, [body]);
}

#[test]
fn stream_without_metadata_is_received() {
    assert_eq!(script_data(|_| {}), [[0u8; 0]; 0]);
}

#[test]
fn unreadable_data_is_ignored() {
    let got = script_data(|client| {
        client.message(4, type_id::DATA_AMF0, 1, &[]);
        client.message(4, type_id::DATA_AMF0, 1, b"\x09\x11\x22 not AMF");
        client.message(4, type_id::DATA_AMF0, 1, &string("@clearDataFrame"));
        client.message(4, type_id::DATA_AMF0, 1, &metadata(0).body);
    });
    assert_eq!(got, [metadata(0).body]);
}

#[test]
fn empty_video_and_empty_configurations_are_dropped() {
    // flvdemux fails on empty video; ffmpeg sends empty configurations when it copies from MPEG-TS.
    let tags = stream(0, 6);
    let got = received(|client| {
        for (index, tag) in tags.iter().enumerate() {
            let time = tag.timestamp;
            send_tags(client, &[Tag::new(VIDEO, time, [])]);
            if index < 3 {
                let no_body = [
                    Tag::new(AUDIO, time, [0xAF, 0]),
                    Tag::new(VIDEO, time, [0x17, 0, 0, 0, 0]),
                ];
                send_tags(client, &no_body);
            }
            send_tags(client, std::slice::from_ref(tag));
        }
    });
    assert_eq!(got, tags);
}

#[test]
fn late_configuration_is_received() {
    let tags = [
        video_header(0),
        keyframe(0, 80),
        delta_frame(40, 80),
        audio_header(80),
        audio(80, 30),
        delta_frame(80, 80),
    ];
    assert_eq!(received(|client| send_tags(client, &tags)), tags);
}

#[test]
fn repeated_configurations_are_forwarded() {
    let mut tags = Vec::new();
    for second in 0..3 {
        let time = second * 1000;
        tags.extend([
            video_header(time),
            keyframe(time, 90),
            delta_frame(time + 500, 40),
        ]);
    }
    assert_eq!(received(|client| send_tags(client, &tags)), tags);
}

#[test]
fn negative_and_equal_times_keep_order_and_bytes() {
    // Composition time -40 in the second frame, and equal decoding times.
    let mut early = delta_frame(0, 50);
    early.body[2..5].copy_from_slice(&[0xFF, 0xFF, 0xD8]);
    let tags = [
        keyframe(0, 50),
        early,
        delta_frame(0, 60),
        delta_frame(0, 70),
    ];
    assert_eq!(received(|client| send_tags(client, &tags)), tags);
}

#[test]
fn video_before_the_first_keyframe_is_dropped() {
    let tags = [
        video_header(0),
        delta_frame(0, 50),
        delta_frame(40, 50),
        keyframe(80, 50),
    ];
    let got = received(|client| send_tags(client, &tags));
    assert_eq!(
        got,
        [video_header(0), keyframe(0, 0)].map(|expected| {
            let sent = tags.iter().find(|tag| tag.body[..2] == expected.body[..2]);
            Tag::new(VIDEO, 0, sent.unwrap().body.clone())
        })
    );
}
