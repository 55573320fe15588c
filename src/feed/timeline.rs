// SPDX-License-Identifier: MPL-2.0

//! Where on the outgoing stream's time a tag belongs.

use super::unwrapper::TimestampUnwrapper;
use super::{NANOS_PER_MILLI, RunningTime};
use crate::flv::{Tag, TagKind};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimestampMode {
    /// First media of a publisher is at the running time of its arrival.
    #[default]
    RunningTime,
    /// The publisher's own timestamps.
    Publisher,
}

/// A step back within a track by more than this, in milliseconds, is not disorder but a new start
/// of the publisher's clock.
const MAX_STEP_BACK: i64 = 1000;

/// A step ahead by this much more than time has passed, in milliseconds, is a jump of the clock of a
/// publisher that is live: lately its clock has gone with ours. A file that is sent as fast as it
/// goes may have gaps, but none like the second.
const MAX_STEP_AHEAD: i64 = 2000;
const MAX_GAP: i64 = 24 * 3600 * 1000;

/// A clock is looked at for this long at a time, and may be off by this much in it, in
/// milliseconds.
const LIVE_WINDOW: i64 = 1000;
const MAX_DRIFT: u64 = 500;

/// A track that has this many tags with one timestamp over this time, in nanoseconds, has no
/// timestamps to go by.
const FROZEN_TAGS: u32 = 10;
const FROZEN_TIME: u64 = 1_000_000_000;

/// A frozen track whose timestamps move again is back on its clock if it is this near to where it
/// is, in milliseconds.
const MAX_THAWED_DISTANCE: u64 = 1000;

/// A description may be this far behind or ahead of the media that it comes with, in milliseconds.
/// Beyond that its timestamp means nothing: many encoders stamp sequence headers with 0.
const MAX_DESCRIPTION_LAG: i64 = 10_000;
const MAX_DESCRIPTION_LEAD: i64 = 1000;

/// Tracks whose order is kept. More than a publisher has; those beyond share the last one.
const MAX_TRACKS: usize = 32;

/// All times in milliseconds. One offset holds for all tracks of a publisher, so that audio and
/// video stay together.
#[derive(Debug)]
pub(super) struct Timeline {
    mode: TimestampMode,
    unwrapper: TimestampUnwrapper,
    /// The newest one last. Tracks change over one after the other when the publisher's clock
    /// starts anew, and perhaps only some do.
    clocks: Vec<Clock>,
    /// The running time that time 0 of the stream means. Set by the first media of all.
    base: Option<RunningTime>,
    /// Where the present publisher started, where its last media was put, and the latest media of
    /// all.
    start: i64,
    position: i64,
    latest: Option<i64>,
    last_script: i64,
    tracks: Vec<Track>,
    repairs: Repairs,
}

/// A stretch of the publisher's time without a new start.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    id: u32,
    /// What has to be added to the publisher's time.
    offset: i64,
    /// The last time seen on it, on any track.
    last_source: i64,
    /// The latest time seen on it, and when that came.
    latest_source: i64,
    latest_arrival: RunningTime,
    /// Where the present look at it began.
    window_source: i64,
    window_arrival: RunningTime,
    /// In the last one it has gone with ours.
    is_live: bool,
}

impl Clock {
    fn starting(id: u32, offset: i64, source: i64, arrival: RunningTime) -> Self {
        Clock {
            id,
            offset,
            last_source: source,
            latest_source: source,
            latest_arrival: arrival,
            window_source: source,
            window_arrival: arrival,
            is_live: false,
        }
    }

    /// Media has this time on it.
    fn advance(&mut self, source: i64, arrival: RunningTime) {
        self.last_source = source;
        if source <= self.latest_source {
            return;
        }
        self.latest_source = source;
        self.latest_arrival = arrival;
        let passed = millis_between(self.window_arrival, arrival);
        if passed >= LIVE_WINDOW {
            let played = source - self.window_source;
            self.is_live = played.abs_diff(passed) <= MAX_DRIFT;
            self.window_source = source;
            self.window_arrival = arrival;
        }
    }

