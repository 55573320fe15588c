// SPDX-License-Identifier: MPL-2.0

//! The connections of a listener, their number, and the eviction of one when there are too many.
//!
//! Connections are cheap to open, so a flood of them must not keep a publisher out: the new one is
//! accepted, and the oldest connection that does not publish is evicted. It is chosen from the
//! network that has the most of them, so that a flood evicts itself.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::{IpNet, Ipv6Net};

use crate::server::error::TooManyClients;

/// Progress of a connection. A connection that has come further is evicted later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Connected,
    /// The application decides about its publish request.
    Authorizing,
    Publishing,
}

#[derive(Debug)]
struct Entry {
    socket: Arc<TcpStream>,
    thread: JoinHandle<()>,
    stage: Stage,
    /// Network of its address. None until a load balancer has sent it.
    network: Option<IpNet>,
}

/// The connections of one network.
#[derive(Debug, Default, PartialEq, Eq)]
struct Neighbours {
    /// The first one is the least worth keeping.
    present: BTreeSet<(Stage, u64)>,
    publishing: usize,
    /// Connections in [`ConnectionTable::leaving`].
    leaving: usize,
}

#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    entries: HashMap<u64, Entry>,
    /// The same connections by network, so that a new client waits for no walk over all of them.
    networks: HashMap<Option<IpNet>, Neighbours>,
    /// Evicted connections whose threads have not ended: a handler may delay them.
    leaving: HashMap<u64, Entry>,
    /// Ended threads, to be joined.
    finished: Vec<JoinHandle<()>>,
    /// Threads whose connections continue on others. They end by themselves.
    relieved: Vec<JoinHandle<()>>,
    next_id: u64,
}

impl ConnectionTable {
    /// Ids count up, so a lower one is an older connection.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Makes space for one more connection. Threads of evicted ones may take a moment to end while
    /// the application decides about them: there may be as many of them again.
    pub(crate) fn reserve(&mut self, max_clients: usize) -> Result<(), TooManyClients> {
        let count = self.entries.len();
        if count + self.leaving.len() >= 2 * max_clients {
            return Err(TooManyClients::OfAll(max_clients));
        }
        if count < max_clients || self.evict_one() {
            return Ok(());
        }
        Err(TooManyClients::OfAll(max_clients))
    }

    /// Evicts the connection that is the least worth keeping. Returns false if there is none. Looks
    /// at each network once.
    pub(crate) fn evict_one(&mut self) -> bool {
        let most = self.networks.values().map(Neighbours::evictable).max();
        let crowded = self
            .networks
            .values()
            .filter(|network| Some(network.evictable()) == most);
        let oldest = crowded.filter_map(Neighbours::first_evictable).min();
        oldest.inspect(|(_, id)| self.disconnect(*id)).is_some()
    }

