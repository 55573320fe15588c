// SPDX-License-Identifier: MPL-2.0

//! Plays a file as FLV, tag by tag, once or in a loop.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use common::flv::{Content, HEADER_LENGTH, Packet, TRAILER_LENGTH, TagKind};

use super::remux::Remuxed;

const SIGNATURE: &[u8] = b"FLV";

/// Milliseconds of the last frame, where its duration is unknown.
const STEP: u32 = 40;

/// Milliseconds between two frames beyond which there is a gap.
const MAX_STEP: u32 = 1000;

#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not an FLV file")]
    NotFlv,
    #[error("broken tag after {0} bytes")]
    Broken(u64),
    #[error("neither video nor audio")]
    Empty,
}

/// A tag, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayedTag {
    /// The tag with its header and its back pointer.
    pub bytes: Vec<u8>,
    /// Time since the start of the first pass.
    pub time: Duration,
    /// Metadata or a decoder configuration.
    pub is_configuration: bool,
}

type TagHeader = [u8; HEADER_LENGTH];

pub struct Player {
    input: Box<dyn Rewind>,
    /// Bytes read in this pass.
    position: u64,
    is_loop: bool,
    clock: PlayClock,
    has_media: bool,
}

/// A source that can be read again.
pub trait Rewind: Read + Send {
    fn rewind(&mut self) -> io::Result<()>;
}

impl<R: Read + io::Seek + Send> Rewind for BufReader<R> {
    fn rewind(&mut self) -> io::Result<()> {
        io::Seek::rewind(self)
    }
}

/// Times that go on from one pass to the next.
#[derive(Default)]
struct PlayClock {
    /// The first timestamp of media.
    first: Option<u32>,
    /// The lowest timestamp: the first tag need not be first in time.
    lowest: Option<u32>,
    video: TrackClock,
    audio: TrackClock,
    /// Milliseconds of all earlier passes.
    before: u64,
}

/// A track in the present pass.
#[derive(Default)]
struct TrackClock {
    last: Option<u32>,
    /// Milliseconds between two of its frames.
    step: Option<u32>,
}

impl TrackClock {
    fn note(&mut self, timestamp: u32) {
        let previous = self.last.replace(timestamp);
        let step = previous.and_then(|previous| timestamp.checked_sub(previous));
        self.step = step
            .filter(|step| (1..MAX_STEP).contains(step))
            .or(self.step);
    }

    /// Returns the timestamp at which the next pass can continue.
    fn end(&self) -> Option<u32> {
        let step = self.step.unwrap_or(STEP);
        self.last.map(|last| last.saturating_add(step))
    }
}

impl PlayClock {
    /// Returns the milliseconds from the start of the first pass to a tag.
    fn note(&mut self, timestamp: u32, is_video: bool) -> u64 {
        self.first.get_or_insert(timestamp);
        let lowest = self.lowest.get_or_insert(timestamp);
        *lowest = timestamp.min(*lowest);
        if is_video {
            self.video.note(timestamp);
        } else {
            self.audio.note(timestamp);
        }
        self.at(Some(timestamp))
    }

    fn at(&self, timestamp: Option<u32>) -> u64 {
        let since = timestamp
            .zip(self.first)
            .map(|(timestamp, first)| timestamp.saturating_sub(first));
        self.before + u64::from(since.unwrap_or_default())
    }

    /// Returns the time of the last media.
    fn now(&self) -> u64 {
        self.at(self.video.last.max(self.audio.last))
    }

    /// Starts the next pass where the longer track ends, so that no track goes back.
    fn next_pass(&mut self) {
        let end = self.video.end().max(self.audio.end());
        let length = end
            .zip(self.lowest)
            .map(|(end, lowest)| end.saturating_sub(lowest));
        self.before += u64::from(length.unwrap_or_default());
        (self.video.last, self.audio.last) = (None, None);
    }
}

impl Player {
    pub fn open(path: &Path, is_loop: bool) -> Result<Self, PlayError> {
        let mut file = BufReader::new(File::open(path)?);
        let input: Box<dyn Rewind> = match file.fill_buf()?.starts_with(SIGNATURE) {
            true => Box::new(file),
            false => Box::new(Remuxed::open(path)?),
        };
        Self::over(input, is_loop)
    }

