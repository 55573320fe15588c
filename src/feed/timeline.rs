// SPDX-License-Identifier: MPL-2.0

//! Places tags on the time of the outgoing stream.

use super::drift::{ClockDrift, DriftCorrector};
use super::jump::{Jump, JumpKind};
use super::source_clocks::SourceTime;
use super::time::{NANOS_PER_MILLI, RunningTime};
use crate::flv::{Tag, TagKind};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimestampMode {
    /// The first media of a publisher is at the running time of its arrival.
    #[default]
    RunningTime,
    /// The publisher's own timestamps.
    Publisher,
}

/// Step back within a track, in milliseconds, beyond which it is not disorder but a new start of
/// the publisher's clock.
const MAX_STEP_BACK: i64 = 1000;

/// Step ahead beyond the time that has passed, in milliseconds, that is a jump of the clock. The
/// first holds for a live publisher, whose clock has lately run with ours. A file that is sent as
/// fast as possible may have gaps, but none like the second.
const MAX_STEP_AHEAD: i64 = 2000;
const MAX_GAP: i64 = 24 * 3600 * 1000;

/// Length of the windows in which a clock is compared with ours, and the most that it may be off in
/// one, in milliseconds.
const LIVE_WINDOW: i64 = 1000;
const LIVE_WINDOW_NANOS: u64 = LIVE_WINDOW.unsigned_abs() * NANOS_PER_MILLI;
const MAX_DRIFT: u64 = 500;

/// Tags with one timestamp, and the time in nanoseconds that they span, after which a track has no
/// usable timestamps.
const FROZEN_TAGS: u32 = 10;
const FROZEN_TIME: u64 = 1_000_000_000;

/// Distance in milliseconds within which a frozen track whose timestamps move again is back on its
/// clock.
const MAX_THAWED_DISTANCE: u64 = 1000;

/// Distance in milliseconds that a description may have from the media around it, behind and ahead.
/// Beyond that its timestamp means nothing: many encoders stamp sequence headers with 0.
const MAX_DESCRIPTION_LAG: i64 = 10_000;
const MAX_DESCRIPTION_LEAD: i64 = 1000;

/// Most tracks whose order is kept: more than a publisher has. Further ones share the last one.
const MAX_TRACKS: usize = 32;

/// All times are in milliseconds. One offset holds for all tracks of a publisher, so that audio and
/// video stay together.
#[derive(Debug)]
pub(super) struct Timeline {
    mode: TimestampMode,
    /// The newest clock is last. Tracks change over one after the other when the publisher's clock
    /// starts again, and perhaps only some do.
    clocks: Vec<Clock>,
    /// Running time at time 0 of the stream. Set by the first media of all.
    base: Option<RunningTime>,
    /// Time of the present publisher's start.
    start: i64,
    /// Time of its last media.
    position: i64,
    /// Latest time of any media.
    latest: Option<i64>,
    /// Latest time of script data.
    last_script: i64,
    tracks: Vec<Track>,
    repairs: Repairs,
    /// None where drift is not corrected.
    drift: Option<DriftCorrector>,
}

