// SPDX-License-Identifier: MPL-2.0

//! Turns publishers after each other into one endless FLV stream.
//!
//! [`Feed`] accepts the tags of publishers and returns the outgoing stream in order: caps, segments
//! and tags with their times. It decides which tags are held back, dropped or sent again, and knows
//! neither GStreamer nor threads nor a clock: running times are passed in.

mod backlog;
mod codecs;
mod drift;
mod imbalance;
mod jump;
mod keyframe_gate;
mod output;
mod pending;
mod progress;
mod source_clocks;
mod standby;
mod standing_in;
mod stream_header;
mod time;
mod time_of_day;
mod timeline;
mod unwrapper;

use std::collections::VecDeque;

use crate::flv::codec::AcceptedCodecs;
use crate::flv::{Content, FILE_HEADER, Tag, TagKind};
use crate::memory::{Memory, Slack};

use backlog::{BacklogAction, BacklogCandidate, BacklogFilter};
use codecs::CodecFilter;
pub use codecs::RefusedTrack;
pub use drift::ClockDrift;
pub use imbalance::Imbalance;
use imbalance::ImbalanceDetector;
pub use jump::{Jump, JumpKind};
use keyframe_gate::{GateAction, KeyframeGate, WaitEnd, WaitLimits};
pub use output::{DroppedTags, FeedEvent, FeedOutput, OutputTag};
use pending::{PendingTag, PendingTags};
use progress::{DecodingStart, PublisherProgress};
use source_clocks::{SourceClocks, SourceTime};
use standby::Standby;
pub use standby::{
    Program, ProgramBuilder, ProgramError, StandbyChange, StandbyMismatch, StandbySettings,
    StandbySource,
};
use stream_header::{HeaderChange, StreamHeader};
pub(crate) use time::NANOS_PER_MILLI;
pub use time::RunningTime;
use time_of_day::TimeOfDay;
use timeline::{Candidate, Placement, Timeline};
pub use timeline::{Repairs, TimestampMode};
pub use unwrapper::TimestampUnwrapper;

#[derive(Debug, Clone, Copy, Default)]
pub struct FeedSettings {
    pub wait_for_keyframe: bool,
    /// Time in nanoseconds after which media leaves without a keyframe. 0 for never.
    pub keyframe_timeout: u64,
    pub timestamp_mode: TimestampMode,
    /// Time in nanoseconds after which an event reports that one of audio and video is missing while
    /// the other flows, and after which audio no longer waits for announced video. 0 for never.
    pub imbalance_timeout: u64,
    /// Distance in nanoseconds from its time beyond which media is dropped up to the newest keyframe.
    /// 0 for never.
    pub max_lateness: u64,
    /// Drift of the publisher's clock in parts per million that is corrected, and the fastest
    /// correction. 0 for none. Needs the running time as timestamps.
    pub max_drift: u32,
}

/// The circumstances of a tag's arrival.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reception {
    pub arrival: RunningTime,
    /// Tags before it were lost.
    pub discont: bool,
    pub now: RunningTime,
    /// No later tag that is already here can start decoding.
    pub is_newest: bool,
}

/// Most end-of-sequence tags that are kept, and most bytes of one: more than there are tracks, and
/// far more than such a tag needs.
const MAX_ENDS: usize = 64;
const MAX_END: usize = 1024;

/// Least time in nanoseconds between two events about jumps: the timestamps of some publishers jump
/// with each tag.
const JUMP_INTERVAL: u64 = 1_000_000_000;

/// The use of a tag as a start of decoding. A description is none.
#[derive(Debug, Clone, Copy, Default)]
struct Decoding {
    is_sync_point: bool,
    starts_decoding: bool,
}

