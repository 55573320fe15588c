// SPDX-License-Identifier: MPL-2.0

//! Buffers that are used for one tag after another.
//!
//! To make and free a buffer with its memory and its reference timestamp costs a third of all that
//! is done for a small tag. Therefore a buffer returns to its stream when its last reference is
//! dropped, as those of a `GstBufferPool` do, and gets the bytes of another tag.
//!
//! ```text
//!   build(tag) --- a spare one? -- yes --> its bytes and times are set ----> downstream
//!                     | no                                                      |
//!                     +--> it is made ------------------------^       last reference dropped
//!                                                                               |
//!        spare <-- yes: its bytes are freed ---- as it was made? ---------------+
//!                                                     | no, or there are enough
//!                                                     +--> freed
//! ```
//!
//! This module has `unsafe` code, since GStreamer's own types can't exchange the bytes
//! of a memory. It sees no data of a client: it only passes ownership on. Invariants:
//!
//! - A spare buffer has one reference, that of its store. It has one memory, a [`TagMemory`] that
//!   nothing else refers to and that is not mapped, and one meta, the one it was made with.
//!   [`as_made`] checks all of it when a buffer returns, whatever was done to it downstream.
//! - The bytes of a memory change only while its buffer is made from a spare one, and when it becomes one.
//! - A store that is gone accepts no buffers, so those that are still downstream are freed there.
//!
//! Lock order: the one lock in here is a leaf.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use gst::ffi;
use gst::glib;
use gst::glib::ffi::{GFALSE, GTRUE, gboolean, gpointer};
use gst::glib::translate::IntoGlib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use crate::memory::Memory;

/// Most spare buffers of a stream: as many as leave in one list. Each takes half a kilobyte.
const MAX_SPARE: usize = 256;

/// Spare buffers that a stream keeps also where it has not needed so many lately.
const KEPT: usize = 4;

/// The spare buffers of one stream.
#[derive(Debug, Default)]
pub(super) struct SpareBuffers(Arc<Store>);

#[derive(Debug, Default)]
struct Store(Mutex<StoreState>);

#[derive(Debug, Default)]
struct StoreState {
    buffers: Vec<gst::Buffer>,
    is_closed: bool,
    /// Tags since the last look for unused buffers.
    tags: usize,
    /// Buffers that were not needed for any of those tags.
    unused: usize,
}

/// Tags between two looks for unused buffers.
const LOOK_INTERVAL: usize = 256;

impl StoreState {
    /// Moves up to `count` buffers to `taken`.
    fn take(&mut self, count: usize, taken: &mut Vec<gst::Buffer>) {
        let rest = self.buffers.len().saturating_sub(count);
        taken.extend(self.buffers.drain(rest..));
        self.unused = self.unused.min(rest);
        self.tags += count;
    }

    /// Takes the buffers of a burst that is over.
    fn take_unused(&mut self) -> Vec<gst::Buffer> {
        if self.tags < LOOK_INTERVAL {
            return Vec::new();
        }
        self.tags = 0;
        let unused = mem::replace(&mut self.unused, self.buffers.len());
        let buffers = self.buffers.drain(..unused.saturating_sub(KEPT)).collect();
        self.buffers.shrink_to(2 * KEPT);
        buffers
    }
}

/// The content of a buffer: the bytes and times of a tag. It has no other time and no other flag.
#[derive(Debug)]
pub(super) struct TagContent<'a> {
    pub(super) bytes: Memory,
    pub(super) dts: Option<gst::ClockTime>,
    pub(super) pts: Option<gst::ClockTime>,
    pub(super) flags: gst::BufferFlags,
    /// The caps and the time of its one reference timestamp.
    pub(super) reference: &'a gst::Caps,
    pub(super) timestamp: gst::ClockTime,
}

/// Buffers for the tags that leave together, taken from the store at once.
#[derive(Debug, Default)]
pub(super) struct Supply(Vec<gst::Buffer>);

impl SpareBuffers {
    /// Takes spare buffers for this many tags, as far as there are any.
    pub(super) fn supply(&self, tags: usize, supply: &mut Supply) {
        let mut state = self.0.0.lock();
        state.take(tags, &mut supply.0);
        let unused = state.take_unused();
        drop(state);
        unused.into_iter().for_each(free);
    }

    /// Returns a buffer with this content.
    pub(super) fn build_from(&self, supply: &mut Supply, content: TagContent<'_>) -> gst::Buffer {
        match supply.0.pop() {
            Some(buffer) => fill(buffer, content),
            None => fill(self.make(content.reference), content),
        }
    }

