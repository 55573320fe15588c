// SPDX-License-Identifier: MPL-2.0

//! What an element is told of its publishers, and in which order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::server::callback_thread;
use crate::server::log::CAT;
use crate::server::port::listener::join;
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};

/// What has happened.
#[derive(Debug, Clone)]
pub enum PublisherEvent {
    Added(Arc<Publisher>),
    Removed(Arc<Publisher>, RemovalReason),
    Rejected(Arc<Publisher>, RejectReason),
    /// Of the stream with this number there is something to come out.
    Flowing(u32),
    /// Nothing of the stream with this number is to come any more: what an element has for it alone
    /// can go.
    Finished(u32),
}

/// Whoever wants to know. Never called under a lock, so it may take its time.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Decides whether a client may publish. Called on the client's own thread, and holds up that
    /// client.
    fn may_publish(&self, publisher: &Publisher) -> bool;

    /// One at a time, in the order in which things happened. Called on a thread for that, and holds
    /// up nobody.
    fn notify(&self, notice: &PublisherEvent);
}

/// More than this are not kept for an observer of one stream that does not keep up.
pub(crate) const MAX_WAITING: usize = 256;

/// How long the end of an element waits for the observer to have heard of all.
const MAX_FLUSH: Duration = Duration::from_secs(2);

/// Brings notices from many threads into one order, and delivers them on a thread that is there as
/// long as there are any.
#[derive(Debug)]
pub(crate) struct EventDispatcher {
    observer: Arc<dyn Observer>,
    /// More are not kept for an observer that does not keep up.
    max_waiting: AtomicUsize,
    state: Mutex<DispatcherState>,
    delivered: Condvar,
}

#[derive(Debug, Default)]
struct DispatcherState {
    waiting: VecDeque<PublisherEvent>,
    /// Of those that wait. Refusals can be had for nothing.
    refusals: usize,
    delivering: bool,
    /// The one that delivers, or the last one that did.
    thread: Option<JoinHandle<()>>,
}

impl EventDispatcher {
    pub(crate) fn new(observer: Arc<dyn Observer>, max_waiting: usize) -> Self {
        EventDispatcher {
            observer,
            max_waiting: AtomicUsize::new(max_waiting),
            state: Mutex::default(),
            delivered: Condvar::new(),
        }
    }

    pub(crate) fn set_max_waiting(&self, max_waiting: usize) {
        self.max_waiting.store(max_waiting, Ordering::Relaxed);
    }

    /// Call it under the lock that makes the order: it does not wait for anything.
    pub(crate) fn post(self: &Arc<Self>, notice: PublisherEvent) {
        let mut state = self.state.lock();
        if matches!(notice, PublisherEvent::Rejected(..)) {
            if state.refusals >= MAX_WAITING {
                return;
            }
            state.refusals += 1;
        }
        state.waiting.push_back(notice);
        if !std::mem::replace(&mut state.delivering, true) {
            let notices = self.clone();
            let previous = state.thread.take();
            let spawned = thread::Builder::new()
                .name("rtmp-notices".into())
                .spawn(move || {
                    // It is past its last notice.
                    previous.into_iter().for_each(join);
                    notices.deliver();
                });
            match spawned {
                Ok(thread) => state.thread = Some(thread),
                Err(error) => {
                    // The next one tries again.
                    state.delivering = false;
                    gst::warning!(CAT, "Could not start a thread for signals: {error}");
                }
            }
        }
    }

    /// Whether so many publishers have come and gone unheard that there should be no more.
    pub(crate) fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.waiting.len() - state.refusals >= self.max_waiting.load(Ordering::Relaxed)
    }

    /// Waits until all is delivered, if that does not take too long: a handler may wait for the
    /// caller.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + MAX_FLUSH;
        let mut state = self.state.lock();
        while state.delivering {
            if self.delivered.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
        let thread = state.thread.take();
        drop(state);
        thread.into_iter().for_each(join);
    }

    fn deliver(&self) {
        callback_thread::enter();
        let mut state = self.state.lock();
        while let Some(notice) = state.waiting.pop_front() {
            state.refusals -= usize::from(matches!(notice, PublisherEvent::Rejected(..)));
            drop(state);
            self.observer.notify(&notice);
            state = self.state.lock();
        }
        state.delivering = false;
        self.delivered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(client: u64) -> Arc<Publisher> {
        Arc::new(Publisher::example(client))
    }

    /// Posts another notice from within each, as a handler that disconnects does.
    #[derive(Debug, Default)]
    struct Chain {
        notices: Mutex<Option<Arc<EventDispatcher>>>,
        seen: Mutex<Vec<u64>>,
    }

    impl Observer for Chain {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, notice: &PublisherEvent) {
            let PublisherEvent::Added(publisher) = notice else {
                return;
            };
            if publisher.client < 5 {
                let next = PublisherEvent::Added(self::publisher(publisher.client + 1));
                let notices = self.notices.lock().clone();
                notices.unwrap().post(next);
            }
            self.seen.lock().push(publisher.client);
        }
    }

    #[test]
    fn notices_come_one_at_a_time_and_in_order() {
        let chain = Arc::new(Chain::default());
        let notices = Arc::new(EventDispatcher::new(chain.clone(), MAX_WAITING));
        *chain.notices.lock() = Some(notices.clone());
        notices.post(PublisherEvent::Added(publisher(1)));
        notices.flush();
        assert_eq!(*chain.seen.lock(), [1, 2, 3, 4, 5]);
        *chain.notices.lock() = None;
    }

    #[test]
    fn refusals_neither_pile_up_nor_keep_publishers_out() {
        let notices = Arc::new(EventDispatcher::new(
            Arc::new(Chain::default()),
            MAX_WAITING,
        ));
        // As if somebody were busy delivering.
        notices.state.lock().delivering = true;
        for _ in 0..2 * MAX_WAITING {
            notices.post(PublisherEvent::Rejected(publisher(1), RejectReason::Busy));
        }
        assert_eq!(notices.state.lock().waiting.len(), MAX_WAITING);
        assert!(!notices.is_full());
        for _ in 0..MAX_WAITING {
            notices.post(PublisherEvent::Removed(publisher(1), RemovalReason::Closed));
        }
        assert!(notices.is_full());
    }
}
