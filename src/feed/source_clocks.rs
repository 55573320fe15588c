// SPDX-License-Identifier: MPL-2.0

//! Times of a publisher's tags: timestamps unwrapped, and tracks brought together whose clocks do not
//! start together.

use super::jump::{Jump, JumpKind};
use super::time::{NANOS_PER_MILLI, RunningTime};
use super::unwrapper::TimestampUnwrapper;
use crate::flv::{Tag, TagKind};

/// Distance in milliseconds within which a new track is in step with the others.
const MAX_DISTANCE: i64 = 800;

/// Most milliseconds that a track in step may be late: encoders and networks delay one track more
/// than the other.
const MAX_LATENESS: i64 = 2000;

/// Most milliseconds by which a late track starts before the others.
const MAX_LATE_START: i64 = 500;

/// A larger distance in milliseconds between a timestamp and the one before in its track is unwrapped
/// by all tracks together.
const MAX_OWN_STEP: u64 = 30_000;

/// A step back in milliseconds after which a track's clock counts as restarted.
const MAX_STEP_BACK: i64 = 1000;

/// Most tracks with a clock of their own. Further ones share the last one.
const MAX_TRACKS: usize = 32;

/// The time of a tag in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceTime {
    /// On the publisher's clock, unwrapped.
    pub(super) own: i64,
    /// On the clock that is common to all tracks.
    pub(super) common: i64,
}

/// Assigns times to the tags of one publisher.
///
/// A new track is in step with the others if its timestamp fits theirs, or its arrival does where
/// it is late. Otherwise its clock has another origin, and is moved to theirs by arrival.
#[derive(Debug, Default)]
pub(super) struct SourceClocks {
    /// Tracks with other origins are brought together.
    is_aligned: bool,
    unwrapper: TimestampUnwrapper,
    tracks: Vec<Track>,
    aligned_tracks: u64,
}

#[derive(Debug, Clone)]
struct Track {
    kind: TagKind,
    id: u8,
    unwrapper: TimestampUnwrapper,
    /// Added to its own time for the common time.
    shift: i64,
    /// Common time of its first tag since its clock started, and that tag's arrival.
    first: (i64, RunningTime),
    last: (i64, RunningTime),
}

impl SourceClocks {
    /// Tracks with other origins are brought together if `is_aligned`.
    pub(super) fn new(is_aligned: bool) -> Self {
        SourceClocks {
            is_aligned,
            ..SourceClocks::default()
        }
    }

    pub(super) fn start_publisher(&mut self) {
        self.unwrapper = TimestampUnwrapper::default();
        self.tracks.clear();
    }

    /// Returns the number of tracks that were moved.
    pub(super) fn aligned_tracks(&self) -> u64 {
        self.aligned_tracks
    }

    /// Returns the time of media, and the distance that its track has to be moved if it is a new one
    /// with another origin.
    #[inline]
    pub(super) fn next(&mut self, tag: &Tag, arrival: RunningTime) -> (SourceTime, Option<Jump>) {
        let key = (tag.kind, tag.info.track);
        let known = self.tracks.iter().position(|t| (t.kind, t.id) == key);
        let index = match known {
            Some(index) => index,
            None if self.tracks.len() == MAX_TRACKS => MAX_TRACKS - 1,
            None => return self.start_track(tag, arrival),
        };
        let track = &mut self.tracks[index];
        let last_own = track.last.0 - track.shift;
        let mut unwrapper = track.unwrapper;
        let mut own = unwrapper.next(tag.timestamp);
        if own.abs_diff(last_own) > MAX_OWN_STEP {
            unwrapper = self.unwrapper;
            own = unwrapper.next(tag.timestamp);
        }
        track.unwrapper = unwrapper;
        self.unwrapper = unwrapper;
        if own < last_own - MAX_STEP_BACK {
            if let Some(shift) = self.shift_in_step(index, own, arrival) {
                self.tracks[index].shift = shift;
            }
            let track = &mut self.tracks[index];
            track.first = (own + track.shift, arrival);
        }
        let track = &mut self.tracks[index];
        let common = own + track.shift;
        track.last = (common, arrival);
        (SourceTime { own, common }, None)
    }

    /// Returns the shift of a track with this time after its clock has started again, if the time
    /// fits another track's own.
    ///
    /// The two have one clock. They seemed to have two when one of them started between a jump of the
    /// clock and the other one's next tag.
    fn shift_in_step(&self, index: usize, own: i64, arrival: RunningTime) -> Option<i64> {
        let others = self.tracks.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != index);
        others.find_map(|(_, other)| {
            let (last, last_arrival) = other.last;
            // The tracks may have counted different numbers of wraps.
            let distance = i64::from((own - (last - other.shift)) as i32);
            let passed = millis_between(last_arrival, arrival);
            let is_in_step = (-MAX_DISTANCE..=passed + MAX_DISTANCE).contains(&distance);
            is_in_step.then_some(last + distance - own)
        })
    }

    fn start_track(&mut self, tag: &Tag, arrival: RunningTime) -> (SourceTime, Option<Jump>) {
        let mut own = self.unwrapper.next(tag.timestamp);
        let reference = self.tracks.iter().max_by_key(|track| track.last.1);
        let expected = reference
            .filter(|_| self.is_aligned)
            .and_then(|reference| reference.misfit(own, arrival));
        let mut shift = 0;
        let mut jump = None;
        if let Some(expected) = expected {
            self.aligned_tracks += 1;
            // On a clock with another origin the wraps of the others mean nothing.
            self.unwrapper = TimestampUnwrapper::default();
            own = self.unwrapper.next(tag.timestamp);
            shift = expected - own;
            jump = Some(Jump {
                kind: match shift {
                    ..0 => JumpKind::Ahead,
                    _ => JumpKind::Back,
                },
                track: tag.kind,
                from: expected,
                to: own,
            });
        }
        let common = own + shift;
        self.tracks.push(Track {
            kind: tag.kind,
            id: tag.info.track,
            unwrapper: self.unwrapper,
            shift,
            first: (common, arrival),
            last: (common, arrival),
        });
        (SourceTime { own, common }, jump)
    }

    /// Returns the time of a description, which need not be in step with the media.
    pub(super) fn peek(&self, tag: &Tag) -> SourceTime {
        let key = (tag.kind, tag.info.track);
        let track = self.tracks.iter().find(|t| (t.kind, t.id) == key);
        let (unwrapper, shift) = track.map_or((&self.unwrapper, 0), |track| {
            (&track.unwrapper, track.shift)
        });
        let own = unwrapper.peek(tag.timestamp);
        SourceTime {
            own,
            common: own + shift,
        }
    }
}

impl Track {
    /// Returns the common time at which a new track's first tag belongs, if this time does not fit this
    /// track.
    fn misfit(&self, time: i64, arrival: RunningTime) -> Option<i64> {
        let (first, first_arrival) = self.first;
        let (last, last_arrival) = self.last;
        let now = last.saturating_add(millis_between(last_arrival, arrival));
        if (last - MAX_DISTANCE..=now.saturating_add(MAX_DISTANCE)).contains(&time) {
            return None;
        }
        let elapsed = millis_between(first_arrival, arrival);
        let lateness = elapsed.saturating_sub(time.saturating_sub(first));
        let is_late =
            time >= first - MAX_LATE_START && (-MAX_DISTANCE..=MAX_LATENESS).contains(&lateness);
        (!is_late).then_some(now)
    }
}

fn millis_between(from: RunningTime, to: RunningTime) -> i64 {
    (to.saturating_sub(from) / NANOS_PER_MILLI) as i64
}
