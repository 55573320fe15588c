// SPDX-License-Identifier: MPL-2.0

//! Reusable memory for message bodies.
//!
//! One thread fills a body and another one frees it, wherever the pipeline is done with it. General
//! allocators are slow at that: the second thread locks the first one's arena for each body, and a
//! keyframe can cost a system call and a page fault for each of its pages. Therefore larger bodies
//! return to the pool of their connection.
//!
//! A pool keeps as many bytes as were lately in use at once: a publisher that is faster than its
//! own pace fills many bodies before the first is free again, and a paced one fills one after the
//! other. A thousand of those must not each keep a body of every size that they have ever had. Where
//! bodies are large it keeps twice as many bytes, and for longer: to allocate them is dear.

use std::sync::Arc;

use parking_lot::Mutex;

/// Smallest pooled body in bytes. Smaller ones use the allocator.
const MIN_POOLED: usize = 128;

/// Sizes of smaller bodies are rounded up to a multiple of this.
const SMALL_STEP: usize = 64;

/// Largest pooled body in bytes. Larger ones are too rare.
const MAX_POOLED: usize = 1024 * 1024;

/// Most and least bytes that a pool keeps for later, if so many were in use.
pub const MAX_KEPT: usize = 2 * 1024 * 1024;
const MIN_KEPT: usize = 2 * 1024;

/// Bytes in use at once from which on a pool keeps twice as many.
const LARGE: usize = 64 * 1024;

/// Size classes between one power of two and the next. Sizes are rounded up to a class, so that at
/// most a fifth of new memory is unused, and any memory of a class fits any body of it.
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
    in_use: usize,
    /// Most bytes that were in use at once. Forgotten by and by, each time that none are.
    peak: usize,
}

impl Default for FreeMemory {
    fn default() -> Self {
        FreeMemory {
            classes: [const { Vec::new() }; CLASSES],
            bytes: 0,
            in_use: 0,
            peak: 0,
        }
    }
}

/// Owned bytes, whose memory may return to a pool when they are dropped. The bytes before `start`
/// are free for a prefix.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    start: u32,
    /// The class in which it was allocated.
    class: u8,
    pool: Option<Pool>,
}

impl Pool {
    /// Returns empty memory, with room for at least `capacity` bytes after `front` free ones.
    pub fn allocate(&self, front: usize, capacity: usize) -> Memory {
        let wanted = front + capacity;
        let (mut bytes, class) = match class_of(wanted) {
            Some(class) => {
                let (bytes, class) = self.allocate_class(class);
                (bytes, Some(class))
            }
            // Allocators keep some free memory of each size for each thread.
            None if wanted < MIN_POOLED => (
                Vec::with_capacity(wanted.next_multiple_of(SMALL_STEP)),
                None,
            ),
            None => (Vec::with_capacity(wanted), None),
        };
        // The bytes before the body get a value with the prefix.
        if bytes.len() < front {
            bytes.resize(front, 0);
        }
        bytes.truncate(front);
        Memory {
            bytes,
            start: front as u32,
            class: class.unwrap_or_default() as u8,
            pool: class.map(|_| self.clone()),
        }
    }

    /// Returns memory of this class, or free memory of at most twice its size, with its class. Bytes of
    /// its last body may be in it.
    fn allocate_class(&self, class: usize) -> (Vec<u8>, usize) {
        let mut free = self.free.lock();
        let class = free.fitting(class);
        let size = SIZES[class];
        free.in_use += size;
        free.peak = free.peak.max(free.in_use);
        match free.classes[class].pop() {
            Some(bytes) => {
                free.bytes -= size;
                (bytes, class)
            }
            None => {
                drop(free);
                (Vec::with_capacity(size), class)
            }
        }
    }

    fn release(&self, bytes: Vec<u8>, class: usize) {
        let size = SIZES[class];
        let mut free = self.free.lock();
        free.in_use -= size;
        // Memory that has grown fits its class no more.
        if bytes.capacity() == size {
            free.bytes += size;
            free.classes[class].push(bytes);
        }
        let surplus = free.take_surplus();
        if free.in_use == 0 {
            free.forget();
        }
        drop(free);
        drop(surplus);
    }
}

impl FreeMemory {
    /// Returns the smallest class with free memory for a body of this one, which is at most twice as
    /// large. The class itself where there is none.
    #[inline]
    fn fitting(&self, class: usize) -> usize {
        if !self.classes[class].is_empty() {
            return class;
        }
        let mut larger = class + 1..CLASSES.min(class + STEPS_PER_DOUBLING + 1);
        let found = larger.find(|class| !self.classes[*class].is_empty());
        found.unwrap_or(class)
    }

    /// Returns the bytes that are worth keeping. Large memory is dear to allocate.
    fn limit(&self) -> usize {
        let factor = if self.peak >= LARGE { 2 } else { 1 };
        (factor * self.peak).clamp(MIN_KEPT, MAX_KEPT)
    }

    /// Forgets a part of the peak: slowly where memory is large, so that it is kept from one keyframe
    /// to the next.
    fn forget(&mut self) {
        let divisor = if self.peak >= LARGE { 256 } else { 8 };
        self.peak -= self.peak / divisor;
    }

    /// Takes a memory where there is more than is worth keeping: the smallest where keyframes are
    /// large, and else the largest. One for each release is enough.
    fn take_surplus(&mut self) -> Option<Vec<u8>> {
        if self.bytes <= MIN_KEPT || self.bytes <= self.limit() {
            return None;
        }
        let is_filled = |class: &&mut Vec<Vec<u8>>| !class.is_empty();
        let class = match self.peak >= LARGE {
            true => self.classes.iter_mut().find(is_filled),
            false => self.classes.iter_mut().rev().find(is_filled),
        };
        let class = class?;
        let bytes = class.pop()?;
        if class.is_empty() {
            *class = Vec::new();
        }
        self.bytes -= bytes.capacity();
        Some(bytes)
    }
}

