// SPDX-License-Identifier: MPL-2.0

//! A reader of single bits.

/// Most bytes of a parameter set that are parsed. Real ones have less than a hundred.
const MAX_PARAMETER_SET: usize = 1024;

/// The bits of a slice, from its front. Every read past the end is `None`.
#[derive(Debug)]
pub(in crate::flv) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Bits<'a> {
    pub(in crate::flv) fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, position: 0 }
    }

    pub(in crate::flv) fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.position / 8)?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Some(bit == 1)
    }

    /// Reads at most 32 bits.
    pub(in crate::flv) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut number = 0;
        for _ in 0..count {
            number = number << 1 | u32::from(self.bit()?);
        }
        Some(number)
    }

    pub(in crate::flv) fn skip(&mut self, count: usize) -> Option<()> {
        self.position = self.position.checked_add(count)?;
        (self.position <= self.bytes.len() * 8).then_some(())
    }

    /// Reads an exponential Golomb code.
    pub(in crate::flv) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        Some((1 << zeros) - 1 + rest)
    }

    /// Reads an exponential Golomb code with a sign.
    pub(in crate::flv) fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -code / 2
        })
    }
}

/// Returns the start of a NAL unit without the bytes that prevent start codes in it.
pub(in crate::flv) fn unescape(nal: &[u8]) -> Vec<u8> {
    unescape_up_to(nal, MAX_PARAMETER_SET)
}

/// Returns at most this many bytes of a NAL unit, without those that prevent start codes in it.
pub(in crate::flv) fn unescape_up_to(nal: &[u8], length: usize) -> Vec<u8> {
    let nal = &nal[..nal.len().min(length)];
    let mut bytes = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    bytes
}

/// Reads a 16-bit length and as many bytes.
pub(super) fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (nal, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = after;
    Some(nal)
}
