// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::memory::Memory;
use crate::steps;

mod delivery;
mod plain_queue;

const BODY: usize = 1000;

fn item(kind: TagKind, timestamp: u32, start: &[u8]) -> QueueItem {
    let mut bytes = start.to_vec();
    bytes.resize(BODY, 0);
    QueueItem::Tag {
        tag: Tag::new(kind, timestamp, Memory::from_vec(bytes, 0)).unwrap(),
        arrival: Instant::now(),
        discont: false,
    }
}

fn keyframe(timestamp: u32) -> QueueItem {
    item(TagKind::Video, timestamp, &[0x17, 1, 0, 0, 0])
}

fn frame(timestamp: u32) -> QueueItem {
    item(TagKind::Video, timestamp, &[0x27, 1, 0, 0, 0])
}

fn header(timestamp: u32) -> QueueItem {
    item(TagKind::Video, timestamp, &[0x17, 0, 0, 0, 0])
}

fn audio(timestamp: u32) -> QueueItem {
    item(TagKind::Audio, timestamp, &[0xAF, 1])
}

/// A queue with room for `items` tags.
fn queue(items: u64, leak: Leak) -> MediaQueue {
    let limits = QueueLimits {
        max_bytes: items * frame(0).memory() as u64,
        max_time: Duration::ZERO,
        leak,
    };
    taken(MediaQueue::new(limits))
}

const CLIENT: u64 = 7;

/// With a publisher whose start has left already.
fn taken(queue: MediaQueue) -> MediaQueue {
    queue.state.lock().writer = Some(CLIENT);
    queue
}

fn push(queue: &MediaQueue, items: impl IntoIterator<Item = QueueItem>) {
    let mut items = items.into_iter().collect();
    if queue.push(CLIENT, &mut items).unwrap() {
        queue.announce();
    }
}

/// Timestamps of all that waits, with a mark on those behind a gap.
fn pop(queue: &MediaQueue) -> Vec<(u32, bool)> {
    let mut batch = VecDeque::new();
    queue.wait(None).unwrap();
    queue.take(&mut batch);
    let tag = |item: &QueueItem| match item {
        QueueItem::Tag { tag, discont, .. } => Some((tag.timestamp, *discont)),
        _ => None,
    };
    batch.iter().filter_map(tag).collect()
}

fn unmarked(timestamps: impl IntoIterator<Item = u32>) -> Vec<(u32, bool)> {
    timestamps.into_iter().map(|t| (t, false)).collect()
}

#[test]
fn items_leave_in_order_and_are_counted() {
    let queue = queue(100, Leak::None);
    push(&queue, [keyframe(1), frame(41), audio(30)]);
    let levels = queue.levels();
    assert_eq!(levels.bytes, 3 * frame(0).memory() as u64);
    assert_eq!(levels.time, Duration::from_millis(29));
    assert_eq!(pop(&queue), unmarked([1, 41, 30]));
    assert_eq!(queue.levels(), QueueLevels::default());
}

#[test]
fn a_full_queue_makes_the_writer_wait_for_room() {
    let queue = queue(2, Leak::None);
    std::thread::scope(|scope| {
        scope.spawn(|| push(&queue, (0..50).map(frame)));
        let mut all = Vec::new();
        while all.len() < 50 {
            let some = pop(&queue);
            assert!(some.len() <= 2);
            all.extend(some);
        }
        assert_eq!(all, unmarked(0..50));
    });
}

#[test]
fn a_tag_larger_than_the_queue_passes_alone() {
    let queue = queue(0, Leak::None);
    queue.set_limits(QueueLimits {
        max_bytes: 10,
        max_time: Duration::ZERO,
        leak: Leak::None,
    });
    push(&queue, [frame(1)]);
    assert_eq!(pop(&queue), unmarked([1]));
}

#[test]
fn a_quiet_push_wakes_the_reader_when_enough_has_come_together() {
    let queue = queue(100_000, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| pop(&queue).len());
        let mut pushed = 0;
        // Nothing is announced before it is much.
        while !reader.is_finished() {
            if queue.push_quietly(CLIENT, &mut vec![frame(0)]).unwrap() {
                queue.announce();
            }
            pushed += 1;
        }
        assert!(reader.join().unwrap() <= pushed);
    });
    queue.push_quietly(CLIENT, &mut vec![frame(1)]).unwrap();
    queue.announce();
    assert!(!pop(&queue).is_empty());
}

