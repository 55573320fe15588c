// SPDX-License-Identifier: MPL-2.0

//! Threads of the server, and callbacks at a time.

use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::server::log::CAT;

/// A thread to start.
pub(crate) struct NewThread {
    pub(crate) name: String,
    /// Bytes of its stack. None for the system's default.
    pub(crate) stack_size: Option<usize>,
    pub(crate) body: Box<dyn FnOnce() + Send>,
}

/// Elements downstream of a publisher run on its connection's thread, and signal handlers of the
/// application too: as large as the stack of GStreamer's own threads, and touched only as far as it is
/// used.
const CONNECTION_STACK: usize = 8 * 1024 * 1024;

impl NewThread {
    /// Returns the thread of a connection.
    pub(crate) fn connection(body: Box<dyn FnOnce() + Send>) -> Self {
        NewThread {
            name: "rtmp-client".into(),
            stack_size: Some(CONNECTION_STACK),
            body,
        }
    }
}

/// Starts a thread, or fails where the system has none left. [`spawn`], except in tests of that.
pub(crate) type SpawnThread = fn(NewThread) -> io::Result<JoinHandle<()>>;

pub(crate) fn spawn(new: NewThread) -> io::Result<JoinHandle<()>> {
    let mut builder = thread::Builder::new().name(new.name);
    if let Some(size) = new.stack_size {
        builder = builder.stack_size(size);
    }
    builder.spawn(new.body)
}

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
