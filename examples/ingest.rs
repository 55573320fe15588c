// SPDX-License-Identifier: MPL-2.0

//! Records several cameras that publish to one port, and can be drained: on SIGTERM or SIGINT it
//! accepts no new publisher, asks the present ones to reconnect, and ends when they are gone or the
//! drain timeout is over. A process behind a load balancer needs this.
//!
//! ```sh
//! cargo run --release --example ingest -- --port 1935 --keys camera1,camera2 --folder recordings
//! ```
//!
//! Each camera has a pipeline of its own, so that one of them can fail without the others. With
//! `--http 127.0.0.1:8080`, a page shows how they do, beside `/metrics` and `/stat`.

use std::cell::Cell;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use common::journal;
use dashboard::{Board, Observation, Program, RejectedClients};
use gst::glib;
use gst::prelude::*;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Record cameras that publish RTMP to one port.
#[derive(Parser)]
struct Options {
    /// TCP port to listen on, 0 for any free one
    #[arg(long, default_value_t = 1935)]
    port: u32,
    /// Application that publishers name
    #[arg(long, default_value = "live")]
    application: String,
    /// Stream keys of the cameras
    #[arg(long, value_delimiter = ',', default_value = "camera1")]
    keys: Vec<String>,
    /// Folder to write KEY.flv into
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// PROXY header that the load balancer sends: off, v1 or v2
    #[arg(long, default_value = "off")]
    proxy_protocol: String,
    /// Time that publishers may stay after SIGTERM, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    drain_timeout: u32,
    /// End after each camera has published once
    #[arg(long)]
    once: bool,
    /// Address to serve the page, /metrics and /stat on; not served without this
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    #[command(flatten)]
    dashboard: dashboard::Options,
}

struct Camera {
    pipeline: gst::Pipeline,
    source: gst::Element,
}

impl Camera {
    fn start(
        options: &Options,
        key: &str,
        port: u32,
        refusals: &Arc<RejectedClients>,
    ) -> Result<Self, Box<dyn Error>> {
        let source = gst::ElementFactory::make("rtmp2serversrc")
            .name(key)
            .property("port", port)
            .property("application", &options.application)
            .property("stream-key", key)
            .property_from_str("proxy-protocol", &options.proxy_protocol)
            .property("drain-timeout", options.drain_timeout)
            .property("keep-listening", !options.once)
            .build()?;
        let sink = gst::ElementFactory::make("filesink")
            .property("location", free_name(&options.folder, key))
            .build()?;
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &sink])?;
        source.link(&sink)?;
        let name = key.to_owned();
        dashboard::watch::watch(&source, refusals, move |_| name.clone());
        if pipeline.set_state(gst::State::Playing).is_err() {
            let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
            let message = bus.pop_filtered(&[gst::MessageType::Error]);
            pipeline.set_state(gst::State::Null)?;
            return Err(match message.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => error.error().to_string().into(),
                _ => "the pipeline does not start".into(),
            });
        }
        Ok(Camera { pipeline, source })
    }
}

/// Returns a new name: recordings of earlier processes are kept.
fn free_name(folder: &Path, key: &str) -> PathBuf {
    let names = (0..).map(|number| match number {
        0 => format!("{key}.flv"),
        _ => format!("{key}-{number}.flv"),
    });
    let mut paths = names.map(|name| folder.join(name));
    paths.find(|path| !path.exists()).unwrap_or_default()
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// All cameras, as the page shows them.
struct Cameras {
    application: String,
    sources: Vec<gst::Element>,
}

impl Program for Cameras {
    fn observations(&self) -> Vec<Observation> {
        let sources = self.sources.iter();
        let observation = |source: &gst::Element| {
            Observation::of_source(&source.name(), &self.application, source)
        };
        sources.map(observation).collect()
    }

    fn drain(&self) {
        for source in &self.sources {
            source.set_property("drain", true);
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    options.dashboard.start_log();
    journal::exit_code(run(&options))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;

    let refusals = Arc::new(RejectedClients::default());
    let mut cameras: Vec<Camera> = Vec::new();
    for key in &options.keys {
        // The first camera may bind any free port; the others join it there.
        let first = cameras.first();
        let port = first.map_or(options.port, |camera| {
            camera.source.property("current-port")
        });
        cameras.push(Camera::start(options, key, port, &refusals)?);
    }
    let port: u32 = cameras[0].source.property("current-port");

    let main_loop = glib::MainLoop::new(None, false);
    let running = Rc::new(Cell::new(cameras.len()));
    let mut watches = Vec::new();
    for camera in &cameras {
        let (main_loop, running) = (main_loop.clone(), running.clone());
        let name = camera.source.name();
        let bus = camera.pipeline.bus().ok_or("a pipeline has a bus")?;
        let refusals = refusals.clone();
        watches.push(bus.add_watch_local(move |_, message| {
            dashboard::watch::log_warning(&refusals, message);
            match message.view() {
                gst::MessageView::Eos(_) => {
                    let entry = journal::info("finished").with("stream", name.as_str());
                    entry.say(format!("{name}: finished"));
                }
                gst::MessageView::Error(error) => {
                    let entry = journal::warning("failed").with("stream", name.as_str());
                    entry.say(format!("{name}: {}", error.error()));
                }
                gst::MessageView::Element(element) => {
                    if let Some(structure) = element.structure() {
                        dashboard::watch::log_message(&name, structure);
                    }
                    return glib::ControlFlow::Continue;
                }
                _ => return glib::ControlFlow::Continue,
            }
            running.set(running.get() - 1);
            if running.get() == 0 {
                main_loop.quit();
            }
            glib::ControlFlow::Break
        })?);
    }
    let program = Arc::new(Cameras {
        application: options.application.clone(),
        sources: cameras.iter().map(|camera| camera.source.clone()).collect(),
    });
    if let Some(address) = options.http {
        let board = Board::new("ingest", program.clone(), refusals, &options.dashboard)?;
        let address = dashboard::web::serve_on_thread(address, board)
            .map_err(|error| format!("--http {address}: {error}"))?;
        journal::info("serving").say(format!("page on http://{address}/"));
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            journal::info("draining").say("draining");
            program.drain();
        }
    });
    journal::info("listening").say(format!("listening on rtmp://127.0.0.1:{port}/"));
    main_loop.run();
    Ok(())
}
