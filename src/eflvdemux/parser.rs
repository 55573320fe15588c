// SPDX-License-Identifier: MPL-2.0

//! Bytes in buffers of any size -> tags.
//!
//! A buffer that has whole tags, as live sources send them, is parsed in place. Bytes are put
//! together only for a tag that lies across two buffers.

use gst_base::UniqueAdapter;

use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, TagKind};

const SIGNATURE: &[u8] = b"FLV";
const FILE_HEADER_LENGTH: usize = 9;

/// The file header states its own length, for future extensions.
const MAX_FILE_HEADER_LENGTH: usize = 1024;

/// After lost bytes a tag counts as one only if its end agrees with its start, so all of it has to be
/// at hand. Without this limit noise would make the demuxer wait for 16 MiB.
const MAX_DOUBTFUL_LENGTH: usize = 1024 * 1024;

/// An element of the byte stream.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Tag {
        tag: FlvTag<'a>,
        /// The buffer that holds the tag.
        buffer: &'a gst::Buffer,
        /// Offset of the tag's body in `buffer`.
        offset: usize,
    },
    /// A tag of an unknown type, or an encrypted one.
    UnknownTag(u8),
    /// Number of skipped bytes that contain no tag.
    Lost(usize),
}

/// A whole tag.
#[derive(Debug)]
pub(super) struct FlvTag<'a> {
    pub(super) kind: TagKind,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
    pub(super) body: &'a [u8],
    /// DTS of the upstream buffer, if the tag starts with it.
    pub(super) dts: Option<gst::ClockTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    FileHeader,
    BackPointer,
    Tag,
    /// The next tag whose end agrees with its start.
    Resync,
}

impl Expect {
    /// Number of bytes to put together before parsing can go on.
    fn length(self) -> usize {
        match self {
            Expect::FileHeader => FILE_HEADER_LENGTH,
            Expect::BackPointer => TRAILER_LENGTH + FRONT_LENGTH,
            Expect::Tag | Expect::Resync => FRONT_LENGTH,
        }
    }
}

#[derive(Debug)]
pub(super) struct FlvParser {
    adapter: UniqueAdapter,
    expect: Expect,
    /// Number of bytes that parsing waits for.
    wanted: usize,
}

/// How far parsing came in some bytes.
struct Progress {
    used: usize,
    wanted: usize,
}

impl Default for FlvParser {
    fn default() -> Self {
        FlvParser {
            adapter: UniqueAdapter::new(),
            expect: Expect::FileHeader,
            wanted: 0,
        }
    }
}

impl FlvParser {
    /// Handles missing bytes before the next ones: the pending tag will never be whole.
    pub(super) fn handle_discontinuity(&mut self) {
        if self.adapter.available() > 0 || self.expect == Expect::BackPointer {
            self.adapter.clear();
            self.expect = Expect::Tag;
        }
    }

    /// Returns true if a tag waits for its rest.
    pub(super) fn is_cut_short(&self) -> bool {
        let waiting = self.adapter.available();
        waiting > TRAILER_LENGTH || waiting > 0 && self.expect != Expect::BackPointer
    }

    /// Parses a buffer and calls `each` for everything whole in it, up to the first error.
    pub(super) fn push<E>(
        &mut self,
        buffer: gst::Buffer,
        mut each: impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.adapter.available() == 0 {
            return self.parse_and_buffer(buffer, true, &mut each);
        }
        self.adapter.push(buffer);
        while self.adapter.available() > 0 && self.adapter.available() >= self.wanted {
            // A single buffer is parsed as it is. Of several, no more than needed is put together.
            let available = self.adapter.available();
            let length = if self.adapter.available_fast() == available {
                available
            } else {
                self.wanted.max(1)
            };
            let Ok(piece) = self.adapter.take_buffer(length) else {
                break;
            };
            self.parse_and_buffer(piece, false, &mut each)?;
        }
        Ok(())
    }

    /// Parses a buffer, and puts its rest before the pending bytes.
    fn parse_and_buffer<E>(
        &mut self,
        buffer: gst::Buffer,
        from_upstream: bool,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let progress = self.parse(&buffer, from_upstream, each)?;
        self.wanted = progress.wanted;
        if progress.used >= buffer.size() {
            return Ok(());
        }
        let Ok(rest) = buffer.copy_region(gst::BufferCopyFlags::MEMORY, progress.used..) else {
            return Ok(());
        };
        let following = match self.adapter.available() {
            0 => Vec::new(),
            available => self.adapter.take_list(available).unwrap_or_default(),
        };
        self.adapter.push(rest);
        for buffer in following {
            self.adapter.push(buffer);
        }
        Ok(())
    }

