// SPDX-License-Identifier: MPL-2.0

//! The clients of a listener: how many there may be, and who goes when there are too many.
//!
//! Connections are cheap to open, so a flood of them must not keep a publisher out: the newcomer
//! gets in, and the oldest of those that do not publish goes. It is taken from the network that
//! has the most of them, so that a flood pushes out itself.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::{IpNet, Ipv6Net};

/// How far a client has got. Those that are further go later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Connected,
    /// It wants to publish, and the application has not decided yet.
    Authorizing,
    Publishing,
}

#[derive(Debug)]
struct Entry {
    socket: Arc<TcpStream>,
    thread: JoinHandle<()>,
    standing: Stage,
    /// Where it comes from; unknown as long as a load balancer has not said it.
    network: Option<IpNet>,
}

/// Why a client can't be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("there are {0} clients that can't make room, which is max-clients")]
    Clients(usize),
    #[error("its address has {0} clients that can't make room, which is max-clients-per-address")]
    Address(usize),
}

#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    members: HashMap<u64, Entry>,
    /// Cut off, and not at their end yet: a handler of the application may hold them up.
    leaving: HashMap<u64, Entry>,
    /// At their end, to be joined.
    finished: Vec<JoinHandle<()>>,
    next_id: u64,
}

impl ConnectionTable {
    /// Ids go up, so a lower one is an older client.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Makes room for one more. Threads of those that had to go may take a moment to end, if
    /// the application is deciding about them: there may be as many of them again.
    pub(crate) fn reserve(&mut self, max_clients: usize) -> Result<(), Full> {
        let count = self.members.len();
        if count + self.leaving.len() >= 2 * max_clients {
            return Err(Full::Clients(max_clients));
        }
        if count < max_clients || self.evict_one() {
            return Ok(());
        }
        Err(Full::Clients(max_clients))
    }

    /// Cuts off who is the least worth keeping, if there is anybody.
    pub(crate) fn evict_one(&mut self) -> bool {
        let candidates = || self.members.iter().filter(|(_, m)| m.is_dispensable());
        let mut by_network: HashMap<Option<IpNet>, usize> = HashMap::new();
        for (_, member) in candidates() {
            *by_network.entry(member.network).or_default() += 1;
        }
        let most = by_network.values().max().copied().unwrap_or_default();
        let oldest = candidates()
            .filter(|(_, member)| by_network.get(&member.network) == Some(&most))
            .min_by_key(|(id, member)| (member.standing, **id))
            .map(|(id, _)| *id);
        oldest.inspect(|id| self.disconnect(*id)).is_some()
    }

    /// Makes room for one more from this address.
    pub(crate) fn reserve_for(&mut self, address: IpAddr, max: usize) -> Result<(), Full> {
        let network = Some(network(address));
        let neighbours = || self.members.iter().filter(|(_, m)| m.network == network);
        let leaving = self.leaving.values().filter(|m| m.network == network);
        let count = neighbours().count();
        if count + leaving.count() >= 2 * max {
            return Err(Full::Address(max));
        }
        if count >= max {
            let oldest = neighbours()
                .filter(|(_, member)| member.is_dispensable())
                .min_by_key(|(id, member)| (member.standing, **id));
            let oldest = oldest.map(|(id, _)| *id);
            self.disconnect(oldest.ok_or(Full::Address(max))?);
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, id: u64, socket: Arc<TcpStream>, thread: JoinHandle<()>) {
        let member = Entry {
            socket,
            thread,
            standing: Stage::Connected,
            network: None,
        };
        self.members.insert(id, member);
    }

    /// Says where a client comes from, after room was made for it.
    pub(crate) fn set_address(&mut self, id: u64, address: IpAddr) {
        if let Some(member) = self.members.get_mut(&id) {
            member.network = Some(network(address));
        }
    }

    /// False if it has been cut off meanwhile.
    pub(crate) fn set_stage(&mut self, id: u64, standing: Stage) -> bool {
        match self.members.get_mut(&id) {
            Some(member) => {
                member.standing = standing;
                true
            }
            None => false,
        }
    }

    /// Ends the connection of a client, whose thread ends soon.
    pub(crate) fn disconnect(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            let _ = member.socket.shutdown(Shutdown::Both);
            self.leaving.insert(id, member);
        }
    }

    /// A thread is at its end. False if whoever stops it has taken its handle out, and joins it.
    pub(crate) fn finished(&mut self, id: u64) -> bool {
        let thread = self.take(id);
        let is_listed = thread.is_some();
        self.finished.extend(thread);
        is_listed
    }

    pub(crate) fn take_finished(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.finished)
    }

    /// The thread of a client that has been told to end, for the caller to join.
    pub(crate) fn take(&mut self, id: u64) -> Option<JoinHandle<()>> {
        let member = self.members.remove(&id);
        let member = member.or_else(|| self.leaving.remove(&id));
        member.map(|member| member.thread)
    }

    /// Ends all connections, and gives all threads to be joined. Those that are in a handler of the
    /// application end by themselves when that returns: it may wait for the caller.
    pub(crate) fn take_all(&mut self) -> Vec<JoinHandle<()>> {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        ids.into_iter().for_each(|id| self.disconnect(id));
        let leaving = self.leaving.drain().map(|(_, member)| member);
        let in_handler = |member: &Entry| member.standing == Stage::Authorizing;
        let leaving = leaving.filter(|member| !in_handler(member));
        let threads = leaving.map(|member| member.thread);
        threads.chain(self.finished.drain(..)).collect()
    }
}

impl Entry {
    fn is_dispensable(&self) -> bool {
        self.standing < Stage::Publishing
    }
}

/// What counts as one address: who has one IPv6 address has all of its network.
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

        fn add_from(&mut self, address: &str, max: usize) -> Result<u64, Full> {
            let address = address.parse().unwrap();
            self.connections.reserve_for(address, max)?;
            let id = self.add();
            self.connections.set_address(id, address);
            Ok(id)
        }

        fn has(&self, id: u64) -> bool {
            self.connections.members.contains_key(&id)
        }
    }

    #[test]
    fn the_oldest_that_does_not_publish_goes() {
        let mut test = Test::new();
        let ids: Vec<u64> = (0..4).map(|_| test.add()).collect();
        test.connections.set_stage(ids[0], Stage::Publishing);
        test.connections.set_stage(ids[1], Stage::Authorizing);
        for gone in [ids[2], ids[3], ids[1]] {
            let count = test.connections.members.len();
            test.connections.reserve(count).unwrap();
            assert!(!test.has(gone));
            assert!(test.connections.finished(gone));
        }
        assert_eq!(test.connections.reserve(1), Err(Full::Clients(1)));
        assert_eq!(test.connections.reserve(2), Ok(()));
        assert!(test.has(ids[0]));
    }

    #[test]
    fn a_flood_from_one_network_pushes_out_itself() {
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
    fn an_address_that_is_full_of_publishers_gets_no_more() {
        let mut test = Test::new();
        let first = test.add_from("192.0.2.1", 2).unwrap();
        let second = test.add_from("192.0.2.1", 2).unwrap();
        let third = test.add_from("192.0.2.1", 2).unwrap();
        assert!(!test.has(first) && test.has(second) && test.has(third));
        for id in [second, third] {
            test.connections.set_stage(id, Stage::Publishing);
        }
        assert_eq!(test.add_from("192.0.2.1", 2), Err(Full::Address(2)));
        assert!(test.add_from("192.0.2.2", 2).is_ok());
        assert!(test.has(second) && test.has(third));
    }

    #[test]
    fn who_was_cut_off_is_joined_once() {
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
}
