// SPDX-License-Identifier: MPL-2.0

//! Reasons why an element can't listen, or a connection can't stay.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::server::config::TlsFiles;

/// Reason why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("Could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not PEM: {reason}", path.display())]
    NotPem { path: PathBuf, reason: String },
    #[error(
        "There is no certificate in {}: it should have a PEM section BEGIN CERTIFICATE",
        .0.display()
    )]
    NoCertificate(PathBuf),
    #[error(
        "There is no private key in {}: it should have a PEM section BEGIN PRIVATE KEY, and no password",
        .0.display()
    )]
    NoPrivateKey(PathBuf),
    #[error(
        "The private key in {} does not belong to the certificate in {}",
        .0.private_key.display(),
        .0.certificate.display()
    )]
    Mismatch(TlsFiles),
    #[error(
        "The certificate in {} or the private key in {} can't be used: {reason}",
        files.certificate.display(),
        files.private_key.display()
    )]
    Unusable { files: TlsFiles, reason: String },
}

/// Reason why an element can't listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("Could not resolve host \"{host}\": {source}. Set host to an address of this machine")]
    Resolve { host: String, source: io::Error },
    #[error("Could not listen on {}: {source}. {}", host_and_port(host, *port), bind_advice(source))]
    Bind {
        host: String,
        port: u16,
        source: io::Error,
    },
    #[error(
        "Could not listen on {address}: {source}. Element \"{other}\" of this process listens on \
         {listening}, which covers it. Set the same host for both, or another port"
    )]
    Overlap {
        address: SocketAddr,
        listening: SocketAddr,
        other: String,
        source: io::Error,
    },
    #[error(
        "The route {route} on {address} belongs to element \"{other}\" already. \
         Set another application or stream-key"
    )]
    RouteTaken {
        address: SocketAddr,
        route: String,
        other: String,
    },
    #[error(
        "{property} must be the same for all elements on {address}, and element \"{other}\" has \
         another value. Set the same, or another port"
    )]
    PortDiffers {
        address: SocketAddr,
        property: &'static str,
        other: String,
    },
    #[error(
        "Clients authenticate before they say their stream key, so elements on {address} that may \
         have the same application must have the same authmod, and that of element \"{other}\" is \
         another. Set the same authmod, another application or another port"
    )]
    AuthenticationDiffers { address: SocketAddr, other: String },
    #[error("{0}")]
    Tls(TlsError),
    #[error(
        "{0} is still being closed by the handler that stopped it. Start the element again after that"
    )]
    Closing(SocketAddr),
}

/// Kind of a [`ClaimError`], after which an element picks its error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimErrorKind {
    /// The address or route is in use.
    Busy,
    /// The properties contradict each other or those of another element.
    Settings,
    /// A file can't be read.
    File,
    Other,
}

/// Returns the form in which a host and its port are set.
fn host_and_port(host: &str, port: u16) -> String {
    let host = host.trim_matches(['[', ']']);
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another program listens there: set port to a free one, or to 0 for any"
        }
        io::ErrorKind::AddrNotAvailable => "Set host to an address of this machine",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need rights: set port to a higher one",
        _ => "Set host and port to an address that this machine has",
    }
}

impl ClaimError {
    pub(crate) fn kind(&self) -> ClaimErrorKind {
        match self {
            ClaimError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                ClaimErrorKind::Busy
            }
            ClaimError::RouteTaken { .. } | ClaimError::Closing(_) | ClaimError::Overlap { .. } => {
                ClaimErrorKind::Busy
            }
            ClaimError::PortDiffers { .. } | ClaimError::AuthenticationDiffers { .. } => {
                ClaimErrorKind::Settings
            }
            ClaimError::Tls(TlsError::Read { .. }) => ClaimErrorKind::File,
            ClaimError::Tls(_) => ClaimErrorKind::Settings,
            ClaimError::Resolve { .. } | ClaimError::Bind { .. } => ClaimErrorKind::Other,
        }
    }
}

/// Reason why there is no room for one more client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManyClients {
    #[error("there are {0} clients that can't make room, which is max-clients")]
    OfAll(usize),
    #[error("its address has {0} clients that can't make room, which is max-clients-per-address")]
    OfAddress(usize),
}

/// Reason why a connection can't stay once its address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressRejected {
    #[error("its address is not in allowed-addresses")]
    NotAllowed,
    #[error("{0}")]
    TooMany(#[from] TooManyClients),
}
