// SPDX-License-Identifier: MPL-2.0

//! The metrics for Prometheus. Their labels are `camera` and `stream`, and contain no stream keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::proto::MetricFamily;

use super::status::{COUNTERS, SharedStatus, Snapshot, SourceState};
use common::exposition::{family, labels};
use common::statistics::{Unit, number};

/// The present data of the metrics.
#[derive(Debug)]
pub struct MetricsSource {
    streams: Mutex<Vec<Arc<SharedStatus>>>,
    is_configuration_good: AtomicBool,
}

impl MetricsSource {
    pub fn new() -> Self {
        MetricsSource {
            streams: Mutex::default(),
            is_configuration_good: AtomicBool::new(true),
        }
    }

    pub fn set_streams(&self, streams: Vec<Arc<SharedStatus>>) {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner) = streams;
    }

    /// `is_good`: the configuration that was read last is in use.
    pub fn set_configuration(&self, is_good: bool) {
        self.is_configuration_good.store(is_good, Ordering::Relaxed);
    }

    /// Returns the streams in the order of the configuration.
    pub fn streams(&self) -> Vec<Arc<SharedStatus>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.clone()
    }

    pub fn families(&self) -> Vec<MetricFamily> {
        let streams = self.streams();
        let snapshots: Vec<(&SharedStatus, Snapshot)> = streams
            .iter()
            .map(|shared| (&**shared, shared.snapshot()))
            .collect();
        let mut families: Vec<MetricFamily> = METRICS
            .iter()
            .map(|(name, help, value)| {
                let sample = |(shared, snapshot): &(&SharedStatus, Snapshot)| {
                    let name = &shared.name;
                    let labels = labels(&[("camera", &name.camera), ("stream", &name.stream)]);
                    value(snapshot).map(|value| (labels, value))
                };
                family(name, help, snapshots.iter().filter_map(sample).collect())
            })
            .collect();
        let is_good = self.is_configuration_good.load(Ordering::Relaxed);
        families.push(family(
            "multicam_configuration_good",
            "1 if the configuration that was read last is in use.",
            vec![(Vec::new(), f64::from(u8::from(is_good)))],
        ));
        families
    }
}

type Value = fn(&Snapshot) -> Option<f64>;

const METRICS: &[(&str, &str, Value)] = &[
    (
        "multicam_status",
        "State of the sink: 0 disconnected, 1 connecting, 2 connected, 3 given up.",
        |snapshot| Some(f64::from(snapshot.state.status.sink as u32)),
    ),
    (
        "multicam_source_active",
        "1 if media comes from the source.",
        |snapshot| {
            let is_active = snapshot.state.status.source == SourceState::Active;
            Some(f64::from(u8::from(is_active)))
        },
    ),
    (
        "multicam_location",
        "Index of the server that is connected or tried: 0 is the first one, -1 none.",
        |snapshot| Some(f64::from(snapshot.state.status.index)),
    ),
    (
        "multicam_sent_tags_total",
        "Tags sent to servers.",
        |snapshot| counter(snapshot, "tags-sent", 1.0),
    ),
    (
        "multicam_sent_bytes_total",
        "Bytes of tags sent to servers.",
        |snapshot| counter(snapshot, "bytes-sent", 1.0),
    ),
    (
        "multicam_sent_bytes_per_second",
        "Bytes sent to servers in the last full second.",
        |snapshot| gauge(snapshot, "bitrate", Unit::BitsPerSecond),
    ),
    (
        "multicam_sent_average_bytes_per_second",
        "Bytes sent per second of connection, since the pipeline started.",
        |snapshot| gauge(snapshot, "bitrate-average", Unit::BitsPerSecond),
    ),
    (
        "multicam_sent_peak_bytes_per_second",
        "Bytes in the peak second since the pipeline started.",
        |snapshot| gauge(snapshot, "bitrate-peak", Unit::BitsPerSecond),
    ),
    (
        "multicam_dropped_tags_total",
        "Tags that no server received.",
        |snapshot| counter(snapshot, "tags-dropped", 1.0),
    ),
    (
        "multicam_attempts_total",
        "Connection attempts.",
        |snapshot| counter(snapshot, "attempts", 1.0),
    ),
    (
        "multicam_connections_total",
        "Accepted connections.",
        |snapshot| counter(snapshot, "connections", 1.0),
    ),
    (
        "multicam_uptime_seconds_total",
        "Time with a server.",
        |snapshot| counter(snapshot, "total-uptime", 1e-9),
    ),
    (
        "multicam_downtime_seconds_total",
        "Time without a server.",
        |snapshot| counter(snapshot, "downtime", 1e-9),
    ),
    (
        "multicam_queue_bytes",
        "Bytes waiting to be sent.",
        |snapshot| gauge(snapshot, "current-level-bytes", Unit::None),
    ),
    (
        "multicam_queue_duration_seconds",
        "Media time waiting to be sent.",
        |snapshot| gauge(snapshot, "current-level-time", Unit::Nanoseconds),
    ),
    (
        "multicam_restarts_total",
        "Restarts of the pipeline.",
        |snapshot| Some(snapshot.restarts as f64),
    ),
];

fn counter(snapshot: &Snapshot, field: &str, unit: f64) -> Option<f64> {
    let index = COUNTERS.iter().position(|counter| *counter == field)?;
    Some(snapshot.counters[index] as f64 * unit)
}

fn gauge(snapshot: &Snapshot, field: &str, unit: Unit) -> Option<f64> {
    number(snapshot.stats.as_ref()?, field, unit)
}
