// SPDX-License-Identifier: MPL-2.0

//! From one publisher after the other to one endless FLV stream.
//!
//! [`Feed`] takes the tags of publishers and gives what is to leave the element, in order: caps,
//! segments and tags with their times. It decides what is held back, dropped or sent again, and
//! knows neither GStreamer nor threads nor a clock: running times are passed in.

mod backlog;
mod codecs;
mod imbalance;
mod keyframe_gate;
mod pending;
mod stream_header;
mod timeline;
mod unwrapper;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::flv::codec::AcceptedCodecs;
use crate::flv::{Content, FILE_HEADER, Tag, TagKind};
use crate::memory::Memory;

use backlog::{BacklogCandidate, BacklogFilter};
use codecs::CodecFilter;
pub use codecs::RefusedTrack;
pub use imbalance::Imbalance;
use imbalance::ImbalanceDetector;
use keyframe_gate::{KeyframeGate, Verdict};
use pending::PendingTags;
use stream_header::{Change, StreamHeader};
pub use timeline::{Jump, JumpKind, Repairs, TimestampMode};
use timeline::{Placement, Timeline};
pub(crate) use unwrapper::TimestampUnwrapper;

/// Nanoseconds.
pub type RunningTime = u64;

pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct FeedSettings {
    pub wait_for_keyframe: bool,
    pub timestamp_mode: TimestampMode,
    /// One of audio and video that is missing for this long while the other flows is told. In
    /// nanoseconds, 0 for never.
    pub imbalance_timeout: u64,
    /// What is further than this from its time is left out up to the newest keyframe. In
    /// nanoseconds, 0 for never.
    pub max_lateness: u64,
}

/// How a tag came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reception {
    pub arrival: RunningTime,
    /// Tags before it were lost.
    pub discont: bool,
    pub now: RunningTime,
    /// Nothing that decoding could start with waits behind it.
    pub is_newest: bool,
}

/// One item of the outgoing stream, in the order in which it leaves.
#[derive(Debug)]
pub enum FeedOutput<M> {
    /// From here on these are what a client needs that comes late: the file header, metadata and
    /// sequence headers.
    Headers(Vec<Bytes>),
    /// From here on timestamp `start` means running time `base`. In nanoseconds.
    Segment {
        start: u64,
        base: RunningTime,
    },
    Tag(OutputTag),
    /// A mark of the caller, set by [`Feed::mark`] between the tags.
    Mark(M),
    /// A sequence header that follows takes the place of another one: decoders start afresh.
    Reconfigured,
    /// Something about the stream that the application should know.
    Event(FeedEvent),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedEvent {
    Jump(Jump),
    Imbalance(Imbalance),
    /// A backlog was skipped: so many tags.
    Late(u64),
    /// A track that is in a codec which is not wanted, told once.
    Refused(RefusedTrack),
}

/// A tag with its times in nanoseconds.
#[derive(Debug)]
pub struct OutputTag {
    pub bytes: Memory,
    pub dts: u64,
    pub pts: u64,
    /// What the publisher stamped it with, unwrapped. None in the file header.
    pub publisher_time: Option<u64>,
    /// Part of the stream header.
    pub header: bool,
    /// Decoding can't start here.
    pub delta_unit: bool,
    pub discont: bool,
    /// A frame with which decoding can start.
    pub starts_decoding: bool,
}

/// What was left out, in tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Video before the first keyframe, and audio that could not be held until it came.
    pub before_keyframe: u64,
    /// Descriptions of media that never came, more than can be kept.
    pub waiting: u64,
    /// Media of a backlog.
    pub late: u64,
    /// In a codec that is not wanted. Of a tag with several tracks, each counts.
    pub refused: u64,
}

/// End-of-sequence tags that are kept, and their size: more than there are tracks, and far more
/// than they have to say.
const MAX_ENDS: usize = 64;
const MAX_END: usize = 1024;

/// A publisher whose timestamps jump with each tag is not told of more often than this, in
/// nanoseconds.
const JUMP_INTERVAL: u64 = 1_000_000_000;

