// SPDX-License-Identifier: MPL-2.0

//! Counters of connections, streams and the process, as values that can be summed. Times are passed
//! in.

use std::iter::Sum;
use std::net::SocketAddr;
use std::ops::Add;
use std::time::{Duration, Instant};

use crate::server::quality::LowFigures;

/// Counters of one publisher's connection, since it was accepted as a publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionStats {
    pub in_bytes_total: u64,
    pub out_bytes_total: u64,
    pub in_bytes_acked: u64,
    pub out_bytes_acked: u64,
    pub in_chunk_size: u32,
    pub out_chunk_size: u32,
    pub in_window_ack_size: u32,
    pub out_window_ack_size: u32,
    pub audio_tags: u64,
    pub video_tags: u64,
    pub script_tags: u64,
    /// Bytes in the bodies of audio tags.
    pub audio_bytes: u64,
    pub video_bytes: u64,
    pub script_bytes: u64,
    pub keyframes: u64,
    pub frames: FrameStats,
    pub capture: CaptureStats,
    /// Messages left out because no decoder could use them.
    pub skipped: u64,
    /// Bits received in about the last second.
    pub bitrate: u64,
    pub bitrate_at: Option<Instant>,
    pub bitrate_peak: u64,
    pub last_byte: Option<Instant>,
    pub last_keyframe: Option<Instant>,
}

/// Frame rate and group of pictures, by the publisher's timestamps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameStats {
    /// Number of frames in the last window, and its length in milliseconds.
    pub rate: (u32, u32),
    /// Frames in the last whole group of pictures.
    pub gop_length: u32,
    /// Milliseconds from the keyframe of that group to the next.
    pub gop_millis: u32,
    /// Frames of that group that are shown before one that came earlier.
    pub b_frames: u32,
}

/// Statements of a publisher about the capture and the encoding of its video. None where it makes none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CaptureStats {
    /// Nanoseconds from the last stated capture to its arrival. Negative where the publisher's clock is
    /// ahead.
    pub latency: Option<i64>,
    /// Nanoseconds from the composition of a frame to the end of its encoding.
    pub encode_latency: Option<i64>,
    /// Nanoseconds from the encoder's output to the arrival.
    pub send_latency: Option<i64>,
    pub session_frames: Option<EncoderFrames>,
    /// Frames that were not encoded, since the encoder was too slow.
    pub skipped_frames: Option<u64>,
}

/// Frames that the publisher has lost before it sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EncoderFrames {
    /// Composed too late.
    pub lagged: u64,
    /// Not sent, since the network was too slow.
    pub dropped: u64,
}

impl FrameStats {
    pub(crate) fn frames_per_second(&self) -> f64 {
        match self.rate {
            (_, 0) => 0.0,
            (frames, millis) => f64::from(frames) * 1000.0 / f64::from(millis),
        }
    }
}

/// Defines a struct of counters that add up field by field.
macro_rules! counters {
    ($(#[$meta:meta])* pub(crate) struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl Add for $name {
            type Output = Self;

            fn add(self, other: Self) -> Self {
                $name { $($field: self.$field + other.$field,)* }
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
                values.fold(Self::default(), Add::add)
            }
        }
    };
}

counters! {
    /// Tags that did not leave the element, by reason.
    pub(crate) struct Dropped {
        /// The queue was full, and leaks.
        pub queue_full: u64,
        /// They arrived before the first keyframe.
        pub before_keyframe: u64,
        /// Metadata and headers beyond the bound of those that wait for their media.
        pub descriptions: u64,
        /// Their publisher had been replaced or disconnected.
        pub cut_off: u64,
        /// They were part of a backlog.
        pub late: u64,
        /// Their codec is not accepted.
        pub codec_refused: u64,
        /// GStreamer's base class dropped them in a pause.
        pub in_pause: u64,
        /// Nothing was linked when they left.
        pub not_linked: u64,
        /// They had not left when their stream was ended downstream or stopped.
        pub at_end: u64,
    }
}

impl Dropped {
    pub(crate) fn sum(&self) -> u64 {
        let Dropped {
            queue_full,
            before_keyframe,
            descriptions,
            cut_off,
            late,
            codec_refused,
            in_pause,
            not_linked,
            at_end,
        } = *self;
        let before_output = queue_full + before_keyframe + descriptions + late + codec_refused;
        before_output + cut_off + in_pause + not_linked + at_end
    }
}

