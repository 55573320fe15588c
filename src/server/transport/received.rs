// SPDX-License-Identifier: MPL-2.0

//! Results of reading from a client.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustls::AlertDescription;

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
    /// Encoders that check certificates end with an alert, or say nothing.
    #[error("it does not trust the certificate of certificate-file: its TLS alert is {0:?}")]
    Untrusted(AlertDescription),
    #[error(
        "it has left in the middle of the TLS handshake: it may not trust the certificate of \
         certificate-file"
    )]
    LeftTls,
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
}

impl From<rustls::Error> for TransportError {
    fn from(error: rustls::Error) -> Self {
        use AlertDescription as Alert;
        match error {
            rustls::Error::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown),
            ) => TransportError::Untrusted(alert),
            other => TransportError::Tls(other),
        }
    }
}

impl From<Errno> for TransportError {
    fn from(errno: Errno) -> Self {
        TransportError::Io(errno.into())
    }
}
