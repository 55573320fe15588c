// SPDX-License-Identifier: MPL-2.0

//! Notifies an HTTP server of streams that become ready or end, until it has acknowledged.

mod schedule;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use gst::glib;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at};
use url::Url;

use crate::catalog::{Change, StreamName};
use crate::options::Secret;
use crate::web;
use schedule::{AfterAttempt, AttemptOutcome, Event, Notice, Schedule};

/// Time for one attempt, from name lookup to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for pending notifications when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The receiver of notifications, and the secret that authenticates them.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub url: Url,
    pub secret: Secret,
    /// The address at which viewers reach the playlists.
    pub base: Url,
}

/// Counters of notifications, for the metrics.
#[derive(Debug, Default)]
pub struct DeliveryCounters {
    pub delivered: AtomicU64,
    /// Attempts that failed and were or will be repeated.
    pub retried: AtomicU64,
    /// Notifications that the receiver rejected.
    pub refused: AtomicU64,
    /// Notifications that were given up, or for which there was no room.
    pub lost: AtomicU64,
    pub waiting: AtomicU64,
}

impl DeliveryCounters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs until the shutdown, and then until all earlier changes are delivered or a few seconds have
/// passed. Without a receiver, changes are dropped.
pub async fn run(
    mut changes: UnboundedReceiver<Change>,
    receiver: Option<Receiver>,
    deliveries: Arc<DeliveryCounters>,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let Some(receiver) = receiver else {
        // The channel is drained all the same: it would grow.
        let take_all = async { while changes.recv().await.is_some() {} };
        tokio::select! {
            () = take_all => {}
            () = shutdown => {}
        }
        return;
    };
    let mut notifier = Notifier::new(receiver, deliveries);
    loop {
        tokio::select! {
            change = notifier.work(&mut changes) => match change {
                Some(change) => notifier.take(change),
                None => break,
            },
            () = &mut shutdown => break,
        }
    }
    changes.close();
    while let Some(change) = changes.recv().await {
        notifier.take(change);
    }
    let end = tokio::time::Instant::now() + FLUSH_TIMEOUT;
    if timeout_at(end, notifier.finish()).await.is_err() {
        let count = notifier.schedule.waiting();
        log(&format!("{count} are lost at the end of the program"));
    }
}

fn log(text: &str) {
    common::journal::warning("notifications").say(format!("notifications: {text}"));
}

struct Notifier {
    receiver: Arc<Receiver>,
    agent: ureq::Agent,
    schedule: Schedule,
    /// Precedes the number of a notice: other processes use the same numbers.
    run: u64,
    sending: JoinSet<(Notice, AttemptOutcome, String)>,
    deliveries: Arc<DeliveryCounters>,
}

impl Notifier {
    fn new(receiver: Receiver, deliveries: Arc<DeliveryCounters>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A receiver that redirects has the wrong address, and the signature is not for others.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("rtmp2server-relay/", env!("CARGO_PKG_VERSION")))
            .build();
        Notifier {
            receiver: Arc::new(receiver),
            agent: config.into(),
            schedule: Schedule::default(),
            run: fastrand::u64(..),
            sending: JoinSet::new(),
            deliveries,
        }
    }

    fn take(&mut self, change: Change) {
        let (event, name) = match change {
            Change::Ready(name) => (Event::Ready, name),
            Change::Gone(name) => (Event::Gone, name),
        };
        let shown = name.to_string();
        if !self
            .schedule
            .push(event, name, time_of_day(), Instant::now())
        {
            DeliveryCounters::count(&self.deliveries.lost);
            log(&format!(
                "{} of {shown} is lost: too many wait. Does the receiver answer?",
                nick(event)
            ));
        }
    }

    /// Sends due notices until there is another change. Returns `None` when there will be no more.
    async fn work(&mut self, changes: &mut UnboundedReceiver<Change>) -> Option<Change> {
        loop {
            let due = self.start();
            tokio::select! {
                change = changes.recv() => return change,
                Some(result) = self.sending.join_next() => self.finished(result),
                () = until(due) => {}
            }
        }
    }

    async fn finish(&mut self) {
        while self.schedule.waiting() > 0 {
            let due = self.start();
            tokio::select! {
                Some(result) = self.sending.join_next() => self.finished(result),
                () = until(due) => {}
            }
        }
    }

    /// Starts due notices, and returns when the next one is due.
    fn start(&mut self) -> Option<Instant> {
        while let Some(notice) = self.schedule.next(Instant::now()) {
            let (agent, receiver) = (self.agent.clone(), self.receiver.clone());
            let id = format!("{:016x}{:016x}", self.run, notice.number);
            self.sending.spawn_blocking(move || {
                let (outcome, text) = attempt(&agent, &receiver, &notice, &id);
                (notice, outcome, text)
            });
        }
        let waiting = self.schedule.waiting() as u64;
        self.deliveries.waiting.store(waiting, Ordering::Relaxed);
        self.schedule.wakes_at()
    }

    fn finished(
        &mut self,
        result: Result<(Notice, AttemptOutcome, String), tokio::task::JoinError>,
    ) {
        let (notice, outcome, text) = match result {
            Ok(result) => result,
            Err(error) => {
                // There is no name to continue with, and the spawned code cannot panic.
                log(&error.to_string());
                return;
            }
        };
        let now = Instant::now();
        let after = self
            .schedule
            .finished(&notice.name, outcome, now, fastrand::f64());
        let (counter, then) = match (outcome, after) {
            (AttemptOutcome::Acknowledged, _) => {
                DeliveryCounters::count(&self.deliveries.delivered);
                return;
            }
            (AttemptOutcome::Rejected, _) => (
                &self.deliveries.refused,
                "it is not sent again: correct the receiver, or --notify".to_owned(),
            ),
            (_, AfterAttempt::Again(delay)) => (
                &self.deliveries.retried,
                format!("again in {:.1} s", delay.as_secs_f64()),
            ),
            (_, AfterAttempt::Superseded) => (
                &self.deliveries.lost,
                "the stream has ended, and its gone notification follows".to_owned(),
            ),
            (_, AfterAttempt::GivenUp | AfterAttempt::Over) => {
                (&self.deliveries.lost, "given up".to_owned())
            }
        };
        DeliveryCounters::count(counter);
        let what = nick(notice.event);
        log(&format!("{what} of {}: {text}; {then}", notice.name));
    }
}