counters! {
    /// Media received from several publishers.
    pub(crate) struct MediaTotals {
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
}

impl MediaTotals {
    pub(crate) fn tags(&self) -> u64 {
        self.audio_tags + self.video_tags + self.script_tags
    }
}

impl From<&ConnectionStats> for MediaTotals {
    fn from(stats: &ConnectionStats) -> Self {
        MediaTotals {
            in_bytes: stats.in_bytes_total,
            audio_bytes: stats.audio_bytes,
            video_bytes: stats.video_bytes,
            script_bytes: stats.script_bytes,
            audio_tags: stats.audio_tags,
            video_tags: stats.video_tags,
            script_tags: stats.script_tags,
            keyframes: stats.keyframes,
            skipped: stats.skipped,
        }
    }
}

counters! {
    /// Counters of one or several streams since their start.
    pub(crate) struct Totals {
        pub media: MediaTotals,
        pub dropped: Dropped,
        pub publishers: u64,
        /// Publishers that returned within `resume-timeout`.
        pub reconnects: u64,
        pub replacements: u64,
        /// Clients that were rejected.
        pub rejected: u64,
        /// Time with a publisher.
        pub uptime: Duration,
        /// Time without a publisher, since the first one left.
        pub downtime: Duration,
    }
}

/// Counters of all elements of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProcessStats {
    /// Elements that listen.
    pub elements: u64,
    /// Addresses that they listen on.
    pub listeners: u64,
    /// Present connections.
    pub clients: u64,
    /// Streams that have a publisher now.
    pub publishing: u64,
    /// Publishers since the process started. The counters below count from then too.
    pub publishers: u64,
    pub in_bytes: u64,
    pub tags: u64,
    pub rejected: u64,
    pub dropped: u64,
}

/// Circumstances in which a publisher starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// The stream awaited the return of the publisher before it.
    Return,
    /// It takes the place of a publisher that was still present.
    Replacement,
}

/// Reason why a client was last rejected or disconnected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    /// Contains no secret.
    pub reason: String,
    pub address: SocketAddr,
    pub at: Instant,
}

/// Times with and without a publisher.
#[derive(Debug, Clone, Copy, Default)]
struct Presence {
    /// Start of the present publisher, or of the last one.
    started: Option<Instant>,
    /// End of the last publisher. None while one is present.
    ended: Option<Instant>,
    /// Time with a publisher, without the present one.
    uptime: Duration,
    /// Time without a publisher, without the present outage.
    downtime: Duration,
    publishers: u64,
    reconnects: u64,
    replacements: u64,
}

impl Presence {
    fn start(&mut self, arrival: Arrival, now: Instant) {
        match (self.ended.take(), self.started) {
            (Some(ended), _) => self.downtime += now.saturating_duration_since(ended),
            (None, Some(started)) => self.uptime += now.saturating_duration_since(started),
            (None, None) => {}
        }
        self.started = Some(now);
        self.publishers += 1;
        self.reconnects += u64::from(arrival == Arrival::Return);
        self.replacements += u64::from(arrival == Arrival::Replacement);
    }

    fn end(&mut self, now: Instant) {
        if let (Some(started), None) = (self.started, self.ended) {
            self.uptime += now.saturating_duration_since(started);
            self.ended = Some(now);
        }
    }

    fn is_present(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    /// Returns how long the present publisher, or the last one, has been present.
    fn stay(&self, now: Instant) -> Duration {
        let until = self.ended.unwrap_or(now);
        self.started.map_or(Duration::ZERO, |started| {
            until.saturating_duration_since(started)
        })
    }

    /// Returns the length of the present outage. There is none before the first publisher.
    fn outage(&self, now: Instant) -> Duration {
        self.ended
            .map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended))
    }
}

/// Counters of a stream. Their lock has to be a leaf.
#[derive(Debug, Default)]
pub(crate) struct StreamCounters {
    /// The client that `publisher` counts for.
    client: u64,
    publisher: ConnectionStats,
    low: LowFigures,
    /// Totals of all publishers before it.
    before: MediaTotals,
    presence: Presence,
    last_error: Option<LastError>,
}

/// Statistics of a stream at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamStats {
    /// Counters of the present publisher, or the last one.
    pub publisher: ConnectionStats,
    /// Its figures beyond their limits.
    pub low: LowFigures,
    /// Time for which that publisher has been present.
    pub stay: Duration,
    pub is_present: bool,
    /// Length of the present outage, which is a part of the downtime.
    pub outage: Duration,
    /// Counters of all publishers.
    pub totals: Totals,
    pub last_error: Option<LastError>,
}

impl StreamCounters {
    pub(crate) fn start_publisher(&mut self, client: u64, arrival: Arrival, now: Instant) {
        self.presence.start(arrival, now);
        self.before = self.before + MediaTotals::from(&self.publisher);
        self.publisher = ConnectionStats::default();
        self.low = LowFigures::default();
        self.client = client;
    }

    pub(crate) fn end_publisher(&mut self, now: Instant) {
        self.presence.end(now);
    }

    /// Counts for the present publisher only, and not for one that was replaced.
    pub(crate) fn update(&mut self, client: u64, stats: &ConnectionStats) {
        if self.client == client {
            self.publisher = *stats;
        }
    }

