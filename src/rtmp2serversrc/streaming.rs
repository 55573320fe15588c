// SPDX-License-Identifier: MPL-2.0

//! What the streaming thread does: media, states and events out of the queue, in one order, into
//! the pipeline and onto the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;

use super::announcements::{self, about, about_with_reason, post_event, post_status, time};
use super::imp::{CAT, Rtmp2ServerSrc};
use super::state::{Input, Snapshot};
use super::{ConnectionState, StreamEvent, StreamStatus, buffers, keyframe};
use crate::feed::{Feed, FeedEvent, FeedOutput, FeedSettings, Reception};
use crate::server::{self, Dropped, Publisher, QueueItem, Stream};

/// While a publisher is awaited that was cut off, the pipeline is told this often that there is
/// nothing, so that what waits for this stream goes on.
const GAP_INTERVAL: Duration = Duration::from_millis(200);

/// The state of create().
#[derive(Debug)]
pub(super) struct Streaming {
    stream: Arc<Stream>,
    feed: Feed<Mark>,
    /// Taken out of the queue and not fed yet.
    items: VecDeque<QueueItem>,
    /// Made for a list that could not leave as one.
    buffers: VecDeque<gst::Buffer>,
    /// Of what leaves now.
    epoch: u64,
    /// The status that elements downstream do not know of yet.
    unsent_status: Option<Snapshot>,
    /// The file header, and the segment with it, has left.
    has_begun: bool,
    /// A frame to start decoding with is among what leaves now.
    starts_decoding: bool,
    /// Nobody publishes, and the one before may come back.
    lost_since: Option<Instant>,
    /// Somebody publishes.
    is_occupied: bool,
    /// How many tags the queue had dropped when that was told last.
    dropped: u64,
    ended: bool,
}

/// An event that stands between the tags of the feed.
#[derive(Debug)]
enum Mark {
    Started(Arc<Publisher>),
    Stalled { since_last_byte: Duration },
    Resumed,
    Lost,
    Dropped,
    Event(server::QueueEvent),
    Ended,
}

impl Streaming {
    pub(super) fn new(stream: Arc<Stream>, settings: FeedSettings) -> Self {
        let codecs = stream.access().codecs.clone();
        Streaming {
            stream,
            feed: Feed::new(settings).accepting(codecs),
            items: VecDeque::new(),
            buffers: VecDeque::new(),
            epoch: 0,
            unsent_status: None,
            has_begun: false,
            starts_decoding: false,
            lost_since: None,
            is_occupied: false,
            dropped: 0,
            ended: false,
        }
    }

    /// Waits for what is next. It has been pushed when this is called again.
    pub(super) fn next(&mut self, imp: &Rtmp2ServerSrc) -> Result<CreateSuccess, gst::FlowError> {
        if std::mem::take(&mut self.starts_decoding) {
            self.apply(imp, Input::FramePushed);
        }
        loop {
            if let Some(created) = self.ready(imp)? {
                self.has_begun = true;
                return Ok(created);
            }
            self.send_status(imp);
            if self.ended {
                gst::info!(CAT, imp = imp, "The publisher has left, sending EOS");
                return Err(gst::FlowError::Eos);
            }
            let is_waiting = self.has_begun && self.is_awaited();
            let deadline = is_waiting.then(|| Instant::now() + GAP_INTERVAL);
            let popped = self.stream.queue().pop(&mut self.items, deadline);
            popped.map_err(|_| gst::FlowError::Flushing)?;
            if self.items.is_empty() {
                self.send_gap(imp);
            } else {
                self.feed_items(imp);
            }
        }
    }

    /// Whether there should be media and is none: the publisher was cut off, or is back and has not
    /// sent anything that will leave. One that only fell silent may yet send what is due.
    fn is_awaited(&self) -> bool {
        self.lost_since.is_some() || (self.is_occupied && !self.feed.has_media())
    }

