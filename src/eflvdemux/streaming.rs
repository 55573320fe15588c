// SPDX-License-Identifier: MPL-2.0

//! The way from bytes to pads.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use gst::subclass::prelude::*;

use super::EFlvDemux;
use super::demuxer::{DemuxEvent, Demuxer};
use super::pads::{SourcePads, TagBuffer};
use super::parser::{FlvParser, FlvTag, Parsed};
use super::problem::Problem;

type Flow = Result<(), gst::FlowError>;

/// The way from bytes to pads.
#[derive(Debug, Default)]
pub(super) struct Streaming {
    pub(super) parser: FlvParser,
    pub(super) demuxer: Demuxer,
    pub(super) pads: SourcePads,
    /// Empty between tags. Kept for its capacity.
    events: Vec<DemuxEvent>,
    /// Offset of the next bytes to pull.
    pub(super) offset: u64,
}

impl Streaming {
    pub(super) fn push(&mut self, element: &EFlvDemux, buffer: gst::Buffer) -> Flow {
        self.demuxer.set_latency(element.imp().latency());
        let (parser, mut handler) = self.split(element);
        parser.push(buffer, |parsed| handler.handle(&parsed))
    }

    pub(super) fn handle_discontinuity(&mut self, element: &EFlvDemux) -> Flow {
        let (parser, mut handler) = self.split(element);
        parser.handle_discontinuity(|parsed| handler.handle(&parsed))?;
        self.demuxer.handle_discontinuity();
        Ok(())
    }

    /// Handles the end of the bytes.
    pub(super) fn finish(&mut self, element: &EFlvDemux) {
        let (parser, mut handler) = self.split(element);
        let _ = parser.finish(|parsed| handler.handle(&parsed));
        self.demuxer.finish(&mut self.events);
        self.handle_events(element);
    }

    pub(super) fn handle_gap(&mut self, element: &EFlvDemux, gap: &Range<gst::ClockTime>) {
        self.demuxer.handle_gap(gap, &mut self.events);
        self.handle_events(element);
    }

    /// Handles the field `streamheader` of upstream's caps.
    pub(super) fn handle_stream_header(&mut self, element: &EFlvDemux, headers: &gst::Array) {
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
                element.imp().counters.tags.fetch_add(1, Relaxed);
                self.demuxer.handle_tag(tag, self.events);
                source = Some(TagBuffer {
                    buffer,
                    offset: *offset,
                });
            }
            Parsed::FileHeader => self.demuxer.start_file(self.events),
            Parsed::UnknownTag(code) => {
                element
                    .imp()
                    .skip(Problem::UnknownTag, 1, || format!("Tag type {code}"));
            }
            Parsed::Lost(count) => {
                self.demuxer.handle_discontinuity();
                let lost = *count as u64;
                element
                    .imp()
                    .skip(Problem::LostBytes, lost, || format!("{count} bytes"));
            }
            Parsed::CutShort => {
                element
                    .imp()
                    .skip(Problem::CutShort, 1, || "End of stream".to_owned());
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
