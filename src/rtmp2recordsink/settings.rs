// SPDX-License-Identifier: MPL-2.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::location::{InvalidLocation, LocationTemplate};
use super::rotation::FileLimits;

/// The values of the properties.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    location: Option<String>,
    max_size_time: u64,
    max_size_bytes: u64,
    pub(super) max_files: u32,
    pub(super) min_free_bytes: u64,
    pub(super) fragment_duration: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            location: None,
            max_size_time: 0,
            max_size_bytes: 0,
            max_files: 0,
            min_free_bytes: 0,
            fragment_duration: 1000,
        }
    }
}

impl Settings {
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        macro_rules! set {
            ($field:ident) => {
                self.$field = value.get().expect("type checked upstream")
            };
        }
        match name {
            "location" => set!(location),
            "max-size-time" => set!(max_size_time),
            "max-size-bytes" => set!(max_size_bytes),
            "max-files" => set!(max_files),
            "min-free-bytes" => set!(min_free_bytes),
            "fragment-duration" => set!(fragment_duration),
            name => unreachable!("{name} is not writable"),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "location" => self.location.to_value(),
            "max-size-time" => self.max_size_time.to_value(),
            "max-size-bytes" => self.max_size_bytes.to_value(),
            "max-files" => self.max_files.to_value(),
            "min-free-bytes" => self.min_free_bytes.to_value(),
            "fragment-duration" => self.fragment_duration.to_value(),
            _ => return None,
        })
    }

    pub(super) fn template(&self) -> Result<LocationTemplate, InvalidLocation> {
        let now = local_now();
        let time = |format: &str| format_time(now.as_ref()?, format);
        LocationTemplate::parse(self.location.as_deref().unwrap_or(""), time)
    }

    pub(super) fn limits(&self) -> FileLimits {
        FileLimits {
            max_time: self.max_size_time,
            max_bytes: self.max_size_bytes,
        }
    }
}

pub(super) fn local_now() -> Option<glib::DateTime> {
    glib::DateTime::now_local().ok()
}

/// Expands conversions of strftime. Returns nothing for an invalid format.
pub(super) fn format_time(time: &glib::DateTime, format: &str) -> Option<String> {
    Some(time.format(format).ok()?.into())
}

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let d = Settings::default();
    vec![
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb(
                "File to record into, with {application}, {stream-key}, {variables} and the time as \
                 in strftime: rec/{stream-key}/%Y%m%d-%H%M%S.mp4. The ending (.mp4, .mkv, .ts or \
                 .flv) selects the format",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-size-time")
            .nick("Max size time")
            .blurb(
                "Duration in nanoseconds after which the next keyframe begins another file, 0 = no \
                 limit",
            )
            .default_value(d.max_size_time)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("max-size-bytes")
            .nick("Max size bytes")
            .blurb("Media in bytes after which the next keyframe begins another file, 0 = no limit")
            .default_value(d.max_size_bytes)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-files")
            .nick("Max files")
            .blurb(
                "Whole files of a stream that are kept, also of earlier runs: the oldest is \
                 deleted. 0 = all, and none is ever deleted",
            )
            .default_value(d.max_files)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("min-free-bytes")
            .nick("Min free bytes")
            .blurb(
                "Free space in bytes below which old files are deleted if max-files is set; else \
                 recording pauses until there is space. 0 = use all",
            )
            .default_value(d.min_free_bytes)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("fragment-duration")
            .nick("Fragment duration")
            .blurb("Duration in milliseconds of a fragment of MP4: a crash loses at most the last one")
            .minimum(100)
            .maximum(60_000)
            .default_value(d.fragment_duration)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start of the element")
            .read_only()
            .build(),
    ]
});
