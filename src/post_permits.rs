// SPDX-License-Identifier: MPL-2.0

//! Permits to post messages, so that few streams post at the same time.
//!
//! GStreamer's bus lets a writer spin until all writers before it are done. Where one of them is preempted,
//! each thread that posts after it spins for its whole share of a core. When a thousand streams in one
//! pipeline started together on two cores, that took minutes. Threads that wait for a permit sleep.
//!
//! A permit is a courtesy, and not a lock: who sees no progress goes on without one, since an
//! application's handler of messages may wait for another thread that posts.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Time without a returned permit after which those who have one are within handlers.
const PATIENCE: Duration = Duration::from_millis(20);

/// Returns a permit of the process, or None after a wait without progress.
pub(crate) fn acquire() -> Option<PostPermit<'static>> {
    static PERMITS: LazyLock<PostPermits> =
        LazyLock::new(|| PostPermits::new(thread::available_parallelism().map_or(2, usize::from)));
    PERMITS.acquire(PATIENCE)
}

#[derive(Debug)]
struct PostPermits {
    state: Mutex<PermitState>,
    returned: Condvar,
}

#[derive(Debug)]
struct PermitState {
    free: usize,
    /// Number of permits that were returned, since the start.
    returns: u64,
}

/// Returned when it is dropped.
#[derive(Debug)]
pub(crate) struct PostPermit<'a>(&'a PostPermits);

impl PostPermits {
    fn new(count: usize) -> Self {
        let state = PermitState {
            free: count,
            returns: 0,
        };
        PostPermits {
            state: Mutex::new(state),
            returned: Condvar::new(),
        }
    }

    fn acquire(&self, patience: Duration) -> Option<PostPermit<'_>> {
        let mut state = self.state.lock();
        while state.free == 0 {
            let returns = state.returns;
            let waited = self.returned.wait_for(&mut state, patience);
            if waited.timed_out() && state.returns == returns {
                return None;
            }
        }
        state.free -= 1;
        Some(PostPermit(self))
    }
}

impl Drop for PostPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.free += 1;
        state.returns += 1;
        drop(state);
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Much longer than any test may take.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn few_have_a_permit_at_a_time_and_all_get_one() {
        let permits = PostPermits::new(3);
        let (present, most, all) = <(AtomicUsize, AtomicUsize, AtomicUsize)>::default();
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let permit = permits.acquire(LONG);
                        let now = present.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        all.fetch_add(usize::from(permit.is_some()), Ordering::SeqCst);
                        thread::yield_now();
                        present.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(all.into_inner(), 40 * 50);
        assert_eq!(permits.state.into_inner().free, 3);
    }

    /// A handler that never returns keeps its permit.
    #[test]
    fn who_sees_no_progress_goes_on_without_a_permit() {
        let permits = PostPermits::new(1);
        let kept = permits.acquire(LONG);
        assert!(kept.is_some());
        assert!(permits.acquire(Duration::from_millis(1)).is_none());
        drop(kept);
        assert!(permits.acquire(LONG).is_some());
    }

    #[test]
    fn who_waits_gets_the_permit_that_is_returned() {
        let permits = PostPermits::new(1);
        let kept = permits.acquire(LONG);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| permits.acquire(LONG).is_some());
            drop(kept);
            assert!(waiting.join().unwrap());
        });
    }
}
