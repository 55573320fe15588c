// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::amf0::Value;
use crate::flv::codes::*;

fn video(bytes: &[u8]) -> VideoBody<'_> {
    let body = VideoBody::parse(bytes).unwrap();
    let mut again = Vec::new();
    body.write(&mut again);
    assert_eq!(again, bytes);
    body
}

fn audio(bytes: &[u8]) -> AudioBody<'_> {
    let body = AudioBody::parse(bytes).unwrap();
    let mut again = Vec::new();
    body.write(&mut again);
    assert_eq!(again, bytes);
    body
}

#[test]
fn a_prefix_of_256_bytes_has_its_long_size() {
    let bytes = [&[0x97, 0xFF, 0, 255][..], &[5; 256], b"\x31Opusx"].concat();
    let AudioBody::Ex(ex) = audio(&bytes) else {
        panic!("no ex-header");
    };
    assert_eq!(ex.mod_ex[0].kind, 3);
    assert_eq!(ex.mod_ex[0].data.len(), 256);
    assert_eq!(ex.nanoseconds(), 0);
    let track = AudioTrack {
        four_cc: AudioFourCc::Opus,
        packet: AudioPacket::CodedFrames(b"x"),
    };
    assert_eq!(ex.tracks, Tracks::Unwrapped(track));
}

#[test]
fn the_last_nanosecond_offset_counts_and_is_capped() {
    let bytes = b"\xA7\x02\x0F\xFF\xFF\x01avc1\xFF\xFF\xFEx";
    let VideoBody::Ex(ex) = video(bytes) else {
        panic!("no ex-header");
    };
    assert_eq!(ex.nanoseconds(), MAX_NANOSECONDS);
    let ExVideoContent::Tracks(tracks) = &ex.content else {
        panic!("no tracks");
    };
    let (id, track) = tracks.iter().next().unwrap();
    assert_eq!(id, 0);
    let packet = VideoPacket::CodedFrames {
        composition_time: Some(-2),
        payload: b"x",
    };
    assert_eq!(track.packet, packet);
}

#[test]
fn multitrack_of_every_kind_is_parsed() {
    let count = |bytes: &[u8]| match video(bytes) {
        VideoBody::Ex(ExVideo {
            content: ExVideoContent::Tracks(tracks),
            ..
        }) => tracks.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(b"\xA6\x03hvc1\x07frame"), [7]);
    assert_eq!(count(b"\xA6\x13hvc1\x01\0\0\x01a\x02\0\0\0"), [1, 2]);
    assert_eq!(count(b"\xA6\x23hvc1\x01\0\0\x01aav01\x02\0\0\0"), [1, 2]);
}

#[test]
fn malformed_bodies_are_errors() {
    let parse = |bytes: &'static [u8]| VideoBody::parse(bytes).unwrap_err();
    assert_eq!(parse(b""), BodyError::Empty);
    assert_eq!(parse(b"\x17\x01\0"), BodyError::Truncated);
    assert_eq!(parse(b"\xA6\x33hvc1"), BodyError::UnknownMultitrack(3));
    assert_eq!(parse(b"\xA6\x16hvc1"), BodyError::Nested(6));
    assert_eq!(parse(b"\xA6\x11hvc1\x01\0\0\x09a"), BodyError::Truncated);
    assert_eq!(parse(b"\xA6\x11hvc1"), BodyError::Truncated);
    assert_eq!(parse(b"\xA1hvc1\0"), BodyError::Truncated);
    let chain = [&[0xA7][..], &[0, 0, 0x17].repeat(17)].concat();
    assert_eq!(
        VideoBody::parse(&chain).unwrap_err(),
        BodyError::TooManyModEx
    );
    let tracks = [&b"\x95\x11Opus"[..], &[1, 0, 0, 0].repeat(257)].concat();
    assert_eq!(
        AudioBody::parse(&tracks).unwrap_err(),
        BodyError::TooManyTracks
    );
}

#[test]
fn empty_coded_frames_are_a_value() {
    let VideoBody::Ex(ex) = video(b"\xA1hvc1") else {
        panic!("no ex-header");
    };
    let track = VideoTrack {
        four_cc: VideoFourCc::Hevc,
        packet: VideoPacket::CodedFrames {
            composition_time: None,
            payload: b"",
        },
    };
    assert_eq!(ex.content, ExVideoContent::Tracks(Tracks::Unwrapped(track)));
}

#[test]
fn a_native_channel_layout_is_parsed() {
    let AudioBody::Ex(ex) = audio(b"\x94mp4a\x01\x06\0\0\0\x3F") else {
        panic!("no ex-header");
    };
    let (_, track) = ex.tracks.iter().next().unwrap();
    let config = MultichannelConfig {
        channels: 6,
        order: ChannelOrder::Native(0x3F),
    };
    assert_eq!(track.packet, AudioPacket::MultichannelConfig(config));
}

