// SPDX-License-Identifier: MPL-2.0

//! RTMP ingest inside GStreamer: encoders publish to an element of the pipeline, with no media
//! server beside it.
//!
//! Register the elements with [`plugin_register_static`], and create them by name: `rtmp2serversrc`
//! (FLV), `rtmp2serverbin` (a pad for each track), `rtmp2multiserversrc` (a pad for each
//! publisher), `eflvdemux`, `rtmp2fallbacksink` and `rtmp2recordsink`. `docs/elements.md` documents
//! their properties, signals and messages.
//!
//! ```no_run
//! use gst::prelude::*;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     gst::init()?;
//!     gstrtmp2server::plugin_register_static()?;
//!     // Publish with: ffmpeg -re -i input.mp4 -c copy -f flv rtmp://127.0.0.1/live/camera1
//!     let pipeline = gst::parse::launch(
//!         "rtmp2serverbin name=s s.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink",
//!     )?;
//!     pipeline.set_state(gst::State::Playing)?;
//!     let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
//!     bus.timed_pop_filtered(None, &[gst::MessageType::Eos, gst::MessageType::Error]);
//!     pipeline.set_state(gst::State::Null)?;
//!     Ok(())
//! }
//! ```

// For the library only, so not in Cargo.toml: in programs and tests every `pub` is unreachable.
#![warn(missing_docs, unreachable_pub)]

// Modules with `allow` are public in `internal` only.
#[allow(missing_docs)]
mod amf0;
mod demuxer_choice;
mod eflvdemux;
mod eflvlivedemux;
#[allow(missing_docs)]
mod feed;
#[allow(missing_docs)]
mod flv;
mod lists;
mod memory;
mod plugin;
mod post_permits;
mod rate;
#[allow(missing_docs)]
mod rtmp;
mod rtmp2fallbacksink;
mod rtmp2multiserversrc;
mod rtmp2recordsink;
mod rtmp2serverbin;
mod rtmp2serversrc;
mod server;
mod steps;
mod unlinked;

pub use eflvdemux::EFlvDemux;
pub use eflvlivedemux::EFlvLiveDemux;
pub use plugin::plugin_register_static;
pub use rtmp2fallbacksink::{FallbackStatus, Rtmp2FallbackSink};
pub use rtmp2multiserversrc::{Rtmp2MultiServerSrc, Rtmp2MultiServerSrcPad};
pub use rtmp2recordsink::Rtmp2RecordSink;
pub use rtmp2serverbin::Rtmp2ServerBin;
pub use rtmp2serversrc::{
    AuthMod, ConnectionState, LeakyType, LogKeys, ProxyProtocol, PublisherPolicy, Rtmp2ServerSrc,
    Standby, StreamEvent, StreamStatus, TimestampMode,
};

/// Parts for the tests and benchmarks of this crate, without any promise of stability.
#[doc(hidden)]
pub mod internal {
    pub mod amf0 {
        pub use crate::amf0::*;
    }
    pub mod feed {
        pub use crate::feed::*;
    }
    pub mod flv {
        pub use crate::flv::*;
    }
    pub mod memory {
        pub use crate::memory::*;
    }
    pub mod rtmp {
        pub use crate::rtmp::*;
    }
    pub mod server {
        pub use crate::server::{RequestedPath, Route};
    }
}
