// SPDX-License-Identifier: MPL-2.0

//! Twenty rounds of faults of two nginx servers that a live stream is sent to, in an order and at
//! moments that a seed gives. Nothing waits for a time: each step is taken when so much of the stream has
//! gone into the sink, when a status was told, or when a server has recorded so much.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::FallbackStatus as Status;

use support::clients::{FFMPEG, ffmpeg};
use support::flv::{self, Tag};
use support::nginx::Nginx;
use support::{PATIENCE, init};

const SEED: u64 = 20_261_121;

/// Of each fault.
const ROUNDS: usize = 4;

/// What must be recorded for a server to have the stream.
const ENOUGH: u64 = 200_000;

/// No chain call may take longer. Any wait for a server would take much longer than the second, which is
/// what a machine may be busy with something else.
const MAX_CHAIN: Duration = Duration::from_secs(1);
const MAX_USUAL_CHAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
enum Fault {
    FirstIsKilled,
    BothAreKilled,
    /// It stays connected, and reads nothing more.
    FirstStopsReading,
    /// It comes back and takes no publisher with this key.
    FirstRefuses,
    /// In its place there is one that accepts connections, and that is all.
    FirstIsSilent,
}

const FAULTS: [Fault; 5] = [
    Fault::FirstIsKilled,
    Fault::BothAreKilled,
    Fault::FirstStopsReading,
    Fault::FirstRefuses,
    Fault::FirstIsSilent,
];

#[derive(Debug, Clone)]
struct Told {
    status: Status,
    location: i32,
    error: String,
}

#[derive(Default)]
struct Seen {
    /// How long each buffer took to be taken.
    chains: Vec<Duration>,
    told: Vec<Told>,
    errors: Vec<String>,
}

type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// A camera, whose stream goes into the sink.
struct Live {
    source: gst::Pipeline,
    sink: gst::Pipeline,
    element: gst::Element,
    seen: Shared,
}

impl Live {
    fn start(locations: &[String]) -> Self {
        init();
        let text = "rtmp2fallbacksink name=sink sync=false async=false timeout=1500 \
                    retry-initial-delay=50 retry-max-delay=400 max-attempts=0 return-to-primary=200";
        let element = gst::parse::launch(text).unwrap();
        element.set_property("locations", gst::Array::new(locations));
        let sink = gst::Pipeline::new();
        sink.add(&element).unwrap();
        let seen = Shared::default();
        let kept = seen.clone();
        sink.bus().unwrap().set_sync_handler(move |_, message| {
            note(&kept, message);
            gst::BusSyncReply::Drop
        });
        // A pad of no element: how long it takes to push into it is how long the sink takes.
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .build();
        pad.set_active(true).unwrap();
        pad.link(&element.static_pad("sink").unwrap()).unwrap();
        sink.set_state(gst::State::Playing).unwrap();
        let source = camera();
        let output = source.by_name("output").unwrap().static_pad("sink");
        let kept = seen.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        output.unwrap().add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Event(event)) => {
                    pad.push_event(event.clone());
                }
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let start = Instant::now();
                    let flow = pad.push(buffer.clone());
                    let mut seen = kept.0.lock().unwrap();
                    seen.chains.push(start.elapsed());
                    if let Err(error) = flow {
                        seen.errors.push(error.to_string());
                    }
                    kept.1.notify_all();
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        source.set_state(gst::State::Playing).unwrap();
        Live {
            source,
            sink,
            element,
            seen,
        }
    }

    /// Waits for something, and looks whenever a buffer or a message has come.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let start = Instant::now();
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            if let Some(found) = found(&seen) {
                return found;
            }
            assert!(seen.errors.is_empty(), "{:?}", seen.errors);
            let (guard, timeout) = self.seen.1.wait_timeout(seen, PATIENCE).unwrap();
            seen = guard;
            let is_late = timeout.timed_out() || start.elapsed() > PATIENCE;
            let last: Vec<_> = seen.told.iter().rev().take(12).collect();
            assert!(!is_late, "no {what}: {last:?}");
        }
    }

    #[track_caller]
    fn wait_for_buffers(&self, count: usize) {
        let before = self.seen.0.lock().unwrap().chains.len();
        let more = |seen: &Seen| (seen.chains.len() >= before + count).then_some(());
        self.wait("buffers", more);
    }

    /// Waits until one server has the stream, which is when it records it.
    #[track_caller]
    fn wait_until_recorded(&self, location: i32, server: &Nginx) {
        let what = format!("stream at {location}");
        let mut before = None;
        self.wait(&what, |seen| {
            let last = seen.told.last()?;
            if (last.status, last.location) != (Status::Connected, location) {
                before = None;
                return None;
            }
            let now = server.recorded();
            let before = *before.get_or_insert(now);
            (now > before + ENOUGH).then_some(())
        });
    }

    /// What was told after so much.
    fn told_since(&self, count: usize) -> Vec<Told> {
        self.seen.0.lock().unwrap().told[count..].to_vec()
    }

    fn told_count(&self) -> usize {
        self.seen.0.lock().unwrap().told.len()
    }

    fn count(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.element.property("stats");
        stats.get::<u64>(name).unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.sink.set_state(gst::State::Null);
        let _ = self.source.set_state(gst::State::Null);
    }
}

