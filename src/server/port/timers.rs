// SPDX-License-Identifier: MPL-2.0

//! Callbacks at a time, run by the accept thread of a listener.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::server::threads::{Callback, TimerId, TimerService};

/// Wakes the accept thread. Unlike a pipe an eventfd has one end, so that nobody writes to a closed
/// one.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Wake(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(crate) fn set(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Timers of the streams and connections of a listener.
pub(crate) struct Timers {
    entries: Mutex<Entries>,
    wake: Wake,
}

#[derive(Default)]
struct Entries {
    deadlines: HashMap<TimerId, (Instant, u64)>,
    /// By deadline, and by order of setting where deadlines are equal.
    callbacks: BTreeMap<(Instant, u64), (TimerId, Callback)>,
    next: u64,
}

impl Entries {
    fn remove(&mut self, id: TimerId) {
        if let Some(key) = self.deadlines.remove(&id) {
            self.callbacks.remove(&key);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let first = self.callbacks.first_key_value();
        first.map(|((deadline, _), _)| *deadline)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Callback> {
        let first = self.callbacks.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let (id, callback) = first.remove();
        self.deadlines.remove(&id);
        Some(callback)
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.entries.lock().callbacks.len();
        f.debug_struct("Timers").field("count", &count).finish()
    }
}

impl Timers {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Timers {
            entries: Mutex::default(),
            wake: Wake::new()?,
        })
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Runs the callbacks that are due, and returns when to call this again. A callback may set
    /// timers.
    pub(crate) fn run_due(&self) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let mut entries = self.entries.lock();
            let Some(callback) = entries.pop_due(now) else {
                return entries.next_deadline();
            };
            drop(entries);
            callback(now);
        }
    }
}

impl TimerService for Timers {
    fn set(&self, id: TimerId, deadline: Instant, callback: Callback) {
        let mut entries = self.entries.lock();
        entries.remove(id);
        let key = (deadline, entries.next);
        entries.next += 1;
        entries.deadlines.insert(id, key);
        entries.callbacks.insert(key, (id, callback));
        let is_first = entries.next_deadline() == Some(deadline);
        drop(entries);
        if is_first {
            self.wake.set();
        }
    }

    fn clear(&self, id: TimerId) {
        self.entries.lock().remove(id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_callbacks_run_in_order_and_once() {
        let timers = Arc::new(Timers::new().unwrap());
        let (sender, receiver) = mpsc::channel();
        let ids = [(); 4].map(|()| TimerId::new());
        let past = Instant::now();
        let set = |index: usize, deadline| {
            let sender = sender.clone();
            let callback = Box::new(move |_| sender.send(index).unwrap());
            timers.set(ids[index], deadline, callback);
        };
        let later = past + Duration::from_secs(3600);
        set(1, past);
        set(0, later);
        set(2, past);
        set(3, past);
        timers.clear(ids[2]);
        assert_eq!(timers.run_due(), Some(later));
        // Setting a timer again moves it.
        set(0, past);
        assert_eq!(timers.run_due(), None);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 3, 0]);
    }

    #[test]
    fn a_callback_may_set_its_own_timer() {
        let timers = Arc::new(Timers::new().unwrap());
        let id = TimerId::new();
        let again = timers.clone();
        let later = Instant::now() + Duration::from_secs(3600);
        let callback = move |_| again.set(id, later, Box::new(|_| {}));
        timers.set(id, Instant::now(), Box::new(callback));
        assert_eq!(timers.run_due(), Some(later));
        timers.clear(id);
        assert_eq!(timers.run_due(), None);
    }
}