/// `M` is what the caller marks places in the stream with.
#[derive(Debug)]
pub struct Feed<M> {
    codecs: CodecFilter,
    source_clocks: SourceClocks,
    timeline: Timeline,
    time_of_day: TimeOfDay,
    keyframe_gate: KeyframeGate,
    /// Nanoseconds, 0 for none.
    keyframe_timeout: u64,
    imbalance: ImbalanceDetector,
    backlog: BacklogFilter,
    stream_header: StreamHeader,
    /// Tags of a publisher whose first media can't leave yet.
    pending: PendingTags,
    /// End-of-sequence tags. flvdemux of GStreamer 1.28 ends the stream on them, so they leave only
    /// when it really ends.
    end_tags: Vec<Tag>,
    progress: PublisherProgress,
    /// None where nothing stands in for a publisher.
    standby: Option<Box<Standby>>,
    is_file_header_sent: bool,
    /// Some publisher has sent Enhanced FLV. Set for good, since the demuxer downstream stays.
    is_enhanced: bool,
    output: VecDeque<FeedOutput<M>>,
    slack: Slack,
    dropped: DroppedTags,
    /// Number of late tags in the last event about them.
    late_reported: u64,
    /// Arrival of the tag of the last event about a jump.
    last_jump_event: Option<RunningTime>,
}

impl<M> Feed<M> {
    pub fn new(settings: FeedSettings) -> Self {
        let wait_limits = WaitLimits {
            keyframe: settings.keyframe_timeout,
            video: settings.imbalance_timeout,
        };
        Feed {
            codecs: CodecFilter::default(),
            source_clocks: SourceClocks::new(settings.timestamp_mode == TimestampMode::RunningTime),
            timeline: Timeline::new(settings.timestamp_mode, settings.max_drift),
            time_of_day: TimeOfDay::default(),
            keyframe_gate: KeyframeGate::new(settings.wait_for_keyframe, wait_limits),
            keyframe_timeout: settings.keyframe_timeout,
            imbalance: ImbalanceDetector::new(settings.imbalance_timeout),
            backlog: BacklogFilter::new(settings.max_lateness),
            stream_header: StreamHeader::default(),
            pending: PendingTags::default(),
            end_tags: Vec::new(),
            progress: PublisherProgress::default(),
            standby: None,
            is_file_header_sent: false,
            is_enhanced: false,
            output: VecDeque::new(),
            slack: Slack::default(),
            dropped: DroppedTags::default(),
            late_reported: 0,
            last_jump_event: None,
        }
    }

    /// Sets the limit in nanoseconds, 0 for none. Takes effect with the next tag.
    pub fn set_max_lateness(&mut self, max_lateness: u64) {
        self.backlog.set_max_lateness(max_lateness);
    }

    /// Accepts these codecs and no others.
    pub fn accepting(mut self, codecs: AcceptedCodecs) -> Self {
        self.codecs = CodecFilter::new(codecs);
        self
    }

    /// Plays this while no media of a publisher comes.
    pub fn with_standby(mut self, standby: Option<StandbySettings>) -> Self {
        self.standby = standby.map(|settings| Box::new(Standby::new(settings)));
        self
    }

    /// Returns the next item of the outgoing stream.
    pub fn pop(&mut self) -> Option<FeedOutput<M>> {
        self.output.pop_front()
    }

    /// Returns the next item of the outgoing stream, if it is a tag.
    pub fn pop_tag(&mut self) -> Option<OutputTag> {
        if !matches!(self.output.front(), Some(FeedOutput::Tag(_))) {
            return None;
        }
        match self.output.pop_front() {
            Some(FeedOutput::Tag(tag)) => Some(tag),
            _ => None,
        }
    }

    /// Notes the end of a batch of tags. Gives memory of a burst back once it is long over.
    pub fn end_batch(&mut self) {
        if self.slack.note(self.output.len(), self.output.capacity()) {
            self.output.shrink_to(Slack::KEPT);
        }
    }

    /// Returns true if there is a next item.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Returns true if the stream header is of Enhanced FLV, which needs a demuxer that knows it.
    pub fn is_enhanced(&self) -> bool {
        self.is_enhanced
    }

    /// Returns the number of tags before the next item that is none.
    pub fn tags_ahead(&self) -> usize {
        let is_tag = |output: &&FeedOutput<M>| matches!(output, FeedOutput::Tag(_));
        self.output.iter().take_while(is_tag).count()
    }

