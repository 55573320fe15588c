// SPDX-License-Identifier: MPL-2.0

//! Opens and closes streams, on the thread that tells the application of publishers, one at a time and
//! in the order of events.

use std::sync::Arc;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::Rtmp2MultiServerSrc;
use super::branch::Branch;
use super::imp::CAT;
use crate::rtmp2serversrc::{announcements, signals};
use crate::server::{Observer, Publisher, PublisherEvent};

/// Observer of the publishers of one run of an element.
#[derive(Debug)]
pub(super) struct StreamObserver {
    element: glib::WeakRef<Rtmp2MultiServerSrc>,
    run: u64,
}

impl StreamObserver {
    pub(super) fn new(element: &Rtmp2MultiServerSrc, run: u64) -> Self {
        StreamObserver {
            element: element.downgrade(),
            run,
        }
    }

    /// Starts a publisher's stream, if that has not been done yet.
    fn open(&self, element: &Rtmp2MultiServerSrc, publisher: &Arc<Publisher>) {
        let imp = element.imp();
        imp.wait_for_start();
        let Some(number) = publisher.stream else {
            return;
        };
        let claim = imp.with_running(self.run, |run| run.new_stream(number));
        let Some(claim) = claim.flatten() else {
            return;
        };
        let branch = match Branch::new(element, self.run, claim, publisher.clone()) {
            Ok(branch) => branch,
            Err(error) => {
                gst::error!(CAT, obj = element, "{error}");
                return;
            }
        };
        let added = imp.with_running(self.run, |run| run.add(number, branch.clone()));
        if added.is_none() {
            return;
        }
        // A source in `running` gets every later change of the properties.
        imp.configure(&branch);
        branch.open(element);
        imp.end_late(&branch);
    }

    /// Adds the pad of a stream that has media.
    fn show(&self, element: &Rtmp2MultiServerSrc, number: u32) {
        let imp = element.imp();
        let branch = imp.with_running(self.run, |run| run.branch(number));
        if let Some(branch) = branch.flatten() {
            branch.show(element);
            // Elements linked to the pad have to learn the latency.
            imp.post_latency();
        }
    }

    /// Removes the pad of a stream that has ended.
    fn finish(&self, element: &Rtmp2MultiServerSrc, number: u32) {
        let removed = element
            .imp()
            .with_running(self.run, |run| run.remove(number));
        if let Some(branch) = removed.flatten() {
            branch.close(element);
        }
    }
}

impl Observer for StreamObserver {
    fn may_publish(&self, publisher: &Publisher) -> bool {
        // A finalized element accepts no publisher.
        let element = self.element.upgrade();
        element.is_some_and(|element| signals::ask(element.upcast_ref(), publisher))
    }

    fn notify(&self, notice: &PublisherEvent) {
        let Some(element) = self.element.upgrade() else {
            return;
        };
        match notice {
            PublisherEvent::Added(publisher) => self.open(&element, publisher),
            PublisherEvent::Flowing(number) => self.show(&element, *number),
            PublisherEvent::Finished(number) => self.finish(&element, *number),
            PublisherEvent::Rejected(publisher, refusal) => {
                let mut structure = announcements::rejected(publisher, *refusal);
                // A rejected client has no pad.
                structure.set("pad", "");
                let message = gst::message::Element::builder(structure)
                    .src(&element)
                    .build();
                let _ = element.post_message(message);
            }
            PublisherEvent::Removed(..) => {}
        }
        signals::emit(element.upcast_ref(), notice);
    }
}
