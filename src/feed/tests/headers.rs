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
