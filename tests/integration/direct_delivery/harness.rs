// SPDX-License-Identifier: MPL-2.0

//! A source with a paced publisher, and a log of all that leaves, with the thread that pushed it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;

use support::PATIENCE;
use support::flv::{self, Tag};
use support::raw::{RawClient, send};
use support::recorder::Recorder;
use support::signals::Signals;
use support::synthetic::{audio_header, delta_frame, keyframe, video_header};

use super::PUBLISHER_THREAD;

/// Name of the events that tests send.
pub const CUSTOM: &str = "test-event";

/// Milliseconds between frames.
const STEP: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    Publisher,
    Streaming,
}

impl Runner {
    pub fn current() -> Self {
        match thread::current().name() {
            Some(PUBLISHER_THREAD) => Runner::Publisher,
            _ => Runner::Streaming,
        }
    }
}

/// One push.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `buffer`, or the name of an event.
    pub name: String,
    pub buffers: usize,
    pub runner: Runner,
}

impl Entry {
    pub fn is_output(&self) -> bool {
        self.buffers > 0
    }
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    log: Vec<Entry>,
    /// Called within the next push by the publisher's thread.
    hook: Option<Hook>,
    drops_after_hook: bool,
    failure: Option<(Runner, gst::FlowError, Sender<()>)>,
}

pub struct Delivery {
    pub recorder: Recorder,
    pub client: RawClient,
    pub sent: Vec<Tag>,
    /// Timestamp of the next frame, in milliseconds.
    pub time: u32,
    frames: u32,
    state: Arc<Mutex<State>>,
}

impl Delivery {
    /// Starts a source, and a publisher whose first frame has left.
    pub fn start(properties: &str) -> Self {
        let recorder = Recorder::start(properties);
        let state: Arc<Mutex<State>> = Arc::default();
        watch(&recorder.element.static_pad("src").unwrap(), &state);
        let client = RawClient::publish(recorder.port(), "live", "key");
        let mut test = Delivery {
            recorder,
            client,
            sent: Vec::new(),
            time: 0,
            frames: 0,
            state,
        };
        test.send(&[video_header(0), audio_header(0)]);
        test.pass_frame();
        test
    }

    pub fn pad(&self) -> gst::Pad {
        self.recorder.element.static_pad("src").unwrap()
    }

    pub fn log(&self) -> Vec<Entry> {
        self.state.lock().unwrap().log.clone()
    }

    pub fn send(&mut self, tags: &[Tag]) {
        send(&mut self.client, tags);
        self.sent.extend_from_slice(tags);
    }

    /// Makes the next frame a keyframe.
    pub fn start_group(&mut self) {
        self.frames = 0;
    }

    /// Returns the next frame, which the caller sends. Every tenth one is a keyframe.
    pub fn next_frame(&mut self) -> Tag {
        let frame = match self.frames % 10 {
            0 => keyframe(self.time, 1200),
            _ => delta_frame(self.time, 400),
        };
        self.frames += 1;
        self.time += STEP;
        frame
    }

    pub fn send_frame(&mut self) {
        let frame = self.next_frame();
        self.send(&[frame]);
    }

    /// Sends a frame, and waits until it has left.
    #[track_caller]
    pub fn pass_frame(&mut self) {
        self.send_frame();
        self.wait_for_last();
    }

    /// Waits until the last tag has left.
    #[track_caller]
    fn wait_for_last(&self) {
        let last = &self.sent.last().unwrap().body;
        self.recorder.wait_until("the last frame", |buffers| {
            let Some(buffer) = buffers.last() else {
                return false;
            };
            let map = buffer.map_readable().unwrap();
            map.windows(last.len()).any(|window| window == last)
        });
        let left = self.recorder.buffers().len();
        wait_until("the last frame is in the log", || {
            self.log().iter().map(|entry| entry.buffers).sum::<usize>() >= left
        });
    }

    #[track_caller]
    pub fn wait_for_all(&self) {
        self.wait_for_last();
        self.assert_complete();
    }

    /// Sends frames until the publisher's thread has delivered one.
    #[track_caller]
    pub fn deliver_directly(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.pass_frame();
            let last = self.log().into_iter().rfind(Entry::is_output);
            if last.is_some_and(|entry| entry.runner == Runner::Publisher) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the publisher's thread does not deliver"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Calls `hook` within the next push of the publisher's thread.
    pub fn on_push(&self, hook: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().hook = Some(Box::new(hook));
    }

    /// Drops the buffers of the push after its hook, which has flushed the segment before them.
    pub fn drop_push_after_hook(&self) {
        self.state.lock().unwrap().drops_after_hook = true;
    }

    /// Returns true until a push has called the hook.
    pub fn is_push_expected(&self) -> bool {
        self.state.lock().unwrap().hook.is_some()
    }

    /// Sends frames until a push of the publisher's thread blocks. It returns when the result is dropped.
    #[track_caller]
    pub fn block_push(&mut self) -> Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (enter, entered) = mpsc::channel();
        self.on_push(move || {
            enter.send(()).unwrap();
            let _ = released.recv_timeout(PATIENCE);
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send_frame();
            if entered.recv_timeout(Duration::from_millis(5)).is_ok() {
                return release;
            }
            assert!(
                Instant::now() < deadline,
                "the publisher's thread does not deliver"
            );
        }
    }

    /// Blocks the pad.
    pub fn block_pad(&self) -> gst::PadProbeId {
        let kinds =
            gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let probe = self.pad().add_probe(kinds, |_, _| gst::PadProbeReturn::Ok);
        probe.unwrap()
    }

    /// Makes pushes of a thread fail, and reports the first one.
    pub fn fail_push(&self, runner: Runner, error: gst::FlowError) -> Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        self.state.lock().unwrap().failure = Some((runner, error, sender));
        receiver
    }

