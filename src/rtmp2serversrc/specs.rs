// SPDX-License-Identifier: MPL-2.0

//! The specifications of properties: names, ranges and blurbs.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::Settings;
use super::{ConnectionState, StreamStatus};
use crate::rtmp::limits::MAX_MESSAGE_LENGTH;

/// A publisher's commands wait for as long as its media, so the interval is short beside its timeouts.
const MAX_DELIVERY_INTERVAL: u32 = 1000;

/// Parts per million. Faster media is a file, and not a clock.
const MAX_DRIFT: u32 = 50_000;

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(build);

/// Builds the specifications, once for each class with these properties: a specification belongs to
/// one class.
pub(crate) fn build() -> Vec<glib::ParamSpec> {
    let d = Settings::default();
    let mut specs = route_specs(&d);
    specs.extend(access_specs(&d));
    specs.extend(stream_specs(&d));
    specs.extend(queue_specs(&d));
    specs.extend(limit_specs(&d));
    specs
}

fn route_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("host")
            .nick("Host")
            .blurb(
                "Address to listen on: an IPv4 or IPv6 literal or a name of this machine; :: is every \
                 address, of IPv4 too",
            )
            .default_value(Some(d.host()))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("port")
            .nick("Port")
            .blurb("TCP port to listen on, 0 for any free port (see current-port)")
            .maximum(u16::MAX.into())
            .default_value(d.port)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("current-port")
            .nick("Current port")
            .blurb("TCP port that the element listens on, 0 while it does not listen")
            .maximum(u16::MAX.into())
            .read_only()
            .build(),
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb("Host, port, application and stream key in one: rtmp[s]://host:port/application/stream-key")
            .default_value(Some(d.location().to_string().as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("application")
            .nick("Application")
            .blurb("Application that publishers must use, may contain {variables}, unset for any")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("stream-key")
            .nick("Stream key")
            .blurb(
                "Stream key (publishing name) that publishers must use, may contain {variables}, \
                 unset for any",
            )
            .mutable_ready()
            .build(),
    ]
}

