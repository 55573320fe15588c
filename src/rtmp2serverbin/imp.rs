// SPDX-License-Identifier: MPL-2.0

//! A bin of the two elements that do the work. Lock order: `uri` and `set_by_uri` are leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::CAT;
use super::uri::{PROTOCOLS, Uri};
use crate::eflvdemux::{self, EFlvDemux};
use crate::post_permits;
use crate::rtmp2serversrc::{self, Rtmp2ServerSrc};
use crate::unlinked::{self, LinkWatch};

/// The properties of the source, built from its own specifications.
static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let specs = rtmp2serversrc::build_specs().into_iter();
    let spec = |spec: glib::ParamSpec| match spec.name() {
        "stats" => glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counters of the present or last publisher, of the element and of the process, and \
                 in the field demuxer those of the demuxer",
            )
            .read_only()
            .build(),
        _ => spec,
    };
    specs.map(spec).collect()
});

/// Properties that are part of a URI. Setting one of them replaces the URI.
const URI_PARTS: [&str; 5] = ["location", "host", "port", "application", "stream-key"];

/// Signals about publishers, which the bin forwards.
const SIGNALS: [&str; 4] = [
    "publisher-connecting",
    "publisher-added",
    "publisher-removed",
    "publisher-rejected",
];

/// Messages of the source and the demuxer, which the bin forwards as its own.
const MESSAGES: [&str; 3] = [
    "rtmp2-stream-status",
    "rtmp2-stream-event",
    "rtmp2-script-data",
];

#[derive(Debug)]
pub struct Rtmp2ServerBin {
    source: Rtmp2ServerSrc,
    demuxer: EFlvDemux,
    /// The URI as it was set, as long as the properties still have its values.
    uri: Mutex<Option<String>>,
    /// Properties that the query of the last URI has set. The next URI resets them.
    set_by_uri: Mutex<Vec<String>>,
    /// The bin has a queue for each track, since it was made from a URI. uridecodebin and playbin
    /// take each pad for a stream with a thread of its own, and block one until they know all.
    has_queues: AtomicBool,
    links: Arc<LinkWatch>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2ServerBin {
    const NAME: &'static str = "GstRTMP2ServerBin";
    type Type = super::Rtmp2ServerBin;
    type ParentType = gst::Bin;
    type Interfaces = (gst::URIHandler,);

    fn new() -> Self {
        Rtmp2ServerBin {
            source: glib::Object::builder().property("name", "source").build(),
            demuxer: glib::Object::builder().property("name", "demuxer").build(),
            uri: Mutex::default(),
            set_by_uri: Mutex::default(),
            has_queues: AtomicBool::new(false),
            links: Arc::default(),
        }
    }
}

impl ObjectImpl for Rtmp2ServerBin {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> =
            LazyLock::new(|| rtmp2serversrc::build_signals(disconnect, reconnect));
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if URI_PARTS.contains(&pspec.name()) {
            *self.uri.lock() = None;
        }
        self.source.set_property_from_value(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => {
                let mut stats = self.source.property::<gst::Structure>("stats");
                stats.set("demuxer", self.demuxer.property::<gst::Structure>("stats"));
                stats.to_value()
            }
            name => self.source.property_value(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_element_flags(gst::ElementFlags::SOURCE);
        let (source, demuxer) = (&self.source, &self.demuxer);
        let built = obj
            .add(source)
            .and_then(|()| obj.add(demuxer))
            .and_then(|()| source.link_pads(Some("src"), demuxer, Some("sink")));
        if let Err(error) = built {
            gst::error!(CAT, imp = self, "{error}");
        }
        self.forward_notifications();
        SIGNALS.iter().for_each(|name| self.forward_signal(name));
        self.forward_pads();
        self.watch_end();
    }
}

impl GstObjectImpl for Rtmp2ServerBin {}

impl ElementImpl for Rtmp2ServerBin {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Server Source And Demuxer",
                "Source/Network",
                "Receives an RTMP publisher and outputs each of its tracks on a pad of its own",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn post_message(&self, message: gst::Message) -> bool {
        post_permits::post(message, |message| self.parent_post_message(message))
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.links.reset();
            // The demuxer sends stream collections to a parent that expects them.
            let parent = self.obj().parent().and_downcast::<gst::Bin>();
            let flag = gst::BinFlags::STREAMS_AWARE;
            if parent.is_some_and(|parent| parent.bin_flags().contains(flag)) {
                self.obj().set_bin_flags(flag);
            } else {
                self.obj().unset_bin_flags(flag);
            }
        }
        self.parent_change_state(transition)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // The source handles it also while there is no pad.
        if event.is_upstream() && gst_video::ForceKeyUnitEvent::is(&event) {
            return self.source.send_event(event);
        }
        self.parent_send_event(event)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| eflvdemux::source_templates().collect());
        &TEMPLATES
    }
}

