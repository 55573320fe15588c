// SPDX-License-Identifier: MPL-2.0

//! Timestamps of chunk streams, and the two meanings of a type 3 chunk that starts a message.
//!
//! The specification has such a chunk repeat the delta of the message before (section 5.3.1.2.4):
//! ffmpeg, GStreamer and Flash write it so. librtmp writes it where a message has the *time* of the
//! one before, and so OBS does with several audio tracks of equal size: read by the specification,
//! its time would run twice as fast.
//!
//! A client has one meaning, and shows it sooner or later:
//!
//! - Writers of repeated deltas never write a type 2 chunk with the delta of the message before,
//!   and librtmp never writes one with delta 0: both have type 3 for it.
//! - librtmp has one chunk stream for audio, video and even `publish`; the others have one for
//!   each.
//! - The same number of type 3 chunks after each step, again and again, are the other tracks.
//! - A type 0 chunk has a time that is a usual step away under one meaning only.
//! - Audio and video on other chunk streams advance as fast as under one meaning.
//!
//! Until then each clock keeps the time under the other meaning as well, and mends its own once the
//! client has shown what it means.

use super::header::MessageHeader;
use crate::rtmp::limits::MAX_REPEATED_TIMESTAMP;

/// Milliseconds that another chunk stream has to advance before its speed is compared.
const MIN_COMPARED: u32 = 2000;

/// Type 3 chunks without another header that can start messages of equal time: one for each track.
const MAX_SIMULTANEOUS: u8 = 32;

/// Steps in a row with the same number of type 3 chunks after each that show equal times. Rounded
/// deltas of one track do not repeat so regularly.
const MIN_EQUAL_STEPS: u8 = 8;

/// Milliseconds that a step between two messages may take where none is known yet.
const USUAL_STEP: u32 = 200;

/// Meaning of a type 3 chunk that starts a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type3Meaning {
    SameDelta,
    SameTime,
}

/// The clock of one chunk stream.
#[derive(Debug, Clone, Default)]
pub(super) struct ChunkClock {
    time: u32,
    /// Time field of the last header of type 0, 1 or 2.
    delta: u32,
    /// True if `delta` is the timestamp of a type 0 header.
    is_absolute: bool,
    /// Largest delta of types 1 and 2 that is no step back.
    largest_delta: u32,
    /// Type 3 chunks that have started messages since the last step.
    repeats: u8,
    /// The same number after the step before.
    previous_repeats: u8,
    /// Steps in a row with equal numbers.
    equal_steps: u8,
    /// Set while the two meanings differ.
    doubt: Option<Doubt>,
}

/// A time that depends on the meaning.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    assumed: Type3Meaning,
    /// The time under the other meaning.
    other_time: u32,
    reference: Option<Reference>,
}

/// Times at the start of a comparison with another chunk stream.
#[derive(Debug, Clone, Copy)]
struct Reference {
    csid: u32,
    time: u32,
    own_time: u32,
    other_time: u32,
}

