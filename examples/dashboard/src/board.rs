// SPDX-License-Identifier: MPL-2.0

//! All streams of a program with their last ten minutes, read once a second.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::journal;
use prometheus::proto::MetricFamily;
use tokio::time::{MissedTickBehavior, interval};

use crate::facts::Facts;
use crate::history::{self, Columns, History, Sample};
use crate::metrics;
use crate::options::{Options, Token};
use crate::program::{Detail, Observation, Program};
use crate::rejected_clients::RejectedClients;
use crate::state::StreamState;
use crate::watch::unix_time;

/// Time for which a stream that the program does not have any more is shown.
const REMEMBERED: Duration = Duration::from_secs(history::CAPACITY as u64 * history::INTERVAL);
/// Such streams; more are forgotten earlier, the oldest first.
const MAX_REMEMBERED: usize = 200;

/// Everything that the page shows.
pub struct Board {
    /// The name of the program.
    pub title: &'static str,
    pub program: Arc<dyn Program>,
    pub refusals: Arc<RejectedClients>,
    pub token: Option<Token>,
    pub plots: Option<PlotFiles>,
    started: Instant,
    is_draining: AtomicBool,
    streams: Mutex<Vec<Entry>>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("title", &self.title).finish()
    }
}

/// The files of uPlot, which draws the plots.
#[derive(Debug, Clone)]
pub struct PlotFiles {
    pub script: Bytes,
    pub style: Bytes,
}

impl PlotFiles {
    /// Reads them from the folder of the npm package. Without them the log says how to get them.
    pub fn read(folder: &Path) -> Option<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            let file = std::fs::read(&path);
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        let script = read("uPlot.iife.min.js");
        match script.and_then(|script| Ok((script, read("uPlot.min.css")?))) {
            Ok((script, style)) => Some(PlotFiles {
                script: script.into(),
                style: style.into(),
            }),
            Err(problem) => {
                journal::warning("no-plots").say(format!(
                    "the page has no plots, since uPlot is missing: {problem}. Install it with npm ci --prefix \
                     examples/dashboard/page, or set --uplot"
                ));
                None
            }
        }
    }
}

/// One stream, present or gone.
#[derive(Debug)]
struct Entry {
    snapshot: Snapshot,
    history: History,
    /// The last time when the program had it.
    seen: Instant,
    rates: KindRates,
}

/// A stream as it was last read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub name: String,
    pub application: String,
    pub stream: String,
    pub facts: Facts,
    pub details: Vec<Detail>,
    pub sample: Sample,
    /// Time since it has this state.
    pub since: f64,
    /// Bits per second of audio and video alone.
    pub audio_bitrate: u64,
    pub video_bitrate: u64,
    pub has_publisher: bool,
    pub has_picture: bool,
}

/// Rates of audio and video, from their counters.
#[derive(Debug, Default)]
struct KindRates {
    /// Time and bytes of audio and video at the sample before.
    last: Option<(f64, u64, u64)>,
    audio: u64,
    video: u64,
}

impl KindRates {
    fn update(&mut self, time: f64, facts: &Facts) {
        let (audio, video) = (facts.audio_bytes, facts.video_bytes);
        let last = self.last.replace((time, audio, video));
        // Counters start again with each publisher.
        let fresh = (time, 0, 0);
        let (before, audio_before, video_before) = match last {
            Some(last) if last.1 <= audio && last.2 <= video => last,
            Some(last) => (last.0, 0, 0),
            None => fresh,
        };
        let seconds = time - before;
        let rate = |bytes: u64| match seconds > 0.0 {
            true => (bytes as f64 * 8.0 / seconds) as u64,
            false => 0,
        };
        self.audio = rate(audio - audio_before);
        self.video = rate(video - video_before);
    }
}

