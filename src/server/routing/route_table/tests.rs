// SPDX-License-Identifier: MPL-2.0

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::flv::codec::AcceptedCodecs;
use crate::rtmp::authentication::Credentials;
use crate::server::config::{
    Leak, Policy, PortSettings, ProxyProtocol, QueueLimits, StreamSettings,
};
use crate::server::events::{Observer, PublisherEvent};
use crate::server::publisher::Publisher;
use crate::server::routing::access::Access;
use crate::server::routing::publish_point::PublishPointConfig;
use crate::server::routing::route::{COMPARISONS, Route};

thread_local! {
    /// Points that this thread has walked over.
    pub(super) static VISITS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1935);

#[derive(Debug)]
struct NoObserver;

impl Observer for NoObserver {
    fn may_publish(&self, _publisher: &Publisher) -> bool {
        true
    }

    fn notify(&self, _event: &PublisherEvent) {}
}

fn config(application: Option<&str>, stream_key: Option<&str>) -> Option<PublishPointConfig> {
    Some(PublishPointConfig {
        name: String::new(),
        route: Route::new(application, stream_key).ok()?,
        access: Access::default(),
        settings: StreamSettings {
            limits: QueueLimits {
                max_bytes: 0,
                max_time: Duration::ZERO,
                leak: Leak::None,
            },
            timeout: Duration::ZERO,
            keep_listening: true,
            policy: Policy::Reject,
            stall_timeout: Duration::ZERO,
            delivery_interval: Duration::ZERO,
            quality: Default::default(),
            resume_timeout: Duration::ZERO,
        },
        listener: ListenerSettings {
            chunk_size: 4096,
            max_message_size: 1000,
            max_clients: 10,
            max_clients_per_address: 10,
            handshake_timeout: Duration::from_secs(10),
        },
        port: PortSettings::default(),
        observer: Arc::new(NoObserver),
    })
}

fn point(config: PublishPointConfig) -> PublishPoint {
    PublishPoint::fixed(config).0
}

fn camera(number: usize) -> PublishPoint {
    let name = format!("camera{number}");
    point(config(Some("live"), Some(&name)).unwrap())
}

fn credentials(method: Method) -> Credentials {
    Credentials {
        method,
        username: "user".into(),
        password: "password".into(),
    }
}

/// Application, stream key, method of authentication, codecs, clients and whether it is drained.
type Drawn = (
    Option<String>,
    Option<&'static str>,
    Option<Method>,
    &'static [&'static str],
    usize,
    bool,
);

fn drawn() -> impl Strategy<Value = Drawn> {
    const CODECS: &[&[&str]] = &[&[], &["avc1"], &["hvc1", "mp4a"]];
    const PARTS: &[&str] = &["a", "b", "{x}", "a{y}", "_definst_"];
    let application = prop::collection::vec(select(PARTS), 0..4).prop_map(|parts| parts.join("/"));
    (
        prop::option::of(application),
        select(&[None, Some("k"), Some("{key}"), Some("l/m")][..]),
        // Few of another method, which many points do not go together with.
        prop_oneof![12 => Just(None), 1 => Just(Some(Method::Adobe)), 1 => Just(Some(Method::Llnw))],
        select(CODECS),
        1..5usize,
        any::<bool>(),
    )
}

fn drawn_point((application, key, method, codecs, clients, _): &Drawn) -> Option<PublishPoint> {
    let mut config = config(application.as_deref(), *key)?;
    config.access.credentials = method.map(credentials);
    config.access.codecs = AcceptedCodecs::parse(codecs.iter().copied()).unwrap();
    config.listener.max_clients = *clients;
    config.port.proxy_protocol = match *clients {
        4 => ProxyProtocol::V1,
        _ => ProxyProtocol::Off,
    };
    Some(point(config))
}

fn application() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &["a", "b", "ab", "", "_definst_"];
    let parts = prop::collection::vec(select(PARTS), 0..5);
    let query = select(&["", "?q=a/b"][..]);
    (parts, query).prop_map(|(parts, query)| parts.join("/") + query)
}

