// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::amf0::Value;
use crate::flv::{FILE_HEADER, Tag};
use crate::memory::Memory;

/// A sequence header of x264: High, 1280x720, 25 frames per second.
const AVC_720P25: &[u8] = &[
    0x01, 0x64, 0x00, 0x1F, 0xFF, 0xE1, 0x00, 0x1C, 0x67, 0x64, 0x00, 0x1F, 0xAC, 0xD9, 0x40, 0x50,
    0x05, 0xBB, 0x01, 0x6A, 0x02, 0x02, 0x02, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x19,
    0x07, 0x8C, 0x18, 0xCB, 0x01, 0x00, 0x06, 0x68, 0xEB, 0xE3, 0xCB, 0x22, 0xC0,
];
const AAC_48K_STEREO: &[u8] = &[0x11, 0x90];

fn framed(kind: TagKind, body: &[u8]) -> Vec<u8> {
    Tag::frame(kind, Memory::from_vec(body.to_vec(), 0), 0).to_vec()
}

fn video(front: &[u8], payload: &[u8]) -> Vec<u8> {
    framed(TagKind::Video, &[front, payload].concat())
}

fn audio(front: &[u8], payload: &[u8]) -> Vec<u8> {
    framed(TagKind::Audio, &[front, payload].concat())
}

fn metadata(properties: &[(&str, Value)]) -> Vec<u8> {
    let properties = properties.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
    let script = Script {
        name: Metadata::NAME.into(),
        values: vec![Value::EcmaArray(properties.collect())],
    };
    let mut body = Vec::new();
    script.write(&mut body);
    framed(TagKind::Script, &body)
}

fn described(tags: &[Vec<u8>]) -> String {
    StreamDescription::of_tags(tags.iter().map(Vec::as_slice)).to_string()
}

#[test]
fn configurations_count_and_the_encoder_is_named() {
    let tags = [
        FILE_HEADER.to_vec(),
        metadata(&[
            ("width", 640.0.into()),
            ("height", 360.0.into()),
            ("audiosamplerate", 44100.0.into()),
            (
                "encoder",
                "obs-output module (libobs version 30.1.0)".into(),
            ),
        ]),
        video(&[0x17, 0, 0, 0, 0], AVC_720P25),
        audio(&[0xAF, 0], AAC_48K_STEREO),
    ];
    let expected = "H.264 High 1280x720 25 fps, AAC 48 kHz stereo (OBS 30.1)";
    assert_eq!(described(&tags), expected);
}

#[test]
fn metadata_describes_what_configurations_leave_out() {
    let opus = b"OpusHead\x01\x01\0\0\x80\xBB\0\0\0\0\0";
    let tags = [
        metadata(&[
            ("width", 1920.0.into()),
            ("height", 1080.0.into()),
            ("framerate", 29.97002997.into()),
            ("encoder", "Lavf59.27.100".into()),
        ]),
        video(b"\x90vp09", &[0, 31, 0x82, 2, 2, 2, 0, 0]),
        audio(b"\x90Opus", opus),
    ];
    let expected = "VP9 0 1920x1080 29.97 fps, Opus 48 kHz mono (Lavf59.27.100)";
    assert_eq!(described(&tags), expected);
}

#[test]
fn codecs_without_configuration_are_described_by_metadata_or_a_frame() {
    let announced = metadata(&[
        ("videocodecid", 2.0.into()),
        ("audiocodecid", 2.0.into()),
        ("audiosamplerate", 22050.0.into()),
        ("stereo", Value::Boolean(false)),
    ]);
    assert_eq!(
        described(&[announced]),
        "Sorenson H.263, MP3 22.05 kHz mono"
    );
    let hevc = metadata(&[(
        "videocodecid",
        f64::from(u32::from_be_bytes(*b"hvc1")).into(),
    )]);
    assert_eq!(described(&[hevc]), "H.265");
    let mut description = StreamDescription::default();
    assert!(description.is_empty());
    description.add_tag(&audio(&[0x2F], &[0xFF, 0xFB, 0x90, 0x64]));
    assert_eq!(description.to_string(), "MP3 44.1 kHz stereo");
    // A track that is known stays as it is.
    description.add_tag(&audio(&[0x72], &[0; 4]));
    assert_eq!(description.audio.len(), 1);
}

#[test]
fn tracks_are_in_order_and_bounded() {
    let track = |id: u8| video(&[0x96, 0x00, b'a', b'v', b'c', b'1', id], AVC_720P25);
    let tags: Vec<_> = (0..40).rev().map(track).collect();
    let description = StreamDescription::of_tags(tags.iter().map(Vec::as_slice));
    let tracks: Vec<u8> = description.video.iter().map(|video| video.track).collect();
    assert_eq!(tracks, (24..40).collect::<Vec<u8>>());
}

#[test]
fn text_of_a_publisher_is_short_and_on_one_line() {
    let name = |text: &str| encoder_name(text);
    assert_eq!(name("a\nb\u{7}"), Some("ab".to_owned()));
    assert_eq!(name(" \n"), None);
    assert_eq!(name(&"x".repeat(1000)).unwrap().len(), MAX_ENCODER);
    assert_eq!(
        name("libobs version 31.0.2-rc1)"),
        Some("OBS 31.0.2".into())
    );
}

#[test]
fn the_connection_names_an_encoder_that_the_stream_does_not_name() {
    let named = |flash_ver: &str, encoder: Option<&str>| {
        let mut description = StreamDescription {
            encoder: encoder.map(str::to_owned),
            ..StreamDescription::default()
        };
        description.name_encoder(flash_ver);
        description.encoder
    };
    let larix = Some("Larix/1.3".to_owned());
    assert_eq!(named("FMLE/3.0 (compatible; Larix/1.3)", None), larix);
    assert_eq!(named("FMLE/3.0 (compatible; FMSc/1.0)", None), None);
    assert_eq!(named("", None), None);
    assert_eq!(named("Larix/1.3", Some("x")), Some("x".to_owned()));
}

#[test]
fn cut_bytes_describe_nothing_and_do_not_panic() {
    let tag = video(&[0x17, 0, 0, 0, 0], AVC_720P25);
    for end in 0..tag.len() {
        StreamDescription::of_tags([&tag[..end]]);
    }
    let expected = "Constrained Baseline";
    assert_eq!(title("constrained-baseline"), expected);
    assert_eq!(title("high-4:2:2"), "High 4:2:2");
}
