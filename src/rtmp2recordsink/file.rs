// SPDX-License-Identifier: MPL-2.0

//! A file that is being muxed: a pipeline of its own, with a queue for each of its tracks.
//!
//! Its errors stay in it, and it ends alone. The queues have no limit: a muxer that waits for one
//! track must not keep the recording thread from bringing that track. [`MuxedFile::wait_for_room`]
//! bounds them instead.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

use super::corrections::correct;
use super::fragments::FragmentTimes;
use super::location::Container;
use super::watch::Watch;

/// Media that may wait in the queues while none is empty.
const MAX_QUEUED: u64 = 8 * 1024 * 1024;

/// Media that may wait for a track without any.
const MAX_QUEUED_UNEVENLY: u64 = 256 * 1024 * 1024;

/// Time for the end of a file.
const CLOSING: Duration = Duration::from_secs(10);

/// Tracks of one file. Each has a thread, and qtdemux reads no more.
const MAX_TRACKS: usize = 32;

/// Duration of a packet without another one before it, and the longest that is assumed, in
/// nanoseconds.
const FIRST_DURATION: u64 = 40_000_000;
const MAX_DURATION: u64 = 1_000_000_000;

/// Size of a picture where the stream does not say it. Muxers require one, and decoders know better.
const UNKNOWN_SIZE: (i32, i32) = (1280, 720);

/// Reason why a file can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("There is no space left: {0}")]
    NoSpace(String),
    #[error("{0}")]
    Write(String),
    #[error("{0}")]
    Mux(String),
    #[error("The disk accepts no data: {0}")]
    Stalled(String),
}

/// A track as a file needs it.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) caps: gst::Caps,
}

#[derive(Debug, Default)]
struct Outcome {
    is_over: bool,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Input {
    index: usize,
    pad: gst::Pad,
    /// Bytes in its queue.
    level: Arc<AtomicU64>,
    /// DTS of the last packet.
    last_dts: Option<u64>,
    is_ended: bool,
}

#[derive(Debug)]
pub(super) struct MuxedFile {
    pipeline: gst::Pipeline,
    inputs: Vec<Input>,
    outcome: Arc<Mutex<Outcome>>,
    watch: Arc<Watch>,
    /// Only of MP4.
    fragments: Option<Arc<Mutex<FragmentTimes>>>,
    /// Time 0 of the file.
    start: u64,
}

/// Settings of a file.
#[derive(Debug)]
pub(super) struct FileSettings<'a> {
    pub(super) container: Container,
    pub(super) path: &'a Path,
    pub(super) fragment_duration: u32,
    pub(super) start: u64,
}

impl MuxedFile {
    /// Returns the file, and the tracks that it can't have. Calls a function, on any thread, when it
    /// fails.
    pub(super) fn open(
        settings: &FileSettings<'_>,
        tracks: &[Track],
        watch: Arc<Watch>,
        on_failure: impl Fn() + Send + Sync + 'static,
    ) -> Result<(Self, Vec<(Track, String)>), Failure> {
        let mux = |error: glib::BoolError| Failure::Mux(error.to_string());
        let pipeline = gst::Pipeline::new();
        let muxer = muxer(settings).map_err(mux)?;
        let sink = gst::ElementFactory::make("filesink")
            .property("location", settings.path)
            // A process that is killed loses nothing that was written.
            .property_from_str("buffer-mode", "unbuffered")
            .property("sync", false)
            .property("async", false)
            .build()
            .map_err(mux)?;
        pipeline.add_many([&muxer, &sink]).map_err(mux)?;
        muxer.link(&sink).map_err(mux)?;

        let mut file = MuxedFile {
            pipeline,
            inputs: Vec::new(),
            outcome: Arc::default(),
            watch,
            fragments: correct(settings.container, &muxer),
            start: settings.start,
        };
        file.watch_bus(on_failure);
        let mut left_out = Vec::new();
        for track in tracks {
            let added = if file.inputs.len() < MAX_TRACKS {
                file.add_input(settings.container, &muxer, track)
            } else {
                Err(format!("a file has at most {MAX_TRACKS} tracks"))
            };
            if let Err(reason) = added {
                left_out.push((track.clone(), reason));
            }
        }
        if file.inputs.is_empty() {
            file.stop();
            return Err(Failure::Mux(
                "None of the tracks can be recorded in this format".into(),
            ));
        }
        let started = file.pipeline.set_state(gst::State::Playing);
        if started.is_err() {
            let failure = file.failure();
            file.stop();
            return Err(failure.unwrap_or_else(|| Failure::Mux("The muxer does not start".into())));
        }
        for (input, track) in file.inputs.iter().zip(
            tracks
                .iter()
                .filter(|track| left_out.iter().all(|(out, _)| out.index != track.index)),
        ) {
            begin(&input.pad, &track.name, &completed(&track.caps));
        }
        Ok((file, left_out))
    }

