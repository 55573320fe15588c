// SPDX-License-Identifier: MPL-2.0

//! What an element is told of its publishers, and in which order.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::publisher::{Publisher, Refusal, Removal};

/// What has happened.
#[derive(Debug, Clone)]
pub enum Notice {
    Added(Arc<Publisher>),
    Removed(Arc<Publisher>, Removal),
    Rejected(Arc<Publisher>, Refusal),
}

/// Whoever wants to know. Called on the threads of clients, never under a lock, so it may take its
/// time: that holds up the one client that it is about.
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Decides whether a client may publish.
    fn may_publish(&self, publisher: &Publisher) -> bool;

    /// One at a time, in the order in which things happened.
    fn notify(&self, notice: &Notice);
}

/// More than this are not kept for an observer that does not keep up.
const MAX_WAITING: usize = 256;

/// Brings notices from many threads into one order, and delivers them under no lock: the thread
/// that finds nobody delivering does it, also for those that come meanwhile.
#[derive(Debug, Default)]
pub(super) struct Notices {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Notice>,
    delivering: bool,
}

impl Notices {
    /// Fixes the place of a notice in the order; call it under the lock that makes the order, and
    /// [`Notices::deliver`] after that.
    pub(super) fn post(&self, notice: Notice) {
        let mut state = self.state.lock();
        // Refusals can be had for nothing. Publishers are kept out while there are too many.
        let is_refusal = matches!(notice, Notice::Rejected(..));
        if !is_refusal || state.waiting.len() < MAX_WAITING {
            state.waiting.push_back(notice);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.state.lock().waiting.len() >= MAX_WAITING
    }

    pub(super) fn deliver(&self, observer: &dyn Observer) {
        let mut state = self.state.lock();
        if state.delivering {
            return;
        }
        state.delivering = true;
        while let Some(notice) = state.waiting.pop_front() {
            drop(state);
            observer.notify(&notice);
            state = self.state.lock();
        }
        state.delivering = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Instant;

    use super::*;

    pub(super) fn publisher(client: u64) -> Arc<Publisher> {
        Arc::new(Publisher {
            client,
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1),
            application: "live".into(),
            stream_key: "key".into(),
            query: String::new(),
            tc_url: String::new(),
            flash_ver: String::new(),
            tls: false,
            variables: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Posts another notice from within each, as a handler that disconnects does.
    #[derive(Debug, Default)]
    struct Chain {
        notices: Notices,
        seen: Mutex<Vec<u64>>,
    }

    impl Observer for Chain {
        fn may_publish(&self, _publisher: &Publisher) -> bool {
            true
        }

        fn notify(&self, notice: &Notice) {
            let Notice::Added(publisher) = notice else {
                panic!("{notice:?}")
            };
            if publisher.client < 5 {
                let next = Notice::Added(self::publisher(publisher.client + 1));
                self.notices.post(next);
                self.notices.deliver(self);
            }
            self.seen.lock().push(publisher.client);
        }
    }

    #[test]
    fn notices_come_one_at_a_time_and_in_order() {
        let chain = Chain::default();
        chain.notices.post(Notice::Added(publisher(1)));
        chain.notices.deliver(&chain);
        assert_eq!(*chain.seen.lock(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn refusals_do_not_pile_up() {
        let notices = Notices::default();
        for _ in 0..2 * MAX_WAITING {
            notices.post(Notice::Rejected(publisher(1), Refusal::Busy));
        }
        assert_eq!(notices.state.lock().waiting.len(), MAX_WAITING);
        assert!(notices.is_full());
        notices.post(Notice::Removed(publisher(1), Removal::Closed));
        assert_eq!(notices.state.lock().waiting.len(), MAX_WAITING + 1);
    }
}
