// SPDX-License-Identifier: MPL-2.0

//! Decides when to connect to which location. Events and times go in, actions come out: no sockets,
//! no threads, no clock.
//!
//! ```text
//!             start            opened                    lost, failed
//!   IDLE ------------> TRYING --------> SENDING ---------------------------+
//!                      ^  ^ | failed: the next location at once            |
//!                      |  +-+----------------------------------------------+
//!     the delay is over|    | the last location failed: the round is over
//!                      |    v
//!                      WAITING ----> GIVEN UP after max_rounds
//! ```
//!
//! While a location other than the first is in use, the first may be tried in parallel: the stream
//! moves there only after it has accepted the connection (failback).

use std::time::{Duration, Instant};

/// Duration after which a connection counts as stable, so that its loss begins a new outage.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryPolicy {
    /// Number of locations.
    pub(super) locations: usize,
    /// Delay between two rounds, doubled each time up to `max_delay`.
    pub(super) initial_delay: Duration,
    pub(super) max_delay: Duration,
    /// Number of rounds, zero for no limit.
    pub(super) max_rounds: u32,
    /// Interval between attempts to return to the first location, zero for never.
    pub(super) return_to_primary: Duration,
    /// Time limit for a server to accept the stream.
    pub(super) connect_timeout: Duration,
    /// Time limit for a server that accepts no data.
    pub(super) send_timeout: Duration,
}

/// Identifies a connection attempt and the connection that results. Increases with each attempt.
pub(super) type AttemptId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionAction {
    Open {
        id: AttemptId,
        location: usize,
    },
    Close {
        id: AttemptId,
    },
    /// Makes this connection the sender; there is no other.
    Send {
        id: AttemptId,
    },
    /// Makes this connection replace the sender at the end of a group of pictures.
    TakeOver {
        id: AttemptId,
    },
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScheduleState {
    Idle,
    Trying { location: usize },
    Waiting,
    Sending { location: usize },
    GivenUp,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    id: AttemptId,
    location: usize,
    deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Trying(Attempt),
    Waiting { until: Instant },
    Sending(Sending),
    GivenUp,
}

#[derive(Debug)]
struct Sending {
    id: AttemptId,
    location: usize,
    since: Instant,
    /// Time of the next check that the server still accepts data.
    check_at: Instant,
    /// Time of the next attempt to return to the first location.
    failback_at: Option<Instant>,
    failback: Option<Failback>,
    /// The first location accepted the connection, but was lost before the stream had moved there.
    has_lost_primary: bool,
}

#[derive(Debug, Clone, Copy)]
struct Failback {
    attempt: Attempt,
    /// The server has accepted the connection.
    is_open: bool,
}

#[derive(Debug)]
pub(super) struct Schedule {
    policy: RetryPolicy,
    phase: Phase,
    last_id: AttemptId,
    rounds: u32,
    delay: Duration,
    /// The first location was tried in this round, or was in use before it.
    includes_primary: bool,
}

impl Sending {
    /// True if the loss of this connection begins a new outage.
    fn was_stable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STABLE_AFTER
    }

    fn is_failback(&self, id: AttemptId) -> bool {
        self.failback
            .is_some_and(|failback| failback.attempt.id == id)
    }
}

