// SPDX-License-Identifier: MPL-2.0

//! Direct delivery: while the pipeline keeps up, the publisher's own thread pushes its media.
//!
//! A paced tag would wake two threads otherwise: the publisher's, and the streaming thread. The
//! streaming thread stays parked in create() instead, and the publisher's thread does its work: it
//! takes the items from the queue, feeds them, and pushes the buffers.
//!
//! ```text
//!   publisher's thread                  queue          streaming thread
//!   read, push into the queue --------> [tags]         parked in create()
//!     | it is parked: deliver() <----- [     ]           .
//!     |   feed, push on the pad                          .
//!     |   anything but tags is left, or an error ------> wakes, and does it
//!     v                                                  .
//!   read, push into the queue --------> [tags] --------> wakes: deliver() is closed,
//!     |                                                  because a push was slow
//!     v
//! ```
//!
//! Invariants:
//!
//! - One thread delivers at a time: it has the element's delivery state from the queue to the end of
//!   the push. The publisher's thread does so only while the streaming thread is parked, which does not
//!   leave its wait until the push is over. Only a flush or a stop ends that wait, and both end after
//!   the push.
//! - Items leave in the order of the queue, since both take them from its front.
//! - Only tags are delivered directly, and only while the status of the stream is ACTIVE. Caps,
//!   segments, states, events, the first frame after them and the end are the streaming thread's, which
//!   wakes for them.
//! - Reading goes on: a connection whose thread is within a long push continues on another thread
//!   ([`Relief`]), which fills the queue as far as it goes.
//! - A slow push closes direct delivery for [`RECOVERY`], whichever thread it was on.
//!
//! Lock order: the one lock in here is a leaf.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Duration of a push, for each of its tags, from which on the pipeline does not keep up.
const SLOW_PUSH: Duration = Duration::from_millis(5);

/// Time without a slow push after which the pipeline keeps up again.
const RECOVERY: Duration = Duration::from_secs(1);

/// Interval of looking for a push that blocks, while there are any.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Returns the time of the next look. It is the same for all streams, so that the thread of their
/// timers wakes once for all.
pub(super) fn next_watch(now: Instant) -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let interval = WATCH_INTERVAL.as_millis() as u64;
    let elapsed = now.saturating_duration_since(*ORIGIN).as_millis() as u64;
    *ORIGIN + Duration::from_millis((elapsed / interval + 1) * interval)
}

/// The pipeline behind a stream.
pub(crate) trait Downstream: Debug + Send + Sync {
    /// Delivers the items of the queue on the current thread, while the streaming thread is parked.
    /// `now` is the present time.
    fn deliver(&self, now: Instant) -> Delivered;
}

/// The result of a direct delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Number of tags that were pushed.
    pub(crate) tags: u64,
    /// The streaming thread has to wake.
    pub(crate) has_rest: bool,
}

/// A connection whose thread is within a push.
pub(crate) trait Relief: Debug + Send + Sync {
    /// Continues the connection on another thread. Returns false where there is none. Does not wait.
    fn relieve(&self) -> bool;
}

/// Decides if the publisher's thread may deliver.
///
/// ```text
///             push took SLOW_PUSH
///   open --------------------------> closed until then + RECOVERY
///    ^                                    |
///    +------- RECOVERY is over -----------+
/// ```
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    closed_until: Option<Instant>,
}

impl Pace {
    fn is_open(&mut self, now: Instant) -> bool {
        if self.closed_until.is_some_and(|until| now >= until) {
            self.closed_until = None;
        }
        self.closed_until.is_none()
    }

    fn note_push(&mut self, begun: Instant, ended: Instant, tags: u64) {
        let tags = u32::try_from(tags).unwrap_or(u32::MAX).max(1);
        if ended.saturating_duration_since(begun) / tags >= SLOW_PUSH {
            self.closed_until = Some(ended + RECOVERY);
        }
    }
}

