// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::flv::TagInfo;

type TestTag = QueuedTag<&'static str>;

impl Payload for &'static str {
    fn has_same_body(&self, other: &Self) -> bool {
        self == other
    }
}

fn tag(kind: TagKind, content: Content, timestamp: u32, payload: &'static str) -> TestTag {
    let info = TagInfo {
        content,
        track: 0,
        composition_time: 0,
    };
    QueuedTag {
        payload,
        bytes: 10,
        kind,
        info,
        timestamp,
    }
}

fn header(payload: &'static str) -> TestTag {
    tag(TagKind::Video, Content::SequenceHeader, 0, payload)
}

fn keyframe(timestamp: u32) -> TestTag {
    tag(TagKind::Video, Content::Keyframe, timestamp, "key")
}

fn frame(timestamp: u32) -> TestTag {
    tag(TagKind::Video, Content::Frame, timestamp, "frame")
}

fn on_track(track: u8, mut tag: TestTag) -> TestTag {
    tag.info.track = track;
    tag
}

fn audio_header() -> TestTag {
    tag(TagKind::Audio, Content::SequenceHeader, 0, "audio header")
}

fn metadata(payload: &'static str) -> TestTag {
    tag(TagKind::Script, Content::OnMetaData, 0, payload)
}

fn color(payload: &'static str) -> TestTag {
    tag(TagKind::Video, Content::TrackMetadata, 0, payload)
}

fn audio(timestamp: u32) -> TestTag {
    tag(TagKind::Audio, Content::Frame, timestamp, "audio")
}

/// A backlog with room for this number of tags.
fn backlog(tags: u64) -> Backlog<&'static str> {
    Backlog::new(Limits {
        max_bytes: 10 * tags,
        max_time: Duration::ZERO,
    })
}

fn push(backlog: &mut Backlog<&'static str>, tags: impl IntoIterator<Item = TestTag>) {
    tags.into_iter().for_each(|tag| backlog.push(tag));
}

fn pop_all(backlog: &mut Backlog<&'static str>) -> Vec<u32> {
    std::iter::from_fn(|| backlog.pop())
        .map(|(tag, _)| tag.timestamp)
        .collect()
}

/// The payloads of the configuration that a server that connects now gets.
fn configuration(backlog: &Backlog<&'static str>) -> Vec<&'static str> {
    let tags = backlog.configuration().tags();
    tags.iter().map(|tag| tag.payload).collect()
}

/// Tracks and timestamps of all tags.
fn pop_tracks(backlog: &mut Backlog<&'static str>) -> Vec<(u8, u32)> {
    std::iter::from_fn(|| backlog.pop())
        .map(|(tag, _)| (tag.info.track, tag.timestamp))
        .collect()
}

#[test]
fn a_backlog_without_sender_holds_the_last_group() {
    let mut backlog = backlog(100);
    push(
        &mut backlog,
        [header("a"), frame(0), keyframe(40), frame(80), audio(90)],
    );
    push(&mut backlog, [header("b"), keyframe(120), frame(160)]);
    assert_eq!(backlog.dropped(), 1 + 3);
    assert!(backlog.is_at_start());
    assert_eq!(configuration(&backlog), ["b"]);
    backlog.attach_sender();
    push(&mut backlog, [keyframe(200)]);
    assert_eq!(pop_all(&mut backlog), [120, 160, 200]);
    assert_eq!((backlog.bytes(), backlog.dropped()), (0, 4));
}

#[test]
fn audio_starts_after_video_has_been_absent_for_ten_seconds() {
    let mut backlog = backlog(100);
    push(&mut backlog, [header("video"), keyframe(0)]);
    backlog.attach_sender();
    pop_all(&mut backlog);
    backlog.finish();
    push(&mut backlog, [audio(100), audio(10_100)]);
    assert!(backlog.is_empty());
    push(&mut backlog, [audio(10_101), audio(10_120)]);
    backlog.attach_sender();
    let version = backlog.configuration().version();
    assert_eq!(pop_all(&mut backlog), [10_120]);
    assert!(configuration(&backlog).is_empty());
    // Returning video starts with its configuration and a keyframe; audio goes on.
    push(
        &mut backlog,
        [frame(10_140), audio(10_150), keyframe(10_180)],
    );
    assert_eq!(configuration(&backlog), ["video"]);
    assert!(backlog.configuration().version() > version);
    assert_eq!(pop_all(&mut backlog), [10_150, 10_180]);
    // A shorter pause is waited for, also when timestamps restart.
    backlog.finish();
    push(&mut backlog, [audio(20_080), audio(5_000), audio(15_000)]);
    assert!(backlog.is_empty());
}

#[test]
fn announced_video_that_never_comes_is_awaited_for_two_seconds() {
    let mut backlog = backlog(1000);
    push(&mut backlog, [audio_header(), header("video")]);
    backlog.attach_sender();
    // The time 0 of a header is no time.
    push(&mut backlog, [audio(3_600_000), audio(3_602_000)]);
    assert_eq!(configuration(&backlog), ["audio header", "video"]);
    assert!(pop_all(&mut backlog).is_empty());
    push(&mut backlog, [audio(3_602_001), audio(3_602_020)]);
    assert_eq!(configuration(&backlog), ["audio header"]);
    assert_eq!(pop_all(&mut backlog), [3_602_001, 3_602_020]);
    // A header that is sent again changes nothing, and the late keyframe has it all the same.
    backlog.push_header(header("video"));
    push(&mut backlog, [keyframe(3_700_000), audio(3_700_007)]);
    assert_eq!(configuration(&backlog), ["audio header", "video"]);
    assert_eq!(pop_all(&mut backlog), [3_700_000, 3_700_007]);
    // The next server gets it, too.
    backlog.detach_sender();
    assert_eq!(configuration(&backlog), ["audio header", "video"]);
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [3_700_000, 3_700_007]);
}

