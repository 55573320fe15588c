// SPDX-License-Identifier: MPL-2.0

//! GObject and base-class methods, and the source pads' queries.
//!
//! Lock order: `streaming` is the only lock held across calls. It belongs to the streaming thread,
//! which pushes under it. Other threads take it only after that thread has ended or while it waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::counters::DemuxCounters;
use super::problem::Problem;
use super::streaming::Streaming;
use super::{CAT, caps};
use crate::flv::TagKind;
use crate::post_permits;
use crate::unlinked::{self, LinkWatch};

/// Stands for an unknown time.
const UNKNOWN: u64 = u64::MAX;

/// Templates of the tracks' pads, also for a bin around the element.
pub(crate) fn source_templates() -> impl Iterator<Item = gst::PadTemplate> {
    let kinds = [
        ("video_%u", caps::of_video_pads()),
        ("audio_%u", caps::of_audio_pads()),
    ];
    kinds.into_iter().filter_map(|(name, caps)| {
        let (direction, presence) = (gst::PadDirection::Src, gst::PadPresence::Sometimes);
        gst::PadTemplate::new(name, direction, presence, &caps).ok()
    })
}

/// Bytes pulled from a file at a time. Tags that lie across two pieces are put together, so it is
/// larger than most tags.
const PIECE: u32 = 256 * 1024;

#[derive(Debug)]
pub struct EFlvDemux {
    pub(super) sink_pad: gst::Pad,
    pub(super) streaming: Mutex<Streaming>,
    pub(super) counters: DemuxCounters,
    /// Nanoseconds, or `UNKNOWN`.
    duration: AtomicU64,
    position: AtomicU64,
    pub(super) upstream_is_time: AtomicBool,
    /// Latency of the pipeline in nanoseconds, as far as it is known.
    latency: AtomicU64,
    /// The bin around the element handles stream collections.
    is_streams_aware: AtomicBool,
    pub(super) links: Arc<LinkWatch>,
}

#[glib::object_subclass]
impl ObjectSubclass for EFlvDemux {
    const NAME: &'static str = "GstEFLVDemux";
    type Type = super::EFlvDemux;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let error = || gst::FlowError::Error;
        let builder = match class.pad_template("sink") {
            Some(template) => gst::Pad::builder_from_template(&template),
            None => gst::Pad::builder(gst::PadDirection::Sink).name("sink"),
        };
        let sink_pad = builder
            .chain_function(move |_, parent, buffer| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || Err(error()),
                    |element| element.chain(buffer),
                )
            })
            .event_function(|pad, parent, event| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || false,
                    |element| element.sink_event(pad, event),
                )
            })
            .activate_function(|pad, parent| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "Panicked")),
                    |element| element.activate(pad),
                )
            })
            .activatemode_function(|pad, parent, mode, is_active| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "Panicked")),
                    |element| element.activate_mode(pad, mode, is_active),
                )
            })
            .build();
        EFlvDemux {
            sink_pad,
            streaming: Mutex::default(),
            counters: DemuxCounters::default(),
            duration: AtomicU64::new(UNKNOWN),
            position: AtomicU64::new(UNKNOWN),
            upstream_is_time: AtomicBool::new(false),
            latency: AtomicU64::new(0),
            is_streams_aware: AtomicBool::new(false),
            links: Arc::default(),
        }
    }
}

impl ObjectImpl for EFlvDemux {
    fn properties() -> &'static [glib::ParamSpec] {
        static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("Bytes and tags received, buffers sent, and what was skipped and why")
                .read_only()
                .build();
            vec![stats]
        });
        &SPECS
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.counters.to_structure().to_value(),
            name => unreachable!("{name} is not readable"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        if let Err(error) = self.obj().add_pad(&self.sink_pad) {
            gst::error!(CAT, imp = self, "{error}");
        }
    }
}

impl GstObjectImpl for EFlvDemux {}

impl ElementImpl for EFlvDemux {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Enhanced FLV Demuxer",
                "Codec/Demuxer",
                "Demuxes FLV and Enhanced FLV, live or from files",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let sink = gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &caps::sink(),
            );
            sink.into_iter().chain(source_templates()).collect()
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
        if transition == gst::StateChange::ReadyToPaused {
            self.counters.reset();
            self.latency.store(0, Relaxed);
            // A bin that does not expect a collection takes it for one of all its streams, and
            // waits for those that are not linked.
            let bin = self.obj().parent().and_downcast::<gst::Bin>();
            let is_aware =
                bin.is_some_and(|bin| bin.bin_flags().contains(gst::BinFlags::STREAMS_AWARE));
            self.is_streams_aware.store(is_aware, Relaxed);
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            // The pads are inactive now, so nothing streams.
            self.remove_pads();
            self.duration.store(UNKNOWN, Relaxed);
            self.position.store(UNKNOWN, Relaxed);
        }
        Ok(success)
    }
}

