// SPDX-License-Identifier: MPL-2.0

//! Routes: which application and stream key an element takes, and what a client asked for.

use std::cmp::Reverse;
use std::fmt;

use crate::server::redact::Redacted;
pub use crate::server::routing::pattern::{InvalidTemplate, Variables};
use crate::server::routing::pattern::{Pattern, check_unique};

/// What an element takes: applications and stream keys, exact, with variables, or any (None).
#[derive(Debug, Clone, Default)]
pub struct Route {
    application: Option<Vec<Pattern>>,
    stream_key: Option<Vec<Pattern>>,
    /// As they were given, to be shown.
    shown: (Option<String>, Option<String>),
}

/// What a route found in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedNames {
    pub application: String,
    pub stream_key: String,
    pub query: String,
    pub variables: Variables,
}

/// Which property a template is wrong in, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {property}: {reason}")]
pub struct InvalidRoute {
    pub property: &'static str,
    pub reason: InvalidTemplate,
}

/// How narrow one half of a route is: exact beats a template, and that beats any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Narrowness {
    Any,
    Template { literal_length: usize },
    Exact,
}

/// How narrow a route is; the narrowest one that matches gets the publisher. Stream keys tell
/// publishers apart, so they count before applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    stream_key: Narrowness,
    application: Narrowness,
    /// Of two templates that say the same much, the one with fewer variables.
    variables: Reverse<usize>,
}

impl Route {
    /// Slashes at either end do not count, and neither do doubled ones.
    pub fn new(application: Option<&str>, stream_key: Option<&str>) -> Result<Self, InvalidRoute> {
        let invalid = |property| move |reason| InvalidRoute { property, reason };
        let parse = |parts: Vec<String>| parts.iter().map(|part| Pattern::parse(part)).collect();
        let owned = |text: &str| segments(text).map(str::to_owned).collect::<Vec<_>>();
        let key = stream_key.map(|text| without_decoration(owned(text)));
        if key.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid("stream-key")(InvalidTemplate::Empty));
        }
        let route = Route {
            application: application
                .map(|text| parse(without_default_instance(owned(text))))
                .transpose()
                .map_err(invalid("application"))?,
            stream_key: key.map(parse).transpose().map_err(invalid("stream-key"))?,
            shown: (
                application.map(str::to_owned),
                stream_key.map(str::to_owned),
            ),
        };
        check_unique(route.patterns()).map_err(invalid("stream-key"))?;
        Ok(route)
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        let both = [&self.application, &self.stream_key];
        both.into_iter().flatten().flatten()
    }

    /// Whether two routes take the same, whatever their variables are called.
    pub fn is_same(&self, other: &Self) -> bool {
        // Clients disagree on where an application ends, so with a key it is one path.
        let path = |route: &Self| {
            Some([&route.application.clone()?[..], route.stream_key.as_ref()?].concat())
        };
        if let (Some(own), Some(theirs)) = (path(self), path(other)) {
            return is_same(&Some(own), &Some(theirs));
        }
        is_same(&self.application, &other.application)
            && is_same(&self.stream_key, &other.stream_key)
    }

    /// Whether a client could name an application that either might mean.
    pub fn shares_application(&self, other: &Self) -> bool {
        let (Some(own), Some(theirs)) = (&self.application, &other.application) else {
            return true;
        };
        // One that says only the start of its application may yet mean either.
        let (own, theirs) = (own.first(), theirs.first());
        own.zip(theirs).is_none_or(|(a, b)| a.may_meet(b))
    }

    pub fn specificity(&self) -> Specificity {
        Specificity {
            stream_key: narrowness(&self.stream_key),
            application: narrowness(&self.application),
            variables: Reverse(self.patterns().flat_map(Pattern::variables).count()),
        }
    }

    /// Whether a client of this application might still publish on this route. Clients disagree
    /// on where the application ends and the stream key starts, so either may be the longer.
    pub fn may_match(&self, application: &str) -> bool {
        let Some(wanted) = &self.application else {
            return true;
        };
        let (application, _) = cut_query(application);
        let path = without_default_instance(segments(application).map(str::to_owned).collect());
        let common = wanted.len().min(path.len());
        match_all(&wanted[..common], &path[..common]).is_some()
    }

    pub fn matches(&self, request: &RequestedPath) -> Option<MatchedNames> {
        let mut readings = request.readings.iter();
        readings.find_map(|reading| self.match_reading(reading, request.application_length))
    }

    fn match_reading(
        &self,
        reading: &Interpretation,
        asked_application: usize,
    ) -> Option<MatchedNames> {
        let path = &reading.path;
        let split = match (&self.application, &self.stream_key) {
            (Some(application), _) => application.len(),
            (None, Some(key)) => path.len().checked_sub(key.len())?,
            // Where the client put everything into the application, its last part is the key.
            (None, None) if asked_application >= path.len() && path.len() > 1 => path.len() - 1,
            (None, None) => asked_application.min(path.len()),
        };
        let (application, key) = path.split_at_checked(split)?;
        let key = without_decoration(key.to_vec());
        let mut variables = Variables::new();
        if let Some(wanted) = &self.application {
            variables.extend(match_all(wanted, application)?);
        }
        if let Some(wanted) = &self.stream_key {
            variables.extend(match_all(wanted, &key)?);
        }
        Some(MatchedNames {
            application: application.join("/"),
            stream_key: key.join("/"),
            query: reading.query.clone(),
            variables,
        })
    }
}

