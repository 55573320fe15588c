// SPDX-License-Identifier: MPL-2.0

//! The work of the streaming thread: it moves media, states and events from the queue, in one order,
//! into the pipeline and onto the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_src::CreateSuccess;

use super::announcements::{self, about, about_with_reason, post_change, time};
use super::buffers::EpochCaps;
use super::context::Context;
use super::drops::{DropCounts, DropReports, ReportScope};
use super::ration::Ration;
use super::state::{Snapshot, StateInput};
use super::{CAT, StreamEvent, buffers, keyframe};
use crate::feed::{Feed, FeedEvent, FeedOutput, FeedSettings, Reception};
use crate::server::{
    Delivered, Dropped, Publisher, QueueEvent, QueueItem, RejectReason, Stream, Wake,
};

/// Interval of GAP events while the return of a publisher that was cut off is awaited, so that elements
/// that wait for this stream go on.
const GAP_INTERVAL: Duration = Duration::from_millis(200);

/// Least wait for media that is due by the pipeline's clock.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// The next step of create().
#[derive(Debug)]
pub(super) enum Step {
    /// Returns an output.
    Output(CreateSuccess),
    /// Waits for the queue, without the lock of the delivery state.
    Wait { deadline: Option<Instant> },
}

/// The delivery state: of the streaming thread, or of the publisher's while it delivers directly.
#[derive(Debug)]
pub(super) struct StreamingTask {
    stream: Arc<Stream>,
    feed: Feed<Mark>,
    /// Items from the queue that the feed has not got yet.
    items: VecDeque<QueueItem>,
    /// Output that could not leave, since the element was flushing.
    held: Option<CreateSuccess>,
    /// Tags of the last output.
    last_tags: u64,
    /// Tags before the next one were lost.
    is_discont: bool,
    /// Carries the epoch of the tags that leave now.
    epoch: EpochCaps,
    /// The status that elements downstream have not got yet.
    unsent_status: Option<Snapshot>,
    /// Caps that could not be set, since the element was flushing.
    unset_caps: Option<gst::Caps>,
    /// The segment and the file header have left.
    has_begun: bool,
    /// The media that leaves now has a frame to start decoding with.
    starts_decoding: bool,
    /// Time of the loss of the publisher whose return is awaited.
    lost_since: Option<Instant>,
    /// There is a publisher.
    is_occupied: bool,
    drop_reports: DropReports,
    rejections: Ration<(Arc<Publisher>, RejectReason)>,
    ended: bool,
    /// Return of the last output from create().
    returned_at: Option<Instant>,
    /// A direct push failed, in this flush.
    failure: Option<(gst::FlowError, u64)>,
}

/// An event that stands between the tags of the feed.
#[derive(Debug)]
enum Mark {
    Started(Arc<Publisher>),
    Stalled {
        since_last_byte: Duration,
    },
    Resumed,
    Lost,
    Dropped,
    /// Some client waits for the decision about its publish request, or none does any more.
    Authorizing(bool),
    Event(QueueEvent),
    Ended,
}

