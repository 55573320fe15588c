// SPDX-License-Identifier: MPL-2.0

//! The present streams, each on its thread, and the files of those that have ended.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::journal;
use url::Url;

use crate::catalog::{Catalog, StreamName};
use crate::mailbox::Mailbox;
use crate::packager::Packager;
use crate::segment_store;
use crate::stream::Worker;
use crate::web;

/// Time in which a stream may return and continue its playlist, which stays open.
const OPEN: Duration = Duration::from_secs(30);

/// Time for which its files stay after that: a player can play it to its end.
const STAYS: Duration = Duration::from_secs(30);

/// Time after which a directory that cannot be opened is tried again.
const OPENED_AGAIN: Duration = Duration::from_secs(2);

/// Application, user and stream.
const DEPTH: usize = 3;

#[derive(Debug)]
pub struct Settings {
    pub catalog: Arc<Catalog>,
    /// The directory of all streams.
    pub directory: PathBuf,
    /// The address at which viewers reach the HTTP server.
    pub base: Url,
    pub passthrough: bool,
}

#[derive(Debug)]
pub struct Streams {
    settings: Settings,
    state: Mutex<StreamTable>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StreamTable {
    running: HashMap<StreamName, RunningStream>,
    /// Directories of streams that have ended, relative to that of all streams, and their next
    /// step.
    gone: HashMap<PathBuf, Due>,
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The playlist ends.
    End(Instant),
    /// The files go too.
    Removal(Instant),
}

impl Due {
    fn time(self) -> Instant {
        match self {
            Due::End(time) | Due::Removal(time) => time,
        }
    }
}

#[derive(Debug)]
struct RunningStream {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

impl Streams {
    /// Files of an earlier process are removed, unless their streams return.
    pub fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let mut found = Vec::new();
        find_streams(&settings.directory, Path::new(""), &mut found)?;
        let due = Due::End(Instant::now() + OPEN);
        let state = StreamTable {
            gone: found.into_iter().map(|path| (path, due)).collect(),
            ..StreamTable::default()
        };
        let streams = Arc::new(Streams {
            settings,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let janitor = Arc::downgrade(&streams);
        let named = std::thread::Builder::new().name("janitor".into());
        named.spawn(move || {
            if let Some(streams) = janitor.upgrade() {
                streams.clean_up();
            }
        })?;
        Ok(streams)
    }

    fn lock(&self) -> MutexGuard<'_, StreamTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the stream of an accepted publisher. Its predecessor under that name has ended, or
    /// ends now.
    pub fn start(self: &Arc<Self>, name: &StreamName) -> io::Result<Arc<Mailbox>> {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.lock();
        if state.is_over {
            return Err(io::Error::other("the program ends"));
        }
        state.gone.remove(&name.directory());
        let before = state.running.remove(name);
        if let Some(before) = &before {
            before.mailbox.end();
        }
        let (streams, mine, own_name) = (self.clone(), mailbox.clone(), name.clone());
        let thread = std::thread::Builder::new().name(format!("stream {name}"));
        let thread = thread.spawn(move || {
            if let Some(before) = before {
                // It has written its last segment by then. A panic of it has been printed.
                let _ = before.thread.join();
            }
            streams.run(&own_name, &mine);
        })?;
        let running = RunningStream {
            mailbox: mailbox.clone(),
            thread,
        };
        state.running.insert(name.clone(), running);
        Ok(mailbox)
    }

    /// The thread of a stream.
    fn run(&self, name: &StreamName, mailbox: &Arc<Mailbox>) {
        let Settings {
            catalog,
            directory,
            base,
            passthrough,
        } = &self.settings;
        let directory = directory.join(name.directory());
        catalog.add(name);
        let address = web::playlist(base, name);
        let open = || Packager::new(name.clone(), address.clone(), catalog.clone(), &directory);
        if let Some(packager) = open_at_last(name, &directory, catalog, mailbox, open) {
            Worker::new(name.clone(), mailbox.clone(), packager, *passthrough).work();
        }
        // No thread reads the mailbox any more.
        mailbox.end();
        catalog.remove(name);
        let gone = journal::info("gone").with("stream", name.to_string());
        gone.say(format!("gone {name}"));
        let mut state = self.lock();
        let is_mine = |running: &RunningStream| Arc::ptr_eq(&running.mailbox, mailbox);
        if state.running.get(name).is_some_and(is_mine) {
            state.running.remove(name);
            let due = Due::End(Instant::now() + OPEN);
            state.gone.insert(name.directory(), due);
            self.changed.notify_all();
        }
    }

    /// Ends all streams, and waits for them. Their playlists stay open: the next process continues
    /// them.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let running = std::mem::take(&mut state.running);
        drop(state);
        self.changed.notify_all();
        for running in running.values() {
            running.mailbox.end();
        }
        for running in running.into_values() {
            let _ = running.thread.join();
        }
    }

