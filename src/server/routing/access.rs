// SPDX-License-Identifier: MPL-2.0

//! Access rules of an element.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::flv::codec::AcceptedCodecs;
use crate::rtmp::authentication::Credentials;
use crate::server::redact::KeyMasking;
use crate::server::routing::authorizer::Authorizer;
use crate::server::routing::signing::SigningKey;

/// Requirements of an element for its publishers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub addresses: AllowedAddresses,
    /// None for no authentication.
    pub credentials: Option<Credentials>,
    /// Key of publish URLs that expire. None where they need no signature.
    pub signing_key: Option<SigningKey>,
    /// Server that decides who may publish.
    pub authorizer: Option<Arc<Authorizer>>,
    /// Codecs of accepted tracks.
    pub codecs: AcceptedCodecs,
    /// Part of stream keys that the log shows.
    pub log_keys: KeyMasking,
}

/// Networks that clients may connect from. An empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct AllowedAddresses(Vec<IpNet>);

/// Error for text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither an IP address nor a network like 192.0.2.0/24 or 2001:db8::/32")]
pub(crate) struct InvalidNetwork(String);

impl AllowedAddresses {
    pub(crate) fn parse<'a>(
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidNetwork> {
        let parse = |text: &str| {
            let text = text.trim();
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            let network = network.map_err(|_| InvalidNetwork(text.to_owned()))?;
            // Addresses are compared as IPv4 where they are, so this would never match.
            match network.addr().to_canonical() {
                address if address.is_ipv4() == network.addr().is_ipv4() => Ok(network),
                _ => Err(InvalidNetwork(text.to_owned())),
            }
        };
        let networks: Result<Vec<_>, _> = texts.into_iter().map(parse).collect();
        networks.map(AllowedAddresses)
    }

    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        // A socket for both families shows IPv4 addresses as IPv6 ones.
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses() {
        let texts = ["192.0.2.0/24", " 198.51.100.7", "2001:db8::/32", "::1"];
        let allowed = AllowedAddresses::parse(texts).unwrap();
        for (address, expected) in [
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("2001:db8:1::", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::ffff:192.0.2.1", true),
        ] {
            assert_eq!(
                allowed.allows(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
        let all = AllowedAddresses::default();
        assert!(all.allows("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn invalid_networks_are_named_in_the_error() {
        for text in [
            "localhost",
            "192.0.2.0/33",
            "",
            "192.0.2",
            "::ffff:192.0.2.0/120",
        ] {
            let error = AllowedAddresses::parse([text]).unwrap_err();
            assert_eq!(error, InvalidNetwork(text.to_owned()));
        }
    }
}
