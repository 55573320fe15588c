// SPDX-License-Identifier: MPL-2.0

//! HTTP servers that answer as a test wants, on any free port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use support::PATIENCE;

/// A connection, over TLS or not.
pub(super) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Writes an answer to a question. An error ends the connection.
type Handler = dyn Fn(&Value, &mut dyn Stream) -> std::io::Result<()> + Send + Sync;

#[derive(Default)]
struct Seen {
    questions: Vec<Value>,
    /// Request lines and headers.
    heads: Vec<String>,
    connections: usize,
}

pub(super) struct HttpServer {
    port: u16,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

/// A complete response.
pub(super) fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl HttpServer {
    pub(super) fn start(
        handler: impl Fn(&Value, &mut dyn Stream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(None, Arc::new(handler))
    }

    /// Answers every question with this response.
    pub(super) fn answering(status: u16, body: &'static str) -> Self {
        Self::start(move |_, stream| stream.write_all(response(status, body).as_bytes()))
    }

    /// Answers every question with status 200, over TLS.
    pub(super) fn secure(config: ServerConfig) -> Self {
        let accept =
            |_: &Value, stream: &mut dyn Stream| stream.write_all(response(200, "").as_bytes());
        Self::start_with(Some(Arc::new(config)), Arc::new(accept))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let of_server = seen.clone();
        // It ends with the process.
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (seen, handler, tls) = (of_server.clone(), handler.clone(), tls.clone());
                let socket = socket.unwrap();
                seen.0.lock().unwrap().connections += 1;
                thread::spawn(move || {
                    let _ = serve(socket, tls, &seen, &*handler);
                });
            }
        });
        HttpServer { port, seen }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/auth", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for so many questions, and returns all of them.
    #[track_caller]
    pub(super) fn questions(&self, count: usize) -> Vec<Value> {
        let (seen, changed) = &*self.seen;
        let waited = changed.wait_timeout_while(seen.lock().unwrap(), PATIENCE, |seen| {
            seen.questions.len() < count
        });
        let (seen, timeout) = waited.unwrap();
        let present = seen.questions.len();
        assert!(!timeout.timed_out(), "{present} of {count} questions");
        seen.questions.clone()
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.seen.0.lock().unwrap().heads.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.0.lock().unwrap().connections
    }
}

fn serve(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    seen: &(Mutex<Seen>, Condvar),
    handler: &Handler,
) -> std::io::Result<()> {
    let stream: Box<dyn Stream> = match tls {
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
            Box::new(StreamOwned::new(connection, socket))
        }
        None => Box::new(socket),
    };
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let lower = head.to_lowercase();
        let length = lower.split("content-length:").nth(1).unwrap();
        let length = length.lines().next().unwrap().trim().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let question: Value = serde_json::from_slice(&body).unwrap();
        {
            let mut seen = seen.0.lock().unwrap();
            seen.questions.push(question.clone());
            seen.heads.push(head);
        }
        seen.1.notify_all();
        handler(&question, stream.get_mut())?;
    }
}
