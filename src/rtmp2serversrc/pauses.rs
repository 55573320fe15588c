// SPDX-License-Identifier: MPL-2.0

//! Pauses of the pipeline, in which the running time stands still and arrivals go on.
//!
//! While the element is paused, the running time that it computes means nothing: it goes on, and goes
//! back when the pipeline plays again. So nothing that depends on it is done then, and media that came
//! meanwhile has the running time of the pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Pauses {
    is_paused: AtomicBool,
    /// Media may wait that came before the end of the last pause.
    is_recent: AtomicBool,
    last: Mutex<Option<Pause>>,
}

/// A pause with its running times in nanoseconds. The second one is that of the start while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    start: (Instant, u64),
    end: (Option<Instant>, u64),
}

impl Pauses {
    /// Begins a run of the element. It has no output before its first end of a pause.
    pub(super) fn reset(&self, now: Instant, running_time: u64) {
        self.is_paused.store(false, Ordering::Release);
        *self.last.lock() = Some(Pause {
            start: (now, running_time),
            end: (None, running_time),
        });
        self.is_recent.store(true, Ordering::Release);
    }

    pub(super) fn start(&self, now: Instant, running_time: u64) {
        self.reset(now, running_time);
        self.is_paused.store(true, Ordering::Release);
    }

    pub(super) fn end(&self, now: Instant, running_time: u64) {
        if let Some(pause) = &mut *self.last.lock() {
            pause.end = (Some(now), running_time);
        }
        self.is_paused.store(false, Ordering::Release);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// Returns the last pause, unless all media from before its end has left the queue.
    #[inline]
    pub(super) fn recent(&self) -> Option<Pause> {
        let is_recent = self.is_recent.load(Ordering::Acquire);
        is_recent.then(|| *self.last.lock()).flatten()
    }

    /// Notes that all media from before the end of this pause has left the queue.
    pub(super) fn forget(&self, pause: Pause) {
        let last = self.last.lock();
        // Another one may have begun.
        if *last == Some(pause) {
            self.is_recent.store(false, Ordering::Release);
        }
    }
}

impl Pause {
    /// Returns the running time of an arrival, if that was before the end of the pause. If the pipeline
    /// was paused, this is its running time of then; if only the element was, time went on. An element
    /// that starts within a pause of the pipeline computes a running time that is too late, and the one
    /// at the end of the pause limits it.
    pub(super) fn running_time_of(&self, arrival: Instant) -> Option<u64> {
        let ((start, before), (end, after)) = (self.start, self.end);
        if end.is_some_and(|end| arrival >= end) {
            return None;
        }
        let early = start.saturating_duration_since(arrival).as_nanos() as u64;
        let late = arrival.saturating_duration_since(start).as_nanos() as u64;
        let running_time = before.saturating_sub(early).saturating_add(late);
        Some(running_time.min(after))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NANOS: u64 = SECOND.as_nanos() as u64;

    #[test]
    fn arrivals_in_a_pause_have_its_running_time() {
        let start = Instant::now() + 10 * SECOND;
        let end = start + 5 * SECOND;
        let pauses = Pauses::default();
        pauses.start(start, 60 * NANOS);
        pauses.end(end, 60 * NANOS);
        let pause = pauses.recent().unwrap();
        assert_eq!(pause.running_time_of(start - SECOND), Some(59 * NANOS));
        assert_eq!(pause.running_time_of(start + SECOND), Some(60 * NANOS));
        assert_eq!(pause.running_time_of(end), None);
    }

    #[test]
    fn time_goes_on_where_only_the_element_pauses() {
        let start = Instant::now();
        let pauses = Pauses::default();
        pauses.start(start, 60 * NANOS);
        pauses.end(start + 5 * SECOND, 65 * NANOS);
        let pause = pauses.recent().unwrap();
        assert_eq!(pause.running_time_of(start + SECOND), Some(61 * NANOS));
    }

    /// The pipeline has been in the pause for four seconds.
    #[test]
    fn an_element_that_starts_within_a_pause_has_its_running_time() {
        let start = Instant::now() + 10 * SECOND;
        let pauses = Pauses::default();
        pauses.reset(start, 64 * NANOS);
        pauses.end(start + 5 * SECOND, 60 * NANOS);
        let pause = pauses.recent().unwrap();
        assert_eq!(pause.running_time_of(start - 5 * SECOND), Some(59 * NANOS));
        assert_eq!(pause.running_time_of(start - SECOND), Some(60 * NANOS));
        assert_eq!(pause.running_time_of(start + SECOND), Some(60 * NANOS));
    }

    #[test]
    fn a_pause_is_forgotten_unless_another_has_begun() {
        let start = Instant::now();
        let pauses = Pauses::default();
        assert_eq!(pauses.recent(), None);
        pauses.start(start, 0);
        pauses.end(start, 0);
        let first = pauses.recent().unwrap();
        pauses.start(start + SECOND, NANOS);
        pauses.forget(first);
        assert!(pauses.is_paused());
        let second = pauses.recent().unwrap();
        pauses.forget(second);
        assert_eq!(pauses.recent(), None);
    }
}
