// SPDX-License-Identifier: MPL-2.0

//! Routes of elements, and the names that clients request.

use std::cmp::Reverse;
use std::fmt;

use crate::server::publisher::Variables;
use crate::server::redact::Redacted;
use crate::server::routing::pattern::{InvalidTemplate, Pattern, check_unique};

/// Applications and stream keys of an element: exact, with variables, or any (None).
#[derive(Debug, Clone, Default)]
pub struct Route {
    application: Option<Vec<Pattern>>,
    stream_key: Option<Vec<Pattern>>,
    /// Both as configured, to be shown.
    shown: (Option<String>, Option<String>),
}

/// Names and variables of a request that matches a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedNames {
    pub application: String,
    pub stream_key: String,
    pub query: String,
    pub variables: Variables,
}

/// Error in the template of a property.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {property}: {reason}")]
pub struct InvalidRoute {
    pub property: &'static str,
    pub reason: InvalidTemplate,
}

/// Narrowness of one half of a route: exact beats a template, and that beats any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Narrowness {
    Any,
    Template { literal_length: usize },
    Exact,
}

/// One half of a route by its kind, for an index of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Half<'a> {
    Any,
    /// The parts of a path without variables.
    Exact(Vec<&'a str>),
    Template,
}

impl<'a> Half<'a> {
    fn of(patterns: &'a [Pattern]) -> Self {
        let literals: Option<_> = patterns.iter().map(Pattern::literal).collect();
        literals.map_or(Half::Template, Half::Exact)
    }
}

/// Narrowness of a route. The narrowest route that matches gets the publisher. Stream keys tell
/// publishers apart, so they count before applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    stream_key: Narrowness,
    application: Narrowness,
    /// Fewer variables decide between templates that are equally narrow.
    variables: Reverse<usize>,
}

impl Route {
    /// Slashes at either end and doubled slashes are ignored.
    pub fn new(application: Option<&str>, stream_key: Option<&str>) -> Result<Self, InvalidRoute> {
        let invalid = |property| move |reason| InvalidRoute { property, reason };
        let parse = |parts: Vec<String>| parts.iter().map(|part| Pattern::parse(part)).collect();
        let owned = |text: &str| segments(text).map(str::to_owned).collect::<Vec<_>>();
        let key = stream_key.map(|text| {
            let parts = owned(text);
            undecorated(&parts).map(str::to_owned).collect::<Vec<_>>()
        });
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

    /// Returns the path that publishers have to use, if all of its parts are variables or any text: it
    /// gives nothing away.
    pub(crate) fn public_path(&self) -> Option<String> {
        let half = |patterns: &Option<Vec<Pattern>>, any: &str| match patterns {
            None => Some(any.to_owned()),
            Some(patterns) => {
                let parts = patterns.iter().map(Pattern::lone_variable);
                let parts: Vec<String> = parts
                    .map(|name| Some(format!("{{{}}}", name?)))
                    .collect::<Option<_>>()?;
                Some(parts.join("/"))
            }
        };
        let application = half(&self.application, "APPLICATION")?;
        Some(format!(
            "{application}/{}",
            half(&self.stream_key, "STREAM-KEY")?
        ))
    }

    /// Returns the kinds of application and stream key.
    pub(crate) fn halves(&self) -> (Half<'_>, Half<'_>) {
        let half = |patterns| Option::map_or(patterns, Half::Any, |p: &Vec<_>| Half::of(p));
        (
            half(self.application.as_ref()),
            half(self.stream_key.as_ref()),
        )
    }

    /// Returns the kind of the application's first part: any where there is none.
    pub(crate) fn first_application_part(&self) -> Half<'_> {
        let first = self.application.as_ref().and_then(|parts| parts.first());
        first.map_or(Half::Any, |first| Half::of(std::slice::from_ref(first)))
    }

    /// Returns true where two routes match the same, whatever their variables are called.
    pub fn is_same(&self, other: &Self) -> bool {
        count_comparison();
        // Clients disagree on where an application ends, so with a key it is one path.
        if let (Some(own), Some(theirs)) = (self.path(), other.path()) {
            return own.len() == theirs.len()
                && own.into_iter().zip(theirs).all(|(a, b)| a.is_same(b));
        }
        is_same(&self.application, &other.application)
            && is_same(&self.stream_key, &other.stream_key)
    }

    /// Returns application and stream key as one path, if both are given.
    fn path(&self) -> Option<Vec<&Pattern>> {
        let (application, key) = (self.application.as_ref()?, self.stream_key.as_ref()?);
        Some(application.iter().chain(key).collect())
    }

    /// Returns true where a client could name an application that both routes might mean.
    pub fn shares_application(&self, other: &Self) -> bool {
        count_comparison();
        let (Some(own), Some(theirs)) = (&self.application, &other.application) else {
            return true;
        };
        // A client that names only the start of its application may still mean either.
        let (own, theirs) = (own.first(), theirs.first());
        own.zip(theirs).is_none_or(|(a, b)| a.may_meet(b))
    }

