// SPDX-License-Identifier: MPL-2.0

//! `rtmp2fallbacksink`: sends to the first of several servers that accepts the stream.

use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::{ConnectionState, FallbackStatus};

use support::clients::Running;
use support::flv::{Tag, VIDEO};
use support::gate::Gate;
use support::nginx::Nginx;
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, metadata, video_header};
use support::{PATIENCE, init};

pub const KEY: &str = "secret-key";
const GOP: u32 = 10;
const FRAME_STEP: u32 = 40;

/// Timestamp of the first frame.
const START: u32 = 90_000;

type Messages = Arc<(Mutex<Vec<gst::Message>>, Condvar)>;

/// A pipeline that sends the tags that a test pushes.
pub struct SendingPipeline {
    pub pipeline: gst::Pipeline,
    appsrc: gst::Element,
    pub sink: gst::Element,
    messages: Messages,
    /// All tags pushed.
    pub sent: Vec<Tag>,
    /// Number of frames pushed.
    frames: u32,
    /// Size of the next frames.
    pub frame_bytes: usize,
}

impl SendingPipeline {
    fn new(locations: &[String], properties: &[(&str, u32)]) -> Self {
        init();
        // The appsrc blocks while the sink does.
        let text = "appsrc name=src block=true max-bytes=1 max-buffers=1 max-time=0 format=time \
                    caps=video/x-flv ! rtmp2fallbacksink name=sink sync=false async=false";
        let pipeline = gst::parse::launch(text).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        sink.set_property("locations", locations.to_vec());
        for (name, value) in properties {
            sink.set_property(name, *value);
        }
        let messages = Messages::default();
        let handler_messages = messages.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if let Ok(mut messages) = handler_messages.0.lock() {
                messages.push(message.clone());
            }
            handler_messages.1.notify_all();
            gst::BusSyncReply::Drop
        });
        SendingPipeline {
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
        let source = SendingPipeline::new(locations, properties);
        source.pipeline.set_state(gst::State::Playing).unwrap();
        source
    }

    /// Waits for the first message that satisfies a condition, also one posted earlier.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        mut matcher: impl FnMut(&gst::Message) -> Option<T>,
    ) -> T {
        let (messages, more) = &*self.messages;
        let mut messages = messages.lock().unwrap();
        loop {
            if let Some(found) = messages.iter().find_map(&mut matcher) {
                return found;
            }
            let (guard, timeout) = more.wait_timeout(messages, PATIENCE).unwrap();
            messages = guard;
            assert!(!timeout.timed_out(), "no {what}: {messages:?}");
        }
    }

    /// Waits until a status with this location (-1 for none) was posted `count` times.
    #[track_caller]
    pub fn wait_for_status(&self, status: FallbackStatus, location: i32, count: usize) {
        let what = format!("{status:?} {location} ({count} times)");
        let (messages, more) = &*self.messages;
        let posted = |messages: &[gst::Message]| {
            let statuses = messages.iter().filter_map(status_of);
            statuses
                .filter(|posted| *posted == (status, location))
                .count()
        };
        let messages = messages.lock().unwrap();
        let waited = more.wait_timeout_while(messages, PATIENCE, |all| posted(all) < count);
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

    /// Sets caps with these tags as stream header, at time 0, for the next tags.
    fn set_stream_header(&self, tags: &[Tag]) {
        let buffers = tags
            .iter()
            .map(|tag| gst::Buffer::from_mut_slice(framed(tag)));
        let caps =
            gst::Caps::builder("video/x-flv").field("streamheader", gst::Array::new(buffers));
        self.appsrc.set_property("caps", caps.build());
    }

    pub fn push_headers(&mut self) {
        for tag in [metadata(0), video_header(0), audio_header(0)] {
            self.push(tag);
        }
    }

    /// Pushes frames at the pace of the servers until the status has been connected to `location`
    /// `count` times.
    pub fn push_until_connected(&mut self, location: i32, count: usize) {
        let wanted = (FallbackStatus::Connected, location);
        loop {
            let (messages, more) = &*self.messages;
            let messages = messages.lock().unwrap();
            let statuses: Vec<_> = messages.iter().filter_map(status_of).collect();
            if statuses.iter().filter(|posted| **posted == wanted).count() >= count {
                return;
            }
            if statuses
                .last()
                .is_some_and(|(s, _)| *s == FallbackStatus::Connected)
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

    /// Pushes frames at the pace of the server while one is connected.
    pub fn push_while_connected(&mut self) {
        while self.sink.property::<FallbackStatus>("status") == FallbackStatus::Connected {
            self.push_paced();
        }
    }

    /// Pushes one frame, and waits until it was sent or dropped.
    fn push_paced(&mut self) {
        self.push_frames(1);
        while self.count("current-level-bytes") > 0
            && self.sink.property::<FallbackStatus>("status") == FallbackStatus::Connected
        {
            std::thread::yield_now();
        }
    }

    /// Pushes frames with audio between them, each tenth a keyframe.
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

    /// Asserts that no message and no statistic of the element contains the stream key.
    fn assert_no_secrets(&self) {
        for message in self.messages.0.lock().unwrap().iter() {
            let text = format!("{:?}", message.structure());
            assert!(!text.contains(KEY), "{text}");
        }
        let stats = format!("{:?}", self.sink.property::<gst::Structure>("stats"));
        assert!(!stats.contains(KEY), "{stats}");
    }
}

impl Drop for SendingPipeline {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let stats = self.sink.property::<gst::Structure>("stats");
            eprintln!("{stats}");
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        // Messages hold references to their elements.
        self.pipeline.bus().unwrap().unset_sync_handler();
    }
}

fn status_of(message: &gst::Message) -> Option<(FallbackStatus, i32)> {
    let structure = message.structure()?;
    (structure.name() == "rtmp2-fallback-status").then(|| {
        let status = structure.get::<FallbackStatus>("status").unwrap();
        (status, structure.get::<i32>("location-index").unwrap())
    })
}

/// Returns a tag with its header and back pointer.
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

/// Starts a server that records, behind a gate.
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

/// Waits until the server has received this tag. Returns all its tags.
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

/// Waits until this many publishers of a server have ended. Returns the number of its buffers.
#[track_caller]
fn buffers_after(recorder: &Recorder, publishers: usize) -> usize {
    let mut ends = 0;
    for count in 1.. {
        let states = recorder.messages("rtmp2-stream-status", count);
        let state = states[count - 1].get::<ConnectionState>("connection-state");
        let was_publishing = count > 1 && {
            let before = states[count - 2].get::<ConnectionState>("connection-state");
            before.unwrap() as u32 > ConnectionState::Authenticating as u32
        };
        ends += usize::from(was_publishing && state.unwrap() == ConnectionState::Disconnected);
        if ends == publishers {
            break;
        }
    }
    recorder.buffers().len()
}

/// Asserts that the server got metadata and sequence headers, then media at timestamps from 0 on.
#[track_caller]
fn assert_starts_with_headers_and_keyframe(got: &[Tag], sent: &[Tag]) -> usize {
    let first = got
        .iter()
        .position(Tag::is_coded)
        .expect("media was received");
    for header in [metadata(0), video_header(0), audio_header(0)] {
        let is_there = got[..first].iter().any(|tag| tag.body == header.body);
        assert!(is_there, "{header:?}");
    }
    assert_eq!((got[first].body[0], got[first].timestamp), (0x17, 0));
    assert_starts_with_keyframe(got, sent)
}

/// Asserts that the server got the sent tags from a keyframe on. Returns the index of that
/// keyframe.
#[track_caller]
fn assert_starts_with_keyframe(got: &[Tag], sent: &[Tag]) -> usize {
    let coded = got.iter().filter(|tag| tag.is_coded());
    let coded: Vec<&Tag> = coded.skip_while(|tag| tag.body[0] != 0x17).collect();
    let start = sent.iter().position(|tag| tag.body == coded[0].body);
    let start = start.expect("the keyframe was sent");
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
    let mut source = SendingPipeline::start(&[url(&gate)], &[("timeout", 60_000)]);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    source.push_frames(35);
    source.end();
    let got = received(&recorder, source.sent.last().unwrap());
    let start = assert_starts_with_headers_and_keyframe(&got, &source.sent);
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
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    let messages = source.messages.0.lock().unwrap();
    let posted: Vec<_> = messages.iter().filter_map(status_of).collect();
    drop(messages);
    let expected = [
        (FallbackStatus::Connecting, 0),
        (FallbackStatus::Connected, 0),
        (FallbackStatus::Disconnected, -1),
    ];
    assert_eq!(posted, expected, "each change is posted once");
    source.assert_no_secrets();
}

#[test]
fn the_next_location_continues_from_a_keyframe_after_a_loss() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    let mut source = SendingPipeline::start(
        &locations,
        &[("retry-initial-delay", 10), ("max-attempts", 0)],
    );
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    source.push_frames(25);
    let got = received(&first, source.sent.last().unwrap());
    assert_starts_with_headers_and_keyframe(&got, &source.sent);

    first_gate.close();
    let before = buffers_after(&first, 1);
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.push_frames(25);
    let got = received(&second, source.sent.last().unwrap());
    let start = assert_starts_with_headers_and_keyframe(&got, &source.sent);
    // The keyframe of the current group.
    assert_eq!(source.sent[start].timestamp, START + 20 * FRAME_STEP);
    let rest = source.sent[start..].len();
    assert_eq!(got.iter().filter(|t| t.is_coded()).count(), rest);

    // Without any server upstream continues.
    let error = source.last_error();
    assert!(!error.is_empty());
    second_gate.close();
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    source.push_frames(100);
    first_gate.open();
    source.wait_for_status(FallbackStatus::Connected, 0, 2);
    source.push_frames(25);
    let got = received(&first, source.sent.last().unwrap());
    let start = assert_starts_with_headers_and_keyframe(&got[before - 1..], &source.sent);
    // The keyframe of the last group, or an earlier one if it connected before that.
    assert!(source.sent[start].timestamp <= START + 140 * FRAME_STEP);
    assert!(source.count("downtime") > 0 && source.count("tags-dropped") > 0);
    source.assert_no_secrets();
}

