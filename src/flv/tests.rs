// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::memory::Memory;

fn video(body: &[u8]) -> Result<TagInfo, Error> {
    TagInfo::of(TagKind::Video, body)
}

fn audio(body: &[u8]) -> Result<TagInfo, Error> {
    TagInfo::of(TagKind::Audio, body)
}

fn content(info: Result<TagInfo, Error>) -> Content {
    info.unwrap().content
}

fn ex(first: u8, four_cc: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&[first][..], four_cc, body].concat()
}

#[test]
fn legacy_video() {
    assert_eq!(
        content(video(&[0x17, 0, 0, 0, 0, 1])),
        Content::SequenceHeader
    );
    assert_eq!(
        content(video(&[0x1C, 0, 0, 0, 0, 1])),
        Content::SequenceHeader
    );
    assert_eq!(content(video(&[0x17, 2, 0, 0, 0])), Content::EndOfSequence);
    assert_eq!(content(video(&[0x57, 0])), Content::Command);
    assert_eq!(content(video(&[0x12, 9])), Content::Keyframe);
    assert_eq!(content(video(&[0x22, 9])), Content::Frame);
    let keyframe = video(&[0x17, 1, 0, 0, 80, 1]).unwrap();
    assert_eq!(keyframe.content, Content::Keyframe);
    assert_eq!(keyframe.composition_time, 80_000_000);
    let early = video(&[0x27, 1, 0xFF, 0xFF, 0xD8, 1]).unwrap();
    assert_eq!(early.content, Content::Frame);
    assert_eq!(early.composition_time, -40_000_000);
}

#[test]
fn undecodable_bodies_are_errors() {
    assert_eq!(video(&[]), Err(Error::Empty));
    assert_eq!(video(&[0x17]), Err(Error::Truncated));
    assert_eq!(video(&[0x17, 0, 0, 0, 0]), Err(Error::EmptyConfiguration));
    assert_eq!(video(&[0x27, 1, 0, 0, 0]), Err(Error::Empty));
    assert_eq!(
        video(&ex(0x90, b"hvc1", b"")),
        Err(Error::EmptyConfiguration)
    );
    assert_eq!(video(&ex(0x91, b"av01", b"")), Err(Error::Empty));
    assert_eq!(video(&[0x91, b'h', b'v']), Err(Error::Truncated));
    assert_eq!(video(&ex(0x91, b"hvc1", &[0; 3])), Err(Error::Empty));
    assert_eq!(audio(&[]), Err(Error::Empty));
    assert_eq!(audio(&[0xAF, 1]), Err(Error::Empty));
    assert_eq!(audio(&[0xAF]), Err(Error::Truncated));
    assert_eq!(audio(&[0xAF, 0]), Err(Error::EmptyConfiguration));
    assert_eq!(
        audio(&ex(0x90, b"Opus", b"")),
        Err(Error::EmptyConfiguration)
    );
}

#[test]
fn enhanced_video() {
    assert_eq!(
        content(video(&ex(0x90, b"hvc1", b"c"))),
        Content::SequenceHeader
    );
    assert_eq!(content(video(&ex(0x93, b"hvc1", b"c"))), Content::Keyframe);
    assert_eq!(content(video(&ex(0xA3, b"hvc1", b"c"))), Content::Frame);
    assert_eq!(
        content(video(&ex(0x92, b"hvc1", b""))),
        Content::EndOfSequence
    );
    assert_eq!(
        content(video(&ex(0xD4, b"hvc1", b"m"))),
        Content::TrackMetadata
    );
    assert_eq!(
        content(video(&ex(0x84, b"hvc1", b"m"))),
        Content::TrackMetadata
    );
    assert_eq!(content(video(&[0xD1, 0])), Content::Command);
    let frame = video(&ex(0xA1, b"hvc1", &[0xFF, 0xFF, 0xFF, 1])).unwrap();
    assert_eq!(frame.composition_time, -1_000_000);
    let no_composition_time = video(&ex(0xA1, b"av01", &[0, 0, 9, 1])).unwrap();
    assert_eq!(no_composition_time.composition_time, 0);
}

