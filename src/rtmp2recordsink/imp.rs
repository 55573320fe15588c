// SPDX-License-Identifier: MPL-2.0

//! GObject and base-class methods: a bin around eflvdemux, whose pads bring packets to the recording
//! thread. Lock order: `running`, `tracks` and `settings` are leaves, held across no call.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::{Condvar, Mutex};

use super::CAT;
use super::counters::RecordCounters;
use super::finisher::Finisher;
use super::input::{Entry, Input};
use super::rotation::Packet;
use super::settings::{SPECS, Settings};
use super::shared::Shared;
use super::watch::Watch;
use super::worker::Worker;
use crate::eflvdemux::EFlvDemux;
use crate::post_permits;

/// Time in which the last file is finished when the element stops.
const STOPPING: Duration = Duration::from_secs(5);

/// Time for what the recording thread does after that.
const LEAVING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Rtmp2RecordSink {
    demuxer: EFlvDemux,
    settings: Arc<Mutex<Settings>>,
    counters: Arc<RecordCounters>,
    /// The recording thread, from READY to PAUSED and back.
    running: Mutex<Option<Running>>,
    /// Tracks by their index.
    tracks: Mutex<Vec<TrackInput>>,
}

/// A track of the demuxer, and the pad that receives its packets. Nothing else owns that pad.
#[derive(Debug)]
struct TrackInput {
    name: String,
    pad: Option<gst::Pad>,
}

#[derive(Debug, Clone)]
struct Running {
    input: Arc<Input>,
    watch: Arc<Watch>,
    end: Arc<(Mutex<bool>, Condvar)>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2RecordSink {
    const NAME: &'static str = "GstRTMP2RecordSink";
    type Type = super::Rtmp2RecordSink;
    type ParentType = gst::Bin;

    fn new() -> Self {
        Rtmp2RecordSink {
            demuxer: glib::Object::builder().property("name", "demuxer").build(),
            settings: Arc::default(),
            counters: Arc::default(),
            running: Mutex::default(),
            tracks: Mutex::default(),
        }
    }
}

impl ObjectImpl for Rtmp2RecordSink {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings.lock().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => {
                let input = self.running.lock().as_ref().map(|r| r.input.clone());
                let queued = input.map_or(0, |input| input.bytes());
                self.counters.to_structure(queued).to_value()
            }
            name => match self.settings.lock().get(name) {
                Some(value) => value,
                None => unreachable!("{name} is not readable"),
            },
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        if let Err(error) = obj.add(&self.demuxer).and_then(|()| self.add_sink_pad()) {
            gst::error!(CAT, imp = self, "{error}");
        }
        // After the child, which is none.
        obj.set_element_flags(gst::ElementFlags::SINK);
        let bin = obj.downgrade();
        self.demuxer.connect_pad_added(move |_, pad| {
            if let Some(bin) = bin.upgrade()
                && let Err(error) = bin.imp().add_track(pad)
            {
                gst::error!(CAT, obj = bin, "{error}");
            }
        });
    }
}

impl GstObjectImpl for Rtmp2RecordSink {}

impl ElementImpl for Rtmp2RecordSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Recording Sink",
                "Sink/File",
                "Records FLV streams to files named by stream and time, one after the other",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::new_empty_simple("video/x-flv");
            let (direction, presence) = (gst::PadDirection::Sink, gst::PadPresence::Always);
            let sink = gst::PadTemplate::new("sink", direction, presence, &caps);
            sink.into_iter().collect()
        });
        &TEMPLATES
    }

    fn post_message(&self, message: gst::Message) -> bool {
        post_permits::post(message, |message| self.parent_post_message(message))
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PausedToReady => self.release(),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        let has_failed = result.is_err() && transition == gst::StateChange::ReadyToPaused;
        if transition == gst::StateChange::PausedToReady || has_failed {
            self.stop();
        }
        result
    }
}

impl BinImpl for Rtmp2RecordSink {
    /// An error of the demuxer is that a stream has ended without any track. There is nothing to
    /// record then, and the pipeline goes on.
    fn handle_message(&self, message: gst::Message) {
        match message.view() {
            gst::MessageView::Error(error) => {
                gst::info!(CAT, imp = self, "Nothing to record: {}", error.error());
                self.push(Entry::Eos(message.seqnum()));
            }
            _ => self.parent_handle_message(message),
        }
    }
}