    /// Returns a buffer with these bytes and one reference timestamp.
    #[cfg(test)]
    fn build(
        &self,
        bytes: Memory,
        reference: &gst::Caps,
        timestamp: gst::ClockTime,
    ) -> gst::Buffer {
        let mut supply = Supply::default();
        self.supply(1, &mut supply);
        let content = TagContent {
            bytes,
            dts: None,
            pts: None,
            flags: gst::BufferFlags::empty(),
            reference,
            timestamp,
        };
        self.build_from(&mut supply, content)
    }

    /// Makes a buffer that is like a spare one.
    fn make(&self, reference: &gst::Caps) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        let memory = TagMemory::empty(self.0.clone());
        let Some(writable) = buffer.get_mut() else {
            unreachable!("a new buffer has one reference");
        };
        // SAFETY: the memory is new, and the buffer gets the only reference. The meta belongs to
        // the buffer, and is looked at only while the buffer has it, see `as_made`.
        unsafe {
            writable.append_memory(gst::Memory::from_glib_full(memory.cast::<ffi::GstMemory>()));
            let none = gst::ClockTime::NONE;
            let zero = gst::ClockTime::ZERO;
            let mut meta = gst::ReferenceTimestampMeta::add(writable, reference, zero, none);
            let meta: *mut ffi::GstReferenceTimestampMeta = meta.as_mut_ptr();
            (*memory).meta = meta;
            (*memory).lock_state = (*memory).memory.mini_object.lockstate;
            let object = &mut (*buffer.as_mut_ptr()).mini_object;
            let _ = DISPOSE_OF_BUFFERS.set(object.dispose);
            object.dispose = Some(dispose);
        }
        buffer
    }
}

impl Drop for SpareBuffers {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.is_closed = true;
        let buffers = mem::take(&mut state.buffers);
        drop(state);
        // Each asks for the lock once more, and is freed.
        drop(buffers);
    }
}

/// The function that GStreamer has set for all buffers.
static DISPOSE_OF_BUFFERS: OnceLock<ffi::GstMiniObjectDisposeFunction> = OnceLock::new();

/// Frees a spare buffer.
fn free(buffer: gst::Buffer) {
    // SAFETY: nothing else refers to a spare buffer.
    unsafe {
        let object = &mut (*buffer.as_mut_ptr()).mini_object;
        object.dispose = DISPOSE_OF_BUFFERS.get().copied().flatten();
    }
}

/// Sets the content of a spare buffer, and clears all else that may have been set downstream.
fn fill(buffer: gst::Buffer, content: TagContent<'_>) -> gst::Buffer {
    // SAFETY: by the invariant of spare buffers nothing else refers to the buffer, its memory and
    // its meta.
    unsafe {
        let raw = buffer.as_mut_ptr();
        let memory = ffi::gst_buffer_peek_memory(raw, 0).cast::<TagMemory>();
        (*memory).set_bytes(content.bytes);
        let meta = (*memory).meta;
        let caps = content.reference.as_mut_ptr();
        if (*meta).reference != caps {
            let held = (&raw mut (*meta).reference).cast();
            ffi::gst_mini_object_replace(held, caps.cast());
        }
        (*meta).timestamp = content.timestamp.into_glib();
        (*meta).duration = ffi::GST_CLOCK_TIME_NONE;
        (*raw).pts = content.pts.into_glib();
        (*raw).dts = content.dts.into_glib();
        (*raw).duration = ffi::GST_CLOCK_TIME_NONE;
        (*raw).offset = ffi::GST_BUFFER_OFFSET_NONE;
        (*raw).offset_end = ffi::GST_BUFFER_OFFSET_NONE;
        (*raw).mini_object.flags = content.flags.bits();
    }
    buffer
}

/// Called by GStreamer for a buffer whose last reference was dropped. Takes a reference to one that
/// becomes spare, which revives it.
unsafe extern "C" fn dispose(object: *mut ffi::GstMiniObject) -> gboolean {
    // SAFETY: the object is a buffer of `make`, and without a reference only this thread has it.
    unsafe {
        let buffer = object.cast::<ffi::GstBuffer>();
        let Some((memory, has_further_metas)) = as_made(buffer) else {
            let original = DISPOSE_OF_BUFFERS.get().copied().flatten();
            return original.map_or(GTRUE, |dispose| dispose(object));
        };
        // Freed before the lock, and also where the buffer is.
        drop((*memory).take_bytes());
        let store = (*memory).store.clone();
        let mut state = store.0.lock();
        if state.is_closed || state.buffers.len() >= MAX_SPARE {
            return GTRUE;
        }
        ffi::gst_mini_object_ref(object);
        if has_further_metas {
            remove_further_metas(buffer, (*memory).meta.cast());
        }
        state.buffers.push(gst::Buffer::from_glib_full(buffer));
        GFALSE
    }
}