impl StreamingTask {
    pub(super) fn new(stream: Arc<Stream>, settings: FeedSettings) -> Self {
        let codecs = stream.codecs().clone();
        StreamingTask {
            stream,
            feed: Feed::new(settings).accepting(codecs),
            items: VecDeque::new(),
            held: None,
            last_tags: 0,
            is_discont: false,
            epoch: EpochCaps::new(0),
            unsent_status: None,
            unset_caps: None,
            has_begun: false,
            starts_decoding: false,
            lost_since: None,
            is_occupied: false,
            drop_reports: DropReports::default(),
            rejections: Ration::default(),
            ended: false,
            returned_at: None,
            failure: None,
        }
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Returns what create() does next. `wake` is the end of its last wait: None at the begin of a
    /// call, when the previous output was pushed.
    pub(super) fn next(
        &mut self,
        context: Context<'_>,
        wake: Option<Wake>,
    ) -> Result<Step, gst::FlowError> {
        if let Some(returned_at) = self.returned_at.take() {
            let direct = self.stream.direct();
            direct.note_push(returned_at, Instant::now(), self.last_tags);
        }
        if let Some((error, flush)) = self.failure.take()
            && flush == context.flush
        {
            return Err(error);
        }
        if let Some(held) = self.held.take() {
            return Ok(Step::Output(held));
        }
        if std::mem::take(&mut self.starts_decoding) {
            self.apply(context, StateInput::FramePushed);
        }
        if wake == Some(Wake::TimedOut) {
            self.feed.expire(context.running_time());
            if self.has_begun && self.is_media_missing() {
                self.push_gap(context);
            }
        }
        loop {
            if let Some(created) = self.next_ready(context)? {
                self.has_begun = true;
                context.state.set_requires_return(false);
                self.returned_at = Some(Instant::now());
                return Ok(Step::Output(created));
            }
            self.push_status(context);
            self.post_held_rejection(context);
            if self.ended {
                self.report_drops(context, ReportScope::Rest, Instant::now());
                post_rejection(context, self.rejections.take());
                gst::info!(
                    CAT,
                    obj = context.element,
                    "The publisher has left, sending EOS"
                );
                return Err(gst::FlowError::Eos);
            }
            self.stream.queue().take_for_reader(&mut self.items);
            if self.items.is_empty() {
                let deadline = self.deadline(context);
                return Ok(Step::Wait { deadline });
            }
            self.feed_items(context);
        }
    }

    /// Delivers the tags of the queue on the publisher's thread, while the streaming thread is parked.
    /// Anything else is left to that one, and all that is queued once this may not go on.
    pub(super) fn deliver(
        &mut self,
        context: Context<'_>,
        may_go_on: impl Fn() -> bool,
    ) -> Delivered {
        let mut delivered = Delivered {
            tags: 0,
            has_rest: true,
        };
        if !self.has_begun || self.failure.is_some() || context.is_counted {
            return delivered;
        }
        let timing = self.timing();
        loop {
            self.stream.queue().take(&mut self.items);
            // After the items: those that follow an event of the base class stay behind it.
            if context.state.requires_return() {
                return delivered;
            }
            if self.items.is_empty() {
                delivered.has_rest = timing != self.timing();
                return delivered;
            }
            if delivered.tags > 0 && !may_go_on() {
                return delivered;
            }
            self.feed_items(context);
            match self.push_tags(context) {
                Ok(tags) => delivered.tags += tags,
                Err(error) => {
                    self.failure = Some((error, context.flush));
                    return delivered;
                }
            }
            if self.starts_decoding && context.state.is_active() {
                self.starts_decoding = false;
            }
            if self.starts_decoding || self.feed.has_output() {
                return delivered;
            }
        }
    }

    /// Returns the values that the deadline of the streaming thread depends on.
    fn timing(&self) -> (Option<u64>, bool) {
        (self.feed.deadline(), self.is_media_missing())
    }

    /// Pushes the tags at the front of the feed's output, and returns their number.
    fn push_tags(&mut self, context: Context<'_>) -> Result<u64, gst::FlowError> {
        let pad = context.element.src_pad();
        let mut tags = 0;
        while let Some(output) = self.next_tags(context, false) {
            match output {
                CreateSuccess::NewBuffer(buffer) => pad.push(buffer)?,
                CreateSuccess::NewBufferList(list) => pad.push_list(list)?,
                CreateSuccess::FilledBuffer => gst::FlowSuccess::Ok,
            };
            tags += self.last_tags;
        }
        Ok(tags)
    }

    /// Keeps an output for the next call.
    pub(super) fn hold(&mut self, output: CreateSuccess) {
        self.held = Some(output);
    }

    /// Reports that the base class has dropped the last output in a pause.
    pub(super) fn handle_loss(&mut self, context: Context<'_>) {
        self.starts_decoding = false;
        self.is_discont = true;
        let tags = std::mem::take(&mut self.last_tags);
        gst::warning!(
            CAT,
            obj = context.element,
            "The base class has dropped {tags} tags in a pause"
        );
        self.stream.add_dropped_output(Dropped {
            in_pause: tags,
            ..Dropped::default()
        });
        let details = announcements::about_dropped(tags, "pause");
        context.post_event(StreamEvent::Dropped, details);
    }

    /// Returns the time at which something is due if the queue stays empty.
    fn deadline(&self, context: Context<'_>) -> Option<Instant> {
        let is_missing = self.has_begun && self.is_media_missing();
        let gap = is_missing.then_some(GAP_INTERVAL);
        let release = self.feed.deadline().map(|deadline| {
            let remaining = deadline.saturating_sub(context.running_time());
            // The pipeline's clock may stand still.
            Duration::from_nanos(remaining).max(MIN_WAIT)
        });
        let wait = gap.into_iter().chain(release).min();
        let due = wait.map(|wait| Instant::now() + wait);
        due.into_iter().chain(self.rejections.deadline()).min()
    }

    /// Returns true while no media can arrive that is due: the publisher was cut off, or has returned
    /// and has not sent any media yet. A publisher that only fell silent may yet send media that is due.
    fn is_media_missing(&self) -> bool {
        self.lost_since.is_some() || (self.is_occupied && !self.feed.has_media())
    }

    /// Moves the items from the queue into the feed.
    fn feed_items(&mut self, context: Context<'_>) {
        let now = Instant::now();
        let running_time = context.running_time();
        let max_lateness = context.state.settings().max_lateness().nseconds();
        self.feed.set_max_lateness(max_lateness);
        // Points to start decoding at that are about to be fed or still wait in the queue. They matter
        // only where backlogs are skipped.
        let start_track = self.feed.start_track();
        let is_start = |item: &QueueItem| match start_track {
            Some(track) => item.is_keyframe_of(track),
            None => item.is_media(),
        };
        let mut starts = match max_lateness {
            0 => 0,
            _ => {
                let taken = self.items.iter().filter(|item| is_start(item)).count();
                taken + self.stream.queue().decoding_starts(start_track)
            }
        };
        let mut scope = ReportScope::Regular;
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
                    gst::info!(
                        CAT,
                        obj = context.element,
                        "Publisher {} has started",
                        publisher.address
                    );
                    scope = ReportScope::Rest;
                    // The only end of a publisher that was replaced.
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
                    scope = ReportScope::Rest;
                    self.feed.end_publisher();
                    self.feed.mark(Mark::Lost);
                }
                QueueItem::Authorizing(level) => self.feed.mark(Mark::Authorizing(level)),
                QueueItem::Event(event) => self.feed.mark(Mark::Event(event)),
                QueueItem::End { is_last } => {
                    scope = ReportScope::Rest;
                    self.feed.end_publisher();
                    self.feed.mark(Mark::Ended);
                    if is_last {
                        self.feed.finish();
                        self.ended = true;
                    } else {
                        gst::info!(CAT, obj = context.element, "Waiting for the next publisher");
                    }
                }
            }
        }
        self.count_drops();
        context.state.set_repairs(self.feed.repairs());
        self.report_drops(context, scope, now);
    }

    /// Counts what the feed has dropped.
    fn count_drops(&self) {
        let dropped = self.feed.dropped();
        self.stream.set_dropped_after_queue(Dropped {
            before_keyframe: dropped.before_keyframe,
            descriptions: dropped.descriptions,
            late: dropped.late,
            codec_refused: dropped.codec_refused,
            ..Dropped::default()
        });
    }

    /// Posts events about dropped media that has none yet.
    fn report_drops(&mut self, context: Context<'_>, scope: ReportScope, now: Instant) {
        if !self.drop_reports.is_due(scope, now) {
            return;
        }
        let counts = DropCounts {
            dropped: self.stream.dropped(),
            skipped: self.stream.totals(now).media.skipped,
        };
        for (reason, tags) in self.drop_reports.report(&counts, scope, now) {
            post_dropped(context, tags, reason);
        }
    }

    /// Posts the remaining events of a stream that was ended downstream or stopped. Its remaining
    /// media is dropped.
    pub(super) fn drop_rest(&mut self, context: Context<'_>) {
        self.items.extend(self.stream.queue().take_rest());
        let mut at_end = match self.held.take() {
            Some(_) => std::mem::take(&mut self.last_tags),
            None => 0,
        };
        // Tags that wait for a keyframe.
        self.feed.end_publisher();
        while let Some(output) = self.feed.pop() {
            match output {
                FeedOutput::Mark(mark) => self.handle_mark(context, mark),
                FeedOutput::Tag(tag) => at_end += u64::from(!tag.is_header),
                _ => {}
            }
        }
        for item in std::mem::take(&mut self.items) {
            match item {
                QueueItem::Start(publisher) => self.handle_mark(context, Mark::Started(publisher)),
                QueueItem::Lost => self.handle_mark(context, Mark::Lost),
                QueueItem::Authorizing(level) => {
                    self.handle_mark(context, Mark::Authorizing(level));
                }
                QueueItem::Event(event) => self.handle_mark(context, Mark::Event(event)),
                QueueItem::End { .. } => self.handle_mark(context, Mark::Ended),
                QueueItem::Tag { .. } => at_end += 1,
                QueueItem::Stalled { .. } | QueueItem::Resumed => {}
            }
        }
        self.count_drops();
        self.stream.add_dropped_output(Dropped {
            at_end,
            ..Dropped::default()
        });
        self.report_drops(context, ReportScope::Rest, Instant::now());
        post_rejection(context, self.rejections.take());
    }

    /// Returns the next output that is ready. Caps, segments and changes of state are handled first,
    /// then buffers up to the next of those leave together.
    fn next_ready(
        &mut self,
        context: Context<'_>,
    ) -> Result<Option<CreateSuccess>, gst::FlowError> {
        if let Some(caps) = self.unset_caps.take() {
            self.set_caps(context, caps)?;
        }
        loop {
            let count = self.feed.tags_ahead();
            if count == 0 {
                match self.feed.pop() {
                    Some(output) => self.handle_output(context, output)?,
                    None => return Ok(None),
                }
                continue;
            }
            self.push_status(context);
            // One buffer at a time where the base class counts them. The first one is the file
            // header: the status follows right after it, when there is a segment.
            let is_single = !self.has_begun || context.is_counted;
            return Ok(self.next_tags(context, is_single));
        }
    }

    /// Returns the next tags, up to anything else in the feed's output.
    fn next_tags(&mut self, context: Context<'_>, is_single: bool) -> Option<CreateSuccess> {
        let ahead = self.feed.tags_ahead();
        let count = if is_single { ahead.min(1) } else { ahead };
        self.last_tags = count as u64;
        if count <= 1 {
            let buffer = self.next_buffer(context);
            return buffer.map(CreateSuccess::NewBuffer);
        }
        let mut list = gst::BufferList::new_sized(count);
        if let Some(list) = list.get_mut() {
            let buffers = (0..count).map_while(|_| self.next_buffer(context));
            buffers.for_each(|buffer| list.add(buffer));
        }
        Some(CreateSuccess::NewBufferList(list))
    }

    fn next_buffer(&mut self, context: Context<'_>) -> Option<gst::Buffer> {
        let mut tag = self.feed.pop_tag()?;
        tag.is_discont |= std::mem::take(&mut self.is_discont);
        self.starts_decoding |= tag.starts_decoding;
        context.state.set_position(tag.dts);
        Some(buffers::buffer(tag, &self.epoch))
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

    fn handle_output(
        &mut self,
        context: Context<'_>,
        output: FeedOutput<Mark>,
    ) -> Result<(), gst::FlowError> {
        match output {
            FeedOutput::Headers(headers) => {
                self.set_caps(context, buffers::caps_with_stream_header(headers))?;
            }
            FeedOutput::Segment { start, base } => {
                let segment = buffers::segment(start, base);
                let set = context.element.new_segment(segment.upcast_ref());
                set.map_err(|_| gst::FlowError::Error)?;
            }
            FeedOutput::Reconfigured => self.apply(context, StateInput::Reconfigured),
            FeedOutput::Mark(mark) => self.handle_mark(context, mark),
            FeedOutput::Event(FeedEvent::BacklogSkipped(_)) => {
                let tags = self.drop_reports.take_late(self.feed.dropped().late);
                post_dropped(context, tags, "late");
            }
            FeedOutput::Event(event) => post_feed_event(context, event),
            FeedOutput::Tag(_) => {}
        }
        Ok(())
    }

    fn handle_mark(&mut self, context: Context<'_>, mark: Mark) {
        match mark {
            Mark::Started(publisher) => {
                self.is_occupied = true;
                let downtime = self.lost_since.take().map(|since| since.elapsed());
                self.apply(context, StateInput::Started(publisher.clone()));
                context.post_event(StreamEvent::PublisherConnected, about(&publisher));
                if let Some(downtime) = downtime {
                    context.post_event(StreamEvent::Resumed, time("downtime", downtime));
                }
            }
            Mark::Stalled { since_last_byte } => {
                let details = time("since-last-byte", since_last_byte);
                context.post_event(StreamEvent::Stalled, details);
                self.apply(context, StateInput::Stalled);
            }
            Mark::Resumed => {
                self.apply(context, StateInput::Resumed);
                context.post_event(StreamEvent::Resumed, announcements::no_details());
            }
            Mark::Lost => {
                self.is_occupied = false;
                self.lost_since = Some(Instant::now());
                self.apply(context, StateInput::Lost);
            }
            Mark::Dropped => {
                let dropped = self.stream.queue().levels().dropped;
                let tags = self.drop_reports.take_queue_full(dropped);
                post_dropped(context, tags, "queue-full");
            }
            Mark::Ended => {
                self.is_occupied = false;
                self.lost_since = None;
                self.apply(context, StateInput::Ended);
            }
            // A flood of clients that are rejected must not become one of messages.
            Mark::Authorizing(true) if self.rejections.is_used_up(Instant::now()) => {}
            Mark::Authorizing(level) => self.apply(context, StateInput::Authorizing(level)),
            Mark::Event(event) => self.handle_queue_event(context, event),
        }
    }

    fn handle_queue_event(&mut self, context: Context<'_>, event: QueueEvent) {
        match event {
            QueueEvent::Rejected(publisher, reason) => {
                let left_out = self.stream.queue().take_left_out_rejections();
                self.rejections.suppress(left_out);
                let rejection = self.rejections.offer((publisher, reason), Instant::now());
                post_rejection(context, rejection);
            }
            QueueEvent::Replaced(publisher) => {
                context.post_event(StreamEvent::Replaced, about(&publisher));
            }
            QueueEvent::ReconnectRequested(publisher) => {
                context.post_event(StreamEvent::ReconnectRequested, about(&publisher));
            }
            QueueEvent::KeyframeRequested(reason) => {
                context.post_event(StreamEvent::KeyframeRequested, keyframe::details(reason));
            }
            QueueEvent::Gone(publisher, reason) => {
                let details = about_with_reason(&publisher, reason);
                context.post_event(StreamEvent::PublisherGone, details);
            }
        }
    }

    fn post_held_rejection(&mut self, context: Context<'_>) {
        if self.rejections.deadline().is_some() {
            post_rejection(context, self.rejections.release(Instant::now()));
        }
    }

    /// Changes the state of the stream, and posts each change.
    fn apply(&mut self, context: Context<'_>, input: StateInput) {
        for (before, after) in context.state.apply(input) {
            post_change(context.element, &before, &after);
            self.epoch.set(after.epoch);
            self.unsent_status = Some(after);
        }
    }

    /// Pushes the status downstream, once there is a segment for the event to follow.
    fn push_status(&mut self, context: Context<'_>) {
        if self.has_begun
            && let Some(status) = self.unsent_status.take()
        {
            context.push_event(announcements::status_event(&status));
        }
    }

    fn push_gap(&mut self, context: Context<'_>) {
        if let Some((start, duration)) = self.feed.skip_to(context.running_time()) {
            let event = gst::event::Gap::builder(gst::ClockTime::from_nseconds(start))
                .duration(gst::ClockTime::from_nseconds(duration))
                .build();
            context.push_event(event);
        }
    }
}

