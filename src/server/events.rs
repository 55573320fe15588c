// SPDX-License-Identifier: MPL-2.0

//! Events about publishers, and their way to the application in one order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::server::callback_thread;
use crate::server::log::CAT;
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};
use crate::server::threads::{self, NewThread, SpawnThread, TimerId, TimerService, join};

/// An event of a publisher or of its stream.
#[derive(Debug, Clone)]
pub(crate) enum PublisherEvent {
    Added(Arc<Publisher>),
    Removed(Arc<Publisher>, RemovalReason),
    Rejected(Arc<Publisher>, RejectReason),
    /// A client that did not publish was closed, for a reason without a secret.
    Failed(SocketAddr, String),
    /// A client has closed its connection after it was asked for a password. Most connect again with
    /// the answer.
    LeftAtPrompt(SocketAddr),
    /// The stream with this number has its first media.
    Flowing(u32),
    /// Nothing more leaves the stream with this number: its pad and its source may go.
    Finished(u32),
}

impl PublisherEvent {
    /// Returns true where a client causes it at no cost.
    fn is_free(&self) -> bool {
        use PublisherEvent::{Failed, LeftAtPrompt, Rejected};
        matches!(self, Rejected(..) | Failed(..) | LeftAtPrompt(_))
    }
}

/// Receiver of events. It is never called under a lock, so it may take its time.
pub(crate) trait Observer: std::fmt::Debug + Send + Sync {
    /// Decides whether a client may publish. Called on the client's own thread, and delays only
    /// that client.
    fn may_publish(&self, publisher: &Publisher) -> bool;

    /// Handles events one at a time, in the order in which they happened. Called on a thread of its
    /// own, and delays no client. Where the system has no thread left, the thread that stops the element
    /// calls it.
    fn notify(&self, event: &PublisherEvent);
}

/// Number of events that may wait for the observer of one stream.
pub(crate) const MAX_WAITING: usize = 256;

/// Time for which the end of an element waits until the observer has handled all events.
const MAX_FLUSH: Duration = Duration::from_secs(2);

/// Pause before another attempt to start the thread, where the system has none left.
const SPAWN_PAUSE: Duration = Duration::from_millis(100);

/// Brings events from many threads into one order, and delivers them on a thread that exists as
/// long as there are any.
#[derive(Debug)]
pub(crate) struct EventDispatcher {
    observer: Arc<dyn Observer>,
    max_waiting: AtomicUsize,
    state: Mutex<DispatcherState>,
    delivered: Condvar,
    timers: OnceLock<Arc<dyn TimerService>>,
    retry: TimerId,
    spawn: SpawnThread,
}

#[derive(Debug, Default)]
struct DispatcherState {
    waiting: VecDeque<PublisherEvent>,
    /// Number of rejections among them. Clients cause them at no cost.
    rejections: usize,
    delivering: bool,
    /// The present delivery thread, or the last one.
    thread: Option<JoinHandle<()>>,
    /// The thread before it, which is past its last event.
    previous: Option<JoinHandle<()>>,
}

impl EventDispatcher {
    pub(crate) fn new(observer: Arc<dyn Observer>, max_waiting: usize) -> Self {
        EventDispatcher {
            observer,
            max_waiting: AtomicUsize::new(max_waiting),
            state: Mutex::default(),
            delivered: Condvar::new(),
            timers: OnceLock::new(),
            retry: TimerId::new(),
            spawn: threads::spawn,
        }
    }

    /// Sets where to wait for threads when the system has none.
    pub(crate) fn set_timers(&self, timers: Arc<dyn TimerService>) {
        let _ = self.timers.set(timers);
    }

    #[cfg(test)]
    pub(crate) fn goes_by(&self, timers: &Arc<dyn TimerService>) -> bool {
        let own = self.timers.get();
        own.is_some_and(|own| Arc::ptr_eq(own, timers))
    }

    pub(crate) fn set_max_waiting(&self, max_waiting: usize) {
        self.max_waiting.store(max_waiting, Ordering::Relaxed);
    }

    /// Queues an event. Call it under the lock that makes the order: it does not wait.
    pub(crate) fn post(self: &Arc<Self>, event: PublisherEvent) {
        let mut state = self.state.lock();
        if event.is_free() {
            if state.rejections >= MAX_WAITING {
                return;
            }
            state.rejections += 1;
        }
        state.waiting.push_back(event);
        self.ensure_thread(&mut state);
    }

