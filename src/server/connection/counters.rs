// SPDX-License-Identifier: MPL-2.0

use std::time::Instant;

use crate::flv::config::Dimensions;
use crate::flv::description::dimensions;
use crate::flv::{Content, Tag, TagKind};
use crate::rate::BitrateMeter;
use crate::rtmp::session::{Session, SessionConfig};
use crate::server::connection::frame_rate::FrameMeter;
use crate::server::quality::{LowFigures, QualityLimits, QualityMonitor, Verdict};
use crate::server::stats::{CaptureStats, ConnectionStats};

/// Counters of a connection, since its start or its last publish.
#[derive(Debug)]
pub(super) struct ConnectionCounters {
    stats: ConnectionStats,
    bitrate: BitrateMeter,
    frame_rate: FrameMeter,
    /// Messages were left out since the last look.
    has_skipped: bool,
    /// The first video track with a size, and that size.
    picture: Option<(u8, Dimensions)>,
    /// None without limits.
    quality: Option<Box<QualityMonitor>>,
    /// Verdicts that were not posted yet.
    verdicts: Vec<Verdict>,
}

impl ConnectionCounters {
    pub(super) fn new(config: &SessionConfig, now: Instant) -> Self {
        ConnectionCounters {
            stats: ConnectionStats {
                out_chunk_size: config.chunk_size,
                out_window_ack_size: config.window_ack_size,
                ..ConnectionStats::default()
            },
            bitrate: BitrateMeter::new(now),
            frame_rate: FrameMeter::default(),
            has_skipped: false,
            picture: None,
            quality: None,
            verdicts: Vec::new(),
        }
    }

    /// Counts from zero: the next media belongs to another publisher, though of the same client.
    pub(super) fn reset(&mut self, now: Instant) {
        self.stats = ConnectionStats {
            out_chunk_size: self.stats.out_chunk_size,
            out_window_ack_size: self.stats.out_window_ack_size,
            ..ConnectionStats::default()
        };
        self.bitrate = BitrateMeter::new(now);
        self.frame_rate = FrameMeter::default();
        self.picture = None;
        self.quality = None;
        self.verdicts.clear();
    }

    /// Measures the publisher against these limits from now on. Returns true where they are others
    /// than before.
    pub(super) fn limit_quality(&mut self, limits: QualityLimits) -> bool {
        let present = self.quality.as_ref().map(|monitor| *monitor.limits());
        let has_changed = present.unwrap_or_default() != limits;
        if has_changed {
            let picture = self.picture;
            let monitor = self.quality.get_or_insert_with(|| {
                let monitor = QualityMonitor::new(limits);
                Box::new(match picture {
                    Some((track, size)) => monitor.with_size(track, size),
                    None => monitor,
                })
            });
            monitor.set_limits(limits, |verdict| self.verdicts.push(verdict));
        }
        has_changed
    }

    /// Returns the verdicts since the last call, and the figures beyond their limits, if they have
    /// changed.
    pub(super) fn take_quality(&mut self) -> Option<(Vec<Verdict>, LowFigures)> {
        let monitor = self.quality.as_mut()?;
        let low = monitor.take_low();
        if monitor.limits().is_empty() {
            self.quality = None;
        }
        Some((std::mem::take(&mut self.verdicts), low?))
    }

    pub(super) fn received(&mut self, bytes: usize, arrival: Instant) {
        self.bitrate.count(bytes, arrival);
        self.stats.in_bytes_total += bytes as u64;
    }

    pub(super) fn has_received(&self) -> bool {
        self.stats.in_bytes_total > 0
    }

    /// Returns true where the publisher has sent audio or video.
    pub(super) fn has_media(&self) -> bool {
        self.stats.audio_tags + self.stats.video_tags > 0
    }

    /// Counts messages that were left out.
    pub(super) fn skipped(&mut self, messages: u64) {
        self.stats.skipped += messages;
        self.has_skipped = true;
    }

    /// Returns true where messages were left out since the last call.
    pub(super) fn take_skipped(&mut self) -> bool {
        std::mem::take(&mut self.has_skipped)
    }

    pub(super) fn count(&mut self, tag: &Tag, arrival: Instant) {
        let stats = &mut self.stats;
        let (tags, bytes) = match tag.kind {
            TagKind::Audio => (&mut stats.audio_tags, &mut stats.audio_bytes),
            TagKind::Video => (&mut stats.video_tags, &mut stats.video_bytes),
            TagKind::Script => (&mut stats.script_tags, &mut stats.script_bytes),
        };
        *tags += 1;
        *bytes += tag.body().len() as u64;
        let is_keyframe = tag.info.content == Content::Keyframe;
        if is_keyframe {
            stats.keyframes += 1;
            stats.last_keyframe = Some(arrival);
        }
        if tag.kind == TagKind::Video {
            if tag.info.is_coded() {
                self.frame_rate
                    .count(&tag.info, tag.lowest_track(), tag.timestamp);
            } else if tag.info.content == Content::SequenceHeader {
                self.note_size(tag);
            }
        }
        if let Some(monitor) = &mut self.quality {
            monitor.count(tag, |verdict| self.verdicts.push(verdict));
        }
    }

    fn note_size(&mut self, header: &Tag) {
        let track = header.lowest_track();
        let is_known = self.picture.is_none_or(|(known, _)| known == track);
        if let Some(size) = dimensions(header.body()).filter(|_| is_known) {
            self.picture = Some((track, size));
        }
    }

    /// Returns the counters, with those of the session and of the capture, and `sent` bytes.
    pub(super) fn stats(
        &mut self,
        session: &Session,
        capture: &CaptureStats,
        sent: u64,
        last_read: Instant,
    ) -> &ConnectionStats {
        let stats = &mut self.stats;
        stats.out_bytes_total = sent;
        stats.in_chunk_size = session.in_chunk_size();
        stats.in_window_ack_size = session.in_window_ack_size();
        stats.in_bytes_acked = session.in_bytes_acked();
        stats.out_bytes_acked = u64::from(session.out_bytes_acked());
        (stats.bitrate, stats.bitrate_at) = self.bitrate.rate();
        stats.bitrate_peak = self.bitrate.peak();
        stats.frames = self.frame_rate.stats();
        stats.capture = *capture;
        stats.last_byte = Some(last_read);
        stats
    }
}
