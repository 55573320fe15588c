// SPDX-License-Identifier: MPL-2.0

//! A bin with a source for each stream, and its base-class methods. Locks are in `core`.

use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::branch::Branch;
use super::core::ElementCore;
use super::observer::StreamObserver;
use super::running::Running;
use super::specs::SPECS;
use super::{CAT, Rtmp2MultiServerSrcPad, signals, stats, stopping};
use crate::post_permits;
use crate::rtmp2serversrc::settings::Effect;
use crate::rtmp2serversrc::signals::pad_name;
use crate::rtmp2serversrc::voice::Voice;
use crate::rtmp2serversrc::{Rtmp2ServerSrc, claiming};
use crate::server::PublishPoint;
use crate::unlinked::LinkWatch;

static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
    signals::build(
        |element, pad| element.imp().disconnect_publisher(pad),
        |element, pad, tc_url, description| {
            let imp = element.imp();
            imp.request_reconnect(pad, tc_url, description)
        },
    )
});

/// Messages of the sources in here, which this element forwards as its own.
const MESSAGES: [&str; 2] = ["rtmp2-stream-status", "rtmp2-stream-event"];

#[derive(Debug, Default)]
pub struct Rtmp2MultiServerSrc {
    core: Arc<ElementCore>,
    links: Arc<LinkWatch>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2MultiServerSrc {
    const NAME: &'static str = "GstRTMP2MultiServerSrc";
    type Type = super::Rtmp2MultiServerSrc;
    type ParentType = gst::Bin;
}

impl ObjectImpl for Rtmp2MultiServerSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let effect = {
            let mut settings = self.core.settings();
            match pspec.name() {
                "max-streams" => {
                    settings.max_streams = value.get().expect("type checked upstream");
                    Effect::Stream
                }
                name => settings.common.set(name, value),
            }
        };
        for branch in self.core.branches() {
            self.core.configure(&branch);
        }
        if pspec.name() == "quality-limits" {
            let settings = self.core.settings().common.clone();
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
        match pspec.name() {
            "current-port" => self.current_port().to_value(),
            "stats" => self.core.with_running(stats::structure).to_value(),
            "max-streams" => self.core.settings().max_streams.to_value(),
            name => match self.core.settings().common.get(name) {
                Some(value) => value,
                None => unreachable!("{name} is not readable"),
            },
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // A source also while it has no streams.
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE | gst::ElementFlags::SINK);
        obj.set_element_flags(gst::ElementFlags::SOURCE);
    }
}

impl GstObjectImpl for Rtmp2MultiServerSrc {}

impl ElementImpl for Rtmp2MultiServerSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Server Source Of Many Streams",
                "Source/Network",
                "Receives any number of RTMP publishers and outputs each as FLV on a pad of its own",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let src = gst::PadTemplate::with_gtype(
                "src_%u",
                gst::PadDirection::Src,
                gst::PadPresence::Sometimes,
                &gst::Caps::new_empty_simple("video/x-flv"),
                Rtmp2MultiServerSrcPad::static_type(),
            );
            src.into_iter().collect()
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
        let mut stopped = None;
        match transition {
            gst::StateChange::ReadyToPaused => {
                if let Err(error) = self.start() {
                    self.post_error_message(error);
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::PausedToReady => {
                stopped = self.close();
                // The bin would stop its children one by one, and look at all others for each.
                if let Some(run) = &stopped {
                    stopping::stop_branches(self.obj().upcast_ref(), run.branches());
                }
            }
            _ => {}
        }
        let result = self
            .core
            .state_lock()
            .hold(|| self.parent_change_state(transition));
        if result.is_err() && transition == gst::StateChange::ReadyToPaused {
            stopped = self.close();
        }
        if let Some(run) = stopped {
            self.stop(run);
        }
        // Live, also while there is no stream.
        match (transition, result) {
            (
                gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused,
                Ok(gst::StateChangeSuccess::Success),
            ) => Ok(gst::StateChangeSuccess::NoPreroll),
            (_, result) => result,
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // For all publishers. An event on a pad is for that pad's publisher.
        if event.is_upstream() && gst_video::ForceKeyUnitEvent::is(&event) {
            let send = |branch: Branch| branch.source.send_event(event.clone());
            return self.core.branches().into_iter().map(send).max() == Some(true);
        }
        if event.type_() == gst::EventType::Eos && self.end() {
            return true;
        }
        self.parent_send_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let min = self.core.settings().common.latency();
            latency.set(true, min, gst::ClockTime::NONE);
            return true;
        }
        self.parent_query(query)
    }
}

