// SPDX-License-Identifier: MPL-2.0

//! Reusable memory for message bodies.
//!
//! One thread fills a body and another one frees it, wherever the pipeline is done with it. General
//! allocators are slow at that: the second thread locks the first one's arena for each body, and a
//! keyframe can cost a system call and a page fault for each of its pages. Therefore larger bodies
//! return to the pool of their connection.

use std::sync::Arc;

use parking_lot::Mutex;

/// Smallest pooled body in bytes. Smaller ones use the allocator.
const MIN_POOLED: usize = 256;

/// Largest pooled body in bytes. Larger ones are too rare.
const MAX_POOLED: usize = 1024 * 1024;

/// Most bytes that a pool keeps for later.
pub const MAX_KEPT: usize = 2 * 1024 * 1024;

/// Size classes between one power of two and the next. Sizes are rounded up to a class, so that at
/// most a fifth of the memory is unused, and any memory of a class fits any body of it.
const STEPS_PER_DOUBLING: usize = 4;

const CLASSES: usize = 1 + STEPS_PER_DOUBLING * (MAX_POOLED / MIN_POOLED).ilog2() as usize;

/// The free memory of one connection.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    free: Arc<Mutex<FreeMemory>>,
}

#[derive(Debug)]
struct FreeMemory {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

impl Default for FreeMemory {
    fn default() -> Self {
        FreeMemory {
            classes: [const { Vec::new() }; CLASSES],
            bytes: 0,
        }
    }
}

/// Owned bytes, whose memory may return to a pool when they are dropped. The bytes before `start`
/// are free for a prefix.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    pool: Option<Pool>,
}

impl Pool {
    /// Returns empty memory, with room for at least `capacity` bytes after `front` free ones.
    pub fn allocate(&self, front: usize, capacity: usize) -> Memory {
        let wanted = front + capacity;
        let (mut bytes, pool) = match class_of(wanted) {
            Some(class) => (self.allocate_class(class), Some(self.clone())),
            None => (Vec::with_capacity(wanted), None),
        };
        bytes.resize(front, 0);
        Memory {
            bytes,
            start: front,
            pool,
        }
    }

    fn allocate_class(&self, class: usize) -> Vec<u8> {
        let mut free = self.free.lock();
        match free.classes[class].pop() {
            Some(bytes) => {
                free.bytes -= bytes.capacity();
                bytes
            }
            None => {
                drop(free);
                Vec::with_capacity(class_size(class))
            }
        }
    }

    fn release(&self, mut bytes: Vec<u8>) {
        let Some(class) = class_of(bytes.capacity()).filter(|c| class_size(*c) == bytes.capacity())
        else {
            return;
        };
        bytes.clear();
        let mut free = self.free.lock();
        if free.bytes + bytes.capacity() <= MAX_KEPT {
            free.bytes += bytes.capacity();
            free.classes[class].push(bytes);
        }
    }
}

/// Returns the smallest class that holds `size` bytes.
fn class_of(size: usize) -> Option<usize> {
    if !(MIN_POOLED..=MAX_POOLED).contains(&size) {
        return None;
    }
    let doubling = (size / MIN_POOLED).ilog2() as usize;
    let base = MIN_POOLED << doubling;
    let step = base / STEPS_PER_DOUBLING;
    Some(doubling * STEPS_PER_DOUBLING + (size - base).div_ceil(step))
}

fn class_size(class: usize) -> usize {
    let base = MIN_POOLED << (class / STEPS_PER_DOUBLING);
    base + base / STEPS_PER_DOUBLING * (class % STEPS_PER_DOUBLING)
}

impl Memory {
    /// Wraps a vector whose first `start` bytes are free for a prefix.
    pub fn from_vec(bytes: Vec<u8>, start: usize) -> Self {
        Memory {
            start: start.min(bytes.len()),
            bytes,
            pool: None,
        }
    }

    /// Returns the contents.
    pub fn body(&self) -> &[u8] {
        self
    }

    /// Returns the number of free bytes before the contents.
    pub fn front(&self) -> usize {
        self.start
    }

    /// Returns the size of the memory in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes to the body.
    pub fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Reserves room for `additional` more bytes.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Removes `count` bytes from the front.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }

    /// Puts `front` before the contents. Copies them only if there is no room.
    pub fn prepend(&mut self, front: &[u8]) {
        match self.start.checked_sub(front.len()) {
            Some(start) => {
                self.bytes[start..self.start].copy_from_slice(front);
                self.start = start;
            }
            None => *self = Memory::from_vec([front, &**self].concat(), 0),
        }
    }
}

impl std::ops::Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.release(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes_and_little_more() {
        for size in (MIN_POOLED..=MAX_POOLED).step_by(7).chain([MAX_POOLED]) {
            let class = class_of(size).unwrap();
            assert!(class < CLASSES);
            let held = class_size(class);
            assert!(held >= size && held - size <= size / 4, "{size} in {held}");
            assert_eq!(class_of(held), Some(class));
        }
        assert_eq!(class_of(MIN_POOLED - 1), None);
        assert_eq!(class_of(MAX_POOLED + 1), None);
    }

    #[test]
    fn memory_returns_and_is_used_again() {
        let pool = Pool::default();
        let mut memory = pool.allocate(11, 20_000);
        memory.extend(&[7; 20_000]);
        let address = memory.as_ptr();
        drop(memory);
        assert!(pool.free.lock().bytes >= 20_011);
        let memory = pool.allocate(11, 19_900);
        assert_eq!(memory.as_ptr(), address);
        assert!(memory.is_empty());
        assert_eq!(pool.free.lock().bytes, 0);
    }

    #[test]
    fn the_memory_of_a_pool_is_bounded_and_small_bodies_stay_out() {
        let pool = Pool::default();
        let many: Vec<Memory> = (0..100).map(|_| pool.allocate(0, 100_000)).collect();
        drop(many);
        let kept = pool.free.lock().bytes;
        assert!((MAX_KEPT - 200_000..=MAX_KEPT).contains(&kept));
        drop(pool.allocate(0, 100));
        assert_eq!(pool.free.lock().bytes, kept);
    }

    #[test]
    fn memory_may_outlive_its_pool_and_may_grow() {
        let pool = Pool::default();
        let mut memory = pool.allocate(0, MIN_POOLED);
        drop(pool);
        memory.extend(&[1; 3 * MIN_POOLED]);
        assert_eq!(memory.len(), 3 * MIN_POOLED);
    }

    #[test]
    fn a_prefix_uses_the_free_front_or_makes_room() {
        let pool = Pool::default();
        for front in [0, 1, 2, 9] {
            let mut memory = pool.allocate(front, 3);
            memory.extend(b"cde");
            memory.prepend(b"ab");
            assert_eq!(*memory, *b"abcde");
            memory.skip(1);
            assert_eq!(*memory, *b"bcde");
        }
    }
}
