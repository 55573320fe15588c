// SPDX-License-Identifier: MPL-2.0

use super::{Media, Payload};
use crate::rtmp::limits::MAX_HELD;

/// Media that came before `publish` was answered. Some clients start early; what they send is the
/// start of the stream, with its sequence headers, and must not be lost.
#[derive(Debug, Default)]
pub(super) struct HeldMedia {
    media: Vec<Media>,
    bytes: usize,
    state: HoldState,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum HoldState {
    /// No stream is about to be published: media belongs to nothing.
    #[default]
    Closed,
    Open,
    /// There was too much to keep. A stream with a hole is worse than one that starts later, so
    /// all of it is gone.
    Overflowed,
}

impl HeldMedia {
    /// From now on media belongs to the stream that will be published.
    pub(super) fn open(&mut self) {
        if self.state == HoldState::Closed {
            self.state = HoldState::Open;
        }
    }

    /// Ends holding and gives what was held.
    pub(super) fn close(&mut self) -> Vec<Media> {
        self.state = HoldState::Closed;
        self.bytes = 0;
        std::mem::take(&mut self.media)
    }

    /// Whether the media was kept.
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

/// Empty messages cost memory too.
fn cost(payload: &Payload) -> usize {
    payload.capacity() + std::mem::size_of::<Media>()
}
