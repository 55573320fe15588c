// SPDX-License-Identifier: MPL-2.0

//! Media that waits for a keyframe.

use super::*;

#[test]
fn audio_waits_for_the_keyframe_and_is_not_lost() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    run.audio(100, AUDIO).video(110, FRAME).audio(123, AUDIO);
    assert_eq!(run.emitted(), []);
    run.video(90, KEYFRAME).video(130, FRAME);
    let media = [Audio(10, 1), Audio(33, 1), Video(0, 1), Video(40, 1)];
    assert_eq!(run.emitted()[5..], media);
    assert_eq!(run.feed.dropped().before_keyframe, 1);
}

#[test]
fn audio_without_video_passes_also_when_video_follows() {
    let mut run = FeedTest::default();
    run.audio(0, AUDIO_HEADER).audio(7, AUDIO);
    let start = [
        Segment(0, 4 * SECOND),
        Headers(2),
        File,
        Audio(0, 0),
        Audio(0, 1),
    ];
    assert_eq!(run.emitted(), start);
    run.video(30, VIDEO_HEADER)
        .video(31, FRAME)
        .audio(32, AUDIO);
    run.video(50, KEYFRAME);
    let rest = [Headers(3), Video(23, 0), Audio(25, 1), Video(43, 1)];
    assert_eq!(run.emitted(), rest);
}

#[test]
fn everything_passes_without_wait_for_keyframe() {
    let mut run = FeedTest::new(FeedSettings::default());
    run.video(0, VIDEO_HEADER).video(20, FRAME).audio(21, AUDIO);
    assert_eq!(run.emitted()[4..], [Video(0, 1), Audio(1, 1)]);
}

#[test]
fn flags_say_where_decoding_can_start() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO_HEADER);
    run.video(0, KEYFRAME).audio(0, AUDIO).video(40, FRAME);
    let tags = run.tags();
    let header: Vec<bool> = tags.iter().map(|tag| tag.is_header).collect();
    let delta: Vec<bool> = tags.iter().map(|tag| tag.is_delta_unit).collect();
    assert_eq!(header, [true, true, true, false, false, false]);
    assert_eq!(delta, [false, false, false, false, true, true]);

    let mut run = FeedTest::default();
    run.audio(0, AUDIO_HEADER).audio(0, AUDIO);
    assert!(run.tags().iter().all(|tag| !tag.is_delta_unit));
}

#[test]
fn audio_that_waits_for_ever_is_bounded() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER);
    for i in 0..100 {
        run.audio(i, &[&[0xAF, 1][..], &[0; 20_000]].concat());
    }
    assert_eq!(run.emitted(), []);
    run.video(100, KEYFRAME);
    let tags = run.tags();
    let dropped = run.feed.dropped().before_keyframe;
    assert_eq!(tags.len() as u64, 3 + 100 - dropped);
    assert!((40..60).contains(&dropped));
}

#[test]
fn audio_of_a_stream_whose_video_never_comes_is_not_lost() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(5, AUDIO).audio(28, AUDIO);
    assert_eq!(run.emitted(), []);
    run.feed.end_publisher();
    run.feed.finish();
    assert_eq!(run.emitted()[3..], [Video(0, 0), Audio(0, 1), Audio(23, 1)]);
}

#[test]
fn pending_tags_leave_in_the_order_of_their_arrival() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .audio(0, AUDIO)
        .audio(21, AUDIO_HEADER);
    run.audio(23, AUDIO).video(7, KEYFRAME);
    let order = [
        Video(0, 0),
        Audio(0, 1),
        Audio(21, 0),
        Audio(23, 1),
        Video(7, 1),
    ];
    assert_eq!(run.emitted()[3..], order);
}

#[test]
fn several_video_tracks_start_with_a_keyframe_of_the_lowest() {
    let header = |track: u8| [&[0x96, 0x00][..], b"avc1", &[track, 1, 2]].concat();
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .video(0, &header(1))
        .video(0, &header(2));
    // Other tracks wait from their own keyframes on, so that they can be decoded too.
    run.video(0, &track_frame(true, 2)).video(10, FRAME);
    run.video(40, &track_frame(true, 1)).audio(40, AUDIO);
    run.video(40, KEYFRAME).video(40, &track_frame(false, 2));
    let tags = run.tags();
    let starts: Vec<bool> = tags[4..].iter().map(|tag| tag.starts_decoding).collect();
    assert_eq!(starts, [false, false, false, true, false]);
    let delta: Vec<bool> = tags[4..].iter().map(|tag| tag.is_delta_unit).collect();
    assert_eq!(delta, [true, true, true, false, true]);
    assert_eq!(run.feed.dropped().before_keyframe, 1);
}

