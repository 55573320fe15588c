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
    /// What has to be added to the publisher's time.
    offset: i64,
    /// The running time that time 0 of the stream means. Set by the first media of all.
    base: Option<RunningTime>,
    /// Where the present publisher started, where its last media was put, and the latest media of
    /// all.
    start: i64,
    position: i64,
    latest: Option<i64>,
    tracks: Vec<Track>,
}

#[derive(Debug, Clone, Copy)]
struct Track {
    kind: TagKind,
    id: u8,
    last: i64,
    /// On the publisher's time.
    last_source: i64,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub time: u64,
    pub publisher_time: u64,
}

impl Timeline {
    pub(super) fn new(mode: TimestampMode) -> Self {
        Timeline {
            mode,
            unwrapper: Unwrapper::default(),
            offset: 0,
            base: None,
            start: 0,
            position: 0,
            latest: None,
            tracks: Vec::new(),
        }
    }

    pub(super) fn start_publisher(&mut self) {
        self.unwrapper = Unwrapper::default();
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
        self.offset = start - first;
        self.start = start;
        self.position = start;
        segment
    }

    /// Where a stream that broke off goes on: now, but not before its end.
    fn continuation(&self, base: RunningTime, arrival: RunningTime) -> i64 {
        let now = (arrival.saturating_sub(base) / NANOS_PER_MILLI) as i64;
        self.latest.map_or(now, |latest| now.max(latest + 1))
    }

    /// Moves on to media and says whether the stream jumped there.
    pub(super) fn place_media(&mut self, tag: &Tag, arrival: RunningTime) -> bool {
        let source = self.unwrapper.next(tag.timestamp);
        let index = self.track(tag);
        let previous = self.tracks[index];
        let mut jumped = false;
        let mut time = source + self.offset;
        if self.mode == TimestampMode::RunningTime {
            if source < previous.last_source.saturating_sub(MAX_STEP_BACK) {
                let base = self.base.unwrap_or(arrival);
                time = self.continuation(base, arrival);
                self.offset = time - source;
                jumped = true;
            }
            time = time.max(previous.last).max(0);
        }
        self.tracks[index].last = time;
        self.tracks[index].last_source = source;
        self.position = time;
        self.latest = Some(self.latest.map_or(time, |latest| latest.max(time)));
        jumped
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
                    last: i64::MIN,
                    last_source: i64::MIN,
                });
                self.tracks.len() - 1
            }
        }
    }

    /// Where the stream is.
    pub(super) fn position(&self) -> u64 {
        self.position.max(0) as u64
    }

    /// The times of a tag. Media is at the position that [`Timeline::place_media`] moved to;
    /// what describes it is near by.
    pub(super) fn place(&self, tag: &Tag) -> Placed {
        let source = self.unwrapper.peek(tag.timestamp);
        let own = source + self.offset;
        let is_near = own >= self.start && (own - self.position).abs() <= MAX_DESCRIPTION_DISTANCE;
        let time = if tag.info.is_coded() || !is_near {
            self.position
        } else {
            own
        };
        Placed {
            time: time.max(0) as u64,
            publisher_time: source.max(0) as u64,
        }
    }
}