    /// Returns how narrow the route is.
    pub fn specificity(&self) -> Specificity {
        Specificity {
            stream_key: narrowness(&self.stream_key),
            application: narrowness(&self.application),
            variables: Reverse(self.patterns().flat_map(Pattern::variables).count()),
        }
    }

    /// Returns true where a client of this application may still publish on this route. Clients
    /// disagree on where the application ends and the stream key starts, so either may be longer.
    pub fn may_match(&self, application: &str) -> bool {
        count_comparison();
        let Some(wanted) = &self.application else {
            return true;
        };
        wanted
            .iter()
            .zip(application_parts(application))
            .all(|(pattern, part)| pattern.matches(part, &mut Variables::new()))
    }

    /// Returns the names of a request and the values of its variables, if the route matches.
    pub fn matches(&self, request: &RequestedPath) -> Option<MatchedNames> {
        let mut interpretations = request.interpretations().iter();
        interpretations.find_map(|interpretation| self.matches_as(interpretation))
    }

    /// Returns the names and values of one interpretation of a request, if the route matches it.
    /// Allocates only for what matches: a client may name a long path on a port of many routes.
    pub(crate) fn matches_as(&self, interpretation: &Interpretation) -> Option<MatchedNames> {
        count_comparison();
        let requested_application = interpretation.application_length;
        let path = &interpretation.path;
        let split = match (&self.application, &self.stream_key) {
            (Some(application), _) => application.len(),
            (None, Some(key)) => path.len().checked_sub(key.len())?,
            // Where the client put everything into the application, its last part is the key.
            (None, None) if requested_application >= path.len() && path.len() > 1 => path.len() - 1,
            (None, None) => requested_application.min(path.len()),
        };
        let (application, key) = path.split_at_checked(split)?;
        let mut variables = Variables::new();
        if let Some(wanted) = &self.application {
            let parts = application.iter().map(String::as_str);
            match_all(wanted, parts, &mut variables)?;
        }
        if let Some(wanted) = &self.stream_key {
            match_all(wanted, undecorated(key), &mut variables)?;
        }
        Some(MatchedNames {
            application: application.join("/"),
            stream_key: undecorated(key).collect::<Vec<_>>().join("/"),
            query: interpretation.query.clone(),
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

/// Matches a part for each pattern, and no more.
fn match_all<'a>(
    patterns: &[Pattern],
    parts: impl ExactSizeIterator<Item = &'a str>,
    variables: &mut Variables,
) -> Option<()> {
    let all = patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| pattern.matches(part, variables));
    all.then_some(())
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

/// Parts of a path that a client may name. Longer ones match no route: comparing them with each
/// route would cost time at the client's will.
const MAX_PARTS: usize = 32;

/// Application and stream key as a client requests them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedPath {
    /// Possible meanings, the likeliest first.
    interpretations: Vec<Interpretation>,
}

/// One possible meaning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interpretation {
    /// Application and stream key in one path: clients split them in many ways.
    path: Vec<String>,
    /// Number of parts that came as the application.
    application_length: usize,
    /// Queries of the application and of the stream key, joined by `&`.
    query: String,
}

/// The names that a client has sent, without their queries: those may contain passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SentNames<'a> {
    pub(crate) application: &'a str,
    pub(crate) stream_key: &'a str,
    /// Queries of the application and of the stream key, joined by `&`.
    pub(crate) query: String,
}

impl<'a> SentNames<'a> {
    pub(crate) fn new(application: &'a str, stream_key: &'a str) -> Self {
        let stream_key = without_origin(stream_key, application);
        let (application, application_query) = cut_query(application);
        let (stream_key, key_query) = cut_query(stream_key);
        SentNames {
            application,
            stream_key: stream_key.trim_start_matches('/'),
            query: joined([application_query, key_query]),
        }
    }
}

impl RequestedPath {
    /// Interprets the names that a client has sent.
    pub fn new(application: &str, stream_key: &str) -> Self {
        let stream_key = without_origin(stream_key, application);
        let (application, application_query) = cut_query(application);
        let (key, key_query) = cut_query(stream_key);
        let mut path = without_default_instance(segments(application).map(str::to_owned).collect());
        let application_length = path.len();
        let application_alone = path.clone();
        let key = segments(key).skip_while(|part| !is_named(part));
        path.extend(key.map(str::to_owned));
        let mut interpretations = vec![Interpretation {
            path,
            application_length,
            query: joined([application_query, key_query]),
        }];
        // `live/key?token=a/b` comes as application `live/key?token=a` and stream key `b`.
        if let Some(query) = application_query {
            interpretations.push(Interpretation {
                path: application_alone,
                application_length,
                query: format!("{query}/{stream_key}"),
            });
        }
        interpretations.retain(|interpretation| interpretation.path.len() <= MAX_PARTS);
        RequestedPath { interpretations }
    }

    /// Returns the possible meanings, the likeliest first.
    pub(crate) fn interpretations(&self) -> &[Interpretation] {
        &self.interpretations
    }
}

