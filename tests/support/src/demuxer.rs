// SPDX-License-Identifier: MPL-2.0

//! A demuxer without a pipeline around it: the test pushes into it in any pieces, and all output is
//! kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use gst::prelude::*;
use sha2::{Digest, Sha256};

use super::init;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Nanoseconds.
    pub dts: Option<u64>,
    pub pts: Option<u64>,
    pub data: Vec<u8>,
    pub is_delta: bool,
}

impl Packet {
    pub fn of(buffer: &gst::Buffer) -> Self {
        Packet {
            dts: buffer.dts().map(gst::ClockTime::nseconds),
            pts: buffer.pts().map(gst::ClockTime::nseconds),
            data: buffer.map_readable().unwrap().to_vec(),
            is_delta: buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        }
    }

    pub fn hash(&self) -> String {
        let hash = Sha256::digest(&self.data);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn dts_millis(&self) -> i64 {
        (self.dts.unwrap() / 1_000_000) as i64
    }

    pub fn pts_millis(&self) -> i64 {
        (self.pts.unwrap() / 1_000_000) as i64
    }
}

#[derive(Debug, Clone, Default)]
pub struct Track {
    pub caps: Vec<gst::Caps>,
    pub packets: Vec<Packet>,
    pub buffers: Vec<gst::Buffer>,
    pub events: Vec<gst::Event>,
}

impl Track {
    pub fn is_ended(&self) -> bool {
        let mut events = self.events.iter();
        events.any(|event| event.type_() == gst::EventType::Eos)
    }

    pub fn last_caps(&self) -> gst::Structure {
        let caps = self.caps.last().expect("the track has caps");
        caps.structure(0).unwrap().to_owned()
    }
}

pub type Tracks = BTreeMap<String, Track>;

#[derive(Debug)]
pub struct Demuxer {
    pub element: gst::Element,
    bus: gst::Bus,
    source: gst::Pad,
    tracks: Arc<Mutex<Tracks>>,
    /// The peers of its pads.
    _sinks: Arc<Mutex<Vec<gst::Pad>>>,
    bin: OnceLock<gst::Bin>,
}

impl Demuxer {
    /// `eflvdemux` or `flvdemux`, in PAUSED, fed with a stream in BYTES.
    pub fn new(factory: &str) -> Self {
        init();
        let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
        Self::with_segment(factory, bytes.upcast_ref())
    }

    pub fn with_segment(factory: &str, segment: &gst::Segment) -> Self {
        Self::build(factory, segment, true)
    }

    /// Frees all output at once.
    pub fn keeping_nothing(factory: &str, segment: &gst::Segment) -> Self {
        Self::build(factory, segment, false)
    }

    fn build(factory: &str, segment: &gst::Segment, keeps: bool) -> Self {
        init();
        let element = gst::ElementFactory::make(factory).build().unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let tracks = Arc::new(Mutex::new(Tracks::new()));
        let sinks = Arc::new(Mutex::new(Vec::new()));
        let (kept, ends) = (tracks.clone(), sinks.clone());
        element.connect_pad_added(move |_, pad| {
            let sink = sink(pad.name().to_string(), kept.clone(), keeps);
            pad.link(&sink).unwrap();
            ends.lock().unwrap().push(sink);
        });
        let source = gst::Pad::builder(gst::PadDirection::Src)
            .name("source")
            .build();
        source.link(&element.static_pad("sink").unwrap()).unwrap();
        element.set_state(gst::State::Paused).unwrap();
        source.set_active(true).unwrap();
        source.push_event(gst::event::StreamStart::new("test"));
        let caps = gst::Caps::new_empty_simple("video/x-flv");
        source.push_event(gst::event::Caps::new(&caps));
        source.push_event(gst::event::Segment::new(segment));
        Demuxer {
            element,
            bus,
            source,
            tracks,
            _sinks: sinks,
            bin: OnceLock::new(),
        }
    }

