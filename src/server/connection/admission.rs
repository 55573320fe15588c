// SPDX-License-Identifier: MPL-2.0

//! Authorization of a client: the rules that apply at `connect`, at `FCPublish` and at `publish`.
//!
//! [`Authorization`] is a value that decides. The connection acts on its decisions.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::flv::codec::{AcceptedCodecs, CodecName};
use crate::flv::codes::{AudioFourCc, VideoFourCc};
use crate::rtmp::authentication::{ChallengeOutcome, Challenger};
use crate::rtmp::session::{ConnectRequest, PublishRequest, SupportedCodecs};
use crate::rtmp::status::{Status, code};
use crate::server::log::CAT;
use crate::server::port::state::{ListenerState, RouteMatch};
use crate::server::publisher::{Publisher, RejectReason};
use crate::server::redact::{KeyMasking, LoggedKey, Quoted};
use crate::server::routing::application_index::Offer;
use crate::server::routing::authorizer::{Answer, Grant, NoAnswer};
use crate::server::routing::publish_point::{Authorizing, PublishPoint, Reservation};
use crate::server::routing::route::{RequestedPath, SentNames};
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
    /// The answers about the last request. Authorization server and application are asked once, though
    /// most clients request the same twice, with `FCPublish` and `publish`. The answers are valid for
    /// one `publish`.
    answer: Option<PendingAnswer>,
    /// The time that the client may still wait for the stream of its last request.
    patience: Option<(PublishRequest, Patience)>,
}

#[derive(Debug)]
struct PendingAnswer {
    point: PublishPoint,
    request: PublishRequest,
    /// The authorization server's. None until it is asked.
    granted: Option<Result<Grant, RejectReason>>,
    /// The application's. None until it is asked.
    may_publish: Option<bool>,
    authorizing: Option<Authorizing>,
}

/// Runs what may take long, while the client waits.
pub(super) trait Waiting {
    /// Returns None for a client that was evicted: nothing is to be decided about it.
    fn wait<T>(&mut self, run: impl FnOnce() -> T) -> Option<T>;
}

impl PendingAnswer {
    fn new(point: &PublishPoint, request: &PublishRequest) -> Self {
        PendingAnswer {
            point: point.clone(),
            request: request.clone(),
            granted: None,
            may_publish: None,
            authorizing: None,
        }
    }

    /// Returns the answer of the authorization server, if there is one.
    fn granted(
        &mut self,
        publisher: &Publisher,
        waiting: &mut impl Waiting,
    ) -> Option<Result<Grant, RejectReason>> {
        let access = &self.point.rules().access;
        let Some(authorizer) = &access.authorizer else {
            return Some(Ok(Grant::default()));
        };
        if let Some(known) = &self.granted {
            return Some(known.clone());
        }
        self.authorizing = Some(self.point.begin_authorization(publisher.client));
        let ask = || authorizer.ask(publisher, access.credentials.as_ref());
        let granted = match waiting.wait(ask)? {
            Ok(Answer::Granted(grant)) => Ok(grant),
            Ok(Answer::Denied) => Err(RejectReason::AuthDenied),
            Err(NoAnswer::Stopped) => return None,
            Err(no_answer) => {
                let (client, server) = (publisher.address, authorizer.server());
                gst::warning!(CAT, "Could not ask {server} about {client}: {no_answer}");
                Err(match no_answer {
                    NoAnswer::Unreachable(_) => RejectReason::AuthUnreachable,
                    NoAnswer::TimedOut(_) => RejectReason::AuthTimeout,
                    NoAnswer::Bad(_) | NoAnswer::Stopped => RejectReason::AuthBadAnswer,
                })
            }
        };
        self.granted = Some(granted.clone());
        Some(granted)
    }

    /// Returns the application's answer.
    fn may_publish(&mut self, publisher: &Publisher, waiting: &mut impl Waiting) -> Option<bool> {
        if self.may_publish.is_none() {
            if self.authorizing.is_none() {
                self.authorizing = Some(self.point.begin_authorization(publisher.client));
            }
            self.may_publish = Some(waiting.wait(|| self.point.may_publish(publisher))?);
        }
        self.may_publish
    }
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
    /// URL of the server to which the client should publish instead.
    pub(super) redirect: Option<String>,
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
                redirect: None,
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
            let affected = listener.affected();
            let reason = RejectReason::NoApplication;
            return reject(reason, with_paths(reason.status(), &affected), affected);
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

