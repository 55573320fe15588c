// SPDX-License-Identifier: MPL-2.0

//! Parts of the readers of both formats.

use nom::IResult;

use super::Error;

/// A parsed value and the input after it.
pub(super) type Step<'a, T> = Result<(T, &'a [u8]), Error>;

/// Converts nom's errors: in complete input the only possible error of a leaf is its end.
pub(super) fn leaf<'a, T>(result: IResult<&'a [u8], T, ()>) -> Step<'a, T> {
    result
        .map(|(rest, value)| (value, rest))
        .map_err(|_| Error::Truncated)
}

/// Decodes a string. It should be UTF-8, but encoders write titles in local code pages.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
