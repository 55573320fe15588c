// SPDX-License-Identifier: MPL-2.0

//! Events of the demuxer -> pads, and what leaves through them. Belongs to the streaming thread.

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::UniqueFlowCombiner;

use super::demuxer::{DemuxEvent, NewTrack, Payload, TrackPacket};
use super::script::ScriptData;
use super::{CAT, EFlvDemux};
use crate::flv::TagKind;
use crate::unlinked;

/// Script data that is kept for the first pads.
const MAX_WAITING: usize = 64;

type Flow = Result<(), gst::FlowError>;

/// The source pads, from the start of a stream to its end.
#[derive(Debug)]
pub(super) struct SourcePads {
    /// By the index of their track.
    pads: Vec<Option<TrackPad>>,
    combiner: UniqueFlowCombiner,
    group: gst::GroupId,
    /// Upstream's segment if that is in TIME, otherwise our own from the first packet on.
    segment: Option<gst::Event>,
    upstream_is_time: bool,
    no_more_pads: bool,
    /// A push has failed, so the flows of all pads have to be combined.
    has_failed_flows: bool,
    /// Script data from before the first pads.
    waiting: Vec<gst::Event>,
}

/// The pad of a track.
#[derive(Debug)]
struct TrackPad {
    pad: gst::Pad,
    /// Only in a bin that is STREAMS_AWARE: decodebin3 outside takes a stream for one of a
    /// collection, and ends with not-linked without one.
    stream: Option<gst::Stream>,
    has_segment: bool,
}

/// The tag that events come from: its buffer, and where its body starts in that.
#[derive(Debug, Clone, Copy)]
pub(super) struct TagBuffer<'a> {
    pub(super) buffer: &'a gst::Buffer,
    pub(super) offset: usize,
}

impl Default for SourcePads {
    fn default() -> Self {
        SourcePads {
            pads: Vec::new(),
            combiner: UniqueFlowCombiner::new(),
            group: gst::GroupId::next(),
            segment: None,
            upstream_is_time: false,
            no_more_pads: false,
            has_failed_flows: false,
            waiting: Vec::new(),
        }
    }
}

impl TrackPad {
    /// Pushes the segment, unless the pad has it already.
    fn push_segment(&mut self, segment: Option<&gst::Event>) {
        if !self.has_segment
            && let Some(segment) = segment
        {
            self.has_segment = true;
            self.pad.push_event(segment.clone());
        }
    }
}

impl SourcePads {
    pub(super) fn set_group(&mut self, group: gst::GroupId) {
        self.group = group;
    }

    /// Takes upstream's segment, unless it is in bytes.
    pub(super) fn set_segment(&mut self, event: &gst::Event, format: gst::Format) {
        self.upstream_is_time = format == gst::Format::Time;
        self.restart_segment(self.upstream_is_time.then(|| event.clone()));
    }

    pub(super) fn flush(&mut self) {
        self.combiner.reset();
        self.has_failed_flows = false;
        self.restart_segment(None);
    }

