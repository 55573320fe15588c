// SPDX-License-Identifier: MPL-2.0

//! One stream: its source in the bin, and its pad.

use std::sync::{Arc, Weak};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::Rtmp2MultiServerSrcPad;
use super::imp::CAT;
use crate::rtmp2serversrc::Rtmp2ServerSrc;
use crate::rtmp2serversrc::signals::pad_name;
use crate::server::{Intake, Publisher, Stream};

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) source: Rtmp2ServerSrc,
    pub(super) pad: Rtmp2MultiServerSrcPad,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    /// Somebody has taken the pad away, or is about to.
    pad_is_gone: bool,
}

/// Opening takes a while, since the application is told of the pad; the element may be stopped meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    /// Whoever opens it has to take it away again.
    Abandoned,
}

impl Branch {
    pub(super) fn new(
        bin: &super::Rtmp2MultiServerSrc,
        run: u64,
        stream: Stream,
        publisher: Arc<Publisher>,
    ) -> Result<Self, glib::BoolError> {
        let number = stream.number();
        let intake = Arc::downgrade(stream.intake());
        let source: Rtmp2ServerSrc = glib::Object::builder()
            .property("name", format!("stream_{run}_{number}"))
            .build();
        source.imp().give(stream);
        let pad = build_pad(bin, &pad_name(number), intake)?;
        pad.imp().show(source.clone(), publisher);
        Ok(Branch {
            source,
            pad,
            progress: Arc::new(Mutex::new(Progress {
                phase: Phase::Opening,
                pad_is_gone: false,
            })),
        })
    }

    /// Makes it part of the bin, lets the application link its pad, and starts it.
    pub(super) fn open(&self, bin: &super::Rtmp2MultiServerSrc) {
        // A bin unlinks what is added to it, so the pad gets its target after that.
        let opened = bin
            .add(&self.source)
            .and_then(|()| self.pad.set_target(self.source.static_pad("src").as_ref()))
            .and_then(|()| self.pad.set_active(true))
            .and_then(|()| bin.add_pad(&self.pad));
        if let Err(error) = opened {
            gst::error!(CAT, obj = bin, "{error}");
        }
        bin.imp().between_states(|| {
            let _ = self.source.sync_state_with_parent();
        });
        let mut progress = self.progress.lock();
        let before = std::mem::replace(&mut progress.phase, Phase::Open);
        drop(progress);
        if before == Phase::Abandoned {
            self.close(bin);
        }
    }

    /// Takes it away; what somebody is still busy with, as soon as it is open.
    pub(super) fn abandon(&self, bin: &super::Rtmp2MultiServerSrc) {
        let mut progress = self.progress.lock();
        let is_open = progress.phase == Phase::Open;
        if !is_open {
            progress.phase = Phase::Abandoned;
        }
        drop(progress);
        if is_open {
            self.close(bin);
        } else {
            self.detach(bin);
            // The application may have it in its hands. Its name is free for the next.
            if self.pad.parent().is_some() {
                self.remove_pad(bin);
            }
        }
    }

    /// Ends what is left of it. The streaming thread is at its end, or ends with this.
    pub(super) fn close(&self, bin: &super::Rtmp2MultiServerSrc) {
        self.pad.imp().keep_stats();
        self.detach(bin);
        let _ = self.source.set_state(gst::State::Null);
        self.source.imp().give_up();
        self.remove_pad(bin);
        let _ = bin.remove(&self.source);
    }

    /// Whatever becomes of the bin, the source stays as it is.
    fn detach(&self, bin: &super::Rtmp2MultiServerSrc) {
        bin.imp().between_states(|| {
            self.source.set_locked_state(true);
        });
    }

    fn remove_pad(&self, bin: &super::Rtmp2MultiServerSrc) {
        let is_gone = std::mem::replace(&mut self.progress.lock().pad_is_gone, true);
        if !is_gone {
            let _ = self.pad.set_active(false);
            let _ = bin.remove_pad(&self.pad);
        }
    }
}

/// A pad that leads nowhere, or to something that fails, ends nothing but its own stream.
fn build_pad(
    bin: &super::Rtmp2MultiServerSrc,
    name: &str,
    intake: Weak<Intake>,
) -> Result<Rtmp2MultiServerSrcPad, glib::BoolError> {
    let template = bin.pad_template("src_%u");
    let template = template.ok_or_else(|| glib::bool_error!("There is no template src_%u"))?;
    let builder = gst::PadBuilder::<Rtmp2MultiServerSrcPad>::from_template(&template)
        .name(name)
        .proxy_pad_chain_function(|pad, parent, buffer| {
            survive(gst::ProxyPad::chain_default(pad, parent, buffer))
        })
        .proxy_pad_chain_list_function(|pad, parent, list| {
            survive(gst::ProxyPad::chain_list_default(pad, parent, list))
        })
        .proxy_pad_event_function(move |pad, parent, event| {
            let is_end = event.type_() == gst::EventType::Eos;
            let taken = gst::Pad::event_default(pad, parent, event);
            // Only now: until then it is in the hands of whoever is downstream.
            if is_end && let Some(intake) = intake.upgrade() {
                intake.finish();
            }
            taken
        });
    Ok(builder.build())
}

/// What the source learns of the flow downstream. Where nobody takes the stream any more it ends, and
/// who has failed has said so. Nobody else says that the format does not fit.
fn survive(
    flow: Result<gst::FlowSuccess, gst::FlowError>,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    match flow {
        Ok(success) => Ok(success),
        Err(gst::FlowError::NotLinked) => Ok(gst::FlowSuccess::Ok),
        Err(error @ (gst::FlowError::NotNegotiated | gst::FlowError::NotSupported)) => Err(error),
        Err(_) => Err(gst::FlowError::Eos),
    }
}
