// SPDX-License-Identifier: MPL-2.0

//! Files of other formats, remuxed to FLV without encoding.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};

use super::flv::Rewind;

/// Tags that wait to be read.
const AHEAD: usize = 64;

/// Bytes of one track that may wait for the other: files store them in stretches.
const APART: u32 = 64 << 20;

/// Media that may come before the start of a segment.
const EARLY: gst::ClockTime = gst::ClockTime::from_seconds(2);

/// The first byte of a tag with metadata.
const METADATA: u8 = 18;

/// The advice for a file that cannot be sent.
const HINT: &str = "create one that can be sent with ffmpeg -i FILE -c:v libx264 -c:a aac FILE.flv";

/// Reads like an FLV file.
pub struct Remuxed {
    path: PathBuf,
    pass: Pass,
}

/// One pass through the file.
struct Pass {
    pipeline: gst::Pipeline,
    /// `None` once no more may be sent.
    outputs: Option<Receiver<RemuxOutput>>,
    tag: Bytes,
    position: usize,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

type Bytes = gst::MappedBuffer<gst::buffer::Readable>;

enum RemuxOutput {
    Tag(Bytes),
    Error(String),
    End,
}

impl Remuxed {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Remuxed {
            path: path.to_owned(),
            pass: Pass::start(path)?,
        })
    }
}

impl Read for Remuxed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pass.read(buffer)
    }
}

impl Rewind for Remuxed {
    fn rewind(&mut self) -> io::Result<()> {
        self.pass = Pass::start(&self.path)?;
        Ok(())
    }
}

impl Pass {
    fn start(path: &Path) -> io::Result<Self> {
        let (sender, outputs) = sync_channel(AHEAD);
        let pipeline = pipeline(path, &sender).map_err(io::Error::other)?;
        let bus = pipeline.bus();
        let bus = bus.ok_or_else(|| io::Error::other("a pipeline without a bus"))?;
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let error = error.error();
                let text = error.message().trim_end_matches('.');
                // The reader comes to it, or has gone.
                let _ = sender.send(RemuxOutput::Error(format!("{text}: {HINT}")));
            }
            gst::BusSyncReply::Drop
        });
        // The error was sent above.
        let _ = pipeline.set_state(gst::State::Playing);
        Ok(Pass {
            pipeline,
            outputs: Some(outputs),
            tag: gst::Buffer::new()
                .into_mapped_buffer_readable()
                .map_err(|_| io::Error::other("no memory"))?,
            position: 0,
        })
    }
}

