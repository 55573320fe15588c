// SPDX-License-Identifier: MPL-2.0

//! A bin of eflvdemux alone, since the caps that a demuxer is chosen by belong to its class.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use crate::demuxer_choice;
use crate::eflvdemux::{self, EFlvDemux};
use crate::post_permits;

#[derive(Debug)]
pub struct EFlvLiveDemux {
    demuxer: EFlvDemux,
}

#[glib::object_subclass]
impl ObjectSubclass for EFlvLiveDemux {
    const NAME: &'static str = "GstEFLVLiveDemux";
    type Type = super::EFlvLiveDemux;
    type ParentType = gst::Bin;

    fn new() -> Self {
        EFlvLiveDemux {
            demuxer: glib::Object::builder().property("name", "demuxer").build(),
        }
    }
}

impl ObjectImpl for EFlvLiveDemux {
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
        self.demuxer.property_value(pspec.name())
    }

    fn constructed(&self) {
        self.parent_constructed();
        if let Err(error) = self.build() {
            gst::error!(CAT, imp = self, "{error}");
        }
        self.forward_pads();
    }
}

impl GstObjectImpl for EFlvLiveDemux {}

impl ElementImpl for EFlvLiveDemux {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Enhanced FLV Demuxer For Live Streams",
                "Codec/Demuxer",
                "Demuxes the Enhanced FLV of rtmp2serversrc in bins that choose their elements",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = demuxer_choice::demuxer_caps();
            let (direction, presence) = (gst::PadDirection::Sink, gst::PadPresence::Always);
            let sink = gst::PadTemplate::new("sink", direction, presence, &caps);
            sink.into_iter()
                .chain(eflvdemux::source_templates())
                .collect()
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
}

impl BinImpl for EFlvLiveDemux {}

impl EFlvLiveDemux {
    fn build(&self) -> Result<(), glib::BoolError> {
        let obj = self.obj();
        obj.add(&self.demuxer)?;
        let template = obj.pad_template("sink");
        let template = template.ok_or_else(|| glib::bool_error!("There is no sink template"))?;
        let target = self.demuxer.static_pad("sink");
        let target = target.ok_or_else(|| glib::bool_error!("The demuxer has no sink pad"))?;
        let ghost = gst::GhostPad::builder_from_template_with_target(&template, &target)?;
        obj.add_pad(&ghost.build())
    }

    fn forward_pads(&self) {
        let bin = self.obj().downgrade();
        self.demuxer.connect_pad_added(move |_, pad| {
            if let Some(bin) = bin.upgrade()
                && let Err(error) = bin.imp().add_track(pad)
            {
                gst::error!(CAT, obj = bin, "{error}");
            }
        });
        let bin = self.obj().downgrade();
        self.demuxer.connect_pad_removed(move |_, pad| {
            if let Some(bin) = bin.upgrade()
                && let Some(ghost) = bin.static_pad(&pad.name())
            {
                let _ = ghost.set_active(false);
                let _ = bin.remove_pad(&ghost);
            }
        });
        let bin = self.obj().downgrade();
        self.demuxer.connect_no_more_pads(move |_| {
            if let Some(bin) = bin.upgrade() {
                bin.no_more_pads();
            }
        });
    }

    fn add_track(&self, pad: &gst::Pad) -> Result<(), glib::BoolError> {
        let template = pad
            .pad_template()
            .and_then(|template| self.obj().pad_template(template.name_template()));
        let template =
            template.ok_or_else(|| glib::bool_error!("{} has no template", pad.name()))?;
        let ghost = gst::GhostPad::builder_from_template_with_target(&template, pad)?;
        let ghost = ghost.name(pad.name()).build();
        ghost.set_active(true)?;
        // Handlers of pad-added need the stream's caps and tags at once.
        pad.sticky_events_foreach(|event| {
            let _ = ghost.store_sticky_event(event);
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
        self.obj().add_pad(&ghost)
    }
}