    fn over(input: Box<dyn Rewind>, is_loop: bool) -> Result<Self, PlayError> {
        let mut player = Player {
            input,
            position: 0,
            is_loop,
            clock: PlayClock::default(),
            has_media: false,
        };
        player.skip_header()?;
        Ok(player)
    }

    /// Returns the next tag; `None` at the end.
    pub fn next_tag(&mut self) -> Result<Option<PlayedTag>, PlayError> {
        loop {
            match self.read_tag()? {
                Some((header, body)) => {
                    if let Some(tag) = self.tag(&header, body) {
                        return Ok(Some(tag));
                    }
                }
                None if !self.has_media => return Err(PlayError::Empty),
                None if !self.is_loop => return Ok(None),
                None => {
                    self.clock.next_pass();
                    self.input.rewind()?;
                    self.skip_header()?;
                }
            }
        }
    }

    fn skip_header(&mut self) -> Result<(), PlayError> {
        let mut header = [0; 9];
        let is_there = self.fill(&mut header)?;
        let length = u64::from(u32::from_be_bytes([
            header[5], header[6], header[7], header[8],
        ]));
        if !is_there || !header.starts_with(SIGNATURE) || length < 9 {
            return Err(PlayError::NotFlv);
        }
        let rest = length - 9 + TRAILER_LENGTH as u64;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        self.position = 9 + skipped;
        Ok(())
    }

    /// Reads header and body. A tag that is cut short is the end: the file is being written, or
    /// was.
    fn read_tag(&mut self) -> Result<Option<(TagHeader, Vec<u8>)>, PlayError> {
        let mut header = [0; HEADER_LENGTH];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        if TagKind::from_code(header[0]).is_none() {
            return Err(PlayError::Broken(self.position));
        }
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let mut body = vec![0; length];
        let mut trailer = [0; TRAILER_LENGTH];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        // The last tag may lack it.
        self.fill(&mut trailer)?;
        self.position += (HEADER_LENGTH + length + TRAILER_LENGTH) as u64;
        Ok(Some((header, body)))
    }

