// SPDX-License-Identifier: MPL-2.0

//! Tags -> events of tracks. Knows no pads: `pads` turns the events into what leaves the element.

use std::ops::Range;

use gst::ClockTime;

use super::bodies::{CodedPacket, Skipped, TrackItem, TrackResult, parse_audio, parse_video};
use super::codec::Codec;
use super::gaps::Leader;
use super::parser::FlvTag;
use super::problem::Problem;
use super::script::ScriptData;
use super::tags;
use super::times::TagTimes;
use super::track::Track;
use crate::flv::TagKind;
use crate::flv::body::{Metadata, Script};
use crate::flv::config::AdtsHeader;

/// Lag that a live track may have before it gets a GAP. A queue holds one second: an element that
/// waits for the track must get the GAP before the queues of the other tracks are full. Otherwise
/// their next packet waits too, and nothing goes on any more.
const MAX_LAG_LIVE: ClockTime = ClockTime::from_mseconds(400);

/// The same for bytes, whose tracks may be written far apart.
const MAX_LAG: ClockTime = ClockTime::from_seconds(3);

/// Duration of a single track after which there is probably no other one. Tracks that come later
/// get their pads all the same.
const ALONE: ClockTime = ClockTime::from_seconds(6);

/// An output of the demuxer. Tracks are named by their index, in the order in which they came.
#[derive(Debug)]
pub(super) enum DemuxEvent {
    /// Start of the timeline, where upstream has none.
    Segment(ClockTime),
    /// Tracks that get a pad now, in the order of their pads.
    NewTracks(Vec<NewTrack>),
    Caps(usize, gst::Caps),
    Tags(usize, Vec<gst::TagList>),
    Packet(TrackPacket),
    /// Time for which a track has nothing.
    Gap(usize, Range<ClockTime>),
    /// For all tracks.
    Script(Box<ScriptData>),
    Duration(Option<ClockTime>),
    NoMoreTracks,
    Problem(Problem, String),
}

#[derive(Debug)]
pub(super) struct NewTrack {
    pub(super) index: usize,
    pub(super) kind: TagKind,
    pub(super) id: u8,
    pub(super) caps: gst::Caps,
    pub(super) tags: Vec<gst::TagList>,
}

/// A packet with its times.
#[derive(Debug, PartialEq)]
pub(super) struct TrackPacket {
    pub(super) index: usize,
    /// Audio or video.
    pub(super) kind: TagKind,
    pub(super) payload: Payload,
    pub(super) dts: ClockTime,
    pub(super) pts: ClockTime,
    pub(super) flags: gst::BufferFlags,
}

#[derive(Debug, PartialEq)]
pub(super) enum Payload {
    /// Place in the tag's body.
    Part(Range<usize>),
    /// A frame that came in another form than the caps have.
    Repaired(Vec<u8>),
}

/// Demuxes everything from the start of a stream to its end or a flush.
#[derive(Debug, Default)]
pub(super) struct Demuxer {
    tracks: Vec<Track>,
    times: TagTimes,
    metadata: Option<Metadata>,
    /// Upstream's times count, and its segment.
    is_timed: bool,
    has_segment: bool,
    /// Start of the demuxer's own segment.
    start: ClockTime,
    /// Media has come, and with it the pads of all tracks that were known then.
    is_started: bool,
    no_more_tracks: bool,
    first_position: Option<ClockTime>,
    leader: Leader,
    /// Latency of the pipeline. Within it media still comes in time.
    latency: ClockTime,
}

impl Demuxer {
    /// Starts a new timeline. `is_timed`: upstream has times and a segment.
    pub(super) fn start_segment(&mut self, is_timed: bool) {
        self.is_timed = is_timed;
        self.restart_times();
        self.has_segment = is_timed;
        self.start = ClockTime::ZERO;
    }

    /// Handles a flush: the tracks and what is known of them stay.
    pub(super) fn flush(&mut self) {
        self.restart_times();
        self.has_segment = false;
        self.handle_discontinuity();
    }

    fn restart_times(&mut self) {
        self.times = TagTimes::new(self.is_timed);
        for track in &mut self.tracks {
            track.times = Default::default();
            track.progress = Default::default();
        }
        self.leader = Leader::default();
    }