    /// The janitor's thread: ends playlists that do not go on, and removes files that are not
    /// needed any more.
    fn clean_up(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            self.work_off(&mut state.gone, now);
            let next = state.gone.values().map(|due| due.time()).min();
            let pause = next.map(|time| time.saturating_duration_since(now));
            state = match pause {
                Some(pause) => {
                    let waited = self.changed.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Under the lock, so that no stream starts in a directory that is being removed.
    fn work_off(&self, gone: &mut HashMap<PathBuf, Due>, now: Instant) {
        let due = gone.extract_if(|_, due| due.time() <= now);
        for (path, due) in due.collect::<Vec<_>>() {
            match due {
                Due::End(_) => {
                    self.end(&path);
                    gone.insert(path, Due::Removal(now + STAYS));
                }
                Due::Removal(_) => self.remove(&path),
            }
        }
    }

    fn end(&self, path: &Path) {
        let directory = self.settings.directory.join(path);
        if let Err(error) = segment_store::end(&directory) {
            let directory = directory.display();
            let text = format!("the playlist in {directory} cannot be ended: {error}");
            journal::warning("files").say(text);
        }
    }

    fn remove(&self, path: &Path) {
        let top = &self.settings.directory;
        let directory = top.join(path);
        match segment_store::clear(&directory) {
            Ok(true) => {}
            // It belongs to no stream.
            Ok(false) => return,
            Err(error) => {
                journal::warning("files").say(format!(
                    "{} cannot be removed: {error}. Its stream has ended",
                    directory.display()
                ));
                return;
            }
        }
        // Parent directories go with their last entry.
        for above in path.ancestors().skip(1) {
            if above.as_os_str().is_empty() || std::fs::remove_dir(top.join(above)).is_err() {
                break;
            }
        }
    }
}

/// Tries until it succeeds, or the stream ends. Media that arrives meanwhile is lost.
fn open_at_last(
    name: &StreamName,
    directory: &Path,
    catalog: &Catalog,
    mailbox: &Mailbox,
    open: impl Fn() -> io::Result<Packager>,
) -> Option<Packager> {
    let mut has_failed = false;
    loop {
        // A parent directory may just have been removed, since it was empty.
        let failure = match open().or_else(|_| open()) {
            Ok(packager) => {
                catalog.update(name, |stream| stream.failure = None);
                return Some(packager);
            }
            Err(error) => format!(
                "segments cannot be written to {}: {error}",
                directory.display()
            ),
        };
        if !has_failed {
            let text = format!(
                "{name}: {failure}. It is tried again until they can, and nothing \
                 is served of it until then; look at --directory and its permissions"
            );
            journal::warning("files")
                .with("stream", name.to_string())
                .say(text);
        }
        has_failed = true;
        catalog.update(name, |stream| stream.failure = Some(failure));
        if mailbox.refuse(OPENED_AGAIN) {
            return None;
        }
    }
}

/// Finds the directories of streams below this one: those that an earlier process marked as its
/// own.
fn find_streams(top: &Path, path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(top.join(path)) {
        // An unreadable directory belongs to another program, like lost+found.
        Err(error) if is_below(path) && error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(());
        }
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let below = path.join(entry.file_name());
        // Links belong to other programs.
        if entry.file_type()?.is_dir() && below.components().count() <= DEPTH {
            find_streams(top, &below, found)?;
        }
    }
    if is_below(path) && segment_store::is_store(&top.join(path)) {
        found.push(path.to_owned());
    }
    Ok(())
}

/// Returns whether it is another directory than that of all streams.
fn is_below(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt;
    use std::time::SystemTime;

    use super::*;
    use crate::catalog::PLAYLIST;
    use crate::segment_store::SegmentStore;

    #[test]
    fn unreadable_directories_belong_to_other_programs() {
        let top = tempfile::tempdir().unwrap();
        SegmentStore::open(&top.path().join("live/cam"), SystemTime::now()).unwrap();
        let lost = top.path().join("lost+found");
        // Unreadable for all but root, who finds nothing in it.
        std::fs::DirBuilder::new().mode(0o0).create(&lost).unwrap();
        let mut found = Vec::new();
        find_streams(top.path(), Path::new(""), &mut found).unwrap();
        assert_eq!(found, [Path::new("live/cam")]);
        let error = find_streams(&top.path().join("none"), Path::new(""), &mut found);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
        // A user who cannot read it cannot remove it with the rest either.
        std::fs::remove_dir(&lost).unwrap();
    }

    #[test]
    fn streams_of_an_earlier_process_are_found_and_removed() {
        let top = tempfile::tempdir().unwrap();
        for name in ["live/ann/cam", "live/cam", "a/b/c/d"] {
            SegmentStore::open(&top.path().join(name), SystemTime::now()).unwrap();
        }
        // Files of another program, with names like those of a stream.
        let theirs = top.path().join("films/one");
        std::fs::create_dir_all(&theirs).unwrap();
        for name in [PLAYLIST, "segment-1.ts"] {
            std::fs::write(theirs.join(name), "").unwrap();
        }
        std::fs::create_dir_all(top.path().join("live/notes")).unwrap();
        let mut found = Vec::new();
        find_streams(top.path(), Path::new(""), &mut found).unwrap();
        found.sort();
        assert_eq!(found, [Path::new("live/ann/cam"), Path::new("live/cam")]);
        let streams = Streams::new(Settings {
            catalog: Arc::new(Catalog::new().0),
            directory: top.path().to_owned(),
            base: Url::parse("http://localhost/").unwrap(),
            passthrough: false,
        });
        let streams = streams.unwrap();
        // First their playlists end, and then they go.
        let now = Instant::now();
        let mut gone = streams.lock().gone.clone();
        assert_eq!(gone.len(), 2);
        streams.work_off(&mut gone, now + OPEN);
        let due = Due::Removal(now + OPEN + STAYS);
        assert!(gone.values().all(|next| *next == due), "{gone:?}");
        assert!(top.path().join("live/ann/cam").exists());
        streams.work_off(&mut gone, now + OPEN + STAYS);
        assert!(gone.is_empty());
        streams.remove(Path::new("films/one"));
        assert!(theirs.join(PLAYLIST).exists() && theirs.join("segment-1.ts").exists());
        assert!(!top.path().join("live/ann").exists());
        assert!(top.path().join("live/notes").exists());
        streams.stop();
        assert!(
            streams
                .start(&StreamName::new("live", None, "cam").unwrap())
                .is_err()
        );
    }
}