impl Schedule {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Schedule {
            policy,
            phase: Phase::Idle,
            last_id: 0,
            rounds: 0,
            delay: policy.initial_delay,
            includes_primary: true,
        }
    }

    pub(super) fn state(&self) -> ScheduleState {
        match &self.phase {
            Phase::Idle => ScheduleState::Idle,
            Phase::Trying(attempt) => ScheduleState::Trying {
                location: attempt.location,
            },
            Phase::Waiting { .. } => ScheduleState::Waiting,
            Phase::Sending(sending) => ScheduleState::Sending {
                location: sending.location,
            },
            Phase::GivenUp => ScheduleState::GivenUp,
        }
    }

    /// Number of failed rounds in this outage.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Time of the next call of [`Schedule::tick`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::GivenUp => None,
            Phase::Trying(attempt) => Some(attempt.deadline),
            Phase::Waiting { until } => Some(*until),
            Phase::Sending(sending) => {
                let failback = sending.failback.filter(|failback| !failback.is_open);
                let failback = failback.map(|failback| failback.attempt.deadline);
                let times = [Some(sending.check_at), sending.failback_at, failback];
                times.into_iter().flatten().min()
            }
        }
    }

    pub(super) fn start(&mut self, now: Instant) -> Vec<ConnectionAction> {
        let mut actions = Vec::new();
        self.try_location(0, now, &mut actions);
        actions
    }

    /// Handles a server's acceptance of a connection.
    pub(super) fn opened(&mut self, id: AttemptId, now: Instant) -> Vec<ConnectionAction> {
        match &mut self.phase {
            Phase::Trying(attempt) if attempt.id == id => {
                let location = attempt.location;
                self.phase = self.sending(id, location, now);
                vec![ConnectionAction::Send { id }]
            }
            Phase::Sending(sending) if sending.is_failback(id) => {
                if let Some(failback) = &mut sending.failback {
                    failback.is_open = true;
                }
                vec![ConnectionAction::TakeOver { id }]
            }
            _ => Vec::new(),
        }
    }

    /// Handles a connection that has sent everything that it was to send, because another one took
    /// over or because the stream ended. `stream_has_ended` is false if upstream continues after
    /// all.
    pub(super) fn finished(
        &mut self,
        id: AttemptId,
        stream_has_ended: bool,
        now: Instant,
    ) -> Vec<ConnectionAction> {
        let mut actions = vec![ConnectionAction::Close { id }];
        let sending = match &mut self.phase {
            Phase::Sending(sending) if sending.id == id => sending,
            Phase::Sending(sending) if sending.is_failback(id) => {
                // At the end of the stream it may finish before its predecessor.
                sending.failback = None;
                return actions;
            }
            _ => return Vec::new(),
        };
        let (failback, has_lost_primary) = (sending.failback, sending.has_lost_primary);
        if sending.was_stable(now) {
            self.end_outage(true);
        }
        match failback {
            Some(failback) if failback.is_open => {
                self.phase = self.sending(failback.attempt.id, 0, now);
            }
            // The stream now waits for this attempt.
            Some(failback) if !stream_has_ended => self.phase = Phase::Trying(failback.attempt),
            Some(failback) => {
                self.phase = Phase::Idle;
                let id = failback.attempt.id;
                actions.push(ConnectionAction::Close { id });
            }
            None if stream_has_ended => self.phase = Phase::Idle,
            // The connection that took over was lost meanwhile.
            None if has_lost_primary => self.try_after(0, now, &mut actions),
            // Upstream continues after all.
            None => self.try_location(0, now, &mut actions),
        }
        actions
    }

    /// Handles a connection that was rejected or lost.
    pub(super) fn failed(&mut self, id: AttemptId, now: Instant) -> Vec<ConnectionAction> {
        let mut actions = vec![ConnectionAction::Close { id }];
        match &mut self.phase {
            Phase::Trying(attempt) if attempt.id == id => {
                let location = attempt.location;
                self.try_after(location, now, &mut actions);
            }
            Phase::Sending(sending) if sending.id == id => {
                let location = sending.location;
                let failback = sending.failback.take();
                if sending.was_stable(now) {
                    self.end_outage(location == 0 || failback.is_some());
                }
                match failback {
                    Some(failback) if failback.is_open => {
                        let id = failback.attempt.id;
                        self.phase = self.sending(id, 0, now);
                        actions.push(ConnectionAction::Send { id });
                    }
                    // The stream now waits for this attempt.
                    Some(failback) => self.phase = Phase::Trying(failback.attempt),
                    None => self.try_after(location, now, &mut actions),
                }
            }
            Phase::Sending(sending) if sending.is_failback(id) => {
                sending.has_lost_primary |=
                    sending.failback.is_some_and(|failback| failback.is_open);
                sending.failback = None;
                sending.failback_at = Some(now + self.policy.return_to_primary);
            }
            _ => actions.clear(),
        }
        actions
    }

    /// Handles deadlines that have passed. `busy_since` is the time at which the sender began to
    /// push the tag that it is still pushing.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        busy_since: Option<Instant>,
    ) -> Vec<ConnectionAction> {
        let timeout = self.policy.send_timeout;
        match &mut self.phase {
            Phase::Trying(attempt) if attempt.deadline <= now => {
                let id = attempt.id;
                self.failed(id, now)
            }
            Phase::Waiting { until } if *until <= now => self.start(now),
            Phase::Sending(sending) => {
                if busy_since.is_some_and(|since| since + timeout <= now) {
                    let id = sending.id;
                    return self.failed(id, now);
                }
                if sending.check_at <= now {
                    sending.check_at = busy_since.unwrap_or(now) + timeout;
                }
                if let Some(Failback { attempt, is_open }) = sending.failback
                    && !is_open
                    && attempt.deadline <= now
                {
                    return self.failed(attempt.id, now);
                }
                if sending.failback_at.is_some_and(|at| at <= now) {
                    return self.start_failback(now);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Resets the round count after a stable connection.
    fn end_outage(&mut self, includes_primary: bool) {
        self.rounds = 0;
        self.delay = self.policy.initial_delay;
        self.includes_primary = includes_primary;
    }

    fn sending(&self, id: AttemptId, location: usize, now: Instant) -> Phase {
        let after = self.policy.return_to_primary;
        Phase::Sending(Sending {
            id,
            location,
            since: now,
            check_at: now + self.policy.send_timeout,
            failback_at: (location > 0 && !after.is_zero()).then(|| now + after),
            failback: None,
            has_lost_primary: false,
        })
    }

    fn attempt(&mut self, location: usize, now: Instant) -> Attempt {
        self.last_id += 1;
        self.includes_primary |= location == 0;
        Attempt {
            id: self.last_id,
            location,
            deadline: now + self.policy.connect_timeout,
        }
    }

    fn try_location(&mut self, location: usize, now: Instant, actions: &mut Vec<ConnectionAction>) {
        let attempt = self.attempt(location, now);
        let id = attempt.id;
        self.phase = Phase::Trying(attempt);
        actions.push(ConnectionAction::Open { id, location });
    }

    fn start_failback(&mut self, now: Instant) -> Vec<ConnectionAction> {
        let attempt = self.attempt(0, now);
        if let Phase::Sending(sending) = &mut self.phase {
            sending.failback_at = None;
            sending.failback = Some(Failback {
                attempt,
                is_open: false,
            });
        }
        vec![ConnectionAction::Open {
            id: attempt.id,
            location: 0,
        }]
    }

    /// Tries the location after a failed one, or waits for the next round.
    fn try_after(&mut self, location: usize, now: Instant, actions: &mut Vec<ConnectionAction>) {
        if location + 1 < self.policy.locations {
            return self.try_location(location + 1, now, actions);
        }
        // The loss of a location after a long time says nothing about those before it.
        if self.includes_primary {
            self.rounds = self.rounds.saturating_add(1);
        }
        if self.policy.max_rounds > 0 && self.rounds >= self.policy.max_rounds {
            self.phase = Phase::GivenUp;
            actions.push(ConnectionAction::GiveUp);
            return;
        }
        let until = now + self.delay;
        self.delay = self.delay.saturating_mul(2).min(self.policy.max_delay);
        self.phase = Phase::Waiting { until };
    }
}

#[cfg(test)]
mod tests;
