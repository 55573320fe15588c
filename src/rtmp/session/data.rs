// SPDX-License-Identifier: MPL-2.0

//! Data messages: script data in its RTMP envelope.

use crate::amf0::{self, SET_DATA_FRAME};
use crate::rtmp::command::without_selector;
use crate::rtmp::limits::{MAX_AMF3_DATA, MAX_AMF3_VALUES};
use crate::rtmp::message::type_id::DATA_AMF3;
use crate::rtmp::{Headroom, Payload};

const CLEAR_DATA_FRAME: &[u8] = b"@clearDataFrame";

#[derive(Debug)]
pub(super) enum DataMessage {
    /// AMF0 that starts with a name, as in FLV.
    Script(Payload),
    /// A request to the server that does not concern the stream.
    ServerRequest,
    Malformed,
}

/// Strips everything before the name: the selector byte of the AMF3 message type, values that some
/// cameras put there, and `@setDataFrame`, which asks a server to store the values after it. Strips
/// malformed bytes after the values too. Data with AMF3 values is written again, since FLV has only
/// AMF0.
pub(super) fn normalize(type_id: u8, mut payload: Payload, headroom: Headroom) -> DataMessage {
    if type_id == DATA_AMF3 {
        let selector = payload.body().len() - without_selector(payload.body()).len();
        payload.skip(selector);
    }
    payload.skip(amf0::script_offset(payload.body()).unwrap_or_default());
    match amf0::read_name(payload.body()) {
        Some((name, length)) if name == SET_DATA_FRAME.as_bytes() => payload.skip(length),
        Some((name, _)) if name == CLEAR_DATA_FRAME => return DataMessage::ServerRequest,
        Some(_) => {}
        None => return DataMessage::Malformed,
    }
    let scan = amf0::scan(payload.body(), usize::MAX);
    if scan.has_amf3 {
        return rewrite(payload.body(), headroom);
    }
    match scan.error {
        None if scan.values > 0 => DataMessage::Script(payload),
        Some(_) if scan.values > 1 => {
            DataMessage::Script(copy(&payload.body()[..scan.length], headroom))
        }
        _ => DataMessage::Malformed,
    }
}

fn rewrite(body: &[u8], headroom: Headroom) -> DataMessage {
    if body.len() > MAX_AMF3_DATA {
        return DataMessage::Malformed;
    }
    let leading = amf0::read_leading(body, MAX_AMF3_VALUES);
    let values = leading.decoded.values;
    if leading.error.is_some() && values.len() < 2 {
        return DataMessage::Malformed;
    }
    let mut written = Vec::new();
    amf0::write_all(&mut written, &values);
    if written.len() > MAX_AMF3_DATA {
        return DataMessage::Malformed;
    }
    DataMessage::Script(copy(&written, headroom))
}

/// Copies a message body, with free bytes around it.
pub(super) fn copy(body: &[u8], headroom: Headroom) -> Payload {
    let mut bytes = Vec::with_capacity(headroom.front + body.len() + headroom.back);
    bytes.resize(headroom.front, 0);
    bytes.extend_from_slice(body);
    Payload::from_vec(bytes, headroom.front)
}
