// SPDX-License-Identifier: MPL-2.0

//! The recording thread: it does all that touches the disk, so that a disk that hangs stops nothing
//! else.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::announcements::{self, FileEvent, FileFacts, StreamNames};
use super::disk::{self, PartFile};
use super::file::{Failure, FileSettings, MuxedFile, Track};
use super::finisher::{ClosedFile, Job, Jobs};
use super::input::Entry;
use super::location::LocationTemplate;
use super::pattern::NamePattern;
use super::rotation::{Action, CloseReason, Packet, Rotation};
use super::settings::{Settings, format_time, local_now};
use super::shared::{Shared, failure_of};
use crate::rtmp2serversrc::StreamStatus;

/// Media between two looks at the disk, in nanoseconds.
const CHECK_INTERVAL: u64 = 1_000_000_000;

/// Media between two syncs of a file, in nanoseconds. A loss of power costs no more, and the last sync
/// is short.
const SYNC_INTERVAL: u64 = 10_000_000_000;

/// Longest wait for files that have ended, where their space is needed.
const MAX_FINISHING: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct OpenFile {
    muxed: MuxedFile,
    part: PartFile,
    pattern: NamePattern,
    facts: FileFacts,
    /// DTS at the last look at the disk.
    checked_at: u64,
    /// DTS at the last sync.
    synced_at: u64,
}

#[derive(Debug)]
pub(super) struct Worker {
    shared: Shared,
    template: LocationTemplate,
    rotation: Rotation<gst::Buffer>,
    tracks: Vec<Option<Track>>,
    names: StreamNames,
    /// The names of the next file.
    next_names: Option<StreamNames>,
    /// Packets since the stream is paused, if it is: standby plays then.
    paused_packets: Option<u64>,
    file: Option<OpenFile>,
    jobs: Jobs,
    /// Folders in which recordings that were left behind were looked for.
    known_folders: HashSet<PathBuf>,
    /// EOS was posted, and no packet has come since.
    is_ended: bool,
    actions: Vec<Action<gst::Buffer>>,
}

