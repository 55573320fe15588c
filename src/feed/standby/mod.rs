// SPDX-License-Identifier: MPL-2.0

//! Standby: what leaves while no media of a publisher comes.
//!
//! To the [feed](super) it is one more publisher, whose media has its times already. While it plays,
//! the publisher waits for its next keyframe as at a start, and takes over with it:
//!
//! ```text
//!              nothing has left for `after`, and its time is over
//!   publisher ----------------------------------------------------> standby
//!             <----------------------------------------------------
//!               the publisher's keyframe; or what leaves without one
//! ```

mod codec;
mod last_media;
mod late_start;
mod player;
mod program;

use std::sync::Arc;

use bytes::Bytes;

use super::time::{NANOS_PER_MILLI, RunningTime};
use crate::flv::codec::CodecName;
use crate::flv::{
    Content, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagInfo, TagKind, shift_composition_time,
};
use crate::memory::Pool;
pub(super) use codec::codec_of;
use last_media::LastMedia;
pub(super) use last_media::composition;
use late_start::LateStart;
pub(super) use late_start::{LateAction, Returning};
pub(super) use player::PlayedTag;
use player::{FilePlayer, FreezePlayer, Player};
pub use program::{Program, ProgramBuilder, ProgramError};

/// The media of standby.
#[derive(Debug, Clone)]
pub enum StandbySource {
    /// The last keyframe, and silence.
    Freeze,
    /// A file in a loop.
    File(Arc<Program>),
}

#[derive(Debug, Clone)]
pub struct StandbySettings {
    pub source: StandbySource,
    /// Time in nanoseconds without media after which it begins.
    pub after: u64,
    /// It also begins before the first publisher, at once.
    pub begins_at_once: bool,
}

/// A change between publisher and standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyChange {
    /// Decoders start afresh if `reconfigures`.
    Started { reconfigures: bool },
    /// It has played for this time, in nanoseconds.
    Ended { reconfigures: bool, played: u64 },
}

/// The file and the publisher have other codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyMismatch {
    pub kind: TagKind,
    /// None where the file has no such track.
    pub file: Option<CodecName>,
    pub publisher: CodecName,
}

/// Time in milliseconds by which audio may have gone on after video that has stopped. Beyond it the
/// video is not filled in.
const MAX_APART: i64 = 2000;

/// Time in milliseconds before the keyframe in which media counts as replaced by standby. Media
/// further back is on another clock.
const MAX_REPLACED: i64 = 5000;

/// Time in milliseconds of a blocked pipeline that standby fills when it goes on. More of it is left
/// out: nobody needs the media of an hour that has passed, at once.
const MAX_BEHIND: i64 = 120_000;

/// Bytes at the front of a body that have the composition time.
const FIELDS: usize = 16;

/// Most configurations that are kept.
const MAX_CONFIGURATIONS: usize = 64;

#[derive(Debug)]
pub(super) struct Standby {
    settings: StandbySettings,
    last: LastMedia,
    /// Running time at which the last media has left. It may have waited for the pipeline, and its
    /// arrival does not show that the publisher is silent.
    quiet_since: Option<RunningTime>,
    /// Running time at which media was last handled.
    handled_at: RunningTime,
    /// Nanoseconds for which media is collected before it arrives.
    delivery_interval: u64,
    /// Start of the segment in milliseconds, and its running time.
    segment: Option<(i64, RunningTime)>,
    playing: Option<Playing>,
    /// Time on the publisher's clock, and arrival, of the keyframe that has ended standby.
    replaced_before: Option<(i64, RunningTime)>,
    /// Configurations that decoders have.
    configurations: Vec<(TagKind, u8, Bytes)>,
    /// Kinds of tracks whose mismatch is reported.
    reported: Vec<TagKind>,
    /// There is nothing that could be sent.
    is_unable: bool,
    pool: Pool,
}

#[derive(Debug)]
struct Playing {
    player: Player,
    since: RunningTime,
    /// The publisher has sent media before, on this connection.
    returns: bool,
    late_start: LateStart,
    /// The next tag is the first one.
    is_first: bool,
    /// Nothing fills the time before the next tag.
    is_discont: bool,
}

impl Standby {
    pub(super) fn new(settings: StandbySettings) -> Self {
        let keeps_pictures = matches!(settings.source, StandbySource::Freeze);
        Standby {
            settings,
            last: LastMedia::new(keeps_pictures),
            quiet_since: None,
            handled_at: 0,
            delivery_interval: 0,
            segment: None,
            playing: None,
            replaced_before: None,
            configurations: Vec::new(),
            reported: Vec::new(),
            is_unable: false,
            pool: Pool::default(),
        }
    }

    pub(super) fn is_playing(&self) -> bool {
        self.playing.is_some()
    }

