// SPDX-License-Identifier: MPL-2.0

//! The publisher of a stream, as a pure state machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::config::Policy;
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};
use crate::server::stats::Arrival;

/// The one truth about who publishes on a stream.
///
/// ```text
///               accept                     leave (loss, and it may return)
///   Empty ---------------------> Active --------------------> AwaitingReturn
///     ^                           |  ^ \                        |   |    |
///     |   leave (keep listening)  |  |  +--- accept: replaced   |   |    |
///     +---------------------------+  +----------- accept -------+   |    |
///     |                           |                                 |    |
///     |                           |   time_out, cancel_return (keep listening)
///     +-------------------------------------------------------------+    |
///                                 |                                      |
///              leave, end, close  v              time_out, drain, end    |
///                               Ended <----------------------------------+
/// ```
///
/// `Empty` ends by `drain`, `end` and `close` as well. Draining is a flag beside the state: nobody
/// is accepted, and the next end is the last.
///
/// It takes no lock and reads no clock. Each input returns the changes that it caused, in order;
/// `H` is the handle of a publisher's connection, which is only passed on.
#[derive(Debug)]
pub(crate) struct Slot<H> {
    state: SlotState<H>,
    drain: Option<Drain>,
}

#[derive(Debug)]
pub(crate) enum SlotState<H> {
    Empty,
    Active(ActivePublisher<H>),
    /// The publisher's connection broke, and it may return.
    AwaitingReturn {
        publisher: Arc<Publisher>,
        reason: RemovalReason,
        since: Instant,
    },
    /// There will be no other publisher.
    Ended,
}

#[derive(Debug)]
pub(crate) struct ActivePublisher<H> {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) handle: H,
    /// It has ended its stream, and its connection is about to close. A successor need not wait for
    /// that.
    pub(crate) has_unpublished: bool,
}

/// Since when, and for how long at most, the present publisher may stay.
#[derive(Debug, Clone, Copy)]
struct Drain {
    since: Instant,
    timeout: Duration,
    /// The publisher has been disconnected for it.
    has_expired: bool,
}

/// Settings that transitions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) keep_listening: bool,
    /// Zero for no return.
    pub(crate) resume_timeout: Duration,
}

/// Signs of life of the present publisher's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// The client has closed its side, and the rest of its data is still to be read.
    Closing,
    Open {
        /// No media had arrived for `stall_timeout` when the contender asked.
        is_stalled: bool,
        /// It has sent something since the contender asked, or the wait for that is over.
        is_proven: bool,
    },
}

/// Answer to a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Accept,
    Reject(RejectReason),
    /// The present publisher's last data is still being read.
    AwaitDeparture,
    /// The present publisher may be dead, and its next byte would show that it lives.
    AwaitProof,
}

/// A transition, for [`fan_out`](fn@super::fan_out::fan_out) to carry on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change<H> {
    Started {
        publisher: Arc<Publisher>,
        arrival: Arrival,
    },
    /// The present publisher gives way to the one that starts next.
    Replaced {
        publisher: Arc<Publisher>,
        handle: H,
    },
    /// The connection broke, and the publisher may return.
    Lost {
        publisher: Arc<Publisher>,
        reason: RemovalReason,
    },
    /// The publisher that was lost is followed by the one that starts next.
    Resumed {
        publisher: Arc<Publisher>,
        reason: RemovalReason,
    },
    /// The publisher that was lost is not awaited any longer.
    NotResumed {
        publisher: Arc<Publisher>,
        is_last: bool,
    },
    /// The publisher has left for good.
    Left {
        publisher: Arc<Publisher>,
        reason: RemovalReason,
        is_last: bool,
    },
    /// The stream ends while nobody publishes.
    Ended,
    /// The publisher should connect again, elsewhere or later.
    AskedToReconnect { handle: H },
    /// The publisher has to go now. It leaves by its own thread.
    Expired { handle: H },
    /// The element stops, and its publisher with it.
    Stopped {
        publisher: Arc<Publisher>,
        handle: H,
    },
}

