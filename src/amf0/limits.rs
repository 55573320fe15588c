// SPDX-License-Identifier: MPL-2.0

use super::{Error, MAX_COPIED, MAX_DEPTH, MAX_PROPERTIES};

/// The limits of one message, for both formats together.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) max_properties: usize,
    properties: usize,
    copied: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_properties: MAX_PROPERTIES,
            properties: 0,
            copied: 0,
        }
    }
}

impl Limits {
    pub(super) fn count_one(&mut self) -> Result<(), Error> {
        self.properties += 1;
        if self.properties > self.max_properties {
            return Err(Error::TooManyProperties(self.max_properties));
        }
        Ok(())
    }

    /// Copies a string to which the message refers again.
    pub(super) fn copy(&mut self, string: &str) -> Result<String, Error> {
        self.copied += string.len();
        if self.copied > MAX_COPIED {
            return Err(Error::TooLarge);
        }
        Ok(string.to_owned())
    }

    pub(super) fn check_depth(depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        Ok(())
    }
}
