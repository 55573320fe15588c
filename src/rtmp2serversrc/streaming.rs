// SPDX-License-Identifier: MPL-2.0

//! The work of the streaming thread: it moves media, states and events from the queue, in one order,
//! into the pipeline and onto the bus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst_base::subclass::base_src::CreateSuccess;

use super::announcements;
use super::context::Context;
use super::drops::ReportScope;
use super::mark::Mark;
use super::output::TagOutput;
use super::reporter::StreamReporter;
use super::state::StateInput;
use super::{CAT, StreamEvent};
use crate::feed::{Feed, FeedOutput, FeedSettings, Reception, StandbySettings};
use crate::server::{Delivered, Dropped, QueueItem, Stream, Wake};

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
    /// Waits for the end of the pause, without the lock of the delivery state.
    WaitForPlaying,
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
    output: TagOutput,
    reporter: StreamReporter,
    /// The publisher's waits for space in the queue that the feed knows of.
    space_waits: u64,
    ended: bool,
    /// Return of the last output from create().
    returned_at: Option<Instant>,
    /// A direct push failed, in this flush.
    failure: Option<(gst::FlowError, u64)>,
}

impl StreamingTask {
    pub(super) fn new(
        stream: Arc<Stream>,
        settings: FeedSettings,
        standby: Option<StandbySettings>,
    ) -> Self {
        let codecs = stream.codecs().clone();
        let feed = Feed::new(settings).accepting(codecs);
        StreamingTask {
            feed: feed.with_standby(standby),
            items: VecDeque::new(),
            output: TagOutput::default(),
            reporter: StreamReporter::new(stream.clone()),
            space_waits: 0,
            stream,
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
            direct.note_push(returned_at, Instant::now(), self.output.last_tags());
        }
        if let Some((error, flush)) = self.failure.take()
            && flush == context.flush
        {
            return Err(error);
        }
        if let Some(held) = self.output.take_held() {
            return Ok(Step::Output(held));
        }
        if self.output.take_starts_decoding() {
            self.reporter.apply(context, StateInput::FramePushed);
        }
        if wake == Some(Wake::TimedOut) && !context.pauses.is_paused() {
            self.feed.expire(context.running_time());
            if self.output.has_begun() && self.is_media_missing() {
                self.push_gap(context);
            }
        }
        loop {
            let (feed, reporter) = (&mut self.feed, &mut self.reporter);
            if let Some(created) = self.output.next_ready(context, feed, reporter)? {
                self.output.begin();
                context.state.set_requires_return(false);
                self.returned_at = Some(Instant::now());
                return Ok(Step::Output(created));
            }
            self.output.push_status(context, &mut self.reporter);
            self.reporter.post_held(context);
            if self.ended {
                self.reporter.report_rest(context);
                gst::info!(
                    CAT,
                    obj = context.element,
                    "The publisher has left, sending EOS"
                );
                return Err(gst::FlowError::Eos);
            }
            // Its running time is known when the pipeline plays again.
            if context.pauses.is_paused() && self.items.front().is_some_and(QueueItem::is_tag) {
                return Ok(Step::WaitForPlaying);
            }
            let has_drops = self.stream.queue().take_for_reader(&mut self.items);
            if !self.items.is_empty() {
                self.feed_items(context, Instant::now());
                continue;
            }
            if has_drops {
                self.reporter.expect_report(context);
            }
            if !self.play_standby(context) {
                let deadline = self.deadline(context);
                return Ok(Step::Wait { deadline });
            }
        }
    }

    /// Lets standby send what is due, once all that came from the publisher is handled. Returns true
    /// where there is any.
    fn play_standby(&mut self, context: Context<'_>) -> bool {
        if context.pauses.is_paused() {
            return false;
        }
        let Some(deadline) = self.feed.standby_deadline() else {
            return false;
        };
        let now = context.running_time();
        if now >= deadline {
            self.feed.run_standby(now);
        }
        self.feed.has_output()
    }

