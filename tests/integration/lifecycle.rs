// SPDX-License-Identifier: MPL-2.0

//! The life of a publisher: who may succeed it and when, which commands leave it alone, which
//! states, events and signals its stream goes through, and how timeouts and stopping end it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::ConnectionState::{
    self, Authenticating, Disconnected, Negotiating, Recovering, SocketConnected, Streaming,
};
use gstrtmp2server::StreamEvent;
use gstrtmp2server::StreamStatus::{self, Active, Stopped};
use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::control::Control;
use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use crate::multi::multi_recorder::{MultiRecorder, publisher};
use support::PATIENCE;
use support::flv;
use support::program::Program;
use support::raw::{RawClient, code, media_chunks, send, unpublish};
use support::recorder::Recorder;
use support::signals::Signals;
use support::synthetic::{keyframe, metadata, stream, video_header};
use support::wire::Wire;

const STATUS: &str = "rtmp2-stream-status";
const EVENT: &str = "rtmp2-stream-event";

const START: &str = "NetStream.Publish.Start";
const BAD_NAME: &str = "NetStream.Publish.BadName";
const DENIED: &str = "NetStream.Publish.Denied";

/// Publishers that follow each other in one test.
const ROUNDS: usize = 50;

/// Longest time for anything that has to happen at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Connects a client to an application, ready to publish.
fn connected_client(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.handshake().connect_application("live");
    client.expect_command("_result");
    client
}

/// Requests to publish. Returns the status code, or none where the connection ends without one.
fn request_publish(client: &mut RawClient, key: &str) -> Option<String> {
    let arguments = [Value::Null, key.into()];
    client.try_command(1, "publish", 2.0, &arguments).ok()?;
    let status = client.try_expect_command("onStatus")?;
    Some(code(&status).to_owned())
}

/// Waits until the server has handled all commands before this call.
fn synchronise(client: &mut RawClient) {
    const TRANSACTION: f64 = 99.0;
    client.command(0, "createStream", TRANSACTION, &[Value::Null]);
    while client.expect_command("_result").transaction_id != TRANSACTION {}
}

fn send_audio(client: &mut RawClient, time: u32) {
    client.media(flv::AUDIO, time, &[0x2F, time as u8, 9], 128);
}

/// Waits until a condition holds, which must be soon.
#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + AT_ONCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        thread::yield_now();
    }
}

fn state_of(element: &gst::Element) -> (ConnectionState, StreamStatus) {
    let connection = element.property("connection-state");
    (connection, element.property("stream-status"))
}

#[track_caller]
fn wait_for_state(recorder: &Recorder, state: ConnectionState) {
    let what = format!("{state:?}");
    wait_until(&what, || posted_states(recorder).last() == Some(&state));
    assert_eq!(state_of(&recorder.element).0, state);
}

/// Connection states that were posted so far.
fn posted_states(recorder: &Recorder) -> Vec<ConnectionState> {
    let statuses = recorder.messages(STATUS, 0);
    let states = statuses.iter().map(|s| s.get("connection-state").unwrap());
    states.collect()
}

fn count_events(recorder: &Recorder, event: StreamEvent) -> usize {
    let events = recorder.messages(EVENT, 0);
    let is_wanted = |message: &&gst::Structure| message.get("event") == Ok(event);
    events.iter().filter(is_wanted).count()
}

/// Asserts that the server closes a connection within this time.
#[track_caller]
fn assert_closed_within(client: &mut RawClient, limit: Duration) {
    let start = Instant::now();
    client.socket.set_read_timeout(Some(limit)).unwrap();
    loop {
        match client.read_message() {
            Ok(Some(_)) => assert!(start.elapsed() < limit, "still open"),
            Ok(None) => return,
            Err(error) => {
                let is_closed = error.kind() == io::ErrorKind::ConnectionReset;
                assert!(is_closed, "still open after {:?}: {error}", start.elapsed());
                return;
            }
        }
    }
}

// --- Succession ---

/// The ways in which a publisher disappears.
#[derive(Debug, Clone, Copy)]
enum Disappearance {
    Closed,
    /// Its system resets the connection.
    Reset,
    /// Its process is killed, and closes the connection only as it is torn down.
    Killed,
}

/// Gives a client's connection to a process, which takes a moment to be torn down.
fn move_to_process(client: RawClient) -> Program {
    const SCRIPT: &str = "import signal\n\
                          memory = b'x' * (64 << 20)\n\
                          print('ready', flush=True)\n\
                          signal.pause()";
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]);
    command.stdin(OwnedFd::from(client.socket));
    command.stdout(Stdio::piped());
    let mut process = Program::start(&mut command);
    process.wait_for("ready");
    process
}

