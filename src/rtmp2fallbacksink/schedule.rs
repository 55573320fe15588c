// SPDX-License-Identifier: MPL-2.0

//! When to connect where. Times are passed in, and what is to be done comes out: no sockets, no
//! threads, no clock.
//!
//! ```text
//!             start            opened                    lost, failed
//!   IDLE ------------> TRYING --------> SENDING ---------------------------+
//!                      ^  ^ | failed: the next location at once            |
//!                      |  +-+----------------------------------------------+
//!     the delay is over|    | failed, and that was the last location: a round is over
//!                      |    v
//!                      WAITING ----> GIVEN UP after so many rounds
//! ```
//!
//! While it sends to another location than the first one, it may try that beside it: only when that
//! has taken the connection does the stream move there.

use std::time::{Duration, Instant};

/// A connection that has held for this long was a good one: what follows is a new outage.
pub(super) const GOOD: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) locations: usize,
    /// Between two rounds: doubled each time up to the maximum.
    pub(super) initial_delay: Duration,
    pub(super) max_delay: Duration,
    /// Zero for no end.
    pub(super) max_rounds: u32,
    /// Zero for never.
    pub(super) return_to_primary: Duration,
    /// How long a connection may take, and how long a server may take nothing.
    pub(super) timeout: Duration,
}

/// One attempt to connect, and the connection that comes of it. They count up.
pub(super) type Id = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Open {
        id: Id,
        location: usize,
    },
    Close {
        id: Id,
    },
    /// This one sends from now on, since nobody else does.
    Send {
        id: Id,
    },
    /// This one takes over from the one that sends, where a group of pictures ends.
    TakeOver {
        id: Id,
    },
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Trying { location: usize },
    Waiting,
    Sending { location: usize },
    GivenUp,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    id: Id,
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
    id: Id,
    location: usize,
    since: Instant,
    /// When to see whether the server still takes something.
    look_at: Instant,
    /// When to try the first location again.
    return_at: Option<Instant>,
    returning: Option<Failback>,
    /// The first location took the connection, and was lost before the stream had moved there.
    has_lost_first: bool,
}

#[derive(Debug, Clone, Copy)]
struct Failback {
    attempt: Attempt,
    /// It takes over where a group of pictures ends.
    is_open: bool,
}

#[derive(Debug)]
pub(super) struct Schedule {
    config: Config,
    phase: Phase,
    last_id: Id,
    rounds: u32,
    delay: Duration,
    /// The first location was tried in this round, or was in use before it.
    is_whole: bool,
}

impl Sending {
    /// What comes after it is a new outage.
    fn was_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= GOOD
    }

    fn is_returning(&self, id: Id) -> bool {
        self.returning.is_some_and(|r| r.attempt.id == id)
    }
}

impl Schedule {
    pub(super) fn new(config: Config) -> Self {
        Schedule {
            config,
            phase: Phase::Idle,
            last_id: 0,
            rounds: 0,
            delay: config.initial_delay,
            is_whole: true,
        }
    }

    pub(super) fn state(&self) -> State {
        match &self.phase {
            Phase::Idle => State::Idle,
            Phase::Trying(attempt) => State::Trying {
                location: attempt.location,
            },
            Phase::Waiting { .. } => State::Waiting,
            Phase::Sending(sending) => State::Sending {
                location: sending.location,
            },
            Phase::GivenUp => State::GivenUp,
        }
    }

