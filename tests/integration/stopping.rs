// SPDX-License-Identifier: MPL-2.0

//! Stopping in every state, and resources after it.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use gst::prelude::*;
use gstrtmp2server::internal::amf0::Value;

use support::clients::{FFMPEG, Running, publish};
use support::isolated::is_isolated;
use support::launch::Launch;
use support::raw::{RawClient, code, send};
use support::recorder::Recorder;
use support::resources::resources;
use support::synthetic::stream;
use support::wire::Wire;
use support::{PATIENCE, flv, init, media};

/// Longest time from Ctrl-C to the exit of the process.
const MAX_EXIT_DELAY: Duration = Duration::from_millis(500);

const CYCLES: usize = 200;

#[track_caller]
fn assert_exits(launch: &mut Launch) {
    launch.interrupt();
    let (_, delay) = launch.wait();
    assert!(delay < MAX_EXIT_DELAY, "{delay:?}: {}", launch.output());
}

#[test]
fn ctrl_c_ends_an_idle_pipeline() {
    for options in ["", "-e"] {
        let mut launch = Launch::start(options, "rtmp2serversrc port=0 ! fakesink");
        // With -e, gst-launch-1.0 may wait forever if it is interrupted before it plays.
        launch.wait_for("New clock");
        assert_exits(&mut launch);
    }
}

/// Interrupts a pipeline that is receiving media, as its identity element shows.
fn interrupt_live(options: &str, downstream: &str) -> Launch {
    let text = format!("rtmp2serversrc port=0 ! identity name=probe silent=false ! {downstream}");
    let mut launch = Launch::start(options, &text);
    let port = launch.port();
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    let _publisher: Running = publish(FFMPEG, &media::small(20), true, &url);
    for _ in 0..60 {
        launch.wait_for("last-message = chain");
    }
    assert_exits(&mut launch);
    launch
}

#[test]
fn ctrl_c_ends_a_live_pipeline() {
    interrupt_live("", "fakesink");
}

#[test]
fn ctrl_c_with_e_finalises_an_flv_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.flv");
    interrupt_live("-e", &format!("filesink location={}", file.display()));
    let sent = flv::media(&flv::read_file(&media::small(20)));
    let got = flv::media(&flv::read_file(&file));
    assert!(got.len() >= 50, "{}", got.len());
    flv::assert_same_media(&sent[..got.len()], &got);
}

#[test]
fn ctrl_c_with_e_finalises_an_mp4_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.mp4");
    let sink = format!(
        "flvdemux name=demuxer mp4mux name=muxer ! filesink location={} \
         demuxer.video ! h264parse ! queue ! muxer. demuxer.audio ! aacparse ! queue ! muxer.",
        file.display()
    );
    interrupt_live("-e", &sink);
    let arguments =
        "-v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0";
    let output = Command::new("ffprobe")
        .args(arguments.split_whitespace())
        .arg(&file)
        .output()
        .unwrap();
    let frames = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    assert!(frames.trim().parse::<u32>().unwrap() >= 10, "{frames}");
}

#[test]
fn a_busy_port_error_names_the_port() {
    init();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let text = format!("rtmp2serversrc host=127.0.0.1 port={port} ! fakesink");
    let pipeline = gst::parse::launch(&text).unwrap();
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    let message = pipeline
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.expect("an error on the bus");
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    let text = format!("{} {:?}", error.error(), error.debug());
    assert!(
        text.contains("127.0.0.1") && text.contains(&port.to_string()),
        "{text}"
    );
}

/// The application sends EOS while downstream is blocked.
#[test]
fn eos_returns_at_once_and_follows_all_received_media() {
    let recorder = Recorder::start_into("keep-listening=true", "fakesink name=sink sync=false");
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = recorder.pipeline.by_name("sink").unwrap();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(kinds, move |_, _| {
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        gst::PadProbeReturn::Ok
    });
    let sent = stream(0, 50);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &sent);
    // The answer arrives after the server has read everything before the command.
    client.command(0, "createStream", 4.0, &[Value::Null]);
    client.expect_command("_result");

    let (returned, has_returned) = mpsc::channel();
    let element = recorder.element.clone();
    std::thread::spawn(move || returned.send(element.send_event(gst::event::Eos::new())));
    assert_eq!(has_returned.recv_timeout(PATIENCE), Ok(true));
    let status = client.expect_command("onStatus");
    assert_eq!(code(&status), "NetStream.Publish.Rejected");
    let mut other = RawClient::connect(recorder.port());
    assert!(other.try_publish("live", "other").is_none());

    drop(release);
    flv::assert_same_media(&flv::media(&sent), &flv::media(&recorder.finish()));
}