/// `M` is what the caller marks places in the stream with.
#[derive(Debug)]
pub struct Feed<M> {
    codecs: CodecFilter,
    timeline: Timeline,
    gate: KeyframeGate,
    balance: ImbalanceDetector,
    lateness: BacklogFilter,
    configuration: StreamHeader,
    /// Metadata and sequence headers of a publisher that has not sent media yet.
    waiting: PendingTags,
    /// End-of-sequence tags. flvdemux of GStreamer 1.28 ends the stream on them, so they leave only
    /// when it really ends.
    ends: Vec<Tag>,
    publisher: Publisher,
    file_header_sent: bool,
    output: VecDeque<FeedOutput<M>>,
    dropped: Dropped,
    /// How much of that was late has been told.
    late_told: u64,
    /// When a jump was told last.
    jump_told: Option<RunningTime>,
}

/// How far the present publisher has come.
#[derive(Debug, Default)]
struct Publisher {
    /// Its first media has left.
    flowing: bool,
    has_video: bool,
    /// The next tag that leaves does not continue the one before.
    discont: bool,
}

impl<M> Feed<M> {
    pub fn new(settings: FeedSettings) -> Self {
        Feed {
            codecs: CodecFilter::default(),
            timeline: Timeline::new(settings.timestamp_mode),
            gate: KeyframeGate::new(settings.wait_for_keyframe),
            balance: ImbalanceDetector::new(settings.imbalance_timeout),
            lateness: BacklogFilter::new(settings.max_lateness),
            configuration: StreamHeader::default(),
            waiting: PendingTags::default(),
            ends: Vec::new(),
            publisher: Publisher::default(),
            file_header_sent: false,
            output: VecDeque::new(),
            dropped: Dropped::default(),
            late_told: 0,
            jump_told: None,
        }
    }

    /// In nanoseconds, 0 for never. Takes effect with the next tag.
    pub fn set_max_lateness(&mut self, max_lateness: u64) {
        self.lateness.set_max(max_lateness);
    }

    /// Takes these codecs and no others.
    pub fn accepting(mut self, codecs: AcceptedCodecs) -> Self {
        self.codecs = CodecFilter::new(codecs);
        self
    }

    /// The next thing to leave.
    pub fn pop(&mut self) -> Option<FeedOutput<M>> {
        self.output.pop_front()
    }

    /// How many tags leave before caps or a segment have to.
    pub fn tags_ahead(&self) -> usize {
        let is_tag = |output: &&FeedOutput<M>| matches!(output, FeedOutput::Tag(_));
        self.output.iter().take_while(is_tag).count()
    }

    pub fn dropped(&self) -> Dropped {
        Dropped {
            refused: self.codecs.dropped(),
            ..self.dropped
        }
    }

    /// What had to be mended in timestamps.
    pub fn repairs(&self) -> Repairs {
        self.timeline.repairs()
    }

    /// Whether media of the present publisher has left, or waits for a keyframe: what waits keeps
    /// the time of its arrival, so the stream must not move on meanwhile.
    pub fn has_media(&self) -> bool {
        self.publisher.flowing || self.waiting.has_media()
    }

    /// Whether the present publisher has sent video.
    pub fn has_video(&self) -> bool {
        self.publisher.has_video
    }

    /// Marks the place between the tags pushed so far and the next one.
    pub fn mark(&mut self, mark: M) {
        self.output.push_back(FeedOutput::Mark(mark));
    }

    /// Nothing has come for a while: moves the stream on to a running time, and gives where it was
    /// and for how long there is nothing, in nanoseconds.
    pub fn skip_to(&mut self, now: RunningTime) -> Option<(u64, u64)> {
        self.timeline.skip_to(now)
    }

    /// Another publisher: what it sends continues the stream, and nothing of the one before is
    /// left over.
    pub fn start_publisher(&mut self) {
        self.codecs.start_publisher();
        self.timeline.start_publisher();
        self.gate.close();
        self.balance.start_publisher();
        self.lateness.start_afresh();
        self.waiting = PendingTags::default();
        self.ends.clear();
        self.configuration.start_publisher();
        self.publisher = Publisher {
            discont: true,
            ..Publisher::default()
        };
    }

