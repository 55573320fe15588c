// SPDX-License-Identifier: MPL-2.0

//! Many cameras to many servers.

mod program;

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use support::clients::{FFMPEG, publish};
use support::flv::{self, AUDIO, Tag, VIDEO, assert_same_media};
use support::media::{SMALL_VIDEO, TONE, copy, made_by, small};
use support::raw::{RawClient, send};
use support::recorder::Recorder;
use support::signals::Signals;
use support::synthetic::stream;

use program::{Metrics, Program, command};

/// A server that accepts one stream, and keeps what it receives.
fn server(camera: &str, stream: &str) -> Recorder {
    Recorder::start(&format!(
        "keep-listening=true timestamp-mode=publisher application=live stream-key={camera}_{stream}_secret"
    ))
}

/// The `url_template`, with a variable for the port of the server.
const TEMPLATE: &str = "rtmp://127.0.0.1:{port}/live/{camera_id}_{stream_name}_secret";

/// A camera with one stream to a server, and with the settings of `more`.
fn camera(id: &str, port: u16, more: &str) -> String {
    let port = format!(r#""variables": {{"port": "{port}"}}"#);
    format!(r#"{{"id": "{id}", {port}, {more} "streams": [{{"name": "main"}}]}}"#)
}

/// Servers may take as long as they like, unless a camera says otherwise.
fn configuration(cameras: &[String]) -> String {
    format!(
        r#"{{"listen": {{"host": "127.0.0.1", "port": 0}},
            "source": {{"rtmp": {{"application": "cameras", "stream_key": "{{camera_id}}-secret"}}}},
            "url_template": "{TEMPLATE}",
            "retry": {{"initial_delay_ms": 20, "max_delay_ms": 100, "timeout_ms": 60000}},
            "cameras": [{}]}}"#,
        cameras.join(",\n")
    )
}

/// Returns the decodable tags, from the first keyframe on: servers get nothing before that.
fn decodable(tags: &[Tag]) -> Vec<Tag> {
    let coded = tags.iter().filter(|tag| tag.is_coded());
    let coded = coded.skip_while(|tag| tag.kind != VIDEO || tag.body[0] != 0x17);
    coded.cloned().collect()
}

/// Waits until a server has this tag.
#[track_caller]
fn wait_for_tag(server: &Recorder, tag: &Tag) {
    let range = 11..11 + tag.body.len();
    server.wait_until("what was sent", |buffers| {
        let has = |buffer: &gst::Buffer| {
            let bytes = buffer.map_readable().unwrap();
            bytes.get(range.clone()) == Some(&tag.body[..])
        };
        buffers.iter().any(has)
    });
}

/// Asserts that a server receives exactly these tags, each at its time, after metadata and sequence
/// headers.
#[track_caller]
fn assert_gets(server: &Recorder, sent: &[Tag]) {
    let sent = decodable(sent);
    wait_for_tag(server, sent.last().unwrap());
    let got = server.tags();
    let first = got.iter().position(Tag::is_coded).unwrap();
    for kind in [AUDIO, VIDEO] {
        let is_header = |tag: &Tag| tag.kind == kind && tag.is_sequence_header();
        assert!(got[..first].iter().any(is_header), "{:?}", &got[..first]);
    }
    let got: Vec<Tag> = got.into_iter().filter(Tag::is_coded).collect();
    assert_same_media(&sent, &got);
}

/// Sends tags in steps: only the last group of pictures waits for a server, and the rest is sent
/// when there is one.
#[track_caller]
fn send_all(client: &mut RawClient, server: &Recorder, tags: &[Tag]) {
    let (first, rest) = tags.split_at(21);
    send(client, first);
    wait_for_tag(server, first.last().unwrap());
    send(client, rest);
}

/// Asserts that a server receives the last part of these tags, from a keyframe on: connecting takes
/// a while.
#[track_caller]
fn assert_gets_the_end(server: &Recorder, sent: &[Tag]) {
    let sent = decodable(sent);
    wait_for_tag(server, sent.last().unwrap());
    let got = decodable(&server.tags());
    let start = sent.iter().position(|tag| tag.body == got[0].body);
    assert_same_media(&sent[start.unwrap()..], &got);
}

