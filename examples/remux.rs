// SPDX-License-Identifier: MPL-2.0

//! Records an RTMP publisher as MPEG-TS, with the tracks that it has, without decoding.
//!
//! ```sh
//! cargo run --release --example remux -- 1935 out.ts
//! ```
//!
//! Shows how tracks are linked when they appear. Ends when the publisher does.

use std::error::Error;

use gst::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u32 = arguments.next().as_deref().unwrap_or("1935").parse()?;
    let location = arguments.next().unwrap_or_else(|| "out.ts".into());

    gst::init()?;
    gstrtmp2server::plugin_register_static()?;

    let source = gst::ElementFactory::make("rtmp2serversrc")
        .property("port", port)
        .build()?;
    // It adds the pads of all announced tracks before any data. With flvdemux the muxer can begin with
    // the first track, and fails now and then on the second, which has no caps yet.
    let demuxer = gst::ElementFactory::make("eflvdemux").build()?;
    let muxer = gst::ElementFactory::make("mpegtsmux")
        // It fails on a track whose caps have not come by the time it is due.
        .property("latency", 1_000_000_000u64)
        .build()?;
    let sink = gst::ElementFactory::make("filesink")
        .property("location", location)
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &demuxer, &muxer, &sink])?;
    source.link(&demuxer)?;
    muxer.link(&sink)?;

    let weak = pipeline.downgrade();
    demuxer.connect_pad_added(move |demuxer, track| {
        let Some(pipeline) = weak.upgrade() else {
            return;
        };
        if let Err(error) = link(&pipeline, &muxer, track) {
            gst::element_error!(demuxer, gst::CoreError::Negotiation, ("{error}"));
        }
    });
    source.connect_notify(Some("current-port"), |source, _| {
        let port = source.property::<u32>("current-port");
        if port != 0 {
            println!("listening on rtmp://127.0.0.1:{port}/");
        }
    });

    pipeline.set_state(gst::State::Playing).ok(); // a failure is an error on the bus
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let mut outcome = Ok(());
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => {
                outcome = Err(error.error().to_string().into());
                break;
            }
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null)?;
    outcome
}

/// Links a track to the muxer through its parser. A track that MPEG-TS does not support is dropped.
fn link(
    pipeline: &gst::Pipeline,
    muxer: &gst::Element,
    track: &gst::Pad,
) -> Result<(), Box<dyn Error>> {
    let caps = track.current_caps().ok_or("a track has caps")?;
    println!("track {caps}");
    let structure = caps.structure(0).ok_or("caps have a structure")?;
    let parser = match structure.name().as_str() {
        "video/x-h264" => "h264parse",
        "audio/mpeg" if structure.get("mpegversion") == Ok(4) => "aacparse",
        "audio/mpeg" => "mpegaudioparse",
        _ => "fakesink",
    };
    let parser = gst::ElementFactory::make(parser).build()?;
    let queue = gst::ElementFactory::make("queue").build()?;
    pipeline.add_many([&queue, &parser])?;
    queue.link(&parser)?;
    if parser.static_pad("src").is_some() {
        parser.link(muxer)?;
    }
    queue.sync_state_with_parent()?;
    parser.sync_state_with_parent()?;
    let entry = queue.static_pad("sink").ok_or("a queue has a sink pad")?;
    track.link(&entry)?;
    Ok(())
}
