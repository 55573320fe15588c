// SPDX-License-Identifier: MPL-2.0

use std::net::SocketAddr;

use crate::server::error::ClaimError;
use crate::server::routing::publish_point::PublishRules;

/// Checks that two elements can share a listener.
pub(crate) fn check_compatible(
    address: SocketAddr,
    own: &PublishRules,
    other: &PublishRules,
) -> Result<(), ClaimError> {
    let name = other.name.clone();
    let differs = |property| ClaimError::PortDiffers {
        address,
        property,
        other: name.clone(),
    };
    if own.port.proxy_protocol != other.port.proxy_protocol {
        return Err(differs("proxy-protocol"));
    }
    if own.port.tls != other.port.tls {
        return Err(differs("certificate-file and private-key-file"));
    }
    if own.port.plain_beside_tls != other.port.plain_beside_tls {
        return Err(differs("encryption"));
    }
    if own.route.is_same(&other.route) {
        return Err(ClaimError::RouteTaken {
            address,
            route: own.route.to_string(),
            other: name,
        });
    }
    let method = |of: &PublishRules| of.access.credentials.as_ref().map(|c| c.method);
    if method(own) != method(other) && own.route.shares_application(&other.route) {
        return Err(ClaimError::AuthenticationDiffers {
            address,
            other: name,
        });
    }
    Ok(())
}
