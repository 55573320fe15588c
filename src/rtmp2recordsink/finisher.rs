// SPDX-License-Identifier: MPL-2.0

//! The finishing thread: it brings whole files to the disk and gives them their names. That takes
//! long on some disks, and the recording thread goes on with the next file meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use gst::prelude::*;

use super::announcements::{self, FileEvent, FileFacts};
use super::disk::{self, PartFile};
use super::file::Failure;
use super::location::Container;
use super::pattern::NamePattern;
use super::rotation::CloseReason;
use super::shared::{Shared, failure_of};

/// Files that wait to be finished. The recording thread waits for more.
const MAX_JOBS: usize = 16;

/// A file that no more media comes to.
#[derive(Debug)]
pub(super) struct ClosedFile {
    pub(super) part: PartFile,
    pub(super) pattern: NamePattern,
    pub(super) facts: FileFacts,
    pub(super) reason: CloseReason,
    pub(super) failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) enum Job {
    /// Gives names to the recordings of killed recorders.
    Recover {
        folder: PathBuf,
        extension: String,
        pattern: NamePattern,
    },
    Finish(Box<ClosedFile>),
    /// Brings what is written of a file to the disk.
    Sync(PathBuf),
    /// The stream has ended, and so have its files.
    Eos(gst::Seqnum),
    /// Answers once all jobs before it are done.
    Answer(Sender<()>),
}

/// The recording thread's side.
#[derive(Debug)]
pub(super) struct Jobs(SyncSender<Job>);

impl Jobs {
    pub(super) fn push(&self, job: Job) {
        // The finishing thread ends after this side only.
        let _ = self.0.send(job);
    }

    /// Waits until all jobs so far are done, or for this long.
    pub(super) fn wait(&self, limit: Duration) {
        let (sender, answer) = channel();
        self.push(Job::Answer(sender));
        let _ = answer.recv_timeout(limit);
    }

    /// Adds a job that may be left out while there are many others.
    pub(super) fn try_push(&self, job: Job) {
        match self.0.try_send(job) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Finisher {
    shared: Shared,
    container: Container,
    jobs: Receiver<Job>,
}

impl Finisher {
    pub(super) fn new(shared: Shared, container: Container) -> (Self, Jobs) {
        let (sender, jobs) = sync_channel(MAX_JOBS);
        let finisher = Finisher {
            shared,
            container,
            jobs,
        };
        (finisher, Jobs(sender))
    }

    /// Performs jobs until the recording thread has ended.
    pub(super) fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            match job {
                Job::Recover {
                    folder,
                    extension,
                    pattern,
                } => {
                    self.recover(&folder, &extension, &pattern);
                }
                Job::Finish(closed) => self.finish(*closed),
                Job::Sync(path) => {
                    // A failure shows again at the end of the file.
                    let _ = File::open(path).and_then(|file| disk::sync_data(&file));
                }
                Job::Eos(seqnum) => self.post_eos(seqnum),
                Job::Answer(sender) => {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn finish(&self, closed: ClosedFile) {
        let ClosedFile {
            part,
            pattern,
            facts,
            reason,
            mut failure,
        } = closed;
        let mut path = part.whole_path();
        let mut bytes = 0;
        // The recording thread may look for the oldest file meanwhile: one that has its name is known.
        let name = |part: &PartFile| {
            let mut kept = self.shared.kept.lock();
            let path = part.give_name()?;
            kept.add_file(&pattern, &path);
            Ok(path)
        };
        let finished = part.finish(self.container, failure.is_none(), disk::sync_all, name);
        match finished {
            Ok(Some(whole)) => {
                (path, bytes) = (whole.path, whole.bytes);
                if let Some(error) = whole.sync_error
                    && failure.is_none()
                {
                    failure = Some(self.warn(&path, failure_of(&error)));
                }
            }
            Ok(None) => {}
            Err(error) if failure.is_none() => {
                failure = Some(self.warn(&path, failure_of(&error)));
            }
            Err(_) => {}
        }
        match failure {
            None => {
                self.shared.counters.files.fetch_add(1, Relaxed);
                let event = FileEvent::Finished;
                let mut message = announcements::own_file(event, &path, bytes, &facts);
                message.set("reason", reason.nick());
                self.shared.post(message);
            }
            Some(failure) => {
                self.shared.counters.files_failed.fetch_add(1, Relaxed);
                self.shared
                    .post_failed(&path, bytes, &failure, Some(&facts));
            }
        }
        self.delete_surplus(&pattern);
    }

    fn warn(&self, path: &Path, failure: Failure) -> Failure {
        self.shared.warn(path, &failure);
        failure
    }

    fn recover(&self, folder: &Path, extension: &str, pattern: &NamePattern) {
        for left in PartFile::left_behind(folder, extension) {
            let finished = left.finish(self.container, false, disk::sync_all, PartFile::give_name);
            if let Ok(Some(whole)) = finished {
                self.shared.counters.files_recovered.fetch_add(1, Relaxed);
                let event = FileEvent::Recovered;
                self.shared
                    .post(announcements::file(event, &whole.path, whole.bytes));
            }
        }
        self.delete_surplus(pattern);
    }

    /// Deletes the oldest files of a stream that has more than it may.
    fn delete_surplus(&self, pattern: &NamePattern) {
        let max = self.shared.settings.lock().max_files as usize;
        if max == 0 {
            return;
        }
        let files = self.shared.kept.lock().of_stream(pattern);
        let surplus = files.len().saturating_sub(max);
        for path in &files[..surplus] {
            self.shared.delete(path);
        }
    }

    fn post_eos(&self, seqnum: gst::Seqnum) {
        if let Some(element) = self.shared.element.upgrade() {
            let message = gst::message::Eos::builder()
                .src(&element)
                .seqnum(seqnum)
                .build();
            let _ = element.post_message(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use gst::glib;

    use super::super::Rtmp2RecordSink;
    use super::super::input::Entry;
    use super::super::location::LocationTemplate;
    use super::super::rotation::Packet;
    use super::super::worker::Worker;
    use super::*;

    #[test]
    fn recording_goes_on_while_files_wait_to_be_finished() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let location = format!("{}/out.mkv", folder.path().display());
        let template = LocationTemplate::parse(&location, |text| Some(text.to_owned())).unwrap();
        let element: Rtmp2RecordSink = glib::Object::new();
        let shared = Shared::of(&element);
        let caps = gst::Caps::builder("audio/x-alaw")
            .field("rate", 8000)
            .field("channels", 1)
            .build();
        for file in 0..3u64 {
            shared.input.push(Entry::Track {
                index: 0,
                name: "audio_0".into(),
                caps: caps.clone(),
            });
            for number in 0..60 {
                let dts = (file * 60 + number) * 20_000_000;
                shared.input.push_packet(Packet {
                    track: 0,
                    dts,
                    pts: dts,
                    is_key: true,
                    bytes: 160,
                    media: gst::Buffer::from_slice([0; 160]),
                });
            }
            shared.input.push(Entry::Eos(gst::Seqnum::next()));
        }
        shared.input.push(Entry::Stop);
        let (finisher, jobs) = Finisher::new(shared.clone(), Container::Matroska);
        // The disk finishes nothing meanwhile.
        Worker::new(shared.clone(), template, jobs).run();
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let whole = ["out-1.mkv", "out-2.mkv", "out.mkv"];
        assert_eq!(names(), whole.map(|name| format!("{name}.rec.part")));
        finisher.run();
        assert_eq!(names(), whole);
        assert_eq!(shared.counters.files.load(Relaxed), 3);
        assert_eq!(shared.counters.packets.load(Relaxed), 180);
    }
}
