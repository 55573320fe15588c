// SPDX-License-Identifier: MPL-2.0

//! Authorization of a client: the rules that apply at `connect`, at `FCPublish` and at `publish`.
//!
//! [`Authorization`] is a value that decides. The connection acts on its decisions.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::flv::codec::{AcceptedCodecs, CodecName};
use crate::flv::codes::{AudioFourCc, VideoFourCc};
use crate::rtmp::authentication::{ChallengeOutcome, Challenger};
use crate::rtmp::session::{ConnectRequest, PublishRequest, SupportedCodecs};
use crate::rtmp::status::{Status, code};
use crate::server::port::state::{ListenerState, RouteMatch};
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::redact::{Quoted, Redacted};
use crate::server::routing::application_index::Offer;
use crate::server::routing::publish_point::{Authorizing, PublishPoint, Reservation};
use crate::server::routing::route::RequestedPath;
use crate::server::routing::route_table::Candidates;
use crate::server::stream::patience::Patience;

/// Makes challenges that are valid in this process, on all of its ports.
static CHALLENGER: LazyLock<Challenger> = LazyLock::new(|| {
    let mut key = [0; 32];
    // So few bytes are returned whole, on every system that GStreamer runs on.
    let filled = getrandom(&mut key, GetRandomFlags::empty());
    assert_eq!(filled, Ok(key.len()), "the system returns no random bytes");
    Challenger::new(key)
});

/// Start of the clock of challenges.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Facts about a client before its request is understood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    pub(super) tls: bool,
}

/// Decisions about a client so far.
#[derive(Debug, Default)]
pub(super) struct Authorization {
    /// The client was sent a challenge, and has not answered it.
    is_challenged: bool,
    /// Time of its right answer, by the clock of challenges.
    authenticated: Option<Duration>,
    /// The application's answer about the last request. It is asked once, though most clients
    /// request the same twice, with `FCPublish` and `publish`. The answer is valid for one
    /// `publish`.
    answer: Option<PendingAnswer>,
    /// The time that the client may still wait for the stream of its last request.
    patience: Option<(PublishRequest, Patience)>,
}

#[derive(Debug)]
struct PendingAnswer {
    point: PublishPoint,
    request: PublishRequest,
    may_publish: bool,
    _authorizing: Authorizing,
}

/// Decision about a `connect`.
#[derive(Debug)]
pub(super) enum ConnectDecision {
    Accept {
        codecs: SupportedCodecs,
        /// The client has just authenticated.
        is_authenticated: bool,
    },
    /// The client should answer, on this connection or another.
    Challenge(Status),
    Reject(Box<Rejection>),
}

/// A rejected request, and the elements that it affects.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) reason: RejectReason,
    pub(super) status: Status,
    publisher: Publisher,
    affected: Vec<PublishPoint>,
}

/// Reason why a client may not go on.
#[derive(Debug)]
pub(super) enum Denial {
    Rejected(Box<Rejection>),
    /// It was evicted meanwhile, and nothing is to be decided.
    Evicted,
}

impl Authorization {
    /// Forgets the last request, which is decided or withdrawn.
    pub(super) fn withdraw(&mut self) {
        self.answer = None;
        self.patience = None;
    }

    pub(super) fn is_challenged(&self) -> bool {
        self.is_challenged
    }

    /// Decides about a `connect`. An application without a route is rejected at once: clients show
    /// that error best.
    pub(super) fn connect(
        &mut self,
        listener: &ListenerState,
        client: Client,
        request: &Arc<ConnectRequest>,
    ) -> ConnectDecision {
        let reject = |reason, status, affected| {
            let request = PublishRequest {
                connect: request.clone(),
                stream_key: String::new(),
            };
            ConnectDecision::Reject(Box::new(Rejection {
                reason,
                status,
                publisher: unmatched(client, &request),
                affected,
            }))
        };
        let Candidates {
            offers,
            are_draining,
            affected,
        } = listener.candidates(&request.application);
        if offers.is_empty() {
            let reason = RejectReason::NoApplication;
            return reject(reason, reason.status(), listener.affected());
        }
        if are_draining {
            let reason = RejectReason::Draining;
            return reject(reason, reason.status(), affected);
        }
        let codecs = supported_codecs(&offers);
        let any_public = offers.iter().any(|offer| offer.credentials.is_none());
        let credentials = offers.iter().filter_map(|offer| offer.credentials.as_ref());
        let credentials: Vec<_> = credentials.collect();
        // All routes of one application have the same method, or none. Where the application alone
        // does not tell, `publish` does.
        let method = credentials.first().map(|credentials| credentials.method);
        let Some(method) = method.filter(|_| !any_public) else {
            return ConnectDecision::Accept {
                codecs,
                is_authenticated: false,
            };
        };
        let now = STARTED.elapsed();
        match CHALLENGER.evaluate(method, &credentials, &request.application, now) {
            ChallengeOutcome::Granted => {
                self.is_challenged = false;
                self.authenticated = Some(now);
                ConnectDecision::Accept {
                    codecs,
                    is_authenticated: true,
                }
            }
            ChallengeOutcome::Challenged(description) => {
                self.is_challenged = true;
                ConnectDecision::Challenge(Status::error(code::CONNECT_REJECTED, description))
            }
            ChallengeOutcome::Failed(description) => {
                let reason = RejectReason::WrongCredentials;
                let mut status = reason.status();
                status.description = description;
                reject(reason, status, affected)
            }
        }
    }