impl<H> Default for Slot<H> {
    fn default() -> Self {
        Slot {
            state: SlotState::Empty,
            drain: None,
        }
    }
}

impl<H: Clone> Slot<H> {
    pub(crate) fn active(&self) -> Option<&ActivePublisher<H>> {
        match &self.state {
            SlotState::Active(active) => Some(active),
            SlotState::Empty | SlotState::AwaitingReturn { .. } | SlotState::Ended => None,
        }
    }

    fn is_active(&self, client: u64) -> bool {
        self.active()
            .is_some_and(|active| active.publisher.client == client)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Returns true where the next publisher would need another stream.
    pub(crate) fn has_ended(&self, terms: &Terms) -> bool {
        match &self.state {
            SlotState::Ended => true,
            SlotState::Active(active) => active.has_unpublished && !terms.keep_listening,
            SlotState::Empty | SlotState::AwaitingReturn { .. } => false,
        }
    }

    /// Returns true while publishers may be accepted, now or later.
    pub(crate) fn is_open(&self) -> bool {
        self.drain.is_none() && !matches!(self.state, SlotState::Ended)
    }

    /// Judges a contender. `liveness` is asked only where there is a publisher to judge.
    pub(crate) fn offer(
        &self,
        terms: &Terms,
        policy: Policy,
        liveness: impl FnOnce(&ActivePublisher<H>) -> Liveness,
    ) -> Admission {
        if self.drain.is_some() {
            return Admission::Reject(RejectReason::Draining);
        }
        if self.has_ended(terms) {
            return Admission::Reject(RejectReason::Ended);
        }
        let Some(active) = self.active().filter(|active| !active.has_unpublished) else {
            return Admission::Accept;
        };
        let Liveness::Open {
            is_stalled,
            is_proven,
        } = liveness(active)
        else {
            return Admission::AwaitDeparture;
        };
        let is_replaced = match policy {
            Policy::Reject => false,
            Policy::Replace => true,
            Policy::ReplaceStalled => is_stalled,
        };
        if is_replaced {
            Admission::Accept
        } else if is_proven {
            Admission::Reject(RejectReason::Busy)
        } else {
            Admission::AwaitProof
        }
    }

    /// Makes a contender the publisher. The caller has judged it, without unlocking since.
    pub(crate) fn accept(&mut self, publisher: Arc<Publisher>, handle: H) -> Vec<Change<H>> {
        let active = ActivePublisher {
            publisher: publisher.clone(),
            handle,
            has_unpublished: false,
        };
        let before = std::mem::replace(&mut self.state, SlotState::Active(active));
        let mut changes = Vec::with_capacity(2);
        let arrival = match before {
            SlotState::Active(before) if before.has_unpublished => {
                changes.push(Change::Left {
                    publisher: before.publisher,
                    reason: RemovalReason::Unpublished,
                    is_last: false,
                });
                Arrival::New
            }
            SlotState::Active(before) => {
                changes.push(Change::Replaced {
                    publisher: before.publisher,
                    handle: before.handle,
                });
                Arrival::Replacement
            }
            SlotState::AwaitingReturn {
                publisher, reason, ..
            } => {
                changes.push(Change::Resumed { publisher, reason });
                Arrival::Return
            }
            SlotState::Empty | SlotState::Ended => Arrival::New,
        };
        changes.push(Change::Started { publisher, arrival });
        changes
    }

    /// The publisher has ended its stream, and [leaves](Slot::leave) soon.
    pub(crate) fn unpublish(&mut self, client: u64) {
        if let SlotState::Active(active) = &mut self.state
            && active.publisher.client == client
        {
            active.has_unpublished = true;
        }
    }

    /// The publisher's connection is over, or publishes something else. Others than the present
    /// publisher cause no change.
    pub(crate) fn leave(
        &mut self,
        client: u64,
        reason: RemovalReason,
        terms: &Terms,
        now: Instant,
    ) -> Vec<Change<H>> {
        if !self.is_active(client) {
            return Vec::new();
        }
        let is_last = !terms.keep_listening || self.drain.is_some();
        let SlotState::Active(active) = self.vacate(is_last) else {
            return Vec::new();
        };
        let publisher = active.publisher;
        let reason = if active.has_unpublished {
            RemovalReason::Unpublished
        } else {
            reason
        };
        let may_return = !terms.resume_timeout.is_zero() && self.drain.is_none();
        if reason.is_loss() && may_return {
            self.state = SlotState::AwaitingReturn {
                publisher: publisher.clone(),
                reason,
                since: now,
            };
            return vec![Change::Lost { publisher, reason }];
        }
        vec![Change::Left {
            publisher,
            reason,
            is_last,
        }]
    }

    /// Empties the slot, or ends it, and returns its state before.
    fn vacate(&mut self, is_last: bool) -> SlotState<H> {
        let next = if is_last {
            SlotState::Ended
        } else {
            SlotState::Empty
        };
        std::mem::replace(&mut self.state, next)
    }

    /// Stops awaiting a return.
    pub(crate) fn cancel_return(&mut self, terms: &Terms) -> Vec<Change<H>> {
        if !matches!(self.state, SlotState::AwaitingReturn { .. }) {
            return Vec::new();
        }
        let is_last = !terms.keep_listening || self.drain.is_some();
        match self.vacate(is_last) {
            SlotState::AwaitingReturn { publisher, .. } => {
                vec![Change::NotResumed { publisher, is_last }]
            }
            _ => Vec::new(),
        }
    }

    /// Returns the time at which [`Slot::time_out`] has something to do.
    pub(crate) fn deadline(&self, terms: &Terms) -> Option<Instant> {
        match (&self.state, self.drain) {
            (SlotState::AwaitingReturn { since, .. }, _) => Some(*since + terms.resume_timeout),
            (SlotState::Active(_), Some(drain)) if !drain.has_expired => {
                Some(drain.since + drain.timeout)
            }
            _ => None,
        }
    }

    /// Ends a wait whose deadline has passed.
    pub(crate) fn time_out(&mut self, terms: &Terms, now: Instant) -> Vec<Change<H>> {
        if self.deadline(terms).is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let (SlotState::Active(active), Some(drain)) = (&self.state, &mut self.drain) else {
            return self.cancel_return(terms);
        };
        drain.has_expired = true;
        vec![Change::Expired {
            handle: active.handle.clone(),
        }]
    }

    /// Accepts nobody from now on. The present publisher may stay for `timeout`, counted from the
    /// first call, and the stream ends with it.
    pub(crate) fn drain(&mut self, timeout: Duration, now: Instant) -> Vec<Change<H>> {
        if let Some(drain) = &mut self.drain {
            drain.timeout = timeout;
            return Vec::new();
        }
        self.drain = Some(Drain {
            since: now,
            timeout,
            has_expired: false,
        });
        if let SlotState::Active(active) = &self.state {
            return vec![Change::AskedToReconnect {
                handle: active.handle.clone(),
            }];
        }
        self.end_vacant()
    }

    /// Accepts publishers again, unless the stream has ended.
    pub(crate) fn stop_draining(&mut self) {
        self.drain = None;
    }

    /// Ends the stream. Where there is a publisher, [`Slot::leave`] it first.
    pub(crate) fn end_vacant(&mut self) -> Vec<Change<H>> {
        match self.vacate(true) {
            SlotState::Empty => vec![Change::Ended],
            SlotState::AwaitingReturn { publisher, .. } => vec![Change::NotResumed {
                publisher,
                is_last: true,
            }],
            active @ SlotState::Active(_) => {
                self.state = active;
                Vec::new()
            }
            SlotState::Ended => Vec::new(),
        }
    }

    /// The element stops.
    pub(crate) fn close(&mut self) -> Vec<Change<H>> {
        match self.vacate(true) {
            SlotState::Active(active) => vec![Change::Stopped {
                publisher: active.publisher,
                handle: active.handle,
            }],
            SlotState::Empty | SlotState::AwaitingReturn { .. } | SlotState::Ended => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
