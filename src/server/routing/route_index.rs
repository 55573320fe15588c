// SPDX-License-Identifier: MPL-2.0

//! Routes by their names. Exact ones are found by hash, however many there are, and only those with
//! variables are compared with a request one after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::server::routing::route::{Half, Interpretation, MatchedNames, RequestedPath, Route};

/// Routes of one listener, by the id of their publish point. A higher id was added later.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    routes: BTreeMap<u64, Arc<Route>>,
    /// Routes with an exact application and an exact stream key, by the path of both.
    paths: HashIndex,
    /// Routes with an exact stream key of any application.
    stream_keys: HashIndex,
    /// Routes with an exact application and any stream key.
    applications: HashIndex,
    /// The route of any names.
    any: Option<u64>,
    /// Routes with variables.
    templates: BTreeSet<u64>,
}

/// Ids by a path, and the lengths of the paths: requests are cut to these before they are looked
/// up.
#[derive(Debug, Default)]
struct HashIndex {
    ids: HashMap<String, u64>,
    /// Number of routes by their number of parts.
    lengths: BTreeMap<usize, usize>,
}

/// The place of a route.
enum Place {
    Path { path: String, application: usize },
    StreamKey { key: String, length: usize },
    Application { application: String, length: usize },
    Any,
    Template,
}

impl Place {
    fn of(route: &Route) -> Self {
        match route.halves() {
            (Half::Template, _) | (_, Half::Template) => Place::Template,
            (Half::Any, Half::Any) => Place::Any,
            (Half::Any, Half::Exact(key)) => Place::StreamKey {
                key: key.join("/"),
                length: key.len(),
            },
            (Half::Exact(application), Half::Any) => Place::Application {
                application: application.join("/"),
                length: application.len(),
            },
            // Clients disagree on where an application ends, so it is one path.
            (Half::Exact(application), Half::Exact(key)) => Place::Path {
                path: [&application[..], &key[..]].concat().join("/"),
                application: application.len(),
            },
        }
    }
}

impl RouteIndex {
    /// Adds a route that is not [taken](RouteIndex::is_taken).
    pub(crate) fn add(&mut self, id: u64, route: Arc<Route>) {
        match Place::of(&route) {
            Place::Path { path, application } => self.paths.add(path, application, id),
            Place::StreamKey { key, length } => self.stream_keys.add(key, length, id),
            Place::Application {
                application,
                length,
            } => self.applications.add(application, length, id),
            Place::Any => self.any = Some(id),
            Place::Template => {
                self.templates.insert(id);
            }
        }
        self.routes.insert(id, route);
    }

    pub(crate) fn remove(&mut self, id: u64) {
        let Some(route) = self.routes.remove(&id) else {
            return;
        };
        match Place::of(&route) {
            Place::Path { path, application } => self.paths.remove(&path, application),
            Place::StreamKey { key, length } => self.stream_keys.remove(&key, length),
            Place::Application {
                application,
                length,
            } => self.applications.remove(&application, length),
            Place::Any => self.any = None,
            Place::Template => {
                self.templates.remove(&id);
            }
        }
    }

    /// Returns true where a route matches the same as one that is present.
    pub(crate) fn is_taken(&self, route: &Route) -> bool {
        match Place::of(route) {
            Place::Path { path, .. } => self.paths.ids.contains_key(&path),
            Place::StreamKey { key, .. } => self.stream_keys.ids.contains_key(&key),
            Place::Application { application, .. } => {
                self.applications.ids.contains_key(&application)
            }
            Place::Any => self.any.is_some(),
            Place::Template => {
                let mut routes = self.templates.iter().filter_map(|id| self.routes.get(id));
                routes.any(|other| other.is_same(route))
            }
        }
    }

