// SPDX-License-Identifier: MPL-2.0

//! The streams as the page for operators shows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::statistics::{Unit, number};
use dashboard::{Detail, Observation, Program, StreamState};
use gst::prelude::*;
use gstrtmp2server::FallbackStatus;
use prometheus::proto::MetricFamily;

use super::metrics::MetricsSource;
use super::status::{SharedStatus, Snapshot, SourceState, sink_text};
use super::stream::Context;

#[derive(Debug)]
pub struct Cameras {
    streams: Arc<MetricsSource>,
    is_draining: Arc<AtomicBool>,
}

impl Cameras {
    pub fn new(streams: &Arc<MetricsSource>, context: &Context) -> Self {
        Cameras {
            streams: streams.clone(),
            is_draining: context.is_draining.clone(),
        }
    }
}

impl Program for Cameras {
    fn observations(&self) -> Vec<Observation> {
        let streams = self.streams.streams();
        streams.iter().map(|stream| observation(stream)).collect()
    }

    fn drain(&self) {
        // Streams that start later see it themselves.
        self.is_draining.store(true, Ordering::SeqCst);
        for stream in self.streams.streams() {
            if let Some(source) = stream.publisher_source() {
                source.set_property("drain", true);
            }
        }
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        self.streams.families()
    }
}

fn observation(shared: &SharedStatus) -> Observation {
    let name = shared.name.to_string();
    let snapshot = shared.snapshot();
    let mut observation = match shared.publisher_source() {
        Some(source) => {
            let application: Option<String> = source.property("application");
            Observation::of_source(&name, &application.unwrap_or_default(), &source)
        }
        None => Observation::without_publisher(&name, state(snapshot.state.status.source)),
    };
    if snapshot.state.status.source == SourceState::Failed {
        observation.state = StreamState::Failed;
    }
    if observation.stats.is_none() {
        // Everything that arrives is sent, so the rate to the server stands for it.
        let sent = snapshot.stats.as_ref();
        let rate = sent.and_then(|stats| number(stats, "bitrate", Unit::None));
        observation.bitrate = rate.unwrap_or_default() as u64;
    }
    observation.details = details(&snapshot);
    observation.picture = shared.picture();
    observation
}

/// Returns the state of a source that no publisher is behind.
fn state(source: SourceState) -> StreamState {
    match source {
        SourceState::Active => StreamState::Active,
        SourceState::Starting => StreamState::Reconfiguring,
        SourceState::Stalled => StreamState::Paused,
        SourceState::Waiting | SourceState::Ended => StreamState::Stopped,
        SourceState::Failed => StreamState::Failed,
    }
}

/// Returns what happens to the stream after its source.
fn details(snapshot: &Snapshot) -> Vec<Detail> {
    let status = &snapshot.state.status;
    let mut details = vec![Detail::new("Sending", sink_text(status))];
    let mut add = |label: &str, value: String| details.push(Detail::new(label, value));
    if !status.location.is_empty() {
        add("To", status.location.clone());
    }
    if status.sink != FallbackStatus::Connected && !status.error.is_empty() {
        add("Because", status.error.clone());
    }
    if snapshot.restarts > 0 {
        add("Restarts", snapshot.restarts.to_string());
    }
    details
}