    fn watch_bus(&self, on_failure: impl Fn() + Send + Sync + 'static) {
        let Some(bus) = self.pipeline.bus() else {
            return;
        };
        let (outcome, watch) = (self.outcome.clone(), self.watch.clone());
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => {
                    let failure = failure_of(error);
                    outcome.lock().failure.get_or_insert(failure);
                    on_failure();
                }
                gst::MessageView::Eos(_) => outcome.lock().is_over = true,
                _ => return gst::BusSyncReply::Drop,
            }
            watch.notify();
            gst::BusSyncReply::Drop
        });
    }

    /// Adds a queue for a track, and its parser where the muxer needs one.
    fn add_input(
        &mut self,
        container: Container,
        muxer: &gst::Element,
        track: &Track,
    ) -> Result<(), String> {
        let parser = parser_of(container, &track.caps);
        let caps = parser.as_ref().map_or(&track.caps, |(_, caps)| caps);
        let mux_pad =
            request_pad(muxer, &completed(caps)).ok_or("this format can't have its codec")?;
        let added = self.link_input(track, parser.map(|(name, _)| name), &mux_pad);
        if added.is_err() {
            muxer.release_request_pad(&mux_pad);
        }
        added.map_err(|error| error.to_string())
    }

    fn link_input(
        &mut self,
        track: &Track,
        parser: Option<&str>,
        mux_pad: &gst::Pad,
    ) -> Result<(), glib::BoolError> {
        let queue = gst::ElementFactory::make("queue")
            .property("max-size-buffers", 0u32)
            .property("max-size-bytes", 0u32)
            .property("max-size-time", 0u64)
            .property("silent", true)
            .build()?;
        let parser = parser
            .map(|name| {
                gst::ElementFactory::make(name)
                    .property("config-interval", -1i32)
                    .build()
            })
            .transpose()?;
        self.pipeline.add(&queue)?;
        let missing = || glib::bool_error!("An element lacks its pad");
        let queue_sink = queue.static_pad("sink").ok_or_else(missing)?;
        let queue_src = queue.static_pad("src").ok_or_else(missing)?;
        let linked = |result: Result<gst::PadLinkSuccess, gst::PadLinkError>| {
            result
                .map(drop)
                .map_err(|error| glib::bool_error!("{error}"))
        };
        match parser {
            Some(parser) => {
                self.pipeline.add(&parser)?;
                queue.link(&parser)?;
                let pad = parser.static_pad("src").ok_or_else(missing)?;
                linked(pad.link(mux_pad))?;
            }
            None => linked(queue_src.link(mux_pad))?,
        }
        let level = Arc::new(AtomicU64::new(0));
        let (left, watch) = (level.clone(), self.watch.clone());
        queue_src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                left.fetch_sub(buffer.size() as u64, Ordering::Relaxed);
                watch.notify();
            }
            gst::PadProbeReturn::Ok
        });
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .name(&track.name)
            .build();
        linked(pad.link(&queue_sink))?;
        pad.set_active(true)?;
        self.inputs.push(Input {
            index: track.index,
            pad,
            level,
            last_dts: None,
            is_ended: false,
        });
        Ok(())
    }

    /// Returns whether a track is in the file.
    pub(super) fn has_track(&self, index: usize) -> bool {
        self.inputs.iter().any(|input| input.index == index)
    }

    /// Writes a packet with times of the stream.
    pub(super) fn write(&mut self, index: usize, mut buffer: gst::Buffer, dts: u64, pts: u64) {
        let mut inputs = self.inputs.iter_mut().enumerate();
        let Some((number, input)) = inputs.find(|(_, input)| input.index == index) else {
            return;
        };
        let own = buffer.make_mut();
        let time = |time: u64| gst::ClockTime::from_nseconds(time.saturating_sub(self.start));
        own.set_dts(time(dts));
        own.set_pts(time(pts));
        let last_dts = input.last_dts.replace(dts);
        if let Some(fragments) = &self.fragments {
            // The last packet of a track would otherwise have none, and qtdemux would not show it.
            let duration = last_dts.map_or(FIRST_DURATION, |last| dts.saturating_sub(last));
            own.set_duration(gst::ClockTime::from_nseconds(duration.min(MAX_DURATION)));
            if last_dts.is_none() {
                fragments.lock().set_start(number, time(dts).nseconds());
            }
        }
        let size = own.size() as u64;
        input.level.fetch_add(size, Ordering::Relaxed);
        // A failure is on the bus.
        let _ = input.pad.push(buffer);
    }

    /// A track has no more packets.
    pub(super) fn end_track(&mut self, index: usize) {
        let mut inputs = self.inputs.iter_mut();
        if let Some(input) = inputs.find(|input| input.index == index && !input.is_ended) {
            input.is_ended = true;
            input.pad.push_event(gst::event::Eos::new());
        }
    }

    /// Waits until the queues have room. Where one is empty the muxer may be waiting for that track,
    /// which only the recording thread can bring.
    pub(super) fn wait_for_room(&self) {
        let has_room = || self.queued_bytes() <= MAX_QUEUED || self.is_uneven();
        if !has_room() {
            let is_over = || has_room() || self.failure().is_some();
            self.watch.wait_for(None, is_over);
        }
    }

    /// Returns the tracks without media for which too much of the others waits: they must end.
    pub(super) fn starving_tracks(&self) -> Vec<usize> {
        if self.queued_bytes() <= MAX_QUEUED_UNEVENLY {
            return Vec::new();
        }
        let present = self.inputs.iter().filter(|input| !input.is_ended);
        let empty = present.filter(|input| input.level.load(Ordering::Relaxed) == 0);
        empty.map(|input| input.index).collect()
    }

    fn is_uneven(&self) -> bool {
        let mut present = self.inputs.iter().filter(|input| !input.is_ended);
        present.any(|input| input.level.load(Ordering::Relaxed) == 0)
    }

    /// Returns the bytes that are not written yet, as far as they are known.
    pub(super) fn queued_bytes(&self) -> u64 {
        let levels = self.inputs.iter();
        levels
            .map(|input| input.level.load(Ordering::Relaxed))
            .sum()
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.outcome.lock().failure.clone()
    }

    /// Ends the file, and waits until it is written.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        for input in self.inputs.iter_mut().filter(|input| !input.is_ended) {
            input.is_ended = true;
            input.pad.push_event(gst::event::Eos::new());
        }
        let is_over = || {
            let outcome = self.outcome.lock();
            outcome.is_over || outcome.failure.is_some()
        };
        let is_over = self.watch.wait_for(Some(Instant::now() + CLOSING), is_over);
        let failure = self.failure();
        if is_over {
            self.stop();
            failure.map_or(Ok(()), Err)
        } else {
            // Threads that write don't end before the disk lets them.
            let pipeline = self.pipeline.clone();
            let stop = move || {
                let _ = pipeline.set_state(gst::State::Null);
            };
            let _ = std::thread::Builder::new()
                .name("record-close".into())
                .spawn(stop);
            Err(Failure::Stalled(
                "a file was not finished in time".to_owned(),
            ))
        }
    }

    fn stop(&self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

fn failure_of(error: &gst::message::Error) -> Failure {
    let text = error.error().to_string().trim_end_matches('.').to_owned();
    let detail = error.debug().map(|debug| debug.to_string());
    // The last line has the system's reason, and the first one a place in the code.
    let detail = detail
        .as_deref()
        .and_then(|debug| debug.lines().skip(1).last());
    let text = match detail {
        Some(detail) => format!("{text} ({detail})"),
        None => text,
    };
    match error.error().kind::<gst::ResourceError>() {
        Some(gst::ResourceError::NoSpaceLeft) => Failure::NoSpace(text),
        Some(_) => Failure::Write(text),
        None => Failure::Mux(text),
    }
}

fn muxer(settings: &FileSettings<'_>) -> Result<gst::Element, glib::BoolError> {
    let name = match settings.container {
        Container::Mp4 => "mp4mux",
        Container::Matroska => "matroskamux",
        Container::MpegTs => "mpegtsmux",
        Container::Flv => "flvmux",
    };
    let builder = gst::ElementFactory::make(name);
    let built = match settings.container {
        Container::Mp4 => builder.property("fragment-duration", settings.fragment_duration),
        _ => builder,
    }
    .build();
    built.map_err(|_| glib::bool_error!("There is no element {name}: install its plugin"))
}

/// Returns the parser that a track needs before this muxer, and the caps after it.
fn parser_of(container: Container, caps: &gst::Caps) -> Option<(&'static str, gst::Caps)> {
    if container != Container::MpegTs {
        return None;
    }
    let name = caps.structure(0)?.name();
    let parser = match name.as_str() {
        "video/x-h264" => "h264parse",
        "video/x-h265" => "h265parse",
        _ => return None,
    };
    let caps = gst::Caps::builder(name.as_str())
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .build();
    Some((parser, caps))
}

/// Returns caps with fields that muxers require.
fn completed(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.clone();
    let Some(structure) = caps.make_mut().structure_mut(0) else {
        return caps;
    };
    if structure.name().starts_with("video/") {
        let (width, height) = UNKNOWN_SIZE;
        for (name, length) in [("width", width), ("height", height)] {
            if !structure.has_field(name) {
                structure.set(name, length);
            }
        }
    }
    // mp4mux of GStreamer 1.22 crashes where VP9 has no chroma site, and refuses it without the others.
    if structure.name() == "video/x-vp9" {
        let texts = [
            ("chroma-site", "mpeg2"),
            ("profile", "0"),
            ("chroma-format", "4:2:0"),
        ];
        for (name, value) in texts {
            if !structure.has_field(name) {
                structure.set(name, value);
            }
        }
        for name in ["bit-depth-luma", "bit-depth-chroma"] {
            if !structure.has_field(name) {
                structure.set(name, 8u32);
            }
        }
    }
    caps
}

fn request_pad(muxer: &gst::Element, caps: &gst::Caps) -> Option<gst::Pad> {
    let is_video = caps.structure(0)?.name().starts_with("video/");
    let other = if is_video { "audio" } else { "video" };
    let templates = muxer.pad_template_list();
    let template = templates.iter().find(|template| {
        template.direction() == gst::PadDirection::Sink
            && template.presence() == gst::PadPresence::Request
            && !template.name_template().starts_with(other)
            && template.caps().can_intersect(caps)
    })?;
    muxer.request_pad(template, None, None)
}

/// Sends the events that come before media.
fn begin(pad: &gst::Pad, name: &str, caps: &gst::Caps) {
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    pad.push_event(gst::event::StreamStart::new(name));
    pad.push_event(gst::event::Caps::new(caps));
    pad.push_event(gst::event::Segment::new(&segment));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_that_too_much_media_waits_for_is_told_and_ends() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = FileSettings {
            container: Container::Matroska,
            path: &folder.path().join("a.mkv"),
            fragment_duration: 1000,
            start: 0,
        };
        let caps = gst::Caps::builder("audio/x-alaw")
            .field("rate", 8000)
            .field("channels", 1)
            .build();
        let track = |index: usize| Track {
            index,
            name: format!("audio_{index}"),
            caps: caps.clone(),
        };
        let watch = Arc::new(Watch::default());
        watch.limit(Instant::now() + Duration::from_secs(20));
        let tracks = [track(0), track(1)];
        let (mut file, _) = MuxedFile::open(&settings, &tracks, watch, || {}).unwrap();
        // The memory of all of them is the same.
        let media = gst::Buffer::from_slice(vec![0; 4 * 1024 * 1024]);
        let count = MAX_QUEUED_UNEVENLY / media.size() as u64 + 4;
        let begun_at = Instant::now();
        for number in 0..count {
            assert!(file.starving_tracks().is_empty() || number + 4 >= count);
            let time = number * 40_000_000;
            file.write(0, media.clone(), time, time);
            file.wait_for_room();
        }
        assert!(begun_at.elapsed() < Duration::from_secs(20));
        assert_eq!(file.starving_tracks(), [1]);
        file.end_track(1);
        assert!(file.starving_tracks().is_empty());
        file.stop();
    }
}
