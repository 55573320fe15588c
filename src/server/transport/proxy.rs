// SPDX-License-Identifier: MPL-2.0

//! The PROXY header, in which a load balancer sends the address of its client.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

use crate::server::config::ProxyProtocol;

/// Bytes of the longest accepted header of version 2. Addresses take 36 of them; the rest are
/// extensions that nothing here uses, and a client may claim 64 KiB of them.
const MAX_V2: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V1_END: &[u8] = b"\r\n";
/// "The maximum line lengths the receiver must support", section 2.1.
const MAX_V1: usize = 107;

const V2_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Prefix, version, command, family and length, section 2.2.
const V2_START: usize = 16;

/// Violation at the start of a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHeader {
    #[error("it does not start with the PROXY header of version {0} that proxy-protocol asks for")]
    Missing(u8),
    #[error("its PROXY header is longer than {0} bytes")]
    TooLong(usize),
    #[error("its PROXY header is not valid: {0}")]
    Malformed(String),
}

/// A complete header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: usize,
    /// Address of the client. None for a connection of the load balancer's own, as a health check.
    pub(crate) source: Option<SocketAddr>,
}

/// Reads the header at the start of the bytes so far. Returns None if more are needed.
pub(crate) fn read(version: ProxyProtocol, bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    match version {
        ProxyProtocol::Off => Ok(None),
        ProxyProtocol::V1 => read_v1(bytes),
        ProxyProtocol::V2 => read_v2(bytes),
    }
}

/// Returns true if these are the first bytes of a header of either version.
pub(crate) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.starts_with(V1_PREFIX) || bytes.starts_with(V2_PREFIX)
}

fn has_prefix(bytes: &[u8], prefix: &[u8]) -> bool {
    let common = bytes.len().min(prefix.len());
    bytes[..common] == prefix[..common]
}

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    if !has_prefix(bytes, V1_PREFIX) {
        return Err(InvalidHeader::Missing(1));
    }
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let end = line.windows(V1_END.len()).position(|w| w == V1_END);
    let Some(end) = end else {
        if line.len() == MAX_V1 {
            return Err(InvalidHeader::TooLong(MAX_V1));
        }
        return Ok(None);
    };
    let length = end + V1_END.len();
    let malformed = |error: String| InvalidHeader::Malformed(error);
    let header = v1::Header::try_from(&bytes[..length]).map_err(|e| malformed(e.to_string()))?;
    let source = match header.addresses {
        v1::Addresses::Tcp4(a) => Some((IpAddr::from(a.source_address), a.source_port)),
        v1::Addresses::Tcp6(a) => Some((IpAddr::from(a.source_address), a.source_port)),
        v1::Addresses::Unknown => None,
    };
    Ok(Some(Header {
        length,
        source: source.map(SocketAddr::from),
    }))
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, InvalidHeader> {
    if !has_prefix(bytes, V2_PREFIX) {
        return Err(InvalidHeader::Missing(2));
    }
    let Some([.., high, low]) = bytes.get(..V2_START) else {
        return Ok(None);
    };
    let length = V2_START + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_V2 {
        return Err(InvalidHeader::TooLong(MAX_V2));
    }
    let Some(whole) = bytes.get(..length) else {
        return Ok(None);
    };
    let malformed = |error: v2::ParseError| InvalidHeader::Malformed(error.to_string());
    let header = v2::Header::try_from(whole).map_err(malformed)?;
    let source = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(a)) => {
            Some((IpAddr::from(a.source_address), a.source_port))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(a)) => {
            Some((IpAddr::from(a.source_address), a.source_port))
        }
        (v2::Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
    };
    Ok(Some(Header {
        length,
        source: source.map(SocketAddr::from),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = V2_PREFIX.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Returns None for each part of the header, and leaves the bytes after it alone.
    #[track_caller]
    fn assert_reads(version: ProxyProtocol, header: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().unwrap());
        let length = header.len();
        for cut in 0..length {
            assert_eq!(read(version, &header[..cut]), Ok(None), "{cut}");
        }
        let mut bytes = header.to_vec();
        bytes.extend([3, 0xFF, 0xFE]);
        let expected = Some(Header { length, source });
        assert_eq!(read(version, &bytes), Ok(expected.clone()));
        assert_eq!(read(version, header), Ok(expected));
        assert!(looks_like_header(header));
    }

    #[test]
    fn both_versions_and_both_families() {
        use ProxyProtocol::{V1, V2};
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n";
        assert_reads(V1, line, Some("192.0.2.7:56324"));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 1935\r\n";
        assert_reads(V1, line, Some("[2001:db8::1]:1"));
        assert_reads(V1, b"PROXY UNKNOWN\r\n", None);

        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xDC, 4, 7, 0x8F];
        let proxied = v2_header(1, 0x11, &v4);
        assert_reads(V2, &proxied, Some("192.0.2.7:56324"));
        let mut with_addition = v4.to_vec();
        with_addition.extend([4, 0, 1, 9]);
        let proxied = v2_header(1, 0x11, &with_addition);
        assert_reads(V2, &proxied, Some("192.0.2.7:56324"));
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 9;
        assert_reads(V2, &v2_header(1, 0x21, &v6), Some("[::1]:9"));
        // A health check speaks for nobody.
        assert_reads(V2, &v2_header(0, 0, &[]), None);
    }

    #[test]
    fn headers_with_any_byte_changed_are_read_or_refused() {
        let mut random = fastrand::Rng::with_seed(7);
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xDC, 4, 7, 0x8F];
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n".to_vec();
        for (version, header) in [
            (ProxyProtocol::V1, line),
            (ProxyProtocol::V2, v2_header(1, 0x11, &v4)),
        ] {
            for _ in 0..20_000 {
                let mut bytes = header.clone();
                for _ in 0..random.usize(1..4) {
                    let index = random.usize(..bytes.len());
                    bytes[index] = random.u8(..);
                }
                bytes.extend([0; 8]);
                if let Ok(Some(header)) = read(version, &bytes) {
                    assert!(header.length <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn invalid_headers_are_rejected_at_their_first_wrong_byte() {
        use ProxyProtocol::{V1, V2};
        assert_eq!(read(V1, &[3]), Err(InvalidHeader::Missing(1)));
        assert_eq!(read(V2, &[3]), Err(InvalidHeader::Missing(2)));
        assert_eq!(read(V2, b"PROXY"), Err(InvalidHeader::Missing(2)));
        assert_eq!(read(V1, b"PROXy"), Err(InvalidHeader::Missing(1)));
        let endless = [V1_PREFIX, &[b'x'; MAX_V1]].concat();
        assert_eq!(read(V1, &endless), Err(InvalidHeader::TooLong(MAX_V1)));
        let long = v2_header(1, 0x11, &[0; MAX_V2]);
        assert_eq!(read(V2, &long[..16]), Err(InvalidHeader::TooLong(MAX_V2)));
        for header in [&b"PROXY TCP4 a b c d\r\n"[..], b"PROXY TCP4 1.2.3.4\r\n"] {
            let result = read(V1, header);
            assert!(
                matches!(result, Err(InvalidHeader::Malformed(_))),
                "{result:?}"
            );
        }
        let short = v2_header(1, 0x11, &[0; 4]);
        assert!(matches!(read(V2, &short), Err(InvalidHeader::Malformed(_))));
    }
}