/// One run of the publisher's clock, from one start to the next.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    id: u32,
    /// Added to the publisher's time.
    offset: i64,
    /// Time of the last tag on it, of any track.
    last_source: i64,
    /// Latest time on it, and the arrival of its tag.
    latest_source: i64,
    latest_arrival: RunningTime,
    /// Start of the present window.
    window_source: i64,
    window_arrival: RunningTime,
    /// In the last window it has run with ours.
    is_live: bool,
    /// Step on the stream's time, beyond the time that has passed, of the track that started it. The
    /// steps of the other tracks to this clock are equal.
    lead: i64,
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
            lead: 0,
        }
    }

    /// Notes media at this time.
    fn advance(&mut self, source: i64, arrival: RunningTime) {
        self.last_source = source;
        if source <= self.latest_source {
            return;
        }
        self.latest_source = source;
        self.latest_arrival = arrival;
        // Most tags are within the window, and need no division.
        if arrival.saturating_sub(self.window_arrival) >= LIVE_WINDOW_NANOS {
            let passed = millis_between(self.window_arrival, arrival);
            let played = source - self.window_source;
            self.is_live = played.abs_diff(passed) <= MAX_DRIFT;
            self.window_source = source;
            self.window_arrival = arrival;
        }
    }

    /// Returns the jump of a track that changes to this clock, if it does not continue there: the
    /// publisher's clock has started again after this one. `last` and `expected` are the track's
    /// last time and its time now on the stream: there its steps are short, however far apart the
    /// tracks are sent.
    fn break_at(
        &self,
        source: i64,
        arrival: RunningTime,
        last: i64,
        expected: i64,
    ) -> Option<JumpKind> {
        let time = source + self.offset;
        if time < last - MAX_STEP_BACK {
            Some(JumpKind::Back)
        } else if time - expected - self.lead > MAX_STEP_AHEAD
            && self.has_jumped_ahead(source, arrival)
        {
            Some(JumpKind::Ahead)
        } else {
            None
        }
    }

    /// Returns true when this time is a jump ahead.
    fn has_jumped_ahead(&self, source: i64, arrival: RunningTime) -> bool {
        let step = source - self.latest_source;
        if step <= MAX_STEP_AHEAD {
            return false;
        }
        let step = step - millis_between(self.latest_arrival, arrival);
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
    /// Correction of the drift when it had that time.
    last_correction: i64,
    /// On the publisher's time.
    last_source: Option<i64>,
    /// Arrival of the first tag with that timestamp, and the number of such tags.
    same_since: RunningTime,
    same_tags: u32,
    is_frozen: bool,
}

/// Repairs of timestamps, in tags or occurrences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Tags that stepped back a little, and got the time of the one before.
    pub clamped: u64,
    /// New starts of the publisher's clock, back or ahead.
    pub jumps: u64,
    /// Tags of tracks whose timestamps stand still, which got the time of their arrival.
    pub frozen: u64,
}

/// The times of a tag that leaves, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub time: u64,
    pub publisher_time: u64,
}

/// A place for media that is not settled yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    track: usize,
    time: i64,
    /// On the publisher's clock.
    own: i64,
    /// The break in the timestamps, if there is one here.
    pub jump: Option<Jump>,
}

impl Timeline {
    /// Corrects drift up to `max_drift` in parts per million, 0 for none.
    pub(super) fn new(mode: TimestampMode, max_drift: u32) -> Self {
        let is_corrected = mode == TimestampMode::RunningTime && max_drift > 0;
        Timeline {
            mode,
            clocks: vec![Clock::default()],
            base: None,
            start: 0,
            position: 0,
            latest: None,
            last_script: 0,
            tracks: Vec::new(),
            repairs: Repairs::default(),
            drift: is_corrected.then(|| DriftCorrector::new(max_drift)),
        }
    }

    pub(super) fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Returns the drift of the publisher's clock.
    pub(super) fn drift(&self) -> ClockDrift {
        let drift = self.drift.as_ref().map(DriftCorrector::drift);
        drift.unwrap_or_default()
    }

    /// Returns the correction of the drift in milliseconds.
    fn correction(&self) -> i64 {
        self.drift.as_ref().map_or(0, DriftCorrector::correction)
    }

    /// Notes that the publisher had to wait for the pipeline.
    pub(super) fn handle_backpressure(&mut self) {
        if let Some(drift) = &mut self.drift {
            drift.handle_backpressure();
        }
    }

    pub(super) fn start_publisher(&mut self) {
        self.forget_clocks();
        if let Some(drift) = &mut self.drift {
            drift.start_publisher();
        }
    }

    /// Forgets the publisher's clocks, but not its drift, which goes on.
    pub(super) fn forget_clocks(&mut self) {
        self.clocks = vec![Clock::default()];
        self.tracks.clear();
    }

