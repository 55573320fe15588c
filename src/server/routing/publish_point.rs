// SPDX-License-Identifier: MPL-2.0

//! Who takes the publishers of a route: one stream, or one for each stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::publisher::{Publisher, RejectReason};
use crate::server::routing::rules::PublishRules;
use crate::server::stream::Stream;
use crate::server::stream::publisher_handle::PublisherHandle;
use crate::server::stream::table::StreamTable;

#[derive(Debug, Clone)]
pub enum PublishPoint {
    One(Arc<Stream>),
    Many(Arc<StreamTable>),
}

impl PublishPoint {
    pub(crate) fn rules(&self) -> &PublishRules {
        match self {
            PublishPoint::One(stream) => stream.rules(),
            PublishPoint::Many(table) => table.rules(),
        }
    }

    pub(crate) fn is(&self, other: &PublishPoint) -> bool {
        match (self, other) {
            (PublishPoint::One(own), PublishPoint::One(other)) => Arc::ptr_eq(own, other),
            (PublishPoint::Many(own), PublishPoint::Many(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(crate) fn availability(&self, publisher: &Publisher) -> Result<(), RejectReason> {
        match self {
            PublishPoint::One(stream) => stream.availability(),
            PublishPoint::Many(table) => table.availability(publisher),
        }
    }

    /// Asks the application. It may take its time.
    pub(crate) fn may_publish(&self, publisher: &Publisher) -> bool {
        if let PublishPoint::One(stream) = self {
            stream.set_asked(publisher);
        }
        self.rules().may_publish(publisher)
    }

    /// Whoever asked has gone without having published or having been refused. Where there are many
    /// streams it was of none yet.
    pub(crate) fn withdraw(&self) {
        if let PublishPoint::One(stream) = self {
            stream.withdraw();
        }
    }

    pub(crate) fn reject(&self, publisher: Arc<Publisher>, refusal: RejectReason) {
        match self {
            PublishPoint::One(stream) => stream.reject(publisher, refusal),
            PublishPoint::Many(table) => table.reject(publisher, refusal),
        }
    }

    /// A client was refused or cut off before it published, for a reason without anything secret.
    pub(crate) fn set_last_error(&self, address: SocketAddr, reason: String) {
        match self {
            PublishPoint::One(stream) => stream.set_last_error(address, reason),
            PublishPoint::Many(table) => table.set_last_error(address, reason),
        }
    }

    /// Makes a client the publisher, if it may be. One of several that try at once gets it.
    pub(crate) fn take(
        &self,
        publisher: &Publisher,
        link: &Arc<PublisherHandle>,
    ) -> Result<(Arc<Stream>, Arc<Publisher>), RejectReason> {
        match self {
            PublishPoint::One(stream) => {
                let publisher = stream.take(publisher.clone(), link.clone())?;
                Ok((stream.clone(), publisher))
            }
            PublishPoint::Many(table) => table.take(publisher, link),
        }
    }

    /// No new publishers from now on; present ones are asked to connect again. Gives which iter to
    /// [cut off](Stream::end_wait) when.
    pub(crate) fn drain(&self, timeout: Duration) -> Vec<(Instant, Arc<Stream>)> {
        match self {
            PublishPoint::One(stream) => {
                let deadline = stream.drain(timeout);
                deadline.map(|d| (d, stream.clone())).into_iter().collect()
            }
            PublishPoint::Many(table) => table.drain(timeout),
        }
    }

    pub(crate) fn stop_draining(&self) {
        match self {
            PublishPoint::One(stream) => stream.stop_draining(),
            PublishPoint::Many(table) => table.stop_draining(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        match self {
            PublishPoint::One(stream) => stream.is_draining(),
            PublishPoint::Many(table) => table.is_draining(),
        }
    }

    pub(crate) fn takes_publishers(&self) -> bool {
        match self {
            PublishPoint::One(stream) => stream.takes_publishers(),
            PublishPoint::Many(table) => table.takes_publishers(),
        }
    }

    /// The element stops: nobody may wait in here, and publishers have to go. Gives their ids.
    pub(crate) fn close(&self) -> Vec<u64> {
        match self {
            PublishPoint::One(stream) => stream.close().into_iter().collect(),
            PublishPoint::Many(table) => table.close(),
        }
    }
}
