// SPDX-License-Identifier: MPL-2.0

//! The outgoing stream: tags with their times, and what stands between them.

use bytes::Bytes;

use super::codecs::RefusedTrack;
use super::imbalance::Imbalance;
use super::jump::Jump;
use super::standby::{StandbyChange, StandbyMismatch};
use super::time::RunningTime;
use crate::memory::Memory;

/// One item of the outgoing stream, in the order in which it leaves.
#[derive(Debug)]
pub enum FeedOutput<M> {
    /// The stream header from here on: the file header, metadata and sequence headers, which a client
    /// that connects late needs.
    Headers(Vec<Bytes>),
    /// A segment: timestamp `start` means running time `base` from here on. In nanoseconds.
    Segment {
        start: u64,
        base: RunningTime,
    },
    Tag(OutputTag),
    /// A mark of the caller, set by [`Feed::mark`](super::Feed::mark) between the tags.
    Mark(M),
    /// The next sequence header replaces another one: decoders start again.
    Reconfigured,
    /// Standby plays from here on, or the publisher does again.
    Standby(StandbyChange),
    /// An event for the application.
    Event(FeedEvent),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedEvent {
    Jump(Jump),
    Imbalance(Imbalance),
    /// A backlog was skipped: its number of tags.
    BacklogSkipped(u64),
    /// Media leaves without a keyframe after waiting for this long, in nanoseconds.
    NoKeyframe(u64),
    /// A track is in a codec that is not accepted. Once for each track and codec of a publisher.
    TrackRefused(RefusedTrack),
    /// The file of standby and the publisher have other codecs. Once for each kind of track.
    StandbyMismatch(StandbyMismatch),
}

/// A tag with its times in nanoseconds.
#[derive(Debug)]
pub struct OutputTag {
    pub bytes: Memory,
    pub dts: u64,
    pub pts: u64,
    /// The publisher's own timestamp, unwrapped. 0 for the file header.
    pub publisher_time: u64,
    /// Nanoseconds since the Unix epoch, if the publisher has stated the time of day.
    pub time_of_day: Option<u64>,
    /// Part of the stream header.
    pub is_header: bool,
    /// Decoding can't start here.
    pub is_delta_unit: bool,
    pub is_discont: bool,
    /// Media with which decoding can start, or the first media after the wait for it has ended.
    pub starts_decoding: bool,
}

/// Numbers of tags that did not leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedTags {
    /// Video before the first keyframe, and audio that could not be held until it came.
    pub before_keyframe: u64,
    /// Descriptions of media that never came, more than can be kept.
    pub descriptions: u64,
    /// Media of a backlog.
    pub late: u64,
    /// Media in a codec that is not accepted. Each track of a tag with several counts.
    pub codec_refused: u64,
    /// Descriptions of a publisher that has ended without media.
    pub at_end: u64,
}

impl DroppedTags {
    /// Returns the number of those that have no event of their own.
    pub fn without_event(&self) -> u64 {
        self.before_keyframe + self.descriptions + self.at_end
    }
}