    /// Gives what came out of the queue to the feed.
    fn feed_items(&mut self, imp: &Rtmp2ServerSrc) {
        let now = Instant::now();
        let running_time = running_time(imp);
        let max_lateness = imp.max_lateness();
        self.feed.set_max_lateness(max_lateness);
        // What decoding could start with, and is about to be fed or waits behind that. It matters
        // only where backlogs are skipped.
        let is_start = match self.feed.has_video() {
            true => QueueItem::is_keyframe,
            false => QueueItem::is_media,
        };
        let mut starts = match max_lateness {
            0 => 0,
            _ => self.starts_that_wait(is_start),
        };
        // Tags of one read have one arrival.
        let mut last = (now, running_time);
        while let Some(item) = self.items.pop_front() {
            starts -= usize::from(starts > 0 && is_start(&item));
            match item {
                QueueItem::Tag {
                    tag,
                    arrival,
                    discont,
                } => {
                    if arrival != last.0 {
                        let age = now.saturating_duration_since(arrival).as_nanos() as u64;
                        last = (arrival, running_time.saturating_sub(age));
                    }
                    if discont {
                        self.feed.mark(Mark::Dropped);
                    }
                    let reception = Reception {
                        arrival: last.1,
                        discont,
                        now: running_time,
                        is_newest: starts == 0,
                    };
                    self.feed.push(tag, reception);
                }
                QueueItem::Start(publisher) => {
                    gst::info!(CAT, imp = imp, "Publisher is {}", publisher.address);
                    // Nothing else ends one that was replaced.
                    self.feed.end_publisher();
                    self.feed.mark(Mark::Started(publisher));
                    self.feed.start_publisher();
                }
                QueueItem::Stalled { last_read } => {
                    let since_last_byte = now.saturating_duration_since(last_read);
                    self.feed.mark(Mark::Stalled { since_last_byte });
                }
                QueueItem::Resumed => self.feed.mark(Mark::Resumed),
                QueueItem::Lost => {
                    self.feed.end_publisher();
                    self.feed.mark(Mark::Lost);
                }
                QueueItem::Event(event) => self.feed.mark(Mark::Event(event)),
                QueueItem::End { is_last } => {
                    self.feed.end_publisher();
                    self.feed.mark(Mark::Ended);
                    if is_last {
                        self.feed.finish();
                        self.ended = true;
                    } else {
                        gst::info!(CAT, imp = imp, "Waiting for the next publisher");
                    }
                }
            }
        }
        let dropped = self.feed.dropped();
        self.stream.set_left_out(Dropped {
            before_keyframe: dropped.before_keyframe,
            descriptions: dropped.descriptions,
            late: dropped.late,
            codec_refused: dropped.codec_refused,
            ..Dropped::default()
        });
        imp.set_repairs(self.feed.repairs());
    }

    /// The stream was ended from downstream, and media that is left goes nowhere. What happened to its
    /// publishers meanwhile is told.
    pub(super) fn tell_rest(mut self, imp: &Rtmp2ServerSrc) {
        self.items.extend(self.stream.queue().take_rest());
        while let Some(output) = self.feed.pop() {
            if let FeedOutput::Mark(mark) = output {
                self.pass_mark(imp, mark);
            }
        }
        for item in std::mem::take(&mut self.items) {
            match item {
                QueueItem::Start(publisher) => self.pass_mark(imp, Mark::Started(publisher)),
                QueueItem::Lost => self.pass_mark(imp, Mark::Lost),
                QueueItem::Event(event) => self.pass_mark(imp, Mark::Event(event)),
                QueueItem::End { .. } => self.pass_mark(imp, Mark::Ended),
                QueueItem::Tag { .. } | QueueItem::Stalled { .. } | QueueItem::Resumed => {}
            }
        }
    }

    fn starts_that_wait(&self, is_start: fn(&QueueItem) -> bool) -> usize {
        let here = self.items.iter().filter(|item| is_start(item)).count();
        here + self.stream.queue().count(is_start)
    }