#[test]
fn a_late_keyframe_after_audio_has_its_header_also_after_a_failover() {
    for pause in [0, 1_500, 2_500, 9_000, 11_000, 60_000, 86_400_000] {
        let mut backlog = backlog(0);
        backlog.set_headers(vec![header("video"), audio_header()]);
        backlog.attach_sender();
        let step = (pause / 20).max(1) as usize;
        for time in (0..=pause).step_by(step) {
            push(&mut backlog, [audio(5_000 + time)]);
            backlog.push_header(header("video"));
        }
        pop_all(&mut backlog);
        push(
            &mut backlog,
            [keyframe(5_000 + pause), frame(5_040 + pause)],
        );
        assert!(configuration(&backlog).contains(&"video"), "{pause}");
        assert_eq!(pop_all(&mut backlog).len(), 2, "{pause}");
        backlog.detach_sender();
        assert!(configuration(&backlog).contains(&"video"), "{pause}");
    }
}

#[test]
fn new_headers_forget_what_they_lack_and_add_what_is_new() {
    let mut backlog = backlog(100);
    backlog.set_headers(vec![
        metadata("m1"),
        header("v1"),
        color("c1"),
        audio_header(),
    ]);
    backlog.attach_sender();
    push(&mut backlog, [keyframe(0), frame(40)]);
    // The next publisher has no colours and no metadata, and its own configuration.
    backlog.set_headers(vec![header("v2"), audio_header()]);
    push(&mut backlog, [keyframe(80)]);
    // The media of the first one is still to be sent.
    assert_eq!(configuration(&backlog), ["m1", "v1", "c1", "audio header"]);
    let sent: Vec<_> = std::iter::from_fn(|| backlog.pop()).collect();
    let sent: Vec<_> = sent
        .iter()
        .map(|(tag, _)| (tag.payload, tag.timestamp))
        .collect();
    assert_eq!(sent, [("key", 0), ("frame", 40), ("v2", 0), ("key", 80)]);
    assert_eq!(configuration(&backlog), ["v2", "audio header"]);
    // The new server of a failover gets only that.
    backlog.detach_sender();
    assert_eq!(configuration(&backlog), ["v2", "audio header"]);
    // Headers that are the same change nothing, and need not be sent.
    let version = backlog.configuration().version();
    backlog.set_headers(vec![header("v2"), audio_header()]);
    backlog.set_headers(vec![header("v2")]);
    assert_eq!(backlog.configuration().version(), version);
}