    /// Returns `None` for a tag that is not to be sent.
    fn tag(&mut self, header: &TagHeader, body: Vec<u8>) -> Option<PlayedTag> {
        let kind = TagKind::from_code(header[0])?;
        let content = Packet::parse(kind, &body)?.content;
        let is_configuration = matches!(
            content,
            Content::OnMetaData | Content::SequenceHeader(_) | Content::TrackMetadata
        );
        // The stream goes on after it.
        if self.is_loop && content == Content::EndOfSequence {
            return None;
        }
        let timestamp = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let time = if content.is_media() {
            self.has_media = true;
            self.clock.note(timestamp, kind == TagKind::Video)
        } else {
            self.clock.now()
        };
        // As in the first pass.
        let timestamp = timestamp.wrapping_add(self.clock.before as u32);
        let [high, a, b, c] = timestamp.to_be_bytes();
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + body.len() + TRAILER_LENGTH);
        bytes.extend_from_slice(header);
        bytes[4..8].copy_from_slice(&[a, b, c, high]);
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&((HEADER_LENGTH + body.len()) as u32).to_be_bytes());
        Some(PlayedTag {
            bytes,
            time: Duration::from_millis(time),
            is_configuration,
        })
    }

    /// Returns `false` where the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.input.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const METADATA: &[u8] = b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x00\x00\x00\x09";

    fn framed(kind: u8, timestamp: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        let [high, a, b, c] = timestamp.to_be_bytes();
        let mut bytes = vec![
            kind, length[1], length[2], length[3], a, b, c, high, 0, 0, 0,
        ];
        bytes.extend(body);
        bytes.extend((body.len() as u32 + 11).to_be_bytes());
        bytes
    }

    /// Metadata, configuration, and two frames from `start` on.
    fn tags(start: u32) -> Vec<Vec<u8>> {
        vec![
            framed(18, 0, METADATA),
            framed(9, 0, &[0x17, 0, 0, 0, 0, 1]),
            framed(9, start, &[0x17, 1, 0, 0, 0, 5]),
            framed(8, start + 10, &[0xAF, 1, 7]),
            framed(9, start + 33, &[0x27, 1, 0, 0, 0, 6]),
            framed(9, start + 33, &[0x17, 2, 0, 0, 0]),
        ]
    }

    fn player(bytes: Vec<u8>, is_loop: bool) -> Result<Player, PlayError> {
        Player::over(Box::new(BufReader::new(Cursor::new(bytes))), is_loop)
    }

    fn file(tags: &[Vec<u8>]) -> Vec<u8> {
        [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], &tags.concat()].concat()
    }

    #[test]
    fn a_file_is_sent_unchanged() {
        let tags = tags(5000);
        let mut player = player(file(&tags), false).unwrap();
        let mut sent = Vec::new();
        while let Some(tag) = player.next_tag().unwrap() {
            sent.push(tag);
        }
        let bytes: Vec<_> = sent.iter().map(|tag| tag.bytes.clone()).collect();
        assert_eq!(bytes, tags);
        let times: Vec<_> = sent.iter().map(|tag| tag.time.as_millis()).collect();
        assert_eq!(times, [0, 0, 0, 10, 33, 33]);
        let configuration: Vec<_> = sent.iter().map(|tag| tag.is_configuration).collect();
        assert_eq!(configuration, [true, true, false, false, false, false]);
    }

    #[test]
    fn times_go_on_from_one_pass_to_the_next() {
        let mut player = player(file(&tags(5000)), true).unwrap();
        let sent: Vec<PlayedTag> = (0..15)
            .map(|_| player.next_tag().unwrap().unwrap())
            .collect();
        let times: Vec<_> = sent.iter().map(|tag| tag.time.as_millis()).collect();
        assert_eq!(
            times,
            [0, 0, 0, 10, 33, 66, 66, 66, 76, 99, 132, 132, 132, 142, 165]
        );
        let second = &sent[7].bytes;
        let timestamp = u32::from_be_bytes([second[7], second[4], second[5], second[6]]);
        assert_eq!(timestamp, 5000 + 66);
        assert!(
            !sent
                .iter()
                .any(|tag| tag.bytes[11..].starts_with(&[0x17, 2]))
        );
    }

    #[test]
    fn no_track_goes_back_where_the_first_tag_is_not_first_in_time() {
        let tags = [
            framed(9, 100, &[0x17, 1, 0, 0, 0, 5]),
            framed(8, 80, &[0xAF, 1, 7]),
            framed(8, 103, &[0xAF, 1, 8]),
            framed(8, 126, &[0xAF, 1, 9]),
        ];
        let mut player = player(file(&tags), true).unwrap();
        let mut next = || {
            let bytes = player.next_tag().unwrap().unwrap().bytes;
            u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]])
        };
        let timestamps: Vec<u32> = (0..8).map(|_| next()).collect();
        // The pass ends one step after its last sound.
        assert_eq!(timestamps, [100, 80, 103, 126, 169, 149, 172, 195]);
    }

    #[test]
    fn a_truncated_file_ends_and_a_broken_one_is_reported() {
        let mut bytes = file(&tags(0));
        let length = bytes.len();
        bytes.truncate(length - 30);
        let mut cut = player(bytes, false).unwrap();
        let mut count = 0;
        while cut.next_tag().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 4);
        let mut broken = file(&tags(0)[..1]);
        let length = broken.len() as u64;
        broken.extend([99; 20]);
        let mut broken = player(broken, false).unwrap();
        assert!(broken.next_tag().unwrap().is_some());
        assert!(matches!(broken.next_tag(), Err(PlayError::Broken(at)) if at == length));
        assert!(matches!(
            player(b"\0\0\0\x20ftypisom".to_vec(), false),
            Err(PlayError::NotFlv)
        ));
        assert!(matches!(player(Vec::new(), true), Err(PlayError::NotFlv)));
        let mut empty = player(file(&tags(0)[..2]), true).unwrap();
        while let Ok(Some(_)) = empty.next_tag() {}
        assert!(matches!(empty.next_tag(), Err(PlayError::Empty)));
    }
}
