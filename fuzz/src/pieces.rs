// SPDX-License-Identifier: MPL-2.0

//! Input in pieces, as a network may deliver it.

/// Returns the input in pieces whose lengths follow from `seed`: single bytes, a few, many.
pub fn pieces(seed: u8, mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut random = fastrand::Rng::with_seed(seed.into());
    std::iter::from_fn(move || {
        if input.is_empty() {
            return None;
        }
        let most = [1, 3, 17, 300, 5000][random.usize(..5)];
        let (piece, rest) = input.split_at(random.usize(1..=most).min(input.len()));
        input = rest;
        Some(piece)
    })
}
