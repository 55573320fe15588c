// SPDX-License-Identifier: MPL-2.0

//! Messages about rejected clients. Clients cause them at no cost, so they are rationed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use parking_lot::Mutex;

use crate::rtmp2serversrc::announcements;
use crate::rtmp2serversrc::ration::Ration;
use crate::server::{Publisher, RejectReason};

type Rejection = (Arc<Publisher>, RejectReason);

#[derive(Debug, Default)]
pub(super) struct RejectionMessages(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ration: Ration<Rejection>,
    /// The last message of a flood will be posted at its time.
    is_scheduled: bool,
}

impl RejectionMessages {
    /// Posts a message at once if the ration allows it. The last one of a flood is posted later,
    /// with the number of those left out.
    pub(super) fn post(
        self: &Arc<Self>,
        element: &gst::Bin,
        publisher: &Arc<Publisher>,
        reason: RejectReason,
    ) {
        let rejection = (publisher.clone(), reason);
        self.post_allowed(element, |ration, now| ration.offer(rejection, now));
    }

    /// Posts the message that still waits.
    pub(super) fn finish(&self, element: &gst::Bin) {
        let last = self.0.lock().ration.take();
        post(element, last);
    }

    fn post_allowed(
        self: &Arc<Self>,
        element: &gst::Bin,
        allowed: impl FnOnce(&mut Ration<Rejection>, Instant) -> Option<(Rejection, u64)>,
    ) {
        let now = Instant::now();
        let mut state = self.0.lock();
        let rejection = allowed(&mut state.ration, now);
        let deadline = state.ration.deadline();
        let deadline = deadline.filter(|_| !std::mem::replace(&mut state.is_scheduled, true));
        drop(state);
        post(element, rejection);
        if let Some(deadline) = deadline {
            self.schedule(element, deadline.saturating_duration_since(now));
        }
    }

    fn schedule(self: &Arc<Self>, element: &gst::Bin, wait: Duration) {
        let (messages, element) = (Arc::downgrade(self), element.downgrade());
        let release = move |element: &gst::Bin| {
            if let Some(messages) = messages.upgrade() {
                messages.0.lock().is_scheduled = false;
                messages.post_allowed(element, Ration::release);
            }
        };
        let clock = gst::SystemClock::obtain();
        let wait = gst::ClockTime::try_from(wait).unwrap_or(gst::ClockTime::SECOND);
        let id = clock.new_single_shot_id(clock.time() + wait);
        let waits = id.wait_async(move |_, _, _| {
            // The clock has one thread for the whole process, and a handler of the bus may take
            // long.
            if let Some(element) = element.upgrade() {
                element.call_async(release);
            }
        });
        if waits.is_err() {
            self.0.lock().is_scheduled = false;
        }
    }
}

fn post(element: &gst::Bin, rejection: Option<(Rejection, u64)>) {
    if let Some(((publisher, reason), suppressed)) = rejection {
        let mut structure = announcements::rejected(&publisher, reason, suppressed);
        // A rejected client has no pad.
        structure.set("pad", "");
        let message = gst::message::Element::builder(structure)
            .src(element)
            .build();
        let _ = element.post_message(message);
    }
}
