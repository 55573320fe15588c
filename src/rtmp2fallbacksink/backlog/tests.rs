// SPDX-License-Identifier: MPL-2.0

use super::*;

type TestTag = QueuedTag<&'static str>;

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
        .map(|tag| tag.timestamp)
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
    let (_, configuration) = backlog.configuration();
    assert_eq!(
        configuration.iter().map(|t| t.payload).collect::<Vec<_>>(),
        ["b"]
    );
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
    push(&mut backlog, [audio(100), audio(10_000)]);
    assert!(backlog.is_empty());
    push(&mut backlog, [audio(10_001), audio(10_020)]);
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [10_020]);
    assert_eq!(backlog.configuration().1, []);
    // Returning video starts with a keyframe.
    push(&mut backlog, [frame(10_040), audio(10_050)]);
    push(
        &mut backlog,
        [header("video"), keyframe(10_080), audio(10_090)],
    );
    assert_eq!(pop_all(&mut backlog), [0, 10_080, 10_090]);
    // A shorter pause is waited for, also when timestamps restart.
    backlog.finish();
    push(&mut backlog, [audio(20_080), audio(5_000), audio(15_000)]);
    assert!(backlog.is_empty());
}

#[test]
fn the_current_group_is_sent_again_from_its_keyframe_after_a_failure() {
    let mut backlog = backlog(100);
    push(&mut backlog, [keyframe(0), frame(40)]);
    backlog.attach_sender();
    assert_eq!(pop_all(&mut backlog), [0, 40]);
    push(&mut backlog, [frame(80), audio(90), frame(120)]);
    assert_eq!(backlog.pop().unwrap().timestamp, 80);
    assert_eq!(backlog.bytes(), 20);
    backlog.detach_sender();
    push(&mut backlog, [frame(160)]);
    assert!(backlog.is_at_start());
    assert_eq!((backlog.bytes(), backlog.dropped()), (60, 0));
    // The next sender fails too, in the middle of the group.
    backlog.attach_sender();
    assert_eq!(backlog.pop().unwrap().timestamp, 0);
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
    assert_eq!(backlog.pop().unwrap().timestamp, 0);
    assert_eq!(backlog.pop().unwrap().timestamp, 40);
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
        .map(|tag| (tag.payload, tag.timestamp))
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
    let metadata = |payload| tag(TagKind::Script, Content::OnMetaData, 0, payload);
    push(&mut backlog, [header("a"), metadata("first"), header("b")]);
    push(&mut backlog, [metadata("second")]);
    let (version, configuration) = backlog.configuration();
    let payloads: Vec<_> = configuration.iter().map(|tag| tag.payload).collect();
    assert_eq!((version, payloads), (4, vec!["second", "b"]));
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
        (vec![0, 30, 40], 2)
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
