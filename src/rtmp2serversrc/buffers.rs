// SPDX-License-Identifier: MPL-2.0

//! Conversion of the feed's output into caps, segments and buffers.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::feed::OutputTag;

/// Caps of a reference timestamp that is the publisher's own.
static REFERENCE: LazyLock<gst::Caps> =
    LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-rtmp"));

/// Meta that carries the epoch of a buffer, as field `epoch`.
const EPOCH_META: &str = "Rtmp2EpochMeta";

/// Registers the meta. Call it once, before the first buffer.
pub(super) fn register_meta() {
    // It is independent of the buffer's content, so it stays through any transformation.
    gst::meta::CustomMeta::register(EPOCH_META, &[]);
}

pub(super) fn caps() -> gst::Caps {
    gst::Caps::new_empty_simple("video/x-flv")
}

/// Returns caps with the headers that a late client needs.
pub(super) fn caps_with_stream_header(headers: Vec<Bytes>) -> gst::Caps {
    let headers = headers.into_iter().map(|header| {
        let mut buffer = gst::Buffer::from_slice(header);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_flags(gst::BufferFlags::HEADER);
        }
        buffer
    });
    gst::Caps::builder("video/x-flv")
        .field("streamheader", gst::Array::new(headers))
        .build()
}

/// Makes a buffer of a tag, without a copy of its bytes.
pub(super) fn buffer(tag: OutputTag, epoch: u64) -> gst::Buffer {
    let mut wanted = gst::BufferFlags::empty();
    wanted.set(gst::BufferFlags::HEADER, tag.is_header);
    wanted.set(gst::BufferFlags::DELTA_UNIT, tag.is_delta_unit);
    wanted.set(gst::BufferFlags::DISCONT, tag.is_discont);
    let mut buffer = gst::Buffer::from_mut_slice(tag.bytes);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_flags(wanted);
        buffer.set_dts(gst::ClockTime::from_nseconds(tag.dts));
        buffer.set_pts(gst::ClockTime::from_nseconds(tag.pts));
        if let Some(time) = tag.publisher_time {
            let time = gst::ClockTime::from_nseconds(time);
            gst::ReferenceTimestampMeta::add(buffer, &REFERENCE, time, gst::ClockTime::NONE);
        }
        if let Ok(mut meta) = gst::meta::CustomMeta::add(buffer, EPOCH_META) {
            let field = gst::glib::gstr!("epoch");
            meta.mut_structure().set_with_static(field, epoch);
        }
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