/// Each contender asks in the same moment in which the publisher before it disappears.
#[track_caller]
fn assert_succeeded_at_once(disappearance: Disappearance) {
    for policy in ["reject", "replace-stalled"] {
        let recorder = Recorder::start(&format!("keep-listening=true publisher-policy={policy}"));
        let port = recorder.port();
        let mut publisher = RawClient::publish(port, "live", "key");
        let mut accepted = 0;
        for round in 0..ROUNDS {
            send_audio(&mut publisher, round as u32);
            // Half of a message is in flight.
            publisher.send(&[4, 0, 0]);
            let mut contender = connected_client(port);
            let process = match disappearance {
                Disappearance::Closed => {
                    drop(publisher);
                    None
                }
                Disappearance::Reset => {
                    set_socket_linger(&publisher.socket, Some(Duration::ZERO)).unwrap();
                    drop(publisher);
                    None
                }
                Disappearance::Killed => {
                    let process = move_to_process(publisher);
                    process.signal(Signal::KILL);
                    Some(process)
                }
            };
            if request_publish(&mut contender, "key").as_deref() == Some(START) {
                accepted += 1;
                publisher = contender;
            } else {
                drop(process);
                publisher = RawClient::publish(port, "live", "key");
            }
        }
        assert_eq!(accepted, ROUNDS, "{policy}, {disappearance:?}");
    }
}

#[test]
fn a_publisher_that_closes_is_succeeded_at_once() {
    assert_succeeded_at_once(Disappearance::Closed);
}

#[test]
fn a_publisher_that_resets_is_succeeded_at_once() {
    assert_succeeded_at_once(Disappearance::Reset);
}

#[test]
fn a_publisher_that_is_killed_is_succeeded_at_once() {
    assert_succeeded_at_once(Disappearance::Killed);
}

/// A publisher that proves to be alive makes the wait of a contender short.
#[test]
fn a_contender_of_a_live_publisher_is_refused_soon() {
    const PACE: Duration = Duration::from_millis(5);
    const MAX_WAIT: Duration = Duration::from_millis(300);
    for policy in ["reject", "replace-stalled"] {
        let recorder = Recorder::start(&format!("keep-listening=true publisher-policy={policy}"));
        let port = recorder.port();
        let mut publisher = RawClient::publish(port, "live", "key");
        let stop = AtomicBool::new(false);
        let longest = thread::scope(|scope| {
            scope.spawn(|| {
                for index in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    send_audio(&mut publisher, 5 * index);
                    // The pace of the publisher.
                    thread::sleep(PACE);
                }
            });
            let waits = (0..10).map(|_| {
                let mut contender = connected_client(port);
                let start = Instant::now();
                let code = request_publish(&mut contender, "key");
                (code, start.elapsed())
            });
            let waits: Vec<_> = waits.collect();
            stop.store(true, Ordering::Relaxed);
            let is_refused = |(code, _): &(Option<String>, _)| code.as_deref() == Some(BAD_NAME);
            assert!(waits.iter().all(is_refused), "{policy}: {waits:?}");
            waits.into_iter().map(|(_, wait)| wait).max().unwrap()
        });
        assert!(longest < MAX_WAIT, "{policy}: {longest:?}");
        unpublish(publisher);
    }
}

/// A publisher that has closed its connection, with media left that a blocked pipeline does not
/// take.
struct Unfinished {
    /// Dropped before the recorder, which could not stop otherwise.
    release: mpsc::Sender<()>,
    recorder: Recorder,
}

impl Unfinished {
    fn start(properties: &str) -> Self {
        let properties = format!("keep-listening=true max-bytes=1000 {properties}");
        let recorder = Recorder::start(&properties);
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let pad = recorder.element.static_pad("src").unwrap();
        pad.add_probe(kinds, move |_, _| {
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            gst::PadProbeReturn::Ok
        });
        Unfinished { release, recorder }
    }

    /// Publishes more than the queue holds, and closes the connection. Everything fits into the
    /// socket's buffer, so that the server's system knows of the end.
    fn publish(&self) {
        let mut client = RawClient::publish(self.recorder.port(), "live", "key?first");
        let body = [&[0x2F, 1][..], &[9; 500]].concat();
        for time in 0..40 {
            client.send(&media_chunks(flv::AUDIO, time, &body, 128));
        }
    }
}

/// However often a successor asks, and whatever keeps it waiting.
#[test]
fn a_successor_waits_at_most_three_seconds_in_all() {
    const LIMIT: Duration = Duration::from_millis(4000);
    let assert_bounded = |policy: &str| {
        let unfinished = Unfinished::start(&format!("publisher-policy={policy}"));
        unfinished.publish();
        let mut successor = connected_client(unfinished.recorder.port());
        let start = Instant::now();
        let arguments = [Value::Null, "key".into()];
        successor.command(0, "FCPublish", 3.0, &arguments);
        let answer = request_publish(&mut successor, "key");
        let wait = start.elapsed();
        println!("{policy}: {answer:?} after {wait:?}");
        drop(unfinished.release);
        assert!(wait < LIMIT, "{policy}: {answer:?} after {wait:?}");
    };
    thread::scope(|scope| {
        for policy in ["reject", "replace-stalled", "replace"] {
            scope.spawn(move || assert_bounded(policy));
        }
    });
}

// --- Commands ---

/// Idle connections, many times the limit.
const IDLE: usize = 110;

