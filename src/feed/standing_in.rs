// SPDX-License-Identifier: MPL-2.0

//! The changes between publisher and standby, and what standby sends.

use bytes::Bytes;

use super::pending::PendingTag;
use super::source_clocks::SourceTime;
use super::standby::{
    LateAction, PlayedTag, Returning, Standby, StandbyChange, codec_of, composition, configurations,
};
use super::stream_header::HeaderChange;
use super::time::RunningTime;
use super::{DecodingStart, Feed, FeedEvent, FeedOutput, OutputTag, Reception, nanos};
use crate::flv::{Content, Tag, TagKind};

/// Most tags that are sent at a time: after a pause of the pipeline there are many.
const MAX_BATCH: usize = 64;

impl<M> Feed<M> {
    pub fn is_standby_playing(&self) -> bool {
        self.standby.as_ref().is_some_and(|s| s.is_playing())
    }

    /// Returns true where standby plays, or will: nothing is missing then.
    pub fn fills_gaps(&self) -> bool {
        self.standby_deadline().is_some()
    }

    /// Returns the running time at which [`Feed::run_standby`] has to be called if no tag comes
    /// before.
    pub fn standby_deadline(&self) -> Option<RunningTime> {
        self.standby.as_ref()?.deadline()
    }

    /// Sets the time in nanoseconds for which media is collected before it arrives: nothing is missing
    /// then either.
    pub fn set_delivery_interval(&mut self, interval: u64) {
        if let Some(standby) = &mut self.standby {
            standby.set_delivery_interval(interval);
        }
    }

    /// Begins standby, if it is time for that, and sends what is due.
    pub fn run_standby(&mut self, now: RunningTime) {
        let Some(mut standby) = self.standby.take() else {
            return;
        };
        if standby.begins(now) {
            self.begin_standby(&mut standby, now);
        }
        let is_burst_over = standby.is_burst_over(now);
        if standby.is_playing() && !is_burst_over {
            let next = standby.time_at(now) + 1;
            standby.catch_up(next - 1);
            for _ in 0..MAX_BATCH {
                let Some((played, is_first)) = standby.next_before(next) else {
                    break;
                };
                self.emit_played(&mut standby, &played, is_first);
            }
        }
        self.standby = Some(standby);
        if is_burst_over && self.pending.has_media() {
            self.start_media();
        }
    }

    /// Handles the start of a publisher while standby plays. Returns false where it does not.
    pub(super) fn start_behind_standby(&mut self) -> bool {
        let Some(standby) = &mut self.standby else {
            return false;
        };
        standby.forget_publisher();
        let is_playing = standby.is_playing();
        if is_playing {
            self.keyframe_gate.close_for_standby(true);
        }
        is_playing
    }

    fn begin_standby(&mut self, standby: &mut Standby, now: RunningTime) {
        let descriptions = self.stream_header.descriptions();
        let is_header =
            |tag: &&Tag| tag.kind == TagKind::Audio && tag.info.content == Content::SequenceHeader;
        let headers = descriptions.iter().filter(is_header);
        let headers: Vec<(u8, Bytes)> = headers
            .map(|tag| (tag.info.track, Bytes::copy_from_slice(tag.body())))
            .collect();
        standby.note_configurations(&descriptions);
        let file = standby.file().cloned();
        if file.is_some() && !standby.has_segment() {
            self.timeline.begin(now);
            standby.set_segment(0, now);
            let segment = FeedOutput::Segment {
                start: 0,
                base: now,
            };
            self.output.push_back(segment);
        }
        let returns = self.progress.is_flowing;
        if !standby.play(now, returns, &headers) {
            return;
        }
        if returns {
            // As at its start, but for its tracks, which are known.
            self.progress.is_flowing = false;
            self.progress.decoding_start = DecodingStart::default();
            self.forget_pending();
            self.pending.repeat(descriptions, now);
            self.keyframe_gate
                .close_for_standby(self.progress.has_video);
        } else if !self.pending.has_media() {
            self.keyframe_gate.close_for_standby(true);
        }
        let Some(file) = file else {
            let change = StandbyChange::Started {
                reconfigures: false,
            };
            self.output.push_back(FeedOutput::Standby(change));
            return;
        };
        let described = file.descriptions();
        let first = file.first_tags();
        let reconfigures = standby.reconfigure(configurations(described.iter(), first));
        let change = StandbyChange::Started { reconfigures };
        self.output.push_back(FeedOutput::Standby(change));
        for mismatch in standby.mismatches(&standby.publisher_codecs()) {
            self.post_event(Some(FeedEvent::StandbyMismatch(mismatch)));
        }
        self.stream_header.start_publisher();
        self.emit_headers(described.iter());
        for tag in described {
            self.emit_standby_tag(tag, self.timeline.position() as i64, false);
        }
    }