    /// Makes space for one more connection from an address.
    pub(crate) fn reserve_for(
        &mut self,
        address: IpAddr,
        max: usize,
    ) -> Result<(), TooManyClients> {
        let Some(neighbours) = self.networks.get(&Some(network(address))) else {
            return match max {
                0 => Err(TooManyClients::OfAddress(max)),
                _ => Ok(()),
            };
        };
        let count = neighbours.present.len();
        if count + neighbours.leaving >= 2 * max {
            return Err(TooManyClients::OfAddress(max));
        }
        if count >= max {
            let oldest = neighbours.first_evictable();
            let (_, id) = oldest.ok_or(TooManyClients::OfAddress(max))?;
            self.disconnect(id);
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, id: u64, socket: Arc<TcpStream>, thread: JoinHandle<()>) {
        let entry = Entry {
            socket,
            thread,
            stage: Stage::Connected,
            network: None,
        };
        self.list(id, &entry);
        self.entries.insert(id, entry);
    }

    /// Sets the address of a connection, after space was made for it.
    pub(crate) fn set_address(&mut self, id: u64, address: IpAddr) {
        self.change(id, |entry| entry.network = Some(network(address)));
    }

    /// Returns false if the connection has been evicted.
    pub(crate) fn set_stage(&mut self, id: u64, stage: Stage) -> bool {
        self.change(id, |entry| entry.stage = stage)
    }

    /// Changes the network or the stage of a connection.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(mut entry) = self.entries.remove(&id) else {
            return false;
        };
        self.unlist(id, &entry);
        change(&mut entry);
        self.list(id, &entry);
        self.entries.insert(id, entry);
        true
    }

    fn list(&mut self, id: u64, entry: &Entry) {
        let neighbours = self.networks.entry(entry.network).or_default();
        neighbours.present.insert((entry.stage, id));
        neighbours.publishing += usize::from(!entry.is_evictable());
    }

    fn unlist(&mut self, id: u64, entry: &Entry) {
        if let Some(neighbours) = self.networks.get_mut(&entry.network) {
            neighbours.present.remove(&(entry.stage, id));
            neighbours.publishing -= usize::from(!entry.is_evictable());
        }
        self.forget_if_empty(entry.network);
    }

    fn forget_if_empty(&mut self, network: Option<IpNet>) {
        let neighbours = self.networks.get(&network);
        if neighbours.is_some_and(|network| network.present.is_empty() && network.leaving == 0) {
            self.networks.remove(&network);
        }
    }

    /// Ends a connection, whose thread ends soon.
    pub(crate) fn disconnect(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            let _ = entry.socket.shutdown(Shutdown::Both);
            self.networks.entry(entry.network).or_default().leaving += 1;
            self.unlist(id, &entry);
            self.leaving.insert(id, entry);
        }
    }

    /// Notes that a thread ends. Returns false if the caller of [`ConnectionTable::take`] joins it.
    pub(crate) fn finished(&mut self, id: u64) -> bool {
        let thread = self.take(id);
        let is_listed = thread.is_some();
        self.finished.extend(thread);
        is_listed
    }

    /// Returns the threads that have ended, or end at once, to be joined.
    pub(crate) fn take_finished(&mut self) -> Vec<JoinHandle<()>> {
        let ended = self.relieved.extract_if(.., |thread| thread.is_finished());
        let mut finished = std::mem::take(&mut self.finished);
        finished.extend(ended);
        finished
    }

    /// Makes a new thread that of a connection. The former one is joined after it has ended.
    pub(crate) fn continue_on(
        &mut self,
        id: u64,
        spawn: impl FnOnce() -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let entry = self.entries.get_mut(&id).or(self.leaving.get_mut(&id));
        let Some(entry) = entry else {
            return Err(io::Error::other("the connection ends"));
        };
        let former = std::mem::replace(&mut entry.thread, spawn()?);
        self.relieved.push(former);
        Ok(())
    }

    /// Takes the thread of a connection that ends, for the caller to join.
    pub(crate) fn take(&mut self, id: u64) -> Option<JoinHandle<()>> {
        if let Some(entry) = self.entries.remove(&id) {
            self.unlist(id, &entry);
            return Some(entry.thread);
        }
        let entry = self.leaving.remove(&id)?;
        self.note_left(&entry);
        Some(entry.thread)
    }

    /// Notes that a connection in `leaving` is gone.
    fn note_left(&mut self, entry: &Entry) {
        if let Some(neighbours) = self.networks.get_mut(&entry.network) {
            neighbours.leaving -= 1;
        }
        self.forget_if_empty(entry.network);
    }

    /// Ends all connections, whose threads end soon.
    pub(crate) fn disconnect_all(&mut self) {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        ids.into_iter().for_each(|id| self.disconnect(id));
    }

    /// Ends all connections, and returns the threads to join. A thread in a handler of the
    /// application is not among them: it ends when the handler returns, which may wait for the
    /// caller. Threads that were relieved are: their pushes are over once their elements have
    /// stopped.
    pub(crate) fn take_all(&mut self) -> Vec<JoinHandle<()>> {
        self.disconnect_all();
        self.networks.clear();
        let leaving = self.leaving.drain().map(|(_, entry)| entry);
        let in_handler = |entry: &Entry| entry.stage == Stage::Authorizing;
        let leaving = leaving.filter(|entry| !in_handler(entry));
        let threads = leaving.map(|entry| entry.thread);
        threads
            .chain(self.finished.drain(..))
            .chain(self.relieved.drain(..))
            .collect()
    }
}

impl Neighbours {
    fn evictable(&self) -> usize {
        self.present.len() - self.publishing
    }

    /// Returns the connection that is the least worth keeping, unless all of them publish.
    fn first_evictable(&self) -> Option<(Stage, u64)> {
        let first = self.present.first().copied();
        first.filter(|(stage, _)| *stage < Stage::Publishing)
    }
}

impl Entry {
    fn is_evictable(&self) -> bool {
        self.stage < Stage::Publishing
    }
}

