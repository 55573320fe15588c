// SPDX-License-Identifier: MPL-2.0
//! A publisher: the dialogue up to NetStream.Publish.Start, the media, the end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::amf;
use crate::chunk::{COMMAND, ChunkReader, ChunkWriter, Header, INITIAL_CHUNK_SIZE};
use crate::media::{MSID, Stream};

/// Maximum wait for any answer; a server that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const HANDSHAKE_SIZE: usize = 1536;
const APPLICATION: &str = "live";
const COMMAND_CSID: u8 = 3;
const STREAM_CSID: u8 = 8;

/// Dialogue that a subject expects before the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialogue {
    Rtmp,
    /// Media from the first byte on, for subjects without a protocol.
    None,
}

pub struct Publisher {
    socket: TcpStream,
    dialogue: Dialogue,
    key: String,
}

impl Publisher {
    /// Connects, and returns once media may be written.
    pub fn connect(address: SocketAddr, dialogue: Dialogue, key: &str) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut publisher = Self {
            socket,
            dialogue,
            key: key.to_owned(),
        };
        if dialogue == Dialogue::Rtmp {
            publisher.handshake().context("handshake")?;
            publisher.publish().context("publish")?;
        }
        Ok(publisher)
    }

    /// Writes all of `stream`, its repeating part `repeats` times, as fast as the server reads.
    pub fn send(&mut self, stream: &Stream, repeats: u64) -> Result<()> {
        self.write(&stream.start.bytes)?;
        for _ in 0..repeats {
            self.write(&stream.repeat.bytes)?;
        }
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("writing media")
    }

    /// Ends as an encoder does.
    pub fn say_goodbye(&mut self, chunk_size: usize) {
        if self.dialogue == Dialogue::Rtmp {
            let mut farewell = Vec::new();
            let mut chunks = ChunkWriter::new(chunk_size);
            let unpublish = command("FCUnpublish", 6.0, |out| amf::string(out, &self.key));
            chunks.write(&mut farewell, COMMAND_CSID, 0, COMMAND, 0, &unpublish);
            let delete = command("deleteStream", 7.0, |out| amf::number(out, MSID.into()));
            chunks.write(&mut farewell, COMMAND_CSID, 0, COMMAND, 0, &delete);
            // A server may close at once on the first command.
            let _ = self.socket.write_all(&farewell);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Waits until the server has closed the connection, and so read everything.
    pub fn wait_for_close(mut self) -> Result<()> {
        let mut sink = [0; 4096];
        loop {
            match self.socket.read(&mut sink) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).context("waiting for the server to close"),
            }
        }
    }

    fn handshake(&mut self) -> Result<()> {
        let mut c0c1 = vec![0; 1 + HANDSHAKE_SIZE];
        c0c1[0] = 3;
        self.socket.write_all(&c0c1)?;
        let mut answer = vec![0; 1 + 2 * HANDSHAKE_SIZE];
        self.socket.read_exact(&mut answer)?;
        ensure!(answer[0] == 3, "version {}", answer[0]);
        self.socket.write_all(&answer[1..=HANDSHAKE_SIZE])?;
        Ok(())
    }

    /// Commands in ffmpeg's order, one write for each turn.
    fn publish(&mut self) -> Result<()> {
        let mut replies = Replies::default();
        let mut chunks = ChunkWriter::new(INITIAL_CHUNK_SIZE);
        let mut turn = Vec::new();

        let connect = command_with("connect", 1.0, |out| {
            amf::object(out, |object| {
                object.string("app", APPLICATION);
                object.string("type", "nonprivate");
                object.string("flashVer", "FMLE/3.0 (compatible; benchmark)");
                object.string("tcUrl", "rtmp://127.0.0.1/live");
            });
        });
        chunks.write(&mut turn, COMMAND_CSID, 0, COMMAND, 0, &connect);
        self.socket.write_all(&turn)?;
        replies.wait(&mut self.socket, |reply| reply.is_result(1.0))?;

        turn.clear();
        for (name, transaction) in [("releaseStream", 2.0), ("FCPublish", 3.0)] {
            let body = command(name, transaction, |out| amf::string(out, &self.key));
            chunks.write(&mut turn, COMMAND_CSID, 0, COMMAND, 0, &body);
        }
        let create = command("createStream", 4.0, |_| {});
        chunks.write(&mut turn, COMMAND_CSID, 0, COMMAND, 0, &create);
        self.socket.write_all(&turn)?;
        let created = replies.wait(&mut self.socket, |reply| reply.is_result(4.0))?;
        ensure!(
            created.last_number() == f64::from(MSID),
            "message stream id {} where the media carry {MSID}",
            created.last_number()
        );

        turn.clear();
        let publish = command("publish", 5.0, |out| {
            amf::string(out, &self.key);
            amf::string(out, "live");
        });
        chunks.write(&mut turn, STREAM_CSID, 0, COMMAND, MSID, &publish);
        self.socket.write_all(&turn)?;
        replies.wait(&mut self.socket, |reply| {
            reply.contains("NetStream.Publish.Start") && reply.contains("onStatus")
        })?;
        Ok(())
    }
}

fn command(name: &str, transaction: f64, arguments: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    command_with(name, transaction, |out| {
        amf::null(out);
        arguments(out);
    })
}

fn command_with(name: &str, transaction: f64, rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    amf::string(&mut out, name);
    amf::number(&mut out, transaction);
    rest(&mut out);
    out
}

/// A command from the server.
struct Reply(Vec<u8>);

impl Reply {
    fn contains(&self, text: &str) -> bool {
        self.0
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    fn is_result(&self, transaction: f64) -> bool {
        let mut start = Vec::new();
        amf::string(&mut start, "_result");
        amf::number(&mut start, transaction);
        self.0.starts_with(&start)
    }

    /// Returns the number that ends createStream's answer.
    fn last_number(&self) -> f64 {
        self.0
            .last_chunk()
            .map_or(f64::NAN, |bytes| f64::from_be_bytes(*bytes))
    }
}

#[derive(Default)]
struct Replies {
    chunks: ChunkReader,
    unread: Vec<u8>,
}

impl Replies {
    /// Reads until a command matches `wanted`, and skips all others.
    fn wait(&mut self, socket: &mut TcpStream, wanted: impl Fn(&Reply) -> bool) -> Result<Reply> {
        let mut buffer = [0; 4096];
        loop {
            let size = socket.read(&mut buffer).context("waiting for a reply")?;
            ensure!(size > 0, "the server closed");
            self.unread.extend_from_slice(&buffer[..size]);
            let (mut found, mut refusal) = (None, None);
            let used = self.chunks.read(&self.unread, |header: &Header, payload| {
                let reply = Reply(payload);
                if header.type_id != COMMAND {
                } else if wanted(&reply) {
                    found = Some(reply);
                } else if reply.contains("_error") || reply.contains("NetStream.Publish.Bad") {
                    refusal = Some(reply);
                }
            });
            self.unread.drain(..used);
            if let Some(reply) = found {
                return Ok(reply);
            }
            if let Some(refusal) = refusal {
                bail!(
                    "refused: {}",
                    String::from_utf8_lossy(&refusal.0).escape_debug()
                );
            }
        }
    }
}
