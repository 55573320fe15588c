// SPDX-License-Identifier: MPL-2.0
//! Publishers' media, serialised before the clock starts: H.264 and AAC by structure, noise by
//! content.
//!
//! Media repeat with the period of a GOP. Headers after the first carry timestamp deltas, so the
//! bytes of one period are those of every other, and a publisher of any length is one buffer,
//! written repeatedly.

use std::ops::Range;
use std::time::Duration;

use crate::chunk::{self, ChunkWriter};

/// Message stream id that every server of the benchmark assigns to its first stream.
pub const MSID: u32 = 1;

/// Offset of the time stamp in a tag's payload: after FLV's AVC header and the NAL unit's length
/// and type.
pub const STAMP_OFFSET: usize = 5 + 5;

/// Marks a stamped tag; a NAL unit of noise does not start with it.
pub const STAMP_MARK: u32 = 0x5254_4d50;

const DATA_CSID: u8 = 5;
const AUDIO_CSID: u8 = 4;
const VIDEO_CSID: u8 = 6;
const CONTROL_CSID: u8 = 2;

/// Duration of a GOP, in milliseconds.
pub const GOP: u32 = 2000;
/// Size of a keyframe, in sizes of another frame.
const KEYFRAME_WEIGHT: u32 = 6;
/// Bytes up to which short periods are repeated, so that a fast publisher writes in large pieces.
const LOOP_BYTES: usize = 1 << 20;

/// Kind of media that a publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub name: &'static str,
    /// Bits per second; 0 is none.
    pub video: u32,
    pub audio: u32,
    /// Frames and audio tags in a GOP.
    frames: u32,
    audio_tags: u32,
}

pub const FULL_HD: Profile = profile("1080p 6 Mbit/s", 6_000_000, 128_000);
pub const UHD: Profile = profile("4K 40 Mbit/s", 40_000_000, 128_000);
pub const SMALL: Profile = profile("360p 500 kbit/s", 500_000, 64_000);
pub const AUDIO_ONLY: Profile = profile("audio only, 128 kbit/s", 0, 128_000);
pub const PACED: Profile = profile("2 Mbit/s", 1_872_000, 128_000);
/// Media of a camera.
pub const SENT_ON: Profile = profile("4 Mbit/s", 3_872_000, 128_000);
/// Media of a low rate, at which encoders halve the frame rate, and AAC has twice the samples in a
/// tag.
pub const TINY: Profile = Profile {
    frames: 30,
    audio_tags: 43,
    ..profile("100 kbit/s", 68_000, 32_000)
};

const fn profile(name: &'static str, video: u32, audio: u32) -> Profile {
    Profile {
        name,
        video,
        audio,
        frames: 60,
        audio_tags: 94,
    }
}

/// Bytes of one message in a stream, and the time when a live publisher would write them.
#[derive(Clone, Debug)]
pub struct Step {
    pub due: Duration,
    pub bytes: Range<usize>,
}

/// Serialised successive messages.
#[derive(Debug, Default)]
pub struct Section {
    pub bytes: Vec<u8>,
    pub steps: Vec<Step>,
    /// Bytes of tags, without chunk headers and protocol control.
    pub payload: u64,
}

/// A publisher's media: `start` once, then `repeat` any number of times.
#[derive(Debug)]
pub struct Stream {
    /// Set Chunk Size, metadata and sequence headers, and the first period.
    pub start: Section,
    pub repeat: Section,
    pub period: Duration,
}

impl Stream {
    pub fn new(profile: Profile, chunk_size: usize) -> Self {
        let mut writer = Serialiser::new(chunk_size);
        writer.headers(profile);
        writer.gop(profile, 0);
        let start = writer.take();

        let gops = (LOOP_BYTES / start.bytes.len()).max(1) as u32;
        for gop in 1..=gops {
            writer.gop(profile, gop);
        }
        let mut repeat = writer.take();
        for step in &mut repeat.steps {
            step.due -= Duration::from_millis(GOP.into());
        }
        Self {
            start,
            repeat,
            period: Duration::from_millis((gops * GOP).into()),
        }
    }

    /// Number of times to write `repeat` for a transfer of at least `payload` bytes.
    pub fn repeats(&self, payload: u64) -> u64 {
        payload
            .saturating_sub(self.start.payload)
            .div_ceil(self.repeat.payload)
    }

    pub fn payload(&self, repeats: u64) -> u64 {
        self.start.payload + repeats * self.repeat.payload
    }
}

/// The headers only, for publishers that write single tags.
pub fn headers(profile: Profile, chunk_size: usize) -> Serialiser {
    let mut writer = Serialiser::new(chunk_size);
    writer.headers(profile);
    writer
}

