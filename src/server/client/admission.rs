// SPDX-License-Identifier: MPL-2.0

//! Whether a client may publish: what is asked of it at `connect`, at `FCPublish` and at `publish`.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

use super::{Client, Parting, Published};
use crate::rtmp::authentication::{Challenger, Outcome};
use crate::rtmp::session::{ConnectRequest, PublishRequest};
use crate::rtmp::status::{Status, code};
use crate::server::crowd::Standing;
use crate::server::intake::Intake;
use crate::server::link::Link;
use crate::server::listener::Found;
use crate::server::publisher::{Publisher, Refusal};
use crate::server::route::Request;
use crate::server::{CAT, Secret, Shown};

/// How long a client that was asked to authenticate may take to do so on the same connection.
/// Most come again on a new one.
const SECOND_CONNECT: Duration = Duration::from_secs(2);

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
pub(super) struct Decision {
    /// It was told how to authenticate, and has not done it yet.
    is_challenged: bool,
    /// When it authenticated, by the clock of challenges.
    authenticated: Option<Duration>,
    /// What the application said of its last request. It is asked once, though a client may say
    /// twice what it wants to publish.
    asked: Option<(PublishRequest, bool)>,
}

impl Decision {
    pub(super) fn is_challenged(&self) -> bool {
        self.is_challenged
    }
}

/// A request that was refused, and those who should know.
struct Refused {
    refusal: Refusal,
    publisher: Publisher,
    concerned: Vec<Arc<Intake>>,
}

impl Client {
    /// An application that no route has is refused at once: clients show that error best.
    pub(super) fn connect(&mut self, request: &Arc<ConnectRequest>) -> Result<(), Parting> {
        let shared = &self.connection.shared;
        let mut candidates = shared.candidates(&request.application);
        if candidates.is_empty() {
            let everybody = shared.all();
            return self.refuse_connect(request, Refusal::NoApplication, None, everybody);
        }
        if candidates.iter().all(|intake| intake.is_draining()) {
            return self.refuse_connect(request, Refusal::Draining, None, candidates);
        }
        candidates.retain(|intake| intake.access().credentials.is_some());
        let credentials: Vec<_> = candidates
            .iter()
            .filter_map(|intake| intake.access().credentials.as_ref())
            .collect();
        // All of one application have the same method, or none.
        let Some(method) = credentials.first().map(|credentials| credentials.method) else {
            self.session.accept_connect();
            return Ok(());
        };
        let now = STARTED.elapsed();
        match CHALLENGER.judge(method, &credentials, &request.application, now) {
            Outcome::Granted => {
                self.decision.is_challenged = false;
                self.decision.authenticated = Some(now);
                self.deadline = Instant::now() + self.settings.handshake_timeout;
                self.session.accept_connect();
                Ok(())
            }
            Outcome::Asked(description) => {
                let status = Status::error(code::CONNECT_REJECTED, description);
                self.session.reject_connect(&status);
                self.decision.is_challenged = true;
                self.deadline = self.deadline.min(Instant::now() + SECOND_CONNECT);
                Ok(())
            }
            Outcome::Failed(description) => {
                let refusal = Refusal::WrongCredentials;
                self.refuse_connect(request, refusal, Some(description), candidates)
            }
        }
    }

    fn refuse_connect(
        &mut self,
        request: &Arc<ConnectRequest>,
        refusal: Refusal,
        description: Option<String>,
        concerned: Vec<Arc<Intake>>,
    ) -> Result<(), Parting> {
        let mut status = refusal.status();
        if let Some(description) = description {
            status.description = description;
        }
        self.session.reject_connect(&status);
        let asked = PublishRequest {
            connect: request.clone(),
            stream_key: String::new(),
        };
        let publisher = self.stranger(&asked);
        let parting = refused(&publisher, refusal);
        self.tell(Refused {
            refusal,
            publisher,
            concerned,
        });
        Err(parting)
    }

    /// The client has said what it is going to publish, and some wait for an answer.
    pub(super) fn announce(&mut self, request: &PublishRequest) {
        if self.admit(request).is_ok() {
            self.session.confirm_announcement();
        }
    }

