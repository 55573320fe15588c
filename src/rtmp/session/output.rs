// SPDX-License-Identifier: MPL-2.0

use crate::rtmp::chunk::ChunkWriter;
use crate::rtmp::command::Command;
use crate::rtmp::control::Control;
use crate::rtmp::message::type_id;

/// Chunk streams of the server's messages. Larix for Android wants control messages on 2 and the
/// result of `connect` on 3.
mod csid {
    pub(super) const CONTROL: u32 = 2;
    pub(super) const CONNECTION: u32 = 3;
    pub(super) const STREAM: u32 = 5;
}

/// Bytes for the client: replies, which it waits for, and droppable messages (acknowledgements and
/// pongs), which may be dropped when it does not read.
#[derive(Debug, Default)]
pub struct SessionOutput {
    writer: ChunkWriter,
    replies: Vec<u8>,
    droppable: Vec<u8>,
    /// The last pong in `droppable`.
    pong: Option<u32>,
    /// The last pong among the droppable messages taken last.
    taken_pong: Option<u32>,
}

impl SessionOutput {
    /// Starts an output for a client to which this chunk size has been announced before.
    pub(super) fn with_chunk_size(size: u32) -> Self {
        let mut output = SessionOutput::default();
        output.writer.set_chunk_size(size);
        output
    }

    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.droppable.is_empty()
    }

    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    pub fn take_droppable(&mut self) -> Vec<u8> {
        self.taken_pong = self.pong.take();
        std::mem::take(&mut self.droppable)
    }

    /// Keeps the last pong for the next write, after the droppable messages taken last were
    /// dropped. RootEncoder sends its next ping only after the pong, so a lost one ends its pings.
    pub fn keep_pong(&mut self) {
        if let Some(timestamp) = self.taken_pong.take()
            && self.pong.is_none()
        {
            self.push_pong(timestamp);
        }
    }

    pub(super) fn replies_mut(&mut self) -> &mut Vec<u8> {
        &mut self.replies
    }

    pub(super) fn push_pong(&mut self, timestamp: u32) {
        self.pong = Some(timestamp);
        self.push_droppable(Control::PingResponse(timestamp));
    }

    pub(super) fn push_droppable(&mut self, control: Control) {
        let (type_id, body) = control.write();
        let droppable = &mut self.droppable;
        self.writer
            .write(droppable, csid::CONTROL, type_id, 0, &body);
    }

    pub(super) fn control(&mut self, control: Control) {
        let (type_id, body) = control.write();
        self.reply(csid::CONTROL, type_id, 0, &body);
    }

    /// Announces the chunk size and uses it from the next message on.
    pub(super) fn set_chunk_size(&mut self, size: u32) {
        let body = size.to_be_bytes();
        self.reply(csid::CONTROL, type_id::SET_CHUNK_SIZE, 0, &body);
        self.writer.set_chunk_size(size);
    }

    /// Adds a command that concerns the connection.
    pub(super) fn connection_command(&mut self, command: &Command) {
        let body = command.write();
        self.reply(csid::CONNECTION, type_id::COMMAND_AMF0, 0, &body);
    }

    /// Adds a command that concerns a message stream.
    pub(super) fn stream_command(&mut self, msid: u32, command: &Command) {
        let body = command.write();
        self.reply(csid::STREAM, type_id::COMMAND_AMF0, msid, &body);
    }

    fn reply(&mut self, csid: u32, type_id: u8, msid: u32, body: &[u8]) {
        self.writer
            .write(&mut self.replies, csid, type_id, msid, body);
    }
}
