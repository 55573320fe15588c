// SPDX-License-Identifier: MPL-2.0

//! Lock order: `streaming` alone is held over anything. It belongs to the streaming thread, which
//! pushes under it; whoever else takes it does so when that thread has ended or waits.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::caps;
use super::input::Input;
use super::stats::{Counts, Problem};
use super::stream::Stream;
use crate::flv::TagKind;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "eflvdemux",
        gst::DebugColorFlags::empty(),
        Some("Enhanced FLV demuxer"),
    )
});

/// Where a time is not known.
const UNKNOWN: u64 = u64::MAX;

/// Those of the tracks, also for a bin around the element.
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

/// What is taken of a file at a time. Tags that lie across two pieces are put together, so it is
/// larger than most of them.
const PIECE: u32 = 256 * 1024;

#[derive(Debug)]
pub struct EFlvDemux {
    sink_pad: gst::Pad,
    streaming: Mutex<Streaming>,
    counts: Counts,
    /// Nanoseconds, or `UNKNOWN`.
    duration: AtomicU64,
    position: AtomicU64,
    upstream_is_time: AtomicBool,
}

#[derive(Debug, Default)]
struct Streaming {
    input: Input,
    stream: Stream,
    /// Where the next bytes come from, where the element takes them itself.
    offset: u64,
}

#[glib::object_subclass]
impl ObjectSubclass for EFlvDemux {
    const NAME: &'static str = "GstEFlvDemux";
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
            counts: Counts::default(),
            duration: AtomicU64::new(UNKNOWN),
            position: AtomicU64::new(UNKNOWN),
            upstream_is_time: AtomicBool::new(false),
        }
    }
}

impl ObjectImpl for EFlvDemux {
    fn properties() -> &'static [glib::ParamSpec] {
        static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb("What came in, what left, and what was skipped and why")
                .read_only()
                .build();
            vec![stats]
        });
        &SPECS
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.counts.structure().to_value(),
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

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.counts.reset();
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            // The pads are inactive now, so nothing streams.
            self.reset();
        }
        Ok(success)
    }
}

// The sink pad
impl EFlvDemux {
    fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.counts.bytes.fetch_add(buffer.size() as u64, Relaxed);
        let mut streaming = self.streaming.lock();
        let Streaming { input, stream, .. } = &mut *streaming;
        if buffer.flags().contains(gst::BufferFlags::DISCONT) {
            input.discontinue();
            stream.discontinue();
        }
        stream.push(self, input, buffer)?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                if let Some(group) = start.group_id() {
                    self.streaming.lock().stream.set_group(group);
                }
                true
            }
            // Those of the tracks are our own.
            gst::EventView::Caps(_) | gst::EventView::StreamCollection(_) => true,
            gst::EventView::Tag(_) => true,
            gst::EventView::Segment(segment) => {
                let mut streaming = self.streaming.lock();
                let format = segment.segment().format();
                streaming.stream.set_segment(&event, format);
                let is_time = streaming.stream.upstream_is_time();
                self.upstream_is_time.store(is_time, Relaxed);
                true
            }
            gst::EventView::Gap(_) => {
                if self.upstream_is_time.load(Relaxed) {
                    self.streaming.lock().stream.gap(&event);
                }
                true
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut streaming = self.streaming.lock();
                    streaming.input.discontinue();
                    streaming.stream.flush();
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

    /// What there is to say at the end, which is one by rights or follows an error.
    fn finish(&self, streaming: &mut Streaming, is_end: bool) {
        if streaming.input.is_cut_short() {
            self.skip(Problem::CutShort, 1, "End of stream");
        }
        streaming.stream.finish(self);
        if is_end && streaming.stream.pads().next().is_none() {
            self.tell_of_no_track();
        }
    }

    /// There is nobody to send the end of the stream to, so who waits for it has to learn it from a
    /// message: an error, as with other demuxers, since nothing can follow that would end the pipeline.
    fn tell_of_no_track(&self) {
        let detail = "The stream has ended, and there was no track in it";
        gst::element_imp_error!(self, gst::StreamError::Demux, ["{detail}"]);
    }

    fn reset(&self) {
        let streaming = std::mem::take(&mut *self.streaming.lock());
        for pad in streaming.stream.pads() {
            let _ = pad.set_active(false);
            let _ = self.obj().remove_pad(pad);
        }
        self.duration.store(UNKNOWN, Relaxed);
        self.position.store(UNKNOWN, Relaxed);
        self.upstream_is_time.store(false, Relaxed);
    }
}