    pub(super) fn file(&self) -> Option<&Arc<Program>> {
        match &self.settings.source {
            StandbySource::File(program) => Some(program),
            StandbySource::Freeze => None,
        }
    }

    pub(super) fn has_segment(&self) -> bool {
        self.segment.is_some()
    }

    pub(super) fn set_segment(&mut self, start: u64, base: RunningTime) {
        self.segment = Some(((start / NANOS_PER_MILLI) as i64, base));
    }

    /// Returns the stream's time in milliseconds at a running time.
    pub(super) fn time_at(&self, now: RunningTime) -> i64 {
        let (start, base) = self.segment.unwrap_or((0, now));
        let passed = now.cast_signed() - base.cast_signed();
        start + passed.div_euclid(NANOS_PER_MILLI as i64)
    }

    fn running_time(&self, time: i64) -> RunningTime {
        let (start, base) = self.segment.unwrap_or_default();
        let nanos = (time - start).saturating_mul(NANOS_PER_MILLI as i64);
        base.saturating_add_signed(nanos)
    }

    pub(super) fn set_delivery_interval(&mut self, interval: u64) {
        self.delivery_interval = interval;
    }

    /// Returns the running time at which standby begins after media, or after the start, at this time.
    fn begin_after(&self, quiet_since: RunningTime) -> RunningTime {
        let quiet = self.settings.after.saturating_add(self.delivery_interval);
        quiet_since.saturating_add(quiet)
    }

    /// Handles media of the publisher at this time, which may leave or not.
    pub(super) fn handle_media(&mut self, now: RunningTime) {
        self.handled_at = now;
    }

    /// Notes media of the publisher that leaves.
    pub(super) fn note(&mut self, tag: &Tag, time: u64, arrival: RunningTime) {
        self.quiet_since = Some(arrival.max(self.handled_at));
        self.is_unable = false;
        self.last.note(tag, time as i64);
    }

    /// Forgets what is known of a publisher that has not taken over.
    pub(super) fn forget_publisher(&mut self) {
        self.replaced_before = None;
        if let Some(playing) = &mut self.playing {
            playing.returns = false;
            playing.late_start = LateStart::default();
        }
    }

    /// Notes that the media of a publisher starts.
    pub(super) fn start_media(&mut self) {
        self.last.start_publisher();
    }

    /// Returns the running time at which there is something to do.
    pub(super) fn deadline(&self) -> Option<RunningTime> {
        if let Some(playing) = &self.playing {
            let next = playing
                .player
                .next_time()
                .map(|time| self.running_time(time));
            return next.into_iter().chain(playing.late_start.deadline()).min();
        }
        if self.last.is_empty() {
            let is_file = self.file().is_some();
            return is_file.then_some(match (self.settings.begins_at_once, self.quiet_since) {
                (true, _) => 0,
                (false, since) => self.begin_after(since.unwrap_or(0)),
            });
        }
        if self.is_unable {
            return None;
        }
        let after = self.begin_after(self.quiet_since?);
        // A publisher may have sent more than its time.
        let end = self.last.end().map(|end| self.running_time(end));
        end.into_iter().chain([after]).max()
    }