/// Waits until this time; forever without one.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn nick(event: Event) -> &'static str {
    match event {
        Event::Ready => "ready",
        Event::Gone => "gone",
    }
}

/// Returns the time of day in the format of RFC 3339.
fn time_of_day() -> String {
    let now = glib::DateTime::now_utc().and_then(|now| now.format("%Y-%m-%dT%H:%M:%SZ"));
    now.map(String::from).unwrap_or_default()
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    event: &'a str,
    time: &'a str,
    application: &'a str,
    user: Option<&'a str>,
    stream: &'a str,
    playlist: String,
}

fn body(receiver: &Receiver, notice: &Notice, id: &str) -> Vec<u8> {
    let StreamName {
        application,
        user,
        stream,
    } = &notice.name;
    let body = Body {
        id,
        event: nick(notice.event),
        time: &notice.time,
        application,
        user: user.as_deref(),
        stream,
        playlist: web::playlist(&receiver.base, &notice.name).into(),
    };
    serde_json::to_vec(&body).expect("text makes JSON")
}

/// Returns the signature, which the receiver computes again with the secret and compares.
fn signature(secret: &Secret, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("a secret has any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("sha256={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// Makes one attempt. Also returns its outcome in words.
fn attempt(
    agent: &ureq::Agent,
    receiver: &Receiver,
    notice: &Notice,
    id: &str,
) -> (AttemptOutcome, String) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let timestamp = since_1970.unwrap_or_default().as_secs().to_string();
    let body = body(receiver, notice, id);
    let response = agent
        .post(receiver.url.as_str())
        .header("Content-Type", "application/json")
        .header("X-Relay-Id", id)
        .header("X-Relay-Timestamp", &timestamp)
        .header(
            "X-Relay-Signature",
            signature(&receiver.secret, &timestamp, &body),
        )
        .send(&body[..]);
    match response {
        Ok(response) => {
            let retry_after = response.headers().get("Retry-After");
            let retry_after = retry_after.and_then(|value| value.to_str().ok());
            let status = response.status().as_u16();
            let outcome = judge(status, retry_after, glib::DateTime::now_utc().ok());
            (outcome, format!("the receiver answers {status}"))
        }
        Err(error) => (AttemptOutcome::Failed(None), format!("no answer: {error}")),
    }
}

/// Interprets an answer. `now` is for a Retry-After header that holds a date.
fn judge(status: u16, retry_after: Option<&str>, now: Option<glib::DateTime>) -> AttemptOutcome {
    match status {
        200..=299 => AttemptOutcome::Acknowledged,
        408 | 425 | 429 | 500..=599 => {
            AttemptOutcome::Failed(retry_after.and_then(|text| parse_retry_after(text, now)))
        }
        _ => AttemptOutcome::Rejected,
    }
}

/// Reads a Retry-After header: seconds, or a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_retry_after(text: &str, now: Option<glib::DateTime>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let number = |text: &str| text.parse::<i32>().ok();
    let then = glib::DateTime::from_utc(
        number(year)?,
        month as i32,
        number(day)?,
        number(hour)?,
        number(minute)?,
        number(second)?.into(),
    );
    let seconds = then.ok()?.to_unix() - now?.to_unix();
    Some(Duration::from_secs(seconds.try_into().unwrap_or(0)))
}

#[cfg(test)]
mod tests;
