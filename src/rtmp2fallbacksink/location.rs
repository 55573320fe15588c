// SPDX-License-Identifier: MPL-2.0

//! Where to send to: URLs with `{variables}` in them, and how they are shown to others.

use std::fmt;

use url::Url;

use crate::server::Redacted;

/// Why a location can't be used. The text shows no location, since there is a stream key in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidLocation {
    #[error("locations is empty: set at least one rtmp:// URL")]
    None,
    #[error("Location {0} has a {{ without a }}, or the reverse")]
    Braces(usize),
    #[error("Location {0} has the variable \"{1}\", which is not in variables: set it there")]
    Unknown(usize, String),
    #[error("Location {0} has the variable \"{1}\", which is empty in variables: give it a value")]
    Unfilled(usize, String),
    #[error(
        "Location {0} is no URL of an RTMP server: write rtmp://HOST/APPLICATION/STREAM-KEY, or rtmps://"
    )]
    Url(usize),
}

/// Shorter ones are in other words by chance.
const MIN_SECRET: usize = 4;

/// A location that is filled in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Location {
    url: String,
    port: u16,
    /// What must not be shown: stream key, password, query. The longest come first.
    secrets: Vec<String>,
    shown: String,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Location {
    /// Fills in a template. `number` counts from 1, and names it in errors.
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
        // As rtmp2sink does it: the stream key is behind the last slash.
        let path = parsed.path().trim_start_matches('/');
        let (application, stream) = path.rsplit_once('/').ok_or_else(invalid)?;
        let after_slash = url.rsplit_once('/').map(|(_, key)| key.to_owned());
        let key = after_slash.filter(|key| !key.is_empty());
        let key = key.ok_or_else(invalid)?;
        if application.is_empty() || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid());
        }
        let port = parsed.port().map(|port| format!(":{port}"));
        let shown = format!(
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
            shown,
        })
    }

    /// For the connection itself, and for nothing else.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Of the server.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// For logs and messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// What a server or a library said, without what is secret in it. Where a secret is so short that
    /// it may be part of any word, nothing is left.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if secret.len() < MIN_SECRET && text.contains(secret.as_str()) {
                return String::new();
            }
            text = text.replace(secret.as_str(), &Redacted(secret).to_string());
        }
        text
    }
}

/// All that is secret in a URL. In a query there may be a slash, and with it the end of what rtmp2sink takes
/// for the application: the key is the end of the path all the same.
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
    let of_query = values.chain(decoded).chain([query.to_owned()]);
    for value in of_query {
        let parts = value.split('/').chain([&*value]);
        // What is short in there is an option, and none of it a secret.
        let long = parts.filter(|part| part.len() >= MIN_SECRET);
        secrets.extend(long.map(str::to_owned));
    }
    // One may be part of another one.
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
    fn variables_are_filled_in_and_the_key_is_not_shown() {
        let location = filled("rtmp://example.com:1936/live/cam{camera_id}_{stream_name}").unwrap();
        assert_eq!(location.url(), "rtmp://example.com:1936/live/cam7_garden");
        assert_eq!(location.shown(), "rtmp://example.com:1936/live/ca…");
        assert_eq!(format!("{location:?}"), location.shown());
        let location = filled("rtmps://me:password@[::1]/a/b/{stream_name}?token=secret").unwrap();
        assert_eq!(location.shown(), "rtmps://[::1]/a/b/ga…");
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
    fn what_is_no_rtmp_url_with_a_key_is_refused() {
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
    fn a_slash_in_the_query_hides_no_key_from_those_who_hide_it() {
        let url = "rtmp://host/live/stream-key?token=first/second-token&sign=a%2Fsignature&v=1";
        let location = filled(url).unwrap();
        assert_eq!(location.shown(), "rtmp://host/live/st…");
        for said in [
            "stream-key",
            "live/stream-key?token=first",
            "second-token",
            "first/second-token is wrong",
            "a%2Fsignature",
            "a/signature",
            url,
        ] {
            let shown = location.without_secrets(said);
            for secret in ["stream-key", "second-token", "signature"] {
                assert!(!shown.contains(secret), "{said}: {shown}");
            }
        }
        let said = "Error 1: the server is full";
        assert_eq!(location.without_secrets(said), said);
    }

    #[test]
    fn what_others_say_is_shown_without_secrets() {
        let location = filled("rtmp://me:hidden-word@host/live/stream-key?token=x1").unwrap();
        let said = "rtmp://me:hidden-word@host/live/stream-key?token=x1: hidden-word is wrong";
        let shown = location.without_secrets(said);
        assert!(
            !shown.contains("hidden-word") && !shown.contains("stream-key"),
            "{shown}"
        );
        let location = filled("rtmp://host/live/a").unwrap();
        assert_eq!(location.without_secrets("it failed"), "");
    }
}