    pub(super) fn publish(&mut self, request: &PublishRequest) -> Result<(), Parting> {
        let admitted = self.admit(request).and_then(|(intake, publisher)| {
            let publisher = Arc::new(publisher);
            let can_reconnect = request.connect.can_reconnect();
            let msid = self.session.requested_msid();
            let connection = self.connection.clone();
            let link = Arc::new(Link::new(self.id, connection, msid, can_reconnect));
            match intake.take(publisher.clone(), link.clone()) {
                Ok(()) => Ok((Published { intake, link }, publisher)),
                Err(refusal) => Err(Box::new(Refused {
                    refusal,
                    publisher: (*publisher).clone(),
                    concerned: vec![intake],
                })),
            }
        });
        match admitted {
            Ok((published, publisher)) => {
                gst::info!(
                    CAT,
                    "{} publishes application {}, stream key \"{}\" to {}",
                    self.address,
                    Shown(&publisher.application),
                    Secret(&publisher.stream_key),
                    published.intake.name(),
                );
                let max_message_size = published.intake.listener_settings().max_message_size;
                self.session.set_max_message_size(max_message_size);
                self.published = Some(published);
                // Whoever made room for others has closed the connection already.
                if !self.set_standing(Standing::Publishing) {
                    return Err(Parting::Stopped);
                }
                self.session.accept_publish();
                self.update_stats();
                Ok(())
            }
            Err(refused_request) => {
                let status = refused_request.refusal.status();
                self.session.reject_publish(&status);
                let parting = refused(&refused_request.publisher, refused_request.refusal);
                self.tell(*refused_request);
                Err(parting)
            }
        }
    }

    /// Finds out who takes this stream and whether this client may publish it, without giving it
    /// away.
    fn admit(
        &mut self,
        request: &PublishRequest,
    ) -> Result<(Arc<Intake>, Publisher), Box<Refused>> {
        let connect = &request.connect;
        let wanted = Request::new(&connect.application, &request.stream_key);
        let stranger = self.stranger(request);
        let refuse = |refusal, publisher, concerned| {
            Box::new(Refused {
                refusal,
                publisher,
                concerned,
            })
        };
        let shared = &self.connection.shared;
        let Some(Found { intake, matched }) = shared.find(&wanted) else {
            let candidates = shared.candidates(&connect.application);
            return Err(refuse(Refusal::NoStream, stranger, candidates));
        };
        let publisher = Publisher {
            application: matched.application,
            stream_key: matched.stream_key,
            query: matched.query,
            variables: matched.variables,
            ..stranger
        };
        let decided = self
            .check_access(&intake, &connect.application)
            .and_then(|()| intake.availability())
            .and_then(|()| self.ask(&intake, request, &publisher));
        match decided {
            Ok(()) => Ok((intake, publisher)),
            Err(refusal) => Err(refuse(refusal, publisher, vec![intake])),
        }
    }

    fn check_access(&self, intake: &Intake, application: &str) -> Result<(), Refusal> {
        let access = intake.access();
        if !access.addresses.allows(self.address.ip()) {
            return Err(Refusal::Address);
        }
        let Some(credentials) = &access.credentials else {
            return Ok(());
        };
        // At the time of `connect`: the answer was not too old then.
        let is_right = |time| CHALLENGER.verify(credentials, application, time);
        if self.decision.authenticated.is_some_and(is_right) {
            Ok(())
        } else {
            Err(Refusal::NotAuthenticated)
        }
    }

    /// Asks the application, which may take its time.
    fn ask(
        &mut self,
        intake: &Intake,
        request: &PublishRequest,
        publisher: &Publisher,
    ) -> Result<(), Refusal> {
        let known = self.decision.asked.as_ref();
        let may_publish = match known.filter(|(asked, _)| asked == request) {
            Some((_, may_publish)) => *may_publish,
            None => {
                self.set_standing(Standing::Asked);
                let may_publish = intake.may_publish(publisher);
                self.decision.asked = Some((request.clone(), may_publish));
                may_publish
            }
        };
        may_publish.then_some(()).ok_or(Refusal::Denied)
    }

    /// What is known of a client before its request is understood.
    fn stranger(&self, request: &PublishRequest) -> Publisher {
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
        }
    }

    /// Lets elements know. The reply leaves first: handlers may take their time.
    fn tell(&mut self, refused: Refused) {
        let _ = self.flush(super::FAREWELL);
        self.connection.outbound.finish();
        let publisher = Arc::new(refused.publisher);
        for intake in refused.concerned {
            intake.reject(publisher.clone(), refused.refusal);
        }
    }
}

/// For the log. Some clients put the stream key behind a slash of the application.
fn refused(publisher: &Publisher, refusal: Refusal) -> Parting {
    let application = publisher.application.split('/').next().unwrap_or_default();
    Parting::Refused(format!(
        "application {}, stream key \"{}\" was refused: {}",
        Shown(application),
        Secret(&publisher.stream_key),
        refusal.nick()
    ))
}
