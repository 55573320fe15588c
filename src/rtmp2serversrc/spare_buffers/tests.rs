// SPDX-License-Identifier: MPL-2.0

use std::sync::mpsc;
use std::thread;

use super::*;

fn caps(epoch: u64) -> gst::Caps {
    let _ = gst::init();
    let caps = gst::Caps::builder("timestamp/x-rtmp").field("epoch", epoch);
    caps.build()
}

fn bytes(fill: u8, length: usize) -> Memory {
    Memory::from_vec(vec![fill; length], 3)
}

fn time(nanoseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanoseconds)
}

fn build(spare: &SpareBuffers, fill: u8) -> gst::Buffer {
    spare.build(bytes(fill, 100), &caps(1), time(fill.into()))
}

fn count(spare: &SpareBuffers) -> usize {
    spare.0.0.lock().buffers.len()
}

fn content(buffer: &gst::BufferRef) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

fn references(buffer: &gst::BufferRef) -> Vec<(gst::Caps, gst::ClockTime)> {
    let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    metas
        .map(|meta| (meta.reference_owned(), meta.timestamp()))
        .collect()
}

#[test]
fn buffer_is_used_again_with_nothing_of_the_tag_before() {
    let spare = SpareBuffers::default();
    let (first_caps, second_caps) = (caps(1), caps(2));
    let mut first = spare.build(bytes(1, 100), &first_caps, time(10));
    let address = first.as_ptr();
    assert_eq!(content(&first), [1; 97]);
    assert_eq!(references(&first), [(first_caps, time(10))]);
    let writable = first.get_mut().unwrap();
    writable.set_flags(gst::BufferFlags::HEADER | gst::BufferFlags::DISCONT);
    writable.set_pts(time(1));
    writable.set_dts(time(2));
    writable.set_duration(time(3));
    writable.set_offset(4);
    writable.set_offset_end(5);
    writable.resize(10..20).unwrap();
    gst::ReferenceTimestampMeta::add(writable, &caps(3), time(4), None);
    gst::ReferenceTimestampMeta::add(writable, &caps(3), time(5), None);
    drop(first);
    assert_eq!(count(&spare), 1);

    let second = spare.build(bytes(2, 50), &second_caps, time(20));
    assert_eq!(second.as_ptr(), address);
    assert_eq!(count(&spare), 0);
    assert_eq!(content(&second), [2; 47]);
    assert_eq!(references(&second), [(second_caps, time(20))]);
    assert_eq!(second.flags(), gst::BufferFlags::empty());
    assert_eq!(
        (second.pts(), second.dts(), second.duration()),
        (None, None, None)
    );
    assert_eq!(second.offset(), gst::ffi::GST_BUFFER_OFFSET_NONE);
    assert_eq!(second.offset_end(), gst::ffi::GST_BUFFER_OFFSET_NONE);
}

#[test]
fn bytes_stay_while_anything_refers_to_them() {
    let spare = SpareBuffers::default();
    let copy = build(&spare, 1).copy();
    let memory = build(&spare, 2).memory(0).unwrap();
    let part = build(&spare, 3)
        .copy_region(gst::BufferCopyFlags::MEMORY, 10..20)
        .unwrap();
    let part_of_part = part
        .copy_region(gst::BufferCopyFlags::MEMORY, 2..5)
        .unwrap();
    let mapped = build(&spare, 4).into_mapped_buffer_readable().unwrap();
    assert_eq!(count(&spare), 0);
    let others: Vec<gst::Buffer> = (10..30).map(|fill| build(&spare, fill)).collect();
    drop(part);
    assert_eq!(content(&copy), [1; 97]);
    assert_eq!(*memory.map_readable().unwrap(), [2; 97]);
    assert_eq!(content(&part_of_part), [3; 3]);
    assert_eq!(*mapped, [4; 97]);
    drop((mapped, others));
    assert_eq!(count(&spare), 21);
}

#[test]
fn parts_that_follow_each_other_are_one_without_a_copy() {
    let spare = SpareBuffers::default();
    let whole = spare.build(Memory::from_vec((0..100).collect(), 0), &caps(1), time(0));
    let part = |range| {
        whole
            .copy_region(gst::BufferCopyFlags::MEMORY, range)
            .unwrap()
    };
    let mut joined = part(10..20);
    joined.append(part(20..40));
    let expected: Vec<u8> = (10..40).collect();
    assert_eq!(content(&joined), expected);
    let address = joined.map_readable().unwrap().as_ptr();
    let start = whole.map_readable().unwrap().as_ptr();
    assert_eq!(address as usize - start as usize, 10);
}

