// SPDX-License-Identifier: MPL-2.0

//! A publisher that reconnects, and a recorder that is killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::PATIENCE;
use support::flv::{AUDIO, Tag, VIDEO};
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

/// Duration of a fragment in milliseconds.
const FRAGMENT: u32 = 200;

/// Frames of a track in the last fragment, which each last 40 ms: those of its duration, one whose
/// duration is not known before the next one, and one that waits for the other track.
const LAST_FRAGMENT: usize = FRAGMENT as usize / 40 + 2;

struct Recorder {
    program: Program,
    port: u16,
}

/// Starts a recorder in a process of its own. All use one registry, which takes long to make.
fn start(folder: &Path, registry: &Path) -> Recorder {
    let pipeline = format!(
        "-e -m -v rtmp2serversrc port=0 keep-listening=true resume-timeout=500 ! \
         rtmp2recordsink fragment-duration={FRAGMENT} location={}/%Y/out.mp4",
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

/// Calls a function with kind and body of each box that is whole.
fn for_boxes(mut bytes: &[u8], handle: &mut dyn FnMut(&[u8], &[u8])) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()) as usize;
    while bytes.len() >= 8 && (8..=bytes.len()).contains(&number(&bytes[..4])) {
        let (this, rest) = bytes.split_at(number(&bytes[..4]));
        handle(&this[4..8], &this[8..]);
        bytes = rest;
    }
}

/// Returns the number of packets of video and audio in whole fragments of an MP4.
fn packets_in(bytes: &[u8]) -> [usize; 2] {
    let number = |body: &[u8], at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    let (mut video_id, mut id) = (0, 0);
    let (mut counts, mut announced) = ([0; 2], [0; 2]);
    for_boxes(bytes, &mut |kind, body| match kind {
        b"moov" => for_boxes(body, &mut |_, track| {
            for_boxes(track, &mut |kind, body| match kind {
                b"tkhd" => id = number(body, if body[0] == 1 { 20 } else { 12 }),
                b"mdia" => for_boxes(body, &mut |kind, body| {
                    if kind == b"hdlr" && &body[8..12] == b"vide" {
                        video_id = id;
                    }
                }),
                _ => {}
            });
        }),
        b"moof" => for_boxes(body, &mut |_, fragment| {
            for_boxes(fragment, &mut |kind, body| match kind {
                b"tfhd" => id = number(body, 4),
                b"trun" => announced[usize::from(id != video_id)] += number(body, 4) as usize,
                _ => {}
            });
        }),
        b"mdat" => {
            for (count, announced) in counts.iter_mut().zip(&mut announced) {
                *count += std::mem::take(announced);
            }
        }
        _ => {}
    });
    counts
}

/// Returns the number of packets of video and audio in whole fragments on the disk.
fn packets_on_disk(folder: &Path) -> [usize; 2] {
    let mut counts = [0; 2];
    for path in files(folder, "") {
        // It may be renamed meanwhile, and is found the next time.
        let of_file = packets_in(&std::fs::read(path).unwrap_or_default());
        counts = [counts[0] + of_file[0], counts[1] + of_file[1]];
    }
    counts
}

/// Numbers of the frames of one kind.
#[derive(Default)]
struct Account {
    sent: Vec<u32>,
    /// Frames that a kill cost.
    lost: Vec<u32>,
}

impl Account {
    /// Adds frames that follow those of this connection, whose first number is `first`.
    fn send(&mut self, tags: &[Tag], kind: u8, first: u32) {
        let count = tags.iter().filter(|tag| tag.kind == kind).count() as u32;
        let next = self.sent.last().map_or(first, |last| first.max(last + 1));
        self.sent.extend(next..next + count);
    }

    /// Returns the number of frames that are neither lost before nor on the disk.
    fn missing(&self, on_disk: usize) -> usize {
        let expected = self.sent.len() - self.lost.len();
        let missing = expected.checked_sub(on_disk);
        missing.unwrap_or_else(|| panic!("{on_disk} of {expected} frames"))
    }

    /// The recorder was killed: what is not on the disk was the last that was sent.
    fn lose(&mut self, missing: usize) {
        let start = self.sent.len() - missing;
        self.lost.extend(&self.sent[start..]);
    }
}

/// Waits until all but the last fragment is on the disk: the recorder's process says nothing of it.
fn wait_for_fragments(folder: &Path, accounts: &[Account; 2]) {
    let start = Instant::now();
    loop {
        let on_disk = packets_on_disk(folder);
        let missing = [0, 1].map(|kind| accounts[kind].missing(on_disk[kind]));
        if missing.iter().all(|missing| *missing <= LAST_FRAGMENT) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "never written: {missing:?}");
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
    let mut accounts = [Account::default(), Account::default()];
    let mut kills = 0;
    for number in 0..reconnects {
        let first = number * FRAMES;
        let mut tags = numbered(first, FRAMES, 0);
        let is_kill = number % 20 == 10;
        // Each second recorder dies in the midst of its work on the last frames.
        let unread = if kills % 2 == 1 {
            random.usize(1..10)
        } else {
            0
        };
        if is_kill {
            tags.truncate(random.usize(40..tags.len()));
        }
        let is_last = number + 1 == reconnects;
        let mut client = connect(recorder.port, if is_last { "last" } else { "key" });
        send(&mut client, &[video_header(0), audio_header(0)]);
        let (early, late) = tags.split_at(tags.len() - if is_kill { unread } else { 0 });
        send(&mut client, early);
        for (account, kind) in accounts.iter_mut().zip([VIDEO, AUDIO]) {
            account.send(early, kind, first);
        }
        if is_kill {
            wait_for_fragments(folder.path(), &accounts);
            send(&mut client, late);
            recorder.program.signal(Signal::KILL);
            recorder.program.wait();
            let on_disk = packets_on_disk(folder.path());
            for index in [0, 1] {
                let (account, kind) = (&mut accounts[index], [VIDEO, AUDIO][index]);
                account.send(late, kind, first);
                let late = late.iter().filter(|tag| tag.kind == kind).count();
                let missing = account.missing(on_disk[index]);
                assert!(missing <= LAST_FRAGMENT + late, "{missing} frames");
                account.lose(missing);
            }
            kills += 1;
            recorder = start(folder.path(), &registry);
        } else if is_last {
            unpublish(client);
            let is_end =
                |line: &str| line.contains("event=(string)finished") && line.contains("last");
            recorder.program.wait_from(0, "the last file", is_end);
        } else if random.u8(0..3) == 0 {
            unpublish(client);
        }
    }
    recorder.program.signal(Signal::INT);
    assert!(recorder.program.wait().success());
    assert_eq!(kills, reconnects.div_ceil(20).max(1));
    let parts = files(folder.path(), ".part");
    assert!(parts.is_empty(), "{parts:?}");

    let mut recorded = [Vec::new(), Vec::new()];
    for file in files(folder.path(), ".mp4") {
        let media = read(&file);
        let packets = probe(&file).values().sum::<usize>();
        assert_eq!(packets, media.len(), "{}", file.display());
        for media in &media {
            recorded[usize::from(media.kind == AUDIO)].push(number_of(media));
        }
    }
    for (account, recorded) in accounts.iter().zip(&mut recorded) {
        recorded.sort_unstable();
        let is_kept = |number: &&u32| !account.lost.contains(number);
        let expected: Vec<u32> = account.sent.iter().filter(is_kept).copied().collect();
        assert_eq!(*recorded, expected);
        eprintln!(
            "{} frames, {} lost by {kills} kills",
            account.sent.len(),
            account.lost.len()
        );
    }
}