    /// Notes the figures beyond their limits of the present publisher only.
    pub(crate) fn set_quality(&mut self, client: u64, low: LowFigures) {
        if self.client == client {
            self.low = low;
        }
    }

    pub(crate) fn set_error(&mut self, error: LastError) {
        self.last_error = Some(error);
    }

    pub(crate) fn media(&self) -> MediaTotals {
        self.before + MediaTotals::from(&self.publisher)
    }

    /// Returns the statistics, with the rejected clients and dropped tags that others count.
    pub(crate) fn at(&self, now: Instant, rejected: u64, dropped: Dropped) -> StreamStats {
        let presence = &self.presence;
        let is_present = presence.is_present();
        let stay = presence.stay(now);
        let outage = presence.outage(now);
        StreamStats {
            publisher: self.publisher,
            low: self.low,
            stay,
            is_present,
            outage,
            totals: Totals {
                media: self.media(),
                dropped,
                publishers: presence.publishers,
                reconnects: presence.reconnects,
                replacements: presence.replacements,
                rejected,
                uptime: presence.uptime + if is_present { stay } else { Duration::ZERO },
                downtime: presence.downtime + outage,
            },
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stats_at(counters: &StreamCounters, now: Instant) -> StreamStats {
        counters.at(now, 0, Dropped::default())
    }

    #[test]
    fn uptime_and_downtime_add_up_over_publishers() {
        let start = Instant::now();
        let mut counters = StreamCounters::default();
        // There is no outage before the first publisher.
        let stats = stats_at(&counters, start + 5 * SECOND);
        assert_eq!(
            (stats.totals.uptime, stats.totals.downtime),
            Default::default()
        );
        assert!(!stats.is_present);

        let at = |seconds: u32| start + seconds * SECOND;
        counters.start_publisher(1, Arrival::New, at(10));
        counters.end_publisher(at(13));
        counters.end_publisher(at(14));
        let stats = stats_at(&counters, at(15));
        assert_eq!((stats.totals.uptime, stats.stay), (3 * SECOND, 3 * SECOND));
        assert_eq!(
            (stats.totals.downtime, stats.outage),
            (2 * SECOND, 2 * SECOND)
        );

        counters.start_publisher(2, Arrival::Return, at(16));
        counters.start_publisher(3, Arrival::Replacement, at(20));
        let stats = stats_at(&counters, at(21));
        assert!(stats.is_present);
        assert_eq!((stats.totals.uptime, stats.stay), (8 * SECOND, SECOND));
        assert_eq!(
            (stats.totals.downtime, stats.outage),
            (3 * SECOND, Duration::ZERO)
        );
        let counts = (
            stats.totals.publishers,
            stats.totals.reconnects,
            stats.totals.replacements,
        );
        assert_eq!(counts, (3, 1, 1));
    }

    #[test]
    fn totals_include_all_publishers() {
        let now = Instant::now();
        let stats = |count| ConnectionStats {
            in_bytes_total: 10 * count,
            video_tags: count,
            ..ConnectionStats::default()
        };
        let mut counters = StreamCounters::default();
        counters.start_publisher(1, Arrival::New, now);
        counters.update(1, &stats(3));
        counters.start_publisher(2, Arrival::Replacement, now);
        // A late update of the replaced publisher counts for nobody.
        counters.update(1, &stats(5));
        assert_eq!(
            stats_at(&counters, now).publisher,
            ConnectionStats::default()
        );
        counters.update(2, &stats(1));
        counters.update(2, &stats(4));
        let total = counters.media();
        assert_eq!((total.tags(), total.in_bytes), (7, 70));
        assert_eq!(stats_at(&counters, now).publisher, stats(4));
    }

    #[test]
    fn every_counter_is_summed() {
        let totals = |factor: u64| Totals {
            media: MediaTotals {
                in_bytes: factor,
                audio_bytes: 2 * factor,
                video_bytes: 3 * factor,
                script_bytes: 4 * factor,
                audio_tags: 5 * factor,
                video_tags: 6 * factor,
                script_tags: 7 * factor,
                keyframes: 8 * factor,
                skipped: 9 * factor,
            },
            dropped: Dropped {
                queue_full: 10 * factor,
                before_keyframe: 11 * factor,
                descriptions: 12 * factor,
                cut_off: 13 * factor,
                late: 14 * factor,
                codec_refused: 15 * factor,
                in_pause: 16 * factor,
                not_linked: 17 * factor,
                at_end: 18 * factor,
            },
            publishers: 19 * factor,
            reconnects: 20 * factor,
            replacements: 21 * factor,
            rejected: 22 * factor,
            uptime: Duration::from_secs(23 * factor),
            downtime: Duration::from_secs(24 * factor),
        };
        let sum: Totals = [totals(1), totals(10), totals(100)].into_iter().sum();
        assert_eq!(sum, totals(111));
        assert_eq!(totals(1).dropped.sum(), (10..=18).sum::<u64>());
    }
}
