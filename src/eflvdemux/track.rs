// SPDX-License-Identifier: MPL-2.0

//! One track: what is known of it, and its pad.

use gst::prelude::*;

use super::caps::{self, FrameHeader, Known};
use super::codec::Codec;
use super::times::TrackTimes;
use crate::flv::TagKind;
use crate::flv::body::{ColorInfo, Metadata};
use crate::flv::config::is_hevc_in_disguise;

#[derive(Debug)]
pub(super) struct Track {
    /// Audio or video.
    pub(super) kind: TagKind,
    pub(super) id: u8,
    pub(super) codec: Option<Codec>,
    /// Empty until there is one.
    configuration: Vec<u8>,
    color: Option<ColorInfo>,
    channels: u8,
    /// Of the last packet that said it.
    frame_header: Option<FrameHeader>,
    /// HEVC that came as AVC.
    is_disguised: bool,
    /// Something that the caps are made from has changed.
    is_changed: bool,
    pub(super) output: Option<Output>,
    pub(super) times: TrackTimes,
    pub(super) is_discont: bool,
}

/// A track that has a pad.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) pad: gst::Pad,
    pub(super) stream: gst::Stream,
    pub(super) caps: gst::Caps,
    pub(super) has_segment: bool,
    /// Where the track has come to in its segment, for the others.
    pub(super) position: Option<gst::ClockTime>,
}

impl Output {
    /// There is to be another segment.
    pub(super) fn restart(&mut self) {
        self.has_segment = false;
        self.position = None;
    }

    /// Unless the pad has it already.
    pub(super) fn push_segment(&mut self, segment: Option<&gst::Event>) {
        if !self.has_segment
            && let Some(segment) = segment
        {
            self.has_segment = true;
            self.pad.push_event(segment.clone());
        }
    }
}

impl Track {
    pub(super) fn new(kind: TagKind, id: u8) -> Self {
        Track {
            kind,
            id,
            codec: None,
            configuration: Vec::new(),
            color: None,
            channels: 0,
            frame_header: None,
            is_disguised: false,
            is_changed: true,
            output: None,
            times: TrackTimes::default(),
            is_discont: true,
        }
    }

    /// Of its pad.
    pub(super) fn name(&self) -> String {
        match self.kind {
            TagKind::Video => format!("video_{}", self.id),
            _ => format!("audio_{}", self.id),
        }
    }

    /// What is really in a packet of this codec.
    pub(super) fn real_codec(&self, codec: Codec) -> Codec {
        if self.is_disguised && codec == Codec::Avc {
            Codec::Hevc
        } else {
            codec
        }
    }

    /// Goes over to another codec, whose configuration is still to come.
    pub(super) fn set_codec(&mut self, codec: Codec) {
        if self.codec != Some(codec) {
            self.codec = Some(codec);
            self.configuration.clear();
            self.color = None;
            self.channels = 0;
            self.frame_header = None;
            self.is_changed = true;
        }
    }

    /// Takes a configuration, unless it is one that no decoder would take. The same one again
    /// changes nothing.
    pub(super) fn configure(&mut self, codec: Codec, configuration: &[u8]) -> bool {
        let mut codec = codec;
        self.is_disguised = false;
        if codec == Codec::Avc && is_hevc_in_disguise(configuration) {
            codec = Codec::Hevc;
            self.is_disguised = true;
        }
        if !codec.accepts(configuration) {
            return false;
        }
        self.set_codec(codec);
        if self.configuration != configuration {
            self.configuration = configuration.to_vec();
            self.is_changed = true;
        }
        true
    }

    pub(super) fn set_color(&mut self, color: ColorInfo) {
        let color = (color != ColorInfo::default()).then_some(color);
        if self.color != color {
            self.color = color;
            self.is_changed = true;
        }
    }

    pub(super) fn set_channels(&mut self, channels: u8) {
        // It matters only to a codec that does not say it itself.
        if self.channels != channels && self.configuration.is_empty() {
            self.channels = channels;
            self.is_changed = true;
        }
    }

    /// Something that all caps may be made from has changed.
    pub(super) fn renew_caps(&mut self) {
        self.is_changed = true;
    }

    /// Takes note of what a packet says of itself, in codecs that have no configuration.
    fn look_at(&mut self, codec: Codec, payload: &[u8]) {
        let header = caps::frame_header(codec, payload);
        if header.is_some() && self.frame_header != header {
            self.frame_header = header;
            self.is_changed = true;
        }
    }

    pub(super) fn is_configured(&self) -> bool {
        !self.configuration.is_empty()
    }

    /// The caps, if something has changed since they were last asked for.
    pub(super) fn new_caps(
        &mut self,
        metadata: Option<&Metadata>,
        payload: &[u8],
    ) -> Option<gst::Caps> {
        let codec = self.codec?;
        self.look_at(codec, payload);
        if !self.is_changed {
            return None;
        }
        self.is_changed = false;
        let known = Known {
            track: self.id,
            configuration: &self.configuration,
            color: self.color.as_ref(),
            channels: self.channels,
            metadata,
            frame_header: self.frame_header,
        };
        let caps = caps::of(codec, &known);
        let is_same = self.output.as_ref().is_some_and(|o| o.caps == caps);
        (!is_same).then_some(caps)
    }
}