/// Opens idle connections until the server has accepted all of them.
fn connect_idle(port: u16) -> Vec<RawClient> {
    let mut idle: Vec<RawClient> = (0..IDLE).map(|_| RawClient::connect(port)).collect();
    // Connections are accepted in order, so one that is answered comes after all before it. The
    // server refuses some of so many at once.
    loop {
        let mut last = RawClient::connect(port);
        let is_answered = last.try_handshake().is_ok();
        idle.push(last);
        if is_answered {
            return idle;
        }
    }
}

/// Commands that are legal in any phase. Each sends what it needs.
type Commands = [(&'static str, fn(&mut RawClient)); 8];

const LEGAL_COMMANDS: Commands = [
    ("FCPublish", |client| {
        client.command(0, "FCPublish", 7.0, &[Value::Null, "key".into()]);
    }),
    ("FCPublish of another key", |client| {
        client.command(0, "FCPublish", 7.0, &[Value::Null, "other".into()]);
    }),
    ("releaseStream", |client| {
        client.command(0, "releaseStream", 7.0, &[Value::Null, "key".into()]);
    }),
    ("createStream", |client| {
        client.command(0, "createStream", 7.0, &[Value::Null]);
    }),
    ("connect", |client| {
        client.connect_application("live");
    }),
    ("_checkbw", |client| {
        client.command(0, "_checkbw", 7.0, &[Value::Null]);
    }),
    ("getStreamLength", |client| {
        client.command(0, "getStreamLength", 7.0, &[Value::Null, "key".into()]);
    }),
    ("an unknown command", |client| {
        client.command(1, "somethingElse", 7.0, &[Value::Null, "key".into()]);
    }),
];

/// A live publisher stays one: it keeps its state, and no idle connection takes its place.
#[test]
fn a_legal_command_changes_nothing_for_a_live_publisher() {
    for policy in ["reject", "replace-stalled", "replace"] {
        for (name, send_command) in LEGAL_COMMANDS {
            let recorder = Recorder::start(&format!(
                "publisher-policy={policy} keep-listening=true max-clients=10 \
                 max-clients-per-address=1000"
            ));
            let port = recorder.port();
            let signals = Signals::watch(&recorder.element);
            let mut client = RawClient::publish(port, "live", "key");
            send_audio(&mut client, 0);
            wait_for_state(&recorder, Streaming);
            let before = posted_states(&recorder);
            send_command(&mut client);
            synchronise(&mut client);
            let idle = connect_idle(port);
            send_audio(&mut client, 20);
            let has_media = |buffers: &[gst::Buffer]| buffers.len() == 3;
            recorder.wait_until(&format!("media after {name}, {policy}"), has_media);
            assert_eq!(posted_states(&recorder), before, "{name}, {policy}");
            assert_eq!(signals.names(1), ["added"], "{name}, {policy}");
            assert_eq!(recorder.stats().get("publishing"), Ok(true));
            drop(idle);
            unpublish(client);
        }
    }
}

/// The same commands of a client that does not publish leave the publisher alone too.
#[test]
fn a_legal_command_of_another_client_changes_nothing_for_a_live_publisher() {
    for (name, send_command) in LEGAL_COMMANDS {
        let recorder = Recorder::start("publisher-policy=replace keep-listening=true");
        let mut client = RawClient::publish(recorder.port(), "live", "key");
        send_audio(&mut client, 0);
        wait_for_state(&recorder, Streaming);
        let before = posted_states(&recorder);
        let mut other = connected_client(recorder.port());
        send_command(&mut other);
        synchronise(&mut other);
        drop(other);
        send_audio(&mut client, 20);
        recorder.wait_until(name, |buffers| buffers.len() == 3);
        assert_eq!(posted_states(&recorder), before, "{name}");
        unpublish(client);
    }
}

// --- States ---

/// Denies clients whose query is `deny`.
fn deny_on_request(element: &gst::Element) {
    element.connect("publisher-connecting", false, |arguments| {
        let info: gst::Structure = arguments[1].get().unwrap();
        Some((info.get("query") != Ok("deny")).to_value())
    });
}

/// A client that has announced a stream and is to publish it.
fn announced_client(port: u16, key: &str) -> RawClient {
    let mut client = connected_client(port);
    client.command(0, "FCPublish", 3.0, &[Value::Null, key.into()]);
    client.expect_command("onFCPublish");
    client
}

#[test]
fn the_end_of_one_of_two_pending_clients_leaves_the_state_of_the_other() {
    let refuse = |mut client: RawClient| {
        let code = request_publish(&mut client, "key?deny");
        assert_eq!(code.as_deref(), Some(DENIED));
    };
    let ends: [(&str, &dyn Fn(RawClient)); 2] = [("refused", &refuse), ("gone", &drop)];
    for (name, end) in ends {
        let recorder = Recorder::start("keep-listening=true");
        deny_on_request(&recorder.element);
        let mut first = announced_client(recorder.port(), "key");
        wait_for_state(&recorder, Authenticating);
        let second = announced_client(recorder.port(), "key");
        end(second);
        assert_eq!(request_publish(&mut first, "key").as_deref(), Some(START));
        wait_for_state(&recorder, Negotiating);
        let states = posted_states(&recorder);
        let expected = [SocketConnected, Authenticating, Negotiating];
        assert_eq!(states, expected, "{name}");
        unpublish(first);
        wait_for_state(&recorder, Disconnected);
    }
}

#[test]
fn the_state_returns_after_the_last_of_several_pending_clients() {
    let recorder = Recorder::start("keep-listening=true");
    deny_on_request(&recorder.element);
    let port = recorder.port();
    let mut clients: Vec<RawClient> = (0..3).map(|_| announced_client(port, "key")).collect();
    wait_for_state(&recorder, Authenticating);
    // A client that announces twice and several streams is one client.
    let client = &mut clients[0];
    for key in ["key?again", "other", "key"] {
        client.command(0, "FCPublish", 4.0, &[Value::Null, key.into()]);
    }
    synchronise(client);
    drop(clients);
    wait_for_state(&recorder, Disconnected);
    assert_eq!(state_of(&recorder.element).1, Stopped);
}

/// A client of the walk, and the streams that it asked for.
struct Walker {
    client: RawClient,
    /// The stream that it announced last, where the server has accepted that.
    pending: Option<usize>,
    /// Streams that it has named since it connected or published.
    named: [bool; 2],
    publishes: Option<usize>,
}

/// Two streams on one port, three clients, and a model of what they do.
struct Walk {
    recorders: [Recorder; 2],
    walkers: [Option<Walker>; 3],
    random: fastrand::Rng,
    steps: Vec<String>,
}

const KEYS: [&str; 2] = ["a", "b"];

/// The second stream rejects a second publisher, the first one replaces its publisher.
const REPLACES: [bool; 2] = [true, false];

impl Walk {
    fn start(seed: u64) -> Self {
        let common = "application=live keep-listening=true handshake-timeout=600000";
        let first = Recorder::start(&format!("{common} stream-key=a publisher-policy=replace"));
        let port = first.port();
        let second = Recorder::start(&format!(
            "{common} port={port} stream-key=b publisher-policy=reject"
        ));
        let recorders = [first, second];
        for recorder in &recorders {
            deny_on_request(&recorder.element);
        }
        Walk {
            recorders,
            walkers: [None, None, None],
            random: fastrand::Rng::with_seed(seed),
            steps: Vec::new(),
        }
    }

    fn step(&mut self) {
        let index = self.random.usize(..self.walkers.len());
        let stream = self.random.usize(..KEYS.len());
        let Some(walker) = self.walkers[index].take() else {
            self.steps.push(format!("{index} connects"));
            self.walkers[index] = Some(Walker {
                client: connected_client(self.recorders[0].port()),
                pending: None,
                named: [false; 2],
                publishes: None,
            });
            return;
        };
        self.walkers[index] = match self.random.u32(..8) {
            0 | 1 => self.announce(index, walker, stream),
            2 => self.announce_denied(index, walker, stream),
            3 | 4 => self.publish(index, walker, stream),
            5 => self.publish_refused(index, walker, stream),
            6 => self.unpublish(index, walker),
            _ => {
                self.steps.push(format!("{index} disconnects"));
                None
            }
        };
    }

    fn has_publisher(&self, stream: usize) -> bool {
        let walkers = self.walkers.iter().flatten();
        walkers.into_iter().any(|w| w.publishes == Some(stream))
    }

    fn announce(&mut self, index: usize, mut walker: Walker, stream: usize) -> Option<Walker> {
        self.steps.push(format!("{index} announces {stream}"));
        let arguments = [Value::Null, KEYS[stream].into()];
        walker.client.command(0, "FCPublish", 3.0, &arguments);
        synchronise(&mut walker.client);
        if walker.publishes.is_none() {
            let is_accepted = REPLACES[stream] || !self.has_publisher(stream);
            walker.pending = is_accepted.then_some(stream);
        }
        walker.named[stream] = true;
        Some(walker)
    }

    fn announce_denied(
        &mut self,
        index: usize,
        mut walker: Walker,
        stream: usize,
    ) -> Option<Walker> {
        self.steps
            .push(format!("{index} announces {stream}, denied"));
        let key = format!("{}?deny", KEYS[stream]);
        let arguments = [Value::Null, key.as_str().into()];
        walker.client.command(0, "FCPublish", 3.0, &arguments);
        synchronise(&mut walker.client);
        walker.pending = None;
        walker.named[stream] = true;
        Some(walker)
    }

    fn publish(&mut self, index: usize, walker: Walker, stream: usize) -> Option<Walker> {
        let mut walker = self.unpublish(index, walker)?;
        self.steps.push(format!("{index} publishes {stream}"));
        let is_accepted = REPLACES[stream] || !self.has_publisher(stream);
        let code = request_publish(&mut walker.client, KEYS[stream]);
        let expected = if is_accepted { START } else { BAD_NAME };
        assert_eq!(code.as_deref(), Some(expected), "{:?}", self.steps);
        if !is_accepted {
            return None;
        }
        let replaced = |other: &&mut Option<Walker>| {
            other.as_ref().is_some_and(|o| o.publishes == Some(stream))
        };
        for other in self.walkers.iter_mut().filter(replaced) {
            *other = None;
        }
        Some(Walker {
            client: walker.client,
            pending: None,
            named: [false; 2],
            publishes: Some(stream),
        })
    }

    fn publish_refused(&mut self, index: usize, walker: Walker, stream: usize) -> Option<Walker> {
        let mut walker = self.unpublish(index, walker)?;
        let (key, expected) = if self.random.bool() && !self.has_publisher(stream) {
            (format!("{}?deny", KEYS[stream]), DENIED)
        } else {
            ("unknown".to_owned(), BAD_NAME)
        };
        self.steps.push(format!("{index} publishes {key}"));
        let code = request_publish(&mut walker.client, &key);
        assert_eq!(code.as_deref(), Some(expected), "{:?}", self.steps);
        None
    }

    /// Ends the stream that the client publishes, if any.
    fn unpublish(&mut self, index: usize, mut walker: Walker) -> Option<Walker> {
        if walker.publishes.take().is_some() {
            self.steps.push(format!("{index} unpublishes"));
            walker.client.command(1, "closeStream", 0.0, &[Value::Null]);
            walker.client.expect_command("onStatus");
        }
        Some(walker)
    }

    /// Asserts that each stream has the state that its clients account for.
    fn check(&self) {
        for (stream, recorder) in self.recorders.iter().enumerate() {
            let walkers = || self.walkers.iter().flatten();
            let is_pending = walkers().any(|walker| walker.pending == Some(stream));
            let is_named = walkers().any(|walker| walker.named[stream]);
            let what = format!("the state of {stream} after {:?}", self.steps);
            wait_until(&what, || {
                let (connection, status) = state_of(&recorder.element);
                if self.has_publisher(stream) {
                    !matches!(connection, Disconnected | SocketConnected | Authenticating)
                } else if is_pending {
                    matches!(connection, SocketConnected | Authenticating)
                } else {
                    is_named || (connection, status) == (Disconnected, Stopped)
                }
            });
        }
    }
}

#[test]
fn states_return_to_the_truth_after_any_sequence_of_clients() {
    const STEPS: usize = 200;
    for seed in 1..=3 {
        println!("seed {seed}");
        let mut walk = Walk::start(seed);
        let signals = walk.recorders.each_ref();
        let signals = signals.map(|recorder| Signals::watch(&recorder.element));
        for _ in 0..STEPS {
            walk.step();
            walk.check();
        }
        walk.steps.push("all disconnect".to_owned());
        walk.walkers = [None, None, None];
        walk.check();
        for (recorder, signals) in walk.recorders.iter().zip(signals) {
            recorder.pipeline.set_state(gst::State::Null).unwrap();
            let names = signals.names(0);
            let count = |start: &str| names.iter().filter(|n| n.starts_with(start)).count();
            assert_eq!(count("added"), count("removed"), "{names:?}");
        }
    }
}

// --- Events and signals ---

/// Also where the next publisher starts in the moment in which the one before it ends.
#[test]
fn each_publisher_is_connected_gone_added_and_removed_once() {
    for policy in ["replace", "reject"] {
        let recorder = Recorder::start(&format!("keep-listening=true publisher-policy={policy}"));
        let port = recorder.port();
        let signals = Signals::watch(&recorder.element);
        let mut publisher = RawClient::publish(port, "live", "key");
        for round in 0..ROUNDS {
            let mut next = connected_client(port);
            match round % 4 {
                // The same client, without a pause.
                0 => {
                    publisher.command(1, "closeStream", 0.0, &[Value::Null]);
                    let ended = request_publish(&mut publisher, "key").unwrap();
                    assert_eq!(ended, "NetStream.Unpublish.Success");
                    let status = publisher.expect_command("onStatus");
                    assert_eq!(code(&status), START, "{policy}, round {round}");
                    continue;
                }
                1 => {
                    publisher.command(1, "closeStream", 0.0, &[Value::Null]);
                    publisher.expect_command("onStatus");
                }
                2 => drop(publisher),
                // Replaced, where the policy says so.
                _ if policy == "replace" => {}
                _ => {
                    set_socket_linger(&publisher.socket, Some(Duration::ZERO)).unwrap();
                    drop(publisher);
                }
            }
            let code = request_publish(&mut next, "key");
            assert_eq!(code.as_deref(), Some(START), "{policy}, round {round}");
            publisher = next;
        }
        unpublish(publisher);
        let count = ROUNDS + 1;
        let names = signals.names(2 * count);
        let events = || {
            use StreamEvent::{PublisherConnected, PublisherGone, Replaced};
            let events = [PublisherConnected, PublisherGone, Replaced];
            events.map(|event| count_events(&recorder, event))
        };
        // A replaced publisher may be reported as that only.
        let are_complete = |[connected, gone, replaced]: [usize; 3]| {
            connected == count && (gone == count || gone + replaced == count)
        };
        let deadline = Instant::now() + AT_ONCE;
        while !are_complete(events()) && Instant::now() < deadline {
            thread::yield_now();
        }
        recorder.pipeline.set_state(gst::State::Null).unwrap();
        let events = events();
        assert!(are_complete(events), "{policy}: {events:?} of {count}");
        assert_eq!(signals.names(0).len(), 2 * count, "{policy}: {names:?}");
        for pair in names.chunks(2) {
            assert_eq!(pair[0], "added", "{policy}: {names:?}");
            assert!(pair[1].starts_with("removed"), "{policy}: {names:?}");
        }
    }
}

// --- Stopping ---

/// Blocks `publisher-connecting` for clients whose query is `block`.
struct BlockingHandler {
    /// Receives the query of each client that the handler is called for.
    calls: mpsc::Receiver<String>,
    call: mpsc::Sender<String>,
    /// Ends all calls when it is dropped.
    release: mpsc::Sender<()>,
}

impl BlockingHandler {
    fn connect(element: &gst::Element) -> Self {
        let (call, calls) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (called, released) = (Mutex::new(call.clone()), Mutex::new(released));
        element.connect("publisher-connecting", false, move |arguments| {
            let info: gst::Structure = arguments[1].get().unwrap();
            let query: String = info.get("query").unwrap();
            let blocks = query == "block";
            let _ = called.lock().unwrap().send(query);
            if blocks {
                let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            }
            Some(true.to_value())
        });
        BlockingHandler {
            calls,
            call,
            release,
        }
    }

    /// Waits for the next call, or for what another thread reports instead.
    #[track_caller]
    fn wait_for_call(&self) -> String {
        self.calls.recv_timeout(PATIENCE).unwrap()
    }
}

/// Asserts that a pipeline stops without waiting for any handler.
#[track_caller]
fn assert_stops_at_once(pipeline: &gst::Pipeline) {
    let (stopped, has_stopped) = mpsc::channel();
    let stopping = pipeline.clone();
    thread::spawn(move || stopped.send(stopping.set_state(gst::State::Null)));
    let result = has_stopped.recv_timeout(AT_ONCE);
    result.expect("stopping waits for a handler").unwrap();
}

/// Starts an element, and another one on its port if the port is to outlive it.
fn start_shared(properties: &str, is_shared: bool) -> (Recorder, Option<Recorder>) {
    let recorder = Recorder::start(&format!("application=live {properties}"));
    let port = recorder.port();
    let other = is_shared.then(|| {
        let other = format!("port={port} application=other {properties}");
        Recorder::start(&other)
    });
    (recorder, other)
}

#[test]
fn an_element_stops_while_a_handler_blocks_a_publish() {
    for is_shared in [false, true] {
        let (recorder, _other) = start_shared("", is_shared);
        let handler = BlockingHandler::connect(&recorder.element);
        let mut client = connected_client(recorder.port());
        client.command(1, "publish", 2.0, &[Value::Null, "key?block".into()]);
        assert_eq!(handler.wait_for_call(), "block");
        assert_stops_at_once(&recorder.pipeline);
        drop(handler.release);
    }
}

/// Names a stream again, as a client does that repeats `FCPublish` while it publishes. Returns
/// once the handler blocks it or the server has answered.
fn announce_while_publishing(handler: &BlockingHandler, mut client: RawClient) {
    client.command(0, "FCPublish", 4.0, &[Value::Null, "key?block".into()]);
    let answered = handler.call.clone();
    thread::spawn(move || {
        client.command(0, "createStream", 5.0, &[Value::Null]);
        if client.try_expect_command("_result").is_some() {
            let _ = answered.send("answered".to_owned());
        }
        // Stays connected until the server ends it.
        while let Ok(Some(_)) = client.read_message() {}
    });
    handler.wait_for_call();
}

#[test]
fn an_element_stops_while_a_handler_blocks_a_late_announcement() {
    for (policy, is_shared) in [
        ("replace", false),
        ("replace", true),
        ("replace-stalled", false),
    ] {
        let properties = format!("publisher-policy={policy}");
        let (recorder, _other) = start_shared(&properties, is_shared);
        let handler = BlockingHandler::connect(&recorder.element);
        let client = RawClient::publish(recorder.port(), "live", "key");
        assert_eq!(handler.wait_for_call(), "");
        announce_while_publishing(&handler, client);
        assert_stops_at_once(&recorder.pipeline);
        drop(handler.release);
    }
}

#[test]
fn a_multi_stream_element_stops_while_a_handler_blocks() {
    for is_late in [false, true] {
        let recorder = MultiRecorder::start("publisher-policy=replace");
        let handler = BlockingHandler::connect(&recorder.element);
        let port = recorder.port();
        if is_late {
            let client = publisher(port, "key");
            assert_eq!(handler.wait_for_call(), "");
            recorder.wait_for("+src_0");
            announce_while_publishing(&handler, client);
            assert_stops_at_once(&recorder.pipeline);
        } else {
            let mut client = connected_client(port);
            client.command(1, "publish", 2.0, &[Value::Null, "key?block".into()]);
            assert_eq!(handler.wait_for_call(), "block");
            assert_stops_at_once(&recorder.pipeline);
        }
        drop(handler.release);
    }
}

#[test]
fn an_element_stops_while_a_handler_blocks_an_evicted_client() {
    for is_shared in [false, true] {
        let limits = "max-clients=1 max-clients-per-address=1000";
        let (recorder, _other) = start_shared(limits, is_shared);
        let handler = BlockingHandler::connect(&recorder.element);
        let mut client = connected_client(recorder.port());
        client.command(1, "publish", 2.0, &[Value::Null, "key?block".into()]);
        assert_eq!(handler.wait_for_call(), "block");
        let _newcomer = RawClient::connect(recorder.port());
        assert_closed_within(&mut client, AT_ONCE);
        assert_stops_at_once(&recorder.pipeline);
        drop(handler.release);
    }
}

/// Bytes of a client that the server has not read, as `/proc/net/tcp` shows it.
fn unread_bytes(server: u16, client: u16) -> Option<u64> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(file).unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if (port(fields[1]), port(fields[2])) == (Some(server), Some(client)) {
                let (_, received) = fields[4].split_once(':').unwrap();
                return u64::from_str_radix(received, 16).ok();
            }
        }
    }
    None
}

