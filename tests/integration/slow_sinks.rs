// SPDX-License-Identifier: MPL-2.0

//! Sinks slower than the publisher.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gst::prelude::*;

use support::clients::{FFMPEG, Running, ffmpeg, publish};
use support::flv::{self, Tag};
use support::gst_clients::publish_with;
use support::launch::Launch;
use support::recorder::Recorder;
use support::{PATIENCE, media};

const MAX_BYTES: u64 = 1 << 20;

/// Largest total of the kernel's buffers of one connection on one machine: what Linux gives a
/// socket by itself, on both sides, with a margin.
const KERNEL_BUFFERS: usize = 12 << 20;

/// Memory that one client may use in addition to the queue.
const CLIENT_MEMORY: u64 = 32 << 20;

/// Time that the slow sink takes for each of its first [`SLOW_BUFFERS`] buffers.
const PAUSE: Duration = Duration::from_millis(50);
const SLOW_BUFFERS: usize = 60;

/// Publishes into a sink that is slow at first. The publisher must not finish before the output has
/// caught up to what the kernel and the queue can hold.
#[track_caller]
fn publish_to_a_slow_sink(start: impl FnOnce(&str) -> Running) -> Vec<Tag> {
    let recorder = Recorder::start(&format!("max-bytes={MAX_BYTES}"));
    let seen = Arc::new(AtomicUsize::new(0));
    let pad = recorder.element.static_pad("src").unwrap();
    let (bytes, level) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (bytes.clone(), level.clone());
    let slowed = seen.clone();
    let element = recorder.element.downgrade();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let (slow_phase_ended, slow_phase_end) = std::sync::mpsc::channel();
    pad.add_probe(kinds, move |_, info| {
        let (count, size) = match &info.data {
            Some(gst::PadProbeData::BufferList(list)) => (list.len(), list.calculate_size()),
            Some(gst::PadProbeData::Buffer(buffer)) => (1, buffer.size()),
            _ => (0, 0),
        };
        if let Some(element) = element.upgrade() {
            let now = element.property::<u64>("current-level-bytes") as usize;
            highest.fetch_max(now, Ordering::Relaxed);
        }
        counted.fetch_add(size, Ordering::Relaxed);
        let before = slowed.fetch_add(count, Ordering::Relaxed);
        if before < SLOW_BUFFERS {
            std::thread::sleep(PAUSE * count as u32);
            if before + count >= SLOW_BUFFERS {
                let _ = slow_phase_ended.send(counted.load(Ordering::Relaxed));
            }
        }
        gst::PadProbeReturn::Ok
    });
    let mut publisher = start(&recorder.url("live/key"));
    let out = slow_phase_end.recv_timeout(PATIENCE).unwrap();
    let ended = publisher.0.try_wait().unwrap();
    publisher.succeed();
    let tags = recorder.finish();
    let all = recorder.bytes().len();
    assert!(
        all > out + MAX_BYTES as usize + KERNEL_BUFFERS,
        "the file is long enough"
    );
    assert_eq!(
        ended, None,
        "the publisher was done after {out} of {all} bytes"
    );
    // The queue may exceed its limit by the message that filled it.
    let largest = tags.iter().map(|tag| tag.body.len()).max().unwrap();
    let highest = level.load(Ordering::Relaxed);
    assert!(
        highest <= MAX_BYTES as usize + largest + 64 * 1024,
        "{highest}"
    );
    tags
}

#[test]
fn a_slow_sink_slows_ffmpeg_down_and_loses_nothing() {
    let file = media::long_full_hd();
    let tags = publish_to_a_slow_sink(|url| publish(FFMPEG, &file, false, url));
    flv::assert_same_media(&flv::read_file(&file), &tags);
}

#[test]
fn a_slow_sink_slows_rtmpsink_down_and_loses_nothing() {
    let file = media::long_full_hd();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("sent.flv");
    let tags = publish_to_a_slow_sink(|url| publish_with("rtmpsink", &file, url, &copy));
    flv::assert_same_media(&flv::read_file(&copy), &tags);
}

/// Returns a value of `/proc/PID/status`, in bytes.
fn memory(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() * 1024
}

#[test]
fn the_memory_of_a_slow_pipeline_is_bounded() {
    let file = media::long_full_hd();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.flv");
    let text = format!(
        "rtmp2serversrc port=0 max-bytes={MAX_BYTES} ! identity sleep-time=5000 ! filesink location={}",
        output.display()
    );
    let mut launch = Launch::start("", &text);
    let port = launch.port();
    let before = memory(launch.id(), "VmRSS:");
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    publish(FFMPEG, &file, false, &url).succeed();
    // The peak so far. The rest of the stream is still in transit.
    let highest = memory(launch.id(), "VmHWM:");
    assert!(launch.wait().0.success());
    flv::assert_same_media(&flv::read_file(&file), &flv::read_file(&output));
    assert!(
        highest < before + MAX_BYTES + CLIENT_MEMORY,
        "{before} bytes grew to {highest}"
    );
}

/// Asserts that a slow sink with a leaky queue gets whole groups of pictures.
fn assert_leaks_whole_groups(leaky_type: &str) {
    let file = media::small(20);
    let sent = flv::media(&flv::read_file(&file));
    let recorder = Recorder::start(&format!("max-bytes=60000 leaky-type={leaky_type}"));
    let pad = recorder.element.static_pad("src").unwrap();
    let seen = AtomicUsize::new(0);
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, _| {
        if seen.fetch_add(1, Ordering::Relaxed) < 20 {
            std::thread::sleep(PAUSE);
        }
        gst::PadProbeReturn::Ok
    });
    publish(FFMPEG, &file, false, &recorder.url("live/key")).succeed();
    let bytes = {
        recorder.finish();
        recorder.bytes()
    };
    let got = flv::parse(&bytes).unwrap();
    let frames =
        |tags: &[Tag]| -> Vec<Tag> { tags.iter().filter(|tag| tag.is_frame()).cloned().collect() };
    let (sent, got) = (frames(&sent), frames(&got));
    assert!(got.len() < sent.len(), "it leaked");
    // Every frame was sent, and in this order; only a keyframe may follow a hole.
    let mut at = 0;
    for frame in &got {
        let found = sent[at..].iter().position(|sent| sent.body == frame.body);
        let skipped = found.unwrap_or_else(|| panic!("{frame:?} was not sent, or before"));
        assert!(
            skipped == 0 || frame.body[0] == 0x17,
            "a hole before {frame:?}"
        );
        at += skipped + 1;
    }
    // Each group of pictures is whole, so a hole begins where a group ends.
    let dropped = recorder.stats().get::<u64>("dropped-queue-full").unwrap();
    assert!(dropped > 0);
    let mut decoded = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut decoded, &bytes).unwrap();
    let input = decoded.path().display();
    let output = ffmpeg(FFMPEG, &format!("-xerror -i {input} -f null -")).wait();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

#[test]
fn a_queue_that_leaks_old_media_delivers_decodable_media() {
    assert_leaks_whole_groups("downstream");
}

#[test]
fn a_queue_that_leaks_new_media_delivers_decodable_media() {
    assert_leaks_whole_groups("upstream");
}
