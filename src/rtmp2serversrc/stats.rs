// SPDX-License-Identifier: MPL-2.0

//! The property `stats`. Names are those of rtmp2src where it has the thing.

use std::time::{Duration, Instant};

use super::signals;
use crate::server::{ClientStats, Intake};

/// A rate that is older than this says nothing about now.
const MAX_RATE_AGE: Duration = Duration::from_secs(3);

/// What the streaming side counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamCounts {
    pub(super) dropped_before_keyframe: u64,
    pub(super) dropped_codec_refused: u64,
    pub(super) force_key_unit_events: u64,
}

pub(super) fn structure(intake: Option<&Intake>, counts: StreamCounts) -> gst::Structure {
    let stats = intake.map(Intake::stats).unwrap_or_default();
    let publisher = intake.and_then(Intake::publisher);
    let levels = intake.map(|i| i.queue().levels()).unwrap_or_default();
    let now = Instant::now();
    let uptime = publisher
        .as_ref()
        .map(|p| now.saturating_duration_since(p.since));
    let mut structure = gst::Structure::builder("application/x-rtmp2serversrc-stats")
        .field("publishing", publisher.is_some())
        .field("in-chunk-size", stats.in_chunk_size)
        .field("out-chunk-size", stats.out_chunk_size)
        .field("in-window-ack-size", stats.in_window_ack_size)
        .field("out-window-ack-size", stats.out_window_ack_size)
        .field("in-bytes-total", stats.in_bytes_total)
        .field("out-bytes-total", stats.out_bytes_total)
        .field("in-bytes-acked", stats.in_bytes_acked)
        .field("out-bytes-acked", stats.out_bytes_acked)
        .field(
            "tags",
            stats.audio_tags + stats.video_tags + stats.script_tags,
        )
        .field("audio-tags", stats.audio_tags)
        .field("video-tags", stats.video_tags)
        .field("script-tags", stats.script_tags)
        .field("keyframes", stats.keyframes)
        .field("skipped", stats.skipped)
        .field("rejected", intake.map_or(0, Intake::rejected))
        .field("dropped-queue-full", levels.dropped)
        .field("dropped-before-keyframe", counts.dropped_before_keyframe)
        .field("dropped-codec-refused", counts.dropped_codec_refused)
        .field("force-key-unit-events", counts.force_key_unit_events)
        .field("bitrate", bitrate(&stats, uptime, now))
        .field("uptime", nanos(uptime.unwrap_or_default()));
    if let Some(publisher) = publisher {
        structure = structure
            .field("address", publisher.address.to_string())
            .field("application", &publisher.application)
            .field("stream-key", &publisher.stream_key)
            .field("flash-ver", &publisher.flash_ver)
            .field("tls", publisher.tls)
            .field("variables", signals::variables(&publisher));
    }
    structure.build()
}

/// Bits per second, lately. In its first second a publisher has only its average.
fn bitrate(stats: &ClientStats, uptime: Option<Duration>, now: Instant) -> u64 {
    match (stats.bitrate_at, uptime) {
        (Some(at), Some(_)) if now.saturating_duration_since(at) < MAX_RATE_AGE => stats.bitrate,
        (None, Some(uptime)) if !uptime.is_zero() => {
            (stats.in_bytes_total as f64 * 8.0 / uptime.as_secs_f64()) as u64
        }
        _ => 0,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
