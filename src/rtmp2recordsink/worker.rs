// SPDX-License-Identifier: MPL-2.0

//! The recording thread: it does all that touches the disk, so that a disk that hangs stops nothing
//! else.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

use super::Rtmp2RecordSink;
use super::announcements::{self, FileEvent, FileFacts, StreamNames, Warnings};
use super::counters::RecordCounters;
use super::disk::{self, PartFile};
use super::file::{Failure, FileSettings, MuxedFile, Track};
use super::input::{Entry, Input};
use super::location::LocationTemplate;
use super::rotation::{Action, CloseReason, Packet, Rotation};
use super::settings::{Settings, local_time};
use super::watch::Watch;
use crate::rtmp2serversrc::StreamStatus;

/// Media between two looks at the disk, in nanoseconds.
const CHECK_INTERVAL: u64 = 1_000_000_000;

/// Parts of the element that the recording thread uses.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) element: glib::WeakRef<Rtmp2RecordSink>,
    pub(super) settings: Arc<Mutex<Settings>>,
    pub(super) counters: Arc<RecordCounters>,
    pub(super) input: Arc<Input>,
    pub(super) watch: Arc<Watch>,
}

#[derive(Debug)]
struct OpenFile {
    muxed: MuxedFile,
    part: PartFile,
    facts: FileFacts,
    /// DTS at the last look at the disk.
    checked_at: u64,
}

#[derive(Debug)]
pub(super) struct Worker {
    shared: Shared,
    template: LocationTemplate,
    rotation: Rotation<gst::Buffer>,
    tracks: Vec<Option<Track>>,
    names: StreamNames,
    file: Option<OpenFile>,
    /// Whole files of this run, the oldest first.
    own_files: VecDeque<PathBuf>,
    /// Folders in which recordings that were left behind were looked for.
    known_folders: HashSet<PathBuf>,
    warnings: Warnings,
    /// EOS was posted, and no packet has come since.
    is_ended: bool,
    actions: Vec<Action<gst::Buffer>>,
}

impl Worker {
    pub(super) fn new(shared: Shared, template: LocationTemplate) -> Self {
        Worker {
            shared,
            template,
            rotation: Rotation::new(),
            tracks: Vec::new(),
            names: StreamNames::default(),
            file: None,
            own_files: VecDeque::new(),
            known_folders: HashSet::new(),
            warnings: Warnings::default(),
            is_ended: false,
            actions: Vec::new(),
        }
    }

    /// Records until the element stops.
    pub(super) fn run(mut self) {
        loop {
            match self.shared.input.pop() {
                Entry::Track { index, name, caps } => self.configure(index, name, caps),
                Entry::Packet(packet) => self.handle_packet(packet),
                Entry::Status(status) => self.handle_status(&status),
                Entry::Lost(packets) => self.handle_loss(packets),
                Entry::Eos(seqnum) => self.handle_eos(seqnum),
                // No packet may come for a long time.
                Entry::Failure => self.perform(),
                Entry::Stop => {
                    self.finish(CloseReason::Stopped);
                    return;
                }
            }
        }
    }

    /// Ends the stream, once of all of its tracks.
    fn handle_eos(&mut self, seqnum: gst::Seqnum) {
        self.finish(CloseReason::EndOfStream);
        if !std::mem::replace(&mut self.is_ended, true)
            && let Some(element) = self.shared.element.upgrade()
        {
            let message = gst::message::Eos::builder()
                .src(&element)
                .seqnum(seqnum)
                .build();
            let _ = element.post_message(message);
        }
    }

    fn configure(&mut self, index: usize, name: String, caps: gst::Caps) {
        let caps = recorded_caps(caps);
        let known = self.tracks.get(index).and_then(Option::as_ref);
        if known.is_some_and(|track| track.caps == caps) {
            return;
        }
        let is_video = name.starts_with("video");
        let id = name.rsplit('_').next().and_then(|id| id.parse().ok());
        let id = id.unwrap_or(0);
        self.rotation
            .configure_track(index, is_video, id, &mut self.actions);
        // Packets that waited have the former configuration.
        self.perform();
        if self.tracks.len() <= index {
            self.tracks.resize(index + 1, None);
        }
        self.tracks[index] = Some(Track { index, name, caps });
    }