/// Simple pictures with so much filler that the buffers of the kernel are full after a second or two.
fn camera() -> gst::Pipeline {
    let text = "flvmux name=m streamable=true ! fakesink name=output sync=false async=false \
         videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=16000 \
           option-string=nal-hrd=cbr:filler=1 ! h264parse ! queue ! m. \
         audiotestsrc is-live=true ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! queue ! m.";
    gst::parse::launch(text).unwrap().downcast().unwrap()
}

fn note(seen: &Shared, message: &gst::Message) {
    let mut guard = seen.0.lock().unwrap();
    match message.view() {
        gst::MessageView::Error(error) => guard.errors.push(error.to_string()),
        gst::MessageView::Element(element) => {
            let structure = element.structure().unwrap();
            guard.told.push(Told {
                status: structure.get("status").unwrap(),
                location: structure.get("location-index").unwrap(),
                error: structure.get("last-error").unwrap(),
            });
        }
        _ => return,
    }
    drop(guard);
    seen.1.notify_all();
}

/// Asked by nginx whether somebody may publish, it says no.
struct Denier {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Denier {
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
        Denier {
            port,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Denier {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Test {
    live: Live,
    first: Nginx,
    second: Nginx,
    denier: Denier,
    random: fastrand::Rng,
}

impl Test {
    fn round(&mut self, number: usize, fault: Fault) {
        for nginx in [&self.first, &self.second] {
            nginx.put_aside(&format!("{number:02}"));
        }
        self.live.wait_until_recorded(0, &self.first);
        // Where in a group of pictures it happens is up to chance.
        self.live.wait_for_buffers(self.random.usize(1..40));
        let before = self.live.told_count();
        match fault {
            Fault::FirstIsKilled => {
                self.first.kill();
                self.live.wait_until_recorded(1, &self.second);
                assert_is_next_at_once(&self.live.told_since(before));
                self.first.start();
            }
            Fault::BothAreKilled => self.both_are_killed(),
            Fault::FirstStopsReading => {
                self.first.freeze();
                self.live.wait_until_recorded(1, &self.second);
                let told = self.live.told_since(before);
                assert_is_next_at_once(&told);
                assert!(told[0].error.contains("took nothing"), "{told:?}");
                self.first.thaw();
            }
            Fault::FirstRefuses => self.first_refuses(),
            Fault::FirstIsSilent => {
                self.first.kill();
                let silent = TcpListener::bind(("127.0.0.1", self.first.port));
                let silent = silent.expect("nobody else has the port");
                self.live.wait_until_recorded(1, &self.second);
                self.stays_at_second("took nothing");
                drop(silent);
                self.first.start();
            }
        }
        self.live.wait_until_recorded(0, &self.first);
    }

    fn both_are_killed(&mut self) {
        let before = self.live.told_count();
        let mut all = [&mut self.first, &mut self.second];
        self.random.shuffle(&mut all);
        all.into_iter().for_each(Nginx::kill);
        let is_told = |seen: &Seen| {
            let mut told = seen.told[before..].iter();
            told.any(|told| told.status == Status::Disconnected)
                .then_some(())
        };
        self.live.wait("outage", is_told);
        let dropped = self.live.count("tags-dropped");
        // Three groups of pictures, of which only the last can be held.
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

    fn first_refuses(&mut self) {
        self.first.kill();
        let port = self.denier.port;
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

    /// While the first one is tried, and does not take it, the stream stays where it is.
    fn stays_at_second(&self, reason: &str) {
        let before = self.live.told_count();
        let attempts = self.live.count("attempts");
        let is_tried = |_: &Seen| (self.live.count("attempts") >= attempts + 2).then_some(());
        self.live.wait("attempts at the first one", is_tried);
        let stats: gst::Structure = self.live.element.property("stats");
        let error = stats.get::<String>("last-error").unwrap();
        assert!(error.contains(reason), "{error}");
        let told = self.live.told_since(before);
        assert!(told.iter().all(|told| told.location != 0), "{told:?}");
    }
}

/// The second one is tried as soon as the first one is lost.
fn assert_is_next_at_once(told: &[Told]) {
    let next = told.first().map(|told| (told.status, told.location));
    assert_eq!(next, Some((Status::Connecting, 1)), "{told:?}");
}

/// Each status follows from the one before it, and none comes twice.
fn check_statuses(told: &[Told]) {
    use Status::{Connected, Connecting, Disconnected};
    let mut before = (Disconnected, -1);
    for told in told {
        let now = (told.status, told.location);
        let follows = matches!(
            (before, now),
            ((Disconnected, -1), (Connecting, 0))
                | ((Connecting, 0), (Connected, 0) | (Connecting, 1))
                | ((Connecting, 1), (Connected, 1) | (Disconnected, -1))
                | ((Connected, 0), (Connecting, 1) | (Disconnected, -1))
                // The first one may be on its way to take over.
                | ((Connected, 1), (Connected, 0) | (Connecting, 0) | (Disconnected, -1))
        );
        assert!(follows, "{before:?}, {told:?}");
        before = now;
    }
}

/// Upstream was never held up.
fn check_flow(live: &Live) {
    let seen = live.seen.0.lock().unwrap();
    let mut chains = seen.chains.clone();
    chains.sort();
    let longest = *chains.last().unwrap();
    let usual = chains[chains.len() * 99 / 100];
    println!(
        "{} buffers, taken within {longest:?}, 99 % within {usual:?}",
        chains.len()
    );
    assert!(longest < MAX_CHAIN && usual < MAX_USUAL_CHAIN);
}

/// Without the tag that was being written when its writer was killed.
fn whole_tags(bytes: &[u8]) -> &[u8] {
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

/// Gives how many frames are in it.
fn check_recording(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let bytes = whole_tags(&bytes);
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
    // All is decoded. flvmux gives two tags of sound one time now and then, which "-f null" minds.
    let output = ffmpeg(FFMPEG, &format!("-xerror -i {name} -f md5 -")).wait();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{name}: {errors}"
    );
    frames.len()
}

#[test]
fn twenty_rounds() {
    let (first, second) = (Nginx::recorder(), Nginx::recorder());
    let locations = [first.url("key"), second.url("key")];
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut faults = FAULTS.repeat(ROUNDS);
    random.shuffle(&mut faults);
    let mut test = Test {
        live: Live::start(&locations),
        first,
        second,
        denier: Denier::new(),
        random,
    };
    for (number, fault) in faults.into_iter().enumerate() {
        let start = Instant::now();
        test.round(number, fault);
        println!("{number}: {fault:?}, {:?}", start.elapsed());
    }
    let Test {
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
    check_statuses(&live.seen.0.lock().unwrap().told);
    let recordings = [first.recordings(), second.recordings()];
    let frames: Vec<usize> = recordings
        .iter()
        .map(|paths| paths.iter().map(|path| check_recording(path)).sum())
        .collect();
    println!("{frames:?} frames");
    assert!(frames.iter().all(|frames| *frames > 20 * ROUNDS));
}
