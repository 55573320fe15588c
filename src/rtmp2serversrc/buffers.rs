// SPDX-License-Identifier: MPL-2.0

//! Conversion of the feed's output into caps, segments and buffers.

use std::sync::LazyLock;

use bytes::Bytes;

use super::spare_buffers::{SpareBuffers, Supply, TagContent};
use crate::demuxer_choice::{ENHANCED, enhanced_field};
use crate::feed::OutputTag;

/// Caps of the reference timestamps of one epoch: `timestamp/x-rtmp` with the field `epoch`. All
/// buffers of the epoch share them, so a buffer carries its epoch at the cost of a pointer.
#[derive(Debug)]
pub(super) struct EpochCaps {
    epoch: u64,
    caps: gst::Caps,
}

impl EpochCaps {
    pub(super) fn new(epoch: u64) -> Self {
        let caps = gst::Caps::builder("timestamp/x-rtmp").field("epoch", epoch);
        EpochCaps {
            epoch,
            caps: caps.build(),
        }
    }

    pub(super) fn set(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = EpochCaps::new(epoch);
        }
    }
}

/// Caps of the reference timestamps that are the time of day, in UTC.
static UNIX_CAPS: LazyLock<gst::Caps> =
    LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-unix"));

pub(super) fn caps() -> gst::Caps {
    gst::Caps::new_empty_simple("video/x-flv")
}

/// Returns caps with the headers that a late client needs. They say if the stream needs a demuxer of
/// Enhanced FLV, where that matters.
pub(super) fn caps_with_stream_header(headers: Vec<Bytes>, is_enhanced: bool) -> gst::Caps {
    let headers = headers.into_iter().map(|header| {
        let mut buffer = gst::Buffer::from_slice(header);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_flags(gst::BufferFlags::HEADER);
        }
        buffer
    });
    gst::Caps::builder("video/x-flv")
        .field("streamheader", gst::Array::new(headers))
        .field_if_some(ENHANCED, enhanced_field(is_enhanced))
        .build()
}

/// Makes a buffer of a tag, without a copy of its bytes.
pub(super) fn buffer(
    tag: OutputTag,
    epoch: &EpochCaps,
    spare: &SpareBuffers,
    supply: &mut Supply,
) -> gst::Buffer {
    let mut flags = gst::BufferFlags::empty();
    flags.set(gst::BufferFlags::HEADER, tag.is_header);
    flags.set(gst::BufferFlags::DELTA_UNIT, tag.is_delta_unit);
    flags.set(gst::BufferFlags::DISCONT, tag.is_discont);
    let content = TagContent {
        bytes: tag.bytes,
        dts: Some(gst::ClockTime::from_nseconds(tag.dts)),
        pts: Some(gst::ClockTime::from_nseconds(tag.pts)),
        flags,
        reference: &epoch.caps,
        timestamp: gst::ClockTime::from_nseconds(tag.publisher_time),
    };
    let mut buffer = spare.build_from(supply, content);
    if let Some(time) = tag.time_of_day
        && let Some(buffer) = buffer.get_mut()
    {
        let time = gst::ClockTime::from_nseconds(time);
        gst::ReferenceTimestampMeta::add(buffer, &UNIX_CAPS, time, gst::ClockTime::NONE);
    }
    buffer
}

pub(super) fn segment(start: u64, base: u64) -> gst::FormattedSegment<gst::ClockTime> {
    let mut segment = gst::FormattedSegment::new();
    let start = gst::ClockTime::from_nseconds(start);
    segment.set_start(start);
    segment.set_time(start);
    segment.set_position(start);
    segment.set_base(gst::ClockTime::from_nseconds(base));
    segment
}