    /// Begins the stream without a publisher.
    pub(super) fn begin(&mut self, now: RunningTime) {
        if self.mode == TimestampMode::RunningTime {
            self.base.get_or_insert(now);
        }
    }

    /// Moves the stream on to media that has its time already.
    pub(super) fn move_to(&mut self, time: i64) {
        self.position = time;
        self.advance_latest(time);
    }

    /// Keeps the next publisher from starting before a time.
    pub(super) fn start_no_earlier(&mut self, time: i64) {
        self.advance_latest(time - 1);
    }

    /// Returns the time of media by the publisher's newest clock.
    pub(super) fn time_of(&self, source: SourceTime) -> i64 {
        source.common + self.newest_clock().offset
    }

    /// Finds the offset of a publisher from the times of its first media. Returns the start and
    /// base of a segment in nanoseconds, where a new one is needed.
    pub(super) fn start_media(
        &mut self,
        sources: impl Iterator<Item = SourceTime>,
        arrival: RunningTime,
    ) -> Option<(u64, RunningTime)> {
        let mut sources = sources.map(|source| source.common);
        let media = sources.next()?;
        let first = match self.mode {
            TimestampMode::Publisher => sources.fold(media, i64::min),
            // Media further back is from after a new start of the publisher's clock.
            TimestampMode::RunningTime => sources
                .filter(|source| *source >= media - MAX_STEP_BACK)
                .fold(media, i64::min),
        };
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
        self.clocks = vec![Clock::starting(0, start - first, media, arrival)];
        if let Some(drift) = &mut self.drift {
            drift.handle_move(arrival);
        }
        self.start = start;
        self.position = start;
        segment
    }

    /// Converts a running time to the stream's time.
    fn stream_time(&self, running_time: RunningTime) -> i64 {
        millis_between(self.base.unwrap_or(running_time), running_time)
    }

    /// Returns the time at which a stream that broke off continues: now, but not before its end.
    fn continuation(&self, base: RunningTime, arrival: RunningTime) -> i64 {
        let now = millis_between(base, arrival);
        self.latest.map_or(now, |latest| now.max(latest + 1))
    }

    /// Moves on to a running time without media. Returns the stream's time before and the distance, in
    /// nanoseconds. With the publisher's own times there is nothing to move.
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
    #[inline]
    pub(super) fn locate(
        &mut self,
        tag: &Tag,
        source: SourceTime,
        arrival: RunningTime,
    ) -> Candidate {
        let SourceTime {
            own,
            common: source,
        } = source;
        let index = self.track(tag, source, arrival);
        let jump = self.assign_clock(index, source, arrival);
        let track = &mut self.tracks[index];
        let is_frozen = track.is_frozen;
        track.last_source = Some(source);
        let time = match self.mode {
            TimestampMode::Publisher => source,
            TimestampMode::RunningTime if is_frozen => self.stream_time(arrival),
            TimestampMode::RunningTime => {
                let time = source + self.clock(index).offset;
                time + self.correct_drift(time, arrival)
            }
        };
        Candidate {
            track: index,
            time,
            own,
            jump,
        }
    }

    /// Corrects the drift of the publisher's clock for all tracks, by the arrival of media at this time.
    /// Returns the milliseconds that they are moved by, mostly 0.
    fn correct_drift(&mut self, time: i64, arrival: RunningTime) -> i64 {
        let (Some(drift), Some(base)) = (&mut self.drift, self.base) else {
            return 0;
        };
        let passed = arrival.wrapping_sub(base).cast_signed();
        let time = time.saturating_mul(NANOS_PER_MILLI.cast_signed());
        let step = drift.advance(passed.saturating_sub(time), arrival);
        if step != 0 {
            self.move_clocks(step);
        }
        step
    }

    fn move_clocks(&mut self, distance: i64) {
        for clock in &mut self.clocks {
            clock.offset += distance;
        }
    }

