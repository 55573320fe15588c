// SPDX-License-Identifier: MPL-2.0

//! The values of properties. `Settings::default()` is the only place with defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::location::{InvalidLocation, Location, Scheme};
use super::standby_file;
use super::{
    AuthMod, Encryption, LeakyType, LogKeys, ProxyProtocol, PublisherPolicy, Standby, TimestampMode,
};
use crate::feed::{self, FeedSettings, NANOS_PER_MILLI, StandbySettings, StandbySource};
use crate::flv::codec::AcceptedCodecs;
use crate::lists;
use crate::rtmp::authentication::{Credentials, MAX_USERNAME, Method};
use crate::rtmp::limits::MAX_MESSAGE_LENGTH;
use crate::server::{
    self, Access, AllowedAddresses, Authorizer, Leak, ListenerSettings, Policy, PortSettings,
    QualityLimits, QueueLimits, Route, SigningKey, StreamSettings, TlsFiles,
};

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    host: String,
    pub(super) port: u32,
    application: Option<String>,
    stream_key: Option<String>,
    /// Scheme or error of the last location that was set. The start of the element checks it.
    location: Option<Result<Scheme, InvalidLocation>>,
    username: Option<String>,
    password: Option<String>,
    pub(super) authmod: AuthMod,
    certificate_file: Option<String>,
    private_key_file: Option<String>,
    pub(super) encryption: Encryption,
    pub(super) auth_url: Option<String>,
    pub(super) auth_timeout: u32,
    signing_key: Option<String>,
    allowed_addresses: Vec<String>,
    accepted_codecs: Vec<String>,
    pub(super) proxy_protocol: ProxyProtocol,
    pub(super) publisher_policy: PublisherPolicy,
    drain: bool,
    pub(super) drain_timeout: u32,
    pub(super) keep_listening: bool,
    pub(super) timestamp_mode: TimestampMode,
    pub(super) drift_correction: bool,
    pub(super) max_drift: u32,
    pub(super) standby: Standby,
    standby_location: Option<String>,
    pub(super) standby_after: u32,
    pub(super) latency: u32,
    pub(super) delivery_interval: u32,
    pub(super) handshake_timeout: u32,
    pub(super) stall_timeout: u32,
    pub(super) imbalance_timeout: u32,
    pub(super) max_lateness: u32,
    pub(super) resume_timeout: u32,
    pub(super) timeout: u32,
    pub(super) max_bytes: u64,
    pub(super) max_time: u64,
    pub(super) leaky_type: LeakyType,
    pub(super) max_message_size: u32,
    pub(super) max_clients: u32,
    pub(super) max_clients_per_address: u32,
    pub(super) chunk_size: u32,
    pub(super) wait_for_keyframe: bool,
    pub(super) keyframe_timeout: u32,
    pub(super) reconnect_on_force_key_unit: bool,
    quality_limits: Option<gst::Structure>,
    pub(super) verbose_messages: bool,
    pub(super) log_keys: LogKeys,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            host: "::".into(),
            port: 1935,
            application: None,
            stream_key: None,
            location: None,
            username: None,
            password: None,
            authmod: AuthMod::None,
            certificate_file: None,
            private_key_file: None,
            encryption: Encryption::Auto,
            auth_url: None,
            auth_timeout: 5000,
            signing_key: None,
            allowed_addresses: Vec::new(),
            accepted_codecs: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            publisher_policy: PublisherPolicy::ReplaceStalled,
            drain: false,
            drain_timeout: 10_000,
            keep_listening: false,
            timestamp_mode: TimestampMode::RunningTime,
            drift_correction: true,
            max_drift: 1000,
            standby: Standby::None,
            standby_location: None,
            standby_after: 1000,
            latency: 200,
            delivery_interval: 0,
            handshake_timeout: 5000,
            stall_timeout: 2000,
            imbalance_timeout: 2000,
            max_lateness: 0,
            resume_timeout: 5000,
            timeout: 30,
            max_bytes: 16 * 1024 * 1024,
            max_time: 0,
            leaky_type: LeakyType::None,
            max_message_size: MAX_MESSAGE_LENGTH,
            max_clients: 1000,
            max_clients_per_address: 100,
            chunk_size: 65_536,
            wait_for_keyframe: true,
            keyframe_timeout: 10_000,
            reconnect_on_force_key_unit: false,
            quality_limits: None,
            verbose_messages: true,
            log_keys: LogKeys::Masked,
        }
    }
}