// The source pads
impl EFlvDemux {
    pub(super) fn new_pad(&self, kind: TagKind, name: &str) -> gst::Pad {
        let template = match kind {
            TagKind::Video => "video_%u",
            _ => "audio_%u",
        };
        let builder = match self.obj().pad_template(template) {
            Some(template) => gst::Pad::builder_from_template(&template),
            None => gst::Pad::builder(gst::PadDirection::Src),
        };
        builder
            .name(name)
            .flags(gst::PadFlags::FIXED_CAPS)
            .query_function(|pad, parent, query| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || false,
                    |element| element.src_query(pad, query),
                )
            })
            .event_function(|pad, parent, event| {
                EFlvDemux::catch_panic_pad_function(
                    parent,
                    || false,
                    |element| element.src_event(pad, event),
                )
            })
            .build()
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        // An upstream of bytes has no times to seek to.
        if event.type_() == gst::EventType::Seek && !self.upstream_is_time.load(Relaxed) {
            return false;
        }
        if let gst::EventView::Latency(event) = event.view() {
            self.latency.fetch_max(event.latency().nseconds(), Relaxed);
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let known = |time: &AtomicU64| match time.load(Relaxed) {
            UNKNOWN => None,
            time => Some(gst::ClockTime::from_nseconds(time)),
        };
        match query.view_mut() {
            gst::QueryViewMut::Position(position) if position.format() == gst::Format::Time => {
                known(&self.position).is_some_and(|time| {
                    position.set(time);
                    true
                })
            }
            gst::QueryViewMut::Duration(duration) if duration.format() == gst::Format::Time => {
                let upstream = self.sink_pad.peer_query_duration::<gst::ClockTime>();
                let time = upstream.or_else(|| known(&self.duration));
                time.is_some_and(|time| {
                    duration.set(time);
                    true
                })
            }
            gst::QueryViewMut::Seeking(seeking) if !self.upstream_is_time.load(Relaxed) => {
                let format = seeking.format();
                seeking.set(
                    false,
                    gst::GenericFormattedValue::none_for_format(format),
                    gst::GenericFormattedValue::none_for_format(format),
                );
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// Pushes upstream's sticky custom events to a new pad.
    pub(super) fn push_upstream_sticky_events(&self, pad: &gst::Pad) {
        self.sink_pad.sticky_events_foreach(|event| {
            if event.type_() == gst::EventType::CustomDownstreamSticky {
                pad.push_event(event.clone());
            }
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
    }

    pub(super) fn upstream_stream_id(&self) -> Option<glib::GString> {
        self.sink_pad.stream_id()
    }
}

// Facts from the streaming thread
impl EFlvDemux {
    pub(super) fn count_buffer(&self, kind: TagKind, position: gst::ClockTime) {
        let count = match kind {
            TagKind::Video => &self.counters.video_buffers,
            _ => &self.counters.audio_buffers,
        };
        count.fetch_add(1, Relaxed);
        self.position.store(position.nseconds(), Relaxed);
    }

    pub(super) fn set_duration(&self, duration: Option<gst::ClockTime>) {
        let duration = duration.map_or(UNKNOWN, gst::ClockTime::nseconds);
        if self.duration.swap(duration, Relaxed) != duration {
            let message = gst::message::DurationChanged::builder().src(&*self.obj());
            let _ = self.obj().post_message(message.build());
        }
    }

    pub(super) fn is_streams_aware(&self) -> bool {
        self.is_streams_aware.load(Relaxed)
    }

    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(self.latency.load(Relaxed))
    }

    /// Asks for the latency of a live pipeline. The event that states it does not reach pads that
    /// are linked after it.
    pub(super) fn update_latency(&self) {
        let mut query = gst::query::Latency::new();
        if !self.sink_pad.peer_query(&mut query) {
            return;
        }
        let (is_live, mut latency, _) = query.result();
        if !is_live {
            return;
        }
        let parents = std::iter::successors(self.obj().parent(), |parent| parent.parent());
        if let Some(top) = parents.last() {
            let mut query = gst::query::Latency::new();
            if let Some(element) = top.downcast_ref::<gst::Element>()
                && element.query(&mut query)
            {
                latency = latency.max(query.result().1);
            }
            let pipeline = top.downcast_ref::<gst::Pipeline>();
            let configured = pipeline.and_then(|pipeline| pipeline.latency());
            latency = latency.max(configured.unwrap_or_default());
        }
        gst::debug!(CAT, imp = self, "The pipeline has a latency of {latency}");
        self.latency.fetch_max(latency.nseconds(), Relaxed);
    }

    /// Counts a problem, and posts a warning for the first one of its kind.
    pub(super) fn skip(&self, problem: Problem, count: u64, detail: impl FnOnce() -> String) {
        let is_first = self.counters.count_problem(problem, count);
        if !is_first && CAT.threshold() < gst::DebugLevel::Debug {
            return;
        }
        let detail = detail();
        gst::debug!(CAT, imp = self, "Skipping, {problem:?}: {detail}");
        if is_first && let Some(message) = problem.message() {
            gst::element_imp_warning!(self, gst::StreamError::Demux, ("{message}"), ["{detail}"]);
        }
    }
}

// The sink pad
impl EFlvDemux {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.counters.bytes.fetch_add(buffer.size() as u64, Relaxed);
        let mut streaming = self.streaming.lock();
        if buffer.flags().contains(gst::BufferFlags::DISCONT) {
            streaming.handle_discontinuity(&self.obj())?;
        }
        streaming.push(&self.obj(), buffer)?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                if let Some(group) = start.group_id() {
                    self.streaming.lock().pads.set_group(group);
                }
                true
            }
            // The tracks have their own caps, streams and tags.
            gst::EventView::Caps(caps) => {
                let header = caps.caps().structure(0);
                if let Some(headers) = header.and_then(|s| s.get("streamheader").ok()) {
                    self.streaming
                        .lock()
                        .handle_stream_header(&self.obj(), &headers);
                }
                true
            }
            gst::EventView::StreamCollection(_) | gst::EventView::Tag(_) => true,
            gst::EventView::Segment(segment) => {
                let mut streaming = self.streaming.lock();
                let format = segment.segment().format();
                let is_time = format == gst::Format::Time;
                streaming.demuxer.start_segment(is_time);
                streaming.pads.set_segment(&event, format);
                self.upstream_is_time.store(is_time, Relaxed);
                true
            }
            gst::EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                if self.upstream_is_time.load(Relaxed) {
                    let gap = start..start.saturating_add(duration.unwrap_or_default());
                    self.streaming.lock().handle_gap(&self.obj(), &gap);
                }
                true
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut streaming = self.streaming.lock();
                    streaming.parser.flush();
                    streaming.demuxer.flush();
                    streaming.pads.flush();
                }
                gst::Pad::event_default(pad, Some(&*self.obj()), event)
            }
            gst::EventView::Eos(_) => {
                self.finish(&mut self.streaming.lock(), true);
                gst::Pad::event_default(pad, Some(&*self.obj()), event)
            }
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    /// Handles the end of the stream. `is_end`: no error has ended it.
    fn finish(&self, streaming: &mut Streaming, is_end: bool) {
        streaming.finish(&self.obj());
        if is_end && streaming.pads.iter().next().is_none() {
            self.post_no_track();
        }
        // The end of a file that nobody plays is an error of its source already.
        if is_end && self.upstream_is_time.load(Relaxed) {
            let element = self.obj();
            let element = element.upcast_ref();
            self.links.end(element, || unlinked::pads_text(element));
        }
    }

    /// Posts an error, as other demuxers do: without a pad the end of the stream can't go
    /// downstream, and nothing can follow that would end the pipeline.
    fn post_no_track(&self) {
        let detail = "The stream has ended, and there was no track in it";
        gst::element_imp_error!(self, gst::StreamError::Demux, ["{detail}"]);
    }

    fn remove_pads(&self) {
        let streaming = std::mem::take(&mut *self.streaming.lock());
        for pad in streaming.pads.iter() {
            let _ = pad.set_active(false);
            let _ = self.obj().remove_pad(pad);
        }
        self.upstream_is_time.store(false, Relaxed);
        self.links.reset();
    }
}

