// SPDX-License-Identifier: MPL-2.0

//! Server URLs with `{variables}`, and their form without secrets for logs and messages.

use std::fmt;

use url::Url;

use crate::server::Redacted;

/// An unusable location. The text contains no part of it, since it holds a stream key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidLocation {
    #[error("locations is empty: set at least one rtmp:// URL")]
    None,
    #[error("Location {0} has an unmatched {{ or }}")]
    Braces(usize),
    #[error("Location {0} uses the variable \"{1}\", which is missing in variables: set it there")]
    Unknown(usize, String),
    #[error("Location {0} uses the variable \"{1}\", which is empty in variables: set a value")]
    Unfilled(usize, String),
    #[error("Location {0} is not an RTMP URL: use rtmp://HOST/APPLICATION/STREAM-KEY or rtmps://")]
    Url(usize),
}

/// Length below which a secret may occur in other words by chance.
const MIN_SECRET: usize = 4;

/// A location with its variables filled in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Location {
    url: String,
    port: u16,
    /// Texts that must not be shown: stream key, password, query. The longest come first.
    secrets: Vec<String>,
    /// The URL without user, password and query, with a masked stream key.
    masked: String,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked)
    }
}

impl Location {
    /// Fills in a template. `number` counts from 1 and identifies the location in errors.
    pub(super) fn new(
        number: usize,
        template: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidLocation> {
        let url = fill(number, template, variable)?;
        let invalid = || InvalidLocation::Url(number);
        let parsed = Url::parse(&url).map_err(|_| invalid())?;
        if !matches!(parsed.scheme(), "rtmp" | "rtmps") || parsed.host_str().is_none() {
            return Err(invalid());
        }
        // As in rtmp2sink, the stream key follows the last slash.
        let path = parsed.path().trim_start_matches('/');
        let (application, stream) = path.rsplit_once('/').ok_or_else(invalid)?;
        let after_slash = url.rsplit_once('/').map(|(_, key)| key.to_owned());
        let key = after_slash.filter(|key| !key.is_empty());
        let key = key.ok_or_else(invalid)?;
        if application.is_empty() || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid());
        }
        let port = parsed.port().map(|port| format!(":{port}"));
        let masked = format!(
            "{}://{}{}/{}/{}",
            parsed.scheme(),
            parsed.host_str().unwrap_or_default(),
            port.unwrap_or_default(),
            application,
            Redacted(stream)
        );
        let secrets = secrets(&url, &parsed, &key);
        let default_port = match parsed.scheme() {
            "rtmps" => 443,
            _ => 1935,
        };
        Ok(Location {
            url,
            port: parsed.port().unwrap_or(default_port),
            secrets,
            masked,
        })
    }

    /// The URL with all secrets, only for the connection itself.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The server's port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The location for logs and messages.
    pub(super) fn masked(&self) -> &str {
        &self.masked
    }

    /// Returns a text of a server or a library for logs and messages: without secrets, with
    /// unprintable characters escaped, and shortened. Returns an empty text if it contains a secret
    /// that is so short that it may be part of any word.
    pub(super) fn printable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if secret.len() < MIN_SECRET && text.contains(secret.as_str()) {
                return String::new();
            }
            text = text.replace(secret.as_str(), &Redacted(secret).to_string());
        }
        escaped(&text)
    }
}

/// Most characters that are shown of a text.
const MAX_TEXT: usize = 200;

/// A server may send control characters, which a terminal or a log would obey.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for (index, char) in text.chars().enumerate() {
        match char {
            _ if index == MAX_TEXT => {
                escaped.push('…');
                break;
            }
            '\'' | '"' => escaped.push(char),
            _ => escaped.extend(char.escape_debug()),
        }
    }
    escaped
}

/// Returns all secrets in a URL. A slash in the query ends what rtmp2sink takes for the
/// application, but the stream key is still the end of the path.
fn secrets(url: &str, parsed: &Url, key: &str) -> Vec<String> {
    let (before_query, query) = url.split_once('?').unwrap_or((url, ""));
    let written = before_query.rsplit('/').next().unwrap_or_default();
    let path = parsed.path().rsplit('/').next().unwrap_or_default();
    let password = parsed.password().unwrap_or_default();
    let mut secrets: Vec<String> = [url, key, written, path, password]
        .into_iter()
        .filter(|secret| !secret.is_empty())
        .map(str::to_owned)
        .collect();
    let values = query.split('&').map(|pair| {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        value.to_owned()
    });
    let decoded = parsed.query_pairs().map(|(_, value)| value.into_owned());
    let query_values = values.chain(decoded).chain([query.to_owned()]);
    for value in query_values {
        let parts = value.split('/').chain([&*value]);
        // A short value is an option, not a secret.
        let long = parts.filter(|part| part.len() >= MIN_SECRET);
        secrets.extend(long.map(str::to_owned));
    }
    // A secret may be part of another one, so the longest are replaced first.
    secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    secrets.dedup();
    secrets
}

