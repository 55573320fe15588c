// SPDX-License-Identifier: MPL-2.0

//! Who takes the publishers of a route: one intake, or one for each stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entrance::Entrance;
use super::intake::Intake;
use super::link::Link;
use super::lobby::Lobby;
use super::publisher::{Publisher, Refusal};

#[derive(Debug, Clone)]
pub enum Taker {
    One(Arc<Intake>),
    Many(Arc<Lobby>),
}

impl Taker {
    pub(super) fn entrance(&self) -> &Entrance {
        match self {
            Taker::One(intake) => intake.entrance(),
            Taker::Many(lobby) => lobby.entrance(),
        }
    }

    pub(super) fn is(&self, other: &Taker) -> bool {
        match (self, other) {
            (Taker::One(own), Taker::One(other)) => Arc::ptr_eq(own, other),
            (Taker::Many(own), Taker::Many(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// Whether a publisher would be taken, as far as it can be said now.
    pub(super) fn availability(&self, publisher: &Publisher) -> Result<(), Refusal> {
        match self {
            Taker::One(intake) => intake.availability(),
            Taker::Many(lobby) => lobby.availability(publisher),
        }
    }

    /// Asks the application. It may take its time.
    pub(super) fn may_publish(&self, publisher: &Publisher) -> bool {
        if let Taker::One(intake) = self {
            intake.set_asked(publisher);
        }
        self.entrance().may_publish(publisher)
    }

    /// Whoever asked has gone without having published or having been refused. Where there are many
    /// streams it was of none yet.
    pub(super) fn withdraw(&self) {
        if let Taker::One(intake) = self {
            intake.withdraw();
        }
    }

    pub(super) fn reject(&self, publisher: Arc<Publisher>, refusal: Refusal) {
        match self {
            Taker::One(intake) => intake.reject(publisher, refusal),
            Taker::Many(lobby) => lobby.reject(publisher, refusal),
        }
    }

    /// A client was refused or cut off before it published, for a reason without anything secret.
    pub(super) fn set_last_error(&self, address: SocketAddr, reason: String) {
        match self {
            Taker::One(intake) => intake.set_last_error(address, reason),
            Taker::Many(lobby) => lobby.set_last_error(address, reason),
        }
    }

    /// Makes a client the publisher, if it may be. One of several that try at once gets it.
    pub(super) fn take(
        &self,
        publisher: &Publisher,
        link: &Arc<Link>,
    ) -> Result<(Arc<Intake>, Arc<Publisher>), Refusal> {
        match self {
            Taker::One(intake) => {
                let publisher = intake.take(publisher.clone(), link.clone())?;
                Ok((intake.clone(), publisher))
            }
            Taker::Many(lobby) => lobby.take(publisher, link),
        }
    }

    /// No new publishers from now on; present ones are asked to connect again. Gives which intakes to
    /// [cut off](Intake::end_wait) when.
    pub(super) fn drain(&self, timeout: Duration) -> Vec<(Instant, Arc<Intake>)> {
        match self {
            Taker::One(intake) => {
                let deadline = intake.drain(timeout);
                deadline.map(|d| (d, intake.clone())).into_iter().collect()
            }
            Taker::Many(lobby) => lobby.drain(timeout),
        }
    }

    pub(super) fn stop_draining(&self) {
        match self {
            Taker::One(intake) => intake.stop_draining(),
            Taker::Many(lobby) => lobby.stop_draining(),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        match self {
            Taker::One(intake) => intake.is_draining(),
            Taker::Many(lobby) => lobby.is_draining(),
        }
    }

    pub(super) fn takes_publishers(&self) -> bool {
        match self {
            Taker::One(intake) => intake.takes_publishers(),
            Taker::Many(lobby) => lobby.takes_publishers(),
        }
    }

    /// The element stops: nobody may wait in here, and publishers have to go. Gives their ids.
    pub(super) fn close(&self) -> Vec<u64> {
        match self {
            Taker::One(intake) => intake.close().into_iter().collect(),
            Taker::Many(lobby) => lobby.close(),
        }
    }
}
