// SPDX-License-Identifier: MPL-2.0

//! The metrics for Prometheus: in base units, of each present stream, and of all streams since the
//! start.
//!
//! A stream that has ended is in none of them any more. So however many names appear, there are
//! never more than there are streams at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::{LabelPair, MetricFamily};

use crate::catalog::{StreamCounters, StreamInfo, StreamName};
use crate::web::Site;
use common::exposition::{self, family, labels};

/// A metric of each stream: name, help, value.
type StreamMetric = (&'static str, &'static str, fn(&StreamInfo) -> f64);

const OF_STREAM: &[StreamMetric] = &[
    (
        "relay_stream_uptime_seconds",
        "Time since the stream started.",
        |stream| stream.since.elapsed().as_secs_f64(),
    ),
    (
        "relay_stream_ready",
        "1 if its playlist can be played.",
        |stream| flag(stream.is_ready),
    ),
    (
        "relay_stream_interrupted",
        "1 if its publisher was cut off, and may return.",
        |stream| flag(stream.is_interrupted),
    ),
    (
        "relay_stream_passed_through",
        "1 if it passes through without encoding.",
        |stream| flag(stream.is_passed_through),
    ),
    (
        "relay_stream_failing",
        "1 if its files cannot be written or removed.",
        |stream| flag(stream.failure.is_some()),
    ),
];

/// A counter of each stream and of their sum: the end of its name, help, value.
type CounterMetric = (&'static str, &'static str, fn(&StreamCounters) -> u64);

const COUNTED: &[CounterMetric] = &[
    ("segments_total", "Segments written.", |counts| {
        counts.segments
    }),
    ("segment_bytes_total", "Bytes of segments.", |counts| {
        counts.segment_bytes
    }),
    (
        "discontinuities_total",
        "Segments that do not continue the one before.",
        |counts| counts.discontinuities,
    ),
    (
        "frames_received_total",
        "Frames that the publisher sent.",
        |counts| counts.frames_in,
    ),
    (
        "frames_written_total",
        "Frames in the segments.",
        |counts| counts.frames_out,
    ),
    (
        "frames_duplicated_total",
        "Frames repeated to fill gaps.",
        |counts| counts.frames_duplicated,
    ),
    (
        "frames_dropped_total",
        "Frames dropped because they were too many or too late.",
        |counts| counts.frames_dropped,
    ),
];

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn of(name: &StreamName) -> Vec<LabelPair> {
    labels(&[
        ("application", &name.application),
        ("stream", &name.stream),
        ("user", name.user.as_deref().unwrap_or_default()),
    ])
}

fn one(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, vec![(Vec::new(), value)])
}

fn of_streams(streams: &[(StreamName, StreamInfo)]) -> Vec<MetricFamily> {
    let mut families = Vec::new();
    for (name, help, value) in OF_STREAM {
        let samples = streams
            .iter()
            .map(|(name, stream)| (of(name), value(stream)));
        families.push(family(name, help, samples.collect()));
    }
    for (name, help, value) in COUNTED {
        let samples = streams
            .iter()
            .map(|(name, stream)| (of(name), value(&stream.counts) as f64));
        families.push(family(
            &format!("relay_stream_{name}"),
            help,
            samples.collect(),
        ));
    }
    families
}

/// Returns the metrics of the whole program, after those that all programs have.
pub fn text(
    site: &Site,
    is_healthy: bool,
    common: Vec<MetricFamily>,
) -> Result<String, prometheus::Error> {
    let streams = site.catalog.streams();
    let mut families = common;
    families.extend(of_streams(&streams));
    let count = |is: fn(&StreamInfo) -> bool| {
        let counted = streams.iter().filter(|(_, stream)| is(stream));
        counted.count() as f64
    };
    families.push(one("relay_streams", "Present streams.", count(|_| true)));
    families.push(one(
        "relay_streams_ready",
        "Streams that can be played.",
        count(|stream| stream.is_ready),
    ));
    let totals = site.catalog.totals();
    families.push(one(
        "relay_streams_total",
        "Streams that have started.",
        totals.streams as f64,
    ));
    for (name, help, value) in COUNTED {
        let value = value(&totals.counts) as f64;
        families.push(one(&format!("relay_{name}"), help, value));
    }

    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let deliveries = &site.deliveries;
    let outcomes = [
        ("delivered", &deliveries.delivered),
        ("lost", &deliveries.lost),
        ("refused", &deliveries.refused),
        ("retried", &deliveries.retried),
    ];
    families.push(family(
        "relay_notifications_total",
        "Notifications by outcome; retried counts each failed attempt.",
        outcomes
            .map(|(outcome, counter)| (labels(&[("outcome", outcome)]), read(counter)))
            .to_vec(),
    ));
    families.push(one(
        "relay_notifications_waiting",
        "Notifications waiting for delivery.",
        read(&deliveries.waiting),
    ));
    let outcomes = [
        ("asked", site.reconnect.moved()),
        ("served", site.reconnect.kept()),
    ];
    families.push(family(
        "relay_publishers_of_other_relays_total",
        "Publishers that belong to another relay: asked to go there, or served here.",
        outcomes
            .map(|(outcome, count)| (labels(&[("outcome", outcome)]), count as f64))
            .to_vec(),
    ));
    families.push(one(
        "relay_healthy",
        "1 if /health reports no problem.",
        flag(is_healthy),
    ));
    exposition::text(families)
}
