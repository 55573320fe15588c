// SPDX-License-Identifier: MPL-2.0

//! Keeps a pause from losing media and from freezing the stream.
//!
//! From GStreamer 1.24 on the base class drops the output of create() that it gets in PAUSED, and calls
//! unlock() while it goes to PAUSED. If PLAYING follows before create() has returned FLUSHING for that,
//! its task pauses for good. So create() holds its output while the element is paused, a pause begins
//! only when the base class has got the last output, and the unlock() of a pause is ignored: a real
//! flush calls it again. GStreamer 1.22 keeps the output, but can't drop a buffer list when a flush
//! follows the pause: with this gate there is none to drop.
//!
//! ```text
//!                   pass()                  confirm()
//!   create() runs ---------> output in flight --------> the base class pushes it
//!       | paused: waits          ^
//!       +------------------------+ resume()
//! ```
//!
//! Lock order: the one lock in here is a leaf.

use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Maximum time that a pause waits for the base class to confirm the output of create(). It takes
/// microseconds, since the base class only has to take a lock.
const MAX_CONFIRMATION: Duration = Duration::from_secs(1);

/// The element is flushing: create() has to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flushing;

#[derive(Debug, Default)]
pub(super) struct PauseGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    /// The element is not in PLAYING, or is about to leave it.
    is_paused: bool,
    is_flushing: bool,
    /// create() has returned an output that the base class has not confirmed.
    is_in_flight: bool,
    /// The thread that changes the state from PLAYING to PAUSED.
    pausing_thread: Option<ThreadId>,
    /// The last thread that has called create().
    streaming_thread: Option<ThreadId>,
    /// The thread that has started the present flush.
    flushing_thread: Option<ThreadId>,
}

impl PauseGate {
    /// Begins a new run of the element, which starts paused.
    pub(super) fn reset(&self) {
        *self.state.lock() = GateState {
            is_paused: true,
            ..GateState::default()
        };
    }

    /// Calls `work`, which changes the state of the base class from PLAYING to PAUSED.
    pub(super) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        let deadline = Instant::now() + MAX_CONFIRMATION;
        let mut state = self.state.lock();
        state.is_paused = true;
        state.pausing_thread = Some(thread::current().id());
        // The change of state may come from within create(), which has nothing in flight then.
        while state.is_in_flight {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        drop(state);
        let result = work();
        self.state.lock().pausing_thread = None;
        result
    }

    /// Lets create() return its output, after the base class has gone to PLAYING.
    pub(super) fn resume(&self) {
        self.state.lock().is_paused = false;
        self.changed.notify_all();
    }

    /// Begins a flush. Returns false for the unlock() that is part of a pause.
    pub(super) fn unlock(&self) -> bool {
        let current = Some(thread::current().id());
        let mut state = self.state.lock();
        if state.pausing_thread == current {
            return false;
        }
        state.is_flushing = true;
        state.flushing_thread = current;
        self.changed.notify_all();
        true
    }

    /// Ends a flush. Returns false for the unlock_stop() by which the streaming thread follows a pause:
    /// it must not end the flush of another thread.
    pub(super) fn unlock_stop(&self) -> bool {
        let current = Some(thread::current().id());
        let mut state = self.state.lock();
        if state.streaming_thread == current && state.flushing_thread != current {
            return false;
        }
        state.is_flushing = false;
        state.flushing_thread = None;
        true
    }

    /// Begins a call of create(). Returns false where the base class has dropped the last output.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.state.lock();
        state.streaming_thread = Some(thread::current().id());
        !std::mem::take(&mut state.is_in_flight)
    }

    /// Returns true on the last thread that has called create().
    pub(super) fn is_streaming_thread(&self) -> bool {
        self.state.lock().streaming_thread == Some(thread::current().id())
    }

    /// Returns true where output may pass.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock();
        !state.is_paused && !state.is_flushing
    }

    /// Waits while the element is paused.
    pub(super) fn wait_until_open(&self) -> Result<(), Flushing> {
        self.open().map(drop)
    }

    /// Waits while the element is paused. Then the output is in flight.
    pub(super) fn pass(&self) -> Result<(), Flushing> {
        self.open()?.is_in_flight = true;
        Ok(())
    }

    fn open(&self) -> Result<MutexGuard<'_, GateState>, Flushing> {
        let mut state = self.state.lock();
        while state.is_paused && !state.is_flushing {
            self.changed.wait(&mut state);
        }
        if state.is_flushing {
            return Err(Flushing);
        }
        Ok(state)
    }

    /// The base class is about to push the output in flight.
    pub(super) fn confirm(&self) {
        let mut state = self.state.lock();
        state.is_in_flight = false;
        if state.is_paused {
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    fn playing() -> Arc<PauseGate> {
        let gate = Arc::new(PauseGate::default());
        gate.reset();
        gate.resume();
        gate
    }

    fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// As GStreamer 1.26 does it.
    #[test]
    fn unlock_of_a_pause_is_ignored_and_a_flush_is_not() {
        let gate = playing();
        gate.pause(|| {
            assert!(!gate.unlock());
            assert!(on_thread(|| gate.unlock()), "a flush meanwhile");
        });
        assert_eq!(gate.pass(), Err(Flushing));
        assert!(on_thread(|| gate.unlock_stop()));
        gate.resume();
        assert_eq!(gate.pass(), Ok(()));
    }

    #[test]
    fn unlock_stop_after_a_pause_does_not_end_a_flush() {
        let gate = playing();
        assert!(gate.enter());
        assert!(on_thread(|| gate.unlock()));
        // The streaming thread follows an earlier pause.
        assert!(!gate.unlock_stop());
        assert_eq!(gate.pass(), Err(Flushing));
        assert!(on_thread(|| gate.unlock_stop()));
        assert_eq!(gate.pass(), Ok(()));
    }

    #[test]
    fn flush_from_the_streaming_thread_ends_there() {
        let gate = playing();
        assert!(gate.enter());
        assert!(gate.unlock());
        assert!(gate.unlock_stop());
        assert_eq!(gate.pass(), Ok(()));
    }

    #[test]
    fn output_is_held_until_the_end_of_a_pause() {
        let gate = playing();
        gate.pause(|| ());
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(gate.pass()).unwrap());
            assert!(receiver.try_recv().is_err());
            gate.resume();
            assert_eq!(receiver.recv().unwrap(), Ok(()));
        });
    }

    #[test]
    fn pause_waits_for_the_output_in_flight() {
        let gate = playing();
        assert!(gate.enter());
        gate.pass().unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| gate.pause(|| sender.send(()).unwrap()));
            while !gate.state.lock().is_paused {
                thread::yield_now();
            }
            assert!(receiver.try_recv().is_err());
            gate.confirm();
            receiver.recv().unwrap();
        });
        assert!(gate.enter(), "nothing was lost");
    }

    #[test]
    fn dropped_output_is_noticed() {
        let gate = playing();
        assert!(gate.enter());
        gate.pass().unwrap();
        assert!(!gate.enter());
        assert!(gate.enter());
    }
}