#[test]
fn the_return_to_the_first_location_loses_no_tag() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    first_gate.close();
    let mut source = SendingPipeline::start(&locations, &[("return-to-primary", 20)]);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.push_frames(25);
    received(&second, source.sent.last().unwrap());
    // The first location is tried in parallel, and takes over at the next keyframe.
    first_gate.open();
    first.messages("rtmp2-stream-status", 3);
    source.push_until_connected(0, 1);
    source.push_frames(3);
    let on_first = received(&first, source.sent.last().unwrap());
    let start = assert_starts_with_headers_and_keyframe(&on_first, &source.sent);
    let on_second = received(&second, &source.sent[start - 1]);
    assert_starts_with_headers_and_keyframe(&on_second, &source.sent);
    let coded = |tags: &[Tag]| tags.iter().filter(|tag| tag.is_coded()).count();
    assert_eq!(coded(&on_second), start - 3);
    assert_eq!(coded(&on_first), source.sent.len() - start);
    assert_eq!(source.count("tags-dropped"), 0);
    assert_eq!(source.count("connections"), 2);
}

#[test]
fn a_killed_nginx_is_left_and_returned_to() {
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
    let mut source = SendingPipeline::start(&locations, &properties);
    source.push_headers();
    source.push_until_connected(0, 1);
    let check = |source: &mut SendingPipeline, recorder: &Recorder, seen: usize| {
        // A relay takes a while to start, and tags sent before that are lost.
        while recorder.buffers().len() == seen {
            source.push_paced();
        }
        source.push_frames(25);
        let last = source.sent.last().unwrap().clone();
        let got = received(recorder, &last);
        // nginx sends its own metadata, headers in its own order, and starts anywhere.
        let got = &got[seen.saturating_sub(1)..];
        assert_starts_with_keyframe(got, &source.sent);
    };
    check(&mut source, &first, 0);
    first_nginx.kill();
    source.push_until_connected(1, 1);
    check(&mut source, &second, 0);
    let seen = buffers_after(&first, 1);
    first_nginx.start();
    source.push_until_connected(0, 2);
    check(&mut source, &first, seen);
    first_nginx.kill();
    second_nginx.kill();
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    source.push_frames(50);
    let seen = buffers_after(&first, 2);
    first_nginx.start();
    source.push_until_connected(0, 3);
    check(&mut source, &first, seen);
    assert!(source.count("downtime") > 0);
    source.assert_no_secrets();
}