// Files: the element pulls the bytes, in larger pieces than a source would push by itself
impl EFlvDemux {
    fn activate(&self, pad: &gst::Pad) -> Result<(), gst::LoggableError> {
        let mut query = gst::query::Scheduling::new();
        let can_pull = pad.peer_query(&mut query)
            && query
                .has_scheduling_mode_with_flags(gst::PadMode::Pull, gst::SchedulingFlags::SEEKABLE);
        let mode = if can_pull {
            gst::PadMode::Pull
        } else {
            gst::PadMode::Push
        };
        pad.activate_mode(mode, true)?;
        Ok(())
    }

    fn activate_mode(
        &self,
        pad: &gst::Pad,
        mode: gst::PadMode,
        is_active: bool,
    ) -> Result<(), gst::LoggableError> {
        match (mode, is_active) {
            (gst::PadMode::Pull, true) => {
                let element = self.obj().downgrade();
                pad.start_task(move || {
                    if let Some(element) = element.upgrade() {
                        element.imp().catch_panic(|| (), |element| element.pull());
                    }
                })?;
            }
            (gst::PadMode::Pull, false) => pad.stop_task()?,
            _ => {}
        }
        Ok(())
    }

    /// One turn of the task: handles the next bytes, or the end of the stream.
    fn pull(&self) {
        let offset = self.streaming.lock().offset;
        let flow = self.sink_pad.pull_range(offset, PIECE).and_then(|buffer| {
            self.streaming.lock().offset += buffer.size() as u64;
            self.chain(buffer)
        });
        let Err(error) = flow else {
            return;
        };
        gst::debug!(CAT, imp = self, "Stopping: {error}");
        let _ = self.sink_pad.pause_task();
        if error == gst::FlowError::Flushing {
            return;
        }
        if error != gst::FlowError::Eos {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ["Streaming stopped: {error}"]
            );
        }
        let mut streaming = self.streaming.lock();
        self.finish(&mut streaming, error == gst::FlowError::Eos);
        for pad in streaming.pads.iter() {
            pad.push_event(gst::event::Eos::new());
        }
    }
}
