// SPDX-License-Identifier: MPL-2.0

//! Whether a client may publish: what is asked of it at `connect`, at `FCPublish` and at `publish`.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Client, CloseReason, Published, liveness};
use crate::flv::codec::{AcceptedCodecs, CodecName};
use crate::flv::codes::{AudioFourCc, VideoFourCc};
use crate::rtmp::authentication::{ChallengeOutcome, Challenger};
use crate::rtmp::session::{ConnectRequest, PublishRequest, SupportedCodecs};
use crate::rtmp::status::{Status, code};
use crate::server::log::CAT;
use crate::server::port::connection_table::Stage;
use crate::server::port::listener::RouteMatch;
use crate::server::publisher::{Publisher, RejectReason, RemovalReason};
use crate::server::redact::{Quoted, Redacted};
use crate::server::routing::publish_point::PublishPoint;
use crate::server::routing::route::RequestedPath;
use crate::server::stream::publisher_handle::PublisherHandle;

/// How long a client that was asked to authenticate may take to do so on the same connection.
/// Most come again on a new one.
const SECOND_CONNECT: Duration = Duration::from_secs(2);

/// Elements that are told of a client which may have meant any of them.
const MAX_AFFECTED: usize = 8;

/// Challenges are good in this process alone, on all of its ports.
static CHALLENGER: LazyLock<Challenger> = LazyLock::new(|| {
    let mut key = [0; 32];
    // So few bytes come whole, on every system that GStreamer runs on.
    let filled = getrandom(&mut key, GetRandomFlags::empty());
    assert_eq!(filled, Ok(key.len()), "the system gives no random bytes");
    Challenger::new(key)
});

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What was decided about a client so far.
#[derive(Debug, Default)]
pub(crate) struct Authorization {
    /// It was told how to authenticate, and has not done it yet.
    is_challenged: bool,
    /// When it authenticated, by the clock of challenges.
    authenticated: Option<Duration>,
    /// What the application of an element said of its last request. It is asked once, though most
    /// clients say twice what they want to publish: the answer is for one `publish`.
    asked: Option<PendingAnswer>,
}

#[derive(Debug)]
struct PendingAnswer {
    point: PublishPoint,
    request: PublishRequest,
    may_publish: bool,
}

impl Authorization {
    /// The client is gone: an application that was asked need not expect it any more.
    pub(crate) fn withdraw(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.point.withdraw();
        }
    }

    pub(crate) fn is_challenged(&self) -> bool {
        self.is_challenged
    }
}

/// A request that was refused, and those who should know.
struct Refused {
    refusal: RejectReason,
    publisher: Publisher,
    affected: Vec<PublishPoint>,
}

impl Client {
    /// An application that no route has is refused at once: clients show that error best.
    pub(crate) fn connect(&mut self, request: &Arc<ConnectRequest>) -> Result<(), CloseReason> {
        let shared = &self.connection.shared;
        let mut candidates = shared.candidates(&request.application);
        if candidates.is_empty() {
            let everybody = shared.all();
            return self.refuse_connect(request, RejectReason::NoApplication, None, everybody);
        }
        if candidates.iter().all(PublishPoint::is_draining) {
            return self.refuse_connect(request, RejectReason::Draining, None, candidates);
        }
        let codecs = supported_codecs(&candidates);
        let is_open = |point: &PublishPoint| point.rules().access().credentials.is_none();
        let any_open = candidates.iter().any(is_open);
        candidates.retain(|point| !is_open(point));
        let credentials: Vec<_> = candidates
            .iter()
            .filter_map(|point| point.rules().access().credentials.as_ref())
            .collect();
        // All of one application have the same method, or none. Where the application alone does
        // not tell, `publish` does.
        let method = credentials.first().map(|credentials| credentials.method);
        let Some(method) = method.filter(|_| !any_open) else {
            self.session.accept_connect(&codecs);
            return Ok(());
        };
        let now = STARTED.elapsed();
        match CHALLENGER.evaluate(method, &credentials, &request.application, now) {
            ChallengeOutcome::Granted => {
                self.decision.is_challenged = false;
                self.decision.authenticated = Some(now);
                self.deadline = Instant::now() + self.settings.handshake_timeout;
                self.session.accept_connect(&codecs);
                Ok(())
            }
            ChallengeOutcome::Challenged(description) => {
                let status = Status::error(code::CONNECT_REJECTED, description);
                self.session.reject_connect(&status);
                self.decision.is_challenged = true;
                self.deadline = self.deadline.min(Instant::now() + SECOND_CONNECT);
                Ok(())
            }
            ChallengeOutcome::Failed(description) => {
                let refusal = RejectReason::WrongCredentials;
                self.refuse_connect(request, refusal, Some(description), candidates)
            }
        }
    }