fn fill(
    number: usize,
    template: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, InvalidLocation> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        filled.push_str(&rest[..open]);
        let inside = rest[open..].strip_prefix('{');
        let found = inside.and_then(|inside| inside.split_once('}'));
        let found = found.filter(|(name, _)| !name.contains('{'));
        let (name, after) = found.ok_or(InvalidLocation::Braces(number))?;
        let value = variable(name);
        let value = value.ok_or_else(|| InvalidLocation::Unknown(number, name.to_owned()))?;
        if value.is_empty() {
            return Err(InvalidLocation::Unfilled(number, name.to_owned()));
        }
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> Result<Location, InvalidLocation> {
        Location::new(2, template, |name| match name {
            "camera_id" => Some("7".to_owned()),
            "stream_name" => Some("garden".to_owned()),
            "nothing" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_filled_in_and_the_key_is_masked() {
        let location = filled("rtmp://example.com:1936/live/cam{camera_id}_{stream_name}").unwrap();
        assert_eq!(location.url(), "rtmp://example.com:1936/live/cam7_garden");
        assert_eq!(location.masked(), "rtmp://example.com:1936/live/ca…");
        assert_eq!(format!("{location:?}"), location.masked());
        let location = filled("rtmps://me:password@[::1]/a/b/{stream_name}?token=secret").unwrap();
        assert_eq!(location.masked(), "rtmps://[::1]/a/b/ga…");
    }

    #[test]
    fn a_variable_without_a_value_is_named() {
        let url = |variable| format!("rtmp://host/live/{{{variable}}}");
        let unknown = InvalidLocation::Unknown(2, "camera".to_owned());
        assert_eq!(filled(&url("camera")), Err(unknown));
        let unfilled = InvalidLocation::Unfilled(2, "nothing".to_owned());
        assert_eq!(filled(&url("nothing")), Err(unfilled));
        for template in [
            "rtmp://host/live/{camera_id",
            "rtmp://h/l/a}",
            "rtmp://h/{a{b}}/c",
        ] {
            assert_eq!(filled(template), Err(InvalidLocation::Braces(2)));
        }
    }

    #[test]
    fn a_url_without_rtmp_scheme_host_application_or_key_is_rejected() {
        for url in [
            "",
            "host/live/key",
            "http://host/live/key",
            "rtmp://host/live",
            "rtmp://host/live/",
            "rtmp:///live/key",
            "rtmp://host/live/a key",
        ] {
            assert_eq!(filled(url), Err(InvalidLocation::Url(2)), "{url}");
        }
    }

    #[test]
    fn a_key_before_a_query_with_slashes_is_masked() {
        let url = "rtmp://host/live/stream-key?token=first/second-token&sign=a%2Fsignature&v=1";
        let location = filled(url).unwrap();
        assert_eq!(location.masked(), "rtmp://host/live/st…");
        for text in [
            "stream-key",
            "live/stream-key?token=first",
            "second-token",
            "first/second-token is wrong",
            "a%2Fsignature",
            "a/signature",
            url,
        ] {
            let masked = location.printable(text);
            for secret in ["stream-key", "second-token", "signature"] {
                assert!(!masked.contains(secret), "{text}: {masked}");
            }
        }
        let text = "Error 1: the server is full";
        assert_eq!(location.printable(text), text);
    }

    #[test]
    fn server_texts_are_shown_without_secrets() {
        let location = filled("rtmp://me:hidden-word@host/live/stream-key?token=x1").unwrap();
        let text = "rtmp://me:hidden-word@host/live/stream-key?token=x1: hidden-word is wrong";
        let masked = location.printable(text);
        assert!(
            !masked.contains("hidden-word") && !masked.contains("stream-key"),
            "{masked}"
        );
        let location = filled("rtmp://host/live/a").unwrap();
        assert_eq!(location.printable("it failed"), "");
    }

    #[test]
    fn server_texts_are_escaped_and_shortened() {
        let location = filled("rtmp://host/live/stream-key").unwrap();
        let shown = location.printable("no \x1b[31m\r\nroom \u{202e}for 'Zoë' \0");
        assert_eq!(shown, r"no \u{1b}[31m\r\nroom \u{202e}for 'Zoë' \0");
        let shown = location.printable(&"x\n".repeat(1000));
        assert_eq!(shown, format!("{}…", r"x\n".repeat(100)));
    }
}
