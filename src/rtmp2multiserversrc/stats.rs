// SPDX-License-Identifier: MPL-2.0

//! The property `stats`: totals over the streams, and the statistics of each. The documentation of the
//! element has the table of fields.

use std::time::Instant;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::running::Running;
use super::totals::{SUMMED, number};
use crate::rtmp2serversrc::stats::{process, with_last_error};

/// Fields that are summed over the present streams.
const SUMMED_NOW: [&str; 3] = ["bitrate", "current-level-bytes", "current-level-time"];

pub(super) fn structure(running: Option<&Running>) -> gst::Structure {
    let branches = running.into_iter().flat_map(Running::branches);
    let streams = branches.map(|branch| {
        let mut stats = branch.source.imp().stats();
        stats.set("pad", branch.pad.name().as_str());
        stats
    });
    let streams: Vec<gst::Structure> = streams.collect();
    let totals = running.map(|run| run.totals(&streams)).unwrap_or_default();
    let table = running.map(Running::table);
    let publishing = table.map_or(0, |table| table.publishing() as u64);
    let mut structure = gst::Structure::builder("application/x-rtmp2multiserversrc-stats")
        .field("publishing", publishing);
    for (name, sum) in SUMMED.iter().zip(totals.0) {
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
