// SPDX-License-Identifier: MPL-2.0

//! Bytes in buffers of any size -> tags.
//!
//! A buffer that has whole tags, as live sources send them, is looked at in place. Bytes are put
//! together only for a tag that lies across two buffers.

use std::ops::Range;

use gst_base::UniqueAdapter;

use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, TagKind};

const SIGNATURE: &[u8] = b"FLV";
const FILE_HEADER_LENGTH: usize = 9;

/// The file header says its own length, for what may come in it one day.
const MAX_FILE_HEADER_LENGTH: usize = 1024;

/// A tag is believed to be one after others were lost only if its end agrees with its start, for
/// which it has to be here whole. Noise would else have the demuxer wait for 16 MiB.
const MAX_DOUBTFUL_LENGTH: usize = 1024 * 1024;

/// What is found in the bytes.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Tag(Tag<'a>),
    /// A tag of a type that is not known, or that is encrypted.
    UnknownTag(u8),
    /// Bytes in which there is no tag.
    Lost(usize),
}

#[derive(Debug)]
pub(super) struct Tag<'a> {
    pub(super) kind: TagKind,
    /// Milliseconds, modulo 2^32.
    pub(super) timestamp: u32,
    /// What has the tag, and its bytes.
    pub(super) buffer: &'a gst::Buffer,
    pub(super) bytes: &'a [u8],
    /// Where in these bytes the body is.
    pub(super) body: Range<usize>,
    /// Of the upstream buffer, if the tag starts with it.
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
    /// How many bytes are worth putting together to go on.
    fn length(self) -> usize {
        match self {
            Expect::FileHeader => FILE_HEADER_LENGTH,
            Expect::BackPointer => TRAILER_LENGTH + FRONT_LENGTH,
            Expect::Tag | Expect::Resync => FRONT_LENGTH,
        }
    }
}

#[derive(Debug)]
pub(super) struct Input {
    adapter: UniqueAdapter,
    expect: Expect,
    /// So many bytes must be there before it is worth another look.
    wanted: usize,
}

/// How far a look at some bytes came.
struct Progress {
    used: usize,
    wanted: usize,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            adapter: UniqueAdapter::new(),
            expect: Expect::FileHeader,
            wanted: 0,
        }
    }
}

impl Input {
    /// Bytes are missing before the next ones: what waits will never be whole.
    pub(super) fn discontinue(&mut self) {
        if self.adapter.available() > 0 || self.expect == Expect::BackPointer {
            self.adapter.clear();
            self.expect = Expect::Tag;
        }
    }

    /// Whether something waits for the rest of it.
    pub(super) fn is_cut_short(&self) -> bool {
        let waiting = self.adapter.available();
        waiting > TRAILER_LENGTH || waiting > 0 && self.expect != Expect::BackPointer
    }

    /// Takes a buffer and gives each unit that is whole, until one of them is answered with an error.
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
            // What is in one buffer is taken as it is; else no more than has to be put together.
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

    /// Looks at a buffer, and puts what is left of it before what waits.
    fn parse_and_buffer<E>(
        &mut self,
        buffer: gst::Buffer,
        from_upstream: bool,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let progress = self.look(&buffer, from_upstream, each)?;
        self.wanted = progress.wanted;
        if progress.used >= buffer.size() {
            return Ok(());
        }
        let Ok(rest) = buffer.copy_region(gst::BufferCopyFlags::MEMORY, progress.used..) else {
            return Ok(());
        };
        let behind = self.adapter.available();
        let behind = if behind > 0 {
            self.adapter.take_list(behind).unwrap_or_default()
        } else {
            Vec::new()
        };
        self.adapter.push(rest);
        for buffer in behind {
            self.adapter.push(buffer);
        }
        Ok(())
    }

    fn look<E>(
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
                    // Files that were put together have more than one header.
                    if rest.starts_with(SIGNATURE) {
                        self.expect = Expect::FileHeader;
                        continue;
                    }
                    let front = TagHeader::of(rest);
                    if !front.is_certain {
                        self.expect = Expect::Resync;
                        continue;
                    }
                    let end = FRONT_LENGTH + front.body_length;
                    if rest.len() < end {
                        return wait_for(end);
                    }
                    let starts_buffer = from_upstream && at == 0;
                    each(front.unit(buffer, bytes, at, starts_buffer))?;
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
                    let front = TagHeader::of(&bytes[at..]);
                    each(front.unit(buffer, bytes, at, false))?;
                    at += FRONT_LENGTH + front.body_length;
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
    /// Nothing speaks against it.
    is_certain: bool,
}

impl TagHeader {
    /// `bytes` are at least [`FRONT_LENGTH`].
    fn of(bytes: &[u8]) -> Self {
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

    fn unit<'a>(
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
        Parsed::Tag(Tag {
            kind,
            timestamp: self.timestamp,
            buffer,
            bytes,
            body: start..start + self.body_length,
            dts: if starts_buffer { buffer.dts() } else { None },
        })
    }
}

/// How many bytes are before the next tag whose end agrees with its start; and, if it is not known
/// yet whether it does, how many bytes of it must be there to know.
fn search(bytes: &[u8]) -> (usize, Option<usize>) {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRONT_LENGTH) {
        let front = TagHeader::of(rest);
        if front.kind().is_some() && front.body_length <= MAX_DOUBTFUL_LENGTH {
            let end = FRONT_LENGTH + front.body_length;
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
