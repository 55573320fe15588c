// SPDX-License-Identifier: MPL-2.0

//! What examples that serve metrics have in common: from the statistics of elements to the text that Prometheus
//! reads.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

/// How a field of the statistics becomes what Prometheus wants: base units.
#[derive(Clone, Copy)]
pub enum Unit {
    None,
    Nanoseconds,
    BitsPerSecond,
}

/// A field as a number. None where there is nothing to tell.
pub fn number(stats: &gst::StructureRef, field: &str, unit: Unit) -> Option<f64> {
    let value = stats.value(field).ok()?;
    let number = if let Ok(number) = value.get::<u64>() {
        (number != gst::ffi::GST_CLOCK_TIME_NONE).then_some(number as f64)?
    } else if let Ok(number) = value.get::<f64>() {
        number
    } else if let Ok(flag) = value.get::<bool>() {
        f64::from(u8::from(flag))
    } else {
        // Also what is one of several names.
        value.transform::<i32>().ok()?.get::<i32>().ok()?.into()
    };
    Some(match unit {
        Unit::None => number,
        Unit::Nanoseconds => number / 1e9,
        Unit::BitsPerSecond => number / 8.0,
    })
}

pub fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let named = pairs.iter().filter(|(name, _)| !name.is_empty());
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    named.map(pair).collect()
}

/// The name says what it is: that of a counter ends in `_total`.
pub fn family(name: &str, help: &str, samples: Vec<(Vec<LabelPair>, f64)>) -> MetricFamily {
    let is_counter = name.ends_with("_total");
    let metric = |(labels, value)| {
        let mut metric = Metric::from_label(labels);
        if is_counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    };
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if is_counter {
        MetricType::COUNTER
    } else {
        MetricType::GAUGE
    });
    family.set_metric(samples.into_iter().map(metric).collect());
    family
}

/// The answer to who asks for metrics. Those about which there is nothing to tell are left out.
pub fn respond(mut families: Vec<MetricFamily>) -> Response {
    families.retain(|family| !family.get_metric().is_empty());
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