fn post_dropped(context: Context<'_>, tags: u64, reason: &str) {
    if tags > 0 {
        let details = announcements::about_dropped(tags, reason);
        context.post_event(StreamEvent::Dropped, details);
    }
}

fn post_rejection(context: Context<'_>, rejection: Option<((Arc<Publisher>, RejectReason), u64)>) {
    if let Some(((publisher, reason), suppressed)) = rejection {
        let details = announcements::about_rejection(&publisher, reason, suppressed);
        context.post_event(StreamEvent::PublisherRejected, details);
    }
}

fn post_feed_event(context: Context<'_>, event: FeedEvent) {
    let (event, details) = match event {
        FeedEvent::Jump(jump) => (StreamEvent::TimestampJump, announcements::about_jump(&jump)),
        FeedEvent::Imbalance(imbalance) => (
            StreamEvent::Imbalance,
            announcements::about_imbalance(&imbalance),
        ),
        FeedEvent::TrackRefused(track) => {
            gst::info!(
                CAT,
                obj = context.element,
                "Dropping {:?} track {}: its codec {} is not accepted",
                track.kind,
                track.track,
                track.codec
            );
            (
                StreamEvent::CodecRefused,
                announcements::about_refused_track(&track),
            )
        }
        FeedEvent::NoKeyframe(waited) => (
            StreamEvent::NoKeyframe,
            time("waited", Duration::from_nanos(waited)),
        ),
        FeedEvent::BacklogSkipped(tags) => (
            StreamEvent::Dropped,
            announcements::about_dropped(tags, "late"),
        ),
    };
    context.post_event(event, details);
}
