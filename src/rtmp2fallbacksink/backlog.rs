// SPDX-License-Identifier: MPL-2.0

//! What waits to be sent. It is bounded, and loses whole groups of pictures: what comes out of it can
//! be decoded from its start on.
//!
//! While nobody sends, it holds the last group of pictures as far as it has come, so that a server
//! that comes back gets a keyframe at once. What the sender took of the group under way is kept for
//! that too, as long as there is room.

use std::collections::VecDeque;
use std::time::Duration;

use crate::flv::{Content, TagInfo, TagKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Zero for no limit.
    pub(super) max_bytes: u64,
    pub(super) max_time: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag<T> {
    pub(super) payload: T,
    pub(super) bytes: usize,
    pub(super) kind: TagKind,
    pub(super) info: TagInfo,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
}

impl<T> Tag<T> {
    /// Metadata and decoder configuration: what a server needs first.
    pub(super) fn is_configuration(&self) -> bool {
        matches!(
            self.info.content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        )
    }

    pub(super) fn takes_place_of(&self, other: &Self) -> bool {
        let key = |tag: &Self| (tag.kind, tag.info.content, tag.info.track);
        key(self) == key(other)
    }
}

/// Whose keyframe is waited for while audio comes for so long without any video has none any more. In milliseconds.
const MAX_VIDEO_SILENCE: i32 = 10_000;

#[derive(Debug)]
pub(super) struct Backlog<T> {
    limits: Limits,
    tags: VecDeque<Tag<T>>,
    bytes: usize,
    /// So many of them, at the front, were taken by somebody before.
    again: usize,
    /// What was taken last, from where decoding can start: what follows on it is in `tags`.
    taken: VecDeque<Tag<T>>,
    taken_bytes: usize,
    /// What holds at the front of `tags`.
    configuration: Vec<Tag<T>>,
    /// Counts up when that changes.
    version: u64,
    /// Somebody sends.
    is_taken: bool,
    /// Nothing is taken in up to the next point where decoding can start.
    leaking: bool,
    has_video: bool,
    /// The time of the last video.
    video: u32,
    dropped: u64,
}

impl<T: Clone> Backlog<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Backlog {
            limits,
            tags: VecDeque::new(),
            bytes: 0,
            again: 0,
            taken: VecDeque::new(),
            taken_bytes: 0,
            configuration: Vec::new(),
            version: 0,
            is_taken: false,
            leaking: true,
            has_video: false,
            video: 0,
            dropped: 0,
        }
    }

    /// What waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    pub(super) fn has_video(&self) -> bool {
        self.has_video
    }

    /// Tags that were left out, ever.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn configuration(&self) -> (u64, Vec<Tag<T>>) {
        (self.version, self.configuration.clone())
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Somebody sends from now on.
    pub(super) fn take(&mut self) {
        self.is_taken = true;
    }

    /// Nobody sends any more. Of what is here only the last group of pictures is worth keeping, from its
    /// start on, which may have been taken already.
    pub(super) fn give_back(&mut self) {
        self.is_taken = false;
        let last = (0..self.tags.len()).rfind(|index| self.is_start(*index));
        if let Some(last) = last {
            self.forget_taken();
            return self.remove_front(last);
        }
        if self.is_taken_of_use() {
            self.again += self.taken.len();
            self.bytes += self.taken_bytes;
            self.taken.append(&mut self.tags);
            self.tags = std::mem::take(&mut self.taken);
        } else {
            self.remove_front(self.tags.len());
            self.leaking = true;
        }
        self.forget_taken();
    }

    /// All was sent, and nobody sends any more: what may come is another stream.
    pub(super) fn end(&mut self) {
        self.forget_taken();
        self.give_back();
    }

    /// Whether what comes out next can be decoded by who has seen nothing before it.
    pub(super) fn is_at_start(&self) -> bool {
        let first = self.tags.iter().position(|tag| tag.info.is_coded());
        first.is_some_and(|index| self.is_start(index))
    }

    /// For the sender.
    pub(super) fn pop(&mut self) -> Option<Tag<T>> {
        let (tag, _) = self.pop_front()?;
        self.keep_taken(&tag);
        Some(tag)
    }

    /// And whether it was taken before.
    fn pop_front(&mut self) -> Option<(Tag<T>, bool)> {
        let tag = self.tags.pop_front()?;
        self.bytes -= tag.bytes;
        let was_taken = self.again > 0;
        self.again -= usize::from(was_taken);
        self.learn(&tag);
        Some((tag, was_taken))
    }

    /// In case that somebody else has to send it once more.
    fn keep_taken(&mut self, tag: &Tag<T>) {
        let is_start = self.can_start(tag);
        // What comes before a change of configuration can't be decoded after it.
        if is_start || tag.info.content == Content::SequenceHeader {
            self.forget_taken();
        }
        if tag.is_configuration() || (!is_start && self.taken.is_empty()) {
            return;
        }
        self.taken_bytes += tag.bytes;
        self.taken.push_back(tag.clone());
        let max_bytes = self.limits.max_bytes;
        if max_bytes > 0 && (self.bytes + self.taken_bytes) as u64 > max_bytes {
            self.forget_taken();
        }
    }

    fn forget_taken(&mut self) {
        self.taken.clear();
        self.taken_bytes = 0;
    }

    /// Decoding can still start there, and what is now is not far from it.
    fn is_taken_of_use(&self) -> bool {
        let max_time = self.limits.max_time;
        let is_start = self.taken.front().is_some_and(|tag| self.can_start(tag));
        let span = span(self.taken.iter().chain(&self.tags));
        is_start && (max_time.is_zero() || span <= max_time)
    }

    pub(super) fn push(&mut self, tag: Tag<T>) {
        if tag.kind == TagKind::Video && !self.has_video {
            self.has_video = true;
            // What has begun without it goes on with its first keyframe.
            self.leaking = true;
        }
        self.look_for_video(&tag);
        if tag.is_configuration() {
            if self.tags.is_empty() && !self.is_taken {
                return self.learn(&tag);
            }
            return self.append(tag);
        }
        let is_start = self.can_start(&tag);
        if is_start && !self.is_taken {
            self.remove_front(self.tags.len());
        }
        if self.leaking && !is_start {
            self.dropped += 1;
            return;
        }
        self.leaking = false;
        let max_bytes = self.limits.max_bytes;
        if max_bytes > 0 && (self.bytes + self.taken_bytes + tag.bytes) as u64 > max_bytes {
            self.forget_taken();
        }
        while self.is_full_for(tag.bytes) {
            let mut starts = (0..self.tags.len()).filter(|index| self.is_start(*index));
            let (first, second) = (starts.next(), starts.next());
            // With a new one the last one is whole.
            let end = second.or(is_start.then_some(self.tags.len()));
            match (first, end) {
                (Some(first), Some(end)) => self.drop_media(first, end),
                (first, _) => {
                    if let Some(first) = first {
                        self.drop_media(first, self.tags.len());
                    }
                    self.dropped += 1;
                    self.leaking = true;
                    return;
                }
            }
        }
        self.append(tag);
    }

    /// Another publisher may have audio alone, and what waits for a keyframe would do so for ever.
    fn look_for_video(&mut self, tag: &Tag<T>) {
        let silence = tag.timestamp.wrapping_sub(self.video) as i32;
        match tag.kind {
            TagKind::Video => self.video = tag.timestamp,
            // Times start anew.
            TagKind::Audio if silence < 0 => self.video = tag.timestamp,
            TagKind::Audio if self.has_video && self.leaking && silence > MAX_VIDEO_SILENCE => {
                self.has_video = false;
                self.configuration.retain(|tag| tag.kind != TagKind::Video);
                self.version += 1;
            }
            _ => {}
        }
    }

    fn append(&mut self, tag: Tag<T>) {
        self.bytes += tag.bytes;
        self.tags.push_back(tag);
    }

    fn learn(&mut self, tag: &Tag<T>) {
        if tag.is_configuration() {
            self.version += 1;
            let all = &mut self.configuration;
            match all.iter_mut().find(|old| tag.takes_place_of(old)) {
                Some(old) => *old = tag.clone(),
                None if tag.kind == TagKind::Script => all.insert(0, tag.clone()),
                None => all.push(tag.clone()),
            }
        }
    }

    /// Decoding can start at a keyframe, or anywhere where there is no video.
    fn can_start(&self, tag: &Tag<T>) -> bool {
        tag.info.content == Content::Keyframe
            || (tag.kind == TagKind::Audio && tag.info.is_coded() && !self.has_video)
    }

    fn is_start(&self, index: usize) -> bool {
        self.can_start(&self.tags[index])
    }

    /// One tag is always taken, however large it is.
    fn is_full_for(&self, more: usize) -> bool {
        let Limits {
            max_bytes,
            max_time,
        } = self.limits;
        let bytes = (self.bytes + more) as u64;
        let is_over =
            (max_bytes > 0 && bytes > max_bytes) || (!max_time.is_zero() && self.time() > max_time);
        is_over && self.tags.iter().any(|tag| !tag.is_configuration())
    }

    pub(super) fn time(&self) -> Duration {
        span(self.tags.iter())
    }

    fn remove_front(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((tag, was_taken)) = self.pop_front()
                && !tag.is_configuration()
                && !was_taken
            {
                self.dropped += 1;
            }
        }
    }

    /// Drops all but configuration from `start` to `end`.
    fn drop_media(&mut self, start: usize, end: usize) {
        let (kept, dropped): (Vec<_>, Vec<_>) =
            self.tags.drain(start..end).partition(Tag::is_configuration);
        // There is no configuration in what was taken before.
        let taken = self.again.min(end).saturating_sub(start);
        self.again -= taken;
        self.dropped += (dropped.len() - taken) as u64;
        self.bytes -= dropped.iter().map(|tag| tag.bytes).sum::<usize>();
        for tag in kept.into_iter().rev() {
            self.tags.insert(start, tag);
        }
    }
}

