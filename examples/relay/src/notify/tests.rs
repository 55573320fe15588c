// SPDX-License-Identifier: MPL-2.0

use std::future::{pending, ready as now};
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;
use crate::options::Options;

#[derive(Debug, Clone)]
struct Posted {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the event and its stream.
    fn event_and_stream(&self) -> String {
        let json = self.json();
        let text = |field: &str| json[field].as_str().unwrap().to_owned();
        format!("{} {}", text("event"), text("stream"))
    }
}

/// Starts an HTTP server that keeps all requests. `answer` is called with the number of the
/// request.
async fn receive<F, A>(answer: F) -> (SocketAddr, Arc<Mutex<Vec<Posted>>>)
where
    F: Fn(usize, Posted) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send,
{
    let all: Arc<Mutex<Vec<Posted>>> = Arc::default();
    let kept = all.clone();
    let handler = move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let posted = Posted {
            headers: parts.headers,
            body: to_bytes(body, 10_000).await.unwrap().to_vec(),
        };
        let number = {
            let mut kept = kept.lock().unwrap();
            kept.push(posted.clone());
            kept.len()
        };
        answer(number, posted).await
    };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let router = Router::new().fallback(handler);
        axum::serve(socket, router).await.unwrap();
    });
    (address, all)
}

fn receiver(address: SocketAddr) -> Receiver {
    Receiver {
        url: Url::parse(&format!("http://{address}/hook?tenant=1")).unwrap(),
        secret: Options::with_secret("0123456789abcdef").notify_secret,
        base: Url::parse("https://video.example/").unwrap(),
    }
}

/// Starts notifying: returns a sender of changes, the running task, and its counters.
fn start_notifier(
    address: SocketAddr,
) -> (
    UnboundedSender<Change>,
    JoinHandle<()>,
    Arc<DeliveryCounters>,
) {
    let (sender, changes) = unbounded_channel();
    let deliveries: Arc<DeliveryCounters> = Arc::default();
    let running = run(
        changes,
        Some(receiver(address)),
        deliveries.clone(),
        pending(),
    );
    (sender, tokio::spawn(running), deliveries)
}

fn name(stream: &str) -> StreamName {
    StreamName::new("live", Some("ann"), stream).unwrap()
}

fn ready(stream: &str) -> Change {
    Change::Ready(name(stream))
}