    pub fn dropped(&self) -> DroppedTags {
        DroppedTags {
            codec_refused: self.codecs.dropped(),
            ..self.dropped
        }
    }

    /// Returns the repairs of timestamps so far.
    pub fn repairs(&self) -> Repairs {
        let repairs = self.timeline.repairs();
        Repairs {
            jumps: repairs.jumps + self.source_clocks.aligned_tracks(),
            ..repairs
        }
    }

    /// Returns the drift of the present publisher's clock.
    pub fn drift(&self) -> ClockDrift {
        self.timeline.drift()
    }

    /// Notes that the publisher had to wait for the pipeline, so that arrivals until now do not show
    /// the drift of its clock.
    pub fn handle_backpressure(&mut self) {
        self.timeline.handle_backpressure();
    }

    /// Returns true when media of the present publisher has left or waits for a keyframe. Media that
    /// waits keeps the time of its arrival, so the stream must not move on meanwhile.
    pub fn has_media(&self) -> bool {
        self.progress.is_flowing || self.pending.has_media()
    }

    /// Returns the video track whose keyframes start decoding, if the present publisher has sent video.
    ///
    /// It is the lowest of several video tracks, which players show: the keyframes of others may come
    /// before or after its own.
    pub fn start_track(&self) -> Option<u8> {
        let PublisherProgress {
            has_video,
            lowest_video_track,
            ..
        } = self.progress;
        lowest_video_track.filter(|_| has_video)
    }

    /// Marks the place between the tags pushed so far and the next one.
    pub fn mark(&mut self, mark: M) {
        self.output.push_back(FeedOutput::Mark(mark));
    }

    /// Moves a stream without media on to a running time. Returns the start and the duration of the
    /// gap in nanoseconds.
    pub fn skip_to(&mut self, now: RunningTime) -> Option<(u64, u64)> {
        self.timeline.skip_to(now)
    }

    /// Starts another publisher: its tags continue the stream, and nothing of the one before remains.
    pub fn start_publisher(&mut self) {
        self.codecs.start_publisher();
        self.source_clocks.start_publisher();
        self.timeline.start_publisher();
        self.time_of_day = TimeOfDay::default();
        self.keyframe_gate.close();
        self.imbalance.start_publisher();
        self.backlog.reset();
        self.forget_pending();
        self.end_tags.clear();
        self.progress = PublisherProgress::starting();
        if !self.start_behind_standby() {
            self.stream_header.start_publisher();
        }
    }

    /// Accepts a tag of the present publisher.
    pub fn push(&mut self, tag: Tag, reception: Reception) {
        self.progress.is_discont |= reception.discont;
        let tag = match self.codecs.accepts_all() {
            true => tag,
            false => {
                let filtered = self.codecs.filter(tag);
                let refusals = self.codecs.take_refusals().map(FeedEvent::TrackRefused);
                self.output.extend(refusals.map(FeedOutput::Event));
                let Some(tag) = filtered else {
                    return;
                };
                tag
            }
        };
        self.progress.note_video(&tag);
        self.note_form(&tag);
        // A keyframe that arrives at the deadline is in time.
        if self.keyframe_gate.is_waiting() && !self.progress.is_sync_point(&tag) {
            self.expire(reception.arrival);
        }
        match tag.info.content {
            Content::Keyframe | Content::Frame => {
                let imbalance = self.imbalance.count(tag.kind, reception.arrival);
                self.post_event(imbalance.map(FeedEvent::Imbalance));
                self.push_media(tag, reception);
            }
            Content::EndOfSequence => {
                if tag.body().len() <= MAX_END && self.end_tags.len() < MAX_ENDS {
                    self.end_tags.push(tag);
                } else {
                    self.dropped.descriptions += 1;
                }
            }
            Content::OnMetaData
            | Content::SequenceHeader
            | Content::TrackMetadata
            | Content::Script
            | Content::Command => self.push_description(tag, reception.arrival),
        }
    }