    /// Ends the publisher and the stream. Returns all tags.
    #[track_caller]
    pub fn end(&mut self) -> Vec<Tag> {
        self.client.command(1, "closeStream", 0.0, &[Value::Null]);
        self.client.expect_command("onStatus");
        self.recorder.finish()
    }

    /// Ends the publisher, and asserts that all it has sent has left.
    #[track_caller]
    pub fn finish(&mut self) {
        self.end();
        self.assert_complete();
    }

    /// Asserts that all that was sent has left, in order and once.
    #[track_caller]
    pub fn assert_complete(&self) {
        flv::assert_same_media(&self.sent, &self.recorder.tags());
    }
}

fn watch(pad: &gst::Pad, state: &Arc<Mutex<State>>) {
    let kinds = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM
        | gst::PadProbeType::EVENT_FLUSH;
    let state = state.clone();
    pad.add_probe(kinds, move |_, info| {
        let runner = Runner::current();
        let (name, buffers) = match &info.data {
            Some(gst::PadProbeData::Buffer(_)) => ("buffer".to_owned(), 1),
            Some(gst::PadProbeData::BufferList(list)) => ("buffer".to_owned(), list.len()),
            Some(gst::PadProbeData::Event(event)) => (event_name(event), 0),
            _ => return gst::PadProbeReturn::Ok,
        };
        let entry = Entry {
            name,
            buffers,
            runner,
        };
        let mut locked = state.lock().unwrap();
        locked.log.push(entry);
        if buffers == 0 {
            return gst::PadProbeReturn::Ok;
        }
        if let Some((_, error, failed)) = locked.failure.as_ref().filter(|(of, ..)| *of == runner) {
            let _ = failed.send(());
            info.flow_res = Err(*error);
            return gst::PadProbeReturn::Handled;
        }
        let hook = match runner {
            Runner::Publisher => locked.hook.take(),
            Runner::Streaming => None,
        };
        let drops = hook.is_some() && std::mem::take(&mut locked.drops_after_hook);
        drop(locked);
        if let Some(hook) = hook {
            hook();
        }
        match drops {
            true => gst::PadProbeReturn::Drop,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

fn event_name(event: &gst::Event) -> String {
    match event.structure() {
        Some(structure) if event.type_() == gst::EventType::CustomDownstream => {
            structure.name().to_string()
        }
        Some(structure) if event.type_() == gst::EventType::CustomDownstreamSticky => {
            structure.name().to_string()
        }
        _ => event.type_().name().to_string(),
    }
}

/// A serialized event of the application.
pub fn custom_event(number: u32) -> gst::Event {
    let structure = gst::Structure::builder(CUSTOM)
        .field("number", number)
        .build();
    gst::event::CustomDownstream::new(structure)
}

/// Waits until the server has handled all that was sent before.
#[track_caller]
pub fn synchronise(client: &mut RawClient) {
    const TRANSACTION: f64 = 99.0;
    client.command(0, "createStream", TRANSACTION, &[Value::Null]);
    while client.expect_command("_result").transaction_id != TRANSACTION {}
}

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the publisher is removed, and returns the reason.
#[track_caller]
pub fn wait_for_removal(signals: &Signals) -> String {
    let mut count = 1;
    loop {
        let all = signals.wait_for(count);
        if let Some(removal) = all.iter().find(|s| s.name == "publisher-removed") {
            return removal.reason.clone();
        }
        count = all.len() + 1;
    }
}

pub fn coded(tags: &[Tag]) -> Vec<Tag> {
    tags.iter().filter(|tag| tag.is_coded()).cloned().collect()
}

pub fn bodies(tags: &[Tag]) -> Vec<Vec<u8>> {
    tags.iter().map(|tag| tag.body.clone()).collect()
}

/// Asserts that all of `got` was sent, in this order, and comes once.
#[track_caller]
pub fn assert_in_order(sent: &[Tag], got: &[Tag]) {
    let mut rest = sent.iter();
    for tag in got {
        assert!(
            rest.any(|sent| sent.body == tag.body),
            "{tag:?} was not sent, or has left before"
        );
    }
}
