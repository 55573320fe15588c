// SPDX-License-Identifier: MPL-2.0

/// The values that a client has to use in its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Constant for a user.
    pub(super) salt: String,
    pub(super) token: String,
}

/// The query of an application. Values are as received: clients escape nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApplicationQuery<'a>(pub(super) &'a str);

impl<'a> ApplicationQuery<'a> {
    pub(super) fn new(application: &'a str) -> Self {
        ApplicationQuery(application.split_once('?').map_or("", |(_, query)| query))
    }

    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        // Base64 values contain equals signs, so only the first one separates.
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}