    /// Notes Enhanced FLV: in descriptions, and in the first media, since some codecs have no header.
    fn note_form(&mut self, tag: &Tag) {
        let is_flowing = self.progress.is_flowing;
        if (is_flowing && tag.info.is_coded()) || self.is_enhanced || !tag.is_enhanced() {
            return;
        }
        self.is_enhanced = true;
        // A description changes the stream header by itself, and the first one is still to come.
        if self.is_file_header_sent && tag.info.is_coded() {
            self.emit_stream_header();
        }
    }

    /// Returns the running time at which [`Feed::expire`] has to be called if no tag comes before.
    pub fn deadline(&self) -> Option<RunningTime> {
        self.keyframe_gate.deadline()
    }

    /// Lets media leave that has waited long enough.
    pub fn expire(&mut self, now: RunningTime) {
        match self.keyframe_gate.expire(now) {
            None => return,
            Some(WaitEnd::AudioAlone) => {
                self.progress.has_video = false;
                self.progress.is_audio_alone = true;
            }
            Some(WaitEnd::NoKeyframe(waited)) => {
                self.progress.decoding_start = DecodingStart::Overdue;
                self.post_event(Some(FeedEvent::NoKeyframe(waited)));
            }
        }
        if self.pending.has_media() {
            self.start_media();
        }
    }

    #[inline]
    fn post_event(&mut self, event: Option<FeedEvent>) {
        if let Some(event) = event {
            self.output.push_back(FeedOutput::Event(event));
        }
    }

    /// Ends the present publisher. Audio that waited for a keyframe leaves, unless standby has replaced
    /// it. Without any media there is nothing that a description could be of.
    pub fn end_publisher(&mut self) {
        let standby = self.standby.as_mut();
        if let Some(standby) = standby.filter(|standby| standby.is_playing()) {
            // Its burst has no end to wait for any more.
            standby.forget_publisher();
            self.dropped.before_keyframe += self.pending.retain_media(|_, _| false);
        }
        if self.pending.has_media() {
            self.start_media();
        }
        self.forget_pending();
    }

