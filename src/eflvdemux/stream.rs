// SPDX-License-Identifier: MPL-2.0

//! Tags -> packets of tracks -> pads. Belongs to the streaming thread.

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::UniqueFlowCombiner;

use super::codec::Codec;
use super::imp::{CAT, EFlvDemux};
use super::input::{Input, Parsed, Tag};
use super::stats::Problem;
use super::tags;
use super::times::Times;
use super::track::{Output, Track};
use crate::flv::TagKind;
use crate::flv::body::{
    AudioBody, AudioPacket, AudioTrack, BodyError, ColorInfo, ExVideoContent, Metadata, Script,
    VideoBody, VideoPacket, VideoTrack,
};
use crate::flv::codes::{AacPacketType, AvcPacketType, FrameType};
use crate::flv::config::{AdtsHeader, Av1Config};

/// A track that is so far behind another one gets a GAP, so that nobody waits for it. A queue holds
/// one second: whoever waits for a live track must hear of it before the queues of the others are
/// full, or else the next packet of those waits too, and nothing goes on any more.
const MAX_LAG_LIVE: gst::ClockTime = gst::ClockTime::from_mseconds(400);

/// The same of bytes, whose tracks may be written far apart.
const MAX_LAG: gst::ClockTime = gst::ClockTime::from_seconds(3);

/// With one track only for so long, there is probably no other one. Tracks that come later all the
/// same get their pads all the same.
const ALONE: gst::ClockTime = gst::ClockTime::from_seconds(6);

type Flow = Result<(), gst::FlowError>;

/// Everything from the start of a stream to its end or a flush.
#[derive(Debug)]
pub(super) struct Stream {
    tracks: Vec<Track>,
    times: Times,
    metadata: Option<Metadata>,
    combiner: UniqueFlowCombiner,
    group: gst::GroupId,
    /// What pads get: upstream's if that is in TIME, or else our own from the first packet on.
    segment: Option<gst::Event>,
    upstream_is_time: bool,
    /// Media has come, and with it the pads of all tracks that were known then.
    is_started: bool,
    no_more_pads: bool,
    first_position: Option<gst::ClockTime>,
}

/// A packet of a track, in the buffer that its tag is in.
struct Packet<'a> {
    codec: Codec,
    payload: &'a [u8],
    is_key: bool,
    /// PTS - DTS in nanoseconds.
    composition_time: i64,
}

impl Default for Stream {
    fn default() -> Self {
        Stream {
            tracks: Vec::new(),
            times: Times::default(),
            metadata: None,
            combiner: UniqueFlowCombiner::new(),
            group: gst::GroupId::next(),
            segment: None,
            upstream_is_time: false,
            is_started: false,
            no_more_pads: false,
            first_position: None,
        }
    }
}

impl Stream {
    pub(super) fn set_group(&mut self, group: gst::GroupId) {
        self.group = group;
    }

    /// Upstream's segment. Ours is made anew where upstream has bytes.
    pub(super) fn set_segment(&mut self, event: &gst::Event, format: gst::Format) {
        self.upstream_is_time = format == gst::Format::Time;
        self.times = Times::new(self.upstream_is_time);
        self.segment = self.upstream_is_time.then(|| event.clone());
        for track in &mut self.tracks {
            track.times = Default::default();
            if let Some(output) = &mut track.output {
                output.restart();
            }
        }
    }

    pub(super) fn upstream_is_time(&self) -> bool {
        self.upstream_is_time
    }

    /// After a flush the pads and what is known of the tracks stay.
    pub(super) fn flush(&mut self) {
        self.combiner.reset();
        self.times = Times::new(self.upstream_is_time);
        self.segment = None;
        self.discontinue();
        for track in &mut self.tracks {
            track.times = Default::default();
            if let Some(output) = &mut track.output {
                output.restart();
            }
        }
    }

    pub(super) fn discontinue(&mut self) {
        for track in &mut self.tracks {
            track.is_discont = true;
        }
    }

