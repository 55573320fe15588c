// SPDX-License-Identifier: MPL-2.0

//! The stop of many streams. Each has a streaming thread to wait for, which takes longer than all else:
//! a few threads wait side by side. All that the application hears of happens on the caller's thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gst::subclass::prelude::*;

use super::branch::Branch;
use crate::server::is_callback_thread;

/// Most threads that wait side by side, with the caller.
const MAX_THREADS: usize = 16;

/// Streams for which one more thread is worth its start.
const STREAMS_OF_THREAD: usize = 8;

/// Stops and removes the streams on which no other thread works.
pub(super) fn stop_branches<'a>(bin: &gst::Bin, branches: impl Iterator<Item = &'a Branch>) {
    let idle: Vec<&Branch> = branches.filter(|branch| branch.begin_close()).collect();
    for branch in &idle {
        branch.lock_source_state();
        // Ends a push that is blocked at the pad, as the bin does it before it stops its children.
        branch.deactivate_pad();
    }
    // Within a push or a handler, other threads might wait for the caller.
    let is_streaming = |branch: &&Branch| branch.source.imp().is_streaming_thread();
    if !is_callback_thread() && !idle.iter().any(is_streaming) {
        let threads = (idle.len() / STREAMS_OF_THREAD).min(MAX_THREADS);
        share_work(&idle, threads, |branch| branch.stop_streaming());
    }
    idle.iter().for_each(|branch| branch.close(bin));
}

/// Calls `work` with each item, on this number of threads: the caller's, and others as far as there
/// are any. Does nothing for less than two of them.
fn share_work<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    if threads < 2 {
        return;
    }
    let next = AtomicUsize::new(0);
    let work_on = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            let builder = thread::Builder::new().name("rtmp-stop".into());
            if builder.spawn_scoped(scope, work_on).is_err() {
                break;
            }
        }
        work_on();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_worked_on_once() {
        let items: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::default()).collect();
        let count = |item: &AtomicUsize| {
            item.fetch_add(1, Ordering::Relaxed);
        };
        share_work(&items, 1, count);
        assert!(items.iter().all(|item| item.load(Ordering::Relaxed) == 0));
        share_work(&items, MAX_THREADS, count);
        assert!(items.iter().all(|item| item.load(Ordering::Relaxed) == 1));
    }
}
