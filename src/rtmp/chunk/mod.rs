// SPDX-License-Identifier: MPL-2.0

//! Chunk streams: messages split into chunks and interleaved (section 5.3).

mod clock;
mod header;
mod reader;
mod writer;

pub use header::{BasicHeader, MessageHeader};
pub use reader::{ChunkReader, ReaderLimits};
pub use writer::ChunkWriter;

/// Chunk size of both directions until a Set Chunk Size message changes it (section 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;

#[cfg(test)]
mod tests;