    /// Whether it has jumped ahead to a time that has just come.
    fn has_jumped_ahead(&self, source: i64, arrival: RunningTime) -> bool {
        let passed = millis_between(self.latest_arrival, arrival);
        let step = source - self.latest_source - passed;
        step > MAX_GAP || (step > MAX_STEP_AHEAD && self.is_live)
    }
}

fn millis_between(from: RunningTime, to: RunningTime) -> i64 {
    (to.saturating_sub(from) / NANOS_PER_MILLI) as i64
}

#[derive(Debug, Clone, Copy)]
struct Track {
    kind: TagKind,
    id: u8,
    clock: u32,
    last: i64,
    /// On the publisher's time.
    last_source: Option<i64>,
    /// Since when, and for how many tags, that has been the same.
    same_since: RunningTime,
    same: u32,
    frozen: bool,
}

/// What had to be mended in timestamps, in tags or times that it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Tags that stepped back a little, and are at the time of the one before.
    pub clamped: u64,
    /// New starts of the publisher's clock, back or ahead.
    pub jumps: u64,
    /// Tags of tracks whose timestamps stand still, and which are at the time of their arrival.
    pub frozen: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JumpKind {
    Back,
    Ahead,
    /// They stand still.
    Frozen,
}

/// Timestamps of a track do not go on from where they were, in milliseconds of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub kind: JumpKind,
    pub track: TagKind,
    pub from: i64,
    pub to: i64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub time: u64,
    pub publisher_time: u64,
}

/// Where media would be put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    track: usize,
    time: i64,
    source: i64,
    /// The stream does not go on smoothly here.
    pub jump: Option<Jump>,
}

impl Timeline {
    pub(super) fn new(mode: TimestampMode) -> Self {
        Timeline {
            mode,
            unwrapper: TimestampUnwrapper::default(),
            clocks: vec![Clock::default()],
            base: None,
            start: 0,
            position: 0,
            latest: None,
            last_script: 0,
            tracks: Vec::new(),
            repairs: Repairs::default(),
        }
    }

    pub(super) fn repairs(&self) -> Repairs {
        self.repairs
    }

    pub(super) fn start_publisher(&mut self) {
        self.unwrapper = TimestampUnwrapper::default();
        self.clocks = vec![Clock::default()];
        self.tracks.clear();
    }

    /// Finds the offset of a publisher whose first media have these timestamps. Gives the start
    /// and base of a segment in nanoseconds, where a new one is needed.
    pub(super) fn begin(
        &mut self,
        timestamps: impl Iterator<Item = u32>,
        arrival: RunningTime,
    ) -> Option<(u64, RunningTime)> {
        let first = timestamps.map(|raw| self.unwrapper.next(raw)).min()?;
        let (start, segment) = match (self.mode, self.base) {
            (TimestampMode::Publisher, _) => (
                first,
                Some((first.max(0) as u64 * NANOS_PER_MILLI, arrival)),
            ),
            (TimestampMode::RunningTime, Some(base)) => (self.continuation(base, arrival), None),
            (TimestampMode::RunningTime, None) => {
                self.base = Some(arrival);
                (0, Some((0, arrival)))
            }
        };
        self.clocks = vec![Clock::starting(0, start - first, first, arrival)];
        self.start = start;
        self.position = start;
        segment
    }

    /// A running time on the stream's time.
    fn at(&self, running_time: RunningTime) -> i64 {
        millis_between(self.base.unwrap_or(running_time), running_time)
    }

    /// Where a stream that broke off goes on: now, but not before its end.
    fn continuation(&self, base: RunningTime, arrival: RunningTime) -> i64 {
        let now = millis_between(base, arrival);
        self.latest.map_or(now, |latest| now.max(latest + 1))
    }

