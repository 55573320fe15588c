// SPDX-License-Identifier: MPL-2.0

//! A camera that publishes at its own pace, and reconnects after its connection was lost.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::message::type_id;

use super::flv::Tag;
use super::raw::RawClient;
use super::synthetic::{keyframe, video_header};
use super::wire::Wire;

/// Interval of frames, each of which can be decoded by itself.
pub const STEP: Duration = Duration::from_millis(20);

/// Bytes before the payload of a frame, which starts with its number.
const FRONT: usize = 5;

/// Bytes of a frame.
const LENGTH: usize = 500;

#[derive(Debug)]
pub struct Camera {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

/// The experience of a camera. Frames are identified by their timestamps, in steps of [`STEP`].
#[derive(Debug, Default)]
pub struct Report {
    /// Frames that were due, with or without a connection.
    pub frames: u32,
    /// The time at which each of them was sent, or would have been.
    pub sent: Vec<Instant>,
    /// Frames that had no connection.
    pub unsent: Vec<u32>,
    /// Connections that the server or the network ended: the frame then, and the time until it
    /// published again.
    pub reconnects: Vec<(u32, Duration)>,
}

impl Camera {
    /// `reconnects_when_asked`: it knows the reconnect request of Enhanced RTMP.
    pub fn start(port: u16, key: &str, reconnects_when_asked: bool) -> Self {
        Self::start_from(Ipv4Addr::LOCALHOST, port, key, reconnects_when_asked)
    }

    /// Starts a camera at another address of this machine.
    pub fn start_from(
        address: Ipv4Addr,
        port: u16,
        key: &str,
        reconnects_when_asked: bool,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let key = key.to_owned();
        let thread = std::thread::spawn(move || {
            let mut worker = Worker {
                address,
                port,
                key,
                reconnects_when_asked,
                start: Instant::now(),
                report: Report::default(),
            };
            worker.run(&stopped);
            worker.report
        });
        Camera { stop, thread }
    }

    /// Ends its stream, and returns its report.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Worker {
    address: Ipv4Addr,
    port: u16,
    key: String,
    reconnects_when_asked: bool,
    start: Instant,
    report: Report,
}

impl Worker {
    fn run(&mut self, stop: &AtomicBool) {
        let mut client = self.connect();
        while !stop.load(Ordering::Relaxed) {
            let index = self.report.frames;
            let due = self.start + STEP * index;
            // The pace of the camera.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.report.frames += 1;
            self.report.sent.push(Instant::now());
            let frame = frame(index);
            if is_gone(&client.socket) || write(&mut client, &frame).is_err() {
                client = self.reconnect(index);
                // Frames that were due meanwhile are lost.
                let now = (self.start.elapsed().as_nanos() / STEP.as_nanos()) as u32;
                self.report.unsent.extend(index..now);
                self.report.frames = self.report.frames.max(now);
                let sent = self.report.frames as usize;
                self.report.sent.resize(sent, Instant::now());
            } else if self.reconnects_when_asked && self.is_asked(&mut client) {
                // It ends its stream, and goes on elsewhere.
                end(&mut client);
                client = self.reconnect(index + 1);
            }
        }
        end(&mut client);
    }

    fn connect(&self) -> RawClient {
        loop {
            if let Some(client) = self.try_connect() {
                return client;
            }
            // As encoders do.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn reconnect(&mut self, index: u32) -> RawClient {
        let start = Instant::now();
        let client = self.connect();
        self.report.reconnects.push((index, start.elapsed()));
        client
    }

    fn try_connect(&self) -> Option<RawClient> {
        let mut client = RawClient::over(connect_from(self.address, self.port).ok()?);
        let caps = if self.reconnects_when_asked { 1.0 } else { 0.0 };
        client.try_publish_with("live", &self.key, caps)?;
        let header = video_header(0);
        write(&mut client, &header).ok()?;
        Some(client)
    }

    fn is_asked(&self, client: &mut RawClient) -> bool {
        client.socket.set_nonblocking(true).unwrap();
        let message = client.read_message();
        client.socket.set_nonblocking(false).unwrap();
        message.ok().flatten().is_some_and(|message| {
            let body = message.payload.body();
            message.type_id == type_id::COMMAND_AMF0
                && String::from_utf8_lossy(body).contains("ReconnectRequest")
        })
    }
}

fn connect_from(address: Ipv4Addr, port: u16) -> rustix::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(address, 0))?;
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(socket.into())
}

/// Returns the frame of this number.
pub fn frame(index: u32) -> Tag {
    let mut tag = keyframe(index * STEP.as_millis() as u32, LENGTH);
    tag.body[FRONT..FRONT + 4].copy_from_slice(&index.to_be_bytes());
    tag
}

fn write(client: &mut RawClient, tag: &Tag) -> std::io::Result<()> {
    let bytes = Wire::of(tag).absolute(tag).concat();
    std::io::Write::write_all(&mut client.socket, &bytes)
}

fn end(client: &mut RawClient) {
    let unpublish = [Value::Null, "key".into()];
    let _ = client.try_command(0, "FCUnpublish", 0.0, &unpublish);
    let _ = client.socket.shutdown(std::net::Shutdown::Write);
    while let Ok(Some(_)) = client.read_message() {}
}

/// Returns whether the server or the network has closed the connection.
fn is_gone(socket: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&at_once)), Ok(1..))
}

/// Returns the number of a frame, whatever its timestamp is now.
pub fn index_of(tag: &Tag) -> u32 {
    let front = &tag.body[FRONT..FRONT + 4];
    u32::from_be_bytes([front[0], front[1], front[2], front[3]])
}
