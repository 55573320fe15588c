// SPDX-License-Identifier: MPL-2.0

//! # rtmp2fallbacksink
//!
//! SECTION:element-rtmp2fallbacksink
//!
//! A sink that sends FLV to the first of several RTMP servers that accepts it, and continues with
//! the next one when that server fails. The pipeline upstream is never blocked and never fails
//! because of a server; media that cannot be sent is dropped.
//!
//! ## Example pipeline
//!
//! ```bash
//! gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency key-int-max=30 ! h264parse \
//!     ! flvmux streamable=true ! rtmp2fallbacksink \
//!     variables="variables,camera_id=7,stream_name=garden" return-to-primary=60000 \
//!     locations="rtmp://first.example/live/cam{camera_id}_{stream_name},rtmp://second.example/live/cam{camera_id}_{stream_name}"
//! ```
//! Sends to the first server, or to the second one while the first does not accept the stream, and
//! tries once a minute to return to the first.
//!
//! ## Locations
//!
//! #GstRTMP2FallbackSink:locations are URLs with application and stream key, and with user and password
//! where the server requires them (`rtmp://user:password@HOST/...`). `{name}` in a location is a
//! variable and is replaced by the field of that name in #GstRTMP2FallbackSink:variables. A missing
//! or empty variable fails the start with an error that names it.
//!
//! Each buffer must be one FLV tag, as flvmux and rtmp2serversrc produce them. Connections use the
//! rtmp2sink of GStreamer.
//!
//! ## Failover and return
//!
//! When a server rejects the stream, does not accept it within #GstRTMP2FallbackSink:connect-timeout,
//! accepts no data for #GstRTMP2FallbackSink:send-timeout, or closes the connection, the next location
//! is tried at once. After the last location a round is over; the
//! next round starts with the first location after #GstRTMP2FallbackSink:retry-initial-delay, which
//! doubles with each round up to #GstRTMP2FallbackSink:retry-max-delay. The
//! element never gives up, or posts an error after #GstRTMP2FallbackSink:max-attempts rounds. A connection that has lasted 10
//! seconds resets the count. A round counts only if it included the first location: when a later
//! location is lost after a long time, the state of those before it is unknown.
//!
//! While a location other than the first is in use, the first is tried in parallel every
//! #GstRTMP2FallbackSink:return-to-primary. Once it accepts the stream, the stream moves there at the next
//! keyframe without losing a tag.
//!
//! A server gets metadata and sequence headers first, then the stream from a keyframe on, with
//! timestamps that start at 0 for that connection. When the upstream timestamps restart, those sent
//! to the server hold their value and continue from there.
//!
//! ## Buffering
//!
//! Without a server, the last group of pictures is kept for the next one, including the part that
//! the previous server already got: the next server gets the current group from its keyframe on,
//! unless that keyframe is older than #GstRTMP2FallbackSink:max-time, or the group and the queued
//! tags together are larger than #GstRTMP2FallbackSink:max-bytes. While a server accepts too
//! little, whole groups beyond
//! #GstRTMP2FallbackSink:max-bytes or #GstRTMP2FallbackSink:max-time are dropped. A server that has stopped
//! reading is noticed only when the socket buffers of both systems are full, which takes a while
//! for a stream of low bitrate; their content is lost, except for the current group of pictures. On
//! Linux at most 128 KiB of unsent data waits in the local system, in addition to what the server's
//! system buffers; on other systems it may be megabytes.
//!
//! Video that has been absent for 10 seconds while audio continued, or announced for 2 seconds
//! without any frame, does not delay a new connection. It joins with its configuration and a
//! keyframe when it comes. Of several video tracks the lowest one that is present decides where a
//! group of pictures starts. A stream that has had no keyframe for 10 seconds starts at any frame.
//!
//! Caps with a `streamheader` state the whole configuration of the stream: metadata and sequence
//! headers that they lack are not sent to servers that are connected later.
//!
//! Audio waits at most 50 ms to be sent together with the next video frame.
//!
//! At the end of the stream the queued tags are sent to the connected server, or to one that
//! accepts the stream in the current round; the element does not wait any longer than that.
//!
//! ## Status and statistics
//!
//! Each change of #GstRTMP2FallbackSink:status is also announced by a property notification and an
//! element message `rtmp2-fallback-status`, with `version` (guint, 1), `status`, `location-index`
//! (gint, -1 for none), `location` (without the stream key), `rounds` (guint, failed rounds) and
//! `last-error`. Messages and logs of this element contain no stream key and no password.
//!
//! The element message `rtmp2-fallback-dropped` reports dropped tags, at most once in 10 seconds
//! and when the element stops, with `version` (guint, 1), `tags` (guint64, since the last message)
//! and `tags-dropped` (guint64, all).
//!
//! #GstRTMP2FallbackSink:stats counts from the start of the element; times are in nanoseconds:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `status`, `location-index` | as in the message | current status and location |
//! | `tags-sent`, `bytes-sent` | guint64 | tags and bytes handed to servers, counted once for each server; repeated configuration is not counted |
//! | `tags-dropped` | guint64 | tags that no server got |
//! | `bitrate`, `bitrate-average`, `bitrate-peak` | guint64 | bits per second: in the last complete second (0 without a server), over all connected time, and in the busiest second |
//! | `current-level-bytes`, `current-level-time` | guint64 | size and duration of the queued tags |
//! | `attempts`, `connections` | guint64 | connections attempted, and connections that a server accepted |
//! | `uptime`, `outage` | guint64 | time since the present connection or outage began; the other one is 0 |
//! | `total-uptime`, `downtime` | guint64 | total time with a server, and without |
//! | `last-error` | string | reason for the last failure of a server; empty for none |
//! | `time-since-last-error` | guint64 | time since that failure; `GST_CLOCK_TIME_NONE` for none |
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod backlog;
mod configuration;
mod connection;
mod coordinator;
mod driver;
mod imp;
mod location;
mod schedule;
mod settings;
mod sockets;
mod stats;
mod tags;
mod video_tracks;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2fallbacksink",
        gst::DebugColorFlags::empty(),
        Some("RTMP sink with fallback servers"),
    )
});

glib::wrapper! {
    /// Element `rtmp2fallbacksink`: sends FLV to the first of several servers that accepts it.
    pub struct Rtmp2FallbackSink(ObjectSubclass<imp::Rtmp2FallbackSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// State of the sink's connection to a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2FallbackSinkStatus")]
#[repr(u32)]
pub enum FallbackStatus {
    /// Not connected, and waiting to retry.
    #[default]
    #[enum_value(name = "Not connected, and waiting to retry", nick = "disconnected")]
    Disconnected = 0,
    /// Connecting to a server.
    #[enum_value(name = "Connecting to a server", nick = "connecting")]
    Connecting = 1,
    /// Sending to a server.
    #[enum_value(name = "Sending to a server", nick = "connected")]
    Connected = 2,
    /// Gave up after max-attempts rounds.
    #[enum_value(name = "Gave up after max-attempts rounds", nick = "error")]
    Error = 3,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    FallbackStatus::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rtmp2fallbacksink",
        gst::Rank::NONE,
        Rtmp2FallbackSink::static_type(),
    )
}
