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

use std::fmt;
use std::sync::Arc;

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

/// Holds a connection while its thread delivers.
pub(super) struct ReliefSlot<C> {
    id: u64,
    listener: Arc<ListenerState>,
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
    pub(super) fn new(id: u64, listener: Arc<ListenerState>) -> Arc<Self> {
        Arc::new(ReliefSlot {
            id,
            listener,
            connection: Mutex::default(),
        })
    }

    /// Delivers the items of the queue. Returns the connection, unless another thread continues it.
    pub(super) fn deliver(
        self: &Arc<Self>,
        connection: Box<C>,
        stream: &Arc<Stream>,
    ) -> Option<Box<C>> {
        *self.connection.lock() = Some(connection);
        let emptied = EmptiedSlot(self);
        stream.deliver(self.clone());
        emptied.0.take()
    }

    fn take(&self) -> Option<Box<C>> {
        self.connection.lock().take()
    }
}

impl<C: Resume> Relief for ReliefSlot<C> {
    fn relieve(&self) {
        let mut slot = self.connection.lock();
        let Some(connection) = slot.take() else {
            return;
        };
        gst::debug!(
            CAT,
            "Another thread reads for client {} during a push",
            self.id
        );
        let handed = Arc::new(Mutex::new(Some(connection)));
        let taken = handed.clone();
        let continued = self.listener.continue_connection(
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
        }
    }
}

/// Ends a connection whose thread panics in a push: a slot that keeps it would keep itself.
struct EmptiedSlot<'a, C: Resume>(&'a ReliefSlot<C>);

impl<C: Resume> Drop for EmptiedSlot<'_, C> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}