impl ChunkClock {
    pub(super) fn time(&self) -> u32 {
        self.time
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Sets the timestamp of a type 0 header. Returns the meaning that it shows. The steps of a
    /// chunk stream with one track are regular.
    pub(super) fn set(&mut self, time: u32, has_one_track: bool) -> Option<Type3Meaning> {
        let evidence = self.doubt.take().and_then(|doubt| {
            let usual = self.largest_delta;
            let limit = usual.saturating_mul(2).max(USUAL_STEP);
            let own = time.wrapping_sub(self.time);
            let other = time.wrapping_sub(doubt.other_time);
            if own <= limit && other <= limit && has_one_track && usual > 0 {
                let (own, other) = (own.abs_diff(usual), other.abs_diff(usual));
                let is_better = |near: u32, far: u32| near.saturating_add(usual / 2) <= far;
                doubt.better(is_better(own, other), is_better(other, own))
            } else {
                doubt.better(own <= limit, other <= limit)
            }
        });
        self.time = time;
        self.delta = time;
        self.is_absolute = true;
        self.repeats = 0;
        evidence
    }

    /// Advances by the delta of a type 1 or 2 header. Returns the meaning that it shows.
    pub(super) fn advance(&mut self, header: &MessageHeader) -> Option<Type3Meaning> {
        let delta = header.time;
        let is_type_2 = header.length_and_type.is_none() && !header.extended;
        let mut evidence = match delta {
            0 if is_type_2 => Some(Type3Meaning::SameDelta),
            _ if is_type_2 && delta == self.delta && !self.is_absolute => {
                Some(Type3Meaning::SameTime)
            }
            _ => None,
        };
        // Deltas count modulo 2^32: writers step back in time with deltas like 0xFFFF_FFD8.
        self.time = self.time.wrapping_add(delta);
        if let Some(doubt) = &mut self.doubt {
            doubt.other_time = doubt.other_time.wrapping_add(delta);
        }
        if delta as i32 > 0 {
            self.largest_delta = self.largest_delta.max(delta);
        }
        self.delta = delta;
        self.is_absolute = false;
        if delta > 0 {
            let is_equal = self.repeats > 0 && self.repeats == self.previous_repeats;
            self.equal_steps = if is_equal {
                self.equal_steps.saturating_add(1)
            } else {
                0
            };
            self.previous_repeats = std::mem::take(&mut self.repeats);
            if self.equal_steps >= MIN_EQUAL_STEPS {
                evidence = Some(Type3Meaning::SameTime);
            }
        }
        evidence
    }

    /// Starts a message with a type 3 chunk. `extended` is its extended timestamp. Returns the
    /// meaning that it shows.
    pub(super) fn repeat(
        &mut self,
        meaning: Type3Meaning,
        is_certain: bool,
        extended: Option<u32>,
    ) -> Option<Type3Meaning> {
        if self.doubt.is_some_and(|doubt| doubt.assumed != meaning) {
            self.settle(meaning);
        }
        self.repeats = self.repeats.saturating_add(1);
        let step = self.repeated_delta(extended);
        let other_time = self.doubt.map_or(self.time, |doubt| doubt.other_time);
        let (time, other_time) = match meaning {
            Type3Meaning::SameDelta => (self.time.wrapping_add(step), other_time),
            Type3Meaning::SameTime => (self.time, other_time.wrapping_add(step)),
        };
        self.time = time;
        self.doubt = (!is_certain && time != other_time).then_some(Doubt {
            assumed: meaning,
            other_time,
            reference: self.doubt.and_then(|doubt| doubt.reference),
        });
        (self.repeats > MAX_SIMULTANEOUS && step > 0).then_some(Type3Meaning::SameDelta)
    }

    /// Returns the step of a repeated delta.
    fn repeated_delta(&self, extended: Option<u32>) -> u32 {
        // ffmpeg writes the real delta here even if it differs from the previous one.
        let value = extended.unwrap_or(self.delta);
        if !self.is_absolute {
            return value;
        }
        if value != self.delta {
            // A new absolute time, or the delta of ffmpeg.
            let step = value.wrapping_sub(self.time);
            return if step <= MAX_REPEATED_TIMESTAMP {
                step
            } else {
                value
            };
        }
        // go-rtmp writes type 0 after a step back, and then type 3 for the same time. A timestamp
        // that is no step of this chunk stream is no delta.
        let limit = match self.largest_delta {
            0 => MAX_REPEATED_TIMESTAMP,
            largest => largest.saturating_mul(2).min(MAX_REPEATED_TIMESTAMP),
        };
        if value <= limit { value } else { 0 }
    }

    /// Compares the speed of this clock with that of another chunk stream, which is at `time`.
    /// Tracks may be far apart, but they advance together. Returns the meaning that it shows.
    pub(super) fn compare(&mut self, csid: u32, time: u32) -> Option<Type3Meaning> {
        let doubt = self.doubt.as_mut()?;
        let reference = *doubt.reference.get_or_insert(Reference {
            csid,
            time,
            own_time: self.time,
            other_time: doubt.other_time,
        });
        let advance = time.wrapping_sub(reference.time);
        if csid != reference.csid || advance < MIN_COMPARED {
            return None;
        }
        let error = |now: u32, start: u32| now.wrapping_sub(start).abs_diff(advance);
        let own = error(self.time, reference.own_time);
        let other = error(doubt.other_time, reference.other_time);
        let is_better = |near: u32, far: u32| near <= advance / 4 && far >= advance / 2;
        doubt.better(is_better(own, other), is_better(other, own))
    }

    /// Mends the clock: from now on its time is that of this meaning.
    pub(super) fn settle(&mut self, meaning: Type3Meaning) {
        if let Some(doubt) = self.doubt.take()
            && doubt.assumed != meaning
        {
            self.time = doubt.other_time;
        }
    }
}

impl Doubt {
    /// Returns the meaning that fits, if only one does.
    fn better(self, own_fits: bool, other_fits: bool) -> Option<Type3Meaning> {
        let other = match self.assumed {
            Type3Meaning::SameDelta => Type3Meaning::SameTime,
            Type3Meaning::SameTime => Type3Meaning::SameDelta,
        };
        match (own_fits, other_fits) {
            (true, false) => Some(self.assumed),
            (false, true) => Some(other),
            _ => None,
        }
    }
}