    /// Takes a tag of the present publisher.
    pub fn push(&mut self, tag: Tag, reception: Reception) {
        self.publisher.discont |= reception.discont;
        let tag = self.codecs.pass(tag);
        let news = self.codecs.news().map(FeedEvent::Refused);
        self.output.extend(news.map(FeedOutput::Event));
        let Some(tag) = tag else {
            return;
        };
        self.publisher.has_video |= tag.kind == TagKind::Video;
        match tag.info.content {
            Content::Keyframe | Content::Frame => {
                let imbalance = self.balance.flow(tag.kind, reception.arrival);
                self.notice(imbalance.map(FeedEvent::Imbalance));
                self.coded(tag, reception);
            }
            Content::EndOfSequence => {
                if tag.body().len() <= MAX_END && self.ends.len() < MAX_ENDS {
                    self.ends.push(tag);
                }
            }
            Content::OnMetaData
            | Content::SequenceHeader
            | Content::TrackMetadata
            | Content::Script
            | Content::Command => self.describe(tag, reception.arrival),
        }
    }

    fn notice(&mut self, notice: Option<FeedEvent>) {
        self.output.extend(notice.map(FeedOutput::Event));
    }

    /// The publisher has left. Audio that waited for a keyframe waits no more.
    pub fn end_publisher(&mut self) {
        if self.waiting.has_media() {
            self.begin();
        }
    }

    /// The stream ends: what was held back for that leaves.
    pub fn finish(&mut self) {
        if self.publisher.flowing {
            for tag in std::mem::take(&mut self.ends) {
                self.emit_description(tag);
            }
        }
    }

    fn describe(&mut self, tag: Tag, arrival: RunningTime) {
        if tag.info.content == Content::SequenceHeader {
            self.balance.expect(tag.kind);
            if tag.kind == TagKind::Video {
                self.gate.expect_keyframe();
            }
        }
        if !self.publisher.flowing {
            self.dropped.waiting += self.waiting.describe(tag, arrival);
            return;
        }
        let change = self.configuration.update(&tag);
        if change == Change::Replaced && tag.info.content == Content::SequenceHeader {
            self.output.push_back(FeedOutput::Reconfigured);
        }
        if change != Change::None {
            self.emit_stream_header();
        }
        self.emit_description(tag);
    }

    fn coded(&mut self, tag: Tag, reception: Reception) {
        // Media after it says that the end was none.
        self.ends.retain(|end| end.kind != tag.kind);
        let arrival = reception.arrival;
        match self.gate.judge(&tag) {
            Verdict::Pass if self.publisher.flowing => self.media(tag, reception),
            Verdict::Pass => {
                self.waiting.push(tag, arrival);
                self.begin();
            }
            Verdict::Hold => self.dropped.before_keyframe += self.waiting.hold(tag, arrival),
            Verdict::Drop => self.dropped.before_keyframe += 1,
        }
    }

    /// Media of a publisher that flows.
    fn media(&mut self, tag: Tag, reception: Reception) {
        let mut spot = self.timeline.locate(&tag, reception.arrival);
        let candidate = self
            .timeline
            .running_time(&spot)
            .map(|time| BacklogCandidate {
                time,
                arrival: reception.arrival,
                now: reception.now,
                starts_decoding: self.is_sync_point(&tag),
                is_newest: reception.is_newest,
            });
        let verdict = candidate.map(|candidate| self.lateness.judge(&candidate));
        match verdict.unwrap_or(backlog::Verdict::Pass) {
            backlog::Verdict::Pass => {}
            backlog::Verdict::Realign => self.timeline.realign(&mut spot, reception.arrival),
            backlog::Verdict::Drop => {
                self.dropped.late += 1;
                self.publisher.discont = true;
                return;
            }
        }
        let late = self.dropped.late - std::mem::replace(&mut self.late_told, self.dropped.late);
        self.notice((late > 0).then_some(FeedEvent::Late(late)));
        self.place(tag, spot, reception.arrival);
    }