#[test]
fn a_server_that_stops_reading_is_left_without_blocking_upstream() {
    let (gate, recorder) = server();
    // Its pipeline blocks, so it stops reading.
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
    let mut source = SendingPipeline::start(&locations, &[("timeout", 1000)]);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    // Far more than the kernel and the queue hold: a sink that waited would never return.
    source.frame_bytes = 400_000;
    source.push_frames(100);
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.frame_bytes = 300;
    source.push_frames(25);
    let got = received(&recorder, source.sent.last().unwrap());
    assert_starts_with_headers_and_keyframe(&got, &source.sent);
    assert!(source.count("tags-dropped") > 0);
    // On a busy machine a later error may have replaced it in the statistics.
    source.wait_for("reason", |message| {
        let error = message.structure()?.get::<String>("last-error").ok()?;
        error.contains("accepted no data").then_some(())
    });
    drop(release);
}

#[test]
fn a_silent_server_is_left_after_the_timeout() {
    let (gate, recorder) = server();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let locations = [format!("rtmp://127.0.0.1:{port}/live/{KEY}"), url(&gate)];
    let mut source = SendingPipeline::start(&locations, &[("timeout", 1000)]);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.push_frames(1);
    // The queued tags are not lost.
    let got = received(&recorder, source.sent.last().unwrap());
    assert_eq!(
        assert_starts_with_headers_and_keyframe(&got, &source.sent),
        3
    );
}