#[test]
fn mod_ex_prefixes_are_skipped() {
    // 500,000 ns, then an unknown kind with 256 bytes, then coded frames.
    let mut body = vec![0xA7, 2, 0x07, 0xA1, 0x20, 0x07, 0xFF, 0, 255];
    body.extend([0; 256]);
    body.push(0x11);
    body.extend(b"hvc1\0\0\x01x");
    let info = video(&body).unwrap();
    assert_eq!(info.content, Content::Frame);
    assert_eq!(info.composition_time, 1_500_000);
    // The second offset is too short to count.
    let twice = [&[0xA7, 2, 0, 0, 5, 0x07, 0, 9, 0x01][..], b"av01x"].concat();
    assert_eq!(video(&twice).unwrap().composition_time, 5);
    assert_eq!(video(&body[..20]), Err(Error::Truncated));
}

#[test]
fn multitrack_info_describes_the_first_track() {
    let one = [&[0x96, 0x00][..], b"hvc1", &[3, b'c']].concat();
    let info = video(&one).unwrap();
    assert_eq!((info.content, info.track), (Content::SequenceHeader, 3));
    let many = [
        &[0xA6, 0x11][..],
        b"avc1",
        &[1, 0, 0, 4, 0, 0, 5, 9, 2, 0, 0, 0],
    ]
    .concat();
    let info = video(&many).unwrap();
    assert_eq!((info.content, info.track), (Content::Frame, 1));
    assert_eq!(info.composition_time, 5_000_000);
    let codecs = [&[0x95, 0x21][..], b"Opus", &[2, 0, 0, 1, 7]].concat();
    let info = audio(&codecs).unwrap();
    assert_eq!((info.content, info.track), (Content::Frame, 2));
}

#[test]
fn an_empty_track_hides_no_other() {
    let many = [
        &[0xA6, 0x11][..],
        b"avc1",
        &[0, 0, 0, 0, 1, 0, 0, 4, 0, 0, 5, 7],
    ]
    .concat();
    let info = video(&many).unwrap();
    assert_eq!((info.content, info.track), (Content::Frame, 1));
    let first = [&[0x95, 0x21][..], b"Opus", &[2, 0, 0, 0]].concat();
    let codecs = [&first[..], b"fLaC", &[3, 0, 0, 1, 7]].concat();
    let info = audio(&codecs).unwrap();
    assert_eq!((info.content, info.track), (Content::Frame, 3));
}

#[test]
fn audio_tags() {
    assert_eq!(
        content(audio(&[0xAF, 0, 0x12, 0x10])),
        Content::SequenceHeader
    );
    assert_eq!(content(audio(&[0xAF, 1, 9])), Content::Frame);
    assert_eq!(content(audio(&[0x2F, 9])), Content::Frame);
    assert_eq!(
        content(audio(&ex(0x90, b"ac-3", b""))),
        Content::SequenceHeader
    );
    assert_eq!(content(audio(&ex(0x91, b"Opus", b"x"))), Content::Frame);
    assert_eq!(
        content(audio(&ex(0x94, b"mp4a", b"\x01\x06"))),
        Content::TrackMetadata
    );
}

#[test]
fn script_data_is_recognized_by_its_name() {
    let script = |name: &str| {
        let mut body = Vec::new();
        crate::amf0::write_value(&mut body, &name.into());
        content(TagInfo::of(TagKind::Script, &body))
    };
    assert_eq!(script("onMetaData"), Content::OnMetaData);
    assert_eq!(script("onTextData"), Content::Script);
}

#[test]
fn a_tag_is_framed_with_and_without_room() {
    for start in [0, 5, FRONT_LENGTH, 30] {
        let mut bytes = vec![0; start];
        bytes.extend_from_slice(&[0xAF, 1, 9]);
        let body = Memory::from_vec(bytes, start);
        let tag = Tag::new(TagKind::Audio, 7, body).unwrap();
        let framed = tag.into_bytes(0x0102_0304);
        let expected = [8, 0, 0, 3, 2, 3, 4, 1, 0, 0, 0, 0xAF, 1, 9, 0, 0, 0, 14];
        assert_eq!(framed[..], expected);
    }
}

/// The length of a longer body would reach into the next tag.
#[test]
fn a_body_of_more_than_24_bits_is_refused() {
    let body = |length: usize| {
        let mut bytes = vec![0; length];
        bytes[..2].copy_from_slice(&[0xAF, 1]);
        Tag::new(TagKind::Audio, 0, Memory::from_vec(bytes, 0))
    };
    assert!(body(MAX_BODY_LENGTH).is_ok());
    assert_eq!(body(MAX_BODY_LENGTH + 1).err(), Some(Error::TooLong));
}
