// SPDX-License-Identifier: MPL-2.0

//! Publish URLs that expire: their query has the time, and an HMAC-SHA256 that only the holder of a
//! key can make.
//!
//! Signed is `application/stream-key?expires=TIME`, with `&ip=ADDRESS` after it where the URL is for
//! one address.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::form_urlencoded;

use crate::server::publisher::RejectReason;

/// Bytes of an HMAC-SHA256.
const LENGTH: usize = 32;

/// Key that signs publish URLs.
#[derive(Clone)]
pub(crate) struct SigningKey(Vec<u8>);

/// Reason why the signature of a publish URL is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidSignature {
    /// The query has no `expires` or no `signature`.
    Missing,
    Wrong,
    /// The signature is right, and its time has passed.
    Expired,
    /// The signature is right, and for another address.
    Address,
}

impl From<InvalidSignature> for RejectReason {
    fn from(invalid: InvalidSignature) -> Self {
        match invalid {
            InvalidSignature::Missing => RejectReason::SignatureMissing,
            InvalidSignature::Wrong => RejectReason::SignatureWrong,
            InvalidSignature::Expired => RejectReason::SignatureExpired,
            InvalidSignature::Address => RejectReason::SignatureAddress,
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    pub(crate) fn new(key: &str) -> Self {
        SigningKey(key.as_bytes().to_vec())
    }

    /// Verifies the query of a publisher at `path`. `now` is in seconds since 1970. Only a client with
    /// a right signature learns that it has expired, or is for another address.
    pub(crate) fn verify(
        &self,
        path: &str,
        query: &str,
        address: IpAddr,
        now: u64,
    ) -> Result<(), InvalidSignature> {
        let signed = SignedQuery::parse(query)?;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(signed.text(path).as_bytes());
        // In constant time.
        mac.verify_slice(&signed.signature)
            .map_err(|_| InvalidSignature::Wrong)?;
        if now >= signed.expires {
            return Err(InvalidSignature::Expired);
        }
        match signed.ip {
            Some((_, ip)) if ip != address.to_canonical() => Err(InvalidSignature::Address),
            _ => Ok(()),
        }
    }
}

/// The parameters of a query that belong to its signature.
#[derive(Debug)]
struct SignedQuery {
    /// Seconds since 1970.
    expires: u64,
    /// As received, and its value.
    ip: Option<(String, IpAddr)>,
    signature: [u8; LENGTH],
}

impl SignedQuery {
    fn parse(query: &str) -> Result<Self, InvalidSignature> {
        let [mut expires, mut ip, mut signature] = [None, None, None];
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = match &*name {
                "expires" => &mut expires,
                "ip" => &mut ip,
                "signature" => &mut signature,
                _ => continue,
            };
            // Some clients send a query twice. Two programs may disagree on which of two values counts.
            if known.as_ref().is_some_and(|known| *known != value) {
                return Err(InvalidSignature::Wrong);
            }
            *known = Some(value);
        }
        let (Some(expires), Some(signature)) = (expires, signature) else {
            return Err(InvalidSignature::Missing);
        };
        // The number is signed as the program writes it, so there is one way to write it.
        let number = expires.parse().ok();
        let number = number.filter(|number: &u64| number.to_string() == *expires);
        let ip = match ip {
            Some(text) => {
                let ip: IpAddr = text.parse().map_err(|_| InvalidSignature::Wrong)?;
                Some((text.into_owned(), ip.to_canonical()))
            }
            None => None,
        };
        Ok(SignedQuery {
            expires: number.ok_or(InvalidSignature::Wrong)?,
            ip,
            signature: from_hex(&signature).ok_or(InvalidSignature::Wrong)?,
        })
    }

    /// Returns the text that is signed.
    fn text(&self, path: &str) -> String {
        let expires = self.expires;
        match &self.ip {
            Some((ip, _)) => format!("{path}?expires={expires}&ip={ip}"),
            None => format!("{path}?expires={expires}"),
        }
    }
}

fn from_hex(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != LENGTH {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "live/camera1";
    const CLIENT: &str = "192.0.2.9";
    const EXPIRES: u64 = 1_800_000_000;
    /// Made by `printf %s 'live/camera1?expires=1800000000' | openssl dgst -sha256 -hmac secret`.
    const PLAIN: &str = "ee7062a6c423971b4cfc1f3003a41e11436d6f43d886cc5ec38911b8bd81b604";
    /// The same of `live/camera1?expires=1800000000&ip=192.0.2.9`.
    const FOR_ADDRESS: &str = "02a78c0388fd850a658759439fdfe4ae0fd01a4bcf8b2b575c30e3678a5087a9";
    /// The same of `live/camera1?expires=1800000000&ip=2001:db8::1`.
    const FOR_IPV6: &str = "3a183f4223a295342002aed661777282ed819f77be4ec37930d80e6b45f9e26f";

    fn verify(path: &str, query: &str, address: &str, now: u64) -> Result<(), InvalidSignature> {
        SigningKey::new("secret").verify(path, query, address.parse().unwrap(), now)
    }

    #[test]
    fn signatures_are_right_wrong_missing_or_expired() {
        use InvalidSignature::{Address, Expired, Missing, Wrong};
        let upper = PLAIN.to_uppercase();
        let short = &PLAIN[..62];
        for (query, address, now, expected) in [
            (
                format!("expires=1800000000&signature={PLAIN}"),
                CLIENT,
                0,
                Ok(()),
            ),
            (
                format!("signature={upper}&expires=1800000000"),
                CLIENT,
                EXPIRES - 1,
                Ok(()),
            ),
            (
                format!("user=a&expires=1800000000&x=&signature={PLAIN}&pass=b"),
                CLIENT,
                0,
                Ok(()),
            ),
            (
                format!("expires=1800000000&signature={PLAIN}"),
                CLIENT,
                EXPIRES,
                Err(Expired),
            ),
            (
                format!("expires=1800000001&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            // A client does not learn that a time has passed which it has made up.
            (
                format!("expires=1&signature={PLAIN}"),
                CLIENT,
                EXPIRES,
                Err(Wrong),
            ),
            (
                format!("expires=01800000000&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=+1800000000&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&expires=1&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&expires=1800000000&signature={PLAIN}"),
                CLIENT,
                0,
                Ok(()),
            ),
            (
                format!("expires=1800000000&signature={short}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&signature={PLAIN}00"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                "expires=1800000000&signature=".into(),
                CLIENT,
                0,
                Err(Wrong),
            ),
            ("expires=1800000000".into(), CLIENT, 0, Err(Missing)),
            (format!("signature={PLAIN}"), CLIENT, 0, Err(Missing)),
            (String::new(), CLIENT, 0, Err(Missing)),
            // For one address.
            (
                format!("expires=1800000000&ip={CLIENT}&signature={FOR_ADDRESS}"),
                CLIENT,
                0,
                Ok(()),
            ),
            (
                format!("expires=1800000000&ip={CLIENT}&signature={FOR_ADDRESS}"),
                "::ffff:192.0.2.9",
                0,
                Ok(()),
            ),
            (
                format!("expires=1800000000&ip={CLIENT}&signature={FOR_ADDRESS}"),
                "192.0.2.10",
                0,
                Err(Address),
            ),
            (
                format!("expires=1800000000&ip=192.0.2.10&signature={FOR_ADDRESS}"),
                "192.0.2.10",
                0,
                Err(Wrong),
            ),
            // The address can't be left out or added.
            (
                format!("expires=1800000000&signature={FOR_ADDRESS}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&ip={CLIENT}&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&ip=&signature={PLAIN}"),
                CLIENT,
                0,
                Err(Wrong),
            ),
            (
                format!("expires=1800000000&ip=2001%3Adb8%3A%3A1&signature={FOR_IPV6}"),
                "2001:db8::1",
                0,
                Ok(()),
            ),
        ] {
            assert_eq!(
                verify(PATH, &query, address, now),
                expected,
                "{query} {now}"
            );
        }
    }

    #[test]
    fn a_signature_is_for_one_path_and_key() {
        let query = format!("expires=1800000000&signature={PLAIN}");
        assert_eq!(
            verify("live/camera2", &query, CLIENT, 0),
            Err(InvalidSignature::Wrong)
        );
        let other = SigningKey::new("Secret");
        let result = other.verify(PATH, &query, CLIENT.parse().unwrap(), 0);
        assert_eq!(result, Err(InvalidSignature::Wrong));
        assert_eq!(format!("{other:?}"), "SigningKey { .. }");
    }

    proptest! {
        #![proptest_config(properties::cases(2000))]

        #[test]
        fn no_other_query_is_accepted(
            noise in "[a-z=&%0-9]{0,30}",
            at in 0..LENGTH * 2,
            digit in 0..16u32,
        ) {
            let mut signature = PLAIN.to_owned();
            let digit = char::from_digit(digit, 16).unwrap();
            signature.replace_range(at..=at, &digit.to_string());
            let query = format!("{noise}&expires=1800000000&signature={signature}");
            let accepted = verify(PATH, &query, CLIENT, 0).is_ok();
            prop_assert!(!accepted || signature == PLAIN);
            let _ = verify(PATH, &noise, CLIENT, 0);
        }
    }
}