    /// What can leave in one go: caps, segments and changes of state first, then buffers up to the
    /// next of those.
    fn ready(&mut self, imp: &Rtmp2ServerSrc) -> Result<Option<CreateSuccess>, gst::FlowError> {
        while self.buffers.is_empty() {
            let count = self.feed.tags_ahead();
            if count == 0 {
                match self.feed.pop() {
                    Some(output) => self.pass(imp, output)?,
                    None => return Ok(None),
                }
                continue;
            }
            self.send_status(imp);
            // One buffer at a time where the base class counts them. The first one is the file
            // header: the state is told right behind it, when there is a segment.
            let single = !self.has_begun || imp.obj().property::<i32>("num-buffers") >= 0;
            if count == 1 || single {
                let buffer = self.next_buffer();
                return Ok(buffer.map(CreateSuccess::NewBuffer));
            }
            let mut list = gst::BufferList::new_sized(count);
            if let Some(list) = list.get_mut() {
                let buffers = (0..count).map_while(|_| self.next_buffer());
                buffers.for_each(|buffer| list.add(buffer));
            }
            // The base class may have to drop what is created while the element stops, and in
            // GStreamer 1.22 does not expect a list then.
            if imp.is_paused() {
                self.buffers.extend(list.iter_owned());
                break;
            }
            return Ok(Some(CreateSuccess::NewBufferList(list)));
        }
        let buffer = self.buffers.pop_front();
        Ok(buffer.map(CreateSuccess::NewBuffer))
    }

    fn next_buffer(&mut self) -> Option<gst::Buffer> {
        match self.feed.pop()? {
            FeedOutput::Tag(tag) => {
                self.starts_decoding |= tag.starts_decoding;
                Some(buffers::buffer(tag, self.epoch))
            }
            _ => None,
        }
    }

    fn pass(
        &mut self,
        imp: &Rtmp2ServerSrc,
        output: FeedOutput<Mark>,
    ) -> Result<(), gst::FlowError> {
        let element = imp.obj();
        match output {
            FeedOutput::Headers(headers) => {
                let caps = buffers::caps_with_stream_header(headers);
                let set = element.set_caps(&caps);
                set.map_err(|_| gst::FlowError::NotNegotiated)?;
            }
            FeedOutput::Segment { start, base } => {
                let segment = buffers::segment(start, base);
                let set = element.new_segment(segment.upcast_ref());
                set.map_err(|_| gst::FlowError::Error)?;
            }
            FeedOutput::Reconfigured => self.apply(imp, Input::Reconfigured),
            FeedOutput::Mark(mark) => self.pass_mark(imp, mark),
            FeedOutput::Event(notice) => self.pass_notice(imp, notice),
            FeedOutput::Tag(_) => {}
        }
        Ok(())
    }

    fn pass_notice(&mut self, imp: &Rtmp2ServerSrc, notice: FeedEvent) {
        let (event, details) = match notice {
            FeedEvent::Jump(jump) => (StreamEvent::TimestampJump, announcements::about_jump(&jump)),
            FeedEvent::Imbalance(imbalance) => (
                StreamEvent::Imbalance,
                announcements::about_imbalance(&imbalance),
            ),
            FeedEvent::TrackRefused(refusal) => {
                let (kind, track) = (refusal.kind, refusal.track);
                let codec = refusal.codec;
                gst::info!(CAT, imp = imp, "{kind:?} {track} is refused: {codec}");
                (
                    StreamEvent::CodecRefused,
                    announcements::about_refusal(&refusal),
                )
            }
            FeedEvent::BacklogSkipped(tags) => (
                StreamEvent::Dropped,
                announcements::about_dropped(tags, "late"),
            ),
        };
        post_event(&imp.obj(), event, imp.state().epoch, details);
    }

