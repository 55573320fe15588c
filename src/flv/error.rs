// SPDX-License-Identifier: MPL-2.0

/// Largest body: its length has 24 bits. A longer one would corrupt the stream after it.
pub const MAX_BODY_LENGTH: usize = 0xFF_FFFF;

/// The reason why a tag body can't be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("tag body is empty")]
    Empty,
    #[error("tag body is cut short")]
    Truncated,
    #[error("decoder configuration is empty")]
    EmptyConfiguration,
    #[error("tag body is longer than {MAX_BODY_LENGTH} bytes")]
    TooLong,
}
