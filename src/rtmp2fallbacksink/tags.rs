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

/// What a track may step back by and be late; beyond it there is another clock.
const MAX_LATE: i32 = 1000;

/// The times of one connection: they start at its first media, and go on from tag to tag.
#[derive(Debug, Default)]
pub(super) struct Times {
    last: Option<Last>,
    /// Where each track is, as it came.
    tracks: Vec<(TagKind, u8, u32)>,
}

/// The last media.
#[derive(Debug, Clone, Copy)]
struct Last {
    came: u32,
    /// Since the start, which a server is told modulo 2^32.
    left: u64,
}

impl Times {
    /// A tag as it leaves.
    pub(super) fn stamp(&mut self, tag: &BufferTag) -> gst::Buffer {
        let time = self.of(tag);
        stamped(&tag.payload, time)
    }

    /// A tag whose own time means nothing here.
    pub(super) fn stamp_at_last(&self, tag: &BufferTag) -> gst::Buffer {
        stamped(&tag.payload, self.last.map_or(0, |last| last.left as u32))
    }

    fn of(&mut self, tag: &BufferTag) -> u32 {
        let came = tag.timestamp;
        let is_media = tag.info.is_coded();
        let Some(last) = self.last else {
            if is_media {
                self.go_on(tag, 0);
            }
            return 0;
        };
        let step = came.wrapping_sub(last.came) as i32;
        if !is_media {
            let step = if step < -MAX_LATE { 0 } else { step };
            return last.left.saturating_add_signed(step.into()) as u32;
        }
        if step < 0 && self.is_behind_itself(tag) {
            // Upstream has started anew: time stands still for one tag, and goes on from there.
            self.tracks.clear();
            self.go_on(tag, last.left);
            return last.left as u32;
        }
        match last.left.checked_add_signed(step.into()) {
            Some(left) => {
                self.go_on(tag, left);
                left as u32
            }
            // Of another track it may be from shortly before the start.
            None => 0,
        }
    }

    fn go_on(&mut self, tag: &BufferTag, left: u64) {
        let came = tag.timestamp;
        self.last = Some(Last { came, left });
        let (kind, track) = (tag.kind, tag.info.track);
        let same = |seen: &&mut (TagKind, u8, u32)| (seen.0, seen.1) == (kind, track);
        match self.tracks.iter_mut().find(same) {
            Some(seen) => seen.2 = came,
            None => self.tracks.push((kind, track, came)),
        }
    }

    /// Tracks are not in order with each other, but each is with itself.
    fn is_behind_itself(&self, tag: &BufferTag) -> bool {
        let mut same = self.tracks.iter();
        let same = same.find(|seen| (seen.0, seen.1) == (tag.kind, tag.info.track));
        same.is_some_and(|seen| (tag.timestamp.wrapping_sub(seen.2) as i32) < -MAX_LATE)
    }
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

    fn audio(timestamp: u32) -> gst::Buffer {
        buffer(TagKind::Audio, timestamp, &[0xAF, 1, 0])
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
        assert_eq!(stamp(&audio(start - 5)), 0);
        assert_eq!(stamp(&frame(start.wrapping_add(40))), 40);
        assert_eq!(stamp(&frame(start.wrapping_add(100_000_000))), 100_000_000);
        // A header says nothing of its time.
        assert_eq!(stamp(&header), 100_000_000);
    }

    #[test]
    fn times_go_on_for_as_long_as_a_connection_holds() {
        let mut times = Times::default();
        let mut stamp = |buffer: &gst::Buffer| time(&times.stamp(&read(buffer).unwrap().unwrap()));
        let day = 24 * 3600 * 1000;
        let mut sent = 0u32;
        // More than twice around.
        for _ in 0..120 {
            assert_eq!(stamp(&frame(sent.wrapping_add(5000))), sent);
            assert_eq!(stamp(&audio(sent.wrapping_add(5007))), sent.wrapping_add(7));
            sent = sent.wrapping_add(day);
        }
    }

    #[test]
    fn around_the_wrap_sound_may_be_behind() {
        let mut times = Times::default();
        let mut stamp = |buffer: &gst::Buffer| time(&times.stamp(&read(buffer).unwrap().unwrap()));
        for time in [0, 1 << 30, 1 << 31, 3 << 30] {
            assert_eq!(stamp(&frame(time)), time);
        }
        assert_eq!(stamp(&audio(u32::MAX - 20)), u32::MAX - 20);
        assert_eq!(stamp(&frame(3)), 3);
        assert_eq!(stamp(&audio(u32::MAX - 5)), u32::MAX - 5);
        assert_eq!(stamp(&frame(43)), 43);
    }

    #[test]
    fn where_the_clock_upstream_starts_anew_time_stays_and_then_goes_on() {
        for length in [200, 1_000_000] {
            let mut times = Times::default();
            let mut stamp =
                |buffer: &gst::Buffer| time(&times.stamp(&read(buffer).unwrap().unwrap()));
            let start = 90_000;
            assert_eq!(stamp(&frame(start)), 0);
            assert_eq!(stamp(&frame(start + length)), length);
            assert_eq!(stamp(&audio(start + length - 20)), length - 20);
            // A step too small for that is as it came.
            assert_eq!(stamp(&audio(start + length - 30)), length - 30);
            assert_eq!(stamp(&frame(start + length + 40)), length + 40);
            assert_eq!(stamp(&frame(0)), length + 40);
            assert_eq!(stamp(&audio(10)), length + 50);
            assert_eq!(stamp(&frame(40)), length + 80);
        }
    }

    #[test]
    fn a_track_that_is_always_late_is_no_step_back() {
        let mut times = Times::default();
        let mut stamp = |buffer: &gst::Buffer| time(&times.stamp(&read(buffer).unwrap().unwrap()));
        for at in (0..10_000).step_by(40) {
            assert_eq!(stamp(&frame(5000 + at)), at);
            assert_eq!(stamp(&audio(2000 + at)), at.saturating_sub(3000));
        }
    }
}
