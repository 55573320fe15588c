// SPDX-License-Identifier: MPL-2.0

//! The publish points of a listener. The cost of an operation does not grow with their number, except
//! for a walk over those with variables, and for a walk over all that finds the one with which another
//! is incompatible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rtmp::authentication::Method;
use crate::server::config::ListenerSettings;
use crate::server::error::ClaimError;
use crate::server::routing::access::AllowedAddresses;
use crate::server::routing::application_index::{ApplicationIndex, Meant, Offer};
use crate::server::routing::compatible::check_compatible;
use crate::server::routing::counted::Counted;
use crate::server::routing::publish_point::{PublishPoint, PublishRules};
use crate::server::routing::route::{Half, MatchedNames, RequestedPath};
use crate::server::routing::route_index::RouteIndex;

/// Points that are notified of a client which may have meant any of them.
pub(crate) const MAX_AFFECTED: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    points: BTreeMap<u64, PublishPoint>,
    routes: RouteIndex,
    applications: ApplicationIndex,
    settings: Counted<ListenerSettings>,
    /// All of `settings` in one. None where there are no points.
    merged_settings: Option<ListenerSettings>,
    addresses: Counted<AllowedAddresses>,
    methods: Methods,
    /// Points that are drained.
    draining: BTreeSet<u64>,
    /// A point that was open when last looked for.
    last_open: AtomicU64,
}

/// Methods of authentication. Routes of one application have the same.
#[derive(Debug, Default)]
struct Methods {
    all: Counted<Option<Method>>,
    by_first_part: HashMap<FirstPart, Counted<Option<Method>>>,
}

/// First part of an application. A client that names only the start of its application may mean any
/// that starts so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum FirstPart {
    Any,
    Exact(String),
    Template,
}

/// Publish points that a client of an application might publish to.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// Distinct offers of the points. None where there is no point.
    pub(crate) offers: Vec<Offer>,
    /// All points are drained.
    pub(crate) are_draining: bool,
    /// The points, if they are few enough to be notified of the client.
    pub(crate) affected: Vec<PublishPoint>,
}

impl RouteTable {
    /// Adds a point, unless it is incompatible with another one. `address` is the listener's.
    pub(crate) fn add(
        &mut self,
        address: SocketAddr,
        point: &PublishPoint,
    ) -> Result<(), ClaimError> {
        let rules = point.rules();
        if self.may_conflict(rules) {
            let mut others = self.walk();
            others.try_for_each(|other| check_compatible(address, rules, other.rules()))?;
        }
        let id = point.id();
        self.points.insert(id, point.clone());
        self.routes.add(id, rules.route.clone());
        self.applications.add(id, rules);
        self.settings.add(&rules.listener);
        let merged = self.merged_settings.into_iter().chain([rules.listener]);
        self.merged_settings = merged.reduce(ListenerSettings::merge);
        self.addresses.add(&rules.access.addresses);
        self.methods.add(rules);
        Ok(())
    }

    pub(crate) fn remove(&mut self, point: &PublishPoint) {
        let (id, rules) = (point.id(), point.rules());
        if self.points.remove(&id).is_none() {
            return;
        }
        self.routes.remove(id);
        self.applications.remove(id, rules);
        if self.settings.remove(&rules.listener) {
            let left = self.settings.values().copied();
            self.merged_settings = left.reduce(ListenerSettings::merge);
        }
        self.addresses.remove(&rules.access.addresses);
        self.methods.remove(rules);
        self.draining.remove(&id);
    }

    fn walk(&self) -> impl Iterator<Item = &PublishPoint> {
        self.points.values().inspect(|_| count_visit())
    }

    /// Returns false where a point is certainly compatible with all others.
    fn may_conflict(&self, rules: &PublishRules) -> bool {
        // All points of a listener agree on its port.
        let first = self.points.values().next();
        first.is_some_and(|first| first.rules().port != rules.port)
            || self.routes.is_taken(&rules.route)
            || self.methods.may_conflict(rules)
    }

    /// Returns the oldest point.
    pub(crate) fn first(&self) -> Option<&PublishPoint> {
        self.points.values().next()
    }

    /// Returns the settings for a client whose route is not known yet.
    pub(crate) fn settings(&self) -> Option<ListenerSettings> {
        self.merged_settings
    }