    pub(super) fn set_latency(&mut self, latency: ClockTime) {
        self.latency = latency;
    }

    /// Handles the start of a file. A second one is of another publisher, whose description of the
    /// stream is its own. Decoder configurations stay, in case it has none.
    pub(super) fn start_file(&mut self, events: &mut Vec<DemuxEvent>) {
        self.times.start_file();
        if self.is_started {
            self.handle_discontinuity();
            for track in &mut self.tracks {
                track.restart_flags();
                track.forget_presentation(true, true);
            }
            self.set_metadata(None, events);
        }
    }

    /// Handles a new stream header, which states all that holds from now on: facts that it lacks
    /// are forgotten. It has no media, and its tags have no times.
    pub(super) fn handle_stream_header(
        &mut self,
        tags: &[FlvTag<'_>],
        events: &mut Vec<DemuxEvent>,
    ) {
        self.tracks.iter_mut().for_each(Track::start_description);
        let mut metadata = None;
        // A new codec makes a track forget its colours, so the configurations come first.
        for configures in [true, false] {
            let mut describe = |tag: &FlvTag<'_>, item: TrackResult<'_>| {
                let is_wanted = match item.1 {
                    Ok(TrackItem::Configuration(..)) => configures,
                    Ok(TrackItem::Packet(_)) => false,
                    _ => !configures,
                };
                if is_wanted {
                    self.handle_item(tag, item, events);
                }
            };
            for tag in tags {
                match tag.kind {
                    TagKind::Video => parse_video(tag.body, |item| describe(tag, item)),
                    TagKind::Audio => parse_audio(tag.body, |item| describe(tag, item)),
                    TagKind::Script => {
                        let script = Script::parse(tag.body).ok();
                        metadata = script.and_then(Metadata::of).or(metadata);
                    }
                }
            }
        }
        self.tracks.iter_mut().for_each(Track::finish_description);
        self.set_metadata(metadata, events);
    }

    /// Handles upstream's GAP: no track has anything before its end.
    pub(super) fn handle_gap(&mut self, gap: &Range<ClockTime>, events: &mut Vec<DemuxEvent>) {
        self.leader.advance(gap.end);
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if track.has_pad()
                && let Some(gap) = track.progress.upstream_gap(&self.leader, gap)
            {
                events.push(DemuxEvent::Gap(index, gap));
            }
        }
    }

    pub(super) fn handle_discontinuity(&mut self) {
        for track in &mut self.tracks {
            track.is_discont = true;
        }
    }

    /// Handles the end of the stream: no track can come any more.
    pub(super) fn finish(&mut self, events: &mut Vec<DemuxEvent>) {
        if !self.no_more_tracks {
            self.no_more_tracks = true;
            events.push(DemuxEvent::NoMoreTracks);
        }
    }

    pub(super) fn handle_tag(&mut self, tag: &FlvTag<'_>, events: &mut Vec<DemuxEvent>) {
        // A tag without anything in it is no loss.
        if tag.body.is_empty() {
            skip(events, Problem::Empty, "A tag without a body");
            return;
        }
        match tag.kind {
            TagKind::Video => parse_video(tag.body, |item| self.handle_item(tag, item, events)),
            TagKind::Audio => parse_audio(tag.body, |item| self.handle_item(tag, item, events)),
            TagKind::Script => match Script::parse(tag.body) {
                Ok(script) => self.handle_script(tag, script, events),
                Err(error) => skip(events, Problem::BadScript, error.to_string()),
            },
        }
    }

    fn handle_item(
        &mut self,
        tag: &FlvTag<'_>,
        (id, item): TrackResult<'_>,
        events: &mut Vec<DemuxEvent>,
    ) {
        let handled = item.and_then(|item| match item {
            TrackItem::Packet(packet) => self.handle_packet(tag, id, packet, events),
            TrackItem::Configuration(codec, record) => self.configure(tag.kind, id, codec, &record),
            TrackItem::Color(codec, color) => {
                let track = self.track(tag.kind, id);
                // ffmpeg sends the colours of all tracks without a track id.
                if track.codec.is_none_or(|present| present == codec) {
                    track.codec = Some(codec);
                    track.set_color(*color);
                }
                Ok(())
            }
            TrackItem::Channels(codec, channels) => {
                let track = self.track(tag.kind, id);
                if track.codec.is_none_or(|present| present == codec) {
                    track.set_channels(channels);
                }
                Ok(())
            }
        });
        if let Err((problem, detail)) = handled {
            skip(events, problem, detail);
        }
    }

