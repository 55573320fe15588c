// SPDX-License-Identifier: MPL-2.0

//! The specifications of properties: names, ranges and what they mean.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::Settings;
use super::{ConnectionState, StreamStatus};
use crate::rtmp::limits::MAX_MESSAGE_LENGTH;

pub(super) static SPECS: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(build);

/// Made anew for each class that has these properties: a specification belongs to one class.
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
            .blurb("Address to listen on: an IPv4 or IPv6 literal or a name of this machine")
            .default_value(Some(d.host()))
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
            .blurb("Host, port, application and stream key in one: rtmp[s]://host:port/application/stream-key")
            .default_value(Some(d.location().to_string().as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("application")
            .nick("Application")
            .blurb("Application that publishers must name, may have {variables}, unset for any")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("stream-key")
            .nick("Stream key")
            .blurb(
                "Stream key (publishing name) that publishers must use, may have {variables}, \
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
            .blurb("Name that publishers have to authenticate with, see authmod")
            .mutable_ready()
            .build(),
        // Not readable, since what is ends up in dumps of the pipeline.
        glib::ParamSpecString::builder("password")
            .nick("Password")
            .blurb("Password that publishers have to authenticate with, see authmod")
            .write_only()
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("authmod", d.authmod)
            .nick("Authentication method")
            .blurb("How publishers have to prove that they know the password")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("certificate-file")
            .nick("Certificate file")
            .blurb(
                "PEM file of the certificate and its chain, which makes the port RTMPS; read again \
                 when it changes",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("private-key-file")
            .nick("Private key file")
            .blurb("PEM file of the certificate's private key, unset if it is in certificate-file")
            .mutable_ready()
            .build(),
        gst::ParamSpecArray::builder("allowed-addresses")
            .nick("Allowed addresses")
            .blurb(
                "IP addresses and networks (CIDR) that publishers may come from, empty for all; \
                 others are closed at once",
            )
            .element_spec(
                &glib::ParamSpecString::builder("network")
                    .nick("Network")
                    .blurb("IP address, or network like 192.0.2.0/24")
                    .build(),
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("proxy-protocol", d.proxy_protocol)
            .nick("PROXY protocol")
            .blurb(
                "Whether connections start with a PROXY header of a load balancer, whose address \
                 is the publisher's",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("publisher-policy", d.publisher_policy)
            .nick("Publisher policy")
            .blurb("What to do with a second publisher while there is one")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("drain")
            .nick("Drain")
            .blurb(
                "Take no new publisher, ask the present one to reconnect, cut it off after \
                 drain-timeout, and end the stream",
            )
            .default_value(false)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("drain-timeout")
            .nick("Drain timeout")
            .blurb("How long the present publisher may stay after drain was set, in milliseconds")
            .default_value(d.drain_timeout)
            .mutable_playing()
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
        gst::ParamSpecArray::builder("accepted-codecs")
            .nick("Accepted codecs")
            .blurb(
                "Codecs that publishers may send, as FourCCs, empty for all; tracks in others are \
                 dropped",
            )
            .element_spec(
                &glib::ParamSpecString::builder("codec")
                    .nick("Codec")
                    .blurb("FourCC like avc1, hvc1, av01, mp4a or Opus")
                    .build(),
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("reconnect-on-force-key-unit")
            .nick("Reconnect on force-key-unit")
            .blurb(
                "When a keyframe is asked for downstream, ask a publisher that knows how to to \
                 connect again and so to start with one, at most once in 10 seconds",
            )
            .default_value(d.reconnect_on_force_key_unit)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder::<ConnectionState>("connection-state")
            .nick("Connection state")
            .blurb("How far the connection of the publisher is")
            .read_only()
            .build(),
        glib::ParamSpecEnum::builder::<StreamStatus>("stream-status")
            .nick("Stream status")
            .blurb("What a consumer has to expect of the stream")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("epoch")
            .nick("Epoch")
            .blurb("Counts up whenever a decoder has to start afresh")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counters of the publisher, or of the last one, of the element and of the process",
            )
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
        glib::ParamSpecUInt::builder("stall-timeout")
            .nick("Stall timeout")
            .blurb(
                "A publisher that sends no media for this long is stalled, in milliseconds, 0 for \
                 never",
            )
            .default_value(d.stall_timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("imbalance-timeout")
            .nick("Imbalance timeout")
            .blurb(
                "When one of audio and video flows and the other has not for this long, an event \
                 says so, in milliseconds, 0 for never",
            )
            .default_value(d.imbalance_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-lateness")
            .nick("Maximum lateness")
            .blurb(
                "Media that is further than this from its time is a backlog, and skipped to the \
                 newest keyframe, in milliseconds, 0 for never; needs timestamp-mode=running-time",
            )
            .default_value(d.max_lateness)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("resume-timeout")
            .nick("Resume timeout")
            .blurb(
                "How long a publisher that was cut off may take to come back before it counts as \
                 gone, in milliseconds, 0 for not at all",
            )
            .default_value(d.resume_timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("timeout")
            .nick("Timeout")
            .blurb(
                "A publisher that sends nothing for this long is cut off, in seconds, 0 for never",
            )
            .default_value(d.timeout)
            .mutable_playing()
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
            .blurb(
                "Most connections on the port at a time; for one more, the oldest that does not \
                 publish goes",
            )
            .minimum(1)
            .default_value(d.max_clients)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-clients-per-address")
            .nick("Max clients per address")
            .blurb(
                "Most connections from one IPv4 address or IPv6 /64 network at a time; for one \
                 more, the oldest that does not publish goes",
            )
            .minimum(1)
            .default_value(d.max_clients_per_address)
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