    /// Sends a tag of standby.
    fn emit_played(&mut self, standby: &mut Standby, played: &PlayedTag, is_first: bool) {
        if played.restarts
            && !is_first
            && let Some(file) = standby.file().cloned()
            && file.has_changes()
        {
            for tag in file.descriptions() {
                self.emit_changed_standby(standby, tag, played.time);
            }
        }
        let Some((tag, time)) = standby.tag(played) else {
            return;
        };
        if tag.info.is_coded() {
            self.timeline.move_to(time);
            self.emit_standby_tag(tag, time, played.is_discont);
        } else {
            self.emit_changed_standby(standby, tag, time);
        }
    }

    /// Sends a description within a file, after the stream header if that changes with it.
    fn emit_changed_standby(&mut self, standby: &mut Standby, tag: Tag, time: i64) {
        let change = self.stream_header.update(&tag);
        let configuration = configurations(std::iter::once(&tag), std::iter::empty());
        if standby.reconfigure(configuration) {
            self.output.push_back(FeedOutput::Reconfigured);
        }
        if change != HeaderChange::None {
            self.emit_stream_header();
        }
        self.emit_standby_tag(tag, time, false);
    }

    fn emit_standby_tag(&mut self, tag: Tag, time: i64, is_discont: bool) {
        let time = time.max(0) as u64;
        let dts = nanos(time);
        let is_header = !tag.info.is_coded();
        let is_key = tag.info.content == Content::Keyframe;
        self.output.push_back(FeedOutput::Tag(OutputTag {
            dts,
            pts: dts.saturating_add_signed(tag.info.composition_time),
            publisher_time: dts,
            time_of_day: None,
            is_header,
            is_delta_unit: !is_header && !is_key,
            // The publisher's media is decodable, not what stands in for it.
            starts_decoding: false,
            is_discont,
            bytes: tag.into_bytes(time as u32),
        }));
    }

    /// Decides about media of a publisher while standby plays, and after it. Returns the tag where it is
    /// in time.
    pub(super) fn check_return(
        &mut self,
        tag: Tag,
        source: SourceTime,
        reception: Reception,
    ) -> Option<Tag> {
        let Some(standby) = &mut self.standby else {
            return Some(tag);
        };
        let arrival = reception.arrival;
        standby.handle_media(reception.now);
        if !standby.is_playing() {
            let is_replaced = standby.is_replaced(&tag, source.common, arrival);
            self.dropped.late += u64::from(is_replaced);
            return (!is_replaced).then_some(tag);
        }
        let returning = Returning {
            source: source.common,
            lateness: standby.time_at(arrival) - self.timeline.time_of(source),
            arrival,
            starts_decoding: self.progress.is_sync_point(&tag),
            is_newest: reception.is_newest,
        };
        let was_holding = standby.is_holding();
        let action = standby.check_return(&returning, tag.memory());
        match action {
            LateAction::Pass => {
                if was_holding && returning.starts_decoding {
                    self.dropped.late += self.pending.retain_media(|_, _| false);
                }
                return Some(tag);
            }
            LateAction::Drop => self.dropped.late += 1,
            LateAction::HoldFromHere => {
                self.dropped.late += self.pending.retain_media(|_, _| false);
                self.pending.push(tag, source, arrival);
            }
            LateAction::Hold => self.pending.push(tag, source, arrival),
            LateAction::TakeOver => {
                self.pending.push(tag, source, arrival);
                self.start_media();
            }
        }
        None
    }