impl Worker {
    pub(super) fn new(shared: Shared, template: LocationTemplate, jobs: Jobs) -> Self {
        Worker {
            shared,
            template,
            rotation: Rotation::new(),
            tracks: Vec::new(),
            names: StreamNames::default(),
            next_names: None,
            paused_packets: None,
            file: None,
            jobs,
            known_folders: HashSet::new(),
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
                Entry::Flush => self.finish(CloseReason::Discontinuity),
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
        if !std::mem::replace(&mut self.is_ended, true) {
            self.jobs.push(Job::Eos(seqnum));
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
        if let Some(packets) = &mut self.paused_packets {
            *packets += 1;
        }
        self.rotation
            .set_limits(self.shared.settings.lock().limits());
        self.rotation.handle_packet(packet, &mut self.actions);
        self.perform();
        self.check(dts);
    }

    fn handle_status(&mut self, status: &gst::Structure) {
        let state = status.get("stream-status");
        if state == Ok(StreamStatus::Stopped) {
            // The file is whole when the publisher has left, not when the next one comes.
            if self.paused_packets.take() > Some(0) {
                self.rotation.end_at_keyframe(CloseReason::Publisher);
            } else {
                self.finish(CloseReason::Publisher);
            }
            return;
        }
        self.paused_packets = match state {
            Ok(StreamStatus::Paused) => self.paused_packets.or(Some(0)),
            _ => None,
        };
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
        if !is_known {
            return;
        }
        let next = (names != self.names).then_some(names);
        let is_new = next.is_some();
        let was_new = std::mem::replace(&mut self.next_names, next).is_some();
        if is_new {
            // Media of the former publisher, or of standby, may come until then.
            if !self.rotation.end_at_keyframe(CloseReason::Publisher) {
                self.apply_names();
            }
        } else if was_new {
            // Another publisher has gone without any media.
            self.rotation.keep_file();
        }
    }

    /// The next file has these names.
    fn apply_names(&mut self) {
        if let Some(names) = self.next_names.take() {
            self.names = names;
        }
    }

    fn handle_loss(&mut self, packets: u64) {
        self.shared
            .counters
            .dropped_disk
            .fetch_add(packets, Relaxed);
        let failure = Failure::Stalled(format!("{packets} packets were dropped"));
        self.shared.warn(Path::new("the stream"), &failure);
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
                        self.shared.warn(&path, &failure);
                        self.shared.post_failed(&path, 0, &failure, None);
                        self.delete_oldest(&failure);
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
                    self.apply_names();
                }
                Action::Drop(_) => self.count_dropped(1),
            }
        }
        self.actions = actions;
        self.end_starving_tracks();
        let failure = self.file.as_ref().and_then(|file| file.muxed.failure());
        if has_failed || failure.is_some() {
            if let Some(file) = self.file.take() {
                self.close(file, CloseReason::Error);
            }
            self.fail();
            if failure.is_some_and(|failure| self.delete_oldest(&failure)) {
                self.rotation.retry_soon();
            }
        }
    }

    /// Ends tracks that the muxer waits for while too much of the others waits for them.
    fn end_starving_tracks(&mut self) {
        let Some(file) = &mut self.file else {
            return;
        };
        for index in file.muxed.starving_tracks() {
            file.muxed.end_track(index);
            self.rotation.end_track(index);
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
        self.apply_names();
        self.rotation.fail(&mut actions);
        self.count_dropped(actions.len() as u64);
    }

    fn open(&mut self, tracks: &[usize], start: u64) -> Result<(), (PathBuf, Failure)> {
        let settings = self.shared.settings.lock().clone();
        let value = |name: &str| self.names.field(name);
        // One moment for all parts of the name.
        let now = local_now();
        let time = |format: &str| now.as_ref().and_then(|now| format_time(now, format));
        let wanted = self.template.expand(value, time);
        let failed = |failure| (wanted.clone(), failure);
        let part = PartFile::create(&wanted).map_err(|error| failed(failure_of(&error)))?;
        let pattern = self.template.pattern(value);
        self.shared.kept.lock().add_stream(&pattern);
        if self.known_folders.insert(part.folder()) {
            self.jobs.push(Job::Recover {
                folder: part.folder(),
                extension: self.template.extension.clone(),
                pattern: pattern.clone(),
            });
        }
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
            begun_at: now,
            start,
            end: start,
            packets: 0,
        };
        let event = FileEvent::Opened;
        let message = announcements::own_file(event, &part.whole_path(), 0, &facts);
        self.shared.post(message);
        self.file = Some(OpenFile {
            muxed,
            part,
            pattern,
            facts,
            checked_at: start,
            synced_at: start,
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

    /// Ends a file. The finishing thread gives it its name.
    fn close(&mut self, file: OpenFile, reason: CloseReason) {
        let path = file.part.whole_path();
        let mut result = file.muxed.close();
        if result.is_ok() && !file.part.exists() {
            result = Err(Failure::Write("the file or its folder was removed".into()));
        }
        if let Err(failure) = &result {
            self.shared.warn(&path, failure);
        }
        self.jobs.push(Job::Finish(Box::new(ClosedFile {
            part: file.part,
            pattern: file.pattern,
            facts: file.facts,
            reason,
            failure: result.err(),
        })));
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
        if dts.abs_diff(file.synced_at) >= SYNC_INTERVAL {
            file.synced_at = dts;
            self.jobs.try_push(Job::Sync(file.part.path().to_owned()));
        }
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
            self.shared.warn(&path, &failure);
            self.finish(CloseReason::MinFreeBytes);
            self.fail();
        }
    }

    /// Deletes old files until there is as much space as wanted, where that is allowed.
    /// `queued` bytes of it are used already.
    fn ensure_space(&self, folder: &Path, settings: &Settings, queued: u64) -> Result<(), Failure> {
        let wanted = settings.min_free_bytes;
        // A file system that does not say it has no limit.
        let has_space =
            || disk::free_bytes(folder).map_or(true, |free| free.saturating_sub(queued) >= wanted);
        if wanted == 0 || has_space() {
            return Ok(());
        }
        let delete_files = || {
            let files = self.shared.kept.lock().all();
            let mut deleted = files.iter().filter(|path| self.shared.delete(path));
            deleted.any(|_| has_space())
        };
        if settings.max_files > 0 {
            if delete_files() {
                return Ok(());
            }
            // Files that have ended a moment ago have no names yet.
            self.jobs.wait(MAX_FINISHING);
            if delete_files() {
                return Ok(());
            }
        }
        let text = format!("fewer than min-free-bytes={wanted} bytes are free");
        Err(Failure::NoSpace(text))
    }

    /// Deletes the oldest file after a failure for lack of space, where that is allowed.
    fn delete_oldest(&self, failure: &Failure) -> bool {
        let may_delete = self.shared.settings.lock().max_files > 0;
        if !may_delete || !matches!(failure, Failure::NoSpace(_)) {
            return false;
        }
        let files = self.shared.kept.lock().all();
        files.iter().any(|path| self.shared.delete(path))
    }

    fn warn_left_out(&mut self, left_out: &[(Track, String)]) {
        let Some(element) = self.shared.element.upgrade() else {
            return;
        };
        for (track, reason) in left_out {
            let media = track.caps.structure(0).map_or("", |caps| caps.name());
            let name = &track.name;
            let text = format!("Track {name} ({media}) is not recorded: {reason}");
            let warnings = &self.shared.warnings;
            warnings.post(&element, gst::StreamError::CodecNotFound, &text);
        }
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
