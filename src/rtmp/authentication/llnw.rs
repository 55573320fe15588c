// SPDX-License-Identifier: MPL-2.0

//! `authmod=llnw`: HTTP digest authentication by another name, with a fixed realm.

use md5::{Digest, Md5};

use super::challenge::{ApplicationQuery, Challenge};
use super::credentials::Credentials;

const REALM: &str = "live";

pub(super) fn parameters(user: &str, challenge: &Challenge) -> String {
    format!("&user={user}&nonce={}", challenge.token)
}

pub(super) fn response(
    credentials: &Credentials,
    challenge: &Challenge,
    query: &ApplicationQuery<'_>,
    application: &str,
) -> String {
    let Credentials {
        username, password, ..
    } = credentials;
    let path = application.split('?').next().unwrap_or_default();
    let instance = if path.contains('/') { "" } else { "/_definst_" };
    let identity = digest(&format!("{username}:{REALM}:{password}"));
    let resource = digest(&format!("publish:/{path}{instance}"));
    let count = query.get("nc").unwrap_or_default();
    let own = query.get("cnonce").unwrap_or_default();
    let nonce = &challenge.token;
    digest(&format!("{identity}:{nonce}:{count}:{own}:auth:{resource}"))
}

fn digest(text: &str) -> String {
    let bytes: [u8; 16] = Md5::digest(text.as_bytes()).into();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
