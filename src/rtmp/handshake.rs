// SPDX-License-Identifier: MPL-2.0

//! Handshake, server side: C0 and C1 in, S0, S1 and S2 out, C2 in (section 5.2).
//!
//! Flash-era clients sign C1 with a digest and want signed replies; that form is not in the
//! specification. A C1 with a valid digest gets the signed form. Every other C1 gets the plain
//! form, whose S2 is an exact copy of C1. C2 is read but not checked: rtmp2sink and HaishinKit
//! change it.

mod block;
mod digest;

use super::Violation;
pub use block::BLOCK_LENGTH;
use block::HandshakeBlock;
use digest::DigestLayout;

const VERSION: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandshakeStage {
    Version,
    C1,
    C2,
    Done,
}

/// The state of one handshake. Accepts input in pieces of any size.
pub struct Handshake {
    stage: HandshakeStage,
    block: Box<HandshakeBlock>,
    filled: usize,
    random: fastrand::Rng,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("stage", &self.stage)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// `seed` fills the random parts of S1 and S2. They protect nothing.
    pub fn new(seed: u64) -> Self {
        Handshake {
            stage: HandshakeStage::Version,
            block: Box::new([0; BLOCK_LENGTH]),
            filled: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Consumes the handshake's bytes from the front of `input` and appends replies to `output`.
    /// Returns true when the handshake is finished.
    ///
    /// S0, S1 and S2 are sent together right after C1, since ffmpeg and rtmp2sink send C2 only
    /// after all three.
    pub fn read(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<bool, Violation> {
        while self.stage != HandshakeStage::Done {
            match self.stage {
                HandshakeStage::Version => {
                    let Some((&version, rest)) = input.split_first() else {
                        return Ok(false);
                    };
                    *input = rest;
                    check_version(version)?;
                    self.stage = HandshakeStage::C1;
                }
                HandshakeStage::C1 => {
                    if !self.fill(input) {
                        return Ok(false);
                    }
                    self.reply(output);
                    self.stage = HandshakeStage::C2;
                }
                HandshakeStage::C2 => {
                    if !self.fill(input) {
                        return Ok(false);
                    }
                    self.stage = HandshakeStage::Done;
                }
                HandshakeStage::Done => {}
            }
        }
        Ok(true)
    }

    /// Copies input into the block. Returns true when the block is full, and starts a new one.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        let count = input.len().min(BLOCK_LENGTH - self.filled);
        let (copied, rest) = input.split_at(count);
        self.block[self.filled..][..count].copy_from_slice(copied);
        *input = rest;
        self.filled += count;
        if self.filled < BLOCK_LENGTH {
            return false;
        }
        self.filled = 0;
        true
    }

    fn reply(&mut self, output: &mut Vec<u8>) {
        let mut s1 = [0; BLOCK_LENGTH];
        self.random.fill(&mut s1[8..]);
        output.push(VERSION);
        // Version 0 in C1 means that there is no digest.
        let layout = match self.block[4..8] {
            [0, 0, 0, 0] => None,
            _ => DigestLayout::detect(&self.block),
        };
        match layout {
            Some(layout) => {
                let mut s2 = [0; BLOCK_LENGTH];
                self.random.fill(&mut s2);
                digest::sign_s1(&mut s1, layout);
                digest::sign_s2(&mut s2, &self.block, layout);
                output.extend_from_slice(&s1);
                output.extend_from_slice(&s2);
            }
            None => {
                output.extend_from_slice(&s1);
                output.extend_from_slice(&self.block[..]);
            }
        }
    }
}

/// Accepts every version below 32 that is not encrypted: the reply has version 3, and the client
/// goes on with that or leaves. Names the protocol that a client speaks instead of RTMP, for the
/// log.
fn check_version(version: u8) -> Result<(), Violation> {
    match version {
        0x16 => Err(Violation::Tls),
        6 | 8 | 9 => Err(Violation::Rtmpe(version)),
        0..=31 => Ok(()),
        b'G' | b'P' | b'H' | b'O' | b'D' | b'C' => Err(Violation::Http),
        other => Err(Violation::NotRtmp(other)),
    }
}

#[cfg(test)]
mod tests;