#[test]
fn a_wrong_key_is_an_error_after_max_attempts_and_stays_secret() {
    let recorder = Recorder::start("keep-listening=true stream-key=another");
    let locations = [recorder.url(&format!("live/{KEY}"))];
    let properties = [
        ("retry-initial-delay", 10),
        ("max-attempts", 3),
        ("timeout", 60_000),
    ];
    let source = SendingPipeline::start(&locations, &properties);
    let error = source.wait_for("error", |message| match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    });
    assert!(error.contains("in 3 rounds"), "{error}");
    source.wait_for_status(FallbackStatus::Error, -1, 1);
    assert_eq!(source.count("attempts"), 3);
    assert_eq!(recorder.stats().get("rejected"), Ok(3u64));
    source.assert_no_secrets();
}

#[test]
fn templates_are_filled_in_and_missing_variables_are_named() {
    let recorder = Recorder::start("keep-listening=true stream-key=cam{id}_{name}");
    let location = [recorder.url("live/cam{camera_id}_{stream_name}")];
    let start_error = |variables: Option<gst::Structure>| {
        let source = SendingPipeline::new(&location, &[]);
        source.sink.set_property("variables", variables);
        assert!(source.pipeline.set_state(gst::State::Playing).is_err());
        source.wait_for("error", |message| match message.view() {
            gst::MessageView::Error(error) => Some(error.error()),
            _ => None,
        })
    };
    let error: glib::Error = start_error(None);
    assert!(error.matches(gst::ResourceError::Settings));
    assert!(error.message().contains("\"camera_id\""), "{error}");
    let id = || gst::Structure::builder("variables").field("camera_id", 7);
    let error = start_error(Some(id().build()));
    assert!(error.message().contains("\"stream_name\""), "{error}");
    let error = start_error(Some(id().field("stream_name", "").build()));
    assert!(error.message().contains("\"stream_name\""), "{error}");

    let mut source = SendingPipeline::new(&location, &[]);
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
fn the_sink_stops_at_once_in_every_state() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (gate, _recorder) = server();
    let hour = [("timeout", 3_600_000), ("retry-initial-delay", 3_600_000)];
    // Connecting, waiting, sending, and ending without a server.
    drop(SendingPipeline::start(
        &[format!("rtmp://127.0.0.1:{port}/live/key")],
        &hour,
    ));
    gate.close();
    let mut source = SendingPipeline::start(&[url(&gate)], &hour);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    source.end();
    drop(source);
    gate.open();
    let mut source = SendingPipeline::start(&[url(&gate)], &hour);
    source.push_headers();
    source.push_frames(5);
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    drop(source);
}