#[test]
fn waits_for_space_are_counted() {
    let queue = queue(2, Leak::None);
    push(&queue, [frame(0), frame(1)]);
    assert_eq!(queue.space_waits(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| push(&queue, [frame(2)]));
        while !queue.is_writer_waiting() {
            std::thread::yield_now();
        }
        assert_eq!(queue.space_waits(), 1);
        assert_eq!(pop(&queue), unmarked(0..2));
    });
    assert_eq!(queue.space_waits(), 1);
    assert_eq!(pop(&queue), unmarked(2..3));
}

#[test]
fn flushing_is_sticky_and_keeps_what_is_there() {
    let queue = queue(100, Leak::None);
    push(&queue, [frame(1)]);
    queue.begin_flush();
    for _ in 0..2 {
        assert_eq!(queue.wait(None), Err(Stopped));
        let mut batch = VecDeque::new();
        queue.take(&mut batch);
        assert!(batch.is_empty());
    }
    queue.end_flush(false);
    assert_eq!(pop(&queue), unmarked([1]));
}

#[test]
fn flushing_and_closing_wake_who_waits() {
    let queue = queue(1, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        queue.begin_flush();
        assert_eq!(reader.join().unwrap(), Err(Stopped));
        let writer = scope.spawn(|| queue.push(CLIENT, &mut (0..9).map(frame).collect()));
        queue.close();
        assert_eq!(writer.join().unwrap(), Err(Stopped));
    });
    assert_eq!(queue.push(CLIENT, &mut vec![frame(1)]), Err(Stopped));
}

#[test]
fn leaking_downstream_drops_old_groups_whole() {
    let queue = queue(6, Leak::Downstream);
    // The group at 0 has started to leave.
    push(&queue, [keyframe(0)]);
    pop(&queue);
    push(
        &queue,
        [
            frame(1),
            keyframe(10),
            frame(11),
            audio(12),
            keyframe(20),
            frame(21),
        ],
    );
    push(&queue, [frame(22)]);
    assert_eq!(queue.levels().dropped, 3);
    assert_eq!(
        pop(&queue),
        [(1, false), (20, true), (21, false), (22, false)]
    );
}

#[test]
fn leaking_downstream_never_drops_configuration() {
    let queue = queue(4, Leak::Downstream);
    push(
        &queue,
        [keyframe(0), header(5), frame(6), keyframe(10), frame(11)],
    );
    assert_eq!(pop(&queue), [(5, true), (10, false), (11, false)]);
}

#[test]
fn leaking_upstream_drops_the_newest_group_whole() {
    let queue = queue(3, Leak::Upstream);
    push(
        &queue,
        [keyframe(0), frame(1), keyframe(10), frame(11), audio(12)],
    );
    assert_eq!(pop(&queue), unmarked([0, 1]));
    push(&queue, [frame(13), keyframe(20), frame(21)]);
    assert_eq!(pop(&queue), [(20, true), (21, false)]);
    assert_eq!(queue.levels().dropped, 4);
}

#[test]
fn a_group_larger_than_the_queue_is_cut_and_decodes_up_to_there() {
    for leak in [Leak::Upstream, Leak::Downstream] {
        let queue = queue(3, leak);
        push(&queue, [keyframe(0)]);
        assert_eq!(pop(&queue), unmarked([0]));
        push(&queue, (1..9).map(frame).chain([keyframe(10)]));
        assert_eq!(pop(&queue), unmarked([1, 2, 3]));
        push(&queue, [frame(11), keyframe(20)]);
        assert_eq!(pop(&queue), [(20, true)]);
    }
}

#[test]
fn audio_alone_is_dropped_tag_by_tag() {
    let queue = queue(2, Leak::Downstream);
    push(&queue, (0..5).map(audio));
    assert_eq!(pop(&queue), [(3, true), (4, false)]);
}