    fn forget_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.dropped.at_end += pending.unsent();
    }

    /// Ends the stream: tags that were held back for that leave.
    pub fn finish(&mut self) {
        self.finish_standby();
        if self.progress.is_flowing {
            for tag in std::mem::take(&mut self.end_tags) {
                self.emit_description(tag);
            }
        }
    }

    fn push_description(&mut self, tag: Tag, arrival: RunningTime) {
        if tag.info.content == Content::SequenceHeader {
            self.imbalance.expect(tag.kind);
            if tag.kind == TagKind::Video {
                self.keyframe_gate.expect_keyframe();
            }
        }
        if !self.progress.is_flowing {
            self.dropped.descriptions += self.pending.describe(tag, arrival);
            return;
        }
        self.emit_changed_description(tag);
    }

    /// Emits a description, after the stream header if that changes with it.
    fn emit_changed_description(&mut self, tag: Tag) {
        let change = self.stream_header.update(&tag);
        if change == HeaderChange::Replaced && tag.info.content == Content::SequenceHeader {
            self.progress.decoding_start = DecodingStart::default();
            self.output.push_back(FeedOutput::Reconfigured);
        }
        if change != HeaderChange::None {
            self.emit_stream_header();
        }
        self.emit_description(tag);
    }

    fn push_media(&mut self, tag: Tag, reception: Reception) {
        // Media after an end of sequence shows that it was none.
        if !self.end_tags.is_empty() {
            self.end_tags.retain(|end| end.kind != tag.kind);
        }
        let arrival = reception.arrival;
        let (source, jump) = self.source_clocks.next(&tag, arrival);
        self.report_jump(jump, arrival);
        let tag = match self.standby {
            None => tag,
            Some(_) => match self.check_return(tag, source, reception) {
                Some(tag) => tag,
                None => return,
            },
        };
        let is_sync_point = self.progress.is_sync_point(&tag);
        match self.keyframe_gate.check(&tag, is_sync_point, arrival) {
            GateAction::Pass if self.progress.is_flowing => {
                self.emit_media(tag, source, reception, is_sync_point)
            }
            GateAction::Pass => {
                self.pending.push(tag, source, arrival);
                self.start_media();
            }
            // Audio flows already, and nothing is held any more.
            GateAction::Hold if self.progress.is_flowing => self.dropped.before_keyframe += 1,
            GateAction::Hold => {
                self.dropped.before_keyframe += self.pending.hold(tag, source, arrival)
            }
            GateAction::Drop => self.dropped.before_keyframe += 1,
        }
    }

    /// Emits media of a publisher that flows, unless it belongs to a backlog.
    fn emit_media(
        &mut self,
        tag: Tag,
        source: SourceTime,
        reception: Reception,
        is_sync_point: bool,
    ) {
        let mut candidate = self.timeline.locate(&tag, source, reception.arrival);
        let late_candidate = self
            .timeline
            .running_time(&candidate)
            .map(|time| BacklogCandidate {
                time,
                arrival: reception.arrival,
                now: reception.now,
                starts_decoding: is_sync_point,
                is_newest: reception.is_newest,
            });
        let action = late_candidate.map(|candidate| self.backlog.check(&candidate));
        match action.unwrap_or(BacklogAction::Pass) {
            BacklogAction::Pass => {}
            BacklogAction::Realign => self.timeline.realign(&mut candidate, reception.arrival),
            BacklogAction::Drop => {
                self.dropped.late += 1;
                self.progress.is_discont = true;
                return;
            }
        }
        self.report_late();
        self.place(tag, source, candidate, reception.arrival, is_sync_point);
    }

    /// Reports late media that was dropped.
    fn report_late(&mut self) {
        let late =
            self.dropped.late - std::mem::replace(&mut self.late_reported, self.dropped.late);
        self.post_event((late > 0).then_some(FeedEvent::BacklogSkipped(late)));
    }

    #[inline(always)]
    fn place(
        &mut self,
        tag: Tag,
        source: SourceTime,
        candidate: Candidate,
        arrival: RunningTime,
        is_sync_point: bool,
    ) {
        if candidate.jump.is_some() {
            self.progress.is_discont = true;
            self.backlog.reset();
            self.report_jump(candidate.jump, arrival);
        }
        let starts_decoding = self.starts_decoding(is_sync_point, arrival);
        let clock = self.timeline.clock_id(&candidate);
        let time_of_day = self.time_of_day.of_media(&tag, source, clock);
        let placement = self.timeline.settle(candidate);
        if let Some(standby) = &mut self.standby {
            standby.note(&tag, placement.time, arrival);
        }
        let decoding = Decoding {
            is_sync_point,
            starts_decoding,
        };
        self.emit(tag, placement, time_of_day, decoding);
    }

    /// Returns true for media with which decoding can start, and for the first that leaves after the
    /// wait for it has ended.
    #[inline]
    fn starts_decoding(&mut self, is_sync_point: bool, arrival: RunningTime) -> bool {
        let start = &mut self.progress.decoding_start;
        let waited = match *start {
            DecodingStart::Awaited(since) => arrival.saturating_sub(since.unwrap_or(arrival)),
            DecodingStart::Overdue => {
                *start = DecodingStart::Found;
                return true;
            }
            DecodingStart::Found => return is_sync_point,
        };
        let is_overdue = self.keyframe_timeout > 0 && waited >= self.keyframe_timeout;
        if is_sync_point || is_overdue {
            *start = DecodingStart::Found;
        } else if matches!(*start, DecodingStart::Awaited(None)) {
            *start = DecodingStart::Awaited(Some(arrival));
        }
        let event = FeedEvent::NoKeyframe(waited);
        self.post_event((is_overdue && !is_sync_point).then_some(event));
        is_sync_point || is_overdue
    }

    #[inline]
    fn report_jump(&mut self, jump: Option<Jump>, arrival: RunningTime) {
        let last = self.last_jump_event;
        if jump.is_some() && last.is_none_or(|last| arrival.saturating_sub(last) >= JUMP_INTERVAL) {
            self.last_jump_event = Some(arrival);
            self.post_event(jump.map(FeedEvent::Jump));
        }
    }

    /// Starts the media of a publisher, and emits the tags that waited for it. The earliest of them
    /// is the publisher's start.
    fn start_media(&mut self) {
        self.end_standby();
        self.progress.is_flowing = true;
        let pending = std::mem::take(&mut self.pending).into_tags();
        let first = pending.iter().find(|pending| pending.source.is_some());
        let arrival = first.map(|pending| pending.arrival);
        self.time_of_day
            .start_media(first.and_then(|pending| pending.source));
        let sources = pending.iter().filter_map(|pending| pending.source);
        let segment = self
            .timeline
            .start_media(sources, arrival.unwrap_or_default());
        if let Some((start, base)) = segment {
            self.emit_segment(start, base);
        }
        self.emit_headers(pending.iter().map(|pending| &pending.tag));
        for PendingTag {
            tag,
            source,
            arrival,
            ..
        } in pending
        {
            if let Some(source) = source {
                let candidate = self.timeline.locate(&tag, source, arrival);
                let is_sync_point = self.progress.is_sync_point(&tag);
                self.place(tag, source, candidate, arrival, is_sync_point);
            } else {
                self.emit_changed_description(tag);
            }
        }
    }

    /// Emits the headers of a start with these tags: the stream header where they change it, and the
    /// file header once.
    fn emit_headers<'a>(&mut self, tags: impl Iterator<Item = &'a Tag>) {
        let mut changed = !self.is_file_header_sent;
        for tag in tags {
            // Another description of the same kind is a change later on.
            changed |= self.stream_header.add_missing(tag);
        }
        changed |= self.stream_header.finish_start();
        if changed {
            self.emit_stream_header();
        }
        if !self.is_file_header_sent {
            self.is_file_header_sent = true;
            self.emit_file_header();
        }
    }

    fn emit_segment(&mut self, start: u64, base: RunningTime) {
        if let Some(standby) = &mut self.standby {
            standby.set_segment(start, base);
        }
        self.output.push_back(FeedOutput::Segment { start, base });
    }

    fn emit_stream_header(&mut self) {
        let headers = self.stream_header.to_tags();
        self.output.push_back(FeedOutput::Headers(headers));
    }

    fn emit_file_header(&mut self) {
        let time = nanos(self.timeline.position());
        let is_discont = std::mem::take(&mut self.progress.is_discont);
        self.output.push_back(FeedOutput::Tag(OutputTag {
            bytes: Memory::from_vec(FILE_HEADER.to_vec(), 0),
            dts: time,
            pts: time,
            publisher_time: 0,
            time_of_day: None,
            is_header: true,
            is_delta_unit: false,
            is_discont,
            starts_decoding: false,
        }));
    }

    fn emit_description(&mut self, tag: Tag) {
        let source = self.source_clocks.peek(&tag);
        let time_of_day = self.time_of_day.of_description(&tag, source);
        let placement = self.timeline.place_description(&tag, source);
        self.emit(tag, placement, time_of_day, Decoding::default());
    }

    #[inline(always)]
    fn emit(
        &mut self,
        tag: Tag,
        placement: Placement,
        time_of_day: Option<u64>,
        decoding: Decoding,
    ) {
        let dts = nanos(placement.time);
        let is_header = matches!(
            tag.info.content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        );
        self.output.push_back(FeedOutput::Tag(OutputTag {
            dts,
            pts: dts.saturating_add_signed(tag.info.composition_time),
            publisher_time: nanos(placement.publisher_time),
            time_of_day,
            is_header,
            is_delta_unit: !decoding.is_sync_point && !is_header,
            starts_decoding: decoding.starts_decoding,
            is_discont: std::mem::take(&mut self.progress.is_discont),
            bytes: tag.into_bytes(placement.time as u32),
        }));
    }
}

/// Converts milliseconds to nanoseconds. The result is never GStreamer's value for no time.
fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(NANOS_PER_MILLI).min(i64::MAX as u64)
}

#[cfg(test)]
mod tests;