#[test]
fn a_publisher_without_video_after_one_with_video_is_not_kept_waiting() {
    let mut backlog = backlog(100);
    backlog.set_headers(vec![header("video"), audio_header()]);
    push(&mut backlog, [keyframe(0)]);
    backlog.attach_sender();
    pop_all(&mut backlog);
    backlog.finish();
    backlog.set_headers(vec![audio_header()]);
    push(&mut backlog, [audio(100)]);
    backlog.attach_sender();
    assert_eq!(configuration(&backlog), ["audio header"]);
    assert_eq!(pop_all(&mut backlog), [100]);
}

#[test]
fn a_configuration_change_without_media_is_sent_before_the_next_media() {
    let mut backlog = backlog(100);
    backlog.attach_sender();
    push(
        &mut backlog,
        [header("v1"), keyframe(0), color("c1"), frame(40)],
    );
    assert_eq!(pop_all(&mut backlog), [0, 0, 0, 40]);
    backlog.detach_sender();
    // The group is sent again, each tag with the configuration that it had.
    assert_eq!(configuration(&backlog), ["v1"]);
    backlog.attach_sender();
    backlog.pop();
    assert_eq!(configuration(&backlog), ["v1", "c1"]);
}

#[test]
fn a_start_is_a_keyframe_of_the_lowest_video_track() {
    let mut backlog = backlog(100);
    push(&mut backlog, [header("0"), on_track(1, header("1"))]);
    let group = |time| {
        [
            keyframe(time),
            on_track(1, keyframe(time)),
            frame(time + 40),
            on_track(1, frame(time + 40)),
        ]
    };
    push(&mut backlog, group(0));
    push(&mut backlog, group(80));
    backlog.attach_sender();
    let expected = [(0, 80), (1, 80), (0, 120), (1, 120)];
    assert_eq!(pop_tracks(&mut backlog), expected);
    // After a failure, too.
    backlog.detach_sender();
    backlog.attach_sender();
    assert_eq!(pop_tracks(&mut backlog), expected);
}

#[test]
fn keyframes_of_one_time_are_one_start_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let keys = |time| order.map(|track| on_track(track, keyframe(time)));
        let frames = |time| order.map(|track| on_track(track, frame(time)));
        let mut backlog = backlog(8);
        // Delta frames and keyframes of one track alone are no start.
        push(&mut backlog, frames(0));
        push(
            &mut backlog,
            [on_track(2, keyframe(20)), on_track(1, keyframe(20))],
        );
        push(&mut backlog, keys(40));
        push(&mut backlog, frames(80));
        let expected = |time| {
            let all = order.map(|track| (track, time));
            let more = order.map(|track| (track, time + 40));
            [all, more].concat()
        };
        assert_eq!(backlog.dropped(), 5, "{order:?}");
        // Without a sender, the next group replaces it whole.
        push(&mut backlog, keys(120));
        assert_eq!(backlog.dropped(), 11, "{order:?}");
        push(&mut backlog, frames(160));
        backlog.attach_sender();
        assert!(backlog.is_at_start());
        // There is no room for more: the complete group goes.
        push(&mut backlog, keys(200));
        assert_eq!(backlog.dropped(), 17, "{order:?}");
        push(&mut backlog, frames(240));
        assert_eq!(pop_tracks(&mut backlog), expected(200), "{order:?}");
        backlog.detach_sender();
        backlog.attach_sender();
        assert_eq!(pop_tracks(&mut backlog), expected(200), "{order:?}");
    }
}

#[test]
fn a_lowest_track_that_stops_is_not_awaited() {
    let mut backlog = backlog(1000);
    push(&mut backlog, [keyframe(0), on_track(1, keyframe(0))]);
    for time in (1000..11_000).step_by(1000) {
        push(&mut backlog, [on_track(1, keyframe(time))]);
    }
    assert_eq!(backlog.dropped(), 0);
    push(&mut backlog, [on_track(1, keyframe(11_000))]);
    backlog.attach_sender();
    assert_eq!(pop_tracks(&mut backlog), [(1, 11_000)]);
}