    /// Returns true once standby is to begin. A stream without any media begins to wait now.
    pub(super) fn begins(&mut self, now: RunningTime) -> bool {
        if self.last.is_empty() && !self.settings.begins_at_once {
            self.quiet_since.get_or_insert(now);
        }
        !self.is_playing() && self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Returns true where the media that has left ends before that of a publisher starts, and standby
    /// could fill the time between. Its first media arrives at a running time, and decoding starts
    /// `lead` milliseconds after that media's own time.
    pub(super) fn has_hole_before(&self, now: RunningTime, lead: i64) -> bool {
        if self.is_playing() || self.is_unable {
            return false;
        }
        let tracks = self.last.current();
        let video = tracks.filter(|track| track.kind == TagKind::Video);
        // Up to a tenth of a frame is none, also where its duration is rounded up.
        let end = video.map(|track| track.end() + (track.frame - 2).max(0) / 11);
        let end = end.max();
        let end = end.or_else(|| self.last.end());
        end.is_some_and(|end| self.next_start(now) + lead > end)
    }

    /// Returns the time at which a publisher starts whose media arrives at a running time: no track may
    /// have left beyond it.
    pub(super) fn next_start(&self, arrival: RunningTime) -> i64 {
        let latest = self.last.latest().map(|latest| latest + 1);
        latest
            .into_iter()
            .chain([self.time_at(arrival)])
            .max()
            .unwrap_or_default()
    }

    /// Starts to play. `headers` are the bodies of the audio sequence headers in force. Returns false
    /// where there is nothing to play.
    pub(super) fn play(
        &mut self,
        now: RunningTime,
        returns: bool,
        headers: &[(u8, Bytes)],
    ) -> bool {
        let now_time = self.time_at(now);
        let player = match &self.settings.source {
            StandbySource::File(program) => {
                let start = self.start_of(program, now_time);
                let audio_end = |id| {
                    let track = self.last.track(TagKind::Audio, id);
                    let any = || self.last.of(TagKind::Audio).next();
                    track.or_else(any).map(|track| track.end())
                };
                Some(Player::File(FilePlayer::new(
                    program.clone(),
                    start,
                    audio_end,
                )))
            }
            StandbySource::Freeze => {
                FreezePlayer::new(&self.last, headers, now_time).map(Player::Freeze)
            }
        };
        let Some(player) = player else {
            self.is_unable = true;
            return false;
        };
        self.replaced_before = None;
        self.playing = Some(Playing {
            player,
            since: now,
            returns,
            late_start: LateStart::default(),
            is_first: true,
            is_discont: true,
        });
        true
    }

    /// Returns the time at which a file continues what has left.
    fn start_of(&self, program: &Program, now: i64) -> i64 {
        let Some(end) = self.last.end() else {
            return now;
        };
        let pace = program.tracks.first();
        let Some(first) = pace.and_then(|track| track.tags.first()) else {
            return end;
        };
        let same = self.last.of(first.kind);
        let same = same.max_by_key(|track| (track.is_current, track.end()));
        let Some(track) = same.filter(|track| track.end() >= end - MAX_APART) else {
            return end;
        };
        // Pictures may be out of order: the first one is shown when the last one ends. It may have to be
        // decoded sooner after the one before than usual.
        let start = track.presentation_end() - composition(&first.info);
        let front = &first.body[..first.body.len().min(FIELDS)];
        match shift_composition_time(&mut front.to_vec(), 0) {
            true => start,
            false => start.max(track.end()),
        }
    }

    /// Stops with the stream, and returns the time that it has played.
    pub(super) fn finish(&mut self) -> u64 {
        let playing = self.playing.as_ref();
        let next = playing.and_then(|playing| playing.player.next_time());
        let end = next.map_or(0, |time| self.running_time(time));
        self.stop(end)
    }

    /// Stops, and returns the time that it has played in nanoseconds.
    pub(super) fn stop(&mut self, now: RunningTime) -> u64 {
        let playing = self.playing.take();
        playing.map_or(0, |playing| now.saturating_sub(playing.since))
    }

    /// Goes on at a time of the stream where it is far behind, since the pipeline was blocked.
    pub(super) fn catch_up(&mut self, time: i64) {
        let Some(playing) = &mut self.playing else {
            return;
        };
        let next = playing.player.next_time();
        let behind = next.map_or(0, |next| time.saturating_sub(next));
        if behind > MAX_BEHIND {
            playing.player.delay(behind);
            playing.is_discont = true;
        }
    }

    /// Returns the next tag that is due before a time of the stream, and whether it is the first one.
    pub(super) fn next_before(&mut self, time: i64) -> Option<(PlayedTag, bool)> {
        let playing = self.playing.as_mut()?;
        playing.player.next_time().filter(|next| *next < time)?;
        let mut tag = playing.player.pop()?;
        tag.is_discont = std::mem::take(&mut playing.is_discont);
        let is_first = std::mem::take(&mut playing.is_first);
        Some((tag, is_first))
    }

    /// Makes a tag of a body, and notes that it leaves at this time. Times do not go back.
    pub(super) fn tag(&mut self, played: &PlayedTag) -> Option<(Tag, i64)> {
        let length = played.body.len() + TRAILER_LENGTH;
        let mut memory = self.pool.allocate(FRONT_LENGTH, length);
        memory.extend(&played.body);
        let info = TagInfo::of(played.kind, &played.body).ok()?;
        let known = self.last.track(played.kind, info.track);
        let time = match known.filter(|_| info.is_coded()) {
            Some(track) => played.time.max(track.dts + 1),
            None => played.time,
        };
        if time > played.time && played.kind == TagKind::Video {
            shift_composition_time(memory.as_mut(), played.time - time);
        }
        let tag = Tag::new(played.kind, time as u32, memory).ok()?;
        if tag.info.is_coded() {
            self.last.advance(&tag, time);
        }
        Some((tag, time))
    }

    /// Returns the time before which the next media must not be shown.
    pub(super) fn shown_until(&self) -> Option<i64> {
        self.last
            .of(TagKind::Video)
            .map(|track| track.pts + 1)
            .max()
    }

    /// Decides about media of the publisher while standby plays. `lateness` is in milliseconds, by
    /// its clock from before.
    pub(super) fn check_return(&mut self, media: &Returning, bytes: usize) -> LateAction {
        match &mut self.playing {
            Some(playing) if playing.returns => playing.late_start.check(media, bytes),
            _ => LateAction::Pass,
        }
    }

    /// Returns true once a burst of a returning publisher has ended without more media.
    pub(super) fn is_burst_over(&self, now: RunningTime) -> bool {
        let playing = self.playing.as_ref();
        let deadline = playing.and_then(|playing| playing.late_start.deadline());
        deadline.is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn is_holding(&self) -> bool {
        let playing = self.playing.as_ref();
        playing.is_some_and(|playing| playing.late_start.is_holding())
    }

    pub(super) fn set_replaced_before(&mut self, source: i64, arrival: RunningTime) {
        self.replaced_before = Some((source, arrival));
    }

    /// Returns true for media from before the keyframe that has ended standby.
    pub(super) fn is_replaced(&mut self, tag: &Tag, source: i64, arrival: RunningTime) -> bool {
        let Some((start, since)) = self.replaced_before else {
            return false;
        };
        let is_over = arrival.saturating_sub(since) >= MAX_REPLACED as u64 * NANOS_PER_MILLI;
        if is_over || (source >= start && tag.kind == TagKind::Audio) {
            self.replaced_before = None;
            return false;
        }
        (start - MAX_REPLACED..start).contains(&source)
    }

    /// Notes the configurations that decoders get next. Returns true if they start afresh with them.
    pub(super) fn reconfigure<'a>(
        &mut self,
        configurations: impl Iterator<Item = (TagKind, u8, &'a [u8])>,
    ) -> bool {
        let mut changed = self.configurations.is_empty();
        for (kind, track, body) in configurations {
            let mut known = self.configurations.iter();
            let known = known.position(|(k, t, _)| (*k, *t) == (kind, track));
            let copy = || Bytes::copy_from_slice(body);
            match known {
                Some(index) if self.configurations[index].2[..] == *body => {}
                Some(index) => {
                    self.configurations[index].2 = copy();
                    changed = true;
                }
                None if self.configurations.len() == MAX_CONFIGURATIONS => {}
                None => self.configurations.push((kind, track, copy())),
            }
        }
        changed
    }

    /// Notes the configurations of the publisher's media that has left.
    pub(super) fn note_configurations(&mut self, descriptions: &[Tag]) {
        let tracks = self.last.current();
        let tracks: Vec<_> = tracks.map(|t| (t.kind, t.id, t.front.clone())).collect();
        let tracks = tracks
            .iter()
            .map(|(kind, id, front)| (*kind, *id, &front[..]));
        self.reconfigure(configurations(descriptions.iter(), tracks));
    }

    /// Returns where the codecs of file and publisher differ, once for each kind of track.
    pub(super) fn mismatches(
        &mut self,
        publisher: &[(TagKind, CodecName)],
    ) -> Vec<StandbyMismatch> {
        let Some(program) = self.file().cloned() else {
            return Vec::new();
        };
        let mut mismatches = Vec::new();
        for (kind, codec) in publisher {
            let track = program.tracks.iter().find(|track| track.kind == *kind);
            let tag = track.and_then(|track| track.tags.first());
            let file = tag.and_then(|tag| codec_of(*kind, &tag.body));
            if file == Some(*codec) || self.reported.contains(kind) {
                continue;
            }
            self.reported.push(*kind);
            mismatches.push(StandbyMismatch {
                kind: *kind,
                file,
                publisher: *codec,
            });
        }
        mismatches
    }

    /// Returns the codecs of the present publisher, or of the last one.
    pub(super) fn publisher_codecs(&self) -> Vec<(TagKind, CodecName)> {
        let current = self.last.current();
        let codecs = current.filter_map(|t| Some((t.kind, codec_of(t.kind, &t.front)?)));
        codecs.collect()
    }
}

/// Returns the configuration of each track: its sequence header, or of a codec that has none, the
/// first byte of its media.
pub(super) fn configurations<'a>(
    descriptions: impl Iterator<Item = &'a Tag>,
    media: impl Iterator<Item = (TagKind, u8, &'a [u8])>,
) -> impl Iterator<Item = (TagKind, u8, &'a [u8])> {
    let headers = descriptions.filter(|tag| tag.info.content == Content::SequenceHeader);
    let headers = headers.map(|tag| (tag.kind, tag.info.track, tag.body()));
    let mut all: Vec<_> = headers.collect();
    for (kind, track, body) in media {
        if !all.iter().any(|(k, t, _)| (*k, *t) == (kind, track)) {
            all.push((kind, track, &body[..body.len().min(1)]));
        }
    }
    all.into_iter()
}