    fn parse<E>(
        &mut self,
        buffer: &gst::Buffer,
        from_upstream: bool,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<Progress, E> {
        let Ok(map) = buffer.map_readable() else {
            return Ok(Progress {
                used: buffer.size(),
                wanted: 0,
            });
        };
        let bytes = map.as_slice();
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let wait_for = |wanted| Ok(Progress { used: at, wanted });
            if rest.is_empty() {
                return wait_for(self.expect.length());
            }
            match self.expect {
                Expect::FileHeader => {
                    if rest.len() < FILE_HEADER_LENGTH {
                        return wait_for(FILE_HEADER_LENGTH);
                    }
                    if !rest.starts_with(SIGNATURE) {
                        self.expect = Expect::Tag;
                        continue;
                    }
                    let length = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]) as usize;
                    let length = match length {
                        FILE_HEADER_LENGTH..=MAX_FILE_HEADER_LENGTH => length,
                        _ => FILE_HEADER_LENGTH,
                    };
                    if rest.len() < length {
                        return wait_for(length);
                    }
                    at += length;
                    self.expect = Expect::BackPointer;
                }
                Expect::BackPointer => {
                    if rest.len() < TRAILER_LENGTH {
                        return wait_for(TRAILER_LENGTH);
                    }
                    at += TRAILER_LENGTH;
                    self.expect = Expect::Tag;
                }
                Expect::Tag => {
                    if rest.len() < FRONT_LENGTH {
                        return wait_for(FRONT_LENGTH);
                    }
                    // Concatenated files have more than one header.
                    if rest.starts_with(SIGNATURE) {
                        self.expect = Expect::FileHeader;
                        continue;
                    }
                    let header = TagHeader::read(rest);
                    if !header.is_certain {
                        self.expect = Expect::Resync;
                        continue;
                    }
                    let end = FRONT_LENGTH + header.body_length;
                    if rest.len() < end {
                        return wait_for(end);
                    }
                    let starts_buffer = from_upstream && at == 0;
                    each(header.parsed(buffer, bytes, at, starts_buffer))?;
                    at += end;
                    self.expect = Expect::BackPointer;
                }
                Expect::Resync => {
                    let (skip, wanted) = search(rest);
                    if skip > 0 {
                        each(Parsed::Lost(skip))?;
                        at += skip;
                    }
                    if let Some(wanted) = wanted {
                        return Ok(Progress { used: at, wanted });
                    }
                    let header = TagHeader::read(&bytes[at..]);
                    each(header.parsed(buffer, bytes, at, false))?;
                    at += FRONT_LENGTH + header.body_length;
                    self.expect = Expect::BackPointer;
                }
            }
        }
    }
}

/// The start of a tag.
struct TagHeader {
    type_code: u8,
    body_length: usize,
    timestamp: u32,
    /// Nothing contradicts that this is a tag.
    is_certain: bool,
}

impl TagHeader {
    /// Reads the header at the start of at least [`FRONT_LENGTH`] bytes.
    fn read(bytes: &[u8]) -> Self {
        TagHeader {
            type_code: bytes[0],
            body_length: u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize,
            timestamp: u32::from_be_bytes([bytes[7], bytes[4], bytes[5], bytes[6]]),
            is_certain: bytes[0] & 0xC0 == 0 && bytes[0] != 0 && bytes[8..FRONT_LENGTH] == [0; 3],
        }
    }

    fn kind(&self) -> Option<TagKind> {
        [TagKind::Audio, TagKind::Video, TagKind::Script]
            .into_iter()
            .find(|kind| *kind as u8 == self.type_code)
    }

    fn parsed<'a>(
        &self,
        buffer: &'a gst::Buffer,
        bytes: &'a [u8],
        at: usize,
        starts_buffer: bool,
    ) -> Parsed<'a> {
        let Some(kind) = self.kind() else {
            return Parsed::UnknownTag(self.type_code);
        };
        let start = at + FRONT_LENGTH;
        Parsed::Tag {
            tag: FlvTag {
                kind,
                timestamp: self.timestamp,
                body: &bytes[start..start + self.body_length],
                dts: if starts_buffer { buffer.dts() } else { None },
            },
            buffer,
            offset: start,
        }
    }
}

/// Returns the number of bytes before the next tag whose end agrees with its start and, if that is
/// still open, the number of bytes from there on that settle it.
fn search(bytes: &[u8]) -> (usize, Option<usize>) {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRONT_LENGTH) {
        let header = TagHeader::read(rest);
        if header.kind().is_some() && header.body_length <= MAX_DOUBTFUL_LENGTH {
            let end = FRONT_LENGTH + header.body_length;
            let Some(back) = rest.get(end..end + TRAILER_LENGTH) else {
                return (at, Some(end + TRAILER_LENGTH));
            };
            if back == (end as u32).to_be_bytes() {
                return (at, None);
            }
        }
        at += 1;
    }
    (at, Some(FRONT_LENGTH))
}
