// SPDX-License-Identifier: MPL-2.0

//! Files that are being written, under a name of their own until they are whole.
//!
//! A lock (flock) on each tells it from a file whose recorder was killed: the system removes the
//! lock with its process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, statvfs};
use rustix::io::Errno;

use super::location::{Container, numbered, part_path, whole_path};
use super::repair::whole_length;

/// Files of one name that are told apart by numbers.
const MAX_NUMBER: u32 = 100_000;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct PartFile {
    /// The wanted name of the whole file.
    wanted: PathBuf,
    /// The present name.
    part: PathBuf,
    /// Holds the lock.
    file: File,
}

impl PartFile {
    /// Creates a file, and its folders, under a name that is free now.
    pub(super) fn create(wanted: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder_of(wanted))?;
        for number in 0..MAX_NUMBER {
            let path = numbered(wanted, number);
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            let part = part_path(&path);
            let mut options = OpenOptions::new();
            let file = match options.read(true).write(true).create_new(true).open(&part) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let created = PartFile {
                wanted: wanted.to_owned(),
                part,
                file,
            };
            // Another recorder may just have taken it for one that was left behind.
            if created.try_lock() && created.exists() {
                return Ok(created);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "all names are used",
        ))
    }

    /// Returns the files in a folder whose recorders were killed, the oldest first.
    pub(super) fn left_behind(folder: &Path, extension: &str) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let part = entry.path();
            let Some(wanted) = whole_path(&part) else {
                continue;
            };
            if wanted.extension().and_then(|e| e.to_str()) != Some(extension) {
                continue;
            }
            let Ok(file) = OpenOptions::new().read(true).write(true).open(&part) else {
                continue;
            };
            let left = PartFile { wanted, part, file };
            let modified = left.file.metadata().and_then(|data| data.modified()).ok();
            if left.try_lock() && left.exists() {
                found.push((modified, left));
            }
        }
        found.sort_by_key(|(modified, _)| *modified);
        found.into_iter().map(|(_, left)| left).collect()
    }

    fn try_lock(&self) -> bool {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            // A file system without locks has nobody else's either.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::NOLCK) => true,
            Err(_) => false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.part
    }

    /// Returns the name that the file will have, if that is still free then.
    pub(super) fn whole_path(&self) -> PathBuf {
        whole_path(&self.part).unwrap_or_else(|| self.wanted.clone())
    }

    pub(super) fn folder(&self) -> PathBuf {
        folder_of(&self.part)
    }

    /// Returns whether the file still has its name: it may have been removed with its folder.
    pub(super) fn exists(&self) -> bool {
        let (Ok(own), Ok(named)) = (self.file.metadata(), fs::metadata(&self.part)) else {
            return false;
        };
        (own.dev(), own.ino()) == (named.dev(), named.ino())
    }

    /// Cuts off what is not whole at its end, where there is something, and gives the file its name.
    /// Removes a file without media, and returns nothing then.
    pub(super) fn finish(
        mut self,
        container: Container,
        is_whole: bool,
    ) -> io::Result<Option<(PathBuf, u64)>> {
        if !is_whole {
            let whole = whole_length(container, &mut self.file)?;
            if whole == 0 {
                fs::remove_file(&self.part)?;
                return Ok(None);
            }
            self.file.set_len(whole)?;
        }
        let bytes = self.file.metadata()?.len();
        let own = self.whole_path();
        // Not the names of files that are being written.
        let numbers = (0..MAX_NUMBER)
            .map(|number| numbered(&self.wanted, number))
            .filter(|path| fs::symlink_metadata(part_path(path)).is_err());
        for path in std::iter::once(own).chain(numbers) {
            match rename_without_replacing(&self.part, &path) {
                Err(Errno::EXIST) => {}
                renamed => return Ok(renamed.map(|()| Some((path, bytes)))?),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Removes the file.
    pub(super) fn discard(self) {
        if self.exists() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Renames a file, and fails with EXIST rather than replace another one.
fn rename_without_replacing(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems that do not know the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        renamed => return renamed,
    }
    match rustix::fs::link(from, to) {
        Ok(()) => rustix::fs::unlink(from),
        Err(Errno::EXIST) => Err(Errno::EXIST),
        // Nor links.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(Errno::EXIST),
        Err(_) => rustix::fs::rename(from, to),
    }
}

/// Returns the free space of the file system of a folder that exists.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stats = statvfs(folder)?;
    Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
}

pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn names_are_never_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("new/a.ts");
        let first = PartFile::create(&wanted).unwrap();
        let second = PartFile::create(&wanted).unwrap();
        assert_eq!(second.whole_path(), folder.path().join("new/a-1.ts"));
        // Somebody else takes the name meanwhile.
        fs::write(&wanted, "other").unwrap();
        let (path, _) = first.finish(Container::MpegTs, true).unwrap().unwrap();
        assert_eq!(path, folder.path().join("new/a-2.ts"));
        let (path, _) = second.finish(Container::MpegTs, true).unwrap().unwrap();
        assert_eq!(path, folder.path().join("new/a-1.ts"));
        assert_eq!(fs::read(&wanted).unwrap(), b"other");
    }

    #[test]
    fn only_files_without_a_recorder_are_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let present = PartFile::create(&folder.path().join("present.ts")).unwrap();
        let mut left = PartFile::create(&folder.path().join("left.ts")).unwrap();
        left.file.write_all(&[0x47; 200]).unwrap();
        drop(left);
        fs::write(folder.path().join("download.ts.part"), "other").unwrap();
        let found = PartFile::left_behind(folder.path(), "ts");
        assert_eq!(found.len(), 1);
        let (path, bytes) = found
            .into_iter()
            .next()
            .unwrap()
            .finish(Container::MpegTs, false)
            .unwrap()
            .unwrap();
        assert_eq!((path, bytes), (folder.path().join("left.ts"), 188));
        assert!(present.exists());
    }

    #[test]
    fn a_file_without_media_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = PartFile::create(&folder.path().join("a.mp4")).unwrap();
        assert_eq!(file.finish(Container::Mp4, false).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_removed_folder_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = PartFile::create(&folder.path().join("b/a.mp4")).unwrap();
        assert!(file.exists());
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        assert!(!file.exists());
        // Another one in its place is not the same.
        let other = PartFile::create(&folder.path().join("b/a.mp4")).unwrap();
        assert!(!file.exists());
        file.discard();
        assert!(other.exists());
    }
}
