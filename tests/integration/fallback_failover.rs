// SPDX-License-Identifier: MPL-2.0

//! Twenty rounds of faults of two nginx servers that receive a live stream, in an order and at
//! moments that a seed determines. Nothing waits for a fixed time: each step follows a number of
//! buffers pushed into the sink, a status posted, or an amount recorded by a server.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::FallbackStatus;

use support::clients::{FFMPEG, ffmpeg};
use support::flv::{self, Tag};
use support::nginx::Nginx;
use support::{PATIENCE, init};

const SEED: u64 = 20_261_121;

/// Rounds of each fault.
const ROUNDS: usize = 4;

/// Bytes recorded after which a server counts as receiving the stream.
const ENOUGH: u64 = 200_000;

/// Longest time for a chain call on a busy machine. Any wait for a server would take much longer
/// than `MAX_USUAL_CHAIN`, the limit for 99 % of the calls.
const MAX_CHAIN: Duration = Duration::from_secs(1);
const MAX_USUAL_CHAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
enum Fault {
    FirstKilled,
    BothKilled,
    /// The server stays connected and stops reading.
    FirstStopsReading,
    /// The server returns and rejects publishers with this key.
    FirstRejects,
    /// The server is replaced by one that accepts connections and never answers.
    FirstSilent,
}

const FAULTS: [Fault; 5] = [
    Fault::FirstKilled,
    Fault::BothKilled,
    Fault::FirstStopsReading,
    Fault::FirstRejects,
    Fault::FirstSilent,
];

#[derive(Debug, Clone)]
struct PostedStatus {
    status: FallbackStatus,
    location: i32,
    error: String,
}

#[derive(Default)]
struct Observed {
    /// Duration of each chain call.
    chains: Vec<Duration>,
    statuses: Vec<PostedStatus>,
    errors: Vec<String>,
}

type SharedObserved = Arc<(Mutex<Observed>, Condvar)>;

/// A camera whose stream is pushed into the sink.
struct LivePipelines {
    source: gst::Pipeline,
    sink: gst::Pipeline,
    element: gst::Element,
    observed: SharedObserved,
}

impl LivePipelines {
    fn start(locations: &[String]) -> Self {
        init();
        let text = "rtmp2fallbacksink name=sink sync=false async=false timeout=1500 \
                    retry-initial-delay=50 retry-max-delay=400 max-attempts=0 return-to-primary=200";
        let element = gst::parse::launch(text).unwrap();
        element.set_property("locations", locations.to_vec());
        let sink = gst::Pipeline::new();
        sink.add(&element).unwrap();
        let observed = SharedObserved::default();
        let handler_observed = observed.clone();
        sink.bus().unwrap().set_sync_handler(move |_, message| {
            record(&handler_observed, message);
            gst::BusSyncReply::Drop
        });
        // A pad without an element: the time of a push is the time that the sink takes.
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .build();
        pad.set_active(true).unwrap();
        pad.link(&element.static_pad("sink").unwrap()).unwrap();
        sink.set_state(gst::State::Playing).unwrap();
        let source = camera();
        let output = source.by_name("output").unwrap().static_pad("sink");
        let pad_observed = observed.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        output.unwrap().add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Event(event)) => {
                    pad.push_event(event.clone());
                }
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let start = Instant::now();
                    let flow = pad.push(buffer.clone());
                    let mut observed = pad_observed.0.lock().unwrap();
                    observed.chains.push(start.elapsed());
                    if let Err(error) = flow {
                        observed.errors.push(error.to_string());
                    }
                    pad_observed.1.notify_all();
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        source.set_state(gst::State::Playing).unwrap();
        LivePipelines {
            source,
            sink,
            element,
            observed,
        }
    }

    /// Waits for a condition, which is checked after each buffer and message.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Observed) -> Option<T>) -> T {
        let start = Instant::now();
        let mut observed = self.observed.0.lock().unwrap();
        loop {
            if let Some(found) = found(&observed) {
                return found;
            }
            assert!(observed.errors.is_empty(), "{:?}", observed.errors);
            let (guard, timeout) = self.observed.1.wait_timeout(observed, PATIENCE).unwrap();
            observed = guard;
            let is_late = timeout.timed_out() || start.elapsed() > PATIENCE;
            let last: Vec<_> = observed.statuses.iter().rev().take(12).collect();
            assert!(!is_late, "no {what}: {last:?}");
        }
    }

    #[track_caller]
    fn wait_for_buffers(&self, count: usize) {
        let before = self.observed.0.lock().unwrap().chains.len();
        let more = |observed: &Observed| (observed.chains.len() >= before + count).then_some(());
        self.wait("buffers", more);
    }

    /// Waits until a server records the stream.
    #[track_caller]
    fn wait_until_recorded(&self, location: i32, server: &Nginx) {
        let what = format!("stream at {location}");
        let mut before = None;
        self.wait(&what, |observed| {
            let last = observed.statuses.last()?;
            if (last.status, last.location) != (FallbackStatus::Connected, location) {
                before = None;
                return None;
            }
            let now = server.recorded();
            let before = *before.get_or_insert(now);
            (now > before + ENOUGH).then_some(())
        });
    }

    /// Returns the statuses posted after the first `count`.
    fn statuses_since(&self, count: usize) -> Vec<PostedStatus> {
        self.observed.0.lock().unwrap().statuses[count..].to_vec()
    }

    fn status_count(&self) -> usize {
        self.observed.0.lock().unwrap().statuses.len()
    }

    fn count(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.element.property("stats");
        stats.get::<u64>(name).unwrap()
    }
}