/// Compares a table with walks over all of its points.
fn check(
    table: &RouteTable,
    points: &[PublishPoint],
    applications: &[String],
) -> Result<(), TestCaseError> {
    for application in applications {
        let may_match = |point: &&PublishPoint| point.rules().route.may_match(application);
        let expected: Vec<&PublishPoint> = points.iter().filter(may_match).collect();
        let found = table.candidates(application);
        let offers: HashSet<Offer> = expected
            .iter()
            .map(|point| Offer::of(point.rules()))
            .collect();
        prop_assert_eq!(found.offers.len(), offers.len(), "{}", application);
        prop_assert_eq!(found.offers.into_iter().collect::<HashSet<_>>(), offers);
        let are_draining = expected.iter().all(|point| point.is_draining());
        prop_assert_eq!(found.are_draining, are_draining);
        let affected: Vec<u64> = expected.iter().map(|point| point.id()).collect();
        let mut ids: Vec<u64> = found.affected.iter().map(PublishPoint::id).collect();
        ids.sort_unstable();
        match affected.len() {
            ..=MAX_AFFECTED => prop_assert_eq!(ids, affected),
            _ => prop_assert!(ids.is_empty()),
        }
    }
    let settings = points.iter().map(|point| point.rules().listener);
    prop_assert_eq!(table.settings(), settings.reduce(ListenerSettings::merge));
    let accepts =
        points.iter().any(PublishPoint::is_open) || !points.iter().any(PublishPoint::is_draining);
    prop_assert_eq!(table.accepts_clients(), accepts);
    Ok(())
}

proptest! {
    #![proptest_config(properties::cases(500))]
    #[test]
    fn the_table_finds_what_walks_find(
        drawn in prop::collection::vec(drawn(), 0..24),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        applications in prop::collection::vec(application(), 1..12),
    ) {
        let mut table = RouteTable::default();
        let mut points: Vec<PublishPoint> = Vec::new();
        for drawn in drawn {
            let Some(point) = drawn_point(&drawn) else {
                continue;
            };
            let mut others = points.iter();
            let check = |other: &PublishPoint| check_compatible(ADDRESS, point.rules(), other.rules());
            let expected = others.try_for_each(check).map_err(|error| error.to_string());
            let added = table.add(ADDRESS, &point).map_err(|error| error.to_string());
            prop_assert_eq!(&added, &expected);
            if added.is_ok() {
                if drawn.5 {
                    point.drain(Duration::from_secs(10));
                }
                table.update_draining(&point);
                points.push(point);
            }
        }
        check(&table, &points, &applications)?;
        for place in removed {
            if !points.is_empty() {
                table.remove(&points.remove(place.index(points.len())));
            }
        }
        check(&table, &points, &applications)?;
    }
}

/// Returns the comparisons and visits of what `work` does.
fn cost(work: impl FnOnce()) -> u64 {
    let before = COMPARISONS.get() + VISITS.get();
    work();
    COMPARISONS.get() + VISITS.get() - before
}

#[test]
fn ten_thousand_routes_cost_each_client_and_each_element_little() {
    const ROUTES: usize = 10_000;
    let points: Vec<PublishPoint> = (0..ROUTES).map(camera).collect();
    let mut table = RouteTable::default();
    let adding = cost(|| {
        for point in &points {
            table.add(ADDRESS, point).unwrap();
        }
    });
    assert_eq!(adding, 0);
    let connecting = cost(|| {
        assert!(table.allows(Ipv4Addr::LOCALHOST.into()));
        assert!(table.settings().is_some());
        assert_eq!(table.candidates("live").offers.len(), 1);
    });
    assert!(connecting <= MAX_AFFECTED as u64 + 1, "{connecting}");
    let unknown = cost(|| assert!(table.candidates("other").offers.is_empty()));
    assert_eq!(unknown, 0);
    let publishing = cost(|| {
        for (number, point) in points.iter().enumerate() {
            let request = RequestedPath::new("live", &format!("camera{number}"));
            let (found, _) = table.find(&request).unwrap();
            assert!(found.is(point));
        }
    });
    assert_eq!(publishing, ROUTES as u64);
    let draining = cost(|| {
        for point in &points {
            assert!(table.accepts_clients());
            point.drain(Duration::from_secs(10));
            table.update_draining(point);
        }
        assert!(!table.accepts_clients());
    });
    assert!(draining <= 3 * ROUTES as u64, "{draining}");
    let removing = cost(|| points.iter().for_each(|point| table.remove(point)));
    assert_eq!(removing, 0);
    assert!(table.settings().is_none());
}

#[test]
fn the_error_for_a_claimed_route_names_its_element() {
    let mut table = RouteTable::default();
    for number in 0..100 {
        let mut config = config(Some("live"), Some(&format!("camera{number}"))).unwrap();
        config.name = format!("element{number}");
        table.add(ADDRESS, &point(config)).unwrap();
    }
    let error = table.add(ADDRESS, &camera(77)).unwrap_err();
    assert!(error.to_string().contains("element77"), "{error}");
}
