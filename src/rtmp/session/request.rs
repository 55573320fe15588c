// SPDX-License-Identifier: MPL-2.0

use crate::amf0::Value;

/// What a client says of itself in `connect`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectRequest {
    /// As it came, query included.
    pub application: String,
    pub tc_url: String,
    pub flash_ver: String,
    pub object_encoding: f64,
}

impl ConnectRequest {
    pub(super) fn read(object: Option<&Value>) -> Self {
        let text = |name| {
            let value = object.and_then(|object| object.get(name));
            // Some clients quote their values.
            let text = value.and_then(Value::as_str).unwrap_or_default();
            text.trim_matches('\'').to_owned()
        };
        let encoding = object.and_then(|object| object.get("objectEncoding"));
        ConnectRequest {
            application: text("app"),
            tc_url: text("tcUrl"),
            flash_ver: text("flashVer"),
            object_encoding: encoding.and_then(Value::as_number).unwrap_or(0.0),
        }
    }
}

/// What a client wants to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishRequest {
    pub connect: ConnectRequest,
    /// As it came, query included. Empty where the client put everything into the application.
    pub stream_key: String,
}
