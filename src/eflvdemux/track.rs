// SPDX-License-Identifier: MPL-2.0

//! The state of one track.

use std::borrow::Cow;

use super::caps::{self, FrameHeader, TrackFacts};
use super::codec::Codec;
use super::gaps::TrackProgress;
use super::tags;
use super::times::TrackTimes;
use crate::flv::body::{ColorInfo, Metadata};
use crate::flv::config::{
    AvcConfig, HevcConfig, NalCodec, frame_of_annexb, frame_with_long_lengths, is_annexb,
    is_hevc_in_disguise, is_odd_length_size, may_be_annexb, record_of_frame,
    record_with_long_lengths, repaired_record,
};
use crate::flv::{KeyframeFlags, Picture, TagKind};

#[derive(Debug)]
pub(super) struct Track {
    /// Audio or video.
    pub(super) kind: TagKind,
    pub(super) id: u8,
    pub(super) codec: Option<Codec>,
    /// The decoder configuration, empty until there is one.
    configuration: Vec<u8>,
    /// The same before the size of lengths in it was changed.
    received_configuration: Vec<u8>,
    /// Nothing is missing in the configuration.
    is_complete: bool,
    /// The configuration was made of the parameter sets in frames.
    is_configured_in_band: bool,
    /// Bytes of the length of a NAL unit as it is sent, in AVC and HEVC.
    nal_length_size: u8,
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
    /// The announced tags.
    tags: Vec<gst::TagList>,
    pub(super) progress: TrackProgress,
    pub(super) times: TrackTimes,
    pub(super) is_discont: bool,
    keyframe_flags: KeyframeFlags,
    /// Facts that a new stream header has not stated yet.
    unstated: Unstated,
}

#[derive(Debug, Default, Clone, Copy)]
struct Unstated {
    configuration: bool,
    color: bool,
    channels: bool,
}

impl Track {
    pub(super) fn new(kind: TagKind, id: u8) -> Self {
        Track {
            kind,
            id,
            codec: None,
            configuration: Vec::new(),
            received_configuration: Vec::new(),
            is_complete: false,
            is_configured_in_band: false,
            nal_length_size: 4,
            color: None,
            channels: 0,
            frame_header: None,
            is_disguised: false,
            has_new_facts: true,
            caps: None,
            tags: Vec::new(),
            progress: TrackProgress::default(),
            times: TrackTimes::default(),
            is_discont: true,
            keyframe_flags: KeyframeFlags::default(),
            unstated: Unstated::default(),
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
            self.clear_configuration();
            self.is_complete = false;
            self.is_configured_in_band = false;
            self.color = None;
            self.channels = 0;
            self.frame_header = None;
            self.has_new_facts = true;
        }
    }

    /// Accepts a configuration, unless no decoder would. The same one again changes nothing.
    pub(super) fn configure(&mut self, codec: Codec, configuration: &[u8]) -> bool {
        let Some((real, record)) = standard_configuration(codec, configuration) else {
            return false;
        };
        self.is_disguised = real != codec;
        self.set_codec(real);
        // Parameter sets that are missing here may be in the frames.
        let is_complete = real.nal_codec().is_none() || has_parameter_sets(real, &record);
        if is_complete || !self.is_configured_in_band {
            self.is_configured_in_band = false;
            self.is_complete = is_complete;
            self.set_configuration(&record);
        }
        self.unstated.configuration = false;
        true
    }

    fn set_configuration(&mut self, configuration: &[u8]) {
        self.unstated.configuration = false;
        if self.received_configuration != configuration {
            self.received_configuration = configuration.to_vec();
            self.configuration = configuration.to_vec();
            self.nal_length_size = match self.codec {
                Some(Codec::Avc) => AvcConfig::parse(configuration).map(|c| c.nal_length_size),
                Some(Codec::Hevc) => HevcConfig::parse(configuration).map(|c| c.nal_length_size),
                _ => None,
            }
            .unwrap_or(4);
            self.has_new_facts = true;
            if is_odd_length_size(self.nal_length_size) {
                self.lengthen_lengths();
            }
        }
    }

    fn clear_configuration(&mut self) {
        self.configuration.clear();
        self.received_configuration.clear();
    }

    /// Changes the configuration for frames whose lengths are made four bytes long.
    fn lengthen_lengths(&mut self) {
        if let Some(codec) = self.codec.and_then(Codec::nal_codec) {
            self.configuration = record_with_long_lengths(codec, &self.configuration);
            self.has_new_facts = true;
        }
    }

    /// Configures AVC and HEVC by the parameter sets in a frame, where the configuration has none.
    pub(super) fn configure_in_band(&mut self, frame: &[u8], is_key: bool) {
        let is_known = self.is_complete && !self.is_configured_in_band;
        if is_known || (!is_key && self.is_configured()) {
            return;
        }
        if let Some(codec) = self.codec.and_then(Codec::nal_codec)
            && let Some(record) = record_of_frame(codec, frame, self.nal_length_size)
        {
            self.is_configured_in_band = true;
            self.is_complete = true;
            self.set_configuration(&record);
        }
    }

