// SPDX-License-Identifier: MPL-2.0

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::FallbackStatus;
use super::backlog::Limits;
use super::location::{InvalidLocation, Location};
use super::schedule::RetryPolicy;

/// The values of the properties.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    locations: Vec<String>,
    variables: Option<gst::Structure>,
    retry_initial_delay: u32,
    retry_max_delay: u32,
    max_attempts: u32,
    return_to_primary: u32,
    connect_timeout: u32,
    send_timeout: u32,
    max_bytes: u64,
    max_time: u64,
    pub(super) verbose_messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            locations: Vec::new(),
            variables: None,
            retry_initial_delay: 1000,
            retry_max_delay: 60_000,
            max_attempts: 0,
            return_to_primary: 0,
            connect_timeout: 5000,
            send_timeout: 5000,
            max_bytes: 8 * 1024 * 1024,
            max_time: 10_000_000_000,
            verbose_messages: true,
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
            "locations" => set!(locations),
            "variables" => set!(variables),
            "retry-initial-delay" => set!(retry_initial_delay),
            "retry-max-delay" => set!(retry_max_delay),
            "max-attempts" => set!(max_attempts),
            "return-to-primary" => set!(return_to_primary),
            "connect-timeout" => set!(connect_timeout),
            "send-timeout" => set!(send_timeout),
            "timeout" => {
                set!(connect_timeout);
                set!(send_timeout);
            }
            "max-bytes" => set!(max_bytes),
            "max-time" => set!(max_time),
            "verbose-messages" => set!(verbose_messages),
            name => unreachable!("{name} is not writable"),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "locations" => self.locations.to_value(),
            "variables" => self.variables.to_value(),
            "retry-initial-delay" => self.retry_initial_delay.to_value(),
            "retry-max-delay" => self.retry_max_delay.to_value(),
            "max-attempts" => self.max_attempts.to_value(),
            "return-to-primary" => self.return_to_primary.to_value(),
            "connect-timeout" | "timeout" => self.connect_timeout.to_value(),
            "send-timeout" => self.send_timeout.to_value(),
            "max-bytes" => self.max_bytes.to_value(),
            "max-time" => self.max_time.to_value(),
            "verbose-messages" => self.verbose_messages.to_value(),
            _ => return None,
        })
    }

    /// Returns the locations with their variables filled in.
    pub(super) fn locations(&self) -> Result<Vec<Arc<Location>>, InvalidLocation> {
        if self.locations.is_empty() {
            return Err(InvalidLocation::None);
        }
        let location = |(index, template): (usize, &String)| {
            Location::new(index + 1, template, |name| self.variable(name)).map(Arc::new)
        };
        self.locations.iter().enumerate().map(location).collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = self.variables.as_ref()?.value(name).ok()?;
        let text = value.transform::<Option<String>>().ok()?;
        text.get::<Option<String>>()
            .ok()
            .map(Option::unwrap_or_default)
    }

    pub(super) fn schedule(&self) -> RetryPolicy {
        let millis = |millis: u32| Duration::from_millis(millis.into());
        RetryPolicy {
            locations: self.locations.len(),
            initial_delay: millis(self.retry_initial_delay),
            max_delay: millis(self.retry_max_delay.max(self.retry_initial_delay)),
            max_rounds: self.max_attempts,
            return_to_primary: millis(self.return_to_primary),
            connect_timeout: millis(self.connect_timeout),
            send_timeout: millis(self.send_timeout),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_bytes: self.max_bytes,
            max_time: Duration::from_nanos(self.max_time),
        }
    }
}

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let d = Settings::default();
    vec![
        glib::ParamSpecBoxed::builder::<Vec<String>>("locations")
            .nick("Locations")
            .blurb(
                "Server URLs in order of preference, one a line or with commas between them: \
                 rtmp://HOST/APPLICATION/STREAM-KEY or rtmps://, with {variables}",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("variables")
            .nick("Variables")
            .blurb("Values of the {variables} in locations: one field for each name")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("retry-initial-delay")
            .nick("Retry initial delay")
            .blurb(
                "Delay in milliseconds before all locations are tried again after all have failed; \
                 doubles with each round",
            )
            .minimum(10)
            .default_value(d.retry_initial_delay)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("retry-max-delay")
            .nick("Retry max delay")
            .blurb("Maximum delay between two rounds in milliseconds")
            .minimum(10)
            .default_value(d.retry_max_delay)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-attempts")
            .nick("Max attempts")
            .blurb("Failed rounds through all locations before the element posts an error, 0 = never gives up")
            .default_value(d.max_attempts)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("return-to-primary")
            .nick("Return to primary")
            .blurb(
                "Interval in milliseconds at which the first location is tried while another is in use; \
                 the stream returns there once it is accepted, 0 = never",
            )
            .default_value(d.return_to_primary)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("connect-timeout")
            .nick("Connect timeout")
            .blurb(
                "Time limit in milliseconds for a server to accept the stream, after which it counts \
                 as failed",
            )
            .minimum(10)
            .default_value(d.connect_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("send-timeout")
            .nick("Send timeout")
            .blurb(
                "Time in milliseconds without accepting any data after which a server counts as failed",
            )
            .minimum(10)
            .default_value(d.send_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("timeout")
            .nick("Timeout")
            .blurb("Sets connect-timeout and send-timeout, in milliseconds, and reads the former")
            .minimum(10)
            .default_value(d.connect_timeout)
            .deprecated()
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-bytes")
            .nick("Max bytes")
            .blurb(
                "Maximum queued data in bytes, 0 = no limit; whole groups of pictures beyond it are \
                 dropped",
            )
            .default_value(d.max_bytes)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt64::builder("max-time")
            .nick("Max time")
            .blurb(
                "Maximum queued media in nanoseconds, 0 = no limit; whole groups of pictures beyond it \
                 are dropped",
            )
            .default_value(d.max_time)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("verbose-messages")
            .nick("Verbose messages")
            .blurb("Post INFO and WARNING messages for people about each server that is used or fails")
            .default_value(d.verbose_messages)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("status", FallbackStatus::Disconnected)
            .nick("Status")
            .blurb("State of the connection to a server")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start of the element")
            .read_only()
            .build(),
    ]
});