    fn ensure_thread(self: &Arc<Self>, state: &mut DispatcherState) {
        if state.waiting.is_empty() || state.delivering {
            return;
        }
        let dispatcher = self.clone();
        // The lock is still held, so the thread begins after this.
        let spawned = (self.spawn)(NewThread {
            name: "rtmp-events".into(),
            stack_size: None,
            body: Box::new(move || {
                callback_thread::enter();
                let previous = dispatcher.state.lock().previous.take();
                previous.into_iter().for_each(join);
                dispatcher.deliver(dispatcher.state.lock());
            }),
        });
        match spawned {
            Ok(thread) => {
                state.delivering = true;
                state.previous = state.thread.replace(thread);
            }
            Err(error) => {
                gst::warning!(CAT, "Could not start a thread for signals: {error}");
                self.retry_later();
            }
        }
    }

    fn retry_later(self: &Arc<Self>) {
        let Some(timers) = self.timers.get() else {
            return;
        };
        let weak: Weak<Self> = Arc::downgrade(self);
        let retry = move |_| {
            if let Some(dispatcher) = weak.upgrade() {
                dispatcher.ensure_thread(&mut dispatcher.state.lock());
            }
        };
        timers.set(self.retry, Instant::now() + SPAWN_PAUSE, Box::new(retry));
    }

