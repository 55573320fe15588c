// SPDX-License-Identifier: MPL-2.0

//! The waits of the recording thread, which the end of the element limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Time by which all waits end, once the element stops.
    deadline: Mutex<Option<Instant>>,
    changed: Condvar,
    is_waiting: AtomicBool,
}

impl Watch {
    /// Ends all waits by this time.
    pub(super) fn limit(&self, deadline: Instant) {
        *self.deadline.lock() = Some(deadline);
        self.changed.notify_all();
    }

    /// Says that a condition may be true now. Cheap while nothing waits.
    pub(super) fn notify(&self) {
        if self.is_waiting.load(Ordering::SeqCst) {
            let _deadline = self.deadline.lock();
            self.changed.notify_all();
        }
    }

    /// Waits for a condition, which [`Self::notify`] announces. Returns whether it is true.
    pub(super) fn wait_for(&self, until: Option<Instant>, condition: impl Fn() -> bool) -> bool {
        let mut deadline = self.deadline.lock();
        self.is_waiting.store(true, Ordering::SeqCst);
        let is_true = loop {
            if condition() {
                break true;
            }
            let end = match (*deadline, until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            match end {
                Some(end) if Instant::now() >= end => break false,
                Some(end) => {
                    self.changed.wait_until(&mut deadline, end);
                }
                None => self.changed.wait(&mut deadline),
            }
        };
        self.is_waiting.store(false, Ordering::SeqCst);
        is_true
    }
}
