// SPDX-License-Identifier: MPL-2.0

//! The answer of an authorization server.

use std::time::Duration;

use serde_json::Value;
use url::Url;

/// Longest time that a publisher can be given: so far ahead that it does not matter.
const MAX_DURATION: f64 = 1e9;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Permission to publish, with what goes with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Time after which the publisher is ended.
    pub(crate) max_duration: Option<Duration>,
    /// URL of the server to which the publisher has to go instead.
    pub(crate) redirect: Option<String>,
    /// A present publisher is replaced, whatever the policy.
    pub(crate) kicks_others: bool,
}

/// Result of a complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted(Grant),
    Denied,
}

/// Reason why an answer means neither yes nor no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("status {0}, which is neither 20x nor 401 or 403")]
    Status(u16),
    #[error("a body that is not valid JSON")]
    NotJson,
    #[error("a body in an encoding that was not asked for")]
    Encoded,
    #[error("{0} has a value that it can't have")]
    Field(&'static str),
}

impl Answer {
    /// Returns the answer that a status alone gives. None where the body counts too.
    pub(crate) fn of_status(status: u16) -> Result<Option<Self>, BadAnswer> {
        match status {
            200..=209 => Ok(None),
            401 | 403 => Ok(Some(Answer::Denied)),
            // A redirected request would carry passwords to wherever the answer points.
            other => Err(BadAnswer::Status(other)),
        }
    }

    /// Returns the answer with status 20x and this body. Only a JSON object counts: many back ends
    /// answer with a word, or with nothing.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, BadAnswer> {
        // Editors on Windows put a mark before the scripts that answer, and so before the answer.
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let body = body.trim_ascii();
        if !body.starts_with(b"{") {
            return Ok(Answer::Granted(Grant::default()));
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
        // A field that can't be understood may be a restriction.
        let bad = |name| move || BadAnswer::Field(name);
        let field = |name| value.get(name).filter(|value| !value.is_null());
        let duration = |value: &Value| {
            let seconds = value.as_f64().filter(|seconds| *seconds > 0.0)?;
            Some(Duration::from_secs_f64(seconds.min(MAX_DURATION)))
        };
        let (time, url, kick) = ("max-duration", "redirect", "kick-others");
        Ok(Answer::Granted(Grant {
            max_duration: field(time)
                .map(|value| duration(value).ok_or_else(bad(time)))
                .transpose()?,
            redirect: field(url)
                .map(|value| redirect(value).ok_or_else(bad(url)))
                .transpose()?,
            kicks_others: field(kick)
                .map(|value| value.as_bool().ok_or_else(bad(kick)))
                .transpose()?
                .unwrap_or_default(),
        }))
    }
}

/// Returns the address of another server. It is sent to clients and shown in logs, so it is short
/// and has no control characters.
fn redirect(value: &Value) -> Option<String> {
    const MAX_LENGTH: usize = 1024;
    let text = value.as_str()?;
    let url = Url::parse(text).ok()?;
    let is_server = matches!(url.scheme(), "rtmp" | "rtmps") && url.has_host();
    let is_plain = text.len() <= MAX_LENGTH && !text.contains(char::is_control);
    (is_server && is_plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statuses() {
        for (status, expected) in [
            (200, Ok(None)),
            (204, Ok(None)),
            (209, Ok(None)),
            (401, Ok(Some(Answer::Denied))),
            (403, Ok(Some(Answer::Denied))),
            (210, Err(BadAnswer::Status(210))),
            (302, Err(BadAnswer::Status(302))),
            (404, Err(BadAnswer::Status(404))),
            (500, Err(BadAnswer::Status(500))),
        ] {
            assert_eq!(Answer::of_status(status), expected);
        }
    }

    #[test]
    fn bodies() {
        let plain = Grant::default();
        let seconds = |seconds: f64| Grant {
            max_duration: Some(Duration::from_secs_f64(seconds)),
            ..Grant::default()
        };
        let url = "rtmps://b.example/live";
        let redirected = Grant {
            redirect: Some(url.into()),
            kicks_others: true,
            ..Grant::default()
        };
        for (body, expected) in [
            ("", Ok(plain.clone())),
            ("OK", Ok(plain.clone())),
            ("[1]", Ok(plain.clone())),
            (" {}\n", Ok(plain.clone())),
            (r#"{"user":"x"}"#, Ok(plain.clone())),
            (
                r#"{"max-duration":null,"kick-others":false}"#,
                Ok(plain.clone()),
            ),
            (r#"{"max-duration":3600}"#, Ok(seconds(3600.0))),
            (r#"{"max-duration":0.5}"#, Ok(seconds(0.5))),
            ("\u{feff} {\"max-duration\":7}", Ok(seconds(7.0))),
            (r#"{"max-duration":1e300}"#, Ok(seconds(MAX_DURATION))),
            (
                r#"{"max-duration":0}"#,
                Err(BadAnswer::Field("max-duration")),
            ),
            (
                r#"{"max-duration":-1}"#,
                Err(BadAnswer::Field("max-duration")),
            ),
            (
                r#"{"max-duration":"60"}"#,
                Err(BadAnswer::Field("max-duration")),
            ),
            (r#"{"kick-others":1}"#, Err(BadAnswer::Field("kick-others"))),
            (
                r#"{"redirect":"rtmps://b.example/live","kick-others":true}"#,
                Ok(redirected),
            ),
            (
                r#"{"redirect":"http://b.example/live"}"#,
                Err(BadAnswer::Field("redirect")),
            ),
            (r#"{"redirect":"live"}"#, Err(BadAnswer::Field("redirect"))),
            (
                r#"{"redirect":"rtmp://b.example/\u0000"}"#,
                Err(BadAnswer::Field("redirect")),
            ),
            (r#"{"max-duration":60"#, Err(BadAnswer::NotJson)),
            (r#"{"a":1} and more"#, Err(BadAnswer::NotJson)),
            ("{<html>", Err(BadAnswer::NotJson)),
        ] {
            let expected = expected.map(Answer::Granted);
            assert_eq!(Answer::of_body(body.as_bytes()), expected, "{body}");
        }
        let deep = [&b"{\"a\":"[..], &[b'['; 10_000]].concat();
        assert_eq!(Answer::of_body(&deep), Err(BadAnswer::NotJson));
    }

    proptest! {
        #![proptest_config(properties::cases(2000))]

        #[test]
        fn any_body_is_read_without_a_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            number in any::<f64>(),
            text in ".{0,40}",
        ) {
            let _ = Answer::of_body(&body);
            let _ = Answer::of_body(&[&b"{\"max-duration\":"[..], &body].concat());
            let object = serde_json::json!({ "max-duration": number, "redirect": text });
            let _ = Answer::of_body(object.to_string().as_bytes());
        }
    }
}