    pub(super) fn pads(&self) -> impl Iterator<Item = &gst::Pad> {
        self.outputs().map(|output| &output.pad)
    }

    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.tracks.iter().filter_map(|track| track.output.as_ref())
    }

    /// Upstream has nothing for a while, and neither has any track.
    pub(super) fn gap(&mut self, event: &gst::Event) {
        let segment = &self.segment;
        for output in self.tracks.iter_mut().filter_map(|t| t.output.as_mut()) {
            output.push_segment(segment.as_ref());
            output.pad.push_event(event.clone());
        }
    }

    /// No track can come any more.
    pub(super) fn finish(&mut self, element: &EFlvDemux) {
        self.signal_no_more_pads(element);
    }

    pub(super) fn push(
        &mut self,
        element: &EFlvDemux,
        input: &mut Input,
        buffer: gst::Buffer,
    ) -> Flow {
        input.push(buffer, |unit| match unit {
            Parsed::Tag(tag) => self.tag(element, &tag),
            Parsed::UnknownTag(code) => {
                let detail = format!("Tag type {code}");
                element.skip(Problem::UnknownTag, 1, &detail);
                Ok(())
            }
            Parsed::Lost(count) => {
                self.discontinue();
                let detail = format!("{count} bytes");
                element.skip(Problem::LostBytes, count as u64, &detail);
                Ok(())
            }
        })
    }

    fn tag(&mut self, element: &EFlvDemux, tag: &Tag<'_>) -> Flow {
        element.count_tag();
        let body = &tag.bytes[tag.body.clone()];
        // Nothing is lost with a tag that has nothing.
        if body.is_empty() {
            element.skip(Problem::Empty, 1, "A tag without a body");
            return Ok(());
        }
        match tag.kind {
            TagKind::Video => match VideoBody::parse(body) {
                Ok(video) => self.video(element, tag, video),
                Err(error) => bad_tag(element, tag, error),
            },
            TagKind::Audio => match AudioBody::parse(body) {
                Ok(audio) => self.audio(element, tag, audio),
                Err(error) => bad_tag(element, tag, error),
            },
            TagKind::Script => {
                match Script::parse(body) {
                    Ok(script) => self.script(element, script),
                    Err(error) => element.skip(Problem::BadScript, 1, &error.to_string()),
                }
                Ok(())
            }
        }
    }

    // Video

    fn video(&mut self, element: &EFlvDemux, tag: &Tag<'_>, body: VideoBody<'_>) -> Flow {
        let (frame_type, codec, payload) = match body {
            VideoBody::Command { .. } => return Ok(()),
            VideoBody::Ex(ex) => {
                let ExVideoContent::Tracks(tracks) = &ex.content else {
                    return Ok(());
                };
                let nanoseconds = ex.nanoseconds();
                for (id, track) in tracks.iter() {
                    self.ex_video(element, tag, id, track, ex.frame_type, nanoseconds)?;
                }
                return Ok(());
            }
            VideoBody::Avc {
                frame_type,
                codec,
                packet_type,
                composition_time,
                payload,
            } => {
                let Some(codec) = Codec::of_video_id(codec) else {
                    return Ok(());
                };
                return match packet_type {
                    AvcPacketType::SequenceHeader => {
                        self.configure(element, TagKind::Video, 0, codec, payload);
                        Ok(())
                    }
                    AvcPacketType::EndOfSequence => Ok(()),
                    AvcPacketType::CodedFrames => {
                        let packet = Packet {
                            codec,
                            payload,
                            is_key: frame_type.is_key(),
                            composition_time: i64::from(composition_time) * 1_000_000,
                        };
                        self.packet(element, tag, 0, packet)
                    }
                    AvcPacketType::Unknown(code) => {
                        let detail = format!("AVC packet type {code}");
                        element.skip(Problem::UnknownPacket, 1, &detail);
                        Ok(())
                    }
                };
            }
            VideoBody::Plain {
                frame_type,
                codec,
                payload,
            }
            | VideoBody::Vp6 {
                frame_type,
                codec,
                payload,
                ..
            } => (frame_type, codec, payload),
        };
        let Some(codec) = Codec::of_video_id(codec) else {
            let detail = format!("Video codec id {}", codec.code());
            element.skip(Problem::UnknownCodec, 1, &detail);
            return Ok(());
        };
        let packet = Packet {
            codec,
            payload,
            is_key: frame_type.is_key(),
            composition_time: 0,
        };
        self.packet(element, tag, 0, packet)
    }

    fn ex_video(
        &mut self,
        element: &EFlvDemux,
        tag: &Tag<'_>,
        id: u8,
        track: &VideoTrack<'_>,
        frame_type: FrameType,
        nanoseconds: u32,
    ) -> Flow {
        let Some(codec) = Codec::of_video(track.four_cc) else {
            let four_cc = track.four_cc.code();
            element.skip(
                Problem::UnknownCodec,
                1,
                &four_cc.escape_ascii().to_string(),
            );
            return Ok(());
        };
        let (payload, milliseconds) = match track.packet {
            VideoPacket::SequenceStart(record) => {
                self.configure(element, TagKind::Video, id, codec, record);
                return Ok(());
            }
            VideoPacket::Mpeg2TsSequenceStart(descriptor) => {
                match Av1Config::record_of_descriptor(descriptor) {
                    Some(record) if codec == Codec::Av1 => {
                        self.configure(element, TagKind::Video, id, codec, &record);
                    }
                    _ => element.skip(Problem::BadConfiguration, 1, "MPEG-2 TS sequence start"),
                }
                return Ok(());
            }
            VideoPacket::SequenceEnd => return Ok(()),
            VideoPacket::Metadata(body) => {
                match ColorInfo::parse(body) {
                    Ok(Some(color)) => {
                        let track = self.track(TagKind::Video, id);
                        // ffmpeg says the colours of all tracks without saying which track.
                        if track.codec.is_none_or(|present| present == codec) {
                            track.codec = Some(codec);
                            track.set_color(color);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => element.skip(Problem::BadScript, 1, &error.to_string()),
                }
                return Ok(());
            }
            VideoPacket::Unknown { packet_type, .. } => {
                let detail = format!("Video packet type {packet_type}");
                element.skip(Problem::UnknownPacket, 1, &detail);
                return Ok(());
            }
            VideoPacket::CodedFramesX(payload) => (payload, 0),
            VideoPacket::CodedFrames {
                composition_time,
                payload,
            } => (payload, composition_time.unwrap_or(0)),
        };
        let packet = Packet {
            codec,
            payload,
            is_key: frame_type.is_key(),
            composition_time: i64::from(milliseconds) * 1_000_000 + i64::from(nanoseconds),
        };
        self.packet(element, tag, id, packet)
    }

    // Audio

    fn audio(&mut self, element: &EFlvDemux, tag: &Tag<'_>, body: AudioBody<'_>) -> Flow {
        match body {
            AudioBody::Aac {
                packet_type,
                payload,
                ..
            } => match packet_type {
                AacPacketType::SequenceHeader => {
                    self.configure(element, TagKind::Audio, 0, Codec::Aac, payload);
                    Ok(())
                }
                AacPacketType::Raw => self.sound(element, tag, 0, Codec::Aac, payload, 0),
                AacPacketType::Unknown(code) => {
                    let detail = format!("AAC packet type {code}");
                    element.skip(Problem::UnknownPacket, 1, &detail);
                    Ok(())
                }
            },
            AudioBody::Legacy {
                format,
                sound,
                payload,
            } => match Codec::of_sound(format, sound) {
                Some(codec) => self.sound(element, tag, 0, codec, payload, 0),
                None => {
                    let detail = format!("Sound format {}", format.code());
                    element.skip(Problem::UnknownCodec, 1, &detail);
                    Ok(())
                }
            },
            AudioBody::Ex(ex) => {
                let nanoseconds = ex.nanoseconds();
                for (id, track) in ex.tracks.iter() {
                    self.ex_audio(element, tag, id, track, nanoseconds)?;
                }
                Ok(())
            }
        }
    }

    fn ex_audio(
        &mut self,
        element: &EFlvDemux,
        tag: &Tag<'_>,
        id: u8,
        track: &AudioTrack<'_>,
        nanoseconds: u32,
    ) -> Flow {
        let Some(codec) = Codec::of_audio(track.four_cc) else {
            let four_cc = track.four_cc.code();
            element.skip(
                Problem::UnknownCodec,
                1,
                &four_cc.escape_ascii().to_string(),
            );
            return Ok(());
        };
        match track.packet {
            AudioPacket::SequenceStart(configuration) => {
                if codec.has_configuration() {
                    self.configure(element, TagKind::Audio, id, codec, configuration);
                }
                Ok(())
            }
            AudioPacket::SequenceEnd => Ok(()),
            AudioPacket::MultichannelConfig(config) => {
                let track = self.track(TagKind::Audio, id);
                if track.codec.is_none_or(|present| present == codec) {
                    track.set_channels(config.channels);
                }
                Ok(())
            }
            AudioPacket::CodedFrames(payload) => {
                self.sound(element, tag, id, codec, payload, nanoseconds)
            }
            AudioPacket::Unknown { packet_type, .. } => {
                let detail = format!("Audio packet type {packet_type}");
                element.skip(Problem::UnknownPacket, 1, &detail);
                Ok(())
            }
        }
    }

    fn sound(
        &mut self,
        element: &EFlvDemux,
        tag: &Tag<'_>,
        id: u8,
        codec: Codec,
        payload: &[u8],
        nanoseconds: u32,
    ) -> Flow {
        // Nobody takes a part of a sample.
        let mut payload = &payload[..payload.len() - payload.len() % codec.sample_length()];
        // Encoders that know no other AAC send ADTS, where FLV has it raw.
        if codec == Codec::Aac
            && let Some(header) = AdtsHeader::parse(payload)
        {
            if !self.track(TagKind::Audio, id).is_configured() {
                self.configure(element, TagKind::Audio, id, codec, &header.config);
            }
            payload = &payload[header.length..];
        }
        let packet = Packet {
            codec,
            payload,
            is_key: true,
            composition_time: i64::from(nanoseconds),
        };
        self.packet(element, tag, id, packet)
    }

    // Script data

    fn script(&mut self, element: &EFlvDemux, script: Script) {
        let Some(metadata) = Metadata::of(script) else {
            return;
        };
        // Some encoders repeat it every second.
        if self.metadata.as_ref() == Some(&metadata) {
            return;
        }
        gst::debug!(CAT, imp = element, "Metadata: {metadata:?}");
        element.set_duration(tags::duration(&metadata));
        self.metadata = Some(metadata);
        self.tracks.iter_mut().for_each(Track::renew_caps);
        for track in &self.tracks {
            if let Some(output) = &track.output {
                self.push_tags(track.kind, track.id, &output.pad);
            }
        }
    }

    fn push_tags(&self, kind: TagKind, id: u8, pad: &gst::Pad) {
        if let Some(metadata) = &self.metadata {
            let lists = [
                tags::of_stream(metadata),
                tags::of_track(metadata, kind, id),
            ];
            for list in lists.into_iter().filter(|list| list.n_tags() > 0) {
                pad.push_event(gst::event::Tag::new(list));
            }
        }
    }

    // Tracks

    fn track(&mut self, kind: TagKind, id: u8) -> &mut Track {
        let index = self.track_index(kind, id);
        &mut self.tracks[index]
    }

    fn track_index(&mut self, kind: TagKind, id: u8) -> usize {
        let is_it = |track: &Track| track.kind == kind && track.id == id;
        match self.tracks.iter().position(is_it) {
            Some(index) => index,
            None => {
                self.tracks.push(Track::new(kind, id));
                self.tracks.len() - 1
            }
        }
    }

    fn configure(
        &mut self,
        element: &EFlvDemux,
        kind: TagKind,
        id: u8,
        codec: Codec,
        configuration: &[u8],
    ) {
        // ffmpeg starts with an empty one when it does not know it yet.
        if configuration.is_empty() {
            element.skip(Problem::Empty, 1, "An empty configuration");
            return;
        }
        let track = self.track(kind, id);
        let name = track.name();
        if track.configure(codec, configuration) {
            gst::debug!(CAT, imp = element, "{name}: {codec:?} configuration");
        } else {
            let detail = format!("{name}: {codec:?}");
            element.skip(Problem::BadConfiguration, 1, &detail);
        }
    }

    /// Sends a packet on.
    fn packet(&mut self, element: &EFlvDemux, tag: &Tag<'_>, id: u8, packet: Packet<'_>) -> Flow {
        if packet.payload.is_empty() {
            element.skip(Problem::Empty, 1, "A packet without a payload");
            return Ok(());
        }
        let index = self.track_index(tag.kind, id);
        let track = &mut self.tracks[index];
        let codec = track.real_codec(packet.codec);
        track.set_codec(codec);
        if codec.needs_configuration() && !track.is_configured() {
            let detail = format!("{}: {codec:?}", track.name());
            element.skip(Problem::NoConfiguration, 1, &detail);
            return Ok(());
        }

        let time = self.times.of(tag);
        let (time, is_reset) = if self.times.is_anchored() {
            (time, false)
        } else {
            self.tracks[index].times.next(time)
        };
        // GStreamer has no times below 0.
        let dts = clock_time(time);
        let pts = clock_time(time.saturating_add(packet.composition_time));

        if self.segment.is_none() {
            self.segment = Some(own_segment(dts.min(pts)));
        }
        self.announce(element, index, packet.payload);
        let track = &mut self.tracks[index];
        let Some(output) = &mut track.output else {
            return Ok(());
        };
        output.push_segment(self.segment.as_ref());

        let start = packet.payload.as_ptr().addr() - tag.bytes.as_ptr().addr();
        let range = start..start + packet.payload.len();
        let parts = gst::BufferCopyFlags::MEMORY | gst::BufferCopyFlags::META;
        let Ok(mut buffer) = tag.buffer.copy_region(parts, range) else {
            return Err(gst::FlowError::Error);
        };
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_dts(dts);
            buffer.set_pts(pts);
            let mut flags = gst::BufferFlags::empty();
            flags.set(gst::BufferFlags::DELTA_UNIT, !packet.is_key);
            flags.set(gst::BufferFlags::DISCONT, track.is_discont);
            flags.set(gst::BufferFlags::RESYNC, is_reset);
            buffer.set_flags(flags);
        }
        track.is_discont = false;
        output.position = output.position.max(Some(dts));
        element.count_buffer(tag.kind, dts);
        let pad = output.pad.clone();
        let flow = pad.push(buffer);
        let flow = self.combiner.update_pad_flow(&pad, flow);
        self.after_packet(element, index, dts);
        match flow {
            Ok(_) => Ok(()),
            // A track that somebody waits for may still come, and a live stream goes on until it
            // does.
            Err(gst::FlowError::NotLinked) if self.upstream_is_time || !self.no_more_pads => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the track its pad and its caps. With the first packet of all come the pads of all tracks
    /// that are configured, so that whoever selects among them sees them at once.
    fn announce(&mut self, element: &EFlvDemux, index: usize, payload: &[u8]) {
        let metadata = self.metadata.as_ref();
        let caps = self.tracks[index].new_caps(metadata, payload);
        let mut new = Vec::new();
        if let Some(caps) = caps {
            match &mut self.tracks[index].output {
                Some(output) => {
                    gst::info!(CAT, obj = output.pad, "New caps: {caps}");
                    output.stream.set_caps(Some(&caps));
                    output.pad.push_event(gst::event::Caps::new(&caps));
                    output.caps = caps;
                }
                None => new.push((index, caps)),
            }
        }
        if !self.is_started {
            self.is_started = true;
            for other in (0..self.tracks.len()).filter(|&other| other != index) {
                let track = &mut self.tracks[other];
                if track.is_configured()
                    && let Some(caps) = track.new_caps(metadata, &[])
                {
                    new.push((other, caps));
                }
            }
        }
        if !new.is_empty() {
            new.sort_by_key(|(index, _)| {
                let track = &self.tracks[*index];
                (track.kind != TagKind::Video, track.id)
            });
            self.add_pads(element, new);
        }
    }

    fn add_pads(&mut self, element: &EFlvDemux, new: Vec<(usize, gst::Caps)>) {
        let mut pads = Vec::new();
        for (index, caps) in new {
            let track = &self.tracks[index];
            let name = track.name();
            let pad = element.new_pad(track.kind, &name);
            let id = pad.create_stream_id(&*element.obj(), Some(&name));
            let kind = match track.kind {
                TagKind::Video => gst::StreamType::VIDEO,
                _ => gst::StreamType::AUDIO,
            };
            let flags = if track.id == 0 {
                gst::StreamFlags::SELECT
            } else {
                gst::StreamFlags::empty()
            };
            let stream = gst::Stream::new(Some(id.as_str()), Some(&caps), kind, flags);
            let _ = pad.set_active(true);
            let event = gst::event::StreamStart::builder(&id)
                .group_id(self.group)
                .stream(stream.clone())
                .build();
            pad.push_event(event);
            self.tracks[index].output = Some(Output {
                pad: pad.clone(),
                stream,
                caps,
                has_segment: false,
                position: None,
            });
            pads.push((index, pad));
        }

        let id = element.collection_id();
        let collection = gst::StreamCollection::builder(id.as_deref());
        let collection = collection
            .streams(self.outputs().map(|output| output.stream.clone()))
            .build();
        for pad in self.pads() {
            pad.push_event(gst::event::StreamCollection::new(&collection));
        }
        let message = gst::message::StreamCollection::builder(&collection)
            .src(&*element.obj())
            .build();
        let _ = element.obj().post_message(message);

        for (index, pad) in pads {
            let segment = self.segment.clone();
            let track = &mut self.tracks[index];
            let (kind, id) = (track.kind, track.id);
            if let Some(output) = &mut track.output {
                gst::info!(CAT, obj = pad, "Caps: {}", output.caps);
                pad.push_event(gst::event::Caps::new(&output.caps));
                output.push_segment(segment.as_ref());
            }
            self.push_tags(kind, id, &pad);
            element.push_sticky_of_upstream(&pad);
            self.combiner.add_pad(&pad);
            if let Err(error) = element.obj().add_pad(&pad) {
                gst::error!(CAT, imp = element, "{error}");
            }
        }
    }

    /// What others have to know when a track has come to `position`.
    fn after_packet(&mut self, element: &EFlvDemux, index: usize, position: gst::ClockTime) {
        let first = *self.first_position.get_or_insert(position);
        if !self.no_more_pads {
            let has = |kind| {
                let mut tracks = self.tracks.iter();
                tracks.any(|track| track.kind == kind && track.output.is_some())
            };
            let has_both = has(TagKind::Audio) && has(TagKind::Video);
            if has_both || position.saturating_sub(first) > ALONE {
                self.signal_no_more_pads(element);
            }
        }
        let lag = if self.upstream_is_time {
            MAX_LAG_LIVE
        } else {
            MAX_LAG
        };
        let behind = position.saturating_sub(lag);
        let segment = self.segment.as_ref();
        for (other, track) in self.tracks.iter_mut().enumerate() {
            if let Some(output) = &mut track.output
                && other != index
            {
                // Nothing is missing of a track before the others began.
                let from = *output.position.get_or_insert(position);
                if from < behind {
                    output.push_segment(segment);
                    let gap = gst::event::Gap::builder(from);
                    output.pad.push_event(gap.duration(behind - from).build());
                    output.position = Some(behind);
                }
            }
        }
    }

    fn signal_no_more_pads(&mut self, element: &EFlvDemux) {
        if !self.no_more_pads {
            self.no_more_pads = true;
            element.obj().no_more_pads();
        }
    }
}

fn bad_tag(element: &EFlvDemux, tag: &Tag<'_>, error: BodyError) -> Flow {
    let detail = format!("{:?}: {error}", tag.kind);
    element.skip(Problem::BadTag, 1, &detail);
    Ok(())
}

fn clock_time(nanoseconds: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(u64::try_from(nanoseconds).unwrap_or(0))
}

fn own_segment(start: gst::ClockTime) -> gst::Event {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(start);
    segment.set_time(start);
    segment.set_position(start);
    gst::event::Segment::new(&segment)
}
