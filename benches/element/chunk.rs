// SPDX-License-Identifier: MPL-2.0
//! The part of chunking that a publisher and the one-copy floor need.
//!
//! The benchmark has its own, so that it measures the plugin from outside and cannot share a
//! mistake with it. It trusts its peer: basic headers of one byte, no extended timestamps.

/// Chunk size of both directions until told otherwise.
pub const INITIAL_CHUNK_SIZE: usize = 128;

/// Message type ids.
pub const SET_CHUNK_SIZE: u8 = 1;
pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;
pub const DATA: u8 = 18;
pub const COMMAND: u8 = 20;

/// Chunk stream ids fit the one-byte basic header.
const LANES: usize = 64;

/// The part of a message that a header repeats or compresses away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub timestamp: u32,
    pub length: usize,
    pub type_id: u8,
    pub msid: u32,
}

#[derive(Clone, Copy, Default)]
struct WriteLane {
    last: Option<Header>,
    delta: Option<u32>,
}

/// Serialises messages with the shortest header that the chunk stream's history allows, as ffmpeg
/// and OBS do.
pub struct ChunkWriter {
    pub chunk_size: usize,
    lanes: [WriteLane; LANES],
}

impl ChunkWriter {
    pub fn new(chunk_size: usize) -> Self {
        Self {
            chunk_size,
            lanes: [WriteLane::default(); LANES],
        }
    }

    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        csid: u8,
        timestamp: u32,
        type_id: u8,
        msid: u32,
        payload: &[u8],
    ) {
        let header = Header {
            timestamp,
            length: payload.len(),
            type_id,
            msid,
        };
        self.write_header(out, csid, header);
        let mut chunks = payload.chunks(self.chunk_size);
        out.extend_from_slice(chunks.next().unwrap_or_default());
        for chunk in chunks {
            out.push(3 << 6 | csid);
            out.extend_from_slice(chunk);
        }
    }

    fn write_header(&mut self, out: &mut Vec<u8>, csid: u8, header: Header) {
        let lane = &mut self.lanes[usize::from(csid)];
        let Some(last) = lane.last.filter(|last| last.msid == header.msid) else {
            out.push(csid);
            push_u24(out, header.timestamp);
            push_u24(out, header.length as u32);
            out.push(header.type_id);
            out.extend_from_slice(&header.msid.to_le_bytes());
            *lane = WriteLane {
                last: Some(header),
                delta: None,
            };
            return;
        };
        let delta = header.timestamp - last.timestamp;
        let same_shape = (last.length, last.type_id) == (header.length, header.type_id);
        let fmt = match (same_shape, lane.delta == Some(delta)) {
            (true, true) => 3,
            (true, false) => 2,
            (false, _) => 1,
        };
        out.push(fmt << 6 | csid);
        if fmt < 3 {
            push_u24(out, delta);
        }
        if fmt < 2 {
            push_u24(out, header.length as u32);
            out.push(header.type_id);
        }
        *lane = WriteLane {
            last: Some(header),
            delta: Some(delta),
        };
    }
}

#[derive(Default)]
struct ReadLane {
    header: Header,
    delta: u32,
    payload: Vec<u8>,
}

/// Assembles messages: one allocation a message, one copy of each payload byte, and no other work.
pub struct ChunkReader {
    chunk_size: usize,
    lanes: [ReadLane; LANES],
    /// Chunk stream of the chunk being read, and the missing bytes of the chunk.
    open: Option<(usize, usize)>,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkReader {
    pub fn new() -> Self {
        Self {
            chunk_size: INITIAL_CHUNK_SIZE,
            lanes: std::array::from_fn(|_| ReadLane::default()),
            open: None,
        }
    }

    /// Consumes `data` and returns the consumed bytes: fewer than all where a header is incomplete.
    pub fn read(&mut self, data: &[u8], mut on_message: impl FnMut(&Header, Vec<u8>)) -> usize {
        let mut rest = data;
        loop {
            let (index, missing) = match self.open {
                Some(open) => open,
                None => match self.read_header(rest) {
                    Some((index, size)) => {
                        rest = &rest[size..];
                        let lane = &mut self.lanes[index];
                        if lane.payload.is_empty() {
                            lane.payload.reserve_exact(lane.header.length);
                        }
                        let left = lane.header.length - lane.payload.len();
                        (index, left.min(self.chunk_size))
                    }
                    None => return data.len() - rest.len(),
                },
            };
            let lane = &mut self.lanes[index];
            let (now, later) = rest.split_at(missing.min(rest.len()));
            lane.payload.extend_from_slice(now);
            rest = later;
            if now.len() < missing {
                self.open = Some((index, missing - now.len()));
                return data.len();
            }
            self.open = None;
            if lane.payload.len() == lane.header.length {
                let payload = std::mem::take(&mut lane.payload);
                if lane.header.type_id == SET_CHUNK_SIZE {
                    self.chunk_size = payload
                        .iter()
                        .fold(0, |n, byte| n << 8 | usize::from(*byte));
                }
                on_message(&lane.header, payload);
            }
        }
    }

    /// Reads a basic and message header; `None` while it is incomplete.
    fn read_header(&mut self, data: &[u8]) -> Option<(usize, usize)> {
        let (&basic, data) = data.split_first()?;
        let index = usize::from(basic & 0x3f);
        let size = [11, 7, 3, 0][usize::from(basic >> 6)];
        let data = data.get(..size)?;
        let lane = &mut self.lanes[index];
        if size >= 3 {
            lane.delta = u24(data);
        }
        if size >= 7 {
            lane.header.length = u24(&data[3..]) as usize;
            lane.header.type_id = data[6];
        }
        if size == 11 {
            lane.header.msid = u32::from_le_bytes([data[7], data[8], data[9], data[10]]);
            lane.header.timestamp = lane.delta;
        } else if lane.payload.is_empty() {
            lane.header.timestamp = lane.header.timestamp.wrapping_add(lane.delta);
        }
        Some((index, 1 + size))
    }
}

pub fn push_u24(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes()[1..]);
}

fn u24(data: &[u8]) -> u32 {
    u32::from_be_bytes([0, data[0], data[1], data[2]])
}
