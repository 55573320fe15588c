// SPDX-License-Identifier: MPL-2.0

//! Detects clean streams, and passes them through tag by tag, without decoding.
//!
//! A clean stream is like the output of the cleaner: H.264 baseline in groups of exactly 60 frames,
//! 30 of them per second and none more than a frame from its place; AAC-LC of 48 kHz in two
//! channels without gaps. Another stream shows it by its headers or within its first group. A
//! stream that stops being clean shows it by the first frame that is out of place.

use common::flv::{Codec, Content, HEADER_LENGTH, Packet, TRAILER_LENGTH, TagKind};

use crate::segmenter::{AccessUnit, FRAMES};

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds of a frame, and the most that one may be off its place. Timestamps are in
/// milliseconds.
const FRAME: i64 = SECOND / 30;
const JITTER: i64 = FRAME + SECOND / 1000;

/// Nanoseconds of 1024 samples.
const SOUND: i64 = SECOND * 1024 / 48_000;

/// Nanoseconds that pictures may be behind sound, and sound behind pictures.
const MAX_LAG: i64 = SECOND;

const BASELINE: u8 = 66;

/// The first 13 bits of the configuration of AAC-LC of 48 kHz in two channels (ISO/IEC 14496-3,
/// 1.6.2.1).
const AAC_CONFIG: [u8; 2] = [0x11, 0x90];

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_DELIMITER: u8 = 9;
/// A delimiter that tells nothing about the types of slices.
const DELIMITER: [u8; 6] = [0, 0, 0, 1, NAL_DELIMITER, 0xF0];

/// The reason why a stream is not clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty(pub String);

fn dirty<T>(why: impl Into<String>) -> Result<T, Dirty> {
    Err(Dirty(why.into()))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    Picture(AccessUnit),
    Sound(AccessUnit),
}

#[derive(Debug, Default)]
pub struct Passthrough {
    /// Bytes of a NAL unit's length, and the parameter sets in Annex B.
    video: Option<(usize, Vec<u8>)>,
    has_sound: bool,
    /// The time of the first picture.
    zero: Option<i64>,
    /// Frames so far, and the start of the group of pictures.
    frames: usize,
    group: i64,
    last_picture: i64,
    last_sound: Option<i64>,
}

impl Passthrough {
    pub fn has_sound(&self) -> bool {
        self.has_sound
    }

    /// Accepts a whole FLV tag, and its time in nanoseconds.
    pub fn push(&mut self, time: i64, tag: &[u8]) -> Result<Option<Passed>, Dirty> {
        let end = tag.len().saturating_sub(TRAILER_LENGTH);
        let (Some(&kind), Some(body)) = (tag.first(), tag.get(HEADER_LENGTH..end)) else {
            // The file header.
            return Ok(None);
        };
        match TagKind::from_code(kind) {
            Some(TagKind::Audio) => self.audio(time, body),
            Some(TagKind::Video) => self.video(time, body),
            _ => Ok(None),
        }
    }

    fn video(&mut self, time: i64, body: &[u8]) -> Result<Option<Passed>, Dirty> {
        let Some(packet) = Packet::parse(TagKind::Video, body) else {
            return dirty("a broken video tag");
        };
        match (packet.content, packet.codec) {
            (Content::Command, _) => Ok(None),
            (Content::SequenceHeader(record), Codec::Avc) => self.configure(record),
            (
                Content::Frame {
                    composition_time,
                    payload,
                },
                Codec::Avc,
            ) => match composition_time {
                0 => self.picture(time, payload),
                _ => dirty("pictures out of order"),
            },
            (_, Codec::Avc) => Ok(None),
            _ => dirty("video that is not H.264"),
        }
    }

    fn configure(&mut self, record: &[u8]) -> Result<Option<Passed>, Dirty> {
        let Some((profile, length_size, sets)) = avc_configuration(record) else {
            return dirty("no H.264 parameter sets");
        };
        if profile != BASELINE {
            return dirty(format!("H.264 of profile {profile}"));
        }
        let video = (length_size, sets);
        if self.video.as_ref().is_some_and(|before| *before != video) {
            return dirty("another H.264 configuration");
        }
        self.video = Some(video);
        Ok(None)
    }

