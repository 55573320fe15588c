// SPDX-License-Identifier: MPL-2.0

//! Lock order: `streaming`, then `running`, then `origin` or those of `state`; `keyframe_requests`, then
//! those of the server. Signals, notifications and pushes happen under none of them except
//! `streaming`, which belongs to the streaming thread in create(). It is not held while that waits for
//! the queue. The publisher's thread that delivers meanwhile takes the value out, and holds no lock.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;
use gst_base::subclass::prelude::*;
use parking_lot::{Mutex, MutexGuard};

use super::claiming::{self, ActiveClaim, StreamOrigin};
use super::context::Context;
use super::counters::ElementCounters;
use super::element_state::ElementState;
use super::keyframe::{KeyframeRequests, NoKeyframe};
use super::pause_gate::PauseGate;
use super::pauses::Pauses;
use super::settings::{Effect, Settings};
use super::signals::Emitter;
use super::specs::SPECS;
use super::state::StateInput;
use super::stats::{self, StreamStatistics};
use super::streaming::{Step, StreamingTask};
use super::voice::Voice;
use super::{CAT, announcements, buffers, signals};
use crate::flv::description::StreamDescription;
use crate::post_permits;
use crate::server::{self, Delivered, Downstream, Stream, Wake};

static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
    signals::build(
        |element| {
            if let Some(element) = element.downcast_ref::<super::Rtmp2ServerSrc>() {
                element.imp().disconnect_publisher();
            }
        },
        |element, tc_url, description| {
            let element = element.downcast_ref::<super::Rtmp2ServerSrc>();
            element.is_some_and(|element| element.imp().request_reconnect(tc_url, description))
        },
    )
});

/// A stop whose last part is the caller's of [`Rtmp2ServerSrc::finish_stop`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum DeferredStop {
    #[default]
    No,
    Wanted,
    /// The base class has stopped.
    Due,
}

