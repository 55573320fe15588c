// SPDX-License-Identifier: MPL-2.0

//! Publishers start and end in any order, and leak nothing.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use gst::prelude::*;

use super::multi_recorder::MultiRecorder;
use support::PATIENCE;
use support::clients::{FFMPEG, NEW_FFMPEG, publish};
use support::flv::{self, Tag, assert_same_media};
use support::gst_clients::publish_with;
use support::isolated::is_isolated;
use support::media::{copy, small};
use support::resources::{memory, resources};

const PUBLISHERS: usize = 20;
const AT_ONCE: usize = 4;

/// Growth that the allocator may cause, in kB.
const MAX_GROWTH: u64 = 16 * 1024;

/// Publishes a file to its end and returns the tags that were sent.
fn publish_one(number: usize, paced: bool, seconds: u32, url: &str) -> Vec<Tag> {
    let file = small(seconds);
    let program: PathBuf = match number % 5 {
        4 => {
            let folder = tempfile::tempdir().unwrap();
            let sent = folder.path().join("sent.flv");
            publish_with("rtmp2sink", &file, url, &sent).succeed();
            return flv::read_file(&sent);
        }
        even if even % 2 == 0 => Path::new(FFMPEG).to_owned(),
        _ => NEW_FFMPEG.clone(),
    };
    publish(&program, &file, paced, url).succeed();
    flv::read_file(&copy(&program, &file))
}

/// Runs all publishers in random order, a few at a time.
fn round(recorder: &MultiRecorder, random: &mut fastrand::Rng) {
    let before = recorder.inspect(|seen| seen.history.len());
    let mut order: Vec<usize> = (0..PUBLISHERS).collect();
    random.shuffle(&mut order);
    let (jobs, queue) = mpsc::channel();
    for number in order {
        let (paced, seconds) = (random.bool(), random.u32(1..3));
        jobs.send((number, paced, seconds)).unwrap();
    }
    drop(jobs);
    let queue = std::sync::Mutex::new(queue);
    let sent = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().unwrap().recv();
                    let Ok((number, paced, seconds)) = job else {
                        return;
                    };
                    let url = recorder.url(&format!("live/camera{number}"));
                    let tags = publish_one(number, paced, seconds, &url);
                    sent.lock().unwrap().push((number, tags));
                }
            });
        }
    });
    for (number, expected) in sent.into_inner().unwrap() {
        let key = format!("camera{number}");
        let pad = recorder.wait_until(&key, |seen| {
            let history = &seen.history[before..];
            let mut gone = history.iter().filter_map(|what| what.strip_prefix('-'));
            gone.find(|pad| seen.keys.get(*pad) == Some(&key))
                .map(str::to_owned)
        });
        assert_same_media(&expected, &recorder.tags(&pad));
        recorder.discard_buffers(&pad);
    }
    assert_eq!(recorder.element.num_src_pads(), 0);
}

/// Finished streaming threads that GStreamer keeps for the next pad.
const POOLED: usize = 8;

/// Returns the threads of the plugin, streaming threads in use or pooled, and all descriptors.
fn used() -> (usize, usize, usize) {
    let (threads, descriptors) = resources();
    let count = |start: &str| {
        let named = threads.iter().filter(|(name, _)| name.starts_with(start));
        named.map(|(_, count)| count).sum()
    };
    (count("rtmp-"), count("stream_"), descriptors)
}

/// Waits until the last clients' threads have ended, so that only the accepting thread remains.
/// Returns the descriptors that are open then.
#[track_caller]
fn settle(is_settled: impl Fn(usize) -> bool) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (threads, streaming, descriptors) = used();
        if threads == 1 && streaming <= POOLED && is_settled(descriptors) {
            return descriptors;
        }
        assert!(Instant::now() < deadline, "{:?}", resources());
        thread::yield_now();
    }
}

#[test]
fn publishers_in_any_order_leak_nothing() {
    // In a process where no other test uses resources.
    if !is_isolated("multi::churn::publishers_in_any_order_leak_nothing") {
        return;
    }
    let recorder = MultiRecorder::start("application=live max-streams=8");
    let mut random = fastrand::Rng::with_seed(7);
    round(&recorder, &mut random);
    let (before, memory_before) = (settle(|_| true), memory());
    round(&recorder, &mut random);
    round(&recorder, &mut random);
    settle(|descriptors| descriptors <= before);
    let growth = memory().saturating_sub(memory_before);
    assert!(growth < MAX_GROWTH, "{growth} kB");
    assert_eq!(
        recorder.stats().get::<u64>("publishers"),
        Ok(3 * PUBLISHERS as u64)
    );
}