/// The time of media from the first to the last.
fn span<'a, T: 'a>(tags: impl DoubleEndedIterator<Item = &'a Tag<T>>) -> Duration {
    let mut coded = tags.filter(|tag| tag.info.is_coded());
    let first = coded.next();
    let times = first.zip(coded.next_back());
    // Tracks are not in order with each other, so this may be less than nothing.
    let millis = times.map_or(0, |(first, last)| {
        last.timestamp.wrapping_sub(first.timestamp) as i32
    });
    Duration::from_millis(millis.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestTag = Tag<&'static str>;

    fn tag(kind: TagKind, content: Content, timestamp: u32, payload: &'static str) -> TestTag {
        let info = TagInfo {
            content,
            track: 0,
            composition_time: 0,
        };
        Tag {
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

    /// With room for so many tags.
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
    fn while_nobody_sends_it_holds_the_last_group_of_pictures() {
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
        backlog.take();
        push(&mut backlog, [keyframe(200)]);
        assert_eq!(pop_all(&mut backlog), [120, 160, 200]);
        assert_eq!((backlog.bytes(), backlog.dropped()), (0, 4));
    }

    #[test]
    fn who_has_no_video_any_more_is_not_kept_waiting_for_a_keyframe() {
        let mut backlog = backlog(100);
        push(&mut backlog, [header("video"), keyframe(0)]);
        backlog.take();
        pop_all(&mut backlog);
        backlog.end();
        push(&mut backlog, [audio(100), audio(10_000)]);
        assert!(backlog.is_empty());
        push(&mut backlog, [audio(10_001), audio(10_020)]);
        backlog.take();
        assert_eq!(pop_all(&mut backlog), [10_020]);
        assert_eq!(backlog.configuration().1, []);
        // Video that comes back does so with a keyframe.
        push(&mut backlog, [frame(10_040), audio(10_050)]);
        push(
            &mut backlog,
            [header("video"), keyframe(10_080), audio(10_090)],
        );
        assert_eq!(pop_all(&mut backlog), [0, 10_080, 10_090]);
        // As long as it only pauses, it is waited for: times may start anew, too.
        backlog.end();
        push(&mut backlog, [audio(20_080), audio(5_000), audio(15_000)]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_is_left_when_the_sender_failed_starts_with_a_keyframe_again() {
        let mut backlog = backlog(100);
        push(&mut backlog, [keyframe(0), frame(40)]);
        backlog.take();
        assert_eq!(pop_all(&mut backlog), [0, 40]);
        push(&mut backlog, [frame(80), audio(90), frame(120)]);
        assert_eq!(backlog.pop().unwrap().timestamp, 80);
        assert_eq!(backlog.bytes(), 20);
        backlog.give_back();
        push(&mut backlog, [frame(160)]);
        assert!(backlog.is_at_start());
        assert_eq!((backlog.bytes(), backlog.dropped()), (60, 0));
        // The next one fails too, in the middle of it.
        backlog.take();
        assert_eq!(backlog.pop().unwrap().timestamp, 0);
        backlog.give_back();
        backlog.take();
        assert_eq!(pop_all(&mut backlog), [0, 40, 80, 90, 120, 160]);
        assert_eq!((backlog.bytes(), backlog.dropped()), (0, 0));
    }

    #[test]
    fn what_was_taken_and_is_not_sent_again_was_not_dropped() {
        let mut backlog = backlog(6);
        backlog.take();
        push(&mut backlog, [keyframe(0), frame(40), frame(80)]);
        assert_eq!(backlog.pop().unwrap().timestamp, 0);
        assert_eq!(backlog.pop().unwrap().timestamp, 40);
        backlog.give_back();
        push(&mut backlog, [keyframe(120), frame(160)]);
        assert_eq!(backlog.dropped(), 1);
        // Also where there is no room for it.
        backlog.take();
        assert_eq!(pop_all(&mut backlog), [120, 160]);
        backlog.give_back();
        push(
            &mut backlog,
            [frame(200), frame(240), frame(280), frame(320)],
        );
        assert_eq!((backlog.bytes(), backlog.dropped()), (60, 1));
        push(&mut backlog, [frame(360)]);
        assert_eq!((backlog.bytes(), backlog.dropped()), (0, 6));
    }

    #[test]
    fn what_comes_first_has_the_room() {
        let mut backlog = backlog(4);
        backlog.take();
        push(&mut backlog, [keyframe(0), frame(40), frame(80)]);
        assert_eq!(pop_all(&mut backlog), [0, 40, 80]);
        push(&mut backlog, [frame(120), frame(160)]);
        assert_eq!((backlog.bytes(), backlog.dropped()), (20, 0));
        // There was none for all of the group, so its rest is of no use.
        backlog.give_back();
        push(&mut backlog, [frame(200)]);
        assert_eq!((backlog.bytes(), backlog.dropped()), (0, 3));
        // What is taken and larger than all the room is not kept.
        push(&mut backlog, [keyframe(240)]);
        backlog.take();
        for time in 250..260 {
            backlog.pop();
            backlog.push(frame(time));
        }
        backlog.give_back();
        assert_eq!((backlog.bytes(), backlog.dropped()), (0, 4));
    }

    #[test]
    fn what_is_long_ago_is_not_sent_again() {
        let mut backlog = Backlog::new(Limits {
            max_bytes: 0,
            max_time: Duration::from_millis(100),
        });
        for (end, left) in [(100, vec![0, 40, 100]), (101, vec![])] {
            backlog.take();
            push(&mut backlog, [keyframe(0), frame(40), frame(end)]);
            assert_eq!(pop_all(&mut backlog), [0, 40, end]);
            backlog.give_back();
            assert_eq!(pop_all(&mut backlog), left);
        }
    }

    #[test]
    fn another_configuration_and_the_end_make_what_was_taken_useless() {
        let mut backlog = backlog(100);
        backlog.take();
        push(&mut backlog, [keyframe(0), frame(40), header("b")]);
        assert_eq!(pop_all(&mut backlog), [0, 40, 0]);
        backlog.give_back();
        assert!(!backlog.is_at_start());
        backlog.take();
        push(&mut backlog, [keyframe(80), frame(120)]);
        assert_eq!(pop_all(&mut backlog), [80, 120]);
        backlog.end();
        push(&mut backlog, [frame(160), keyframe(200)]);
        assert_eq!(backlog.dropped(), 1);
        backlog.take();
        assert_eq!(pop_all(&mut backlog), [200]);
    }

    #[test]
    fn where_it_is_full_whole_groups_are_dropped_and_configuration_is_not() {
        let mut backlog = backlog(6);
        backlog.push(keyframe(0));
        backlog.take();
        backlog.pop();
        // The group that has begun to be sent stays whole.
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
    fn a_group_that_is_larger_than_the_room_is_left_out() {
        let mut backlog = backlog(3);
        backlog.take();
        push(
            &mut backlog,
            [keyframe(0), frame(40), frame(80), frame(120), frame(160)],
        );
        assert_eq!(backlog.dropped(), 5);
        push(&mut backlog, [keyframe(200), frame(240)]);
        assert_eq!(pop_all(&mut backlog), [200, 240]);
    }

    #[test]
    fn it_is_bounded_in_time_too() {
        let mut backlog = Backlog::new(Limits {
            max_bytes: 0,
            max_time: Duration::from_millis(100),
        });
        backlog.take();
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
    fn metadata_comes_first_whenever_it_came() {
        let mut backlog = backlog(10);
        let metadata = |payload| tag(TagKind::Script, Content::OnMetaData, 0, payload);
        push(&mut backlog, [header("a"), metadata("first"), header("b")]);
        push(&mut backlog, [metadata("second")]);
        let (version, configuration) = backlog.configuration();
        let payloads: Vec<_> = configuration.iter().map(|tag| tag.payload).collect();
        assert_eq!((version, payloads), (4, vec!["second", "b"]));
    }

    #[test]
    fn video_that_begins_later_begins_with_a_keyframe() {
        let mut backlog = backlog(10);
        backlog.take();
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
    fn without_video_audio_can_start_anywhere() {
        let mut backlog = backlog(2);
        push(&mut backlog, [audio(0), audio(20)]);
        assert!(backlog.is_at_start());
        backlog.take();
        push(&mut backlog, [audio(40), audio(60)]);
        assert_eq!(pop_all(&mut backlog), [40, 60]);
    }
}
