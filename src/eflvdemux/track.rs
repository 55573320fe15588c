// SPDX-License-Identifier: MPL-2.0

//! The state of one track.

use super::caps::{self, FrameHeader, TrackFacts};
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
    /// The decoder configuration, empty until there is one.
    configuration: Vec<u8>,
    color: Option<ColorInfo>,
    channels: u8,
    /// From the last packet that has one.
    frame_header: Option<FrameHeader>,
    /// HEVC is sent as AVC.
    is_disguised: bool,
    /// Something that caps are made from has changed.
    has_new_facts: bool,
    /// The announced caps. A track with caps has a pad.
    caps: Option<gst::Caps>,
    /// Where the track has come to in the segment.
    pub(super) position: Option<gst::ClockTime>,
    pub(super) times: TrackTimes,
    pub(super) is_discont: bool,
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
            has_new_facts: true,
            caps: None,
            position: None,
            times: TrackTimes::default(),
            is_discont: true,
        }
    }

    /// Name of the track's pad.
    pub(super) fn name(&self) -> String {
        match self.kind {
            TagKind::Video => format!("video_{}", self.id),
            _ => format!("audio_{}", self.id),
        }
    }

    pub(super) fn has_pad(&self) -> bool {
        self.caps.is_some()
    }

    /// Returns the codec of packets that are sent as `codec`.
    pub(super) fn real_codec(&self, codec: Codec) -> Codec {
        if self.is_disguised && codec == Codec::Avc {
            Codec::Hevc
        } else {
            codec
        }
    }

    /// Changes to another codec, whose configuration is still to come.
    pub(super) fn set_codec(&mut self, codec: Codec) {
        if self.codec != Some(codec) {
            self.codec = Some(codec);
            self.configuration.clear();
            self.color = None;
            self.channels = 0;
            self.frame_header = None;
            self.has_new_facts = true;
        }
    }

    /// Accepts a configuration, unless no decoder would. The same one again changes nothing.
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
            self.has_new_facts = true;
        }
        true
    }

    pub(super) fn set_color(&mut self, color: ColorInfo) {
        let color = (color != ColorInfo::default()).then_some(color);
        if self.color != color {
            self.color = color;
            self.has_new_facts = true;
        }
    }

    pub(super) fn set_channels(&mut self, channels: u8) {
        // A configuration states the channels itself.
        if self.channels != channels && self.configuration.is_empty() {
            self.channels = channels;
            self.has_new_facts = true;
        }
    }

    /// Makes the next packet renew the caps.
    pub(super) fn renew_caps(&mut self) {
        self.has_new_facts = true;
    }

    /// Reads the header of a packet, in codecs that have no configuration.
    fn read_frame_header(&mut self, codec: Codec, payload: &[u8]) {
        let header = caps::frame_header(codec, payload);
        if header.is_some() && self.frame_header != header {
            self.frame_header = header;
            self.has_new_facts = true;
        }
    }

    pub(super) fn is_configured(&self) -> bool {
        !self.configuration.is_empty()
    }

    /// Returns the caps if they differ from the announced ones, and announces them.
    pub(super) fn renewed_caps(
        &mut self,
        metadata: Option<&Metadata>,
        payload: &[u8],
    ) -> Option<gst::Caps> {
        let codec = self.codec?;
        self.read_frame_header(codec, payload);
        if !self.has_new_facts {
            return None;
        }
        self.has_new_facts = false;
        let facts = TrackFacts {
            track: self.id,
            configuration: &self.configuration,
            color: self.color.as_ref(),
            channels: self.channels,
            metadata,
            frame_header: self.frame_header,
        };
        let caps = caps::of(codec, &facts);
        if self.caps.as_ref() == Some(&caps) {
            return None;
        }
        self.caps = Some(caps.clone());
        Some(caps)
    }
}
