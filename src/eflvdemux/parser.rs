// SPDX-License-Identifier: MPL-2.0

//! Bytes in buffers of any size -> tags.
//!
//! A buffer that has whole tags, as live sources send them, is parsed in place. Bytes are put
//! together only for a tag that lies across two buffers.
//!
//! A tag is proved by its back pointer, which repeats its length. Without that proof the tag has to
//! be followed by something that looks like one, and a file header in its body means that its file
//! was cut there. After other bytes the parser searches the next tag. Where a candidate needs more
//! bytes than are at hand, they are collected in a window. Each byte enters the window once and is
//! searched once, so the search is linear, whatever the bytes.

use gst_base::UniqueAdapter;

use super::tag_header::{
    Proof, TagHeader, find_file_header, search, starts_with_signature, verify,
};
use crate::flv::{FRONT_LENGTH, TRAILER_LENGTH, TagKind};

const FILE_HEADER_LENGTH: usize = 9;

/// The file header states its own length, for future extensions.
const MAX_FILE_HEADER_LENGTH: usize = 1024;

/// Rest of a put-together buffer that may be put together again.
const MAX_REST: usize = 64 * 1024;

/// An element of the byte stream.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// The start of a file. Concatenated files have several.
    FileHeader,
    Tag {
        tag: FlvTag<'a>,
        /// The buffer that holds the tag.
        buffer: &'a gst::Buffer,
        /// Offset of the tag's body in `buffer`.
        offset: usize,
    },
    /// A tag of an unknown type, or an encrypted one.
    UnknownTag(u8),
    /// Number of skipped bytes that contain no whole tag.
    Lost(usize),
    /// The stream ended within a tag.
    CutShort,
}

/// A whole tag.
#[derive(Debug)]
pub(crate) struct FlvTag<'a> {
    pub(crate) kind: TagKind,
    /// Milliseconds, modulo 2^32.
    pub(crate) timestamp: u32,
    pub(crate) body: &'a [u8],
    /// DTS of the upstream buffer, if the tag starts with it.
    pub(super) dts: Option<gst::ClockTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    FileHeader,
    BackPointer,
    Tag,
    /// The next proved tag, after so many bytes at least.
    Resync(usize),
}

impl Expect {
    /// Number of bytes to put together before parsing can go on.
    fn length(self) -> usize {
        match self {
            Expect::FileHeader => FILE_HEADER_LENGTH,
            Expect::BackPointer => TRAILER_LENGTH,
            Expect::Tag => FRONT_LENGTH,
            Expect::Resync(skip) => skip + FRONT_LENGTH,
        }
    }
}

