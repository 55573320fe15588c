// SPDX-License-Identifier: MPL-2.0

use bytes::{BufMut, BytesMut};

/// Bytes to leave free around the body of a message, so that whoever takes the message on can
/// frame it in place instead of copying it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    pub head: usize,
    pub tail: usize,
}

/// The body of a message in memory of its own, with [`Room`] around it.
#[derive(Debug)]
pub struct Payload {
    bytes: BytesMut,
    start: usize,
}

impl Payload {
    /// An empty body with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize, room: Room) -> Self {
        let mut bytes = BytesMut::with_capacity(room.head + capacity + room.tail);
        bytes.put_bytes(0, room.head);
        Payload {
            bytes,
            start: room.head,
        }
    }

    pub fn copy_of(body: &[u8], room: Room) -> Self {
        let mut payload = Payload::with_capacity(body.len(), room);
        payload.extend(body);
        payload
    }

    pub fn body(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `count` bytes off the front of the body.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }

    /// The memory, and where in it the body starts. What lies before is free for use.
    pub fn into_parts(self) -> (BytesMut, usize) {
        (self.bytes, self.start)
    }

    pub(super) fn extend(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for `additional` more bytes of body and the room behind it.
    pub(super) fn reserve(&mut self, additional: usize, room: Room) {
        self.bytes.reserve(additional + room.tail);
    }
}
