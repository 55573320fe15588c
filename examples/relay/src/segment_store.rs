// SPDX-License-Identifier: MPL-2.0

//! The files of a stream: its segments, and the playlist that lists the last of them.
//!
//! Files are complete or absent, names are never used again, and segments that have left the list
//! stay for as long as a player may still request them. A stream that returns finds its playlist
//! and continues it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gst::glib;
use m3u8_rs::{MediaPlaylist, MediaSegment};

use crate::catalog::PLAYLIST;
use crate::segmenter::Segment;
use crate::ts::CLOCK;

/// Segments in the list.
pub const LISTED: usize = 5;

/// Segments that stay after those: players have seen a list that is that old.
const KEPT: usize = 2 * LISTED;

const TARGET_DURATION: u64 = 2;

/// The most that the times of segments may be behind the clock, and ahead of it, before they are
/// reset. A segment that was filled up is ahead.
const MAX_BEHIND: Duration = Duration::from_secs(1);
const MAX_AHEAD: Duration = Duration::from_secs(4);

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".ts";
const UNFINISHED: &str = ".unfinished-";

/// The marker file in each directory of a stream: without it, nothing there is the relay's, or
/// removed.
const MARKER: &str = ".relay";

#[derive(Debug)]
pub struct SegmentStore {
    directory: PathBuf,
    playlist: MediaPlaylist,
    /// The number of the next segment.
    next: u64,
    /// Names of files that have left the list, the oldest first.
    unlisted: VecDeque<String>,
    /// The start of the next segment if nothing interrupts.
    due: Option<SystemTime>,
    /// The next segment does not continue the last one in the list.
    has_gap: bool,
}

