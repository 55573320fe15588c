// SPDX-License-Identifier: MPL-2.0

use gst::prelude::*;
use gst_base::prelude::*;

use super::announcements::post_event;
use super::element_state::ElementState;
use super::narrator::Narrator;
use super::pauses::Pauses;
use super::voice::Voice;
use super::{Rtmp2ServerSrc, StreamEvent};

/// The element, as its streaming thread uses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) element: &'a Rtmp2ServerSrc,
    pub(super) state: &'a ElementState,
    pub(super) pauses: &'a Pauses,
    /// The base class counts the buffers, for `num-buffers`.
    pub(super) is_counted: bool,
    /// Number of flushes so far. A push that failed in an earlier one is over.
    pub(super) flush: u64,
}

impl Context<'_> {
    /// Returns the present running time in nanoseconds. It means nothing in a pause.
    pub(super) fn running_time(&self) -> u64 {
        let running_time = self.element.current_running_time();
        running_time.unwrap_or(gst::ClockTime::ZERO).nseconds()
    }

    pub(super) fn post_event(&self, event: StreamEvent, details: gst::Structure) {
        let epoch = self.state.snapshot().epoch;
        post_event(self.element, event, epoch, details);
    }

    /// Tells people what has happened, if there is something to tell.
    pub(super) fn narrate(&self, tell: impl FnOnce(&mut Narrator, &Voice) -> Option<String>) {
        let voice = Voice::new(&self.state.settings());
        let text = tell(&mut self.state.narrator(), &voice);
        if let Some(text) = text {
            voice.inform(self.element.upcast_ref(), &text);
        }
    }

    /// Pushes an event of the element's own downstream.
    pub(super) fn push_event(&self, event: gst::Event) {
        self.element.src_pad().push_event(event);
    }
}
