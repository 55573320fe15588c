// SPDX-License-Identifier: MPL-2.0

//! Sending on to the first of several servers that takes the stream.

use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::{ConnectionState, FallbackStatus as Status};

use support::clients::Running;
use support::flv::Tag;
use support::gate::Gate;
use support::nginx::Nginx;
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, metadata, video_header};
use support::{PATIENCE, init};

pub const KEY: &str = "secret-key";
const GOP: u32 = 10;
const FRAME_STEP: u32 = 40;

/// Of the first frame.
const START: u32 = 90_000;

type Messages = Arc<(Mutex<Vec<gst::Message>>, Condvar)>;

/// A pipeline that sends what a test gives it.
pub struct Source {
    pub pipeline: gst::Pipeline,
    appsrc: gst::Element,
    pub sink: gst::Element,
    messages: Messages,
    /// All that was given to it, and how many frames of it.
    pub sent: Vec<Tag>,
    frames: u32,
    pub frame_bytes: usize,
}

impl Source {
    fn new(locations: &[String], properties: &[(&str, u32)]) -> Self {
        init();
        // It takes nothing in as long as downstream does not.
        let text = "appsrc name=src block=true max-bytes=1 max-buffers=1 max-time=0 format=time \
                    caps=video/x-flv ! rtmp2fallbacksink name=sink sync=false async=false";
        let pipeline = gst::parse::launch(text).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        sink.set_property("locations", gst::Array::new(locations));
        for (name, value) in properties {
            sink.set_property(name, *value);
        }
        let messages = Messages::default();
        let kept = messages.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if let Ok(mut messages) = kept.0.lock() {
                messages.push(message.clone());
            }
            kept.1.notify_all();
            gst::BusSyncReply::Drop
        });
        Source {
            appsrc: pipeline.by_name("src").unwrap(),
            pipeline,
            sink,
            messages,
            sent: Vec::new(),
            frames: 0,
            frame_bytes: 300,
        }
    }

    pub fn start(locations: &[String], properties: &[(&str, u32)]) -> Self {
        let source = Source::new(locations, properties);
        source.pipeline.set_state(gst::State::Playing).unwrap();
        source
    }

    /// The first message that satisfies a condition, also one that has come already.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&gst::Message) -> Option<T>) -> T {
        let (messages, more) = &*self.messages;
        let mut messages = messages.lock().unwrap();
        loop {
            if let Some(found) = messages.iter().find_map(&mut found) {
                return found;
            }
            let (guard, timeout) = more.wait_timeout(messages, PATIENCE).unwrap();
            messages = guard;
            assert!(!timeout.timed_out(), "no {what}: {messages:?}");
        }
    }

    /// Waits until the status was told so often, each time with a location, or -1.
    #[track_caller]
    pub fn wait_for_status(&self, status: Status, location: i32, count: usize) {
        let what = format!("{status:?} {location} for the {count}. time");
        let (messages, more) = &*self.messages;
        let told = |messages: &[gst::Message]| {
            let statuses = messages.iter().filter_map(status_of);
            statuses.filter(|told| *told == (status, location)).count()
        };
        let messages = messages.lock().unwrap();
        let waited = more.wait_timeout_while(messages, PATIENCE, |all| told(all) < count);
        let (messages, timeout) = waited.unwrap();
        let all: Vec<_> = messages.iter().filter_map(status_of).collect();
        assert!(!timeout.timed_out(), "no {what}: {all:?}");
    }

    fn push(&mut self, tag: Tag) {
        let buffer = gst::Buffer::from_mut_slice(framed(&tag));
        let flow = self
            .appsrc
            .emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        self.sent.push(tag);
    }

    pub fn push_headers(&mut self) {
        for tag in [metadata(0), video_header(0), audio_header(0)] {
            self.push(tag);
        }
    }

    /// Sends frames at the pace of the servers until there is such a status for so many times.
    pub fn push_until_connected(&mut self, location: i32, count: usize) {
        let wanted = (Status::Connected, location);
        loop {
            let (messages, more) = &*self.messages;
            let messages = messages.lock().unwrap();
            let statuses: Vec<_> = messages.iter().filter_map(status_of).collect();
            if statuses.iter().filter(|told| **told == wanted).count() >= count {
                return;
            }
            if statuses
                .last()
                .is_some_and(|(s, _)| *s == Status::Connected)
            {
                drop(messages);
                self.push_paced();
                continue;
            }
            let seen = messages.len();
            let waited = more.wait_timeout_while(messages, PATIENCE, |all| all.len() == seen);
            assert!(!waited.unwrap().1.timed_out(), "{statuses:?}");
        }
    }

    /// Sends frames at the pace of the server for as long as there is one.
    pub fn push_while_connected(&mut self) {
        while self.sink.property::<Status>("status") == Status::Connected {
            self.push_paced();
        }
    }

    /// One frame, and waits until it was sent or dropped.
    fn push_paced(&mut self) {
        self.push_frames(1);
        while self.count("current-level-bytes") > 0
            && self.sink.property::<Status>("status") == Status::Connected
        {
            std::thread::yield_now();
        }
    }

    /// Frames with audio between them, each tenth a keyframe.
    pub fn push_frames(&mut self, count: u32) {
        for _ in 0..count {
            let time = START + self.frames * FRAME_STEP;
            let length = self.frame_bytes + self.frames as usize;
            self.push(if self.frames.is_multiple_of(GOP) {
                keyframe(time, length)
            } else {
                delta_frame(time, length)
            });
            self.push(audio(time + 7, 40));
            self.frames += 1;
        }
    }

    pub fn end(&self) {
        let flow = self
            .appsrc
            .emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        let is_eos = |m: &gst::Message| (m.type_() == gst::MessageType::Eos).then_some(());
        self.wait_for("EOS", is_eos);
    }

    pub fn count(&self, name: &str) -> u64 {
        let stats: gst::Structure = self.sink.property("stats");
        stats.get::<u64>(name).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn last_error(&self) -> String {
        let stats: gst::Structure = self.sink.property("stats");
        stats.get("last-error").unwrap()
    }

    /// No message of this element says the stream key.
    fn assert_discreet(&self) {
        for message in self.messages.0.lock().unwrap().iter() {
            let text = format!("{:?}", message.structure());
            assert!(!text.contains(KEY), "{text}");
        }
        let stats = format!("{:?}", self.sink.property::<gst::Structure>("stats"));
        assert!(!stats.contains(KEY), "{stats}");
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let stats = self.sink.property::<gst::Structure>("stats");
            eprintln!("{stats}");
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        // Messages hold the elements that they are from.
        self.pipeline.bus().unwrap().unset_sync_handler();
    }
}

