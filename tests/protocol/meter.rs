// SPDX-License-Identifier: MPL-2.0

//! A counting allocator: the measure of work that does not depend on the machine.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

thread_local! {
    /// Bytes that this thread has allocated, and those that it holds.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came. The counters need no memory.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        ALLOCATED.set(ALLOCATED.get().wrapping_add(size));
        let held = HELD.get().wrapping_add(size);
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Memory may come from another thread.
        HELD.set(HELD.get().saturating_sub(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Memory that some work took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of all allocations, copies within growing ones included.
    pub allocated: usize,
    /// Most bytes held at once.
    pub peak: usize,
}

/// Returns the result of `work` and its cost.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (allocated, held) = (ALLOCATED.get(), HELD.get());
    PEAK.set(held);
    let result = work();
    let cost = Cost {
        allocated: ALLOCATED.get() - allocated,
        peak: PEAK.get() - held,
    };
    (result, cost)
}