/// Asserts that the first connection is still there.
#[track_caller]
fn assert_undisturbed(server: &Recorder) {
    let stats = server.stats();
    for (field, expected) in [("publishers", 1), ("rejected", 0), ("epoch", 1)] {
        assert_eq!(stats.get::<u64>(field), Ok(expected), "{field} of {stats}");
    }
}

/// Cameras with working servers: publishers, files and a test picture.
const LIVE: [&str; 7] = ["1", "2", "3", "4", "5", "6", "7"];

/// The cameras among them that a test publishes itself, tag by tag.
const PUBLISHED: usize = 3;

/// Small frames, 100 ms apart.
const TEST: &str = r#""source": {"test": {"width": 160, "height": 120, "framerate": 10,
    "bitrate_kbps": 64, "keyframe_interval_ms": 1000}},"#;

fn file(path: &Path, is_loop: bool) -> String {
    let path = path.display();
    format!(r#""source": {{"file": {{"path": "{path}", "loop": {is_loop}}}}},"#)
}

/// These, and an eighth one: the server of its first stream is dead, and its second one has a
/// fallback.
fn eight(servers: &[Recorder], dead: u16, fallback: u16) -> String {
    let sources = [
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        file(&small(2), false),
        file(&small(1), true),
        TEST.to_owned(),
    ];
    let live = LIVE.iter().zip(servers).zip(&sources);
    let mut cameras: Vec<String> = live
        .map(|((id, server), source)| camera(id, server.port(), source))
        .collect();
    let url = |port: &str| TEMPLATE.replace("{port}", port);
    // No server listens on port 1.
    let (refused, fallback) = (url("1"), url(&fallback.to_string()));
    cameras.push(format!(
        r#"{{"id": "8", "variables": {{"port": "{dead}"}}, {TEST} "streams": [
            {{"name": "main", "retry": {{"timeout_ms": 300}}}},
            {{"name": "sub", "urls": ["{refused}"], "fallback_urls": ["{fallback}"]}}]}}"#
    ));
    configuration(&cameras)
}

/// Publishes to a camera, once it says that it waits for that.
#[track_caller]
fn publish_to(program: &Program, id: &str) -> RawClient {
    program.wait_for_status(0, &format!("{id}/main"), "source waiting, ");
    RawClient::publish(program.port(), "cameras", &format!("{id}-secret"))
}

/// Publishes to the first cameras in turns, each to its end.
fn publish_in_turns(program: &Program, servers: &[Recorder], tags: &[Tag]) -> Vec<RawClient> {
    let ids = LIVE[..PUBLISHED].iter();
    let mut clients: Vec<RawClient> = ids.map(|id| publish_to(program, id)).collect();
    for part in tags.chunks(21) {
        for (client, server) in clients.iter_mut().zip(servers) {
            send(client, part);
            wait_for_tag(server, part.last().unwrap());
        }
    }
    clients
}

