// SPDX-License-Identifier: MPL-2.0

use super::*;
use ConnectionAction::{Close, GiveUp, Open, Send, TakeOver};

const SECOND: Duration = Duration::from_secs(1);

struct Harness {
    schedule: Schedule,
    start: Instant,
}

impl Harness {
    fn new(locations: usize) -> Self {
        let policy = RetryPolicy {
            locations,
            initial_delay: SECOND,
            max_delay: 60 * SECOND,
            max_rounds: 10,
            return_to_primary: 30 * SECOND,
            connect_timeout: 5 * SECOND,
            send_timeout: 5 * SECOND,
        };
        Self::with(policy)
    }

    fn with(policy: RetryPolicy) -> Self {
        Harness {
            schedule: Schedule::new(policy),
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

    fn start(&mut self, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.start(self.at(millis))
    }

    fn opened(&mut self, id: AttemptId, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.opened(id, self.at(millis))
    }

    fn failed(&mut self, id: AttemptId, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.failed(id, self.at(millis))
    }

    fn finished(&mut self, id: AttemptId, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.finished(id, false, self.at(millis))
    }

    fn ended(&mut self, id: AttemptId, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.finished(id, true, self.at(millis))
    }

    fn tick(&mut self, millis: u64) -> Vec<ConnectionAction> {
        self.schedule.tick(self.at(millis), None)
    }

    fn tick_busy(&mut self, millis: u64, since: u64) -> Vec<ConnectionAction> {
        self.schedule.tick(self.at(millis), Some(self.at(since)))
    }
}

fn open(id: AttemptId, location: usize) -> ConnectionAction {
    Open { id, location }
}

#[test]
fn locations_are_tried_at_once_and_rounds_with_doubling_delays() {
    let mut harness = Harness::new(2);
    assert_eq!(harness.start(0), [open(1, 0)]);
    let (mut id, mut now, mut delays) = (1, 0, Vec::new());
    loop {
        assert_eq!(harness.failed(id, now), [Close { id }, open(id + 1, 1)]);
        let last = harness.failed(id + 1, now);
        if last.contains(&GiveUp) {
            assert_eq!(last, [Close { id: id + 1 }, GiveUp]);
            break;
        }
        assert_eq!(last, [Close { id: id + 1 }]);
        let until = harness.deadline().unwrap();
        assert_eq!(harness.tick(until - 1), []);
        delays.push((until - now) / 1000);
        (id, now) = (id + 2, until);
        assert_eq!(harness.tick(until), [open(id, 0)]);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(harness.schedule.rounds(), 10);
    assert_eq!(
        (harness.schedule.state(), harness.deadline()),
        (ScheduleState::GivenUp, None)
    );
    assert_eq!(harness.tick(u64::from(u32::MAX)), []);
}

#[test]
fn rounds_without_a_limit_never_end() {
    let mut policy = Harness::new(1).schedule.policy;
    policy.max_rounds = 0;
    let mut harness = Harness::with(policy);
    harness.start(0);
    for id in 1..1000 {
        let now = harness.deadline().unwrap() - 5000;
        assert_eq!(harness.failed(id, now), [Close { id }]);
        let until = harness.deadline().unwrap();
        assert_eq!(harness.tick(until), [open(id + 1, 0)]);
    }
}

#[test]
fn a_silent_server_fails_after_the_timeout() {
    let mut harness = Harness::new(2);
    harness.start(0);
    assert_eq!(harness.deadline(), Some(5000));
    assert_eq!(harness.tick(4999), []);
    assert_eq!(harness.tick(5000), [Close { id: 1 }, open(2, 1)]);
    // A late answer changes nothing.
    assert_eq!(harness.opened(1, 5001), []);
    assert_eq!(harness.failed(1, 5001), []);
    assert_eq!(harness.opened(2, 5002), [Send { id: 2 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 1 }
    );
}

#[test]
fn a_stable_connection_resets_the_round_count_and_a_short_one_does_not() {
    let mut harness = Harness::new(1);
    harness.start(0);
    harness.failed(1, 0);
    assert_eq!(harness.deadline(), Some(1000));
    harness.tick(1000);
    harness.opened(2, 1000);
    harness.failed(2, 1000 + 9_999);
    assert_eq!(
        (harness.schedule.rounds(), harness.deadline()),
        (2, Some(10_999 + 2000))
    );
    harness.tick(12_999);
    harness.opened(3, 13_000);
    harness.failed(3, 23_000);
    assert_eq!(
        (harness.schedule.rounds(), harness.deadline()),
        (1, Some(24_000))
    );
}

#[test]
fn a_round_counts_only_if_the_first_location_was_in_it() {
    let mut policy = Harness::new(2).schedule.policy;
    policy.max_rounds = 1;
    let mut harness = Harness::with(policy);
    harness.start(0);
    harness.failed(1, 0);
    harness.opened(2, 0);
    // The first server may have returned meanwhile.
    assert_eq!(harness.failed(2, 29_000), [Close { id: 2 }]);
    assert_eq!(
        (harness.schedule.rounds(), harness.deadline()),
        (0, Some(30_000))
    );
    assert_eq!(harness.tick(30_000), [open(3, 0)]);
    assert_eq!(harness.failed(3, 30_000), [Close { id: 3 }, open(4, 1)]);
    assert_eq!(harness.failed(4, 30_000), [Close { id: 4 }, GiveUp]);
}

#[test]
fn a_stable_connection_resets_the_round_count_also_after_a_failback() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.failed(1, 0);
    harness.failed(2, 0);
    harness.tick(1000);
    harness.failed(3, 1000);
    harness.opened(4, 1000);
    assert_eq!(harness.tick(31_000), [open(5, 0)]);
    harness.opened(5, 31_000);
    harness.finished(4, 31_000);
    assert_eq!(harness.failed(5, 32_000), [Close { id: 5 }, open(6, 1)]);
    harness.failed(6, 32_000);
    assert_eq!(
        (harness.schedule.rounds(), harness.deadline()),
        (1, Some(33_000))
    );
}

#[test]
fn the_stream_returns_to_the_first_location_once_that_accepts_it() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.failed(1, 0);
    assert_eq!(harness.opened(2, 100), [Send { id: 2 }]);
    for look in [5100, 10_100, 15_100, 20_100, 25_100] {
        assert_eq!(harness.deadline(), Some(look));
        assert_eq!(harness.tick(look), []);
    }
    assert_eq!(harness.deadline(), Some(30_100));
    assert_eq!(harness.tick(30_100), [open(3, 0)]);
    // It rejects the connection, and the stream stays where it is.
    assert_eq!(harness.failed(3, 30_200), [Close { id: 3 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 1 }
    );
    assert_eq!(harness.tick(60_199), []);
    assert_eq!(harness.tick(60_200), [open(4, 0)]);
    // It does not answer.
    assert_eq!(harness.tick(65_200), [Close { id: 4 }]);
    assert_eq!(harness.tick(95_200), [open(5, 0)]);
    // It accepts, and takes over at the end of a group, however long that takes.
    assert_eq!(harness.opened(5, 95_300), [TakeOver { id: 5 }]);
    assert_eq!(harness.tick(100_200), []);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 1 }
    );
    assert_eq!(harness.finished(2, 102_000), [Close { id: 2 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 0 }
    );
    assert_eq!(harness.deadline(), Some(107_000));
    assert_eq!(harness.failed(2, 102_001), []);
}

#[test]
fn either_connection_may_fail_during_a_failback() {
    let mut harness = during_failback();
    assert_eq!(harness.failed(3, 30_200), [Close { id: 3 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 1 }
    );
    assert_eq!(harness.tick(60_200), [open(4, 0)]);
    let mut harness = during_failback();
    assert_eq!(harness.failed(2, 30_200), [Close { id: 2 }, Send { id: 3 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Sending { location: 0 }
    );
    let mut harness = during_failback();
    let stalled = harness.tick_busy(35_200, 30_200);
    assert_eq!(stalled, [Close { id: 2 }, Send { id: 3 }]);
}

/// Connection 3 to the first location is to take over from connection 2 to the second.
fn during_failback() -> Harness {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.failed(1, 0);
    harness.opened(2, 0);
    harness.tick(30_000);
    assert_eq!(harness.opened(3, 30_100), [TakeOver { id: 3 }]);
    harness
}

#[test]
fn a_successor_may_fail_before_its_predecessor_has_finished() {
    let mut harness = during_failback();
    assert_eq!(harness.failed(3, 30_200), [Close { id: 3 }]);
    assert_eq!(harness.finished(2, 30_300), [Close { id: 2 }, open(4, 1)]);
    assert_eq!(harness.deadline(), Some(35_300));
    assert_eq!(harness.opened(4, 30_400), [Send { id: 4 }]);
    // The stream may also end at that moment.
    let mut harness = during_failback();
    harness.failed(3, 30_200);
    assert_eq!(harness.ended(2, 30_300), [Close { id: 2 }]);
    assert_eq!(harness.schedule.state(), ScheduleState::Idle);
}

#[test]
fn the_schedule_is_idle_after_the_end_of_the_stream() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.opened(1, 0);
    assert_eq!(harness.ended(1, 100), [Close { id: 1 }]);
    assert_eq!(
        (harness.schedule.state(), harness.deadline()),
        (ScheduleState::Idle, None)
    );
}

#[test]
fn either_connection_may_finish_first_at_the_end_of_the_stream() {
    for [first, second] in [[2, 3], [3, 2]] {
        let mut harness = during_failback();
        assert_eq!(harness.ended(first, 30_200), [Close { id: first }]);
        assert_eq!(harness.ended(second, 30_200), [Close { id: second }]);
        assert_eq!(harness.schedule.state(), ScheduleState::Idle);
    }
    // The first location has not answered yet.
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.failed(1, 0);
    harness.opened(2, 0);
    harness.tick(30_000);
    assert_eq!(harness.ended(2, 30_001), [Close { id: 2 }, Close { id: 3 }]);
}

#[test]
fn a_stream_that_continues_while_its_end_is_sent_starts_again() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.opened(1, 0);
    assert_eq!(harness.finished(1, 100), [Close { id: 1 }, open(2, 0)]);
    assert_eq!(harness.opened(2, 200), [Send { id: 2 }]);
}

#[test]
fn the_second_location_may_fail_while_the_first_is_tried() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.failed(1, 0);
    harness.opened(2, 0);
    assert_eq!(harness.tick(30_000), [open(3, 0)]);
    assert_eq!(harness.failed(2, 30_001), [Close { id: 2 }]);
    assert_eq!(
        harness.schedule.state(),
        ScheduleState::Trying { location: 0 }
    );
    assert_eq!(harness.deadline(), Some(35_000));
    assert_eq!(harness.opened(3, 30_500), [Send { id: 3 }]);
}

#[test]
fn a_server_that_accepts_no_data_fails_and_one_that_gets_none_does_not() {
    let mut harness = Harness::new(2);
    harness.start(0);
    harness.opened(1, 0);
    assert_eq!(harness.tick(5000), []);
    assert_eq!(harness.deadline(), Some(10_000));
    // The timeout counts from when the sender became busy.
    assert_eq!(harness.tick_busy(10_000, 9000), []);
    assert_eq!(harness.deadline(), Some(14_000));
    assert_eq!(harness.tick_busy(13_999, 9000), []);
    assert_eq!(
        harness.tick_busy(14_000, 9000),
        [Close { id: 1 }, open(2, 1)]
    );
}
