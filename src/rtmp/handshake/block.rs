// SPDX-License-Identifier: MPL-2.0

/// Bytes of C1, S1, C2 and S2.
pub const BLOCK_LENGTH: usize = 1536;

/// C1, S1, C2 or S2.
pub(super) type HandshakeBlock = [u8; BLOCK_LENGTH];
