// SPDX-License-Identifier: MPL-2.0

//! Descriptions of the stream, and its header.

use super::*;

#[test]
fn a_stream_starts_with_segment_caps_header_and_configuration() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    assert_eq!(run.emitted(), []);
    run.video(5000, KEYFRAME).audio(5023, AUDIO);
    let configured = [
        Segment(0, 4 * SECOND),
        Headers(3),
        File,
        Video(0, 0),
        Audio(0, 0),
    ];
    let media = [Video(0, 1), Audio(23, 1)];
    assert_eq!(run.emitted(), [&configured[..], &media].concat());
}

#[test]
fn repeated_metadata_passes_without_new_caps() {
    let metadata = |value: f64| {
        let mut body = Vec::new();
        crate::amf0::write_all(&mut body, &["onMetaData".into(), value.into()]);
        body
    };
    let mut run = FeedTest::default();
    run.push(TagKind::Script, 0, &metadata(1.0)).audio(0, AUDIO);
    run.push(TagKind::Script, 20, &metadata(2.0));
    run.audio(20, AUDIO_HEADER).audio(23, AUDIO);
    let emitted = run.emitted();
    let changes = emitted.iter().filter(|item| matches!(item, Headers(_)));
    assert_eq!(changes.count(), 2);
    assert_eq!(emitted.len(), 9);
}

#[test]
fn descriptions_of_media_that_never_comes_are_bounded() {
    let mut run = FeedTest::default();
    let mut large = Vec::new();
    crate::amf0::write_all(
        &mut large,
        &["onTextData".into(), "x".repeat(300_000).as_str().into()],
    );
    for _ in 0..10 {
        run.push(TagKind::Script, 0, &large);
        run.video(0, VIDEO_HEADER);
    }
    assert_eq!(run.feed.dropped().descriptions, 7);
    run.video(0, KEYFRAME);
    assert_eq!(run.tags().len(), 1 + 3 + 1 + 1);
}

#[test]
fn a_repeated_header_stays_before_the_audio_that_waits_for_video() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    run.audio(0, AUDIO).audio(23, AUDIO).audio(24, AUDIO_HEADER);
    run.video(24, VIDEO_HEADER).video(40, KEYFRAME);
    let media = [
        Video(0, 0),
        Audio(0, 0),
        Audio(0, 1),
        Audio(23, 1),
        Video(40, 1),
    ];
    assert_eq!(run.emitted()[3..], media);
}

#[test]
fn a_changed_header_leaves_between_the_audio_around_it() {
    let mut run = FeedTest::default();
    let other = &[0xAF, 0, 0x12, 0x08];
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    run.audio(0, AUDIO).audio(23, other).audio(23, AUDIO);
    run.video(40, KEYFRAME);
    let media = [
        Video(0, 0),
        Audio(0, 0),
        Audio(0, 1),
        Reconfigured,
        Headers(3),
        Audio(23, 0),
        Audio(23, 1),
        Video(40, 1),
    ];
    assert_eq!(run.emitted()[3..], media);
    // Without media between them, the last header alone counts.
    let mut run = FeedTest::default();
    run.audio(0, AUDIO_HEADER).audio(0, other).audio(5, AUDIO);
    assert_eq!(run.emitted()[3..], [Audio(0, 0), Audio(0, 1)]);
}

/// A sequence header of several H.264 tracks with these records.
fn several(tracks: &[(u8, u8)]) -> Vec<u8> {
    let tracks = tracks
        .iter()
        .flat_map(|(id, record)| [*id, 0, 0, 1, *record]);
    [&b"\x96\x10avc1"[..], &Vec::from_iter(tracks)].concat()
}

/// Numbers and records of the tracks in the last stream header.
fn late_readers_records(run: &mut FeedTest) -> Vec<(u8, u8)> {
    let outputs = std::iter::from_fn(|| run.feed.pop());
    let headers = outputs.filter_map(|output| match output {
        FeedOutput::Headers(headers) => Some(headers),
        _ => None,
    });
    let headers = headers.last().unwrap();
    let bodies = headers[1..]
        .iter()
        .map(|tag| &tag[crate::flv::FRONT_LENGTH..]);
    bodies.map(|body| (body[6], body[7])).collect()
}

#[test]
fn a_header_of_some_tracks_leaves_the_others_in_the_stream_header() {
    let keyframe = b"\x96\x13avc1\x00\0\0\x01\x09\x01\0\0\x01\x09";
    let mut run = FeedTest::default();
    run.video(0, &several(&[(0, 5), (1, 6), (2, 7)]));
    run.video(0, keyframe);
    assert_eq!(late_readers_records(&mut run), [(0, 5), (1, 6), (2, 7)]);
    run.video(40, &several(&[(0, 8), (2, 9)]));
    assert_eq!(late_readers_records(&mut run), [(0, 8), (1, 6), (2, 9)]);
    // The same again changes nothing.
    run.video(80, &several(&[(0, 8), (2, 9)]));
    let emitted = run.emitted();
    assert_eq!(emitted.len(), 1, "{emitted:?}");
}

#[test]
fn a_header_of_some_tracks_replaces_no_others_while_media_waits() {
    let keyframe = b"\x96\x13avc1\x00\0\0\x01\x09";
    let mut run = FeedTest::default();
    run.video(0, &several(&[(0, 5), (1, 6)]))
        .video(0, &several(&[(0, 8)]))
        .video(0, &several(&[(0, 8)]))
        .video(0, keyframe);
    let tags = run.tags();
    assert_eq!(tags.len(), 1 + 2 + 1);
    // A header of all of them replaces both, and media keeps those that it needs.
    let mut run = FeedTest::default();
    run.video(0, &several(&[(0, 5), (1, 6)]))
        .video(0, &several(&[(0, 8)]))
        .video(0, &several(&[(1, 7), (0, 9)]))
        .video(0, keyframe);
    assert_eq!(late_readers_records(&mut run), [(1, 7), (0, 9)]);
    let mut run = FeedTest::default();
    run.video(0, &several(&[(0, 5), (1, 6)]))
        .video(0, &track_frame(true, 1))
        .video(0, &several(&[(0, 8), (1, 9)]))
        .video(0, keyframe);
    let tags = run.tags();
    assert_eq!(tags.len(), 1 + 1 + 1 + 1 + 1);
}