#[test]
fn time_is_a_limit_too() {
    let queue = queue(100, Leak::Downstream);
    queue.set_limits(QueueLimits {
        max_bytes: 0,
        max_time: Duration::from_millis(100),
        leak: Leak::Downstream,
    });
    push(&queue, (0..10).map(|i| keyframe(i * 40)));
    let left = pop(&queue);
    assert_eq!(left.first(), Some(&(240, true)));
    assert_eq!(left.last(), Some(&(360, false)));
}

#[test]
fn media_of_a_revoked_publisher_is_counted_and_dropped() {
    let queue = queue(100, Leak::None);
    push(&queue, [keyframe(0), frame(40)]);
    queue.revoke();
    let mut items = vec![frame(80), frame(120), frame(160)];
    assert_eq!(queue.push(CLIENT, &mut items), Err(Stopped));
    assert!(items.is_empty());
    assert_eq!(queue.levels().cut_off, 3);
    assert_eq!(pop(&queue), unmarked([0, 40]));
}

#[test]
fn several_video_tracks_resume_with_the_lowest_one() {
    let key = |timestamp| item(TagKind::Video, timestamp, b"\x96\x03avc1\x01");
    let queue = queue(3, Leak::Upstream);
    push(&queue, [keyframe(0), key(0), keyframe(40), frame(41)]);
    assert_eq!(pop(&queue), unmarked([0, 0]));
    // Dropped up to a keyframe of track 0, whichever keyframe comes first.
    push(&queue, [key(120), keyframe(121), key(122)]);
    assert_eq!(pop(&queue), [(121, true), (122, false)]);
}

/// Returns the steps that a queue takes for each tag, with room for `length` of them and as many more.
fn steps_a_tag(length: u64, leak: Leak, group: u32) -> f64 {
    let queue = queue(length, leak);
    let mut limits = queue.state.lock().limits;
    limits.max_time = Duration::from_secs(1_000_000);
    queue.set_limits(limits);
    let before = steps::counted();
    // The start of the first group leaves, so that a long rest of it stays.
    push(&queue, [keyframe(0)]);
    pop(&queue);
    let tags = 2 * length as u32;
    for index in 1..=tags {
        let is_first_half = u64::from(index) < length / 2;
        let is_start = !is_first_half && index % group == 0;
        let next = if is_start {
            keyframe(index)
        } else {
            frame(index)
        };
        push(&queue, [next]);
        queue.levels();
        queue.decoding_starts(Some(0));
    }
    (steps::counted() - before) as f64 / f64::from(tags)
}

#[test]
fn long_queues_take_as_many_steps_a_tag_as_short_ones() {
    for leak in [Leak::Downstream, Leak::Upstream] {
        for group in [1, 2, 50] {
            for length in [100, 1_000, 20_000] {
                let steps = steps_a_tag(length, leak, group);
                assert!(
                    steps < 4.0,
                    "{leak:?}, {length} tags, groups of {group}: {steps}"
                );
            }
        }
    }
}

#[test]
fn space_for_items_is_what_a_push_does_not_wait_for() {
    let queue = queue(3, Leak::None);
    let items = |count: u32| (0..count).map(frame).collect::<Vec<_>>();
    assert!(queue.has_space_for(&items(3)));
    assert!(!queue.has_space_for(&items(4)));
    push(&queue, items(2));
    assert!(queue.has_space_for(&items(1)));
    assert!(!queue.has_space_for(&items(2)));
    pop(&queue);
    assert!(queue.has_space_for(&items(3)));
    // A queue that leaks never waits, and the bound in time depends on what is queued before.
    let limits = QueueLimits {
        max_bytes: 1,
        max_time: Duration::from_secs(1),
        leak: Leak::Downstream,
    };
    queue.set_limits(limits);
    assert!(queue.has_space_for(&items(4)));
    queue.set_limits(QueueLimits {
        max_bytes: 0,
        leak: Leak::None,
        ..limits
    });
    assert!(!queue.has_space_for(&items(1)));
}

#[test]
fn tags_left_in_a_queue_that_closes_are_counted() {
    let queue = queue(9, Leak::None);
    push(&queue, (0..3).map(frame));
    queue.end(true);
    queue.close();
    assert_eq!(queue.levels().left, 3);
    queue.close();
    assert_eq!(queue.levels().left, 3);
}