/// It waits for the rest of its predecessor while it is evicted, and would be asked about next.
#[test]
fn an_evicted_client_is_not_asked_about() {
    let limits = "publisher-policy=reject max-clients=2 max-clients-per-address=1000";
    let unfinished = Unfinished::start(limits);
    let recorder = &unfinished.recorder;
    let port = recorder.port();
    let handler = BlockingHandler::connect(&recorder.element);
    let signals = Signals::watch(&recorder.element);
    unfinished.publish();
    assert_eq!(handler.wait_for_call(), "first");
    let mut evicted = connected_client(port);
    let arguments = [Value::Null, "key?evicted".into()];
    evicted.command(1, "publish", 2.0, &arguments);
    let client_port = evicted.socket.local_addr().unwrap().port();
    wait_until("its request to be read", || {
        unread_bytes(port, client_port) == Some(0)
    });
    let idle = RawClient::connect(port);
    assert_closed_within(&mut evicted, AT_ONCE);
    drop(unfinished.release);
    assert_eq!(signals.names(2), ["added", "removed closed"]);
    drop(idle);
    let mut next = connected_client(port);
    let code = request_publish(&mut next, "key?next");
    assert_eq!(code.as_deref(), Some(START));
    // Joins all threads, so that no call comes later.
    assert_stops_at_once(&recorder.pipeline);
    let calls: Vec<String> = handler.calls.try_iter().collect();
    assert_eq!(calls, ["next"]);
    drop(handler.release);
}