fn is_same(a: &Option<Vec<Pattern>>, b: &Option<Vec<Pattern>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b)),
        _ => false,
    }
}

fn narrowness(patterns: &Option<Vec<Pattern>>) -> Narrowness {
    match patterns {
        None => Narrowness::Any,
        Some(patterns) if patterns.iter().all(Pattern::is_literal) => Narrowness::Exact,
        Some(patterns) => Narrowness::Template {
            literal_length: patterns.iter().map(Pattern::literal_length).sum(),
        },
    }
}

/// Matches as many parts as there are patterns.
fn match_all(patterns: &[Pattern], parts: &[String]) -> Option<Variables> {
    let mut variables = Variables::new();
    let all = patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| pattern.matches(part, &mut variables));
    all.then_some(variables)
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shown.0 {
            Some(application) => write!(f, "application \"{application}\"")?,
            None => f.write_str("any application")?,
        }
        match &self.shown.1 {
            Some(key) => write!(f, ", stream key \"{}\"", Redacted(key)),
            None => f.write_str(", any stream key"),
        }
    }
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedPath {
    /// How it may be meant, the likeliest first.
    readings: Vec<Interpretation>,
    application_length: usize,
}

/// One way to understand a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interpretation {
    /// Application and stream key in one path: clients split them in many ways.
    path: Vec<String>,
    /// Of the application and of the stream key, joined by `&`.
    query: String,
}

impl RequestedPath {
    pub fn new(application: &str, stream_key: &str) -> Self {
        let stream_key = without_origin(stream_key, application);
        let (application, application_query) = cut_query(application);
        let (key, key_query) = cut_query(stream_key);
        let mut path = without_default_instance(segments(application).map(str::to_owned).collect());
        let application_length = path.len();
        let application_alone = path.clone();
        let key = segments(key).skip_while(|part| *part == DEFAULT_INSTANCE);
        path.extend(key.map(str::to_owned));
        let queries = [application_query, key_query];
        let queries: Vec<&str> = queries.into_iter().flatten().collect();
        let mut readings = vec![Interpretation {
            path,
            query: queries.join("&"),
        }];
        // `live/key?token=a/b` comes as application `live/key?token=a` and stream key `b`.
        if let Some(query) = application_query {
            readings.push(Interpretation {
                path: application_alone,
                query: format!("{query}/{stream_key}"),
            });
        }
        RequestedPath {
            readings,
            application_length,
        }
    }
}

