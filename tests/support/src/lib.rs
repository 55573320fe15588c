// SPDX-License-Identifier: MPL-2.0

//! Publishers, servers, networks and media for the tests of the plugin and of the programs.

pub mod camera;
pub mod clients;
pub mod demuxer;
pub mod flv;
pub mod gate;
pub mod gst_clients;
pub mod isolated;
pub mod launch;
pub mod manual_clock;
pub mod media;
pub mod netns;
pub mod nginx;
pub mod ports;
pub mod program;
pub mod raw;
pub mod recorder;
pub mod resources;
pub mod signals;
pub mod synthetic;
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use gst::prelude::*;

/// Long enough for anything on a busy machine. It only passes when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The top folder of the repository.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.join("../..").canonicalize().unwrap()
}

/// Registers the elements in this process.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstrtmp2server::plugin_register_static().expect("the plugin registers");
    });
}

/// Plays to the end, and returns how many buffers its element `sink` has rendered.
#[track_caller]
pub fn rendered(pipeline: &gst::Element) -> u64 {
    let sink = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let sink = sink.by_name("sink").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(patience, &kinds).expect("it ends");
    let stats: gst::Structure = sink.property("stats");
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    stats.get("rendered").unwrap()
}
