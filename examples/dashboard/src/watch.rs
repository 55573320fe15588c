// SPDX-License-Identifier: MPL-2.0

//! Reports the publishers of an element: a line in the log for each connection, refusal, stall,
//! return and end, and the refusals for the page.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::journal;
use gst::prelude::*;

use crate::rejected_clients::{RejectedClient, RejectedClients, masked, masked_application};

/// Start of the elements' WARNING messages about publishers that `publisher-rejected` tells of.
const REJECTION: &str = "Refused ";

/// Watches an element that accepts publishers. `name` returns the name of the stream that the
/// element's description of a publisher belongs to.
pub fn watch(
    source: &gst::Element,
    refusals: &Arc<RejectedClients>,
    name: impl Fn(&gst::StructureRef) -> String + Clone + Send + Sync + 'static,
) {
    let name_of = name.clone();
    source.connect("publisher-added", false, move |arguments| {
        let info: gst::Structure = arguments[1].get().ok()?;
        let (stream, address) = (name_of(&info), text(&info, "address"));
        journal::info("connected")
            .with("stream", stream.as_str())
            .with("address", address)
            .with("encoder", text(&info, "flash-ver"))
            .say(format!("{stream}: {address} publishes"));
        None
    });
    source.connect("publisher-removed", false, move |arguments| {
        let info: gst::Structure = arguments[1].get().ok()?;
        let reason: &str = arguments[2].get().ok()?;
        let (stream, address) = (name(&info), text(&info, "address"));
        journal::info("ended")
            .with("stream", stream.as_str())
            .with("address", address)
            .with("reason", reason)
            .say(format!("{stream}: {address} ({reason}) is gone"));
        None
    });
    let refusals = refusals.clone();
    source.connect("publisher-rejected", false, move |arguments| {
        let info: gst::Structure = arguments[1].get().ok()?;
        let reason: &str = arguments[2].get().ok()?;
        let refusal = RejectedClient {
            time: unix_time(),
            address: text(&info, "address").to_owned(),
            application: masked_application(text(&info, "application")),
            stream: masked(text(&info, "stream-key")),
            reason: reason.to_owned(),
        };
        report(&refusals, refusal);
        None
    });
}

fn report(refusals: &RejectedClients, refusal: RejectedClient) {
    let Some(suppressed) = refusals.add(refusal.clone(), Instant::now()) else {
        return;
    };
    let RejectedClient {
        address,
        application,
        stream,
        reason,
        ..
    } = refusal;
    let before = match suppressed {
        0 => String::new(),
        count => format!(" (and {count} before it)"),
    };
    journal::warning("refused")
        .with("address", address.as_str())
        .with("application", application.as_str())
        .with("stream-key", stream.as_str())
        .with("reason", reason.as_str())
        .with("suppressed", suppressed)
        .say(format!(
            "refused {application}/{stream} from {address}: {reason}{before}"
        ));
}

/// Writes the line of a message on the bus where it is about a stall or its end.
pub fn log_message(stream: &str, message: &gst::StructureRef) {
    if message.name() != "rtmp2-stream-event" {
        return;
    }
    let Some(event) = nick(message, "event") else {
        return;
    };
    let details = message.get::<gst::Structure>("details").ok();
    let seconds = |field: &str| {
        let nanos = details.as_ref()?.get::<u64>(field).ok()?;
        (nanos != u64::MAX).then_some(nanos as f64 / 1e9)
    };
    match event.as_str() {
        "stalled" => {
            let silence = seconds("since-last-byte");
            let entry = journal::warning("stalled").with("stream", stream);
            match silence {
                Some(silence) => entry.with("silence-seconds", silence).say(format!(
                    "{stream}: no media arrives, and no byte for {silence:.1} s"
                )),
                None => entry.say(format!("{stream}: no media arrives")),
            }
        }
        "resumed" => {
            let entry = journal::info("resumed").with("stream", stream);
            match seconds("downtime") {
                Some(downtime) => entry.with("downtime-seconds", downtime).say(format!(
                    "{stream}: media arrives again after {downtime:.1} s"
                )),
                None => entry.say(format!("{stream}: media arrives again")),
            }
        }
        _ => {}
    }
}

/// Writes the line of a WARNING of an element that accepts publishers. It tells of connections that
/// end before the client has asked for a stream, such as plain RTMP where TLS is wanted: no signal
/// does.
pub fn log_warning(refusals: &RejectedClients, message: &gst::Message) {
    let gst::MessageView::Warning(warning) = message.view() else {
        return;
    };
    let element = message
        .src()
        .and_then(|src| src.downcast_ref::<gst::Element>());
    let factory = element.and_then(|element| element.factory());
    let is_source = factory.is_some_and(|factory| {
        matches!(&*factory.name(), "rtmp2serversrc" | "rtmp2multiserversrc")
    });
    let error = warning.error();
    let text = error.message();
    // The signal for a rejected publisher has the line already.
    if is_source && !text.starts_with(REJECTION) && refusals.is_news(text, Instant::now()) {
        journal::warning("warning").say(text);
    }
}

/// Returns the nick of an enum.
fn nick(message: &gst::StructureRef, field: &str) -> Option<String> {
    let value = message.value(field).ok()?;
    let (_, value) = gst::glib::EnumValue::from_value(value)?;
    Some(value.nick().to_owned())
}

fn text<'a>(info: &'a gst::StructureRef, field: &str) -> &'a str {
    info.get(field).unwrap_or_default()
}

/// Returns the seconds since the Unix epoch.
pub(crate) fn unix_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
