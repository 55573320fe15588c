// SPDX-License-Identifier: MPL-2.0

//! Everyday mistakes, and the exact lines that both sides see. The expected text of each case is in
//! `tests/transcripts`, for people to review. `UPDATE_TRANSCRIPTS=1` writes it again.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use rcgen::generate_simple_self_signed;
use rustix::process::Signal;

use support::clients::{FFMPEG, publish};
use support::launch::plugin_folder;
use support::media::small;
use support::ports::reserved_port;
use support::program::Program;
use support::raw::{RawClient, unpublish};
use support::repository;

/// HMAC-SHA256 of `live/camera1?expires=1700000000` with the key of the pipeline that asks for one.
const EXPIRED: &str = "36c76831040bc7080ada744b3bfb2046453f33cd5eb9b57685ab3dfdc73d3deb";

/// Pipelines at a time. Each takes a second of a processor.
const PARALLEL: usize = 6;

/// A publisher of a case.
enum Client {
    /// The pipeline ends by itself.
    None,
    /// ffmpeg publishes a file of so many seconds to this URL, where PORT is the port.
    Ffmpeg(u32, &'static str),
    /// Bytes on a connection.
    Bytes(&'static [u8]),
    /// A client that does this, and its description.
    Raw(&'static str, fn(u16)),
    /// The same after a publisher of live/camera1, which stays.
    Second(Box<Client>),
}

struct Case {
    name: &'static str,
    pipeline: &'static str,
    client: Client,
    /// Text that gst-launch-1.0 prints last. Without it the pipeline is awaited.
    until: &'static str,
}

fn cases() -> Vec<Case> {
    use Client::{Bytes, Ffmpeg, None, Raw, Second};
    let case = |name, pipeline, client, until| Case {
        name,
        pipeline,
        client,
        until,
    };
    const CAMERA: &str = "rtmp2serversrc host=127.0.0.1 port=0 application=live stream-key=camera1 \
                          keep-listening=true ! fakesink";
    const ANY: &str = "rtmp2serversrc host=127.0.0.1 port=0 keep-listening=true ! fakesink";
    const PASSWORD: &str = "rtmp2serversrc host=127.0.0.1 port=0 application=live authmod=adobe \
                            username=studio password=secret keep-listening=true ! fakesink";
    const SECURE: &str = "rtmp2serversrc host=127.0.0.1 port=0 keep-listening=true \
                          certificate-file=FOLDER/certificate.pem \
                          private-key-file=FOLDER/key.pem ! fakesink";
    const SIGNED: &str = "rtmp2serversrc host=127.0.0.1 port=0 application=live \
                          signing-key=an-example-of-a-key keep-listening=true ! fakesink";
    vec![
        case(
            "everything-right",
            CAMERA,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "has ended after",
        ),
        case(
            "wrong-stream-key",
            CAMERA,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera2"),
            "Refused",
        ),
        case(
            "wrong-case-of-application",
            CAMERA,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/Live/camera1"),
            "Refused",
        ),
        case(
            "missing-application",
            CAMERA,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/camera1"),
            "Refused",
        ),
        case(
            "wrong-password",
            PASSWORD,
            Ffmpeg(1, "rtmp://studio:wrong@127.0.0.1:PORT/live/camera1"),
            "Refused",
        ),
        case(
            "no-password",
            PASSWORD,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "has left when",
        ),
        case(
            "url-expired",
            SIGNED,
            Ffmpeg(
                1,
                "rtmp://127.0.0.1:PORT/live/camera1?expires=1700000000&signature=SIGNATURE",
            ),
            "Refused",
        ),
        case(
            "url-not-signed",
            SIGNED,
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "Refused",
        ),
        case(
            "authorization-server-down",
            "rtmp2serversrc host=127.0.0.1 port=0 keep-listening=true \
             auth-url=http://127.0.0.1:FREE/auth ! fakesink",
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "Refused",
        ),
        case(
            "codec-not-accepted",
            "rtmp2serversrc host=127.0.0.1 port=0 accepted-codecs=h265,aac keep-listening=true \
             ! fakesink",
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "has ended after",
        ),
        case(
            "demuxer-not-linked",
            "rtmp2serversrc host=127.0.0.1 port=0 ! eflvdemux name=d",
            Ffmpeg(4, "rtmp://127.0.0.1:PORT/live/camera1"),
            "",
        ),
        case(
            "bin-not-linked",
            "rtmp2serverbin host=127.0.0.1 port=0",
            Ffmpeg(4, "rtmp://127.0.0.1:PORT/live/camera1"),
            "",
        ),
        case(
            "multi-not-linked",
            "rtmp2multiserversrc host=127.0.0.1 port=0",
            Ffmpeg(4, "rtmp://127.0.0.1:PORT/live/camera1"),
            "has ended after",
        ),
        case(
            "port-in-use-by-another-program",
            "rtmp2serversrc host=127.0.0.1 port=TAKEN ! fakesink",
            None,
            "",
        ),
        case(
            "port-in-use-by-an-element-of-another-host",
            "rtmp2serversrc host=0.0.0.0 port=FREE ! fakesink rtmp2serversrc host=127.0.0.1 \
             port=FREE ! fakesink",
            None,
            "",
        ),
        case(
            "route-claimed-twice",
            "rtmp2serversrc host=127.0.0.1 port=FREE application=live ! fakesink rtmp2serversrc \
             host=127.0.0.1 port=FREE application=live ! fakesink",
            None,
            "",
        ),
        case(
            "tls-on-a-plain-port",
            ANY,
            Bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello"),
            "Closed",
        ),
        case(
            "http-on-a-plain-port",
            ANY,
            Bytes(b"GET / HTTP/1.1\r\n\r\n"),
            "Closed",
        ),
        case(
            "rtmp-on-a-tls-port",
            SECURE,
            Raw("sends plain RTMP", |port| {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let _ = socket.write_all(&[&[3][..], &[0; 1536]].concat());
                let _ = socket.read_to_end(&mut Vec::new());
            }),
            "Closed",
        ),
        case(
            "http-on-a-tls-port",
            SECURE,
            Bytes(b"GET / HTTP/1.1\r\n\r\n"),
            "Closed",
        ),
        case(
            "certificate-file-missing",
            "rtmp2serversrc host=127.0.0.1 port=0 certificate-file=FOLDER/none.pem ! fakesink",
            None,
            "",
        ),
        case(
            "certificate-file-without-certificate",
            "rtmp2serversrc host=127.0.0.1 port=0 certificate-file=FOLDER/key.pem ! fakesink",
            None,
            "",
        ),
        case(
            "private-key-without-certificate",
            "rtmp2serversrc host=127.0.0.1 port=0 private-key-file=FOLDER/key.pem ! fakesink",
            None,
            "",
        ),
        case(
            "rtmps-location-without-certificate",
            "rtmp2serversrc location=rtmps://127.0.0.1:0/live/camera1 ! fakesink",
            None,
            "",
        ),
        case(
            "location-of-another-protocol",
            "rtmp2serversrc location=http://127.0.0.1:0/live/camera1 ! fakesink",
            None,
            "",
        ),
        case(
            "address-not-allowed",
            "rtmp2serversrc host=127.0.0.1 port=0 allowed-addresses=192.0.2.0/24,::1 ! fakesink",
            Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"),
            "Closed",
        ),
        case(
            "network-that-is-none",
            "rtmp2serversrc host=127.0.0.1 port=0 allowed-addresses=192.0.2.0/33 ! fakesink",
            None,
            "",
        ),
        case(
            "already-publishing",
            "rtmp2serversrc host=127.0.0.1 port=0 publisher-policy=reject stall-timeout=0 ! fakesink",
            Second(Box::new(Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"))),
            "Refused",
        ),
        case(
            "too-many-clients",
            "rtmp2serversrc host=127.0.0.1 port=0 max-clients=1 stall-timeout=0 ! fakesink",
            Second(Box::new(Ffmpeg(1, "rtmp://127.0.0.1:PORT/live/camera1"))),
            "Closed",
        ),
        case(
            "property-misspelt",
            "rtmp2serversrc steam-key=camera1 ! fakesink",
            None,
            "",
        ),
        case(
            "codec-misspelt",
            "rtmp2serversrc host=127.0.0.1 port=0 accepted-codecs=h264,acc ! fakesink",
            None,
            "",
        ),
        case(
            "password-without-authmod",
            "rtmp2serversrc host=127.0.0.1 port=0 username=studio password=secret ! fakesink",
            None,
            "",
        ),
        case(
            "publisher-without-media",
            CAMERA,
            Raw("publishes live/camera1 and sends nothing", |port| {
                unpublish(RawClient::publish(port, "live", "camera1"));
            }),
            "has ended after",
        ),
        case(
            "publisher-too-slow",
            "rtmp2serversrc host=127.0.0.1 port=0 handshake-timeout=300 ! fakesink",
            Bytes(&[3]),
            "Closed",
        ),
        case(
            "load-balancer-not-expected",
            ANY,
            Bytes(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 1935\r\n"),
            "Closed",
        ),
        case(
            "load-balancer-missing",
            "rtmp2serversrc host=127.0.0.1 port=0 proxy-protocol=v1 ! fakesink",
            Raw("sends RTMP without a PROXY header", |port| {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let _ = socket.write_all(&[&[3][..], &[0; 1536]].concat());
                let _ = socket.read_to_end(&mut Vec::new());
            }),
            "Closed",
        ),
    ]
}

/// Files and environment that all cases share.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let files = [
            ("certificate.pem", key.cert.pem()),
            ("key.pem", key.signing_key.serialize_pem()),
        ];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let stage = Stage { folder };
        // One scan of all plugins instead of one for each pipeline.
        let scan = stage
            .command("gst-inspect-1.0")
            .arg("rtmp2serversrc")
            .output();
        assert!(scan.unwrap().status.success());
        stage
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("GST_PLUGIN_PATH", plugin_folder())
            .env("GST_REGISTRY", self.folder.path().join("registry.bin"))
            .env("LC_ALL", "C")
            .env_remove("GST_DEBUG");
        command
    }

    /// Runs a case, and returns the lines of both sides.
    fn run(&self, case: &Case) -> String {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken = (taken.local_addr().unwrap().port(), taken);
        let (reserved, free) = reserved_port();
        drop(reserved);
        let path = self.folder.path().display().to_string();
        let pipeline = case
            .pipeline
            .replace("TAKEN", &taken.0.to_string())
            .replace("FREE", &free.to_string())
            .replace("FOLDER", &path);
        // One pipe for both, so that lines keep their order.
        let mut command = self.command("sh");
        command.args(["-c", "exec gst-launch-1.0 \"$@\" 2>&1", "gst-launch-1.0"]);
        command
            .args(pipeline.split_whitespace())
            .stdin(Stdio::null());
        let mut launch = Program::start(command.stdout(Stdio::piped()));
        let mut port = 0;
        let mut client = String::new();
        let mut first = None;
        if !matches!(case.client, Client::None) {
            let listening = launch.rest_after("Listening: publish to ");
            port = port_of(&listening);
            if matches!(case.client, Client::Second(_)) {
                first = Some(RawClient::publish(port, "live", "camera1"));
            }
            client = run_client(&case.client, port);
        }
        if !case.until.is_empty() {
            launch.wait_for(case.until);
            launch.signal(Signal::INT);
        }
        launch.wait();
        drop(first);
        let mut text = format!("$ gst-launch-1.0 {}\n", squeezed(case.pipeline));
        for line in launch.output().lines().filter(|line| is_told(line)) {
            let line = line.replace(&path, "FOLDER");
            let line = [port, taken.0, free]
                .iter()
                .fold(line, |line, port| match port {
                    0 => line,
                    port => line.replace(&format!(":{port}"), ":PORT"),
                });
            writeln!(text, "{}", without_numbers(&line)).unwrap();
        }
        text + &client
    }
}

fn port_of(listening: &str) -> u16 {
    let (_, rest) = listening.split_once("://127.0.0.1:").unwrap();
    let end = rest.find('/').unwrap();
    rest[..end].parse().unwrap()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn run_client(client: &Client, port: u16) -> String {
    match client {
        Client::None => String::new(),
        Client::Ffmpeg(seconds, url) => {
            let actual = url.replace("PORT", &port.to_string());
            let actual = actual.replace("SIGNATURE", EXPIRED);
            let output = publish(FFMPEG, &small(*seconds), false, &actual).wait();
            let lines = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut text = format!("\n$ ffmpeg -i FILE -c copy -f flv {url}\n");
            // The other lines differ between versions.
            for line in lines.lines() {
                if let Some(at) = line.find("Server error") {
                    writeln!(text, "{}", &line[at..]).unwrap();
                }
            }
            let end = if output.status.success() {
                "succeeds"
            } else {
                "fails"
            };
            text + &format!("(it {end})\n")
        }
        Client::Bytes(bytes) => {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = socket.write_all(bytes);
            // A TLS alert may come first.
            let _ = socket.read_to_end(&mut Vec::new());
            format!("\n(a client sends \"{}\")\n", bytes.escape_ascii())
        }
        Client::Raw(description, act) => {
            act(port);
            format!("\n(a client {description})\n")
        }
        Client::Second(second) => {
            let text = run_client(second, port);
            format!("\n(a client publishes live/camera1)\n{text}")
        }
    }
}

/// Returns false for lines about gst-launch-1.0 itself, and for places in the source code.
fn is_told(line: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "Setting pipeline",
        "Pipeline is",
        "New clock",
        "Redistribute latency",
        "handling interrupt",
        "Interrupt: ",
        "Execution ended",
        "Got EOS",
        "Prerolled",
        "Freeing pipeline",
        "Stopping pipeline",
        "Use Windows",
        "Additional debug info",
        "Failed to set pipeline",
        "Got context",
        // Its other lines about an element that does not start depend on its version.
        "ERROR: pipeline doesn't want",
        "Failed to start",
    ];
    let is_place = line.contains(".rs(") || line.contains(".c(") || line.contains(".cpp(");
    let is_other = OTHERS.iter().any(|start| line.starts_with(*start));
    let is_general = line.contains("some element failed to post a proper error message");
    !line.trim().is_empty() && !is_place && !is_other && !is_general
}

/// Replaces times in seconds, and the version of ffmpeg.
fn without_numbers(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for index in 1..words.len() {
        let unit = words[index].trim_end_matches([',', '.', ':']);
        if unit == "s" && words[index - 1].parse::<f64>().is_ok() {
            words[index - 1] = "N".into();
        }
    }
    for word in &mut words {
        if word.starts_with("(Lavf") {
            let end = word.find(')').unwrap_or(word.len());
            word.replace_range(..end, "(Lavf...");
        }
    }
    words.join(" ")
}

fn folder() -> PathBuf {
    repository().join("tests/transcripts")
}

fn check(path: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(path, text).unwrap();
        return Ok(());
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    match expected == text {
        true => Ok(()),
        false => Err(format!(
            "{} differs.\n--- expected\n{expected}\n--- now\n{text}",
            path.display()
        )),
    }
}

#[test]
fn both_sides_of_everyday_mistakes_see_the_reviewed_lines() {
    let stage = Stage::new();
    let waiting = Mutex::new(cases());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    let text = stage.run(&case);
                    let path = folder().join(format!("{}.txt", case.name));
                    failed.lock().unwrap().extend(check(&path, &text).err());
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
