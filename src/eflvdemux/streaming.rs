// SPDX-License-Identifier: MPL-2.0

//! The sink pad: buffers and events from upstream, or bytes pulled from a file.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use super::demuxer::{DemuxEvent, Demuxer};
use super::imp::EFlvDemux;
use super::pads::{SourcePads, TagBuffer};
use super::parser::{FlvParser, FlvTag, Parsed};

use super::problem::Problem;

/// Bytes pulled from a file at a time. Tags that lie across two pieces are put together, so it is
/// larger than most tags.
const PIECE: u32 = 256 * 1024;

type Flow = Result<(), gst::FlowError>;

/// The way from bytes to pads.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    parser: FlvParser,
    demuxer: Demuxer,
    pads: SourcePads,
    /// Empty between tags. Kept for its capacity.
    events: Vec<DemuxEvent>,
    /// Offset of the next bytes to pull.
    offset: u64,
}

impl Streaming {
    fn push(&mut self, element: &EFlvDemux, buffer: gst::Buffer) -> Flow {
        self.demuxer.set_latency(element.latency());
        let (parser, mut handler) = self.split(element);
        parser.push(buffer, |parsed| handler.handle(&parsed))
    }

    fn handle_discontinuity(&mut self, element: &EFlvDemux) -> Flow {
        let (parser, mut handler) = self.split(element);
        parser.handle_discontinuity(|parsed| handler.handle(&parsed))?;
        self.demuxer.handle_discontinuity();
        Ok(())
    }

    /// Handles the end of the bytes.
    fn finish(&mut self, element: &EFlvDemux) {
        let (parser, mut handler) = self.split(element);
        let _ = parser.finish(|parsed| handler.handle(&parsed));
        self.demuxer.finish(&mut self.events);
        self.handle_events(element);
    }

    fn handle_gap(&mut self, element: &EFlvDemux, gap: &Range<gst::ClockTime>) {
        self.demuxer.handle_gap(gap, &mut self.events);
        self.handle_events(element);
    }

    /// Handles the field `streamheader` of upstream's caps.
    fn handle_stream_header(&mut self, element: &EFlvDemux, headers: &gst::Array) {
        let buffers = headers
            .iter()
            .filter_map(|value| value.get::<gst::Buffer>().ok());
        let mut parser = FlvParser::default();
        let mut tags = Vec::new();
        let mut collect = |parsed: Parsed<'_>| -> Flow {
            if let Parsed::Tag { tag, .. } = parsed {
                tags.push((tag.kind, tag.timestamp, tag.body.to_vec()));
            }
            Ok(())
        };
        for buffer in buffers {
            let _ = parser.push(buffer, &mut collect);
        }
        let _ = parser.finish(&mut collect);
        let tags: Vec<_> = tags
            .iter()
            .map(|(kind, timestamp, body)| FlvTag {
                kind: *kind,
                timestamp: *timestamp,
                body,
                dts: None,
            })
            .collect();
        self.demuxer.handle_stream_header(&tags, &mut self.events);
        self.handle_events(element);
    }

    /// Handles events that no tag has caused.
    fn handle_events(&mut self, element: &EFlvDemux) {
        for event in self.events.drain(..) {
            let _ = self.pads.handle(element, event, None);
        }
    }

    fn split<'a>(&'a mut self, element: &'a EFlvDemux) -> (&'a mut FlvParser, ParsedHandler<'a>) {
        let handler = ParsedHandler {
            element,
            demuxer: &mut self.demuxer,
            pads: &mut self.pads,
            events: &mut self.events,
        };
        (&mut self.parser, handler)
    }
}

/// The way from parsed tags to pads.
struct ParsedHandler<'a> {
    element: &'a EFlvDemux,
    demuxer: &'a mut Demuxer,
    pads: &'a mut SourcePads,
    events: &'a mut Vec<DemuxEvent>,
}

impl ParsedHandler<'_> {
    fn handle(&mut self, parsed: &Parsed<'_>) -> Flow {
        let element = self.element;
        let mut source = None;
        match parsed {
            Parsed::Tag {
                tag,
                buffer,
                offset,
            } => {
                element.counters.tags.fetch_add(1, Relaxed);
                self.demuxer.handle_tag(tag, self.events);
                source = Some(TagBuffer {
                    buffer,
                    offset: *offset,
                });
            }
            Parsed::FileHeader => self.demuxer.start_file(self.events),
            Parsed::UnknownTag(code) => {
                element.skip(Problem::UnknownTag, 1, || format!("Tag type {code}"));
            }
            Parsed::Lost(count) => {
                self.demuxer.handle_discontinuity();
                let lost = *count as u64;
                element.skip(Problem::LostBytes, lost, || format!("{count} bytes"));
            }
            Parsed::CutShort => {
                element.skip(Problem::CutShort, 1, || "End of stream".to_owned());
            }
        }
        // Most tags have one event, and that is cheaper without a drain.
        if self.events.len() == 1
            && let Some(event) = self.events.pop()
        {
            return self.pads.handle(element, event, source);
        }
        let mut events = self.events.drain(..);
        events.try_for_each(|event| self.pads.handle(element, event, source))
    }
}

