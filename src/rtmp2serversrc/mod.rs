// SPDX-License-Identifier: MPL-2.0

//! # rtmp2serversrc
//!
//! SECTION:element-rtmp2serversrc
//!
//! A live source that listens for an RTMP publisher (an encoder, OBS, a phone, another server) and
//! gives what it publishes as FLV, with no media server in between.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serversrc port=1935 ! filesink location=out.flv
//! ```
//! Records whatever is published to port 1935 until the publisher leaves.
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 application=live stream-key=camera keep-listening=true \
//!     ! flvdemux name=d d.video ! queue ! h264parse ! avdec_h264 ! videoconvert ! autovideosink \
//!     d.audio ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays H.264 video and AAC audio published to `rtmp://HOST:1935/live/camera`, one
//! publisher after the other. flvdemux wants both linked: it fails when the first track that it
//! finds is not.
//!
//! ## What comes out
//!
//! One buffer a tag of one endless FLV stream: the file header once, no second one and no flush
//! when another publisher follows. Metadata and sequence headers are also in the caps, as
//! `streamheader`. Buffers have DTS and PTS, `HEADER` on what is in the stream header,
//! `DELTA_UNIT` where decoding can't start, `DISCONT` after a gap and at the start of each
//! publisher, and a `GstReferenceTimestampMeta` (`timestamp/x-rtmp`) with the publisher's own time.
//! The codec does not matter: what Enhanced RTMP carries passes byte for byte.
//!
//! With #GstRtmp2ServerSrc:timestamp-mode at its default, the first media is at the running time
//! of its arrival, however long after the start of the pipeline that is, so that a live sink shows
//! every frame.
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod buffers;
mod imp;
mod location;
mod settings;
mod stats;

glib::wrapper! {
    pub struct Rtmp2ServerSrc(ObjectSubclass<imp::Rtmp2ServerSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// Where the times of buffers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRtmp2ServerSrcTimestampMode")]
#[repr(u32)]
pub enum TimestampMode {
    /// First media of a publisher is at the running time of its arrival, and the stream goes on
    /// over all publishers.
    #[default]
    #[enum_value(name = "Running time at arrival", nick = "running-time")]
    RunningTime,
    /// The publisher's own timestamps, with a segment for each publisher.
    #[enum_value(name = "Timestamps of the publisher", nick = "publisher")]
    Publisher,
}

/// What a full queue does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRtmp2ServerSrcLeakyType")]
#[repr(u32)]
pub enum LeakyType {
    /// Stop reading, so that TCP pushes back on the publisher and nothing is lost.
    #[default]
    #[enum_value(name = "Not leaky: push back on the publisher", nick = "none")]
    None,
    #[enum_value(
        name = "Leaky on upstream: drop new groups of pictures",
        nick = "upstream"
    )]
    Upstream,
    #[enum_value(
        name = "Leaky on downstream: drop old groups of pictures",
        nick = "downstream"
    )]
    Downstream,
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    {
        TimestampMode::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
        LeakyType::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(
        Some(plugin),
        "rtmp2serversrc",
        gst::Rank::NONE,
        Rtmp2ServerSrc::static_type(),
    )
}
