// SPDX-License-Identifier: MPL-2.0

//! Decides which notice is sent when. It has no clock and sends nothing: time and chance are passed
//! in.
//!
//! The notices of one stream are sent one after the other, those of different streams at the same
//! time. The number of waiting notices is bounded: three per stream at most, since a ready notice
//! that was not tried yet and its gone notice cancel each other, and `MAX_WAITING` in all.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::{Duration, Instant};

use crate::catalog::StreamName;

/// Concurrent requests. A slow receiver blocks no more than these.
pub const MAX_UNDER_WAY: usize = 8;
/// Waiting notices of all streams. Publishers with ever new names cost no more while the receiver
/// is away.
pub const MAX_WAITING: usize = 10_000;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The longest delay that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Older notices are of no use.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Ready,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The number of the notice: unique, and the same for each attempt.
    pub number: u64,
    pub event: Event,
    pub name: StreamName,
    /// The time of the event, as it is sent.
    pub time: String,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    Acknowledged,
    /// A later attempt may succeed: not before this time, if the receiver named one.
    Failed(Option<Duration>),
    /// A later attempt would fail too.
    Rejected,
}

/// The further way of a notice after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterAttempt {
    Over,
    /// It is sent again after this time.
    Again(Duration),
    /// The stream has ended meanwhile: its gone notice is sent instead.
    Superseded,
    GivenUp,
}

#[derive(Debug)]
struct PendingNotice {
    notice: Notice,
    since: Instant,
    /// It may have arrived, even if that was never acknowledged.
    was_tried: bool,
}

/// The waiting notices of one stream: never empty.
#[derive(Debug)]
struct Line {
    waiting: VecDeque<PendingNotice>,
    /// The first notice is being sent.
    is_under_way: bool,
    due: Instant,
    /// Attempts that failed since the last success.
    failures: u32,
}

#[derive(Debug, Default)]
pub struct Schedule {
    lines: BTreeMap<StreamName, Line>,
    last_number: u64,
    waiting: usize,
    under_way: usize,
}

impl Schedule {
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns whether there was room.
    #[must_use]
    pub fn push(&mut self, event: Event, name: StreamName, time: String, now: Instant) -> bool {
        if event == Event::Gone && self.cancel_ready(&name) {
            return true;
        }
        if self.waiting >= MAX_WAITING {
            return false;
        }
        self.last_number += 1;
        let notice = Notice {
            number: self.last_number,
            event,
            name: name.clone(),
            time,
        };
        let line = self.lines.entry(name).or_insert_with(|| Line {
            waiting: VecDeque::new(),
            is_under_way: false,
            due: now,
            failures: 0,
        });
        // Tried but not acknowledged: the receiver may or may not have it, and the gone notice is
        // right in both cases.
        let is_superseded = |last: &PendingNotice| last.notice.event == Event::Ready;
        if event == Event::Gone
            && !line.is_under_way
            && line.waiting.back().is_some_and(is_superseded)
        {
            line.waiting.pop_back();
            self.waiting -= 1;
        }
        line.waiting.push_back(PendingNotice {
            notice,
            since: now,
            was_tried: false,
        });
        self.waiting += 1;
        true
    }

    /// Forgets a ready notice that was never tried. Returns whether there was one.
    fn cancel_ready(&mut self, name: &StreamName) -> bool {
        let Entry::Occupied(mut entry) = self.lines.entry(name.clone()) else {
            return false;
        };
        let line = entry.get_mut();
        let is_unknown =
            |last: &PendingNotice| last.notice.event == Event::Ready && !last.was_tried;
        if !line.waiting.back().is_some_and(is_unknown) {
            return false;
        }
        line.waiting.pop_back();
        self.waiting -= 1;
        if line.waiting.is_empty() {
            entry.remove();
        }
        true
    }

    /// Returns a notice to send now. Call `finished` after each.
    pub fn next(&mut self, now: Instant) -> Option<Notice> {
        if self.under_way >= MAX_UNDER_WAY {
            return None;
        }
        let line = self.lines.values_mut().filter(|line| !line.is_under_way);
        let line = line.min_by_key(|line| line.due)?;
        if line.due > now {
            return None;
        }
        let first = line.waiting.front_mut()?;
        first.was_tried = true;
        line.is_under_way = true;
        self.under_way += 1;
        Some(first.notice.clone())
    }

