// SPDX-License-Identifier: MPL-2.0

//! The property `stats`. Names are those of rtmp2src where it has the same field. The documentation
//! of the element has the table of fields.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::ElementCounters;
use super::history::History;
use super::signals;
use super::state::Snapshot;
use crate::feed::ClockDrift;
use crate::flv::description::StreamDescription;
use crate::server::{
    self, CaptureStats, LastError, Publisher, QueueLevels, Stream, StreamStats, Totals,
};

/// Age from which a bitrate is out of date.
const MAX_RATE_AGE: Duration = Duration::from_secs(3);

pub(crate) type StatsBuilder = gst::structure::Builder;

/// The statistics of one stream at one time.
#[derive(Debug)]
pub(crate) struct StreamStatistics {
    now: Instant,
    state: Snapshot,
    publisher: Option<Arc<Publisher>>,
    stream: StreamStats,
    levels: QueueLevels,
    drift: ClockDrift,
    counters: ElementCounters,
    history: History,
    description: StreamDescription,
}

impl StreamStatistics {
    pub(super) fn new(
        stream: Option<&Stream>,
        state: Snapshot,
        drift: ClockDrift,
        counters: ElementCounters,
        history: History,
        description: StreamDescription,
    ) -> Self {
        let now = Instant::now();
        StreamStatistics {
            now,
            state,
            publisher: stream.and_then(Stream::publisher),
            stream: stream.map(|stream| stream.stats(now)).unwrap_or_default(),
            levels: stream.map_or_else(Default::default, |stream| stream.queue().levels()),
            drift,
            counters,
            history,
            description,
        }
    }

    /// Returns the counters of the source, since the start of the stream.
    pub(crate) fn counters(&self) -> ElementCounters {
        self.counters
    }

    /// Returns the present load of the stream.
    pub(crate) fn load(&self) -> StreamLoad {
        StreamLoad {
            bitrate: bitrate(&self.stream, self.now),
            level_bytes: self.levels.bytes,
            level_time: self.levels.time,
        }
    }

    pub(crate) fn structure(&self) -> StatsBuilder {
        let structure = gst::Structure::builder("application/x-rtmp2serversrc-stats")
            .field("connection-state", self.state.connection)
            .field("stream-status", self.state.status)
            .field("epoch", self.state.epoch)
            .field("quality", quality(&self.stream))
            .field("history", self.history.to_array())
            .field("publishing", self.publisher.is_some())
            .field("outage", nanos(self.stream.outage))
            .field("clock-drift", self.drift.ppm)
            .field("clock-corrected", self.drift.corrected);
        let structure = with_publisher(structure, &self.stream, self.now);
        let structure = with_tracks(structure, &self.description);
        let structure = with_capture(structure, &self.stream.publisher.capture);
        let structure = with_totals(structure, &self.stream.totals, &self.counters);
        let structure = with_load(structure, &self.load());
        let structure = with_last_error(structure, self.stream.last_error.as_ref(), self.now);
        match &self.publisher {
            Some(publisher) => with_identity(structure, publisher),
            None => structure,
        }
    }
}

/// The present load of a stream, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamLoad {
    /// In bits per second.
    bitrate: u64,
    /// Memory of queued media in bytes.
    level_bytes: u64,
    /// Duration of queued media.
    level_time: Duration,
}

impl std::ops::AddAssign for StreamLoad {
    fn add_assign(&mut self, other: Self) {
        self.bitrate += other.bitrate;
        self.level_bytes += other.level_bytes;
        self.level_time += other.level_time;
    }
}

/// Adds the fields that belong to the element and not to one stream.
pub(super) fn with_element(structure: StatsBuilder, stream: Option<&Stream>) -> StatsBuilder {
    structure
        .field("rejected", stream.map_or(0, Stream::rejected))
        .field("process", process())
}

