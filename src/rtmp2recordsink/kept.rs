// SPDX-License-Identifier: MPL-2.0

//! Whole files that the element may delete: those of its location and streams, also of earlier runs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::pattern::NamePattern;

/// Files and streams that are remembered.
const MAX_REMEMBERED: usize = 10_000;
const MAX_STREAMS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct KeptFiles {
    /// Names of the streams of this run, the oldest first.
    patterns: VecDeque<NamePattern>,
    /// Files of this run, the oldest first.
    remembered: VecDeque<Remembered>,
    /// The latest time of a file so far.
    latest: Option<SystemTime>,
}

/// A file of this run.
#[derive(Debug)]
struct Remembered {
    pattern: NamePattern,
    path: PathBuf,
    /// Its name tells that it is of this location and stream.
    is_certain: bool,
    /// Its time, or that of an older file where the clock has been put back.
    time: SystemTime,
}

impl KeptFiles {
    /// Adds the names of a stream.
    pub(super) fn add_stream(&mut self, pattern: &NamePattern) {
        if !self.patterns.contains(pattern) {
            self.patterns.push_back(pattern.clone());
            if self.patterns.len() > MAX_STREAMS {
                self.patterns.pop_front();
            }
        }
    }

    /// Adds a file of this run, which is the newest one.
    pub(super) fn add_file(&mut self, pattern: &NamePattern, path: &Path) {
        let Ok(modified) = std::fs::symlink_metadata(path).and_then(|data| data.modified()) else {
            return;
        };
        let now = SystemTime::now();
        let time = self
            .latest
            .filter(|latest| *latest > now)
            .unwrap_or(modified);
        self.latest = self.latest.max(Some(time));
        self.remembered.push_back(Remembered {
            pattern: pattern.clone(),
            path: path.to_owned(),
            is_certain: pattern.is_certain_of(path),
            time,
        });
        if self.remembered.len() > MAX_REMEMBERED {
            self.remembered.pop_front();
        }
    }

    /// Returns the files of one stream, the oldest first.
    pub(super) fn of_stream(&mut self, pattern: &NamePattern) -> Vec<PathBuf> {
        self.sorted(pattern.find(), |of| of == pattern)
    }

    /// Returns all files, the oldest first.
    pub(super) fn all(&mut self) -> Vec<PathBuf> {
        let found = self.patterns.iter().flat_map(NamePattern::find).collect();
        self.sorted(found, |_| true)
    }

    /// Adds the files that are remembered and exist.
    fn sorted(
        &mut self,
        found: Vec<PathBuf>,
        is_of: impl Fn(&NamePattern) -> bool,
    ) -> Vec<PathBuf> {
        let of_this_run = self.remembered.iter().filter(|file| is_of(&file.pattern));
        let uncertain = of_this_run.filter(|file| !file.is_certain);
        let all: BTreeSet<PathBuf> = found
            .into_iter()
            .chain(uncertain.map(|file| file.path.clone()))
            .collect();
        let known = self.remembered.iter().enumerate();
        let known: HashMap<&Path, (usize, SystemTime)> = known
            .map(|(number, file)| (file.path.as_path(), (number + 1, file.time)))
            .collect();
        let mut files: Vec<_> = all
            .into_iter()
            .filter_map(|path| {
                let data = std::fs::symlink_metadata(&path).ok()?;
                let of_disk = (0, data.modified().ok()?);
                let (number, time) = known.get(path.as_path()).copied().unwrap_or(of_disk);
                // Files of the same moment have numbers: 2 is before 10.
                let order = (time, number, path.as_os_str().len());
                data.is_file().then_some((order, path))
            })
            .collect();
        files.sort();
        self.latest = self.latest.max(files.last().map(|((time, ..), _)| *time));
        files.into_iter().map(|(_, path)| path).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, write};
    use std::time::{Duration, SystemTime};

    use super::super::location::LocationTemplate;
    use super::*;

    #[test]
    fn files_of_all_runs_are_in_the_order_of_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}/{{stream-key}}.mp4", folder.path().display());
        let template = LocationTemplate::parse(&text, |text| Some(text.to_owned())).unwrap();
        let [cam, other] = ["cam", "other"].map(|key| template.pattern(|_| Some(key.to_owned())));
        let path = |name: &str| folder.path().join(name);
        for (age, name) in [
            (1, "cam.mp4"),
            (2, "cam-2.mp4"),
            (2, "cam-10.mp4"),
            (3, "other.mp4"),
        ] {
            write(path(name), name).unwrap();
            let modified = SystemTime::now() - Duration::from_secs(1000 * age);
            let file = File::options().write(true).open(path(name)).unwrap();
            file.set_modified(modified).unwrap();
        }
        let mut files = KeptFiles::default();
        files.add_stream(&cam);
        // Names with a number may be another stream's.
        assert_eq!(files.of_stream(&cam), [path("cam.mp4")]);
        for name in ["cam.mp4", "cam-2.mp4", "cam-10.mp4", "cam-3.mp4"] {
            files.add_file(&cam, &path(name));
        }
        let own = ["cam-2.mp4", "cam-10.mp4", "cam.mp4"].map(path);
        assert_eq!(files.of_stream(&cam), own);
        assert_eq!(files.all(), own);
        files.add_stream(&other);
        assert_eq!(files.all()[0], path("other.mp4"));
        assert_eq!(files.of_stream(&other), [path("other.mp4")]);
    }

    #[test]
    fn a_clock_that_is_put_back_makes_no_new_file_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}/{{stream-key}}-%s.mp4", folder.path().display());
        let template = LocationTemplate::parse(&text, |text| Some(text.to_owned())).unwrap();
        let cam = template.pattern(|_| Some("cam".to_owned()));
        let path = |time: u32| folder.path().join(format!("cam-{time}.mp4"));
        let write_at = |time: u32| {
            write(path(time), "").unwrap();
            let file = File::options().write(true).open(path(time)).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(time.into());
            file.set_modified(modified).unwrap();
        };
        // The clock was years ahead in an earlier run.
        let ahead = [4_000_000_001, 4_000_000_002];
        ahead.into_iter().for_each(write_at);
        let mut files = KeptFiles::default();
        files.add_stream(&cam);
        assert_eq!(files.of_stream(&cam), ahead.map(path));
        // It goes back once more in this one.
        let present = [1_700_000_002, 1_700_000_001];
        for time in present {
            write_at(time);
            files.add_file(&cam, &path(time));
        }
        let order: Vec<_> = ahead.into_iter().chain(present).map(path).collect();
        assert_eq!(files.of_stream(&cam), order);
    }
}
