// SPDX-License-Identifier: MPL-2.0

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::*;
use crate::server::config::{
    Leak, ListenerSettings, Policy, PortSettings, QueueLimits, StreamSettings,
};
use crate::server::events::{Observer, PublisherEvent};
use crate::server::port::state::{Accepted, Listed};
use crate::server::publisher::Publisher;
use crate::server::routing::access::Access;
use crate::server::routing::publish_point::PublishPointConfig;
use crate::server::routing::route::Route;

#[derive(Debug)]
struct NoObserver;

impl Observer for NoObserver {
    fn may_publish(&self, _publisher: &Publisher) -> bool {
        true
    }

    fn notify(&self, _event: &PublisherEvent) {}
}

fn point() -> PublishPoint {
    let config = PublishPointConfig {
        name: "element".into(),
        route: Route::new(None, None).unwrap(),
        access: Access::default(),
        settings: StreamSettings {
            limits: QueueLimits {
                max_bytes: 0,
                max_time: Duration::ZERO,
                leak: Leak::None,
            },
            timeout: Duration::ZERO,
            keep_listening: false,
            policy: Policy::Reject,
            stall_timeout: Duration::ZERO,
            delivery_interval: Duration::ZERO,
            quality: Default::default(),
            resume_timeout: Duration::ZERO,
        },
        listener: ListenerSettings {
            chunk_size: 128,
            max_message_size: 1024,
            max_clients: 1,
            max_clients_per_address: 1,
            handshake_timeout: Duration::from_secs(60),
        },
        port: PortSettings::default(),
        observer: Arc::new(NoObserver),
    };
    PublishPoint::fixed(config).0
}

/// Returns a registry that lives as long as the process, like that of the elements.
fn registry(spawn: SpawnThread) -> &'static Registry {
    Box::leak(Box::new(Registry::new(spawn)))
}

/// The body of a connection's thread: waits until the connection ends.
fn read_to_end(accepted: Accepted, _listed: Listed) {
    let mut socket = &*accepted.socket;
    let _ = socket.read_to_end(&mut Vec::new());
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Returns the number of bytes until the server closes the connection.
fn bytes_until_closed(mut client: TcpStream) -> usize {
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes.len(),
        Err(error) => panic!("the connection stays open: {error}"),
    }
}

/// Declares a function that starts threads, except those of one name while a flag is set.
macro_rules! refusing {
    ($spawn:ident, $is_exhausted:ident, $refused:literal) => {
        static $is_exhausted: AtomicBool = AtomicBool::new(true);

        fn $spawn(new: NewThread) -> io::Result<JoinHandle<()>> {
            if $is_exhausted.load(Ordering::SeqCst) && new.name.starts_with($refused) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            threads::spawn(new)
        }
    };
}

#[test]
fn a_listener_without_accept_thread_leaves_port_counters_and_route_free() {
    refusing!(spawn, IS_EXHAUSTED, "rtmp-");
    let registry = registry(spawn);
    let reserved = TcpListener::bind(any_port()).unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let point = point();
    let failure = registry.claim(address, &point, None, read_to_end);
    assert!(
        matches!(failure, Err(Failure::Bind(error)) if error.kind() == io::ErrorKind::WouldBlock)
    );
    assert!(registry.entries.lock().is_empty());
    assert_eq!(registry.counters.lock().stats(), ProcessStats::default());
    drop(TcpListener::bind(address).expect("the port is free"));

    // The same publish point gets the timers of the listener that starts.
    IS_EXHAUSTED.store(false, Ordering::SeqCst);
    let claim = registry
        .claim(address, &point, None, read_to_end)
        .ok()
        .unwrap();
    assert!(point.goes_by(&claim.listener.timer_service()));
    assert_eq!(registry.counters.lock().stats().elements, 1);
}

#[test]
fn a_connection_without_thread_is_closed_and_leaves_its_place_to_the_next() {
    refusing!(spawn, IS_EXHAUSTED, "rtmp-client");
    let claim = registry(spawn).claim(any_port(), &point(), None, read_to_end);
    let claim = claim.ok().unwrap();
    let refused = TcpStream::connect(claim.address()).unwrap();
    assert_eq!(bytes_until_closed(refused), 0);
    assert_eq!(claim.listener.connections(), 0);

    // One client is allowed.
    IS_EXHAUSTED.store(false, Ordering::SeqCst);
    let accepted = TcpStream::connect(claim.address()).unwrap();
    while claim.listener.connections() == 0 {
        thread::yield_now();
    }
    drop(claim);
    assert_eq!(bytes_until_closed(accepted), 0);
}

#[test]
fn a_port_is_free_at_once_where_no_thread_can_join_its_threads() {
    refusing!(spawn, IS_EXHAUSTED, "rtmp-close");
    let registry = registry(spawn);
    let claim = registry.claim(any_port(), &point(), None, read_to_end);
    let claim = claim.ok().unwrap();
    let address = claim.address();
    let client = TcpStream::connect(address).unwrap();
    while claim.listener.connections() == 0 {
        thread::yield_now();
    }
    // As from a handler of the application.
    let handler = thread::spawn(move || {
        callback_thread::enter();
        drop(claim);
        drop(TcpListener::bind(address).expect("the port is free"));
    });
    handler.join().unwrap();
    assert_eq!(bytes_until_closed(client), 0);
    assert_eq!(registry.counters.lock().stats().elements, 0);
    assert!(matches!(
        registry.entries.lock().get(&address),
        Some(Entry::Abandoned(_))
    ));

    // The next claim joins the threads.
    let claim = registry.claim(address, &point(), None, read_to_end);
    assert_eq!(claim.ok().unwrap().address(), address);
    assert!(registry.entries.lock().is_empty());
}
