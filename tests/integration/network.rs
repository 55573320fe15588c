// SPDX-License-Identifier: MPL-2.0

//! Publishers whose network fails: a cable is pulled without a notice to either end, and variations
//! of that. Each test runs twenty rounds with ffmpeg and twenty with rtmp2sink, all at once, each
//! with its own random times.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use gstrtmp2server::{ConnectionState, StreamStatus};

use support::clients::{FFMPEG, Running};
use support::flv;
use support::media::small;
use support::netns::{self, Machine, SERVER};
use support::recorder::{Recorder, epoch_of};
use support::rendered;

/// Rounds for each kind of client.
const ROUNDS: u8 = 20;

/// Largest skew between audio and video, in milliseconds.
const MAX_SKEW: i64 = 20;

/// Buffers that show that a stream is flowing.
const ENOUGH: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Ffmpeg,
    Rtmp2Sink,
}

/// The publisher's fate while the cable is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// The publisher is killed, and another one starts.
    Killed,
    /// The same, from another address.
    Moved,
}

fn publish(machine: &Machine, client: Client, file: &Path, port: u16) -> Running {
    let url = format!("rtmp://{SERVER}:{port}/live/key");
    let file = file.display();
    let (program, arguments) = match client {
        Client::Ffmpeg => (
            FFMPEG,
            format!("-nostdin -v error -re -i {file} -map 0 -c copy -f flv {url}"),
        ),
        Client::Rtmp2Sink => (
            "gst-launch-1.0",
            // By default rtmp2sink gives up a connection that takes nothing for five seconds.
            format!(
                "-q filesrc location={file} ! flvdemux name=d \
                 d.video ! h264parse ! queue ! identity sync=true ! m. \
                 d.audio ! aacparse ! queue ! identity sync=true ! m. \
                 flvmux name=m streamable=true ! rtmp2sink location={url} timeout=60"
            ),
        ),
    };
    let mut command = machine.command(program);
    Running::spawn(command.args(arguments.split_whitespace()))
}

/// Waits until more media of an epoch has arrived.
#[track_caller]
fn wait_for_more(recorder: &Recorder, epoch: u64) {
    let is_media = |buffer: &&gst::Buffer| {
        let flags = buffer.flags();
        !flags.contains(gst::BufferFlags::HEADER) && epoch_of(buffer) == epoch
    };
    let count = |buffers: &[gst::Buffer]| buffers.iter().filter(is_media).count();
    let before = count(&recorder.buffers());
    recorder.wait_until("media", |buffers| count(buffers) >= before + ENOUGH);
}

fn round(number: u8, client: Client, outage: Duration, meanwhile: Meanwhile) {
    let mut random = fastrand::Rng::with_seed(number.into());
    let file = small(60);
    let recorder = Recorder::start("keep-listening=true resume-timeout=60000");
    let mut machine = Machine::new(number);
    let first = publish(&machine, client, &file, recorder.port());
    wait_for_more(&recorder, 1);
    // The cable is pulled at a random point of a group of pictures.
    thread::sleep(Duration::from_millis(random.u64(..1000)));
    machine.pull_out();
    let more = Duration::from_millis(random.u64(..500));
    thread::sleep(outage + more);
    let (publisher, epoch) = if meanwhile == Meanwhile::Nothing {
        machine.plug_in();
        (first, 1)
    } else {
        if meanwhile == Meanwhile::Moved {
            machine.change_address();
        }
        drop(first);
        machine.plug_in();
        (publish(&machine, client, &file, recorder.port()), 2)
    };
    wait_for_more(&recorder, epoch);
    check(&recorder, epoch);
    drop(publisher);
}

/// Asserts everything that holds whatever happens to a publisher.
fn check(recorder: &Recorder, last_epoch: u64) {
    let bus = gst::prelude::ElementExt::bus(&recorder.pipeline).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    assert_eq!(bus.pop_filtered(&ends).map(|m| m.type_()), None);
    check_statuses(recorder, last_epoch);
    let mut last = BTreeMap::new();
    // For each epoch: whether its first video is a keyframe, and the offsets between output and
    // publisher timestamps.
    let mut first = BTreeMap::new();
    let mut offsets: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for buffer in recorder.buffers() {
        let map = buffer.map_readable().unwrap();
        let kind = map[0];
        if buffer.flags().contains(gst::BufferFlags::HEADER) || kind == flv::SCRIPT {
            continue;
        }
        let dts = buffer.dts().unwrap().mseconds();
        let before = last.insert(kind, dts).unwrap_or(0);
        assert!(dts >= before, "a track went back from {before} to {dts}");
        let epoch = epoch_of(&buffer);
        if kind == flv::VIDEO {
            let starts = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            first.entry(epoch).or_insert(starts);
        }
        let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
        let offset = dts as i64 - meta.timestamp().mseconds() as i64;
        offsets.entry(epoch).or_default().push(offset);
    }
    assert_eq!(first.len() as u64, last_epoch);
    assert!(first.values().all(|starts| *starts), "{first:?}");
    for offsets in offsets.values() {
        let (min, max) = (offsets.iter().min(), offsets.iter().max());
        assert!(max.unwrap() - min.unwrap() <= MAX_SKEW, "{min:?}..{max:?}");
    }
    check_decoding(&recorder.bytes());
}

