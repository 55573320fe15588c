// SPDX-License-Identifier: MPL-2.0

//! The sink pad: buffers and events from upstream, or bytes pulled from a file.

use std::sync::atomic::Ordering::Relaxed;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use super::demuxer::{DemuxEvent, Demuxer};
use super::imp::EFlvDemux;
use super::pads::{SourcePads, TagBuffer};
use super::parser::{FlvParser, Parsed};
use super::problem::Problem;

/// Bytes pulled from a file at a time. Tags that lie across two pieces are put together, so it is
/// larger than most tags.
const PIECE: u32 = 256 * 1024;

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
    fn push(&mut self, element: &EFlvDemux, buffer: gst::Buffer) -> Result<(), gst::FlowError> {
        let Streaming {
            parser,
            demuxer,
            pads,
            events,
            ..
        } = self;
        parser.push(buffer, |parsed| match parsed {
            Parsed::Tag {
                tag,
                buffer,
                offset,
            } => {
                element.counters.tags.fetch_add(1, Relaxed);
                demuxer.handle_tag(&tag, events);
                let tag = TagBuffer { buffer, offset };
                let mut events = events.drain(..);
                events.try_for_each(|event| pads.handle(element, event, Some(tag)))
            }
            Parsed::UnknownTag(code) => {
                element.skip(Problem::UnknownTag, 1, &format!("Tag type {code}"));
                Ok(())
            }
            Parsed::Lost(count) => {
                demuxer.handle_discontinuity();
                let detail = format!("{count} bytes");
                element.skip(Problem::LostBytes, count as u64, &detail);
                Ok(())
            }
        })
    }

    fn finish(&mut self, element: &EFlvDemux) {
        self.demuxer.finish(&mut self.events);
        for event in self.events.drain(..) {
            let _ = self.pads.handle(element, event, None);
        }
    }
}

// The sink pad
impl EFlvDemux {
    pub(super) fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.counters.bytes.fetch_add(buffer.size() as u64, Relaxed);
        let mut streaming = self.streaming.lock();
        if buffer.flags().contains(gst::BufferFlags::DISCONT) {
            streaming.parser.handle_discontinuity();
            streaming.demuxer.handle_discontinuity();
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
            // The tracks have their own.
            gst::EventView::Caps(_) | gst::EventView::StreamCollection(_) => true,
            gst::EventView::Tag(_) => true,
            gst::EventView::Segment(segment) => {
                let mut streaming = self.streaming.lock();
                let format = segment.segment().format();
                let is_time = format == gst::Format::Time;
                streaming.demuxer.start_segment(is_time);
                streaming.pads.set_segment(&event, format);
                self.upstream_is_time.store(is_time, Relaxed);
                true
            }
            gst::EventView::Gap(_) => {
                if self.upstream_is_time.load(Relaxed) {
                    self.streaming.lock().pads.push_gap(&event);
                }
                true
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut streaming = self.streaming.lock();
                    streaming.parser.handle_discontinuity();
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
        if streaming.parser.is_cut_short() {
            self.skip(Problem::CutShort, 1, "End of stream");
        }
        streaming.finish(self);
        if is_end && streaming.pads.iter().next().is_none() {
            self.post_no_track();
        }
    }

    /// Posts an error, as other demuxers do: without a pad the end of the stream can't go downstream,
    /// and nothing can follow that would end the pipeline.
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
