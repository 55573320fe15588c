// SPDX-License-Identifier: MPL-2.0

//! Accepts publishers on several routes of one port, and serves metrics of them to Prometheus.
//!
//! ```sh
//! cargo run --release --package rtmp2-metrics -- --port 1935 studio=live/secret1 garden=live/secret2
//! curl http://127.0.0.1:9419/metrics
//! ```
//!
//! The same address has a page for operators, and `/stat` in the form of nginx-rtmp. Each route has a pipeline of its own. Its name is the label `element` of its metrics: stream
//! keys are secrets, and are in none of them.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use common::journal;
use dashboard::{Board, Detail, Observation, Program, RejectedClients, StreamState};
use gst::prelude::*;
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
    /// Address to serve the page, /metrics and /stat on
    #[arg(long, default_value = "127.0.0.1:9419")]
    metrics: SocketAddr,
    /// Sink of each stream, in the syntax of gst-launch-1.0; {name} is the name of its route
    #[arg(long, default_value = "fakesink")]
    sink: String,
    #[command(flatten)]
    dashboard: dashboard::Options,
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
    fn start(
        route: &Route,
        port: u32,
        sink: &str,
        refusals: &Arc<RejectedClients>,
    ) -> Result<Self, Box<dyn Error>> {
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
        let counted = refusals.clone();
        let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
        // The bus has no reader, so nothing may stay on it.
        bus.set_sync_handler(move |_, message| {
            dashboard::watch::log_warning(&counted, message);
            if handle(&name, message) {
                runs.store(false, Ordering::Relaxed);
            }
            gst::BusSyncReply::Drop
        });
        let name = route.name.clone();
        dashboard::watch::watch(&source, refusals, move |_| name.clone());
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

    fn observation(&self) -> Observation {
        let Route {
            name, application, ..
        } = &self.route;
        let mut observation = Observation::of_source(name, application, &self.source);
        if !self.running.load(Ordering::Relaxed) {
            observation.state = StreamState::Failed;
            let text = "failed or ended; the log says why";
            observation.details.push(Detail::new("Pipeline", text));
        }
        observation
    }
}

/// Writes a message of a pipeline into the log. Returns whether the pipeline is over.
fn handle(name: &str, message: &gst::Message) -> bool {
    match message.view() {
        gst::MessageView::Error(error) => {
            let text = format!("{name}: {}", error.error());
            journal::warning("failed").with("stream", name).say(text);
            true
        }
        gst::MessageView::Eos(_) => {
            let text = format!("{name}: the stream has ended");
            journal::warning("over").with("stream", name).say(text);
            true
        }
        gst::MessageView::Element(element) => {
            if let Some(structure) = element.structure() {
                dashboard::watch::log_message(name, structure);
            }
            false
        }
        _ => false,
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// All routes, as the page shows them.
struct Ingests(Vec<Ingest>);

impl Program for Ingests {
    fn observations(&self) -> Vec<Observation> {
        self.0.iter().map(Ingest::observation).collect()
    }

    fn drain(&self) {
        for ingest in &self.0 {
            ingest.source.set_property("drain", true);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    options.dashboard.start_log();
    journal::exit_code(run(options).await)
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;

    // From here on these signals end the program in an orderly way.
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let refusals = Arc::new(RejectedClients::default());
    let mut ingests: Vec<Ingest> = Vec::new();
    for route in &options.routes {
        // The first element may bind any free port; the others join it there.
        let first = ingests.first();
        let port = first.map_or(options.port, |ingest| {
            ingest.source.property("current-port")
        });
        ingests.push(Ingest::start(route, port, &options.sink, &refusals)?);
    }
    let port: u32 = ingests[0].source.property("current-port");
    let program = Arc::new(Ingests(ingests));
    let board = Board::new("rtmp2-metrics", program, refusals, &options.dashboard)?;

    let socket = TcpListener::bind(options.metrics)
        .await
        .map_err(|error| format!("--metrics {}: {error}", options.metrics))?;
    let local = socket.local_addr()?;
    journal::info("serving").say(format!("page on http://{local}/"));
    journal::info("serving").say(format!("metrics on http://{local}/metrics"));
    journal::info("listening").say(format!("listening on rtmp://127.0.0.1:{port}/"));
    tokio::select! {
        result = dashboard::web::serve(socket, board) => result?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
