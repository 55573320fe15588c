// SPDX-License-Identifier: MPL-2.0

//! Permits to post messages, so that few streams post at the same time.
//!
//! GStreamer's bus lets a writer spin until all writers before it are done. Where one of them is preempted,
//! each thread that posts after it spins for its whole share of a core. When a thousand streams in one
//! pipeline started together on two cores, that took minutes. Threads that wait for a permit sleep.
//!
//! A handler of an application may keep a permit while it waits for another thread that posts. When no permit
//! has come back for a while, there is one more of them. One, and not one for each who waits: the thread that
//! posts may also be a slow one, and those who wait would spin together.

use std::cell::Cell;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Time without a returned permit after which those who have one are taken to be within handlers.
const PATIENCE: Duration = Duration::from_millis(20);

thread_local! {
    /// A bin posts within the call of its child, which has the permit.
    static IS_POSTING: Cell<bool> = const { Cell::new(false) };
}

/// Posts a message of an element by the method of its parent class, with a permit of the process.
///
/// A change of state is said by the thread that changes it, which waits for nobody.
pub(crate) fn post(message: gst::Message, parent: impl FnOnce(gst::Message) -> bool) -> bool {
    static PERMITS: LazyLock<PostPermits> =
        LazyLock::new(|| PostPermits::new(thread::available_parallelism().map_or(2, usize::from)));
    if message.type_() == gst::MessageType::StateChanged || IS_POSTING.get() {
        return parent(message);
    }
    let _permit = PERMITS.acquire(PATIENCE);
    IS_POSTING.set(true);
    let posted = parent(message);
    IS_POSTING.set(false);
    posted
}

#[derive(Debug)]
struct PostPermits {
    state: Mutex<PermitState>,
    returned: Condvar,
}

/// Returned when it is dropped.
#[derive(Debug)]
struct PostPermit<'a>(&'a PostPermits);

impl PostPermits {
    fn new(usual: usize) -> Self {
        PostPermits {
            state: Mutex::new(PermitState::new(usual)),
            returned: Condvar::new(),
        }
    }

    fn acquire(&self, patience: Duration) -> PostPermit<'_> {
        let mut state = self.state.lock();
        while !state.take() {
            let changes = state.changes;
            if self.returned.wait_for(&mut state, patience).timed_out() {
                state.add_after_stall(changes);
            }
        }
        PostPermit(self)
    }
}

impl Drop for PostPermit<'_> {
    fn drop(&mut self) {
        self.0.state.lock().give_back();
        self.0.returned.notify_one();
    }
}

#[derive(Debug)]
struct PermitState {
    taken: usize,
    usual: usize,
    /// The usual number, and those that were added.
    existing: usize,
    /// Number of permits that were returned and added, since the start.
    changes: u64,
}

impl PermitState {
    fn new(usual: usize) -> Self {
        PermitState {
            taken: 0,
            usual,
            existing: usual,
            changes: 0,
        }
    }

    /// Returns whether there was one.
    fn take(&mut self) -> bool {
        let is_free = self.taken < self.existing;
        self.taken += usize::from(is_free);
        is_free
    }

    fn give_back(&mut self) {
        self.taken -= 1;
        self.changes += 1;
        // Those who kept the usual ones are back.
        if self.taken < self.usual {
            self.existing = self.usual;
        }
    }

    /// Adds a permit if nothing has changed since someone began to wait, who read `changes` then.
    fn add_after_stall(&mut self, changes: u64) {
        if self.changes == changes {
            self.existing += 1;
            self.changes += 1;
        }
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
        let (present, most) = <(AtomicUsize, AtomicUsize)>::default();
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let permit = permits.acquire(LONG);
                        let now = present.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        present.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(permits.state.into_inner().taken, 0);
    }

    /// A handler that never returns keeps its permit.
    #[test]
    fn who_sees_no_progress_gets_an_added_permit() {
        let permits = PostPermits::new(1);
        let _kept = permits.acquire(LONG);
        for _ in 0..100 {
            drop(permits.acquire(Duration::from_millis(1)));
        }
    }

    #[test]
    fn who_waits_gets_the_permit_that_is_returned() {
        let permits = PostPermits::new(1);
        let kept = permits.acquire(LONG);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(permits.acquire(LONG)));
            drop(kept);
            waiting.join().unwrap();
        });
    }

    /// A thousand wait from the same moment on, so that their patience ends together.
    #[test]
    fn a_stall_adds_one_permit_for_all_who_wait() {
        let mut state = PermitState::new(2);
        assert!(state.take() && state.take());
        let changes = state.changes;
        let passed = (0..1000)
            .filter(|_| {
                state.add_after_stall(changes);
                state.take()
            })
            .count();
        assert_eq!(passed, 1);
        // It serves all others in turn.
        for _ in 0..999 {
            state.give_back();
            assert!(state.take() && !state.take());
        }
        // Once more, since all three are within handlers now.
        state.add_after_stall(state.changes);
        assert!(state.take() && !state.take());
    }

    #[test]
    fn added_permits_are_gone_once_the_usual_ones_are_back() {
        let mut state = PermitState::new(2);
        for _ in 0..5 {
            while state.take() {}
            state.add_after_stall(state.changes);
        }
        assert_eq!((state.taken, state.existing), (6, 7));
        let left: Vec<usize> = (0..6)
            .map(|_| {
                state.give_back();
                state.existing
            })
            .collect();
        assert_eq!(left, [7, 7, 7, 7, 2, 2]);
    }
}