// --- Stalls and timeouts ---

/// Sends something without media over and over until the publisher counts as stalled.
#[track_caller]
fn assert_stalls(recorder: &Recorder, client: &mut RawClient, send: impl Fn(&mut RawClient)) {
    const PACE: Duration = Duration::from_millis(50);
    let start = Instant::now();
    while state_of(&recorder.element).0 != Recovering {
        assert!(start.elapsed() < AT_ONCE, "no stall");
        send(client);
        // The pace of the publisher.
        thread::sleep(PACE);
    }
    assert_eq!(count_events(recorder, StreamEvent::Stalled), 1);
}

/// Publishes until the stream is active.
fn stream_to(recorder: &Recorder) -> RawClient {
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 200)]);
    wait_for_state(recorder, Streaming);
    client
}

fn start_streaming(properties: &str) -> (Recorder, RawClient) {
    let recorder = Recorder::start(properties);
    let client = stream_to(&recorder);
    (recorder, client)
}

fn send_ping_response(client: &mut RawClient) {
    client.control(Control::PingResponse(1));
}

fn send_command(client: &mut RawClient) {
    client.command(0, "ping", 0.0, &[Value::Null]);
}

fn send_metadata(client: &mut RawClient) {
    let tag = metadata(0);
    client.media(tag.kind, tag.timestamp, &tag.body, 128);
}

