// SPDX-License-Identifier: MPL-2.0

//! Deliveries by the publisher's thread, and the reader that waits for their end.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Begins a delivery once the reader waits.
#[track_caller]
fn begin_delivery(queue: &MediaQueue) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !queue.begin_delivery() {
        assert!(Instant::now() < patience, "the reader does not wait");
        std::thread::yield_now();
    }
}

#[test]
fn delivery_begins_only_while_the_reader_waits() {
    let queue = queue(100, Leak::None);
    assert!(!queue.begin_delivery());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        assert!(!queue.begin_delivery(), "one at a time");
        queue.end_delivery(false);
        begin_delivery(&queue);
        queue.end_delivery(true);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert!(!queue.begin_delivery());
    assert_eq!(queue.wait(Some(Instant::now())), Ok(Wake::TimedOut));
}

#[test]
fn reader_waits_for_the_end_of_a_delivery() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        push(&queue, [frame(1)]);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!reader.is_finished());
        queue.end_delivery(false);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert_eq!(pop(&queue), unmarked([1]));
}

#[test]
fn deadline_of_the_reader_waits_for_the_end_of_a_delivery() {
    let queue = queue(100, Leak::None);
    let is_delivered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // On a busy machine the deadline may come before the delivery: then the reader waits again.
        let reader = scope.spawn(|| {
            loop {
                let deadline = Instant::now() + Duration::from_millis(20);
                let wake = queue.wait(Some(deadline));
                if is_delivered.load(Ordering::SeqCst) {
                    return (wake, Instant::now() >= deadline);
                }
            }
        });
        begin_delivery(&queue);
        is_delivered.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(40));
        assert!(!reader.is_finished());
        queue.end_delivery(false);
        assert_eq!(reader.join().unwrap(), (Ok(Wake::TimedOut), true));
    });
}

#[test]
fn flush_ends_after_the_delivery_in_it() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        let second = scope.spawn(|| queue.wait_for_delivery_or_flush());
        queue.begin_flush();
        assert_eq!(reader.join().unwrap(), Err(Stopped));
        assert_eq!(second.join().unwrap(), Err(Stopped));
        let flush = scope.spawn(|| queue.end_flush(false));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!flush.is_finished());
        queue.end_delivery(false);
        flush.join().unwrap();
    });
    assert_eq!(queue.wait_for_delivery_or_flush(), Ok(()));
    assert_eq!(queue.wait(Some(Instant::now())), Ok(Wake::TimedOut));
}

#[test]
fn flush_from_within_a_delivery_does_not_wait_for_it() {
    let queue = queue(100, Leak::None);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        queue.begin_flush();
        assert_eq!(reader.join().unwrap(), Err(Stopped));
        queue.end_flush(true);
        queue.end_delivery(false);
    });
}

#[test]
fn push_tells_if_the_reader_waits() {
    let queue = queue(100, Leak::None);
    assert_eq!(queue.push(CLIENT, &mut vec![frame(1)]), Ok(false));
    let mut batch = VecDeque::new();
    queue.take(&mut batch);
    assert_eq!(batch.len(), 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| queue.wait(None));
        begin_delivery(&queue);
        assert_eq!(queue.push(CLIENT, &mut vec![frame(2)]), Ok(true));
        queue.take(&mut batch);
        queue.end_delivery(true);
        assert_eq!(reader.join().unwrap(), Ok(Wake::Called));
    });
    assert!(!queue.is_reader_due());
}
