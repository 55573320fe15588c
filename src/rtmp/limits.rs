// SPDX-License-Identifier: MPL-2.0

//! Limits on the resources of one client, each with the attack that it stops.

/// The largest message that a chunk header can claim: its length has 24 bits.
pub const MAX_MESSAGE_LENGTH: u32 = 0xFF_FFFF;

/// Chunk streams that a client may use. Each keeps a little state for the whole connection: a
/// client that uses all 65,597 ids would otherwise make the server keep that state 65,597 times.
pub const MAX_CHUNK_STREAMS: usize = 64;

/// Bytes that may be reserved for incomplete messages, over all chunk streams of a connection. The
/// attack: a client starts a large message on each chunk stream and completes none.
pub const MAX_BUFFERED: usize = 26 * 1024 * 1024;

/// Bytes of media that are held for a client which sends media before its `publish` is answered.
/// Together with [`MAX_BUFFERED`], the memory in its [pool](crate::memory::MAX_KEPT) and a decoded
/// command of [`MAX_COMMAND`] these are the 32 MiB that a connection may hold.
pub const MAX_HELD: usize = 2 * 1024 * 1024;

/// Bytes reserved for a message when only its header has arrived. Beyond it, memory grows with the
/// bytes that arrive, so a claim of 16 MB costs its sender 16 MB too.
pub const INITIAL_RESERVE: usize = 8 * 1024;

/// Upper bound of the chunk size; a larger value counts as this one. No message is longer, so it
/// changes nothing, and arithmetic stays far from its limits.
pub const MAX_CHUNK_SIZE: u32 = MAX_MESSAGE_LENGTH;

/// Bytes of a command message. Decoded text and values can be several times as large: without this
/// limit, one message of a client that nobody has authorized could cost ten times its size.
pub const MAX_COMMAND: usize = 256 * 1024;

/// Bytes of script data with AMF3 values, before and after it is written as AMF0. Decoded values
/// can be many times as large. Plain AMF0 is not decoded, so it has no limit of its own.
pub const MAX_AMF3_DATA: usize = 1024 * 1024;

/// Values in script data with AMF3 values.
pub const MAX_AMF3_VALUES: usize = 100_000;

/// Parts of the path in a name, between slashes. Routes are compared part by part: a name of
/// slashes alone would make each comparison expensive.
pub const MAX_PATH_PARTS: usize = 128;

/// Bytes of a name or URL in a command. Tokens in queries are long, but not longer. Names are kept
/// and passed on; without this limit each small command could cost the copy of a large name.
pub const MAX_NAME: usize = 8 * 1024;

/// Messages that an aggregate is split into at most. The attack: sub-messages of zero bytes turn a
/// small aggregate into very many messages.
pub const MAX_AGGREGATE_PARTS: usize = 4096;

/// Milliseconds. A type 3 chunk that starts a message repeats the last timestamp delta, and after
/// a type 0 chunk that is its whole timestamp (section 5.3.1.2.4). Some writers mean 0 there; a
/// larger step than this counts as theirs.
pub const MAX_REPEATED_TIMESTAMP: u32 = 10_000;