impl SegmentStore {
    /// Continues the files that are there.
    pub fn open(directory: &Path, now: SystemTime) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        claim(directory)?;
        let text = fs::read(directory.join(PLAYLIST)).unwrap_or_default();
        let old = m3u8_rs::parse_media_playlist_res(&text).ok();
        let mut old = old.unwrap_or_default();
        let old_next = old.media_sequence + old.segments.len() as u64;
        let mut files = files(directory)?;
        for unfinished in files.extract_if(.., |name| name.starts_with(UNFINISHED)) {
            fs::remove_file(directory.join(unfinished))?;
        }
        files.sort_by_key(|name| number(name));
        let is_whole = old.segments.iter().all(|s| files.contains(&s.uri));
        // A list that has ended does not go on (RFC 8216, 6.2.1): that of another stream replaces
        // it.
        if !is_whole || old.end_list {
            old.segments.clear();
        }
        let last = files.last().and_then(|name| number(name));
        let unlisted = files.into_iter().filter(|name| number(name).is_some());
        let unlisted = unlisted.filter(|name| !old.segments.iter().any(|s| s.uri == *name));
        let next = [old_next, by_clock(now), last.map_or(0, |last| last + 1)];
        // A list that goes on has no holes in its numbers.
        let next = match (old.segments.is_empty(), next) {
            (false, [old_next, ..]) => old_next,
            (true, next) => next.into_iter().max().unwrap_or(0),
        };
        Ok(SegmentStore {
            directory: directory.to_owned(),
            unlisted: unlisted.collect(),
            has_gap: !old.segments.is_empty(),
            next,
            due: None,
            playlist: MediaPlaylist {
                version: Some(6),
                target_duration: TARGET_DURATION,
                media_sequence: next - old.segments.len() as u64,
                segments: old.segments,
                discontinuity_sequence: old.discontinuity_sequence,
                independent_segments: true,
                ..MediaPlaylist::default()
            },
        })
    }

    /// Returns the number of the next segment: it only grows, over all processes.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Writes and lists a segment whose last frame came now. Returns whether the list has a gap
    /// before it.
    pub fn add(&mut self, segment: &Segment, now: SystemTime) -> io::Result<bool> {
        let has_gap = self.has_gap || segment.is_discontinuous;
        let result = self.try_add(segment, has_gap, now);
        // A segment that could not be written is missing in the list.
        self.has_gap = match result {
            Ok(()) => false,
            Err(_) => !self.playlist.segments.is_empty(),
        };
        result.map(|()| has_gap)
    }

    /// Removes files that no player requests any more.
    pub fn tidy_up(&mut self) -> io::Result<()> {
        self.delete(KEPT)
    }

    fn try_add(&mut self, segment: &Segment, has_gap: bool, now: SystemTime) -> io::Result<()> {
        let name = format!("{PREFIX}{}{SUFFIX}", self.next);
        match self.write_somehow(&name, &segment.bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.start_anew()?;
                self.write(&name, &segment.bytes)?;
            }
            written => written?,
        }
        self.next += 1;
        let length = Duration::from_nanos(segment.duration * 1_000_000_000 / CLOCK);
        let start = self.start_of(has_gap, length, now);
        self.due = Some(start + length);
        self.playlist.segments.push(MediaSegment {
            uri: name,
            duration: length.as_secs_f32(),
            discontinuity: has_gap,
            program_date_time: iso_8601(start).and_then(|text| text.parse().ok()),
            ..MediaSegment::default()
        });
        while self.playlist.segments.len() > LISTED {
            let gone = self.playlist.segments.remove(0);
            self.playlist.media_sequence += 1;
            self.playlist.discontinuity_sequence += u64::from(gone.discontinuity);
            self.unlisted.push_back(gone.uri);
        }
        self.write_playlist()
    }

    /// Starts over: the directory was removed, and the listed segments with it.
    fn start_anew(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        claim(&self.directory)?;
        let gone = std::mem::take(&mut self.playlist.segments);
        let marks = gone.iter().filter(|segment| segment.discontinuity).count();
        self.playlist.discontinuity_sequence += marks as u64;
        self.playlist.media_sequence = self.next;
        self.unlisted.clear();
        Ok(())
    }

    /// The times of consecutive segments are consecutive too, as long as they are about right.
    fn start_of(&self, has_gap: bool, length: Duration, now: SystemTime) -> SystemTime {
        let by_clock = now.checked_sub(length).unwrap_or(now);
        // Times never overlap, except where the clock was set.
        let is_right = |due: &SystemTime| match due.duration_since(by_clock) {
            Ok(ahead) => ahead <= MAX_AHEAD,
            Err(behind) => !has_gap && behind.duration() <= MAX_BEHIND,
        };
        let goes_on = self.due.filter(is_right);
        goes_on.unwrap_or(by_clock)
    }

    fn write_playlist(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.playlist.write_to(&mut text)?;
        self.write_somehow(PLAYLIST, &text)
    }

    /// On a full disk the old segments make room. Otherwise no segment could be written there ever
    /// again, since old ones go only when there are new ones.
    fn write_somehow(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let Err(error) = self.write(name, bytes) else {
            return Ok(());
        };
        if self.unlisted.is_empty() {
            return Err(error);
        }
        // Most likely both failed for the same reason.
        let _ = self.delete(0);
        self.write(name, bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_whole(&self.directory, name, bytes)
    }

    /// Removes all but the last ones. A file that cannot be removed is tried again the next time.
    fn delete(&mut self, keep: usize) -> io::Result<()> {
        let mut result = Ok(());
        let count = self.unlisted.len().saturating_sub(keep);
        let old: Vec<String> = self.unlisted.drain(..count).collect();
        for name in old.into_iter().rev() {
            match fs::remove_file(self.directory.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.unlisted.push_front(name);
                    result = Err(error);
                }
                _ => {}
            }
        }
        result
    }
}

/// Returns a number that no earlier segment had, whatever became of the files: segments take two
/// seconds.
fn by_clock(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / TARGET_DURATION
}

fn iso_8601(time: SystemTime) -> Option<glib::GString> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    let second = glib::DateTime::from_unix_utc(seconds).ok()?;
    let format = format!("%Y-%m-%dT%H:%M:%S.{:03}+00:00", since.subsec_millis());
    second.format(&format).ok()
}

