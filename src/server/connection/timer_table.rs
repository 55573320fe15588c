// SPDX-License-Identifier: MPL-2.0

//! Deadlines of a connection, and the read timeout that serves them.

use std::time::{Duration, Instant};

/// A deadline of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The client has to publish.
    Handshake,
    /// A client that has ended its stream has to close, or its stream ends here.
    Closing,
    /// The publisher counts as stalled.
    Stall,
    /// The publisher is disconnected.
    Timeout,
    /// The publisher is asked for a sign of life.
    Ping,
    /// The client gets the acknowledgement that it may be waiting for.
    Ack,
}

const ALL: [Timer; 6] = [
    Timer::Handshake,
    Timer::Closing,
    Timer::Stall,
    Timer::Timeout,
    Timer::Ping,
    Timer::Ack,
];

/// A read may wait this much longer than the first deadline. It saves setting the socket's timeout
/// for each read of a publisher that keeps sending.
const SLACK: Duration = Duration::from_millis(10);

/// The shortest read timeout of a socket. Zero would be none at all.
const MIN_READ_TIMEOUT: Duration = Duration::from_millis(1);

/// The deadlines of a connection, one for each timer.
#[derive(Debug, Default)]
pub(super) struct TimerTable {
    deadlines: [Option<Instant>; ALL.len()],
    /// The socket's read timeout, as it was last set.
    read_timeout: Option<Duration>,
}

impl TimerTable {
    pub(super) fn set(&mut self, timer: Timer, deadline: Option<Instant>) {
        self.deadlines[timer as usize] = deadline;
    }

    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.deadlines[timer as usize]
    }

    pub(super) fn clear_all(&mut self) {
        self.deadlines = [None; ALL.len()];
    }

    /// Removes a timer that is due, and returns it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let is_due = |timer: &&Timer| self.get(**timer).is_some_and(|deadline| deadline <= now);
        let due = ALL.iter().find(is_due).copied()?;
        self.set(due, None);
        Some(due)
    }

    /// Returns the new read timeout if the socket's has to change, so that a read ends at the first
    /// deadline or a moment later. One that is somewhat too short stays: it costs one wake-up, and
    /// only where the client is silent. A read that collects media ends after its own time in any case.
    pub(super) fn change_read_timeout(
        &mut self,
        now: Instant,
        collecting: Option<Duration>,
    ) -> Option<Option<Duration>> {
        if collecting.is_some() {
            let last = std::mem::replace(&mut self.read_timeout, collecting);
            return (last != collecting).then_some(collecting);
        }
        let first = self.deadlines.iter().flatten().min();
        let left = first.map(|deadline| deadline.saturating_duration_since(now));
        let left = left.map(|left| left.max(MIN_READ_TIMEOUT));
        let serves = match (self.read_timeout, left) {
            (Some(set), Some(left)) => set <= left + SLACK && set >= left / 2,
            (None, None) => true,
            _ => false,
        };
        if serves {
            return None;
        }
        self.read_timeout = left;
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn due_timers_are_returned_once() {
        let now = Instant::now();
        let mut timers = TimerTable::default();
        timers.set(Timer::Stall, Some(now + SECOND));
        timers.set(Timer::Ack, Some(now));
        assert_eq!(timers.take_due(now), Some(Timer::Ack));
        assert_eq!(timers.take_due(now), None);
        assert_eq!(timers.take_due(now + SECOND), Some(Timer::Stall));
        timers.set(Timer::Stall, Some(now));
        timers.clear_all();
        assert_eq!(timers.take_due(now + SECOND), None);
    }

    #[test]
    fn steady_publishers_never_change_the_read_timeout() {
        let start = Instant::now();
        let mut timers = TimerTable::default();
        let mut changes = 0;
        for frame in 0..1000 {
            let now = start + frame * Duration::from_millis(33);
            timers.set(Timer::Stall, Some(now + 2 * SECOND));
            timers.set(Timer::Timeout, Some(now + 30 * SECOND));
            let later = now + Duration::from_micros(500);
            changes += u32::from(timers.change_read_timeout(later, None).is_some());
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn reads_end_at_the_first_deadline() {
        let now = Instant::now();
        let mut timers = TimerTable::default();
        assert_eq!(timers.change_read_timeout(now, None), None);
        timers.set(Timer::Timeout, Some(now + 30 * SECOND));
        assert_eq!(
            timers.change_read_timeout(now, None),
            Some(Some(30 * SECOND))
        );
        timers.set(Timer::Stall, Some(now + SECOND));
        assert_eq!(timers.change_read_timeout(now, None), Some(Some(SECOND)));
        // After a wake-up that was too early the rest is exact.
        let later = now + SECOND / 4;
        let rest = timers.change_read_timeout(later, None);
        assert_eq!(rest, Some(Some(SECOND * 3 / 4)));
        timers.clear_all();
        assert_eq!(timers.change_read_timeout(later, None), Some(None));
    }

    #[test]
    fn reads_that_collect_media_end_after_their_own_time() {
        let now = Instant::now();
        let collecting = Some(SECOND / 10);
        let mut timers = TimerTable::default();
        timers.set(Timer::Timeout, Some(now + 30 * SECOND));
        assert_eq!(
            timers.change_read_timeout(now, None),
            Some(Some(30 * SECOND))
        );
        assert_eq!(
            timers.change_read_timeout(now, collecting),
            Some(collecting)
        );
        assert_eq!(timers.change_read_timeout(now, collecting), None);
        timers.set(Timer::Ack, Some(now + SECOND / 100));
        assert_eq!(timers.change_read_timeout(now, collecting), None);
        timers.set(Timer::Ack, None);
        assert_eq!(
            timers.change_read_timeout(now, None),
            Some(Some(30 * SECOND))
        );
    }
}
