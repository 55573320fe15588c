// SPDX-License-Identifier: MPL-2.0

//! The question for an authorization server, in the format of MediaMTX's external authentication.

use serde_json::json;
use url::form_urlencoded;

use crate::rtmp::authentication::Credentials;
use crate::server::publisher::Publisher;

/// Returns the question about a publisher, as JSON. `credentials` are those that it has
/// authenticated with. It contains secrets, and is for the authorization server alone.
pub(super) fn question(publisher: &Publisher, credentials: Option<&Credentials>) -> String {
    let query = |name: &str| {
        let mut pairs = form_urlencoded::parse(publisher.query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value)
    };
    let text = |name: &str| query(name).unwrap_or_default();
    // A client that authenticates has its user name in the query as well, and no password.
    let (user, password) = match (query("pass"), credentials) {
        (None, Some(credentials)) => (
            credentials.username.as_str().into(),
            credentials.password.as_str().into(),
        ),
        (password, _) => (text("user"), password.unwrap_or_default()),
    };
    json!({
        "user": user,
        "password": password,
        "token": text("token"),
        "ip": publisher.address.ip().to_canonical().to_string(),
        "action": "publish",
        "path": publisher.path(),
        "protocol": "rtmp",
        "id": uuid(fastrand::u128(..)),
        "query": publisher.query,
        "userAgent": publisher.flash_ver,
    })
    .to_string()
}

/// Returns a random UUID of version 4.
fn uuid(random: u128) -> String {
    let number = random & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| &hex[range]);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::rtmp::authentication::Method;

    fn ask(query: &str, credentials: Option<&Credentials>) -> Value {
        let publisher = Publisher {
            query: query.into(),
            flash_ver: "FMLE/3.0".into(),
            ..Publisher::example(1)
        };
        serde_json::from_str(&question(&publisher, credentials)).unwrap()
    }

    #[test]
    fn questions_have_the_fields_that_back_ends_know() {
        let mut value = ask("user=caf%C3%A9+1&pass=p%26q&token=t", None);
        let id = value["id"].take();
        let parts: Vec<usize> = id.as_str().unwrap().split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        let expected = json!({
            "user": "café 1",
            "password": "p&q",
            "token": "t",
            "ip": "127.0.0.1",
            "action": "publish",
            "path": "live/key",
            "protocol": "rtmp",
            "id": null,
            "query": "user=caf%C3%A9+1&pass=p%26q&token=t",
            "userAgent": "FMLE/3.0",
        });
        assert_eq!(value, expected);
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn credentials_come_from_the_query_or_from_the_challenge() {
        let credentials = Credentials {
            method: Method::Adobe,
            username: "camera".into(),
            password: "secret".into(),
        };
        for (query, known, user, password) in [
            ("", None, "", ""),
            ("user=a", None, "a", ""),
            ("user=a&pass=b", None, "a", "b"),
            ("pass=b", None, "", "b"),
            (
                "authmod=adobe&user=camera&response=x",
                Some(&credentials),
                "camera",
                "secret",
            ),
            ("user=a&pass=b", Some(&credentials), "a", "b"),
        ] {
            let value = ask(query, known);
            assert_eq!(
                (&value["user"], &value["password"]),
                (&json!(user), &json!(password))
            );
        }
    }
}