    fn restart_segment(&mut self, segment: Option<gst::Event>) {
        self.segment = segment;
        for pad in self.pads.iter_mut().flatten() {
            pad.has_segment = false;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &gst::Pad> {
        self.pads.iter().flatten().map(|pad| &pad.pad)
    }

    /// Does what an event asks for. `tag` is the tag that it comes from.
    pub(super) fn handle(
        &mut self,
        element: &EFlvDemux,
        event: DemuxEvent,
        tag: Option<TagBuffer<'_>>,
    ) -> Flow {
        match event {
            DemuxEvent::Packet(packet) => return self.push_packet(element, packet, tag),
            DemuxEvent::Gap(index, gap) => {
                if let Some(Some(pad)) = self.pads.get_mut(index) {
                    pad.push_segment(self.segment.as_ref());
                    let event = gst::event::Gap::builder(gap.start).duration(gap.end - gap.start);
                    pad.pad.push_event(event.build());
                }
            }
            DemuxEvent::Script(data) => self.push_script(element, &data),
            DemuxEvent::Segment(start) => self.segment = Some(own_segment(start)),
            DemuxEvent::NewTracks(tracks) => self.add(element, tracks),
            DemuxEvent::Caps(index, caps) => {
                if let Some(Some(TrackPad { pad, stream, .. })) = self.pads.get(index) {
                    gst::info!(CAT, obj = pad, "New caps: {caps}");
                    if let Some(stream) = stream {
                        stream.set_caps(Some(&caps));
                    }
                    pad.push_event(gst::event::Caps::new(&caps));
                }
            }
            DemuxEvent::Tags(index, lists) => {
                if let Some(Some(pad)) = self.pads.get(index) {
                    push_tags(&pad.pad, lists);
                }
            }
            DemuxEvent::Duration(duration) => element.imp().set_duration(duration),
            DemuxEvent::NoMoreTracks => {
                self.no_more_pads = true;
                element.no_more_pads();
            }
            DemuxEvent::Problem(problem, detail) => element.imp().skip(problem, 1, || detail),
        }
        Ok(())
    }

    fn push_packet(
        &mut self,
        element: &EFlvDemux,
        packet: TrackPacket,
        tag: Option<TagBuffer<'_>>,
    ) -> Flow {
        let (Some(tag), Some(Some(pad))) = (tag, self.pads.get_mut(packet.index)) else {
            return Ok(());
        };
        pad.push_segment(self.segment.as_ref());
        let mut buffer = match packet.payload {
            Payload::Part(part) => {
                let parts = gst::BufferCopyFlags::MEMORY | gst::BufferCopyFlags::META;
                let range = tag.offset + part.start..tag.offset + part.end;
                let copied = tag.buffer.copy_region(parts, range);
                copied.map_err(|_| gst::FlowError::Error)?
            }
            Payload::Repaired(frame) => {
                let mut buffer = gst::Buffer::from_slice(frame);
                if let Some(buffer) = buffer.get_mut() {
                    let _ = tag.buffer.copy_into(buffer, gst::BufferCopyFlags::META, ..);
                }
                buffer
            }
        };
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_dts(packet.dts);
            buffer.set_pts(packet.pts);
            buffer.set_flags(packet.flags);
        }
        element.imp().count_buffer(packet.kind, packet.dts);
        let flow = pad.pad.push(buffer);
        if flow.is_ok() && !self.has_failed_flows {
            return Ok(());
        }
        self.has_failed_flows = true;
        if flow == Err(gst::FlowError::NotLinked) {
            let links = &element.imp().links;
            let element = element.upcast_ref();
            links.dropped(element, Some(packet.dts), || unlinked::pads_text(element));
        }
        match self.combiner.update_pad_flow(&pad.pad, flow) {
            Ok(_) => Ok(()),
            // A linked track may still come, and a live stream goes on until it does.
            Err(gst::FlowError::NotLinked) if self.upstream_is_time || !self.no_more_pads => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, element: &EFlvDemux, tracks: Vec<NewTrack>) {
        for track in &tracks {
            let name = match track.kind {
                TagKind::Video => format!("video_{}", track.id),
                _ => format!("audio_{}", track.id),
            };
            let pad = element.imp().new_pad(track.kind, &name);
            element.imp().links.watch(&pad);
            let id = pad.create_stream_id(element, Some(&name));
            let kind = match track.kind {
                TagKind::Video => gst::StreamType::VIDEO,
                _ => gst::StreamType::AUDIO,
            };
            let flags = if track.id == 0 {
                gst::StreamFlags::SELECT
            } else {
                gst::StreamFlags::empty()
            };
            let stream = element
                .imp()
                .is_streams_aware()
                .then(|| gst::Stream::new(Some(id.as_str()), Some(&track.caps), kind, flags));
            let _ = pad.set_active(true);
            let event = gst::event::StreamStart::builder(&id)
                .group_id(self.group)
                .stream_if_some(stream.clone())
                .build();
            pad.push_event(event);
            if self.pads.len() <= track.index {
                self.pads.resize_with(track.index + 1, || None);
            }
            self.pads[track.index] = Some(TrackPad {
                pad,
                stream,
                has_segment: false,
            });
        }
        if element.imp().is_streams_aware() {
            self.announce_collection(element);
        }
        for track in tracks {
            let segment = self.segment.as_ref();
            let Some(Some(track_pad)) = self.pads.get_mut(track.index) else {
                continue;
            };
            let pad = track_pad.pad.clone();
            gst::info!(CAT, obj = pad, "Caps: {}", track.caps);
            pad.push_event(gst::event::Caps::new(&track.caps));
            track_pad.push_segment(segment);
            push_tags(&pad, track.tags);
            element.imp().push_upstream_sticky_events(&pad);
            self.combiner.add_pad(&pad);
            if let Err(error) = element.add_pad(&pad) {
                gst::error!(CAT, obj = element, "{error}");
            }
        }
        for event in std::mem::take(&mut self.waiting) {
            self.push_to_all(&event);
        }
        if self.upstream_is_time {
            element.imp().update_latency();
        }
    }

    /// Pushes script data to all pads, and posts it.
    fn push_script(&mut self, element: &EFlvDemux, data: &ScriptData) {
        let segment = self.segment.as_ref().and_then(running_segment);
        let running_time = segment.and_then(|segment| segment.to_running_time(data.time));
        let structure = data.to_structure(running_time);
        let message = gst::message::Element::builder(structure.clone()).src(element);
        let _ = element.post_message(message.build());
        let event = gst::event::CustomDownstream::new(structure);
        if self.iter().next().is_some() {
            self.push_to_all(&event);
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push(event);
        } else {
            let name = &data.name;
            gst::warning!(
                CAT,
                obj = element,
                "{name:?} before any pad is only a message"
            );
        }
    }

    fn push_to_all(&mut self, event: &gst::Event) {
        let segment = self.segment.as_ref();
        for pad in self.pads.iter_mut().flatten() {
            pad.push_segment(segment);
            pad.pad.push_event(event.clone());
        }
    }

    fn announce_collection(&self, element: &EFlvDemux) {
        let id = element.imp().upstream_stream_id();
        let streams = self
            .pads
            .iter()
            .flatten()
            .filter_map(|pad| pad.stream.clone());
        let collection = gst::StreamCollection::builder(id.as_deref())
            .streams(streams)
            .build();
        for pad in self.iter() {
            pad.push_event(gst::event::StreamCollection::new(&collection));
        }
        let message = gst::message::StreamCollection::builder(&collection)
            .src(element)
            .build();
        let _ = element.post_message(message);
    }
}

fn push_tags(pad: &gst::Pad, lists: Vec<gst::TagList>) {
    for list in lists {
        pad.push_event(gst::event::Tag::new(list));
    }
}

fn running_segment(event: &gst::Event) -> Option<gst::FormattedSegment<gst::ClockTime>> {
    match event.view() {
        gst::EventView::Segment(event) => event.segment().downcast_ref::<gst::ClockTime>().cloned(),
        _ => None,
    }
}

fn own_segment(start: gst::ClockTime) -> gst::Event {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(start);
    segment.set_time(start);
    segment.set_position(start);
    gst::event::Segment::new(&segment)
}
