// SPDX-License-Identifier: MPL-2.0

mod dirty;

use super::*;

const VIDEO_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 3];
const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];
const KEYFRAME: &[u8] = &[0x17, 1, 0, 0, 0, 9];
const FRAME: &[u8] = &[0x27, 1, 0, 0, 0, 9];
const AUDIO: &[u8] = &[0xAF, 1, 9];
const END: &[u8] = &[0x17, 2, 0, 0, 0];
const SECOND: u64 = 1_000_000_000;

/// A feed with the arrival of its next tag. Its output has a form that is quick to compare.
struct FeedTest {
    feed: Feed<u8>,
    arrival: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Emitted {
    Event(FeedEvent),
    Headers(usize),
    Segment(u64, u64),
    File,
    Video(u32, u8),
    Audio(u32, u8),
    Reconfigured,
    Mark(u8),
    Refused(TagKind, u8, String),
}

fn jump(kind: JumpKind, track: TagKind, from: i64, to: i64) -> Emitted {
    Emitted::Event(FeedEvent::Jump(Jump {
        kind,
        track,
        from,
        to,
    }))
}

use Emitted::{Audio, File, Headers, Mark, Reconfigured, Segment, Video};

impl FeedTest {
    fn new(settings: FeedSettings) -> Self {
        let mut feed = Feed::new(settings);
        feed.start_publisher();
        FeedTest {
            feed,
            arrival: 4 * SECOND,
        }
    }

    fn default() -> Self {
        FeedTest::new(FeedSettings {
            wait_for_keyframe: true,
            imbalance_timeout: 2 * SECOND,
            ..FeedSettings::default()
        })
    }

    fn push(&mut self, kind: TagKind, timestamp: u32, body: &[u8]) -> &mut Self {
        let tag = Tag::new(kind, timestamp, Memory::from_vec(body.to_vec(), 0)).unwrap();
        let reception = Reception {
            arrival: self.arrival,
            now: self.arrival,
            is_newest: true,
            discont: false,
        };
        self.feed.push(tag, reception);
        self
    }

    fn video(&mut self, timestamp: u32, body: &[u8]) -> &mut Self {
        self.push(TagKind::Video, timestamp, body)
    }

    fn audio(&mut self, timestamp: u32, body: &[u8]) -> &mut Self {
        self.push(TagKind::Audio, timestamp, body)
    }

    fn next_publisher(&mut self, arrival: u64) -> &mut Self {
        self.feed.start_publisher();
        self.arrival = arrival;
        self
    }

    fn tags(&mut self) -> Vec<OutputTag> {
        std::iter::from_fn(|| self.feed.pop())
            .filter_map(|output| match output {
                FeedOutput::Tag(tag) => Some(tag),
                _ => None,
            })
            .collect()
    }

    fn emitted(&mut self) -> Vec<Emitted> {
        std::iter::from_fn(|| self.feed.pop())
            .map(|output| match output {
                FeedOutput::Headers(headers) => Headers(headers.len()),
                FeedOutput::Segment { start, base } => Segment(start, base),
                FeedOutput::Reconfigured => Reconfigured,
                FeedOutput::Mark(mark) => Mark(mark),
                FeedOutput::Event(FeedEvent::TrackRefused(track)) => {
                    Emitted::Refused(track.kind, track.track, track.codec.to_string())
                }
                FeedOutput::Event(event) => Emitted::Event(event),
                FeedOutput::Tag(tag) => {
                    let bytes = &tag.bytes[..];
                    if bytes[..3] == *b"FLV" {
                        return File;
                    }
                    let time = u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]]);
                    assert_eq!(u64::from(time) * NANOS_PER_MILLI, tag.dts);
                    match bytes[0] {
                        8 => Audio(time, bytes[12]),
                        _ => Video(time, bytes[12]),
                    }
                }
            })
            .collect()
    }
}

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
fn everything_passes_without_wait_for_keyframe() {
    let mut run = FeedTest::new(FeedSettings::default());
    run.video(0, VIDEO_HEADER).video(20, FRAME).audio(21, AUDIO);
    assert_eq!(run.emitted()[4..], [Video(0, 1), Audio(1, 1)]);
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
fn audio_of_a_stream_whose_video_never_comes_is_not_lost() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).audio(5, AUDIO).audio(28, AUDIO);
    assert_eq!(run.emitted(), []);
    run.feed.end_publisher();
    run.feed.finish();
    assert_eq!(run.emitted()[3..], [Video(0, 0), Audio(0, 1), Audio(23, 1)]);
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

/// A keyframe or another frame of H.264 on one of several tracks.
fn track_frame(is_key: bool, track: u8) -> Vec<u8> {
    let first = if is_key { 0x96 } else { 0xA6 };
    [&[first, 0x03][..], b"avc1", &[track, 9]].concat()
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

#[test]
fn a_lone_higher_track_starts_with_its_own_keyframe() {
    let mut run = FeedTest::default();
    run.video(0, &track_frame(false, 3))
        .video(40, &track_frame(true, 3));
    assert!(run.tags()[1].starts_decoding);
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

#[test]
fn the_ends_of_several_tracks_all_leave() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).video(0, KEYFRAME);
    run.video(40, END).video(40, END);
    run.emitted();
    run.feed.finish();
    assert_eq!(run.emitted(), [Video(40, 2), Video(40, 2)]);
}

#[test]
fn a_keyframe_of_any_size_opens_the_stream() {
    let mut run = FeedTest::default();
    let large = [KEYFRAME, &[0; 4_000_000]].concat();
    run.video(0, VIDEO_HEADER).audio(0, AUDIO).video(0, &large);
    assert_eq!(run.emitted()[3..], [Video(0, 0), Audio(0, 1), Video(0, 1)]);
}

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
