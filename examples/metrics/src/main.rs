// SPDX-License-Identifier: MPL-2.0

//! Accepts publishers on several routes of one port, and serves metrics of them to Prometheus.
//!
//! ```sh
//! cargo run --release --package rtmp2-metrics -- --port 1935 studio=live/secret1 garden=live/secret2
//! curl http://127.0.0.1:9419/metrics
//! ```
//!
//! Each route has a pipeline of its own. Its name is the label `element` of its metrics: stream
//! keys are secrets, and are in none of them.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use clap::Parser;
use common::exposition::{family, labels};
use common::statistics::{self, Unit, number};
use gst::prelude::*;
use prometheus::proto::MetricFamily;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Accept RTMP publishers, and serve metrics of them to Prometheus.
#[derive(Parser)]
struct Options {
    /// Routes of accepted publishers, as NAME=APPLICATION/STREAM-KEY
    #[arg(required = true, value_name = "ROUTE", value_parser = Route::parse)]
    routes: Vec<Route>,
    /// TCP port to listen on for publishers, 0 for any free one
    #[arg(long, default_value_t = 1935)]
    port: u32,
    /// Address to serve /metrics on
    #[arg(long, default_value = "127.0.0.1:9419")]
    metrics: SocketAddr,
    /// Sink of each stream, in the syntax of gst-launch-1.0; {name} is the name of its route
    #[arg(long, default_value = "fakesink")]
    sink: String,
}

#[derive(Clone)]
struct Route {
    name: String,
    application: String,
    stream_key: String,
}

impl Route {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=');
        let parts = parts.and_then(|(name, path)| Some((name, path.split_once('/')?)));
        match parts {
            Some((name, (application, stream_key))) if !name.is_empty() => Ok(Route {
                name: name.to_owned(),
                application: application.to_owned(),
                stream_key: stream_key.to_owned(),
            }),
            _ => Err("a route is NAME=APPLICATION/STREAM-KEY".to_owned()),
        }
    }
}

struct Ingest {
    route: Route,
    pipeline: gst::Pipeline,
    source: gst::Element,
    /// The pipeline has neither failed nor ended.
    running: Arc<AtomicBool>,
}

impl Ingest {
    fn start(route: &Route, port: u32, sink: &str) -> Result<Self, Box<dyn Error>> {
        let source = gst::ElementFactory::make("rtmp2serversrc")
            .name(&route.name)
            .property("port", port)
            .property("application", &route.application)
            .property("stream-key", &route.stream_key)
            .property("keep-listening", true)
            .build()?;
        let sink = sink.replace("{name}", &route.name);
        let sink = gst::parse::bin_from_description(&sink, true)?;
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source)?;
        pipeline.add(&sink)?;
        source.link(&sink)?;
        let running = Arc::new(AtomicBool::new(true));
        let (name, runs) = (route.name.clone(), running.clone());
        let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
        // The bus has no reader, so nothing may stay on it.
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => eprintln!("{name}: {}", error.error()),
                gst::MessageView::Eos(_) => eprintln!("{name}: the stream has ended"),
                _ => return gst::BusSyncReply::Drop,
            }
            runs.store(false, Ordering::Relaxed);
            gst::BusSyncReply::Drop
        });
        for (signal, what) in [
            ("publisher-added", "publishes"),
            ("publisher-removed", "is gone"),
        ] {
            let name = route.name.clone();
            source.connect(signal, false, move |arguments| {
                let info: gst::Structure = arguments[1].get().expect("the signal has it");
                println!("{name}: {} {what}", info.get("address").unwrap_or("?"));
                None
            });
        }
        let ingest = Ingest {
            route: route.clone(),
            pipeline,
            source,
            running,
        };
        // Errors were printed already.
        ingest.pipeline.set_state(gst::State::Playing)?;
        Ok(ingest)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A metric, its help, its unit in the statistics, and its fields: one without a label, or one for