    fn picture(&mut self, time: i64, payload: &[u8]) -> Result<Option<Passed>, Dirty> {
        let Some((length_size, sets)) = &self.video else {
            return dirty("pictures without a configuration");
        };
        let Some(nals) = nals(payload, *length_size) else {
            return dirty("a broken picture");
        };
        if nals.is_empty() {
            return Ok(None);
        }
        let has = |kind| nals.iter().any(|nal| nal[0] & 0x1F == kind);
        let is_idr = has(NAL_IDR);
        if self.zero.is_none() && !is_idr {
            return dirty("a stream that does not start with a keyframe");
        }
        let mut bytes = Vec::with_capacity(payload.len() + 64);
        if !has(NAL_DELIMITER) {
            bytes.extend(DELIMITER);
        }
        if is_idr && !has(NAL_SPS) {
            // A delimiter comes before all else.
            let (front, _) = nals.split_at(nals.iter().take_while(is_delimiter).count());
            front.iter().for_each(|nal| append(&mut bytes, nal));
            bytes.extend(sets);
            let rest = nals.iter().skip_while(is_delimiter);
            rest.for_each(|nal| append(&mut bytes, nal));
        } else {
            nals.iter().for_each(|nal| append(&mut bytes, nal));
        }
        self.check_picture(time, is_idr)?;
        Ok(Some(Passed::Picture(AccessUnit {
            time: self.ticks(time),
            is_idr,
            bytes,
        })))
    }

    fn check_picture(&mut self, time: i64, is_idr: bool) -> Result<(), Dirty> {
        let Some(_) = self.zero else {
            self.zero = Some(time);
            (self.group, self.last_picture, self.frames) = (time, time, 1);
            return Ok(());
        };
        let in_group = self.frames % FRAMES;
        if is_idr != (in_group == 0) {
            let frames = if in_group == 0 { FRAMES + 1 } else { in_group };
            let more = if is_idr { "" } else { " or more" };
            return dirty(format!("a group of {frames}{more} pictures"));
        }
        let place = if in_group == 0 { FRAMES } else { in_group };
        let off = time - (self.group + place as i64 * SECOND / 30);
        if off.abs() > JITTER || time <= self.last_picture {
            return dirty(format!(
                "a picture {} ms from its place",
                off / (SECOND / 1000)
            ));
        }
        if self.last_sound.is_some_and(|last| time - last > MAX_LAG) {
            return dirty("sound that has stopped");
        }
        if is_idr {
            self.group = time;
        }
        self.last_picture = time;
        self.frames += 1;
        Ok(())
    }

    fn audio(&mut self, time: i64, body: &[u8]) -> Result<Option<Passed>, Dirty> {
        let Some(packet) = Packet::parse(TagKind::Audio, body) else {
            return dirty("a broken audio tag");
        };
        match (packet.content, packet.codec) {
            (Content::SequenceHeader([first, second, ..]), Codec::Aac) => {
                self.has_sound = [*first, second & 0xF8] == AAC_CONFIG;
                match self.has_sound {
                    true => Ok(None),
                    false => dirty("sound that is not AAC-LC of 48 kHz in two channels"),
                }
            }
            (Content::Frame { payload, .. }, Codec::Aac) => self.sound(time, payload),
            (Content::SequenceHeader(_), Codec::Aac) => dirty("a broken audio tag"),
            (_, Codec::Aac) => Ok(None),
            _ => dirty("sound that is not AAC"),
        }
    }

    fn sound(&mut self, time: i64, payload: &[u8]) -> Result<Option<Passed>, Dirty> {
        if payload.is_empty() {
            return Ok(None);
        }
        let Some(header) = adts(payload.len()) else {
            return dirty("sound in too long frames");
        };
        if !self.has_sound || is_adts(payload) {
            return dirty("sound without a configuration");
        }
        let last = self.last_sound.replace(time);
        if last.is_some_and(|last| (time - last - SOUND).abs() > JITTER) {
            return dirty("sound with gaps");
        }
        let Some(zero) = self.zero else {
            return Ok(None);
        };
        if time - self.last_picture > MAX_LAG {
            return dirty("pictures that have stopped");
        }
        if time < zero {
            return Ok(None);
        }
        Ok(Some(Passed::Sound(AccessUnit {
            time: self.ticks(time),
            is_idr: true,
            bytes: [&header, payload].concat(),
        })))
    }

    /// Returns the time since the first picture, in ticks of 90 kHz.
    fn ticks(&self, time: i64) -> i64 {
        let from_zero = time.saturating_sub(self.zero.unwrap_or(time));
        // Rounded to the nearest tick.
        (from_zero.saturating_mul(9) + 50_000).div_euclid(100_000)
    }
}

fn is_delimiter(nal: &&&[u8]) -> bool {
    nal[0] & 0x1F == NAL_DELIMITER
}

fn append(bytes: &mut Vec<u8>, nal: &[u8]) {
    bytes.extend(START_CODE);
    bytes.extend_from_slice(nal);
}

/// Splits a payload into NAL units, none of which is empty.
fn nals(payload: &[u8], length_size: usize) -> Option<Vec<&[u8]>> {
    let mut nals = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(length_size)?;
        let length = length
            .iter()
            .fold(0, |all, byte| all << 8 | usize::from(*byte));
        let (nal, after) = after.split_at_checked(length)?;
        nals.extend((!nal.is_empty()).then_some(nal));
        rest = after;
    }
    Some(nals)
}

