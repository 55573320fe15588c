// SPDX-License-Identifier: MPL-2.0

//! The health of the program, as load balancers and supervisors ask for it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::Catalog;

/// Time for which the result of a disk test is kept, however often it is asked for.
const KEEPS: Duration = Duration::from_secs(1);
/// A slower disk cannot keep up with segments.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Health {
    directory: PathBuf,
    catalog: Arc<Catalog>,
    /// Problems that other parts reported, by part.
    problems: Mutex<BTreeMap<&'static str, String>>,
    /// The time of the last disk test, and the problem that it found.
    disk: tokio::sync::Mutex<Option<(Instant, Option<String>)>>,
    /// The disk is being tested: a disk that hangs costs one thread.
    is_trying: Arc<AtomicBool>,
}

impl Health {
    /// `directory` holds the streams of the catalog.
    pub fn new(directory: PathBuf, catalog: Arc<Catalog>) -> Self {
        Health {
            directory,
            catalog,
            problems: Mutex::default(),
            disk: tokio::sync::Mutex::default(),
            is_trying: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the problem of a part of the program, such as `rtmp`; `None` when it works again.
    pub fn set(&self, part: &'static str, problem: Option<String>) {
        let mut problems = self.lock();
        match problem {
            Some(problem) => problems.insert(part, problem),
            None => problems.remove(part),
        };
    }

    /// Returns all problems; none if all is well.
    pub async fn problems(&self) -> BTreeMap<&'static str, String> {
        let disk = self.disk().await;
        let mut problems = self.lock().clone();
        problems.extend(disk.map(|problem| ("disk", problem)));
        problems.extend(self.streams().map(|problem| ("streams", problem)));
        problems
    }

    /// Returns the failing streams, with the reason of the first one.
    fn streams(&self) -> Option<String> {
        let streams = self.catalog.streams().into_iter();
        let mut failing = streams.filter_map(|(name, stream)| Some((name, stream.failure?)));
        let (name, failure) = failing.next()?;
        let problem = format!("{name}: {failure}");
        Some(match failing.count() {
            0 => problem,
            others => format!("{problem}; and {others} more"),
        })
    }

    async fn disk(&self) -> Option<String> {
        let mut last = self.disk.lock().await;
        if let Some((when, problem)) = &*last
            && when.elapsed() < KEEPS
        {
            return problem.clone();
        }
        let problem = self.try_disk().await;
        *last = Some((Instant::now(), problem.clone()));
        problem
    }

    async fn try_disk(&self) -> Option<String> {
        let hangs = || format!("{} does not answer", self.directory.display());
        if self.is_trying.swap(true, Ordering::AcqRel) {
            return Some(hangs());
        }
        let (directory, is_trying) = (self.directory.clone(), self.is_trying.clone());
        let trial = tokio::task::spawn_blocking(move || {
            let result = write(&directory);
            is_trying.store(false, Ordering::Release);
            result
        });
        match tokio::time::timeout(TIMEOUT, trial).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!(
                "{} is not writable: {error}",
                self.directory.display()
            )),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(hangs()),
        }
    }
}

/// Tests that the directory is writable, with as much as a file system cannot cache away. The file
/// is hidden, and never served.
pub fn write(directory: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".health-")
        .tempfile_in(directory)?;
    file.write_all(&[0; 4096])?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::StreamName;

    fn catalog() -> Arc<Catalog> {
        Arc::new(Catalog::new().0)
    }

    #[tokio::test]
    async fn streams_are_reported_while_they_fail() {
        let directory = tempfile::tempdir().unwrap();
        let catalog = catalog();
        let health = Health::new(directory.path().to_owned(), catalog.clone());
        let names = ["ann", "bob"].map(|user| StreamName::new("live", Some(user), "cam").unwrap());
        names.iter().for_each(|name| catalog.add(name));
        assert!(health.problems().await.is_empty());
        let fail = |name, failure: Option<&str>| {
            catalog.update(name, |stream| stream.failure = failure.map(str::to_owned));
        };
        fail(&names[1], Some("no room"));
        let expected = "live/bob/cam: no room";
        assert_eq!(health.problems().await["streams"], expected);
        fail(&names[0], Some("no way"));
        let expected = "live/ann/cam: no way; and 1 more";
        assert_eq!(health.problems().await["streams"], expected);
        fail(&names[0], None);
        catalog.remove(&names[1]);
        assert!(health.problems().await.is_empty());
    }

    #[tokio::test]
    async fn a_problem_is_reported_until_it_is_solved() {
        let directory = tempfile::tempdir().unwrap();
        let health = Health::new(directory.path().to_owned(), catalog());
        assert!(health.problems().await.is_empty());
        health.set("rtmp", Some("the port is taken".to_owned()));
        assert_eq!(health.problems().await["rtmp"], "the port is taken");
        health.set("rtmp", None);
        assert!(health.problems().await.is_empty());
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_missing_directory_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let health = Health::new(directory.path().join("gone"), catalog());
        let problem = &health.problems().await["disk"];
        assert!(problem.contains("gone is not writable"), "{problem}");
    }
}