/// Returns the number of a segment's file.
fn number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    number.parse().ok()
}

/// Returns the names of files in a directory that can be the store's.
fn files(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// Returns whether a file of this name in the directory of a stream is the store's.
fn is_own(name: &str) -> bool {
    name == PLAYLIST || number(name).is_some() || name.starts_with(UNFINISHED)
}

/// Returns whether a store was opened there.
pub fn is_store(directory: &Path) -> bool {
    fs::symlink_metadata(directory.join(MARKER)).is_ok_and(|marker| marker.is_file())
}

/// Marks the directory of a stream, unless another program has files there.
fn claim(directory: &Path) -> io::Result<()> {
    if is_store(directory) {
        return Ok(());
    }
    if let Some(name) = files(directory)?.into_iter().find(|name| is_own(name)) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{name} exists and belongs to another program, since there is no {MARKER} beside it"
            ),
        ));
    }
    fs::File::create_new(directory.join(MARKER)).map(drop)
}

/// Writes a file that is complete or absent.
fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{UNFINISHED}{name}"));
    let written =
        fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, directory.join(name)));
    if written.is_err() {
        // The unfinished file takes space that may be the missing one.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Ends the list of a store: players stop requesting it.
pub fn end(directory: &Path) -> io::Result<()> {
    if !is_store(directory) {
        return Ok(());
    }
    let text = match fs::read(directory.join(PLAYLIST)) {
        // No segment was ever listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let playlist = m3u8_rs::parse_media_playlist_res(&text);
    let mut playlist = playlist.map_err(|_| io::Error::other("not a playlist"))?;
    playlist.end_list = true;
    let mut text = Vec::new();
    playlist.write_to(&mut text)?;
    write_whole(directory, PLAYLIST, &text)
}

/// Removes all files of a store from its directory, and the directory if it is empty then. Returns
/// whether it was that of a store: all others stay as they are.
pub fn clear(directory: &Path) -> io::Result<bool> {
    if !is_store(directory) {
        return Ok(false);
    }
    for name in files(directory)?.iter().filter(|name| is_own(name)) {
        fs::remove_file(directory.join(name))?;
    }
    // Last, so that an interrupted removal is found again.
    fs::remove_file(directory.join(MARKER))?;
    // Remaining files belong to another program.
    let _ = fs::remove_dir(directory);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u8) -> Segment {
        Segment {
            bytes: vec![number; 188],
            frames: 60,
            duration: 2 * CLOCK,
            is_discontinuous: false,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn list(directory: &Path) -> MediaPlaylist {
        let text = fs::read(directory.join(PLAYLIST)).unwrap();
        m3u8_rs::parse_media_playlist_res(&text).unwrap()
    }

    fn segments(directory: &Path) -> usize {
        let names = files(directory).unwrap();
        names.iter().filter(|name| number(name).is_some()).count()
    }

    #[test]
    fn five_segments_are_listed_and_old_ones_deleted_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SegmentStore::open(directory.path(), at(1000)).unwrap();
        for index in 0..40 {
            let has_gap = store.add(&segment(index), at(1002 + 2 * u64::from(index)));
            assert!(!has_gap.unwrap());
            store.tidy_up().unwrap();
            let list = list(directory.path());
            let count = usize::from(index) + 1;
            assert_eq!(list.segments.len(), count.min(LISTED));
            assert_eq!(segments(directory.path()), count.min(LISTED + KEPT));
            let first = 500 + count.saturating_sub(LISTED) as u64;
            assert_eq!(list.media_sequence, first);
            for (number, segment) in (first..).zip(&list.segments) {
                assert_eq!(segment.uri, format!("segment-{number}.ts"));
                assert_eq!(segment.duration, 2.0);
                let bytes = fs::read(directory.path().join(&segment.uri)).unwrap();
                assert_eq!(bytes, [(number - 500) as u8; 188]);
                let time = segment.program_date_time.unwrap();
                assert_eq!(time.timestamp(), 2 * number as i64);
            }
            assert!(list.independent_segments && !list.end_list);
            assert_eq!(list.target_duration, 2);
        }
        // The playlist and the marker too.
        assert_eq!(files(directory.path()).unwrap().len(), LISTED + KEPT + 2);
    }

    #[test]
    fn a_discontinuity_is_counted_when_it_leaves_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SegmentStore::open(directory.path(), at(0)).unwrap();
        for index in 0..20 {
            let is_discontinuous = index == 3 || index == 5;
            let segment = Segment {
                is_discontinuous,
                ..segment(index)
            };
            store.add(&segment, at(u64::from(index))).unwrap();
            let list = list(directory.path());
            let gone = |discontinuity: u8| u64::from(index >= discontinuity + 5);
            assert_eq!(list.discontinuity_sequence, gone(3) + gone(5), "{index}");
            let listed = list.segments.iter().filter(|s| s.discontinuity).count() as u64;
            let all = u64::from(index >= 3) + u64::from(index >= 5);
            assert_eq!(list.discontinuity_sequence + listed, all);
        }
    }

    #[test]
    fn a_stream_that_returns_continues_after_a_gap() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SegmentStore::open(directory.path(), at(1000)).unwrap();
        for index in 0..7 {
            store.add(&segment(index), at(1000)).unwrap();
        }
        fs::write(directory.path().join(".unfinished-segment-9.ts"), "").unwrap();
        fs::write(directory.path().join("notes.txt"), "").unwrap();
        let mut store = SegmentStore::open(directory.path(), at(9000)).unwrap();
        assert!(store.add(&segment(7), at(9000)).unwrap());
        let list = list(directory.path());
        assert_eq!((list.media_sequence, list.segments.len()), (503, 5));
        assert!(list.segments[4].discontinuity);
        // The list, the segments that left it, the marker, the notes, and nothing unfinished.
        assert_eq!(files(directory.path()).unwrap().len(), 8 + 3);
        clear(directory.path()).unwrap();
        assert_eq!(files(directory.path()).unwrap(), ["notes.txt"]);
    }

    #[test]
    fn an_ended_list_is_not_continued() {
        let directory = tempfile::tempdir().unwrap();
        // No segment was listed, and the directory has no owner.
        end(directory.path()).unwrap();
        assert_eq!(files(directory.path()).unwrap(), [""; 0]);
        let mut store = SegmentStore::open(directory.path(), at(1000)).unwrap();
        end(directory.path()).unwrap();
        for index in 0..7 {
            store.add(&segment(index), at(1000)).unwrap();
        }
        end(directory.path()).unwrap();
        let ended = list(directory.path());
        assert!(ended.end_list && ended.segments.len() == LISTED);
        // Another list is in its place, with new numbers.
        let mut store = SegmentStore::open(directory.path(), at(1030)).unwrap();
        assert!(!store.add(&segment(7), at(1030)).unwrap());
        let list = list(directory.path());
        assert!(!list.end_list && list.segments.len() == 1);
        assert_eq!(list.media_sequence, 515);
        // A player of the previous list finds its files for a while.
        assert_eq!(segments(directory.path()), 8);
    }

    #[test]
    fn a_removed_directory_is_created_again() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("live/cam");
        let mut store = SegmentStore::open(&directory, at(1000)).unwrap();
        for index in 0..2 {
            store.add(&segment(index), at(1000)).unwrap();
        }
        fs::remove_dir_all(top.path().join("live")).unwrap();
        store.add(&segment(2), at(1006)).unwrap();
        let list = list(&directory);
        assert_eq!((list.media_sequence, list.segments.len()), (502, 1));
        assert!(is_store(&directory));
        assert!(directory.join(&list.segments[0].uri).exists());
    }

    #[test]
    fn files_of_other_programs_are_neither_used_nor_removed() {
        let top = tempfile::tempdir().unwrap();
        for name in [PLAYLIST, "segment-7.ts"] {
            let directory = top.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(name), "of others").unwrap();
            let error = SegmentStore::open(&directory, at(0)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert!(error.to_string().contains(name), "{error}");
            assert!(!clear(&directory).unwrap());
            assert_eq!(files(&directory).unwrap(), [name]);
        }
        // Without a playlist or segment, other files do not matter.
        let directory = top.path().join("notes");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("notes.txt"), "").unwrap();
        assert!(!clear(&directory).unwrap());
        SegmentStore::open(&directory, at(0)).unwrap();
        assert!(is_store(&directory) && clear(&directory).unwrap());
        assert_eq!(files(&directory).unwrap(), ["notes.txt"]);
        assert!(!clear(&top.path().join("gone")).unwrap());
    }

    #[test]
    fn segment_numbers_are_not_reused_after_all_files_are_gone() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("live/cam");
        let mut store = SegmentStore::open(&directory, at(1000)).unwrap();
        store.add(&segment(0), at(1002)).unwrap();
        clear(&directory).unwrap();
        assert!(!directory.exists());
        let mut store = SegmentStore::open(&directory, at(1060)).unwrap();
        assert!(!store.add(&segment(1), at(1062)).unwrap());
        assert_eq!(list(&directory).media_sequence, 530);
    }

    #[test]
    fn old_segments_make_room_when_writing_fails() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SegmentStore::open(directory.path(), at(0)).unwrap();
        for index in 0..10 {
            store.add(&segment(index), at(2)).unwrap();
        }
        assert_eq!(segments(directory.path()), 10);
        // A name that cannot be written, like all names on a full disk.
        let name = format!("{UNFINISHED}segment-{}.ts", store.next());
        fs::create_dir(directory.path().join(&name)).unwrap();
        assert!(store.add(&segment(10), at(2)).is_err());
        assert_eq!(
            segments(directory.path()),
            LISTED,
            "all that are not listed"
        );
        assert_eq!(list(directory.path()).segments.len(), LISTED);
        fs::remove_dir(directory.path().join(&name)).unwrap();
        assert!(store.add(&segment(10), at(2)).unwrap());
    }

    #[test]
    fn a_failed_removal_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = SegmentStore::open(directory.path(), at(0)).unwrap();
        for index in 0..5 {
            store.add(&segment(index), at(2)).unwrap();
        }
        // No file, so it is not removed as one.
        let stuck = directory.path().join("segment-1.ts");
        fs::remove_file(&stuck).unwrap();
        fs::create_dir(&stuck).unwrap();
        for index in 5..20 {
            assert!(!store.add(&segment(index), at(2)).unwrap());
            // It is the second one to go.
            assert_eq!(store.tidy_up().is_ok(), index < 5 + 11, "{index}");
        }
        // It blocked none of the others, and is no gap: all are listed.
        assert_eq!(segments(directory.path()), LISTED + KEPT);
        assert!(
            list(directory.path())
                .segments
                .iter()
                .all(|s| !s.discontinuity)
        );
        fs::remove_dir(&stuck).unwrap();
        fs::write(&stuck, "").unwrap();
        store.tidy_up().unwrap();
        assert!(!stuck.exists());
    }

    #[test]
    fn a_segment_that_could_not_be_written_is_a_gap() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("live");
        let mut store = SegmentStore::open(&directory, at(0)).unwrap();
        store.add(&segment(0), at(2)).unwrap();
        let in_the_way = directory.join(format!("{UNFINISHED}segment-1.ts"));
        fs::create_dir(&in_the_way).unwrap();
        assert!(store.add(&segment(1), at(4)).is_err());
        fs::remove_dir(&in_the_way).unwrap();
        assert!(store.add(&segment(2), at(6)).unwrap());
        let list = list(&directory);
        assert_eq!(list.segments[1].uri, "segment-1.ts");
        assert!(list.segments[1].discontinuity);
    }
}
