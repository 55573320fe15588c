// SPDX-License-Identifier: MPL-2.0

//! The property `stats`. Names are those of rtmp2src where it has the same field. The documentation
//! of the element has the table of fields.

use std::time::{Duration, Instant};

use super::signals;
use super::state::Snapshot;
use crate::feed::Repairs;
use crate::server::{self, LastError, Publisher, Stream, StreamStats};

/// Age from which a bitrate is out of date.
const MAX_RATE_AGE: Duration = Duration::from_secs(3);

/// Counters of the streaming side.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamCounts {
    pub(super) repairs: Repairs,
    pub(super) force_key_unit_events: u64,
}

pub(crate) type StatsBuilder = gst::structure::Builder;

pub(super) fn structure(
    stream: Option<&Stream>,
    state: &Snapshot,
    counts: &StreamCounts,
) -> StatsBuilder {
    let now = Instant::now();
    let publisher = stream.and_then(Stream::publisher);
    let stats = stream.map(|stream| stream.stats(now)).unwrap_or_default();
    let structure = gst::Structure::builder("application/x-rtmp2serversrc-stats")
        .field("connection-state", state.connection)
        .field("stream-status", state.status)
        .field("epoch", state.epoch)
        .field("publishing", publisher.is_some());
    let structure = with_publisher(structure, &stats, now);
    let structure = with_stream(structure, &stats, now);
    let structure = with_queue_and_drops(structure, stream);
    let structure = structure
        .field("timestamps-clamped", counts.repairs.clamped)
        .field("timestamp-jumps", counts.repairs.jumps)
        .field("timestamps-frozen", counts.repairs.frozen)
        .field("force-key-unit-events", counts.force_key_unit_events);
    match publisher {
        Some(publisher) => with_identity(structure, &publisher),
        None => structure,
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
        .field("bitrate", bitrate(stats, now))
        .field("bitrate-average", average_bitrate(stats))
        .field("bitrate-peak", publisher.bitrate_peak)
        .field("frame-rate", frames.frames_per_second())
        .field("gop-length", frames.gop_length)
        .field(
            "gop-duration",
            nanos(Duration::from_millis(frames.gop_millis.into())),
        )
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

/// Adds the fields of the stream since it started.
fn with_stream(structure: StatsBuilder, stats: &StreamStats, now: Instant) -> StatsBuilder {
    let total = &stats.total;
    let structure = structure
        .field("total-in-bytes", total.in_bytes)
        .field("total-tags", total.tags())
        .field("total-audio-tags", total.audio_tags)
        .field("total-video-tags", total.video_tags)
        .field("total-script-tags", total.script_tags)
        .field("total-audio-bytes", total.audio_bytes)
        .field("total-video-bytes", total.video_bytes)
        .field("total-script-bytes", total.script_bytes)
        .field("total-keyframes", total.keyframes)
        .field("total-skipped", total.skipped)
        .field("publishers", stats.publishers)
        .field("reconnects", stats.reconnects)
        .field("replacements", stats.replacements)
        .field("total-uptime", nanos(stats.uptime))
        .field("downtime", nanos(stats.downtime))
        .field("outage", nanos(stats.outage));
    with_last_error(structure, stats.last_error.as_ref(), now)
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

fn with_queue_and_drops(structure: StatsBuilder, stream: Option<&Stream>) -> StatsBuilder {
    let levels = stream.map(|stream| stream.queue().levels());
    let levels = levels.unwrap_or_default();
    let dropped = stream.map(Stream::dropped).unwrap_or_default();
    structure
        .field("current-level-bytes", levels.bytes)
        .field("current-level-time", nanos(levels.time))
        .field("dropped-queue-full", dropped.queue_full)
        .field("dropped-before-keyframe", dropped.before_keyframe)
        .field("dropped-descriptions", dropped.descriptions)
        .field("dropped-late", dropped.late)
        .field("dropped-codec-refused", dropped.codec_refused)
        .field("dropped-cut-off", dropped.cut_off)
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
