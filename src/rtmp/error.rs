// SPDX-License-Identifier: MPL-2.0

use super::limits;

/// A violation of the protocol by the client that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("TLS on a plain RTMP port: use rtmp:// instead of rtmps://")]
    Tls,
    #[error("HTTP on an RTMP port: RTMPT and web requests are not served here")]
    Http,
    #[error("RTMPE (version {0}) is not supported: use rtmp://")]
    Rtmpe(u8),
    #[error("not RTMP: the first byte is {0:#04x} instead of 0x03")]
    NotRtmp(u8),
    #[error(
        "chunk stream {csid} starts with a type {fmt} chunk, which refers to a chunk before it"
    )]
    NoPrecedingChunk { csid: u32, fmt: u8 },
    #[error("chunk stream {csid} starts another message within a message")]
    MessageWithinMessage { csid: u32 },
    #[error("over {} chunk streams", limits::MAX_CHUNK_STREAMS)]
    TooManyChunkStreams,
    #[error("message of {length} bytes, over the limit of {limit}")]
    MessageTooLarge { length: u32, limit: u32 },
    #[error(
        "over {} bytes in messages that are not complete",
        limits::MAX_BUFFERED
    )]
    TooMuchBuffered,
    #[error("chunk size 0")]
    ChunkSizeZero,
    #[error("control message of type {0} is cut short")]
    ShortControlMessage(u8),
    #[error("a name of over {} bytes", limits::MAX_NAME)]
    NameTooLong,
    #[error("a name of over {} parts", limits::MAX_PATH_PARTS)]
    TooManyParts,
    #[error("a name with a control character in it")]
    ControlCharacter,
    #[error("publish before connect")]
    PublishBeforeConnect,
}
