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
use super::pattern::MAX_NUMBER;
use super::repair::whole_length;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct PartFile {
    /// The wanted name of the whole file.
    wanted: PathBuf,
    /// The present name.
    part: PathBuf,
    /// Holds the lock.
    file: File,
    /// The deepest folder that was there before.
    former_folder: PathBuf,
}

/// A file that has its name.
#[derive(Debug)]
pub(super) struct WholeFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// The file may not survive a loss of power.
    pub(super) sync_error: Option<io::Error>,
}

impl PartFile {
    /// Creates a file, and its folders, under a name that is free now.
    pub(super) fn create(wanted: &Path) -> io::Result<Self> {
        let folder = folder_of(wanted);
        let mut existing = folder.ancestors().map(current_if_empty);
        let former_folder = existing
            .find(|folder| folder.is_dir())
            .unwrap_or(Path::new("/"))
            .to_owned();
        fs::create_dir_all(&folder)?;
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
                former_folder: former_folder.clone(),
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
            let left = PartFile {
                wanted,
                part,
                file,
                former_folder: folder.to_owned(),
            };
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

    /// Cuts off what is not whole at its end, where there is something, and gives the file its name,
    /// with `name`, once it is on the disk, with `sync`. Removes a file without media, and returns
    /// nothing then.
    pub(super) fn finish(
        mut self,
        container: Container,
        is_whole: bool,
        sync: impl Fn(&File) -> io::Result<()>,
        name: impl FnOnce(&Self) -> io::Result<PathBuf>,
    ) -> io::Result<Option<WholeFile>> {
        if !is_whole {
            let modified = self.file.metadata()?.modified()?;
            let whole = whole_length(container, &mut self.file)?;
            if whole == 0 {
                self.discard();
                return Ok(None);
            }
            self.file.set_len(whole)?;
            // The time of its last media orders it among others.
            self.file.set_modified(modified)?;
        }
        let synced = sync(&self.file);
        let path = name(&self)?;
        let synced = synced.and_then(|()| self.sync_folders(sync));
        Ok(Some(WholeFile {
            path,
            bytes: self.file.metadata()?.len(),
            sync_error: synced.err(),
        }))
    }

    pub(super) fn give_name(&self) -> io::Result<PathBuf> {
        let own = self.whole_path();
        // Another file may have the name since.
        if !self.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Not the names of files that are being written.
        let numbers = (0..MAX_NUMBER)
            .map(|number| numbered(&self.wanted, number))
            .filter(|path| fs::symlink_metadata(part_path(path)).is_err());
        for path in std::iter::once(own).chain(numbers) {
            match rename_without_replacing(&self.part, &path) {
                Err(Errno::EXIST) => {}
                renamed => return Ok(renamed.map(|()| path)?),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Brings the name, and those of folders that were made for it, to the disk.
    fn sync_folders(&self, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        for folder in self.folder().ancestors().map(current_if_empty) {
            // A folder that nobody may read can't be opened for it.
            if let Ok(opened) = File::open(folder) {
                sync(&opened)?;
            }
            if folder == self.former_folder {
                break;
            }
        }
        Ok(())
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

/// Brings a file to the disk, or the names in a folder.
pub(super) fn sync_all(file: &File) -> io::Result<()> {
    unless_unsupported(file.sync_all())
}

/// As [`sync_all`], without times.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    unless_unsupported(file.sync_data())
}

/// Some file systems have no such operation.
fn unless_unsupported(synced: io::Result<()>) -> io::Result<()> {
    let is_unsupported = |error: &io::Error| {
        let errors = [Errno::INVAL, Errno::NOTSUP, Errno::NOSYS, Errno::ROFS];
        errors
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&error.raw_os_error())
    };
    synced.or_else(|error| {
        if is_unsupported(&error) {
            Ok(())
        } else {
            Err(error)
        }
    })
}

pub(super) fn folder_of(path: &Path) -> PathBuf {
    current_if_empty(path.parent().unwrap_or(Path::new(""))).to_owned()
}

fn current_if_empty(folder: &Path) -> &Path {
    if folder == Path::new("") {
        Path::new(".")
    } else {
        folder
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Write;

    use super::*;

    fn finish(file: PartFile, container: Container, is_whole: bool) -> Option<(PathBuf, u64)> {
        let whole = file
            .finish(container, is_whole, sync_all, PartFile::give_name)
            .unwrap()?;
        assert!(whole.sync_error.is_none());
        Some((whole.path, whole.bytes))
    }

    #[test]
    fn names_are_never_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("new/a.ts");
        let first = PartFile::create(&wanted).unwrap();
        let second = PartFile::create(&wanted).unwrap();
        assert_eq!(second.whole_path(), folder.path().join("new/a-1.ts"));
        // Somebody else takes the name meanwhile.
        fs::write(&wanted, "other").unwrap();
        let (path, _) = finish(first, Container::MpegTs, true).unwrap();
        assert_eq!(path, folder.path().join("new/a-2.ts"));
        let (path, _) = finish(second, Container::MpegTs, true).unwrap();
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
        let left = found.into_iter().next().unwrap();
        let modified = left.file.metadata().unwrap().modified().unwrap();
        let (path, bytes) = finish(left, Container::MpegTs, false).unwrap();
        assert_eq!((&path, bytes), (&folder.path().join("left.ts"), 188));
        assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), modified);
        assert!(present.exists());
    }

    #[test]
    fn a_file_without_media_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = PartFile::create(&folder.path().join("a.mp4")).unwrap();
        assert_eq!(finish(file, Container::Mp4, false), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_on_the_disk_before_it_has_its_name_and_then_its_folders_are() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("new/newer/a.ts");
        let file = PartFile::create(&wanted).unwrap();
        let own = file.file.metadata().unwrap().ino();
        let synced = RefCell::new(Vec::new());
        let keep = |file: &File| {
            let inode = file.metadata()?.ino();
            synced.borrow_mut().push((inode, wanted.exists()));
            Ok(())
        };
        file.finish(Container::MpegTs, true, keep, PartFile::give_name)
            .unwrap();
        let inode = |path: &Path| (fs::metadata(path).unwrap().ino(), true);
        let folders = wanted.ancestors().skip(1).take(3).map(inode);
        let expected: Vec<_> = [(own, false)].into_iter().chain(folders).collect();
        assert_eq!(*synced.borrow(), expected);
    }

    #[test]
    fn a_file_that_can_not_be_synced_has_its_name_and_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a.ts");
        let file = PartFile::create(&wanted).unwrap();
        let fail = |_: &File| Err(Errno::IO.into());
        let whole = file
            .finish(Container::MpegTs, true, fail, PartFile::give_name)
            .unwrap()
            .unwrap();
        assert_eq!(whole.path, wanted);
        assert!(whole.sync_error.is_some());
        assert!(wanted.exists());
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