#[test]
fn changed_buffers_are_freed() {
    let spare = SpareBuffers::default();
    let change = |change: &dyn Fn(&mut gst::BufferRef)| {
        let mut buffer = build(&spare, 1);
        change(buffer.get_mut().unwrap());
        drop(buffer);
        assert_eq!(count(&spare), 0);
    };
    change(&|buffer| buffer.remove_all_memory());
    change(&|buffer| buffer.append_memory(gst::Memory::from_slice([1])));
    change(&|buffer| buffer.replace_all_memory(gst::Memory::from_slice([1])));
    change(&|buffer| {
        buffer.foreach_meta_mut(|_| {
            std::ops::ControlFlow::Continue(gst::buffer::BufferMetaForeachAction::Remove)
        });
    });
    // The memory of another one, which is gone.
    let other = build(&spare, 2).memory(0);
    change(&|buffer| buffer.replace_all_memory(other.clone().unwrap()));
    drop(other);
    assert_eq!(count(&spare), 0);
}

#[test]
fn writes_downstream_are_possible() {
    let spare = SpareBuffers::default();
    let mut buffer = build(&spare, 1);
    buffer.get_mut().unwrap().map_writable().unwrap()[0] = 9;
    assert_eq!(content(&buffer)[..2], [9, 1]);
    drop(buffer);
    assert_eq!(count(&spare), 1);
    let mut copy = build(&spare, 1).copy_deep().unwrap();
    copy.get_mut().unwrap().map_writable().unwrap()[0] = 9;
    assert_eq!(content(&copy)[..2], [9, 1]);
}

#[test]
fn number_of_spare_buffers_is_bounded() {
    let spare = SpareBuffers::default();
    let buffers: Vec<_> = (0..2 * MAX_SPARE).map(|_| build(&spare, 1)).collect();
    drop(buffers);
    assert_eq!(count(&spare), MAX_SPARE);
}

#[test]
fn buffers_of_a_burst_are_freed_when_it_is_over() {
    let spare = SpareBuffers::default();
    let burst = || {
        let buffers: Vec<_> = (0..100).map(|_| build(&spare, 1)).collect();
        drop(buffers);
        count(&spare)
    };
    for _ in 0..10 {
        assert_eq!(burst(), 100, "all of them are needed");
    }
    (0..1000).for_each(|_| drop(build(&spare, 1)));
    assert!(count(&spare) <= KEPT + 1, "{}", count(&spare));
    assert_eq!(Arc::strong_count(&spare.0), 1 + count(&spare));
    assert_eq!(burst(), 100);
}

#[test]
fn buffers_outlive_their_store() {
    let spare = SpareBuffers::default();
    drop(build(&spare, 1));
    let buffers = [build(&spare, 2), build(&spare, 3)];
    drop(build(&spare, 4));
    let store = Arc::downgrade(&spare.0);
    drop(spare);
    assert_eq!(content(&buffers[1]), [3; 97]);
    drop(buffers);
    assert_eq!(store.strong_count(), 0, "nothing is left");
}

#[test]
fn payload_returns_to_its_pool_at_once() {
    let pool = crate::memory::Pool::default();
    let spare = SpareBuffers::default();
    let allocate = || {
        let mut memory = pool.allocate(0, 1000);
        memory.extend(&[7; 1000]);
        memory
    };
    let memory = allocate();
    let address = memory.as_ptr();
    drop(spare.build(memory, &caps(1), time(0)));
    assert_eq!(allocate().as_ptr(), address);
}

#[test]
fn threads_that_drop_and_one_that_builds_see_their_own_bytes() {
    let spare = SpareBuffers::default();
    thread::scope(|scope| {
        let senders = [(); 3].map(|()| {
            let (sender, receiver) = mpsc::channel::<(u8, gst::Buffer)>();
            scope.spawn(move || {
                let mut held = Vec::new();
                for (fill, buffer) in receiver {
                    assert_eq!(content(&buffer), [fill; 97]);
                    if fill % 5 == 0 {
                        held.push((fill, buffer.copy()));
                    }
                }
                for (fill, buffer) in held {
                    assert_eq!(content(&buffer), [fill; 97]);
                }
            });
            sender
        });
        for number in 0..3000_usize {
            let fill = number as u8;
            let sender = &senders[number % senders.len()];
            sender.send((fill, build(&spare, fill))).unwrap();
        }
        drop(senders);
    });
}
