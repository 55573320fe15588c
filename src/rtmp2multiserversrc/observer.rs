// SPDX-License-Identifier: MPL-2.0

//! Opens and closes streams, on the thread that notifies the application of publishers, one at a
//! time and in the order of events.

use std::sync::{Arc, Weak};

use gst::glib;
use gst::prelude::*;

use super::branch::Branch;
use super::core::ElementCore;
use super::{CAT, Rtmp2MultiServerSrc};
use crate::rtmp2serversrc::refusals::Refusals;
use crate::rtmp2serversrc::signals;
use crate::rtmp2serversrc::voice::Voice;
use crate::server::{Observer, Publisher, PublisherEvent};

/// Observer of the publishers of one run of an element.
#[derive(Debug)]
pub(super) struct StreamObserver {
    element: glib::WeakRef<Rtmp2MultiServerSrc>,
    core: Weak<ElementCore>,
    run: u64,
    refusals: Arc<Refusals>,
}

impl StreamObserver {
    pub(super) fn new(element: &Rtmp2MultiServerSrc, core: &Arc<ElementCore>, run: u64) -> Self {
        StreamObserver {
            element: element.downgrade(),
            core: Arc::downgrade(core),
            run,
            refusals: Refusals::new({
                let core = Arc::downgrade(core);
                move |_: &gst::Element| {
                    let core = core.upgrade()?;
                    let settings = core.settings();
                    Some(Voice::new(&settings.common))
                }
            }),
        }
    }

    /// Starts a publisher's stream, if that has not been done yet.
    fn open(&self, element: &gst::Bin, core: &ElementCore, publisher: &Arc<Publisher>) {
        core.wait_for_start();
        let Some(number) = publisher.stream else {
            return;
        };
        let claim = core.with_run(self.run, |run| run.new_stream(number));
        let Some(claim) = claim.flatten() else {
            return;
        };
        let state_lock = core.state_lock().clone();
        let branch = match Branch::new(element, state_lock, self.run, claim, publisher.clone()) {
            Ok(branch) => branch,
            Err(error) => {
                gst::error!(CAT, obj = element, "{error}");
                return;
            }
        };
        let added = core.with_run(self.run, |run| run.add(number, branch.clone()));
        if added.is_none() {
            return;
        }
        // A source in `running` gets every later change of the properties.
        core.configure(&branch);
        branch.open(element);
        core.end_late(&branch);
    }

    /// Adds the pad of a stream that has media.
    fn add_pad(&self, element: &gst::Bin, core: &ElementCore, number: u32) {
        let branch = core.with_run(self.run, |run| run.branch(number));
        if let Some(branch) = branch.flatten() {
            branch.add_pad(element);
            // Elements linked to the pad have to learn the latency.
            let message = gst::message::Latency::builder().src(element).build();
            let _ = element.post_message(message);
        }
    }

    /// Removes the pad of a stream that has ended.
    fn finish(&self, element: &gst::Bin, core: &ElementCore, number: u32) {
        let branch = core.with_run(self.run, |run| run.branch(number));
        // Without a lock, since this posts messages. The totals that remain include it.
        if let Some(branch) = branch.flatten() {
            branch.drop_rest();
        }
        let removed = core.with_run(self.run, |run| run.remove(number));
        if let Some(branch) = removed.flatten() {
            branch.close(element);
        }
    }
}

impl Observer for StreamObserver {
    fn may_publish(&self, publisher: &Publisher) -> bool {
        // A finalized element accepts no publisher.
        let element = self.element.upgrade();
        element.is_some_and(|element| signals::authorize(element.upcast_ref(), publisher))
    }

    fn notify(&self, event: &PublisherEvent) {
        let (Some(element), Some(core)) = (self.element.upgrade(), self.core.upgrade()) else {
            return;
        };
        let bin = element.upcast_ref();
        match event {
            PublisherEvent::Added(publisher) => self.open(bin, &core, publisher),
            PublisherEvent::Flowing(number) => self.add_pad(bin, &core, *number),
            PublisherEvent::Finished(number) => self.finish(bin, &core, *number),
            PublisherEvent::Rejected(publisher, reason) => {
                core.rejections().post(bin, publisher, *reason);
            }
            PublisherEvent::Removed(..)
            | PublisherEvent::Failed(..)
            | PublisherEvent::LeftAtPrompt(_) => {}
        }
        self.refusals.handle(element.upcast_ref(), event);
        signals::emit(element.upcast_ref(), event);
    }
}