/// An H.264 tag with space for a stamp in its payload.
pub fn video_tag(keyframe: bool, size: usize, seed: u32) -> Vec<u8> {
    let nal_length = size.saturating_sub(9).max(16) as u32;
    let mut tag = vec![if keyframe { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    tag.extend_from_slice(&nal_length.to_be_bytes());
    tag.push(if keyframe { 0x65 } else { 0x41 });
    noise(&mut tag, nal_length as usize - 1, seed);
    tag
}

pub struct Serialiser {
    chunks: ChunkWriter,
    section: Section,
}

impl Serialiser {
    fn new(chunk_size: usize) -> Self {
        let mut serialiser = Self {
            chunks: ChunkWriter::new(chunk_size),
            section: Section::default(),
        };
        serialiser.message(
            Duration::ZERO,
            CONTROL_CSID,
            chunk::SET_CHUNK_SIZE,
            &(chunk_size as u32).to_be_bytes(),
        );
        serialiser
    }

    pub fn take(&mut self) -> Section {
        std::mem::take(&mut self.section)
    }

    pub fn video(&mut self, at: Duration, tag: &[u8]) {
        self.message(at, VIDEO_CSID, chunk::VIDEO, tag);
    }

    fn headers(&mut self, profile: Profile) {
        self.message(Duration::ZERO, DATA_CSID, chunk::DATA, &metadata(profile));
        for (type_id, tag) in sequence_headers(profile) {
            let csid = match type_id {
                chunk::VIDEO => VIDEO_CSID,
                _ => AUDIO_CSID,
            };
            self.message(Duration::ZERO, csid, type_id, &tag);
        }
    }

    fn gop(&mut self, profile: Profile, number: u32) {
        for (time, type_id, tag) in gop(profile) {
            let csid = match type_id {
                chunk::VIDEO => VIDEO_CSID,
                _ => AUDIO_CSID,
            };
            let at = Duration::from_millis((number * GOP + time).into());
            self.message(at, csid, type_id, &tag);
        }
    }

    fn message(&mut self, at: Duration, csid: u8, type_id: u8, payload: &[u8]) {
        let from = self.section.bytes.len();
        let (timestamp, msid) = (
            at.as_millis() as u32,
            if csid == CONTROL_CSID { 0 } else { MSID },
        );
        self.chunks.write(
            &mut self.section.bytes,
            csid,
            timestamp,
            type_id,
            msid,
            payload,
        );
        self.section.steps.push(Step {
            due: at,
            bytes: from..self.section.bytes.len(),
        });
        if type_id != chunk::SET_CHUNK_SIZE {
            self.section.payload += payload.len() as u64;
        }
    }
}

pub fn sequence_headers(profile: Profile) -> Vec<(u8, Vec<u8>)> {
    let mut headers = Vec::new();
    if profile.video > 0 {
        headers.push((chunk::VIDEO, avc_sequence_header()));
    }
    if profile.audio > 0 {
        // AAC-LC, 48 kHz, stereo.
        headers.push((chunk::AUDIO, vec![0xaf, 0, 0x11, 0x90]));
    }
    headers
}

/// The frames and audio of a GOP, ordered by their timestamps in milliseconds.
pub fn gop(profile: Profile) -> Vec<(u32, u8, Vec<u8>)> {
    let mut tags = Vec::new();
    if profile.video > 0 {
        let bytes = profile.video / 8 * GOP / 1000;
        let unit = bytes / (profile.frames - 1 + KEYFRAME_WEIGHT);
        for frame in 0..profile.frames {
            let size = match frame {
                0 => unit * KEYFRAME_WEIGHT,
                // Frames differ in size, in pairs that average to the mean.
                odd if odd % 2 == 1 => unit * 7 / 10,
                _ => unit * 13 / 10,
            };
            let tag = video_tag(frame == 0, size as usize, frame);
            tags.push((frame * GOP / profile.frames, chunk::VIDEO, tag));
        }
    }
    if profile.audio > 0 {
        let size = profile.audio / 8 * GOP / 1000 / profile.audio_tags;
        for index in 0..profile.audio_tags {
            let mut tag = vec![0xaf, 1];
            noise(&mut tag, size as usize, index);
            tags.push((index * GOP / profile.audio_tags, chunk::AUDIO, tag));
        }
    }
    tags.sort_by_key(|(time, ..)| *time);
    tags
}

fn metadata(profile: Profile) -> Vec<u8> {
    let fields: &[(&str, f64)] = &[
        ("videodatarate", f64::from(profile.video) / 1000.0),
        ("audiodatarate", f64::from(profile.audio) / 1000.0),
        (
            "framerate",
            f64::from(profile.frames) * 1000.0 / f64::from(GOP),
        ),
        ("videocodecid", 7.0),
        ("audiocodecid", 10.0),
    ];
    let mut out = Vec::new();
    crate::amf::string(&mut out, "@setDataFrame");
    crate::amf::string(&mut out, "onMetaData");
    crate::amf::object(&mut out, |object| {
        for (key, value) in fields {
            object.number(key, *value);
        }
    });
    out
}

/// avcC of a baseline stream with one small SPS and PPS.
fn avc_sequence_header() -> Vec<u8> {
    let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88];
    let pps = [0x68, 0xce, 0x3c, 0x80];
    let mut tag = vec![0x17, 0, 0, 0, 0];
    tag.extend_from_slice(&[1, sps[1], sps[2], sps[3], 0xff, 0xe1, 0, sps.len() as u8]);
    tag.extend_from_slice(&sps);
    tag.extend_from_slice(&[1, 0, pps.len() as u8]);
    tag.extend_from_slice(&pps);
    tag
}

/// Random bytes, so that nothing on the way can compress them, and the same in every run.
fn noise(out: &mut Vec<u8>, count: usize, seed: u32) {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    out.extend((0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    }));
}

/// A stamp's bytes: a mark, a flag for the session's first keyframe, and the time.
pub fn stamp(first: bool, nanoseconds: u64) -> [u8; 13] {
    let mut out = [0; 13];
    out[..4].copy_from_slice(&STAMP_MARK.to_be_bytes());
    out[4] = first.into();
    out[5..].copy_from_slice(&nanoseconds.to_be_bytes());
    out
}

/// Reads a stamp from a tag's payload.
pub fn read_stamp(payload: &[u8]) -> Option<(bool, u64)> {
    let stamp = payload.get(STAMP_OFFSET..STAMP_OFFSET + 13)?;
    let (mark, rest) = stamp.split_first_chunk::<4>()?;
    let moment = rest.last_chunk::<8>()?;
    (u32::from_be_bytes(*mark) == STAMP_MARK).then(|| (rest[0] != 0, u64::from_be_bytes(*moment)))
}
