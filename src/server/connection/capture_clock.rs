// SPDX-License-Identifier: MPL-2.0

use std::num::NonZeroU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::flv::time_of_day::{BroadcastMetrics, LocalZone, of_script};
use crate::flv::{CodedPicture, Content, KeyframeDetector, Tag};
use crate::server::stats::CaptureStats;

/// Reads what a publisher states about the capture and the encoding of its media.
///
/// It looks at keyframes, which OBS states it with, and at script data.
#[derive(Debug, Default)]
pub(super) struct CaptureClock {
    zone: LocalZone,
    /// The track whose messages count for the session: each track repeats them.
    session_track: Option<u8>,
    /// Time of the last message about the session.
    counted: Option<u64>,
    stats: CaptureStats,
}

impl CaptureClock {
    pub(super) fn stats(&self) -> &CaptureStats {
        &self.stats
    }

    /// Reads a tag whose flags were corrected, and notes in it the time of day that it states.
    #[inline]
    pub(super) fn read(&mut self, tag: &mut Tag, detector: &KeyframeDetector, arrival: Instant) {
        let stated = match tag.info.content {
            Content::Keyframe => {
                let picture = detector.coded_picture(tag);
                picture.and_then(|picture| self.read_picture(tag.info.track, &picture, arrival))
            }
            Content::Script => self.read_script(tag.body(), arrival),
            _ => return,
        };
        tag.time_of_day = stated.and_then(NonZeroU64::new);
    }

    fn read_script(&mut self, body: &[u8], arrival: Instant) -> Option<u64> {
        let stated = of_script(body)?;
        let arrival = unix_time(arrival);
        let captured = self.zone.utc(stated, arrival);
        self.stats.latency = Some(distance(captured, arrival));
        Some(captured)
    }

    fn read_picture(
        &mut self,
        track: u8,
        picture: &CodedPicture<'_>,
        arrival: Instant,
    ) -> Option<u64> {
        let metrics = BroadcastMetrics::find(picture)?;
        self.count(track, &metrics);
        let captured = metrics.captured()?;
        let arrival = unix_time(arrival);
        self.stats.latency = Some(distance(captured, arrival));
        let encoded = metrics.composed.zip(metrics.encoded);
        self.stats.encode_latency = encoded.map(|(composed, encoded)| distance(composed, encoded));
        let sent = metrics.interleaved;
        self.stats.send_latency = sent.map(|sent| distance(sent, arrival));
        Some(captured)
    }

    /// Adds the frames of a keyframe's messages, unless they are those of the keyframe before.
    fn count(&mut self, track: u8, metrics: &BroadcastMetrics) {
        let is_measured = *self.session_track.get_or_insert(track) == track;
        if !is_measured {
            return;
        }
        let session = metrics.session.and_then(|session| session.counted);
        let rendition = metrics.rendition.and_then(|rendition| rendition.counted);
        let counted = session.or(rendition);
        if counted.is_some() && std::mem::replace(&mut self.counted, counted) == counted {
            return;
        }
        if let Some(session) = metrics.session {
            let frames = self.stats.session_frames.get_or_insert_default();
            frames.lagged += u64::from(session.lagged);
            frames.dropped += u64::from(session.dropped);
        }
        if let Some(rendition) = metrics.rendition {
            *self.stats.skipped_frames.get_or_insert_default() += u64::from(rendition.skipped);
        }
    }
}

/// Returns the time of day of an instant that has just passed, in nanoseconds since the Unix epoch.
fn unix_time(instant: Instant) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.unwrap_or_default().as_nanos() as u64;
    now.saturating_sub(instant.elapsed().as_nanos() as u64)
}

/// Returns the nanoseconds from one time to another. They are negative where clocks disagree.
fn distance(from: u64, to: u64) -> i64 {
    to.cast_signed().saturating_sub(from.cast_signed())
}