    /// Returns true where so many publishers have come and gone unnoticed by the application that
    /// no more should be accepted.
    pub(crate) fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.waiting.len() - state.rejections >= self.max_waiting.load(Ordering::Relaxed)
    }

    /// Waits until all events are delivered, for a bounded time: a handler may wait for the caller.
    /// On a callback thread it does not wait. Delivers them itself where no thread can be started,
    /// since there may be no later attempt.
    pub(crate) fn flush(self: &Arc<Self>) {
        if callback_thread::is() {
            return;
        }
        let deadline = Instant::now() + MAX_FLUSH;
        let mut state = self.state.lock();
        self.ensure_thread(&mut state);
        if !state.delivering {
            state.delivering = true;
            self.deliver(state);
            state = self.state.lock();
        }
        while state.delivering {
            if self.delivered.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
        let thread = state.thread.take();
        drop(state);
        thread.into_iter().for_each(join);
    }

    /// Joins a thread that has ended, which frees its stack. Does not wait for one that has not.
    pub(crate) fn join_ended(&self) {
        let mut state = self.state.lock();
        let ended = state.thread.take_if(|thread| thread.is_finished());
        drop(state);
        ended.into_iter().for_each(join);
    }

    fn deliver<'a>(&'a self, mut state: MutexGuard<'a, DispatcherState>) {
        while let Some(event) = state.waiting.pop_front() {
            state.rejections -= usize::from(event.is_free());
            drop(state);
            self.observer.notify(&event);
            state = self.state.lock();
        }
        state.delivering = false;
        self.delivered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn publisher(client: u64) -> Arc<Publisher> {
        Arc::new(Publisher::example(client))
    }

    /// Posts another event from within each, as a handler that disconnects does.
    #[derive(Debug, Default)]
    struct Chain {
        dispatcher: Mutex<Option<Arc<EventDispatcher>>>,
        seen: Mutex<Vec<u64>>,
    }

    impl Observer for Chain {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, event: &PublisherEvent) {
            let PublisherEvent::Added(publisher) = event else {
                return;
            };
            if publisher.client < 5 {
                let next = PublisherEvent::Added(self::publisher(publisher.client + 1));
                let dispatcher = self.dispatcher.lock().clone();
                dispatcher.unwrap().post(next);
            }
            self.seen.lock().push(publisher.client);
        }
    }

    #[test]
    fn events_are_delivered_one_at_a_time_and_in_order() {
        let chain = Arc::new(Chain::default());
        let dispatcher = Arc::new(EventDispatcher::new(chain.clone(), MAX_WAITING));
        *chain.dispatcher.lock() = Some(dispatcher.clone());
        dispatcher.post(PublisherEvent::Added(publisher(1)));
        dispatcher.flush();
        assert_eq!(*chain.seen.lock(), [1, 2, 3, 4, 5]);
        *chain.dispatcher.lock() = None;
    }

    #[test]
    fn rejections_neither_pile_up_nor_keep_publishers_out() {
        let dispatcher = EventDispatcher::new(Arc::new(Chain::default()), MAX_WAITING);
        let dispatcher = Arc::new(dispatcher);
        // As if a thread were busy delivering.
        dispatcher.state.lock().delivering = true;
        for _ in 0..2 * MAX_WAITING {
            dispatcher.post(PublisherEvent::Rejected(publisher(1), RejectReason::Busy));
        }
        assert_eq!(dispatcher.state.lock().waiting.len(), MAX_WAITING);
        assert!(!dispatcher.is_full());
        for _ in 0..MAX_WAITING {
            dispatcher.post(PublisherEvent::Removed(publisher(1), RemovalReason::Closed));
        }
        assert!(dispatcher.is_full());
    }

    #[test]
    fn events_posted_while_no_thread_starts_are_delivered_by_the_next_attempt() {
        let chain = Arc::new(Chain::default());
        let dispatcher = Arc::new(EventDispatcher::new(chain.clone(), MAX_WAITING));
        // As after a failure to start the thread.
        dispatcher
            .state
            .lock()
            .waiting
            .push_back(PublisherEvent::Added(publisher(5)));
        dispatcher.flush();
        assert_eq!(*chain.seen.lock(), [5]);
    }

    /// Refuses the first two threads.
    fn spawn_third(new: NewThread) -> io::Result<JoinHandle<()>> {
        static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);
        match ATTEMPTS.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(io::ErrorKind::WouldBlock.into()),
            _ => threads::spawn(new),
        }
    }

    fn spawn_none(_new: NewThread) -> io::Result<JoinHandle<()>> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Keeps the last timer, for the test to fire.
    #[derive(Default)]
    struct OneTimer(Mutex<Option<threads::Callback>>);

    impl std::fmt::Debug for OneTimer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("OneTimer")
        }
    }

    impl TimerService for OneTimer {
        fn set(&self, _id: TimerId, _deadline: Instant, callback: threads::Callback) {
            *self.0.lock() = Some(callback);
        }

        fn clear(&self, _id: TimerId) {}
    }

    #[test]
    fn events_posted_while_no_thread_starts_are_delivered_by_the_timer() {
        let chain = Arc::new(Chain::default());
        let mut dispatcher = EventDispatcher::new(chain.clone(), MAX_WAITING);
        dispatcher.spawn = spawn_third;
        let dispatcher = Arc::new(dispatcher);
        let timer = Arc::new(OneTimer::default());
        dispatcher.set_timers(timer.clone());
        dispatcher.post(PublisherEvent::Added(publisher(5)));
        let fire = || {
            let callback = timer.0.lock().take();
            callback.expect("a timer for the next attempt")(Instant::now());
        };
        fire();
        assert!(chain.seen.lock().is_empty());
        fire();
        assert!(timer.0.lock().is_none());
        let mut state = dispatcher.state.lock();
        while state.delivering {
            dispatcher.delivered.wait(&mut state);
        }
        assert_eq!(*chain.seen.lock(), [5]);
        assert!(state.waiting.is_empty());
    }

    #[test]
    fn flush_delivers_all_events_where_no_thread_starts() {
        let chain = Arc::new(Chain::default());
        let mut dispatcher = EventDispatcher::new(chain.clone(), MAX_WAITING);
        dispatcher.spawn = spawn_none;
        let dispatcher = Arc::new(dispatcher);
        *chain.dispatcher.lock() = Some(dispatcher.clone());
        dispatcher.post(PublisherEvent::Added(publisher(1)));
        dispatcher.flush();
        assert_eq!(*chain.seen.lock(), [1, 2, 3, 4, 5]);
        *chain.dispatcher.lock() = None;
        let state = dispatcher.state.lock();
        assert!(state.waiting.is_empty() && !state.delivering);
    }

    #[test]
    fn threads_that_have_ended_are_joined_and_others_are_left() {
        let chain = Arc::new(Chain::default());
        let dispatcher = Arc::new(EventDispatcher::new(chain.clone(), MAX_WAITING));
        // The thread waits for this lock at its first event.
        let delivery = chain.seen.lock();
        dispatcher.post(PublisherEvent::Added(publisher(5)));
        dispatcher.join_ended();
        assert!(dispatcher.state.lock().thread.is_some());
        drop(delivery);
        while dispatcher.state.lock().thread.is_some() {
            dispatcher.join_ended();
            std::thread::yield_now();
        }
        assert_eq!(*chain.seen.lock(), [5]);
        dispatcher.post(PublisherEvent::Added(publisher(6)));
        dispatcher.flush();
        assert_eq!(*chain.seen.lock(), [5, 6]);
    }

    #[test]
    fn a_failed_start_leaves_the_thread_before_it_to_be_joined() {
        static IS_EXHAUSTED: AtomicBool = AtomicBool::new(false);
        let mut dispatcher = EventDispatcher::new(Arc::new(Chain::default()), MAX_WAITING);
        dispatcher.spawn = |new| {
            if IS_EXHAUSTED.load(Ordering::SeqCst) {
                spawn_none(new)
            } else {
                threads::spawn(new)
            }
        };
        let dispatcher = Arc::new(dispatcher);
        let post = || dispatcher.post(PublisherEvent::Flowing(0));
        post();
        let mut state = dispatcher.state.lock();
        while state.delivering {
            dispatcher.delivered.wait(&mut state);
        }
        drop(state);
        IS_EXHAUSTED.store(true, Ordering::SeqCst);
        post();
        assert!(dispatcher.state.lock().thread.is_some());
        dispatcher.flush();
        assert!(dispatcher.state.lock().thread.is_none());
    }
}