/// The lowest of several tracks in one tag need not be the first.
#[test]
fn a_tag_of_several_tracks_starts_with_a_keyframe_of_the_lowest() {
    let several = |is_key: bool, tracks: &[u8]| {
        let first = if is_key { 0x96 } else { 0xA6 };
        let tracks = tracks.iter().flat_map(|id| [*id, 0, 0, 1, 9]);
        let front = [first, 0x13].into_iter().chain(*b"avc1");
        front.chain(tracks).collect::<Vec<u8>>()
    };
    let header = |track: u8| [&[0x96, 0x00][..], b"avc1", &[track, 1, 2]].concat();
    let mut run = FeedTest::default();
    run.video(0, &header(0)).video(0, &header(1));
    // Track 2 waits from its keyframe on, but not track 3 beside it.
    run.video(0, &track_frame(true, 2));
    run.video(10, &several(false, &[2]));
    run.video(10, &several(false, &[3, 2]));
    run.video(40, &several(true, &[1, 0]));
    run.video(80, &several(false, &[1, 0]));
    let starts: Vec<bool> = run.tags()[3..].iter().map(|t| t.starts_decoding).collect();
    assert_eq!(starts, [false, false, true, false]);
    assert_eq!(run.feed.dropped().before_keyframe, 1);
}

#[test]
fn a_lone_higher_track_starts_with_its_own_keyframe() {
    let mut run = FeedTest::default();
    run.video(0, &track_frame(false, 3))
        .video(40, &track_frame(true, 3));
    assert!(run.tags()[1].starts_decoding);
}

#[test]
fn a_keyframe_of_any_size_opens_the_stream() {
    let mut run = FeedTest::default();
    let large = [KEYFRAME, &[0; 4_000_000]].concat();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO).video(0, &large);
    assert_eq!(run.emitted()[3..], [Video(0, 0), Audio(0, 1), Video(0, 1)]);
}

fn with_timeouts(wait_for_keyframe: bool) -> FeedTest {
    FeedTest::new(FeedSettings {
        wait_for_keyframe,
        keyframe_timeout: 10 * SECOND,
        imbalance_timeout: 2 * SECOND,
        ..FeedSettings::default()
    })
}

/// Feeds frames without a keyframe, 40 ms apart, and returns the times in milliseconds at which media
/// left that decoding starts with.
fn decoding_starts(run: &mut FeedTest, from: u32, to: u32) -> Vec<u64> {
    for time in (from..to).step_by(40) {
        run.arrival = (4000 + u64::from(time)) * NANOS_PER_MILLI;
        run.video(time, FRAME);
    }
    let tags = run.tags();
    assert!(tags.iter().all(|tag| tag.is_header || tag.is_delta_unit));
    let starts = tags.iter().filter(|tag| tag.starts_decoding);
    starts.map(|tag| tag.dts / NANOS_PER_MILLI).collect()
}

#[test]
fn the_first_media_without_a_keyframe_counts_as_the_start_of_decoding() {
    let mut run = with_timeouts(true);
    run.video(0, VIDEO_HEADER);
    // The first frame that leaves is the stream's start.
    assert_eq!(decoding_starts(&mut run, 0, 12_000), [0]);
    // With another header decoding starts again.
    run.video(12_000, &[0x17, 0, 0, 0, 0, 7]);
    let waited = 10_000 * NANOS_PER_MILLI;
    let no_keyframe = Emitted::Event(FeedEvent::NoKeyframe(waited));
    for time in (12_000..22_000).step_by(40) {
        run.arrival = (4000 + u64::from(time)) * NANOS_PER_MILLI;
        run.video(time, FRAME);
    }
    assert!(!run.emitted().contains(&no_keyframe));
    run.arrival = 26_000 * NANOS_PER_MILLI;
    run.video(22_000, FRAME);
    assert_eq!(run.emitted(), [no_keyframe, Video(12_000, 1)]);
    assert!(decoding_starts(&mut run, 22_040, 40_000).is_empty());
}

#[test]
fn media_that_does_not_wait_counts_as_started_after_the_timeout() {
    let mut run = with_timeouts(false);
    run.video(0, VIDEO_HEADER);
    assert_eq!(decoding_starts(&mut run, 0, 30_000), [10_000]);
    // A keyframe in time is the start.
    run.next_publisher(60 * SECOND);
    run.video(0, FRAME).video(40, KEYFRAME);
    let starts: Vec<bool> = run.tags().iter().map(|tag| tag.starts_decoding).collect();
    assert_eq!(starts, [false, true]);
}
