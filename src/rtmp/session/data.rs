// SPDX-License-Identifier: MPL-2.0

//! Data messages: script data in its RTMP envelope.

use crate::amf0;
use crate::rtmp::command::without_selector;
use crate::rtmp::{Headroom, Payload};

const SET_DATA_FRAME: &[u8] = b"@setDataFrame";
const CLEAR_DATA_FRAME: &[u8] = b"@clearDataFrame";

#[derive(Debug)]
pub(super) enum DataMessage {
    /// AMF0 that starts with a name, as in FLV.
    Script(Payload),
    /// A request to the server that does not concern the stream.
    ServerRequest,
    Malformed,
}

/// Strips the selector byte of the AMF3 message type and `@setDataFrame`, which asks a server to
/// store the values after it. Data with AMF3 values is written again, since FLV has only AMF0.
pub(super) fn normalize(mut payload: Payload, headroom: Headroom) -> DataMessage {
    let selector = payload.body().len() - without_selector(payload.body()).len();
    payload.skip(selector);
    match amf0::read_name(payload.body()) {
        Some((name, length)) if name == SET_DATA_FRAME => payload.skip(length),
        Some((name, _)) if name == CLEAR_DATA_FRAME => return DataMessage::ServerRequest,
        Some(_) => {}
        None => return DataMessage::Malformed,
    }
    match amf0::read_all(payload.body()) {
        Ok(decoded) if decoded.values.is_empty() => DataMessage::Malformed,
        Ok(decoded) if decoded.had_amf3 => {
            let mut body = Vec::new();
            amf0::write_all(&mut body, &decoded.values);
            DataMessage::Script(copy(&body, headroom))
        }
        Ok(_) => DataMessage::Script(payload),
        Err(_) => DataMessage::Malformed,
    }
}

/// Copies a message body, with free bytes around it.
pub(super) fn copy(body: &[u8], headroom: Headroom) -> Payload {
    let mut bytes = Vec::with_capacity(headroom.front + body.len() + headroom.back);
    bytes.resize(headroom.front, 0);
    bytes.extend_from_slice(body);
    Payload::from_vec(bytes, headroom.front)
}
