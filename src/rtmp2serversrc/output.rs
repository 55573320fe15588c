// SPDX-License-Identifier: MPL-2.0

//! Output of the feed's tags: as buffers, with the caps and segments before them.

use gst::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;

use super::buffers;
use super::context::Context;
use super::mark::Mark;
use super::reporter::StreamReporter;
use super::spare_buffers::{SpareBuffers, Supply};
use super::state::StateInput;
use crate::feed::{Feed, FeedOutput};
use crate::flv::TagKind;
use crate::flv::description::StreamDescription;

#[derive(Debug, Default)]
pub(super) struct TagOutput {
    /// The segment and the file header have left.
    has_begun: bool,
    /// Output that could not leave, since the element was flushing.
    held: Option<CreateSuccess>,
    /// Tags of the last output.
    last_tags: u64,
    /// Tags before the next one were lost.
    is_discont: bool,
    /// Caps that could not be set, since the element was flushing.
    unset_caps: Option<gst::Caps>,
    /// Audio has been added to the description since the last stream header.
    is_audio_described: bool,
    /// The media that leaves now has a frame to start decoding with.
    starts_decoding: bool,
    spare_buffers: SpareBuffers,
    supply: Supply,
}

impl TagOutput {
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Notes that an output of create() is about to leave.
    pub(super) fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Returns the number of tags in the last output.
    pub(super) fn last_tags(&self) -> u64 {
        self.last_tags
    }

    /// Returns true once after media has left that decoding can start with.
    pub(super) fn take_starts_decoding(&mut self) -> bool {
        std::mem::take(&mut self.starts_decoding)
    }

    /// Keeps an output for the next call.
    pub(super) fn hold(&mut self, output: CreateSuccess) {
        self.held = Some(output);
    }

    pub(super) fn take_held(&mut self) -> Option<CreateSuccess> {
        self.held.take()
    }

    /// Drops the output that is kept, and returns its number of tags.
    pub(super) fn drop_held(&mut self) -> u64 {
        match self.held.take() {
            Some(_) => std::mem::take(&mut self.last_tags),
            None => 0,
        }
    }

    /// Notes that the last output was lost, and returns its number of tags.
    pub(super) fn lose_last(&mut self) -> u64 {
        self.starts_decoding = false;
        self.is_discont = true;
        std::mem::take(&mut self.last_tags)
    }

    /// Returns the next output that is ready. Caps, segments and changes of state are handled first,
    /// then buffers up to the next of those leave together.
    pub(super) fn next_ready(
        &mut self,
        context: Context<'_>,
        feed: &mut Feed<Mark>,
        reporter: &mut StreamReporter,
    ) -> Result<Option<CreateSuccess>, gst::FlowError> {
        if let Some(caps) = self.unset_caps.take() {
            self.set_caps(context, caps)?;
        }
        loop {
            let count = feed.tags_ahead();
            if count == 0 {
                match feed.pop() {
                    Some(output) => self.handle_output(context, output, feed, reporter)?,
                    None => return Ok(None),
                }
                continue;
            }
            self.push_status(context, reporter);
            // One buffer at a time where the base class counts them. The first one is the file
            // header: the status follows right after it, when there is a segment.
            let is_single = !self.has_begun || context.is_counted;
            return Ok(self.next_tags(context, feed, reporter, is_single));
        }
    }

    /// Pushes the status downstream, once there is a segment for the event to follow.
    pub(super) fn push_status(&self, context: Context<'_>, reporter: &mut StreamReporter) {
        if self.has_begun {
            reporter.push_status(context);
        }
    }

    /// Pushes the tags at the front of the feed's output, and returns their number.
    pub(super) fn push_tags(
        &mut self,
        context: Context<'_>,
        feed: &mut Feed<Mark>,
        reporter: &StreamReporter,
    ) -> Result<u64, gst::FlowError> {
        let pad = context.element.src_pad();
        let mut tags = 0;
        while let Some(output) = self.next_tags(context, feed, reporter, false) {
            match output {
                CreateSuccess::NewBuffer(buffer) => pad.push(buffer)?,
                CreateSuccess::NewBufferList(list) => pad.push_list(list)?,
                CreateSuccess::FilledBuffer => gst::FlowSuccess::Ok,
            };
            tags += self.last_tags;
        }
        Ok(tags)
    }