fn status_of(message: &gst::Message) -> Option<(Status, i32)> {
    let structure = message.structure()?;
    (structure.name() == "rtmp2-fallback-status").then(|| {
        let status = structure.get::<Status>("status").unwrap();
        (status, structure.get::<i32>("location-index").unwrap())
    })
}

/// A tag with the frame around it.
fn framed(tag: &Tag) -> Vec<u8> {
    let length = (tag.body.len() as u32).to_be_bytes();
    let [high, a, b, c] = tag.timestamp.to_be_bytes();
    let mut bytes = vec![
        tag.kind, length[1], length[2], length[3], a, b, c, high, 0, 0, 0,
    ];
    bytes.extend(&tag.body);
    bytes.extend((tag.body.len() as u32 + 11).to_be_bytes());
    bytes
}

/// A server that keeps what it gets, with a gate before it.
pub fn server() -> (Gate, Recorder) {
    let properties =
        "keep-listening=true timestamp-mode=publisher publisher-policy=replace application=live";
    let recorder = Recorder::start(&format!("{properties} stream-key={KEY}"));
    let gate = Gate::before(recorder.port());
    (gate, recorder)
}

pub fn url(gate: &Gate) -> String {
    gate.url(&format!("live/{KEY}"))
}

/// Waits until the server has this tag, and gives all that it has.
#[track_caller]
pub fn received(recorder: &Recorder, last: &Tag) -> Vec<Tag> {
    let body = &last.body[..];
    recorder.wait_until("the last tag", |buffers| {
        let has =
            |b: &gst::Buffer| b.map_readable().unwrap().get(11..11 + body.len()) == Some(body);
        buffers.last().is_some_and(has)
    });
    recorder.tags()
}