fn cycle(tags: &[u8]) {
    let text = "rtmp2serversrc name=src port=0 ! fakesink sync=false async=false";
    let pipeline = gst::parse::launch(text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let element = pipeline
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("src")
        .unwrap();
    let port = element.property::<u32>("current-port") as u16;
    let mut client = RawClient::publish(port, "live", "key");
    client.send(tags);
    pipeline.set_state(gst::State::Null).unwrap();
    // The connection is closed together with the element.
    while let Ok(1..) = std::io::Read::read(&mut client.socket, &mut [0; 4096]) {}
}

#[test]
fn start_stop_cycles_leak_no_thread_and_no_descriptor() {
    // In a process where no other test starts threads.
    if !is_isolated("stopping::start_stop_cycles_leak_no_thread_and_no_descriptor") {
        return;
    }
    init();
    let tags = stream(0, 10);
    let tags: Vec<u8> = tags
        .iter()
        .flat_map(|tag| Wire::of(tag).absolute(tag).concat())
        .collect();
    // Lazily created threads and descriptors exist after a few cycles.
    (0..5).for_each(|_| cycle(&tags));
    let before = resources();
    (0..CYCLES).for_each(|_| cycle(&tags));
    assert_eq!(resources(), before);
}

/// Programs in C do not ignore the signal that a write to a closed pipe raises.
#[test]
fn a_stop_among_connecting_clients_kills_no_process() {
    for _ in 0..6 {
        let mut launch = Launch::start("", "rtmp2serversrc port=0 ! fakesink");
        let port = launch.port();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let status = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
                    }
                });
            }
            for _ in 0..200 {
                drop(std::net::TcpStream::connect(("127.0.0.1", port)));
            }
            launch.interrupt();
            let (status, _) = launch.wait();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            status
        });
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, None);
    }
}

/// Returns the voluntary context switches of each thread of a process.
fn context_switches(id: u32) -> Vec<(String, String)> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let path = task.unwrap().path();
        // A thread may have ended since.
        let Ok(status) = std::fs::read_to_string(path.join("status")) else {
            continue;
        };
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"));
        threads.push((path.display().to_string(), line.unwrap().to_owned()));
    }
    threads.sort();
    threads
}

/// Waits for two seconds without a wake-up of any thread of a process.
#[track_caller]
fn expect_no_wake_ups(id: u32) {
    let started = std::time::Instant::now();
    let mut last = context_switches(id);
    let mut unchanged = std::time::Instant::now();
    while unchanged.elapsed() < Duration::from_secs(2) {
        assert!(started.elapsed() < PATIENCE, "{last:?}");
        // The length of a measurement: what is idle has no event to wait for.
        std::thread::sleep(Duration::from_millis(100));
        let now = context_switches(id);
        if now != last {
            last = now;
            unchanged = std::time::Instant::now();
        }
    }
}

#[test]
fn an_idle_element_does_not_wake_up() {
    let mut launch = Launch::start("", "rtmp2serversrc port=0 ! fakesink");
    launch.port();
    // Start-up work ends by itself.
    expect_no_wake_ups(launch.id());
}

#[test]
fn a_silent_publisher_does_not_wake_the_element_up() {
    let line = "rtmp2serversrc port=0 timeout=0 delivery-interval=100 ! fakesink";
    let mut launch = Launch::start("", line);
    let mut client = RawClient::publish(launch.port(), "live", "camera1");
    client.media(flv::VIDEO, 0, &[0x17, 0, 0, 0, 0, 1], 128);
    client.media(flv::VIDEO, 0, &[0x17, 1, 0, 0, 0, 9], 128);
    // Collection, and the events about a publisher that stalls, end by themselves.
    expect_no_wake_ups(launch.id());
}
