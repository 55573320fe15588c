// SPDX-License-Identifier: MPL-2.0

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::memory::Memory;
use crate::steps;

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

/// Begins a delivery once the reader waits.
#[track_caller]
fn begin_delivery(queue: &MediaQueue) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !queue.begin_delivery() {
        assert!(Instant::now() < patience, "the reader does not wait");
        std::thread::yield_now();
    }
}

#[test]
fn delivery_begins_only_while_the_reader_waits() {
    let queue = queue(100, Leak::None);
    assert!(!queue.begin_delivery());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        assert!(!queue.begin_delivery(), "one at a time");
        queue.end_delivery(false);
        begin_delivery(&queue);
        queue.end_delivery(true);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert!(!queue.begin_delivery());
    assert_eq!(queue.wait(Some(Instant::now())), Ok(Wake::TimedOut));
}

#[test]
fn reader_waits_for_the_end_of_a_delivery() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        push(&queue, [frame(1)]);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!reader.is_finished());
        queue.end_delivery(false);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert_eq!(pop(&queue), unmarked([1]));
}

#[test]
fn deadline_of_the_reader_waits_for_the_end_of_a_delivery() {
    let queue = queue(100, Leak::None);
    let is_delivered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // On a busy machine the deadline may come before the delivery: then the reader waits again.
        let reader = scope.spawn(|| {
            loop {
                let deadline = Instant::now() + Duration::from_millis(20);
                let wake = queue.wait(Some(deadline));
                if is_delivered.load(Ordering::SeqCst) {
                    return (wake, Instant::now() >= deadline);
                }
            }
        });
        begin_delivery(&queue);
        is_delivered.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(40));
        assert!(!reader.is_finished());
        queue.end_delivery(false);
        assert_eq!(reader.join().unwrap(), (Ok(Wake::TimedOut), true));
    });
}

#[test]
fn flush_ends_after_the_delivery_in_it() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        let second = scope.spawn(|| queue.wait_for_delivery_or_flush());
        queue.begin_flush();
        assert_eq!(reader.join().unwrap(), Err(Stopped));
        assert_eq!(second.join().unwrap(), Err(Stopped));
        let flush = scope.spawn(|| queue.end_flush(false));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!flush.is_finished());
        queue.end_delivery(false);
        flush.join().unwrap();
    });
    assert_eq!(queue.wait_for_delivery_or_flush(), Ok(()));
    assert_eq!(queue.wait(Some(Instant::now())), Ok(Wake::TimedOut));
}

#[test]
fn flush_from_within_a_delivery_does_not_wait_for_it() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        queue.begin_flush();
        assert_eq!(reader.join().unwrap(), Err(Stopped));
        queue.end_flush(true);
        queue.end_delivery(false);
    });
}