/// Returns the memory of a buffer that is as `make` has made it, except for its times, its flags,
/// the range of its bytes and further metas. True where it has such metas.
///
/// # Safety
///
/// Only the current thread may have the buffer.
unsafe fn as_made(buffer: *mut ffi::GstBuffer) -> Option<(*mut TagMemory, bool)> {
    // SAFETY: a memory of this allocator is a `TagMemory`. Its fields are read only where the
    // buffer has the only reference to it.
    unsafe {
        // A pool of another element, or other objects that are attached to the buffer.
        let has_owners = !(*buffer).pool.is_null() || !(*buffer).mini_object.priv_pointer.is_null();
        if has_owners || ffi::gst_buffer_n_memory(buffer) != 1 {
            return None;
        }
        let memory = ffi::gst_buffer_peek_memory(buffer, 0);
        let is_own = (*memory).allocator == ALLOCATOR.as_ptr().cast();
        if !is_own || !(*memory).parent.is_null() {
            return None;
        }
        let references = AtomicI32::from_ptr(&raw mut (*memory).mini_object.refcount);
        if references.load(Ordering::Acquire) != 1 {
            return None;
        }
        let memory = memory.cast::<TagMemory>();
        if (*memory).memory.mini_object.lockstate != (*memory).lock_state {
            return None;
        }
        let mut state = ptr::null_mut();
        let first = ffi::gst_buffer_iterate_meta(buffer, &mut state);
        // A memory that comes from another buffer has the meta of that one.
        if first.is_null() || first != (*memory).meta.cast() {
            return None;
        }
        let mut has_further_metas = false;
        loop {
            let meta = ffi::gst_buffer_iterate_meta(buffer, &mut state);
            if meta.is_null() {
                return Some((memory, has_further_metas));
            }
            has_further_metas = true;
            if (*meta).flags & ffi::GST_META_FLAG_LOCKED != 0 {
                return None;
            }
        }
    }
}

/// Removes all metas but the first one, which is `own`. None of them is locked.
unsafe fn remove_further_metas(buffer: *mut ffi::GstBuffer, own: *mut ffi::GstMeta) {
    // SAFETY: the buffer has one reference, that of the caller.
    unsafe {
        loop {
            let mut state = ptr::null_mut();
            let first = ffi::gst_buffer_iterate_meta(buffer, &mut state);
            debug_assert_eq!(first, own);
            let further = ffi::gst_buffer_iterate_meta(buffer, &mut state);
            if further.is_null() || ffi::gst_buffer_remove_meta(buffer, further) == GFALSE {
                return;
            }
        }
    }
}

/// Memory whose bytes can be exchanged. GStreamer uses it as a `GstMemory`.
#[repr(C)]
struct TagMemory {
    memory: ffi::GstMemory,
    data: *mut u8,
    /// Empty in a part of another memory.
    bytes: Memory,
    store: Arc<Store>,
    /// The meta of its buffer, and its lock state as the memory of that.
    meta: *mut ffi::GstReferenceTimestampMeta,
    lock_state: c_int,
}

impl TagMemory {
    fn empty(store: Arc<Store>) -> *mut TagMemory {
        // SAFETY: there is no parent.
        unsafe { TagMemory::new(0, ptr::null_mut(), 0..0, 0, store) }
    }

    /// # Safety
    ///
    /// `parent` is null or a memory.
    unsafe fn new(
        flags: c_uint,
        parent: *mut ffi::GstMemory,
        range: std::ops::Range<usize>,
        max_size: usize,
        store: Arc<Store>,
    ) -> *mut TagMemory {
        let memory = Box::into_raw(Box::new(TagMemory {
            // SAFETY: all of its fields are numbers and pointers.
            memory: unsafe { mem::zeroed() },
            data: ptr::null_mut(),
            bytes: Memory::default(),
            store,
            meta: ptr::null_mut(),
            lock_state: 0,
        }));
        let size = range.end.wrapping_sub(range.start);
        // SAFETY: `memory` is new, and GStreamer owns it from here on.
        unsafe {
            ffi::gst_memory_init(
                memory.cast(),
                flags,
                ALLOCATOR.as_ptr().cast(),
                parent,
                max_size,
                0,
                range.start,
                size,
            );
        }
        memory
    }

    /// Sets the bytes of a memory that has none.
    fn set_bytes(&mut self, bytes: Memory) {
        let none = mem::replace(&mut self.bytes, bytes);
        debug_assert!(none.capacity() == 0);
        // Nothing is lost, and nothing has to be looked at.
        mem::forget(none);
        let bytes: &mut [u8] = self.bytes.as_mut();
        self.data = bytes.as_mut_ptr();
        self.memory.maxsize = bytes.len();
        self.memory.offset = 0;
        self.memory.size = bytes.len();
    }