    /// Returns when the next notice is due. `None` as long as something else must happen first.
    pub fn wakes_at(&self) -> Option<Instant> {
        if self.under_way >= MAX_UNDER_WAY {
            return None;
        }
        let lines = self.lines.values().filter(|line| !line.is_under_way);
        lines.map(|line| line.due).min()
    }

    /// Ends the attempt of a stream's notice. `chance` is between 0 and 1, and random.
    pub fn finished(
        &mut self,
        name: &StreamName,
        outcome: AttemptOutcome,
        now: Instant,
        chance: f64,
    ) -> AfterAttempt {
        let Entry::Occupied(mut entry) = self.lines.entry(name.clone()) else {
            return AfterAttempt::Over;
        };
        let line = entry.get_mut();
        line.is_under_way = false;
        self.under_way -= 1;
        let after = match outcome {
            AttemptOutcome::Acknowledged | AttemptOutcome::Rejected => {
                line.failures = 0;
                line.due = now;
                AfterAttempt::Over
            }
            AttemptOutcome::Failed(retry_after) => {
                let delay = delay(line.failures, chance);
                let delay = delay.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
                line.failures = line.failures.saturating_add(1);
                line.due = now + delay;
                match line.waiting.front() {
                    Some(first) if first.notice.event == Event::Ready && line.waiting.len() > 1 => {
                        AfterAttempt::Superseded
                    }
                    Some(first) if now.saturating_duration_since(first.since) >= GIVE_UP_AFTER => {
                        AfterAttempt::GivenUp
                    }
                    _ => AfterAttempt::Again(delay),
                }
            }
        };
        if !matches!(after, AfterAttempt::Again(_)) {
            line.waiting.pop_front();
            self.waiting -= 1;
            if line.waiting.is_empty() {
                entry.remove();
            }
        }
        after
    }
}