#[test]
fn push_tells_if_the_reader_waits() {
    let queue = queue(100, Leak::None);
    assert_eq!(queue.push(CLIENT, &mut vec![frame(1)]), Ok(false));
    let mut batch = VecDeque::new();
    queue.take(&mut batch);
    assert_eq!(batch.len(), 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        assert_eq!(queue.push(CLIENT, &mut vec![frame(2)]), Ok(true));
        queue.take(&mut batch);
        queue.end_delivery(true);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert!(!queue.is_reader_due());
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

/// The rules of a queue in plain lists, where each is a walk over all items.
struct PlainQueue {
    limits: QueueLimits,
    items: Vec<PlainItem>,
    dropped: u64,
    is_leaking: bool,
    has_video: bool,
    lowest_video_track: Option<u8>,
    /// Number of starts of publishers so far.
    publishers: usize,
}

#[derive(Debug, Clone)]
struct PlainItem {
    /// None for events.
    timestamp: Option<u32>,
    is_coded: bool,
    starts_group: bool,
    discont: bool,
    keyframe_of: Option<u8>,
    publisher: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Keyframe { track: u8 },
    Frame,
    Header,
    Audio,
    Event,
    NextPublisher,
    Pop,
    Leak(Leak),
}

impl PlainQueue {
    fn bytes(&self) -> u64 {
        let tags = self.items.iter().filter(|item| item.timestamp.is_some());
        tags.count() as u64 * frame(0).memory() as u64
    }

    fn time(&self) -> u64 {
        let coded = self.items.iter().filter(|item| item.is_coded);
        let timestamps: Vec<u32> = coded.filter_map(|item| item.timestamp).collect();
        match &timestamps[..] {
            [first, .., last] => u64::from(last.saturating_sub(*first)),
            _ => 0,
        }
    }

    fn is_full(&self) -> bool {
        let time = u128::from(self.time());
        let max_time = self.limits.max_time.as_millis();
        let bytes = self.bytes() + frame(0).memory() as u64;
        !self.items.is_empty()
            && (bytes > self.limits.max_bytes || (max_time > 0 && time > max_time))
    }

    fn starts(&self, publisher: Option<usize>) -> Vec<usize> {
        let is_start = |item: &PlainItem| {
            item.starts_group && publisher.is_none_or(|publisher| item.publisher == publisher)
        };
        let indices = 0..self.items.len();
        indices
            .filter(|index| is_start(&self.items[*index]))
            .collect()
    }

    fn drop_group(&mut self, start: usize, end: usize) {
        let group: Vec<PlainItem> = self.items.drain(start..end).collect();
        let (coded, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(|item| item.is_coded);
        self.dropped += coded.len() as u64;
        self.items.splice(start..start, rest);
        let mut after = self.items[start..].iter_mut();
        if let Some(tag) = after.find(|item| item.timestamp.is_some()) {
            tag.discont = true;
        }
    }

    fn push(&mut self, step: Step, timestamp: u32) {
        let is_tag = !matches!(step, Step::Event | Step::NextPublisher);
        let mut item = PlainItem {
            timestamp: is_tag.then_some(timestamp),
            is_coded: is_tag && !matches!(step, Step::Header),
            starts_group: false,
            discont: false,
            keyframe_of: None,
            publisher: self.publishers,
        };
        match step {
            Step::Keyframe { track } => {
                self.has_video = true;
                let lowest = self.lowest_video_track.unwrap_or(track).min(track);
                self.lowest_video_track = Some(lowest);
                item.starts_group = track == lowest;
                item.keyframe_of = Some(track);
            }
            Step::Frame | Step::Header => {
                self.has_video = true;
                self.lowest_video_track = Some(0);
            }
            Step::Audio => item.starts_group = !self.has_video,
            Step::NextPublisher => {
                self.publishers += 1;
                self.is_leaking = false;
                self.has_video = false;
                self.lowest_video_track = None;
            }
            Step::Event | Step::Pop | Step::Leak(_) => {}
        }
        if !item.is_coded {
            return self.items.push(item);
        }
        if self.is_leaking {
            if item.starts_group && !self.is_full() {
                item.discont = true;
                self.is_leaking = false;
                self.items.push(item);
            } else {
                self.dropped += 1;
            }
            return;
        }
        if self.limits.leak == Leak::Downstream {
            while let (true, [first, second, ..]) = (self.is_full(), &self.starts(None)[..]) {
                self.drop_group(*first, *second);
            }
        }
        if !self.is_full() {
            return self.items.push(item);
        }
        if let (false, Some(last)) = (item.starts_group, self.starts(Some(self.publishers)).last())
        {
            self.drop_group(*last, self.items.len());
        }
        self.dropped += 1;
        self.is_leaking = true;
    }

    fn pop(&mut self) -> Vec<(u32, bool)> {
        let popped = self.items.drain(..MAX_BATCH_ITEMS.min(self.items.len()));
        let tags = popped.filter_map(|item| Some((item.timestamp?, item.discont)));
        tags.collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3u8).prop_map(|track| Step::Keyframe { track }),
        12 => Just(Step::Frame),
        2 => Just(Step::Header),
        8 => Just(Step::Audio),
        2 => Just(Step::Event),
        1 => Just(Step::NextPublisher),
        1 => Just(Step::Pop),
        1 => prop_oneof![Just(Leak::Upstream), Just(Leak::Downstream)].prop_map(Step::Leak),
    ];
    prop::collection::vec(step, 0..500)
}

fn item_of(step: Step, timestamp: u32) -> QueueItem {
    match step {
        Step::Keyframe { track: 0 } => keyframe(timestamp),
        Step::Keyframe { track } => item(
            TagKind::Video,
            timestamp,
            &[0x96, 3, b'a', b'v', b'c', b'1', track],
        ),
        Step::Header => header(timestamp),
        Step::Audio => audio(timestamp),
        _ => frame(timestamp),
    }
}

proptest! {
    #![proptest_config(properties::cases(256))]

    #[test]
    fn leaky_queues_hold_and_drop_as_plain_lists_do(
        steps in steps(),
        max_items in 1..200u64,
        max_time in prop_oneof![Just(0u64), 100..4000u64],
    ) {
        let limits = QueueLimits {
            max_bytes: max_items * frame(0).memory() as u64,
            max_time: Duration::from_millis(max_time),
            leak: Leak::Downstream,
        };
        let queue = taken(MediaQueue::new(limits));
        let mut plain = PlainQueue {
            limits,
            items: Vec::new(),
            dropped: 0,
            is_leaking: false,
            has_video: false,
            lowest_video_track: None,
            publishers: 0,
        };
        for (index, step) in steps.into_iter().enumerate() {
            // Audio is a little behind video, as from most encoders.
            let behind = if matches!(step, Step::Audio) { 30 } else { 0 };
            let timestamp = 100 + 20 * index as u32 - behind;
            match step {
                Step::Pop if plain.items.is_empty() => {}
                Step::Pop => prop_assert_eq!(pop(&queue), plain.pop()),
                Step::Leak(leak) => {
                    plain.limits.leak = leak;
                    queue.set_limits(plain.limits);
                }
                // As a publisher that takes over, whose id does not matter here.
                Step::NextPublisher => {
                    queue.switch(Some(CLIENT), QueueItem::Lost);
                    plain.push(step, 0);
                }
                Step::Event => {
                    queue.post_from(CLIENT, QueueItem::Resumed);
                    plain.push(step, 0);
                }
                _ => {
                    push(&queue, [item_of(step, timestamp)]);
                    plain.push(step, timestamp);
                }
            }
            let levels = queue.levels();
            prop_assert_eq!(levels.dropped, plain.dropped);
            prop_assert_eq!(levels.bytes, plain.bytes());
            prop_assert_eq!(levels.time, Duration::from_millis(plain.time()));
            let keyframes = |track| {
                let of_track = plain.items.iter().filter(|item| item.keyframe_of == Some(track));
                of_track.count()
            };
            for track in 0..3 {
                prop_assert_eq!(queue.decoding_starts(Some(track)), keyframes(track));
            }
            let coded = plain.items.iter().filter(|item| item.is_coded).count();
            prop_assert_eq!(queue.decoding_starts(None), coded);
        }
        while !plain.items.is_empty() {
            prop_assert_eq!(pop(&queue), plain.pop());
        }
    }
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
