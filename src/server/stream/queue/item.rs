// SPDX-License-Identifier: MPL-2.0

//! The items of a media queue: media, states and events in one order.

use std::sync::Arc;
use std::time::Instant;

use crate::flv::{Content, Tag};
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::quality::Verdict;

/// An item for the streaming thread.
#[derive(Debug)]
pub(crate) enum QueueItem {
    Start(Arc<Publisher>),
    Tag {
        tag: Tag,
        arrival: Instant,
        /// Tags before it were dropped.
        discont: bool,
    },
    /// The publisher has sent no media for `stall_timeout`.
    Stalled {
        /// Arrival of its last byte.
        last_read: Instant,
    },
    /// Media arrives again.
    Resumed,
    /// The publisher's connection broke, and it may return: another start, or the end, follows.
    Lost,
    /// Some client waits for the decision about its publish request, or none does any more.
    Authorizing(bool),
    Event(QueueEvent),
    /// The publisher has left.
    End {
        /// There will be no other.
        is_last: bool,
    },
}

/// An event for the application, in order with the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueEvent {
    Rejected(Arc<Publisher>, RejectReason),
    /// The present publisher was replaced by the one that starts next.
    Replaced(Arc<Publisher>),
    ReconnectRequested(Arc<Publisher>),
    /// An element downstream wants a keyframe. Holds why the publisher was not asked to reconnect
    /// for it; None if it was.
    KeyframeRequested(Option<&'static str>),
    /// A figure of the publisher's media is beyond its limit, or within it again.
    Quality(Verdict),
    /// The publisher is gone for good, with the reason.
    Gone(Arc<Publisher>, &'static str),
}

impl QueueEvent {
    /// Returns true for events that clients or elements downstream can cause in any number.
    pub(super) fn is_unbounded(&self) -> bool {
        match self {
            QueueEvent::Rejected(..)
            | QueueEvent::ReconnectRequested(_)
            | QueueEvent::KeyframeRequested(_)
            | QueueEvent::Quality(_) => true,
            QueueEvent::Replaced(_) | QueueEvent::Gone(..) => false,
        }
    }
}

impl QueueItem {
    #[inline]
    pub(super) fn memory(&self) -> usize {
        match self {
            QueueItem::Tag { tag, .. } => tag.memory(),
            _ => 0,
        }
    }

    pub(crate) fn is_keyframe_of(&self, track: u8) -> bool {
        self.keyframe_track() == Some(track)
    }

    #[inline]
    pub(super) fn is_unbounded(&self) -> bool {
        match self {
            QueueItem::Event(event) => event.is_unbounded(),
            QueueItem::Authorizing(_) => true,
            _ => false,
        }
    }

    /// Returns the lowest video track of a keyframe.
    fn keyframe_track(&self) -> Option<u8> {
        let keyframe = self
            .tag()
            .filter(|tag| tag.info.content == Content::Keyframe);
        keyframe.map(Tag::lowest_track)
    }

    #[inline]
    pub(super) fn coded_timestamp(&self) -> Option<u32> {
        let coded = self.tag().filter(|tag| tag.info.is_coded());
        coded.map(|tag| tag.timestamp)
    }

    pub(crate) fn is_media(&self) -> bool {
        self.tag().is_some_and(|tag| tag.info.is_coded())
    }

    #[inline]
    pub(crate) fn is_tag(&self) -> bool {
        self.tag().is_some()
    }

    #[inline]
    pub(super) fn tag(&self) -> Option<&Tag> {
        match self {
            QueueItem::Tag { tag, .. } => Some(tag),
            _ => None,
        }
    }
}
