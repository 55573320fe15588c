// SPDX-License-Identifier: MPL-2.0

//! AMF0 without values: finds where values end and allocates nothing, so that the size of a message
//! is the only limit on it.

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::read::marker;
use super::{Error, MAX_DEPTH};

/// Values at the front of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Number of whole values.
    pub values: usize,
    /// Bytes of the whole values.
    pub length: usize,
    /// True if an AMF3 value was found. The scan ends before the value that has it.
    pub has_amf3: bool,
    /// Error in the bytes after the values.
    pub error: Option<Error>,
}

/// Scans at most `max_values` values from the front of `input`.
pub fn scan(input: &[u8], max_values: usize) -> Scan {
    let mut found = Scan::default();
    let mut rest = input;
    while !rest.is_empty() && found.values < max_values {
        match skip_value(rest, 0) {
            Ok(after) => {
                rest = after;
                found.values += 1;
                found.length = input.len() - rest.len();
            }
            Err(Stop::Amf3) => {
                found.has_amf3 = true;
                break;
            }
            Err(Stop::Error(error)) => {
                found.error = Some(error);
                break;
            }
        }
    }
    found
}

/// Returns true if the first value is a number or another one without values in it.
pub(super) fn starts_with_scalar(input: &[u8]) -> bool {
    let containers = [
        marker::OBJECT,
        marker::ECMA_ARRAY,
        marker::STRICT_ARRAY,
        marker::TYPED_OBJECT,
        marker::AVMPLUS,
    ];
    input.first().is_some_and(|kind| !containers.contains(kind))
}

enum Stop {
    Amf3,
    Error(Error),
}

impl From<nom::Err<()>> for Stop {
    fn from(_: nom::Err<()>) -> Self {
        Stop::Error(Error::Truncated)
    }
}

type Step<'a> = Result<&'a [u8], Stop>;

fn skip(input: &[u8], count: usize) -> Step<'_> {
    let (rest, _) = take(count)(input)?;
    Ok(rest)
}

fn skip_short_string(input: &[u8]) -> Step<'_> {
    let (rest, length) = be_u16(input)?;
    skip(rest, usize::from(length))
}

fn skip_value(input: &[u8], depth: usize) -> Step<'_> {
    if depth > MAX_DEPTH {
        return Err(Stop::Error(Error::TooDeep));
    }
    let (rest, kind) = be_u8(input)?;
    match kind {
        marker::NUMBER => skip(rest, 8),
        marker::BOOLEAN => skip(rest, 1),
        marker::STRING => skip_short_string(rest),
        marker::LONG_STRING | marker::XML_DOCUMENT => {
            let (rest, length) = be_u32(rest)?;
            skip(rest, length as usize)
        }
        marker::OBJECT => skip_properties(rest, depth),
        marker::NULL | marker::UNDEFINED | marker::UNSUPPORTED => Ok(rest),
        marker::REFERENCE => skip(rest, 2),
        marker::ECMA_ARRAY => skip_properties(skip(rest, 4)?, depth),
        marker::STRICT_ARRAY => {
            let (mut rest, count) = be_u32(rest)?;
            for _ in 0..count {
                rest = skip_value(rest, depth + 1)?;
            }
            Ok(rest)
        }
        marker::DATE => skip(rest, 10),
        marker::TYPED_OBJECT => skip_properties(skip_short_string(rest)?, depth),
        marker::AVMPLUS => Err(Stop::Amf3),
        unknown => Err(Stop::Error(Error::UnknownMarker(unknown))),
    }
}

/// Skips properties up to the end marker or the end of the input, as the reader does.
fn skip_properties(input: &[u8], depth: usize) -> Step<'_> {
    let mut rest = input;
    while !rest.is_empty() {
        let after = skip_short_string(rest)?;
        if rest[..2] == [0, 0] && after.first() == Some(&marker::OBJECT_END) {
            return Ok(&after[1..]);
        }
        rest = skip_value(after, depth + 1)?;
    }
    Ok(rest)
}