    fn take_bytes(&mut self) -> Memory {
        let bytes = mem::take(&mut self.bytes);
        self.data = ptr::null_mut();
        self.memory.maxsize = 0;
        self.memory.offset = 0;
        self.memory.size = 0;
        bytes
    }
}

/// The allocator of all tag memory. It is never freed.
static ALLOCATOR: LazyLock<ManuallyDrop<TagAllocator>> = LazyLock::new(|| {
    let allocator: TagAllocator = glib::Object::new();
    ManuallyDrop::new(allocator)
});

glib::wrapper! {
    struct TagAllocator(ObjectSubclass<allocator::TagAllocator>) @extends gst::Allocator, gst::Object;
}

// SAFETY: it has no state.
unsafe impl Send for TagAllocator {}
// SAFETY: it has no state.
unsafe impl Sync for TagAllocator {}

mod allocator {
    use super::*;

    #[derive(Debug, Default)]
    pub(super) struct TagAllocator;

    #[glib::object_subclass]
    impl ObjectSubclass for TagAllocator {
        const NAME: &'static str = "GstRTMP2TagAllocator";
        type Type = super::TagAllocator;
        type ParentType = gst::Allocator;
    }

    impl ObjectImpl for TagAllocator {
        fn constructed(&self) {
            self.parent_constructed();
            let allocator: *mut ffi::GstAllocator = self.obj().as_ptr().cast();
            // SAFETY: nothing else has the new object.
            unsafe {
                (*allocator).mem_type = c"Rtmp2Tag".as_ptr();
                (*allocator).mem_map = Some(map);
                (*allocator).mem_unmap = Some(unmap);
                (*allocator).mem_share = Some(share);
                (*allocator).mem_is_span = Some(is_span);
                // Copies come from GStreamer's own allocator.
                (*allocator).object.flags |=
                    ffi::GST_ALLOCATOR_FLAG_CUSTOM_ALLOC | ffi::GST_OBJECT_FLAG_MAY_BE_LEAKED;
            }
        }
    }

    impl GstObjectImpl for TagAllocator {}

    // SAFETY: memory of this allocator is made by `TagMemory::new` alone.
    unsafe impl AllocatorImpl for TagAllocator {
        unsafe fn alloc(&self, _: usize, _: &gst::AllocationParams) -> *mut ffi::GstMemory {
            ptr::null_mut()
        }

        unsafe fn free(&self, memory: *mut ffi::GstMemory) {
            // SAFETY: the last reference is gone.
            drop(unsafe { Box::from_raw(memory.cast::<TagMemory>()) });
        }
    }
}

unsafe extern "C" fn map(
    memory: *mut ffi::GstMemory,
    _max_size: usize,
    _flags: ffi::GstMapFlags,
) -> gpointer {
    // SAFETY: memory of this allocator. GStreamer adds the offset.
    unsafe { (*memory.cast::<TagMemory>()).data.cast() }
}

unsafe extern "C" fn unmap(_memory: *mut ffi::GstMemory) {}

/// Returns a part of a memory, which keeps the whole.
unsafe extern "C" fn share(
    memory: *mut ffi::GstMemory,
    offset: isize,
    size: isize,
) -> *mut ffi::GstMemory {
    // SAFETY: memory of this allocator, referenced by the caller. The parent outlives the part, and
    // keeps its bytes while there are other references to it.
    unsafe {
        let whole = memory.cast::<TagMemory>();
        let parent = match (*memory).parent.is_null() {
            true => memory,
            false => (*memory).parent,
        };
        // GStreamer's callers rely on wrapping, as in its own allocators.
        let start = (*memory).offset.wrapping_add_signed(offset);
        let size = match size {
            -1 => (*memory).size.wrapping_sub(offset as usize),
            size => size as usize,
        };
        let part = TagMemory::new(
            (*memory).mini_object.flags | ffi::GST_MINI_OBJECT_FLAG_LOCK_READONLY,
            parent,
            start..start.wrapping_add(size),
            (*memory).maxsize,
            (*whole).store.clone(),
        );
        (*part).data = (*whole).data;
        part.cast()
    }
}

/// Returns true if a part follows another one of the same memory.
unsafe extern "C" fn is_span(
    first: *mut ffi::GstMemory,
    second: *mut ffi::GstMemory,
    offset: *mut usize,
) -> gboolean {
    // SAFETY: both are parts of the same memory.
    unsafe {
        if !offset.is_null() {
            *offset = (*first).offset.wrapping_sub((*(*first).parent).offset);
        }
        let end = (*first).offset.wrapping_add((*first).size);
        (end == (*second).offset).into_glib()
    }
}

#[cfg(test)]
mod tests;
