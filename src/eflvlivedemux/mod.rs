// SPDX-License-Identifier: MPL-2.0

//! # eflvlivedemux
//!
//! SECTION:element-eflvlivedemux
//! @see_also: eflvdemux, rtmp2serversrc
//!
//! The eflvdemux that decodebin3, decodebin and parsebin choose for the Enhanced FLV of rtmp2serversrc:
//! HEVC, AV1, VP9, Opus and all else that flvdemux does not know. It is for them, and pipelines that
//! name their demuxer use eflvdemux.
//!
//! These bins choose by caps and rank. rtmp2serversrc says `enhanced=(boolean)true` in its caps when its
//! stream has Enhanced FLV, and for such caps this element has a higher rank than flvdemux. Caps without
//! that field, as files and plain streams have them, do not match it, so that flvdemux keeps those.
//!
//! From GStreamer 1.26 on, decodebin3 finds no decoder for some plain streams of H.264 behind
//! flvdemux. There rtmp2serversrc says `enhanced=(boolean)false` of them, which this element accepts too.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 ! decodebin3 ! videoconvert ! autovideosink
//! ```
//! Shows a publisher of H.264, HEVC, AV1 or VP9.
//!
//! Pads, times, events, messages and #GstEFLVLiveDemux:stats are those of eflvdemux.
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod imp;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "eflvlivedemux",
        gst::DebugColorFlags::empty(),
        Some("Enhanced FLV demuxer of live streams"),
    )
});

glib::wrapper! {
    /// Element `eflvlivedemux`: the demuxer that bins choose for Enhanced FLV.
    pub struct EFlvLiveDemux(ObjectSubclass<imp::EFlvLiveDemux>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "eflvlivedemux",
        // Above flvdemux, whose caps match too.
        gst::Rank::PRIMARY + 1,
        EFlvLiveDemux::static_type(),
    )
}