    /// Returns the narrowest route that matches a request; of equally narrow ones, the newest. A
    /// likelier interpretation of the request comes before a narrower route: ffmpeg puts its answer to
    /// a challenge into the application's query, and must not lose its stream key by that.
    pub(crate) fn find(&self, request: &RequestedPath) -> Option<(u64, MatchedNames)> {
        let mut interpretations = request.interpretations().iter();
        interpretations.find_map(|interpretation| self.find_as(interpretation))
    }

    fn find_as(&self, request: &Interpretation) -> Option<(u64, MatchedNames)> {
        let paths = self.paths.find(|length| request.path(length));
        let exact = self.narrowest(paths, request);
        // Nothing is narrower, whatever else matches.
        exact.or_else(|| {
            let keys = self.stream_keys.find(|length| request.stream_key(length));
            let applications = self.applications.find(|length| request.application(length));
            let others = self.any.into_iter().chain(self.templates.iter().copied());
            self.narrowest(keys.chain(applications).chain(others), request)
        })
    }

    fn narrowest(
        &self,
        ids: impl Iterator<Item = u64>,
        request: &Interpretation,
    ) -> Option<(u64, MatchedNames)> {
        let matching = ids.filter_map(|id| {
            let route = self.routes.get(&id)?;
            let names = route.matches_as(request)?;
            Some((route.specificity(), id, names))
        });
        let narrowest = matching.max_by_key(|(specificity, id, _)| (*specificity, *id));
        narrowest.map(|(_, id, names)| (id, names))
    }
}

impl HashIndex {
    fn add(&mut self, path: String, length: usize, id: u64) {
        self.ids.insert(path, id);
        *self.lengths.entry(length).or_default() += 1;
    }

