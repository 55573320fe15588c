// SPDX-License-Identifier: MPL-2.0

//! Buffers of FLV, a tag each, and their times.

use super::shared::BufferTag;
use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagInfo, TagKind};
use crate::memory::Memory;

/// `onMetaData` that says nothing: with it a connection can be opened before there is anything to
/// send.
const EMPTY_METADATA: &[u8] = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotATag {
    #[error(
        "Each buffer has to be one FLV tag, as flvmux makes them: put that before this element"
    )]
    Framing,
}

/// What is in a buffer. None for what is not to be sent: the file header, and tags that no decoder
/// could use.
pub(super) fn read(buffer: &gst::Buffer) -> Result<Option<BufferTag>, NotATag> {
    let map = buffer.map_readable().map_err(|_| NotATag::Framing)?;
    if map.starts_with(b"FLV") {
        return Ok(None);
    }
    let kind = match map.first().map(|first| first & 0x1F) {
        Some(8) => TagKind::Audio,
        Some(9) => TagKind::Video,
        Some(18) => TagKind::Script,
        _ => return Err(NotATag::Framing),
    };
    let front = map.get(..FRONT_LENGTH).ok_or(NotATag::Framing)?;
    let length = u32::from_be_bytes([0, front[1], front[2], front[3]]) as usize;
    let timestamp = u32::from_be_bytes([front[7], front[4], front[5], front[6]]);
    // The back pointer may be missing.
    let body = map[FRONT_LENGTH..].get(..length);
    let body = body.ok_or(NotATag::Framing)?;
    if map.len() > FRONT_LENGTH + length + TRAILER_LENGTH {
        return Err(NotATag::Framing);
    }
    let Ok(info) = TagInfo::of(kind, body) else {
        return Ok(None);
    };
    Ok(Some(BufferTag {
        payload: buffer.clone(),
        bytes: map.len(),
        kind,
        info,
        timestamp,
    }))
}

/// What is in caps for those that come late.
pub(super) fn stream_header(caps: &gst::Caps) -> Vec<BufferTag> {
    let array = caps
        .structure(0)
        .and_then(|s| s.get::<gst::Array>("streamheader").ok());
    let buffers = array.iter().flat_map(|array| array.iter());
    let buffers = buffers.filter_map(|value| value.get::<gst::Buffer>().ok());
    let tags = buffers.filter_map(|buffer| read(&buffer).ok().flatten());
    tags.filter(BufferTag::is_configuration).collect()
}

/// The configuration that has come last.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<BufferTag>);

impl Seen {
    /// Whether a configuration says something that the one before it did not.
    pub(super) fn is_news(&mut self, tag: &BufferTag) -> bool {
        let before = self.0.iter().position(|seen| tag.takes_place_of(seen));
        if before.is_some_and(|index| has_same_body(&self.0[index].payload, &tag.payload)) {
            return false;
        }
        if let Some(index) = before {
            self.0.remove(index);
        }
        self.0.push(tag.clone());
        true
    }
}

fn has_same_body(one: &gst::Buffer, other: &gst::Buffer) -> bool {
    let (Ok(one), Ok(other)) = (one.map_readable(), other.map_readable()) else {
        return false;
    };
    one.get(FRONT_LENGTH..) == other.get(FRONT_LENGTH..)
}

/// The times of one connection: they start at its first media.
#[derive(Debug, Default)]
pub(super) struct Times {
    start: Option<u32>,
}

impl Times {
    /// A tag as it leaves.
    pub(super) fn stamp(&mut self, tag: &BufferTag) -> gst::Buffer {
        if tag.info.is_coded() {
            self.start.get_or_insert(tag.timestamp);
        }
        stamped(&tag.payload, self.of(tag))
    }

    /// Where a tag belongs.
    pub(super) fn of(&self, tag: &BufferTag) -> u32 {
        self.start.map_or(0, |start| since(start, tag.timestamp))
    }

