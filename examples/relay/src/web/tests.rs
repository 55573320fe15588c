// SPDX-License-Identifier: MPL-2.0

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::rendezvous::Placement;

/// A server of a directory with a stream, on a thread of its own.
struct TestServer {
    address: SocketAddr,
    site: Arc<Site>,
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestServer {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir_all(path.join("live/ann/cam")).unwrap();
        for name in ["index.m3u8", "1.ts", ".hidden.ts", "index.html", "2.ts.tmp"] {
            std::fs::write(path.join("live/ann/cam").join(name), "0123456789").unwrap();
        }
        std::fs::write(path.join("secret.ts"), "outside of it").unwrap();
        let catalog = Arc::new(Catalog::new().0);
        let site = Arc::new(Site {
            catalog: catalog.clone(),
            directory: path.to_owned(),
            base: Url::parse("https://video.example/tv/").unwrap(),
            hls_js: Some(Bytes::from("hls")),
            health: Arc::new(Health::new(path.to_owned(), catalog)),
            deliveries: Arc::default(),
            reconnect: Arc::new(Reconnect::new(Placement::default())),
        });
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let served = site.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(socket.local_addr().unwrap()).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                serve(socket, served, stopped).await.unwrap();
            });
        });
        TestServer {
            address: receiver.recv().unwrap(),
            site,
            directory,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns status, headers in lower case, and body.
    fn ask(&self, method: &str, path: &str, more: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.ask("GET", path, "")
    }

    fn json(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn name(user: Option<&str>, stream: &str) -> StreamName {
    StreamName::new("live", user, stream).unwrap()
}

#[test]
fn names_are_encoded_in_urls() {
    let base = Url::parse("https://video.example/tv/").unwrap();
    let address = |name: &StreamName| playlist(&base, name).to_string();
    assert_eq!(
        address(&name(Some("ann"), "cam")),
        "https://video.example/tv/hls/live/ann/cam/index.m3u8"
    );
    assert_eq!(
        address(&name(None, "a b%?#é")),
        "https://video.example/tv/hls/live/a%20b%25%3F%23%C3%A9/index.m3u8"
    );
}

#[test]
fn the_files_of_a_stream_are_served_with_their_types() {
    let served = TestServer::new();
    let (status, head, body) = served.get("/hls/live/ann/cam/index.m3u8");
    assert_eq!((status, body.as_str()), (200, "0123456789"));
    for line in [
        "content-type: application/vnd.apple.mpegurl",
        "cache-control: no-cache",
        "access-control-allow-origin: *",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert!(!head.contains("etag") && !head.contains("last-modified"));
    let (status, head, body) = served.ask("GET", "/hls/live/ann/cam/1.ts", "Range: bytes=2-4\r\n");
    assert_eq!((status, body.as_str()), (206, "234"));
    assert!(head.contains("content-type: video/mp2t"), "{head}");
    assert!(head.contains("immutable"), "{head}");
    let (status, _, body) = served.ask("HEAD", "/hls/live/ann/cam/1.ts", "");
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, head, _) = served.ask("OPTIONS", "/hls/live/ann/cam/1.ts", "");
    assert_eq!(status, 204);
    assert!(head.contains("access-control-allow-methods: get, head"));
}

#[test]
fn the_url_of_a_stream_with_any_name_leads_to_it() {
    let served = TestServer::new();
    let names = [
        "a b",
        "50%",
        "50%25",
        "%2e%2f",
        "what?#",
        "é",
        "a&b=c;d+e",
        "x.y",
    ];
    for stream in names {
        let name = name(None, stream);
        let directory = served.directory.path().join(name.directory());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(PLAYLIST), stream).unwrap();
        served.site.catalog.add(&name);
        let (_, value) = served.json("/streams");
        let path = value["streams"][0]["path"].as_str().unwrap();
        let (status, _, body) = served.get(&format!("/{path}"));
        assert_eq!((status, body.as_str()), (200, stream), "{path}");
        served.site.catalog.remove(&name);
    }
}

#[test]
fn a_playlist_is_always_sent_whole() {
    let served = TestServer::new();
    let conditions = "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\nRange: bytes=2-4\r\n";
    let (status, _, body) = served.ask("GET", "/hls/live/ann/cam/index.m3u8", conditions);
    assert_eq!((status, body.as_str()), (200, "0123456789"));
}

#[test]
fn no_other_file_of_the_disk_is_served() {
    let served = TestServer::new();
    std::os::unix::fs::symlink("/etc", served.directory.path().join("live/etc")).unwrap();
    for path in [
        "/hls",
        "/hls/",
        "/hls/live/",
        "/hls/live/ann/cam",
        "/hls/live/ann/cam/",
        "/hls/live/ann/cam/index.html",
        "/hls/live/ann/cam/.hidden.ts",
        "/hls/live/ann/cam/%2ehidden.ts",
        "/hls/live/ann/cam/2.ts.tmp",
        "/hls/live/../secret.ts",
        "/hls/live/%2e%2e/secret.ts",
        "/hls/live/..%2fsecret.ts",
        "/hls/..%2f..%2fetc/passwd",
        "/hls/live/etc/passwd",
        "/hls/live/ann/cam/gone.ts",
        "/nowhere",
    ] {
        let (status, head, body) = served.get(path);
        assert_eq!(status, 404, "{path}");
        assert!(body.is_empty(), "{path}: {body}");
        assert!(!head.contains("immutable"), "{path}");
    }
    let (status, ..) = served.ask("PUT", "/hls/live/ann/cam/1.ts", "Content-Length: 0\r\n");
    assert_eq!(status, 405);
    let (status, ..) = served.ask("POST", "/streams", "Content-Length: 0\r\n");
    assert_eq!(status, 405);
}

#[test]
fn the_page_loads_nothing_from_other_sites() {
    let served = TestServer::new();
    let (status, head, body) = served.get("/");
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"));
    // Neither from other sites nor from the root of a site that it may be a part of.
    for start in ["src=\"", "href=\""] {
        for rest in body.split(start).skip(1) {
            assert!(
                !rest.starts_with("http") && !rest.starts_with('/'),
                "{rest}"
            );
        }
    }
    for path in ["/page.js", "/page.css", "/hls.js"] {
        let (status, head, body) = served.get(path);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("nosniff") && !body.is_empty());
    }
}

