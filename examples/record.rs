// SPDX-License-Identifier: MPL-2.0

//! Records an RTMP publisher as FLV, with the plugin compiled into the program.
//!
//! ```sh
//! cargo run --release --example record -- 1935 out.flv
//! ```
//!
//! Port 0 binds any free one. Prints each new epoch. Ends when the publisher does.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u32 = arguments.next().as_deref().unwrap_or("1935").parse()?;
    let location = arguments.next().unwrap_or_else(|| "out.flv".into());

    gst::init()?;
    // No GST_PLUGIN_PATH: the elements of this crate are registered in this process only.
    gstrtmp2server::plugin_register_static()?;

    let source = gst::ElementFactory::make("rtmp2serversrc")
        .property("port", port)
        .build()?;
    let sink = gst::ElementFactory::make("filesink")
        .property("location", location)
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &sink])?;
    source.link(&sink)?;

    source.connect_notify(Some("current-port"), |source, _| {
        let port = source.property::<u32>("current-port");
        if port != 0 {
            println!("listening on rtmp://127.0.0.1:{port}/");
        }
    });

    let pad = source.static_pad("src").ok_or("a source has a pad")?;
    let last_epoch = AtomicU64::new(0);
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, info| {
        // All buffers of a list are of one epoch.
        let list = info.buffer_list().and_then(|list| list.get(0));
        let buffer = info.buffer().map(|buffer| buffer.as_ref());
        if let Some(epoch) = buffer.or(list).and_then(epoch)
            && last_epoch.swap(epoch, Ordering::Relaxed) != epoch
        {
            println!("epoch {epoch}");
        }
        gst::PadProbeReturn::Ok
    });

    pipeline.set_state(gst::State::Playing).ok(); // a failure is an error on the bus
    let outcome = wait(&pipeline);
    println!("{}", source.property::<gst::Structure>("stats"));
    pipeline.set_state(gst::State::Null)?;
    outcome
}

/// Returns the epoch of a buffer.
fn epoch(buffer: &gst::BufferRef) -> Option<u64> {
    let mut metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    metas.find_map(|meta| {
        let caps = meta.reference().structure(0)?;
        caps.has_name("timestamp/x-rtmp")
            .then(|| caps.get("epoch").ok())?
    })
}

/// Waits for the end of the stream, or the first error.
fn wait(pipeline: &gst::Pipeline) -> Result<(), Box<dyn Error>> {
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => return Err(error.error().to_string().into()),
            _ => {}
        }
    }
    Ok(())
}