/// Adds the fields of the present publisher, or of the last one.
fn with_publisher(structure: StatsBuilder, stats: &StreamStats, now: Instant) -> StatsBuilder {
    let uptime = stats.is_present.then_some(stats.stay);
    let publisher = &stats.publisher;
    let tags = publisher.audio_tags + publisher.video_tags + publisher.script_tags;
    let frames = &publisher.frames;
    let since = |at: Option<Instant>| at.map(|at| nanos(now.saturating_duration_since(at)));
    structure
        .field("in-chunk-size", publisher.in_chunk_size)
        .field("out-chunk-size", publisher.out_chunk_size)
        .field("in-window-ack-size", publisher.in_window_ack_size)
        .field("out-window-ack-size", publisher.out_window_ack_size)
        .field("in-bytes-total", publisher.in_bytes_total)
        .field("out-bytes-total", publisher.out_bytes_total)
        .field("in-bytes-acked", publisher.in_bytes_acked)
        .field("out-bytes-acked", publisher.out_bytes_acked)
        .field("tags", tags)
        .field("audio-tags", publisher.audio_tags)
        .field("video-tags", publisher.video_tags)
        .field("script-tags", publisher.script_tags)
        .field("audio-bytes", publisher.audio_bytes)
        .field("video-bytes", publisher.video_bytes)
        .field("script-bytes", publisher.script_bytes)
        .field("keyframes", publisher.keyframes)
        .field("skipped", publisher.skipped)
        .field("bitrate-average", average_bitrate(stats))
        .field("bitrate-peak", publisher.bitrate_peak)
        .field("frame-rate", frames.frames_per_second())
        .field("gop-length", frames.gop_length)
        .field(
            "gop-duration",
            nanos(Duration::from_millis(frames.gop_millis.into())),
        )
        .field("b-frames", frames.b_frames)
        .field(
            "time-since-last-byte",
            since(publisher.last_byte).unwrap_or(u64::MAX),
        )
        .field(
            "time-since-last-keyframe",
            since(publisher.last_keyframe).unwrap_or(u64::MAX),
        )
        .field("uptime", nanos(uptime.unwrap_or_default()))
}

/// Adds the tracks of the present publisher, or of the last one: the first of each kind. There is no
/// field for what is not known.
fn with_tracks(structure: StatsBuilder, description: &StreamDescription) -> StatsBuilder {
    let (video, audio) = (description.video.first(), description.audio.first());
    let size = video.and_then(|video| video.dimensions);
    structure
        .field_if_some("video-codec", video.map(|video| video.codec.common_name()))
        .field_if_some("profile", video.and_then(|video| video.profile.as_deref()))
        .field_if_some("width", size.map(|size| size.width))
        .field_if_some("height", size.map(|size| size.height))
        .field_if_some(
            "configured-frame-rate",
            video.and_then(|video| video.frame_rate),
        )
        .field_if_some("audio-codec", audio.map(|audio| audio.codec.common_name()))
        .field_if_some("audio-rate", audio.and_then(|audio| audio.rate))
        .field_if_some("audio-channels", audio.and_then(|audio| audio.channels))
        .field_if_some("encoder", description.encoder.as_deref())
}

/// Returns the figures that are beyond their limits, by the names of the limits.
fn quality(stats: &StreamStats) -> gst::Structure {
    let mut structure = gst::Structure::new_empty("quality");
    for verdict in stats.low.iter().flatten() {
        let figure = verdict.quality.figure(verdict.number);
        structure.set(verdict.limit_name(), figure);
    }
    structure
}

/// Adds what the publisher states about its frames. There is no field for what it does not state.
fn with_capture(structure: StatsBuilder, capture: &CaptureStats) -> StatsBuilder {
    let frames = capture.session_frames;
    structure
        .field_if_some("capture-latency", capture.latency)
        .field_if_some("encode-latency", capture.encode_latency)
        .field_if_some("send-latency", capture.send_latency)
        .field_if_some("encoder-lagged-frames", frames.map(|frames| frames.lagged))
        .field_if_some(
            "encoder-dropped-frames",
            frames.map(|frames| frames.dropped),
        )
        .field_if_some("encoder-skipped-frames", capture.skipped_frames)
}