impl BinImpl for Rtmp2ServerBin {
    /// Forwards messages of the source as the bin's own: applications know no other element.
    fn handle_message(&self, message: gst::Message) {
        let message = match message.view() {
            gst::MessageView::Element(element) => match element.structure() {
                Some(structure) if MESSAGES.contains(&structure.name().as_str()) => {
                    gst::message::Element::builder(structure.to_owned())
                        .src(&*self.obj())
                        .seqnum(message.seqnum())
                        .build()
                }
                _ => message,
            },
            _ => message,
        };
        self.parent_handle_message(message);
    }
}

impl URIHandlerImpl for Rtmp2ServerBin {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &PROTOCOLS
    }

    fn uri(&self) -> Option<String> {
        let uri = self.uri.lock().clone();
        uri.or_else(|| Uri::from_location(&self.source.property::<String>("location")))
    }

    fn set_uri(&self, text: &str) -> Result<(), glib::Error> {
        let (current, pending) = (self.obj().current_state(), self.obj().pending_state());
        if current.max(pending) > gst::State::Ready {
            return Err(glib::Error::new(
                gst::URIError::BadState,
                "The URI can be set in the states NULL and READY",
            ));
        }
        let invalid = |error: String| glib::Error::new(gst::URIError::BadReference, &error);
        let uri = Uri::parse(text).map_err(invalid)?;
        // All values are checked before the first one is set.
        let values = uri.values(&SPECS).map_err(invalid)?;
        let obj = self.obj();
        let names = values.iter().map(|(name, _)| name.clone()).collect();
        let previous = std::mem::replace(&mut *self.set_by_uri.lock(), names);
        for name in previous {
            if let Some(spec) = SPECS.iter().find(|spec| spec.name() == name) {
                obj.set_property_from_value(&name, spec.default_value());
            }
        }
        obj.set_property("location", &uri.location);
        for (name, value) in values {
            obj.set_property_from_value(&name, &value);
        }
        *self.uri.lock() = Some(text.to_owned());
        self.has_queues.store(true, Ordering::Relaxed);
        Ok(())
    }
}

// Forwarding of the children's notifications, signals and pads
impl Rtmp2ServerBin {
    fn forward_notifications(&self) {
        let bin = self.obj().downgrade();
        self.source.connect_notify(None, move |_, pspec| {
            let name = pspec.name();
            if let Some(bin) = bin.upgrade()
                && SPECS.iter().any(|spec| spec.name() == name)
            {
                bin.notify(name);
            }
        });
    }

    fn forward_signal(&self, name: &'static str) {
        let bin = self.obj().downgrade();
        self.source.connect(name, false, move |arguments| {
            match bin.upgrade() {
                Some(bin) => bin.emit_by_name_with_values(name, &arguments[1..]),
                // A finalized bin accepts no publisher.
                None => (name == "publisher-connecting").then(|| false.to_value()),
            }
        });
    }

    fn forward_pads(&self) {
        let bin = self.obj().downgrade();
        self.demuxer.connect_pad_added(move |_, pad| {
            if let Some(bin) = bin.upgrade() {
                bin.imp().add_track(pad);
            }
        });
        let bin = self.obj().downgrade();
        self.demuxer.connect_pad_removed(move |_, pad| {
            if let Some(bin) = bin.upgrade() {
                bin.imp().remove_track(pad);
            }
        });
        let bin = self.obj().downgrade();
        self.demuxer.connect_no_more_pads(move |_| {
            if let Some(bin) = bin.upgrade() {
                bin.no_more_pads();
            }
        });
    }