/// Waits until the last tag of so many publishers has left a server, and says how many buffers have.
#[track_caller]
fn left_behind(recorder: &Recorder, publishers: usize) -> usize {
    let mut ends = 0;
    for count in 1.. {
        let states = recorder.messages("rtmp2-stream-status", count);
        let state = states[count - 1].get::<ConnectionState>("connection-state");
        let was_there = count > 1 && {
            let before = states[count - 2].get::<ConnectionState>("connection-state");
            before.unwrap() as u32 > ConnectionState::Authenticating as u32
        };
        ends += usize::from(was_there && state.unwrap() == ConnectionState::Disconnected);
        if ends == publishers {
            break;
        }
    }
    recorder.buffers().len()
}

/// Metadata and sequence headers, and then media at times that start there.
#[track_caller]
fn assert_is_sent_from_a_keyframe_on(got: &[Tag], sent: &[Tag]) -> usize {
    let first = got.iter().position(Tag::is_coded).expect("there is media");
    for header in [metadata(0), video_header(0), audio_header(0)] {
        let is_there = got[..first].iter().any(|tag| tag.body == header.body);
        assert!(is_there, "{header:?}");
    }
    assert_eq!((got[first].body[0], got[first].timestamp), (0x17, 0));
    assert_has_media_from_a_keyframe_on(got, sent)
}

/// What was sent from a keyframe on, tag by tag. Gives where in what was sent that is.
#[track_caller]
fn assert_has_media_from_a_keyframe_on(got: &[Tag], sent: &[Tag]) -> usize {
    let coded = got.iter().filter(|tag| tag.is_coded());
    let coded: Vec<&Tag> = coded.skip_while(|tag| tag.body[0] != 0x17).collect();
    let start = sent.iter().position(|tag| tag.body == coded[0].body);
    let start = start.expect("it was sent");
    let from = &sent[start..];
    assert!(coded.len() <= from.len());
    for (got, sent) in coded.iter().zip(from) {
        let time = sent.timestamp - from[0].timestamp;
        let got_time = got.timestamp - coded[0].timestamp;
        assert_eq!((got.kind, got_time), (sent.kind, time));
        assert_eq!(got.body, sent.body);
    }
    start
}

#[test]
fn the_first_location_gets_the_whole_stream() {
    let (gate, recorder) = server();
    let mut source = Source::start(&[url(&gate)], &[("timeout", 60_000)]);
    source.push_headers();
    source.wait_for_status(Status::Connected, 0, 1);
    source.push_frames(35);
    source.end();
    let got = received(&recorder, source.sent.last().unwrap());
    let start = assert_is_sent_from_a_keyframe_on(&got, &source.sent);
    assert_eq!(start, 3, "nothing is missing");
    assert_eq!(got.iter().filter(|t| t.is_coded()).count(), 70);
    assert_eq!(
        (source.count("tags-sent"), source.count("tags-dropped")),
        (70, 0)
    );
    assert_eq!(
        (source.count("attempts"), source.count("connections")),
        (1, 1)
    );
    assert!(source.count("total-uptime") > 0 && source.count("bitrate-average") > 0);
    assert_eq!(source.last_error(), "");
    source.wait_for_status(Status::Disconnected, -1, 1);
    let messages = source.messages.0.lock().unwrap();
    let told: Vec<_> = messages.iter().filter_map(status_of).collect();
    drop(messages);
    let expected = [
        (Status::Connecting, 0),
        (Status::Connected, 0),
        (Status::Disconnected, -1),
    ];
    assert_eq!(told, expected, "each change is told, and once");
    source.assert_discreet();
}