/// Returns a delay that doubles with each failure, and varies so that not all notices are sent at
/// once when the receiver returns.
fn delay(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(MAX_DELAY).mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Gone, Ready};

    use proptest::prelude::*;

    const ACKNOWLEDGED: AttemptOutcome = AttemptOutcome::Acknowledged;
    const FAILED: AttemptOutcome = AttemptOutcome::Failed(None);

    /// A schedule with a clock that the test moves.
    struct Simulation {
        schedule: Schedule,
        now: Instant,
    }

    impl Simulation {
        fn new() -> Self {
            Simulation {
                schedule: Schedule::default(),
                now: Instant::now(),
            }
        }

        fn push(&mut self, event: Event, name: &str) {
            assert!(
                self.schedule
                    .push(event, stream(name), String::new(), self.now)
            );
        }

        fn next(&mut self) -> Option<(Event, String)> {
            let notice = self.schedule.next(self.now)?;
            Some((notice.event, notice.name.stream))
        }

        #[track_caller]
        fn sends(&mut self, event: Event, name: &str) {
            assert_eq!(self.next(), Some((event, name.to_owned())));
        }

        fn finished(&mut self, name: &str, outcome: AttemptOutcome) -> AfterAttempt {
            self.schedule
                .finished(&stream(name), outcome, self.now, 1.0)
        }

        fn wait(&mut self) -> Duration {
            let due = self.schedule.wakes_at().unwrap();
            let waited = due.saturating_duration_since(self.now);
            self.now += waited;
            waited
        }

        #[track_caller]
        fn is_over(&mut self) {
            assert_eq!(self.next(), None);
            assert_eq!(self.schedule.wakes_at(), None);
            assert_eq!(self.schedule.waiting(), 0);
            assert!(self.schedule.lines.is_empty());
        }
    }

    fn stream(name: &str) -> StreamName {
        StreamName::new("live", None, name).unwrap()
    }

    #[test]
    fn a_notice_is_sent_once_and_at_once() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        assert_eq!(simulation.next(), None);
        assert_eq!(simulation.finished("a", ACKNOWLEDGED), AfterAttempt::Over);
        simulation.push(Gone, "a");
        simulation.sends(Gone, "a");
        assert_eq!(simulation.finished("a", ACKNOWLEDGED), AfterAttempt::Over);
        simulation.is_over();
    }

    #[test]
    fn delays_grow_with_failures() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        let mut waited = Vec::new();
        for _ in 0..8 {
            simulation.sends(Ready, "a");
            let after = simulation.finished("a", FAILED);
            assert_eq!(simulation.next(), None);
            let delay = simulation.wait();
            assert_eq!(after, AfterAttempt::Again(delay));
            waited.push(delay.as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
        simulation.sends(Ready, "a");
        simulation.finished("a", ACKNOWLEDGED);
        // The delay starts over.
        simulation.push(Gone, "a");
        simulation.sends(Gone, "a");
        simulation.finished("a", FAILED);
        assert_eq!(simulation.wait(), Duration::from_secs(1));
    }

    #[test]
    fn chance_spreads_repetitions() {
        assert_eq!(delay(3, 0.0), Duration::from_secs(4));
        assert_eq!(delay(3, 1.0), Duration::from_secs(8));
        assert_eq!(delay(u32::MAX, 1.0), MAX_DELAY);
    }

    #[test]
    fn retry_after_is_respected_within_bounds() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        for (requested, waited) in [(7, 7), (0, 2), (1_000_000, 600)] {
            simulation.sends(Ready, "a");
            simulation.finished(
                "a",
                AttemptOutcome::Failed(Some(Duration::from_secs(requested))),
            );
            assert_eq!(simulation.wait(), Duration::from_secs(waited));
        }
    }

    #[test]
    fn a_rejected_notice_is_not_repeated() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        simulation.push(Gone, "a");
        assert_eq!(
            simulation.finished("a", AttemptOutcome::Rejected),
            AfterAttempt::Over
        );
        simulation.sends(Gone, "a");
        simulation.finished("a", AttemptOutcome::Rejected);
        simulation.is_over();
    }

    #[test]
    fn a_gone_notice_waits_for_its_ready_notice() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        simulation.push(Gone, "a");
        assert_eq!(simulation.next(), None);
        simulation.finished("a", ACKNOWLEDGED);
        simulation.sends(Gone, "a");
    }

    #[test]
    fn a_failed_ready_notice_is_not_sent_after_its_gone_notice() {
        // While it is being sent,
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        simulation.push(Gone, "a");
        assert_eq!(simulation.finished("a", FAILED), AfterAttempt::Superseded);
        assert_eq!(simulation.wait(), Duration::from_secs(1));
        simulation.sends(Gone, "a");
        simulation.finished("a", ACKNOWLEDGED);
        simulation.is_over();
        // and while it waits.
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        simulation.finished("a", FAILED);
        simulation.push(Gone, "a");
        assert_eq!(simulation.next(), None);
        simulation.wait();
        simulation.sends(Gone, "a");
        // The receiver still fails.
        simulation.finished("a", FAILED);
        assert_eq!(simulation.wait(), Duration::from_secs(2));
    }

    #[test]
    fn an_untried_ready_notice_and_its_gone_notice_cancel() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.push(Gone, "a");
        simulation.is_over();
        simulation.push(Gone, "a");
        simulation.sends(Gone, "a");
        for _ in 0..100 {
            simulation.push(Ready, "a");
            simulation.push(Gone, "a");
        }
        assert_eq!(simulation.schedule.waiting(), 1);
        simulation.push(Ready, "a");
        simulation.finished("a", ACKNOWLEDGED);
        simulation.sends(Ready, "a");
    }

    #[test]
    fn a_notice_is_given_up_after_an_hour() {
        let mut simulation = Simulation::new();
        simulation.push(Gone, "a");
        let start = simulation.now;
        loop {
            simulation.sends(Gone, "a");
            if simulation.finished("a", FAILED) == AfterAttempt::GivenUp {
                break;
            }
            simulation.wait();
        }
        assert!(simulation.now - start >= GIVE_UP_AFTER);
        assert!(simulation.now - start <= GIVE_UP_AFTER + MAX_DELAY);
        simulation.is_over();
    }

    #[test]
    fn a_failing_notice_blocks_no_other_stream() {
        let mut simulation = Simulation::new();
        simulation.push(Ready, "a");
        simulation.sends(Ready, "a");
        simulation.push(Ready, "b");
        simulation.sends(Ready, "b");
        simulation.finished("a", FAILED);
        simulation.finished("b", ACKNOWLEDGED);
        simulation.push(Ready, "c");
        simulation.sends(Ready, "c");
    }

    #[test]
    fn the_number_of_waiting_notices_is_bounded() {
        let mut simulation = Simulation::new();
        for number in 0..MAX_WAITING {
            simulation.push(Ready, &number.to_string());
        }
        let now = simulation.now;
        let mut push = |event, name: &str| {
            simulation
                .schedule
                .push(event, stream(name), String::new(), now)
        };
        assert!(!push(Ready, "one more"));
        assert!(!push(Gone, "another"));
        // This one makes room.
        assert!(push(Gone, "7"));
        assert!(push(Ready, "one more"));
        for _ in 0..MAX_UNDER_WAY {
            assert!(simulation.next().is_some());
        }
        assert_eq!(simulation.next(), None);
        assert_eq!(simulation.schedule.wakes_at(), None);
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn notices_of_a_stream_keep_their_order(
            steps in prop::collection::vec((0..4_u8, 0..12_usize, any::<bool>()), 1..300)
        ) {
            let mut simulation = Simulation::new();
            let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
            let mut is_ready = [false; 12];
            let mut under_way: Vec<Notice> = Vec::new();
            let mut last_numbers = BTreeMap::new();
            let mut known = BTreeMap::new();
            let mut answer = |simulation: &mut Simulation, notice: Notice, outcome| {
                simulation.finished(&notice.name.stream, outcome);
                if outcome == ACKNOWLEDGED {
                    let last = last_numbers.insert(notice.name.clone(), notice.number);
                    assert!(last.is_none_or(|last| last < notice.number), "out of order");
                    known.insert(notice.name.stream, notice.event);
                }
            };
            for (what, index, goes_well) in steps {
                match what {
                    0 => {
                        is_ready[index] = !is_ready[index];
                        let event = if is_ready[index] { Ready } else { Gone };
                        simulation.push(event, &names[index]);
                    }
                    1 => {
                        if let Some(notice) = simulation.schedule.next(simulation.now) {
                            let is_first = |other: &Notice| other.name != notice.name;
                            prop_assert!(under_way.iter().all(is_first));
                            under_way.push(notice);
                        }
                    }
                    2 if !under_way.is_empty() => {
                        let notice = under_way.swap_remove(index % under_way.len());
                        answer(&mut simulation, notice, if goes_well { ACKNOWLEDGED } else { FAILED });
                    }
                    _ => simulation.now += Duration::from_secs(index as u64),
                }
                prop_assert!(under_way.len() <= MAX_UNDER_WAY);
                let lines = simulation.schedule.lines.values();
                let lengths: Vec<usize> = lines.map(|line| line.waiting.len()).collect();
                prop_assert!(lengths.iter().all(|length| (1..=3).contains(length)));
                prop_assert_eq!(lengths.iter().sum::<usize>(), simulation.schedule.waiting());
            }
            // Then all goes well.
            loop {
                for notice in std::mem::take(&mut under_way) {
                    answer(&mut simulation, notice, ACKNOWLEDGED);
                }
                if let Some(due) = simulation.schedule.wakes_at() {
                    simulation.now = simulation.now.max(due);
                }
                while let Some(notice) = simulation.schedule.next(simulation.now) {
                    under_way.push(notice);
                }
                if under_way.is_empty() {
                    break;
                }
            }
            simulation.is_over();
            for (name, is_ready) in names.iter().zip(is_ready) {
                prop_assert_eq!(known.get(name) == Some(&Ready), is_ready);
            }
        }
    }
}
