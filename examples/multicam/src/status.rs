// SPDX-License-Identifier: MPL-2.0

//! The status of a stream: written by its own thread, read by the screen and the metrics.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::FallbackStatus;

use dashboard::thumbnail::LastPicture;

use super::plan::Name;
use super::table::Row;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    /// No publisher, or a file is held back until a server accepts the stream.
    Waiting,
    Starting,
    Active,
    Stalled,
    Ended,
    /// The pipeline has failed, and starts again after a while.
    Failed,
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SourceState::Waiting => "waiting",
            SourceState::Starting => "starting",
            SourceState::Active => "active",
            SourceState::Stalled => "stalled",
            SourceState::Ended => "ended",
            SourceState::Failed => "failed",
        })
    }
}

/// The parts of a status that make it another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub source: SourceState,
    pub sink: FallbackStatus,
    /// Index of the server in use, from 0, or -1.
    pub index: i32,
    /// That server, without secrets.
    pub location: String,
    /// The reason why the last server was left, or why the pipeline failed.
    pub error: String,
}

impl Condition {
    pub fn new(source: SourceState) -> Self {
        Condition {
            source,
            sink: FallbackStatus::Disconnected,
            index: -1,
            location: String::new(),
            error: String::new(),
        }
    }
}

/// A status and its beginning.
#[derive(Debug, Clone)]
pub struct StatusChange {
    pub status: Condition,
    /// In local time.
    pub since: Option<glib::DateTime>,
}

impl StatusChange {
    fn now(status: Condition) -> Self {
        let since = glib::DateTime::now_local().ok();
        StatusChange { status, since }
    }
}

/// Statistics of the sink that are summed over all pipelines of a stream.
pub const COUNTERS: [&str; 7] = [
    "tags-sent",
    "bytes-sent",
    "tags-dropped",
    "attempts",
    "connections",
    "total-uptime",
    DOWNTIME,
];

const DOWNTIME: &str = "downtime";

#[derive(Debug)]
pub struct SharedStatus {
    pub name: Name,
    inner: Mutex<SharedFields>,
}

#[derive(Debug)]
struct SharedFields {
    state: StatusChange,
    /// The status is yet to be shown, even if it stays the same.
    is_new: bool,
    restarts: u64,
    sink: Option<gst::Element>,
    /// The source of the present pipeline, if publishers connect to it.
    publisher_source: Option<gst::Element>,
    /// The last picture of the present pipeline, if it has pictures before they are encoded.
    picture: Option<Arc<LastPicture>>,
    /// Time without a sink since then.
    without_sink: Instant,
    /// Sums of earlier sinks, in the order of [`COUNTERS`].
    totals: [u64; COUNTERS.len()],
}

/// The present status.
#[derive(Debug)]
pub struct Snapshot {
    pub state: StatusChange,
    pub restarts: u64,
    /// In the order of [`COUNTERS`].
    pub counters: [u64; COUNTERS.len()],
    /// Statistics of the present sink.
    pub stats: Option<gst::Structure>,
}

impl SharedStatus {
    pub fn new(name: Name, status: Condition) -> Self {
        let inner = SharedFields {
            state: StatusChange::now(status),
            is_new: true,
            restarts: 0,
            sink: None,
            publisher_source: None,
            picture: None,
            without_sink: Instant::now(),
            totals: Default::default(),
        };
        let inner = Mutex::new(inner);
        SharedStatus { name, inner }
    }

