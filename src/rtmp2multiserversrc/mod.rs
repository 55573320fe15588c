// SPDX-License-Identifier: MPL-2.0

//! # rtmp2multiserversrc
//!
//! SECTION:element-rtmp2multiserversrc
//! @see_also: rtmp2serversrc
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod branch;
mod imp;
mod observer;
mod pad;
mod run;
mod signals;
mod specs;
mod stats;

glib::wrapper! {
    pub struct Rtmp2MultiServerSrc(ObjectSubclass<imp::Rtmp2MultiServerSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

glib::wrapper! {
    pub struct Rtmp2MultiServerSrcPad(ObjectSubclass<pad::Rtmp2MultiServerSrcPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    Rtmp2MultiServerSrcPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rtmp2multiserversrc",
        gst::Rank::NONE,
        Rtmp2MultiServerSrc::static_type(),
    )
}
