// SPDX-License-Identifier: MPL-2.0

use super::event::Media;
use crate::rtmp::Payload;
use crate::rtmp::limits::MAX_HELD;

/// Media that arrived before `publish` was answered. Some clients start early. That media is the
/// start of the stream, with its sequence headers, and must not be lost.
#[derive(Debug, Default)]
pub(super) struct HeldMedia {
    media: Vec<Media>,
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

impl HeldMedia {
    /// Starts holding: media from now on belongs to the stream that will be published.
    pub(super) fn open(&mut self) {
        if self.state == HoldState::Closed {
            self.state = HoldState::Open;
        }
    }

    /// Stops holding and returns the held media.
    pub(super) fn close(&mut self) -> Vec<Media> {
        self.state = HoldState::Closed;
        self.bytes = 0;
        std::mem::take(&mut self.media)
    }

    /// Returns true if the media is held.
    pub(super) fn push(&mut self, media: Media) -> bool {
        if self.state != HoldState::Open {
            return false;
        }
        self.bytes += cost(&media.payload);
        if self.bytes > MAX_HELD {
            self.close();
            self.state = HoldState::Overflowed;
            return false;
        }
        self.media.push(media);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }
}

/// Returns the bytes of memory of a message. Empty ones cost memory too.
fn cost(payload: &Payload) -> usize {
    payload.capacity() + std::mem::size_of::<Media>()
}
