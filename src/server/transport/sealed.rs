// SPDX-License-Identifier: MPL-2.0

//! Decryption of TLS records.

use std::io::{self, Read};

use rustls::ServerConnection;

use crate::server::transport::received::{Received, TransportError};

/// Bytes from the socket that TLS has not processed.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Sealed {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Returns the bytes that can be read now, and processes as much of `sealed` as that takes.
pub(super) fn unseal(
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