/// Effect of a changed property on an element that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    AtNextStart,
    /// Other properties have changed with it.
    Route,
    Stream,
    Latency,
    /// It applies to the stream, and changes the latency.
    StreamAndLatency,
    Drain,
}

impl Settings {
    /// Sets one of the properties in `SPECS`.
    pub(crate) fn set(&mut self, name: &str, value: &glib::Value) -> Effect {
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
            "username" => set!(username),
            "password" => set!(password),
            "authmod" => set!(authmod),
            "certificate-file" => set!(certificate_file),
            "private-key-file" => set!(private_key_file),
            "encryption" => set!(encryption),
            "auth-url" => set!(auth_url),
            "auth-timeout" => set!(auth_timeout),
            "signing-key" => set!(signing_key),
            "allowed-addresses" => self.allowed_addresses = entries(value),
            "accepted-codecs" => self.accepted_codecs = entries(value),
            "proxy-protocol" => set!(proxy_protocol),
            "publisher-policy" => set!(publisher_policy),
            "drain" => set!(drain),
            "drain-timeout" => set!(drain_timeout),
            "keep-listening" => set!(keep_listening),
            "timestamp-mode" => set!(timestamp_mode),
            "drift-correction" => set!(drift_correction),
            "max-drift" => set!(max_drift),
            "standby" => set!(standby),
            "standby-location" => set!(standby_location),
            "standby-after" => set!(standby_after),
            "latency" => set!(latency),
            "delivery-interval" => set!(delivery_interval),
            "handshake-timeout" => set!(handshake_timeout),
            "stall-timeout" => set!(stall_timeout),
            "imbalance-timeout" => set!(imbalance_timeout),
            "max-lateness" => set!(max_lateness),
            "resume-timeout" => set!(resume_timeout),
            "timeout" => set!(timeout),
            "max-bytes" => set!(max_bytes),
            "max-time" => set!(max_time),
            "leaky-type" => set!(leaky_type),
            "max-message-size" => set!(max_message_size),
            "max-clients" => set!(max_clients),
            "max-clients-per-address" => set!(max_clients_per_address),
            "chunk-size" => set!(chunk_size),
            "wait-for-keyframe" => set!(wait_for_keyframe),
            "keyframe-timeout" => set!(keyframe_timeout),
            "reconnect-on-force-key-unit" => set!(reconnect_on_force_key_unit),
            "quality-limits" => set!(quality_limits),
            "verbose-messages" => set!(verbose_messages),
            "log-keys" => set!(log_keys),
            _ => unreachable!("{name} is not writable"),
        }
        match name {
            "keep-listening" | "timeout" | "max-bytes" | "max-time" | "leaky-type"
            | "publisher-policy" | "stall-timeout" | "resume-timeout" | "quality-limits" => {
                Effect::Stream
            }
            "drain" | "drain-timeout" => Effect::Drain,
            "latency" => Effect::Latency,
            "delivery-interval" => Effect::StreamAndLatency,
            "location" => Effect::Route,
            _ => Effect::AtNextStart,
        }
    }

    /// Reads one of the properties in `SPECS`. Returns None for those that are not settings.
    pub(crate) fn get(&self, name: &str) -> Option<glib::Value> {
        let value = match name {
            "host" => self.host.to_value(),
            "port" => self.port.to_value(),
            "location" => self.location().to_string().to_value(),
            "application" => self.application.to_value(),
            "stream-key" => self.stream_key.to_value(),
            "username" => self.username.to_value(),
            "authmod" => self.authmod.to_value(),
            "certificate-file" => self.certificate_file.to_value(),
            "private-key-file" => self.private_key_file.to_value(),
            "encryption" => self.encryption.to_value(),
            "auth-url" => self.auth_url.to_value(),
            "auth-timeout" => self.auth_timeout.to_value(),
            "allowed-addresses" => self.allowed_addresses.to_value(),
            "accepted-codecs" => self.accepted_codecs.to_value(),
            "proxy-protocol" => self.proxy_protocol.to_value(),
            "publisher-policy" => self.publisher_policy.to_value(),
            "drain" => self.drain.to_value(),
            "drain-timeout" => self.drain_timeout.to_value(),
            "keep-listening" => self.keep_listening.to_value(),
            "timestamp-mode" => self.timestamp_mode.to_value(),
            "drift-correction" => self.drift_correction.to_value(),
            "max-drift" => self.max_drift.to_value(),
            "standby" => self.standby.to_value(),
            "standby-location" => self.standby_location.to_value(),
            "standby-after" => self.standby_after.to_value(),
            "latency" => self.latency.to_value(),
            "delivery-interval" => self.delivery_interval.to_value(),
            "handshake-timeout" => self.handshake_timeout.to_value(),
            "stall-timeout" => self.stall_timeout.to_value(),
            "imbalance-timeout" => self.imbalance_timeout.to_value(),
            "max-lateness" => self.max_lateness.to_value(),
            "resume-timeout" => self.resume_timeout.to_value(),
            "timeout" => self.timeout.to_value(),
            "max-bytes" => self.max_bytes.to_value(),
            "max-time" => self.max_time.to_value(),
            "leaky-type" => self.leaky_type.to_value(),
            "max-message-size" => self.max_message_size.to_value(),
            "max-clients" => self.max_clients.to_value(),
            "max-clients-per-address" => self.max_clients_per_address.to_value(),
            "chunk-size" => self.chunk_size.to_value(),
            "wait-for-keyframe" => self.wait_for_keyframe.to_value(),
            "keyframe-timeout" => self.keyframe_timeout.to_value(),
            "reconnect-on-force-key-unit" => self.reconnect_on_force_key_unit.to_value(),
            "quality-limits" => self.quality_limits.to_value(),
            "verbose-messages" => self.verbose_messages.to_value(),
            "log-keys" => self.log_keys.to_value(),
            _ => return None,
        };
        Some(value)
    }

    /// Sets a location. A property can't fail to be set, so the error of an invalid one is kept
    /// until the element starts.
    fn set_location(&mut self, location: Option<String>) {
        let parsed = location.map(|text| Location::parse(&text));
        self.location = parsed.map(|parsed| {
            let location = parsed?;
            self.host = location.host;
            self.port = location.port.into();
            self.application = location.application;
            self.stream_key = location.stream_key;
            Ok(location.scheme)
        });
    }

    pub(super) fn location(&self) -> Location {
        Location {
            scheme: if self.certificate_file.is_some() {
                Scheme::Rtmps
            } else {
                Scheme::Rtmp
            },
            host: self.host.clone(),
            port: self.port(),
            application: self.application.clone(),
            stream_key: self.stream_key.clone(),
        }
    }

    pub(super) fn application(&self) -> Option<&str> {
        self.application.as_deref()
    }

    pub(super) fn stream_key(&self) -> Option<&str> {
        self.stream_key.as_deref()
    }

    pub(super) fn allowed_addresses(&self) -> &[String] {
        &self.allowed_addresses
    }

    pub(super) fn accepted_codecs(&self) -> &[String] {
        &self.accepted_codecs
    }

    /// Returns the scheme of URLs that publishers use.
    pub(super) fn scheme(&self) -> &'static str {
        self.location().scheme.name()
    }

    /// Returns true where publishers may choose between RTMP and RTMPS.
    pub(super) fn has_both_schemes(&self) -> bool {
        self.encryption == Encryption::Optional
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        // The specification allows no more than fits.
        self.port as u16
    }

    /// Returns the latency that the element reports.
    pub(crate) fn latency(&self) -> gst::ClockTime {
        // Standby fills the time until it begins afterwards.
        let standby = match self.standby {
            Standby::None => 0,
            Standby::Freeze | Standby::File => self.standby_after,
        };
        let parts = [self.latency, self.delivery_interval, standby];
        gst::ClockTime::from_mseconds(parts.map(u64::from).iter().sum())
    }

    pub(super) fn delivery_interval(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.delivery_interval.into())
    }

    pub(super) fn max_lateness(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.max_lateness.into())
    }

    /// Returns what plays while no media of a publisher comes, or the reason for which it can't be
    /// used. `begins_at_once`: also before the first publisher.
    pub(crate) fn standby(&self, begins_at_once: bool) -> Result<Option<StandbySettings>, String> {
        let source = match (self.standby, &self.standby_location) {
            (Standby::None, None) => return Ok(None),
            (Standby::None, Some(_)) => {
                return Err(
                    "standby-location is set and standby is none, so that the file would never \
                     play: set standby to file"
                        .into(),
                );
            }
            (Standby::Freeze, None) => StandbySource::Freeze,
            (Standby::Freeze, Some(_)) => {
                return Err(
                    "standby-location is set and standby is freeze, which plays no file: set \
                     standby to file, or standby-location to nothing"
                        .into(),
                );
            }
            (Standby::File, None) => {
                return Err("standby is file: set standby-location to an FLV file".into());
            }
            (Standby::File, Some(location)) => {
                StandbySource::File(standby_file::load(location.as_ref())?)
            }
        };
        Ok(Some(StandbySettings {
            source,
            after: u64::from(self.standby_after) * NANOS_PER_MILLI,
            begins_at_once,
        }))
    }

    pub(crate) fn drain(&self) -> Option<Duration> {
        let timeout = Duration::from_millis(self.drain_timeout.into());
        self.drain.then_some(timeout)
    }

    /// Returns the route of the element, or the reason for which it can't start.
    pub(super) fn route(&self) -> Result<Route, String> {
        match &self.location {
            Some(Err(error)) => return Err(format!("Invalid location: {error}")),
            Some(Ok(Scheme::Rtmps)) if self.certificate_file.is_none() => {
                return Err("The location is rtmps://, which needs a certificate: set \
                            certificate-file and private-key-file"
                    .into());
            }
            _ => {}
        }
        let route = Route::new(self.application.as_deref(), self.stream_key.as_deref());
        route.map_err(|error| error.to_string())
    }

    /// Returns the access rules for publishers, or the reason for which the properties are invalid.
    pub(super) fn access(&self) -> Result<Access, String> {
        let addresses = self.allowed_addresses.iter().map(String::as_str);
        let addresses = AllowedAddresses::parse(addresses)
            .map_err(|error| format!("Invalid allowed-addresses: {error}"))?;
        let codecs = self.accepted_codecs.iter().map(String::as_str);
        let codecs = AcceptedCodecs::parse(codecs)
            .map_err(|error| format!("Invalid accepted-codecs: {error}"))?;
        if self.signing_key.as_ref().is_some_and(String::is_empty) {
            return Err("signing-key is empty, so that everybody knows it: set a long one".into());
        }
        Ok(Access {
            addresses,
            credentials: self.credentials()?,
            signing_key: self.signing_key.as_deref().map(SigningKey::new),
            authorizer: self.authorizer()?,
            codecs,
            log_keys: self.log_keys.into(),
        })
    }

    fn authorizer(&self) -> Result<Option<Arc<Authorizer>>, String> {
        let Some(url) = &self.auth_url else {
            return Ok(None);
        };
        let timeout = Duration::from_millis(self.auth_timeout.into());
        let authorizer = Authorizer::new(url, timeout);
        let authorizer = authorizer.map_err(|error| error.to_string())?;
        Ok(Some(Arc::new(authorizer)))
    }

    fn credentials(&self) -> Result<Option<Credentials>, String> {
        let method = match self.authmod {
            AuthMod::None => {
                if self.username.is_some() || self.password.is_some() {
                    return Err(
                        "username or password is set and authmod is none, so that no client \
                                would be asked for them: set authmod to adobe or llnw"
                            .into(),
                    );
                }
                return Ok(None);
            }
            AuthMod::Adobe => Method::Adobe,
            AuthMod::Llnw => Method::Llnw,
        };
        let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        let (Some(username), Some(password)) = (text(&self.username), text(&self.password)) else {
            let name = method.name();
            return Err(format!("authmod is {name}: set username and password too"));
        };
        if username.len() > MAX_USERNAME {
            return Err(format!("username is longer than {MAX_USERNAME} bytes"));
        }
        // Clients put it into a query unescaped.
        if username.contains(['&', '?', '/', '#']) {
            return Err("username contains one of & ? / #, which no client can send".into());
        }
        Ok(Some(Credentials {
            method,
            username,
            password,
        }))
    }

    /// Returns the protocols below RTMP on the port, or the reason for which the properties are
    /// invalid.
    pub(super) fn port_settings(&self) -> Result<PortSettings, String> {
        let tls = match (&self.certificate_file, &self.private_key_file) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err("private-key-file is set and certificate-file is not: set both".into());
            }
            (Some(certificate), key) => Some(TlsFiles {
                certificate: PathBuf::from(certificate),
                private_key: PathBuf::from(key.as_ref().unwrap_or(certificate)),
            }),
        };
        let without_certificate = match self.encryption {
            Encryption::Required if tls.is_none() => "encryption is required, which",
            Encryption::Optional if tls.is_none() => "encryption is optional, so RTMPS",
            _ => "",
        };
        if !without_certificate.is_empty() {
            return Err(format!(
                "{without_certificate} needs a certificate: set certificate-file and \
                 private-key-file, or encryption to auto for RTMP alone"
            ));
        }
        Ok(PortSettings {
            plain_beside_tls: self.encryption == Encryption::Optional,
            proxy_protocol: match self.proxy_protocol {
                ProxyProtocol::Off => server::ProxyProtocol::Off,
                ProxyProtocol::V1 => server::ProxyProtocol::V1,
                ProxyProtocol::V2 => server::ProxyProtocol::V2,
            },
            tls,
        })
    }

    /// Returns the limits of the figures of a publisher's media, or the reason for which they are
    /// invalid.
    pub(crate) fn quality(&self) -> Result<QualityLimits, String> {
        let mut limits = QualityLimits::default();
        for (name, value) in self.quality_limits.iter().flat_map(|limits| limits.iter()) {
            let invalid = |error| format!("Invalid quality-limits: {error}");
            let figure = lists::number(value);
            let figure = figure.ok_or_else(|| invalid(format!("{name} is no number")))?;
            limits.set(name.as_str(), figure).map_err(invalid)?;
        }
        Ok(limits)
    }

    pub(super) fn feed(&self) -> FeedSettings {
        FeedSettings {
            wait_for_keyframe: self.wait_for_keyframe,
            keyframe_timeout: u64::from(self.keyframe_timeout) * NANOS_PER_MILLI,
            timestamp_mode: match self.timestamp_mode {
                TimestampMode::RunningTime => feed::TimestampMode::RunningTime,
                TimestampMode::Publisher => feed::TimestampMode::Publisher,
            },
            imbalance_timeout: u64::from(self.imbalance_timeout) * NANOS_PER_MILLI,
            max_lateness: self.max_lateness().nseconds(),
            max_drift: if self.drift_correction {
                self.max_drift
            } else {
                0
            },
        }
    }

    pub(crate) fn stream(&self) -> StreamSettings {
        StreamSettings {
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
            policy: match self.publisher_policy {
                PublisherPolicy::Reject => Policy::Reject,
                PublisherPolicy::Replace => Policy::Replace,
                PublisherPolicy::ReplaceStalled => Policy::ReplaceStalled,
            },
            stall_timeout: Duration::from_millis(self.stall_timeout.into()),
            resume_timeout: Duration::from_millis(self.resume_timeout.into()),
            delivery_interval: Duration::from_millis(self.delivery_interval.into()),
            // Invalid ones are an error at the start, and a warning later.
            quality: self.quality().unwrap_or_default(),
        }
    }

    pub(super) fn listener(&self) -> ListenerSettings {
        ListenerSettings {
            chunk_size: self.chunk_size,
            max_message_size: self.max_message_size,
            max_clients: self.max_clients as usize,
            max_clients_per_address: self.max_clients_per_address as usize,
            handshake_timeout: Duration::from_millis(self.handshake_timeout.into()),
        }
    }
}

/// Returns the entries of a list.
fn entries(value: &glib::Value) -> Vec<String> {
    lists::split_entries(value.get().expect("type checked upstream"))
}