    /// Moves on to a running time without media. Gives where the stream was and how far it moved, in
    /// nanoseconds. The publisher's own times leave nothing to move.
    pub(super) fn skip_to(&mut self, now: RunningTime) -> Option<(u64, u64)> {
        let (base, latest) = (self.base?, self.latest?);
        let now = millis_between(base, now);
        if now <= latest {
            return None;
        }
        self.latest = Some(now);
        self.position = now;
        let from = latest.max(0) as u64 * NANOS_PER_MILLI;
        Some((from, (now - latest) as u64 * NANOS_PER_MILLI))
    }

    /// Finds a place for media, without moving the stream there yet.
    pub(super) fn locate(&mut self, tag: &Tag, arrival: RunningTime) -> Candidate {
        let source = self.unwrapper.next(tag.timestamp);
        let index = self.track(tag, source, arrival);
        let jump = self.follow(index, source, arrival);
        let track = &mut self.tracks[index];
        let is_frozen = track.frozen;
        track.last_source = Some(source);
        let time = match self.mode {
            TimestampMode::Publisher => source,
            TimestampMode::RunningTime if is_frozen => self.at(arrival),
            TimestampMode::RunningTime => source + self.clock(index).offset,
        };
        Candidate {
            track: index,
            time,
            source,
            jump,
        }
    }

    /// The running time of a spot. Whether it is late can't be told by the publisher's own times.
    pub(super) fn running_time(&self, spot: &Candidate) -> Option<i64> {
        let base = self.base?.cast_signed();
        Some(base.saturating_add(spot.time.saturating_mul(NANOS_PER_MILLI.cast_signed())))
    }

    /// Moves all tracks so that this media is at its arrival.
    pub(super) fn realign(&mut self, spot: &mut Candidate, arrival: RunningTime) {
        if let Some(base) = self.base {
            let shift = self.continuation(base, arrival) - spot.time;
            for clock in &mut self.clocks {
                clock.offset += shift;
            }
            spot.time += shift;
        }
    }

    /// Moves the stream on to media.
    pub(super) fn settle(&mut self, spot: Candidate) -> Placement {
        let Candidate { time, source, .. } = spot;
        if self.mode == TimestampMode::Publisher {
            self.position = source;
            return placed(source, source);
        }
        let track = &mut self.tracks[spot.track];
        self.repairs.frozen += u64::from(track.frozen);
        self.repairs.clamped += u64::from(time < track.last && !track.frozen);
        // Encoders repeat timestamps and step back by a few milliseconds.
        let time = time.max(track.last);
        track.last = time;
        self.position = time;
        self.latest = Some(self.latest.map_or(time, |latest| latest.max(time)));
        placed(time, source)
    }

    /// Keeps a track on the clock that it is on, or puts it on another one. Says so if its
    /// timestamps have not gone on smoothly.
    fn follow(&mut self, index: usize, source: i64, arrival: RunningTime) -> Option<Jump> {
        let track = self.tracks[index];
        let from = track.last_source.unwrap_or(source);
        let jump = |kind| Jump {
            kind,
            track: track.kind,
            from,
            to: source,
        };
        if track.last_source == Some(source) {
            return self
                .stand_still(index, arrival)
                .then(|| jump(JumpKind::Frozen));
        }
        let track = &mut self.tracks[index];
        track.same_since = arrival;
        track.same = 1;
        let thawed = std::mem::take(&mut track.frozen);
        let own = *self.clock(index);
        let newest = *self.newest();
        let is_nearer = |one: &Clock, other: &Clock| {
            source.abs_diff(one.last_source) < source.abs_diff(other.last_source)
        };
        let broken = if own.id != newest.id && is_nearer(&newest, &own) {
            self.tracks[index].clock = newest.id;
            None
        } else if source < from - MAX_STEP_BACK {
            Some(JumpKind::Back)
        } else if own.has_jumped_ahead(source, arrival)
            || (thawed && !self.is_near_now(source + own.offset, arrival))
        {
            Some(JumpKind::Ahead)
        } else {
            None
        };
        if broken.is_some() {
            self.start_clock(index, source, arrival);
        }
        self.clock_mut(index).advance(source, arrival);
        broken.map(jump)
    }

