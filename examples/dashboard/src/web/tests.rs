// SPDX-License-Identifier: MPL-2.0

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::board::tests::{Scripted, board, stats};

const TOKEN: &str = "0123456789abcdef";

/// A server of a scripted program, on a thread that ends with the tests.
struct TestServer {
    address: SocketAddr,
    board: Arc<Board>,
    program: Arc<Scripted>,
}

impl TestServer {
    fn new(token: Option<&str>) -> Self {
        let (board, program) = board(token);
        let address = "127.0.0.1:0".parse().unwrap();
        // Its own samples are none that a test looks at.
        let router = router(&board);
        let socket = std::net::TcpListener::bind::<SocketAddr>(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let socket = TcpListener::from_std(socket).unwrap();
                axum::serve(socket, router).await.unwrap();
            });
        });
        TestServer {
            address,
            board,
            program,
        }
    }

    fn put(&self, streams: Vec<(&str, gst::Structure)>) {
        let streams = streams.into_iter();
        let streams = streams.map(|(name, stats)| (name.to_owned(), stats));
        *self.program.streams.lock().unwrap() = streams.collect();
    }

    /// Returns status, headers in lower case, and body.
    fn ask(&self, method: &str, path: &str, more: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n{more}\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn json(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask("GET", path, "");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn post(&self, path: &str, token: &str) -> u16 {
        let header = format!("Authorization: Bearer {token}\r\n");
        self.ask("POST", path, &header).0
    }
}

#[test]
fn the_page_loads_nothing_from_other_sites() {
    let served = TestServer::new(None);
    let (status, head, body) = served.ask("GET", "/", "");
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"));
    assert!(!body.contains("<!-- section -->") && !body.contains("TITLE"));
    for start in ["src=\"", "href=\""] {
        for rest in body.split(start).skip(1) {
            let is_elsewhere = rest.starts_with("http") || rest.starts_with('/');
            assert!(!is_elsewhere, "{rest}");
        }
    }
    for path in ["/dashboard.css", "/dashboard.js", "/card.js", "/plots.js"] {
        let (status, head, body) = served.ask("GET", path, "");
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("nosniff") && !body.is_empty());
    }
    // Without uPlot there are no plots.
    assert_eq!(served.ask("GET", "/uplot.js", "").0, 404);
    assert_eq!(served.json("/api/streams").1["plots"], false);
}

#[test]
fn streams_are_listed_with_their_samples() {
    let served = TestServer::new(None);
    let camera = stats(1, 2_000_000, 25.0)
        .field("address", "192.0.2.9:50000")
        .field("video-codec", "H.264")
        .field("width", 1280_u32)
        .field("height", 720_u32);
    served.put(vec![("live/a b", camera.build())]);
    for second in 1..=3 {
        served.board.sample(f64::from(second), Instant::now());
    }
    let (status, value) = served.json("/api/streams?after=1");
    assert_eq!(status, 200);
    assert_eq!(value["totals"]["active"], 1);
    assert_eq!(value["totals"]["bitrate"], 2_000_000);
    let stream = &value["streams"][0];
    let expected = serde_json::json!({
        "name": "live/a b", "state": "active", "since": 1.0, "bitrate": 2_000_000, "frame_rate": 25.0,
        "resolution": "1280x720", "video_codec": "H.264", "address": "192.0.2.9:50000", "thumbnail": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&stream[name], value, "{name}");
    }
    let columns = serde_json::json!({
        "time": [2.0, 3.0], "bitrate": [2_000_000, 2_000_000], "frame_rate": [25.0, 25.0], "state": [1, 1],
    });
    assert_eq!(stream["history"], columns);

    // Slashes may be escaped.
    for path in ["live/a%20b", "live%2Fa%20b"] {
        let (status, value) = served.json(&format!("/api/streams/{path}/history?after=1"));
        assert_eq!(status, 200);
        assert_eq!(value["name"], "live/a b");
        assert_eq!(value["time"], columns["time"]);
    }
    let whole = served.json("/api/streams/live/a%20b/history").1;
    assert_eq!(whole["time"].as_array().unwrap().len(), 3);
    assert_eq!(served.json("/api/streams/other/history").0, 404);
    assert_eq!(served.json("/api/streams/live/a%20b/thumbnail").0, 404);
    assert_eq!(served.json("/api/streams?after=x").0, 400);
}

#[test]
fn operators_need_the_token() {
    let served = TestServer::new(Some(TOKEN));
    served.put(vec![("a", stats(4, 0, 0.0).build())]);
    assert_eq!(served.json("/api/streams").1["actions"], true);
    for path in ["/api/drain", "/api/streams/a/disconnect"] {
        assert_eq!(served.post(path, "0123456789abcdeg"), 401);
        let (status, head, _) = served.ask("POST", path, "");
        assert_eq!(status, 401);
        assert!(head.contains("www-authenticate: bearer"), "{head}");
    }
    assert!(!served.program.is_drained.load(Ordering::Relaxed));
    assert_eq!(served.post("/api/streams/b/disconnect", TOKEN), 404);
    assert_eq!(served.post("/api/streams/a/explode", TOKEN), 404);
    // It is no publisher's.
    assert_eq!(served.post("/api/streams/a/disconnect", TOKEN), 409);
    assert_eq!(served.ask("GET", "/api/drain", "").0, 405);
    assert_eq!(served.post("/api/drain", TOKEN), 200);
    assert!(served.program.is_drained.load(Ordering::Relaxed));
    assert_eq!(served.json("/api/streams").1["draining"], true);
}

#[test]
fn nobody_acts_without_a_configured_token() {
    let served = TestServer::new(None);
    assert_eq!(served.json("/api/streams").1["actions"], false);
    for token in ["", TOKEN] {
        assert_eq!(served.post("/api/drain", token), 403);
    }
    assert!(!served.program.is_drained.load(Ordering::Relaxed));
}
