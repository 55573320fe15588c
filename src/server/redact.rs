// SPDX-License-Identifier: MPL-2.0

//! Names from clients, as logs and messages show them. Both are passed on, and read line by line.

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

/// Part of a stream key that is shown to the one who runs the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum KeyMasking {
    /// Enough to tell keys of cameras apart, and never a whole secret.
    #[default]
    Masked,
    Full,
    None,
}

/// Most characters of a key that is a name and no secret, such as `camera1`.
const MAX_NAME: usize = 8;

/// A stream key as messages show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownKey<'a>(pub &'a str, pub KeyMasking);

impl fmt::Display for ShownKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShownKey(key, masking) = *self;
        let count = key.chars().count();
        match masking {
            KeyMasking::None if count > 0 => f.write_str("…"),
            KeyMasking::Masked if count > MAX_NAME => {
                let start: String = key.chars().take(3).collect();
                let end: String = key.chars().skip(count - 2).collect();
                write!(f, "{}…{}", start.escape_debug(), end.escape_debug())
            }
            _ => write!(f, "{}", Quoted(key).text()),
        }
    }
}

/// A stream key as the log of connections shows it, with quotes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedKey<'a>(pub &'a str, pub KeyMasking);

impl fmt::Display for LoggedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoggedKey(key, masking) = *self;
        let count = key.chars().count();
        match masking {
            KeyMasking::None if count > 0 => f.write_str("\"…\""),
            KeyMasking::Masked if count > MAX_NAME => {
                let end: String = key.chars().skip(count - 2).collect();
                let end = end.escape_debug();
                write!(f, "\"{}\" ending in \"{end}\"", Redacted(key))
            }
            _ => write!(f, "{}", Quoted(key)),
        }
    }
}

/// An application and a stream key as messages show them: `live/camera1`. Some clients put the key
/// into the application, so only its first part is shown whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShownPath<'a> {
    pub application: &'a str,
    pub stream_key: &'a str,
    pub keys: KeyMasking,
}

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.application.split('/');
        let first = parts.next().unwrap_or_default();
        f.write_str(&Quoted(first).text())?;
        // A query is a secret, wherever it is.
        let key = self.stream_key.split('?').next().unwrap_or_default();
        for part in parts.chain((!key.is_empty()).then_some(key)) {
            write!(f, "/{}", ShownKey(part, self.keys))?;
        }
        Ok(())
    }
}

/// Shows a name from a client: quoted, on one line, and cut to a readable length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'a>(pub &'a str);

const MAX_SHOWN: usize = 64;

impl Quoted<'_> {
    /// Returns the name without quotes.
    fn text(&self) -> String {
        let end = self.0.floor_char_boundary(MAX_SHOWN);
        let rest = if end < self.0.len() { "…" } else { "" };
        format!("{}{rest}", self.0[..end].escape_debug())
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.text())
    }
}

#[test]
fn keys_show_only_their_first_two_characters() {
    assert_eq!(Redacted("").to_string(), "");
    assert_eq!(Redacted("key").to_string(), "…");
    assert_eq!(Redacted("äbcdefg").to_string(), "äb…");
}

#[test]
fn masked_keys_tell_cameras_apart_and_hide_secrets() {
    let masked = |key| ShownKey(key, KeyMasking::Masked).to_string();
    assert_eq!(
        (masked("cam1"), masked("cam2")),
        ("cam1".into(), "cam2".into())
    );
    assert_eq!(
        (masked("Live"), masked("live")),
        ("Live".into(), "live".into())
    );
    assert_eq!(masked("studio-camera-1"), "stu…-1");
    assert_eq!(masked("studio-camera-2"), "stu…-2");
    assert_eq!(masked("äbcdefghij"), "äbc…ij");
    assert_eq!(ShownKey("cam1", KeyMasking::None).to_string(), "…");
    assert_eq!(
        ShownKey("secret-key", KeyMasking::Full).to_string(),
        "secret-key"
    );
    assert_eq!(masked(""), "");
}

#[test]
fn logged_keys_tell_cameras_apart_and_hide_secrets() {
    let logged = |key, masking| LoggedKey(key, masking).to_string();
    for (key, masking, expected) in [
        ("cam1", KeyMasking::Masked, "\"cam1\""),
        (
            "studio-camera-1",
            KeyMasking::Masked,
            "\"st…\" ending in \"-1\"",
        ),
        (
            "studio-camera-2",
            KeyMasking::Masked,
            "\"st…\" ending in \"-2\"",
        ),
        ("cam1", KeyMasking::None, "\"…\""),
        ("", KeyMasking::None, "\"\""),
        ("studio-camera-1", KeyMasking::Full, "\"studio-camera-1\""),
        ("a\nb", KeyMasking::Full, "\"a\\nb\""),
    ] {
        assert_eq!(logged(key, masking), expected, "{key} {masking:?}");
    }
}

#[test]
fn paths_mask_keys_in_the_application_too() {
    let path = ShownPath {
        application: "live/long-secret-key",
        stream_key: "cam1?token=secret",
        keys: KeyMasking::Masked,
    };
    assert_eq!(path.to_string(), "live/lon…ey/cam1");
}

#[test]
fn names_stay_on_one_short_line() {
    assert_eq!(Quoted("live").to_string(), "\"live\"");
    assert_eq!(Quoted("a\nb\"").to_string(), "\"a\\nb\\\"\"");
    assert_eq!(Quoted(&"x".repeat(1000)).to_string().chars().count(), 67);
}
