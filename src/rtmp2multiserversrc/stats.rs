// SPDX-License-Identifier: MPL-2.0

//! The property `stats`: totals over the streams, and the statistics of each. The documentation of
//! the element has the table of fields.

use std::time::Instant;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::running::Running;
use crate::rtmp2serversrc::stats::{StreamLoad, process, with_last_error, with_load, with_totals};

pub(super) fn structure(running: Option<&Running>) -> gst::Structure {
    let mut counters = running.map(Running::finished).unwrap_or_default();
    let mut load = StreamLoad::default();
    let now = Instant::now();
    let branches = running.into_iter().flat_map(Running::branches);
    let streams = branches.map(|branch| {
        let statistics = branch.source.imp().statistics();
        counters += statistics.counters();
        load += statistics.load();
        let pad = branch.pad.name();
        statistics.structure().field("pad", pad.as_str()).build()
    });
    let streams: Vec<gst::Structure> = streams.collect();
    let table = running.map(Running::table);
    let publishing = table.map_or(0, |table| table.publishing() as u64);
    let structure = gst::Structure::builder("application/x-rtmp2multiserversrc-stats")
        .field("publishing", publishing);
    let totals = table.map(|table| table.totals(now)).unwrap_or_default();
    let structure = with_totals(structure, &totals, &counters);
    let structure = with_load(structure, &load);
    let error = table.and_then(|table| table.last_error());
    with_last_error(structure, error.as_ref(), now)
        .field("rejected", table.map_or(0, |table| table.rejected()))
        .field("process", process())
        .field("streams", gst::Array::new(streams))
        .build()
}
