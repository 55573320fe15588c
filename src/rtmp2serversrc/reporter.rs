// SPDX-License-Identifier: MPL-2.0

//! Turns what stands between the tags into states of the stream and messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::announcements::{self, about, about_with_reason, post_change, time};
use super::buffers::EpochCaps;
use super::context::Context;
use super::drops::{DropCounts, DropReports, ReportScope};
use super::mark::Mark;
use super::ration::Ration;
use super::state::{Snapshot, StateInput};
use super::voice::Voice;
use super::{StreamEvent, StreamStatus, keyframe};
use crate::feed::{DroppedTags, FeedEvent, RefusedTrack, StandbyChange, StandbyMismatch};
use crate::flv::TagKind;
use crate::server::{Dropped, Publisher, QueueEvent, RejectReason, Stream};

/// The reports of one stream. Its methods are called in the order of the media.
#[derive(Debug)]
pub(super) struct StreamReporter {
    stream: Arc<Stream>,
    /// Carries the epoch of the tags that leave now.
    epoch: EpochCaps,
    /// The status that elements downstream have not got yet.
    unsent_status: Option<Snapshot>,
    /// Time of the loss of the publisher whose return is awaited.
    lost_since: Option<Instant>,
    /// There is a publisher.
    is_occupied: bool,
    drop_reports: DropReports,
    /// Tags that the feed has dropped without an event, and those of them at the last report.
    feed_drops: u64,
    feed_drops_reported: u64,
    rejections: Ration<(Arc<Publisher>, RejectReason)>,
    /// A client waits for a decision, which the ration does not allow to show yet.
    is_authorizing_held: bool,
}

impl StreamReporter {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        StreamReporter {
            stream,
            epoch: EpochCaps::new(0),
            unsent_status: None,
            lost_since: None,
            is_occupied: false,
            drop_reports: DropReports::default(),
            feed_drops: 0,
            feed_drops_reported: 0,
            rejections: Ration::default(),
            is_authorizing_held: false,
        }
    }

    pub(super) fn epoch(&self) -> &EpochCaps {
        &self.epoch
    }

    /// Returns true while the return of a publisher that was cut off is awaited.
    pub(super) fn is_return_awaited(&self) -> bool {
        self.lost_since.is_some()
    }

    pub(super) fn is_occupied(&self) -> bool {
        self.is_occupied
    }

    /// Returns the time at which something is due that was held back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let held = self.is_authorizing_held.then(|| self.rejections.free_at());
        let times = [
            self.rejections.deadline(),
            self.drop_reports.deadline(),
            held.flatten(),
        ];
        times.into_iter().flatten().min()
    }

    /// Counts what the feed has dropped.
    pub(super) fn count_drops(&mut self, dropped: DroppedTags) {
        self.feed_drops = dropped.without_event();
        self.stream.set_dropped_after_queue(Dropped {
            before_keyframe: dropped.before_keyframe,
            descriptions: dropped.descriptions,
            late: dropped.late,
            codec_refused: dropped.codec_refused,
            at_end: dropped.at_end,
            ..Dropped::default()
        });
    }

    /// Posts events about dropped media that has none yet.
    pub(super) fn report_drops(&mut self, context: Context<'_>, scope: ReportScope, now: Instant) {
        if !self.drop_reports.is_due(scope, now) {
            if self.feed_drops != self.feed_drops_reported {
                self.drop_reports.schedule(now);
            }
            return;
        }
        // First, so that nothing is missed that is dropped meanwhile.
        self.stream.queue().begin_report();
        self.feed_drops_reported = self.feed_drops;
        let counts = DropCounts {
            dropped: self.stream.dropped(),
            skipped: self.stream.totals(now).media.skipped,
        };
        for (reason, tags) in self.drop_reports.report(&counts, scope, now) {
            post_dropped(context, tags, reason);
        }
    }

    /// Posts events about what was dropped outside of the feed, now or when it is time.
    pub(super) fn expect_report(&mut self, context: Context<'_>) {
        let now = Instant::now();
        if self.drop_reports.is_due(ReportScope::Regular, now) {
            return self.report_drops(context, ReportScope::Regular, now);
        }
        self.drop_reports.schedule(now);
        self.stream.queue().set_report_due();
    }

    /// Posts everything that was held back, at the end of the stream.
    pub(super) fn report_rest(&mut self, context: Context<'_>) {
        self.report_drops(context, ReportScope::Rest, Instant::now());
        post_rejection(context, self.rejections.take());
    }

    /// Posts an event of the feed, which has dropped this many tags so far.
    pub(super) fn post_feed_event(
        &mut self,
        context: Context<'_>,
        event: FeedEvent,
        dropped: DroppedTags,
    ) {
        if let FeedEvent::BacklogSkipped(_) = event {
            let tags = self.drop_reports.take_late(dropped.late);
            post_dropped(context, tags, "late");
        } else {
            post_feed_event(context, event);
        }
    }

    pub(super) fn handle_mark(&mut self, context: Context<'_>, mark: Mark) {
        match mark {
            Mark::Started(publisher) => {
                self.is_occupied = true;
                let downtime = self.lost_since.take().map(|since| since.elapsed());
                context.narrate(|narrator, _| {
                    narrator.start(&publisher, Instant::now());
                    None
                });
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
                context.narrate(|narrator, voice| {
                    narrator.stall(voice, since_last_byte, Instant::now())
                });
            }
            Mark::Resumed => {
                self.apply(context, StateInput::Resumed);
                context.post_event(StreamEvent::Resumed, announcements::no_details());
                context.narrate(|narrator, voice| narrator.resume(voice, Instant::now()));
            }
            Mark::Lost => {
                self.is_occupied = false;
                self.lost_since = Some(Instant::now());
                self.apply(context, StateInput::Lost);
                let may_return = self.stream.settings().resume_timeout;
                context.narrate(|narrator, voice| narrator.lose(voice, may_return, Instant::now()));
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
            // A flood of clients that are rejected must not become one of messages. A client that
            // waits for longer is shown.
            Mark::Authorizing(true) if self.rejections.is_used_up(Instant::now()) => {
                self.is_authorizing_held = true;
            }
            Mark::Authorizing(level) => {
                self.is_authorizing_held = false;
                self.apply(context, StateInput::Authorizing(level));
            }
            Mark::Event(event) => self.handle_queue_event(context, event),
        }
    }

    /// Posts that standby plays, or that the publisher does again.
    pub(super) fn handle_standby(&mut self, context: Context<'_>, change: StandbyChange) {
        match change {
            StandbyChange::Started { reconfigures } => {
                let reason = match (self.is_occupied, self.lost_since) {
                    (true, _) => "no-media",
                    (false, Some(_)) => "cut-off",
                    (false, None) => "no-publisher",
                };
                self.apply(context, StateInput::StandbyStarted { reconfigures });
                let details = announcements::about_standby_start(reason, reconfigures);
                context.post_event(StreamEvent::StandbyStarted, details);
            }
            StandbyChange::Ended {
                reconfigures,
                played,
            } => {
                self.apply(context, StateInput::StandbyEnded { reconfigures });
                let details = announcements::about_standby_end(played, reconfigures);
                context.post_event(StreamEvent::StandbyEnded, details);
            }
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
            QueueEvent::Quality(verdict) => {
                let event = if verdict.is_low {
                    StreamEvent::QualityLow
                } else {
                    StreamEvent::QualityRestored
                };
                context.post_event(event, announcements::about_verdict(&verdict));
                context.narrate(|narrator, voice| narrator.judge(voice, &verdict));
            }
            QueueEvent::Gone(publisher, reason) => {
                let details = about_with_reason(&publisher, reason);
                context.post_event(StreamEvent::PublisherGone, details);
                context.narrate(|narrator, voice| {
                    narrator.end(voice, &publisher, reason, Instant::now())
                });
            }
        }
    }

    /// Posts what was held back, if it is time.
    pub(super) fn post_held(&mut self, context: Context<'_>) {
        if self.deadline().is_none() {
            return;
        }
        let now = Instant::now();
        if self.is_authorizing_held && !self.rejections.is_used_up(now) {
            self.is_authorizing_held = false;
            self.apply(context, StateInput::Authorizing(true));
        }
        post_rejection(context, self.rejections.release(now));
        if self.drop_reports.deadline().is_some_and(|due| due <= now) {
            self.report_drops(context, ReportScope::Rest, now);
        }
    }

    /// Changes the state of the stream, and posts each change.
    pub(super) fn apply(&mut self, context: Context<'_>, input: StateInput) {
        for (before, after) in context.state.apply(input) {
            post_change(context.element, &before, &after);
            if after.status == StreamStatus::Active && before.status != StreamStatus::Active {
                let description = context.state.description().clone();
                context.narrate(|narrator, voice| narrator.activate(voice, &description));
            }
            self.epoch.set(after.epoch);
            self.unsent_status = Some(after);
        }
    }

    /// Pushes the status downstream. There has to be a segment for the event to follow.
    pub(super) fn push_status(&mut self, context: Context<'_>) {
        if let Some(status) = self.unsent_status.take() {
            context.push_event(announcements::status_event(&status));
        }
    }
}