impl Board {
    /// Fails where the token cannot be read.
    pub fn new(
        title: &'static str,
        program: Arc<dyn Program>,
        refusals: Arc<RejectedClients>,
        options: &Options,
    ) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Board {
            title,
            program,
            refusals,
            token: options.token()?,
            plots: PlotFiles::read(&options.uplot),
            started: Instant::now(),
            is_draining: AtomicBool::new(false),
            streams: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        // No panic leaves it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the statistics once a second, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = interval(Duration::from_secs(history::INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.sample(unix_time(), Instant::now());
        }
    }

    /// Adds a sample of each stream.
    pub fn sample(&self, time: f64, now: Instant) {
        let observations = self.program.observations();
        let mut streams = self.lock();
        let mut known: HashMap<String, Entry> = std::mem::take(&mut *streams)
            .into_iter()
            .map(|entry| (entry.snapshot.name.clone(), entry))
            .collect();
        for observation in &observations {
            let entry = known.remove(&observation.name);
            streams.push(Entry::updated(entry, observation, time, now));
        }
        let is_remembered = |entry: &Entry| now.saturating_duration_since(entry.seen) < REMEMBERED;
        let mut gone: Vec<Entry> = known.into_values().filter(is_remembered).collect();
        gone.sort_by(|a, b| {
            let name = |entry: &Entry| entry.snapshot.name.clone();
            b.seen.cmp(&a.seen).then_with(|| name(a).cmp(&name(b)))
        });
        gone.truncate(MAX_REMEMBERED);
        gone.iter_mut().for_each(|entry| entry.stop(time));
        streams.append(&mut gone);
    }

    /// Returns all streams as they were last read, each with its samples after a time.
    pub fn snapshots(&self, after: f64) -> Vec<(Snapshot, Columns)> {
        let streams = self.lock();
        let with_history = |entry: &Entry| (entry.snapshot.clone(), entry.history.after(after));
        streams.iter().map(with_history).collect()
    }

    /// Returns the samples of one stream.
    pub fn history(&self, name: &str, after: f64) -> Option<Columns> {
        let streams = self.lock();
        let entry = streams.iter().find(|entry| entry.snapshot.name == name)?;
        Some(entry.history.after(after))
    }

    /// Returns the metrics for Prometheus.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        metrics::families(&*self.program, &self.refusals)
    }

    /// Returns the present reading of a stream.
    pub fn observation(&self, name: &str) -> Option<Observation> {
        let observations = self.program.observations();
        observations
            .into_iter()
            .find(|observation| observation.name == name)
    }

    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        journal::warning("draining").say("draining: an operator has asked for it");
        self.program.drain();
    }

    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Returns the time since the program has started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Entry {
    fn updated(entry: Option<Entry>, observation: &Observation, time: f64, now: Instant) -> Self {
        let facts = observation.stats.as_ref().map(|stats| Facts::of(stats));
        let facts = facts.unwrap_or_default();
        let sample = Sample {
            time,
            bitrate: observation.bitrate,
            frame_rate: observation.frame_rate(),
            state: observation.state,
        };
        let before = entry.as_ref().map(|entry| &entry.snapshot);
        let since = match before {
            Some(before) if before.sample.state == observation.state => before.since,
            _ => time,
        };
        let (history, mut rates) = match entry {
            Some(entry) => (entry.history, entry.rates),
            None => (History::default(), KindRates::default()),
        };
        rates.update(time, &facts);
        let has_media = observation.state == StreamState::Active;
        let mut entry = Entry {
            snapshot: Snapshot {
                name: observation.name.clone(),
                application: observation.application.clone(),
                stream: observation.stream.clone(),
                has_publisher: observation.control.is_some() && facts.address.is_some(),
                has_picture: observation
                    .picture
                    .as_ref()
                    .is_some_and(|last| last.exists()),
                facts,
                details: observation.details.clone(),
                sample,
                since,
                audio_bitrate: if has_media { rates.audio } else { 0 },
                video_bitrate: if has_media { rates.video } else { 0 },
            },
            history,
            seen: now,
            rates,
        };
        entry.history.push(sample);
        entry
    }

    /// Adds a sample of a stream that the program does not have any more.
    fn stop(&mut self, time: f64) {
        let sample = Sample {
            time,
            bitrate: 0,
            frame_rate: None,
            state: StreamState::Stopped,
        };
        let snapshot = &mut self.snapshot;
        if snapshot.sample.state != StreamState::Stopped {
            snapshot.since = time;
        }
        snapshot.sample = sample;
        snapshot.facts = Facts::default();
        snapshot.details.clear();
        (snapshot.audio_bitrate, snapshot.video_bitrate) = (0, 0);
        (snapshot.has_publisher, snapshot.has_picture) = (false, false);
        self.history.push(sample);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program whose streams a test sets.
    #[derive(Debug, Default)]
    pub(crate) struct Scripted {
        pub streams: Mutex<Vec<(String, gst::Structure)>>,
        pub is_drained: AtomicBool,
    }

    impl Program for Scripted {
        fn observations(&self) -> Vec<Observation> {
            let streams = self.streams.lock().unwrap();
            let observation = |(name, stats): &(String, gst::Structure)| {
                Observation::of_stats(name, "live", name, stats.clone())
            };
            streams.iter().map(observation).collect()
        }

        fn drain(&self) {
            self.is_drained.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(status: u64, bitrate: u64, frame_rate: f64) -> gst::structure::Builder {
        gst::Structure::builder("stats")
            .field("stream-status", status)
            .field("bitrate", bitrate)
            .field("frame-rate", frame_rate)
    }

    pub(crate) fn board(token: Option<&str>) -> (Arc<Board>, Arc<Scripted>) {
        gst::init().unwrap();
        let program = Arc::new(Scripted::default());
        let options = Options {
            token_file: None,
            uplot: "missing".into(),
            log_format: journal::LogFormat::Text,
        };
        let board = Board::new("test", program.clone(), Arc::default(), &options);
        let mut board = Arc::into_inner(board.unwrap()).unwrap();
        board.token = token.map(|token| Token::new(token.as_bytes()).unwrap());
        (Arc::new(board), program)
    }

    #[test]
    fn every_sample_equals_the_statistics() {
        let (board, program) = board(None);
        let start = Instant::now();
        let script = [
            (4, 0, 0.0, None),
            (2, 900, 0.0, None),
            (1, 1_000_000, 25.0, Some(25.0)),
            (1, 1_234_567, 24.9, Some(24.9)),
            // The statistics keep the rate of a publisher that is silent.
            (3, 0, 24.9, None),
            (1, 1_100_000, 29.97, Some(29.97)),
        ];
        for (second, (status, bitrate, frame_rate, _)) in script.into_iter().enumerate() {
            let stats = stats(status, bitrate, frame_rate).build();
            *program.streams.lock().unwrap() = vec![("a".to_owned(), stats)];
            board.sample(second as f64 + 1.0, start);
        }
        let columns = board.history("a", 0.0).unwrap();
        assert_eq!(columns.time, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(columns.bitrate, script.map(|line| line.1));
        assert_eq!(columns.frame_rate, script.map(|line| line.3));
        assert_eq!(columns.state, script.map(|line| line.0 as u8));
        let (snapshot, rest) = board.snapshots(5.0).pop().unwrap();
        assert_eq!((snapshot.sample.bitrate, snapshot.since), (1_100_000, 6.0));
        assert_eq!(rest.time, [6.0]);
        assert!(board.history("b", 0.0).is_none());
    }

    #[test]
    fn a_stream_that_is_gone_stays_for_ten_minutes() {
        let (board, program) = board(None);
        let start = Instant::now();
        *program.streams.lock().unwrap() = vec![("a".to_owned(), stats(1, 5, 25.0).build())];
        board.sample(1.0, start);
        program.streams.lock().unwrap().clear();
        board.sample(2.0, start + Duration::from_secs(1));
        let (snapshot, columns) = board.snapshots(0.0).pop().unwrap();
        assert_eq!(
            (snapshot.sample.state, snapshot.since),
            (StreamState::Stopped, 2.0)
        );
        assert_eq!((columns.bitrate, columns.state), (vec![5, 0], vec![1, 4]));
        board.sample(3.0, start + REMEMBERED);
        assert!(board.snapshots(0.0).is_empty());
    }

    #[test]
    fn names_of_gone_streams_do_not_pile_up() {
        let (board, program) = board(None);
        let start = Instant::now();
        for second in 0..1000 {
            let stream = (second.to_string(), stats(1, 5, 25.0).build());
            *program.streams.lock().unwrap() = vec![stream];
            board.sample(
                f64::from(second),
                start + Duration::from_millis(second as u64),
            );
        }
        let names = board.snapshots(f64::MAX);
        assert_eq!(names.len(), MAX_REMEMBERED + 1);
        assert_eq!(names[1].0.name, "998");
    }

    #[test]
    fn rates_of_audio_and_video_follow_their_counters() {
        let mut rates = KindRates::default();
        let mut update = |time, audio_bytes, video_bytes| {
            let facts = Facts {
                audio_bytes,
                video_bytes,
                ..Facts::default()
            };
            rates.update(time, &facts);
            (rates.audio, rates.video)
        };
        assert_eq!(update(10.0, 1000, 5000), (0, 0));
        assert_eq!(update(12.0, 3000, 10_000), (8000, 20_000));
        // Another publisher.
        assert_eq!(update(13.0, 100, 1000), (800, 8000));
    }
}
