// SPDX-License-Identifier: MPL-2.0

//! The property `location`: host, port and route in one.

use url::Url;

/// Scheme of a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Rtmp,
    Rtmps,
}

impl Scheme {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scheme::Rtmp => "rtmp",
            Scheme::Rtmps => "rtmps",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Rtmp => 1935,
            Scheme::Rtmps => 443,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) application: Option<String>,
    pub(super) stream_key: Option<String>,
}

/// The reason for which a location is invalid, and the form that it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: a location is rtmp[s]://host[:port][/application[/stream-key]]")]
pub(super) struct InvalidLocation {
    pub(super) reason: String,
}

impl Location {
    /// Parses a location. The last part of the path is the stream key, and all before it is the
    /// application.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidLocation> {
        let invalid = |reason: String| InvalidLocation { reason };
        // The text itself stays out of errors: there may be a stream key in it.
        let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
        let scheme = match url.scheme() {
            "rtmp" => Scheme::Rtmp,
            "rtmps" => Scheme::Rtmps,
            other => return Err(invalid(format!("the scheme is {other}"))),
        };
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
            return Err(invalid(
                "query, fragment and user have no meaning here".into(),
            ));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("there is no host".into()))?;
        // Clients send the path as it is, without the escapes that a URL would have.
        let (_, rest) = text.split_once("://").unwrap_or_default();
        let (_, path) = rest.split_once('/').unwrap_or_default();
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (application, stream_key) = match path.split_last() {
            None => (None, None),
            Some((application, [])) => (Some((*application).to_owned()), None),
            Some((key, application)) => (Some(application.join("/")), Some((*key).to_owned())),
        };
        Ok(Location {
            scheme,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(scheme.default_port()),
            application,
            stream_key,
        })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = self.scheme.name();
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        }
        if let Some(application) = &self.application {
            write!(f, "/{application}")?;
            if let Some(key) = &self.stream_key {
                write!(f, "/{key}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(host: &str, port: u16, application: &str, key: &str) -> Location {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Location {
            scheme: Scheme::Rtmp,
            host: host.to_owned(),
            port,
            application: some(application),
            stream_key: some(key),
        }
    }

    #[test]
    fn location_is_split_and_joined_again() {
        for (text, expected) in [
            ("rtmp://0.0.0.0:1935", location("0.0.0.0", 1935, "", "")),
            ("rtmp://[::]:1935/a", location("::", 1935, "a", "")),
            ("rtmp://[::1]:0/live", location("::1", 0, "live", "")),
            ("rtmp://h:9/a/b", location("h", 9, "a", "b")),
            ("rtmp://h:9/a/b/c", location("h", 9, "a/b", "c")),
            (
                "rtmp://h:9/a/schlüssel {x}",
                location("h", 9, "a", "schlüssel {x}"),
            ),
        ] {
            let parsed = Location::parse(text).unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(Location::parse("rtmp://h/live").unwrap().port, 1935);
        let secure = Location::parse("rtmps://h/live").unwrap();
        assert_eq!((secure.scheme, secure.port), (Scheme::Rtmps, 443));
        assert_eq!(secure.to_string(), "rtmps://h:443/live");
    }

    #[test]
    fn errors_name_the_fault_and_no_secret() {
        for (text, reason) in [
            ("live", "relative URL without a base"),
            ("http://h/live", "the scheme is http"),
            ("rtmp:///live", "there is no host"),
            ("rtmp://h/live?x=1", "query"),
        ] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(!error.contains("live"), "{error}");
            assert!(error.contains(reason), "{error}");
            assert!(error.contains("rtmp[s]://host[:port]"), "{error}");
        }
    }
}