/// each value of a label.
struct Description {
    name: &'static str,
    help: &'static str,
    unit: Unit,
    label: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const fn one(
    name: &'static str,
    help: &'static str,
    unit: Unit,
    field: &'static [(&'static str, &'static str); 1],
) -> Description {
    Description {
        name,
        help,
        unit,
        label: "",
        fields: field,
    }
}

/// Counters cover the element since its start, so that they never go back; gauges about a publisher
/// cover the present one, or the last one.
const OF_ELEMENT: &[Description] = &[
    one(
        "rtmp2_connection_state",
        "Connection state of the publisher: 0 disconnected, 1 connected, 2 authenticating, 3 negotiating, 4 reconfiguring, 5 streaming, 6 recovering.",
        Unit::None,
        &[("", "connection-state")],
    ),
    one(
        "rtmp2_stream_status",
        "Status of the stream: 1 active, 2 reconfiguring, 3 paused, 4 stopped.",
        Unit::None,
        &[("", "stream-status")],
    ),
    one(
        "rtmp2_epoch",
        "Number that grows whenever a decoder must start afresh.",
        Unit::None,
        &[("", "epoch")],
    ),
    one(
        "rtmp2_publishing",
        "1 if there is a publisher.",
        Unit::None,
        &[("", "publishing")],
    ),
    one(
        "rtmp2_received_bytes_total",
        "Bytes read from publishers.",
        Unit::None,
        &[("", "total-in-bytes")],
    ),
    one(
        "rtmp2_received_bytes_per_second",
        "Bytes read in the last full second.",
        Unit::BitsPerSecond,
        &[("", "bitrate")],
    ),
    one(
        "rtmp2_received_average_bytes_per_second",
        "Bytes read per second of the present publisher.",
        Unit::BitsPerSecond,
        &[("", "bitrate-average")],
    ),
    one(
        "rtmp2_received_peak_bytes_per_second",
        "Bytes read in the peak second of the publisher.",
        Unit::BitsPerSecond,
        &[("", "bitrate-peak")],
    ),
    Description {
        name: "rtmp2_tags_total",
        help: "Tags from publishers.",
        unit: Unit::None,
        label: "kind",
        fields: &[
            ("audio", "total-audio-tags"),
            ("video", "total-video-tags"),
            ("script", "total-script-tags"),
        ],
    },
    Description {
        name: "rtmp2_tag_bytes_total",
        help: "Bytes in the bodies of tags from publishers.",
        unit: Unit::None,
        label: "kind",
        fields: &[
            ("audio", "total-audio-bytes"),
            ("video", "total-video-bytes"),
            ("script", "total-script-bytes"),
        ],
    },
    one(
        "rtmp2_keyframes_total",
        "Video keyframes from publishers.",
        Unit::None,
        &[("", "total-keyframes")],
    ),
    one(
        "rtmp2_skipped_messages_total",
        "Messages that no decoder could use.",
        Unit::None,
        &[("", "total-skipped")],
    ),
    one(
        "rtmp2_frames_per_second",
        "Video frames in a second of the publisher's own time.",
        Unit::None,
        &[("", "frame-rate")],
    ),
    one(
        "rtmp2_gop_frames",
        "Frames in the last complete group of pictures.",
        Unit::None,
        &[("", "gop-length")],
    ),
    one(
        "rtmp2_gop_duration_seconds",
        "Duration of the last complete group of pictures.",
        Unit::Nanoseconds,
        &[("", "gop-duration")],
    ),
    one(
        "rtmp2_last_byte_age_seconds",
        "Time since the publisher's last byte.",
        Unit::Nanoseconds,
        &[("", "time-since-last-byte")],
    ),
    one(
        "rtmp2_last_keyframe_age_seconds",
        "Time since the publisher's last keyframe.",
        Unit::Nanoseconds,
        &[("", "time-since-last-keyframe")],
    ),
    one(
        "rtmp2_queue_bytes",
        "Bytes of memory waiting for the pipeline.",
        Unit::None,
        &[("", "current-level-bytes")],
    ),
    one(
        "rtmp2_queue_duration_seconds",
        "Media time waiting for the pipeline.",
        Unit::Nanoseconds,
        &[("", "current-level-time")],
    ),
    one(
        "rtmp2_rejected_clients_total",
        "Rejected clients. A client that may have meant several elements counts for each.",
        Unit::None,
        &[("", "rejected")],
    ),
    one(
        "rtmp2_publishers_total",
        "Accepted publishers.",
        Unit::None,
        &[("", "publishers")],
    ),
    one(
        "rtmp2_reconnects_total",
        "Publishers that returned within resume-timeout.",
        Unit::None,
        &[("", "reconnects")],
    ),
    one(
        "rtmp2_replacements_total",
        "Publishers that replaced one that was still connected.",
        Unit::None,
        &[("", "replacements")],
    ),
    one(
        "rtmp2_publisher_uptime_seconds",
        "Time since the present publisher connected.",
        Unit::Nanoseconds,
        &[("", "uptime")],
    ),
    one(
        "rtmp2_uptime_seconds_total",
        "Time with a publisher.",
        Unit::Nanoseconds,
        &[("", "total-uptime")],
    ),
    one(
        "rtmp2_downtime_seconds_total",
        "Time without a publisher since the first one left.",
        Unit::Nanoseconds,
        &[("", "downtime")],
    ),
    one(
        "rtmp2_outage_seconds",
        "Time since the last publisher left.",
        Unit::Nanoseconds,
        &[("", "outage")],
    ),
    one(
        "rtmp2_timestamps_clamped_total",
        "Tags with earlier timestamps, sent at the time of the one before.",
        Unit::None,
        &[("", "timestamps-clamped")],
    ),
    one(
        "rtmp2_timestamp_jumps_total",
        "Restarts and jumps of publishers' clocks.",
        Unit::None,
        &[("", "timestamp-jumps")],
    ),
    one(
        "rtmp2_timestamps_frozen_total",
        "Tags sent at the time of their arrival, since the publisher's timestamps stood still.",
        Unit::None,
        &[("", "timestamps-frozen")],
    ),
    one(
        "rtmp2_clock_drift_ppm",
        "Parts per million by which the publisher's clock is faster than the pipeline's.",
        Unit::None,
        &[("", "clock-drift")],
    ),
    one(
        "rtmp2_clock_corrected_seconds",
        "Time added to timestamps to correct the drift of publishers' clocks.",
        Unit::Nanoseconds,
        &[("", "clock-corrected")],
    ),
    one(
        "rtmp2_keyframe_requests_total",
        "Requests for a keyframe from downstream.",
        Unit::None,
        &[("", "force-key-unit-events")],
    ),
    one(
        "rtmp2_last_error_age_seconds",
        "Time since a client was last rejected or cut off.",
        Unit::Nanoseconds,
        &[("", "time-since-last-error")],
    ),
];

const OF_PROCESS: &[Description] = &[
    one(
        "rtmp2_process_elements",
        "Listening elements.",
        Unit::None,
        &[("", "elements")],
    ),
    one(
        "rtmp2_process_listeners",
        "Listening addresses.",
        Unit::None,
        &[("", "listeners")],
    ),
    one(
        "rtmp2_process_clients",
        "Present connections.",
        Unit::None,
        &[("", "clients")],
    ),
    one(
        "rtmp2_process_publishing",
        "Present publishers.",
        Unit::None,
        &[("", "publishing")],
    ),
    one(
        "rtmp2_process_publishers_total",
        "Accepted publishers.",
        Unit::None,
        &[("", "publishers")],
    ),
    one(
        "rtmp2_process_received_bytes_total",
        "Bytes read from publishers.",
        Unit::None,
        &[("", "in-bytes")],
    ),
    one(
        "rtmp2_process_tags_total",
        "Tags from publishers.",
        Unit::None,
        &[("", "tags")],
    ),
    one(
        "rtmp2_process_rejected_clients_total",
        "Rejected clients, summed over the elements.",
        Unit::None,
        &[("", "rejected")],
    ),
    one(
        "rtmp2_process_dropped_tags_total",
        "Tags that were dropped.",
        Unit::None,
        &[("", "dropped")],
    ),
];

/// Returns the metrics of each element, and of the process.
fn families(ingests: &[Ingest]) -> Vec<MetricFamily> {
    let stats: Vec<(&Route, gst::Structure)> = ingests
        .iter()
        .map(|ingest| (&ingest.route, ingest.source.property("stats")))
        .collect();
    let of = |route: &Route, label: &str, value: &str| {
        labels(&[
            ("element", &route.name),
            ("application", &route.application),
            (label, value),
        ])
    };
    let mut families = Vec::new();
    for description in OF_ELEMENT {
        let mut samples = Vec::new();
        for (route, stats) in &stats {
            for (value, field) in description.fields {
                let number = number(stats, field, description.unit);
                let labels = of(route, description.label, value);
                samples.extend(number.map(|number| (labels, number)));
            }
        }
        families.push(family(description.name, description.help, samples));
    }

    let (mut dropped, mut errors) = (Vec::new(), Vec::new());
    for (route, stats) in &stats {
        for (field, _) in stats.iter() {
            if let Some(reason) = field.as_str().strip_prefix("dropped-") {
                let number = number(stats, field.as_str(), Unit::None);
                dropped.extend(number.map(|number| (of(route, "reason", reason), number)));
            }
        }
        let error = stats.get::<&str>("last-error").unwrap_or_default();
        // The text after the colon may come from the client, and each label is kept forever.
        let kind = error.split(':').next().unwrap_or_default();
        if !kind.is_empty() {
            errors.push((of(route, "reason", kind), 1.0));
        }
    }
    let help = "Tags that were dropped.";
    families.push(family("rtmp2_dropped_tags_total", help, dropped));
    let help = "Reason of the last rejection or cut.";
    families.push(family("rtmp2_last_error_info", help, errors));

    let running = |ingest: &Ingest| {
        let is_running = ingest.running.load(Ordering::Relaxed);
        let labels = of(&ingest.route, "", "");
        (labels, f64::from(u8::from(is_running)))
    };
    let help = "1 unless the pipeline has failed or ended.";
    let running = ingests.iter().map(running).collect();
    families.push(family("rtmp2_pipeline_running", help, running));

    let process = stats.first().map(|(_, stats)| stats.get("process"));
    if let Some(Ok(process)) = process {
        let process: gst::Structure = process;
        for description in OF_PROCESS {
            let fields = description.fields.iter();
            let samples = fields
                .filter_map(|(_, field)| number(&process, field, description.unit))
                .map(|number| (Vec::new(), number));
            families.push(family(
                description.name,
                description.help,
                samples.collect(),
            ));
        }
    }
    families
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;

    // From here on these signals end the program in an orderly way.
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let mut ingests: Vec<Ingest> = Vec::new();
    for route in &options.routes {
        // The first element may bind any free port; the others join it there.
        let first = ingests.first();
        let port = first.map_or(options.port, |ingest| {
            ingest.source.property("current-port")
        });
        ingests.push(Ingest::start(route, port, &options.sink)?);
    }
    let port: u32 = ingests[0].source.property("current-port");
    let ingests = Arc::new(ingests);

    let socket = TcpListener::bind(options.metrics).await?;
    println!("metrics on http://{}/metrics", socket.local_addr()?);
    println!("listening on rtmp://127.0.0.1:{port}/");
    let served = ingests.clone();
    let router = Router::new().route(
        "/metrics",
        get(move || async move { statistics::respond(families(&served)) }),
    );
    axum::serve(socket, router)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
        .await?;
    Ok(())
}
