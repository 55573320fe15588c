// SPDX-License-Identifier: MPL-2.0

//! What the tests have in common.

pub mod clients;
pub mod flv;
pub mod gst_clients;
pub mod launch;
pub mod media;
pub mod raw;
pub mod recorder;
pub mod synthetic;
pub mod wire;

use std::sync::Once;
use std::time::Duration;

/// Long enough for anything on a busy machine. Nothing waits for it unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the element known in this process.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstrtmp2server::plugin_register_static().expect("the plugin registers");
    });
}
