// SPDX-License-Identifier: MPL-2.0

use std::sync::Arc;

use super::capabilities::{CAPS_EX_RECONNECT, Offer};
use crate::amf0::Value;
use crate::rtmp::Violation;
use crate::rtmp::limits::{MAX_NAME, MAX_PATH_PARTS};

/// The client's properties in `connect`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConnectRequest {
    /// As received, query included.
    pub application: String,
    pub tc_url: String,
    pub flash_ver: String,
    pub object_encoding: f64,
    /// Capabilities beyond RTMP, as bits (Enhanced RTMP v2, "Enhancing NetConnection connect
    /// Command").
    pub caps_ex: u32,
    /// True for Flash Media Live Encoder.
    pub is_flash_encoder: bool,
    /// Capability properties that the client has sent, and wants answered.
    pub offer: Offer,
}

impl ConnectRequest {
    pub fn can_reconnect(&self) -> bool {
        self.caps_ex & CAPS_EX_RECONNECT != 0
    }

    pub(super) fn read(object: Option<&Value>) -> Result<Self, Violation> {
        let text = |name| {
            let value = object.and_then(|object| object.get(name));
            // Some clients quote their values.
            let text = value.and_then(Value::as_str).unwrap_or_default();
            name_of(text.trim_matches('\''))
        };
        let number = |name| {
            let value = object.and_then(|object| object.get(name));
            value.and_then(Value::as_number).unwrap_or(0.0)
        };
        let flash_ver = text("flashVer")?;
        Ok(ConnectRequest {
            application: text("app")?,
            tc_url: text("tcUrl")?,
            is_flash_encoder: is_flash_encoder(&flash_ver, object),
            flash_ver,
            object_encoding: number("objectEncoding"),
            caps_ex: number("capsEx") as u32,
            offer: Offer::read(object),
        })
    }
}

/// Returns true for Flash Media Live Encoder. Others use its version too: ffmpeg adds its own name,
/// and Moblin and HaishinKit also list the codecs that they play, which an encoder does not.
fn is_flash_encoder(flash_ver: &str, object: Option<&Value>) -> bool {
    let is_player = ["audioCodecs", "videoCodecs"]
        .iter()
        .any(|name| object.and_then(|object| object.get(name)).is_some());
    flash_ver.starts_with("FMLE/") && !flash_ver.contains("Lavf") && !is_player
}

/// Returns a name that is short enough to keep and compare, and has no control characters.
pub(super) fn name_of(text: &str) -> Result<String, Violation> {
    if text.len() > MAX_NAME {
        return Err(Violation::NameTooLong);
    }
    // Some clients end their text with a zero byte, as C does. Within a name, a control character
    // can make two programs see different names.
    let text = text.trim_matches(char::is_control);
    if text.contains(char::is_control) {
        return Err(Violation::ControlCharacter);
    }
    // Tokens in a query may hold any number of slashes.
    let path = text.split('?').next().unwrap_or_default();
    if path.split('/').count() > MAX_PATH_PARTS {
        return Err(Violation::TooManyParts);
    }
    Ok(text.to_owned())
}

/// A request to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishRequest {
    pub connect: Arc<ConnectRequest>,
    /// As received, query included. Empty where the application holds the whole path.
    pub stream_key: String,
}
