// SPDX-License-Identifier: MPL-2.0

//! Reports of dropped media: an event for each reason, at most once a second.

use std::time::{Duration, Instant};

use crate::server::Dropped;

/// Least time between two reports. Media is dropped tag by tag.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Numbers of tags that were dropped, or were reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DropCounts {
    pub(super) dropped: Dropped,
    /// Messages that no decoder could use.
    pub(super) skipped: u64,
}

/// Part of the counts that a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportScope {
    /// Counts without an event of their own.
    Regular,
    /// All counts, at the end of a publisher.
    Rest,
}

#[derive(Debug, Default)]
pub(super) struct DropReports {
    reported: DropCounts,
    last: Option<Instant>,
    /// Time of the next report, where there is something to report that nothing else will.
    due: Option<Instant>,
}

impl DropReports {
    /// Returns true where a report is due.
    pub(super) fn is_due(&self, scope: ReportScope, now: Instant) -> bool {
        let is_soon = |last| now.saturating_duration_since(last) < MIN_INTERVAL;
        scope == ReportScope::Rest || !self.last.is_some_and(is_soon)
    }

    /// Sets a time for the next report, unless there is one.
    pub(super) fn schedule(&mut self, now: Instant) {
        let earliest = self.last.map(|last| last + MIN_INTERVAL);
        let due = earliest.filter(|due| *due > now);
        self.due.get_or_insert(due.unwrap_or(now + MIN_INTERVAL));
    }

    /// Returns the time of the next report, also where nothing more happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the reasons and numbers of tags to report.
    pub(super) fn report(
        &mut self,
        counts: &DropCounts,
        scope: ReportScope,
        now: Instant,
    ) -> Vec<(&'static str, u64)> {
        self.last = Some(now);
        self.due = None;
        let (new, reported) = (&counts.dropped, &mut self.reported.dropped);
        let mut reports = vec![
            take_new(
                "before-keyframe",
                new.before_keyframe,
                &mut reported.before_keyframe,
            ),
            take_new("descriptions", new.descriptions, &mut reported.descriptions),
            take_new("cut-off", new.cut_off, &mut reported.cut_off),
            take_new("unusable", counts.skipped, &mut self.reported.skipped),
            take_new("not-linked", new.not_linked, &mut reported.not_linked),
            take_new("end", new.at_end, &mut reported.at_end),
        ];
        if scope == ReportScope::Rest {
            reports.push(take_new(
                "queue-full",
                new.queue_full,
                &mut reported.queue_full,
            ));
            reports.push(take_new("late", new.late, &mut reported.late));
        } else if new.queue_full > reported.queue_full || new.late > reported.late {
            // Their own event may need a tag that never comes.
            self.schedule(now);
        }
        reports.retain(|(_, tags)| *tags > 0);
        reports
    }

    /// Returns the number of tags that a full queue has dropped since the last report.
    pub(super) fn take_queue_full(&mut self, queue_full: u64) -> u64 {
        take_new("", queue_full, &mut self.reported.dropped.queue_full).1
    }

    /// Returns the number of late tags since the last report.
    pub(super) fn take_late(&mut self, late: u64) -> u64 {
        take_new("", late, &mut self.reported.dropped.late).1
    }
}

fn take_new(reason: &'static str, count: u64, reported: &mut u64) -> (&'static str, u64) {
    let new = count.saturating_sub(*reported);
    *reported = (*reported).max(count);
    (reason, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(before_keyframe: u64, late: u64) -> DropCounts {
        DropCounts {
            dropped: Dropped {
                before_keyframe,
                late,
                ..Dropped::default()
            },
            ..DropCounts::default()
        }
    }

    #[test]
    fn every_tag_is_reported_once_and_not_too_often() {
        let mut reports = DropReports::default();
        let start = Instant::now();
        let mut at = |millis, counts: &DropCounts, scope| {
            let now = start + Duration::from_millis(millis);
            let is_due = reports.is_due(scope, now);
            is_due.then(|| reports.report(counts, scope, now))
        };
        use ReportScope::{Regular, Rest};
        assert_eq!(
            at(0, &counts(2, 0), Regular),
            Some(vec![("before-keyframe", 2)])
        );
        assert_eq!(at(999, &counts(5, 3), Regular), None);
        assert_eq!(
            at(1000, &counts(6, 3), Regular),
            Some(vec![("before-keyframe", 4)])
        );
        let rest = vec![("before-keyframe", 1), ("late", 3)];
        assert_eq!(at(1001, &counts(7, 3), Rest), Some(rest));
        assert_eq!(at(1002, &counts(7, 3), Rest), Some(vec![]));
    }

    #[test]
    fn report_is_due_by_itself_after_the_interval() {
        let mut reports = DropReports::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let due = |reports: &DropReports| reports.deadline().map(|due| due - start);
        assert_eq!(due(&reports), None);
        reports.report(&counts(1, 0), ReportScope::Regular, at(0));
        assert_eq!(due(&reports), None);
        // After the report before it, however often it is asked for.
        reports.schedule(at(300));
        reports.schedule(at(900));
        assert_eq!(due(&reports), Some(MIN_INTERVAL));
        reports.report(&counts(3, 0), ReportScope::Rest, at(1000));
        assert_eq!(due(&reports), None);
        reports.schedule(at(5000));
        assert_eq!(due(&reports), Some(Duration::from_millis(6000)));
        // Late tags wait for their own event, but not for ever.
        reports.report(&counts(4, 2), ReportScope::Regular, at(6000));
        assert_eq!(due(&reports), Some(Duration::from_millis(7000)));
        let rest = reports.report(&counts(4, 2), ReportScope::Rest, at(7000));
        assert_eq!(rest, [("late", 2)]);
        assert_eq!(due(&reports), None);
    }
}