impl BinImpl for Rtmp2MultiServerSrc {
    /// Forwards messages of the sources in here as this element's own: applications know no other.
    fn handle_message(&self, message: gst::Message) {
        let source = message
            .src()
            .and_then(|s| s.downcast_ref::<Rtmp2ServerSrc>());
        let Some(stream) = source.and_then(|source| source.imp().stream_number()) else {
            return self.parent_handle_message(message);
        };
        let pad = pad_name(stream);
        match message.view() {
            gst::MessageView::Element(element) => {
                let structure = element.structure();
                let own = structure.filter(|s| MESSAGES.contains(&s.name().as_str()));
                let Some(structure) = own else {
                    return self.parent_handle_message(message);
                };
                let mut structure = structure.to_owned();
                structure.set("pad", pad);
                let message = gst::message::Element::builder(structure)
                    .src(&*self.obj())
                    .seqnum(message.seqnum())
                    .build();
                self.parent_handle_message(message);
            }
            gst::MessageView::Info(info) => {
                let debug = info.debug();
                let message = gst::message::Info::builder_from_error(info.error())
                    .debug_if_some(debug.as_ref().map(|debug| debug.as_str()))
                    .src(&*self.obj())
                    .seqnum(message.seqnum())
                    .build();
                self.parent_handle_message(message);
            }
            // The error ends that stream, and the others go on. A failed element downstream has
            // posted its own error.
            gst::MessageView::Error(error) => {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Failed,
                    ("The stream on {pad} has ended: {}", error.error()),
                    ["{}", error.debug().unwrap_or_default()]
                );
            }
            _ => self.parent_handle_message(message),
        }
    }
}

// From start to stop
impl Rtmp2MultiServerSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.links.reset();
        let (settings, max_streams) = {
            let settings = self.core.settings();
            (settings.common.clone(), settings.max_streams)
        };
        let standby = settings
            .standby(false)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let id = self.core.next_run();
        let name = claiming::full_name(self.obj().upcast_ref());
        let observer = Arc::new(StreamObserver::new(&self.obj(), &self.core, id));
        let config = claiming::config(&settings, name, observer)?;
        let (point, table) = PublishPoint::dynamic(config, max_streams as usize);
        let mut bound = None;
        self.core.start(|| {
            let claim = claiming::claim(&settings, &point)?;
            gst::info!(CAT, imp = self, "Listening on {}", claim.address());
            bound = Some(claim.address());
            Ok::<_, gst::ErrorMessage>(Running::new(id, claim, table, standby))
        })?;
        if let Some(bound) = bound {
            Voice::new(&settings).listening(self.obj().upcast_ref(), &settings, bound);
        }
        // Properties may have been set since `settings` was copied, and then found no table.
        self.apply_stream_settings();
        self.apply_drain();
        self.obj().notify("current-port");
        Ok(())
    }

    /// Stops accepting publishers.
    fn close(&self) -> Option<Running> {
        let run = self.core.take_running()?;
        run.close();
        for branch in run.branches() {
            branch.pad.imp().keep_stats();
        }
        Some(run)
    }

    /// Removes the remaining streams of a run, after all streaming threads have ended.
    fn stop(&self, run: Running) {
        for branch in run.branches() {
            branch.abandon(self.obj().upcast_ref());
        }
        drop(run);
        self.core.rejections().finish(self.obj().upcast_ref());
        self.obj().notify("current-port");
        gst::info!(CAT, imp = self, "Stopped");
    }

    /// Ends all streams and accepts no more, since the pipeline would never end while publishers
    /// return. Returns false where the element does not run.
    fn end(&self) -> bool {
        let Some(table) = self.core.table() else {
            return false;
        };
        table.end();
        gst::info!(CAT, imp = self, "No publisher is accepted any more");
        for branch in self.core.branches() {
            branch.source.imp().end();
        }
        let pads = || self.pads_text();
        self.links.end(self.obj().upcast_ref(), pads);
        true
    }

    pub(super) fn links(&self) -> &Arc<LinkWatch> {
        &self.links
    }

    /// Handles a tag that was dropped at an unlinked pad.
    pub(super) fn note_dropped(&self, time: Option<gst::ClockTime>) {
        let pads = || self.pads_text();
        self.links.dropped(self.obj().upcast_ref(), time, pads);
    }

    /// Returns the pads with what their publishers send.
    fn pads_text(&self) -> String {
        let pads = self.core.branches().into_iter().map(|branch| {
            let name = branch.pad.name();
            let description = branch.source.imp().description();
            match description.is_empty() {
                true => name.to_string(),
                false => format!("{name} ({description})"),
            }
        });
        pads.collect::<Vec<_>>().join(", ")
    }

    fn post_latency(&self) {
        let message = gst::message::Latency::builder().src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    fn disconnect_publisher(&self, pad: &str) {
        if let Some(branch) = self.core.branch(pad) {
            branch.source.imp().disconnect_publisher();
        }
    }

    fn request_reconnect(&self, pad: &str, tc_url: Option<&str>, description: &str) -> bool {
        self.core
            .branch(pad)
            .is_some_and(|branch| branch.source.imp().request_reconnect(tc_url, description))
    }

    /// Applies the present properties to the streams, if the element runs.
    fn apply_stream_settings(&self) {
        if let Some(table) = self.core.table() {
            // Under the lock, so that no thread overwrites newer properties with older ones.
            let settings = self.core.settings();
            table.configure(settings.common.stream(), settings.max_streams as usize);
        }
    }

    fn apply_drain(&self) {
        let control = self
            .core
            .with_running(|running| running.map(Running::drain_control));
        if let Some(control) = control {
            let element = self.obj();
            claiming::drain(element.upcast_ref(), &control, || {
                self.core.settings().common.drain()
            });
        }
    }

    fn current_port(&self) -> u32 {
        self.core
            .with_running(|running| running.map_or(0, |run| run.port().into()))
    }
}
