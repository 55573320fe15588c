// SPDX-License-Identifier: MPL-2.0

#![doc = include_str!("../docs/ARCHITECTURE.md")]

pub mod amf0;
mod eflvdemux;
pub mod feed;
pub mod flv;
pub mod memory;
mod rate;
pub mod rtmp;
mod rtmp2fallbacksink;
mod rtmp2multiserversrc;
mod rtmp2serverbin;
mod rtmp2serversrc;
pub mod server;

pub use eflvdemux::EFlvDemux;
pub use rtmp2fallbacksink::{FallbackStatus, Rtmp2FallbackSink};
pub use rtmp2multiserversrc::{Rtmp2MultiServerSrc, Rtmp2MultiServerSrcPad};
pub use rtmp2serverbin::Rtmp2ServerBin;
pub use rtmp2serversrc::{
    AuthMod, ConnectionState, LeakyType, ProxyProtocol, PublisherPolicy, Rtmp2ServerSrc,
    StreamEvent, StreamStatus, TimestampMode,
};

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    rtmp2serversrc::register(plugin)?;
    rtmp2multiserversrc::register(plugin)?;
    rtmp2fallbacksink::register(plugin)?;
    eflvdemux::register(plugin)?;
    rtmp2serverbin::register(plugin)
}

gst::plugin_define!(
    rtmp2server,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL-2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://crates.io/crates/gst-plugin-rtmp2server",
    env!("BUILD_REL_DATE")
);
