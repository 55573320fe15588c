// SPDX-License-Identifier: MPL-2.0

//! Records an RTMP publisher as Matroska: whatever tracks it turns out to have, without decoding.
//!
//! ```sh
//! cargo run --release --example remux -- 1935 out.mkv
//! ```
//!
//! Shows how tracks that appear later are linked. Ends when the publisher does.

use std::error::Error;

use gst::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u32 = arguments.next().as_deref().unwrap_or("1935").parse()?;
    let location = arguments.next().unwrap_or_else(|| "out.mkv".into());

    gst::init()?;
    gstrtmp2server::plugin_register_static()?;

    let source = gst::ElementFactory::make("rtmp2serversrc")
        .property("port", port)
        .build()?;
    // parsebin is a demuxer, and a parser for each track of it.
    let tracks = gst::ElementFactory::make("parsebin").build()?;
    let muxer = gst::ElementFactory::make("matroskamux").build()?;
    let sink = gst::ElementFactory::make("filesink")
        .property("location", location)
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &tracks, &muxer, &sink])?;
    source.link(&tracks)?;
    muxer.link(&sink)?;

    let weak = pipeline.downgrade();
    // The muxer writes its header as soon as every pad that it has then has data: all are linked
    // before any of them flows.
    tracks.connect_no_more_pads(move |tracks| {
        let Some(pipeline) = weak.upgrade() else {
            return;
        };
        for track in tracks.src_pads() {
            if let Err(error) = link(&pipeline, &muxer, &track) {
                gst::element_error!(tracks, gst::CoreError::Negotiation, ("{error}"));
            }
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

/// Takes a track to the muxer, through a queue.
fn link(
    pipeline: &gst::Pipeline,
    muxer: &gst::Element,
    track: &gst::Pad,
) -> Result<(), Box<dyn Error>> {
    let caps = track
        .current_caps()
        .unwrap_or_else(|| track.query_caps(None));
    println!("track {caps}");
    let queue = gst::ElementFactory::make("queue").build()?;
    pipeline.add(&queue)?;
    queue.sync_state_with_parent()?;
    let entry = queue.static_pad("sink").ok_or("a queue has a sink pad")?;
    track.link(&entry)?;
    // By what the queue has now, the muxer gives a pad for video or for audio.
    queue.link(muxer)?;
    Ok(())
}