// The sink pad
impl EFlvDemux {
    pub(super) fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.counters.bytes.fetch_add(buffer.size() as u64, Relaxed);
        let mut streaming = self.streaming.lock();
        if buffer.flags().contains(gst::BufferFlags::DISCONT) {
            streaming.handle_discontinuity(self)?;
        }
        streaming.push(self, buffer)?;
        Ok(gst::FlowSuccess::Ok)
    }

    pub(super) fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                if let Some(group) = start.group_id() {
                    self.streaming.lock().pads.set_group(group);
                }
                true
            }
            // The tracks have their own caps, streams and tags.
            gst::EventView::Caps(caps) => {
                let header = caps.caps().structure(0);
                if let Some(headers) = header.and_then(|s| s.get("streamheader").ok()) {
                    self.streaming.lock().handle_stream_header(self, &headers);
                }
                true
            }
            gst::EventView::StreamCollection(_) | gst::EventView::Tag(_) => true,
            gst::EventView::Segment(segment) => {
                let mut streaming = self.streaming.lock();
                let format = segment.segment().format();
                let is_time = format == gst::Format::Time;
                streaming.demuxer.start_segment(is_time);
                streaming.pads.set_segment(&event, format);
                self.upstream_is_time.store(is_time, Relaxed);
                true
            }
            gst::EventView::Gap(gap) => {
                let (start, duration) = gap.get();
                if self.upstream_is_time.load(Relaxed) {
                    let gap = start..start.saturating_add(duration.unwrap_or_default());
                    self.streaming.lock().handle_gap(self, &gap);
                }
                true
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut streaming = self.streaming.lock();
                    streaming.parser.flush();
                    streaming.demuxer.flush();
                    streaming.pads.flush();
                }
                gst::Pad::event_default(pad, Some(&*self.obj()), event)
            }
            gst::EventView::Eos(_) => {
                self.finish(&mut self.streaming.lock(), true);
                gst::Pad::event_default(pad, Some(&*self.obj()), event)
            }
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    /// Handles the end of the stream. `is_end`: no error has ended it.
    fn finish(&self, streaming: &mut Streaming, is_end: bool) {
        streaming.finish(self);
        if is_end && streaming.pads.iter().next().is_none() {
            self.post_no_track();
        }
    }

    /// Posts an error, as other demuxers do: without a pad the end of the stream can't go
    /// downstream, and nothing can follow that would end the pipeline.
    fn post_no_track(&self) {
        let detail = "The stream has ended, and there was no track in it";
        gst::element_imp_error!(self, gst::StreamError::Demux, ["{detail}"]);
    }

    pub(super) fn remove_pads(&self) {
        let streaming = std::mem::take(&mut *self.streaming.lock());
        for pad in streaming.pads.iter() {
            let _ = pad.set_active(false);
            let _ = self.obj().remove_pad(pad);
        }
        self.upstream_is_time.store(false, Relaxed);
    }
}

// Files: the element pulls the bytes, in larger pieces than a source would push by itself
impl EFlvDemux {
    pub(super) fn activate(&self, pad: &gst::Pad) -> Result<(), gst::LoggableError> {
        let mut query = gst::query::Scheduling::new();
        let can_pull = pad.peer_query(&mut query)
            && query
                .has_scheduling_mode_with_flags(gst::PadMode::Pull, gst::SchedulingFlags::SEEKABLE);
        let mode = if can_pull {
            gst::PadMode::Pull
        } else {
            gst::PadMode::Push
        };
        pad.activate_mode(mode, true)?;
        Ok(())
    }

    pub(super) fn activate_mode(
        &self,
        pad: &gst::Pad,
        mode: gst::PadMode,
        is_active: bool,
    ) -> Result<(), gst::LoggableError> {
        match (mode, is_active) {
            (gst::PadMode::Pull, true) => {
                let element = self.obj().downgrade();
                pad.start_task(move || {
                    if let Some(element) = element.upgrade() {
                        element.imp().catch_panic(|| (), |element| element.pull());
                    }
                })?;
            }
            (gst::PadMode::Pull, false) => pad.stop_task()?,
            _ => {}
        }
        Ok(())
    }

    /// One turn of the task: handles the next bytes, or the end of the stream.
    fn pull(&self) {
        let offset = self.streaming.lock().offset;
        let flow = self.sink_pad.pull_range(offset, PIECE).and_then(|buffer| {
            self.streaming.lock().offset += buffer.size() as u64;
            self.chain(buffer)
        });
        let Err(error) = flow else {
            return;
        };
        gst::debug!(CAT, imp = self, "Stopping: {error}");
        let _ = self.sink_pad.pause_task();
        if error == gst::FlowError::Flushing {
            return;
        }
        if error != gst::FlowError::Eos {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ["Streaming stopped: {error}"]
            );
        }
        let mut streaming = self.streaming.lock();
        self.finish(&mut streaming, error == gst::FlowError::Eos);
        for pad in streaming.pads.iter() {
            pad.push_event(gst::event::Eos::new());
        }
    }
}
