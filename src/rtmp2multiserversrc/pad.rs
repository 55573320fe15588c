// SPDX-License-Identifier: MPL-2.0

//! The pad of one stream, with the stream's identity, state and statistics as properties.

use std::sync::{Arc, LazyLock, OnceLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use crate::rtmp2serversrc::{self, Rtmp2ServerSrc, signals};
use crate::server::Publisher;

#[derive(Debug, Default)]
pub struct Rtmp2MultiServerSrcPad {
    stream: OnceLock<PadStream>,
    /// Statistics of a stream that is over.
    last_stats: Mutex<Option<gst::Structure>>,
}

#[derive(Debug)]
struct PadStream {
    source: Rtmp2ServerSrc,
    /// The stream's first publisher.
    publisher: Arc<Publisher>,
}

static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let mut specs = vec![
        glib::ParamSpecString::builder("application")
            .nick("Application")
            .blurb("Application of the publisher")
            .read_only()
            .build(),
        glib::ParamSpecString::builder("stream-key")
            .nick("Stream key")
            .blurb("Stream key (publishing name) of the publisher")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("variables")
            .nick("Variables")
            .blurb("Values that the variables of application and stream-key have matched")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters of the present or last publisher, and of the stream")
            .read_only()
            .build(),
    ];
    let source_specs = rtmp2serversrc::build_specs().into_iter();
    specs.extend(source_specs.filter(|spec| FORWARDED.contains(&spec.name())));
    specs
});

/// Properties of the source that the pad forwards with their notifications.
const FORWARDED: [&str; 3] = ["connection-state", "stream-status", "epoch"];

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2MultiServerSrcPad {
    const NAME: &'static str = "GstRTMP2MultiServerSrcPad";
    type Type = super::Rtmp2MultiServerSrcPad;
    type ParentType = gst::GhostPad;
}

impl ObjectImpl for Rtmp2MultiServerSrcPad {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let stream = self.stream.get();
        let publisher = stream.map(|stream| &*stream.publisher);
        match (pspec.name(), stream) {
            ("application", _) => publisher.map(|p| p.application.clone()).to_value(),
            ("stream-key", _) => publisher.map(|p| p.stream_key.clone()).to_value(),
            ("variables", _) => publisher.map(signals::variables).to_value(),
            ("stats", _) => self.stats().to_value(),
            (name, Some(stream)) => stream.source.property_value(name),
            (_, None) => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for Rtmp2MultiServerSrcPad {}
impl PadImpl for Rtmp2MultiServerSrcPad {}
impl ProxyPadImpl for Rtmp2MultiServerSrcPad {}
impl GhostPadImpl for Rtmp2MultiServerSrcPad {}

impl Rtmp2MultiServerSrcPad {
    /// Sets the stream of the pad, before the pad is added.
    pub(super) fn set_stream(&self, source: Rtmp2ServerSrc, publisher: Arc<Publisher>) {
        let pad = self.obj().downgrade();
        source.connect_notify(None, move |_, pspec| {
            if let Some(pad) = pad.upgrade()
                && FORWARDED.contains(&pspec.name())
            {
                pad.notify(pspec.name());
            }
        });
        let _ = self.stream.set(PadStream { source, publisher });
    }

    pub(super) fn stats(&self) -> Option<gst::Structure> {
        let last = self.last_stats.lock().clone();
        last.or_else(|| {
            let statistics = self.stream.get()?.source.imp().statistics();
            Some(statistics.structure().build())
        })
    }

    /// Keeps the statistics of a source that is about to stop, since it forgets them then.
    pub(super) fn keep_stats(&self) {
        let is_kept = self.last_stats.lock().is_some();
        if !is_kept {
            let stats = self.stats();
            *self.last_stats.lock() = stats;
        }
    }
}