fn gone(stream: &str) -> Change {
    Change::Gone(name(stream))
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn notifications_are_signed_and_complete() {
    let (address, posted) = receive(async |_, _| StatusCode::OK.into_response()).await;
    let (changes, running, deliveries) = start_notifier(address);
    changes.send(ready("a b")).unwrap();
    drop(changes);
    running.await.unwrap();
    let posted = posted.lock().unwrap();
    let [posted] = &posted[..] else {
        panic!("{posted:?}");
    };
    let json = posted.json();
    let expected = serde_json::json!({
        "id": posted.header("x-relay-id"),
        "event": "ready",
        "time": json["time"],
        "application": "live",
        "user": "ann",
        "stream": "a b",
        "playlist": "https://video.example/hls/live/ann/a%20b/index.m3u8",
    });
    assert_eq!(json, expected);
    assert_eq!(
        json["time"].as_str().unwrap().len(),
        "2026-11-21T16:42:22Z".len()
    );
    assert_eq!(posted.header("content-type"), "application/json");
    let timestamp = posted.header("x-relay-timestamp");
    let signed = signature(&receiver(address).secret, timestamp, &posted.body);
    assert_eq!(posted.header("x-relay-signature"), signed);
    assert_eq!(read(&deliveries.delivered), 1);
}

#[test]
fn signatures_never_change() {
    let secret = Options::with_secret("0123456789abcdef").notify_secret;
    // printf '1795279342.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
    assert_eq!(
        signature(&secret, "1795279342", b"{}"),
        "sha256=0ae528310a55370b48177d9fbd662983e6fd1a0e7d38065493d2fd1462b6b75e"
    );
}

#[tokio::test]
async fn failed_notifications_are_repeated_in_order_with_their_id() {
    let again = Arc::new(Notify::new());
    let is_there = again.clone();
    let (address, posted) = receive(move |number, _| {
        let is_there = is_there.clone();
        async move {
            if number == 1 {
                return (StatusCode::SERVICE_UNAVAILABLE, [("Retry-After", "1")]).into_response();
            }
            is_there.notify_one();
            StatusCode::NO_CONTENT.into_response()
        }
    })
    .await;
    let (changes, running, deliveries) = start_notifier(address);
    let start = Instant::now();
    changes.send(ready("a")).unwrap();
    // Only then, so that it does not end before it was ready.
    again.notified().await;
    assert!(start.elapsed() >= Duration::from_secs(1));
    changes.send(gone("a")).unwrap();
    drop(changes);
    running.await.unwrap();
    let posted = posted.lock().unwrap();
    let notified: Vec<String> = posted.iter().map(Posted::event_and_stream).collect();
    assert_eq!(notified, ["ready a", "ready a", "gone a"]);
    let ids: Vec<&str> = posted.iter().map(|one| one.header("x-relay-id")).collect();
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
    assert_eq!(
        (read(&deliveries.delivered), read(&deliveries.retried)),
        (2, 1)
    );
}

#[tokio::test]
async fn an_unanswered_notification_blocks_no_other_stream() {
    let (released, other) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (release, is_there) = (released.clone(), other.clone());
    let (address, posted) = receive(move |_, posted| {
        let (release, is_there) = (release.clone(), is_there.clone());
        async move {
            match posted.event_and_stream().as_str() {
                "ready slow" => release.notified().await,
                _ => is_there.notify_one(),
            }
            StatusCode::OK.into_response()
        }
    })
    .await;
    let (changes, running, ..) = start_notifier(address);
    changes.send(ready("slow")).unwrap();
    changes.send(ready("other")).unwrap();
    other.notified().await;
    released.notify_one();
    drop(changes);
    running.await.unwrap();
    assert_eq!(posted.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn rejected_and_redirected_notifications_are_not_repeated() {
    let (elsewhere, strayed) = receive(async |_, _| StatusCode::OK.into_response()).await;
    let (address, posted) = receive(move |number, _| async move {
        match number {
            1 => StatusCode::NOT_FOUND.into_response(),
            2 => {
                let location = format!("http://{elsewhere}/");
                (StatusCode::TEMPORARY_REDIRECT, [("Location", location)]).into_response()
            }
            _ => {
                let location = format!("http://{elsewhere}/");
                (StatusCode::SEE_OTHER, [("Location", location)]).into_response()
            }
        }
    })
    .await;
    let (changes, running, deliveries) = start_notifier(address);
    for stream in ["a", "b", "c"] {
        changes.send(ready(stream)).unwrap();
    }
    drop(changes);
    running.await.unwrap();
    assert_eq!(posted.lock().unwrap().len(), 3);
    assert!(strayed.lock().unwrap().is_empty());
    assert_eq!(read(&deliveries.refused), 3);
}

#[tokio::test]
async fn changes_without_a_receiver_are_dropped() {
    let (sender, changes) = unbounded_channel();
    let running = tokio::spawn(run(changes, None, Arc::default(), pending()));
    for _ in 0..1000 {
        sender.send(ready("a")).unwrap();
    }
    drop(sender);
    running.await.unwrap();
}

#[tokio::test]
async fn earlier_changes_are_delivered_before_the_end() {
    let (address, posted) = receive(async |_, _| StatusCode::OK.into_response()).await;
    let (changes, receiver) = (unbounded_channel(), receiver(address));
    changes.0.send(ready("a")).unwrap();
    // All other senders keep theirs.
    run(changes.1, Some(receiver), Arc::default(), now(())).await;
    assert_eq!(posted.lock().unwrap()[0].event_and_stream(), "ready a");
    let (_sender, changes) = unbounded_channel();
    run(changes, None, Arc::default(), now(())).await;
}

#[test]
fn an_unreachable_receiver_is_a_transient_failure() {
    // A port that is free again.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = receiver(socket.local_addr().unwrap());
    drop(socket);
    let notifier = Notifier::new(receiver, Arc::default());
    let notice = Notice {
        number: 1,
        event: Event::Ready,
        name: name("a"),
        time: time_of_day(),
    };
    let (outcome, text) = attempt(&notifier.agent, &notifier.receiver, &notice, "1");
    assert_eq!(outcome, AttemptOutcome::Failed(None));
    assert!(text.starts_with("no answer: "), "{text}");
}

#[test]
fn answers_are_judged_by_their_status() {
    let now = glib::DateTime::from_utc(1994, 11, 6, 8, 49, 7.0).unwrap();
    let judge = |status, retry_after| judge(status, retry_after, Some(now.clone()));
    let seconds = |count| AttemptOutcome::Failed(Some(Duration::from_secs(count)));
    assert_eq!(judge(204, None), AttemptOutcome::Acknowledged);
    assert_eq!(judge(503, Some("7")), seconds(7));
    assert_eq!(
        judge(429, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
        seconds(30)
    );
    assert_eq!(
        judge(429, Some("Sun, 06 Nov 1994 08:48:37 GMT")),
        seconds(0)
    );
    for text in [
        "soon",
        "-1",
        "Sun, 06 Nov 1994",
        "Sun, 99 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(
            judge(500, Some(text)),
            AttemptOutcome::Failed(None),
            "{text}"
        );
    }
    for status in [301, 307, 400, 401, 404, 410] {
        assert_eq!(judge(status, None), AttemptOutcome::Rejected, "{status}");
    }
}
