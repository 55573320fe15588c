// SPDX-License-Identifier: MPL-2.0

//! Names from clients, as logs show them. Logs are passed on, and read line by line.

use std::fmt;

/// Shows the first two characters of a stream key, and that there are more. A key keeps others from
/// publishing, so nothing is shown of a short one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Redacted<'a>(pub &'a str);

const MIN_SHOWN: usize = 6;

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let shown = if self.0.len() < MIN_SHOWN { 0 } else { 2 };
        let start: String = self.0.chars().take(shown).collect();
        write!(f, "{}…", start.escape_debug())
    }
}

/// Shows a name from a client: quoted, on one line, and cut to a readable length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a>(pub &'a str);

const MAX_SHOWN: usize = 64;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.floor_char_boundary(MAX_SHOWN);
        let rest = if end < self.0.len() { "…" } else { "" };
        write!(f, "\"{}{rest}\"", self.0[..end].escape_debug())
    }
}

#[test]
fn keys_show_only_their_first_two_characters() {
    assert_eq!(Redacted("").to_string(), "");
    assert_eq!(Redacted("key").to_string(), "…");
    assert_eq!(Redacted("äbcdefg").to_string(), "äb…");
}

#[test]
fn names_stay_on_one_short_line() {
    assert_eq!(Quoted("live").to_string(), "\"live\"");
    assert_eq!(Quoted("a\nb\"").to_string(), "\"a\\nb\\\"\"");
    assert_eq!(Quoted(&"x".repeat(1000)).to_string().chars().count(), 67);
}