fn warn_of_refused_track(context: Context<'_>, track: &RefusedTrack) {
    let voice = Voice::new(&context.state.settings());
    let name = context.state.narrator().name(&voice);
    let kind = match track.kind {
        TagKind::Audio => "audio",
        _ => "video",
    };
    let text = voice.refused_codec(
        &name.unwrap_or_default(),
        &format!("{kind} track {}", track.track),
        &track.codec.common_name(),
    );
    voice.warn(context.element.upcast_ref(), &text);
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
        FeedEvent::StandbyMismatch(mismatch) => {
            post_mismatch(context, &mismatch);
            return;
        }
        FeedEvent::Jump(jump) => (StreamEvent::TimestampJump, announcements::about_jump(&jump)),
        FeedEvent::Imbalance(imbalance) => (
            StreamEvent::Imbalance,
            announcements::about_imbalance(&imbalance),
        ),
        FeedEvent::TrackRefused(track) => {
            warn_of_refused_track(context, &track);
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

/// Warns of a file in other codecs than the publisher's.
fn post_mismatch(context: Context<'_>, mismatch: &StandbyMismatch) {
    let kind = announcements::kind(mismatch.kind);
    let publisher = mismatch.publisher;
    let text = match mismatch.file {
        Some(file) => format!(
            "The {kind} of standby-location is {file}, and the publisher's is {publisher}: the caps \
             of {kind} are negotiated again at each change between them. Make the file in {publisher} \
             to avoid that"
        ),
        None => format!(
            "The file at standby-location has no {kind}, and the publisher has ({publisher}): there is \
             none while standby plays. Add {kind} in {publisher} to the file to avoid that"
        ),
    };
    gst::element_warning!(context.element, gst::StreamError::Format, ("{}", text));
}
