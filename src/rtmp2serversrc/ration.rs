// SPDX-License-Identifier: MPL-2.0

//! A ration of notices that clients can cause for nothing, such as rejections. The rest is counted,
//! and the last notice of a flood is kept until it may be posted.

use std::time::{Duration, Instant};

/// Time between two messages of a flood.
const INTERVAL: Duration = Duration::from_millis(100);

/// Messages that may follow each other at once.
const BURST: u32 = 32;

#[derive(Debug)]
pub(crate) struct Ration<T> {
    /// Time until which the ration is used up: each message adds an interval.
    used_until: Option<Instant>,
    /// The last message that was not posted.
    held: Option<T>,
    /// Messages before that one that were not posted.
    suppressed: u64,
}

impl<T> Default for Ration<T> {
    fn default() -> Self {
        Ration {
            used_until: None,
            held: None,
            suppressed: 0,
        }
    }
}

impl<T> Ration<T> {
    /// Returns a notice that may be posted, with the number of those before it that were not. Keeps
    /// it where the ration is used up.
    pub(crate) fn offer(&mut self, notice: T, now: Instant) -> Option<(T, u64)> {
        self.suppressed += u64::from(self.held.replace(notice).is_some());
        self.release(now)
    }

    /// Counts notices that did not arrive here.
    pub(crate) fn suppress(&mut self, notices: u64) {
        self.suppressed += notices;
    }

    /// Returns the notice that was kept, once it may be posted.
    pub(crate) fn release(&mut self, now: Instant) -> Option<(T, u64)> {
        if self.is_used_up(now) {
            return None;
        }
        let notice = self.take()?;
        let used_until = self.used_until.map_or(now, |until| until.max(now));
        self.used_until = Some(used_until + INTERVAL);
        Some(notice)
    }

    /// Returns the notice that was kept, at the end of everything.
    pub(crate) fn take(&mut self) -> Option<(T, u64)> {
        let notice = self.held.take()?;
        Some((notice, std::mem::take(&mut self.suppressed)))
    }

    pub(crate) fn is_used_up(&self, now: Instant) -> bool {
        let used = self.used_until.map(|u| u.saturating_duration_since(now));
        used.is_some_and(|used| used > INTERVAL * (BURST - 1))
    }

    /// Returns the time at which the notice that was kept may be posted.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.held.as_ref()?;
        self.free_at()
    }

    /// Returns the time from which the ration is not used up.
    pub(crate) fn free_at(&self) -> Option<Instant> {
        self.used_until
            .and_then(|until| until.checked_sub(INTERVAL * (BURST - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_rationed_and_counted() {
        let mut ration = Ration::default();
        let start = Instant::now();
        let mut posted = Vec::new();
        for index in 0..1000u32 {
            posted.extend(ration.offer(index, start));
        }
        let burst: Vec<(u32, u64)> = (0..BURST).map(|index| (index, 0)).collect();
        assert_eq!(posted, burst);
        let deadline = ration.deadline().unwrap();
        assert_eq!(ration.release(start), None);
        assert_eq!(ration.release(deadline), Some((999, 1000 - 33)));
        assert_eq!(ration.release(deadline), None);
        assert_eq!(ration.deadline(), None);
        // Ten a second while the flood goes on.
        let mut count = 0;
        for millis in 1..=10_000 {
            let now = deadline + Duration::from_millis(millis);
            count += u32::from(ration.offer(0, now).is_some());
        }
        assert_eq!(count, 100);
    }

    #[test]
    fn single_notices_pass_at_once() {
        let mut ration = Ration::default();
        let start = Instant::now();
        for index in 0..100u32 {
            let now = start + INTERVAL * index;
            assert_eq!(ration.offer(index, now), Some((index, 0)));
        }
    }
}