fn access_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("username")
            .nick("User name")
            .blurb("Name that publishers must authenticate with, see authmod")
            .mutable_ready()
            .build(),
        // Not readable, since readable properties end up in dumps of the pipeline.
        glib::ParamSpecString::builder("password")
            .nick("Password")
            .blurb("Password that publishers must authenticate with, see authmod")
            .write_only()
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("authmod", d.authmod)
            .nick("Authentication method")
            .blurb("Method by which publishers must prove that they know the password")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("certificate-file")
            .nick("Certificate file")
            .blurb(
                "PEM file with the certificate and its chain, makes the port RTMPS; read again when \
                 it changes",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("private-key-file")
            .nick("Private key file")
            .blurb("PEM file with the certificate's private key, unset if certificate-file has it")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("encryption", d.encryption)
            .nick("Encryption")
            .blurb("Encryption that publishers must or may use")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("auth-url")
            .nick("Authorization URL")
            .blurb(
                "http or https URL that is asked, by POST in MediaMTX's format, if a client may \
                 publish; only an answer with status 20x lets it in",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("auth-timeout")
            .nick("Authorization timeout")
            .blurb(
                "Maximum time of a question to auth-url, in milliseconds, after which the client is \
                 refused",
            )
            .minimum(1)
            .default_value(d.auth_timeout)
            .mutable_ready()
            .build(),
        // Not readable, as the password.
        glib::ParamSpecString::builder("signing-key")
            .nick("Signing key")
            .blurb(
                "Key of publish URLs that expire: their query needs expires (seconds since 1970) and \
                 signature (HMAC-SHA256 in hex)",
            )
            .write_only()
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<Vec<String>>("allowed-addresses")
            .nick("Allowed addresses")
            .blurb(
                "IP addresses and networks (CIDR) that may connect, with commas between them, empty \
                 for all; others are closed at once",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("proxy-protocol", d.proxy_protocol)
            .nick("PROXY protocol")
            .blurb(
                "PROXY header that a load balancer sends first on each connection; its address is \
                 used as the publisher's",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("publisher-policy", d.publisher_policy)
            .nick("Publisher policy")
            .blurb("Treatment of a second publisher while there is one")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("verbose-messages")
            .nick("Verbose messages")
            .blurb(
                "Post INFO and WARNING messages for people: where to publish to, publishers with their \
                 codecs, stalls, ends, refusals",
            )
            .default_value(d.verbose_messages)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("log-keys", d.log_keys)
            .nick("Log keys")
            .blurb("Part of stream keys that messages for people and the log show")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("drain")
            .nick("Drain")
            .blurb(
                "Accept no new publisher, ask the present one to reconnect, disconnect it after \
                 drain-timeout, and end the stream",
            )
            .default_value(false)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("drain-timeout")
            .nick("Drain timeout")
            .blurb("Time that the present publisher may stay after drain was set, in milliseconds")
            .default_value(d.drain_timeout)
            .mutable_playing()
            .build(),
    ]
}

fn stream_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("keep-listening")
            .nick("Keep listening")
            .blurb("Wait for the next publisher after one has left, instead of sending EOS")
            .default_value(d.keep_listening)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-mode", d.timestamp_mode)
            .nick("Timestamp mode")
            .blurb("Source of the timestamps of buffers")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("drift-correction")
            .nick("Drift correction")
            .blurb(
                "Correct the drift between the publisher's clock and the pipeline's, slowly and for \
                 all tracks together; needs timestamp-mode=running-time",
            )
            .default_value(d.drift_correction)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-drift")
            .nick("Maximum drift")
            .blurb(
                "Maximum drift that is corrected, in parts per million, and the fastest correction: \
                 1000 moves media by up to 1 ms in a second",
            )
            .minimum(1)
            .maximum(MAX_DRIFT)
            .default_value(d.max_drift)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("standby", d.standby)
            .nick("Standby")
            .blurb(
                "Output while no media of a publisher comes: without one, while it is stalled or cut off",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("standby-location")
            .nick("Standby location")
            .blurb("FLV file that plays in a loop with standby=file")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("standby-after")
            .nick("Standby after")
            .blurb(
                "Time without media after which standby begins, in milliseconds; more than the \
                 longest interval between frames, and part of the latency that is reported",
            )
            .default_value(d.standby_after)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("latency")
            .nick("Latency")
            .blurb(
                "Latency to report, in milliseconds: the network jitter that live sinks compensate",
            )
            .default_value(d.latency)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("delivery-interval")
            .nick("Delivery interval")
            .blurb(
                "Time for which media is collected, so that one wake-up serves many frames, in \
                 milliseconds, 0 for not at all. Part of the latency that is reported",
            )
            .maximum(MAX_DELIVERY_INTERVAL)
            .default_value(d.delivery_interval)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("wait-for-keyframe")
            .nick("Wait for keyframe")
            .blurb(
                "Hold media back at the start of each publisher with video until a keyframe arrives",
            )
            .default_value(d.wait_for_keyframe)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("keyframe-timeout")
            .nick("Keyframe timeout")
            .blurb(
                "Time in milliseconds after which media leaves without a keyframe, with an event; 0 waits \
                 for ever",
            )
            .default_value(d.keyframe_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<Vec<String>>("accepted-codecs")
            .nick("Accepted codecs")
            .blurb(
                "Codecs that publishers may send, with commas between them (h264,aac or FourCCs), \
                 empty for all; tracks in others are dropped",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("reconnect-on-force-key-unit")
            .nick("Reconnect on force-key-unit")
            .blurb(
                "Ask the publisher to reconnect when a keyframe is requested downstream, if it \
                 supports that, at most once in 10 seconds",
            )
            .default_value(d.reconnect_on_force_key_unit)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<ConnectionState>("connection-state")
            .nick("Connection state")
            .blurb("Progress of the publisher's connection")
            .read_only()
            .build(),
        glib::ParamSpecEnum::builder::<StreamStatus>("stream-status")
            .nick("Stream status")
            .blurb("State of the stream for its consumers")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("epoch")
            .nick("Epoch")
            .blurb("Number that grows whenever a decoder has to start afresh")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counters of the present or last publisher, of the element and of the process",
            )
            .read_only()
            .build(),
    ]
}

fn queue_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt64::builder("max-bytes")
            .nick("Max bytes")
            .blurb("Maximum memory of queued media, in bytes, 0 for no limit")
            .default_value(d.max_bytes)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("max-time")
            .nick("Max time")
            .blurb("Maximum duration of queued media, in nanoseconds, 0 for no limit")
            .default_value(d.max_time)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("leaky-type", d.leaky_type)
            .nick("Leaky type")
            .blurb("Behaviour when max-bytes or max-time is reached")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("current-level-bytes")
            .nick("Current level bytes")
            .blurb("Present memory of queued media, in bytes")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("current-level-time")
            .nick("Current level time")
            .blurb("Present duration of queued media, in nanoseconds")
            .read_only()
            .build(),
    ]
}

