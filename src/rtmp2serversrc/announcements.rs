// SPDX-License-Identifier: MPL-2.0

//! Messages on the bus and the sticky event downstream, which report the state of the stream and
//! its events. Their form is part of the element's interface.

use std::time::Duration;

use gst::prelude::*;

use super::nick::nick;
use super::state::Snapshot;
use super::{CAT, ConnectionState, Rtmp2ServerSrc, StreamEvent, StreamStatus, signals};
use crate::feed::{Imbalance, Jump, JumpKind, RefusedTrack};
use crate::flv::TagKind;
use crate::server::{self, Publisher, Verdict};

/// Version of the structures in here. A new one means that a field has another meaning.
const VERSION: u32 = 1;

/// Returns the state as the structure for applications and for elements downstream.
pub(super) fn status(snapshot: &Snapshot) -> gst::Structure {
    let publisher = snapshot.publisher.as_deref();
    let text = |get: fn(&Publisher) -> &String| publisher.map_or("", |p| get(p).as_str());
    let variables = publisher.map_or_else(
        || gst::Structure::new_empty("variables"),
        signals::variables,
    );
    gst::Structure::builder("rtmp2-stream-status")
        .field("version", VERSION)
        .field("stream-status", snapshot.status)
        .field("connection-state", snapshot.connection)
        .field("epoch", snapshot.epoch)
        .field("application", text(|publisher| &publisher.application))
        .field("stream-key", text(|publisher| &publisher.stream_key))
        .field("variables", variables)
        .build()
}

pub(super) fn status_event(snapshot: &Snapshot) -> gst::Event {
    gst::event::CustomDownstreamSticky::builder(status(snapshot)).build()
}

/// Posts a change of state, and notifies of the properties that are part of it.
pub(super) fn post_change(element: &Rtmp2ServerSrc, before: &Snapshot, after: &Snapshot) {
    gst::debug!(
        CAT,
        obj = element,
        "stream-status {}, connection-state {}, epoch {}",
        nick(after.status),
        nick(after.connection),
        after.epoch
    );
    post(element, status(after));
    let is_decodable_again =
        before.status == StreamStatus::Reconfiguring && after.status == StreamStatus::Active;
    let is_reconfigured = before.epoch != after.epoch;
    // Standby has an event of its own.
    if is_reconfigured && after.status != StreamStatus::Paused {
        let event = StreamEvent::ReconfigurationStarted;
        post_event(element, event, after.epoch, no_details());
    }
    if is_decodable_again && after.connection == ConnectionState::Streaming {
        let event = StreamEvent::ReconfigurationDone;
        post_event(element, event, after.epoch, no_details());
    }
    for (name, changed) in [
        ("connection-state", before.connection != after.connection),
        ("stream-status", before.status != after.status),
        ("epoch", is_reconfigured),
    ] {
        if changed {
            element.notify(name);
        }
    }
}

pub(super) fn post_event(
    element: &Rtmp2ServerSrc,
    event: StreamEvent,
    epoch: u64,
    details: gst::Structure,
) {
    post(element, self::event(event, epoch, details));
}

/// Returns the name of a limit, the figure as measured, and the limit.
pub(super) fn about_verdict(verdict: &Verdict) -> gst::Structure {
    gst::Structure::builder("details")
        .field("limit", verdict.limit_name())
        .field("value", verdict.quality.figure(verdict.number))
        .field("bound", verdict.quality.figure(verdict.limit))
        .build()
}

/// Returns an event as the structure for applications.
fn event(event: StreamEvent, epoch: u64, details: gst::Structure) -> gst::Structure {
    gst::Structure::builder("rtmp2-stream-event")
        .field("version", VERSION)
        .field("event", event)
        .field("epoch", epoch)
        .field("details", details)
        .build()
}

/// Returns the event of a rejected client.
pub(crate) fn rejected(
    publisher: &Publisher,
    reason: server::RejectReason,
    suppressed: u64,
) -> gst::Structure {
    let details = about_rejection(publisher, reason, suppressed);
    event(StreamEvent::PublisherRejected, 0, details)
}

fn post(element: &Rtmp2ServerSrc, structure: gst::Structure) {
    let message = gst::message::Element::builder(structure)
        .src(element)
        .build();
    // Fails where there is no bus.
    let _ = element.post_message(message);
}

/// Returns the details of an event that is about a client.
pub(super) fn about(publisher: &Publisher) -> gst::Structure {
    gst::Structure::builder("details")
        .field("address", publisher.address.to_string())
        .field("application", &publisher.application)
        .field("stream-key", &publisher.stream_key)
        .field("variables", signals::variables(publisher))
        .build()
}

pub(super) fn about_with_reason(publisher: &Publisher, reason: &str) -> gst::Structure {
    let mut details = about(publisher);
    details.set("reason", reason);
    details
}

/// Returns the details of a rejection, with the number of those before it that were not posted.
pub(super) fn about_rejection(
    publisher: &Publisher,
    reason: server::RejectReason,
    suppressed: u64,
) -> gst::Structure {
    let mut details = about_with_reason(publisher, reason.nick());
    details.set("suppressed", suppressed);
    details
}

/// Returns the details of an event that is about a time, in nanoseconds.
pub(super) fn time(name: &str, time: Duration) -> gst::Structure {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    gst::Structure::builder("details")
        .field(name, nanos)
        .build()
}

/// Returns the details of dropped media.
pub(super) fn about_dropped(tags: u64, reason: &str) -> gst::Structure {
    gst::Structure::builder("details")
        .field("tags", tags)
        .field("reason", reason)
        .build()
}

/// Returns the details of timestamps that do not continue, in nanoseconds of the publisher.
pub(super) fn about_jump(jump: &Jump) -> gst::Structure {
    let nanos = |millis: i64| millis.saturating_mul(1_000_000);
    gst::Structure::builder("details")
        .field(
            "kind",
            match jump.kind {
                JumpKind::Back => "backward",
                JumpKind::Ahead => "forward",
                JumpKind::Frozen => "frozen",
            },
        )
        .field("track", kind(jump.track))
        .field("from", nanos(jump.from))
        .field("to", nanos(jump.to))
        .build()
}

pub(super) fn about_imbalance(imbalance: &Imbalance) -> gst::Structure {
    gst::Structure::builder("details")
        .field("missing", kind(imbalance.missing))
        .field("time", imbalance.time)
        .field("over", imbalance.is_over)
        .build()
}

/// Returns the details of an event that is about a track in a codec that is not accepted.
pub(super) fn about_refused_track(track: &RefusedTrack) -> gst::Structure {
    gst::Structure::builder("details")
        .field("kind", kind(track.kind))
        .field("track", u32::from(track.track))
        .field("codec", track.codec.to_string())
        .build()
}

/// Returns the details of the start of standby.
pub(super) fn about_standby_start(reason: &str, reconfigures: bool) -> gst::Structure {
    gst::Structure::builder("details")
        .field("reason", reason)
        .field("reconfigures", reconfigures)
        .build()
}

/// Returns the details of the end of standby, which has played for this time in nanoseconds.
pub(super) fn about_standby_end(time: u64, reconfigures: bool) -> gst::Structure {
    gst::Structure::builder("details")
        .field("time", time)
        .field("reconfigures", reconfigures)
        .build()
}

pub(super) fn kind(kind: TagKind) -> &'static str {
    match kind {
        TagKind::Audio => "audio",
        TagKind::Video => "video",
        TagKind::Script => "script",
    }
}

pub(super) fn no_details() -> gst::Structure {
    gst::Structure::new_empty("details")
}