/// Contiguous bytes in which the next tag is searched.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    /// Bytes at the front that are done with.
    head: usize,
    /// Bytes that were done with since the window was last empty.
    consumed: usize,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.head == self.bytes.len()
    }

    fn remaining(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    fn append(&mut self, buffer: &gst::Buffer) {
        if let Ok(map) = buffer.map_readable() {
            self.bytes.extend_from_slice(&map);
        }
    }

    fn consume(&mut self, count: usize) {
        self.head += count;
        self.consumed += count;
        if self.is_empty() {
            *self = Window::default();
        } else if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}

/// The bytes that are parsed.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Upstream(&'a gst::Buffer),
    /// A buffer that was put together.
    Pending(&'a gst::Buffer),
    /// Tags are copied out of the window.
    Window,
}

#[derive(Debug)]
pub(crate) struct FlvParser {
    /// The start of a tag whose rest is still to come.
    adapter: UniqueAdapter,
    window: Window,
    expect: Expect,
    /// Number of bytes that parsing waits for.
    wanted: usize,
    /// Stream id of the last tag that was found by a search. It should be 0.
    stream_id: u32,
    /// A tag was none, in the last bytes that were parsed.
    is_refuted: bool,
    /// Bytes before the ones that are parsed.
    position: u64,
    /// Position before which no file header starts within a tag, so that no byte is searched twice.
    searched: u64,
}

/// Progress of parsing in some bytes: the bytes that are used up, and those that the next step
/// needs.
struct Progress {
    used: usize,
    wanted: usize,
}

impl Default for FlvParser {
    fn default() -> Self {
        FlvParser {
            adapter: UniqueAdapter::new(),
            window: Window::default(),
            expect: Expect::FileHeader,
            wanted: 0,
            stream_id: 0,
            is_refuted: false,
            position: 0,
            searched: 0,
        }
    }
}

impl FlvParser {
    /// Forgets the pending bytes.
    pub(super) fn flush(&mut self) {
        if self.is_pending() || self.expect == Expect::BackPointer {
            self.adapter.clear();
            self.window = Window::default();
            self.expect = Expect::Tag;
            self.wanted = 0;
        }
    }

    fn is_pending(&self) -> bool {
        self.adapter.available() > 0 || !self.window.is_empty()
    }

    /// Handles missing bytes before the next ones: a pending tag gets no more of them.
    pub(super) fn handle_discontinuity<E>(
        &mut self,
        mut each: impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let rest = self.parse_rest(&mut each)?;
        self.flush();
        if rest > 0 {
            each(Parsed::Lost(rest))?;
        }
        Ok(())
    }

    /// Handles the end of the stream: everything whole in the pending bytes is parsed.
    pub(crate) fn finish<E>(
        &mut self,
        mut each: impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.parse_rest(&mut each)? > 0 {
            each(Parsed::CutShort)?;
        }
        Ok(())
    }

    /// Parses the pending bytes as all there is. Returns the number of bytes that are no whole tag.
    fn parse_rest<E>(
        &mut self,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        if !self.is_pending() {
            return Ok(0);
        }
        self.move_to_window(None);
        let window = std::mem::take(&mut self.window);
        let bytes = window.remaining();
        let progress = self.parse(bytes, Origin::Window, true, each)?;
        let rest = bytes.len() - progress.used;
        self.position += bytes.len() as u64;
        // A back pointer that is cut short is no loss.
        let is_tag = self.expect != Expect::BackPointer;
        self.expect = Expect::Tag;
        self.wanted = 0;
        Ok(if is_tag { rest } else { 0 })
    }

    /// Parses a buffer and calls `each` for everything whole in it, up to the first error.
    pub(crate) fn push<E>(
        &mut self,
        buffer: gst::Buffer,
        mut each: impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.window.is_empty() {
            self.window.append(&buffer);
            self.parse_window(&mut each)?;
        } else if self.adapter.available() == 0 {
            self.parse_and_buffer(buffer, true, &mut each)?;
        } else {
            self.adapter.push(buffer);
        }
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
        let Ok(map) = buffer.map_readable() else {
            return Ok(());
        };
        self.is_refuted = false;
        let origin = if from_upstream {
            Origin::Upstream(&buffer)
        } else {
            Origin::Pending(&buffer)
        };
        let progress = self.parse(&map, origin, false, each)?;
        drop(map);
        self.wanted = progress.wanted;
        self.position += progress.used as u64;
        if progress.used >= buffer.size() {
            return Ok(());
        }
        let Ok(rest) = buffer.copy_region(gst::BufferCopyFlags::MEMORY, progress.used..) else {
            return Ok(());
        };
        // Bytes that were put together for something else than a tag are not put together again.
        let is_doubtful =
            std::mem::take(&mut self.is_refuted) && rest.size() > progress.used.max(MAX_REST);
        if is_doubtful || matches!(self.expect, Expect::Resync(_)) {
            self.move_to_window(Some(rest));
            return self.parse_window(each);
        }
        let following = self.take_pending();
        self.adapter.push(rest);
        for buffer in following {
            self.adapter.push(buffer);
        }
        Ok(())
    }

    fn take_pending(&mut self) -> Vec<gst::Buffer> {
        match self.adapter.available() {
            0 => Vec::new(),
            available => self.adapter.take_list(available).unwrap_or_default(),
        }
    }

    fn move_to_window(&mut self, first: Option<gst::Buffer>) {
        for buffer in first.into_iter().chain(self.take_pending()) {
            self.window.append(&buffer);
        }
    }

    /// Parses the window. A tag whose rest is still to come moves to the adapter when what is moved
    /// is no more than what the window was good for, so that moving costs no more than parsing.
    fn parse_window<E>(
        &mut self,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut window = std::mem::take(&mut self.window);
        if window.remaining().len() >= self.wanted {
            let progress = self.parse(window.remaining(), Origin::Window, false, each)?;
            self.wanted = progress.wanted;
            self.position += progress.used as u64;
            window.consume(progress.used);
        }
        let is_searching = matches!(self.expect, Expect::Resync(_));
        if !is_searching && window.remaining().len() <= window.consumed {
            if !window.is_empty() {
                let rest = gst::Buffer::from_slice(window.remaining().to_vec());
                self.adapter.push(rest);
            }
        } else {
            self.window = window;
        }
        Ok(())
    }

    /// `is_end`: no more bytes will come.
    fn parse<E>(
        &mut self,
        bytes: &[u8],
        origin: Origin<'_>,
        is_end: bool,
        each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
    ) -> Result<Progress, E> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let wait_for = |wanted| Ok(Progress { used: at, wanted });
            if rest.len() < self.expect.length() {
                return wait_for(match self.expect {
                    // The next header can be put together with it.
                    Expect::BackPointer => TRAILER_LENGTH + FRONT_LENGTH,
                    expect => expect.length(),
                });
            }
            match self.expect {
                Expect::FileHeader => {
                    if !starts_with_signature(rest) {
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
                    each(Parsed::FileHeader)?;
                    at += length;
                    self.expect = Expect::BackPointer;
                }
                Expect::BackPointer => {
                    at += TRAILER_LENGTH;
                    self.expect = Expect::Tag;
                }
                Expect::Tag => {
                    // Concatenated files have more than one header.
                    if starts_with_signature(rest) {
                        self.expect = Expect::FileHeader;
                        continue;
                    }
                    let header = TagHeader::read(rest);
                    if !header.is_certain(self.stream_id) {
                        self.expect = Expect::Resync(0);
                        continue;
                    }
                    let end = header.end();
                    // A buffer that ends with the tag proves it.
                    let is_buffer = matches!(origin, Origin::Upstream(_))
                        && at == 0
                        && (rest.len() == end || rest.len() == end + TRAILER_LENGTH);
                    let proof = if is_buffer {
                        Proof::Yes
                    } else {
                        verify(rest, &header, self.stream_id, is_end)
                    };
                    if let Proof::Open(wanted) = proof {
                        return wait_for(wanted);
                    }
                    self.is_refuted |= proof == Proof::No;
                    if proof != Proof::Yes
                        && let Some(place) = self.file_within(rest, at, &header)
                    {
                        if place >= end {
                            emit(&header, bytes, at, origin, each)?;
                        } else {
                            each(Parsed::Lost(place))?;
                        }
                        at += place;
                        self.expect = Expect::FileHeader;
                        continue;
                    }
                    if proof != Proof::No {
                        emit(&header, bytes, at, origin, each)?;
                        if rest.len() >= end + TRAILER_LENGTH {
                            at += end + TRAILER_LENGTH;
                        } else {
                            at += end;
                            self.expect = Expect::BackPointer;
                        }
                        continue;
                    }
                    if is_end && rest.len() < end {
                        // The stream is cut here, unless the tag was and others follow it.
                        let (skip, open) = search(&rest[1..], true);
                        if open.is_some() {
                            return wait_for(end);
                        }
                        each(Parsed::Lost(1 + skip))?;
                        at += 1 + skip;
                        self.resume_at(&bytes[at..]);
                        continue;
                    }
                    self.expect = Expect::Resync(1);
                }
                Expect::Resync(first) => {
                    let (skip, wanted) = search(&rest[first..], is_end);
                    let skip = first + skip;
                    if skip > 0 {
                        each(Parsed::Lost(skip))?;
                        at += skip;
                    }
                    self.expect = Expect::Resync(0);
                    if let Some(wanted) = wanted {
                        return Ok(Progress { used: at, wanted });
                    }
                    self.resume_at(&bytes[at..]);
                    if self.expect == Expect::Tag {
                        let header = TagHeader::read(&bytes[at..]);
                        emit(&header, bytes, at, origin, each)?;
                        at += header.end();
                        self.expect = Expect::BackPointer;
                    }
                }
            }
        }
    }

    /// Returns the place of a file header within a doubtful tag, which is at `at` of what is
    /// parsed.
    fn file_within(&mut self, rest: &[u8], at: usize, header: &TagHeader) -> Option<usize> {
        let start = self.position + at as u64;
        let searched = usize::try_from(self.searched.saturating_sub(start)).unwrap_or(usize::MAX);
        let range = FRONT_LENGTH.max(searched)..header.end() + TRAILER_LENGTH;
        let end = range
            .end
            .min(rest.len().saturating_sub(FILE_HEADER_LENGTH - 1));
        let found = find_file_header(rest, range);
        if found.is_none() {
            self.searched = self.searched.max(start + end as u64);
        }
        found
    }

    /// Goes on at a tag or a file header that a search has found.
    fn resume_at(&mut self, bytes: &[u8]) {
        if starts_with_signature(bytes) {
            self.expect = Expect::FileHeader;
        } else {
            self.stream_id = TagHeader::read(bytes).stream_id;
            self.expect = Expect::Tag;
        }
    }
}

/// Calls `each` for the tag at `at`, which is whole.
fn emit<E>(
    header: &TagHeader,
    bytes: &[u8],
    at: usize,
    origin: Origin<'_>,
    each: &mut impl FnMut(Parsed<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(kind) = header.kind() else {
        return each(Parsed::UnknownTag(header.type_code));
    };
    let body = at + FRONT_LENGTH..at + header.end();
    let tag = |dts| FlvTag {
        kind,
        timestamp: header.timestamp,
        body: &bytes[body.clone()],
        dts,
    };
    match origin {
        Origin::Upstream(buffer) => each(Parsed::Tag {
            tag: tag(if at == 0 { buffer.dts() } else { None }),
            buffer,
            offset: body.start,
        }),
        Origin::Pending(buffer) => each(Parsed::Tag {
            tag: tag(None),
            buffer,
            offset: body.start,
        }),
        Origin::Window => each(Parsed::Tag {
            tag: tag(None),
            buffer: &gst::Buffer::from_slice(bytes[body.clone()].to_vec()),
            offset: 0,
        }),
    }
}

#[cfg(test)]
mod tests;
