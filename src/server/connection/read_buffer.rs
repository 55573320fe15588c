// SPDX-License-Identifier: MPL-2.0

/// Bytes of the buffer at first. Enough for most clients, and it stays in the fastest caches.
const INITIAL: usize = 4 * 1024;

/// Bytes of the largest buffer. Larger reads cost more in caches than they save in system calls:
/// each read is copied on from here right away.
const MAX: usize = 64 * 1024;

/// Reads in a row that fill the buffer before it grows. A keyframe does not do that, a publisher
/// that is faster than its own pace does.
const FULL_READS: u32 = 8;

/// Memory for reads, as large as the client needs it.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    bytes: Vec<u8>,
    size: usize,
    full_reads: u32,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        ReadBuffer {
            bytes: Vec::new(),
            size: INITIAL,
            full_reads: 0,
        }
    }
}

impl ReadBuffer {
    /// Lends the memory.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(self.size, 0);
        bytes
    }

    /// Takes the memory back, with the number of bytes that the read filled.
    pub(crate) fn put_back(&mut self, bytes: Vec<u8>, filled: usize) {
        self.full_reads = if filled == bytes.len() {
            self.full_reads + 1
        } else {
            0
        };
        self.bytes = bytes;
        if self.full_reads == FULL_READS && self.size < MAX {
            self.full_reads = 0;
            self.size *= 2;
        }
    }
}

#[test]
fn read_buffers_grow_only_for_steady_floods() {
    let mut buffer = ReadBuffer::default();
    for filled in [INITIAL, INITIAL, INITIAL, 100].repeat(10) {
        let bytes = buffer.take();
        assert_eq!(bytes.len(), INITIAL);
        buffer.put_back(bytes, filled);
    }
    for _ in 0..100 {
        let bytes = buffer.take();
        let filled = bytes.len();
        buffer.put_back(bytes, filled);
    }
    assert_eq!(buffer.take().len(), MAX);
}
