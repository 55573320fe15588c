// SPDX-License-Identifier: MPL-2.0

/// Drops that the streaming thread has not reported yet.
#[derive(Debug, Default)]
pub(super) struct DropNews {
    /// Drops that others than the queue have counted.
    noted: u64,
    /// Sum of all drops at the last report.
    reported: u64,
    /// The streaming thread has set a time for its next report.
    is_report_due: bool,
}

impl DropNews {
    /// Notes a drop that the queue does not count.
    pub(super) fn note(&mut self) {
        self.noted += 1;
    }

    /// Returns true where the streaming thread has to set a time for its next report. `drops` is the
    /// number of those that the queue has counted.
    pub(super) fn is_any(&self, drops: u64) -> bool {
        !self.is_report_due && drops + self.noted != self.reported
    }

    pub(super) fn set_report_due(&mut self) {
        self.is_report_due = true;
    }

    /// Begins a report of all drops so far.
    pub(super) fn begin_report(&mut self, drops: u64) {
        self.reported = drops + self.noted;
        self.is_report_due = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_once_and_again_after_the_report() {
        let mut news = DropNews::default();
        assert!(!news.is_any(0));
        news.note();
        assert!(news.is_any(0));
        news.set_report_due();
        assert!(!news.is_any(7));
        news.begin_report(7);
        assert!(!news.is_any(7));
        assert!(news.is_any(8));
    }
}
