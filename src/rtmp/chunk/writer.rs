// SPDX-License-Identifier: MPL-2.0

//! From messages to bytes, in a form that every client can read.

use super::DEFAULT_CHUNK_SIZE;
use super::header::{BasicHeader, MessageHeader};

/// Writes messages one after the other, each with a type 0 header and timestamp 0.
///
/// Other forms are not needed for publishers, and not safe: RootEncoder can't read interleaved
/// chunks, and HaishinKit for Android rejects a message that starts with type 3.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        ChunkWriter {
            chunk_size: DEFAULT_CHUNK_SIZE as usize,
        }
    }
}

impl ChunkWriter {
    /// Takes effect with the next message. Send Set Chunk Size to the peer first.
    pub fn set_chunk_size(&mut self, chunk_size: u32) {
        self.chunk_size = chunk_size.max(1) as usize;
    }

    pub fn write(&self, out: &mut Vec<u8>, csid: u32, type_id: u8, msid: u32, body: &[u8]) {
        let header = MessageHeader {
            time: 0,
            extended: false,
            length_and_type: Some((body.len() as u32, type_id)),
            msid: Some(msid),
        };
        BasicHeader { fmt: 0, csid }.write(out);
        header.write(out);
        for (index, chunk) in body.chunks(self.chunk_size).enumerate() {
            if index > 0 {
                BasicHeader { fmt: 3, csid }.write(out);
            }
            out.extend_from_slice(chunk);
        }
    }
}
