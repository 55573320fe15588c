// SPDX-License-Identifier: MPL-2.0

//! Delivery by the connection's own thread, and what happens when that blocks: the connection continues
//! on another thread, and this one ends after its push.
//!
//! ```text
//!   own thread:    deliver: the connection is in the slot ---- push blocks ---- returns: slot is empty,
//!                                 |                                             the thread ends
//!   timer:                        +-- relieve()
//!                                        |
//!   new thread:                          +---> reads, fills the queue ...
//! ```

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io};

use parking_lot::Mutex;

use crate::server::callback_thread;
use crate::server::log::CAT;
use crate::server::port::state::ListenerState;
use crate::server::stream::Stream;
use crate::server::stream::direct_delivery::Relief;

/// A connection that can move to another thread.
pub(super) trait Resume: Send + 'static {
    /// Continues on the current thread, until the end.
    fn resume(self: Box<Self>);
}

/// Starts the threads on which connections continue.
pub(super) trait Successors: Send + Sync {
    fn start(&self, client: u64, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

impl Successors for ListenerState {
    fn start(&self, client: u64, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.continue_connection(client, body)
    }
}

/// Holds a connection while its thread delivers.
pub(super) struct ReliefSlot<C> {
    id: u64,
    successors: Arc<dyn Successors>,
    connection: Mutex<Option<Box<C>>>,
}

impl<C> fmt::Debug for ReliefSlot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReliefSlot")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<C: Resume> ReliefSlot<C> {
    pub(super) fn new(id: u64, successors: Arc<dyn Successors>) -> Arc<Self> {
        Arc::new(ReliefSlot {
            id,
            successors,
            connection: Mutex::default(),
        })
    }

    /// Delivers the items of the queue. Returns the connection and the time of the end, unless another
    /// thread continues it.
    pub(super) fn deliver(
        self: &Arc<Self>,
        connection: Box<C>,
        stream: &Arc<Stream>,
    ) -> Option<(Box<C>, Instant)> {
        let mut ended = None;
        let connection = self.hold(connection, || ended = Some(stream.deliver(self.clone())));
        Some((connection?, ended?))
    }

    /// Holds the connection during a push. Returns it, unless another thread continues it.
    fn hold(&self, connection: Box<C>, push: impl FnOnce()) -> Option<Box<C>> {
        *self.connection.lock() = Some(connection);
        let emptied = EmptiedSlot(self);
        push();
        emptied.0.take()
    }

    fn take(&self) -> Option<Box<C>> {
        self.connection.lock().take()
    }
}

impl<C: Resume> Relief for ReliefSlot<C> {
    fn relieve(&self) -> bool {
        let mut slot = self.connection.lock();
        let Some(connection) = slot.take() else {
            // The push has returned.
            return true;
        };
        gst::debug!(
            CAT,
            "Another thread reads for client {} during a push",
            self.id
        );
        let handed = Arc::new(Mutex::new(Some(connection)));
        let taken = handed.clone();
        let continued = self.successors.start(
            self.id,
            Box::new(move || {
                callback_thread::enter();
                let connection = taken.lock().take();
                if let Some(connection) = connection {
                    connection.resume();
                }
            }),
        );
        if let Err(error) = continued {
            gst::warning!(
                CAT,
                "Could not start a thread to read during a push: {error}"
            );
            // The own thread continues after its push.
            *slot = handed.lock().take();
            return false;
        }
        true
    }
}

/// Ends a connection whose thread panics in a push: a slot that keeps it would keep itself.
struct EmptiedSlot<'a, C: Resume>(&'a ReliefSlot<C>);

impl<C: Resume> Drop for EmptiedSlot<'_, C> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Reports the thread that continues it, and its end.
    struct Connection(mpsc::Sender<&'static str>);

    impl Resume for Connection {
        fn resume(self: Box<Self>) {
            self.0.send("resumed").unwrap();
        }
    }

    impl Drop for Connection {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }

    struct Spawning;

    impl Successors for Spawning {
        fn start(&self, _client: u64, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            thread::Builder::new().spawn(body).map(drop)
        }
    }

    struct WithoutThreads;

    impl Successors for WithoutThreads {
        fn start(&self, _client: u64, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            drop(body);
            Err(io::Error::other("no threads"))
        }
    }

    type Slot = Arc<ReliefSlot<Connection>>;

    fn slot(
        successors: impl Successors + 'static,
    ) -> (Slot, Box<Connection>, mpsc::Receiver<&'static str>) {
        let (sender, events) = mpsc::channel();
        let slot = ReliefSlot::new(1, Arc::new(successors));
        (slot, Box::new(Connection(sender)), events)
    }

    #[test]
    fn push_that_returns_keeps_the_connection() {
        let (slot, connection, events) = slot(Spawning);
        let connection = slot.hold(connection, || {});
        assert!(connection.is_some());
        assert!(slot.relieve(), "there is nothing to relieve");
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn relieved_connection_continues_once_on_another_thread() {
        let (slot, connection, events) = slot(Spawning);
        let kept = slot.hold(connection, || {
            assert!(slot.relieve());
            assert_eq!(events.recv(), Ok("resumed"));
            assert_eq!(events.recv(), Ok("dropped"));
            assert!(slot.relieve());
        });
        assert!(kept.is_none());
        assert!(events.recv().is_err(), "it is gone");
    }

    #[test]
    fn connection_without_a_successor_stays_on_its_own_thread() {
        let (slot, connection, events) = slot(WithoutThreads);
        let kept = slot.hold(connection, || {
            assert!(!slot.relieve());
            assert!(!slot.relieve(), "it is tried again");
        });
        assert!(kept.is_some());
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn push_that_returns_during_the_relief_loses_no_connection() {
        for _ in 0..300 {
            let (slot, connection, events) = slot(Spawning);
            let kept = thread::scope(|scope| {
                slot.hold(connection, || {
                    scope.spawn(|| slot.relieve());
                    thread::yield_now();
                })
            });
            match kept {
                Some(connection) => {
                    assert!(events.try_recv().is_err());
                    drop(connection);
                }
                None => assert_eq!(events.recv(), Ok("resumed")),
            }
            assert_eq!(events.recv(), Ok("dropped"));
        }
    }
}
