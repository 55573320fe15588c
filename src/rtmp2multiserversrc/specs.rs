// SPDX-License-Identifier: MPL-2.0

//! The specifications of properties: those of rtmp2serversrc without those of one stream.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use crate::rtmp2serversrc;

pub(super) const DEFAULT_MAX_STREAMS: u32 = 100;

/// Properties of rtmp2serversrc that this element does not have: a stream ends with its publisher,
/// and its state is a property of its pad.
const EXCLUDED: [&str; 6] = [
    "keep-listening",
    "connection-state",
    "stream-status",
    "epoch",
    "current-level-bytes",
    "current-level-time",
];

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let specs = rtmp2serversrc::build_specs().into_iter();
    let specs = specs.filter(|spec| !EXCLUDED.contains(&spec.name()));
    let spec = |spec: glib::ParamSpec| match spec.name() {
        "stats" => glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters of all streams together, of each of them, and of the process")
            .read_only()
            .build(),
        _ => spec,
    };
    let max_streams = glib::ParamSpecUInt::builder("max-streams")
        .nick("Max streams")
        .blurb(
            "Maximum number of streams at a time, a pad for each; one more publisher is rejected",
        )
        .minimum(1)
        .default_value(DEFAULT_MAX_STREAMS)
        .mutable_playing()
        .build();
    specs.map(spec).chain([max_streams]).collect()
});
