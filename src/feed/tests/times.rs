// SPDX-License-Identifier: MPL-2.0

//! Times of the tags that leave.

use super::*;

#[test]
fn composition_time_makes_the_pts() {
    let mut run = FeedTest::default();
    run.video(100, VIDEO_HEADER)
        .video(100, &[0x17, 1, 0, 0, 80, 9]);
    run.video(140, &[0x27, 1, 0xFF, 0xFF, 0xD8, 9]);
    let tags = run.tags();
    let millis = |tag: &OutputTag| (tag.dts / NANOS_PER_MILLI, tag.pts / NANOS_PER_MILLI);
    assert_eq!(millis(&tags[2]), (0, 80));
    assert_eq!(millis(&tags[3]), (40, 0));
    assert_eq!(tags[3].publisher_time, 140 * NANOS_PER_MILLI);
}

#[test]
fn the_publishers_own_time_is_kept_on_request() {
    let mut run = FeedTest::new(FeedSettings {
        wait_for_keyframe: true,
        timestamp_mode: TimestampMode::Publisher,
        ..FeedSettings::default()
    });
    run.video(0, VIDEO_HEADER)
        .video(20_000, KEYFRAME)
        .video(20_040, FRAME);
    let emitted = run.emitted();
    assert_eq!(emitted[0], Segment(20 * SECOND, 4 * SECOND));
    assert_eq!(
        emitted[3..],
        [Video(20_000, 0), Video(20_000, 1), Video(20_040, 1)]
    );
    run.next_publisher(9 * SECOND)
        .video(0, VIDEO_HEADER)
        .video(50, KEYFRAME);
    let expected = [Segment(50_000_000, 9 * SECOND), Video(50, 0), Video(50, 1)];
    assert_eq!(run.emitted(), expected);
}

#[test]
fn a_track_never_goes_back() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .video(500, KEYFRAME)
        .audio(800, AUDIO);
    run.video(540, FRAME).video(520, FRAME).video(580, FRAME);
    let media = [
        Video(0, 1),
        Audio(300, 1),
        Video(40, 1),
        Video(40, 1),
        Video(80, 1),
    ];
    assert_eq!(run.emitted()[4..], media);
    // A publisher whose clock starts again continues at the stream's time.
    run.arrival += 500 * SECOND;
    run.video(500_580, FRAME).video(3, FRAME).video(43, FRAME);
    let media = [
        Video(500_080, 1),
        jump(JumpKind::Back, TagKind::Video, 500_580, 3),
        Video(500_081, 1),
        Video(500_121, 1),
    ];
    assert_eq!(run.emitted(), media);
}

#[test]
fn a_publisher_that_restarts_its_clock_keeps_audio_and_video_together() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER)
        .video(0, KEYFRAME)
        .audio(10, AUDIO);
    run.emitted();
    run.arrival += 100 * SECOND;
    run.video(100_000, FRAME).audio(99_990, AUDIO);
    assert_eq!(run.emitted(), [Video(100_000, 1), Audio(99_990, 1)]);
    // Video starts again first, audio of the time before follows, and then both go on.
    run.video(0, FRAME)
        .audio(100_010, AUDIO)
        .audio(20, AUDIO)
        .video(40, FRAME);
    run.audio(60, AUDIO);
    let expected = [
        jump(JumpKind::Back, TagKind::Video, 100_000, 0),
        Video(100_001, 1),
        Audio(100_010, 1),
        Audio(100_021, 1),
        Video(100_041, 1),
        Audio(100_061, 1),
    ];
    assert_eq!(run.emitted(), expected);
}

#[test]
fn presentation_times_have_nanoseconds_and_a_sign() {
    let mut run = FeedTest::default();
    let hevc = |composition_time: i32, nanoseconds: u32| {
        let [_, a, b, c] = nanoseconds.to_be_bytes();
        let [_, d, e, f] = composition_time.to_be_bytes();
        let mod_ex = [0x97, 2, a, b, c, 0x01];
        [&mod_ex[..], b"hvc1", &[d, e, f, 9]].concat()
    };
    let opus =
        |nanoseconds: [u8; 3]| [&[0x97, 2][..], &nanoseconds, &[0x01], b"Opus", b"x"].concat();
    run.video(1000, &hevc(0, 0));
    run.video(1040, &hevc(80, 123_456));
    run.video(1080, &hevc(-40, 999_999));
    // An offset of a millisecond or more is cut.
    run.audio(1090, &opus([0xFF, 0xFF, 0xFF]));
    run.audio(1095, &opus([0, 0, 1]));
    let times: Vec<_> = run.tags()[1..]
        .iter()
        .map(|tag| (tag.dts, tag.pts, tag.publisher_time))
        .collect();
    // The publisher's own time is the message's, whatever is added to it.
    let at = |millis: u64, pts: u64| {
        (
            millis * NANOS_PER_MILLI,
            pts,
            (1000 + millis) * NANOS_PER_MILLI,
        )
    };
    let expected = [
        at(0, 0),
        at(40, 120_123_456),
        at(80, 40_999_999),
        at(90, 90_999_999),
        at(95, 95_000_001),
    ];
    assert_eq!(times, expected);
}

/// B-frames as encoders without a delay send them: the frames are shown in the order of their
/// composition times, also before the frame that was sent before them.
#[test]
fn frames_are_shown_in_their_order() {
    let mut run = FeedTest::default();
    let frame = |first: u8, time: i32| {
        let [_, a, b, c] = time.to_be_bytes();
        [first, 1, a, b, c, 9]
    };
    // I P B B, with composition times that are right, and then the same less 80.
    for (start, shift) in [(0, 0), (160, -80)] {
        run.video(start, &frame(0x17, 80 + shift));
        run.video(start + 40, &frame(0x27, 160 + shift));
        run.video(start + 80, &frame(0x27, 40 + shift));
        run.video(start + 120, &frame(0x27, 40 + shift));
    }
    let tags = run.tags();
    let pts: Vec<u64> = tags[1..]
        .iter()
        .map(|tag| tag.pts / NANOS_PER_MILLI)
        .collect();
    assert_eq!(pts, [80, 200, 120, 160, 160, 280, 200, 240]);
    let dts: Vec<u64> = tags[1..]
        .iter()
        .map(|tag| tag.dts / NANOS_PER_MILLI)
        .collect();
    assert_eq!(dts, [0, 40, 80, 120, 160, 200, 240, 280]);
    // There is no time before the start of the stream.
    let mut run = FeedTest::default();
    run.video(0, &frame(0x17, -40));
    assert_eq!(run.tags()[1].pts, 0);
}