/// A delivery in progress.
#[derive(Debug)]
struct InProgress {
    begun: Instant,
    thread: ThreadId,
    /// Taken once the connection continues elsewhere.
    relief: Option<Arc<dyn Relief>>,
}

/// The result of a look at the delivery in progress.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The connection to continue on another thread.
    pub(super) blocked: Option<Arc<dyn Relief>>,
    /// There may be more to see.
    pub(super) goes_on: bool,
}

#[derive(Debug, Default)]
pub(crate) struct DirectDelivery {
    state: Mutex<DirectState>,
}

#[derive(Debug, Default)]
struct DirectState {
    /// None while the element does not run.
    downstream: Option<Arc<dyn Downstream>>,
    pace: Pace,
    in_progress: Option<InProgress>,
    /// A timer looks for a push that blocks.
    is_watched: bool,
    /// There was a delivery since the last look.
    was_used: bool,
}

/// A delivery that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) downstream: Arc<dyn Downstream>,
    /// The caller sets the timer of the watch.
    pub(super) needs_watch: bool,
}

impl DirectDelivery {
    /// Sets the pipeline. None closes direct delivery.
    pub(crate) fn set_downstream(&self, downstream: Option<Arc<dyn Downstream>>) {
        let mut state = self.state.lock();
        state.pace = Pace::default();
        let former = std::mem::replace(&mut state.downstream, downstream);
        drop(state);
        // It may be the last reference to the element.
        drop(former);
    }

    /// Notes a push of the streaming thread.
    pub(crate) fn note_push(&self, begun: Instant, ended: Instant, tags: u64) {
        self.state.lock().pace.note_push(begun, ended, tags);
    }

    /// Begins a delivery on the publisher's thread, if that is open.
    pub(super) fn begin(&self, now: Instant, relief: Arc<dyn Relief>) -> Option<Begun> {
        let mut state = self.state.lock();
        if state.in_progress.is_some() || !state.pace.is_open(now) {
            return None;
        }
        let downstream = state.downstream.clone()?;
        state.in_progress = Some(InProgress {
            begun: now,
            thread: thread::current().id(),
            relief: Some(relief),
        });
        state.was_used = true;
        let needs_watch = !std::mem::replace(&mut state.is_watched, true);
        Some(Begun {
            downstream,
            needs_watch,
        })
    }

    /// Ends the delivery in progress.
    pub(super) fn end(&self, now: Instant, tags: u64) {
        let mut state = self.state.lock();
        let in_progress = state.in_progress.take();
        if let Some(in_progress) = &in_progress {
            state.pace.note_push(in_progress.begun, now, tags);
        }
        drop(state);
        // Dropped without the lock: it may be the last reference to a connection.
        drop(in_progress);
    }