    /// Returns the run of the publisher's clock that a candidate belongs to.
    pub(super) fn clock_id(&self, candidate: &Candidate) -> u32 {
        self.tracks[candidate.track].clock
    }

    /// Returns the running time of a candidate. The publisher's own times do not say it.
    pub(super) fn running_time(&self, candidate: &Candidate) -> Option<i64> {
        let base = self.base?.cast_signed();
        Some(base.saturating_add(candidate.time.saturating_mul(NANOS_PER_MILLI.cast_signed())))
    }

    /// Moves all tracks so that this media is at its arrival.
    pub(super) fn realign(&mut self, candidate: &mut Candidate, arrival: RunningTime) {
        if let Some(base) = self.base {
            let shift = self.continuation(base, arrival) - candidate.time;
            self.move_clocks(shift);
            candidate.time += shift;
            if let Some(drift) = &mut self.drift {
                drift.handle_move(arrival);
            }
        }
    }

    /// Moves the stream on to media.
    #[inline]
    pub(super) fn settle(&mut self, candidate: Candidate) -> Placement {
        let Candidate { time, own, .. } = candidate;
        if self.mode == TimestampMode::Publisher {
            self.position = own;
            self.advance_latest(time);
            return placement(own, own);
        }
        let correction = self.correction();
        let track = &mut self.tracks[candidate.track];
        // A step back by the correction of the drift is no fault of the publisher.
        let corrected = correction - std::mem::replace(&mut track.last_correction, correction);
        let is_back = time - corrected < track.last;
        self.repairs.frozen += u64::from(track.is_frozen);
        self.repairs.clamped += u64::from(is_back && !track.is_frozen);
        // Encoders repeat timestamps and step back by a few milliseconds.
        let time = time.max(track.last);
        track.last = time;
        self.position = time;
        self.advance_latest(time);
        placement(time, own)
    }

    fn advance_latest(&mut self, time: i64) {
        self.latest = Some(self.latest.map_or(time, |latest| latest.max(time)));
    }