    fn lock(&self) -> MutexGuard<'_, SharedFields> {
        // No panic leaves it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> StatusChange {
        self.lock().state.clone()
    }

    /// Returns the new status where it is another one, or the first one since the start.
    pub fn update(&self, change: impl FnOnce(&mut Condition)) -> Option<StatusChange> {
        let mut inner = self.lock();
        let mut status = inner.state.status.clone();
        change(&mut status);
        let is_new = std::mem::take(&mut inner.is_new);
        (is_new || status != inner.state.status).then(|| {
            inner.state = StatusChange::now(status);
            inner.state.clone()
        })
    }

    /// Begins anew with a status that [`Self::update`] returns once it holds.
    pub fn start_over(&self, status: Condition) {
        let mut inner = self.lock();
        inner.state = StatusChange::now(status);
        inner.is_new = true;
    }

    /// Called when a pipeline starts.
    pub fn attach(&self, sink: &gst::Element) {
        let mut inner = self.lock();
        let downtime = nanos(inner.without_sink.elapsed());
        inner.add(|field| if field == DOWNTIME { downtime } else { 0 });
        inner.sink = Some(sink.clone());
    }

    /// Called before a pipeline ends.
    pub fn detach(&self) {
        let mut inner = self.lock();
        if let Some(sink) = inner.sink.take() {
            let stats: gst::Structure = sink.property("stats");
            inner.add(|field| stats.get(field).unwrap_or_default());
            inner.without_sink = Instant::now();
        }
    }

    /// Called when a pipeline starts and ends, with its source where publishers connect to it, and
    /// its pictures where it has them.
    pub fn set_source(
        &self,
        publisher_source: Option<gst::Element>,
        picture: Option<Arc<LastPicture>>,
    ) {
        let mut inner = self.lock();
        inner.publisher_source = publisher_source;
        inner.picture = picture;
    }

    pub fn publisher_source(&self) -> Option<gst::Element> {
        self.lock().publisher_source.clone()
    }

    pub fn picture(&self) -> Option<Arc<LastPicture>> {
        self.lock().picture.clone()
    }

    pub fn count_restart(&self) {
        self.lock().restarts += 1;
    }

    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let stats: Option<gst::Structure> = inner.sink.as_ref().map(|sink| sink.property("stats"));
        let downtime = nanos(inner.without_sink.elapsed());
        let now = |field: &str| match &stats {
            Some(stats) => stats.get(field).unwrap_or_default(),
            None if field == DOWNTIME => downtime,
            None => 0,
        };
        let mut counters = inner.totals;
        for (counter, field) in counters.iter_mut().zip(COUNTERS) {
            *counter += now(field);
        }
        Snapshot {
            state: inner.state.clone(),
            restarts: inner.restarts,
            counters,
            stats,
        }
    }

    /// Returns the line that shows the present status.
    pub fn line(&self) -> String {
        line(&self.name, &self.snapshot())
    }

    /// Returns the row that shows the present status in a table.
    pub fn row(&self) -> Row {
        row(&self.name, &self.snapshot())
    }

    /// Returns the line for an earlier state: the present one may differ, and has a line of its
    /// own.
    pub fn line_of(&self, state: StatusChange) -> String {
        let snapshot = Snapshot {
            state,
            ..self.snapshot()
        };
        line(&self.name, &snapshot)
    }
}