    fn handle_script(&mut self, tag: &FlvTag<'_>, script: Script, events: &mut Vec<DemuxEvent>) {
        if script.name == Metadata::NAME {
            if let Some(metadata) = Metadata::of(script) {
                self.set_metadata(Some(metadata), events);
            }
        } else {
            let time = clock_time(self.times.of_script(tag));
            let data = ScriptData::new(time, script, tag.body);
            events.push(DemuxEvent::Script(data.into()));
        }
    }

    fn set_metadata(&mut self, metadata: Option<Metadata>, events: &mut Vec<DemuxEvent>) {
        // Some encoders repeat it every second.
        if self.metadata == metadata {
            return;
        }
        let duration = metadata.as_ref().and_then(tags::duration);
        events.push(DemuxEvent::Duration(duration));
        for (index, track) in self.tracks.iter_mut().enumerate() {
            track.renew_caps();
            if track.has_pad() {
                let lists = track.renewed_tags(metadata.as_ref());
                events.push(DemuxEvent::Tags(index, lists));
            }
        }
        self.metadata = metadata;
    }

    fn track(&mut self, kind: TagKind, id: u8) -> &mut Track {
        let index = self.track_index(kind, id);
        &mut self.tracks[index]
    }

    #[inline]
    fn track_index(&mut self, kind: TagKind, id: u8) -> usize {
        let mut tracks = self.tracks.iter();
        let known = tracks.position(|track| track.kind == kind && track.id == id);
        known.unwrap_or_else(|| self.add_track(kind, id))
    }

    #[cold]
    fn add_track(&mut self, kind: TagKind, id: u8) -> usize {
        self.tracks.push(Track::new(kind, id));
        self.tracks.len() - 1
    }

    fn configure(
        &mut self,
        kind: TagKind,
        id: u8,
        codec: Codec,
        record: &[u8],
    ) -> Result<(), Skipped> {
        // ffmpeg starts with an empty one when it does not know it yet.
        if record.is_empty() {
            return Err((Problem::Empty, "An empty configuration".to_owned()));
        }
        let track = self.track(kind, id);
        if !track.configure(codec, record) {
            let detail = format!("{}: {codec:?}", track.name());
            return Err((Problem::BadConfiguration, detail));
        }
        Ok(())
    }

    fn handle_packet(
        &mut self,
        tag: &FlvTag<'_>,
        id: u8,
        packet: CodedPacket<'_>,
        events: &mut Vec<DemuxEvent>,
    ) -> Result<(), Skipped> {
        let mut payload = packet.payload;
        // Encoders that know no other AAC send ADTS, where FLV has it raw.
        if packet.codec == Codec::Aac
            && let Some(header) = AdtsHeader::parse(payload)
        {
            if !self.track(tag.kind, id).is_configured() {
                self.configure(tag.kind, id, packet.codec, &header.config)?;
            }
            payload = &payload[header.length..];
        }
        if payload.is_empty() {
            return Err((Problem::Empty, "A packet without a payload".to_owned()));
        }
        let index = self.track_index(tag.kind, id);
        let track = &mut self.tracks[index];
        let codec = track.real_codec(packet.codec);
        track.set_codec(codec);
        let is_key = track.is_sync_point(codec, payload, packet.is_key);
        track.configure_in_band(payload, is_key);
        if !track.is_configured() && codec.needs_configuration() {
            let detail = format!("{}: {codec:?}", track.name());
            return Err((Problem::NoConfiguration, detail));
        }

        let repaired = track.repaired_frame(payload);
        let (time, is_reset) = self.times.of_packet(tag, &mut track.times);
        // GStreamer has no times below 0.
        let dts = clock_time(time);
        let pts = clock_time(time.saturating_add(packet.composition_time));
        if !self.has_segment {
            self.has_segment = true;
            self.start = dts.min(pts);
            events.push(DemuxEvent::Segment(self.start));
        }
        self.announce(index, payload, events);

        let track = &mut self.tracks[index];
        let mut flags = gst::BufferFlags::empty();
        flags.set(gst::BufferFlags::DELTA_UNIT, !is_key);
        flags.set(gst::BufferFlags::DISCONT, track.is_discont);
        flags.set(gst::BufferFlags::RESYNC, is_reset);
        track.is_discont = false;
        if is_reset {
            self.leader.go_back(dts);
        }
        self.leader.advance(dts);
        track.progress.add_packet(&self.leader, dts, pts);
        let payload = repaired.map(Payload::Repaired).unwrap_or_else(|| {
            let start = payload.as_ptr().addr() - tag.body.as_ptr().addr();
            Payload::Part(start..start + payload.len())
        });
        events.push(DemuxEvent::Packet(TrackPacket {
            index,
            kind: tag.kind,
            payload,
            dts,
            pts,
            flags,
        }));
        self.update_others(index, dts, events);
        Ok(())
    }