    /// Returns true on the thread that delivers: the caller is within its push.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        let state = self.state.lock();
        let in_progress = state.in_progress.as_ref();
        in_progress.is_some_and(|delivery| delivery.thread == thread::current().id())
    }

    /// Returns true where another thread reads for the publisher whose thread delivers.
    pub(crate) fn is_relieved(&self) -> bool {
        let state = self.state.lock();
        let in_progress = state.in_progress.as_ref();
        in_progress.is_some_and(|delivery| delivery.relief.is_none())
    }

    /// Looks for a push that blocks.
    pub(super) fn watch(&self, now: Instant) -> Watch {
        let mut state = self.state.lock();
        let mut watch = Watch {
            goes_on: std::mem::take(&mut state.was_used),
            ..Watch::default()
        };
        if let Some(in_progress) = &mut state.in_progress {
            if now.saturating_duration_since(in_progress.begun) >= SLOW_PUSH {
                watch.blocked = in_progress.relief.take();
            }
            // A push that was relieved needs no further look.
            watch.goes_on |= in_progress.relief.is_some();
        }
        state.is_watched = watch.goes_on;
        watch
    }

    /// Relieves a connection found by a watch. Returns false where that is to be tried again.
    pub(super) fn relieve(&self, connection: Arc<dyn Relief>) -> bool {
        if connection.relieve() {
            return true;
        }
        let mut state = self.state.lock();
        // A delivery that has begun since has its own.
        let in_progress = state.in_progress.as_mut();
        let waiting = in_progress.filter(|delivery| delivery.relief.is_none());
        let Some(delivery) = waiting else {
            return true;
        };
        delivery.relief = Some(connection);
        state.is_watched = true;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Counter(AtomicUsize);

    impl Downstream for Counter {
        fn deliver(&self, _now: Instant) -> Delivered {
            self.0.fetch_add(1, Ordering::Relaxed);
            Delivered::default()
        }
    }

    impl Relief for Counter {
        fn relieve(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    struct Test {
        direct: DirectDelivery,
        relief: Arc<Counter>,
        start: Instant,
    }

    impl Test {
        fn new() -> Self {
            let direct = DirectDelivery::default();
            direct.set_downstream(Some(Arc::new(Counter::default())));
            Test {
                direct,
                relief: Arc::default(),
                start: Instant::now(),
            }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn begin(&self, millis: u64) -> Option<Begun> {
            self.direct.begin(self.at(millis), self.relief.clone())
        }

        fn end(&self, millis: u64) {
            self.direct.end(self.at(millis), 1);
        }

        /// Returns if a push was found to block, and if the watch goes on.
        fn watch(&self, millis: u64) -> (bool, bool) {
            let watch = self.direct.watch(self.at(millis));
            (watch.blocked.is_some(), watch.goes_on)
        }
    }

    #[test]
    fn one_delivery_is_in_progress_at_a_time() {
        let test = Test::new();
        assert!(test.begin(0).is_some());
        assert!(test.begin(1).is_none());
        test.end(2);
        assert!(test.begin(3).is_some());
    }

    #[test]
    fn slow_push_closes_it_until_the_recovery_is_over() {
        let test = Test::new();
        assert!(test.begin(0).is_some());
        test.end(4);
        assert!(test.begin(10).is_some());
        test.end(15);
        assert!(test.begin(1014).is_none());
        assert!(test.begin(1015).is_some());
        test.end(1016);
        // One of the streaming thread.
        test.direct.note_push(test.at(1020), test.at(1030), 1);
        assert!(test.begin(2029).is_none());
        assert!(test.begin(2030).is_some());
    }

    #[test]
    fn many_tags_may_take_longer() {
        let test = Test::new();
        assert!(test.begin(0).is_some());
        test.direct.end(test.at(400), 100);
        assert!(test.begin(401).is_some());
        test.direct.end(test.at(901), 100);
        assert!(test.begin(902).is_none());
    }

    #[test]
    fn without_a_pipeline_it_is_closed() {
        let test = Test::new();
        test.direct.set_downstream(None);
        assert!(test.begin(0).is_none());
    }

    #[test]
    fn push_that_blocks_is_relieved_once() {
        let test = Test::new();
        assert!(test.begin(0).is_some());
        assert_eq!(test.watch(4), (false, true), "it may be about to return");
        assert_eq!(test.watch(104), (true, false));
        assert_eq!(test.watch(204), (false, false));
    }

    #[test]
    fn watches_of_all_streams_are_at_the_same_time() {
        next_watch(Instant::now());
        let now = Instant::now();
        let next = next_watch(now);
        assert!(now < next && next <= now + WATCH_INTERVAL);
        assert_eq!(next_watch(next), next + WATCH_INTERVAL);
        assert_eq!(next_watch(next - Duration::from_millis(1)), next);
    }

    #[test]
    fn watch_ends_with_the_deliveries() {
        let test = Test::new();
        assert!(test.begin(0).unwrap().needs_watch);
        test.end(0);
        assert!(!test.begin(40).unwrap().needs_watch);
        test.end(40);
        assert_eq!(test.watch(100), (false, true));
        assert_eq!(test.watch(200), (false, false));
        assert!(test.begin(5000).unwrap().needs_watch);
    }
}
