// SPDX-License-Identifier: MPL-2.0

//! Facts about the publisher of a stream and its media, from the statistics. Fields that an element
//! does not have stay empty.

use common::statistics::{Unit, number};
use gst::glib;
use serde::Serialize;

/// Longest text of an encoder that is shown: it comes from the client.
const MAX_TEXT: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Address and port of the publisher.
    pub address: Option<String>,
    pub video_codec: Option<String>,
    pub profile: Option<String>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    /// Frames per second that the configuration of the video announces.
    pub configured_frame_rate: Option<f64>,
    pub audio_codec: Option<String>,
    /// In Hz.
    pub audio_rate: Option<u32>,
    pub audio_channels: Option<u32>,
    pub encoder: Option<String>,
    pub tls: bool,
    /// Time since the publisher connected.
    pub uptime_seconds: Option<f64>,
    /// Bytes of this connection.
    pub bytes: u64,
    pub audio_bytes: u64,
    pub video_bytes: u64,
    /// Frames in the last group of pictures.
    pub keyframe_interval_frames: Option<u64>,
    pub keyframe_interval_seconds: Option<f64>,
    /// Frames of it that are shown before one that came earlier.
    pub b_frames: Option<u64>,
    /// Figures beyond the limits that the element has for them, such as `min-framerate: 12`.
    pub low_quality: Vec<String>,
    /// Tags that were dropped since the stream started.
    pub dropped_tags: u64,
    pub reconnects: u64,
}

impl Facts {
    /// Reads the statistics of a source, or of a pad of rtmp2multiserversrc.
    pub fn of(stats: &gst::StructureRef) -> Self {
        let count = |field| number(stats, field, Unit::None).filter(|count| *count > 0.0);
        let integer = |field| count(field).map(|count| count as u64);
        let small = |field| count(field).map(|count| count as u32);
        let seconds = |field| {
            let time = number(stats, field, Unit::Nanoseconds);
            time.filter(|seconds| *seconds > 0.0)
        };
        Facts {
            address: text(stats, "address"),
            video_codec: text(stats, "video-codec"),
            profile: text(stats, "profile"),
            width: small("width"),
            height: small("height"),
            configured_frame_rate: rate(stats, "configured-frame-rate"),
            audio_codec: text(stats, "audio-codec"),
            audio_rate: small("audio-rate"),
            audio_channels: small("audio-channels"),
            encoder: text(stats, "encoder").or_else(|| text(stats, "flash-ver")),
            tls: stats.get("tls").unwrap_or_default(),
            uptime_seconds: seconds("uptime"),
            bytes: integer("in-bytes-total").unwrap_or_default(),
            audio_bytes: integer("audio-bytes").unwrap_or_default(),
            video_bytes: integer("video-bytes").unwrap_or_default(),
            keyframe_interval_frames: integer("gop-length"),
            keyframe_interval_seconds: seconds("gop-duration"),
            b_frames: integer("b-frames"),
            low_quality: low_quality(stats),
            dropped_tags: dropped(stats),
            reconnects: integer("reconnects").unwrap_or_default(),
        }
    }

    /// Returns the size as people write it, such as `1280x720`.
    pub fn resolution(&self) -> Option<String> {
        Some(format!("{}x{}", self.width?, self.height?))
    }
}

fn text(stats: &gst::StructureRef, field: &str) -> Option<String> {
    let text = stats.get::<&str>(field).ok()?;
    let text = text.chars().filter(|c| !c.is_control());
    let text: String = text.take(MAX_TEXT).collect();
    (!text.is_empty()).then_some(text)
}

/// Returns a rate that is a fraction or a number.
fn rate(stats: &gst::StructureRef, field: &str) -> Option<f64> {
    let rate = match stats.get::<gst::Fraction>(field) {
        Ok(rate) => f64::from(rate.numer()) / f64::from(rate.denom()),
        Err(_) => number(stats, field, Unit::None)?,
    };
    (rate > 0.0).then_some(rate)
}

/// Returns the figures that are beyond their limits, by the names of the limits.
fn low_quality(stats: &gst::StructureRef) -> Vec<String> {
    let Ok(quality) = stats.get::<gst::Structure>("quality") else {
        return Vec::new();
    };
    let figure = |(name, _): (&glib::GStr, _)| {
        let figure = number(&quality, name.as_str(), Unit::None)?;
        Some(format!("{name}: {}", (figure * 100.0).round() / 100.0))
    };
    quality.iter().filter_map(figure).collect()
}

/// Returns the sum of all tags that were dropped for any reason.
fn dropped(stats: &gst::StructureRef) -> u64 {
    let fields = stats.iter();
    let counters = fields.filter(|(name, _)| is_dropped(name));
    counters
        .filter_map(|(_, value)| value.get::<u64>().ok())
        .sum()
}

fn is_dropped(field: &glib::GStr) -> bool {
    field.as_str().starts_with("dropped-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_stay_empty() {
        gst::init().unwrap();
        let stats = gst::Structure::builder("stats")
            .field("in-bytes-total", 7_u64)
            .field("width", 1280_u32)
            .field("dropped-late", 2_u64)
            .field("dropped-cut-off", 3_u64)
            .field("flash-ver", "FMLE/3.0\n(compatible)")
            .field("uptime", 1_500_000_000_u64)
            .field(
                "quality",
                gst::Structure::builder("quality")
                    .field("min-framerate", 12.3456)
                    .build(),
            )
            .build();
        let expected = Facts {
            width: Some(1280),
            encoder: Some("FMLE/3.0(compatible)".to_owned()),
            uptime_seconds: Some(1.5),
            bytes: 7,
            low_quality: vec!["min-framerate: 12.35".to_owned()],
            dropped_tags: 5,
            ..Facts::default()
        };
        assert_eq!(Facts::of(&stats), expected);
        assert_eq!(expected.resolution(), None);
    }

    #[test]
    fn rates_are_fractions_or_numbers() {
        gst::init().unwrap();
        let stats = gst::Structure::builder("stats")
            .field("a", gst::Fraction::new(30_000, 1001))
            .field("b", 25.0)
            .field("c", 0.0)
            .build();
        assert_eq!(rate(&stats, "a"), Some(30_000.0 / 1001.0));
        assert_eq!((rate(&stats, "b"), rate(&stats, "c")), (Some(25.0), None));
    }
}
