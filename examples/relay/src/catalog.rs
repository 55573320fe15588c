// SPDX-License-Identifier: MPL-2.0

//! The present streams and their state. The pipelines write it; the web server, the metrics and the
//! notifications read it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dashboard::thumbnail::LastPicture;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The playlist's file name in the directory of its stream.
pub const PLAYLIST: &str = "index.m3u8";

/// The address of a publisher: `{application}/{user}/{stream}` or `{application}/{stream}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    pub application: String,
    pub user: Option<String>,
    pub stream: String,
}

impl StreamName {
    /// Returns `None` where a part cannot name a directory, would be hidden, or could name a file
    /// in there.
    pub fn new(application: &str, user: Option<&str>, stream: &str) -> Option<Self> {
        let is_name = |part: &str| {
            let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
            !part.is_empty()
                && part.len() <= 255
                && !part.starts_with('.')
                && !part.ends_with(".m3u8")
                && !part.ends_with(".ts")
                && part.chars().all(is_plain)
        };
        let parts = [Some(application), user, Some(stream)];
        let are_names = parts.into_iter().flatten().all(is_name);
        are_names.then(|| StreamName {
            application: application.to_owned(),
            user: user.map(str::to_owned),
            stream: stream.to_owned(),
        })
    }

    /// Returns the stream's directory, relative to that of all streams.
    pub fn directory(&self) -> PathBuf {
        let parts = [
            Some(&self.application),
            self.user.as_ref(),
            Some(&self.stream),
        ];
        parts.into_iter().flatten().collect()
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{}/{user}/{}", self.application, self.stream),
            None => write!(f, "{}/{}", self.application, self.stream),
        }
    }
}

/// The state of a stream that has a publisher, or may have it back in a moment.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub since: Instant,
    /// The playlist can be played.
    pub is_ready: bool,
    /// No media arrives: its publisher was cut off.
    pub is_interrupted: bool,
    /// The stream is clean and passes through as it comes.
    pub is_passed_through: bool,
    /// The problem with its files.
    pub failure: Option<String>,
    /// The last decoded picture of a stream that is cleaned.
    pub picture: Arc<LastPicture>,
    pub counts: StreamCounters,
}

/// Counters of one stream since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCounters {
    pub segments: u64,
    pub segment_bytes: u64,
    pub discontinuities: u64,
    pub frames_in: u64,
    pub frames_out: u64,
    pub frames_duplicated: u64,
    pub frames_dropped: u64,
}

impl AddAssign for StreamCounters {
    fn add_assign(&mut self, other: StreamCounters) {
        self.segments += other.segments;
        self.segment_bytes += other.segment_bytes;
        self.discontinuities += other.discontinuities;
        self.frames_in += other.frames_in;
        self.frames_out += other.frames_out;
        self.frames_duplicated += other.frames_duplicated;
        self.frames_dropped += other.frames_dropped;
    }
}

/// Counters of all streams since the start, ended ones included: they never go back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub streams: u64,
    pub counts: StreamCounters,
}

/// A change that receivers of notifications learn of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The playlist has its first segments.
    Ready(StreamName),
    /// A stream that was ready has ended.
    Gone(StreamName),
}

#[derive(Debug)]
pub struct Catalog {
    streams: Mutex<BTreeMap<StreamName, StreamInfo>>,
    /// Counters of ended streams. Locked after the streams.
    past: Mutex<Totals>,
    changes: UnboundedSender<Change>,
}

impl Catalog {
    /// Also returns the receiver of all changes, in order.
    pub fn new() -> (Self, UnboundedReceiver<Change>) {
        let (changes, receiver) = unbounded_channel();
        let catalog = Catalog {
            streams: Mutex::default(),
            past: Mutex::default(),
            changes,
        };
        (catalog, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StreamName, StreamInfo>> {
        // No panic leaves it half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all streams, by name.
    pub fn streams(&self) -> Vec<(StreamName, StreamInfo)> {
        let streams = self.lock();
        let pairs = streams
            .iter()
            .map(|(name, stream)| (name.clone(), stream.clone()));
        pairs.collect()
    }

    fn lock_past(&self) -> MutexGuard<'_, Totals> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn totals(&self) -> Totals {
        let streams = self.lock();
        let mut totals = *self.lock_past();
        totals.streams += streams.len() as u64;
        for stream in streams.values() {
            totals.counts += stream.counts;
        }
        totals
    }

    fn has_ended(&self, stream: &StreamInfo) {
        let mut past = self.lock_past();
        past.streams += 1;
        past.counts += stream.counts;
    }

    pub fn add(&self, name: &StreamName) {
        let stream = StreamInfo {
            since: Instant::now(),
            is_ready: false,
            is_interrupted: false,
            is_passed_through: false,
            failure: None,
            picture: Arc::default(),
            counts: StreamCounters::default(),
        };
        let mut streams = self.lock();
        if let Some(before) = streams.insert(name.clone(), stream) {
            self.has_ended(&before);
        }
    }

    /// Returns the place of a stream's last picture; an unused one for a stream that has ended.
    pub fn last_picture(&self, name: &StreamName) -> Arc<LastPicture> {
        let streams = self.lock();
        let stream = streams.get(name);
        stream.map_or_else(Arc::default, |stream| stream.picture.clone())
    }

    /// Does nothing for a stream that has ended.
    pub fn update(&self, name: &StreamName, change: impl FnOnce(&mut StreamInfo)) {
        let mut streams = self.lock();
        let Some(stream) = streams.get_mut(name) else {
            return;
        };
        let was_ready = stream.is_ready;
        change(stream);
        if stream.is_ready && !was_ready {
            // Under the lock, so that changes are sent in their order. The receiver may be gone.
            let _ = self.changes.send(Change::Ready(name.clone()));
        }
    }

    pub fn remove(&self, name: &StreamName) {
        let mut streams = self.lock();
        let Some(stream) = streams.remove(name) else {
            return;
        };
        self.has_ended(&stream);
        if stream.is_ready {
            let _ = self.changes.send(Change::Gone(name.clone()));
        }
    }
}