    fn place(&mut self, tag: Tag, spot: timeline::Candidate, arrival: RunningTime) {
        if let Some(jump) = spot.jump {
            self.publisher.discont = true;
            self.lateness.start_afresh();
            let told = self.jump_told;
            if told.is_none_or(|told| arrival.saturating_sub(told) >= JUMP_INTERVAL) {
                self.jump_told = Some(arrival);
                self.notice(Some(FeedEvent::Jump(jump)));
            }
        }
        let placed = self.timeline.settle(spot);
        self.emit(tag, placed);
    }

    /// Decoding can start at a keyframe, or anywhere where there is no video: where there is,
    /// decoding starts with it and not with audio.
    fn is_sync_point(&self, tag: &Tag) -> bool {
        match tag.info.content {
            Content::Keyframe => true,
            Content::Frame => tag.kind == TagKind::Audio && !self.publisher.has_video,
            _ => false,
        }
    }

    /// The first media of a publisher can leave, and with it what waited for it. The earliest of
    /// that is where the publisher starts.
    fn begin(&mut self) {
        self.publisher.flowing = true;
        let waiting = std::mem::take(&mut self.waiting).into_tags();
        let media = || waiting.iter().filter(|(tag, _)| tag.info.is_coded());
        let timestamps = media().map(|(tag, _)| tag.timestamp);
        let arrival = media().map(|(_, arrival)| *arrival).next();
        let segment = self.timeline.begin(timestamps, arrival.unwrap_or_default());
        if let Some((start, base)) = segment {
            self.output.push_back(FeedOutput::Segment { start, base });
        }
        let mut changed = !self.file_header_sent;
        for (tag, _) in &waiting {
            changed |= self.configuration.update(tag) != Change::None;
        }
        changed |= self.configuration.finish_start();
        if changed {
            self.emit_stream_header();
        }
        if !self.file_header_sent {
            self.file_header_sent = true;
            self.emit_file_header();
        }
        for (tag, arrival) in waiting {
            if tag.info.is_coded() {
                let spot = self.timeline.locate(&tag, arrival);
                self.place(tag, spot, arrival);
            } else {
                self.emit_description(tag);
            }
        }
    }

    fn emit_stream_header(&mut self) {
        let headers = self.configuration.stream_header();
        self.output.push_back(FeedOutput::Headers(headers));
    }

    fn emit_file_header(&mut self) {
        let time = self.timeline.position();
        let time = nanos(time);
        let discont = std::mem::take(&mut self.publisher.discont);
        self.output.push_back(FeedOutput::Tag(OutputTag {
            bytes: Memory::from_vec(FILE_HEADER.to_vec(), 0),
            dts: time,
            pts: time,
            publisher_time: None,
            header: true,
            delta_unit: false,
            discont,
            starts_decoding: false,
        }));
    }

    fn emit_description(&mut self, tag: Tag) {
        let placed = self.timeline.place_description(&tag);
        self.emit(tag, placed);
    }

    fn emit(&mut self, tag: Tag, placed: Placement) {
        let dts = nanos(placed.time);
        let header = matches!(
            tag.info.content,
            Content::OnMetaData | Content::SequenceHeader | Content::TrackMetadata
        );
        let starts_decoding = self.is_sync_point(&tag);
        self.output.push_back(FeedOutput::Tag(OutputTag {
            dts,
            pts: dts.saturating_add_signed(tag.info.composition_time),
            publisher_time: Some(nanos(placed.publisher_time)),
            header,
            delta_unit: !starts_decoding && !header,
            starts_decoding,
            discont: std::mem::take(&mut self.publisher.discont),
            bytes: tag.into_bytes(placed.time as u32),
        }));
    }
}

/// Never so much that it means that there is no time.
fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(NANOS_PER_MILLI).min(i64::MAX as u64)
}

#[cfg(test)]
mod tests;