    /// Ends standby with the stream.
    pub(super) fn finish_standby(&mut self) {
        if let Some(mut standby) = self.standby.take()
            && standby.is_playing()
        {
            let change = StandbyChange::Ended {
                reconfigures: false,
                played: standby.finish(),
            };
            self.output.push_back(FeedOutput::Standby(change));
        }
    }

    /// Ends standby, before the media that waits leaves.
    pub(super) fn end_standby(&mut self) {
        let Some(mut standby) = self.standby.take() else {
            return;
        };
        // A publisher may start before standby is due: nothing is missing then either.
        let first = self.pending.media().next().map(|pending| pending.arrival);
        let lead = self.lead_of_pending();
        if let Some(arrival) = first.filter(|first| standby.has_hole_before(*first, lead)) {
            self.begin_standby(&mut standby, arrival);
        }
        if standby.is_playing() {
            self.hand_over(&mut standby);
        }
        standby.start_media();
        self.standby = Some(standby);
    }

    /// Returns the media that waits with which the publisher takes over.
    fn start_of_pending(&self) -> Option<&PendingTag> {
        let mut waiting = self.pending.media().rev();
        let start = waiting.find(|pending| self.progress.is_sync_point(&pending.tag));
        start.or_else(|| self.pending.media().next_back())
    }

    /// Returns the time in milliseconds from the first media that waits to the one with which decoding
    /// starts.
    fn lead_of_pending(&self) -> i64 {
        let sources = self.pending.media().filter_map(|pending| pending.source);
        let first = sources.map(|source| source.common).min();
        let start = self.start_of_pending().and_then(|start| start.source);
        let lead = start.zip(first).map(|(start, first)| start.common - first);
        lead.unwrap_or_default()
    }

    fn hand_over(&mut self, standby: &mut Standby) {
        let Some(start) = self.start_of_pending() else {
            return;
        };
        let Some(source) = start.source else {
            return;
        };
        let (kind, arrival) = (start.tag.kind, start.arrival);
        let composition = composition(&start.tag.info);
        // Media before it has been replaced.
        let begins = |time: SourceTime| time.common >= source.common;
        self.dropped.late += self.pending.retain_media(|_, time| begins(time));
        let until = standby.next_start(arrival);
        standby.catch_up(until);
        while let Some((played, is_first)) = standby.next_before(until) {
            self.emit_played(standby, &played, is_first);
        }
        if kind == TagKind::Video {
            self.keyframe_gate.open();
            let shown_until = standby.shown_until().unwrap_or(until);
            let start = until.max(shown_until - composition);
            self.timeline.start_no_earlier(start);
            // Pictures that are shown later than decoded have filled the time until then.
            while let Some((played, is_first)) = standby.next_before(start) {
                if played.kind == TagKind::Audio {
                    self.emit_played(standby, &played, is_first);
                }
            }
        }
        standby.set_replaced_before(source.common, arrival);
        let played = standby.stop(arrival);
        let waiting = self.pending.media();
        let media = waiting.map(|p| (p.tag.kind, p.tag.info.track, p.tag.body()));
        let media: Vec<_> = media.collect();
        let described = configurations(self.pending.descriptions(), media.iter().copied());
        let reconfigures = standby.reconfigure(described);
        let change = StandbyChange::Ended {
            reconfigures,
            played,
        };
        let codecs = self
            .pending
            .descriptions()
            .filter(|tag| tag.info.content == Content::SequenceHeader);
        let codecs = codecs.map(|tag| (tag.kind, tag.body()));
        let codecs = codecs.chain(media.iter().map(|(kind, _, body)| (*kind, *body)));
        let codecs = codecs.filter_map(|(kind, body)| Some((kind, codec_of(kind, body)?)));
        let mismatches = standby.mismatches(&codecs.collect::<Vec<_>>());
        self.output.push_back(FeedOutput::Standby(change));
        for mismatch in mismatches {
            self.post_event(Some(FeedEvent::StandbyMismatch(mismatch)));
        }
        self.report_late();
        // Its clocks from before say nothing about the time of its return.
        self.timeline.forget_clocks();
        self.stream_header.start_publisher();
        self.backlog.reset();
        self.progress.is_discont = true;
    }
}