#[test]
fn where_the_first_one_is_lost_the_next_goes_on_from_a_keyframe() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    let mut source = Source::start(
        &locations,
        &[("retry-initial-delay", 10), ("max-attempts", 0)],
    );
    source.push_headers();
    source.wait_for_status(Status::Connected, 0, 1);
    source.push_frames(25);
    let got = received(&first, source.sent.last().unwrap());
    assert_is_sent_from_a_keyframe_on(&got, &source.sent);

    first_gate.close();
    let before = left_behind(&first, 1);
    source.wait_for_status(Status::Connected, 1, 1);
    source.push_frames(25);
    let got = received(&second, source.sent.last().unwrap());
    let start = assert_is_sent_from_a_keyframe_on(&got, &source.sent);
    // That of the group of pictures that was under way.
    assert_eq!(source.sent[start].timestamp, START + 20 * FRAME_STEP);
    let rest = source.sent[start..].len();
    assert_eq!(got.iter().filter(|t| t.is_coded()).count(), rest);

    // Nobody is there for a while: upstream does not notice.
    let error = source.last_error();
    assert!(!error.is_empty());
    second_gate.close();
    source.wait_for_status(Status::Disconnected, -1, 1);
    source.push_frames(100);
    first_gate.open();
    source.wait_for_status(Status::Connected, 0, 2);
    source.push_frames(25);
    let got = received(&first, source.sent.last().unwrap());
    let start = assert_is_sent_from_a_keyframe_on(&got[before - 1..], &source.sent);
    // It held the last group of pictures, or was there before that.
    assert!(source.sent[start].timestamp <= START + 140 * FRAME_STEP);
    assert!(source.count("downtime") > 0 && source.count("tags-dropped") > 0);
    source.assert_discreet();
}

#[test]
fn it_moves_back_to_the_first_one_without_losing_a_tag() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    first_gate.close();
    let mut source = Source::start(&locations, &[("return-to-primary", 20)]);
    source.push_headers();
    source.wait_for_status(Status::Connected, 1, 1);
    source.push_frames(25);
    received(&second, source.sent.last().unwrap());
    // The first one is tried beside it, and takes the stream, which stays up to the next keyframe.
    first_gate.open();
    first.messages("rtmp2-stream-status", 3);
    source.push_until_connected(0, 1);
    source.push_frames(3);
    let on_first = received(&first, source.sent.last().unwrap());
    let start = assert_is_sent_from_a_keyframe_on(&on_first, &source.sent);
    let on_second = received(&second, &source.sent[start - 1]);
    assert_is_sent_from_a_keyframe_on(&on_second, &source.sent);
    let coded = |tags: &[Tag]| tags.iter().filter(|tag| tag.is_coded()).count();
    assert_eq!(coded(&on_second), start - 3);
    assert_eq!(coded(&on_first), source.sent.len() - start);
    assert_eq!(source.count("tags-dropped"), 0);
    assert_eq!(source.count("connections"), 2);
}

