// SPDX-License-Identifier: MPL-2.0

//! Wake-ups of the streaming thread without an item: for reports of drops, and by calls.

use super::MediaQueue;

impl MediaQueue {
    /// Notes that tags were dropped elsewhere, which the streaming thread has to report.
    pub(crate) fn note_drop(&self) {
        let mut state = self.state.lock();
        state.drop_news.note();
        if state.has_drops_to_report() && !state.closed {
            self.wake_reader(&mut state);
        }
    }

    /// Notes that the streaming thread has set a time for its next report, and need not be woken for
    /// drops until then.
    pub(crate) fn set_report_due(&self) {
        self.state.lock().drop_news.set_report_due();
    }

    /// Begins a report: drops from now on are for the next one.
    pub(crate) fn begin_report(&self) {
        let mut state = self.state.lock();
        let drops = state.drops();
        state.drop_news.begin_report(drops);
    }

    /// Ends the wait of the streaming thread, or its next one.
    pub(crate) fn call_reader(&self) {
        let mut state = self.state.lock();
        state.reader_called = true;
        self.wake_reader(&mut state);
    }
}
