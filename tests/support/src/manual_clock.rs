// SPDX-License-Identifier: MPL-2.0

//! A clock of the pipeline that stands still until a test moves it, so that minutes of media pass in
//! moments.

use gst::glib;
use gst::subclass::prelude::*;

glib::wrapper! {
    pub struct ManualClock(ObjectSubclass<imp::ManualClock>) @extends gst::Clock, gst::Object;
}

impl ManualClock {
    /// A clock at this time.
    pub fn at(time: gst::ClockTime) -> Self {
        let clock: Self = glib::Object::new();
        clock.advance_to(time);
        clock
    }

    /// Moves the clock ahead, and ends the waits that are over then.
    pub fn advance_to(&self, time: gst::ClockTime) {
        self.imp().advance_to(time);
    }
}

mod imp {
    use std::collections::HashSet;
    use std::sync::{Condvar, Mutex};

    use super::*;

    #[derive(Debug, Default)]
    pub struct ManualClock {
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Debug, Default)]
    struct State {
        now: gst::ClockTime,
        /// Addresses of the entries whose waits are to end.
        unscheduled: HashSet<usize>,
    }

    impl ManualClock {
        pub(super) fn advance_to(&self, time: gst::ClockTime) {
            let mut state = self.state.lock().unwrap();
            state.now = state.now.max(time);
            drop(state);
            self.changed.notify_all();
        }
    }

    #[glib::object_subclass]
    impl ObjectSubclass for ManualClock {
        const NAME: &'static str = "Rtmp2TestManualClock";
        type Type = super::ManualClock;
        type ParentType = gst::Clock;
    }

    impl ObjectImpl for ManualClock {}
    impl GstObjectImpl for ManualClock {}

    impl ClockImpl for ManualClock {
        fn resolution(&self) -> gst::ClockTime {
            gst::ClockTime::NSECOND
        }

        fn internal_time(&self) -> gst::ClockTime {
            self.state.lock().unwrap().now
        }

        fn wait(
            &self,
            id: &gst::ClockId,
        ) -> (
            Result<gst::ClockSuccess, gst::ClockError>,
            gst::ClockTimeDiff,
        ) {
            let time = id.time();
            let address = id.as_ptr() as usize;
            let mut state = self.state.lock().unwrap();
            let is_early = state.now >= time;
            loop {
                if state.unscheduled.remove(&address) {
                    return (Err(gst::ClockError::Unscheduled), 0);
                }
                if state.now >= time {
                    let jitter = (state.now - time).nseconds() as i64;
                    let end = match is_early && jitter > 0 {
                        true => Err(gst::ClockError::Early),
                        false => Ok(gst::ClockSuccess::Ok),
                    };
                    return (end, jitter);
                }
                state = self.changed.wait(state).unwrap();
            }
        }

        fn unschedule(&self, id: &gst::ClockId) {
            let address = id.as_ptr() as usize;
            self.state.lock().unwrap().unscheduled.insert(address);
            self.changed.notify_all();
        }
    }
}