/// Decides when a container that has grown for a burst becomes small again.
#[derive(Debug, Default)]
pub struct Slack {
    small_uses: u8,
}

impl Slack {
    /// Places that a container may keep without a need.
    pub const KEPT: usize = 4;

    /// Notes a use that needed `used` of `capacity` places. Returns true after many in a row that
    /// needed few of them.
    pub fn note(&mut self, used: usize, capacity: usize) -> bool {
        if capacity <= Self::KEPT || used > capacity / 8 {
            self.small_uses = 0;
            return false;
        }
        self.small_uses += 1;
        let is_due = self.small_uses == 64;
        self.small_uses %= 64;
        is_due
    }
}

/// Returns the smallest class that holds `size` bytes.
fn class_of(size: usize) -> Option<usize> {
    if !(MIN_POOLED..=MAX_POOLED).contains(&size) {
        return None;
    }
    let doubling = size.ilog2() - MIN_POOLED.ilog2();
    let base = MIN_POOLED << doubling;
    let step = base / STEPS_PER_DOUBLING;
    let steps = (size - base + step - 1) >> step.ilog2();
    Some(doubling as usize * STEPS_PER_DOUBLING + steps)
}

const fn class_size(class: usize) -> usize {
    let base = MIN_POOLED << (class / STEPS_PER_DOUBLING);
    base + base / STEPS_PER_DOUBLING * (class % STEPS_PER_DOUBLING)
}

/// Bytes of each class.
static SIZES: [usize; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = class_size(class);
        class += 1;
    }
    sizes
};

impl Memory {
    /// Wraps a vector whose first `start` bytes are free for a prefix.
    pub fn from_vec(bytes: Vec<u8>, start: usize) -> Self {
        Memory {
            start: start.min(bytes.len()) as u32,
            bytes,
            class: 0,
            pool: None,
        }
    }

    /// Returns the contents.
    pub fn body(&self) -> &[u8] {
        self
    }

    /// Returns the number of free bytes before the contents.
    pub fn front(&self) -> usize {
        self.start as usize
    }

    /// Returns the size of the memory in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes to the body.
    #[inline]
    pub fn extend(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Reserves room for `additional` more bytes.
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Removes `count` bytes from the front.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.front() + count).min(self.bytes.len()) as u32;
    }

    /// Puts `front` before the contents. Copies them only if there is no room.
    #[inline]
    pub fn prepend(&mut self, front: &[u8]) {
        match self.front().checked_sub(front.len()) {
            Some(start) => {
                self.bytes[start..start + front.len()].copy_from_slice(front);
                self.start = start as u32;
            }
            None => *self = Memory::from_vec([front, &**self].concat(), 0),
        }
    }
}

impl std::ops::Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.front()..]
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Memory {
    fn as_mut(&mut self) -> &mut [u8] {
        let front = self.front();
        &mut self.bytes[front..]
    }
}

impl Drop for Memory {
    #[inline]
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.release(std::mem::take(&mut self.bytes), self.class.into());
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
    fn free_memory_serves_smaller_bodies_of_at_least_half_its_size() {
        let pool = Pool::default();
        let memory = pool.allocate(0, 2000);
        let address = memory.as_ptr();
        drop(memory);
        for size in [1800, 1024, 2048, 1100] {
            assert_eq!(pool.allocate(0, size).as_ptr(), address, "{size}");
        }
        let small = pool.allocate(0, 890);
        assert_ne!(small.as_ptr(), address);
        assert_eq!(pool.allocate(0, 1200).as_ptr(), address);
    }

    #[test]
    fn memory_of_a_keyframe_is_kept_until_the_next_one() {
        let pool = Pool::default();
        let keyframe = pool.allocate(0, 150_000);
        let address = keyframe.as_ptr();
        drop(keyframe);
        for size in (10_000..30_000).cycle().step_by(777).take(100) {
            drop(pool.allocate(0, size));
        }
        assert_eq!(pool.allocate(0, 150_000).as_ptr(), address);
    }

    #[test]
    fn one_body_after_the_other_keeps_little_of_the_largest() {
        let pool = Pool::default();
        let burst: Vec<Memory> = (0..100).map(|_| pool.allocate(0, 1000)).collect();
        drop(burst);
        assert!(pool.free.lock().bytes >= 100_000, "as many may come again");
        for size in (300..1500).cycle().step_by(7).take(1000) {
            drop(pool.allocate(0, size));
        }
        let kept = pool.free.lock().bytes;
        assert!(kept <= MIN_KEPT, "{kept}");
        // The next burst has its memory again.
        let burst: Vec<Memory> = (0..100).map(|_| pool.allocate(0, 1000)).collect();
        drop(burst);
        assert!(pool.free.lock().bytes >= 100_000);
        assert_eq!(pool.free.lock().in_use, 0);
    }

    #[test]
    fn containers_become_small_only_after_many_small_uses() {
        let mut slack = Slack::default();
        let notes = |slack: &mut Slack, used, capacity, times| {
            (0..times).filter(|_| slack.note(used, capacity)).count()
        };
        assert_eq!(notes(&mut slack, 1, 100, 63), 0);
        assert!(!slack.note(50, 100));
        assert_eq!(notes(&mut slack, 1, 100, 63), 0);
        assert!(slack.note(1, 100));
        assert_eq!(notes(&mut slack, 0, Slack::KEPT, 1000), 0);
        assert_eq!(notes(&mut slack, 20, 100, 1000), 0);
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
