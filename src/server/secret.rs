// SPDX-License-Identifier: MPL-2.0

use std::fmt;

/// Shows the first two characters of a stream key, and that there are more. A key is what keeps
/// others from publishing, and logs get passed around.
#[derive(Debug, Clone, Copy)]
pub struct Secret<'a>(pub &'a str);

impl fmt::Display for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(2).collect();
        let rest = if shown.len() < self.0.len() {
            "…"
        } else {
            ""
        };
        write!(f, "{shown}{rest}")
    }
}

#[test]
fn only_the_first_two_characters_show() {
    assert_eq!(Secret("").to_string(), "");
    assert_eq!(Secret("äb").to_string(), "äb");
    assert_eq!(Secret("äbc").to_string(), "äb…");
}