/// Asserts that each status may follow the one before it, that none is repeated, and that the
/// stream never counts as ended.
fn check_statuses(recorder: &Recorder, last_epoch: u64) {
    use ConnectionState as C;
    use StreamStatus as S;
    let mut before = (C::Disconnected, S::Stopped, 0);
    let mut is_on = false;
    for status in recorder.messages("rtmp2-stream-status", 1) {
        let now: (C, S, u64) = (
            status.get("connection-state").unwrap(),
            status.get("stream-status").unwrap(),
            status.get("epoch").unwrap(),
        );
        let is_next = now.2 == before.2 + 1;
        let is_same = now.2 == before.2;
        let follows = match (before.1, now.1) {
            (S::Stopped, S::Stopped) => is_same && before.0 != now.0,
            (_, S::Reconfiguring) if now.0 == C::Negotiating && is_next => true,
            (S::Reconfiguring, S::Active) => is_same,
            (S::Active | S::Reconfiguring, S::Paused) => is_same,
            (S::Paused, S::Active | S::Reconfiguring) => is_same,
            _ => false,
        };
        assert!(follows, "{before:?}, {now:?}");
        before = now;
        is_on |= now == (C::Streaming, S::Active, last_epoch);
    }
    // On a busy machine the stream may have stalled since.
    assert!(is_on && before.2 == last_epoch, "{before:?}");
}

/// Asserts that every frame of the output decodes: none is missing and none is corrupt.
fn check_decoding(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.flv");
    std::fs::write(&file, bytes).unwrap();
    let text = format!(
        "filesrc location={} ! flvdemux name=d d.video ! queue ! h264parse ! \
         avdec_h264 output-corrupt=false ! fakesink name=sink sync=false \
         d.audio ! queue ! fakesink sync=false async=false",
        file.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let tags = flv::parse(bytes).unwrap();
    let frames = tags.iter().filter(|t| t.kind == flv::VIDEO && t.is_coded());
    assert_eq!(rendered(&pipeline), frames.count() as u64);
}

fn rounds(test: &str, outage: Duration, meanwhile: Meanwhile) {
    if let Some(status) = netns::enter(test) {
        assert!(status.success(), "in a network of its own: {status}");
        return;
    }
    thread::scope(|scope| {
        for number in 1..=2 * ROUNDS {
            let client = [Client::Ffmpeg, Client::Rtmp2Sink][usize::from(number % 2)];
            let round = move || round(number, client, outage, meanwhile);
            let name = format!("{number}: {client:?}");
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, round)
                .unwrap();
        }
    });
}

#[test]
fn a_stream_survives_a_cable_that_is_out_for_a_second() {
    let test = "network::a_stream_survives_a_cable_that_is_out_for_a_second";
    rounds(test, Duration::from_secs(1), Meanwhile::Nothing);
}

#[test]
fn a_stream_survives_a_cable_that_is_out_for_three_seconds() {
    let test = "network::a_stream_survives_a_cable_that_is_out_for_three_seconds";
    rounds(test, Duration::from_secs(3), Meanwhile::Nothing);
}

#[test]
fn a_stream_survives_a_cable_that_is_out_for_ten_seconds() {
    let test = "network::a_stream_survives_a_cable_that_is_out_for_ten_seconds";
    rounds(test, Duration::from_secs(10), Meanwhile::Nothing);
}

#[test]
fn a_stream_survives_a_publisher_that_is_killed_during_an_outage() {
    let test = "network::a_stream_survives_a_publisher_that_is_killed_during_an_outage";
    rounds(test, Duration::from_secs(3), Meanwhile::Killed);
}

#[test]
fn a_stream_survives_a_publisher_that_returns_from_another_address() {
    let test = "network::a_stream_survives_a_publisher_that_returns_from_another_address";
    rounds(test, Duration::from_secs(3), Meanwhile::Moved);
}
