// SPDX-License-Identifier: MPL-2.0

//! Lock order: `streaming`, then `running`, then `settings`. Neither signals nor notifications nor
//! pushes happen under `running` or `settings`; `streaming` belongs to the streaming thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use parking_lot::Mutex;

use super::buffers;
use super::settings::{Effect, Settings};
use super::signals::{Emitter, SIGNALS};
use super::specs::SPECS;
use super::stats::{self, StreamCounts};
use crate::feed::{Feed, Output};
use crate::server::{self, Claim, ClaimError, ClaimErrorKind, Intake, IntakeConfig, Item};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2serversrc",
        gst::DebugColorFlags::empty(),
        Some("RTMP server source"),
    )
});

#[derive(Debug, Default)]
pub struct Rtmp2ServerSrc {
    settings: Mutex<Settings>,
    /// From start to stop.
    running: Mutex<Option<Claim>>,
    /// Touched by create() alone while the element runs.
    streaming: Mutex<Option<Streaming>>,
    /// Not playing, or about to stop that.
    paused: AtomicBool,
    dropped_before_keyframe: AtomicU64,
    force_key_unit_events: AtomicU64,
}

/// The state of create().
#[derive(Debug)]
struct Streaming {
    intake: Arc<Intake>,
    feed: Feed,
    /// Taken out of the queue and not fed yet.
    items: VecDeque<Item>,
    /// Made for a list that could not leave as one.
    buffers: VecDeque<gst::Buffer>,
    ended: bool,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2ServerSrc {
    const NAME: &'static str = "GstRtmp2ServerSrc";
    type Type = super::Rtmp2ServerSrc;
    type ParentType = gst_base::PushSrc;
}

impl ObjectImpl for Rtmp2ServerSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let effect = self.settings.lock().set(pspec.name(), value);
        match effect {
            Effect::AtNextStart => {}
            Effect::Route => {
                for name in ["host", "port", "application", "stream-key"] {
                    self.obj().notify(name);
                }
            }
            Effect::Intake => {
                let settings = self.settings.lock().intake();
                if let Some(intake) = self.intake() {
                    intake.configure(settings);
                }
            }
            Effect::Drain => self.apply_drain(),
            Effect::Latency => {
                let message = gst::message::Latency::builder().src(&*self.obj()).build();
                let _ = self.obj().post_message(message);
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let levels = || {
            self.intake()
                .map(|i| i.queue().levels())
                .unwrap_or_default()
        };
        match pspec.name() {
            "current-port" => self.current_port().to_value(),
            "current-level-bytes" => levels().bytes.to_value(),
            "current-level-time" => (levels().time.as_nanos() as u64).to_value(),
            "stats" => self.stats().to_value(),
            name => match self.settings.lock().get(name) {
                Some(value) => value,
                None => unreachable!("{name} is not readable"),
            },
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_live(true);
        obj.set_format(gst::Format::Time);
    }
}

impl GstObjectImpl for Rtmp2ServerSrc {}

impl ElementImpl for Rtmp2ServerSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Server Source",
                "Source/Network",
                "Takes an RTMP publisher into the pipeline as FLV",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // Before the base class learns of it, so that create() knows first.
        self.paused.store(
            transition != gst::StateChange::PausedToPlaying,
            Ordering::SeqCst,
        );
        self.parent_change_state(transition)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let src = gst::PadTemplate::new(
                "src",
                gst::PadDirection::Src,
                gst::PadPresence::Always,
                &buffers::caps(),
            );
            src.into_iter().collect()
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for Rtmp2ServerSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let invalid = |error| gst::error_msg!(gst::ResourceError::Settings, ("{}", error));
        let intake = Intake::new(IntakeConfig {
            name: self.obj().name().to_string(),
            route: settings.route().map_err(invalid)?,
            access: settings.access().map_err(invalid)?,
            settings: settings.intake(),
            listener: settings.listener(),
            port: settings.port_settings().map_err(invalid)?,
            observer: Box::new(Emitter::new(self)),
        });
        let claim = server::claim(settings.host(), settings.port(), Arc::new(intake))
            .map_err(|error| start_error(&error))?;
        gst::info!(CAT, imp = self, "Listening on {}", claim.address());

        self.dropped_before_keyframe.store(0, Ordering::Relaxed);
        self.force_key_unit_events.store(0, Ordering::Relaxed);
        *self.streaming.lock() = Some(Streaming {
            intake: claim.intake().clone(),
            feed: Feed::new(settings.feed()),
            items: VecDeque::new(),
            buffers: VecDeque::new(),
            ended: false,
        });
        *self.running.lock() = Some(claim);
        if settings.drain().is_some() {
            self.apply_drain();
        }
        self.obj().notify("current-port");
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let claim = self.running.lock().take();
        // Joins the threads that served this element.
        drop(claim);
        *self.streaming.lock() = None;
        self.obj().notify("current-port");
        gst::info!(CAT, imp = self, "Stopped");
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(intake) = self.intake() {
            intake.queue().set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(intake) = self.intake() {
            intake.queue().set_flushing(false);
        }
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    /// Caps are set with the first media, when it is known what is in them.
    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let min = self.settings.lock().latency();
            // TCP holds back whatever is not taken, so there is no maximum.
            latency.set(true, min, gst::ClockTime::NONE);
            return true;
        }
        BaseSrcImplExt::parent_query(self, query)
    }