    fn remove(&mut self, path: &str, length: usize) {
        self.ids.remove(path);
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// Looks up the path that `cut` makes of a request, for each length that a route has.
    fn find<'a>(
        &'a self,
        cut: impl Fn(usize) -> Option<String> + 'a,
    ) -> impl Iterator<Item = u64> + 'a {
        let paths = self.lengths.keys().filter_map(move |length| cut(*length));
        paths.filter_map(|path| self.ids.get(&path).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::server::routing::route::COMPARISONS;

    /// Finds a route by a walk over all of them, for one interpretation after the other.
    fn walk(
        routes: &BTreeMap<u64, Arc<Route>>,
        request: &RequestedPath,
    ) -> Option<(u64, MatchedNames)> {
        request.interpretations().iter().find_map(|interpretation| {
            let matching = routes.iter().filter_map(|(id, route)| {
                let names = route.matches_as(interpretation)?;
                Some((route, *id, names))
            });
            let narrowest = matching.max_by_key(|(route, ..)| route.specificity());
            narrowest.map(|(_, id, names)| (id, names))
        })
    }

    /// Paths of few parts, so that many of them meet.
    fn path(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(select(parts), 0..4).prop_map(|parts| parts.join("/"))
    }

    fn route() -> impl Strategy<Value = Option<Route>> {
        const NAMES: &[&str] = &["a", "b", "", "_definst_", "mp4:a", "a.flv"];
        const TEMPLATES: &[&str] = &["{x}", "a{y}", "{z}b", "mp4:{x}"];
        let half = prop_oneof![
            2 => Just(None),
            6 => path(NAMES).prop_map(Some),
            1 => (path(NAMES), select(TEMPLATES))
                .prop_map(|(path, template)| Some(format!("{path}/{template}"))),
        ];
        let halves = (half.clone(), half);
        halves
            .prop_map(|(application, key)| Route::new(application.as_deref(), key.as_deref()).ok())
    }

    fn request() -> impl Strategy<Value = (String, String)> {
        const PARTS: &[&str] = &[
            "a",
            "b",
            "",
            "ab",
            "_definst_",
            "mp4:a",
            "flv:b",
            "a.flv",
            ".flv",
        ];
        let query = select(&["", "?q=1", "?token=a/b"][..]);
        let application = (path(PARTS), query.clone());
        let key = (path(PARTS), query);
        let joined = |(path, query)| format!("{path}{query}");
        (application.prop_map(joined), key.prop_map(joined))
    }

    proptest! {
        #![proptest_config(properties::cases(2000))]
        #[test]
        fn the_index_finds_the_route_that_a_walk_finds(
            routes in prop::collection::vec(route(), 0..24),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            requests in prop::collection::vec(request(), 1..24),
        ) {
            let mut index = RouteIndex::default();
            let mut walked = BTreeMap::new();
            for (id, route) in routes.into_iter().flatten().map(Arc::new).enumerate() {
                let is_taken = walked.values().any(|other: &Arc<Route>| other.is_same(&route));
                prop_assert_eq!(index.is_taken(&route), is_taken, "{}", route);
                if !is_taken {
                    index.add(id as u64, route.clone());
                    walked.insert(id as u64, route);
                }
            }
            for place in removed {
                let ids: Vec<u64> = walked.keys().copied().collect();
                if !ids.is_empty() {
                    let id = *place.get(&ids);
                    index.remove(id);
                    walked.remove(&id);
                }
            }
            for (application, key) in requests {
                let request = RequestedPath::new(&application, &key);
                let expected = walk(&walked, &request);
                prop_assert_eq!(index.find(&request), expected, "{} {}", application, key);
            }
        }
    }

    #[test]
    fn likelier_interpretations_come_before_narrower_routes() {
        let mut index = RouteIndex::default();
        let routes = [
            Route::new(Some("{application}/{user}"), Some("{stream}")),
            Route::new(Some("{application}"), Some("{stream}")),
            Route::new(Some("live"), Some("ann")),
        ];
        for (id, route) in (0..).zip(routes) {
            index.add(id, Arc::new(route.unwrap()));
        }
        for (application, key, id, path) in [
            // ffmpeg's answer to a challenge.
            (
                "live/ann?authmod=adobe&user=ann",
                "cam",
                0,
                ("live/ann", "cam"),
            ),
            ("live/ann", "cam?authmod=adobe", 0, ("live/ann", "cam")),
            ("live?authmod=adobe&user=ann", "bob", 1, ("live", "bob")),
            ("live?authmod=adobe&user=ann", "ann", 2, ("live", "ann")),
            // A slash in a query, where no route has so many parts.
            ("live/ann/cam?token=a", "b", 0, ("live/ann", "cam")),
        ] {
            let found = index.find(&RequestedPath::new(application, key)).unwrap();
            let names = (&found.1.application[..], &found.1.stream_key[..]);
            assert_eq!((found.0, names), (id, path), "{application} {key}");
        }
    }

    #[test]
    fn ten_thousand_exact_routes_are_compared_with_few_requests() {
        const ROUTES: u64 = 10_000;
        let route = |id: u64| {
            let name = format!("camera{id}");
            // All kinds of exact routes in turn.
            let route = match id % 3 {
                0 => Route::new(Some("live"), Some(&name)),
                1 => Route::new(None, Some(&name)),
                _ => Route::new(Some(&name), None),
            };
            Arc::new(route.unwrap())
        };
        let mut index = RouteIndex::default();
        let before = COMPARISONS.get();
        for id in 0..ROUTES {
            assert!(!index.is_taken(&route(id)));
            index.add(id, route(id));
            assert!(index.is_taken(&route(id)));
        }
        for id in 0..ROUTES {
            let name = format!("camera{id}");
            let request = match id % 3 {
                2 => RequestedPath::new(&name, "key"),
                _ => RequestedPath::new("live", &name),
            };
            assert_eq!(index.find(&request).unwrap().0, id);
        }
        let unknown = RequestedPath::new("other", "unknown");
        assert_eq!(index.find(&unknown), None);
        for id in 0..ROUTES {
            index.remove(id);
            assert!(!index.is_taken(&route(id)));
        }
        // One for each that was found.
        assert_eq!(COMPARISONS.get() - before, ROUTES);
    }
}