    fn pass_mark(&mut self, imp: &Rtmp2ServerSrc, mark: Mark) {
        let event = |event, details| post_event(&imp.obj(), event, imp.state().epoch, details);
        match mark {
            Mark::Started(publisher) => {
                self.is_occupied = true;
                let downtime = self.lost_since.take().map(|since| since.elapsed());
                self.apply(imp, Input::Started(publisher.clone()));
                event(StreamEvent::PublisherConnected, about(&publisher));
                if let Some(downtime) = downtime {
                    event(StreamEvent::Resumed, time("downtime", downtime));
                }
            }
            Mark::Stalled { since_last_byte } => {
                let details = time("since-last-byte", since_last_byte);
                event(StreamEvent::Stalled, details);
                self.apply(imp, Input::Stalled);
            }
            Mark::Resumed => {
                self.apply(imp, Input::Resumed);
                event(StreamEvent::Resumed, announcements::nothing());
            }
            Mark::Lost => {
                self.is_occupied = false;
                self.lost_since = Some(Instant::now());
                self.apply(imp, Input::Lost);
            }
            Mark::Dropped => {
                let dropped = self.stream.queue().levels().dropped;
                let count = dropped - std::mem::replace(&mut self.dropped, dropped);
                let details = announcements::about_dropped(count, "queue-full");
                event(StreamEvent::Dropped, details);
            }
            Mark::Ended => {
                self.is_occupied = false;
                let was_lost = self.lost_since.take().is_some();
                self.apply(imp, Input::Ended);
                if was_lost && let Some(publisher) = &imp.state().publisher {
                    let details = about_with_reason(publisher, "not-resumed");
                    event(StreamEvent::PublisherGone, details);
                }
            }
            Mark::Event(server::QueueEvent::Asked(_)) => self.apply(imp, Input::Asked),
            Mark::Event(server::QueueEvent::Withdrawn) => self.apply(imp, Input::Withdrawn),
            Mark::Event(server::QueueEvent::Rejected(publisher, refusal)) => {
                self.apply(imp, Input::Withdrawn);
                let details = about_with_reason(&publisher, refusal.nick());
                event(StreamEvent::PublisherRejected, details);
            }
            Mark::Event(server::QueueEvent::Replaced(publisher)) => {
                event(StreamEvent::Replaced, about(&publisher));
            }
            Mark::Event(server::QueueEvent::ReconnectRequested(publisher)) => {
                event(StreamEvent::ReconnectRequested, about(&publisher));
            }
            Mark::Event(server::QueueEvent::KeyframeRequested(why_not)) => {
                event(StreamEvent::KeyframeRequested, keyframe::details(why_not));
            }
            Mark::Event(server::QueueEvent::Gone(publisher, removal)) => {
                let details = about_with_reason(&publisher, removal.nick());
                event(StreamEvent::PublisherGone, details);
            }
        }
    }

    /// Changes the state, and tells everybody.
    fn apply(&mut self, imp: &Rtmp2ServerSrc, input: Input) {
        for (before, after) in imp.apply(input) {
            tell(imp, &before, &after);
            self.epoch = after.epoch;
            self.unsent_status = Some(after);
        }
    }

    /// Tells elements downstream of the state, where there is a segment for the event to follow.
    fn send_status(&mut self, imp: &Rtmp2ServerSrc) {
        if self.has_begun
            && let Some(status) = self.unsent_status.take()
        {
            let event = announcements::status_event(&status);
            imp.obj().src_pad().push_event(event);
        }
    }

    fn send_gap(&mut self, imp: &Rtmp2ServerSrc) {
        if let Some((start, duration)) = self.feed.skip_to(running_time(imp)) {
            let event = gst::event::Gap::builder(gst::ClockTime::from_nseconds(start))
                .duration(gst::ClockTime::from_nseconds(duration))
                .build();
            imp.obj().src_pad().push_event(event);
        }
    }
}

/// Posts a change of state, and notifies of the properties that are part of it.
pub(super) fn tell(imp: &Rtmp2ServerSrc, before: &Snapshot, after: &Snapshot) {
    let element = imp.obj();
    gst::info!(
        CAT,
        imp = imp,
        "{:?}, {:?}, epoch {}",
        after.status,
        after.connection,
        after.epoch
    );
    post_status(&element, after);
    let is_decodable_again =
        before.status == StreamStatus::Reconfiguring && after.status == StreamStatus::Active;
    let is_reconfigured = before.epoch != after.epoch;
    let event = |event| {
        post_event(&element, event, after.epoch, announcements::nothing());
    };
    if is_reconfigured {
        event(StreamEvent::ReconfigurationStarted);
    }
    if is_decodable_again && after.connection == ConnectionState::Streaming {
        event(StreamEvent::ReconfigurationDone);
    }
    for (name, changed) in [
        ("connection-state", before.connection != after.connection),
        ("stream-status", before.status != after.status),
        ("epoch", is_reconfigured),
    ] {
        if changed {
            element.notify(name);
        }
    }
}

fn running_time(imp: &Rtmp2ServerSrc) -> u64 {
    let running_time = imp.obj().current_running_time();
    running_time.unwrap_or(gst::ClockTime::ZERO).nseconds()
}
