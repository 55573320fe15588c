// SPDX-License-Identifier: MPL-2.0

//! Answers to the client's requests: `connect`, `FCPublish`, `publish`, and the end of a publish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rtmp::session::{ConnectRequest, PublishRequest};
use crate::server::connection::admission::{
    Client, ConnectDecision, Denial, Rejection, Waiting, shown,
};
use crate::server::connection::close::CloseReason;
use crate::server::connection::phase::{Phase, Published};
use crate::server::connection::timer_table::Timer;
use crate::server::connection::{Connection, liveness};
use crate::server::log::CAT;
use crate::server::port::connection_table::Stage;
use crate::server::publisher::RemovalReason;
use crate::server::routing::publish_point::Reservation;
use crate::server::stream::publisher_handle::PublisherHandle;

/// Time for a client that was challenged to answer on the same connection. Most connect again.
const SECOND_CONNECT: Duration = Duration::from_secs(2);

/// Time for a publisher that has ended its stream to close its connection, before the stream ends
/// here too. Closing it from this side is an error to rtmp2sink.
const CLOSING_GRACE: Duration = Duration::from_millis(100);

impl Connection {
    fn client(&self) -> Client {
        Client {
            id: self.id,
            address: self.address,
            tls: self.transport.is_tls(),
        }
    }

    pub(super) fn connect(&mut self, request: &Arc<ConnectRequest>) -> Result<(), CloseReason> {
        let client = self.client();
        let decision = self.authorization.connect(&self.listener, client, request);
        // A publisher that connects again keeps its stream, and its timers.
        let is_negotiating = matches!(self.phase, Phase::Negotiating);
        match decision {
            ConnectDecision::Accept {
                codecs,
                is_authenticated,
            } => {
                if is_authenticated && is_negotiating {
                    self.set_handshake_timer();
                }
                self.session.accept_connect(&codecs);
                Ok(())
            }
            ConnectDecision::Challenge(status) => {
                self.session.reject_connect(&status);
                if is_negotiating {
                    let deadline = Instant::now() + SECOND_CONNECT;
                    let earlier = self.timers.get(Timer::Handshake);
                    let deadline = earlier.map_or(deadline, |earlier| earlier.min(deadline));
                    self.timers.set(Timer::Handshake, Some(deadline));
                }
                Ok(())
            }
            ConnectDecision::Reject(rejection) => {
                self.session.reject_connect(&rejection.status);
                Err(refused(*rejection))
            }
        }
    }

    fn set_handshake_timer(&mut self) {
        let deadline = Instant::now() + self.settings.handshake_timeout;
        self.timers.set(Timer::Handshake, Some(deadline));
    }

    /// Handles `FCPublish`. Some clients wait for its confirmation. While the client publishes the
    /// command is answered, and changes nothing.
    pub(super) fn announce(&mut self, request: &PublishRequest) -> Result<(), CloseReason> {
        if self.phase.published().is_some() {
            return Ok(());
        }
        match self.authorize_publish(request) {
            Ok(_) => self.session.confirm_announcement(),
            Err(Denial::Rejected(rejection)) => {
                let can_reconnect = request.connect.can_reconnect();
                // An error would end a client that is about to be sent elsewhere.
                if rejection.redirect.is_some() && can_reconnect {
                    return self.reject(*rejection, can_reconnect);
                }
                self.session.reject_announcement(&rejection.status);
            }
            Err(Denial::Evicted) => return Err(CloseReason::Stopped),
        }
        Ok(())
    }

    fn authorize_publish(&mut self, request: &PublishRequest) -> Result<Reservation, Denial> {
        let mut authorization = std::mem::take(&mut self.authorization);
        let (listener, client) = (self.listener.clone(), self.client());
        let authorized = authorization.authorize_publish(&listener, client, request, self);
        self.authorization = authorization;
        authorized
    }

    pub(super) fn publish(&mut self, request: &PublishRequest) -> Result<(), CloseReason> {
        let authorized = self.authorize_publish(request);
        // The application's answer is for this request.
        let mut authorization = std::mem::take(&mut self.authorization);
        let published = match authorized {
            Ok(reservation) => self.start(reservation, request),
            Err(Denial::Rejected(rejection)) => {
                self.reject(*rejection, request.connect.can_reconnect())
            }
            Err(Denial::Evicted) => Err(CloseReason::Stopped),
        };
        authorization.withdraw();
        self.authorization = authorization;
        published
    }