impl Drop for LivePipelines {
    fn drop(&mut self) {
        let _ = self.sink.set_state(gst::State::Null);
        let _ = self.source.set_state(gst::State::Null);
    }
}

/// Simple pictures with so much filler that the kernel's buffers are full after a second or two.
fn camera() -> gst::Pipeline {
    let text = "flvmux name=m streamable=true ! fakesink name=output sync=false async=false \
         videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=16000 \
           option-string=nal-hrd=cbr:filler=1 ! h264parse ! queue ! m. \
         audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! queue ! m.";
    gst::parse::launch(text).unwrap().downcast().unwrap()
}

fn record(observed: &SharedObserved, message: &gst::Message) {
    let mut guard = observed.0.lock().unwrap();
    match message.view() {
        gst::MessageView::Error(error) => guard.errors.push(error.to_string()),
        gst::MessageView::Element(element) => {
            let structure = element.structure().unwrap();
            if structure.name() != "rtmp2-fallback-status" {
                return;
            }
            guard.statuses.push(PostedStatus {
                status: structure.get("status").unwrap(),
                location: structure.get("location-index").unwrap(),
                error: structure.get("last-error").unwrap(),
            });
        }
        _ => return,
    }
    drop(guard);
    observed.1.notify_all();
}

/// An HTTP server that answers nginx's publish callback with 403.
struct DenyingHook {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DenyingHook {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_over = Arc::new(AtomicBool::new(false));
        let end = is_over.clone();
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
                let _ = client.unwrap().write_all(answer.as_bytes());
            }
        });
        DenyingHook {
            port,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for DenyingHook {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Scenario {
    live: LivePipelines,
    first: Nginx,
    second: Nginx,
    denying_hook: DenyingHook,
    random: fastrand::Rng,
}

impl Scenario {
    fn round(&mut self, number: usize, fault: Fault) {
        for nginx in [&self.first, &self.second] {
            nginx.put_aside(&format!("{number:02}"));
        }
        self.live.wait_until_recorded(0, &self.first);
        // The position in the group of pictures is random.
        self.live.wait_for_buffers(self.random.usize(1..40));
        let before = self.live.status_count();
        match fault {
            Fault::FirstKilled => {
                self.first.kill();
                self.live.wait_until_recorded(1, &self.second);
                assert_is_next_at_once(&self.live.statuses_since(before));
                self.first.start();
            }
            Fault::BothKilled => self.kill_both(),
            Fault::FirstStopsReading => {
                self.first.freeze();
                self.live.wait_until_recorded(1, &self.second);
                let statuses = self.live.statuses_since(before);
                assert_is_next_at_once(&statuses);
                assert!(
                    statuses[0].error.contains("accepted no data"),
                    "{statuses:?}"
                );
                self.first.thaw();
            }
            Fault::FirstRejects => self.reject_at_first(),
            Fault::FirstSilent => {
                self.first.kill();
                let silent = TcpListener::bind(("127.0.0.1", self.first.port));
                let silent = silent.expect("the port is free");
                self.live.wait_until_recorded(1, &self.second);
                self.stays_at_second("accepted no data");
                drop(silent);
                self.first.start();
            }
        }
        self.live.wait_until_recorded(0, &self.first);
    }

    fn kill_both(&mut self) {
        let before = self.live.status_count();
        let mut all = [&mut self.first, &mut self.second];
        self.random.shuffle(&mut all);
        all.into_iter().for_each(Nginx::kill);
        let is_disconnected = |observed: &Observed| {
            let mut statuses = observed.statuses[before..].iter();
            statuses
                .any(|posted| posted.status == FallbackStatus::Disconnected)
                .then_some(())
        };
        self.live.wait("outage", is_disconnected);
        let dropped = self.live.count("tags-dropped");
        // Three groups of pictures, of which only the last can be kept.
        self.live.wait_for_buffers(100);
        assert!(self.live.count("tags-dropped") > dropped);
        if self.random.bool() {
            self.second.start();
            self.live.wait_until_recorded(1, &self.second);
            self.first.start();
        } else {
            self.first.start();
            self.live.wait_until_recorded(0, &self.first);
            self.second.start();
        }
    }

    fn reject_at_first(&mut self) {
        self.first.kill();
        let port = self.denying_hook.port;
        let refusing = [
            "application other { live on; }".to_owned(),
            Nginx::recording("deny publish all;"),
            Nginx::recording(&format!("on_publish http://127.0.0.1:{port}/;")),
        ];
        self.first
            .configure(&refusing[self.random.usize(..refusing.len())]);
        self.first.start();
        self.live.wait_until_recorded(1, &self.second);
        self.stays_at_second("");
        self.first.kill();
        self.first.configure(&Nginx::recording(""));
        self.first.start();
    }

    /// Asserts that the stream stays where it is while the first server is tried and does not
    /// accept it.
    fn stays_at_second(&self, reason: &str) {
        let before = self.live.status_count();
        let attempts = self.live.count("attempts");
        let is_tried = |_: &Observed| (self.live.count("attempts") >= attempts + 2).then_some(());
        self.live.wait("attempts at the first one", is_tried);
        let stats: gst::Structure = self.live.element.property("stats");
        let error = stats.get::<String>("last-error").unwrap();
        assert!(error.contains(reason), "{error}");
        let statuses = self.live.statuses_since(before);
        assert!(
            statuses.iter().all(|posted| posted.location != 0),
            "{statuses:?}"
        );
    }
}

/// Asserts that the second server is tried as soon as the first one is lost.
fn assert_is_next_at_once(statuses: &[PostedStatus]) {
    let next = statuses
        .first()
        .map(|posted| (posted.status, posted.location));
    assert_eq!(next, Some((FallbackStatus::Connecting, 1)), "{statuses:?}");
}

/// Asserts that each status may follow the one before it, and none is repeated.
fn check_statuses(statuses: &[PostedStatus]) {
    use FallbackStatus::{Connected, Connecting, Disconnected};
    let mut before = (Disconnected, -1);
    for posted in statuses {
        let now = (posted.status, posted.location);
        let follows = matches!(
            (before, now),
            ((Disconnected, -1), (Connecting, 0))
                | ((Connecting, 0), (Connected, 0) | (Connecting, 1))
                | ((Connecting, 1), (Connected, 1) | (Disconnected, -1))
                | ((Connected, 0), (Connecting, 1) | (Disconnected, -1))
                // An attempt to return to the first server may be under way.
                | ((Connected, 1), (Connected, 0) | (Connecting, 0) | (Disconnected, -1))
        );
        assert!(follows, "{before:?}, {posted:?}");
        before = now;
    }
}

/// Asserts that upstream was never blocked.
fn check_flow(live: &LivePipelines) {
    let observed = live.observed.0.lock().unwrap();
    let mut chains = observed.chains.clone();
    chains.sort();
    let longest = *chains.last().unwrap();
    let usual = chains[chains.len() * 99 / 100];
    println!(
        "{} buffers, pushed within {longest:?}, 99 % within {usual:?}",
        chains.len()
    );
    assert!(longest < MAX_CHAIN && usual < MAX_USUAL_CHAIN);
}

/// Returns the complete tags: the last one may have been cut by the kill.
fn complete_tags(bytes: &[u8]) -> &[u8] {
    let mut end = 13;
    while let Some(front) = bytes.get(end..end + 11) {
        let length = u32::from_be_bytes([0, front[1], front[2], front[3]]) as usize;
        if bytes.len() < end + length + 15 {
            break;
        }
        end += length + 15;
    }
    &bytes[..end.min(bytes.len())]
}

/// Asserts that a recording can be decoded. Returns the number of its frames.
fn check_recording(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let bytes = complete_tags(&bytes);
    let tags = flv::parse(bytes).unwrap_or_default();
    let Some(first) = tags.iter().position(Tag::is_coded) else {
        return 0;
    };
    let name = path.display();
    let is_header = |kind: u8| {
        let before = tags[..first].iter();
        before
            .clone()
            .any(|tag| tag.kind == kind && tag.is_sequence_header())
    };
    let start = &tags[..tags.len().min(first + 5)];
    // nginx does not record metadata.
    assert!(
        is_header(flv::VIDEO) && is_header(flv::AUDIO),
        "{name}: {start:?}"
    );
    let frames: Vec<_> = tags
        .iter()
        .filter(|t| t.is_frame() && t.is_coded())
        .collect();
    assert!(frames.is_empty() || frames[0].body[0] == 0x17, "{name}");
    std::fs::write(path, bytes).unwrap();
    // Everything is decoded. flvmux sometimes gives two audio tags the same time, which "-f null"
    // rejects.
    let output = ffmpeg(FFMPEG, &format!("-xerror -i {name} -f md5 -")).wait();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{name}: {errors}"
    );
    frames.len()
}

#[test]
fn twenty_faults_leave_the_stream_decodable_and_upstream_unblocked() {
    let (first, second) = (Nginx::recorder(), Nginx::recorder());
    let locations = [first.url("key"), second.url("key")];
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut faults = FAULTS.repeat(ROUNDS);
    random.shuffle(&mut faults);
    let mut test = Scenario {
        live: LivePipelines::start(&locations),
        first,
        second,
        denying_hook: DenyingHook::new(),
        random,
    };
    for (number, fault) in faults.into_iter().enumerate() {
        let start = Instant::now();
        test.round(number, fault);
        println!("{number}: {fault:?}, {:?}", start.elapsed());
    }
    let Scenario {
        live,
        first,
        second,
        ..
    } = test;
    check_flow(&live);
    live.source.set_state(gst::State::Null).unwrap();
    let (sent, dropped) = (live.count("tags-sent"), live.count("tags-dropped"));
    println!("{sent} sent, {dropped} dropped");
    live.sink.set_state(gst::State::Null).unwrap();
    check_statuses(&live.observed.0.lock().unwrap().statuses);
    let recordings = [first.recordings(), second.recordings()];
    let frames: Vec<usize> = recordings
        .iter()
        .map(|paths| paths.iter().map(|path| check_recording(path)).sum())
        .collect();
    println!("{frames:?} frames");
    assert!(frames.iter().all(|frames| *frames > 20 * ROUNDS));
}