#[test]
fn a_stream_without_any_keyframe_starts_after_ten_seconds() {
    let mut backlog = backlog(1000);
    backlog.attach_sender();
    push(&mut backlog, [header("video")]);
    push(&mut backlog, (0..10_000).step_by(40).map(frame));
    assert_eq!(pop_all(&mut backlog), [0]);
    push(&mut backlog, [audio(10_007), frame(10_000), audio(10_027)]);
    assert_eq!(pop_all(&mut backlog), [10_000, 10_027]);
}

#[test]
fn the_current_group_is_sent_again_from_its_keyframe_after_a_failure() {
    let mut backlog = backlog(100);
    push(&mut backlog, [keyframe(0), frame(40)]);
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [0, 40]);
    push(&mut backlog, [frame(80), audio(90), frame(120)]);
    assert_eq!(backlog.pop().unwrap().0.timestamp, 80);
    assert_eq!(backlog.bytes(), 20);
    backlog.detach_sender();
    push(&mut backlog, [frame(160)]);
    assert!(backlog.is_at_start());
    assert_eq!((backlog.bytes(), backlog.dropped()), (60, 0));
    // The next sender fails too, in the middle of the group.
    backlog.attach_sender();
    assert_eq!(backlog.pop().unwrap().0.timestamp, 0);
    backlog.detach_sender();
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [0, 40, 80, 90, 120, 160]);
    assert_eq!((backlog.bytes(), backlog.dropped()), (0, 0));
}

#[test]
fn sent_tags_that_are_not_sent_again_do_not_count_as_dropped() {
    let mut backlog = backlog(6);
    backlog.attach_sender();
    push(&mut backlog, [keyframe(0), frame(40), frame(80)]);
    assert_eq!(backlog.pop().unwrap().0.timestamp, 0);
    assert_eq!(backlog.pop().unwrap().0.timestamp, 40);
    backlog.detach_sender();
    push(&mut backlog, [keyframe(120), frame(160)]);
    assert_eq!(backlog.dropped(), 1);
    // The same holds when there is no room.
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [120, 160]);
    backlog.detach_sender();
    push(
        &mut backlog,
        [frame(200), frame(240), frame(280), frame(320)],
    );
    assert_eq!((backlog.bytes(), backlog.dropped()), (60, 1));
    push(&mut backlog, [frame(360)]);
    assert_eq!((backlog.bytes(), backlog.dropped()), (0, 6));
}

#[test]
fn queued_tags_have_priority_over_kept_sent_tags() {
    let mut backlog = backlog(4);
    backlog.attach_sender();
    push(&mut backlog, [keyframe(0), frame(40), frame(80)]);
    assert_eq!(pop_all(&mut backlog), [0, 40, 80]);
    push(&mut backlog, [frame(120), frame(160)]);
    assert_eq!((backlog.bytes(), backlog.dropped()), (20, 0));
    // The start of the group did not fit, so its rest is useless.
    backlog.detach_sender();
    push(&mut backlog, [frame(200)]);
    assert_eq!((backlog.bytes(), backlog.dropped()), (0, 3));
    // A sent group larger than the limit is not kept.
    push(&mut backlog, [keyframe(240)]);
    backlog.attach_sender();
    for time in 250..260 {
        backlog.pop();
        backlog.push(frame(time));
    }
    backlog.detach_sender();
    assert_eq!((backlog.bytes(), backlog.dropped()), (0, 4));
}

#[test]
fn a_group_older_than_max_time_is_not_sent_again() {
    let mut backlog = Backlog::new(Limits {
        max_bytes: 0,
        max_time: Duration::from_millis(100),
    });
    for (end, left) in [(100, vec![0, 40, 100]), (101, vec![])] {
        backlog.attach_sender();
        push(&mut backlog, [keyframe(0), frame(40), frame(end)]);
        assert_eq!(pop_all(&mut backlog), [0, 40, end]);
        backlog.detach_sender();
        assert_eq!(pop_all(&mut backlog), left);
    }
}