#[test]
fn nginx_is_killed_and_comes_back() {
    let recorder = || {
        let properties = "keep-listening=true timestamp-mode=publisher publisher-policy=replace";
        Recorder::start(properties)
    };
    let (first, second) = (recorder(), recorder());
    let mut first_nginx = Nginx::relay_to(&first.url("live/first"));
    let mut second_nginx = Nginx::relay_to(&second.url("live/second"));
    let locations = [first_nginx.url(KEY), second_nginx.url(KEY)];
    let properties = [
        ("retry-initial-delay", 20),
        ("max-attempts", 0),
        ("return-to-primary", 50),
    ];
    let mut source = Source::start(&locations, &properties);
    source.push_headers();
    source.push_until_connected(0, 1);
    let check = |source: &mut Source, recorder: &Recorder, seen: usize| {
        // A relay takes a while to begin, and what comes before that is lost.
        while recorder.buffers().len() == seen {
            source.push_paced();
        }
        source.push_frames(25);
        let last = source.sent.last().unwrap().clone();
        let got = received(recorder, &last);
        // nginx has metadata of its own, sends headers in an order of its own, and starts anywhere.
        let got = &got[seen.saturating_sub(1)..];
        assert_has_media_from_a_keyframe_on(got, &source.sent);
    };
    check(&mut source, &first, 0);
    first_nginx.kill();
    source.push_until_connected(1, 1);
    check(&mut source, &second, 0);
    let seen = left_behind(&first, 1);
    first_nginx.start();
    source.push_until_connected(0, 2);
    check(&mut source, &first, seen);
    first_nginx.kill();
    second_nginx.kill();
    source.wait_for_status(Status::Disconnected, -1, 1);
    source.push_frames(50);
    let seen = left_behind(&first, 2);
    first_nginx.start();
    source.push_until_connected(0, 3);
    check(&mut source, &first, seen);
    assert!(source.count("downtime") > 0);
    source.assert_discreet();
}

#[test]
fn a_server_that_stops_reading_is_left_and_upstream_does_not_wait() {
    let (gate, recorder) = server();
    // Its pipeline takes nothing, so it does not read either.
    let blocked = Recorder::start_into(
        &format!("max-bytes=1000 stream-key={KEY}"),
        "fakesink sync=false async=false",
    );
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let pad = blocked.element.static_pad("src").unwrap();
    pad.add_probe(kinds, move |_, _| {
        let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        gst::PadProbeReturn::Remove
    });
    let locations = [blocked.url(&format!("live/{KEY}")), url(&gate)];
    let mut source = Source::start(&locations, &[("timeout", 1000)]);
    source.push_headers();
    source.wait_for_status(Status::Connected, 0, 1);
    // Far more than the kernel and the queue hold: were it to wait, this would not end.
    source.frame_bytes = 400_000;
    source.push_frames(100);
    source.wait_for_status(Status::Connected, 1, 1);
    source.frame_bytes = 300;
    source.push_frames(25);
    let got = received(&recorder, source.sent.last().unwrap());
    assert_is_sent_from_a_keyframe_on(&got, &source.sent);
    assert!(source.count("tags-dropped") > 0);
    // On a busy machine others may have taken too long after that.
    source.wait_for("reason", |message| {
        let error = message.structure()?.get::<String>("last-error").ok()?;
        error.contains("took nothing").then_some(())
    });
    drop(release);
}

#[test]
fn a_server_that_never_answers_is_given_its_time() {
    let (gate, recorder) = server();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let locations = [format!("rtmp://127.0.0.1:{port}/live/{KEY}"), url(&gate)];
    let mut source = Source::start(&locations, &[("timeout", 1000)]);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(Status::Connected, 1, 1);
    source.push_frames(1);
    // What it held is not lost.
    let got = received(&recorder, source.sent.last().unwrap());
    assert_eq!(assert_is_sent_from_a_keyframe_on(&got, &source.sent), 3);
}

#[test]
fn a_wrong_key_is_an_error_after_so_many_rounds_and_stays_a_secret() {
    let recorder = Recorder::start("keep-listening=true stream-key=another");
    let locations = [recorder.url(&format!("live/{KEY}"))];
    let properties = [
        ("retry-initial-delay", 10),
        ("max-attempts", 3),
        ("timeout", 60_000),
    ];
    let source = Source::start(&locations, &properties);
    let error = source.wait_for("error", |message| match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    });
    assert!(error.contains("after 3 rounds"), "{error}");
    source.wait_for_status(Status::Error, -1, 1);
    assert_eq!(source.count("attempts"), 3);
    assert_eq!(recorder.stats().get("rejected"), Ok(3u64));
    source.assert_discreet();
}