    /// Announces the track of a packet if it is new, and its caps if they changed. The first packet
    /// of all announces all configured tracks, so that applications that select among them see them
    /// at once.
    fn announce(&mut self, index: usize, payload: &[u8], events: &mut Vec<DemuxEvent>) {
        let metadata = self.metadata.as_ref();
        let track = &mut self.tracks[index];
        let had_pad = track.has_pad();
        let caps = track.renewed_caps(metadata, payload);
        // Most packets end here.
        if caps.is_none() && self.is_started {
            return;
        }
        let mut new = Vec::new();
        if let Some(caps) = caps {
            if had_pad {
                events.push(DemuxEvent::Caps(index, caps));
            } else {
                new.push((index, caps));
            }
        }
        if !self.is_started {
            self.is_started = true;
            for (other, track) in self.tracks.iter_mut().enumerate() {
                if other != index
                    && track.is_configured()
                    && let Some(caps) = track.renewed_caps(metadata, &[])
                {
                    new.push((other, caps));
                }
            }
        }
        if new.is_empty() {
            return;
        }
        let mut new_track = |(index, caps): (usize, _)| {
            let track = &mut self.tracks[index];
            NewTrack {
                index,
                kind: track.kind,
                id: track.id,
                caps,
                tags: track.renewed_tags(metadata),
            }
        };
        let mut new: Vec<_> = new.into_iter().map(&mut new_track).collect();
        new.sort_by_key(|track| (track.kind != TagKind::Video, track.id));
        events.push(DemuxEvent::NewTracks(new));
    }

    /// Handles the effects on other tracks when a track has come to `position`.
    fn update_others(&mut self, index: usize, position: ClockTime, events: &mut Vec<DemuxEvent>) {
        let first = *self.first_position.get_or_insert(position);
        if !self.no_more_tracks {
            let has = |kind| {
                let mut tracks = self.tracks.iter();
                tracks.any(|track| track.kind == kind && track.has_pad())
            };
            let has_both = has(TagKind::Audio) && has(TagKind::Video);
            if has_both || position.saturating_sub(first) > ALONE {
                self.finish(events);
            }
        }
        let allowance = if self.is_timed {
            MAX_LAG_LIVE.max(self.latency)
        } else {
            MAX_LAG
        };
        for (other, track) in self.tracks.iter_mut().enumerate() {
            if other != index
                && track.has_pad()
                && let Some(gap) = track.progress.next_gap(&self.leader, allowance)
            {
                let gap = gap.start.max(self.start)..gap.end.max(self.start);
                events.push(DemuxEvent::Gap(other, gap));
            }
        }
    }
}

fn skip(events: &mut Vec<DemuxEvent>, problem: Problem, detail: impl Into<String>) {
    events.push(DemuxEvent::Problem(problem, detail.into()));
}

fn clock_time(nanoseconds: i64) -> ClockTime {
    ClockTime::from_nseconds(u64::try_from(nanoseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