    fn refuse_connect(
        &mut self,
        request: &Arc<ConnectRequest>,
        refusal: RejectReason,
        description: Option<String>,
        affected: Vec<PublishPoint>,
    ) -> Result<(), CloseReason> {
        let mut status = refusal.status();
        if let Some(description) = description {
            status.description = description;
        }
        self.session.reject_connect(&status);
        let asked = PublishRequest {
            connect: request.clone(),
            stream_key: String::new(),
        };
        let refused = Refused {
            refusal,
            publisher: self.unmatched(&asked),
            affected,
        };
        let reason = reason(&refused);
        self.tell(refused);
        Err(reason)
    }

    /// The client has said what it is going to publish, and some wait for an answer.
    pub(crate) fn announce(&mut self, request: &PublishRequest) {
        match self.authorize_publish(request) {
            Ok(_) => self.session.confirm_announcement(),
            Err(refused) => {
                let status = refused.refusal.status();
                self.session.reject_announcement(&status);
            }
        }
    }

    pub(crate) fn publish(&mut self, request: &PublishRequest) -> Result<(), CloseReason> {
        let admitted = self.authorize_publish(request);
        self.decision.asked = None;
        let (point, publisher) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => return self.refuse_publish(*refused),
        };
        let can_reconnect = request.connect.can_reconnect();
        let msid = self.session.requested_msid();
        let connection = self.connection.clone();
        let link = Arc::new(PublisherHandle::new(
            self.id,
            connection,
            msid,
            can_reconnect,
        ));
        // Deciding may have taken a while: who is gone must not take the stream with it. Nobody
        // who publishes is cut off to make room, and who was cut off before does not publish.
        if link.has_hung_up() {
            point.withdraw();
            return Err(CloseReason::Closed);
        }
        if !self.set_stage(Stage::Publishing) {
            point.withdraw();
            return Err(CloseReason::Stopped);
        }
        let (stream, publisher) = match point.take(&publisher, &link) {
            Ok(taken) => taken,
            Err(refusal) => {
                self.set_stage(Stage::Connected);
                return self.refuse_publish(Refused {
                    refusal,
                    publisher,
                    affected: vec![point],
                });
            }
        };
        gst::info!(
            CAT,
            "{} publishes {} to {}",
            self.address,
            shown(&publisher),
            stream.rules().name(),
        );
        let max_message_size = stream.rules().listener_settings().max_message_size;
        self.session.set_max_message_size(max_message_size);
        liveness::watch(&self.connection.socket, stream.timeout());
        self.published = Some(Published { stream, link });
        self.session.accept_publish();
        self.update_stats();
        Ok(())
    }

    fn refuse_publish(&mut self, refused: Refused) -> Result<(), CloseReason> {
        self.session.reject_publish(&refused.refusal.status());
        let reason = reason(&refused);
        self.tell(refused);
        Err(reason)
    }

    /// Finds out who takes this stream and whether this client may publish it, without giving it
    /// away.
    fn authorize_publish(
        &mut self,
        request: &PublishRequest,
    ) -> Result<(PublishPoint, Publisher), Box<Refused>> {
        let connect = &request.connect;
        let wanted = RequestedPath::new(&connect.application, &request.stream_key);
        let unmatched = self.unmatched(request);
        let refuse = |refusal, publisher, affected| {
            Box::new(Refused {
                refusal,
                publisher,
                affected,
            })
        };
        let shared = &self.connection.shared;
        let Some(RouteMatch { point, matched }) = shared.find(&wanted) else {
            let candidates = shared.candidates(&connect.application);
            return Err(refuse(RejectReason::NoStream, unmatched, candidates));
        };
        let publisher = Publisher {
            application: matched.application,
            stream_key: matched.stream_key,
            query: matched.query,
            variables: matched.variables,
            ..unmatched
        };
        let decided = self
            .check_access(&point, &connect.application)
            .and_then(|()| point.availability(&publisher))
            .and_then(|()| self.ask(&point, request, &publisher));
        match decided {
            Ok(()) => Ok((point, publisher)),
            Err(refusal) => Err(refuse(refusal, publisher, vec![point])),
        }
    }

    fn check_access(&self, point: &PublishPoint, application: &str) -> Result<(), RejectReason> {
        let access = point.rules().access();
        if !access.addresses.allows(self.address.ip()) {
            return Err(RejectReason::Address);
        }
        let Some(credentials) = &access.credentials else {
            return Ok(());
        };
        // At the time of `connect`: the answer was not too old then.
        let is_right = |time| CHALLENGER.verify(credentials, application, time);
        if self.decision.authenticated.is_some_and(is_right) {
            Ok(())
        } else {
            Err(RejectReason::NotAuthenticated)
        }
    }

    /// Asks the application, which may take its time: that is not the client's.
    fn ask(
        &mut self,
        point: &PublishPoint,
        request: &PublishRequest,
        publisher: &Publisher,
    ) -> Result<(), RejectReason> {
        let known = self
            .decision
            .asked
            .as_ref()
            .filter(|asked| asked.point.is(point) && asked.request == *request);
        let may_publish = match known {
            Some(asked) => asked.may_publish,
            None => {
                self.set_stage(Stage::Authorizing);
                let start = Instant::now();
                let may_publish = point.may_publish(publisher);
                self.deadline += start.elapsed();
                self.set_stage(Stage::Connected);
                self.decision.asked = Some(PendingAnswer {
                    point: point.clone(),
                    request: request.clone(),
                    may_publish,
                });
                may_publish
            }
        };
        may_publish.then_some(()).ok_or(RejectReason::Denied)
    }

    /// What is known of a client before its request is understood.
    fn unmatched(&self, request: &PublishRequest) -> Publisher {
        let connect = &request.connect;
        let (application, query) = connect
            .application
            .split_once('?')
            .unwrap_or((&connect.application, ""));
        Publisher {
            client: self.id,
            address: self.address,
            application: application.trim_matches('/').to_owned(),
            stream_key: request.stream_key.clone(),
            query: query.to_owned(),
            tc_url: connect.tc_url.clone(),
            flash_ver: connect.flash_ver.clone(),
            tls: self.transport.is_tls(),
            variables: Vec::new(),
            since: Instant::now(),
            stream: None,
        }
    }

    /// Lets elements know why a client is gone, where it was neither its own decision nor somebody's
    /// here, and where they have not heard of it as a refusal.
    pub(crate) fn report(&self, reason: &CloseReason) {
        let publishes = self.session.is_publishing();
        let is_worth_it = match reason {
            CloseReason::Closed
            | CloseReason::Refused(_)
            | CloseReason::Dismissed(RemovalReason::Drained) => publishes,
            // Who says nothing at all may be a monitor.
            CloseReason::HandshakeTimeout(_)
            | CloseReason::Transport(_)
            | CloseReason::Timeout(_) => self.stats.in_bytes_total > 0,
            CloseReason::Violation(_)
            | CloseReason::NotAuthenticated
            | CloseReason::Blocked
            | CloseReason::Vanished => true,
            CloseReason::NotAllowed(_) | CloseReason::Dismissed(_) | CloseReason::Stopped => false,
        };
        if !is_worth_it {
            return;
        }
        let kind = match reason {
            CloseReason::NotAuthenticated => "refused",
            _ => reason.removal().nick(),
        };
        let reason = format!("{kind}: {reason}");
        match &self.published {
            Some(published) => published.stream.set_last_error(self.address, reason),
            None => {
                let everybody = self.connection.shared.all();
                if everybody.len() <= MAX_AFFECTED {
                    for point in everybody {
                        point.set_last_error(self.address, reason.clone());
                    }
                }
            }
        }
    }

    /// Lets elements know, unless it could be any of many: then one guess would be told to all.
    fn tell(&self, refused: Refused) {
        let Refused {
            refusal,
            publisher,
            affected,
        } = refused;
        if affected.len() <= MAX_AFFECTED {
            let publisher = Arc::new(publisher);
            for point in affected {
                point.reject(publisher.clone(), refusal);
            }
        }
    }
}