    fn handle_packet(&mut self, packet: Packet<gst::Buffer>) {
        let dts = packet.dts;
        self.is_ended = false;
        self.rotation
            .set_limits(self.shared.settings.lock().limits());
        self.rotation.handle_packet(packet, &mut self.actions);
        self.perform();
        self.check(dts);
    }

    fn handle_status(&mut self, status: &gst::Structure) {
        if status.get("stream-status") == Ok(StreamStatus::Stopped) {
            // The file is whole when the publisher has left, not when the next one comes.
            self.finish(CloseReason::Publisher);
            return;
        }
        let text = |name: &str| status.get::<String>(name).unwrap_or_default();
        let variables = status.get::<gst::Structure>("variables").ok();
        let names = StreamNames {
            application: text("application"),
            stream_key: text("stream-key"),
            variables: variables
                .iter()
                .flat_map(|variables| variables.iter())
                .filter_map(|(name, value)| Some((name.to_string(), value.get().ok()?)))
                .collect(),
        };
        let is_known = !names.application.is_empty() || !names.stream_key.is_empty();
        if is_known && names != self.names {
            self.finish(CloseReason::Publisher);
            self.names = names;
        }
    }

    fn handle_loss(&mut self, packets: u64) {
        self.shared
            .counters
            .dropped_disk
            .fetch_add(packets, Relaxed);
        let failure = Failure::Stalled(format!("{packets} packets were dropped"));
        self.warn(&PathBuf::from("the stream"), &failure);
        self.finish(CloseReason::Discontinuity);
        self.fail();
        self.rotation.retry_soon();
    }

    fn finish(&mut self, reason: CloseReason) {
        self.rotation.finish(reason, &mut self.actions);
        self.perform();
    }