    /// Returns the next tags, up to anything else in the feed's output.
    fn next_tags(
        &mut self,
        context: Context<'_>,
        feed: &mut Feed<Mark>,
        reporter: &StreamReporter,
        is_single: bool,
    ) -> Option<CreateSuccess> {
        let ahead = feed.tags_ahead();
        let count = if is_single { ahead.min(1) } else { ahead };
        self.last_tags = count as u64;
        if count == 0 {
            return None;
        }
        self.spare_buffers.supply(count, &mut self.supply);
        if count == 1 {
            let buffer = self.next_buffer(context, feed, reporter);
            return buffer.map(CreateSuccess::NewBuffer);
        }
        let mut list = gst::BufferList::new_sized(count);
        let is_active = context.state.is_active();
        if let Some(list) = list.get_mut() {
            let buffers = std::iter::from_fn(|| {
                // The status follows right after the first frame.
                let is_last = self.starts_decoding && !is_active;
                (!is_last).then(|| self.next_buffer(context, feed, reporter))?
            });
            buffers.take(count).for_each(|buffer| list.add(buffer));
            self.last_tags = list.len() as u64;
        }
        Some(CreateSuccess::NewBufferList(list))
    }

    fn next_buffer(
        &mut self,
        context: Context<'_>,
        feed: &mut Feed<Mark>,
        reporter: &StreamReporter,
    ) -> Option<gst::Buffer> {
        let mut tag = feed.pop_tag()?;
        tag.is_discont |= std::mem::take(&mut self.is_discont);
        if tag.starts_decoding {
            self.starts_decoding = true;
            self.describe(context, &tag.bytes);
        }
        context.state.set_position(tag.dts);
        let epoch = reporter.epoch();
        let buffer = buffers::buffer(tag, epoch, &self.spare_buffers, &mut self.supply);
        Some(buffer)
    }

    /// Adds a track that has no header of its own to the description. Where there is audio alone, it
    /// all starts decoding, and one tag is enough.
    fn describe(&mut self, context: Context<'_>, tag: &[u8]) {
        let is_audio = tag.first() == Some(&(TagKind::Audio as u8));
        if is_audio && self.is_audio_described {
            return;
        }
        let mut description = context.state.description();
        description.add_tag(tag);
        self.is_audio_described = !description.audio.is_empty();
    }

    fn handle_output(
        &mut self,
        context: Context<'_>,
        output: FeedOutput<Mark>,
        feed: &Feed<Mark>,
        reporter: &mut StreamReporter,
    ) -> Result<(), gst::FlowError> {
        match output {
            FeedOutput::Headers(headers) => {
                self.is_audio_described = false;
                // The headers of standby describe no publisher.
                if !feed.is_standby_playing() {
                    let tags = headers.iter().map(|header| &header[..]);
                    *context.state.description() = StreamDescription::of_tags(tags);
                }
                let is_enhanced = feed.is_enhanced();
                let caps = buffers::caps_with_stream_header(headers, is_enhanced);
                self.set_caps(context, caps)?;
            }
            FeedOutput::Segment { start, base } => {
                let segment = buffers::segment(start, base);
                let set = context.element.new_segment(segment.upcast_ref());
                set.map_err(|_| gst::FlowError::Error)?;
            }
            FeedOutput::Reconfigured => reporter.apply(context, StateInput::Reconfigured),
            FeedOutput::Mark(mark) => reporter.handle_mark(context, mark),
            FeedOutput::Standby(change) => reporter.handle_standby(context, change),
            FeedOutput::Event(event) => reporter.post_feed_event(context, event, feed.dropped()),
            FeedOutput::Tag(_) => {}
        }
        Ok(())
    }

    fn set_caps(&mut self, context: Context<'_>, caps: gst::Caps) -> Result<(), gst::FlowError> {
        if context.element.set_caps(&caps).is_ok() {
            return Ok(());
        }
        if context
            .element
            .src_pad()
            .pad_flags()
            .contains(gst::PadFlags::FLUSHING)
        {
            self.unset_caps = Some(caps);
            return Err(gst::FlowError::Flushing);
        }
        Err(gst::FlowError::NotNegotiated)
    }
}