/// What any of them takes: which one it will be is known only at `publish`.
fn supported_codecs(candidates: &[PublishPoint]) -> SupportedCodecs {
    let accepted = || {
        let entrances = candidates.iter().map(PublishPoint::rules);
        entrances.map(|rules| &rules.access().codecs)
    };
    let taken = |name: CodecName| {
        let is_taken = accepted().any(|codecs| codecs.accepts(name));
        is_taken.then(|| name.to_string())
    };
    SupportedCodecs {
        video: VideoFourCc::KNOWN
            .iter()
            .filter_map(|c| taken(c.name()))
            .collect(),
        audio: AudioFourCc::KNOWN
            .iter()
            .filter_map(|c| taken(c.name()))
            .collect(),
        others: accepted().any(AcceptedCodecs::is_all),
    }
}

fn reason(refused: &Refused) -> CloseReason {
    CloseReason::Refused(format!(
        "{} was refused: {}",
        shown(&refused.publisher),
        refused.refusal.nick()
    ))
}

/// For the log. Some clients put the stream key behind a slash of the application, or into it.
fn shown(publisher: &Publisher) -> String {
    let application = publisher.application.split('/').next().unwrap_or_default();
    let key = Redacted(&publisher.stream_key);
    if publisher.stream_key.is_empty() {
        format!("\"{}\"", Redacted(application))
    } else {
        format!("application {}, stream key \"{key}\"", Quoted(application))
    }
}
