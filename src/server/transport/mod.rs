// SPDX-License-Identifier: MPL-2.0

//! How bytes come from a client and get to it: over TCP or TLS, perhaps behind a PROXY header.

mod outbound;
mod proxy;
mod tls;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::ServerConnection;

pub(crate) use outbound::{Blocked, Outbound};
use proxy::InvalidHeader;
pub use proxy::ProxyProtocol;
pub(crate) use tls::Tls;
pub use tls::{TlsError, TlsFiles};

/// Every TLS connection starts with a record of this type.
const TLS_HANDSHAKE: u8 = 0x16;
/// What RTMP starts with.
const RTMP_VERSION: u8 = 3;

/// Enough for a whole TLS record.
const SEALED_BUFFER: usize = 17 * 1024;

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes of RTMP.
    Data(usize),
    /// Something that is not RTMP: a part of a TLS handshake or of a header.
    Nothing,
    /// A PROXY header, with the address that it gives, if it does.
    Header(Option<SocketAddr>),
    /// The client has closed the connection.
    End,
}

/// Whether a read may wait for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// Why there is nothing more to read.
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

/// The reading half of a connection; it belongs to the client's thread.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Arc<TcpStream>,
    outbound: Arc<Outbound>,
    /// The header that has to come first, as far as it is there.
    header: Option<(ProxyProtocol, Vec<u8>)>,
    /// Came with the header, and is not of it.
    early: Vec<u8>,
    is_tls: bool,
    /// From the socket, and not given to TLS yet.
    sealed: Sealed,
    /// Nothing has come after the header.
    untouched: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Sealed {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Transport {
    pub(crate) fn new(socket: Arc<TcpStream>, proxy_protocol: ProxyProtocol, is_tls: bool) -> Self {
        let header = match proxy_protocol {
            ProxyProtocol::Off => None,
            version => Some((version, Vec::new())),
        };
        Transport {
            is_tls,
            outbound: Arc::new(Outbound::new(socket.clone())),
            socket,
            header,
            early: Vec::new(),
            sealed: Sealed::default(),
            untouched: true,
        }
    }

    /// To be called before anything is read from a TLS connection. It may read the certificate's
    /// files.
    pub(crate) fn start_tls(&mut self, tls: &Tls) -> Result<(), TransportError> {
        let connection = ServerConnection::new(tls.config())?;
        self.outbound.start_tls(connection);
        Ok(())
    }

    pub(crate) fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Reads once from the socket at most, so that whoever waits for a deadline gets to see it.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        wait: Wait,
    ) -> Result<Received, TransportError> {
        if self.header.is_some() {
            return self.read_header(buffer, wait);
        }
        if self.is_tls {
            return self.read_tls(buffer, wait);
        }
        let count = self.receive(buffer, wait)?;
        if count == 0 {
            return Ok(Received::End);
        }
        if std::mem::take(&mut self.untouched) && proxy::looks_like_header(&buffer[..count]) {
            return Err(TransportError::UnexpectedProxy);
        }
        Ok(Received::Data(count))
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, TransportError> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.early[..count]);
            self.early.drain(..count);
            return Ok(count);
        }
        Ok(match wait {
            Wait::Yes => (&*self.socket).read(buffer)?,
            Wait::No => recv(&*self.socket, buffer, RecvFlags::DONTWAIT)?.0,
        })
    }

    fn read_header(&mut self, buffer: &mut [u8], wait: Wait) -> Result<Received, TransportError> {
        let count = self.receive(buffer, wait)?;
        let Some((version, bytes)) = &mut self.header else {
            return Ok(Received::Nothing);
        };
        if count == 0 {
            return Ok(Received::End);
        }
        bytes.extend_from_slice(&buffer[..count]);
        let Some(header) = proxy::read(*version, bytes)? else {
            return Ok(Received::Nothing);
        };
        self.early = bytes.split_off(header.length);
        self.header = None;
        Ok(Received::Header(header.source))
    }

    fn read_tls(&mut self, buffer: &mut [u8], wait: Wait) -> Result<Received, TransportError> {
        let outbound = self.outbound.clone();
        match outbound.unseal(&mut self.sealed, buffer)? {
            Received::Nothing => {}
            received => return Ok(received),
        }
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.bytes.resize(SEALED_BUFFER, 0);
        let received = self.receive(&mut sealed.bytes, wait);
        (sealed.start, sealed.end) = (0, *received.as_ref().unwrap_or(&0));
        self.sealed = sealed;
        if received? == 0 {
            return Ok(Received::End);
        }
        if std::mem::take(&mut self.untouched) {
            match self.sealed.bytes.first() {
                Some(&TLS_HANDSHAKE) => {}
                Some(&RTMP_VERSION) => return Err(TransportError::PlainRtmp),
                _ => return Err(TransportError::NotTls),
            }
        }
        outbound.unseal(&mut self.sealed, buffer)
    }
}

impl Sealed {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Gives what can be read now, after as much of `sealed` as that takes.
fn unseal(
    tls: &mut ServerConnection,
    sealed: &mut Sealed,
    buffer: &mut [u8],
) -> Result<Received, TransportError> {
    let mut filled = 0;
    loop {
        match tls.reader().read(&mut buffer[filled..]) {
            Ok(0) if filled < buffer.len() => {
                // The client has said that there is no more.
                return Ok(match filled {
                    0 => Received::End,
                    _ => Received::Data(filled),
                });
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if sealed.is_empty() {
                    return Ok(match filled {
                        0 => Received::Nothing,
                        _ => Received::Data(filled),
                    });
                }
                let mut rest = &sealed.bytes[sealed.start..sealed.end];
                let count = tls.read_tls(&mut rest)?;
                sealed.start += count;
                tls.process_new_packets()?;
            }
            Err(error) => return Err(error.into()),
        }
        if filled == buffer.len() {
            return Ok(Received::Data(filled));
        }
    }
}
