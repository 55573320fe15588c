// SPDX-License-Identifier: MPL-2.0

//! Results of reading from a client.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::server::transport::proxy::InvalidHeader;

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Number of bytes of RTMP.
    Data(usize),
    /// Only a part of a TLS handshake or of a header.
    Nothing,
    /// A PROXY header, with the client's address if it has one.
    Header(Option<SocketAddr>),
    /// The client has closed the connection.
    End,
}

/// Reason why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("the connection is lost: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Proxy(#[from] InvalidHeader),
    #[error("it speaks plain RTMP, and this port is RTMPS: it should publish to rtmps://")]
    PlainRtmp,
    #[error("it does not speak TLS, and this port is RTMPS")]
    NotTls,
    #[error("it sent a PROXY header, and proxy-protocol is off")]
    UnexpectedProxy,
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
}

impl From<Errno> for TransportError {
    fn from(errno: Errno) -> Self {
        TransportError::Io(errno.into())
    }
}
