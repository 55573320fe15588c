// SPDX-License-Identifier: MPL-2.0

//! A reader of FLV for tests, independent of the tested one.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;
pub const SCRIPT: u8 = 18;

pub const FILE_HEADER: &[u8] = b"FLV\x01";

#[derive(Clone, PartialEq, Eq)]
pub struct Tag {
    pub kind: u8,
    pub timestamp: u32,
    pub body: Vec<u8>,
}

impl fmt::Debug for Tag {
    /// Bodies are long: their start, length and hash identify them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        let start = &self.body[..self.body.len().min(6)];
        let (kind, time, length) = (self.kind, self.timestamp, self.body.len());
        write!(
            f,
            "{kind}@{time} {start:02x?} {length} B #{:x}",
            hasher.finish()
        )
    }
}

impl Tag {
    pub fn new(kind: u8, timestamp: u32, body: impl Into<Vec<u8>>) -> Self {
        Tag {
            kind,
            timestamp,
            body: body.into(),
        }
    }

    pub fn is_media(&self) -> bool {
        self.kind == AUDIO || self.kind == VIDEO
    }

    /// Decoder configuration in the legacy or the enhanced form.
    pub fn is_sequence_header(&self) -> bool {
        match (self.kind, &self.body[..]) {
            (VIDEO, [first, ..]) if first & 0x80 != 0 => first & 0x0F == 0,
            (VIDEO, [first, 0, ..]) => matches!(first & 0x0F, 7 | 12),
            (AUDIO, [first, ..]) if first >> 4 == 9 => first & 0x0F == 0,
            (AUDIO, [first, 0, ..]) => first >> 4 == 10,
            _ => false,
        }
    }

    /// Media that is decoded, and so has a time of its own, as opposed to descriptions and end
    /// marks.
    pub fn is_coded(&self) -> bool {
        const CODED: u8 = 1;
        const CODED_WITHOUT_COMPOSITION_TIME: u8 = 3;
        let packet_type = match (self.kind, &self.body[..]) {
            (VIDEO, [first, second, ..]) if first & 0x80 != 0 => match first & 0x0F {
                6 => second & 0x0F,
                packet_type => packet_type,
            },
            (AUDIO, [first, second, ..]) if first >> 4 == 9 => match first & 0x0F {
                5 => second & 0x0F,
                packet_type => packet_type,
            },
            _ => {
                return self.is_media() && !self.is_sequence_header() && !self.is_end_of_sequence();
            }
        };
        matches!(packet_type, CODED | CODED_WITHOUT_COMPOSITION_TIME)
    }

    /// The mark at the end of H.264.
    pub fn is_end_of_sequence(&self) -> bool {
        self.kind == VIDEO && self.body.starts_with(&[0x17, 2])
    }

    /// A frame of video, in H.264's legacy form.
    pub fn is_frame(&self) -> bool {
        self.kind == VIDEO && !self.is_sequence_header() && !self.is_end_of_sequence()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let length = (self.body.len() as u32).to_be_bytes();
        let time = self.timestamp.to_be_bytes();
        let mut bytes = vec![self.kind, length[1], length[2], length[3]];
        bytes.extend([time[1], time[2], time[3], time[0], 0, 0, 0]);
        bytes.extend(&self.body);
        bytes.extend((self.body.len() as u32 + 11).to_be_bytes());
        bytes
    }
}

/// Reads a whole stream. It must start with one file header and consist of whole tags with right
/// back pointers from there on.
pub fn parse(bytes: &[u8]) -> Result<Vec<Tag>, String> {
    if !bytes.starts_with(FILE_HEADER) || bytes.len() < 13 {
        return Err("there is no file header".into());
    }
    let mut tags = Vec::new();
    let mut at = 13;
    while at < bytes.len() {
        let front = bytes.get(at..at + 11).ok_or(format!("cut tag at {at}"))?;
        let length = u32::from_be_bytes([0, front[1], front[2], front[3]]) as usize;
        let timestamp = u32::from_be_bytes([front[7], front[4], front[5], front[6]]);
        let end = at + 11 + length;
        let body = bytes.get(at + 11..end).ok_or(format!("cut body at {at}"))?;
        let back = bytes
            .get(end..end + 4)
            .ok_or(format!("no back pointer at {end}"))?;
        if u32::from_be_bytes(back.try_into().unwrap()) as usize != length + 11 {
            return Err(format!("wrong back pointer at {end}"));
        }
        if !matches!(front[0], AUDIO | VIDEO | SCRIPT) || front[8..11] != [0, 0, 0] {
            return Err(format!("no tag at {at}: {front:02x?}"));
        }
        tags.push(Tag::new(front[0], timestamp, body));
        at = end + 4;
    }
    Ok(tags)
}

pub fn read_file(path: &Path) -> Vec<Tag> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn media(tags: &[Tag]) -> Vec<Tag> {
    tags.iter().filter(|tag| tag.is_media()).cloned().collect()
}

/// Asserts that audio and video are the same, in the same order, at times that differ by one
/// constant. Descriptions, whose own time means nothing to most encoders, need only be in their
/// place.
#[track_caller]
pub fn assert_same_media(expected: &[Tag], got: &[Tag]) {
    let (expected, got) = (media(expected), media(got));
    let first = |tags: &[Tag]| {
        let coded = tags.iter().find(|t| t.is_coded());
        coded.expect("there is media").timestamp
    };
    let offset = first(&got).wrapping_sub(first(&expected));
    for (index, (expected, got)) in expected.iter().zip(&got).enumerate() {
        assert_eq!(expected.kind, got.kind, "kind of tag {index}");
        assert!(
            expected.body == got.body,
            "body of tag {index}: expected {expected:?}, got {got:?}"
        );
        if expected.is_coded() {
            let moved = expected.timestamp.wrapping_add(offset);
            assert_eq!(moved, got.timestamp, "time of tag {index}: {got:?}");
        }
    }
    assert_eq!(expected.len(), got.len(), "number of tags");
}
