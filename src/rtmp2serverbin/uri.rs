// SPDX-License-Identifier: MPL-2.0

//! URIs: a location with a scheme for listening, and other properties in the query.

use gst::glib;
use gst::prelude::*;

use crate::{lists, rtmp2serversrc};

/// Schemes of URIs, each with the scheme of the location that it stands for.
const SCHEMES: [(&str, &str); 2] = [("rtmpserver", "rtmp"), ("rtmpsserver", "rtmps")];

pub(super) const PROTOCOLS: [&str; 2] = [SCHEMES[0].0, SCHEMES[1].0];

/// Properties that a query may not set: those that come before it in the URI, and those that must
/// not be visible in a URI.
const EXCLUDED: [&str; 6] = [
    "location",
    "host",
    "port",
    "application",
    "stream-key",
    "password",
];

const FORM: &str =
    "a URI is rtmp[s]server://host[:port][/application[/stream-key]][?property=value[&...]]";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri {
    pub(super) location: String,
    query: Vec<(String, String)>,
}

impl Uri {
    /// Parses a URI. Its text stays out of the error, since it may contain a stream key.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let known = SCHEMES
            .iter()
            .find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let (_, scheme) = known.ok_or_else(|| format!("Invalid URI: unknown scheme: {FORM}"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let location = format!("{scheme}://{path}");
        rtmp2serversrc::check_location(&location)
            .map_err(|reason| format!("Invalid URI: {reason}: {FORM}"))?;
        // A plus stays a plus, as in all URIs of GStreamer.
        let query = query.replace('+', "%2B");
        let query = url::form_urlencoded::parse(query.as_bytes());
        Ok(Uri {
            location,
            query: query.into_owned().collect(),
        })
    }

    /// Returns the URI that stands for a location.
    pub(super) fn from_location(location: &str) -> Option<String> {
        let (scheme, rest) = location.split_once("://")?;
        let (name, _) = SCHEMES.iter().find(|(_, known)| *known == scheme)?;
        Some(format!("{name}://{rest}"))
    }

    /// Returns the properties that the query sets, or the reason for which one can't be set.
    pub(super) fn values(
        &self,
        specs: &[glib::ParamSpec],
    ) -> Result<Vec<(String, glib::Value)>, String> {
        let values = self.query.iter().map(|(name, text)| {
            let invalid = |reason| format!("Invalid URI: {reason} {name} in its query: {FORM}");
            if EXCLUDED.contains(&name.as_str()) {
                return Err(invalid("there must be no"));
            }
            let mut specs = specs.iter();
            let spec = specs.find(|spec| spec.name() == name);
            // The name may be a secret in the wrong place, so it is not repeated.
            let spec = spec.ok_or_else(|| {
                format!("Invalid URI: there is an unknown property in its query: {FORM}")
            })?;
            if !spec.flags().contains(glib::ParamFlags::WRITABLE) {
                return Err(invalid("there is the read-only property"));
            }
            let value = parse(text, spec).ok_or_else(|| invalid("there is a bad value of"))?;
            if !is_in_range(spec, &value) {
                return Err(invalid("there is a value out of the range of"));
            }
            Ok((name.clone(), value))
        });
        values.collect()
    }
}

/// Parses the text form of a value. That of a list is the same with all versions of GStreamer.
fn parse(text: &str, spec: &glib::ParamSpec) -> Option<glib::Value> {
    if spec.value_type() == Vec::<String>::static_type() {
        return lists::parse(text).map(Into::into);
    }
    glib::Value::deserialize_with_pspec(text, spec).ok()
}

/// Checks the range of a value, which GObject does only when the property is set.
fn is_in_range(spec: &glib::ParamSpec, value: &glib::Value) -> bool {
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt>() {
        let range = spec.minimum()..=spec.maximum();
        value.get().is_ok_and(|value: u32| range.contains(&value))
    } else if let Some(spec) = spec.downcast_ref::<glib::ParamSpecUInt64>() {
        let range = spec.minimum()..=spec.maximum();
        value.get().is_ok_and(|value: u64| range.contains(&value))
    } else {
        // The other types have no range.
        spec.is::<glib::ParamSpecBoolean>()
            || spec.is::<glib::ParamSpecEnum>()
            || spec.is::<glib::ParamSpecString>()
            || spec.value_type() == Vec::<String>::static_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(query: &str) -> Result<Vec<(String, glib::Value)>, String> {
        gst::init().unwrap();
        crate::lists::register_text_form();
        let uri = Uri::parse(&format!("rtmpserver://h/live?{query}"))?;
        uri.values(&rtmp2serversrc::build_specs())
    }

    #[test]
    fn uri_is_split_into_location_and_query() {
        for (text, location) in [
            (
                "rtmpserver://0.0.0.0:1935/live/key",
                "rtmp://0.0.0.0:1935/live/key",
            ),
            ("RTMPServer://[::1]:0", "rtmp://[::1]:0"),
            ("rtmpsserver://h/a/b/c?latency=1", "rtmps://h/a/b/c"),
        ] {
            assert_eq!(Uri::parse(text).unwrap().location, location);
        }
        let text = "rtmpsserver://h:443/live/key";
        assert_eq!(Uri::from_location("rtmps://h:443/live/key").unwrap(), text);
    }

    #[test]
    fn query_sets_properties() {
        let set = values(
            "keep-listening=true&latency=50&publisher-policy=replace&username=a%20b+c\
             &allowed-addresses=%3C192.0.2.0/24,2001:db8::1%3E&max-bytes=5000000000",
        );
        let set = set.unwrap();
        let names: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "keep-listening",
            "latency",
            "publisher-policy",
            "username",
            "allowed-addresses",
            "max-bytes",
        ];
        assert_eq!(names, expected);
        assert!(set[0].1.get::<bool>().unwrap());
        assert_eq!(set[1].1.get::<u32>().unwrap(), 50);
        assert_eq!(set[3].1.get::<String>().unwrap(), "a b+c");
        assert_eq!(set[4].1.get::<Vec<String>>().unwrap().len(), 2);
        assert_eq!(set[5].1.get::<u64>().unwrap(), 5_000_000_000);
    }

    #[test]
    fn errors_name_the_fault_and_no_secret() {
        for text in [
            "rtmp://h/secret",
            "secret",
            "rtmpserver:///secret",
            "rtmpserver://user@h/secret",
            "rtmpserver://h/secret#x",
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert!(
                error.ends_with(FORM) && !error.contains("secret"),
                "{error}"
            );
        }
        for (query, reason) in [
            ("password=secret", "there must be no password"),
            ("stream-key=secret", "there must be no stream-key"),
            (
                "current-port=1",
                "there is the read-only property current-port",
            ),
            ("nonsense=secret", "unknown property"),
            ("secret", "unknown property"),
            ("latency=1&secret=1", "unknown property"),
            ("latency=secret", "bad value of latency"),
            ("chunk-size=5", "out of the range of chunk-size"),
            ("publisher-policy=secret", "bad value of publisher-policy"),
        ] {
            let error = values(query).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
