// SPDX-License-Identifier: MPL-2.0

//! Whole files that the element may delete: those of its location and streams, also of earlier runs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::pattern::NamePattern;

/// Files and streams that are remembered.
const MAX_REMEMBERED: usize = 10_000;
const MAX_STREAMS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct KeptFiles {
    /// Names of the streams of this run, the oldest first.
    patterns: VecDeque<NamePattern>,
    /// Files of this run that their names do not tell for certain, the oldest first.
    remembered: VecDeque<(NamePattern, PathBuf)>,
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

    /// Adds a file of this run.
    pub(super) fn add_file(&mut self, pattern: &NamePattern, path: &Path) {
        if !pattern.is_certain_of(path) {
            self.remembered
                .push_back((pattern.clone(), path.to_owned()));
            if self.remembered.len() > MAX_REMEMBERED {
                self.remembered.pop_front();
            }
        }
    }

    /// Returns the files of one stream, the oldest first.
    pub(super) fn of_stream(&self, pattern: &NamePattern) -> Vec<PathBuf> {
        self.sorted(pattern.find(), |of| of == pattern)
    }

    /// Returns all files, the oldest first.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let found = self.patterns.iter().flat_map(NamePattern::find);
        self.sorted(found.collect(), |_| true)
    }

    /// Adds the files that are remembered and exist.
    fn sorted(&self, found: Vec<PathBuf>, is_of: impl Fn(&NamePattern) -> bool) -> Vec<PathBuf> {
        let remembered = self.remembered.iter().filter(|(of, _)| is_of(of));
        let all = found
            .into_iter()
            .chain(remembered.map(|(_, path)| path.clone()));
        let mut files: Vec<_> = all
            .filter_map(|path| {
                let data = std::fs::symlink_metadata(&path).ok()?;
                // Files of the same moment have numbers: 2 is before 10.
                let order = (data.modified().ok()?, path.as_os_str().len());
                data.is_file().then_some((order, path))
            })
            .collect();
        files.sort();
        files.dedup();
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
}
