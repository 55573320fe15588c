// SPDX-License-Identifier: MPL-2.0

//! `authmod=adobe`: MD5 over salted password and challenges, in base64.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use md5::{Digest, Md5};

use super::challenge::{ApplicationQuery, Challenge};
use super::credentials::Credentials;

/// Challenge and opaque value are equal: clients answer either one.
pub(super) fn parameters(user: &str, challenge: &Challenge) -> String {
    let Challenge { salt, token } = challenge;
    format!("&user={user}&salt={salt}&challenge={token}&opaque={token}")
}

pub(super) fn response(
    credentials: &Credentials,
    challenge: &Challenge,
    query: &ApplicationQuery<'_>,
) -> String {
    let own = query.get("challenge").unwrap_or_default();
    let Credentials {
        username, password, ..
    } = credentials;
    let inner = digest([username, &challenge.salt, password]);
    digest([&inner, &challenge.token, own])
}

fn digest<const N: usize>(parts: [&str; N]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part.as_bytes());
    }
    BASE64_STANDARD.encode(md5.finalize())
}