// Files: bytes are taken, in larger pieces than a source would push by itself
impl EFlvDemux {
    fn activate(&self, pad: &gst::Pad) -> Result<(), gst::LoggableError> {
        let mut query = gst::query::Scheduling::new();
        let takes = pad.peer_query(&mut query)
            && query
                .has_scheduling_mode_with_flags(gst::PadMode::Pull, gst::SchedulingFlags::SEEKABLE);
        let mode = if takes {
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
                        element.imp().catch_panic(|| (), |element| element.take());
                    }
                })?;
            }
            (gst::PadMode::Pull, false) => pad.stop_task()?,
            _ => {}
        }
        Ok(())
    }

    /// One turn of the task: the next bytes, or the end of it.
    fn take(&self) {
        let offset = self.streaming.lock().offset;
        let taken = self.sink_pad.pull_range(offset, PIECE).and_then(|buffer| {
            self.streaming.lock().offset += buffer.size() as u64;
            self.chain(buffer)
        });
        let Err(error) = taken else {
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
        for pad in streaming.stream.pads() {
            pad.push_event(gst::event::Eos::new());
        }
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
        // Bytes have no times that upstream could seek to.
        if event.type_() == gst::EventType::Seek && !self.upstream_is_time.load(Relaxed) {
            return false;
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let time = |of: &AtomicU64| match of.load(Relaxed) {
            UNKNOWN => None,
            time => Some(gst::ClockTime::from_nseconds(time)),
        };
        match query.view_mut() {
            gst::QueryViewMut::Position(position) if position.format() == gst::Format::Time => {
                time(&self.position).is_some_and(|time| {
                    position.set(time);
                    true
                })
            }
            gst::QueryViewMut::Duration(duration) if duration.format() == gst::Format::Time => {
                let upstream = self.sink_pad.peer_query_duration::<gst::ClockTime>();
                let known = upstream.or_else(|| time(&self.duration));
                known.is_some_and(|time| {
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

    /// What upstream says to everybody, for a pad that has come later.
    pub(super) fn push_sticky_of_upstream(&self, pad: &gst::Pad) {
        self.sink_pad.sticky_events_foreach(|event| {
            if event.type_() == gst::EventType::CustomDownstreamSticky {
                pad.push_event(event.clone());
            }
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
    }

    pub(super) fn collection_id(&self) -> Option<glib::GString> {
        self.sink_pad.stream_id()
    }
}

// What the streaming thread tells
impl EFlvDemux {
    pub(super) fn count_tag(&self) {
        self.counts.tags.fetch_add(1, Relaxed);
    }

    pub(super) fn count_buffer(&self, kind: TagKind, position: gst::ClockTime) {
        let count = match kind {
            TagKind::Video => &self.counts.video_buffers,
            _ => &self.counts.audio_buffers,
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

    /// Counts what is skipped, and tells of each kind once.
    pub(super) fn skip(&self, problem: Problem, count: u64, detail: &str) {
        gst::debug!(CAT, imp = self, "Skipping, {problem:?}: {detail}");
        if self.counts.problem(problem, count)
            && let Some(message) = problem.message()
        {
            gst::element_imp_warning!(self, gst::StreamError::Demux, ("{message}"), ["{detail}"]);
        }
    }
}
