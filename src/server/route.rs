// SPDX-License-Identifier: MPL-2.0

//! Routes: which application and stream key an element takes, and what a client asked for.

use std::fmt;

use super::Secret;

/// What an element takes. None is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    application: Option<Vec<String>>,
    stream_key: Option<Vec<String>>,
}

/// What a route found in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub application: String,
    pub stream_key: String,
}

/// How narrow a route is; the narrowest one that matches gets the publisher.
pub type Specificity = (bool, bool);

impl Route {
    /// Slashes at either end do not count, and neither do doubled ones.
    pub fn new(application: Option<&str>, stream_key: Option<&str>) -> Self {
        let parts = |text: &str| segments(text).map(str::to_owned).collect();
        Route {
            application: application.map(parts),
            stream_key: stream_key.map(parts).map(without_decoration),
        }
    }

    pub fn specificity(&self) -> Specificity {
        (self.stream_key.is_some(), self.application.is_some())
    }

    /// Whether a client of this application might still publish on this route. Clients disagree
    /// on where the application ends and the stream key starts, so either may be the longer.
    pub fn may_match(&self, application: &str) -> bool {
        let Some(wanted) = &self.application else {
            return true;
        };
        let asked = Request::new(application, "");
        asked.readings().iter().any(|path| {
            let common = wanted.len().min(path.len());
            wanted[..common] == path[..common]
        })
    }

    pub fn matches(&self, request: &Request) -> Option<Matched> {
        request
            .readings()
            .iter()
            .find_map(|path| self.match_path(path, request.application_length))
    }

    fn match_path(&self, path: &[String], asked_application: usize) -> Option<Matched> {
        let matched = |split: usize| {
            let (application, key) = path.split_at(split);
            Matched {
                application: application.join("/"),
                stream_key: without_decoration(key.to_vec()).join("/"),
            }
        };
        match (&self.application, &self.stream_key) {
            (Some(application), Some(key)) => {
                let rest = path.strip_prefix(&application[..])?;
                let found = without_decoration(rest.to_vec());
                (found == *key).then(|| matched(application.len()))
            }
            (Some(application), None) => {
                path.strip_prefix(&application[..])?;
                Some(matched(application.len()))
            }
            (None, Some(key)) => {
                let split = path.len().checked_sub(key.len())?;
                let found = without_decoration(path[split..].to_vec());
                (found == *key).then(|| matched(split))
            }
            (None, None) => {
                // Where the client put everything into the application, its last part is the key.
                let all = asked_application >= path.len() && path.len() > 1;
                let split = if all {
                    path.len() - 1
                } else {
                    asked_application.min(path.len())
                };
                Some(matched(split))
            }
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.application {
            Some(application) => write!(f, "application \"{}\"", application.join("/"))?,
            None => f.write_str("any application")?,
        }
        match &self.stream_key {
            Some(key) => write!(f, ", stream key \"{}\"", Secret(&key.join("/"))),
            None => f.write_str(", any stream key"),
        }
    }
}

/// What a client asked for, with the query cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Application and stream key in one path: clients split them in many ways.
    path: Vec<String>,
    application_length: usize,
    /// Another reading, where a slash within a query moved the split.
    alternative: Option<Vec<String>>,
    /// Of the application and of the stream key, joined by `&`.
    pub query: String,
}

impl Request {
    pub fn new(application: &str, stream_key: &str) -> Self {
        let stream_key = without_origin(stream_key, application);
        let (application, application_query) = cut_query(application);
        let (key, key_query) = cut_query(stream_key);
        let mut path: Vec<String> = segments(application).map(str::to_owned).collect();
        let application_length = path.len();
        path.extend(segments(key).map(str::to_owned));
        // `live/key?token=a/b` comes as application `live/key?token=a` and stream key `b`.
        let alternative =
            application_query.map(|_| segments(application).map(str::to_owned).collect());
        let queries = [application_query, key_query];
        let queries: Vec<&str> = queries.into_iter().flatten().collect();
        Request {
            path,
            application_length,
            alternative,
            query: queries.join("&"),
        }
    }

    fn readings(&self) -> Vec<&[String]> {
        let alternative = self.alternative.as_deref();
        [Some(&self.path[..]), alternative]
            .into_iter()
            .flatten()
            .collect()
    }
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

    fn matched(route: &Route, application: &str, key: &str) -> Option<(String, String)> {
        let matched = route.matches(&Request::new(application, key))?;
        Some((matched.application, matched.stream_key))
    }

    fn pair(application: &str, key: &str) -> Option<(String, String)> {
        Some((application.to_owned(), key.to_owned()))
    }

    #[test]
    fn an_exact_route_takes_its_own_however_the_client_splits_it() {
        let route = Route::new(Some("live"), Some("key"));
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
        ] {
            assert_eq!(
                matched(&route, application, key),
                pair("live", "key"),
                "{application} {key}"
            );
            assert!(route.may_match(application));
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
            assert_eq!(
                matched(&route, application, key),
                None,
                "{application} {key}"
            );
        }
        assert!(!route.may_match("other"));
        assert!(!route.may_match("live2?backup=1"));
    }

    #[test]
    fn applications_and_keys_of_several_parts() {
        let route = Route::new(Some("live/inst"), Some("a/b"));
        assert_eq!(
            matched(&route, "live", "inst/a/b"),
            pair("live/inst", "a/b")
        );
        assert_eq!(
            matched(&route, "live/inst/a", "b"),
            pair("live/inst", "a/b")
        );
        let mp4 = Route::new(None, Some("film.mp4"));
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
        let application = Route::new(Some("live"), None);
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
    fn queries_are_kept_apart() {
        let request = Request::new("live?a=1", "key?b=2");
        assert_eq!(request.query, "a=1&b=2");
    }

    #[test]
    fn the_route_is_shown_without_its_key() {
        let route = Route::new(Some("live"), Some("secret"));
        let shown = route.to_string();
        assert_eq!(shown, "application \"live\", stream key \"se…\"");
    }
}