#[test]
fn a_publisher_that_sends_no_media_stalls() {
    let senders: [fn(&mut RawClient); 3] = [send_ping_response, send_command, send_metadata];
    for send in senders {
        let (recorder, mut client) = start_streaming("stall-timeout=500");
        assert_stalls(&recorder, &mut client, send);
    }
}

/// The first chunks of a frame arrived, and only other messages after them.
#[test]
fn a_partial_message_that_does_not_grow_is_no_progress() {
    for send_other in [send_ping_response as fn(&mut RawClient), send_command] {
        let (recorder, mut client) = start_streaming("stall-timeout=500 keep-listening=true");
        let large = keyframe(40, 20_000);
        let chunks = Wire::of(&large).absolute(&large);
        client.send(&chunks[..3].concat());
        assert_stalls(&recorder, &mut client, send_other);
        // The rest of the frame ends the stall.
        client.send(&chunks[3..].concat());
        wait_for_state(&recorder, Streaming);
        assert_eq!(state_of(&recorder.element).1, Active);
    }
}

/// A stalled publisher gives way to another one, whatever else it sends.
#[test]
fn a_publisher_without_progress_is_replaced() {
    let (recorder, mut client) = start_streaming("stall-timeout=300 keep-listening=true");
    let large = keyframe(40, 20_000);
    let chunks = Wire::of(&large).absolute(&large);
    client.send(&chunks[..3].concat());
    let mut contender = connected_client(recorder.port());
    assert_stalls(&recorder, &mut client, send_ping_response);
    send_ping_response(&mut client);
    let code = request_publish(&mut contender, "key");
    assert_eq!(code.as_deref(), Some(START));
}

