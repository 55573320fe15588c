// SPDX-License-Identifier: MPL-2.0

//! The property `stats`: totals over the streams, and the statistics of each. The documentation of the
//! element has the table of fields.

use std::time::Instant;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::running::Running;
use crate::rtmp2serversrc::stats::{process, with_last_error};

/// Fields of a stream's statistics that are summed over all streams since the start.
const SUMMED: [&str; 25] = [
    "total-in-bytes",
    "total-tags",
    "total-audio-tags",
    "total-video-tags",
    "total-script-tags",
    "total-audio-bytes",
    "total-video-bytes",
    "total-script-bytes",
    "total-keyframes",
    "total-skipped",
    "publishers",
    "reconnects",
    "replacements",
    "total-uptime",
    "downtime",
    "dropped-queue-full",
    "dropped-before-keyframe",
    "dropped-descriptions",
    "dropped-late",
    "dropped-codec-refused",
    "dropped-cut-off",
    "timestamps-clamped",
    "timestamp-jumps",
    "timestamps-frozen",
    "force-key-unit-events",
];

/// Fields that are summed over the present streams.
const SUMMED_NOW: [&str; 3] = ["bitrate", "current-level-bytes", "current-level-time"];

/// Totals over several streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums([u64; SUMMED.len()]);

impl Sums {
    pub(super) fn add(&mut self, stats: &gst::StructureRef) {
        for (sum, name) in self.0.iter_mut().zip(SUMMED) {
            *sum = sum.saturating_add(number(stats, name));
        }
    }
}

fn number(stats: &gst::StructureRef, name: &str) -> u64 {
    stats.get(name).unwrap_or_default()
}

pub(super) fn structure(run: Option<&Running>) -> gst::Structure {
    let branches = run.into_iter().flat_map(Running::branches);
    let streams = branches.map(|branch| {
        let mut stats = branch.source.imp().stats();
        stats.set("pad", branch.pad.name().as_str());
        stats
    });
    let streams: Vec<gst::Structure> = streams.collect();
    let sums = run.map(|run| run.sums(&streams)).unwrap_or_default();
    let table = run.map(Running::table);
    let publishing = table.map_or(0, |table| table.publishing() as u64);
    let mut structure = gst::Structure::builder("application/x-rtmp2multiserversrc-stats")
        .field("publishing", publishing);
    for (name, sum) in SUMMED.iter().zip(sums.0) {
        structure = structure.field(*name, sum);
    }
    for name in SUMMED_NOW {
        let sum: u64 = streams.iter().map(|stats| number(stats, name)).sum();
        structure = structure.field(name, sum);
    }
    let error = table.and_then(|table| table.last_error());
    with_last_error(structure, error.as_ref(), Instant::now())
        .field("rejected", table.map_or(0, |table| table.rejected()))
        .field("process", process())
        .field("streams", gst::Array::new(streams))
        .build()
}
