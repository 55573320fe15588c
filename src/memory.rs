// SPDX-License-Identifier: MPL-2.0

//! Memory for message bodies that is used again.
//!
//! A body is filled by one thread and freed by another, wherever the pipeline is done with it.
//! General allocators do that badly: the second thread locks the first one's arena for each body,
//! and a keyframe can cost a system call and a page fault for each of its pages. So larger bodies
//! go back to the client that they came from.

use std::sync::Arc;

use parking_lot::Mutex;

/// Smaller bodies are left to the allocator.
const MIN_POOLED: usize = 256;

/// Larger ones are too rare to be kept.
const MAX_POOLED: usize = 1024 * 1024;

/// Memory that a pool keeps for later.
pub const MAX_KEPT: usize = 2 * 1024 * 1024;

/// Sizes are rounded up to one of four steps between powers of two, so that at most a fifth of
/// the memory is unused, and any memory of a class serves any body of it.
const STEPS_PER_DOUBLING: usize = 4;

const CLASSES: usize = 1 + STEPS_PER_DOUBLING * (MAX_POOLED / MIN_POOLED).ilog2() as usize;

/// Where the memory of one client's bodies comes from and goes back to.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    shared: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            classes: [const { Vec::new() }; CLASSES],
            bytes: 0,
        }
    }
}

/// Bytes in memory of their own, which may go back to a pool when they are dropped. What is before
/// `start` is free for use.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    home: Option<Pool>,
}

impl Pool {
    /// Empty memory, with room for at least `capacity` bytes behind `head` free ones.
    pub fn take(&self, head: usize, capacity: usize) -> Memory {
        let wanted = head + capacity;
        let (mut bytes, home) = match class_of(wanted) {
            Some(class) => (self.take_class(class), Some(self.clone())),
            None => (Vec::with_capacity(wanted), None),
        };
        bytes.resize(head, 0);
        Memory {
            bytes,
            start: head,
            home,
        }
    }

    fn take_class(&self, class: usize) -> Vec<u8> {
        let mut kept = self.shared.lock();
        match kept.classes[class].pop() {
            Some(bytes) => {
                kept.bytes -= bytes.capacity();
                bytes
            }
            None => {
                drop(kept);
                Vec::with_capacity(class_size(class))
            }
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let Some(class) = class_of(bytes.capacity()).filter(|c| class_size(*c) == bytes.capacity())
        else {
            return;
        };
        bytes.clear();
        let mut kept = self.shared.lock();
        if kept.bytes + bytes.capacity() <= MAX_KEPT {
            kept.bytes += bytes.capacity();
            kept.classes[class].push(bytes);
        }
    }
}

/// The smallest class that holds `size` bytes.
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
    /// Takes a vector over, whose first `start` bytes are free for use.
    pub fn from_vec(bytes: Vec<u8>, start: usize) -> Self {
        Memory {
            start: start.min(bytes.len()),
            bytes,
            home: None,
        }
    }

    /// The contents.
    pub fn body(&self) -> &[u8] {
        self
    }

    /// Free bytes before the contents.
    pub fn head(&self) -> usize {
        self.start
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Makes room for `additional` more bytes.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Takes `count` bytes off the front.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }

    /// Puts `front` before the contents. Costs a copy of them only where there is no room.
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
        if let Some(home) = self.home.take() {
            home.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_for_and_little_more() {
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
    fn memory_comes_back_and_is_used_again() {
        let pool = Pool::default();
        let mut memory = pool.take(11, 20_000);
        memory.extend(&[7; 20_000]);
        let place = memory.as_ptr();
        drop(memory);
        assert!(pool.shared.lock().bytes >= 20_011);
        let memory = pool.take(11, 19_900);
        assert_eq!(memory.as_ptr(), place);
        assert!(memory.is_empty());
        assert_eq!(pool.shared.lock().bytes, 0);
    }

    #[test]
    fn what_a_pool_keeps_is_bounded_and_small_bodies_stay_out() {
        let pool = Pool::default();
        let many: Vec<Memory> = (0..100).map(|_| pool.take(0, 100_000)).collect();
        drop(many);
        let kept = pool.shared.lock().bytes;
        assert!((MAX_KEPT - 200_000..=MAX_KEPT).contains(&kept));
        drop(pool.take(0, 100));
        assert_eq!(pool.shared.lock().bytes, kept);
    }

    #[test]
    fn memory_may_outlive_its_pool_and_may_grow() {
        let pool = Pool::default();
        let mut memory = pool.take(0, MIN_POOLED);
        drop(pool);
        memory.extend(&[1; 3 * MIN_POOLED]);
        assert_eq!(memory.len(), 3 * MIN_POOLED);
    }

    #[test]
    fn a_front_goes_into_the_room_before_or_makes_some() {
        let pool = Pool::default();
        for head in [0, 1, 2, 9] {
            let mut memory = pool.take(head, 3);
            memory.extend(b"cde");
            memory.prepend(b"ab");
            assert_eq!(*memory, *b"abcde");
            memory.skip(1);
            assert_eq!(*memory, *b"bcde");
        }
    }
}
