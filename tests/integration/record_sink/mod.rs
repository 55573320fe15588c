// SPDX-License-Identifier: MPL-2.0

//! `rtmp2recordsink`: each packet that arrives is in one file, whatever happens to publishers, disks
//! and the recorder itself.

mod disk;
mod files;
mod formats;
mod kills;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gst::prelude::*;

use support::flv::{AUDIO, Tag, VIDEO};
use support::raw::RawClient;
use support::{PATIENCE, init};

/// A pipeline with the element `record`.
struct Recording {
    pipeline: gst::Pipeline,
    folder: tempfile::TempDir,
}

impl Recording {
    /// Starts a pipeline, in which `DIR` stands for a folder of its own.
    fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, text)
    }

    fn start_in(folder: tempfile::TempDir, text: &str) -> Self {
        init();
        let text = text.replace("DIR", folder.path().to_str().unwrap());
        let pipeline = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Recording { pipeline, folder }
    }

    /// Starts to record bytes of FLV, into a file with this name.
    fn start_source(bytes: &[u8], name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("source"), bytes).unwrap();
        let text = format!(
            "filesrc location=DIR/source ! rtmp2recordsink name=record location=\"DIR/{name}\""
        );
        Self::start_in(folder, &text)
    }

    /// Records bytes of FLV to their end, and returns the event of its only file.
    fn of_bytes(bytes: &[u8], name: &str) -> (Self, gst::Structure) {
        let recording = Self::start_source(bytes, name);
        let finished = recording.wait_for_event("finished");
        recording.wait_for_eos();
        (recording, finished)
    }

    fn port(&self) -> u16 {
        let source = self.pipeline.by_name("src").unwrap();
        source.property::<u32>("current-port") as u16
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a message that satisfies a condition. An error fails the test.
    #[track_caller]
    fn wait_for<T>(&self, what: &str, find: impl Fn(&gst::Message) -> Option<T>) -> T {
        let bus = self.pipeline.bus().unwrap();
        let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
        loop {
            let message = bus.timed_pop(patience);
            let message = message.unwrap_or_else(|| panic!("still waiting for {what}"));
            if let Some(found) = find(&message) {
                return found;
            }
            if let gst::MessageView::Error(error) = message.view() {
                panic!("{error:?}");
            }
        }
    }

    #[track_caller]
    fn wait_for_eos(&self) {
        self.wait_for("EOS", |message| {
            matches!(message.view(), gst::MessageView::Eos(_)).then_some(())
        });
    }

    /// Waits for a file's event of this name.
    #[track_caller]
    fn wait_for_event(&self, event: &str) -> gst::Structure {
        self.wait_for(event, |message| {
            let structure = message.structure()?;
            let is_it = structure.name() == "rtmp2-recorded-file"
                && structure.get::<String>("event").unwrap() == event;
            is_it.then(|| structure.to_owned())
        })
    }

    /// Waits for a warning with this text.
    #[track_caller]
    fn wait_for_warning(&self, text: &str) -> String {
        self.wait_for(text, |message| match message.view() {
            gst::MessageView::Warning(warning) => {
                let warning = warning.error().to_string();
                warning.contains(text).then_some(warning)
            }
            _ => None,
        })
    }

    fn stat(&self, name: &str) -> u64 {
        let record = self.pipeline.by_name("record").unwrap();
        record
            .property::<gst::Structure>("stats")
            .get(name)
            .unwrap()
    }

    /// Waits until the element has written so many packets.
    #[track_caller]
    fn wait_for_packets(&self, count: u64) {
        let start = Instant::now();
        while self.stat("packets") < count {
            assert!(
                start.elapsed() < PATIENCE,
                "still waiting for {count} packets"
            );
            // The element has no notification of packets.
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the files with this ending, in the order of their names.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        files(self.folder.path(), ending)
    }

    fn stop(&self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Publishes `live/KEY`. The connection of its last publisher may not be known to be over yet.
#[track_caller]
fn connect(port: u16, key: &str) -> RawClient {
    let start = Instant::now();
    loop {
        let mut client = RawClient::connect(port);
        if client.try_publish("live", key).is_some() {
            return client;
        }
        assert!(start.elapsed() < PATIENCE, "{key} is refused");
        // As encoders do.
        thread::sleep(Duration::from_millis(5));
    }
}

/// A packet of a file: its kind, PTS in nanoseconds, and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Media {
    kind: u8,
    pts: u64,
    payload: Vec<u8>,
}

/// Reads a file with GStreamer's own demuxer, to its end and without an error.
#[track_caller]
fn read(path: &Path) -> Vec<Media> {
    let demuxer = match path.extension().unwrap().to_str().unwrap() {
        "mp4" => "qtdemux",
        "mkv" => "matroskademux",
        "ts" => "tsdemux",
        _ => "flvdemux",
    };
    read_with(demuxer, path)
}

#[track_caller]
fn read_with(demuxer: &str, path: &Path) -> Vec<Media> {
    init();
    let text = format!("filesrc location=\"{}\" ! {demuxer} name=d", path.display());
    let pipeline = gst::parse::launch(&text).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let media = Arc::new(Mutex::new(Vec::new()));
    let (kept, bin) = (media.clone(), pipeline.downgrade());
    pipeline
        .by_name("d")
        .unwrap()
        .connect_pad_added(move |_, pad| {
            let sink = gst::ElementFactory::make("fakesink")
                .property("sync", false)
                .property("async", false)
                .build()
                .unwrap();
            bin.upgrade().unwrap().add(&sink).unwrap();
            sink.sync_state_with_parent().unwrap();
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
            let kept = kept.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let buffer = info.buffer().unwrap();
                // matroskademux repeats the header of FLAC.
                if buffer.pts().is_none() && buffer.flags().contains(gst::BufferFlags::HEADER) {
                    return gst::PadProbeReturn::Ok;
                }
                let caps = pad.current_caps().unwrap();
                let is_video = caps.structure(0).unwrap().name().starts_with("video");
                kept.lock().unwrap().push(Media {
                    kind: if is_video { VIDEO } else { AUDIO },
                    pts: buffer.pts().map_or(0, |pts| pts.nseconds()),
                    payload: buffer.map_readable().unwrap().to_vec(),
                });
                gst::PadProbeReturn::Ok
            });
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.expect("the file ends");
    let path = path.display();
    assert_eq!(
        message.type_(),
        gst::MessageType::Eos,
        "{path}: {message:?}"
    );
    std::mem::take(&mut media.lock().unwrap())
}

/// Returns the number of packets that ffprobe finds in each stream, by kind.
#[track_caller]
fn probe(path: &Path) -> BTreeMap<String, usize> {
    let output = Command::new("ffprobe")
        .args(["-v", "fatal", "-count_packets", "-of", "csv=p=0"])
        .args(["-show_entries", "stream=codec_type,nb_read_packets"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {output:?}", path.display());
    let mut counts = BTreeMap::new();
    let text = String::from_utf8(output.stdout).unwrap();
    // Programs of a transport stream come first, with their streams.
    for line in text.trim_end().rsplit("\n\n").next().unwrap().lines() {
        let (kind, count) = line.split_once(',').unwrap();
        let count: usize = count.trim_matches(',').parse().unwrap_or(0);
        *counts.entry(kind.to_owned()).or_default() += count;
    }
    counts
}

fn of_kind(media: &[Media], kind: u8) -> Vec<Vec<u8>> {
    let of_kind = media.iter().filter(|media| media.kind == kind);
    of_kind.map(|media| media.payload.clone()).collect()
}

/// Returns the payloads of H.264 and AAC as they are in containers.
fn payloads(tags: &[Tag], kind: u8) -> Vec<Vec<u8>> {
    let front = if kind == VIDEO { 5 } else { 2 };
    let of_kind = tags
        .iter()
        .filter(|tag| tag.kind == kind && tag.is_coded() && !tag.is_end_of_sequence());
    of_kind.map(|tag| tag.body[front..].to_vec()).collect()
}

/// Asserts that these files have all frames of these tags, in order and once.
#[track_caller]
fn assert_holds(files: &[PathBuf], tags: &[Tag]) {
    let mut media = Vec::new();
    for file in files {
        let read = read(file);
        let counts = probe(file);
        for (kind, name) in [(VIDEO, "video"), (AUDIO, "audio")] {
            let expected = of_kind(&read, kind).len();
            let count = counts.get(name).copied().unwrap_or(0);
            assert_eq!(count, expected, "{name} of {}", file.display());
        }
        media.extend(read);
    }
    for kind in [VIDEO, AUDIO] {
        let (expected, got) = (payloads(tags, kind), of_kind(&media, kind));
        assert_eq!(expected.len(), got.len(), "packets of kind {kind}");
        assert!(expected == got, "payloads of kind {kind}");
    }
}

/// Frames of H.264, each with its number, and audio beside it. Each tenth is a keyframe.
fn numbered(first: u32, count: u32, start: u32) -> Vec<Tag> {
    numbered_of(first, count, start, 60)
}

/// As [`numbered`], with pictures of about this length.
fn numbered_of(first: u32, count: u32, start: u32, length: usize) -> Vec<Tag> {
    let mut tags = Vec::new();
    for index in 0..count {
        let (number, time) = (first + index, start + index * 40);
        let is_key = index % 10 == 0;
        let mut picture = vec![if is_key { 0x65 } else { 0x41 }];
        picture.extend(number.to_be_bytes());
        picture.resize(length + (number % 50) as usize, 0xA5);
        let mut body = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        body.extend((picture.len() as u32).to_be_bytes());
        body.extend(picture);
        tags.push(Tag::new(VIDEO, time, body));
        let mut body = vec![0xAF, 1, 0x21];
        body.extend(number.to_be_bytes());
        body.resize(30, 0x5A);
        tags.push(Tag::new(AUDIO, time + 7, body));
    }
    tags
}

/// Returns the number of a frame of [`numbered`].
fn number_of(media: &Media) -> u32 {
    let front = if media.kind == VIDEO { 5 } else { 1 };
    let number = &media.payload[front..front + 4];
    u32::from_be_bytes(number.try_into().unwrap())
}
