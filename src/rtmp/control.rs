// SPDX-License-Identifier: MPL-2.0

//! Protocol control messages that concern the conversation (section 5.4) and user control
//! messages (section 7.1.7). The chunk reader handles Set Chunk Size and Abort by itself.

use nom::Parser;
use nom::number::complete::{be_u16, be_u32};

use super::message::type_id;

/// User control event types.
mod event {
    pub(super) const STREAM_BEGIN: u16 = 0;
    pub(super) const PING_REQUEST: u16 = 6;
    pub(super) const PING_RESPONSE: u16 = 7;
}

/// Limit types of Set Peer Bandwidth (section 5.4.5).
pub const PEER_BANDWIDTH_DYNAMIC: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Acknowledgement(u32),
    WindowAckSize(u32),
    SetPeerBandwidth {
        window: u32,
        limit_type: u8,
    },
    StreamBegin {
        msid: u32,
    },
    PingRequest(u32),
    PingResponse(u32),
    /// Set Buffer Length, Stream EOF and every other event that an ingest server ignores.
    OtherUserControl(u16),
}

impl Control {
    /// Reads the body of a message of type 3, 4, 5 or 6. Returns None if the body is too short.
    pub fn read(type_id: u8, body: &[u8]) -> Option<Self> {
        read(type_id, body)
    }

    /// Returns the message type id and the body.
    pub fn write(self) -> (u8, Vec<u8>) {
        let user = |event: u16, value: u32| {
            let body = [&event.to_be_bytes()[..], &value.to_be_bytes()].concat();
            (type_id::USER_CONTROL, body)
        };
        match self {
            Control::Acknowledgement(count) => {
                (type_id::ACKNOWLEDGEMENT, count.to_be_bytes().to_vec())
            }
            Control::WindowAckSize(size) => (type_id::WINDOW_ACK_SIZE, size.to_be_bytes().to_vec()),
            Control::SetPeerBandwidth { window, limit_type } => {
                let body = [&window.to_be_bytes()[..], &[limit_type]].concat();
                (type_id::SET_PEER_BANDWIDTH, body)
            }
            Control::StreamBegin { msid } => user(event::STREAM_BEGIN, msid),
            Control::PingRequest(timestamp) => user(event::PING_REQUEST, timestamp),
            Control::PingResponse(timestamp) => user(event::PING_RESPONSE, timestamp),
            Control::OtherUserControl(kind) => (type_id::USER_CONTROL, kind.to_be_bytes().to_vec()),
        }
    }
}

fn read(type_id: u8, body: &[u8]) -> Option<Control> {
    let number = |input| be_u32::<_, ()>(input).ok();
    let control = match type_id {
        type_id::ACKNOWLEDGEMENT => Control::Acknowledgement(number(body)?.1),
        type_id::WINDOW_ACK_SIZE => Control::WindowAckSize(number(body)?.1),
        type_id::SET_PEER_BANDWIDTH => {
            let (rest, window) = number(body)?;
            // A missing limit type is harmless.
            let limit_type = rest.first().copied().unwrap_or(PEER_BANDWIDTH_DYNAMIC);
            Control::SetPeerBandwidth { window, limit_type }
        }
        _ => {
            let (rest, kind) = be_u16::<_, ()>.parse(body).ok()?;
            match kind {
                event::STREAM_BEGIN => Control::StreamBegin {
                    msid: number(rest)?.1,
                },
                event::PING_REQUEST => Control::PingRequest(number(rest)?.1),
                event::PING_RESPONSE => Control::PingResponse(number(rest)?.1),
                other => Control::OtherUserControl(other),
            }
        }
    };
    Some(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_round_trip() {
        for control in [
            Control::Acknowledgement(0xF000_0001),
            Control::WindowAckSize(2_500_000),
            Control::SetPeerBandwidth {
                window: 5,
                limit_type: 1,
            },
            Control::StreamBegin { msid: 1 },
            Control::PingRequest(77),
            Control::PingResponse(78),
            Control::OtherUserControl(31),
        ] {
            let (type_id, body) = control.write();
            assert_eq!(Control::read(type_id, &body), Some(control));
        }
    }

    #[test]
    fn short_bodies_are_rejected_and_extra_bytes_ignored() {
        let short = Control::read(type_id::WINDOW_ACK_SIZE, &[0, 0, 1]);
        assert_eq!(short, None);
        let set_buffer_length = [0, 3, 0, 0, 0, 1, 0, 0, 0x0B, 0xB8];
        let other = Control::read(type_id::USER_CONTROL, &set_buffer_length);
        assert_eq!(other, Some(Control::OtherUserControl(3)));
    }
}