    fn start(
        &mut self,
        mut reservation: Reservation,
        request: &PublishRequest,
    ) -> Result<(), CloseReason> {
        let can_reconnect = request.connect.can_reconnect();
        let msid = self.session.requested_msid();
        let handle = PublisherHandle::new(self.id, self.parts.clone(), msid, can_reconnect);
        let handle = Arc::new(handle);
        // The decision may have taken a while: a client that is gone must not take the stream.
        if handle.is_closing() {
            return Err(CloseReason::Closed);
        }
        // Publishers are not evicted, and an evicted client does not publish.
        if !self.listener.set_stage(self.id, Stage::Publishing) {
            return Err(CloseReason::Stopped);
        }
        let (stream, publisher) = match reservation.start(&handle) {
            Ok(started) => started,
            Err(reason) => {
                self.listener.set_stage(self.id, self.phase.stage());
                return self.reject(Rejection::of(reservation, reason), can_reconnect);
            }
        };
        let rules = reservation.point().rules();
        gst::debug!(
            CAT,
            "{} publishes {} to {}",
            self.address,
            shown(&publisher, rules.access.log_keys),
            rules.name,
        );
        self.session
            .set_max_message_size(rules.listener.max_message_size);
        liveness::watch(&self.parts.socket, stream.settings().timeout);
        self.phase = Phase::Publishing(Published::new(stream, handle));
        self.limit_quality();
        self.timers.clear_all();
        self.session.accept_publish();
        self.update_stats();
        Ok(())
    }

    fn reject(&mut self, rejection: Rejection, can_reconnect: bool) -> Result<(), CloseReason> {
        let status = &rejection.status;
        match &rejection.redirect {
            Some(url) if can_reconnect => self.session.redirect_publish(url, &status.description),
            _ => self.session.reject_publish(status),
        }
        Err(refused(rejection))
    }

    pub(super) fn unpublish(&mut self, arrival: Instant) -> Result<(), CloseReason> {
        self.hand_over(false)?;
        match std::mem::replace(&mut self.phase, Phase::Negotiating) {
            Phase::Publishing(published) => {
                if !self.counters.has_media() {
                    // ffmpeg sends nothing where its format is not FLV, and does not know it.
                    gst::warning!(
                        CAT,
                        "{} has sent no audio or video, which has to be FLV (ffmpeg: -f flv)",
                        self.address
                    );
                }
                published.stream.unpublish(self.id);
                self.phase = Phase::Leaving(published);
                self.timers.clear_all();
                self.timers
                    .set(Timer::Closing, Some(arrival + CLOSING_GRACE));
            }
            other => self.phase = other,
        }
        Ok(())
    }

    /// Ends the publish, if there is one.
    pub(super) fn leave(&mut self, reason: RemovalReason) {
        let phase = std::mem::replace(&mut self.phase, Phase::Negotiating);
        if let Phase::Publishing(published) | Phase::Leaving(published) = phase {
            published.stream.leave(self.id, reason);
            self.listener.set_stage(self.id, self.phase.stage());
            self.timers.clear_all();
            self.set_handshake_timer();
            self.counters.reset(self.last_read);
            self.delivery.reset();
            self.collecting.reset();
        }
    }

    /// Enters a phase without a publish. Returns false if the client has been evicted.
    fn enter(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        self.listener.set_stage(self.id, self.phase.stage())
    }
}

impl Waiting for Connection {
    fn wait<T>(&mut self, run: impl FnOnce() -> T) -> Option<T> {
        // An evicted client is not asked about.
        if !self.enter(Phase::Authorizing) {
            return None;
        }
        let start = Instant::now();
        let result = run();
        // This time does not count against the client's deadline.
        let deadline = self.timers.get(Timer::Handshake);
        let deadline = deadline.map(|deadline| deadline + start.elapsed());
        self.timers.set(Timer::Handshake, deadline);
        self.enter(Phase::Negotiating).then_some(result)
    }
}

/// Notifies the affected elements of a rejection, and returns it as the reason to close.
fn refused(rejection: Rejection) -> CloseReason {
    let reason = CloseReason::Refused(rejection.to_string());
    rejection.notify();
    reason
}