#[test]
fn a_configuration_change_or_end_of_stream_discards_the_sent_group() {
    let mut backlog = backlog(100);
    backlog.attach_sender();
    push(&mut backlog, [keyframe(0), frame(40), header("b")]);
    assert_eq!(pop_all(&mut backlog), [0, 40, 0]);
    backlog.detach_sender();
    assert!(!backlog.is_at_start());
    backlog.attach_sender();
    push(&mut backlog, [keyframe(80), frame(120)]);
    assert_eq!(pop_all(&mut backlog), [80, 120]);
    backlog.finish();
    push(&mut backlog, [frame(160), keyframe(200)]);
    assert_eq!(backlog.dropped(), 1);
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [200]);
}

#[test]
fn a_full_backlog_drops_whole_groups_but_no_configuration() {
    let mut backlog = backlog(6);
    backlog.push(keyframe(0));
    backlog.attach_sender();
    backlog.pop();
    // The partly sent group stays complete.
    push(
        &mut backlog,
        [
            frame(40),
            keyframe(80),
            header("b"),
            frame(120),
            keyframe(160),
            frame(200),
        ],
    );
    assert_eq!(backlog.dropped(), 0);
    push(&mut backlog, [frame(240)]);
    assert_eq!(backlog.dropped(), 2);
    push(&mut backlog, [keyframe(280), frame(320)]);
    let left: Vec<_> = std::iter::from_fn(|| backlog.pop())
        .map(|(tag, _)| (tag.payload, tag.timestamp))
        .collect();
    let expected = [("frame", 40), ("b", 0), ("key", 280), ("frame", 320)];
    assert_eq!(left, expected);
    assert_eq!(backlog.dropped(), 2 + 3);
}

#[test]
fn a_group_larger_than_the_limit_is_dropped() {
    let mut backlog = backlog(3);
    backlog.attach_sender();
    push(
        &mut backlog,
        [keyframe(0), frame(40), frame(80), frame(120), frame(160)],
    );
    assert_eq!(backlog.dropped(), 5);
    push(&mut backlog, [keyframe(200), frame(240)]);
    assert_eq!(pop_all(&mut backlog), [200, 240]);
}

#[test]
fn max_time_bounds_the_backlog() {
    let mut backlog = Backlog::new(Limits {
        max_bytes: 0,
        max_time: Duration::from_millis(100),
    });
    backlog.attach_sender();
    for time in (0..400).step_by(40) {
        backlog.push(if time % 80 == 0 {
            keyframe(time)
        } else {
            frame(time)
        });
    }
    assert!(backlog.time() <= Duration::from_millis(140));
    let left = pop_all(&mut backlog);
    assert_eq!(left.len() as u64 + backlog.dropped(), 10);
    assert_eq!(left, [240, 280, 320, 360]);
}

#[test]
fn metadata_precedes_sequence_headers_in_the_configuration() {
    let mut backlog = backlog(10);
    push(&mut backlog, [header("a"), metadata("first"), header("b")]);
    push(&mut backlog, [metadata("second")]);
    assert_eq!(configuration(&backlog), ["second", "b"]);
}

#[test]
fn late_video_starts_with_a_keyframe() {
    let mut backlog = backlog(10);
    backlog.attach_sender();
    push(
        &mut backlog,
        [audio(0), frame(10), audio(20), keyframe(30), frame(40)],
    );
    assert_eq!(
        (pop_all(&mut backlog), backlog.dropped()),
        (vec![0, 20, 30, 40], 1)
    );
}

#[test]
fn an_audio_only_stream_starts_at_any_frame() {
    let mut backlog = backlog(2);
    push(&mut backlog, [audio(0), audio(20)]);
    assert!(backlog.is_at_start());
    backlog.attach_sender();
    push(&mut backlog, [audio(40), audio(60)]);
    assert_eq!(pop_all(&mut backlog), [40, 60]);
}
