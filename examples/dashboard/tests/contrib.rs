// SPDX-License-Identifier: MPL-2.0

//! The dashboard and the alerts in contrib name only metrics and labels that the programs serve.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dashboard::{Observation, Program, RejectedClients};
use gst::prelude::*;
use serde_json::Value;

/// Labels that Prometheus itself adds.
const ADDED: [&str; 2] = ["instance", "job"];

/// A program with one stream, whose publisher has everything.
#[derive(Debug)]
struct OneStream(gst::Structure);

impl Program for OneStream {
    fn observations(&self) -> Vec<Observation> {
        vec![Observation::of_stats(
            "camera",
            "live",
            "camera",
            self.0.clone(),
        )]
    }

    fn drain(&self) {}
}

/// Returns the labels of each metric that is served.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    gst::init().unwrap();
    gstrtmp2server::plugin_register_static().unwrap();
    let source = gst::ElementFactory::make("rtmp2serversrc");
    let source = source.build().unwrap();
    let mut stats: gst::Structure = source.property("stats");
    // Only a publisher has these.
    for (field, value) in [
        ("address", "192.0.2.9:50000"),
        ("last-error", "closed"),
        ("video-codec", "H.264"),
        ("audio-codec", "AAC"),
        ("encoder", "OBS 30.1"),
    ] {
        stats.set(field, value);
    }
    stats.set("width", 1280_u32);
    stats.set("height", 720_u32);
    for field in [
        "time-since-last-byte",
        "time-since-last-keyframe",
        "time-since-last-error",
    ] {
        stats.set(field, 1_u64);
    }
    let families = dashboard::metrics::families(&OneStream(stats), &RejectedClients::default());
    let families = families.into_iter();
    let described = families.filter(|family| !family.get_metric().is_empty());
    described
        .map(|family| {
            let labels = family.get_metric().iter().flat_map(|m| m.get_label());
            let labels = labels.map(|label| label.name().to_owned());
            (family.name().to_owned(), labels.collect())
        })
        .collect()
}

fn contrib(path: &str) -> String {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contrib");
    std::fs::read_to_string(top.join(path)).unwrap()
}

/// Returns the words of a text that are names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// Fails unless an expression, with the labels that its legend or text shows, can be computed.
#[track_caller]
fn check(served: &BTreeMap<String, BTreeSet<String>>, expression: &str, shown: &[String]) {
    let metrics: Vec<&str> = words(expression)
        .filter(|word| word.starts_with("rtmp2_"))
        .collect();
    assert!(!metrics.is_empty(), "{expression}");
    let mut known: BTreeSet<&str> = ADDED.into();
    for metric in metrics {
        let labels = served.get(metric);
        let labels = labels.unwrap_or_else(|| panic!("nothing serves {metric}, in {expression}"));
        known.extend(labels.iter().map(String::as_str));
    }
    // Matchers in braces, and groups in parentheses.
    let matchers = expression.split('{').skip(1).flat_map(|rest| {
        let inner = rest.split('}').next().unwrap();
        inner
            .split(',')
            .map(|matcher| matcher.split(['=', '!']).next().unwrap().trim())
    });
    let groups = expression.split(" by (").skip(1).flat_map(|rest| {
        let inner = rest.split(')').next().unwrap();
        inner.split(',').map(str::trim)
    });
    let labels = matchers
        .chain(groups)
        .chain(shown.iter().map(String::as_str));
    for label in labels {
        assert!(
            known.contains(label),
            "{label} is no label, in {expression}"
        );
    }
}

/// Returns the names between two marks.
fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    let rest = text.split(start).skip(1);
    let inner = rest.map(|rest| rest.split(end).next().unwrap());
    inner.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn the_dashboard_shows_what_is_served() {
    let served = served();
    let value: Value = serde_json::from_str(&contrib("grafana/rtmp2.json")).unwrap();
    let panels = value["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = between(legend, "{{", "}}");
            check(&served, target["expr"].as_str().unwrap(), &shown);
        }
    }
    for variable in value["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let query = variable["query"].as_str().unwrap();
            let (metric, label) = query.rsplit_once(", ").unwrap();
            let label = label.trim_end_matches(')').to_owned();
            check(&served, metric, &[label]);
        }
    }
}

#[test]
fn alerts_are_about_what_is_served() {
    let served = served();
    let text = contrib("prometheus/rtmp2-alerts.yml");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 5);
    for alert in alerts {
        let expression = alert
            .lines()
            .find_map(|line| line.trim().strip_prefix("expr: "));
        let shown = between(alert, "$labels.", " }}");
        check(&served, expression.unwrap(), &shown);
        assert!(
            alert.contains("summary: ") && alert.contains("severity: "),
            "{alert}"
        );
    }
}

#[test]
#[should_panic(expected = "nothing serves rtmp2_nothing")]
fn an_unknown_metric_is_noticed() {
    check(&served(), "sum(rtmp2_nothing)", &[]);
}

#[test]
#[should_panic(expected = "colour is no label")]
fn an_unknown_label_is_noticed() {
    check(&served(), "sum by (colour) (rtmp2_rejected_total)", &[]);
}

#[test]
fn streams_and_refusals_have_their_labels() {
    let served = served();
    for (metric, labels) in [
        ("rtmp2_stream_info", &["codec", "resolution", "encoder"][..]),
        ("rtmp2_rejected_total", &["reason"]),
        ("rtmp2_stream_status", &["element", "application"]),
    ] {
        let known = &served[metric];
        assert!(
            labels.iter().all(|label| known.contains(*label)),
            "{metric}: {known:?}"
        );
    }
}
