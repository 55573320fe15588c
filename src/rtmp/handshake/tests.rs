// SPDX-License-Identifier: MPL-2.0

use super::*;

/// Runs a handshake with input in pieces of `step` bytes. Returns true if it is finished, its
/// output and the number of bytes left.
fn run(input: &[u8], step: usize) -> Result<(bool, Vec<u8>, usize), Violation> {
    let mut handshake = Handshake::new(7);
    let mut output = Vec::new();
    let (mut done, mut left) = (false, 0);
    for piece in input.chunks(step) {
        let mut piece = piece;
        done = handshake.read(&mut piece, &mut output)?;
        left += piece.len();
    }
    Ok((done, output, left))
}

fn client(version: [u8; 4]) -> HandshakeBlock {
    let mut c1 = [0; BLOCK_LENGTH];
    fastrand::Rng::with_seed(1).fill(&mut c1);
    c1[4..8].copy_from_slice(&version);
    c1
}

#[test]
fn simple_form_echoes_c1() {
    let c1 = client([0; 4]);
    let input = [&[3][..], &c1, &[9; BLOCK_LENGTH], b"rest"].concat();
    for step in [1, 7, 1537, 100_000] {
        let (done, output, left) = run(&input, step).unwrap();
        assert!(done);
        assert_eq!(left, 4);
        assert_eq!(output.len(), 1 + 2 * BLOCK_LENGTH);
        assert_eq!(output[0], 3);
        assert_eq!(output[5..9], [0; 4]);
        assert_eq!(output[1 + BLOCK_LENGTH..], c1);
    }
}

#[test]
fn other_plain_versions_are_answered_with_version_3() {
    for version in (0..32).filter(|version| ![6, 8, 9, 0x16].contains(version)) {
        let input = [&[version][..], &client([0; 4]), &[9; BLOCK_LENGTH]].concat();
        let (done, output, _) = run(&input, 100).unwrap();
        assert!(done);
        assert_eq!(output.len(), 3073);
        assert_eq!(output[0], 3, "version {version}");
    }
}

#[test]
fn reply_is_complete_before_c2() {
    let input = [&[3][..], &client([0; 4])].concat();
    let (done, output, _) = run(&input, 100).unwrap();
    assert!(!done);
    assert_eq!(output.len(), 3073);
}

#[test]
fn valid_digest_gets_a_digest_reply() {
    for layout in [DigestLayout::DigestFirst, DigestLayout::KeyFirst] {
        let mut c1 = client([9, 0, 124, 2]);
        digest::sign_c1(&mut c1, layout);
        let input = [&[3][..], &c1].concat();
        let (_, output, _) = run(&input, 999).unwrap();
        let s1: &HandshakeBlock = output[1..][..BLOCK_LENGTH].try_into().unwrap();
        let s2: &HandshakeBlock = output[1 + BLOCK_LENGTH..].try_into().unwrap();
        assert_ne!(s1[4..8], [0; 4]);
        assert!(digest::verify_reply(s1, s2, &c1, layout));
    }
}

#[test]
fn version_without_valid_digest_gets_the_simple_form() {
    let c1 = client([9, 0, 124, 2]);
    let (_, output, _) = run(&[&[3][..], &c1].concat(), 5000).unwrap();
    assert_eq!(output[5..9], [0; 4]);
    assert_eq!(output[1 + BLOCK_LENGTH..], c1);
}

#[test]
fn other_protocols_are_recognized_by_their_first_byte() {
    let error = |input: &[u8]| run(input, 10).unwrap_err();
    assert_eq!(error(&[0x16, 3, 1]), Violation::Tls);
    assert_eq!(error(b"GET / HTTP/1.1"), Violation::Http);
    assert_eq!(error(b"POST /open/1"), Violation::Http);
    assert_eq!(error(&[6]), Violation::Rtmpe(6));
    assert_eq!(error(&[0xFF]), Violation::NotRtmp(0xFF));
}
