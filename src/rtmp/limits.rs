// SPDX-License-Identifier: MPL-2.0

//! What one client may cost, each with the attack that it stops.

/// The largest message that a chunk header can claim: its length has 24 bits.
pub const MAX_MESSAGE_LENGTH: u32 = 0xFF_FFFF;

/// Chunk streams that a client may use. Each keeps a little state for ever: a client that walks
/// through all 65,597 ids would otherwise make the server keep that state 65,597 times.
pub const MAX_CHUNK_STREAMS: usize = 64;

/// Bytes that may be reserved for messages which are not complete yet, over all chunk streams of
/// a connection: a client that starts a large message on each chunk stream and completes none.
pub const MAX_BUFFERED: usize = 28 * 1024 * 1024;

/// Bytes of media that are kept for a client which sends media before its `publish` is answered.
/// With [`MAX_BUFFERED`] and what its [pool](crate::memory::MAX_KEPT) keeps this makes the 32 MiB
/// that a connection may hold.
pub const MAX_HELD: usize = 2 * 1024 * 1024;

/// What is reserved for a message on the word of its header alone. Beyond it, memory grows with
/// the bytes that arrive, so a claim of 16 MB costs its sender 16 MB too.
pub const INITIAL_RESERVE: usize = 8 * 1024;

/// A chunk size above this is taken as this: no message is longer, so it changes nothing, and
/// arithmetic stays far from its limits.
pub const MAX_CHUNK_SIZE: u32 = MAX_MESSAGE_LENGTH;

/// Bytes of a name or URL in a command. Tokens in queries are long, but not longer. What a client
/// says of itself is kept and passed on; without this a client could make each small command cost
/// the copy of a large one.
pub const MAX_NAME: usize = 8 * 1024;

/// Messages an aggregate may be split into: sub-messages of zero bytes would make many of little.
pub const MAX_AGGREGATE_PARTS: usize = 4096;

/// A type 3 chunk that starts a message repeats the last timestamp delta, and after a type 0
/// chunk that is its whole timestamp (section 5.3.1.2.4). Some writers mean 0 there; a step that
/// would be larger than this many milliseconds is taken as theirs.
pub const MAX_REPEATED_DELTA: u32 = 10_000;