    fn event(&self, event: &gst::Event) -> bool {
        if gst_video::ForceKeyUnitEvent::is(event) {
            self.force_key_unit_events.fetch_add(1, Ordering::Relaxed);
            gst::info!(
                CAT,
                imp = self,
                "A keyframe was asked for, and RTMP has no way to ask the publisher"
            );
            return false;
        }
        self.parent_event(event)
    }
}

impl PushSrcImpl for Rtmp2ServerSrc {
    fn create(
        &self,
        _buffer: Option<&mut gst::BufferRef>,
    ) -> Result<CreateSuccess, gst::FlowError> {
        let mut streaming = self.streaming.lock();
        let streaming = streaming.as_mut().ok_or(gst::FlowError::Flushing)?;
        loop {
            if let Some(created) = self.next_buffers(streaming)? {
                return Ok(created);
            }
            if streaming.ended {
                gst::info!(CAT, imp = self, "The publisher has left, sending EOS");
                return Err(gst::FlowError::Eos);
            }
            let queue = streaming.intake.queue();
            queue
                .pop(&mut streaming.items)
                .map_err(|_| gst::FlowError::Flushing)?;
            self.feed_items(streaming);
        }
    }
}

impl Rtmp2ServerSrc {
    fn intake(&self) -> Option<Arc<Intake>> {
        let running = self.running.lock();
        running.as_ref().map(|claim| claim.intake().clone())
    }

    pub(super) fn disconnect_publisher(&self) {
        if let Some(intake) = self.intake() {
            intake.disconnect();
        }
    }

    pub(super) fn request_reconnect(&self, tc_url: Option<&str>, description: &str) -> bool {
        self.intake()
            .is_some_and(|intake| intake.request_reconnect(tc_url, description))
    }

    fn apply_drain(&self) {
        let timeout = self.settings.lock().drain();
        // Draining may tell the application, which may ask for a property.
        let control = self.running.lock().as_ref().map(Claim::drain_control);
        if let Some(control) = control {
            control.set(timeout);
        }
    }

    fn current_port(&self) -> u32 {
        let running = self.running.lock();
        running.as_ref().map_or(0, |c| c.address().port().into())
    }

    fn stats(&self) -> gst::Structure {
        let counts = StreamCounts {
            dropped_before_keyframe: self.dropped_before_keyframe.load(Ordering::Relaxed),
            force_key_unit_events: self.force_key_unit_events.load(Ordering::Relaxed),
        };
        stats::structure(self.intake().as_deref(), counts)
    }

