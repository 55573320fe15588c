// SPDX-License-Identifier: MPL-2.0
//! GStreamer pipelines as a user runs them, from the same text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use gst::prelude::*;

use super::latency::Ages;

/// Elements in a bin: GStreamer sorts the children of a bin in quadratic time when its state
/// changes.
const ELEMENTS_OF_BIN: usize = 100;

pub fn run(count: usize, latency: bool, further_routes: usize, launch: &str) -> Result<()> {
    crate::subject::allow_many_files()?;
    crate::subject::init_gstreamer()?;
    let ages = Ages::default();
    let playing = Arc::new(AtomicUsize::new(count));
    let mut pipelines = Vec::with_capacity(count);
    let mut ports: Vec<u16> = Vec::with_capacity(count);
    for number in 0..count {
        let first = ports.first().copied().unwrap_or(0);
        let launch = launch
            .replace("{n}", &number.to_string())
            .replace("{port}", &first.to_string());
        let pipeline = pipeline(&launch)?;
        let source = pipeline
            .by_name("source")
            .context("no element named source")?;
        let weak = pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            let linked = weak.upgrade().map(|pipeline| link_sink(&pipeline, pad));
            if let Some(Err(error)) = linked {
                println!("error {error:#}");
            }
        });
        watch(&pipeline, playing.clone())?;
        if latency {
            ages.probe(&source)?;
        }
        pipeline
            .set_state(gst::State::Playing)
            .with_context(|| format!("cannot start: {launch}"))?;
        ports.push(current_port(&source)?);
        pipelines.push(pipeline);
    }
    let port = ports.first().copied().unwrap_or_default();
    let further = start_further_routes(port, further_routes)?;
    super::print_ports(&ports);
    super::wait_for_end_of_input(|line| match line {
        "ages" => ages.print(),
        "stop" => {
            let start = Instant::now();
            stop(&pipelines);
            println!("stopped {}", start.elapsed().as_nanos());
        }
        _ => {}
    });
    stop(&pipelines);
    stop(&[further]);
    Ok(())
}

fn stop(pipelines: &[gst::Pipeline]) {
    for pipeline in pipelines {
        let _ = pipeline.set_state(gst::State::Null);
    }
}

/// Returns a pipeline of the elements that a text describes. One of them alone is no pipeline yet.
fn pipeline(launch: &str) -> Result<gst::Pipeline> {
    let element = gst::parse::launch(launch)?;
    element.downcast::<gst::Pipeline>().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element)?;
        Ok(pipeline)
    })
}

fn link_sink(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<()> {
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .property("async", false)
        .build()?;
    pipeline.add(&sink)?;
    sink.sync_state_with_parent()?;
    pad.link(&sink.static_pad("sink").context("a sink without a pad")?)?;
    Ok(())
}

/// Starts elements that nobody publishes to.
fn start_further_routes(port: u16, count: usize) -> Result<gst::Pipeline> {
    let pipeline = gst::Pipeline::new();
    for first in (0..count).step_by(ELEMENTS_OF_BIN) {
        let bin = gst::Bin::new();
        for number in first..count.min(first + ELEMENTS_OF_BIN) {
            let source = gst::ElementFactory::make("rtmp2serversrc")
                .property("host", "127.0.0.1")
                .property("port", u32::from(port))
                .property("stream-key", format!("further{number}"))
                .build()?;
            bin.add(&source)?;
        }
        pipeline.add(&bin)?;
    }
    pipeline.set_state(gst::State::Playing)?;
    Ok(pipeline)
}

/// The elements differ in the property's type.
fn current_port(source: &gst::Element) -> Result<u16> {
    let port = source.property_value("current-port");
    let port = port
        .transform::<u32>()
        .context("current-port is not a number")?
        .get::<u32>()?;
    Ok(u16::try_from(port)?)
}

/// Prints `done` at the last pipeline's end of stream, on the posting thread: a thread for each bus
/// would count in the memory of a publisher.
fn watch(pipeline: &gst::Pipeline, playing: Arc<AtomicUsize>) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Eos(_) if playing.fetch_sub(1, Ordering::Relaxed) == 1 => {
                println!("done");
            }
            gst::MessageView::Error(error) => println!("error {}", error.error()),
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    Ok(())
}
