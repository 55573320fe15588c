// SPDX-License-Identifier: MPL-2.0

//! Tracks in codecs that are not accepted.

use super::*;

fn accepting(names: &[&str]) -> FeedTest {
    let mut run = FeedTest::default();
    let codecs = AcceptedCodecs::parse(names.iter().copied()).unwrap();
    run.feed = Feed::new(FeedSettings {
        wait_for_keyframe: true,
        ..FeedSettings::default()
    })
    .accepting(codecs);
    run.feed.start_publisher();
    run
}

fn refused(kind: TagKind, track: u8, codec: &str) -> Emitted {
    Emitted::Refused(kind, track, codec.to_owned())
}

#[test]
fn audio_alone_flows_when_video_is_refused() {
    let mut run = accepting(&["mp4a"]);
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    run.video(5, FRAME)
        .audio(10, AUDIO)
        .video(20, KEYFRAME)
        .audio(33, AUDIO);
    // A video command, and the end of video.
    run.video(40, &[0xD1, 0]).video(40, END);
    assert_eq!(
        run.emitted(),
        [
            refused(TagKind::Video, 0, "avc1"),
            Segment(0, 4 * SECOND),
            Headers(2),
            File,
            Audio(0, 0),
            Audio(0, 1),
            Audio(23, 1),
        ]
    );
    assert_eq!(run.feed.dropped().codec_refused, 4);
    // Decoding can start with audio, as there is no video.
    run.audio(56, AUDIO);
    assert!(!run.tags()[0].is_delta_unit);
}

#[test]
fn a_refusal_is_reported_once_for_each_track_and_codec_of_a_publisher() {
    let mut run = accepting(&["av01"]);
    let video =
        |track: u8, four_cc: &[u8; 4]| [&[0x96, 0x01][..], four_cc, &[track, 9, 9, 9, 9]].concat();
    for _ in 0..3 {
        run.video(0, &video(0, b"hvc1"))
            .video(0, &video(1, b"hvc1"));
        run.video(0, &video(1, b"x\0yz")).audio(0, &[0x2F, 9]);
    }
    let expected = [
        refused(TagKind::Video, 0, "hvc1"),
        refused(TagKind::Video, 1, "hvc1"),
        refused(TagKind::Video, 1, "x\\x00yz"),
        refused(TagKind::Audio, 0, ".mp3"),
    ];
    assert_eq!(run.emitted(), expected);
    assert_eq!(run.feed.dropped().codec_refused, 12);
    run.next_publisher(0).audio(0, AUDIO);
    assert_eq!(run.emitted(), [refused(TagKind::Audio, 0, "mp4a")]);
}

/// A client can invent codecs without end, and each message costs.
#[test]
fn refusals_beyond_a_limit_are_only_counted() {
    let mut run = accepting(&["av01"]);
    for code in 0..1000u32 {
        run.audio(0, &[&[0x91][..], &code.to_be_bytes(), b"x"].concat());
    }
    assert_eq!(run.emitted().len(), 64);
    assert_eq!(run.feed.dropped().codec_refused, 1000);
}

/// The accepted tracks of a tag with several stay, as a tag of the same form.
#[test]
fn tracks_of_one_tag_are_refused_one_by_one() {
    let mut run = accepting(&["Opus", "fLaC"]);
    let track = |four_cc: &[u8; 4], id: u8| [four_cc, &[id, 0, 0, 1, id][..]].concat();
    let tag = |tracks: &[Vec<u8>]| [&[0x95, 0x21][..], &tracks.concat()].concat();
    let (opus, ac3, flac) = (track(b"Opus", 0), track(b"ac-3", 1), track(b"fLaC", 2));
    run.audio(0, &tag(&[ac3.clone(), opus.clone(), flac.clone()]));
    run.audio(10, &tag(std::slice::from_ref(&ac3)));
    run.audio(20, &tag(&[opus.clone(), flac.clone()]));
    run.audio(30, &tag(&[ac3, flac.clone()]));
    let bodies: Vec<Vec<u8>> = run.tags()[1..]
        .iter()
        .map(|tag| tag.bytes[FRONT..tag.bytes.len() - 4].to_vec())
        .collect();
    let both = tag(&[opus, flac.clone()]);
    assert_eq!(bodies, [both.clone(), both, tag(&[flac])]);
    assert_eq!(run.feed.dropped().codec_refused, 3);
}

const FRONT: usize = crate::flv::FRONT_LENGTH;

/// Some encoders send HEVC under the codec id of AVC, and all of them under one that is not in the
/// specification.
#[test]
fn hevc_is_hevc_whatever_its_codec_id() {
    let record = hevc_record();
    for (accepted, passes) in [("hvc1", true), ("avc1", false)] {
        for id in [7u8, 12] {
            let mut run = accepting(&[accepted]);
            run.video(0, &[&[0x10 | id, 0, 0, 0, 0], &record[..]].concat());
            run.video(0, &[0x10 | id, 1, 0, 0, 0, 9]);
            let refusal = refused(TagKind::Video, 0, "hvc1");
            let is_refused = run.emitted().contains(&refusal);
            assert_eq!(is_refused, !passes, "{accepted}, {id}");
        }
        // The next publisher sends the codec that it names.
        let mut run = accepting(&[accepted]);
        run.video(0, &[&[0x17, 0, 0, 0, 0], &record[..]].concat());
        run.next_publisher(0).video(0, KEYFRAME);
        let is_refused = run.emitted().contains(&refused(TagKind::Video, 0, "avc1"));
        assert_eq!(is_refused, passes);
    }
}

/// With parameter sets that have little in them.
fn hevc_record() -> Vec<u8> {
    let mut record = vec![0; 23];
    (record[0], record[22]) = (1, 2);
    for kind in [33u8, 34] {
        record.extend([kind, 0, 1, 0, 3, kind << 1, 1, 0]);
    }
    record
}

#[test]
fn script_data_has_no_codec() {
    let mut run = accepting(&["Opus"]);
    let mut metadata = Vec::new();
    crate::amf0::write_all(&mut metadata, &["onMetaData".into()]);
    run.push(TagKind::Script, 0, &metadata);
    run.audio(0, b"\x91Opusx");
    assert_eq!(run.tags().len(), 3);
    assert_eq!(run.feed.dropped(), DroppedTags::default());
}

/// A tag that can't be read as a whole may have any codec in it.
#[test]
fn a_tag_with_a_truncated_track_is_refused() {
    let mut run = accepting(&["Opus"]);
    let body = *b"\x95\x21Opus\x00\x00\x00\x01\x00ac-3\x01\x00";
    run.audio(0, &body);
    assert_eq!(run.emitted(), []);
    assert_eq!(run.feed.dropped().codec_refused, 1);
    let mut run = FeedTest::default();
    run.audio(0, &body);
    assert_eq!(run.tags().len(), 2);
}
