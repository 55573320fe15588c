// SPDX-License-Identifier: MPL-2.0

//! The sources of streams: elements that deliver FLV, one tag per buffer.

use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};

use gst::prelude::*;

use super::config::{Pattern, Test};
use super::flv::{PlayError, Player};
use super::plan::Source;

/// Returns the element, to be linked to the sink.
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
        // Tags of the file are pushed, and wait there until their time.
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

/// The encoder of a test picture.
const ENCODER: &str = "encoder";

/// Returns the pad that pictures pass before they are encoded here.
pub fn raw_pad(source: &gst::Element) -> Option<gst::Pad> {
    let bin = source.downcast_ref::<gst::Bin>()?;
    bin.by_name(ENCODER)?.static_pad("sink")
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
    // The latency is no delay, but the time that audio and video may wait for each other on a busy
    // machine.
    let video = format!(
        "videotestsrc is-live=true pattern={pattern} \
         ! video/x-raw,format=I420,width={width},height={height},framerate={framerate}/1 \
         ! x264enc name={ENCODER} tune=zerolatency speed-preset=ultrafast bitrate={bitrate_kbps} key-int-max={gop} \
         ! h264parse ! flvmux name=mux streamable=true latency=2000000000"
    );
    let audio = " audiotestsrc is-live=true volume=0.1 ! audio/x-raw,rate=48000,channels=2 \
                 ! voaacenc ! aacparse ! mux.";
    if test.audio { video + audio } else { video }
}

/// The thread that feeds a file into the pipeline.
pub struct Feeder(JoinHandle<()>);

impl Feeder {
    /// Plays from the start of the file, at the present time of the pipeline.
    pub fn start(appsrc: &gst::Element, player: Player) -> io::Result<Self> {
        let appsrc = appsrc.clone();
        let thread = thread::Builder::new().name("file".to_owned());
        let thread = thread.spawn(move || {
            // It reports its end itself.
            if let Err(error) = feed(&appsrc, player) {
                gst::element_error!(appsrc, gst::ResourceError::Read, ("The file: {error}"));
            }
        })?;
        Ok(Feeder(thread))
    }

    /// Returns once the pipeline accepts nothing more.
    pub fn join(self) {
        // A panic was printed.
        let _ = self.0.join();
    }
}

pub fn open(path: &Path, is_loop: bool) -> Result<Player, String> {
    let described = |error: PlayError| format!("{}: {error}", path.display());
    Player::open(path, is_loop).map_err(described)
}

fn feed(appsrc: &gst::Element, mut player: Player) -> Result<(), PlayError> {
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
            // The pipeline has ended, or has reported its error.
            return Ok(());
        }
    }
    // A pipeline that accepts no end has one already.
    let _ = appsrc.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    Ok(())
}