/// Returns the profile of an `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15), the bytes of a NAL
/// unit's length, and the parameter sets in Annex B. There must be one of each kind.
fn avc_configuration(record: &[u8]) -> Option<(u8, usize, Vec<u8>)> {
    let &[1, profile, _, _, length, sps_count, ref rest @ ..] = record else {
        return None;
    };
    let mut sets = Vec::new();
    let mut copy = |mut rest, count: u8, kind: u8| {
        for _ in 0..count {
            let (length, after): (_, &[u8]) = <[u8]>::split_first_chunk(rest)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (set, after) = after.split_at_checked(length)?;
            if set.first()? & 0x1F != kind {
                return None;
            }
            append(&mut sets, set);
            rest = after;
        }
        (count > 0).then_some(rest)
    };
    let rest = copy(rest, sps_count & 0x1F, NAL_SPS)?;
    let (&pps_count, rest) = rest.split_first()?;
    copy(rest, pps_count, NAL_PPS)?;
    Some((profile, usize::from(length & 3) + 1, sets))
}

/// Returns whether a frame has an ADTS header. Some encoders know no other AAC. No raw AAC starts
/// like one: its first three bits would be the end of the frame.
fn is_adts(frame: &[u8]) -> bool {
    let &[0xFF, second, _, fourth, fifth, sixth, _, ..] = frame else {
        return false;
    };
    let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    second & 0xF6 == 0xF0 && length == frame.len()
}