    /// Delivers the tags of the queue on the publisher's thread, while the streaming thread is parked.
    /// Anything else is left to that one, and all that is queued once this may not go on. `now` is the
    /// present time.
    pub(super) fn deliver(
        &mut self,
        context: Context<'_>,
        now: Instant,
        may_go_on: impl Fn() -> bool,
    ) -> Delivered {
        let mut now = Some(now);
        let mut delivered = Delivered {
            tags: 0,
            has_rest: true,
        };
        // A change of the status stands between the first frame and the next: the streaming thread
        // pushes all three. While standby plays, it does all too: it wakes by the deadlines.
        let is_open = self.output.has_begun() && context.state.is_active();
        if !is_open || self.feed.is_standby_playing() {
            return delivered;
        }
        if self.failure.is_some() || context.is_counted {
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
            self.feed_items(context, now.take().unwrap_or_else(Instant::now));
            // A pause begins.
            if !self.items.is_empty() {
                return delivered;
            }
            let (feed, reporter) = (&mut self.feed, &self.reporter);
            match self.output.push_tags(context, feed, reporter) {
                Ok(tags) => delivered.tags += tags,
                Err(error) => {
                    self.failure = Some((error, context.flush));
                    self.note_refusal(error);
                    return delivered;
                }
            }
            // The status is ACTIVE already.
            self.output.take_starts_decoding();
            if self.feed.has_output() {
                return delivered;
            }
        }
    }

    /// Returns the values that the deadline of the streaming thread depends on.
    fn timing(&self) -> (Option<u64>, bool, Option<Instant>, bool) {
        let (media, reports) = (self.feed.deadline(), self.reporter.deadline());
        // The time of standby only moves on with each tag: the streaming thread waits for it again.
        let has_standby = self.feed.fills_gaps();
        (media, self.is_media_missing(), reports, has_standby)
    }

    /// Keeps an output for the next call.
    pub(super) fn hold(&mut self, output: CreateSuccess) {
        self.output.hold(output);
    }

