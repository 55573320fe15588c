// SPDX-License-Identifier: MPL-2.0

//! The metrics that all programs have, under the same names: `rtmp2_...`.
//!
//! Their labels are the name of the stream (`element`) and its application. Only streams that the
//! program has now are in them, so that there are never more than there are streams at a time.

mod table;

use common::exposition::{family, labels};
use common::statistics::{Unit, number};
use prometheus::proto::{LabelPair, MetricFamily};

use crate::facts::Facts;
use crate::program::{ElementStats, Observation, Program};
use crate::rejected_clients::RejectedClients;
use crate::state::StreamState;
use table::{Description, OF_ACCESS, OF_ELEMENT, OF_PROCESS};

/// Returns the metrics of each stream, of refused clients, and of the process.
pub fn families(program: &dyn Program, refusals: &RejectedClients) -> Vec<MetricFamily> {
    let observations = program.observations();
    let mut families: Vec<MetricFamily> = OF_ELEMENT
        .iter()
        .map(|description| of_streams(description, &observations))
        .collect();
    families.push(dropped(&observations));
    let elements = program.elements(&observations);
    let accesses = OF_ACCESS.iter();
    families.extend(accesses.map(|description| of_elements(description, &elements)));
    families.push(last_errors(&elements));
    families.push(information(&observations));
    families.push(running(&observations));
    families.push(rejected(refusals));
    if let Some(process) = program.process(&observations) {
        families.extend(OF_PROCESS.iter().map(|metric| of_process(metric, &process)));
    }
    families.extend(program.metrics());
    families
}

fn labels_of(observation: &Observation, label: &str, value: &str) -> Vec<LabelPair> {
    labels(&[
        ("element", &observation.name),
        ("application", &observation.application),
        (label, value),
    ])
}

fn of_streams(description: &Description, observations: &[Observation]) -> MetricFamily {
    let mut samples = Vec::new();
    for (observation, stats) in with_stats(observations) {
        for (value, field) in description.fields {
            let number = number(stats, field, description.unit);
            let labels = labels_of(observation, description.label, value);
            samples.extend(number.map(|number| (labels, number)));
        }
    }
    family(description.name, description.help, samples)
}

fn with_stats(
    observations: &[Observation],
) -> impl Iterator<Item = (&Observation, &gst::Structure)> {
    let observations = observations.iter();
    observations.filter_map(|observation| Some((observation, observation.stats.as_ref()?)))
}

fn dropped(observations: &[Observation]) -> MetricFamily {
    let mut samples = Vec::new();
    for (observation, stats) in with_stats(observations) {
        for (field, _) in stats.iter() {
            if let Some(reason) = field.as_str().strip_prefix("dropped-") {
                let number = number(stats, field.as_str(), Unit::None);
                let labels = labels_of(observation, "reason", reason);
                samples.extend(number.map(|number| (labels, number)));
            }
        }
    }
    family(
        "rtmp2_dropped_tags_total",
        "Tags that were dropped.",
        samples,
    )
}

fn of_elements(description: &Description, elements: &[ElementStats]) -> MetricFamily {
    let sample = |element: &ElementStats| {
        let (_, field) = description.fields.first()?;
        let number = number(&element.stats, field, description.unit)?;
        Some((labels_of_element(element, ""), number))
    };
    let samples = elements.iter().filter_map(sample).collect();
    family(description.name, description.help, samples)
}

fn labels_of_element(element: &ElementStats, reason: &str) -> Vec<LabelPair> {
    labels(&[
        ("element", &element.name),
        ("application", &element.application),
        (if reason.is_empty() { "" } else { "reason" }, reason),
    ])
}

fn last_errors(elements: &[ElementStats]) -> MetricFamily {
    let sample = |element: &ElementStats| {
        let error = element.stats.get::<&str>("last-error").unwrap_or_default();
        // The text after the colon may come from the client, and each label is kept forever.
        let kind = error.split(':').next().filter(|kind| !kind.is_empty())?;
        Some((labels_of_element(element, kind), 1.0))
    };
    let samples = elements.iter().filter_map(sample).collect();
    let help = "Reason of the last rejection or cut.";
    family("rtmp2_last_error_info", help, samples)
}

/// Returns a sample for each stream with a publisher: what it sends.
fn information(observations: &[Observation]) -> MetricFamily {
    let sample = |(observation, stats): (&Observation, &gst::Structure)| {
        let facts = Facts::of(stats);
        facts.address.as_ref()?;
        let resolution = facts.resolution();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let labels = labels(&[
            ("element", &observation.name),
            ("application", &observation.application),
            ("codec", &text(&facts.video_codec)),
            ("audio_codec", &text(&facts.audio_codec)),
            ("resolution", &text(&resolution)),
            ("encoder", &text(&facts.encoder)),
        ]);
        Some((labels, 1.0))
    };
    let samples = with_stats(observations).filter_map(sample).collect();
    let help = "1 for each stream with a publisher; the labels say what it sends.";
    family("rtmp2_stream_info", help, samples)
}

fn running(observations: &[Observation]) -> MetricFamily {
    let sample = |observation: &Observation| {
        let is_running = observation.state != StreamState::Failed;
        (
            labels_of(observation, "", ""),
            f64::from(u8::from(is_running)),
        )
    };
    let help = "1 unless the pipeline has failed or ended.";
    let samples = observations.iter().map(sample).collect();
    family("rtmp2_pipeline_running", help, samples)
}

fn rejected(refusals: &RejectedClients) -> MetricFamily {
    let counts = refusals.counts().into_iter();
    let samples = counts.map(|(reason, count)| (labels(&[("reason", &reason)]), count as f64));
    let help = "Refused clients by reason, each counted once.";
    family("rtmp2_rejected_total", help, samples.collect())
}

fn of_process(description: &Description, process: &gst::StructureRef) -> MetricFamily {
    let fields = description.fields.iter();
    let samples = fields
        .filter_map(|(_, field)| number(process, field, description.unit))
        .map(|number| (Vec::new(), number));
    family(description.name, description.help, samples.collect())
}