/// Returns the header of a frame of AAC-LC of 48 kHz in two channels (ISO/IEC 14496-3, 1.A.3).
fn adts(payload: usize) -> Option<[u8; 7]> {
    let length = u16::try_from(payload + 7)
        .ok()
        .filter(|length| *length < 1 << 13)?;
    let [high, low] = (length << 3).to_be_bytes();
    Some([
        0xFF,
        0xF1,
        0x4C,
        0x80 | high >> 6,
        high << 2 | low >> 6,
        low << 2 | 0x1F,
        0xFC,
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: [u8; 22] = [
        0x17, 0, 0, 0, 0, 1, 66, 0xC0, 30, 0xFF, 0xE1, 0, 4, 0x67, 66, 0xC0, 30, 1, 0, 2, 0x68,
        0xCE,
    ];

    fn tag(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut tag = vec![kind];
        tag.resize(HEADER_LENGTH, 0);
        tag.extend(body);
        tag.extend([0; TRAILER_LENGTH]);
        tag
    }

    fn frame(is_idr: bool) -> Vec<u8> {
        match is_idr {
            true => tag(9, &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 7]),
            false => tag(9, &[0x27, 1, 0, 0, 0, 0, 0, 0, 2, 0x41, 7]),
        }
    }

    /// Returns the pictures of a publisher that sends 30 per second in groups of this length, until
    /// one is rejected.
    fn pictures(
        count: usize,
        group: usize,
        time: impl Fn(i64) -> i64,
    ) -> Result<Vec<AccessUnit>, Dirty> {
        let mut passthrough = Passthrough::default();
        passthrough.push(0, &tag(9, &HEADER))?;
        let mut units = Vec::new();
        for index in 0..count {
            let tag = frame(index % group == 0);
            match passthrough.push(time(index as i64), &tag)? {
                Some(Passed::Picture(unit)) => units.push(unit),
                other => panic!("{other:?}"),
            }
        }
        Ok(units)
    }

    /// Rounds to milliseconds as FLV does.
    fn in_millis(index: i64) -> i64 {
        5 * SECOND + index * 1000 / 30 * (SECOND / 1000)
    }

    #[test]
    fn a_clean_stream_passes_in_annex_b() {
        let units = pictures(300, 60, in_millis).unwrap();
        assert_eq!(units.len(), 300);
        assert_eq!(units[60].time, 180_000);
        assert!(units[60].is_idr && !units[61].is_idr);
        let start = [0, 0, 0, 1, 9, 0xF0, 0, 0, 0, 1, 0x67, 66, 0xC0, 30];
        assert!(units[60].bytes.starts_with(&start));
        assert!(
            units[60]
                .bytes
                .ends_with(&[0, 0, 0, 1, 0x68, 0xCE, 0, 0, 0, 1, 0x65, 7])
        );
        assert_eq!(units[61].bytes, [0, 0, 0, 1, 9, 0xF0, 0, 0, 0, 1, 0x41, 7]);
    }

    #[test]
    fn other_groups_are_dirty() {
        for (group, length) in [
            (30, "30"),
            (61, "61 or more"),
            (59, "59"),
            (300, "61 or more"),
        ] {
            let Dirty(reason) = pictures(300, group, in_millis).unwrap_err();
            assert_eq!(reason, format!("a group of {length} pictures"));
        }
    }

    #[test]
    fn pictures_out_of_place_are_dirty() {
        let jitter = |index: i64| in_millis(index) + [0, 9, -9, 16][index as usize % 4] * 1_000_000;
        assert!(pictures(300, 60, jitter).is_ok());
        let ntsc = |index: i64| index * 1001 / 30 * (SECOND / 1000);
        assert!(pictures(300, 60, ntsc).is_ok());
        assert!(pictures(300, 60, |index| index * SECOND / 25).is_err());
        assert!(pictures(300, 60, |index| index * SECOND / 60).is_err());
        let gap = |index: i64| in_millis(index) + index / 100 * 50_000_000;
        assert!(pictures(300, 60, gap).is_err());
    }

    #[test]
    fn other_profiles_and_codecs_are_dirty() {
        let mut passthrough = Passthrough::default();
        let mut high = HEADER;
        high[6] = 100;
        assert!(passthrough.push(0, &tag(9, &high)).is_err());
        assert!(
            passthrough.push(0, &tag(9, &[0x12, 0, 0])).is_err(),
            "H.263"
        );
        assert!(passthrough.push(0, &tag(8, &[0x2F, 0, 0])).is_err(), "MP3");
        let mono = [0xAF, 0, 0x11, 0x88];
        assert!(passthrough.push(0, &tag(8, &mono)).is_err());
        assert!(
            passthrough
                .push(0, b"FLV\x01\x05\0\0\0\x09\0\0\0\0")
                .is_ok()
        );
        // Pictures that are shown later than their successors.
        assert!(passthrough.push(0, &tag(9, &HEADER)).is_ok());
        assert!(
            passthrough
                .push(0, &tag(9, &[0x17, 1, 0, 0, 40, 0]))
                .is_err()
        );
    }

    #[test]
    fn sound_gets_its_header_and_has_no_gaps() {
        let mut passthrough = Passthrough::default();
        passthrough
            .push(0, &tag(8, &[0xAF, 0, 0x11, 0x90]))
            .unwrap();
        passthrough.push(0, &tag(9, &HEADER)).unwrap();
        passthrough.push(0, &frame(true)).unwrap();
        let sound = tag(8, &[0xAF, 1, 0x21, 7, 8]);
        let passed = passthrough.push(SOUND, &sound).unwrap();
        let Some(Passed::Sound(unit)) = passed else {
            panic!("{passed:?}");
        };
        assert_eq!(unit.time, 1920);
        assert!(is_adts(&unit.bytes));
        let header = [0xFF, 0xF1, 0x4C, 0x80, 0x01, 0x5F, 0xFC];
        assert_eq!(unit.bytes, [&header[..], &[0x21, 7, 8]].concat());
        assert!(passthrough.push(2 * SOUND + SECOND / 1000, &sound).is_ok());
        assert!(passthrough.push(5 * SOUND, &sound).is_err());
    }

    #[test]
    fn a_stream_whose_sound_stops_is_dirty() {
        let mut passthrough = Passthrough::default();
        passthrough
            .push(0, &tag(8, &[0xAF, 0, 0x11, 0x90]))
            .unwrap();
        passthrough.push(0, &tag(9, &HEADER)).unwrap();
        passthrough.push(0, &frame(true)).unwrap();
        passthrough.push(0, &tag(8, &[0xAF, 1, 0x21, 7])).unwrap();
        let verdicts =
            (1..60).map(|index| passthrough.push(in_millis(index) - in_millis(0), &frame(false)));
        assert_eq!(verdicts.filter(Result::is_ok).count(), 30);
    }

    /// A tag that a publisher may send: clean, with a few wrong bytes, cut anywhere.
    fn any_tag() -> impl Strategy<Value = Vec<u8>> {
        let tags = [
            tag(9, &HEADER),
            frame(true),
            frame(false),
            tag(8, &[0xAF, 0, 0x11, 0x90]),
            tag(8, &[0xAF, 1, 0x21, 7]),
        ];
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let clean = prop::sample::select(tags.to_vec());
        (clean, changes, 0..50_usize).prop_map(|(mut tag, changes, length)| {
            for (at, byte) in changes {
                let at = at.index(tag.len());
                tag[at] = byte;
            }
            tag.truncate(length.max(1));
            tag
        })
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn any_tags_are_clean_or_dirty(
            tags in prop::collection::vec((any_tag(), 0..10 * SECOND), 0..50)
        ) {
            let mut passthrough = Passthrough::default();
            for (tag, time) in tags {
                if let Ok(Some(Passed::Picture(unit))) = passthrough.push(time, &tag) {
                    prop_assert!(unit.bytes.starts_with(&START_CODE));
                }
            }
        }
    }
}