/// Instance of an application that Flash Media Server uses where a URL names none. Players and old
/// encoders put it into the URL: `live/_definst_` is `live`.
const DEFAULT_INSTANCE: &str = "_definst_";

fn without_default_instance(mut application: Vec<String>) -> Vec<String> {
    application.retain(|part| part != DEFAULT_INSTANCE);
    application
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn cut_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Some cameras send their whole URL as the stream key, application included.
fn without_origin<'a>(stream_key: &'a str, application: &str) -> &'a str {
    let url = ["rtmp://", "rtmps://"].into_iter();
    let Some(rest) = url
        .filter_map(|scheme| stream_key.strip_prefix(scheme))
        .next()
    else {
        return stream_key;
    };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let (application, _) = cut_query(application);
    let rest = path.strip_prefix(application.trim_matches('/'));
    rest.filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path)
}

/// ffmpeg puts `mp4:` before names that end in .mp4 and takes `.flv` off; Flash-era encoders send
/// `flv:`. What is meant is the same stream.
fn without_decoration(mut key: Vec<String>) -> Vec<String> {
    if let Some(first) = key.first_mut() {
        for prefix in ["mp4:", "flv:"] {
            if let Some(rest) = first.strip_prefix(prefix) {
                *first = rest.to_owned();
            }
        }
    }
    if let Some(last) = key.last_mut()
        && let Some(rest) = last.strip_suffix(".flv")
        && !rest.is_empty()
    {
        *last = rest.to_owned();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(application: Option<&str>, stream_key: Option<&str>) -> Route {
        Route::new(application, stream_key).unwrap()
    }

    fn matched(route: &Route, application: &str, key: &str) -> Option<(String, String)> {
        let matched = route.matches(&RequestedPath::new(application, key))?;
        Some((matched.application, matched.stream_key))
    }

    fn pair(application: &str, key: &str) -> Option<(String, String)> {
        Some((application.to_owned(), key.to_owned()))
    }

    #[test]
    fn an_exact_route_takes_its_own_however_the_client_splits_it() {
        let own = route(Some("live"), Some("key"));
        for (application, key) in [
            ("live", "key"),
            ("/live/", "key"),
            ("live/key", ""),
            ("live/key/", ""),
            ("live//", "/key"),
            ("", "live/key"),
            ("live?a=b", "key?c=d"),
            ("live/key?token=a", "b"),
            ("live", "flv:key"),
            ("live", "rtmp://host:1935/live/key"),
            ("live", "key.flv"),
            ("live/_definst_", "key"),
            ("live/_definst_/", "/key"),
            ("live/_definst_/key", ""),
            ("live", "_definst_/key"),
            ("live/_definst_?a=b", "key"),
        ] {
            assert_eq!(
                matched(&own, application, key),
                pair("live", "key"),
                "{application} {key}"
            );
            assert!(own.may_match(application));
        }
        for (application, key) in [
            ("live", "other"),
            ("live", ""),
            ("live", "key2"),
            ("Live", "key"),
            ("other", "key"),
            ("live/x", "key"),
            ("live", "key/x"),
            ("", "key"),
        ] {
            assert_eq!(matched(&own, application, key), None, "{application} {key}");
        }
        assert!(!own.may_match("other"));
        assert!(!own.may_match("live2?backup=1"));
    }

    #[test]
    fn applications_and_keys_of_several_parts() {
        let own = route(Some("live/inst"), Some("a/b"));
        assert_eq!(matched(&own, "live", "inst/a/b"), pair("live/inst", "a/b"));
        assert_eq!(matched(&own, "live/inst/a", "b"), pair("live/inst", "a/b"));
        let mp4 = route(None, Some("film.mp4"));
        assert_eq!(
            matched(&mp4, "vod", "mp4:film.mp4"),
            pair("vod", "film.mp4")
        );
    }

    #[test]
    fn any_takes_what_the_client_says() {
        let any = Route::default();
        assert_eq!(matched(&any, "live", "key"), pair("live", "key"));
        assert_eq!(matched(&any, "live/key", ""), pair("live", "key"));
        assert_eq!(matched(&any, "live", ""), pair("live", ""));
        assert_eq!(matched(&any, "", ""), pair("", ""));
        assert_eq!(matched(&any, "live2?x=1", "key"), pair("live2", "key"));
        let application = route(Some("live"), None);
        assert_eq!(matched(&application, "live", "a/b"), pair("live", "a/b"));
        assert_eq!(matched(&application, "live", ""), pair("live", ""));
        assert_eq!(matched(&application, "other", "a"), None);
    }

    #[test]
    fn an_application_within_a_url_is_a_whole_part() {
        let any = Route::default();
        let url = "rtmp://host/live2/key";
        assert_eq!(matched(&any, "live", url), pair("live", "live2/key"));
    }

    #[test]
    fn variables_are_found_in_application_and_key() {
        let template = route(Some("live/{site}"), Some("cam{camera_id}_{stream_name}"));
        let found = template.matches(&RequestedPath::new("live/roof", "cam7_main"));
        let found = found.unwrap();
        assert_eq!(found.application, "live/roof");
        assert_eq!(found.stream_key, "cam7_main");
        let expected = [
            ("site", "roof"),
            ("camera_id", "7"),
            ("stream_name", "main"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.variables, expected);
        // However the client splits it, and never over a slash.
        assert_eq!(
            matched(&template, "live", "roof/cam7_main.flv"),
            pair("live/roof", "cam7_main")
        );
        assert_eq!(matched(&template, "live/roof", "cam7/x_main"), None);
        assert!(template.may_match("live/anything"));
        assert!(!template.may_match("other/roof"));
    }

    #[test]
    fn the_narrower_route_comes_first() {
        let order = [
            route(None, None),
            route(Some("{app}"), None),
            route(Some("live"), None),
            route(None, Some("{key}")),
            route(None, Some("{a}_{b}")),
            route(None, Some("cam{a}_{b}")),
            route(Some("live"), Some("cam{a}_{b}")),
            route(None, Some("cam1_main")),
            route(Some("live"), Some("cam1_main")),
        ];
        for (index, narrow) in order.iter().enumerate() {
            for wide in &order[..index] {
                assert!(narrow.specificity() > wide.specificity(), "{narrow} {wide}");
                assert!(!narrow.is_same(wide));
            }
            assert!(narrow.is_same(narrow));
        }
        let renamed = route(Some("live"), Some("cam{x}_{y}"));
        assert!(renamed.is_same(&order[6]));
    }

    #[test]
    fn a_route_that_can_not_be_is_refused() {
        for (application, key, property) in [
            (Some("live{"), None, "application"),
            (None, Some("{"), "stream-key"),
            (None, Some("//"), "stream-key"),
            (Some("{a}"), Some("{a}"), "stream-key"),
        ] {
            let error = Route::new(application, key).unwrap_err();
            assert_eq!(error.property, property, "{error}");
        }
    }

    #[test]
    fn queries_are_kept_apart() {
        let query = |application: &str, key: &str| {
            let route = route(Some("live"), Some("key"));
            route
                .matches(&RequestedPath::new(application, key))
                .unwrap()
                .query
        };
        assert_eq!(query("live?a=1", "key?b=2"), "a=1&b=2");
        assert_eq!(query("live", "key"), "");
        // A slash in it moved the split.
        assert_eq!(query("live/key?token=a", "b"), "token=a/b");
        assert_eq!(query("live?token=a/b==", "key"), "token=a/b==");
    }

    #[test]
    fn the_route_is_shown_without_its_key() {
        let route = route(Some("live"), Some("secret"));
        let shown = route.to_string();
        assert_eq!(shown, "application \"live\", stream key \"se…\"");
    }
}
