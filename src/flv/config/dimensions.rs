// SPDX-License-Identifier: MPL-2.0

/// The size of the displayed picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    pub width: u32,
    pub height: u32,
}

impl Dimensions {
    /// No decoder accepts a larger picture.
    const MAX: u32 = 1 << 16;

    pub fn new(width: u32, height: u32) -> Option<Self> {
        let sane = |length| (1..=Dimensions::MAX).contains(&length);
        (sane(width) && sane(height)).then_some(Dimensions { width, height })
    }
}