/// `colorInfo` of an H.264 track.
fn color_info() -> Tag {
    let front = [&[0x94][..], b"avc1", b"\x02\x00\x09colorInfo"].concat();
    Tag::new(VIDEO, 0, [&front[..], &[3, 0, 0, 9]].concat())
}

#[test]
fn the_next_server_gets_only_the_headers_of_the_present_publisher() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    let mut source = SendingPipeline::start(&locations, &[]);
    let headers = [video_header(0), audio_header(0)];
    let old = [metadata(0), video_header(0), audio_header(0), color_info()];
    source.set_stream_header(&old);
    source.push_frames(20);
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    let got = received(&first, source.sent.last().unwrap());
    let has = |tags: &[Tag], tag: &Tag| tags.iter().any(|got| got.body == tag.body);
    assert!(old.iter().all(|tag| has(&got, tag)));
    source.set_stream_header(&headers);
    source.push_frames(12);
    received(&first, source.sent.last().unwrap());
    first_gate.close();
    source.wait_for_status(FallbackStatus::Connected, 1, 1);
    source.push_frames(1);
    let got = received(&second, source.sent.last().unwrap());
    assert!(headers.iter().all(|tag| has(&got, tag)));
    assert!(!has(&got, &color_info()) && !has(&got, &metadata(0)));
    assert_starts_with_keyframe(&got, &source.sent);
}

#[test]
fn a_late_first_keyframe_has_its_header_also_after_a_failover() {
    let (first_gate, first) = server();
    let (second_gate, second) = server();
    let locations = [url(&first_gate), url(&second_gate)];
    let mut source = SendingPipeline::start(&locations, &[]);
    // Linked late: the headers are only in the caps, and times are far from theirs.
    source.set_stream_header(&[video_header(0), audio_header(0)]);
    for time in (0..20_000).step_by(100) {
        source.push(audio(START - 20_000 + time, 40));
    }
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    source.push_frames(3);
    for recorder in [first, second] {
        let got = received(&recorder, source.sent.last().unwrap());
        let keyframe = got
            .iter()
            .position(|tag| tag.is_coded() && tag.body[0] == 0x17);
        let header = got.iter().position(|tag| tag.body == video_header(0).body);
        assert!(header.unwrap() < keyframe.unwrap());
        first_gate.close();
        source.wait_for_status(FallbackStatus::Connected, 1, 1);
        source.push_frames(1);
    }
}

/// An H.264 picture of one NAL unit that is flagged as inter.
fn flagged_inter(timestamp: u32, nal: [u8; 6]) -> Tag {
    let front = [0x27, 1, 0, 0, 0, 0, 0, 0, nal.len() as u8];
    Tag::new(VIDEO, timestamp, [&front[..], &nal].concat())
}

