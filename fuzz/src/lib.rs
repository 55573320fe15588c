// SPDX-License-Identifier: MPL-2.0

//! The crate under the fuzz targets: the plugin's protocol core, the same source files, without the
//! rest of the plugin. That it compiles also shows that the core needs no GStreamer.

// The elements use what no fuzz target does.
#![allow(dead_code)]

#[path = "../../src/amf0/mod.rs"]
pub mod amf0;
#[path = "../../src/feed/mod.rs"]
pub mod feed;
#[path = "../../src/flv/mod.rs"]
pub mod flv;
#[path = "../../src/memory.rs"]
pub mod memory;
#[path = "../../src/rtmp/mod.rs"]
pub mod rtmp;
#[path = "../../src/steps.rs"]
mod steps;

pub mod meter;
pub mod pieces;
