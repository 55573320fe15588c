// SPDX-License-Identifier: MPL-2.0

//! Properties: their values, their specifications and how the two meet. Defaults are in
//! `Settings::default()` and nowhere else.

use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::location::{InvalidLocation, Location};
use super::{LeakyType, TimestampMode};
use crate::feed::{self, FeedSettings};
use crate::rtmp::limits::MAX_MESSAGE_LENGTH;
use crate::server::{IntakeSettings, Leak, ListenerSettings, QueueLimits, Route};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    host: String,
    port: u32,
    application: Option<String>,
    stream_key: Option<String>,
    invalid_location: Option<InvalidLocation>,
    keep_listening: bool,
    timestamp_mode: TimestampMode,
    latency: u32,
    handshake_timeout: u32,
    timeout: u32,
    max_bytes: u64,
    max_time: u64,
    leaky_type: LeakyType,
    max_message_size: u32,
    max_clients: u32,
    chunk_size: u32,
    wait_for_keyframe: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            host: "0.0.0.0".into(),
            port: 1935,
            application: None,
            stream_key: None,
            invalid_location: None,
            keep_listening: false,
            timestamp_mode: TimestampMode::RunningTime,
            latency: 200,
            handshake_timeout: 5000,
            timeout: 30,
            max_bytes: 16 * 1024 * 1024,
            max_time: 0,
            leaky_type: LeakyType::None,
            max_message_size: MAX_MESSAGE_LENGTH,
            max_clients: 1000,
            chunk_size: 65_536,
            wait_for_keyframe: true,
        }
    }
}

/// What changing a property means for an element that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    AtNextStart,
    /// Other properties have changed with it.
    Route,
    Intake,
    Latency,
}

impl Settings {
    /// Sets one of the properties in [`SPECS`].
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) -> Effect {
        // GObject has checked type and range against the specification.
        macro_rules! set {
            ($field:ident) => {
                self.$field = value.get().expect("type checked upstream")
            };
        }
        match name {
            "host" => {
                let host: Option<String> = value.get().expect("type checked upstream");
                self.host = host.unwrap_or_else(|| Settings::default().host);
            }
            "port" => set!(port),
            "location" => self.set_location(value.get().expect("type checked upstream")),
            "application" => set!(application),
            "stream-key" => set!(stream_key),
            "keep-listening" => set!(keep_listening),
            "timestamp-mode" => set!(timestamp_mode),
            "latency" => set!(latency),
            "handshake-timeout" => set!(handshake_timeout),
            "timeout" => set!(timeout),
            "max-bytes" => set!(max_bytes),
            "max-time" => set!(max_time),
            "leaky-type" => set!(leaky_type),
            "max-message-size" => set!(max_message_size),
            "max-clients" => set!(max_clients),
            "chunk-size" => set!(chunk_size),
            "wait-for-keyframe" => set!(wait_for_keyframe),
            _ => unreachable!("{name} is not writable"),
        }
        match name {
            "keep-listening" | "max-bytes" | "max-time" | "leaky-type" => Effect::Intake,
            "latency" => Effect::Latency,
            "location" => Effect::Route,
            _ => Effect::AtNextStart,
        }
    }

    /// Reads one of the properties in [`SPECS`]; None for those that are not settings.
    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        let value = match name {
            "host" => self.host.to_value(),
            "port" => self.port.to_value(),
            "location" => self.location().to_string().to_value(),
            "application" => self.application.to_value(),
            "stream-key" => self.stream_key.to_value(),
            "keep-listening" => self.keep_listening.to_value(),
            "timestamp-mode" => self.timestamp_mode.to_value(),
            "latency" => self.latency.to_value(),
            "handshake-timeout" => self.handshake_timeout.to_value(),
            "timeout" => self.timeout.to_value(),
            "max-bytes" => self.max_bytes.to_value(),
            "max-time" => self.max_time.to_value(),
            "leaky-type" => self.leaky_type.to_value(),
            "max-message-size" => self.max_message_size.to_value(),
            "max-clients" => self.max_clients.to_value(),
            "chunk-size" => self.chunk_size.to_value(),
            "wait-for-keyframe" => self.wait_for_keyframe.to_value(),
            _ => return None,
        };
        Some(value)
    }

    /// A property can't fail to be set, so a bad location is kept until the element starts.
    fn set_location(&mut self, location: Option<String>) {
        let parsed = location.map(|text| Location::parse(&text)).transpose();
        self.invalid_location = None;
        match parsed {
            Ok(Some(location)) => {
                self.host = location.host;
                self.port = location.port.into();
                self.application = location.application;
                self.stream_key = location.stream_key;
            }
            Ok(None) => {}
            Err(error) => self.invalid_location = Some(error),
        }
    }

    fn location(&self) -> Location {
        Location {
            host: self.host.clone(),
            port: self.port(),
            application: self.application.clone(),
            stream_key: self.stream_key.clone(),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        // The specification allows no more than fits.
        self.port as u16
    }

    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.latency.into())
    }

    /// What the element takes, or why it can't start.
    pub(super) fn route(&self) -> Result<Route, String> {
        if let Some(error) = &self.invalid_location {
            return Err(format!("Invalid location: {error}"));
        }
        for (name, value) in [
            ("application", &self.application),
            ("stream-key", &self.stream_key),
        ] {
            let value = value.as_deref().unwrap_or("x");
            if value.contains(['{', '}']) {
                let message = format!("{name} can't contain braces: they are reserved");
                return Err(message);
            }
            if value.trim_matches('/').is_empty() && name == "stream-key" {
                return Err(format!("{name} is empty: leave it unset to take any"));
            }
        }
        Ok(Route::new(
            self.application.as_deref(),
            self.stream_key.as_deref(),
        ))
    }

    pub(super) fn feed(&self) -> FeedSettings {
        FeedSettings {
            wait_for_keyframe: self.wait_for_keyframe,
            timestamp_mode: match self.timestamp_mode {
                TimestampMode::RunningTime => feed::TimestampMode::RunningTime,
                TimestampMode::Publisher => feed::TimestampMode::Publisher,
            },
        }
    }

    pub(super) fn intake(&self) -> IntakeSettings {
        IntakeSettings {
            limits: QueueLimits {
                max_bytes: self.max_bytes,
                max_time: Duration::from_nanos(self.max_time),
                leak: match self.leaky_type {
                    LeakyType::None => Leak::None,
                    LeakyType::Upstream => Leak::Upstream,
                    LeakyType::Downstream => Leak::Downstream,
                },
            },
            timeout: Duration::from_secs(self.timeout.into()),
            keep_listening: self.keep_listening,
        }
    }

    pub(super) fn listener(&self) -> ListenerSettings {
        ListenerSettings {
            chunk_size: self.chunk_size,
            max_message_size: self.max_message_size,
            max_clients: self.max_clients as usize,
            handshake_timeout: Duration::from_millis(self.handshake_timeout.into()),
        }
    }
}

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let d = Settings::default();
    let mut specs = route_specs(&d);
    specs.extend(stream_specs(&d));
    specs.extend(queue_specs(&d));
    specs.extend(limit_specs(&d));
    specs
});