impl SharedFields {
    fn add(&mut self, more: impl Fn(&str) -> u64) {
        for (total, field) in self.totals.iter_mut().zip(COUNTERS) {
            *total += more(field);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the state of the sink, and which server it uses.
pub fn sink_text(status: &Condition) -> String {
    let sink = match status.sink {
        FallbackStatus::Disconnected => "disconnected",
        FallbackStatus::Connecting => "connecting",
        FallbackStatus::Connected => "connected",
        FallbackStatus::Error => "given up",
    };
    let which = match status.index {
        ..1 => String::new(),
        n => format!(" (fallback {n})"),
    };
    format!("{sink}{which}")
}

fn row(name: &Name, snapshot: &Snapshot) -> Row {
    let StatusChange { status, since } = &snapshot.state;
    let stats = snapshot.stats.as_ref();
    let rate: Option<u64> = stats.and_then(|stats| stats.get("bitrate").ok());
    let [_, _, dropped, ..] = snapshot.counters;
    Row {
        stream: name.to_string(),
        source: status.source.to_string(),
        sink: sink_text(status),
        bitrate: bits(rate.unwrap_or_default()),
        dropped: dropped.to_string(),
        since: since.as_ref().map_or_else(String::new, time),
        server: status.location.clone(),
        reason: status.error.clone(),
    }
}

/// The most important part comes first: terminals are narrow.
fn line(name: &Name, snapshot: &Snapshot) -> String {
    let row = row(name, snapshot);
    let mut line = format!(
        "{}: source {}, sink {}, {}, {} dropped",
        row.stream, row.source, row.sink, row.bitrate, row.dropped
    );
    if !row.since.is_empty() {
        line.push_str(&format!(", since {}", row.since));
    }
    if !row.server.is_empty() {
        line.push_str(&format!(", {}", row.server));
    }
    if !row.reason.is_empty() {
        line.push_str(&format!(" (last error: {})", row.reason));
    }
    line
}

fn bits(rate: u64) -> String {
    match rate {
        0..1_000_000 => format!("{} kbit/s", rate / 1000),
        _ => format!("{:.1} Mbit/s", rate as f64 / 1e6),
    }
}

fn time(since: &glib::DateTime) -> String {
    let day = |time: &glib::DateTime| time.ymd();
    let is_today = glib::DateTime::now_local().is_ok_and(|now| day(&now) == day(since));
    let format = if is_today { "%H:%M:%S" } else { "%F %H:%M:%S" };
    let text = since.format(format);
    text.map_or_else(|_| String::new(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name {
            camera: "7".to_owned(),
            stream: "main".to_owned(),
        }
    }

    #[test]
    fn a_line_shows_the_whole_status() {
        let mut status = Condition::new(SourceState::Active);
        status.sink = FallbackStatus::Connected;
        status.index = 1;
        status.location = "rtmp://second.example/live/ca…".to_owned();
        status.error = "Connection refused".to_owned();
        let mut snapshot = Snapshot {
            state: StatusChange {
                status,
                since: glib::DateTime::from_local(2026, 2, 3, 4, 5, 6.7).ok(),
            },
            restarts: 0,
            counters: [120, 0, 3, 0, 0, 0, 0],
            stats: None,
        };
        assert_eq!(
            line(&name(), &snapshot),
            "7/main: source active, sink connected (fallback 1), 0 kbit/s, 3 dropped, since 2026-02-03 04:05:06, \
             rtmp://second.example/live/ca… (last error: Connection refused)"
        );
        snapshot.state = StatusChange {
            status: Condition::new(SourceState::Waiting),
            since: None,
        };
        assert_eq!(
            line(&name(), &snapshot),
            "7/main: source waiting, sink disconnected, 0 kbit/s, 3 dropped"
        );
        assert_eq!(bits(2_050_000), "2.0 Mbit/s");
    }

    #[test]
    fn the_first_status_is_told_when_it_holds_and_others_when_they_differ() {
        let waiting = Condition::new(SourceState::Waiting);
        let shared = SharedStatus::new(name(), waiting.clone());
        let told = |status: &Condition| {
            let change = shared.update(|present| *present = status.clone());
            change.map(|change| change.status)
        };
        assert_eq!(told(&waiting), Some(waiting.clone()));
        assert_eq!(told(&waiting), None);
        let failed = Condition::new(SourceState::Failed);
        assert_eq!(told(&failed), Some(failed.clone()));
        assert_eq!(told(&failed), None);
        shared.start_over(waiting.clone());
        assert_eq!(shared.state().status, waiting);
        assert_eq!(told(&waiting), Some(waiting.clone()));
        assert_eq!(told(&waiting), None);
    }

    #[test]
    fn each_state_has_a_line_of_its_own() {
        let shared = SharedStatus::new(name(), Condition::new(SourceState::Waiting));
        let mut turn = |source| shared.update(|status| status.source = source);
        let [_, active, ended] = [
            SourceState::Waiting,
            SourceState::Active,
            SourceState::Ended,
        ]
        .map(&mut turn);
        let lines = [active, ended].map(|state| shared.line_of(state.unwrap()));
        assert!(lines[0].starts_with("7/main: source active, "), "{lines:?}");
        assert!(lines[1].starts_with("7/main: source ended, "), "{lines:?}");
    }

    #[test]
    fn counters_continue_with_another_sink() {
        gst::init().unwrap();
        gstrtmp2server::plugin_register_static().unwrap();
        let shared = SharedStatus::new(name(), Condition::new(SourceState::Waiting));
        for _ in 0..3 {
            let sink = gst::ElementFactory::make("rtmp2fallbacksink")
                .build()
                .unwrap();
            shared.attach(&sink);
            let [.., before] = shared.snapshot().counters;
            shared.detach();
            let [.., after] = shared.snapshot().counters;
            assert!(0 < before && before < after);
        }
    }
}