    fn add_track(&self, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src {
            return;
        }
        let target = if self.has_queues.load(Ordering::Relaxed) {
            self.add_queue(pad)
        } else {
            Ok(pad.clone())
        };
        if let Err(error) = target.and_then(|target| self.add_ghost_pad(pad, &target)) {
            gst::error!(CAT, imp = self, "{error}");
        }
    }

    /// Links a queue to the pad of a track, and returns its source pad.
    fn add_queue(&self, pad: &gst::Pad) -> Result<gst::Pad, glib::BoolError> {
        let queue = gst::ElementFactory::make("queue")
            .name(queue_name(pad))
            .property("max-size-buffers", 0u32)
            .property("max-size-time", 0u64)
            .build()?;
        self.obj().add(&queue)?;
        queue.sync_state_with_parent()?;
        let queue_pad = |name| {
            let pad = queue.static_pad(name);
            pad.ok_or_else(|| glib::bool_error!("A queue has no pad {name}"))
        };
        let linked = pad.link(&queue_pad("sink")?);
        linked.map_err(|error| glib::bool_error!("{error}"))?;
        queue_pad("src")
    }

    /// Adds a pad to the bin for a track that leaves at `target`.
    fn add_ghost_pad(&self, pad: &gst::Pad, target: &gst::Pad) -> Result<(), glib::BoolError> {
        let template = pad
            .pad_template()
            .and_then(|template| self.obj().pad_template(template.name_template()));
        let builder = match template {
            Some(template) => gst::GhostPad::builder_from_template(&template),
            None => gst::GhostPad::builder(gst::PadDirection::Src),
        };
        let bin = self.obj().downgrade();
        // A queue that is not linked downstream would otherwise post an error at the end.
        let builder = builder.proxy_pad_chain_function(move |pad, parent, buffer| {
            let time = buffer.dts_or_pts();
            match gst::ProxyPad::chain_default(pad, parent, buffer) {
                Err(gst::FlowError::NotLinked) => {
                    if let Some(bin) = bin.upgrade() {
                        bin.imp().note_dropped(time);
                    }
                    Ok(gst::FlowSuccess::Ok)
                }
                flow => flow,
            }
        });
        let ghost = builder.name(pad.name()).with_target(target)?.build();
        ghost.set_active(true)?;
        self.links.watch(&ghost);
        // Handlers of pad-added need the stream's caps and tags at once.
        pad.sticky_events_foreach(|event| {
            let _ = ghost.store_sticky_event(event);
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
        self.obj().add_pad(&ghost)
    }

    fn note_dropped(&self, time: Option<gst::ClockTime>) {
        let bin = self.obj();
        let element = bin.upcast_ref();
        let pads = || unlinked::pads_text(element);
        self.links.dropped(element, time, pads);
    }

    /// Watches for the end of the stream, which no sink reports where no pad is linked.
    fn watch_end(&self) {
        let Some(pad) = self.demuxer.static_pad("sink") else {
            return;
        };
        let bin = self.obj().downgrade();
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let is_end = info
                .event()
                .is_some_and(|event| event.type_() == gst::EventType::Eos);
            if is_end && let Some(bin) = bin.upgrade() {
                let element = bin.upcast_ref();
                let pads = || unlinked::pads_text(element);
                bin.imp().links.end(element, pads);
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn remove_track(&self, pad: &gst::Pad) {
        let bin = self.obj();
        if let Some(ghost) = bin.static_pad(&pad.name()) {
            let _ = ghost.set_active(false);
            let _ = bin.remove_pad(&ghost);
        }
        if let Some(queue) = bin.by_name(&queue_name(pad)) {
            let _ = bin.remove(&queue);
            let _ = queue.set_state(gst::State::Null);
        }
    }
}

fn queue_name(pad: &gst::Pad) -> String {
    format!("queue_{}", pad.name())
}

fn disconnect(element: &gst::Element) {
    if let Some(bin) = element.downcast_ref::<super::Rtmp2ServerBin>() {
        let source = &bin.imp().source;
        source.emit_by_name::<()>("disconnect-publisher", &[]);
    }
}

fn reconnect(element: &gst::Element, tc_url: Option<&str>, description: &str) -> bool {
    let bin = element.downcast_ref::<super::Rtmp2ServerBin>();
    bin.is_some_and(|bin| {
        let source = &bin.imp().source;
        source.emit_by_name("request-reconnect", &[&tc_url, &description])
    })
}