#[test]
fn metadata_of_tracks_falls_back_on_the_streams_own() {
    let number = |name: &str, n: f64| (name.to_owned(), Value::Number(n));
    let one = Value::Object(vec![number("width", 640.0)]);
    let map = Value::Object(vec![("1".to_owned(), one)]);
    let script = Script {
        name: "onMetaData".to_owned(),
        values: vec![Value::EcmaArray(vec![
            number("width", 1920.0),
            number("framerate", 30.0),
            ("videoTrackIdInfoMap".to_owned(), map),
        ])],
    };
    let mut bytes = Vec::new();
    crate::amf0::write_value(&mut bytes, &"@setDataFrame".into());
    script.write(&mut bytes);
    assert_eq!(Script::parse(&bytes).unwrap(), script);
    let metadata = Metadata::of(script).unwrap();
    assert_eq!(metadata.video(0, "width"), Some(1920.0));
    assert_eq!(metadata.video(1, "width"), Some(640.0));
    assert_eq!(metadata.video(1, "framerate"), Some(30.0));
    assert_eq!(metadata.video(2, "width"), None);
}

#[test]
fn an_empty_colour_info_revokes_the_one_before() {
    let parse = |value: Value| {
        let mut bytes = Vec::new();
        crate::amf0::write_all(&mut bytes, &["colorInfo".into(), value]);
        ColorInfo::parse(&bytes).unwrap()
    };
    assert_eq!(parse(Value::Undefined), Some(ColorInfo::default()));
    assert_eq!(parse(Value::Object(vec![])), Some(ColorInfo::default()));
    assert_eq!(parse(Value::Number(1.0)), None);
}

fn metadata() -> Script {
    let width = ("width".to_owned(), Value::Number(320.0));
    Script {
        name: "onMetaData".to_owned(),
        values: vec![Value::EcmaArray(vec![width])],
    }
}

#[test]
fn script_data_is_parsed_after_other_values() {
    let script = metadata();
    let mut body = Vec::new();
    script.write(&mut body);
    let before: [&[Value]; 4] = [
        &[1.0.into(), 2.0.into()],
        &[1.0.into(), 2.0.into(), "@setDataFrame".into()],
        &["text".into(), Value::Null, "@setDataFrame".into()],
        &[Value::Object(vec![])],
    ];
    for values in before {
        let mut bytes = Vec::new();
        crate::amf0::write_all(&mut bytes, values);
        bytes.extend(&body);
        assert_eq!(Script::parse(&bytes), Ok(script.clone()), "{values:?}");
    }
    let after_selector = [&[0][..], &body].concat();
    assert_eq!(Script::parse(&after_selector), Ok(script));
}

#[test]
fn script_data_is_parsed_before_other_bytes() {
    let script = metadata();
    let mut body = Vec::new();
    script.write(&mut body);
    for after in [&[0xFF][..], &[9], &[0; 8], &[2, 0, 9, 1], &[3, 0, 1]] {
        let bytes = [&body, after].concat();
        assert_eq!(Script::parse(&bytes), Ok(script.clone()), "{after:02x?}");
    }
}

#[test]
fn script_data_without_a_whole_value_is_an_error() {
    let mut name = Vec::new();
    crate::amf0::write_value(&mut name, &"onMetaData".into());
    let truncated = Err(BodyError::Amf(crate::amf0::Error::Truncated));
    assert_eq!(Script::parse(&[&name[..], &[3, 0, 1]].concat()), truncated);
    assert_eq!(Script::parse(&[2, 0]), truncated);
    assert_eq!(Script::parse(&[5, 5]), Err(BodyError::NoName));
    assert_eq!(Script::parse(&[]), Err(BodyError::Empty));
    let named = Script::parse(&name).map(|script| script.values);
    assert_eq!(named, Ok(vec![]));
}

#[test]
fn long_script_data_may_have_as_many_properties_as_fit() {
    let numbers = |count| {
        let mut values = metadata().values;
        values.push(Value::StrictArray(vec![1.0.into(); count]));
        Script {
            values,
            ..metadata()
        }
    };
    let script = numbers(2 * MAX_SCRIPT_PROPERTIES);
    let mut body = Vec::new();
    script.write(&mut body);
    assert_eq!(Script::parse(&body), Ok(script));
    // Small values would cost many times their size.
    let nothing = vec![Value::Null; 2 * MAX_SCRIPT_PROPERTIES];
    let mut body = Vec::new();
    let values = vec![Value::StrictArray(nothing)];
    Script {
        values,
        ..metadata()
    }
    .write(&mut body);
    let error = crate::amf0::Error::TooManyProperties(MAX_SCRIPT_PROPERTIES);
    assert_eq!(Script::parse(&body), Err(BodyError::Amf(error)));
}

#[test]
fn bytes_after_a_colour_info_are_ignored() {
    let config = Some(ColorConfig {
        primaries: Some(9.0),
        ..ColorConfig::default()
    });
    let info = ColorInfo {
        config,
        ..ColorInfo::default()
    };
    let mut body = Vec::new();
    info.write(&mut body);
    let length = body.len();
    body.extend([0xFF, 1, 2]);
    assert_eq!(ColorInfo::parse(&body), Ok(Some(info)));
    let truncated = BodyError::Amf(crate::amf0::Error::Truncated);
    assert_eq!(ColorInfo::parse(&body[..length - 5]), Err(truncated));
}
