// SPDX-License-Identifier: MPL-2.0

//! # rtmp2fallbacksink
//!
//! SECTION:element-rtmp2fallbacksink
//!
//! A sink that sends FLV to the first of several RTMP servers that takes it, and goes on with the
//! next one when that fails. Upstream notices nothing of it: it neither waits nor fails, and what can't
//! be sent is dropped.
//!
//! ## Example pipeline
//!
//! ```bash
//! gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency key-int-max=30 ! h264parse \
//!     ! flvmux streamable=true ! rtmp2fallbacksink \
//!     variables="variables,camera_id=7,stream_name=garden" return-to-primary=60000 \
//!     locations="<(string)\"rtmp://first.example/live/cam{camera_id}_{stream_name}\", (string)\"rtmp://second.example/live/cam{camera_id}_{stream_name}\">"
//! ```
//! Sends to the first server, to the second one while the first does not take it, and each minute looks
//! whether it can go back.
//!
//! ## Where to send to
//!
//! #GstRtmp2FallbackSink:locations are URLs with application and stream key, and with user and password
//! where the server wants them (`rtmp://user:password@HOST/...`). `{name}` in them is a variable, and
//! stands for the field of this name in #GstRtmp2FallbackSink:variables. One that is not there or empty
//! is an error at the start, which names it.
//!
//! Each buffer has to be one FLV tag, as flvmux and rtmp2serversrc make them. Connections are made with
//! the rtmp2sink of GStreamer.
//!
//! ## When to send where
//!
//! Where a server refuses the stream, takes nothing of it for #GstRtmp2FallbackSink:timeout, or breaks
//! the connection, the next location is tried at once. After the last one that is a round; the next
//! round starts with the first location, after #GstRtmp2FallbackSink:retry-initial-delay, which doubles
//! with each round up to #GstRtmp2FallbackSink:retry-max-delay. After
//! #GstRtmp2FallbackSink:max-attempts rounds it is an error of the pipeline. A connection that has held for 10
//! seconds ends the count, and a round counts only if the first location was in it: where a later one is
//! lost after a long time, nobody knows of those before it.
//!
//! While another location than the first is sent to, that is tried beside it each
//! #GstRtmp2FallbackSink:return-to-primary. Once it takes the stream, this moves there with the next keyframe,
//! and no tag is lost.
//!
//! A server gets metadata and sequence headers first, then the stream from a keyframe on, at times that
//! start with 0 there. Where upstream starts its time anew, that of the server stays and then goes on.
//!
//! While there is no server, the last group of pictures is held for the next one, and so is what another
//! server has got of it: the next one gets the group that was under way from its keyframe on, unless that is
//! longer ago than #GstRtmp2FallbackSink:max-time, or larger than #GstRtmp2FallbackSink:max-bytes together with
//! what waits. While a server takes too little, whole groups are dropped beyond #GstRtmp2FallbackSink:max-bytes or
//! #GstRtmp2FallbackSink:max-time. That a server takes nothing shows only when the buffers of both systems
//! are full, which a stream of few bits takes a while to do; what is in them is lost, but for the group of
//! pictures under way. On Linux no more than 128 KiB waits to be sent in the own
//! system, and what the server's takes is on top; on others it may be megabytes.
//!
//! Video that has not come for 10 seconds, while audio has, is not waited for by who connects then.
//!
//! Sound waits for the next picture to be sent with, at most 50 ms.
//!
//! At the end of the stream what waits is sent to a server that is there or comes in the present round;
//! nothing is waited for beyond that.
//!
//! ## What it tells
//!
//! #GstRtmp2FallbackSink:status is also told by notifications and by an element message
//! `rtmp2-fallback-status` at each change, with `version` (guint, 1), `status`, `location-index` (gint, -1
//! for none), `location` (without the stream key), `rounds` (guint, those that have failed) and
//! `last-error`. Stream keys and passwords are in no message and in no log of this element.
//!
//! #GstRtmp2FallbackSink:stats has, since the start of the element, and in nanoseconds where it is time:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `status`, `location-index` | as in the message | where it sends to |
//! | `tags-sent`, `bytes-sent` | guint64 | given to servers, each time that this was done; configuration that is sent again does not count |
//! | `tags-dropped` | guint64 | not given to any |
//! | `bitrate`, `bitrate-average`, `bitrate-peak` | guint64 | bits per second: in the last whole second (0 while there is no server), over all time with a server, and in the second that had the most |
//! | `current-level-bytes`, `current-level-time` | guint64 | what waits |
//! | `attempts`, `connections` | guint64 | connections that were tried, and those that a server has accepted |
//! | `uptime`, `outage` | guint64 | how long there has been a server now, or none; the other one is 0 |
//! | `total-uptime`, `downtime` | guint64 | all time with a server, and without |
//! | `last-error` | string | why a server was left last; empty for none |
//! | `time-since-last-error` | guint64 | since then; `GST_CLOCK_TIME_NONE` for none |
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod backlog;
mod connection;
mod driver;
mod imp;
mod location;
mod schedule;
mod settings;
mod shared;
mod sockets;
mod stats;
mod tags;

glib::wrapper! {
    pub struct Rtmp2FallbackSink(ObjectSubclass<imp::Rtmp2FallbackSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// Whether a server takes the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRtmp2FallbackSinkStatus")]
#[repr(u32)]
pub enum Status {
    #[default]
    #[enum_value(
        name = "No server takes it, and none is tried now",
        nick = "disconnected"
    )]
    Disconnected = 0,
    #[enum_value(name = "A server is being tried", nick = "connecting")]
    Connecting = 1,
    #[enum_value(name = "A server takes it", nick = "connected")]
    Connected = 2,
    #[enum_value(name = "Given up", nick = "error")]
    Error = 3,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    Status::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rtmp2fallbacksink",
        gst::Rank::NONE,
        Rtmp2FallbackSink::static_type(),
    )
}