    fn is_near_now(&self, time: i64, now: RunningTime) -> bool {
        self.base.is_none() || time.abs_diff(self.at(now)) <= MAX_THAWED_DISTANCE
    }

    /// Another tag of a track with the same timestamp. Whether that is one too many.
    fn stand_still(&mut self, index: usize, arrival: RunningTime) -> bool {
        let track = &mut self.tracks[index];
        track.same = track.same.saturating_add(1);
        let time = arrival.saturating_sub(track.same_since);
        let freezes = !track.frozen && track.same >= FROZEN_TAGS && time >= FROZEN_TIME;
        track.frozen |= freezes;
        freezes
    }

    fn start_clock(&mut self, index: usize, source: i64, arrival: RunningTime) {
        self.repairs.jumps += 1;
        let base = self.base.unwrap_or(arrival);
        let id = self.newest().id.wrapping_add(1);
        let offset = self.continuation(base, arrival) - source;
        self.tracks[index].clock = id;
        let tracks = &self.tracks;
        self.clocks
            .retain(|clock| tracks.iter().any(|track| track.clock == clock.id));
        self.clocks
            .push(Clock::starting(id, offset, source, arrival));
    }

    fn newest(&self) -> &Clock {
        &self.clocks[self.clocks.len() - 1]
    }

    fn clock_index(&self, track: usize) -> usize {
        let id = self.tracks[track].clock;
        let known = self.clocks.iter().position(|clock| clock.id == id);
        known.unwrap_or(self.clocks.len() - 1)
    }

    fn clock(&self, track: usize) -> &Clock {
        &self.clocks[self.clock_index(track)]
    }

    fn clock_mut(&mut self, track: usize) -> &mut Clock {
        let index = self.clock_index(track);
        &mut self.clocks[index]
    }

    fn track(&mut self, tag: &Tag, source: i64, arrival: RunningTime) -> usize {
        let (kind, id) = (tag.kind, tag.info.track);
        let known = self
            .tracks
            .iter()
            .position(|track| (track.kind, track.id) == (kind, id));
        match known {
            Some(index) => index,
            None if self.tracks.len() == MAX_TRACKS => MAX_TRACKS - 1,
            None => {
                self.tracks.push(Track {
                    kind,
                    id,
                    clock: self.nearest(source).id,
                    // Nothing goes back behind the publisher before.
                    last: self.start,
                    last_source: None,
                    same_since: arrival,
                    same: 0,
                    frozen: false,
                });
                self.tracks.len() - 1
            }
        }
    }

    /// The clock that a new track is on.
    fn nearest(&self, source: i64) -> &Clock {
        let distance = |clock: &&Clock| source.abs_diff(clock.last_source);
        let nearest = self.clocks.iter().min_by_key(distance);
        nearest.unwrap_or(self.newest())
    }

    /// Where the stream is.
    pub(super) fn position(&self) -> u64 {
        self.position.max(0) as u64
    }

    /// Finds a place for what describes media: at its own time if that is near the media, and
    /// else where the media is. Like media, it does not go back.
    pub(super) fn place_description(&mut self, tag: &Tag) -> Placement {
        let source = self.unwrapper.peek(tag.timestamp);
        let own = source + self.newest().offset;
        let distance = own - self.position;
        let is_near =
            own >= self.start && (-MAX_DESCRIPTION_LAG..=MAX_DESCRIPTION_LEAD).contains(&distance);
        let time = if is_near { own } else { self.position };
        if self.mode == TimestampMode::Publisher {
            return placed(time, source);
        }
        let key = (tag.kind, tag.info.track);
        let mut tracks = self.tracks.iter_mut();
        let last = match tracks.find(|track| (track.kind, track.id) == key) {
            Some(track) => &mut track.last,
            None if tag.kind == TagKind::Script => &mut self.last_script,
            None => return placed(time, source),
        };
        *last = time.max(*last);
        placed(*last, source)
    }
}

fn placed(time: i64, source: i64) -> Placement {
    Placement {
        time: time.max(0) as u64,
        publisher_time: source.max(0) as u64,
    }
}