    /// Finds the stream of a request, and decides if the client may publish it. `ask` asks the
    /// application; it returns None for a client that was evicted and need not be asked about.
    pub(super) fn authorize_publish(
        &mut self,
        listener: &ListenerState,
        client: Client,
        request: &PublishRequest,
        ask: impl FnOnce(&PublishPoint, &Publisher) -> Option<bool>,
    ) -> Result<Reservation, Denial> {
        let reject = |reason: RejectReason, publisher, affected| {
            Denial::Rejected(Box::new(Rejection {
                status: reason.status(),
                reason,
                publisher,
                affected,
            }))
        };
        let publisher = unmatched(client, request);
        let connect = &request.connect;
        let path = RequestedPath::new(&connect.application, &request.stream_key);
        let Some(RouteMatch { point, names }) = listener.find(&path) else {
            let candidates = listener.candidates(&connect.application);
            let affected = candidates.affected;
            return Err(reject(RejectReason::NoStream, publisher, affected));
        };
        let publisher = Publisher {
            application: names.application,
            stream_key: names.stream_key,
            query: names.query,
            variables: names.variables,
            ..publisher
        };
        if let Err(reason) = self.check_access(&point, client, &connect.application) {
            return Err(reject(reason, publisher, vec![point]));
        }
        let answer = self
            .answer
            .take()
            .filter(|answer| answer.point.is(&point) && answer.request == *request);
        let known = self.patience.take().filter(|(of, _)| of == request);
        let mut patience = known.map(|(_, patience)| patience).unwrap_or_default();
        let reserved = point.reserve(&publisher, &mut patience);
        self.patience = Some((request.clone(), patience));
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(reason) => return Err(reject(reason, publisher, vec![point])),
        };
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let authorizing = point.begin_authorization(client.id);
                let may_publish = ask(&point, &publisher).ok_or(Denial::Evicted)?;
                PendingAnswer {
                    point: point.clone(),
                    request: request.clone(),
                    may_publish,
                    _authorizing: authorizing,
                }
            }
        };
        let may_publish = answer.may_publish;
        self.answer = Some(answer);
        if may_publish {
            Ok(reservation)
        } else {
            Err(reject(RejectReason::Denied, publisher, vec![point]))
        }
    }

    fn check_access(
        &self,
        point: &PublishPoint,
        client: Client,
        application: &str,
    ) -> Result<(), RejectReason> {
        let access = &point.rules().access;
        if !access.addresses.allows(client.address.ip()) {
            return Err(RejectReason::Address);
        }
        let Some(credentials) = &access.credentials else {
            return Ok(());
        };
        // At the time of `connect`: the answer was not too old then.
        let is_right = |time| CHALLENGER.verify(credentials, application, time);
        if self.authenticated.is_some_and(is_right) {
            Ok(())
        } else {
            Err(RejectReason::NotAuthenticated)
        }
    }
}

impl Rejection {
    /// Returns the rejection of a reservation that another contender was faster to use.
    pub(super) fn of(reservation: Reservation, reason: RejectReason) -> Self {
        Rejection {
            reason,
            status: reason.status(),
            publisher: reservation.publisher().clone(),
            affected: vec![reservation.point().clone()],
        }
    }

    /// Notifies the affected elements. They are none where the client could have meant any of many:
    /// a single guess would be posted by all of them.
    pub(super) fn notify(self) {
        let publisher = Arc::new(self.publisher);
        for point in self.affected {
            point.reject(publisher.clone(), self.reason);
        }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (publisher, reason) = (shown(&self.publisher), self.reason.nick());
        write!(f, "{publisher} was rejected: {reason}")
    }
}

/// Notes why a client ended that did not publish, for all elements if there are few.
pub(super) fn note_last_error(listener: &ListenerState, address: SocketAddr, reason: &str) {
    for point in listener.affected() {
        point.set_last_error(address, reason.to_owned());
    }
}

/// Returns the facts about a client before its request is matched with a route.
fn unmatched(client: Client, request: &PublishRequest) -> Publisher {
    let connect = &request.connect;
    let (application, query) = connect
        .application
        .split_once('?')
        .unwrap_or((&connect.application, ""));
    Publisher {
        client: client.id,
        address: client.address,
        application: application.trim_matches('/').to_owned(),
        stream_key: request.stream_key.clone(),
        query: query.to_owned(),
        tc_url: connect.tc_url.clone(),
        flash_ver: connect.flash_ver.clone(),
        tls: client.tls,
        variables: Vec::new(),
        since: Instant::now(),
        stream: None,
    }
}

/// Returns the codecs that any candidate accepts. The one that is meant is known only at `publish`.
fn supported_codecs(offers: &[Offer]) -> SupportedCodecs {
    let accepted = || offers.iter().map(|offer| &offer.codecs);
    let supported = |name: CodecName| {
        let is_accepted = accepted().any(|codecs| codecs.accepts(name));
        is_accepted.then(|| name.to_string())
    };
    SupportedCodecs {
        video: VideoFourCc::KNOWN
            .iter()
            .filter_map(|c| supported(c.name()))
            .collect(),
        audio: AudioFourCc::KNOWN
            .iter()
            .filter_map(|c| supported(c.name()))
            .collect(),
        others: accepted().any(AcceptedCodecs::is_all),
    }
}

/// Returns a publisher's names for the log. Some clients put the stream key after a slash of the
/// application, or into it.
pub(super) fn shown(publisher: &Publisher) -> String {
    let application = publisher.application.split('/').next().unwrap_or_default();
    let key = Redacted(&publisher.stream_key);
    if publisher.stream_key.is_empty() {
        format!("\"{}\"", Redacted(application))
    } else {
        format!("application {}, stream key \"{key}\"", Quoted(application))
    }
}
