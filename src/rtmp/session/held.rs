// SPDX-License-Identifier: MPL-2.0

use crate::rtmp::limits::MAX_HELD;
use crate::rtmp::message::Message;

/// Media messages that arrived before `publish` was answered. Some clients start early. That media
/// is the start of the stream, with its sequence headers, and must not be lost. It stays undecoded:
/// decoded data can be many times as large, and the client is not authorized yet.
#[derive(Debug, Default)]
pub(super) struct HeldMessages {
    messages: Vec<Message>,
    bytes: usize,
    state: HoldState,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum HoldState {
    /// No stream is about to be published, so media belongs to none.
    #[default]
    Closed,
    Open,
    /// The limit was exceeded. A stream with a hole is worse than one that starts later, so all
    /// held media was dropped.
    Overflowed,
}

impl HeldMessages {
    /// Starts holding: media from now on belongs to the stream that will be published.
    pub(super) fn open(&mut self) {
        if self.state == HoldState::Closed {
            self.state = HoldState::Open;
        }
    }

    /// Stops holding and returns the held messages.
    pub(super) fn close(&mut self) -> Vec<Message> {
        self.state = HoldState::Closed;
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    /// Holds a message. Returns the number of messages that are lost with it: none if it is held.
    pub(super) fn push(&mut self, message: Message) -> u64 {
        if self.state != HoldState::Open {
            return 1;
        }
        self.bytes += cost(&message);
        if self.bytes > MAX_HELD {
            let lost = self.close();
            self.state = HoldState::Overflowed;
            return 1 + lost.len() as u64;
        }
        self.messages.push(message);
        0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }
}

/// Returns the bytes of memory of a message. Empty ones cost memory too.
pub(super) fn cost(message: &Message) -> usize {
    message.payload.capacity() + std::mem::size_of::<Message>()
}