impl Rtmp2RecordSink {
    fn add_sink_pad(&self) -> Result<(), glib::BoolError> {
        let missing = || glib::bool_error!("A pad or its template is missing");
        let template = self.obj().pad_template("sink").ok_or_else(missing)?;
        let target = self.demuxer.static_pad("sink").ok_or_else(missing)?;
        let ghost = gst::GhostPad::builder_from_template(&template)
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(
                    parent,
                    || false,
                    |element| element.sink_event(pad, event),
                )
            })
            .with_target(&target)?
            .build();
        self.obj().add_pad(&ghost)
    }

    /// Looks at events before the demuxer has them, and at the end of the stream after it: there may
    /// be no track that it reaches.
    fn sink_event(&self, pad: &gst::GhostPad, event: gst::Event) -> bool {
        let end = match event.view() {
            gst::EventView::CustomDownstreamSticky(custom) => {
                if let Some(status) = custom.structure()
                    && status.name() == "rtmp2-stream-status"
                {
                    self.push(Entry::Status(status.to_owned()));
                }
                None
            }
            gst::EventView::Eos(eos) => Some(eos.seqnum()),
            // Times may begin again, which no format has a place for.
            gst::EventView::FlushStop(_) => {
                self.push(Entry::Flush);
                None
            }
            _ => None,
        };
        let handled = gst::Pad::event_default(pad, Some(&*self.obj()), event);
        if let Some(seqnum) = end {
            self.push(Entry::Eos(seqnum));
            // The demuxer fails at an end without tracks.
            return true;
        }
        handled
    }

    /// Links a track of the demuxer to a pad that brings its packets to the recording thread.
    fn add_track(&self, pad: &gst::Pad) -> Result<(), glib::BoolError> {
        let name = pad.name().to_string();
        let index = {
            let mut tracks = self.tracks.lock();
            let known = tracks.iter().position(|track| track.name == name);
            known.unwrap_or_else(|| {
                tracks.push(TrackInput {
                    name: name.clone(),
                    pad: None,
                });
                tracks.len() - 1
            })
        };
        let Some(input) = self.running.lock().as_ref().map(|r| r.input.clone()) else {
            return Ok(());
        };
        let for_events = input.clone();
        let segment = Mutex::new(gst::FormattedSegment::<gst::ClockTime>::new());
        let segment = Arc::new(segment);
        let new_segment = segment.clone();
        // Without a template a pad accepts no other caps than its first ones.
        let template = gst::PadTemplate::new(
            "sink",
            gst::PadDirection::Sink,
            gst::PadPresence::Always,
            &gst::Caps::new_any(),
        )?;
        let sink = gst::Pad::builder_from_template(&template)
            .name(&name)
            .chain_function(move |_, _, buffer| {
                let packet = packet(index, buffer, &segment.lock());
                input.push_packet(packet);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |_, _, event| {
                match event.view() {
                    gst::EventView::Caps(caps) => for_events.push(Entry::Track {
                        index,
                        name: name.clone(),
                        caps: caps.caps_owned(),
                    }),
                    // A demuxer that pulls from a file ends the stream itself.
                    gst::EventView::Eos(eos) => for_events.push(Entry::Eos(eos.seqnum())),
                    gst::EventView::Segment(event) => {
                        if let Some(time) = event.segment().downcast_ref() {
                            *new_segment.lock() = time.clone();
                        }
                    }
                    _ => {}
                }
                true
            })
            .build();
        sink.set_active(true)?;
        let linked = pad.link_full(&sink, gst::PadLinkCheck::empty());
        linked.map_err(|error| glib::bool_error!("{error}"))?;
        self.tracks.lock()[index].pad = Some(sink);
        Ok(())
    }

    fn push(&self, entry: Entry) {
        let input = self.running.lock().as_ref().map(|r| r.input.clone());
        if let Some(input) = input {
            input.push(entry);
        }
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let template = self.settings.lock().template();
        let template = template.map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::Settings, ("{error}"));
            gst::StateChangeError
        })?;
        self.counters.reset();
        self.tracks.lock().clear();
        let running = Running {
            input: Arc::default(),
            watch: Arc::default(),
            end: Arc::default(),
        };
        let shared = Shared {
            element: self.obj().downgrade(),
            settings: self.settings.clone(),
            counters: self.counters.clone(),
            input: running.input.clone(),
            watch: running.watch.clone(),
            kept: Arc::default(),
            warnings: Arc::default(),
        };
        let end = running.end.clone();
        let (finisher, jobs) = Finisher::new(shared.clone(), template.container);
        let finishing = std::thread::Builder::new().name("record-finish".into());
        let started = finishing.spawn(move || {
            // Until the recording thread has ended.
            finisher.run();
            *end.0.lock() = true;
            end.1.notify_all();
        });
        let recording = std::thread::Builder::new().name("record".into());
        let started = started
            .and_then(|_| recording.spawn(move || Worker::new(shared, template, jobs).run()));
        if let Err(error) = started {
            let text = "A recording thread can't be started";
            gst::element_imp_error!(self, gst::ResourceError::Failed, ("{text}: {error}"));
            return Err(gst::StateChangeError);
        }
        *self.running.lock() = Some(running);
        Ok(())
    }

    /// Lets the streaming thread go, which may wait for the recording thread.
    fn release(&self) {
        if let Some(running) = &*self.running.lock() {
            running.input.release();
        }
    }

    /// Finishes the last file. A disk that hangs delays that for a while only.
    fn stop(&self) {
        let Some(running) = self.running.lock().take() else {
            return;
        };
        running.watch.limit(Instant::now() + STOPPING);
        running.input.push(Entry::Stop);
        let (is_over, changed) = &*running.end;
        let mut is_over = is_over.lock();
        changed.wait_while_for(&mut is_over, |is_over| !*is_over, STOPPING + LEAVING);
        if !*is_over {
            let text = "The last file could not be finished: the disk does not answer";
            gst::element_imp_warning!(self, gst::ResourceError::Close, ("{text}"));
        }
        for track in self.tracks.lock().drain(..) {
            if let Some(pad) = track.pad {
                let _ = pad.set_active(false);
            }
        }
    }
}

/// Returns a packet with running times.
fn packet(
    track: usize,
    buffer: gst::Buffer,
    segment: &gst::FormattedSegment<gst::ClockTime>,
) -> Packet<gst::Buffer> {
    let running_time = |time: Option<gst::ClockTime>| {
        // Decoding may begin before the segment does.
        Some(match segment.to_running_time_full(time?)? {
            gst::Signed::Positive(time) => time.nseconds(),
            gst::Signed::Negative(_) => 0,
        })
    };
    let dts = running_time(buffer.dts().or(buffer.pts())).unwrap_or(0);
    Packet {
        track,
        dts,
        pts: running_time(buffer.pts()).unwrap_or(dts),
        is_key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        bytes: buffer.size() as u64,
        media: buffer,
    }
}