    /// Gives what came out of the queue to the feed.
    fn feed_items(&self, streaming: &mut Streaming) {
        let now = Instant::now();
        let running_time = self.obj().current_running_time();
        let running_time = running_time.unwrap_or(gst::ClockTime::ZERO).nseconds();
        // Tags of one read have one arrival.
        let mut last = (now, running_time);
        while let Some(item) = streaming.items.pop_front() {
            match item {
                Item::Start(publisher) => {
                    gst::info!(CAT, imp = self, "Publisher is {}", publisher.address);
                    // Nothing else ends one that was replaced.
                    streaming.feed.end_publisher();
                    streaming.feed.start_publisher();
                }
                Item::Tag {
                    tag,
                    arrival,
                    discont,
                } => {
                    if arrival != last.0 {
                        let age = now.saturating_duration_since(arrival).as_nanos() as u64;
                        last = (arrival, running_time.saturating_sub(age));
                    }
                    streaming.feed.push(tag, last.1, discont);
                }
                Item::End { is_last } => {
                    streaming.feed.end_publisher();
                    if is_last {
                        streaming.feed.finish();
                        streaming.ended = true;
                    } else {
                        gst::info!(CAT, imp = self, "Waiting for the next publisher");
                    }
                }
            }
        }
        let dropped = streaming.feed.dropped();
        let dropped = dropped.before_keyframe + dropped.waiting;
        self.dropped_before_keyframe
            .store(dropped, Ordering::Relaxed);
    }

    /// What can leave in one go: caps and segments first, then buffers up to the next of those.
    fn next_buffers(
        &self,
        streaming: &mut Streaming,
    ) -> Result<Option<CreateSuccess>, gst::FlowError> {
        // One buffer at a time where the base class counts them.
        let single = self.obj().property::<i32>("num-buffers") >= 0;
        let feed = &mut streaming.feed;
        while streaming.buffers.is_empty() {
            match feed.tags_ahead() {
                0 => match feed.pop() {
                    Some(output) => self.announce(output)?,
                    None => return Ok(None),
                },
                1 => return Ok(next_buffer(feed).map(CreateSuccess::NewBuffer)),
                _ if single => {
                    return Ok(next_buffer(feed).map(CreateSuccess::NewBuffer));
                }
                count => {
                    let mut list = gst::BufferList::new_sized(count);
                    if let Some(list) = list.get_mut() {
                        let buffers = (0..count).map_while(|_| next_buffer(feed));
                        buffers.for_each(|buffer| list.add(buffer));
                    }
                    // The base class may have to drop what is created while the element stops, and
                    // in GStreamer 1.22 does not expect a list then.
                    if self.paused.load(Ordering::SeqCst) {
                        streaming.buffers.extend(list.iter_owned());
                        break;
                    }
                    return Ok(Some(CreateSuccess::NewBufferList(list)));
                }
            }
        }
        let buffer = streaming.buffers.pop_front();
        Ok(buffer.map(CreateSuccess::NewBuffer))
    }

    /// Caps and segments.
    fn announce(&self, output: Output) -> Result<(), gst::FlowError> {
        match output {
            Output::StreamHeader(headers) => {
                let caps = buffers::caps_with_stream_header(headers);
                let set = self.obj().set_caps(&caps);
                set.map_err(|_| gst::FlowError::NotNegotiated)
            }
            Output::Segment { start, base } => {
                let segment = buffers::segment(start, base);
                let set = self.obj().new_segment(segment.upcast_ref());
                set.map_err(|_| gst::FlowError::Error)
            }
            Output::Tag(_) => Ok(()),
        }
    }
}

fn next_buffer(feed: &mut Feed) -> Option<gst::Buffer> {
    match feed.pop()? {
        Output::Tag(tag) => Some(buffers::buffer(tag)),
        Output::StreamHeader(_) | Output::Segment { .. } => None,
    }
}

fn start_error(error: &ClaimError) -> gst::ErrorMessage {
    use gst::ResourceError::{Busy, NotFound, OpenRead, Settings};
    let domain = match error.kind() {
        ClaimErrorKind::Busy => Busy,
        ClaimErrorKind::Settings => Settings,
        ClaimErrorKind::Certificate => NotFound,
        ClaimErrorKind::Other => OpenRead,
    };
    gst::error_msg!(domain, ("{}", error))
}