#[test]
fn templates_are_filled_in_and_what_is_missing_is_named() {
    let recorder = Recorder::start("keep-listening=true stream-key=cam{id}_{name}");
    let location = [recorder.url("live/cam{camera_id}_{stream_name}")];
    let refusal = |variables: Option<gst::Structure>| {
        let source = Source::new(&location, &[]);
        source.sink.set_property("variables", variables);
        assert!(source.pipeline.set_state(gst::State::Playing).is_err());
        source.wait_for("error", |message| match message.view() {
            gst::MessageView::Error(error) => Some(error.error()),
            _ => None,
        })
    };
    let error: glib::Error = refusal(None);
    assert!(error.matches(gst::ResourceError::Settings));
    assert!(error.message().contains("\"camera_id\""), "{error}");
    let id = || gst::Structure::builder("variables").field("camera_id", 7);
    let error = refusal(Some(id().build()));
    assert!(error.message().contains("\"stream_name\""), "{error}");
    let error = refusal(Some(id().field("stream_name", "").build()));
    assert!(error.message().contains("\"stream_name\""), "{error}");

    let mut source = Source::new(&location, &[]);
    let variables = id().field("stream_name", "garden").build();
    source.sink.set_property("variables", variables);
    source.pipeline.set_state(gst::State::Playing).unwrap();
    source.push_headers();
    source.push_frames(2);
    received(&recorder, source.sent.last().unwrap());
    let key: String = recorder.stats().get("stream-key").unwrap();
    assert_eq!(key, "cam7_garden");
}

#[test]
fn it_stops_at_once_whatever_it_does() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (gate, _recorder) = server();
    let hour = [("timeout", 3_600_000), ("retry-initial-delay", 3_600_000)];
    // Connecting, waiting, sending, and ending with nobody there.
    drop(Source::start(
        &[format!("rtmp://127.0.0.1:{port}/live/key")],
        &hour,
    ));
    gate.close();
    let mut source = Source::start(&[url(&gate)], &hour);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(Status::Disconnected, -1, 1);
    source.end();
    drop(source);
    gate.open();
    let mut source = Source::start(&[url(&gate)], &hour);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(Status::Connected, 0, 1);
    drop(source);
}

/// The one command for this element in a text, on one line.
fn documented(text: &str) -> String {
    let start = text.find("gst-launch-1.0 videotestsrc").unwrap();
    let end = start + text[start..].find("\n```").unwrap();
    text[start..end].replace("\\\n", " ")
}

#[test]
fn the_documented_pipeline_sends() {
    let readme = documented(include_str!("../../README.md"));
    let source = include_str!("../../src/rtmp2fallbacksink/mod.rs").replace("//! ", "");
    assert_eq!(documented(&source), readme);
    let recorder = Recorder::start("keep-listening=true stream-key=cam{id}_{name}");
    let gate = Gate::before(recorder.port());
    gate.close();
    let command = readme
        .replace("rtmp://first.example", gate.url("").trim_end_matches('/'))
        .replace(
            "rtmp://second.example",
            recorder.url("").trim_end_matches('/'),
        );
    let (mut shell, _registry) = support::launch::command("sh");
    let _running = Running::spawn(shell.args(["-c", &format!("exec {command}")]));
    recorder.wait_until("a second of it", |buffers| buffers.len() > 30);
    let stats = recorder.stats();
    assert_eq!(stats.get::<&str>("stream-key"), Ok("cam7_garden"));
    let tags = recorder.tags();
    let first = tags.iter().find(|tag| tag.is_coded()).unwrap();
    assert_eq!(first.body[0], 0x17);
}
