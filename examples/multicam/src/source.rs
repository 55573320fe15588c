// SPDX-License-Identifier: MPL-2.0

//! Where streams come from: elements that give FLV, a tag in each buffer.

use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};

use gst::prelude::*;

use super::config::{Pattern, Test};
use super::flv::{Player, Unplayable};
use super::plan::Source;

/// The element, to be linked to the sink.
pub fn make(source: &Source) -> Result<gst::Element, gst::glib::Error> {
    let made = match source {
        Source::Rtmp {
            host,
            port,
            application,
            stream_key,
        } => gst::ElementFactory::make("rtmp2serversrc")
            .property("host", host)
            .property("port", u32::from(*port))
            .property("application", application)
            .property("stream-key", stream_key)
            .property("keep-listening", true)
            .build(),
        // What is in it is pushed, and waits there until its time.
        Source::File { .. } => gst::ElementFactory::make("appsrc")
            .property("caps", gst::Caps::new_empty_simple("video/x-flv"))
            .property("format", gst::Format::Time)
            .property("block", true)
            .property("max-bytes", 1u64)
            .property("max-buffers", 1u64)
            .build(),
        Source::Test(test) => {
            return gst::parse::bin_from_description(&description(test), true)
                .map(|bin| bin.upcast());
        }
    };
    made.map_err(|error| gst::glib::Error::new(gst::CoreError::MissingPlugin, &error.message))
}

fn description(test: &Test) -> String {
    let Test {
        width,
        height,
        framerate,
        bitrate_kbps,
        ..
    } = test;
    let pattern = match test.pattern {
        Pattern::Smpte => "smpte",
        Pattern::Ball => "ball",
        Pattern::Snow => "snow",
        Pattern::Black => "black",
    };
    let gop = u64::from(*framerate) * u64::from(test.keyframe_interval_ms) / 1000;
    let gop = gop.max(1);
    // The latency is no delay, but what audio and video may wait for each other on a busy machine.
    let video = format!(
        "videotestsrc is-live=true pattern={pattern} \
         ! video/x-raw,format=I420,width={width},height={height},framerate={framerate}/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate={bitrate_kbps} key-int-max={gop} \
         ! h264parse ! flvmux name=mux streamable=true latency=2000000000"
    );
    let audio = " audiotestsrc is-live=true volume=0.1 ! audio/x-raw,rate=48000,channels=2 \
                 ! voaacenc ! aacparse ! mux.";
    if test.audio { video + audio } else { video }
}

/// A file that is on its way into the pipeline.
pub struct Feeder(JoinHandle<()>);

impl Feeder {
    /// From the start of the file, at the present time of the pipeline.
    pub fn start(appsrc: &gst::Element, player: Player) -> io::Result<Self> {
        let appsrc = appsrc.clone();
        let thread = thread::Builder::new().name("file".to_owned());
        let thread = thread.spawn(move || {
            // Where it ends it tells by itself.
            if let Err(error) = feed(&appsrc, player) {
                gst::element_error!(appsrc, gst::ResourceError::Read, ("The file: {error}"));
            }
        })?;
        Ok(Feeder(thread))
    }

    /// Once the pipeline takes nothing more.
    pub fn join(self) {
        // What it panicked about was printed.
        let _ = self.0.join();
    }
}

pub fn open(path: &Path, is_loop: bool) -> Result<Player, String> {
    let described = |error: Unplayable| format!("{}: {error}", path.display());
    Player::open(path, is_loop).map_err(described)
}

fn feed(appsrc: &gst::Element, mut player: Player) -> Result<(), Unplayable> {
    let start = appsrc.current_running_time().unwrap_or_default();
    while let Some(tag) = player.next_tag()? {
        let mut buffer = gst::Buffer::from_mut_slice(tag.bytes);
        if let Some(buffer) = buffer.get_mut() {
            let time = gst::ClockTime::try_from(tag.time).unwrap_or_default();
            buffer.set_pts(start + time);
            if tag.is_configuration {
                buffer.set_flags(gst::BufferFlags::HEADER);
            }
        }
        let flow: gst::FlowReturn = appsrc.emit_by_name("push-buffer", &[&buffer]);
        if flow != gst::FlowReturn::Ok {
            // The pipeline has ended, or has told what is wrong.
            return Ok(());
        }
    }
    // Where it takes no end it has one already.
    let _ = appsrc.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    Ok(())
}