    /// Returns true if decoding can start with this frame, whatever its flag.
    pub(super) fn is_sync_point(&mut self, codec: Codec, frame: &[u8], is_flagged: bool) -> bool {
        if self.kind != TagKind::Video {
            return is_flagged;
        }
        let size = self.nal_length_size;
        self.keyframe_flags.correct(is_flagged, || {
            let Some(picture_codec) = codec.picture_codec() else {
                return Picture::Unknown;
            };
            let frame = match codec {
                // The picture follows a field of 24 bits.
                Codec::Vp6Alpha => frame.get(3..).unwrap_or_default(),
                _ => frame,
            };
            Picture::classify(picture_codec, size, frame)
        })
    }

    /// Returns a frame as the caps have it, if it came in another form.
    #[inline]
    pub(super) fn repaired_frame(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        // Most frames end here.
        if !may_be_annexb(frame) && !is_odd_length_size(self.nal_length_size) {
            return None;
        }
        self.repair_frame(frame)
    }

    #[cold]
    fn repair_frame(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        self.codec?.nal_codec()?;
        if is_odd_length_size(self.nal_length_size) {
            return frame_with_long_lengths(frame, self.nal_length_size);
        }
        let repaired = frame_of_annexb(frame, self.nal_length_size);
        if repaired.is_none() && is_annexb(frame, self.nal_length_size) {
            // A NAL unit is longer than the configuration allows for. Nothing but start codes come,
            // so its size of lengths means nothing.
            self.nal_length_size = 4;
            self.lengthen_lengths();
            return frame_of_annexb(frame, self.nal_length_size);
        }
        repaired
    }

    /// Checks the keyframe flags of the next publisher afresh.
    pub(super) fn restart_flags(&mut self) {
        self.keyframe_flags = KeyframeFlags::default();
    }

    /// Starts a new description of the stream: facts that are not set before
    /// [`Self::finish_description`] are forgotten.
    pub(super) fn start_description(&mut self) {
        self.restart_flags();
        self.unstated = Unstated {
            configuration: true,
            color: true,
            channels: true,
        };
    }

    pub(super) fn finish_description(&mut self) {
        let unstated = std::mem::take(&mut self.unstated);
        // Facts from the frames are no part of the description.
        let is_stated = !unstated.configuration || self.is_configured_in_band;
        if !is_stated && !self.configuration.is_empty() {
            self.clear_configuration();
            self.is_complete = false;
            self.is_disguised = false;
            self.has_new_facts = true;
        }
        if unstated.color || unstated.channels {
            self.forget_presentation(unstated.color, unstated.channels);
        }
    }

    /// Forgets colours and channels that only a description of the stream states.
    pub(super) fn forget_presentation(&mut self, color: bool, channels: bool) {
        if color && self.color.take().is_some() {
            self.has_new_facts = true;
        }
        if channels && self.channels != 0 {
            self.channels = 0;
            self.has_new_facts = true;
        }
    }

    pub(super) fn set_color(&mut self, color: ColorInfo) {
        self.unstated.color = false;
        let color = (color != ColorInfo::default()).then_some(color);
        if self.color != color {
            self.color = color;
            self.has_new_facts = true;
        }
    }

    pub(super) fn set_channels(&mut self, channels: u8) {
        self.unstated.channels = false;
        if self.channels != channels {
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
    #[inline]
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
        self.caps_of_new_facts(codec, metadata)
    }

    #[cold]
    fn caps_of_new_facts(
        &mut self,
        codec: Codec,
        metadata: Option<&Metadata>,
    ) -> Option<gst::Caps> {
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

    /// Returns the tag lists that differ from the announced ones, and announces them. A list that
    /// has become empty replaces the one before.
    pub(super) fn renewed_tags(&mut self, metadata: Option<&Metadata>) -> Vec<gst::TagList> {
        let lists = tags::of_stream_and_track(metadata, self.kind, self.id);
        let last = std::mem::replace(&mut self.tags, lists.to_vec());
        let lists = lists.into_iter().enumerate();
        let renewed = lists.filter(|(index, list)| match last.get(*index) {
            Some(last) => last != list,
            None => list.n_tags() > 0,
        });
        renewed.map(|(_, list)| list).collect()
    }
}

fn has_parameter_sets(codec: Codec, record: &[u8]) -> bool {
    match codec {
        Codec::Avc => AvcConfig::parse(record).is_some_and(|config| config.has_parameter_sets),
        _ => HevcConfig::parse(record).is_some_and(|config| config.has_parameter_sets),
    }
}

/// Returns the configuration as a decoder accepts it, and its codec: HEVC may come as AVC.
fn standard_configuration(codec: Codec, configuration: &[u8]) -> Option<(Codec, Cow<'_, [u8]>)> {
    let Some(nal_codec) = codec.nal_codec() else {
        let is_accepted = codec.accepts(configuration);
        return is_accepted.then_some((codec, configuration.into()));
    };
    if has_parameter_sets(codec, configuration) {
        return Some((codec, configuration.into()));
    }
    if codec == Codec::Avc && is_hevc_in_disguise(configuration) {
        return Some((Codec::Hevc, configuration.into()));
    }
    let repaired = repaired_record(nal_codec, configuration);
    if let Some(record) = repaired {
        return Some((codec, record.into()));
    }
    if codec == Codec::Avc
        && let Some(record) = repaired_record(NalCodec::Hevc, configuration)
    {
        return Some((Codec::Hevc, record.into()));
    }
    let is_accepted = codec.accepts(configuration);
    is_accepted.then_some((codec, configuration.into()))
}