    /// Keeps a track on its clock, or moves it to another one. Returns the jump if its timestamps broke.
    fn assign_clock(&mut self, index: usize, source: i64, arrival: RunningTime) -> Option<Jump> {
        if self.take_usual_step(index, source, arrival) {
            return None;
        }
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
                .count_repeat(index, arrival)
                .then(|| jump(JumpKind::Frozen));
        }
        let track = &mut self.tracks[index];
        let same_since = std::mem::replace(&mut track.same_since, arrival);
        track.same_tags = 1;
        let has_thawed = std::mem::take(&mut track.is_frozen);
        let own = *self.clock(index);
        let newest = *self.newest_clock();
        let distance = |clock: &Clock| source.abs_diff(clock.last_source);
        let last = from + own.offset;
        let expected = last + millis_between(same_since, arrival);
        let kind = if distance(&newest) < distance(&own) {
            let kind = newest.break_at(source, arrival, last, expected);
            if kind.is_none() {
                self.tracks[index].clock = newest.id;
            }
            kind
        } else if source < from - MAX_STEP_BACK {
            Some(JumpKind::Back)
        } else if own.has_jumped_ahead(source, arrival)
            || (has_thawed && !self.is_near_now(source + own.offset, arrival))
        {
            Some(JumpKind::Ahead)
        } else {
            None
        };
        if kind.is_some() {
            self.start_clock(index, source, arrival, expected);
        }
        self.clock_mut(index).advance(source, arrival);
        kind.map(jump)
    }

    /// Moves a track on where that needs no comparison of clocks. Returns false where it does.
    #[inline]
    fn take_usual_step(&mut self, index: usize, source: i64, arrival: RunningTime) -> bool {
        let [clock] = &mut self.clocks[..] else {
            return false;
        };
        let track = &mut self.tracks[index];
        let from = track.last_source.unwrap_or(source.wrapping_sub(1));
        let is_usual = source != from
            && source >= from - MAX_STEP_BACK
            && !track.is_frozen
            && !clock.has_jumped_ahead(source, arrival);
        if is_usual {
            track.same_since = arrival;
            track.same_tags = 1;
            clock.advance(source, arrival);
        }
        is_usual
    }

    fn is_near_now(&self, time: i64, now: RunningTime) -> bool {
        self.base.is_none() || time.abs_diff(self.stream_time(now)) <= MAX_THAWED_DISTANCE
    }

    /// Counts another tag of a track with the same timestamp. Returns true when it is one too many.
    fn count_repeat(&mut self, index: usize, arrival: RunningTime) -> bool {
        let track = &mut self.tracks[index];
        track.same_tags = track.same_tags.saturating_add(1);
        let time = arrival.saturating_sub(track.same_since);
        let freezes = !track.is_frozen && track.same_tags >= FROZEN_TAGS && time >= FROZEN_TIME;
        track.is_frozen |= freezes;
        freezes
    }

    /// Starts a clock with media that was `expected` at that time of the stream.
    fn start_clock(&mut self, index: usize, source: i64, arrival: RunningTime, expected: i64) {
        self.repairs.jumps += 1;
        let base = self.base.unwrap_or(arrival);
        let id = self.newest_clock().id.wrapping_add(1);
        // Where the stream is ahead of the arrivals, its end is no more than another track's last time.
        let time = self.continuation(base, arrival).max(expected);
        let clock = Clock {
            // The publisher is the same: if it was live, it still is.
            is_live: self.clock(index).is_live,
            lead: time - expected,
            ..Clock::starting(id, time - source, source, arrival)
        };
        if let Some(drift) = &mut self.drift {
            drift.handle_move(arrival);
        }
        self.tracks[index].clock = id;
        let tracks = &self.tracks;
        self.clocks
            .retain(|clock| tracks.iter().any(|track| track.clock == clock.id));
        self.clocks.push(clock);
    }

    fn newest_clock(&self) -> &Clock {
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
                    clock: self.nearest_clock(source).id,
                    // No track starts before the end of the publisher before.
                    last: self.start,
                    last_correction: self.correction(),
                    last_source: None,
                    same_since: arrival,
                    same_tags: 0,
                    is_frozen: false,
                });
                self.tracks.len() - 1
            }
        }
    }

    /// Returns the clock for a new track.
    fn nearest_clock(&self, source: i64) -> &Clock {
        let distance = |clock: &&Clock| source.abs_diff(clock.last_source);
        let nearest = self.clocks.iter().min_by_key(distance);
        nearest.unwrap_or(self.newest_clock())
    }

    /// Returns the present time of the stream.
    pub(super) fn position(&self) -> u64 {
        self.position.max(0) as u64
    }

    /// Places a description: at its own time if that is near the media, and otherwise at the media's
    /// time. Like media, it does not go back.
    pub(super) fn place_description(&mut self, tag: &Tag, source: SourceTime) -> Placement {
        let stamped = source.common + self.newest_clock().offset;
        let source = source.own;
        let distance = stamped - self.position;
        let is_near = stamped >= self.start
            && (-MAX_DESCRIPTION_LAG..=MAX_DESCRIPTION_LEAD).contains(&distance);
        let time = if is_near { stamped } else { self.position };
        if self.mode == TimestampMode::Publisher {
            return placement(time, source);
        }
        let key = (tag.kind, tag.info.track);
        let mut tracks = self.tracks.iter_mut();
        let last = match tracks.find(|track| (track.kind, track.id) == key) {
            Some(track) => &mut track.last,
            None if tag.kind == TagKind::Script => &mut self.last_script,
            None => return placement(time, source),
        };
        *last = time.max(*last);
        placement(*last, source)
    }
}

fn placement(time: i64, source: i64) -> Placement {
    Placement {
        time: time.max(0) as u64,
        publisher_time: source.max(0) as u64,
    }
}