    /// Rounds through all locations that have failed in this outage.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// When to call [`Schedule::tick`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::GivenUp => None,
            Phase::Trying(attempt) => Some(attempt.deadline),
            Phase::Waiting { until } => Some(*until),
            Phase::Sending(sending) => {
                let returning = sending.returning.filter(|returning| !returning.is_open);
                let returning = returning.map(|returning| returning.attempt.deadline);
                let times = [Some(sending.look_at), sending.return_at, returning];
                times.into_iter().flatten().min()
            }
        }
    }

    pub(super) fn start(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.try_location(0, now, &mut actions);
        actions
    }

    /// A server has accepted the connection.
    pub(super) fn opened(&mut self, id: Id, now: Instant) -> Vec<Action> {
        match &mut self.phase {
            Phase::Trying(attempt) if attempt.id == id => {
                let location = attempt.location;
                self.phase = self.sending(id, location, now);
                vec![Action::Send { id }]
            }
            Phase::Sending(sending) if sending.is_returning(id) => {
                if let Some(returning) = &mut sending.returning {
                    returning.is_open = true;
                }
                vec![Action::TakeOver { id }]
            }
            _ => Vec::new(),
        }
    }

    /// A connection has sent all that it was to send: it was taken over from, or the stream has ended.
    /// `is_over` says that the latter is still so.
    pub(super) fn finished(&mut self, id: Id, is_over: bool, now: Instant) -> Vec<Action> {
        let mut actions = vec![Action::Close { id }];
        let sending = match &mut self.phase {
            Phase::Sending(sending) if sending.id == id => sending,
            Phase::Sending(sending) if sending.is_returning(id) => {
                // At the end it may be done before the one that it took over from.
                sending.returning = None;
                return actions;
            }
            _ => return Vec::new(),
        };
        let (returning, has_lost_first) = (sending.returning, sending.has_lost_first);
        if sending.was_good(now) {
            self.end_outage(true);
        }
        match returning {
            Some(returning) if returning.is_open => {
                self.phase = self.sending(returning.attempt.id, 0, now);
            }
            // It is the one to wait for now.
            Some(returning) if !is_over => self.phase = Phase::Trying(returning.attempt),
            Some(returning) => {
                self.phase = Phase::Idle;
                let id = returning.attempt.id;
                actions.push(Action::Close { id });
            }
            None if is_over => self.phase = Phase::Idle,
            // Who took over was lost meanwhile.
            None if has_lost_first => self.go_on_after(0, now, &mut actions),
            // There is more after all.
            None => self.try_location(0, now, &mut actions),
        }
        actions
    }

    /// A connection was refused or lost.
    pub(super) fn failed(&mut self, id: Id, now: Instant) -> Vec<Action> {
        let mut actions = vec![Action::Close { id }];
        match &mut self.phase {
            Phase::Trying(attempt) if attempt.id == id => {
                let location = attempt.location;
                self.go_on_after(location, now, &mut actions);
            }
            Phase::Sending(sending) if sending.id == id => {
                let location = sending.location;
                let returning = sending.returning.take();
                if sending.was_good(now) {
                    self.end_outage(location == 0 || returning.is_some());
                }
                match returning {
                    Some(returning) if returning.is_open => {
                        let id = returning.attempt.id;
                        self.phase = self.sending(id, 0, now);
                        actions.push(Action::Send { id });
                    }
                    // It is the one to wait for now.
                    Some(returning) => self.phase = Phase::Trying(returning.attempt),
                    None => self.go_on_after(location, now, &mut actions),
                }
            }
            Phase::Sending(sending) if sending.is_returning(id) => {
                sending.has_lost_first |= sending.returning.is_some_and(|r| r.is_open);
                sending.returning = None;
                sending.return_at = Some(now + self.config.return_to_primary);
            }
            _ => actions.clear(),
        }
        actions
    }

    /// A deadline may have passed. `busy_since` is when the one that sends began to hand over what it
    /// is still handing over.
    pub(super) fn tick(&mut self, now: Instant, busy_since: Option<Instant>) -> Vec<Action> {
        let timeout = self.config.timeout;
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
                if sending.look_at <= now {
                    sending.look_at = busy_since.unwrap_or(now) + timeout;
                }
                if let Some(Failback { attempt, is_open }) = sending.returning
                    && !is_open
                    && attempt.deadline <= now
                {
                    return self.failed(attempt.id, now);
                }
                if sending.return_at.is_some_and(|at| at <= now) {
                    return self.try_to_return(now);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// There was a connection that held, so the count starts anew.
    fn end_outage(&mut self, is_whole: bool) {
        self.rounds = 0;
        self.delay = self.config.initial_delay;
        self.is_whole = is_whole;
    }

    fn sending(&self, id: Id, location: usize, now: Instant) -> Phase {
        let after = self.config.return_to_primary;
        Phase::Sending(Sending {
            id,
            location,
            since: now,
            look_at: now + self.config.timeout,
            return_at: (location > 0 && !after.is_zero()).then(|| now + after),
            returning: None,
            has_lost_first: false,
        })
    }

    fn attempt(&mut self, location: usize, now: Instant) -> Attempt {
        self.last_id += 1;
        self.is_whole |= location == 0;
        Attempt {
            id: self.last_id,
            location,
            deadline: now + self.config.timeout,
        }
    }

    fn try_location(&mut self, location: usize, now: Instant, actions: &mut Vec<Action>) {
        let attempt = self.attempt(location, now);
        let id = attempt.id;
        self.phase = Phase::Trying(attempt);
        actions.push(Action::Open { id, location });
    }

    fn try_to_return(&mut self, now: Instant) -> Vec<Action> {
        let attempt = self.attempt(0, now);
        if let Phase::Sending(sending) = &mut self.phase {
            sending.return_at = None;
            sending.returning = Some(Failback {
                attempt,
                is_open: false,
            });
        }
        vec![Action::Open {
            id: attempt.id,
            location: 0,
        }]
    }

    fn go_on_after(&mut self, location: usize, now: Instant, actions: &mut Vec<Action>) {
        if location + 1 < self.config.locations {
            return self.try_location(location + 1, now, actions);
        }
        // Who was in use for long and failed says nothing about those before it.
        if self.is_whole {
            self.rounds = self.rounds.saturating_add(1);
        }
        if self.config.max_rounds > 0 && self.rounds >= self.config.max_rounds {
            self.phase = Phase::GivenUp;
            actions.push(Action::GiveUp);
            return;
        }
        let until = now + self.delay;
        self.delay = self.delay.saturating_mul(2).min(self.config.max_delay);
        self.phase = Phase::Waiting { until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Close, GiveUp, Open, Send, TakeOver};

    const SECOND: Duration = Duration::from_secs(1);

    struct Test {
        schedule: Schedule,
        start: Instant,
    }

    impl Test {
        fn new(locations: usize) -> Self {
            let config = Config {
                locations,
                initial_delay: SECOND,
                max_delay: 60 * SECOND,
                max_rounds: 10,
                return_to_primary: 30 * SECOND,
                timeout: 5 * SECOND,
            };
            Self::with(config)
        }

        fn with(config: Config) -> Self {
            Test {
                schedule: Schedule::new(config),
                start: Instant::now(),
            }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn deadline(&self) -> Option<u64> {
            let deadline = self.schedule.deadline()?;
            Some((deadline - self.start).as_millis() as u64)
        }

        fn start(&mut self, millis: u64) -> Vec<Action> {
            self.schedule.start(self.at(millis))
        }

        fn opened(&mut self, id: Id, millis: u64) -> Vec<Action> {
            self.schedule.opened(id, self.at(millis))
        }

        fn failed(&mut self, id: Id, millis: u64) -> Vec<Action> {
            self.schedule.failed(id, self.at(millis))
        }

        fn finished(&mut self, id: Id, millis: u64) -> Vec<Action> {
            self.schedule.finished(id, false, self.at(millis))
        }

        fn ended(&mut self, id: Id, millis: u64) -> Vec<Action> {
            self.schedule.finished(id, true, self.at(millis))
        }

        fn tick(&mut self, millis: u64) -> Vec<Action> {
            self.schedule.tick(self.at(millis), None)
        }

        fn tick_busy(&mut self, millis: u64, since: u64) -> Vec<Action> {
            self.schedule.tick(self.at(millis), Some(self.at(since)))
        }
    }

    fn open(id: Id, location: usize) -> Action {
        Open { id, location }
    }

    #[test]
    fn the_next_is_tried_at_once_and_a_round_is_followed_by_a_delay_that_doubles() {
        let mut test = Test::new(2);
        assert_eq!(test.start(0), [open(1, 0)]);
        let (mut id, mut now, mut delays) = (1, 0, Vec::new());
        loop {
            assert_eq!(test.failed(id, now), [Close { id }, open(id + 1, 1)]);
            let last = test.failed(id + 1, now);
            if last.contains(&GiveUp) {
                assert_eq!(last, [Close { id: id + 1 }, GiveUp]);
                break;
            }
            assert_eq!(last, [Close { id: id + 1 }]);
            let until = test.deadline().unwrap();
            assert_eq!(test.tick(until - 1), []);
            delays.push((until - now) / 1000);
            (id, now) = (id + 2, until);
            assert_eq!(test.tick(until), [open(id, 0)]);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(test.schedule.rounds(), 10);
        assert_eq!(
            (test.schedule.state(), test.deadline()),
            (State::GivenUp, None)
        );
        assert_eq!(test.tick(u64::from(u32::MAX)), []);
    }

    #[test]
    fn without_a_limit_it_never_ends() {
        let mut config = Test::new(1).schedule.config;
        config.max_rounds = 0;
        let mut test = Test::with(config);
        test.start(0);
        for id in 1..1000 {
            let now = test.deadline().unwrap() - 5000;
            assert_eq!(test.failed(id, now), [Close { id }]);
            let until = test.deadline().unwrap();
            assert_eq!(test.tick(until), [open(id + 1, 0)]);
        }
    }

    #[test]
    fn who_does_not_answer_in_time_has_failed() {
        let mut test = Test::new(2);
        test.start(0);
        assert_eq!(test.deadline(), Some(5000));
        assert_eq!(test.tick(4999), []);
        assert_eq!(test.tick(5000), [Close { id: 1 }, open(2, 1)]);
        // It is too late now.
        assert_eq!(test.opened(1, 5001), []);
        assert_eq!(test.failed(1, 5001), []);
        assert_eq!(test.opened(2, 5002), [Send { id: 2 }]);
        assert_eq!(test.schedule.state(), State::Sending { location: 1 });
    }

    #[test]
    fn a_connection_that_held_starts_the_count_anew_and_one_that_did_not_goes_on() {
        let mut test = Test::new(1);
        test.start(0);
        test.failed(1, 0);
        assert_eq!(test.deadline(), Some(1000));
        test.tick(1000);
        test.opened(2, 1000);
        test.failed(2, 1000 + 9_999);
        assert_eq!(
            (test.schedule.rounds(), test.deadline()),
            (2, Some(10_999 + 2000))
        );
        test.tick(12_999);
        test.opened(3, 13_000);
        test.failed(3, 23_000);
        assert_eq!((test.schedule.rounds(), test.deadline()), (1, Some(24_000)));
    }

    #[test]
    fn a_round_counts_only_if_the_first_location_was_in_it() {
        let mut config = Test::new(2).schedule.config;
        config.max_rounds = 1;
        let mut test = Test::with(config);
        test.start(0);
        test.failed(1, 0);
        test.opened(2, 0);
        // The first one may be there again: nobody knows.
        assert_eq!(test.failed(2, 29_000), [Close { id: 2 }]);
        assert_eq!((test.schedule.rounds(), test.deadline()), (0, Some(30_000)));
        assert_eq!(test.tick(30_000), [open(3, 0)]);
        assert_eq!(test.failed(3, 30_000), [Close { id: 3 }, open(4, 1)]);
        assert_eq!(test.failed(4, 30_000), [Close { id: 4 }, GiveUp]);
    }

    #[test]
    fn a_connection_that_held_ends_the_count_also_where_the_stream_moved_from_it() {
        let mut test = Test::new(2);
        test.start(0);
        test.failed(1, 0);
        test.failed(2, 0);
        test.tick(1000);
        test.failed(3, 1000);
        test.opened(4, 1000);
        assert_eq!(test.tick(31_000), [open(5, 0)]);
        test.opened(5, 31_000);
        test.finished(4, 31_000);
        assert_eq!(test.failed(5, 32_000), [Close { id: 5 }, open(6, 1)]);
        test.failed(6, 32_000);
        assert_eq!((test.schedule.rounds(), test.deadline()), (1, Some(33_000)));
    }

    #[test]
    fn it_moves_back_to_the_first_one_when_that_takes_it() {
        let mut test = Test::new(2);
        test.start(0);
        test.failed(1, 0);
        assert_eq!(test.opened(2, 100), [Send { id: 2 }]);
        for look in [5100, 10_100, 15_100, 20_100, 25_100] {
            assert_eq!(test.deadline(), Some(look));
            assert_eq!(test.tick(look), []);
        }
        assert_eq!(test.deadline(), Some(30_100));
        assert_eq!(test.tick(30_100), [open(3, 0)]);
        // It does not, and the stream stays where it is.
        assert_eq!(test.failed(3, 30_200), [Close { id: 3 }]);
        assert_eq!(test.schedule.state(), State::Sending { location: 1 });
        assert_eq!(test.tick(60_199), []);
        assert_eq!(test.tick(60_200), [open(4, 0)]);
        // It does not answer.
        assert_eq!(test.tick(65_200), [Close { id: 4 }]);
        assert_eq!(test.tick(95_200), [open(5, 0)]);
        // It does: it takes over where a group of pictures ends, however long that takes.
        assert_eq!(test.opened(5, 95_300), [TakeOver { id: 5 }]);
        assert_eq!(test.tick(100_200), []);
        assert_eq!(test.schedule.state(), State::Sending { location: 1 });
        assert_eq!(test.finished(2, 102_000), [Close { id: 2 }]);
        assert_eq!(test.schedule.state(), State::Sending { location: 0 });
        assert_eq!(test.deadline(), Some(107_000));
        assert_eq!(test.failed(2, 102_001), []);
    }

    #[test]
    fn on_the_way_back_either_may_fail() {
        let mut test = returning();
        assert_eq!(test.failed(3, 30_200), [Close { id: 3 }]);
        assert_eq!(test.schedule.state(), State::Sending { location: 1 });
        assert_eq!(test.tick(60_200), [open(4, 0)]);
        let mut test = returning();
        assert_eq!(test.failed(2, 30_200), [Close { id: 2 }, Send { id: 3 }]);
        assert_eq!(test.schedule.state(), State::Sending { location: 0 });
        let mut test = returning();
        let stalled = test.tick_busy(35_200, 30_200);
        assert_eq!(stalled, [Close { id: 2 }, Send { id: 3 }]);
    }

    /// The first one is to take over from the second one.
    fn returning() -> Test {
        let mut test = Test::new(2);
        test.start(0);
        test.failed(1, 0);
        test.opened(2, 0);
        test.tick(30_000);
        assert_eq!(test.opened(3, 30_100), [TakeOver { id: 3 }]);
        test
    }

    #[test]
    fn who_has_taken_over_may_fail_before_the_other_one_has_finished() {
        let mut test = returning();
        assert_eq!(test.failed(3, 30_200), [Close { id: 3 }]);
        assert_eq!(test.finished(2, 30_300), [Close { id: 2 }, open(4, 1)]);
        assert_eq!(test.deadline(), Some(35_300));
        assert_eq!(test.opened(4, 30_400), [Send { id: 4 }]);
        // The stream may also end then.
        let mut test = returning();
        test.failed(3, 30_200);
        assert_eq!(test.ended(2, 30_300), [Close { id: 2 }]);
        assert_eq!(test.schedule.state(), State::Idle);
    }

    #[test]
    fn at_the_end_of_the_stream_there_is_nothing_more_to_do() {
        let mut test = Test::new(2);
        test.start(0);
        test.opened(1, 0);
        assert_eq!(test.ended(1, 100), [Close { id: 1 }]);
        assert_eq!(
            (test.schedule.state(), test.deadline()),
            (State::Idle, None)
        );
    }

    #[test]
    fn at_the_end_either_may_be_done_first() {
        for [first, second] in [[2, 3], [3, 2]] {
            let mut test = returning();
            assert_eq!(test.ended(first, 30_200), [Close { id: first }]);
            assert_eq!(test.ended(second, 30_200), [Close { id: second }]);
            assert_eq!(test.schedule.state(), State::Idle);
        }
        // Or the first location has not answered yet.
        let mut test = Test::new(2);
        test.start(0);
        test.failed(1, 0);
        test.opened(2, 0);
        test.tick(30_000);
        assert_eq!(test.ended(2, 30_001), [Close { id: 2 }, Close { id: 3 }]);
    }

    #[test]
    fn a_stream_that_goes_on_while_its_end_is_sent_is_started_again() {
        let mut test = Test::new(2);
        test.start(0);
        test.opened(1, 0);
        assert_eq!(test.finished(1, 100), [Close { id: 1 }, open(2, 0)]);
        assert_eq!(test.opened(2, 200), [Send { id: 2 }]);
    }

    #[test]
    fn while_the_first_one_is_tried_the_other_may_fail() {
        let mut test = Test::new(2);
        test.start(0);
        test.failed(1, 0);
        test.opened(2, 0);
        assert_eq!(test.tick(30_000), [open(3, 0)]);
        assert_eq!(test.failed(2, 30_001), [Close { id: 2 }]);
        assert_eq!(test.schedule.state(), State::Trying { location: 0 });
        assert_eq!(test.deadline(), Some(35_000));
        assert_eq!(test.opened(3, 30_500), [Send { id: 3 }]);
    }

    #[test]
    fn who_takes_nothing_any_more_has_failed_and_who_gets_nothing_has_not() {
        let mut test = Test::new(2);
        test.start(0);
        test.opened(1, 0);
        assert_eq!(test.tick(5000), []);
        assert_eq!(test.deadline(), Some(10_000));
        // Busy since a moment ago: it has the whole time.
        assert_eq!(test.tick_busy(10_000, 9000), []);
        assert_eq!(test.deadline(), Some(14_000));
        assert_eq!(test.tick_busy(13_999, 9000), []);
        assert_eq!(test.tick_busy(14_000, 9000), [Close { id: 1 }, open(2, 1)]);
    }
}