impl Interpretation {
    /// Returns the application, if it has `length` parts.
    pub(crate) fn application(&self, length: usize) -> Option<String> {
        Some(self.path.get(..length)?.join("/"))
    }

    /// Returns the stream key, if it has `length` parts.
    pub(crate) fn stream_key(&self, length: usize) -> Option<String> {
        let start = self.path.len().checked_sub(length)?;
        let key: Vec<&str> = undecorated(&self.path[start..]).collect();
        Some(key.join("/"))
    }

    /// Returns the path, if the application has `length` parts.
    pub(crate) fn path(&self, length: usize) -> Option<String> {
        let (application, key) = self.path.split_at_checked(length)?;
        let application = application.iter().map(String::as_str);
        let path: Vec<&str> = application.chain(undecorated(key)).collect();
        Some(path.join("/"))
    }
}

/// Returns the parts of a client's application.
pub(crate) fn application_parts(application: &str) -> impl Iterator<Item = &str> {
    let (application, _) = cut_query(application);
    segments(application).filter(is_named)
}

#[cfg(not(test))]
fn count_comparison() {}

#[cfg(test)]
fn count_comparison() {
    COMPARISONS.with(|count| count.set(count.get() + 1));
}

#[cfg(test)]
thread_local! {
    /// Comparisons of a route with a request or another route, on this thread.
    pub(crate) static COMPARISONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Instance of an application that Flash Media Server uses where a URL names none. Players and old
/// encoders put it into the URL: `live/_definst_` is `live`.
const DEFAULT_INSTANCE: &str = "_definst_";

fn is_named(part: &&str) -> bool {
    *part != DEFAULT_INSTANCE
}

fn without_default_instance(mut application: Vec<String>) -> Vec<String> {
    application.retain(|part| is_named(&part.as_str()));
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

fn joined(queries: [Option<&str>; 2]) -> String {
    let queries: Vec<&str> = queries.into_iter().flatten().collect();
    queries.join("&")
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

/// Returns the parts of a stream key without what clients add: ffmpeg puts `mp4:` before names that
/// end in .mp4 and takes `.flv` off, and Flash-era encoders send `flv:`. They mean the same stream.
fn undecorated(key: &[String]) -> impl ExactSizeIterator<Item = &str> {
    let last = key.len().saturating_sub(1);
    key.iter().enumerate().map(move |(index, part)| {
        let mut part = part.as_str();
        if index == 0 {
            for prefix in ["mp4:", "flv:"] {
                part = part.strip_prefix(prefix).unwrap_or(part);
            }
        }
        match part.strip_suffix(".flv") {
            Some(rest) if index == last && !rest.is_empty() => rest,
            _ => part,
        }
    })
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
    fn sent_names_have_no_query_and_no_credentials() {
        let names = |application, stream_key| {
            let names = SentNames::new(application, stream_key);
            (
                names.application.to_owned(),
                names.stream_key.to_owned(),
                names.query,
            )
        };
        for (application, stream_key, expected) in [
            ("live", "key", ("live", "key", "")),
            ("live", "key?pass=b", ("live", "key", "pass=b")),
            ("live?a=1", "key?pass=b?c", ("live", "key", "a=1&pass=b?c")),
            (
                "live",
                "rtmp://u:p@host/live/key?pass=b",
                ("live", "key", "pass=b"),
            ),
            ("", "rtmp://u:p@host", ("", "", "")),
        ] {
            let (application_name, key, query) = expected;
            let expected = (
                application_name.to_owned(),
                key.to_owned(),
                query.to_owned(),
            );
            assert_eq!(names(application, stream_key), expected);
        }
    }

    #[test]
    fn exact_routes_match_however_the_client_splits_the_path() {
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
    fn applications_and_keys_may_have_several_parts() {
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
    fn routes_without_names_match_any_names() {
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
    fn applications_within_a_url_are_whole_parts() {
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
    fn narrower_routes_come_first() {
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
    fn invalid_routes_are_rejected() {
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
    fn long_paths_match_no_route() {
        let path = ["a"; MAX_PARTS].join("/");
        let any = Route::default();
        assert!(any.matches(&RequestedPath::new(&path, "")).is_some());
        assert!(any.matches(&RequestedPath::new(&path, "b")).is_none());
    }

    #[test]
    fn paths_of_variables_alone_are_public() {
        for (application, key, expected) in [
            (Some("{a}/{b}"), Some("{c}"), Some("{a}/{b}/{c}")),
            (Some("{a}"), None, Some("{a}/STREAM-KEY")),
            (None, None, Some("APPLICATION/STREAM-KEY")),
            (Some("live"), Some("{c}"), None),
            (Some("{a}"), Some("secret{c}"), None),
            (Some("{a}"), Some("secret"), None),
        ] {
            let path = route(application, key).public_path();
            assert_eq!(path.as_deref(), expected, "{application:?} {key:?}");
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
    fn routes_are_shown_without_their_keys() {
        let route = route(Some("live"), Some("secret"));
        let shown = route.to_string();
        assert_eq!(shown, "application \"live\", stream key \"se…\"");
    }
}
