// SPDX-License-Identifier: MPL-2.0

//! What is counted of an stream: of its present publisher, and of all since its start. Times are
//! passed in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::server::stream::ClientStats;

/// Counters over several publishers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaTotals {
    pub in_bytes: u64,
    pub audio_bytes: u64,
    pub video_bytes: u64,
    pub script_bytes: u64,
    pub audio_tags: u64,
    pub video_tags: u64,
    pub script_tags: u64,
    pub keyframes: u64,
    pub skipped: u64,
}

impl MediaTotals {
    fn with(self, stats: &ClientStats) -> Self {
        MediaTotals {
            in_bytes: self.in_bytes + stats.in_bytes_total,
            audio_bytes: self.audio_bytes + stats.audio_bytes,
            video_bytes: self.video_bytes + stats.video_bytes,
            script_bytes: self.script_bytes + stats.script_bytes,
            audio_tags: self.audio_tags + stats.audio_tags,
            video_tags: self.video_tags + stats.video_tags,
            script_tags: self.script_tags + stats.script_tags,
            keyframes: self.keyframes + stats.keyframes,
            skipped: self.skipped + stats.skipped,
        }
    }

    pub fn tags(&self) -> u64 {
        self.audio_tags + self.video_tags + self.script_tags
    }
}

/// How a publisher has come to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// Within the time for which the one before was awaited.
    Return,
    /// In the place of one that was still there.
    Replacement,
}

/// Why a client was refused or cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Without anything secret.
    pub reason: String,
    pub address: SocketAddr,
    pub at: Instant,
}

/// When there was a publisher, and when there was none.
#[derive(Debug, Clone, Copy, Default)]
struct Presence {
    /// When the present publisher, or the last one, came.
    came: Option<Instant>,
    /// When it left, if there is none.
    left: Option<Instant>,
    /// Without the present publisher, and without the present outage.
    uptime: Duration,
    downtime: Duration,
    publishers: u64,
    reconnects: u64,
    replacements: u64,
}

impl Presence {
    fn come(&mut self, how: Arrival, now: Instant) {
        match (self.left.take(), self.came) {
            (Some(left), _) => self.downtime += now.saturating_duration_since(left),
            (None, Some(came)) => self.uptime += now.saturating_duration_since(came),
            (None, None) => {}
        }
        self.came = Some(now);
        self.publishers += 1;
        self.reconnects += u64::from(how == Arrival::Return);
        self.replacements += u64::from(how == Arrival::Replacement);
    }

    fn leave(&mut self, now: Instant) {
        if let (Some(came), None) = (self.came, self.left) {
            self.uptime += now.saturating_duration_since(came);
            self.left = Some(now);
        }
    }

    /// How long the present publisher, or the last one, has been there.
    fn stay(&self, now: Instant) -> Duration {
        let until = self.left.unwrap_or(now);
        self.came
            .map_or(Duration::ZERO, |came| until.saturating_duration_since(came))
    }

    /// How long there has been no publisher now. Nothing before the first one.
    fn outage(&self, now: Instant) -> Duration {
        self.left
            .map_or(Duration::ZERO, |left| now.saturating_duration_since(left))
    }
}

/// All of it. It belongs into a lock that is a leaf.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    /// Whom the counters are of.
    client: u64,
    publisher: ClientStats,
    /// Of all that were before it.
    before: MediaTotals,
    attendance: Presence,
    last_error: Option<LastError>,
}

/// What there is to know at one time.
#[derive(Debug, Clone, Default)]
pub struct StreamStats {
    /// Of the present publisher, or the last one.
    pub publisher: ClientStats,
    /// How long that one has been there.
    pub stay: Duration,
    /// It is there.
    pub is_present: bool,
    /// Of all publishers.
    pub total: MediaTotals,
    pub publishers: u64,
    pub reconnects: u64,
    pub replacements: u64,
    pub uptime: Duration,
    /// Without a publisher, from when the first one left.
    pub downtime: Duration,
    /// The present one of those times.
    pub outage: Duration,
    pub last_error: Option<LastError>,
}

impl StreamCounters {
    pub(crate) fn come(&mut self, client: u64, how: Arrival, now: Instant) {
        self.attendance.come(how, now);
        self.before = self.before.with(&self.publisher);
        self.publisher = ClientStats::default();
        self.client = client;
    }

    pub(crate) fn leave(&mut self, now: Instant) {
        self.attendance.leave(now);
    }

    /// Counts for the publisher that there is, and not for one that was replaced.
    pub(crate) fn set(&mut self, client: u64, stats: &ClientStats) {
        if self.client == client {
            self.publisher = *stats;
        }
    }

    pub(crate) fn set_error(&mut self, error: LastError) {
        self.last_error = Some(error);
    }

    pub(crate) fn publishers(&self) -> u64 {
        self.attendance.publishers
    }

    pub(crate) fn totals(&self) -> MediaTotals {
        self.before.with(&self.publisher)
    }

    pub(crate) fn at(&self, now: Instant) -> StreamStats {
        let attendance = &self.attendance;
        let is_present = attendance.came.is_some() && attendance.left.is_none();
        let stay = attendance.stay(now);
        let outage = attendance.outage(now);
        StreamStats {
            publisher: self.publisher,
            stay,
            is_present,
            total: self.totals(),
            publishers: attendance.publishers,
            reconnects: attendance.reconnects,
            replacements: attendance.replacements,
            uptime: attendance.uptime + if is_present { stay } else { Duration::ZERO },
            downtime: attendance.downtime + outage,
            outage,
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn there_is_a_publisher_or_there_is_none() {
        let start = Instant::now();
        let mut counters = StreamCounters::default();
        // Nobody has been there yet: that is no outage.
        let stats = counters.at(start + 5 * SECOND);
        assert_eq!((stats.uptime, stats.downtime), Default::default());
        assert!(!stats.is_present);

        let at = |seconds: u32| start + seconds * SECOND;
        counters.come(1, Arrival::New, at(10));
        counters.leave(at(13));
        counters.leave(at(14));
        let stats = counters.at(at(15));
        assert_eq!((stats.uptime, stats.stay), (3 * SECOND, 3 * SECOND));
        assert_eq!((stats.downtime, stats.outage), (2 * SECOND, 2 * SECOND));

        counters.come(2, Arrival::Return, at(16));
        counters.come(3, Arrival::Replacement, at(20));
        let stats = counters.at(at(21));
        assert!(stats.is_present);
        assert_eq!((stats.uptime, stats.stay), (8 * SECOND, SECOND));
        assert_eq!((stats.downtime, stats.outage), (3 * SECOND, Duration::ZERO));
        let counts = (stats.publishers, stats.reconnects, stats.replacements);
        assert_eq!(counts, (3, 1, 1));
    }

    #[test]
    fn totals_are_of_all_publishers() {
        let now = Instant::now();
        let stats = |count| ClientStats {
            in_bytes_total: 10 * count,
            video_tags: count,
            ..ClientStats::default()
        };
        let mut counters = StreamCounters::default();
        counters.come(1, Arrival::New, now);
        counters.set(1, &stats(3));
        counters.come(2, Arrival::Replacement, now);
        // What the one before has yet to say is of nobody.
        counters.set(1, &stats(5));
        assert_eq!(counters.at(now).publisher, ClientStats::default());
        counters.set(2, &stats(1));
        counters.set(2, &stats(4));
        let total = counters.totals();
        assert_eq!((total.tags(), total.in_bytes), (7, 70));
        assert_eq!(counters.at(now).publisher, stats(4));
    }
}