    /// Returns true where any point accepts clients from an address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let mut lists = self.addresses.values();
        lists.any(|addresses| addresses.allows(address))
    }

    /// Returns the narrowest point that matches.
    pub(crate) fn find(&self, request: &RequestedPath) -> Option<(&PublishPoint, MatchedNames)> {
        let (id, names) = self.routes.find(request)?;
        Some((self.points.get(&id)?, names))
    }

    /// Returns the points that a client of this application might publish to.
    pub(crate) fn candidates(&self, application: &str) -> Candidates {
        let Meant { groups, templates } = self.applications.meant_by(application);
        let templates = templates.iter().filter_map(|id| self.points.get(id));
        let may_match = |point: &&PublishPoint| point.rules().route.may_match(application);
        let templates: Vec<&PublishPoint> = templates.filter(may_match).collect();
        let exact = groups.iter().flat_map(|group| &group.ids);
        let points = exact.filter_map(|id| self.points.get(id));
        let points = points.chain(templates.iter().copied());
        let mut points = points.inspect(|_| count_visit());
        let mut first: Vec<&PublishPoint> = points.by_ref().take(MAX_AFFECTED + 1).collect();
        let are_draining = |points: &[&PublishPoint]| points.iter().all(|p| p.is_draining());
        let are_draining = are_draining(&first) && points.all(PublishPoint::is_draining);
        if first.len() > MAX_AFFECTED {
            first.clear();
        }
        let mut offers = Counted::default();
        let of_groups = groups.iter().flat_map(|group| group.offers.values());
        of_groups.for_each(|offer| offers.add(offer));
        templates
            .iter()
            .for_each(|point| offers.add(&Offer::of(point.rules())));
        Candidates {
            offers: offers.into_values().collect(),
            are_draining,
            affected: first.into_iter().cloned().collect(),
        }
    }

    /// Returns all points, if they are few enough to be notified of a client.
    pub(crate) fn affected(&self) -> Vec<PublishPoint> {
        if self.points.len() > MAX_AFFECTED {
            return Vec::new();
        }
        self.walk().cloned().collect()
    }

    /// Notes that the draining of a point has begun or ended.
    pub(crate) fn update_draining(&mut self, point: &PublishPoint) {
        let id = point.id();
        if self.points.contains_key(&id) && point.is_draining() {
            self.draining.insert(id);
        } else {
            self.draining.remove(&id);
        }
    }

    /// Returns true while clients may be accepted. Where all points are drained the port is closed,
    /// so that a load balancer notices.
    pub(crate) fn accepts_clients(&self) -> bool {
        self.draining.is_empty() || self.has_open()
    }

    /// Looks for an open point, starting with the one that was open the last time: points are drained
    /// one after the other.
    fn has_open(&self) -> bool {
        let last = self.last_open.load(Ordering::Relaxed);
        let points = self.points.range(last..).chain(self.points.range(..last));
        let mut points = points.inspect(|_| count_visit());
        let open = points.find(|(_, point)| point.is_open());
        if let Some((id, _)) = open {
            self.last_open.store(*id, Ordering::Relaxed);
        }
        open.is_some()
    }
}

impl Methods {
    fn add(&mut self, rules: &PublishRules) {
        let method = method(rules);
        self.all.add(&method);
        let of_part = self.by_first_part.entry(FirstPart::of(rules));
        of_part.or_default().add(&method);
    }

    fn remove(&mut self, rules: &PublishRules) {
        let method = method(rules);
        self.all.remove(&method);
        let part = FirstPart::of(rules);
        if let Some(methods) = self.by_first_part.get_mut(&part) {
            methods.remove(&method);
            if methods.is_empty() {
                self.by_first_part.remove(&part);
            }
        }
    }

    /// Returns false where no point that shares an application has another method.
    fn may_conflict(&self, rules: &PublishRules) -> bool {
        let method = method(rules);
        if !self.all.has_other(&method) {
            return false;
        }
        let part = FirstPart::of(rules);
        if !matches!(part, FirstPart::Exact(_)) {
            return true;
        }
        let sharing = [part, FirstPart::Any, FirstPart::Template];
        let mut methods = sharing.iter().filter_map(|p| self.by_first_part.get(p));
        methods.any(|methods| methods.has_other(&method))
    }
}

impl FirstPart {
    fn of(rules: &PublishRules) -> Self {
        match rules.route.first_application_part() {
            Half::Any => FirstPart::Any,
            Half::Exact(parts) => {
                let first = parts.first().copied().unwrap_or_default();
                FirstPart::Exact(first.to_owned())
            }
            Half::Template => FirstPart::Template,
        }
    }
}

fn method(rules: &PublishRules) -> Option<Method> {
    let credentials = rules.access.credentials.as_ref();
    credentials.map(|credentials| credentials.method)
}

#[cfg(not(test))]
fn count_visit() {}

#[cfg(test)]
fn count_visit() {
    tests::VISITS.with(|visits| visits.set(visits.get() + 1));
}

#[cfg(test)]
mod tests;
