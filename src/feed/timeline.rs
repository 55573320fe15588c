// SPDX-License-Identifier: MPL-2.0

//! Where on the outgoing stream's time a tag belongs.

use super::unwrap::Unwrapper;
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

/// A description may be this far from the media that it comes with, in milliseconds. Beyond that
/// its timestamp means nothing: many encoders stamp sequence headers with 0.
const MAX_DESCRIPTION_DISTANCE: i64 = 10_000;

/// Tracks whose order is kept. More than a publisher has; those beyond share the last one.
const MAX_TRACKS: usize = 32;

/// All times in milliseconds. One offset holds for all tracks of a publisher, so that audio and
/// video stay together.
#[derive(Debug)]
pub(super) struct Timeline {
    mode: TimestampMode,
    unwrapper: Unwrapper,
    clock: Clock,
    /// The clock before the publisher started it anew: tracks change over one after the other.
    previous_clock: Option<Clock>,
    /// The running time that time 0 of the stream means. Set by the first media of all.
    base: Option<RunningTime>,
    /// Where the present publisher started, where its last media was put, and the latest media of
    /// all.
    start: i64,
    position: i64,
    latest: Option<i64>,
    tracks: Vec<Track>,
}

/// A stretch of the publisher's time without a new start.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    id: u32,
    /// What has to be added to the publisher's time.
    offset: i64,
    /// The last time seen on it, on any track.
    last_source: i64,
}

#[derive(Debug, Clone, Copy)]
struct Track {
    kind: TagKind,
    id: u8,
    clock: u32,
    last: i64,
    /// On the publisher's time.
    last_source: Option<i64>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub time: u64,
    pub publisher_time: u64,
    /// The stream does not go on smoothly here.
    pub jumped: bool,
}

impl Timeline {
    pub(super) fn new(mode: TimestampMode) -> Self {
        Timeline {
            mode,
            unwrapper: Unwrapper::default(),
            clock: Clock::default(),
            previous_clock: None,
            base: None,
            start: 0,
            position: 0,
            latest: None,
            tracks: Vec::new(),
        }
    }

    pub(super) fn start_publisher(&mut self) {
        self.unwrapper = Unwrapper::default();
        self.clock = Clock::default();
        self.previous_clock = None;
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
        self.clock = Clock {
            id: 0,
            offset: start - first,
            last_source: first,
        };
        self.start = start;
        self.position = start;
        segment
    }

    /// Where a stream that broke off goes on: now, but not before its end.
    fn continuation(&self, base: RunningTime, arrival: RunningTime) -> i64 {
        let now = (arrival.saturating_sub(base) / NANOS_PER_MILLI) as i64;
        self.latest.map_or(now, |latest| now.max(latest + 1))
    }

    /// Moves on to a running time without media. Gives where the stream was and how far it moved, in
    /// nanoseconds. The publisher's own times leave nothing to move.
    pub(super) fn skip_to(&mut self, now: RunningTime) -> Option<(u64, u64)> {
        let (base, latest) = (self.base?, self.latest?);
        let now = (now.saturating_sub(base) / NANOS_PER_MILLI) as i64;
        if now <= latest {
            return None;
        }
        self.latest = Some(now);
        self.position = now;
        let from = latest.max(0) as u64 * NANOS_PER_MILLI;
        Some((from, (now - latest) as u64 * NANOS_PER_MILLI))
    }

    /// Moves on to media.
    pub(super) fn place_media(&mut self, tag: &Tag, arrival: RunningTime) -> Placed {
        let source = self.unwrapper.next(tag.timestamp);
        if self.mode == TimestampMode::Publisher {
            self.position = source;
            return placed(source, source, false);
        }
        let index = self.track(tag);
        let (offset, jumped) = self.offset(index, source, arrival);
        let track = &mut self.tracks[index];
        // Encoders repeat timestamps and step back by a few milliseconds.
        let time = (source + offset).max(track.last);
        track.last = time;
        track.last_source = Some(source);
        self.position = time;
        self.latest = Some(self.latest.map_or(time, |latest| latest.max(time)));
        placed(time, source, jumped)
    }

    /// What has to be added to a time on a track, and whether the publisher's clock has just
    /// started anew.
    fn offset(&mut self, index: usize, source: i64, arrival: RunningTime) -> (i64, bool) {
        let track = self.tracks[index];
        let is_near = |clock: &Clock| source.abs_diff(clock.last_source);
        if let Some(previous) = &mut self.previous_clock
            && track.clock == previous.id
            && is_near(previous) < is_near(&self.clock)
        {
            previous.last_source = source;
            return (previous.offset, false);
        }
        let restarted = track.clock == self.clock.id
            && track
                .last_source
                .is_some_and(|last| source < last - MAX_STEP_BACK);
        if restarted {
            let base = self.base.unwrap_or(arrival);
            self.previous_clock = Some(self.clock);
            self.clock = Clock {
                id: self.clock.id.wrapping_add(1),
                offset: self.continuation(base, arrival) - source,
                last_source: source,
            };
        }
        self.tracks[index].clock = self.clock.id;
        self.clock.last_source = source;
        (self.clock.offset, restarted)
    }

    fn track(&mut self, tag: &Tag) -> usize {
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
                    clock: self.clock.id,
                    // Nothing goes back behind the publisher before.
                    last: self.start,
                    last_source: None,
                });
                self.tracks.len() - 1
            }
        }
    }

    /// Where the stream is.
    pub(super) fn position(&self) -> u64 {
        self.position.max(0) as u64
    }

    /// Finds a place for what describes media: at its own time if that is near the media, and
    /// else where the media is.
    pub(super) fn place_description(&self, tag: &Tag) -> Placed {
        let source = self.unwrapper.peek(tag.timestamp);
        let own = source + self.clock.offset;
        let is_near = own >= self.start && (own - self.position).abs() <= MAX_DESCRIPTION_DISTANCE;
        let time = if is_near { own } else { self.position };
        placed(time, source, false)
    }
}

fn placed(time: i64, source: i64, jumped: bool) -> Placed {
    Placed {
        time: time.max(0) as u64,
        publisher_time: source.max(0) as u64,
        jumped,
    }
}