    /// Puts the element, before anything is pushed, into a bin that is aware of streams, or into
    /// one that is not.
    pub fn set_streams_aware(&self, is_aware: bool) {
        let bin = self.bin.get_or_init(gst::Bin::new);
        if is_aware {
            bin.set_bin_flags(gst::BinFlags::STREAMS_AWARE);
        }
        self.element.set_state(gst::State::Ready).unwrap();
        bin.add(&self.element).unwrap();
        // A bin unlinks what is added to it.
        let sink = self.element.static_pad("sink").unwrap();
        self.source.link(&sink).unwrap();
        bin.set_bus(Some(&self.bus));
        bin.set_state(gst::State::Paused).unwrap();
        let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
        self.source.push_event(gst::event::Segment::new(&bytes));
    }

    pub fn push_buffer(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.source.push(buffer)
    }

    pub fn push(&self, bytes: &[u8]) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.push_buffer(gst::Buffer::from_slice(bytes.to_vec()))
    }

    pub fn event(&self, event: gst::Event) -> bool {
        self.source.push_event(event)
    }

    pub fn tracks(&self) -> Tracks {
        self.tracks.lock().unwrap().clone()
    }

    pub fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }

    pub fn count(&self, name: &str) -> u64 {
        self.stats().get(name).unwrap()
    }

    pub fn messages(&self, kind: gst::MessageType) -> Vec<gst::Message> {
        std::iter::from_fn(|| self.bus.pop_filtered(&[kind])).collect()
    }

    /// Ends the stream, and returns the output.
    pub fn finish(&self) -> Tracks {
        self.event(gst::event::Eos::new());
        self.tracks()
    }
}

impl Drop for Demuxer {
    fn drop(&mut self) {
        let _ = self.source.set_active(false);
        let outermost: &gst::Element = match self.bin.get() {
            Some(bin) => bin.upcast_ref(),
            None => &self.element,
        };
        let _ = outermost.set_state(gst::State::Null);
        outermost.set_bus(None::<&gst::Bus>);
    }
}

fn sink(name: String, tracks: Arc<Mutex<Tracks>>, keeps: bool) -> gst::Pad {
    let (of_buffer, of_event) = (tracks, name.clone());
    let for_events = of_buffer.clone();
    // Without a template a pad accepts no other caps than its first ones.
    let template = gst::PadTemplate::new(
        "sink",
        gst::PadDirection::Sink,
        gst::PadPresence::Always,
        &gst::Caps::new_any(),
    );
    let sink = gst::Pad::builder_from_template(&template.unwrap())
        .chain_function(move |_, _, buffer| {
            if !keeps {
                return Ok(gst::FlowSuccess::Ok);
            }
            let packet = Packet::of(&buffer);
            let mut tracks = of_buffer.lock().unwrap();
            let track = tracks.entry(name.clone()).or_default();
            track.packets.push(packet);
            track.buffers.push(buffer);
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(move |_, _, event| {
            let mut tracks = for_events.lock().unwrap();
            let track = tracks.entry(of_event.clone()).or_default();
            if let gst::EventView::Caps(caps) = event.view() {
                track.caps.push(caps.caps_owned());
            }
            track.events.push(event);
            true
        })
        .build();
    sink.set_active(true).unwrap();
    sink
}

/// Returns the output for these bytes, pushed in pieces of this length.
#[track_caller]
pub fn demux(factory: &str, bytes: &[u8], piece: usize) -> Tracks {
    let demuxer = Demuxer::new(factory);
    for piece in bytes.chunks(piece) {
        match demuxer.push(piece) {
            // From 1.28 on it ends where the sequence of its last track ends.
            Err(gst::FlowError::Eos) if factory == "flvdemux" => break,
            pushed => pushed.unwrap(),
        };
    }
    let tracks = demuxer.finish();
    let errors = demuxer.messages(gst::MessageType::Error);
    assert!(errors.is_empty(), "{errors:?}");
    tracks
}