fn route_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("host")
            .nick("Host")
            .blurb("Address to listen on: an IPv4 or IPv6 literal or a name of this machine")
            .default_value(Some(d.host.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("TCP port to listen on, 0 for any free one (see current-port)")
            .maximum(u16::MAX.into())
            .default_value(d.port)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("current-port")
            .nick("Current port")
            .blurb("TCP port that the element listens on, 0 while it does not")
            .maximum(u16::MAX.into())
            .read_only()
            .build(),
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb("Host, port, application and stream key in one: rtmp://host:port/application/stream-key")
            .default_value(Some(d.location().to_string().as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("application")
            .nick("Application")
            .blurb("Application that publishers must name, unset for any")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("stream-key")
            .nick("Stream key")
            .blurb("Stream key (publishing name) that publishers must use, unset for any")
            .mutable_ready()
            .build(),
    ]
}

fn stream_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("keep-listening")
            .nick("Keep listening")
            .blurb("After a publisher has left, wait for the next one instead of sending EOS")
            .default_value(d.keep_listening)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-mode", d.timestamp_mode)
            .nick("Timestamp mode")
            .blurb("Where the times of buffers come from")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("latency")
            .nick("Latency")
            .blurb(
                "Latency to report, in milliseconds: how unsteady the publisher's network may be",
            )
            .default_value(d.latency)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("wait-for-keyframe")
            .nick("Wait for keyframe")
            .blurb(
                "At the start of each publisher with video, hold media back until a keyframe comes",
            )
            .default_value(d.wait_for_keyframe)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters of the present publisher, or of the last one when there is none")
            .read_only()
            .build(),
    ]
}

fn queue_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt64::builder("max-bytes")
            .nick("Max bytes")
            .blurb("Most memory that waiting media may take, in bytes, 0 for no limit")
            .default_value(d.max_bytes)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("max-time")
            .nick("Max time")
            .blurb("Most media time that may wait, in nanoseconds, 0 for no limit")
            .default_value(d.max_time)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("leaky-type", d.leaky_type)
            .nick("Leaky type")
            .blurb("What to do when max-bytes or max-time is reached")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("current-level-bytes")
            .nick("Current level bytes")
            .blurb("Memory that waiting media takes, in bytes")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("current-level-time")
            .nick("Current level time")
            .blurb("Media time that waits, in nanoseconds")
            .read_only()
            .build(),
    ]
}

fn limit_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt::builder("handshake-timeout")
            .nick("Handshake timeout")
            .blurb("Time that a client has from connecting to publishing, in milliseconds")
            .minimum(1)
            .default_value(d.handshake_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("timeout")
            .nick("Timeout")
            .blurb("A publisher that sends nothing for this long is cut off, in seconds, 0 for never")
            .default_value(d.timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-message-size")
            .nick("Max message size")
            .blurb("Largest message that a publisher may send, in bytes; a frame is one message")
            .minimum(1024)
            .maximum(MAX_MESSAGE_LENGTH)
            .default_value(d.max_message_size)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-clients")
            .nick("Max clients")
            .blurb("Most connections on the port at a time, publishing or not; more are closed at once")
            .minimum(1)
            .default_value(d.max_clients)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("chunk-size")
            .nick("Chunk size")
            .blurb("Chunk size that is announced to publishers, in bytes; many adopt it")
            .minimum(128)
            .maximum(MAX_MESSAGE_LENGTH)
            .default_value(d.chunk_size)
            .mutable_ready()
            .build(),
    ]
}