    /// A tag whose own time means nothing here.
    pub(super) fn stamp_at(&self, tag: &BufferTag, time: u32) -> gst::Buffer {
        stamped(&tag.payload, time)
    }
}

/// Of another track it may be from shortly before the start.
fn since(start: u32, timestamp: u32) -> u32 {
    let elapsed = timestamp.wrapping_sub(start);
    if elapsed as i32 >= 0 { elapsed } else { 0 }
}

/// The same tag at another time, without anything that says more of it.
fn stamped(buffer: &gst::Buffer, timestamp: u32) -> gst::Buffer {
    let mut bytes = buffer
        .map_readable()
        .map_or_else(|_| Vec::new(), |map| map.to_vec());
    if let Some(time) = bytes.get_mut(4..8) {
        let [high, a, b, c] = timestamp.to_be_bytes();
        time.copy_from_slice(&[a, b, c, high]);
    }
    gst::Buffer::from_mut_slice(bytes)
}

pub(super) fn empty_metadata() -> gst::Buffer {
    let body = Memory::from_vec(EMPTY_METADATA.to_vec(), 0);
    gst::Buffer::from_mut_slice(Tag::frame(TagKind::Script, body, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(kind: TagKind, timestamp: u32, body: &[u8]) -> gst::Buffer {
        gst::init().unwrap();
        let body = Memory::from_vec(body.to_vec(), 0);
        gst::Buffer::from_mut_slice(Tag::frame(kind, body, timestamp))
    }

    fn frame(timestamp: u32) -> gst::Buffer {
        buffer(TagKind::Video, timestamp, &[0x17, 1, 0, 0, 0, 5])
    }

    fn time(buffer: &gst::Buffer) -> u32 {
        read(buffer).unwrap().unwrap().timestamp
    }

    #[test]
    fn a_buffer_is_one_tag() {
        let tag = read(&frame(0x1234_5678)).unwrap().unwrap();
        assert_eq!((tag.timestamp, tag.kind), (0x1234_5678, TagKind::Video));
        assert_eq!(tag.bytes, FRONT_LENGTH + 6 + TRAILER_LENGTH);
        let bytes = frame(0).map_readable().unwrap().to_vec();
        let cut = |range: std::ops::Range<usize>| {
            read(&gst::Buffer::from_slice(bytes[range].to_vec())).map(|tag| tag.is_some())
        };
        assert_eq!(cut(0..FRONT_LENGTH + 6), Ok(true));
        for end in [0, 5, FRONT_LENGTH, FRONT_LENGTH + 5] {
            assert_eq!(cut(0..end), Err(NotATag::Framing), "{end}");
        }
        let two = [&bytes[..], &bytes].concat();
        assert_eq!(read(&gst::Buffer::from_slice(two)), Err(NotATag::Framing));
        let header = gst::Buffer::from_slice(crate::flv::FILE_HEADER);
        assert_eq!(read(&header), Ok(None));
        assert!(read(&empty_metadata()).unwrap().unwrap().is_configuration());
    }

    #[test]
    fn times_of_a_connection_start_at_its_first_media() {
        let start = u32::MAX - 10;
        let mut times = Times::default();
        let header = buffer(TagKind::Video, 77, &[0x17, 0, 0, 0, 0, 1]);
        let mut stamp = |buffer: &gst::Buffer| time(&times.stamp(&read(buffer).unwrap().unwrap()));
        assert_eq!(stamp(&header), 0);
        assert_eq!(stamp(&frame(start)), 0);
        // Audio from before the keyframe, and the wrap of times.
        assert_eq!(stamp(&buffer(TagKind::Audio, start - 5, &[0xAF, 1, 0])), 0);
        assert_eq!(stamp(&frame(start.wrapping_add(40))), 40);
        assert_eq!(stamp(&frame(start.wrapping_add(100_000_000))), 100_000_000);
    }
}
