// SPDX-License-Identifier: MPL-2.0
//! GStreamer pipelines as a user runs them, from the same text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use gst::prelude::*;

use super::latency::Ages;

pub fn run(count: usize, latency: bool, launch: &str) -> Result<()> {
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
        let pipeline = gst::parse::launch(&launch)?
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow!("not a pipeline: {launch}"))?;
        let source = pipeline
            .by_name("source")
            .context("no element named source")?;
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
    super::print_ports(&ports);
    super::wait_for_end_of_input(|line| {
        if line == "ages" {
            ages.print();
        }
    });
    for pipeline in pipelines {
        pipeline.set_state(gst::State::Null)?;
    }
    Ok(())
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

/// Prints `done` at the last pipeline's end of stream, on the posting thread: a thread for each bus would count in
/// the memory of a publisher.
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