#[test]
fn keyframes_flagged_as_inter_start_a_group() {
    let (gate, recorder) = server();
    let mut source = SendingPipeline::start(&[url(&gate)], &[]);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Connected, 0, 1);
    let frame = |number: u32| {
        let start = if number % 5 == 2 {
            [0x65, 0x88]
        } else {
            [0x41, 0xC0]
        };
        flagged_inter(
            START + number * FRAME_STEP,
            [start[0], start[1], 0x84, 1, 2, number as u8],
        )
    };
    (0..12).for_each(|number| source.push(frame(number)));
    let got = received(&recorder, source.sent.last().unwrap());
    let first = got.iter().find(|tag| tag.is_coded()).unwrap();
    assert_eq!(first.body, frame(2).body);
    assert_eq!(source.count("tags-dropped"), 2);
}

#[test]
fn every_dropped_tag_is_counted_and_reported() {
    let (gate, recorder) = server();
    gate.close();
    let hour = [("timeout", 3_600_000), ("retry-initial-delay", 3_600_000)];
    let mut source = SendingPipeline::start(&[url(&gate)], &hour);
    source.push_headers();
    source.wait_for_status(FallbackStatus::Disconnected, -1, 1);
    let report = |message: &gst::Message| {
        let structure = message.structure()?;
        let is_report = structure.name() == "rtmp2-fallback-dropped";
        is_report.then(|| {
            let count = |name| structure.get::<u64>(name).unwrap();
            (count("tags"), count("tags-dropped"))
        })
    };
    // A frame before the first keyframe.
    source.push(delta_frame(START - 80, 100));
    assert_eq!(source.wait_for("report", report), (1, 1));
    // Another one, a tag that no decoder could use, a group of pictures without a server.
    source.push(delta_frame(START - 40, 100));
    source.push(Tag::new(VIDEO, START, []));
    source.push_frames(GOP + 1);
    source.end();
    let dropped = 3 + 2 * u64::from(GOP);
    assert_eq!(source.count("tags-dropped"), dropped);
    // The last group, which waits for a server.
    source.pipeline.set_state(gst::State::Null).unwrap();
    let rest = (dropped + 1, dropped + 2);
    let last = |message: &gst::Message| report(message).filter(|counts| *counts == rest);
    source.wait_for("last report", last);
    drop(recorder);
}

/// Returns the command for this element in a text, on one line.
fn documented(text: &str) -> String {
    let element = text.find("! rtmp2fallbacksink \\\n").unwrap();
    let start = text[..element].rfind("gst-launch-1.0").unwrap();
    let end = start + text[start..].find("\n```").unwrap();
    text[start..end].replace("\\\n", " ")
}

#[test]
fn the_documented_pipeline_sends() {
    let page = documented(include_str!("../../docs/pipelines.md"));
    let source = include_str!("../../src/rtmp2fallbacksink/mod.rs").replace("//! ", "");
    assert_eq!(documented(&source), page);
    let recorder = Recorder::start("keep-listening=true stream-key=cam{id}_{name}");
    let gate = Gate::before(recorder.port());
    gate.close();
    let command = page
        .replace("rtmp://first.example", gate.url("").trim_end_matches('/'))
        .replace(
            "rtmp://second.example",
            recorder.url("").trim_end_matches('/'),
        );
    let (mut shell, _registry) = support::launch::command("sh");
    let _running = Running::spawn(shell.args(["-c", &format!("exec {command}")]));
    recorder.wait_until("a second of media", |buffers| buffers.len() > 30);
    let stats = recorder.stats();
    assert_eq!(stats.get::<&str>("stream-key"), Ok("cam7_garden"));
    let tags = recorder.tags();
    let first = tags.iter().find(|tag| tag.is_coded()).unwrap();
    assert_eq!(first.body[0], 0x17);
}