/// Returns the network that counts as one address: an IPv6 host has all addresses of its network.
fn network(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(address) => IpNet::from(IpAddr::V4(address)),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    struct Test {
        connections: ConnectionTable,
        socket: Arc<TcpStream>,
    }

    impl Test {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            Test {
                connections: ConnectionTable::default(),
                socket: Arc::new(socket),
            }
        }

        fn add(&mut self) -> u64 {
            let id = self.connections.next_id();
            let thread = std::thread::spawn(|| {});
            self.connections.add(id, self.socket.clone(), thread);
            id
        }

        fn add_from(&mut self, address: &str, max: usize) -> Result<u64, TooManyClients> {
            let address = address.parse().unwrap();
            self.connections.reserve_for(address, max)?;
            let id = self.add();
            self.connections.set_address(id, address);
            Ok(id)
        }

        fn has(&self, id: u64) -> bool {
            self.connections.entries.contains_key(&id)
        }
    }

    #[test]
    fn the_oldest_connection_that_does_not_publish_is_evicted() {
        let mut test = Test::new();
        let ids: Vec<u64> = (0..4).map(|_| test.add()).collect();
        test.connections.set_stage(ids[0], Stage::Publishing);
        test.connections.set_stage(ids[1], Stage::Authorizing);
        for gone in [ids[2], ids[3], ids[1]] {
            let count = test.connections.entries.len();
            test.connections.reserve(count).unwrap();
            assert!(!test.has(gone));
            assert!(test.connections.finished(gone));
        }
        assert_eq!(test.connections.reserve(1), Err(TooManyClients::OfAll(1)));
        assert_eq!(test.connections.reserve(2), Ok(()));
        assert!(test.has(ids[0]));
    }

    #[test]
    fn floods_from_one_network_evict_themselves() {
        let mut test = Test::new();
        let slow = test.add_from("192.0.2.1", 10).unwrap();
        let flood: Vec<u64> = ["2001:db8::1", "2001:db8::2", "2001:db8::3:4"]
            .iter()
            .map(|address| test.add_from(address, 10).unwrap())
            .collect();
        test.connections.reserve(4).unwrap();
        assert!(test.has(slow) && !test.has(flood[0]) && test.has(flood[1]));
    }

    #[test]
    fn addresses_full_of_publishers_get_no_more_connections() {
        let mut test = Test::new();
        let first = test.add_from("192.0.2.1", 2).unwrap();
        let second = test.add_from("192.0.2.1", 2).unwrap();
        let third = test.add_from("192.0.2.1", 2).unwrap();
        assert!(!test.has(first) && test.has(second) && test.has(third));
        for id in [second, third] {
            test.connections.set_stage(id, Stage::Publishing);
        }
        assert_eq!(
            test.add_from("192.0.2.1", 2),
            Err(TooManyClients::OfAddress(2))
        );
        assert!(test.add_from("192.0.2.2", 2).is_ok());
        assert!(test.has(second) && test.has(third));
    }

    #[test]
    fn networks_agree_with_the_connections_after_any_changes() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut test = Test::new();
        for _ in 0..2000 {
            let id = random.u64(1..=test.connections.next_id.max(1));
            match random.u8(0..8) {
                0..3 => {
                    let address = format!("192.0.2.{}", random.u8(0..4));
                    let _ = test.add_from(&address, 20);
                }
                3 => {
                    test.add();
                }
                4 => {
                    let stages = [Stage::Connected, Stage::Authorizing, Stage::Publishing];
                    let stage = stages[random.usize(0..3)];
                    test.connections.set_stage(id, stage);
                }
                5 => test.connections.disconnect(id),
                6 => {
                    test.connections.evict_one();
                }
                _ => {
                    test.connections.finished(id);
                }
            }
            let mut expected: HashMap<Option<IpNet>, Neighbours> = HashMap::new();
            for (id, entry) in &test.connections.entries {
                let neighbours = expected.entry(entry.network).or_default();
                neighbours.present.insert((entry.stage, *id));
                neighbours.publishing += usize::from(entry.stage == Stage::Publishing);
            }
            for entry in test.connections.leaving.values() {
                expected.entry(entry.network).or_default().leaving += 1;
            }
            assert_eq!(test.connections.networks, expected);
        }
        test.connections.take_all();
        assert!(test.connections.networks.is_empty());
    }

    #[test]
    fn evicted_connections_are_joined_once() {
        let mut test = Test::new();
        let id = test.add();
        test.connections.disconnect(id);
        assert!(!test.connections.set_stage(id, Stage::Publishing));
        assert!(test.connections.finished(id));
        assert!(!test.connections.finished(id));
        assert_eq!(test.connections.take_finished().len(), 1);
        test.add();
        assert_eq!(test.connections.take_all().len(), 1);
    }

    #[test]
    fn relieved_threads_are_joined_after_they_have_ended() {
        let mut test = Test::new();
        let id = test.add();
        let spawn = || Ok(std::thread::spawn(|| {}));
        test.connections.continue_on(id, spawn).unwrap();
        let failed = test
            .connections
            .continue_on(id, || Err(io::Error::other("no threads")));
        assert!(failed.is_err() && test.has(id));
        while !test.connections.relieved[0].is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(test.connections.take_finished().len(), 1);
        test.connections.continue_on(id, spawn).unwrap();
        assert_eq!(test.connections.take_all().len(), 2);
        assert!(test.connections.continue_on(id, spawn).is_err());
    }
}
