// SPDX-License-Identifier: MPL-2.0

//! A client that sends exactly the bytes of the test.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::Headroom;
use gstrtmp2server::internal::rtmp::chunk::{
    BasicHeader, ChunkReader, ChunkWriter, MessageHeader, ReaderLimits,
};
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::control::Control;
use gstrtmp2server::internal::rtmp::message::{Message, type_id};

use super::PATIENCE;
use super::flv::Tag;
use super::wire::Wire;

#[derive(Debug)]
pub struct RawClient {
    pub socket: TcpStream,
    /// The writer of messages that are sent in the plain way.
    pub writer: ChunkWriter,
    reader: ChunkReader,
    input: Vec<u8>,
}

impl RawClient {
    /// Connects, and does nothing more.
    pub fn connect(port: u16) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// A client on an existing connection.
    pub fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        RawClient {
            socket,
            writer: ChunkWriter::default(),
            reader: ChunkReader::new(ReaderLimits::default(), Headroom::default()),
            input: Vec::new(),
        }
    }

    /// Completes the simple handshake.
    pub fn handshake(&mut self) -> &mut Self {
        self.try_handshake().unwrap();
        self
    }

    pub fn try_handshake(&mut self) -> io::Result<()> {
        let mut c0_c1 = vec![3];
        c0_c1.extend([0; 1536]);
        self.socket.write_all(&c0_c1)?;
        let mut reply = [0; 1 + 2 * 1536];
        self.socket.read_exact(&mut reply)?;
        assert_eq!(reply[0], 3);
        self.socket.write_all(&reply[1..1537])
    }

    /// Connects to an application and publishes; panics if that is refused.
    pub fn publish(port: u16, application: &str, stream_key: &str) -> Self {
        let mut client = Self::connect(port);
        client.handshake();
        client.connect_application(application);
        client.expect_command("_result");
        client.command(0, "createStream", 2.0, &[Value::Null]);
        client.expect_command("_result");
        client.command(
            1,
            "publish",
            3.0,
            &[Value::Null, stream_key.into(), "live".into()],
        );
        let status = client.expect_command("onStatus");
        assert_eq!(code(&status), "NetStream.Publish.Start", "{status:?}");
        client
    }

    /// Publishes; returns `None` if that is refused or the connection ends.
    pub fn try_publish(&mut self, application: &str, stream_key: &str) -> Option<()> {
        self.try_publish_with(application, stream_key, 0.0)
    }

    /// Publishes with these bits of `capsEx`.
    pub fn try_publish_with(&mut self, application: &str, key: &str, caps: f64) -> Option<()> {
        self.try_handshake().ok()?;
        let object = Value::Object(vec![
            ("app".into(), application.into()),
            ("capsEx".into(), caps.into()),
        ]);
        self.try_command(0, "connect", 1.0, &[object]).ok()?;
        self.try_expect_command("_result")?;
        let arguments = [Value::Null, key.into()];
        self.try_command(1, "publish", 2.0, &arguments).ok()?;
        let status = self.try_expect_command("onStatus")?;
        (code(&status) == "NetStream.Publish.Start").then_some(())
    }

    pub fn connect_application(&mut self, application: &str) -> &mut Self {
        let object = Value::Object(vec![
            ("app".into(), application.into()),
            ("tcUrl".into(), "rtmp://127.0.0.1/".into()),
        ]);
        self.command(0, "connect", 1.0, &[object])
    }

    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.socket.write_all(bytes).unwrap();
        self
    }

    pub fn command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        arguments: &[Value],
    ) -> &mut Self {
        self.try_command(msid, name, transaction, arguments)
            .unwrap();
        self
    }

    pub fn try_command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        arguments: &[Value],
    ) -> io::Result<()> {
        let body = Command::new(name, transaction, arguments.to_vec()).write();
        let mut bytes = Vec::new();
        self.writer
            .write(&mut bytes, 3, type_id::COMMAND_AMF0, msid, &body);
        self.socket.write_all(&bytes)
    }

    /// Sends a message at time 0 with a type 0 header.
    pub fn message(&mut self, csid: u32, type_id: u8, msid: u32, body: &[u8]) -> &mut Self {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, csid, type_id, msid, body);
        self.send(&bytes)
    }

    /// Announces and uses another chunk size.
    pub fn set_chunk_size(&mut self, size: u32) -> &mut Self {
        self.message(2, type_id::SET_CHUNK_SIZE, 0, &size.to_be_bytes());
        self.writer.set_chunk_size(size);
        self
    }

    /// Sends media with a type 0 header, cut into chunks of this size.
    pub fn media(&mut self, kind: u8, timestamp: u32, body: &[u8], chunk_size: usize) -> &mut Self {
        let bytes = media_chunks(kind, timestamp, body, chunk_size);
        self.send(&bytes)
    }

    /// Returns the next message of the server, or `None` when it has closed the connection.
    pub fn next_message(&mut self) -> Option<Message> {
        self.read_message().unwrap()
    }

    /// Returns the next message; for a client that tolerates a lost connection.
    pub fn read_message(&mut self) -> io::Result<Option<Message>> {
        loop {
            let mut input = &self.input[..];
            let message = self.reader.read(&mut input).unwrap();
            let used = self.input.len() - input.len();
            self.input.drain(..used);
            if message.is_some() {
                return Ok(message);
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer)? {
                0 => return Ok(None),
                count => self.input.extend(&buffer[..count]),
            }
        }
    }

    pub fn control(&mut self, control: Control) -> &mut Self {
        let (type_id, body) = control.write();
        self.message(2, type_id, 0, &body)
    }

    /// Returns the timestamp of the next ping.
    #[track_caller]
    pub fn expect_ping(&mut self) -> u32 {
        while let Some(message) = self.next_message() {
            let control = Control::read(message.type_id, message.payload.body());
            if let Some(Control::PingRequest(timestamp)) = control {
                return timestamp;
            }
        }
        panic!("no ping came");
    }

    /// Returns the next command with this name, if there is one before the connection ends.
    pub fn try_expect_command(&mut self, name: &str) -> Option<Command> {
        while let Ok(Some(message)) = self.read_message() {
            if message.type_id == type_id::COMMAND_AMF0 {
                let command = Command::read(message.payload.body()).unwrap();
                if command.name == name {
                    return Some(command);
                }
            }
        }
        None
    }

    /// Returns the next command with this name; other commands and control messages are skipped.
    #[track_caller]
    pub fn expect_command(&mut self, name: &str) -> Command {
        let mut seen = Vec::new();
        while let Some(message) = self.next_message() {
            if message.type_id != type_id::COMMAND_AMF0 {
                continue;
            }
            let command = Command::read(message.payload.body()).unwrap();
            if command.name == name {
                return command;
            }
            seen.push(command);
        }
        panic!("{name} did not come, but {seen:?}");
    }
}

