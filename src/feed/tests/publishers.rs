// SPDX-License-Identifier: MPL-2.0

//! Publishers after each other, the ends of their streams, and marks between their tags.

use super::*;

#[test]
fn marks_leave_between_the_tags_around_them() {
    let mut run = FeedTest::default();
    run.feed.mark(1);
    run.audio(0, AUDIO);
    run.feed.mark(2);
    run.feed.mark(3);
    run.audio(23, AUDIO);
    assert_eq!(run.feed.tags_ahead(), 0);
    let start = [Mark(1), Segment(0, 4 * SECOND), Headers(1), File];
    let rest = [Audio(0, 1), Mark(2), Mark(3), Audio(23, 1)];
    assert_eq!(run.emitted(), [&start[..], &rest].concat());
}

#[test]
fn publishers_after_each_other_make_one_stream() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .video(1000, KEYFRAME)
        .video(1040, FRAME);
    run.video(1080, END);
    run.emitted();
    run.next_publisher(14 * SECOND)
        .video(0, VIDEO_HEADER)
        .video(70, KEYFRAME);
    assert_eq!(run.emitted(), [Video(10_000, 0), Video(10_000, 1)]);
    // A publisher that starts before the end of the stream's time continues after that end.
    run.video(70 + 9_000, FRAME);
    run.next_publisher(15 * SECOND)
        .video(0, &[0x17, 0, 0, 0, 0, 7])
        .video(5, KEYFRAME);
    let emitted = run.emitted();
    assert_eq!(
        emitted,
        [
            Video(19_000, 1),
            Headers(2),
            Video(19_001, 0),
            Video(19_001, 1)
        ]
    );
}

#[test]
fn descriptions_of_a_publisher_without_media_are_counted() {
    let script = b"\x02\x00\x06onText\x05";
    let mut run = FeedTest::default();
    run.push(TagKind::Script, 0, script);
    run.push(TagKind::Script, 0, script).video(0, VIDEO_HEADER);
    assert_eq!(run.feed.dropped().at_end, 0);
    run.feed.end_publisher();
    assert_eq!(run.feed.dropped().at_end, 3);
    // One that is replaced has no other end.
    run.next_publisher(5 * SECOND).audio(0, AUDIO_HEADER);
    run.next_publisher(6 * SECOND);
    assert_eq!(run.feed.dropped().at_end, 4);
    // With media, all of it leaves.
    run.push(TagKind::Script, 0, script).audio(0, AUDIO);
    run.feed.end_publisher();
    assert_eq!(run.feed.dropped().at_end, 4);
    assert_eq!(run.feed.dropped().without_event(), 4);
}

#[test]
fn the_first_tag_of_a_publisher_is_marked() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .video(0, KEYFRAME)
        .video(40, FRAME);
    run.next_publisher(9 * SECOND)
        .video(0, VIDEO_HEADER)
        .video(0, KEYFRAME);
    let discont: Vec<bool> = run.tags().iter().map(|tag| tag.is_discont).collect();
    assert_eq!(discont, [true, false, false, false, true, false]);
}

#[test]
fn an_end_of_sequence_leaves_only_at_the_end() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).video(0, KEYFRAME).video(40, END);
    run.video(80, FRAME).video(120, END).audio(130, AUDIO);
    let media = [Video(0, 1), Video(80, 1), Audio(130, 1)];
    assert_eq!(run.emitted()[4..], media);
    run.feed.finish();
    assert_eq!(run.emitted(), [Video(120, 2)]);
    // OBS stamps it with 0.
    run.arrival += 1000 * SECOND;
    run.video(1_000_000, FRAME).video(0, END);
    run.feed.finish();
    assert_eq!(run.emitted(), [Video(1_000_000, 1), Video(1_000_000, 2)]);
}

#[test]
fn tracks_of_the_next_publisher_start_after_the_one_before() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).video(0, KEYFRAME);
    run.arrival += 90 * SECOND;
    run.video(90_000, FRAME).next_publisher(91 * SECOND);
    run.video(0, VIDEO_HEADER)
        .video(1000, KEYFRAME)
        .audio(900, AUDIO);
    let emitted = run.emitted();
    assert_eq!(
        emitted[emitted.len() - 2..],
        [Video(90_001, 1), Audio(90_001, 1)]
    );
}

#[test]
fn the_ends_of_several_tracks_all_leave() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).video(0, KEYFRAME);
    run.video(40, END).video(40, END);
    run.emitted();
    run.feed.finish();
    assert_eq!(run.emitted(), [Video(40, 2), Video(40, 2)]);
}
