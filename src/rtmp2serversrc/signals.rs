// SPDX-License-Identifier: MPL-2.0

//! Signals: they tell the application of publishers, ask it to authorize them, and let it act.

use std::ops::ControlFlow;
use std::sync::Arc;

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::Rtmp2ServerSrc;
use super::refusals::Refusals;
use crate::server::{Observer, Publisher, PublisherEvent};

/// Builds the signals of an element that has publishers. Its actions call `disconnect` and
/// `reconnect`.
pub(crate) fn build(
    disconnect: fn(&gst::Element),
    reconnect: fn(&gst::Element, Option<&str>, &str) -> bool,
) -> Vec<Signal> {
    let mut signals = build_notifications();
    signals.push(
        // Disconnects the present publisher, which is told so, or ends the wait for one that was
        // cut off.
        Signal::builder("disconnect-publisher")
            .run_last()
            .action()
            .class_handler(move |arguments| {
                disconnect(&instance(arguments));
                None
            })
            .build(),
    );
    signals.push(
        // Asks the present publisher to reconnect, to another tcUrl if one is given. Returns false
        // if there is no publisher, or if it does not support that.
        Signal::builder("request-reconnect")
            .param_types([String::static_type(), String::static_type()])
            .return_type::<bool>()
            .run_last()
            .action()
            .class_handler(move |arguments| {
                let tc_url = text(arguments, 1).filter(|tc_url| !tc_url.is_empty());
                let description = text(arguments, 2).unwrap_or_default();
                let is_asked = reconnect(&instance(arguments), tc_url.as_deref(), &description);
                Some(is_asked.to_value())
            })
            .build(),
    );
    signals
}

/// Returns the element that emits a signal.
pub(crate) fn instance(arguments: &[glib::Value]) -> gst::Element {
    arguments[0].get().expect("the instance")
}

/// Returns a string argument of a signal.
pub(crate) fn text(arguments: &[glib::Value], index: usize) -> Option<String> {
    arguments[index].get().expect("type checked upstream")
}

/// Builds the signals that tell the application of publishers and ask it to authorize them.
pub(crate) fn build_notifications() -> Vec<Signal> {
    let info = gst::Structure::static_type();
    let reason = String::static_type();
    vec![
        // Asks the application to authorize a client, which passes where there is no handler.
        // Emitted on the client's own thread before the client is told anything, so a handler may
        // take seconds: only this client waits. With several handlers all have to agree.
        Signal::builder("publisher-connecting")
            .param_types([info])
            .return_type::<bool>()
            .run_last()
            .class_handler(|_| Some(true.to_value()))
            .accumulator(|_hint, _all, answer| {
                if answer.get::<bool>().unwrap_or(true) {
                    ControlFlow::Continue(answer.clone())
                } else {
                    ControlFlow::Break(answer.clone())
                }
            })
            .build(),
        Signal::builder("publisher-added")
            .param_types([info])
            .run_last()
            .build(),
        Signal::builder("publisher-removed")
            .param_types([info, reason])
            .run_last()
            .build(),
        Signal::builder("publisher-rejected")
            .param_types([info, reason])
            .run_last()
            .build(),
    ]
}

/// Returns the description of a publisher for applications.
fn info(publisher: &Publisher) -> gst::Structure {
    gst::Structure::builder("application/x-rtmp2-publisher")
        .field("address", publisher.address.to_string())
        .field("application", &publisher.application)
        .field("stream-key", &publisher.stream_key)
        .field("query", &publisher.query)
        .field("tc-url", &publisher.tc_url)
        .field("flash-ver", &publisher.flash_ver)
        .field("tls", publisher.tls)
        .field("variables", variables(publisher))
        .field_if_some("pad", publisher.stream.map(pad_name))
        .build()
}

/// Returns the name of the pad of one of several streams of an element.
pub(crate) fn pad_name(stream: u32) -> String {
    format!("src_{stream}")
}

/// Returns the stream of a pad by the pad's name.
pub(crate) fn pad_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("src_")?.parse().ok()?;
    (pad_name(number) == name).then_some(number)
}

/// Returns the values that the variables of application and stream-key have matched.
pub(crate) fn variables(publisher: &Publisher) -> gst::Structure {
    let pairs = publisher.variables.iter();
    let pairs = pairs.map(|(name, value)| (name.as_str(), value.to_send_value()));
    gst::Structure::from_iter("variables", pairs)
}

/// Asks the application of an element to authorize a client.
pub(crate) fn authorize(element: &gst::Element, publisher: &Publisher) -> bool {
    element.emit_by_name("publisher-connecting", &[&info(publisher)])
}

/// Emits the signal for an event of a publisher.
pub(crate) fn emit(element: &gst::Element, event: &PublisherEvent) {
    match event {
        PublisherEvent::Added(publisher) => {
            element.emit_by_name::<()>("publisher-added", &[&info(publisher)]);
        }
        PublisherEvent::Removed(publisher, reason) => {
            let reason = reason.nick();
            element.emit_by_name::<()>("publisher-removed", &[&info(publisher), &reason]);
        }
        PublisherEvent::Rejected(publisher, reason) => {
            let reason = reason.nick();
            element.emit_by_name::<()>("publisher-rejected", &[&info(publisher), &reason]);
        }
        // Internal to an element and its streams.
        PublisherEvent::Flowing(_) | PublisherEvent::Finished(_) => {}
        // For people.
        PublisherEvent::Failed(..) | PublisherEvent::LeftAtPrompt(_) => {}
    }
}

/// Emits signals for the events of an element's publishers.
#[derive(Debug)]
pub(super) struct Emitter {
    element: glib::WeakRef<gst::Element>,
    refusals: Arc<Refusals>,
}

impl Emitter {
    pub(super) fn new(element: &gst::Element) -> Self {
        Emitter {
            element: element.downgrade(),
            refusals: Refusals::new(|element| {
                let source = element.downcast_ref::<Rtmp2ServerSrc>();
                source.map(|source| source.imp().voice())
            }),
        }
    }
}

impl Observer for Emitter {
    fn may_publish(&self, publisher: &Publisher) -> bool {
        // A finalized element accepts no publisher.
        let element = self.element.upgrade();
        element.is_some_and(|element| authorize(&element, publisher))
    }

    fn notify(&self, event: &PublisherEvent) {
        if let Some(element) = self.element.upgrade() {
            self.refusals.handle(&element, event);
            emit(&element, event);
        }
    }
}
