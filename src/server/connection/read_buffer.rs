// SPDX-License-Identifier: MPL-2.0

/// Most clients are served well with this. It stays in the fastest caches.
const INITIAL: usize = 4 * 1024;

/// What a larger read saves in system calls costs more in caches: a read is copied on from here
/// right away.
const MAX: usize = 64 * 1024;

/// A read buffer grows after this many reads in a row have filled it: a keyframe does not do that,
/// a publisher that is faster than its own pace does.
const FULL_READS: u32 = 8;

/// Memory for reads, as large as its client needs it.
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

    /// Takes it back, with how much of it the read filled.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>, filled: usize) {
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
fn only_a_steady_flood_makes_it_grow() {
    let mut buffer = ReadBuffer::default();
    for filled in [INITIAL, INITIAL, INITIAL, 100].repeat(10) {
        let bytes = buffer.take();
        assert_eq!(bytes.len(), INITIAL);
        buffer.give_back(bytes, filled);
    }
    for _ in 0..100 {
        let bytes = buffer.take();
        let filled = bytes.len();
        buffer.give_back(bytes, filled);
    }
    assert_eq!(buffer.take().len(), MAX);
}