/// Adds the counters since the start, of one stream or of several.
pub(crate) fn with_totals(
    structure: StatsBuilder,
    totals: &Totals,
    counters: &ElementCounters,
) -> StatsBuilder {
    let Totals {
        media,
        dropped,
        publishers,
        reconnects,
        replacements,
        // Belongs to the element and not to a stream.
        rejected: _,
        uptime,
        downtime,
    } = totals;
    let ElementCounters {
        repairs,
        force_key_unit_events,
    } = counters;
    structure
        .field("total-in-bytes", media.in_bytes)
        .field("total-tags", media.tags())
        .field("total-audio-tags", media.audio_tags)
        .field("total-video-tags", media.video_tags)
        .field("total-script-tags", media.script_tags)
        .field("total-audio-bytes", media.audio_bytes)
        .field("total-video-bytes", media.video_bytes)
        .field("total-script-bytes", media.script_bytes)
        .field("total-keyframes", media.keyframes)
        .field("total-skipped", media.skipped)
        .field("publishers", publishers)
        .field("reconnects", reconnects)
        .field("replacements", replacements)
        .field("total-uptime", nanos(*uptime))
        .field("downtime", nanos(*downtime))
        .field("dropped-queue-full", dropped.queue_full)
        .field("dropped-before-keyframe", dropped.before_keyframe)
        .field("dropped-descriptions", dropped.descriptions)
        .field("dropped-late", dropped.late)
        .field("dropped-codec-refused", dropped.codec_refused)
        .field("dropped-cut-off", dropped.cut_off)
        .field("dropped-in-pause", dropped.in_pause)
        .field("dropped-not-linked", dropped.not_linked)
        .field("dropped-at-end", dropped.at_end)
        .field("timestamps-clamped", repairs.clamped)
        .field("timestamp-jumps", repairs.jumps)
        .field("timestamps-frozen", repairs.frozen)
        .field("force-key-unit-events", force_key_unit_events)
}

/// Adds the present load, of one stream or of several.
pub(crate) fn with_load(structure: StatsBuilder, load: &StreamLoad) -> StatsBuilder {
    structure
        .field("bitrate", load.bitrate)
        .field("current-level-bytes", load.level_bytes)
        .field("current-level-time", nanos(load.level_time))
}

pub(crate) fn with_last_error(
    structure: StatsBuilder,
    error: Option<&LastError>,
    now: Instant,
) -> StatsBuilder {
    let error_age = error.map(|error| nanos(now.saturating_duration_since(error.at)));
    structure
        .field("last-error", error.map_or("", |error| &error.reason))
        .field(
            "last-error-address",
            error.map_or_else(String::new, |error| error.address.to_string()),
        )
        .field("time-since-last-error", error_age.unwrap_or(u64::MAX))
}

fn with_identity(structure: StatsBuilder, publisher: &Publisher) -> StatsBuilder {
    structure
        .field("address", publisher.address.to_string())
        .field("application", &publisher.application)
        .field("stream-key", &publisher.stream_key)
        .field("flash-ver", &publisher.flash_ver)
        .field("tls", publisher.tls)
        .field("variables", signals::variables(publisher))
}

/// Returns the sums over all elements of this process.
pub(crate) fn process() -> gst::Structure {
    let stats = server::process_stats();
    gst::Structure::builder("process")
        .field("elements", stats.elements)
        .field("listeners", stats.listeners)
        .field("clients", stats.clients)
        .field("publishing", stats.publishing)
        .field("publishers", stats.publishers)
        .field("in-bytes", stats.in_bytes)
        .field("tags", stats.tags)
        .field("rejected", stats.rejected)
        .field("dropped", stats.dropped)
        .build()
}

/// Returns the present bitrate in bits per second. In its first second a publisher has only its
/// average.
fn bitrate(stats: &StreamStats, now: Instant) -> u64 {
    match stats.publisher.bitrate_at {
        _ if !stats.is_present => 0,
        Some(at) if now.saturating_duration_since(at) < MAX_RATE_AGE => stats.publisher.bitrate,
        Some(_) => 0,
        None => average_bitrate(stats),
    }
}

fn average_bitrate(stats: &StreamStats) -> u64 {
    if stats.stay.is_zero() {
        return 0;
    }
    (stats.publisher.in_bytes_total as f64 * 8.0 / stats.stay.as_secs_f64()) as u64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