#[test]
fn streams_are_listed_with_their_state() {
    let served = TestServer::new();
    assert_eq!(
        served.json("/streams").1,
        serde_json::json!({ "streams": [] })
    );
    let catalog = &served.site.catalog;
    catalog.add(&name(Some("ann"), "cam"));
    catalog.add(&name(None, "cam"));
    catalog.update(&name(Some("ann"), "cam"), |stream| {
        stream.is_ready = true;
        stream.counts.segments = 3;
    });
    let (status, value) = served.json("/streams");
    assert_eq!(status, 200);
    let streams = value["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2);
    assert_eq!(streams[0]["user"], Value::Null);
    assert_eq!(streams[0]["ready"], false);
    let ann = &streams[1];
    assert_eq!(ann["path"], "hls/live/ann/cam/index.m3u8");
    assert_eq!(
        ann["playlist"],
        "https://video.example/tv/hls/live/ann/cam/index.m3u8"
    );
    assert_eq!((&ann["ready"], &ann["segments"]), (&true.into(), &3.into()));
    assert!(ann["seconds"].as_f64().unwrap() >= 0.0);
}

#[test]
fn health_reports_problems() {
    let served = TestServer::new();
    assert_eq!(
        served.json("/health"),
        (200, serde_json::json!({ "status": "ok" }))
    );
    let problem = "the listener is gone".to_owned();
    served.site.health.set("rtmp", Some(problem.clone()));
    let (status, value) = served.json("/health");
    assert_eq!((status, &value["problems"]["rtmp"]), (503, &problem.into()));
    let (_, _, metrics) = served.get("/metrics");
    assert!(metrics.contains("\nrelay_healthy 0\n"), "{metrics}");
}

#[test]
fn metrics_cover_the_present_streams() {
    let served = TestServer::new();
    let catalog = &served.site.catalog;
    let other = name(None, "quote\"d");
    for name in [&name(Some("ann"), "cam"), &other] {
        catalog.add(name);
        catalog.update(name, |stream| stream.counts.frames_in = 7);
    }
    let (status, head, text) = served.get("/metrics");
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    for line in [
        "relay_stream_frames_received_total{application=\"live\",stream=\"cam\",user=\"ann\"} 7",
        "relay_stream_frames_received_total{application=\"live\",stream=\"quote\\\"d\",user=\"\"} 7",
        "relay_streams 2",
        "relay_frames_received_total 14",
        "relay_notifications_total{outcome=\"delivered\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    catalog.remove(&other);
    let (_, _, text) = served.get("/metrics");
    assert!(!text.contains("quote"));
    assert!(
        text.contains("\nrelay_frames_received_total 14\n"),
        "{text}"
    );
    assert!(text.contains("\nrelay_streams_total 2\n"), "{text}");
}