    /// Finds the stream of a request, and decides if the client may publish it. The cheap rules come
    /// first, then the authorization server, which may override the policy, then the stream, and the
    /// application last.
    pub(super) fn authorize_publish(
        &mut self,
        listener: &ListenerState,
        client: Client,
        request: &PublishRequest,
        waiting: &mut impl Waiting,
    ) -> Result<Reservation, Denial> {
        let reject = |reason: RejectReason, publisher, affected| {
            Denial::Rejected(Box::new(Rejection {
                status: reason.status(),
                reason,
                redirect: None,
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
            let reason = RejectReason::NoStream;
            return Err(Denial::Rejected(Box::new(Rejection {
                status: with_paths(reason.status(), &affected),
                reason,
                redirect: None,
                publisher,
                affected,
            })));
        };
        let publisher = Publisher {
            application: names.application,
            stream_key: names.stream_key,
            query: names.query,
            variables: names.variables,
            ..publisher
        };
        if let Err(reason) = self.check_access(&point, &publisher, &connect.application) {
            return Err(reject(reason, publisher, vec![point]));
        }
        let known = self.answer.take();
        let known = known.filter(|known| known.point.is(&point) && known.request == *request);
        let mut answer = known.unwrap_or_else(|| PendingAnswer::new(&point, request));
        let granted = answer.granted(&publisher, waiting).ok_or(Denial::Evicted)?;
        let grant = match granted {
            Ok(Grant {
                redirect: Some(url),
                ..
            }) => {
                self.answer = Some(answer);
                return Err(redirected(url, publisher, point));
            }
            Ok(grant) => grant,
            Err(reason) => {
                self.answer = Some(answer);
                return Err(reject(reason, publisher, vec![point]));
            }
        };
        let known = self.patience.take().filter(|(of, _)| of == request);
        let mut patience = known.map(|(_, patience)| patience).unwrap_or_default();
        let reserved = point.reserve(&publisher, &grant, &mut patience);
        self.patience = Some((request.clone(), patience));
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(reason) => {
                if answer.granted.is_some() {
                    answer.authorizing = None;
                    self.answer = Some(answer);
                }
                return Err(reject(reason, publisher, vec![point]));
            }
        };
        let may_publish = answer.may_publish(&publisher, waiting);
        let may_publish = may_publish.ok_or(Denial::Evicted)?;
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
        publisher: &Publisher,
        application: &str,
    ) -> Result<(), RejectReason> {
        let access = &point.rules().access;
        let address = publisher.address.ip();
        if !access.addresses.allows(address) {
            return Err(RejectReason::Address);
        }
        if let Some(credentials) = &access.credentials {
            // At the time of `connect`: the answer was not too old then.
            let is_right = |time| CHALLENGER.verify(credentials, application, time);
            if !self.authenticated.is_some_and(is_right) {
                return Err(RejectReason::NotAuthenticated);
            }
        }
        if let Some(key) = &access.signing_key {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            key.verify(&publisher.path(), &publisher.query, address, now.as_secs())?;
        }
        Ok(())
    }
}

impl Rejection {
    /// Returns the rejection of a reservation that another contender was faster to use.
    pub(super) fn of(reservation: Reservation, reason: RejectReason) -> Self {
        Rejection {
            reason,
            status: reason.status(),
            redirect: None,
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
        let keys = self
            .affected
            .iter()
            .map(|point| point.rules().access.log_keys);
        let keys: Vec<KeyMasking> = keys.collect();
        // It may have meant several elements. The strictest one counts.
        let is_any = |masking| keys.contains(&masking);
        let keys = match (is_any(KeyMasking::None), is_any(KeyMasking::Masked)) {
            (true, _) => KeyMasking::None,
            (false, false) if !keys.is_empty() => KeyMasking::Full,
            _ => KeyMasking::Masked,
        };
        let (publisher, reason) = (shown(&self.publisher, keys), self.reason.nick());
        write!(f, "{publisher} was rejected: {reason}")
    }
}

/// Adds the paths that are right to a rejection, where they give nothing away.
fn with_paths(mut status: Status, affected: &[PublishPoint]) -> Status {
    let paths = affected
        .iter()
        .map(|point| point.rules().route.public_path());
    if let Some(paths) = paths.collect::<Option<Vec<String>>>()
        && !paths.is_empty()
    {
        let text = format!(" Publish to {}.", paths.join(" or "));
        status.description.push_str(&text);
    }
    status
}

/// Returns the rejection of a client that has to publish to another server.
fn redirected(url: String, publisher: Publisher, point: PublishPoint) -> Denial {
    let reason = RejectReason::Redirected;
    let mut status = reason.status();
    status.description = format!("This stream has to be published to {url}");
    Denial::Rejected(Box::new(Rejection {
        reason,
        status,
        redirect: Some(url),
        publisher,
        affected: vec![point],
    }))
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
    let names = SentNames::new(&connect.application, &request.stream_key);
    Publisher {
        client: client.id,
        address: client.address,
        application: names.application.trim_matches('/').to_owned(),
        stream_key: names.stream_key.to_owned(),
        query: names.query,
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
pub(super) fn shown(publisher: &Publisher, keys: KeyMasking) -> String {
    let application = publisher.application.split('/').next().unwrap_or_default();
    let key = &publisher.stream_key;
    if key.is_empty() {
        LoggedKey(application, keys).to_string()
    } else {
        let key = LoggedKey(key, keys);
        format!("application {}, stream key {key}", Quoted(application))
    }
}
