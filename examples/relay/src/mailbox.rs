// SPDX-License-Identifier: MPL-2.0

//! The queue between a publisher and the thread of its stream.
//!
//! The publisher's side never waits: a stream that does not keep up loses whole groups of pictures,
//! and other streams lose nothing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Limits of the queue, in nanoseconds and bytes.
const MAX_TIME: i64 = 20_000_000_000;
const MAX_BYTES: usize = 32 << 20;

/// Nanoseconds of queued media that count as pressure. A publisher that held media back during an
/// outage and sends it at once stays below.
const PRESSURE: i64 = 12_000_000_000;

/// An FLV tag as it arrived.
#[derive(Debug, Clone)]
pub struct QueuedTag {
    pub buffer: gst::Buffer,
    /// The caps, with the stream header.
    pub caps: gst::Caps,
    /// Running time of decoding, in nanoseconds.
    pub time: i64,
    pub epoch: u64,
    /// Decoding can start here.
    pub is_start: bool,
}

/// The result of a run that ended by itself.
pub type RunOutcome = Result<(), String>;

#[derive(Debug)]
pub enum Next {
    Tag(QueuedTag),
    Outcome(RunOutcome),
    /// There are no more tags.
    End,
}

#[derive(Debug, Default)]
struct MailboxState {
    tags: VecDeque<QueuedTag>,
    bytes: usize,
    has_ended: bool,
    outcome: Option<RunOutcome>,
    /// Drops tags until decoding can start again.
    drops_until_start: bool,
}

impl MailboxState {
    fn time(&self) -> i64 {
        let first = self.tags.front().map_or(0, |tag| tag.time);
        self.tags.back().map_or(0, |tag| tag.time - first)
    }
}

/// The result of queueing a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushResult {
    Queued,
    /// The first tag that did not fit.
    Full,
    Dropped,
}

#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<MailboxState>,
    changed: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, tag: QueuedTag) -> PushResult {
        let mut state = self.lock();
        if state.has_ended {
            return PushResult::Dropped;
        }
        let size = tag.buffer.size();
        if state.drops_until_start {
            let has_room = state.bytes <= MAX_BYTES / 2 && state.time() <= MAX_TIME / 2;
            if !(tag.is_start && has_room) {
                return PushResult::Dropped;
            }
            state.drops_until_start = false;
        } else if state.bytes + size > MAX_BYTES || state.time() > MAX_TIME {
            state.drops_until_start = true;
            return PushResult::Full;
        }
        state.bytes += size;
        state.tags.push_back(tag);
        self.changed.notify_all();
        PushResult::Queued
    }

    /// Ends the stream: its publisher is gone, another one has this stream, or the program ends.
    pub fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Wakes the waiting thread: a condition that it waits for has changed.
    pub fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Reports that a run has ended or failed.
    pub fn set_outcome(&self, outcome: RunOutcome) {
        self.lock().outcome.get_or_insert(outcome);
        self.changed.notify_all();
    }

    /// Forgets the outcome before another run.
    pub fn clear_outcome(&self) {
        self.lock().outcome = None;
    }

    /// Returns whether enough media is queued to act on it.
    pub fn has_pressure(&self) -> bool {
        let state = self.lock();
        state.drops_until_start || state.time() > PRESSURE || state.bytes > MAX_BYTES / 2
    }

    /// Waits for the next input. Returns tags only when there is room for them: `is_full` is called
    /// at each wake-up.
    pub fn next(&self, is_full: impl Fn() -> bool) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Next::Outcome(outcome);
            }
            if !state.tags.is_empty() && !is_full() {
                if let Some(tag) = state.tags.pop_front() {
                    state.bytes -= tag.buffer.size();
                    return Next::Tag(tag);
                }
            } else if state.tags.is_empty() && state.has_ended {
                return Next::End;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops all tags during a pause. Returns whether the stream ended meanwhile.
    pub fn refuse(&self, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            state.tags.clear();
            state.bytes = 0;
            // Not for lack of room.
            state.drops_until_start = false;
            if state.has_ended {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns `None` after the timeout.
    pub fn wait_for_outcome(&self, timeout: Duration) -> Option<RunOutcome> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return Some(outcome);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn tag(time: i64, length: usize, is_start: bool) -> QueuedTag {
        gst::init().unwrap();
        QueuedTag {
            buffer: gst::Buffer::from_slice(vec![0; length]),
            caps: gst::Caps::new_empty_simple("video/x-flv"),
            time,
            epoch: 1,
            is_start,
        }
    }

    fn times(mailbox: &Mailbox) -> Vec<i64> {
        let next = || match mailbox.next(|| false) {
            Next::Tag(tag) => Some(tag.time / SECOND),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn tags_that_do_not_fit_are_dropped_up_to_a_keyframe() {
        let mailbox = Mailbox::default();
        let results: Vec<_> = (0..40)
            .map(|second| mailbox.push(tag(second * SECOND, 10, second % 5 == 0)))
            .collect();
        // The limit always holds, and it is reported once.
        assert_eq!(
            results
                .iter()
                .filter(|result| **result == PushResult::Full)
                .count(),
            1
        );
        assert!(mailbox.has_pressure());
        let first: Vec<_> = (0..22)
            .map(|_| match mailbox.next(|| false) {
                Next::Tag(tag) => tag.time / SECOND,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(first, (0..22).collect::<Vec<_>>());
        assert_eq!(
            mailbox.push(tag(41 * SECOND, 10, false)),
            PushResult::Dropped
        );
        assert_eq!(mailbox.push(tag(45 * SECOND, 10, true)), PushResult::Queued);
        assert_eq!(
            mailbox.push(tag(46 * SECOND, 10, false)),
            PushResult::Queued
        );
        assert!(!mailbox.has_pressure());
        mailbox.end();
        assert_eq!(times(&mailbox), [45, 46]);
    }

    #[test]
    fn queued_bytes_are_bounded_too() {
        let mailbox = Mailbox::default();
        let results = (0..40).map(|_| mailbox.push(tag(0, 1 << 20, true)));
        assert_eq!(
            results
                .filter(|result| *result == PushResult::Queued)
                .count(),
            32
        );
    }

    #[test]
    fn the_end_comes_after_the_tags_and_an_outcome_before_them() {
        let mailbox = Mailbox::default();
        mailbox.push(tag(0, 1, true));
        mailbox.end();
        assert_eq!(mailbox.push(tag(1, 1, true)), PushResult::Dropped);
        mailbox.set_outcome(Err("broken".into()));
        assert!(matches!(mailbox.next(|| true), Next::Outcome(Err(_))));
        assert!(matches!(mailbox.next(|| false), Next::Tag(_)));
        assert!(matches!(mailbox.next(|| true), Next::End));
        assert_eq!(mailbox.wait_for_outcome(Duration::ZERO), None);
    }
    #[test]
    fn tags_during_a_pause_are_dropped() {
        let mailbox = Mailbox::default();
        (0..40).for_each(|second| {
            mailbox.push(tag(second * SECOND, 10, true));
        });
        assert!(!mailbox.refuse(Duration::ZERO));
        assert!(!mailbox.has_pressure());
        assert_eq!(mailbox.push(tag(50 * SECOND, 10, true)), PushResult::Queued);
        mailbox.end();
        assert!(mailbox.refuse(Duration::from_secs(600)));
        assert!(matches!(mailbox.next(|| false), Next::End));
    }
}
