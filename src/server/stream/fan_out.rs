// SPDX-License-Identifier: MPL-2.0

//! Effects of a change of a stream's slot: queue items, events for the application and counters.

use std::sync::Arc;

use crate::server::events::PublisherEvent;
use crate::server::publisher::{Publisher, RemovalReason};
use crate::server::stats::Arrival;
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::stream::queue::QueueEvent;
use crate::server::stream::slot::Change;

/// Reason of a `publisher-gone` event for a publisher that did not return in time.
const NOT_RESUMED: &str = "not-resumed";

/// One effect. They happen in order, under the lock of the slot.
#[derive(Debug, Clone)]
pub(crate) enum Effect<H> {
    /// Fixes the reason before the queue stops accepting media, so that the reading thread knows
    /// it.
    Mark(H, RemovalReason),
    Event(QueueEvent),
    Start(Arc<Publisher>, Arrival),
    Lose,
    End {
        is_last: bool,
    },
    /// The queue accepts nothing more from the present publisher.
    Revoke,
    CountEnd,
    Dispatch(PublisherEvent),
    /// Sends the client the reason, and ends its connection a moment later. Done after unlocking.
    Dismiss(H, RemovalReason),
    /// Ends the connection at once.
    Disconnect(H, RemovalReason),
    /// Done after unlocking.
    AskToReconnect(H),
}

/// Returns the effects of a change. This is the only place that knows them.
pub(crate) fn fan_out<H: Clone>(change: Change<H>) -> Vec<Effect<H>> {
    let removed = |publisher, reason| Effect::Dispatch(PublisherEvent::Removed(publisher, reason));
    let gone = |publisher, reason| Effect::Event(QueueEvent::Gone(publisher, reason));
    match change {
        Change::Started { publisher, arrival } => vec![
            Effect::Start(publisher.clone(), arrival),
            Effect::Dispatch(PublisherEvent::Added(publisher)),
        ],
        Change::Replaced { publisher, handle } => {
            let reason = RemovalReason::Replaced;
            vec![
                Effect::Mark(handle.clone(), reason),
                Effect::Event(QueueEvent::Replaced(publisher.clone())),
                gone(publisher.clone(), reason.nick()),
                removed(publisher, reason),
                Effect::Dismiss(handle, reason),
            ]
        }
        Change::Lost { publisher, reason } => {
            vec![Effect::Lose, Effect::CountEnd, removed(publisher, reason)]
        }
        Change::Resumed { publisher, reason } => vec![gone(publisher, reason.nick())],
        Change::NotResumed { publisher, is_last } => {
            vec![gone(publisher, NOT_RESUMED), Effect::End { is_last }]
        }
        Change::Left {
            publisher,
            reason,
            is_last,
        } => vec![
            gone(publisher.clone(), reason.nick()),
            Effect::End { is_last },
            Effect::CountEnd,
            removed(publisher, reason),
        ],
        Change::Ended => vec![Effect::End { is_last: true }],
        Change::AskedToReconnect { handle } => vec![Effect::AskToReconnect(handle)],
        Change::Expired { handle } => vec![
            Effect::Disconnect(handle, RemovalReason::Drained),
            Effect::Revoke,
        ],
        Change::Stopped { publisher, handle } => {
            let reason = RemovalReason::Stopped;
            vec![
                Effect::Disconnect(handle, reason),
                Effect::CountEnd,
                removed(publisher, reason),
            ]
        }
    }
}

/// Effects that may wait for a client for a moment: they happen after unlocking.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Deferred(Vec<Effect<Arc<PublisherHandle>>>);

impl Deferred {
    pub(super) fn push(&mut self, effect: Effect<Arc<PublisherHandle>>) {
        self.0.push(effect);
    }

    pub(super) fn run(self) {
        for effect in self.0 {
            match effect {
                Effect::Dismiss(handle, reason) => handle.dismiss(reason),
                Effect::AskToReconnect(handle) => {
                    // A client that can't be asked is disconnected in the end.
                    let _ = handle.request_reconnect(None, "This server is about to stop.");
                }
                _ => {}
            }
        }
    }
}