/// Publishes and loses the connection.
fn publish_and_disconnect(recorder: &Recorder) {
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 2));
    drop(client);
    wait_for_state(recorder, Recovering);
}

#[test]
fn a_shorter_resume_timeout_ends_the_wait_at_once() {
    for timeout in [1, 0] {
        let recorder = Recorder::start("resume-timeout=600000");
        publish_and_disconnect(&recorder);
        recorder
            .element
            .set_property("resume-timeout", timeout as u32);
        wait_for_state(&recorder, Disconnected);
        recorder.finish();
    }
    let recorder = MultiRecorder::start("resume-timeout=600000");
    let client = publisher(recorder.port(), "key");
    recorder.wait_for("+src_0");
    drop(client);
    recorder.wait_for("removed src_0 closed");
    recorder.element.set_property("resume-timeout", 1u32);
    wait_until("the end of the stream", || {
        recorder.inspect(|seen| seen.has_happened("-src_0"))
    });
}

/// The reference keeps the shorter timeout and starts later: its end shows that the time is over.
#[test]
fn a_longer_resume_timeout_prolongs_the_wait() {
    let recorder = Recorder::start("resume-timeout=1000");
    let reference = Recorder::start("resume-timeout=1000");
    publish_and_disconnect(&recorder);
    recorder.element.set_property("resume-timeout", 600_000u32);
    publish_and_disconnect(&reference);
    wait_for_state(&reference, Disconnected);
    assert_eq!(state_of(&recorder.element).0, Recovering);
    let client = RawClient::publish(recorder.port(), "live", "key");
    unpublish(client);
    recorder.finish();
}