#[derive(Debug, Default)]
pub struct Rtmp2ServerSrc {
    state: ElementState,
    pause_gate: PauseGate,
    pauses: Pauses,
    origin: Mutex<StreamOrigin>,
    /// Set from start to stop.
    running: Mutex<Option<ActiveClaim>>,
    /// The delivery state while the element runs. None while the publisher's thread delivers.
    streaming: Mutex<Option<Box<StreamingTask>>>,
    /// The property of the base class. Negative while buffers are not counted.
    num_buffers: AtomicI32,
    /// Number of flushes.
    flushes: AtomicU64,
    force_key_unit_events: AtomicU64,
    deferred_stop: Mutex<DeferredStop>,
    keyframe_requests: Mutex<KeyframeRequests>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2ServerSrc {
    // Spelled so that no other plugin has it; names of elements are its lower case, without Gst.
    const NAME: &'static str = "GstRTMP2ServerSrc";
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
        let effect = self.state.settings().set(pspec.name(), value);
        if pspec.name() == "quality-limits" {
            let settings = self.state.settings().clone();
            Voice::check_quality(self.obj().upcast_ref(), &settings);
        }
        match effect {
            Effect::AtNextStart => {}
            Effect::Route => {
                for name in ["host", "port", "application", "stream-key"] {
                    self.obj().notify(name);
                }
            }
            Effect::Stream => self.apply_stream_settings(),
            Effect::Drain => self.apply_drain(),
            Effect::Latency => self.post_latency(),
            Effect::StreamAndLatency => {
                self.apply_stream_settings();
                self.post_latency();
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let levels = || {
            let stream = self.stream();
            stream.map_or_else(Default::default, |stream| stream.queue().levels())
        };
        match pspec.name() {
            "current-port" => self.current_port().to_value(),
            "current-level-bytes" => levels().bytes.to_value(),
            "current-level-time" => (levels().time.as_nanos() as u64).to_value(),
            "stats" => self.stats().to_value(),
            "connection-state" => self.state.snapshot().connection.to_value(),
            "stream-status" => self.state.snapshot().status.to_value(),
            "epoch" => self.state.snapshot().epoch.to_value(),
            name => match self.state.settings().get(name) {
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
        // Reading it for each buffer would cost more than the buffer.
        let update = |obj: &super::Rtmp2ServerSrc| {
            let num_buffers = obj.property("num-buffers");
            obj.imp().num_buffers.store(num_buffers, Ordering::Relaxed);
        };
        update(&obj);
        obj.connect_notify(Some("num-buffers"), move |obj, _| update(obj));
    }
}

impl GstObjectImpl for Rtmp2ServerSrc {}

impl ElementImpl for Rtmp2ServerSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Server Source",
                "Source/Network",
                "Receives an RTMP publisher and outputs its stream as FLV",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn post_message(&self, message: gst::Message) -> bool {
        post_permits::post(message, |message| self.parent_post_message(message))
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // The base class does not handle such an event.
        if event.is_upstream() && gst_video::ForceKeyUnitEvent::is(&event) {
            return self.request_keyframe();
        }
        // The base class would wait for the streaming thread, and discard the queue.
        if event.type_() == gst::EventType::Eos && self.end() {
            return true;
        }
        let is_serialized = event.is_downstream() && event.is_serialized();
        let sent = self.parent_send_event(event);
        // The base class pushes it ahead of the next output of create().
        if is_serialized {
            self.state.set_requires_return(true);
        }
        sent
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::PlayingToPaused => {
                self.pauses.start(Instant::now(), self.running_time());
                self.pause_gate
                    .pause(|| self.parent_change_state(transition))
            }
            gst::StateChange::PausedToPlaying => {
                let result = self.parent_change_state(transition);
                if result.is_ok() {
                    self.pauses.end(Instant::now(), self.running_time());
                    self.pause_gate.resume();
                    // It waits without the deadlines that need a running time.
                    if let Some(stream) = self.stream() {
                        stream.queue().call_reader();
                    }
                }
                result
            }
            gst::StateChange::PausedToReady => {
                // The pad forgets it when it is deactivated. After a refusal the delivery state is free;
                // at other times it may be in use for as long as elements downstream block.
                let flow = self.obj().src_pad().last_flow_result();
                if let Some(mut streaming) = self.streaming.try_lock()
                    && let Some(streaming) = streaming.as_mut()
                {
                    streaming.handle_last_flow(flow);
                }
                self.parent_change_state(transition)
            }
            _ => self.parent_change_state(transition),
        }
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
        let settings = self.state.settings().clone();
        let attached = self.origin.lock().take()?;
        // The stream of another element has a publisher already.
        let standby = settings
            .standby(attached.is_none())
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let running = match attached {
            Some(claim) => ActiveClaim::Attached(claim),
            None => {
                let name = claiming::full_name(self.obj().upcast_ref());
                let observer = Arc::new(Emitter::new(self.obj().upcast_ref()));
                let config = claiming::config(&settings, name, observer)?;
                ActiveClaim::claim(&settings, config)?
            }
        };
        if let Some(address) = running.address() {
            gst::info!(CAT, imp = self, "Listening on {address}");
            self.voice()
                .listening(self.obj().upcast_ref(), &settings, address);
        }

        self.state.reset();
        self.pause_gate.reset();
        self.pauses.reset(Instant::now(), self.running_time());
        self.force_key_unit_events.store(0, Ordering::Relaxed);
        *self.keyframe_requests.lock() = KeyframeRequests::default();
        let stream = running.stream().clone();
        let streaming = StreamingTask::new(stream, settings.feed(), standby);
        *self.streaming.lock() = Some(Box::new(streaming));
        let downstream = Arc::new(DirectDownstream(self.obj().clone()));
        running.stream().direct().set_downstream(Some(downstream));
        *self.running.lock() = Some(running);
        // Properties may have been set since `settings` was copied, and then found no stream.
        self.apply_stream_settings();
        self.apply_drain();
        self.obj().notify("current-port");
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let mut deferred = self.deferred_stop.lock();
        if *deferred == DeferredStop::No {
            drop(deferred);
            self.stop_now();
        } else {
            *deferred = DeferredStop::Due;
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if self.pause_gate.unlock() {
            self.flushes.fetch_add(1, Ordering::Relaxed);
            self.state.set_requires_return(true);
            if let Some(stream) = self.stream() {
                stream.queue().begin_flush();
            }
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if self.pause_gate.unlock_stop()
            && let Some(stream) = self.stream()
        {
            stream.end_flush();
        }
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    /// Does nothing: caps are set with the first media, when the stream headers are known.
    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let min = self.state.settings().latency();
            // TCP pushes back on the publisher, so there is no maximum.
            latency.set(true, min, gst::ClockTime::NONE);
            return true;
        }
        // The base class knows only the position of its own pushes.
        if let gst::QueryViewMut::Position(position) = query.view_mut()
            && position.format() == gst::Format::Time
            && self.running.lock().is_some()
        {
            let time = self.state.position();
            position.set(gst::ClockTime::from_nseconds(time));
            return true;
        }
        BaseSrcImplExt::parent_query(self, query)
    }

    /// Called with each output of create() that the base class is about to push. No output has to wait
    /// for the clock.
    fn times(&self, _buffer: &gst::BufferRef) -> (Option<gst::ClockTime>, Option<gst::ClockTime>) {
        self.pause_gate.confirm();
        (None, None)
    }

    fn event(&self, event: &gst::Event) -> bool {
        if gst_video::ForceKeyUnitEvent::is(event) {
            return self.request_keyframe();
        }
        self.parent_event(event)
    }
}

impl PushSrcImpl for Rtmp2ServerSrc {
    fn create(
        &self,
        _buffer: Option<&mut gst::BufferRef>,
    ) -> Result<CreateSuccess, gst::FlowError> {
        let is_kept = self.pause_gate.enter();
        let mut wake = None;
        self.with_context(|context| {
            loop {
                let mut streaming = self.lock_streaming()?;
                let task = streaming.as_mut().ok_or(gst::FlowError::Flushing)?;
                if !is_kept && wake.is_none() {
                    task.handle_loss(context);
                }
                match task.next(context, wake)? {
                    Step::Output(output) => {
                        if self.pause_gate.pass().is_err() {
                            task.hold(output);
                            return Err(gst::FlowError::Flushing);
                        }
                        return Ok(output);
                    }
                    Step::WaitForPlaying => {
                        drop(streaming);
                        let opened = self.pause_gate.wait_until_open();
                        opened.map_err(|_| gst::FlowError::Flushing)?;
                        wake = Some(Wake::Called);
                    }
                    Step::Wait { deadline } => {
                        let stream = task.stream().clone();
                        // The publisher's thread may deliver meanwhile.
                        drop(streaming);
                        let waited = stream.queue().wait(deadline);
                        wake = Some(waited.map_err(|_| gst::FlowError::Flushing)?);
                    }
                }
            }
        })
    }
}

/// The element, as the publisher's thread delivers to it.
#[derive(Debug)]
struct DirectDownstream(super::Rtmp2ServerSrc);

impl Downstream for DirectDownstream {
    fn deliver(&self, now: Instant) -> Delivered {
        const NOTHING: Delivered = Delivered {
            tags: 0,
            has_rest: true,
        };
        let element = self.0.imp();
        if !element.pause_gate.is_open() {
            return NOTHING;
        }
        let Some(mut task) = element.streaming.lock().take() else {
            return NOTHING;
        };
        let stream = task.stream().clone();
        let may_go_on = || element.pause_gate.is_open() && !stream.direct().is_relieved();
        let delivered = element.with_context(|context| task.deliver(context, now, may_go_on));
        let mut streaming = element.streaming.lock();
        let running = element.running.lock();
        // The push may have stopped the element. Another thread that stops it waits for this one.
        let runs = |running: &ActiveClaim| Arc::ptr_eq(running.stream(), &stream);
        if running.as_ref().is_some_and(runs) {
            *streaming = Some(task);
            return delivered;
        }
        drop(running);
        drop(streaming);
        element.with_context(|context| task.drop_rest(context));
        delivered
    }
}

impl Rtmp2ServerSrc {
    /// Locks the delivery state for the streaming thread, after a delivery by the publisher's thread.
    fn lock_streaming(&self) -> Result<MutexGuard<'_, Option<Box<StreamingTask>>>, gst::FlowError> {
        let streaming = self.streaming.lock();
        if streaming.is_some() {
            return Ok(streaming);
        }
        drop(streaming);
        if let Some(stream) = self.stream() {
            let delivered = stream.queue().wait_for_delivery_or_flush();
            delivered.map_err(|_| gst::FlowError::Flushing)?;
        }
        Ok(self.streaming.lock())
    }

    fn stream(&self) -> Option<Arc<Stream>> {
        let running = self.running.lock();
        match &*running {
            Some(running) => Some(running.stream().clone()),
            None => self.origin.lock().stream(),
        }
    }

    /// Makes this the source of one stream of another element, once and instead of a route.
    pub(crate) fn attach(&self, claim: server::StreamClaim) {
        *self.origin.lock() = StreamOrigin::attached(claim);
    }

    /// Releases the stream of an element that will not start again, also if others still hold the
    /// element.
    pub(crate) fn detach(&self) {
        // Dropped without the lock, since that closes the stream.
        let claim = self.origin.lock().detach();
        drop(claim);
    }

    /// Takes over the properties of the element that this source serves. Those that may change while
    /// it runs take effect at once.
    pub(crate) fn apply_settings(&self, settings: &Settings) {
        *self.state.settings() = settings.clone();
    }

    /// Returns the stream's number, if this is the source of one stream of another element.
    pub(crate) fn stream_number(&self) -> Option<u32> {
        self.origin.lock().number()
    }

    /// Ends the stream after its queued media. Returns false where it has not begun. Does not wait.
    pub(crate) fn end(&self) -> bool {
        let stream = self.stream();
        stream.inspect(|stream| stream.end()).is_some()
    }

    /// Leaves all but the end of the streaming thread to [`Rtmp2ServerSrc::finish_stop`]: messages and
    /// notifications are the calling thread's then.
    pub(crate) fn defer_stop(&self) {
        *self.deferred_stop.lock() = DeferredStop::Wanted;
    }

    /// Does what was deferred.
    pub(crate) fn finish_stop(&self) {
        let deferred = std::mem::take(&mut *self.deferred_stop.lock());
        if deferred == DeferredStop::Due {
            self.stop_now();
        }
    }

    /// Returns true on the streaming thread.
    pub(crate) fn is_streaming_thread(&self) -> bool {
        self.pause_gate.is_streaming_thread()
    }

    /// Ends the stream, after the streaming thread has ended.
    fn stop_now(&self) {
        let running = self.running.lock().take();
        if let Some(running) = &running {
            running.stream().direct().set_downstream(None);
            running.stream().wait_for_delivery();
        }
        let mut streaming = self.streaming.lock().take();
        if let Some(streaming) = &mut streaming {
            self.with_context(|context| streaming.drop_rest(context));
        }
        // Joins the threads that served this element.
        drop(running);
        // Media may have come meanwhile.
        if let Some(mut streaming) = streaming {
            self.with_context(|context| streaming.report_rest(context));
        }
        // The queue is closed, so no item of it would do this.
        let standby_ends = StateInput::StandbyEnded {
            reconfigures: false,
        };
        for input in [StateInput::Ended, standby_ends] {
            for (before, after) in self.state.apply(input) {
                announcements::post_change(&self.obj(), &before, &after);
            }
        }
        self.obj().notify("current-port");
        gst::info!(CAT, imp = self, "Stopped");
    }

    pub(crate) fn disconnect_publisher(&self) {
        if let Some(stream) = self.stream() {
            stream.disconnect();
        }
    }

    pub(crate) fn request_reconnect(&self, tc_url: Option<&str>, description: &str) -> bool {
        self.stream()
            .is_some_and(|stream| stream.request_reconnect(tc_url, description).is_ok())
    }

    /// Asks the publisher to reconnect, where that is wanted: RTMP has no way to ask for a keyframe,
    /// but a publisher that connects again starts with one.
    fn request_keyframe(&self) -> bool {
        self.force_key_unit_events.fetch_add(1, Ordering::Relaxed);
        let is_wanted = self.state.settings().reconnect_on_force_key_unit;
        let Some(stream) = self.stream() else {
            return false;
        };
        let mut requests = self.keyframe_requests.lock();
        let request = requests.request(is_wanted, Instant::now(), || {
            stream.request_reconnect(None, "A keyframe is needed.")
        });
        drop(requests);
        let refusal = request.err();
        match refusal {
            None => gst::info!(
                CAT,
                imp = self,
                "Keyframe requested, the publisher is asked to reconnect"
            ),
            Some(reason) => gst::info!(
                CAT,
                imp = self,
                "Keyframe requested, the publisher is not asked to reconnect: {}",
                reason.nick()
            ),
        }
        let event = server::QueueEvent::KeyframeRequested(refusal.map(NoKeyframe::nick));
        stream.queue().post(event);
        refusal.is_none()
    }

    /// Applies the present properties to the stream, if there is one.
    fn apply_stream_settings(&self) {
        if let Some(stream) = self.stream() {
            // Under the lock, so that no thread overwrites newer properties with older ones.
            let settings = self.state.settings();
            stream.configure(settings.stream());
        }
    }

    /// Returns the tracks of the publisher, as its stream header describes them.
    pub(crate) fn description(&self) -> StreamDescription {
        self.state.description().clone()
    }

    /// Returns the properties that messages for people depend on.
    pub(crate) fn voice(&self) -> Voice {
        Voice::new(&self.state.settings())
    }

    fn post_latency(&self) {
        let message = gst::message::Latency::builder().src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    fn apply_drain(&self) {
        // Draining may call the application, which may read a property.
        let control = self
            .running
            .lock()
            .as_ref()
            .and_then(ActiveClaim::drain_control);
        if let Some(control) = control {
            let element = self.obj();
            claiming::drain(element.upcast_ref(), &control, || {
                self.state.settings().drain()
            });
        }
    }

    fn current_port(&self) -> u32 {
        let running = self.running.lock();
        let address = running.as_ref().and_then(ActiveClaim::address);
        address.map_or(0, |address| address.port().into())
    }

    /// Drops and reports what is left of a stream that was ended downstream. Does not wait: the
    /// streaming thread has come to its end.
    pub(crate) fn drop_rest(&self) {
        if let Some(mut streaming) = self.streaming.try_lock()
            && let Some(streaming) = streaming.as_mut()
        {
            self.with_context(|context| streaming.drop_rest(context));
        }
    }

    pub(crate) fn statistics(&self) -> StreamStatistics {
        let (repairs, drift) = self.state.times();
        StreamStatistics::new(
            self.stream().as_deref(),
            self.state.snapshot(),
            drift,
            ElementCounters {
                repairs,
                force_key_unit_events: self.force_key_unit_events.load(Ordering::Relaxed),
            },
            self.state.history(),
            self.described(),
        )
    }

    /// Returns the description of the stream, with the encoder of its connection where the stream does
    /// not name one.
    fn described(&self) -> StreamDescription {
        let mut description = self.description();
        if let Some(publisher) = self.state.narrator().publisher() {
            description.name_encoder(&publisher.flash_ver);
        }
        description
    }

    fn stats(&self) -> gst::Structure {
        let structure = self.statistics().structure();
        match self.stream_number() {
            // A rejected client belongs to none of several streams.
            Some(_) => structure.build(),
            None => stats::with_element(structure, self.stream().as_deref()).build(),
        }
    }

    fn running_time(&self) -> u64 {
        self.with_context(|context| context.running_time())
    }

    /// Calls `work` with the element as its streaming thread uses it.
    fn with_context<T>(&self, work: impl FnOnce(Context<'_>) -> T) -> T {
        work(Context {
            element: &self.obj(),
            state: &self.state,
            pauses: &self.pauses,
            is_counted: self.num_buffers.load(Ordering::Relaxed) >= 0,
            flush: self.flushes.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests;
