// SPDX-License-Identifier: MPL-2.0

//! Publish points by the applications of clients that might mean them, and the sum of their offers:
//! at `connect` a client has named no stream key yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::flv::codec::AcceptedCodecs;
use crate::rtmp::authentication::Credentials;
use crate::server::routing::counted::Counted;
use crate::server::routing::publish_point::PublishRules;
use crate::server::routing::route::{Half, application_parts};

/// Facts about a publish point that matter at `connect`. Many points have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Offer {
    /// None for no authentication.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) codecs: AcceptedCodecs,
}

impl Offer {
    pub(crate) fn of(rules: &PublishRules) -> Self {
        Offer {
            credentials: rules.access.credentials.clone(),
            codecs: rules.access.codecs.clone(),
        }
    }
}

/// Publish points with the same relation to an application.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) ids: BTreeSet<u64>,
    pub(crate) offers: Counted<Offer>,
}

/// Publish points by their applications. Clients disagree on where an application ends, so those
/// are found whose application starts with the client's, or the client's with theirs.
#[derive(Debug, Default)]
pub(crate) struct ApplicationIndex {
    /// By application. A point that accepts any has the empty one: all applications start with it.
    exact: HashMap<String, Group>,
    /// By each start of the application, from the empty one to the whole.
    starts: HashMap<String, Group>,
    /// Number of points by the number of parts of their application.
    lengths: BTreeMap<usize, usize>,
    /// Points whose application has variables.
    templates: BTreeSet<u64>,
}

/// Publish points that a client of an application might publish to.
#[derive(Debug)]
pub(crate) struct Meant<'a> {
    /// Points with exact applications. No point is in two groups.
    pub(crate) groups: Vec<&'a Group>,
    /// Points with variables in their application, which are still to be compared.
    pub(crate) templates: &'a BTreeSet<u64>,
}

impl ApplicationIndex {
    pub(crate) fn add(&mut self, id: u64, rules: &PublishRules) {
        let Some(parts) = exact_application(rules) else {
            self.templates.insert(id);
            return;
        };
        let offer = Offer::of(rules);
        let groups = [&mut self.exact, &mut self.starts];
        let paths = [vec![parts.join("/")], starts(&parts)];
        for (groups, paths) in groups.into_iter().zip(paths) {
            for path in paths {
                let group = groups.entry(path).or_default();
                group.ids.insert(id);
                group.offers.add(&offer);
            }
        }
        *self.lengths.entry(parts.len()).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, id: u64, rules: &PublishRules) {
        let Some(parts) = exact_application(rules) else {
            self.templates.remove(&id);
            return;
        };
        let offer = Offer::of(rules);
        let groups = [&mut self.exact, &mut self.starts];
        let paths = [vec![parts.join("/")], starts(&parts)];
        for (groups, paths) in groups.into_iter().zip(paths) {
            for path in paths {
                if let Some(group) = groups.get_mut(&path) {
                    group.ids.remove(&id);
                    group.offers.remove(&offer);
                    if group.ids.is_empty() {
                        groups.remove(&path);
                    }
                }
            }
        }
        if let Some(count) = self.lengths.get_mut(&parts.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&parts.len());
            }
        }
    }

    /// Returns the points that a client of this application might publish to.
    pub(crate) fn meant_by(&self, application: &str) -> Meant<'_> {
        let longest = self.lengths.keys().next_back().copied().unwrap_or_default();
        // More parts than any point has can't be the start of an application.
        let parts: Vec<&str> = application_parts(application).take(longest + 1).collect();
        let shorter = (0..parts.len().min(longest + 1)).filter_map(|length| {
            let is_used = self.lengths.contains_key(&length);
            is_used.then(|| self.exact.get(&parts[..length].join("/")))?
        });
        let longer = self.starts.get(&parts.join("/"));
        Meant {
            groups: shorter.chain(longer).collect(),
            templates: &self.templates,
        }
    }
}

/// Returns the parts of an application without variables. None for one with variables.
fn exact_application(rules: &PublishRules) -> Option<Vec<String>> {
    match rules.route.halves().0 {
        Half::Any => Some(Vec::new()),
        Half::Exact(parts) => Some(parts.into_iter().map(str::to_owned).collect()),
        Half::Template => None,
    }
}

fn starts(parts: &[String]) -> Vec<String> {
    let lengths = 0..=parts.len();
    lengths.map(|length| parts[..length].join("/")).collect()
}