impl Read for Pass {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.tag.len() {
            let output = self.outputs.as_ref();
            match output.and_then(|outputs| outputs.recv().ok()) {
                Some(RemuxOutput::Tag(tag)) => (self.tag, self.position) = (tag, 0),
                Some(RemuxOutput::Error(error)) => return Err(io::Error::other(error)),
                Some(RemuxOutput::End) | None => {
                    self.outputs = None;
                    return Ok(0);
                }
            }
        }
        let rest = &self.tag[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // A thread of the pipeline may wait for room in there.
        self.outputs = None;
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn pipeline(path: &Path, sender: &SyncSender<RemuxOutput>) -> Result<gst::Pipeline, Failure> {
    let pipeline = gst::Pipeline::new();
    let make = |name| gst::ElementFactory::make(name);
    let file = make("filesrc").property("location", path).build()?;
    let parser = make("parsebin").build()?;
    let muxer = make("flvmux").property("streamable", true).build()?;
    let tags = tags(sender);
    pipeline.add_many([&file, &parser, &muxer, tags.upcast_ref()])?;
    file.link(&parser)?;
    muxer.link(&tags)?;
    link_tracks(&pipeline, &parser, &muxer);
    Ok(pipeline)
}

/// Makes the sink that the muxer writes its tags to.
fn tags(sender: &SyncSender<RemuxOutput>) -> AppSink {
    let (tags, end) = (sender.clone(), sender.clone());
    let mut has_metadata = false;
    let callbacks = AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
            let tag = buffer.into_mapped_buffer_readable();
            let tag = tag.map_err(|_| gst::FlowError::Error)?;
            // The muxer makes new metadata for each bitrate that a parser has measured.
            let is_metadata = tag.first() == Some(&METADATA);
            if !(is_metadata && std::mem::replace(&mut has_metadata, is_metadata)) {
                let sent = tags.send(RemuxOutput::Tag(tag));
                sent.map_err(|_| gst::FlowError::Flushing)?;
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .eos(move |_| {
            let _ = end.send(RemuxOutput::End);
        });
    AppSink::builder()
        .sync(false)
        .callbacks(callbacks.build())
        .build()
}

/// Links the first track of each kind that FLV supports.
fn link_tracks(pipeline: &gst::Pipeline, parser: &gst::Element, muxer: &gst::Element) {
    let (pipeline, of_tracks) = (pipeline.downgrade(), muxer.clone());
    parser.connect_pad_added(move |parser, pad| {
        if let Some(pipeline) = pipeline.upgrade()
            && let Err(error) = link_track(&pipeline, pad, &of_tracks, is_matroska(parser))
        {
            gst::element_error!(pipeline, gst::StreamError::Failed, ("{error}"));
        }
    });
    let muxer = muxer.clone();
    // No earlier signal tells that there are no more tracks.
    parser.connect("drained", false, move |arguments| {
        if muxer.sink_pads().is_empty() {
            let parser: gst::Element = arguments[0].get().ok()?;
            gst::element_error!(
                parser,
                gst::StreamError::WrongType,
                ("It has no track that can be sent without encoding")
            );
        }
        None
    });
}

/// Links a track. All tracks are there before the first of them delivers anything.
fn link_track(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    muxer: &gst::Element,
    is_matroska: bool,
) -> Result<(), Failure> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let (kind, parser) = match caps.structure(0).map(|caps| caps.name().as_str()) {
        Some("video/x-h264") => ("video", "h264parse"),
        Some("audio/mpeg") if is_mp3(&caps) => ("audio", "mpegaudioparse"),
        Some("audio/mpeg") => ("audio", "aacparse"),
        _ => ("", ""),
    };
    let is_free = !kind.is_empty() && muxer.static_pad(kind).is_none();
    let elements = if is_free {
        make_chain(parser, kind, is_matroska)?
    } else {
        vec![
            gst::ElementFactory::make("fakesink")
                .property("sync", false)
                .property("async", false)
                .build()?,
        ]
    };
    pipeline.add_many(&elements)?;
    gst::Element::link_many(&elements)?;
    if is_free && let Some(last) = elements.last() {
        let end = last.static_pad("src").ok_or("an element without a pad")?;
        change_segments(&end, start_early);
        last.link_pads(Some("src"), muxer, Some(kind))?;
    }
    let first = elements
        .first()
        .and_then(|element| element.static_pad("sink"));
    pad.link(&first.ok_or("an element without a pad")?)?;
    elements
        .iter()
        .rev()
        .try_for_each(|element| element.sync_state_with_parent())?;
    Ok(())
}

/// Makes the elements between a track and the muxer.
fn make_chain(parser: &str, kind: &str, is_matroska: bool) -> Result<Vec<gst::Element>, Failure> {
    let queue = gst::ElementFactory::make("queue")
        .property("max-size-buffers", 0u32)
        .property("max-size-time", 0u64)
        .property("max-size-bytes", APART)
        .build()?;
    // The parser converts it to the form that FLV uses.
    let parser = gst::ElementFactory::make(parser).build()?;
    let mut chain = vec![queue, parser];
    if is_matroska {
        // Its demuxer guesses the start of the segment, and corrects itself on the way.
        let start = chain[0].static_pad("sink").ok_or("a queue without a pad")?;
        change_segments(&start, |segment| segment.set_start(gst::ClockTime::ZERO));
        if kind == "video" {
            // It does not tell the decoding time of a picture.
            chain.push(gst::ElementFactory::make("h264timestamper").build()?);
        }
    }
    Ok(chain)
}

/// The muxer puts everything before the start of a segment at one time: pictures that are decoded
/// before they are shown, the priming of an audio encoder, and in MPEG-TS the media before the
/// first picture. So all segments start earlier, each track by the same time. They have no end: all
/// delivered media belongs to them.
fn start_early(segment: &mut Segment) {
    let start = segment.start().unwrap_or_default();
    let base = segment.base().unwrap_or_default();
    let before = start.min(EARLY);
    segment.set_start(start - before);
    segment.set_base(base + (EARLY - before));
    segment.set_stop(gst::ClockTime::NONE);
}

type Segment = gst::FormattedSegment<gst::ClockTime>;

fn change_segments(pad: &gst::Pad, change: impl Fn(&mut Segment) + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &mut info.data
            && let gst::EventView::Segment(before) = event.view()
            && let Some(segment) = before.segment().downcast_ref::<gst::ClockTime>()
        {
            let mut segment = segment.clone();
            change(&mut segment);
            let changed = gst::event::Segment::builder(&segment).seqnum(before.seqnum());
            *event = changed.build();
        }
        gst::PadProbeReturn::Ok
    });
}

fn is_matroska(parser: &gst::Element) -> bool {
    let bin = parser.downcast_ref::<gst::Bin>();
    bin.is_some_and(|bin| {
        let mut demuxers = bin.iterate_all_by_element_factory_name("matroskademux");
        matches!(demuxers.next(), Ok(Some(_)))
    })
}

fn is_mp3(caps: &gst::Caps) -> bool {
    let structure = caps.structure(0);
    structure.and_then(|caps| caps.get::<i32>("mpegversion").ok()) == Some(1)
}
