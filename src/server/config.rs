// SPDX-License-Identifier: MPL-2.0

//! Settings of listeners and streams, as plain values.

use std::path::PathBuf;
use std::time::Duration;

use crate::server::quality::QualityLimits;

/// Handling of a publisher on a stream that already has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    Reject,
    /// The new publisher takes over.
    Replace,
    /// The new publisher takes over if the present one has sent no media for `stall_timeout`.
    #[default]
    ReplaceStalled,
}

/// Handling of media for a full queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Stop reading, so that TCP pushes back on the publisher. Nothing is lost.
    #[default]
    None,
    /// Drop new media.
    Upstream,
    /// Drop old media.
    Downstream,
}

/// Limits of a media queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Bytes of memory, 0 for no limit.
    pub max_bytes: u64,
    /// Media time, zero for no limit.
    pub max_time: Duration,
    pub leak: Leak,
}

/// Settings of a stream. They may change while it has a publisher, and act at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    pub limits: QueueLimits,
    /// Time without a byte after which a publisher is disconnected. Zero for never.
    pub timeout: Duration,
    /// Another publisher may follow one that has left.
    pub keep_listening: bool,
    pub policy: Policy,
    /// Time without media after which a publisher counts as stalled. Zero for never.
    pub stall_timeout: Duration,
    /// Time for which a publisher whose connection broke may return. Zero for not at all.
    pub resume_timeout: Duration,
    /// Time for which media is collected before it is delivered. Zero for not at all.
    pub delivery_interval: Duration,
    /// Limits beyond which figures of the media are reported.
    pub quality: QualityLimits,
}

/// Settings that apply to a client before its route is known. Where elements that share a listener
/// differ, the most generous value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListenerSettings {
    /// Chunk size of the server's messages, in bytes.
    pub chunk_size: u32,
    /// Size of the largest message, in bytes.
    pub max_message_size: u32,
    pub max_clients: usize,
    pub max_clients_per_address: usize,
    /// Time from accept to publish.
    pub handshake_timeout: Duration,
}

impl ListenerSettings {
    pub(crate) fn merge(self, other: Self) -> Self {
        ListenerSettings {
            chunk_size: self.chunk_size.max(other.chunk_size),
            max_message_size: self.max_message_size.max(other.max_message_size),
            max_clients: self.max_clients.max(other.max_clients),
            max_clients_per_address: self
                .max_clients_per_address
                .max(other.max_clients_per_address),
            handshake_timeout: self.handshake_timeout.max(other.handshake_timeout),
        }
    }
}

/// The PROXY header that a port expects first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    #[default]
    Off,
    V1,
    V2,
}

/// Paths of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// PEM: the certificate, and the chain from it to its root.
    pub certificate: PathBuf,
    /// PEM: the key of the first certificate. It may be the same file.
    pub private_key: PathBuf,
}

/// Protocols of a port below RTMP. All elements that share a listener have to agree on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PortSettings {
    pub proxy_protocol: ProxyProtocol,
    /// None for plain RTMP.
    pub tls: Option<TlsFiles>,
    /// Clients may choose plain RTMP although there is a certificate.
    pub plain_beside_tls: bool,
}
