// SPDX-License-Identifier: MPL-2.0

//! Unknown publishers come and go in any order, and nothing of them stays.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use gst::prelude::*;

use super::multi_recorder::MultiRecorder;
use crate::support::PATIENCE;
use crate::support::clients::{FFMPEG, NEW_FFMPEG, publish};
use crate::support::flv::{self, Tag, assert_same_media};
use crate::support::gst_clients::publish_with;
use crate::support::isolated::is_apart;
use crate::support::media::{copy, small};
use crate::support::resources::{memory, resources};

const PUBLISHERS: usize = 20;
const AT_ONCE: usize = 4;

/// What the allocator may keep of it all, in kB.
const MAX_GROWTH: u64 = 16 * 1024;

/// Publishes a file to its end, and gives what was sent.
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

/// Some at a time, each when another one is done.
fn round(recorder: &MultiRecorder, random: &mut fastrand::Rng) {
    let before = recorder.look(|seen| seen.happened.len());
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
            let happened = &seen.happened[before..];
            let mut gone = happened.iter().filter_map(|what| what.strip_prefix('-'));
            gone.find(|pad| seen.keys.get(*pad) == Some(&key))
                .map(str::to_owned)
        });
        assert_same_media(&expected, &recorder.tags(&pad));
        recorder.forget(&pad);
    }
    assert_eq!(recorder.element.num_src_pads(), 0);
}

/// What GStreamer keeps of threads that streamed, for the next pad.
const POOLED: usize = 8;

/// Threads of the plugin, threads that stream or did, and all descriptors.
fn used() -> (usize, usize, usize) {
    let (threads, descriptors) = resources();
    let count = |start: &str| {
        let named = threads.iter().filter(|(name, _)| name.starts_with(start));
        named.map(|(_, count)| count).sum()
    };
    (count("rtmp-"), count("stream_"), descriptors)
}

/// Waits for the threads of those that were last, which end in a moment: who accepts clients stays. Gives
/// how many descriptors there are then.
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
fn publishers_come_and_go_and_leave_nothing() {
    // What other tests have in use is not counted.
    if !is_apart("multi::crowd::publishers_come_and_go_and_leave_nothing") {
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