    /// Performs the actions of the rotation.
    fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut has_failed = false;
        for action in actions.drain(..) {
            match action {
                Action::Open { tracks, start } => {
                    has_failed = false;
                    if let Err((path, failure)) = self.open(&tracks, start) {
                        has_failed = true;
                        self.shared.counters.files_failed.fetch_add(1, Relaxed);
                        self.warn(&path, &failure);
                        self.post_failed(&path, 0, &failure, None);
                        self.make_room(&failure);
                    }
                }
                Action::Write(packet) => self.write(packet),
                Action::EndTrack(index) => {
                    if let Some(file) = &mut self.file {
                        file.muxed.end_track(index);
                    }
                }
                Action::Close(reason) => {
                    if let Some(file) = self.file.take() {
                        self.close(file, reason);
                    }
                }
                Action::Drop(_) => self.count_dropped(1),
            }
        }
        self.actions = actions;
        let failure = self.file.as_ref().and_then(|file| file.muxed.failure());
        if has_failed || failure.is_some() {
            if let Some(file) = self.file.take() {
                self.close(file, CloseReason::Error);
            }
            self.fail();
            if failure.is_some_and(|failure| self.make_room(&failure)) {
                self.rotation.retry_soon();
            }
        }
    }

    fn count_dropped(&self, packets: u64) {
        self.shared
            .counters
            .dropped_disk
            .fetch_add(packets, Relaxed);
    }

    /// No file can be written for now.
    fn fail(&mut self) {
        let mut actions = Vec::new();
        self.rotation.fail(&mut actions);
        self.count_dropped(actions.len() as u64);
    }

    fn open(&mut self, tracks: &[usize], start: u64) -> Result<(), (PathBuf, Failure)> {
        let settings = self.shared.settings.lock().clone();
        let value = |name: &str| self.names.field(name);
        let wanted = self.template.expand(value, local_time);
        let failed = |failure| (wanted.clone(), failure);
        let part = PartFile::create(&wanted).map_err(|error| failed(failure_of(&error)))?;
        let extension = wanted.extension().and_then(|e| e.to_str()).unwrap_or("");
        self.recover(&part.folder(), extension);
        if let Err(failure) = self.ensure_space(&part.folder(), &settings, 0) {
            part.discard();
            return Err(failed(failure));
        }
        let tracks: Vec<Track> = tracks
            .iter()
            .filter_map(|index| self.tracks.get(*index).cloned().flatten())
            .collect();
        let file_settings = FileSettings {
            container: self.template.container,
            path: part.path(),
            fragment_duration: settings.fragment_duration,
            start,
        };
        let input = self.shared.input.clone();
        let on_failure = move || input.push(Entry::Failure);
        let watch = self.shared.watch.clone();
        let opened = MuxedFile::open(&file_settings, &tracks, watch, on_failure);
        let (muxed, left_out) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                part.discard();
                return Err(failed(failure));
            }
        };
        self.warn_left_out(&left_out);
        let tracks = tracks.into_iter().filter(|t| muxed.has_track(t.index));
        let facts = FileFacts {
            names: self.names.clone(),
            tracks: tracks.collect(),
            begun_at: glib::DateTime::now_local().ok(),
            start,
            end: start,
            packets: 0,
        };
        self.post(announcements::own_file(
            FileEvent::Opened,
            &part.whole_path(),
            0,
            &facts,
        ));
        self.file = Some(OpenFile {
            muxed,
            part,
            facts,
            checked_at: start,
        });
        Ok(())
    }

    fn write(&mut self, packet: Packet<gst::Buffer>) {
        let Some(file) = &mut self.file else {
            return self.count_dropped(1);
        };
        if !file.muxed.has_track(packet.track) {
            self.shared.counters.dropped_codec.fetch_add(1, Relaxed);
            return;
        }
        file.facts.packets += 1;
        file.facts.end = file.facts.end.max(packet.pts.max(packet.dts));
        self.shared.counters.packets.fetch_add(1, Relaxed);
        self.shared.counters.bytes.fetch_add(packet.bytes, Relaxed);
        let (dts, pts) = (packet.dts, packet.pts);
        file.muxed.write(packet.track, packet.media, dts, pts);
        file.muxed.wait_for_room();
    }

    /// Ends a file, and gives it its name.
    fn close(&mut self, file: OpenFile, reason: CloseReason) {
        let OpenFile {
            muxed, part, facts, ..
        } = file;
        let path = part.whole_path();
        let mut result = muxed.close();
        if result.is_ok() && !part.exists() {
            result = Err(Failure::Write("the file or its folder was removed".into()));
        }
        let finished = part.finish(self.template.container, result.is_ok());
        let (path, bytes) = match finished {
            Ok(Some((path, bytes))) => {
                self.own_files.push_back(path.clone());
                (path, bytes)
            }
            Ok(None) => (path, 0),
            Err(error) => {
                result = result.and(Err(failure_of(&error)));
                (path, 0)
            }
        };
        match result {
            Ok(()) => {
                self.shared.counters.files.fetch_add(1, Relaxed);
                let mut message =
                    announcements::own_file(FileEvent::Finished, &path, bytes, &facts);
                message.set("reason", reason.nick());
                self.post(message);
            }
            Err(failure) => {
                self.shared.counters.files_failed.fetch_add(1, Relaxed);
                self.warn(&path, &failure);
                self.post_failed(&path, bytes, &failure, Some(&facts));
            }
        }
        self.delete_surplus();
    }

    /// Looks at the disk from time to time.
    fn check(&mut self, dts: u64) {
        let Some(file) = &mut self.file else {
            return;
        };
        if dts.abs_diff(file.checked_at) < CHECK_INTERVAL {
            return;
        }
        file.checked_at = dts;
        if !file.part.exists() {
            if let Some(file) = self.file.take() {
                self.close(file, CloseReason::Error);
            }
            self.fail();
            self.rotation.retry_soon();
            return;
        }
        let folder = file.part.folder();
        let path = file.part.whole_path();
        let settings = self.shared.settings.lock().clone();
        let queued = file.muxed.queued_bytes();
        if let Err(failure) = self.ensure_space(&folder, &settings, queued) {
            self.warn(&path, &failure);
            self.finish(CloseReason::MinFreeBytes);
            self.fail();
        }
    }

    /// Deletes old files until there is as much space as wanted, where that is allowed.
    /// `queued` bytes of it are used already.
    fn ensure_space(
        &mut self,
        folder: &Path,
        settings: &Settings,
        queued: u64,
    ) -> Result<(), Failure> {
        loop {
            if settings.min_free_bytes == 0 {
                return Ok(());
            }
            // A file system that does not say it has no limit.
            let Ok(free) = disk::free_bytes(folder) else {
                return Ok(());
            };
            if free.saturating_sub(queued) >= settings.min_free_bytes {
                return Ok(());
            }
            if settings.max_files == 0 || !self.delete_oldest() {
                let wanted = settings.min_free_bytes;
                let text = format!("fewer than min-free-bytes={wanted} bytes are free");
                return Err(Failure::NoSpace(text));
            }
        }
    }

    /// Deletes the oldest file after a failure for lack of space, where that is allowed.
    fn make_room(&mut self, failure: &Failure) -> bool {
        let may_delete = self.shared.settings.lock().max_files > 0;
        matches!(failure, Failure::NoSpace(_)) && may_delete && self.delete_oldest()
    }

    fn delete_surplus(&mut self) {
        let max = self.shared.settings.lock().max_files as usize;
        while max > 0 && self.own_files.len() > max && self.delete_oldest() {}
    }

    /// Returns whether there was a file to delete.
    fn delete_oldest(&mut self) -> bool {
        while let Some(path) = self.own_files.pop_front() {
            let bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
            if std::fs::remove_file(&path).is_ok() {
                self.shared.counters.files_deleted.fetch_add(1, Relaxed);
                self.post(announcements::file(FileEvent::Deleted, &path, bytes));
                return true;
            }
        }
        false
    }

    /// Gives names to the recordings of a recorder that was killed, at the first file in a folder.
    fn recover(&mut self, folder: &Path, extension: &str) {
        if !self.known_folders.insert(folder.to_owned()) {
            return;
        }
        for left in PartFile::left_behind(folder, extension) {
            if let Ok(Some((path, bytes))) = left.finish(self.template.container, false) {
                self.shared.counters.files_recovered.fetch_add(1, Relaxed);
                self.post(announcements::file(FileEvent::Recovered, &path, bytes));
                self.own_files.push_back(path);
            }
        }
        self.delete_surplus();
    }

    fn warn_left_out(&mut self, left_out: &[(Track, String)]) {
        let Some(element) = self.shared.element.upgrade() else {
            return;
        };
        for (track, reason) in left_out {
            let media = track.caps.structure(0).map_or("", |caps| caps.name());
            let name = &track.name;
            let text = format!("Track {name} ({media}) is not recorded: {reason}");
            self.warnings
                .post(&element, gst::StreamError::CodecNotFound, &text);
        }
    }

    fn warn(&mut self, path: &Path, failure: &Failure) {
        if let Some(element) = self.shared.element.upgrade() {
            self.warnings.post_failure(&element, path, failure);
        }
    }

    fn post_failed(&self, path: &Path, bytes: u64, failure: &Failure, facts: Option<&FileFacts>) {
        let event = FileEvent::Failed;
        let mut message = match facts {
            Some(facts) => announcements::own_file(event, path, bytes, facts),
            None => announcements::file(event, path, bytes),
        };
        message.set("reason", CloseReason::Error.nick());
        message.set("error", failure.to_string());
        self.post(message);
    }

    fn post(&self, structure: gst::Structure) {
        if let Some(element) = self.shared.element.upgrade() {
            announcements::post(&element, structure);
        }
    }
}

fn failure_of(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Failure::NoSpace(error.to_string())
        }
        _ => Failure::Write(error.to_string()),
    }
}

/// Returns caps without fields that differ between publishers of the same encoder: they begin no
/// file.
fn recorded_caps(mut caps: gst::Caps) -> gst::Caps {
    if let Some(structure) = caps.make_mut().structure_mut(0) {
        structure.remove_field("framerate");
    }
    caps
}
