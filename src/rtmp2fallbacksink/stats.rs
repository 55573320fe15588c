// SPDX-License-Identifier: MPL-2.0

//! The property `stats`.

use std::time::{Duration, Instant};

use super::FallbackStatus;
use super::coordinator::QueueLevels;

/// Age beyond which a measured rate is no longer reported.
const MAX_RATE_AGE: Duration = Duration::from_secs(3);

/// Status and counters that the driver maintains.
#[derive(Debug)]
pub(super) struct Telemetry {
    status: FallbackStatus,
    location: Option<usize>,
    /// Time at which the present connection or outage began.
    since: Instant,
    /// Total connected time, without the present connection.
    uptime: Duration,
    /// Total time without a server, without the present outage.
    downtime: Duration,
    pub(super) attempts: u64,
    connections: u64,
    last_error: Option<(String, Instant)>,
}

impl Telemetry {
    pub(super) fn new(now: Instant) -> Self {
        Telemetry {
            status: FallbackStatus::Disconnected,
            location: None,
            since: now,
            uptime: Duration::ZERO,
            downtime: Duration::ZERO,
            attempts: 0,
            connections: 0,
            last_error: None,
        }
    }

    pub(super) fn status(&self) -> FallbackStatus {
        self.status
    }

    /// Sets the status. Returns true if it has changed.
    pub(super) fn set(
        &mut self,
        status: FallbackStatus,
        location: Option<usize>,
        now: Instant,
    ) -> bool {
        if (status, location) == (self.status, self.location) {
            return false;
        }
        let (was_up, is_up) = (
            self.status == FallbackStatus::Connected,
            status == FallbackStatus::Connected,
        );
        if was_up != is_up {
            let elapsed = now.saturating_duration_since(self.since);
            let total = if was_up {
                &mut self.uptime
            } else {
                &mut self.downtime
            };
            *total += elapsed;
            self.since = now;
        }
        self.connections += u64::from(is_up);
        self.status = status;
        self.location = location;
        true
    }

    pub(super) fn fail(&mut self, reason: &str, now: Instant) {
        self.last_error = Some((reason.to_owned(), now));
    }

    pub(super) fn last_error(&self) -> String {
        let error = self.last_error.as_ref();
        error.map_or_else(String::new, |(reason, _)| reason.clone())
    }

    pub(super) fn structure(&self, levels: Option<&QueueLevels>, now: Instant) -> gst::Structure {
        let is_up = self.status == FallbackStatus::Connected;
        let elapsed = now.saturating_duration_since(self.since);
        let (up, down) = if is_up {
            (elapsed, Duration::ZERO)
        } else {
            (Duration::ZERO, elapsed)
        };
        let uptime = self.uptime + up;
        let error_age = self
            .last_error
            .as_ref()
            .map(|(_, at)| now.saturating_duration_since(*at));
        let sent = levels.map(|levels| levels.sent).unwrap_or_default();
        let average = if uptime.is_zero() {
            0
        } else {
            (sent.bytes as f64 * 8.0 / uptime.as_secs_f64()) as u64
        };
        let rate = levels.and_then(|levels| {
            let age = now.saturating_duration_since(levels.rate_at?);
            (is_up && age < MAX_RATE_AGE).then_some(levels.rate)
        });
        gst::Structure::builder("application/x-rtmp2fallbacksink-stats")
            .field("status", self.status)
            .field(
                "location-index",
                self.location.map_or(-1, |index| index as i32),
            )
            .field("tags-sent", sent.tags)
            .field("bytes-sent", sent.bytes)
            .field("tags-dropped", levels.map_or(0, |levels| levels.dropped))
            .field("bitrate", rate.unwrap_or_default())
            .field("bitrate-average", average)
            .field("bitrate-peak", levels.map_or(0, |levels| levels.peak))
            .field(
                "current-level-bytes",
                levels.map_or(0, |levels| levels.bytes as u64),
            )
            .field(
                "current-level-time",
                nanos(levels.map_or(Duration::ZERO, |levels| levels.time)),
            )
            .field("attempts", self.attempts)
            .field("connections", self.connections)
            .field("uptime", nanos(up))
            .field("outage", nanos(down))
            .field("total-uptime", nanos(uptime))
            .field("downtime", nanos(self.downtime + down))
            .field("last-error", self.last_error())
            .field("time-since-last-error", error_age.map_or(u64::MAX, nanos))
            .build()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[test]
fn uptime_and_downtime_add_up_to_the_total_time() {
    gst::init().unwrap();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut telemetry = Telemetry::new(start);
    assert!(!telemetry.set(FallbackStatus::Disconnected, None, at(1)));
    assert!(telemetry.set(FallbackStatus::Connecting, Some(0), at(2)));
    assert!(telemetry.set(FallbackStatus::Connected, Some(0), at(3)));
    // Moves to another server without a gap.
    assert!(telemetry.set(FallbackStatus::Connected, Some(1), at(7)));
    assert!(telemetry.set(FallbackStatus::Disconnected, None, at(8)));
    let stats = telemetry.structure(None, at(10));
    for (name, seconds) in [
        ("total-uptime", 5),
        ("downtime", 5),
        ("outage", 2),
        ("uptime", 0),
    ] {
        assert_eq!(stats.get(name), Ok(seconds * 1_000_000_000u64), "{name}");
    }
    assert_eq!(stats.get("connections"), Ok(2u64));
}
