// SPDX-License-Identifier: MPL-2.0

//! Bytes from a client and to it: over TCP or TLS, perhaps after a PROXY header.

mod outbound;
mod proxy;
mod received;
mod sealed;
mod tls;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use rustls::ServerConnection;

use crate::server::config::ProxyProtocol;

pub(crate) use outbound::{Blocked, Outbound};
pub(crate) use received::{Received, TransportError};
use sealed::Sealed;
pub(crate) use tls::Tls;

/// Every TLS connection starts with a record of this type.
const TLS_HANDSHAKE: u8 = 0x16;
/// First byte of RTMP.
const RTMP_VERSION: u8 = 3;

/// Bytes that hold a whole TLS record.
const SEALED_BUFFER: usize = 17 * 1024;

/// Behaviour of a read while the client has sent nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Block,
    Poll,
}

/// The reading half of a connection, used by its own thread alone.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Arc<TcpStream>,
    outbound: Arc<Outbound>,
    /// The header that has to come first, as far as it has arrived.
    header: Option<(ProxyProtocol, Vec<u8>)>,
    /// Bytes that were read from the socket and are not yet handled: after the header, or before TLS.
    early: Vec<u8>,
    is_tls: bool,
    /// The certificate where the client's first byte decides between RTMP and RTMPS. None once it
    /// has, and where there is no choice.
    offered_tls: Option<Arc<Tls>>,
    /// Bytes from the socket that TLS has not processed.
    sealed: Sealed,
    /// Nothing has arrived after the header.
    untouched: bool,
    /// The last read from the socket filled its buffer.
    was_filled: bool,
}

impl Transport {
    pub(crate) fn new(socket: Arc<TcpStream>, proxy_protocol: ProxyProtocol, is_tls: bool) -> Self {
        let header = match proxy_protocol {
            ProxyProtocol::Off => None,
            version => Some((version, Vec::new())),
        };
        Transport {
            is_tls,
            offered_tls: None,
            outbound: Arc::new(Outbound::new(socket.clone())),
            socket,
            header,
            early: Vec::new(),
            sealed: Sealed::default(),
            untouched: true,
            was_filled: false,
        }
    }

    /// Starts TLS. Call it before anything is read. It may read the certificate's files.
    pub(crate) fn start_tls(&mut self, tls: &Tls) -> Result<(), TransportError> {
        let connection = ServerConnection::new(tls.config())?;
        self.outbound.start_tls(connection);
        Ok(())
    }

    /// Lets the client's first byte decide between RTMP and RTMPS. Call it before anything is read.
    pub(crate) fn offer_tls(&mut self, tls: Arc<Tls>) {
        self.offered_tls = Some(tls);
    }

    pub(crate) fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns true where the last read from the socket may have left something there.
    pub(crate) fn may_have_left_more(&self) -> bool {
        self.was_filled
    }

    /// Reads once from the socket at most, so that the caller sees its deadlines.
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
        if let Some(tls) = self.offered_tls.take()
            && buffer[0] == TLS_HANDSHAKE
        {
            self.early.splice(..0, buffer[..count].iter().copied());
            self.is_tls = true;
            self.start_tls(&tls)?;
            return self.read_tls(buffer, wait);
        }
        if std::mem::take(&mut self.untouched) && proxy::looks_like_header(&buffer[..count]) {
            return Err(TransportError::UnexpectedProxy);
        }
        Ok(Received::Data(count))
    }

    /// Reads and discards until the client has closed the connection, or until a deadline.
    pub(crate) fn discard_until(&mut self, deadline: Instant, buffer: &mut [u8]) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match self.read(buffer, Wait::Block) {
                Ok(Received::End) => return,
                Ok(_) => {}
                Err(TransportError::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, TransportError> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.early[..count]);
            self.early.drain(..count);
            return Ok(count);
        }
        let size = buffer.len();
        self.was_filled = false;
        let count = match wait {
            Wait::Block => (&*self.socket).read(buffer)?,
            Wait::Poll => recv(&*self.socket, buffer, RecvFlags::DONTWAIT)?.0,
        };
        self.was_filled = count == size;
        Ok(count)
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
        let has_left = match &received {
            Ok(count) => *count == 0,
            // It has left before the server's answer came.
            Err(TransportError::Io(error)) => error.kind() == ErrorKind::ConnectionReset,
            Err(_) => false,
        };
        if has_left && !self.untouched && outbound.is_in_handshake() {
            return Err(TransportError::LeftTls);
        }
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

#[test]
fn reads_that_fill_their_buffer_may_have_left_more() {
    use std::io::Write;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let mut transport = Transport::new(Arc::new(server), ProxyProtocol::Off, false);
    let mut buffer = [0; 100];
    client.write_all(&[1; 100]).unwrap();
    let mut filled = 0;
    while filled < buffer.len() {
        assert!(!transport.may_have_left_more());
        match transport
            .read(&mut buffer[..100 - filled], Wait::Block)
            .unwrap()
        {
            Received::Data(count) => filled += count,
            received => panic!("{received:?}"),
        }
    }
    assert!(transport.may_have_left_more());
    transport.read(&mut buffer, Wait::Poll).unwrap_err();
    assert!(!transport.may_have_left_more(), "nothing was there");
}
