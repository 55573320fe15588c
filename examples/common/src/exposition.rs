// SPDX-License-Identifier: MPL-2.0

//! The text format of Prometheus, for all programs that serve metrics.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Result, TextEncoder};

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

/// Makes a counter where the name ends in `_total`, otherwise a gauge.
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

/// Leaves out families without samples.
pub fn text(mut families: Vec<MetricFamily>) -> Result<String> {
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}
