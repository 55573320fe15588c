// SPDX-License-Identifier: MPL-2.0

//! The URLs that publishers can use, from the bound address of a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Most addresses that are listed. A host with many containers has hundreds.
const MAX_LISTED: usize = 8;

/// Returns the text about where publishers connect. `path` is the route as [`super::voice`] shows it.
pub(super) fn text(scheme: &str, bound: SocketAddr, path: &str) -> String {
    let hosts = match bound.ip().is_unspecified() {
        true => own_addresses(bound.is_ipv6()),
        false => vec![bound.ip().to_canonical()],
    };
    let count = hosts.len();
    let urls = hosts.into_iter().take(MAX_LISTED);
    let urls = urls.map(|host| url(scheme, host, bound.port(), path));
    let more = match count.saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(", or {more} other addresses of this machine"),
    };
    format!("{}{more}", urls.collect::<Vec<_>>().join(" or "))
}

fn url(scheme: &str, host: IpAddr, port: u16, path: &str) -> String {
    format!("{scheme}://{}/{path}", SocketAddr::new(host, port))
}

/// Returns the addresses of this machine: those that others reach first, those of the machine itself
/// last.
fn own_addresses(with_ipv6: bool) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        if !interface.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        let Some(address) = interface.address else {
            continue;
        };
        if let Some(ipv4) = address.as_sockaddr_in() {
            addresses.push(IpAddr::V4(ipv4.ip()));
        } else if let Some(ipv6) = address.as_sockaddr_in6() {
            addresses.push(IpAddr::V6(ipv6.ip()));
        }
    }
    sorted(addresses, with_ipv6)
}

fn sorted(mut addresses: Vec<IpAddr>, with_ipv6: bool) -> Vec<IpAddr> {
    // A link-local address means nothing without the name of an interface, which no URL has.
    let is_usable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(ipv6) => with_ipv6 && !ipv6.is_unicast_link_local(),
    };
    addresses.retain(is_usable);
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses.dedup();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
        addresses.extend(with_ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_real_addresses() {
        let path = "live/camera1";
        let one = |bound: &str| text("rtmp", bound.parse().unwrap(), path);
        assert_eq!(one("192.0.2.7:1935"), "rtmp://192.0.2.7:1935/live/camera1");
        assert_eq!(one("[::1]:1"), "rtmp://[::1]:1/live/camera1");
        assert_eq!(
            one("[::ffff:192.0.2.7]:1"),
            "rtmp://192.0.2.7:1/live/camera1"
        );
        for wildcard in ["0.0.0.0:1935", "[::]:1935"] {
            let text = one(wildcard);
            assert!(
                !text.contains("//0.0.0.0") && !text.contains("//[::]"),
                "{text}"
            );
            assert!(
                text.contains("rtmp://127.0.0.1:1935/live/camera1"),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_that_others_reach_come_first() {
        let parse = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let all = parse(&["127.0.0.1", "::1", "2001:db8::7", "fe80::1", "192.0.2.7"]);
        let expected = parse(&["192.0.2.7", "2001:db8::7", "127.0.0.1", "::1"]);
        assert_eq!(sorted(all.clone(), true), expected);
        assert_eq!(sorted(all, false), parse(&["192.0.2.7", "127.0.0.1"]));
        assert_eq!(sorted(Vec::new(), false), parse(&["127.0.0.1"]));
    }
}
