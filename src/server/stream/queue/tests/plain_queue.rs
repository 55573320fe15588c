// SPDX-License-Identifier: MPL-2.0

//! Leaky queues compared with a model that walks over plain lists.

use proptest::prelude::*;

use super::*;

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