#[test]
fn a_shorter_timeout_disconnects_a_silent_publisher_at_once() {
    for before in [0, 600] {
        let recorder = Recorder::start(&format!("timeout={before} stall-timeout=0"));
        let signals = Signals::watch(&recorder.element);
        let mut client = stream_to(&recorder);
        recorder.element.set_property("timeout", 1u32);
        assert_closed_within(&mut client, AT_ONCE);
        assert_eq!(signals.names(2), ["added", "removed timeout"]);
    }
}

#[test]
fn a_shorter_stall_timeout_stalls_a_silent_publisher_at_once() {
    for before in [0, 600_000] {
        let properties = format!("stall-timeout={before} timeout=0");
        let (recorder, _client) = start_streaming(&properties);
        recorder.element.set_property("stall-timeout", 100u32);
        wait_for_state(&recorder, Recovering);
    }
}

#[test]
fn a_longer_stall_timeout_spares_a_silent_publisher() {
    let (recorder, _client) = start_streaming("stall-timeout=1000");
    recorder.element.set_property("stall-timeout", 600_000u32);
    let (reference, _other) = start_streaming("stall-timeout=1000");
    wait_for_state(&reference, Recovering);
    assert_eq!(state_of(&recorder.element).0, Streaming);
}

#[test]
fn a_shorter_drain_timeout_disconnects_publishers_at_once() {
    let recorder = Recorder::start("drain-timeout=600000 keep-listening=true");
    let signals = Signals::watch(&recorder.element);
    let mut client = stream_to(&recorder);
    recorder.element.set_property("drain", true);
    recorder.element.set_property("drain-timeout", 1u32);
    assert_closed_within(&mut client, AT_ONCE);
    assert_eq!(signals.names(2), ["added", "removed drained"]);

    let recorder = MultiRecorder::start("drain-timeout=600000");
    let _client = publisher(recorder.port(), "key");
    recorder.wait_for("+src_0");
    recorder.element.set_property("drain", true);
    recorder.element.set_property("drain-timeout", 1u32);
    wait_until("the end of the stream", || {
        recorder.inspect(|seen| seen.has_happened("-src_0"))
    });
}

// --- Starting ---

/// The port is announced in the middle of the start.
#[test]
fn settings_written_in_a_handler_during_the_start_take_effect() {
    let recorder = Recorder::start("");
    recorder.pipeline.set_state(gst::State::Null).unwrap();
    recorder
        .element
        .connect_notify(Some("current-port"), |element, _| {
            element.set_property("keep-listening", true);
        });
    recorder.pipeline.set_state(gst::State::Playing).unwrap();
    for _ in 0..2 {
        unpublish(RawClient::publish(recorder.port(), "live", "key"));
    }
}

#[test]
fn settings_written_by_another_thread_during_the_start_take_effect() {
    let recorder = Recorder::start("");
    for _ in 0..ROUNDS {
        recorder.pipeline.set_state(gst::State::Null).unwrap();
        recorder.element.set_property("keep-listening", false);
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let (element, start) = (recorder.element.clone(), barrier.clone());
        let writer = thread::spawn(move || {
            start.wait();
            element.set_property("keep-listening", true);
        });
        barrier.wait();
        recorder.pipeline.set_state(gst::State::Playing).unwrap();
        writer.join().unwrap();
        for _ in 0..2 {
            unpublish(RawClient::publish(recorder.port(), "live", "key"));
        }
    }
}