#[test]
fn a_dead_server_of_one_camera_disturbs_none_of_the_other_seven() {
    let servers = LIVE.map(|id| server(id, "main"));
    let fallback = server("8", "sub");
    // It accepts connections, and never answers.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_port = dead.local_addr().unwrap().port();
    let program = Program::start(&eight(&servers, dead_port, fallback.port()));

    // The dead server is reported, and other cameras work.
    for id in &LIVE[PUBLISHED + 1..] {
        program.wait_for_status(0, &format!("{id}/main"), "sink connected, ");
    }
    let error = "(last error: The server accepted no data within the timeout)";
    let line = program.wait_for_status(0, "8/main", error);
    assert!(!line.contains("sink connected"), "{line}");
    program.wait_for_status(0, "8/sub", "sink connected (fallback 1), ");

    // Servers learn of a stream when there is one.
    for server in &servers[..=PUBLISHED] {
        assert_eq!(server.stats().get("publishers"), Ok(0u64));
    }
    let recording = small(3);
    program.wait_for_status(0, "4/main", "source waiting, ");
    let url = format!("rtmp://127.0.0.1:{}/cameras/4-secret", program.port());
    let ffmpeg = publish(FFMPEG, &recording, true, &url);
    let tags = stream(7000, 100);
    let _clients = publish_in_turns(&program, &servers, &tags);
    ffmpeg.succeed();
    for server in &servers[..PUBLISHED] {
        assert_gets(server, &tags);
    }
    for id in &LIVE[..=PUBLISHED] {
        program.wait_for_status(0, &format!("{id}/main"), "sink connected, ");
    }
    assert_gets_the_end(&servers[3], &flv::read_file(&copy(FFMPEG, &recording)));

    // Files: one once, the other one in a loop.
    program.wait_for_status(0, "5/main", "source ended");
    assert_gets(&servers[4], &flv::read_file(&small(2)));
    assert_repeats(&servers[5], &flv::read_file(&small(1)));
    assert_is_steady(&servers[6], 100);
    assert_is_steady(&fallback, 100);
    servers.iter().for_each(assert_undisturbed);
    assert_undisturbed(&fallback);

    // Each server gets headers first, and they do not count.
    assert_told(&program.metrics(), decodable(&tags).len());
    program.signal(Signal::INT);
    let (status, text) = program.wait();
    assert!(status.success(), "{status}\n{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// Asserts the metrics after so many published tags.
#[track_caller]
fn assert_told(metrics: &Metrics, tags: usize) {
    for id in ["1", "2", "3", "4", "6", "7"] {
        let stream = format!("{id}/main");
        // The publisher of camera 4 has left.
        assert!(metrics.get("status", &stream) == 2.0 || id == "4");
        assert_eq!(metrics.get("connections_total", &stream), 1.0);
        assert_eq!(metrics.get("restarts_total", &stream), 0.0);
        assert!(metrics.get("uptime_seconds_total", &stream) > 0.0);
    }
    for id in &LIVE[..PUBLISHED] {
        let stream = format!("{id}/main");
        assert_eq!(metrics.get("sent_tags_total", &stream), tags as f64);
        assert_eq!(metrics.get("dropped_tags_total", &stream), 0.0);
    }
    assert!(metrics.get("status", "8/main") < 2.0);
    assert_eq!(metrics.get("connections_total", "8/main"), 0.0);
    assert_eq!(metrics.get("sent_tags_total", "8/main"), 0.0);
    assert!(metrics.get("dropped_tags_total", "8/main") > 0.0);
    assert!(metrics.get("attempts_total", "8/main") > 1.0);
    assert!(metrics.get("downtime_seconds_total", "8/main") > 0.0);
    assert_eq!(metrics.get("location", "8/sub"), 1.0);
}

/// Asserts that a file is sent in a loop, with times that go on.
#[track_caller]
fn assert_repeats(server: &Recorder, file: &[Tag]) {
    let first = decodable(file);
    let again: Vec<Tag> = file.iter().filter(|tag| tag.is_coded()).cloned().collect();
    let count = first.len() + 2 * again.len();
    let expected = first.iter().chain(again.iter().cycle()).take(count);
    // With tags that are not decoded.
    server.wait_until("three passes", |buffers| buffers.len() > count + 10);
    let got: Vec<Tag> = server.tags().into_iter().filter(Tag::is_coded).collect();
    for (index, (expected, got)) in expected.zip(&got).enumerate() {
        assert!(
            expected.body == got.body,
            "tag {index}: {expected:?}, got {got:?}"
        );
    }
    // Where its end and its start meet, the longer of its tracks determines when it goes on.
    let of_pass = file.iter().filter(|tag| tag.is_frame()).count();
    let frames = got.iter().filter(|tag| tag.kind == VIDEO);
    let times: Vec<u32> = frames.map(|tag| tag.timestamp).collect();
    for (index, pair) in times.windows(2).enumerate() {
        let step = pair[1] - pair[0];
        let is_seam = (index + 1).is_multiple_of(of_pass);
        let expected = if is_seam { 33..70 } else { 33..35 };
        assert!(
            expected.contains(&step),
            "{step} ms before frame {index} + 1"
        );
    }
}

/// Asserts so many milliseconds from frame to frame, without a missing one. The muxer moves some a
/// little.
#[track_caller]
fn assert_is_steady(server: &Recorder, step: u32) {
    server.wait_until("some seconds", |buffers| buffers.len() > 150);
    let tags = server.tags();
    let frames = tags
        .iter()
        .filter(|tag| tag.kind == VIDEO && tag.is_coded());
    let times: Vec<u32> = frames.map(|tag| tag.timestamp).collect();
    assert!(times.len() > 10, "{times:?}");
    for (index, time) in times.iter().enumerate() {
        let expected = times[0] + index as u32 * step;
        assert!(time.abs_diff(expected) < step / 2, "{index} of {times:?}");
    }
}

#[test]
fn a_reload_touches_only_changed_streams() {
    let servers = ["1", "2", "3", "4"].map(|id| server(id, "main"));
    let ports = servers.each_ref().map(Recorder::port);
    let signals = servers
        .each_ref()
        .map(|server| Signals::watch(&server.element));
    let test = r#""source": {"test": {"width": 160, "height": 120, "framerate": 10}},"#;
    let program = Program::start(&configuration(&[
        camera("1", ports[0], ""),
        camera("2", ports[1], ""),
        camera("3", ports[2], test),
    ]));
    let mut client = publish_to(&program, "1");
    let mut other = publish_to(&program, "2");
    let tags = stream(0, 90);
    send(&mut other, &tags[..21]);
    let (first, rest) = tags.split_at(63);
    let (second, third) = rest.split_at(60);
    send_all(&mut client, &servers[0], first);
    for id in ["1", "2", "3"] {
        program.wait_for_status(0, &format!("{id}/main"), "sink connected, ");
    }
    assert_gets(&servers[0], first);

    // A bad one changes nothing, and its error has a place.
    let bad = configuration(&[camera("1", 1, r#""stream": [],"#)]);
    program.reload(&bad);
    program.wait_for("cameras[0].stream: unknown field `stream`");
    program.wait_for("the configuration was not changed");
    assert_eq!(program.metrics().get("configuration_good", ""), 0.0);
    send(&mut client, second);
    assert_gets(&servers[0], &tags[..first.len() + second.len()]);

    // The first camera stays, the second one goes, the third one changes, the fourth one is new.
    let mark = program.mark();
    let retry = r#""retry": {"max_attempts": 7},"#;
    program.reload(&configuration(&[
        camera("4", ports[3], test),
        camera("3", ports[2], &format!("{test} {retry}")),
        camera("1", ports[0], ""),
    ]));
    program.wait_for("streams: 1 added, 1 changed, 1 removed, 1 untouched");
    program.wait_for("2/main: stopped");
    program.wait_for_status(mark, "3/main", "sink connected, ");
    program.wait_for_status(mark, "4/main", "sink connected, ");
    assert_eq!(signals[1].names(2), ["added", "removed unpublished"]);
    assert_eq!(signals[2].names(3)[..2], ["added", "removed unpublished"]);
    send(&mut client, third);
    assert_gets(&servers[0], &tags);
    assert_undisturbed(&servers[0]);
    assert_is_steady(&servers[3], 100);
    let metrics = program.metrics();
    assert_eq!(metrics.get("configuration_good", ""), 1.0);
    assert!(metrics.get("attempts_total", "3/main") >= 2.0);

    program.signal(Signal::TERM);
    let (status, text) = program.wait();
    assert!(status.success(), "{status}\n{text}");
    for id in ["1", "3", "4"] {
        assert!(text.contains(&format!("{id}/main: stopped")), "{text}");
    }
    assert_eq!(signals[0].names(2), ["added", "removed unpublished"]);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_server_has_a_stream_only_while_there_is_a_publisher() {
    let server = server("1", "main");
    let program = Program::start(&configuration(&[camera("1", server.port(), "")]));
    let tags = stream(0, 30);
    let mut mark = 0;
    for publisher in 1..=2u64 {
        program.wait_for_status(mark, "1/main", "source waiting, sink disconnected, ");
        assert_eq!(server.stats().get("publishers"), Ok(publisher - 1));
        let mut client = RawClient::publish(program.port(), "cameras", "1-secret");
        // Its first picture may be its last one.
        send_all(&mut client, &server, &tags);
        program.wait_for_status(mark, "1/main", "source active, sink connected, ");
        mark = program.mark();
        drop(client);
        program.wait_for_status(mark, "1/main", "source waiting, sink connected, ");
    }
    program.wait_for_status(mark, "1/main", "source waiting, sink disconnected, ");
    assert_eq!(program.metrics().get("restarts_total", "1/main"), 0.0);
    assert_eq!(program.metrics().get("connections_total", "1/main"), 2.0);
}

#[test]
fn a_failed_pipeline_restarts_by_itself_and_alone() {
    let servers = ["1", "2"].map(|id| server(id, "main"));
    let file = r#""source": {"file": {"path": "{camera_id}.flv"}},"#;
    let program = Program::start(&configuration(&[
        camera("1", servers[0].port(), file),
        camera("2", servers[1].port(), ""),
    ]));
    let mut client = publish_to(&program, "2");
    let line = program.wait_for_status(0, "1/main", "source failed, ");
    assert!(line.contains("1.flv: No such file"), "{line}");
    // A file that is not FLV is reported as such.
    let path = program.folder.path().join("1.flv");
    std::fs::write(&path, "this is not it").unwrap();
    program.wait_for_status(0, "1/main", "Could not determine type of stream");
    // Files are moved into place complete.
    let whole = program.folder.path().join("whole.flv");
    std::fs::copy(small(1), &whole).unwrap();
    std::fs::rename(&whole, &path).unwrap();
    program.wait_for_status(0, "1/main", "source ended");
    assert_gets(&servers[0], &flv::read_file(&small(1)));
    let tags = stream(0, 40);
    send_all(&mut client, &servers[1], &tags);
    assert_gets(&servers[1], &tags);
    servers.iter().for_each(assert_undisturbed);
    let metrics = program.metrics();
    assert!(metrics.get("restarts_total", "1/main") >= 2.0);
    assert_eq!(metrics.get("restarts_total", "2/main"), 0.0);
    assert_eq!(metrics.get("source_active", "2/main"), 1.0);
}

#[test]
fn signals_within_a_second_count_as_one() {
    let server = server("1", "main");
    let signals = Signals::watch(&server.element);
    let program = Program::start(&configuration(&[camera("1", server.port(), TEST)]));
    program.wait_for_status(0, "1/main", "sink connected, ");
    server.wait_until("media", |buffers| buffers.len() > 10);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        program.signal(signal);
    }
    let (status, text) = program.wait();
    assert!(status.success(), "{status}\n{text}");
    assert!(text.contains("1/main: stopped"), "{text}");
    assert_eq!(signals.names(2), ["added", "removed unpublished"]);
}

#[test]
fn each_state_is_printed_once() {
    let server = server("1", "main");
    // No server listens on port 1.
    let program = Program::start(&configuration(&[
        camera("1", server.port(), TEST),
        camera(
            "2",
            1,
            &format!(r#"{TEST} "retry": {{"max_attempts": 1}},"#),
        ),
        camera("3", 1, &file(Path::new("missing.flv"), false)),
    ]));
    program.wait_for_status(0, "1/main", "sink connected, ");
    program.wait_for_status(0, "3/main", "source failed, ");
    // Some of its states are very short.
    for _ in 0..5 {
        program.wait_for_status(program.mark(), "2/main", "source failed, ");
    }
    program.signal(Signal::TERM);
    let (status, text) = program.wait();
    assert!(status.success(), "{status}\n{text}");
    for id in ["1", "2", "3"] {
        let start = format!("{id}/main: source ");
        // Without the parts that change by themselves.
        let is_state = |part: &&str| {
            !part.ends_with("bit/s") && !part.ends_with(" dropped") && !part.starts_with("since ")
        };
        let lines = text.lines().filter(|line| line.starts_with(&start));
        let mut states: Vec<Vec<&str>> = lines
            .map(|line| line.split(", ").filter(is_state).collect())
            .collect();
        let shown = states.len();
        states.dedup();
        assert!(shown > 0 && shown == states.len(), "{text}");
    }
}

/// Returns the exit code and the output.
fn run(arguments: &[&str], configuration: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cameras.json");
    std::fs::write(&file, configuration).unwrap();
    let output = command().args(arguments).arg(&file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn problems_of_a_configuration_are_reported_at_the_start() {
    let good = configuration(&[camera("1", 1935, ""), camera("2", 1935, "")]);
    let (code, text) = run(&["--check"], &good);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 streams"), "{text}");
    for (from, to, problem) in [
        (
            "camera_id}_",
            "camera}_",
            "url_template, for cameras[0].streams[0]: the variable \"camera\" is unknown",
        ),
        ("\"2\"", "\"1\"", "cameras[1]: cameras[0] has the same id"),
        (
            "timeout_ms",
            "timeout",
            "retry.timeout: unknown field `timeout`",
        ),
        (
            "\"cameras\": [",
            "\"cameras\": [[",
            ".json:5:24: cameras[0]: invalid type: sequence, expected an object",
        ),
        (
            r#"{"listen": {"host": "127.0.0.1", "port": 0}"#,
            r#"{"listen": ["127.0.0.1", 0]"#,
            "cameras.json:1:11: listen: invalid type: sequence, expected an object",
        ),
        (
            "{\"host\": \"127.0.0.1\"",
            "{\"host\": \"not a host\"",
            "listen.host: it is neither an IP address nor a host name",
        ),
        (
            "\"cameras\":",
            r#""fallback_urls": ["rtmp://127.0.0.1:{port}/live/{camera_id}_{stream_name}_secret"], "cameras":"#,
            "fallback_urls[0], for cameras[0].streams[0]: it makes the same URL as url_template",
        ),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        let (code, text) = run(&[], &bad);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains(problem) && text.contains("cameras.json:"),
            "{text}"
        );
        assert!(!text.contains("_secret"), "{text}");
    }
    let output = command().arg("/nowhere/cameras.json").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_example_file_runs() {
    let recorder = Recorder::start("keep-listening=true application=live stream-key=camtest_main");
    let here = format!("127.0.0.1:{}", recorder.port());
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("multicam.json");
    let text = std::fs::read_to_string(example).unwrap();
    let text = text
        .replace("media.example", &here)
        // No server listens there.
        .replace("other.example", "127.0.0.1:1")
        .replace("backup.example", "127.0.0.1:2")
        .replace("\"0.0.0.0\", \"port\": 1935", "\"127.0.0.1\", \"port\": 0");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(small(1), folder.path().join("pause.flv")).unwrap();
    let program = Program::start_in(folder, &text);
    program.port();
    program.wait_for_status(0, "test/main", "sink connected, ");
    for id in ["1", "2", "3", "4", "5", "6", "pause"] {
        program.wait_for_status(0, &format!("{id}/main"), "source waiting, ");
    }
    recorder.wait_until("media", |buffers| buffers.len() > 30);
    program.signal(Signal::INT);
    let (status, text) = program.wait();
    assert!(status.success(), "{status}\n{text}");
}

/// Returns the payloads of the tags of one kind, without their times.
fn payloads(tags: &[Tag], kind: u8) -> Vec<Vec<u8>> {
    let coded = tags.iter().filter(|tag| tag.kind == kind && tag.is_coded());
    coded.map(|tag| tag.body[front(kind)..].to_vec()).collect()
}

/// Bytes of a tag's body before its payload.
fn front(kind: u8) -> usize {
    if kind == VIDEO { 5 } else { 2 }
}

#[test]
fn files_of_other_formats_are_sent_without_encoding() {
    let flv = small(2);
    let kinds = ["mp4", "mkv"];
    let servers = kinds.map(|id| server(id, "main"));
    let cameras = kinds.iter().zip(&servers).map(|(kind, server)| {
        let arguments = format!("-i {} -c copy -f {}", flv.display(), format_of(kind));
        let path = made_by(FFMPEG, &format!("small-2.{kind}"), &arguments);
        camera(kind, server.port(), &file(&path, false))
    });
    let cameras: Vec<String> = cameras.collect();
    let program = Program::start(&configuration(&cameras));
    let sent = flv::read_file(&flv);
    for (kind, server) in kinds.iter().zip(&servers) {
        program.wait_for_status(0, &format!("{kind}/main"), "source ended");
        for track in [VIDEO, AUDIO] {
            let last = payloads(&sent, track).pop().unwrap();
            server.wait_until("the last of a track", |buffers| {
                let has = |buffer: &gst::Buffer| {
                    let bytes = buffer.map_readable().unwrap();
                    let start = 11 + front(track);
                    bytes[0] == track && bytes.get(start..start + last.len()) == Some(&last[..])
                };
                buffers.iter().any(has)
            });
        }
        let got = server.tags();
        let pictures = [&sent, &got].map(|tags| payloads(tags, VIDEO));
        assert_eq!(pictures[0].len(), pictures[1].len(), "{kind}");
        // The parser may also put the configuration into the stream.
        let mut pairs = pictures[0].iter().zip(&pictures[1]);
        let other = pairs.position(|(sent, got)| !got.ends_with(sent));
        assert_eq!(other, None, "{kind}");
        // Some of it comes before the first picture, which is what servers get first.
        let (sent, got) = (payloads(&sent, AUDIO), payloads(&got, AUDIO));
        assert!(
            got.len() + 3 >= sent.len() && sent.ends_with(&got),
            "{kind}"
        );
        assert_undisturbed(server);
    }
}

#[test]
fn files_of_other_formats_loop_seamlessly() {
    let kinds = ["mp4", "mkv", "ts"];
    let servers = kinds.map(|id| server(id, "main"));
    let cameras = kinds.iter().zip(&servers).map(|(kind, server)| {
        // Sound begins before the first picture, and pictures are decoded before they are shown.
        let arguments = format!(
            "{SMALL_VIDEO} {TONE} -t 2 -c:v libx264 -preset ultrafast -bf 2 -g 30 -c:a aac -f {}",
            format_of(kind)
        );
        let path = made_by(FFMPEG, &format!("early-2.{kind}"), &arguments);
        camera(kind, server.port(), &file(&path, true))
    });
    let cameras: Vec<String> = cameras.collect();
    let _program = Program::start(&configuration(&cameras));
    for (kind, server) in kinds.iter().zip(&servers) {
        // 60 pictures and 94 frames of sound each.
        server.wait_until("three passes", |buffers| buffers.len() > 2 * 154 + 50);
        let tags = server.tags();
        for track in [AUDIO, VIDEO] {
            let tags = tags
                .iter()
                .filter(|tag| tag.kind == track && tag.is_coded());
            let times: Vec<u32> = tags.map(|tag| tag.timestamp).collect();
            let is_steady = |pair: &[u32]| pair[0] < pair[1] && pair[1] - pair[0] < 150;
            assert!(
                times.windows(2).all(is_steady),
                "{kind}, {track}: {times:?}"
            );
        }
    }
}

/// Returns ffmpeg's name of the format.
fn format_of(kind: &str) -> &str {
    match kind {
        "mkv" => "matroska",
        "ts" => "mpegts",
        kind => kind,
    }
}