    /// Reports that the base class has dropped the last output in a pause.
    pub(super) fn handle_loss(&mut self, context: Context<'_>) {
        let tags = self.output.lose_last();
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

    /// Handles a push of the base class that may have failed, before the element stops.
    pub(super) fn handle_last_flow(&mut self, flow: Result<gst::FlowSuccess, gst::FlowError>) {
        // Nothing follows an output that was refused.
        if let (Some(_), Err(error)) = (self.returned_at, flow) {
            self.note_refusal(error);
        }
    }

    /// Counts the last output, where elements downstream have refused it.
    fn note_refusal(&mut self, error: gst::FlowError) {
        // Several streams have pads of their own, which count. A flush is no refusal.
        if error != gst::FlowError::Flushing && self.stream.number().is_none() {
            self.stream.add_dropped_output(Dropped {
                at_end: self.output.lose_last(),
                ..Dropped::default()
            });
        }
    }

    /// Posts what has happened since [`StreamingTask::drop_rest`].
    pub(super) fn report_rest(&mut self, context: Context<'_>) {
        self.reporter.report_rest(context);
    }

    /// Returns the time at which something is due if the queue stays empty.
    fn deadline(&self, context: Context<'_>) -> Option<Instant> {
        if context.pauses.is_paused() {
            return self.reporter.deadline();
        }
        let is_missing = self.output.has_begun() && self.is_media_missing();
        let gap = is_missing.then_some(GAP_INTERVAL);
        let releases = [self.feed.deadline(), self.feed.standby_deadline()];
        let release = releases.into_iter().flatten().min().map(|deadline| {
            let remaining = deadline.saturating_sub(context.running_time());
            // The pipeline's clock may stand still.
            Duration::from_nanos(remaining).max(MIN_WAIT)
        });
        let wait = gap.into_iter().chain(release).min();
        let due = wait.map(|wait| Instant::now() + wait);
        due.into_iter().chain(self.reporter.deadline()).min()
    }

    /// Returns true while no media can arrive that is due: the publisher was cut off, or has returned
    /// and has not sent any media yet. A publisher that only fell silent may yet send media that is due.
    /// Nothing is missing where standby fills that time.
    fn is_media_missing(&self) -> bool {
        let awaits_media = self.reporter.is_occupied() && !self.feed.has_media();
        (self.reporter.is_return_awaited() || awaits_media) && !self.feed.fills_gaps()
    }

    /// Moves the items from the queue into the feed. In a pause only those before the first tag. `now` is
    /// the present time.
    fn feed_items(&mut self, context: Context<'_>, now: Instant) {
        let running_time = context.running_time();
        let (max_lateness, delivery_interval) = {
            let settings = context.state.settings();
            (settings.max_lateness(), settings.delivery_interval())
        };
        let max_lateness = max_lateness.nseconds();
        self.feed.set_max_lateness(max_lateness);
        self.feed
            .set_delivery_interval(delivery_interval.nseconds());
        // Points to start decoding at that are about to be fed or still wait in the queue. They matter
        // only where backlogs are skipped.
        let start_track = self.feed.start_track();
        let is_start = |item: &QueueItem| match start_track {
            Some(track) => item.is_keyframe_of(track),
            None => item.is_media(),
        };
        let skips = max_lateness > 0 || self.feed.is_standby_playing();
        let mut starts = match skips {
            false => 0,
            true => {
                let taken = self.items.iter().filter(|item| is_start(item)).count();
                taken + self.stream.queue().decoding_starts(start_track)
            }
        };
        let mut scope = ReportScope::Regular;
        let pause = context.pauses.recent();
        let count = match pause {
            Some(_) if context.pauses.is_paused() => {
                let tag = self.items.iter().position(QueueItem::is_tag);
                tag.unwrap_or(self.items.len())
            }
            _ => self.items.len(),
        };
        // Tags of one read have one arrival.
        let mut last = (now, running_time);
        let mut is_after_pause = false;
        for item in self.items.drain(..count) {
            starts -= usize::from(starts > 0 && is_start(&item));
            match item {
                QueueItem::Tag {
                    tag,
                    arrival,
                    discont,
                } => {
                    if arrival != last.0 {
                        let paused = pause.and_then(|pause| pause.running_time_of(arrival));
                        let time = paused.unwrap_or_else(|| {
                            let age = now.saturating_duration_since(arrival).as_nanos() as u64;
                            running_time.saturating_sub(age)
                        });
                        // It was not later than now.
                        last = (arrival, time.min(running_time));
                        is_after_pause = paused.is_none();
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
                    gst::debug!(
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
        if let Some(pause) = pause
            && is_after_pause
        {
            context.pauses.forget(pause);
        }
        self.feed.end_batch();
        let space_waits = self.stream.queue().space_waits();
        if std::mem::replace(&mut self.space_waits, space_waits) != space_waits {
            self.feed.handle_backpressure();
        }
        self.reporter.count_drops(self.feed.dropped());
        let times = (self.feed.repairs(), self.feed.drift());
        context.state.set_times(times);
        self.reporter.report_drops(context, scope, now);
    }

    /// Posts the remaining events of a stream that was ended downstream or stopped. Its remaining
    /// media is dropped.
    pub(super) fn drop_rest(&mut self, context: Context<'_>) {
        self.items.extend(self.stream.queue().take_rest());
        let mut at_end = self.output.drop_held();
        // Tags that wait for a keyframe.
        self.feed.end_publisher();
        while let Some(output) = self.feed.pop() {
            match output {
                FeedOutput::Mark(mark) => self.reporter.handle_mark(context, mark),
                FeedOutput::Tag(tag) => at_end += u64::from(!tag.is_header),
                FeedOutput::Event(event) => {
                    let dropped = self.feed.dropped();
                    self.reporter.post_feed_event(context, event, dropped);
                }
                _ => {}
            }
        }
        for item in std::mem::take(&mut self.items) {
            match item {
                QueueItem::Start(publisher) => {
                    self.reporter.handle_mark(context, Mark::Started(publisher))
                }
                QueueItem::Lost => self.reporter.handle_mark(context, Mark::Lost),
                QueueItem::Authorizing(level) => {
                    self.reporter.handle_mark(context, Mark::Authorizing(level));
                }
                QueueItem::Event(event) => self.reporter.handle_mark(context, Mark::Event(event)),
                QueueItem::End { .. } => self.reporter.handle_mark(context, Mark::Ended),
                QueueItem::Tag { .. } => at_end += 1,
                QueueItem::Stalled { .. } | QueueItem::Resumed => {}
            }
        }
        self.reporter.count_drops(self.feed.dropped());
        self.stream.add_dropped_output(Dropped {
            at_end,
            ..Dropped::default()
        });
        self.reporter.report_rest(context);
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