fn limit_specs(d: &Settings) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecUInt::builder("handshake-timeout")
            .nick("Handshake timeout")
            .blurb("Maximum time from a client's connection until it publishes, in milliseconds")
            .minimum(1)
            .default_value(d.handshake_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("stall-timeout")
            .nick("Stall timeout")
            .blurb(
                "Time without media after which a publisher counts as stalled, in milliseconds, 0 \
                 for never",
            )
            .default_value(d.stall_timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("imbalance-timeout")
            .nick("Imbalance timeout")
            .blurb(
                "Time with only one of audio and video after which an event is posted, in \
                 milliseconds, 0 for never",
            )
            .default_value(d.imbalance_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-lateness")
            .nick("Maximum lateness")
            .blurb(
                "Maximum distance of media from its time, in milliseconds, 0 for no limit; beyond \
                 it, media is skipped to the newest keyframe; needs timestamp-mode=running-time",
            )
            .default_value(d.max_lateness)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("resume-timeout")
            .nick("Resume timeout")
            .blurb(
                "Time within which a publisher that was cut off may return before it counts as \
                 gone, in milliseconds, 0 for none",
            )
            .default_value(d.resume_timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("timeout")
            .nick("Timeout")
            .blurb(
                "Time without any byte after which a publisher is disconnected, in seconds, 0 for \
                 never",
            )
            .default_value(d.timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("quality-limits")
            .nick("Quality limits")
            .blurb(
                "Limits beyond which the event quality-low is posted: min- or max- and \
                 keyframe-interval (ms), video-bitrate, audio-bitrate (bits/s), framerate, width \
                 or height",
            )
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-message-size")
            .nick("Max message size")
            .blurb("Maximum size of a message, in bytes; a frame is one message")
            .minimum(1024)
            .maximum(MAX_MESSAGE_LENGTH)
            .default_value(d.max_message_size)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-clients")
            .nick("Max clients")
            .blurb(
                "Maximum number of connections on the port; one more disconnects the oldest that \
                 does not publish",
            )
            .minimum(1)
            .default_value(d.max_clients)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-clients-per-address")
            .nick("Max clients per address")
            .blurb(
                "Maximum number of connections from one IPv4 address or IPv6 /64 network; one more \
                 disconnects the oldest that does not publish",
            )
            .minimum(1)
            .default_value(d.max_clients_per_address)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("chunk-size")
            .nick("Chunk size")
            .blurb("Chunk size announced to publishers, in bytes; many adopt it")
            .minimum(128)
            .maximum(MAX_MESSAGE_LENGTH)
            .default_value(d.chunk_size)
            .mutable_ready()
            .build(),
    ]
}
