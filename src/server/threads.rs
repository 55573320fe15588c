// SPDX-License-Identifier: MPL-2.0

//! Threads of the server, and callbacks at a time.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::server::log::CAT;

/// Waits for the end of a thread. Call it without any lock: the thread may need one to end.
pub(crate) fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        gst::error!(CAT, "A thread has panicked");
    }
}

/// Called on the thread of a timer service. It must not wait for anything.
pub(crate) type Callback = Box<dyn FnOnce(Instant) + Send>;

/// Identity of a timer in the process. Setting a timer again replaces its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TimerId(u64);

impl TimerId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TimerId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Runs callbacks at their time.
pub(crate) trait TimerService: Debug + Send + Sync {
    /// Sets or replaces a timer.
    fn set(&self, id: TimerId, deadline: Instant, callback: Callback);

    fn clear(&self, id: TimerId);
}
