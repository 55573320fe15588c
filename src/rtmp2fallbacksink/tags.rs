// SPDX-License-Identifier: MPL-2.0

//! Reads FLV buffers of one tag each, and rewrites their timestamps.

use super::configuration::Payload;
use super::coordinator::BufferTag;
use crate::flv::{
    FRONT_LENGTH, KeyframeDetector, TRAILER_LENGTH, Tag, TagInfo, TagKind, lowest_track,
    split_tracks,
};
use crate::memory::Memory;

/// An empty `onMetaData`: with it a connection can be opened before there is anything to send.
const EMPTY_METADATA: &[u8] = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09";

/// The first bytes of a file header.
const FILE_SIGNATURE: &[u8] = b"FLV";

/// Returns true for the file header, which no server needs.
pub(super) fn is_file_header(buffer: &gst::Buffer) -> bool {
    let map = buffer.map_readable();
    map.is_ok_and(|map| map.starts_with(FILE_SIGNATURE))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidBuffer {
    #[error("Each buffer must be one FLV tag: put flvmux before this element")]
    Framing,
}

/// Reads the tags of one publisher. The content of video is what its bitstream says, where the flag
/// of a tag is wrong.
#[derive(Debug, Default)]
pub(super) struct TagReader {
    keyframes: KeyframeDetector,
}

impl TagReader {
    /// Parses a buffer. Returns `None` for the file header and for tags that no decoder could use,
    /// which are not sent.
    pub(super) fn read(
        &mut self,
        buffer: &gst::Buffer,
    ) -> Result<Option<BufferTag>, InvalidBuffer> {
        let map = buffer.map_readable().map_err(|_| InvalidBuffer::Framing)?;
        if map.starts_with(FILE_SIGNATURE) {
            return Ok(None);
        }
        let (kind, body) = body(&map).ok_or(InvalidBuffer::Framing)?;
        // Bytes 4 to 7, of which the last one is the highest.
        let &[.., a, b, c, high, _, _, _] = &map[..FRONT_LENGTH] else {
            return Err(InvalidBuffer::Framing);
        };
        let timestamp = u32::from_be_bytes([high, a, b, c]);
        if map.len() > FRONT_LENGTH + body.len() + TRAILER_LENGTH {
            return Err(InvalidBuffer::Framing);
        }
        let Ok(mut info) = TagInfo::of(kind, body) else {
            return Ok(None);
        };
        self.keyframes.correct_info(kind, body, &mut info);
        // Players show the lowest track, wherever in the tag it is.
        info.track = lowest_track(kind, body, info.track);
        Ok(Some(BufferTag {
            payload: buffer.clone(),
            bytes: map.len(),
            kind,
            info,
            timestamp,
        }))
    }

    /// Returns the configuration in the `streamheader` of caps, if they have one. It may be that of
    /// another publisher, whose flags are another matter.
    pub(super) fn stream_header(&mut self, caps: &gst::Caps) -> Option<Vec<BufferTag>> {
        let structure = caps.structure(0)?;
        let array = structure.get::<gst::Array>("streamheader").ok()?;
        *self = TagReader::default();
        let buffers = array.iter();
        let buffers = buffers.filter_map(|value| value.get::<gst::Buffer>().ok());
        let tags = buffers.filter_map(|buffer| self.read(&buffer).ok().flatten());
        Some(tags.filter(BufferTag::is_configuration).collect())
    }
}

/// Returns the kind and the body of a framed tag, whose back pointer may be missing.
fn body(bytes: &[u8]) -> Option<(TagKind, &[u8])> {
    let front = bytes.get(..FRONT_LENGTH)?;
    let kind = match front[0] & 0x1F {
        8 => TagKind::Audio,
        9 => TagKind::Video,
        18 => TagKind::Script,
        _ => return None,
    };
    let length = u32::from_be_bytes([0, front[1], front[2], front[3]]) as usize;
    let body = bytes.get(FRONT_LENGTH..FRONT_LENGTH + length)?;
    Some((kind, body))
}

impl Payload for gst::Buffer {
    fn has_same_body(&self, other: &Self) -> bool {
        let (Ok(one), Ok(other)) = (self.map_readable(), other.map_readable()) else {
            return false;
        };
        body(&one).is_some_and(|(_, one)| Some(one) == body(&other).map(|(_, other)| other))
    }

    fn split(&self) -> Vec<(u8, Self)> {
        let Ok(map) = self.map_readable() else {
            return Vec::new();
        };
        let bodies = body(&map).and_then(|(kind, body)| Some((kind, split_tracks(kind, body)?)));
        let Some((kind, bodies)) = bodies else {
            return Vec::new();
        };
        let framed = bodies.into_iter().map(|(track, body)| {
            let bytes = Tag::frame(kind, Memory::from_vec(body, 0), 0);
            (track, gst::Buffer::from_mut_slice(bytes))
        });
        framed.collect()
    }
}

/// Milliseconds by which data may be ahead of the last media; with a larger step its time means
/// nothing, such as the time 0 that some publishers give all data.
const MAX_DATA_LEAD: i32 = 60_000;

/// Milliseconds that a track may step back by; a larger step means that the clock has restarted.
const MAX_LATE: i32 = 1000;

/// The timestamps sent on one connection: they start at 0 with its first media.
#[derive(Debug, Default)]
pub(super) struct OutputClock {
    last: Option<LastMedia>,
    /// The last input timestamp of each track.
    tracks: Vec<(TagKind, u8, u32)>,
}

/// Timestamps of the last media tag in milliseconds.
#[derive(Debug, Clone, Copy)]
struct LastMedia {
    input: u32,
    /// Time since the first media, sent modulo 2^32.
    output: u64,
}

impl OutputClock {
    /// Returns the tag with its output timestamp.
    pub(super) fn stamp(&mut self, tag: &BufferTag) -> gst::Buffer {
        let time = self.output_time(tag);
        with_timestamp(&tag.payload, time)
    }

    /// Returns a tag whose own timestamp is meaningless, with that of the last media.
    pub(super) fn stamp_at_last_media(&self, tag: &BufferTag) -> gst::Buffer {
        with_timestamp(&tag.payload, self.last.map_or(0, |last| last.output as u32))
    }

    fn output_time(&mut self, tag: &BufferTag) -> u32 {
        let input = tag.timestamp;
        let is_media = tag.info.is_coded();
        let Some(last) = self.last else {
            if is_media {
                self.advance(tag, 0);
            }
            return 0;
        };
        let step = input.wrapping_sub(last.input) as i32;
        if !is_media {
            let has_time = !tag.is_configuration() && (-MAX_LATE..=MAX_DATA_LEAD).contains(&step);
            let step = if has_time { step } else { 0 };
            return last.output.saturating_add_signed(step.into()) as u32;
        }
        if step < 0 && self.has_restarted(tag) {
            // The upstream timestamps have restarted: this tag repeats the last timestamp, and the
            // next ones continue from it.
            self.tracks.clear();
            self.advance(tag, last.output);
            return last.output as u32;
        }
        match last.output.checked_add_signed(step.into()) {
            Some(output) => {
                self.advance(tag, output);
                output as u32
            }
            // A tag of another track may be from shortly before the start.
            None => 0,
        }
    }

    fn advance(&mut self, tag: &BufferTag, output: u64) {
        let input = tag.timestamp;
        self.last = Some(LastMedia { input, output });
        let (kind, track) = (tag.kind, tag.info.track);
        let same = |seen: &&mut (TagKind, u8, u32)| (seen.0, seen.1) == (kind, track);
        match self.tracks.iter_mut().find(same) {
            Some(seen) => seen.2 = input,
            None => self.tracks.push((kind, track, input)),
        }
    }

    /// Tracks are not in order with each other, but each track is in order with itself.
    fn has_restarted(&self, tag: &BufferTag) -> bool {
        let mut same = self.tracks.iter();
        let same = same.find(|seen| (seen.0, seen.1) == (tag.kind, tag.info.track));
        same.is_some_and(|seen| (tag.timestamp.wrapping_sub(seen.2) as i32) < -MAX_LATE)
    }
}

/// Returns a copy of the tag with another timestamp, and without buffer metadata.
fn with_timestamp(buffer: &gst::Buffer, timestamp: u32) -> gst::Buffer {
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
    use super::super::configuration::Configuration;
    use super::*;
    use crate::flv::Content;

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

    fn read(buffer: &gst::Buffer) -> Result<Option<BufferTag>, InvalidBuffer> {
        TagReader::default().read(buffer)
    }

    fn stream_header(caps: &gst::Caps) -> Option<Vec<BufferTag>> {
        TagReader::default().stream_header(caps)
    }

    fn time(buffer: &gst::Buffer) -> u32 {
        read(buffer).unwrap().unwrap().timestamp
    }

    #[test]
    fn a_buffer_must_be_one_tag() {
        let tag = read(&frame(0x1234_5678)).unwrap().unwrap();
        assert_eq!((tag.timestamp, tag.kind), (0x1234_5678, TagKind::Video));
        assert_eq!(tag.bytes, FRONT_LENGTH + 6 + TRAILER_LENGTH);
        let bytes = frame(0).map_readable().unwrap().to_vec();
        let cut = |range: std::ops::Range<usize>| {
            read(&gst::Buffer::from_slice(bytes[range].to_vec())).map(|tag| tag.is_some())
        };
        assert_eq!(cut(0..FRONT_LENGTH + 6), Ok(true));
        for end in [0, 5, FRONT_LENGTH, FRONT_LENGTH + 5] {
            assert_eq!(cut(0..end), Err(InvalidBuffer::Framing), "{end}");
        }
        let two = [&bytes[..], &bytes].concat();
        assert_eq!(
            read(&gst::Buffer::from_slice(two)),
            Err(InvalidBuffer::Framing)
        );
        let header = gst::Buffer::from_slice(crate::flv::FILE_HEADER);
        assert_eq!(read(&header), Ok(None));
        assert!(read(&empty_metadata()).unwrap().unwrap().is_configuration());
    }

    #[test]
    fn timestamps_of_a_connection_start_at_its_first_media() {
        let start = u32::MAX - 10;
        let mut clock = OutputClock::default();
        let header = buffer(TagKind::Video, 77, &[0x17, 0, 0, 0, 0, 1]);
        let mut stamp = |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
        assert_eq!(stamp(&header), 0);
        assert_eq!(stamp(&frame(start)), 0);
        // Audio from before the keyframe, then the wrap of timestamps.
        assert_eq!(stamp(&audio(start - 5)), 0);
        assert_eq!(stamp(&frame(start.wrapping_add(40))), 40);
        assert_eq!(stamp(&frame(start.wrapping_add(100_000_000))), 100_000_000);
        // A header's own timestamp is ignored.
        assert_eq!(stamp(&header), 100_000_000);
    }

    #[test]
    fn timestamps_continue_for_months() {
        let mut clock = OutputClock::default();
        let mut stamp = |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
        let day = 24 * 3600 * 1000;
        let mut sent = 0u32;
        // More than two wraps.
        for _ in 0..120 {
            assert_eq!(stamp(&frame(sent.wrapping_add(5000))), sent);
            assert_eq!(stamp(&audio(sent.wrapping_add(5007))), sent.wrapping_add(7));
            sent = sent.wrapping_add(day);
        }
    }

    #[test]
    fn audio_may_lag_around_the_timestamp_wrap() {
        let mut clock = OutputClock::default();
        let mut stamp = |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
        for time in [0, 1 << 30, 1 << 31, 3 << 30] {
            assert_eq!(stamp(&frame(time)), time);
        }
        assert_eq!(stamp(&audio(u32::MAX - 20)), u32::MAX - 20);
        assert_eq!(stamp(&frame(3)), 3);
        assert_eq!(stamp(&audio(u32::MAX - 5)), u32::MAX - 5);
        assert_eq!(stamp(&frame(43)), 43);
    }

    #[test]
    fn timestamps_hold_and_continue_after_an_upstream_restart() {
        for length in [200, 1_000_000] {
            let mut clock = OutputClock::default();
            let mut stamp =
                |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
            let start = 90_000;
            assert_eq!(stamp(&frame(start)), 0);
            assert_eq!(stamp(&frame(start + length)), length);
            assert_eq!(stamp(&audio(start + length - 20)), length - 20);
            // A smaller step back is kept.
            assert_eq!(stamp(&audio(start + length - 30)), length - 30);
            assert_eq!(stamp(&frame(start + length + 40)), length + 40);
            assert_eq!(stamp(&frame(0)), length + 40);
            assert_eq!(stamp(&audio(10)), length + 50);
            assert_eq!(stamp(&frame(40)), length + 80);
        }
    }

    #[test]
    fn a_track_that_is_always_late_is_no_restart() {
        let mut clock = OutputClock::default();
        let mut stamp = |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
        for at in (0..10_000).step_by(40) {
            assert_eq!(stamp(&frame(5000 + at)), at);
            assert_eq!(stamp(&audio(2000 + at)), at.saturating_sub(3000));
        }
    }

    #[test]
    fn headers_and_data_without_a_time_change_no_timestamp_for_months() {
        let day: u32 = 24 * 3600 * 1000;
        for content in [&[0x17, 0, 0, 0, 0, 1][..], &[0xAF, 0, 0x11, 0x90]] {
            let mut clock = OutputClock::default();
            let mut stamp =
                |buffer: &gst::Buffer| time(&clock.stamp(&read(buffer).unwrap().unwrap()));
            let kind = if content[0] == 0x17 {
                TagKind::Video
            } else {
                TagKind::Audio
            };
            for days in 0..120u32 {
                let now = day.wrapping_mul(days);
                assert_eq!(stamp(&frame(now)), now);
                // As in `streamheader`, and from other times.
                for header in [0, 1 << 31, now.wrapping_add(1 << 30)] {
                    assert_eq!(stamp(&buffer(kind, header, content)), now, "{days}");
                }
                let text = b"\x02\x00\x0aonTextData\x05";
                assert_eq!(
                    stamp(&buffer(TagKind::Script, now.wrapping_add(500), text)),
                    now.wrapping_add(500)
                );
                if now > 1 << 20 && now < (1 << 31) {
                    assert_eq!(stamp(&buffer(TagKind::Script, 0, text)), now);
                }
                assert_eq!(stamp(&frame(now.wrapping_add(40))), now.wrapping_add(40));
            }
        }
    }

    #[test]
    fn caps_without_stream_header_state_nothing() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-flv");
        assert!(stream_header(&caps.build()).is_none());
        let headers = [frame(0), buffer(TagKind::Video, 0, &[0x17, 0, 0, 0, 0, 1])];
        let caps =
            gst::Caps::builder("video/x-flv").field("streamheader", gst::Array::new(headers));
        let headers = stream_header(&caps.build()).unwrap();
        assert_eq!(headers.len(), 1);
        assert!(headers[0].is_configuration());
    }

    /// A sequence header of H.264 tracks, each with one byte of record.
    fn header(tracks: &[(u8, u8)]) -> BufferTag {
        let tracks = tracks
            .iter()
            .flat_map(|(id, record)| [*id, 0, 0, 1, *record]);
        let body: Vec<u8> = b"\x96\x10avc1".iter().copied().chain(tracks).collect();
        read(&buffer(TagKind::Video, 0, &body)).unwrap().unwrap()
    }

    fn records(configuration: &Configuration<gst::Buffer>) -> Vec<(u8, u8)> {
        let record = |tag: BufferTag| {
            let map = tag.payload.map_readable().unwrap();
            let (_, body) = body(&map).unwrap();
            assert_eq!((&body[..6], body.len()), (&b"\x96\x00avc1"[..], 8));
            (body[6], body[7])
        };
        configuration.tags().into_iter().map(record).collect()
    }

    /// Each track has the configuration that was the last one for it, in whatever tag it came.
    #[test]
    fn configuration_of_several_tracks_is_that_of_each() {
        let mut configuration = Configuration::default();
        configuration.apply(&header(&[(0, 1), (1, 2)]));
        assert_eq!(records(&configuration), [(0, 1), (1, 2)]);
        configuration.apply(&header(&[(1, 3)]));
        configuration.apply(&header(&[(2, 4), (0, 5)]));
        assert_eq!(records(&configuration), [(0, 5), (1, 3), (2, 4)]);
        // In other tags, it is the same configuration.
        for known in [&[(2, 4), (1, 3)][..], &[(0, 5)], &[(1, 3), (0, 5), (2, 4)]] {
            assert!(configuration.contains(&header(known)), "{known:?}");
        }
        assert!(!configuration.contains(&header(&[(0, 5), (1, 2)])));
        assert!(!configuration.contains(&header(&[(0, 5), (3, 1)])));
        let forgotten = configuration.retain(&[header(&[(2, 4)]), header(&[(0, 5)])]);
        assert_eq!(forgotten.len(), 1);
        assert_eq!(forgotten[0].info.track, 1);
        assert_eq!(records(&configuration), [(0, 5), (2, 4)]);
    }

    #[test]
    fn track_of_a_tag_is_its_lowest() {
        let body = b"\x96\x13vp09\x07\0\0\x01a\x02\0\0\x01b\x05\0\0\x01c";
        let tag = read(&buffer(TagKind::Video, 0, body)).unwrap().unwrap();
        assert_eq!(tag.info.track, 2);
        // An empty track says nothing.
        let body = b"\x96\x13vp09\x07\0\0\x01a\x02\0\0\0\x05\0\0\x01c";
        let tag = read(&buffer(TagKind::Video, 0, body)).unwrap().unwrap();
        assert_eq!(tag.info.track, 5);
    }

    #[test]
    fn a_picture_is_what_its_bitstream_says() {
        let mut reader = TagReader::default();
        let mut content = |flags: u8, nal: &[u8]| {
            let front = [flags, 1, 0, 0, 0, 0, 0, 0, nal.len() as u8];
            let buffer = buffer(TagKind::Video, 0, &[&front[..], nal].concat());
            reader.read(&buffer).unwrap().unwrap().info.content
        };
        // An IDR and a P slice, each with either flag.
        let (idr, inter) = ([0x65, 0x88, 0x84, 0x00], [0x41, 0xC0, 0x84, 0x00]);
        assert_eq!(content(0x27, &inter), Content::Frame);
        assert_eq!(content(0x27, &idr), Content::Keyframe);
        assert_eq!(content(0x27, &inter), Content::Frame);
        assert_eq!(content(0x27, &idr), Content::Keyframe);
        assert_eq!(content(0x17, &inter), Content::Frame);
        assert_eq!(content(0x17, &idr), Content::Keyframe);
    }
}