/// Sends tags, each with a type 0 header.
pub fn send(client: &mut RawClient, tags: &[Tag]) {
    try_send(client, tags).unwrap();
}

pub fn try_send(client: &mut RawClient, tags: &[Tag]) -> io::Result<()> {
    tags.iter().try_for_each(|tag| {
        let bytes = Wire::of(tag).absolute(tag).concat();
        client.socket.write_all(&bytes)
    })
}

/// Ends the stream on purpose, and waits until that is confirmed.
pub fn unpublish(mut client: RawClient) {
    client.command(1, "closeStream", 0.0, &[Value::Null]);
    client.expect_command("onStatus");
}

/// Returns the status code in an `onStatus` or `_error`.
pub fn code(command: &Command) -> &str {
    let mut objects = command.arguments.iter();
    objects
        .find_map(|object| object.get("code")?.as_str())
        .unwrap_or_default()
}

/// Returns media of message stream 1 on a chunk stream of its kind: a type 0 chunk and the type 3
/// chunks that continue it.
pub fn media_chunks(kind: u8, timestamp: u32, body: &[u8], chunk_size: usize) -> Vec<u8> {
    let csid = if kind == super::flv::VIDEO { 6 } else { 4 };
    let extended = timestamp >= 0xFF_FFFF;
    let mut bytes = Vec::new();
    let mut chunks = body.chunks(chunk_size);
    BasicHeader { fmt: 0, csid }.write(&mut bytes);
    MessageHeader {
        time: timestamp,
        extended,
        length_and_type: Some((body.len() as u32, kind)),
        msid: Some(1),
    }
    .write(&mut bytes);
    bytes.extend_from_slice(chunks.next().unwrap_or_default());
    for chunk in chunks {
        BasicHeader { fmt: 3, csid }.write(&mut bytes);
        if extended {
            bytes.extend(timestamp.to_be_bytes());
        }
        bytes.extend_from_slice(chunk);
    }
    bytes
}
