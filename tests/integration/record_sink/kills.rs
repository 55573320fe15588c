// SPDX-License-Identifier: MPL-2.0

//! A publisher that reconnects, and a recorder that is killed.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::PATIENCE;
use support::flv::{AUDIO, VIDEO};
use support::launch;
use support::program::Program;
use support::raw::{send, unpublish};
use support::synthetic::{audio_header, video_header};

use super::{connect, files, number_of, numbered, probe, read};

/// The environment variable with the number of reconnects. A twentieth of them are kills.
const RECONNECTS: &str = "RTMP2SERVER_TEST_RECORD_RECONNECTS";
const SHORT: u32 = 40;

/// Frames of a connection: 1.2 s, longer than a fragment.
const FRAMES: u32 = 30;

struct Recorder {
    program: Program,
    port: u16,
}

/// Starts a recorder in a process of its own. All use one registry, which takes long to make.
fn start(folder: &Path, registry: &Path) -> Recorder {
    let pipeline = format!(
        "-e -m -v rtmp2serversrc port=0 keep-listening=true resume-timeout=500 ! \
         rtmp2recordsink fragment-duration=200 location={}/%Y/out.mp4",
        folder.display()
    );
    let mut command = Command::new("gst-launch-1.0");
    command
        .env("GST_PLUGIN_PATH", launch::plugin_folder())
        .env("GST_REGISTRY", registry)
        .args(pipeline.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut program = Program::start(&mut command);
    let port = program.rest_after("current-port = ").parse().unwrap();
    Recorder { program, port }
}

fn bytes_in(folder: &Path) -> u64 {
    let sizes = files(folder, "").into_iter();
    sizes
        .map(|path| path.metadata().map_or(0, |data| data.len()))
        .sum()
}

/// Waits until this much is in the files: the recorder's process says nothing of it.
fn wait_for_bytes(folder: &Path, bytes: u64) {
    let start = Instant::now();
    while bytes_in(folder) < bytes {
        assert!(
            start.elapsed() < PATIENCE,
            "{bytes} bytes are never written"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_frame_is_in_one_file_but_for_the_last_fragment_of_killed_recorders() {
    let reconnects = std::env::var(RECONNECTS).map_or(SHORT, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let own = tempfile::tempdir().unwrap();
    let registry = own.path().join("registry");
    let mut random = fastrand::Rng::with_seed(14);
    let mut recorder = start(folder.path(), &registry);
    let mut kills = 0;
    // Frames that a kill may have cost: those of the connection that it ended.
    let mut excused = HashSet::new();
    for number in 0..reconnects {
        let first = number * FRAMES;
        let tags = numbered(first, FRAMES, 0);
        let before = bytes_in(folder.path());
        let is_last = number % 20 == 9 || number + 1 == reconnects;
        let key = if is_last {
            format!("last{number}")
        } else {
            "key".to_owned()
        };
        let mut client = connect(recorder.port, &key);
        send(&mut client, &[video_header(0), audio_header(0)]);
        if number % 20 == 10 {
            let count = random.usize(40..tags.len());
            send(&mut client, &tags[..count]);
            let most: usize = tags[..36].iter().map(|tag| tag.body.len()).sum();
            wait_for_bytes(folder.path(), before + most as u64);
            recorder.program.signal(Signal::KILL);
            recorder.program.wait();
            excused.extend(first..first + FRAMES);
            kills += 1;
            recorder = start(folder.path(), &registry);
        } else {
            send(&mut client, &tags);
            if is_last {
                // All before it is written then: a kill costs what still waits in the recorder.
                unpublish(client);
                let is_end =
                    |line: &str| line.contains("event=(string)finished") && line.contains(&key);
                recorder.program.wait_from(0, "the last file", is_end);
            } else if random.u8(0..3) == 0 {
                unpublish(client);
            }
        }
    }
    recorder.program.signal(Signal::INT);
    assert!(recorder.program.wait().success());
    assert_eq!(kills, reconnects.div_ceil(20).max(1));

    assert_eq!(
        files(folder.path(), ".part"),
        Vec::<std::path::PathBuf>::new()
    );
    let mut seen = HashSet::new();
    let mut bytes_of_excused = 0;
    for file in files(folder.path(), ".mp4") {
        let media = read(&file);
        let counts = probe(&file);
        assert_eq!(
            counts.values().sum::<usize>(),
            media.len(),
            "{}",
            file.display()
        );
        for media in &media {
            let is_new = seen.insert((media.kind, number_of(media)));
            assert!(is_new, "frame {} is there twice", number_of(media));
            let is_excused = excused.contains(&number_of(media));
            bytes_of_excused += usize::from(is_excused);
        }
    }
    let mut missing = Vec::new();
    for number in 0..reconnects * FRAMES {
        for kind in [VIDEO, AUDIO] {
            if !seen.contains(&(kind, number)) && !excused.contains(&number) {
                missing.push((kind, number));
            }
        }
    }
    assert!(missing.is_empty(), "missing: {missing:?}");
    // Of the killed connections themselves, whole fragments are there too.
    assert!(bytes_of_excused > 0);
}
