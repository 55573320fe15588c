// SPDX-License-Identifier: MPL-2.0

//! The digest form of the handshake: HMAC-SHA256 over a block without its digest. The offset of the
//! digest is computed from bytes of the block.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::block::{BLOCK_LENGTH, HandshakeBlock};

const DIGEST_LENGTH: usize = 32;

const CLIENT_TEXT: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER_TEXT: &[u8] = b"Genuine Adobe Flash Media Server 001";

/// Suffix of either text in the long form of its key.
const KEY_SUFFIX: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57,
    0x6E, 0xEC, 0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

/// Announced in S1. Every value but 0 means that there is a digest.
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];

/// Position of the digest in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DigestLayout {
    DigestFirst,
    KeyFirst,
}

impl DigestLayout {
    /// Returns the layout under which the digest of this C1 is valid.
    pub(super) fn detect(c1: &HandshakeBlock) -> Option<Self> {
        [DigestLayout::DigestFirst, DigestLayout::KeyFirst]
            .into_iter()
            .find(|layout| {
                let offset = layout.offset(c1);
                block_mac(c1, offset, CLIENT_TEXT)
                    .verify_slice(&c1[offset..][..DIGEST_LENGTH])
                    .is_ok()
            })
    }

    fn offset(self, block: &HandshakeBlock) -> usize {
        let (field, base) = match self {
            DigestLayout::DigestFirst => (8, 12),
            DigestLayout::KeyFirst => (772, 776),
        };
        let sum: usize = block[field..][..4].iter().map(|b| usize::from(*b)).sum();
        base + sum % 728
    }
}

pub(super) fn sign_s1(s1: &mut HandshakeBlock, layout: DigestLayout) {
    s1[4..8].copy_from_slice(&SERVER_VERSION);
    let offset = layout.offset(s1);
    let digest = block_mac(s1, offset, SERVER_TEXT).finalize().into_bytes();
    s1[offset..][..DIGEST_LENGTH].copy_from_slice(&digest);
}

/// Writes the digest of S2 to its end. Its key is derived from the digest in C1.
pub(super) fn sign_s2(s2: &mut HandshakeBlock, c1: &HandshakeBlock, layout: DigestLayout) {
    let c1_digest = &c1[layout.offset(c1)..][..DIGEST_LENGTH];
    let key = mac(&[SERVER_TEXT, &KEY_SUFFIX].concat())
        .chain_update(c1_digest)
        .finalize()
        .into_bytes();
    let (body, end) = s2.split_at_mut(BLOCK_LENGTH - DIGEST_LENGTH);
    end.copy_from_slice(&mac(&key).chain_update(body).finalize().into_bytes());
}

/// Starts the HMAC over a block without the digest at `offset`.
fn block_mac(block: &HandshakeBlock, offset: usize, key: &[u8]) -> Hmac<Sha256> {
    mac(key)
        .chain_update(&block[..offset])
        .chain_update(&block[offset + DIGEST_LENGTH..])
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Signs a C1 as a client does.
#[cfg(test)]
pub(super) fn sign_c1(c1: &mut HandshakeBlock, layout: DigestLayout) {
    let offset = layout.offset(c1);
    let digest = block_mac(c1, offset, CLIENT_TEXT).finalize().into_bytes();
    c1[offset..][..DIGEST_LENGTH].copy_from_slice(&digest);
}

/// Checks S1 and S2 as a client would.
#[cfg(test)]
pub(super) fn verify_reply(
    s1: &HandshakeBlock,
    s2: &HandshakeBlock,
    c1: &HandshakeBlock,
    layout: DigestLayout,
) -> bool {
    let offset = layout.offset(s1);
    let s1_valid = block_mac(s1, offset, SERVER_TEXT)
        .verify_slice(&s1[offset..][..DIGEST_LENGTH])
        .is_ok();
    let mut expected = *s2;
    sign_s2(&mut expected, c1, layout);
    s1_valid && expected == *s2
}
