// SPDX-License-Identifier: MPL-2.0

//! One stream from its first tag to its end, on a thread of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::journal;

use crate::catalog::StreamName;
use crate::cleaner::Cleaner;
use crate::mailbox::{Mailbox, Next, QueuedTag, RunOutcome};
use crate::packager::Packager;
use crate::passthrough::{Dirty, Passed, Passthrough};

/// The pause after a failed run, which doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A run that lasted this long was a good one.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// Bytes of tags that are kept for a cleaner, in case their group of pictures turns out to be
/// dirty.
const MAX_REPLAY: usize = 16 << 20;

/// A stretch of the stream that is handled in one way.
#[derive(Debug)]
enum Run {
    Passed(Passthrough, Replay),
    Cleaned(Box<Cleaner>),
}

/// Tags since the last keyframe.
#[derive(Debug, Default)]
struct Replay {
    tags: Vec<QueuedTag>,
    bytes: usize,
}

#[derive(Debug)]
pub struct Worker {
    name: StreamName,
    mailbox: Arc<Mailbox>,
    packager: Arc<Mutex<Packager>>,
    passthrough: bool,
    run: Option<Run>,
    epoch: u64,
    /// The epoch in which the stream was found to be dirty.
    is_dirty: bool,
    /// Consecutive failed runs, the start of the last run, and the earliest start of the next one.
    failures: u32,
    started: Instant,
    pause: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    pub fn new(
        name: StreamName,
        mailbox: Arc<Mailbox>,
        packager: Packager,
        passthrough: bool,
    ) -> Self {
        Worker {
            name,
            mailbox,
            packager: Arc::new(Mutex::new(packager)),
            passthrough,
            run: None,
            epoch: 0,
            is_dirty: false,
            failures: 0,
            started: Instant::now(),
            pause: None,
        }
    }

    /// Runs until there are no more tags.
    pub fn work(mut self) {
        loop {
            let is_full = || matches!(&self.run, Some(Run::Cleaned(cleaner)) if cleaner.is_full());
            match self.mailbox.next(is_full) {
                Next::Tag(tag) => self.take(tag),
                Next::Outcome(outcome) => {
                    self.run = None;
                    self.has_ended(outcome);
                }
                Next::End => return self.finish_run(),
            }
        }
    }

    fn take(&mut self, tag: QueuedTag) {
        if tag.epoch != self.epoch {
            self.finish_run();
            self.epoch = tag.epoch;
            self.is_dirty = false;
        }
        if self.run.is_none() && !(tag.is_start && self.may_start() && self.start(&tag)) {
            return;
        }
        self.push(tag);
    }

    fn may_start(&mut self) -> bool {
        let may = self.pause.is_none_or(|until| until <= Instant::now());
        if may {
            self.pause = None;
        }
        may
    }

    /// Returns whether there is a run now.
    fn start(&mut self, first: &QueuedTag) -> bool {
        self.started = Instant::now();
        if self.passthrough && !self.is_dirty {
            let mut passthrough = Passthrough::default();
            let mut headers = headers(&first.caps).into_iter();
            match headers.try_for_each(|header| look(&mut passthrough, &header, 0).map(drop)) {
                Ok(()) => {
                    let mut packager = lock(&self.packager);
                    packager.start_run(true);
                    packager.expect_pictures();
                    if passthrough.has_sound() {
                        packager.expect_sound();
                    }
                    self.run = Some(Run::Passed(passthrough, Replay::default()));
                    return true;
                }
                Err(dirty) => self.is_dirty(&dirty),
            }
        }
        self.start_cleaner(first)
    }

    fn start_cleaner(&mut self, first: &QueuedTag) -> bool {
        let (mailbox, packager) = (self.mailbox.clone(), self.packager.clone());
        match Cleaner::start(self.name.to_string(), mailbox, packager) {
            Ok(cleaner) => {
                for header in headers(&first.caps) {
                    cleaner.push(&header, None);
                }
                self.run = Some(Run::Cleaned(Box::new(cleaner)));
                true
            }
            Err(error) => {
                self.has_ended(Err(error));
                false
            }
        }
    }

    fn push(&mut self, tag: QueuedTag) {
        let (passthrough, replay) = match &mut self.run {
            Some(Run::Passed(passthrough, replay)) => (passthrough, replay),
            Some(Run::Cleaned(cleaner)) => return cleaner.push(&tag.buffer, Some(tag.time)),
            None => return,
        };
        let passed = look(passthrough, &tag.buffer, tag.time);
        if matches!(&passed, Ok(Some(Passed::Picture(unit))) if unit.is_idr) {
            *replay = Replay::default();
        }
        replay.bytes += tag.buffer.size();
        replay.tags.push(tag);
        let passed = match replay.bytes > MAX_REPLAY {
            true => Err(Dirty("a group of pictures that is too large".into())),
            false => passed,
        };
        match passed {
            Ok(None) => {}
            Ok(Some(Passed::Picture(unit))) => lock(&self.packager).picture(unit),
            Ok(Some(Passed::Sound(unit))) => lock(&self.packager).sound(unit),
            Err(dirty) => self.clean_instead(&dirty),
        }
    }

    fn is_dirty(&mut self, Dirty(why): &Dirty) {
        self.is_dirty = true;
        journal::info("cleaned")
            .with("stream", self.name.to_string())
            .say(format!("{}: it is cleaned, since it has {why}", self.name));
    }

    /// Cleans from the last keyframe on, of which no picture was listed.
    fn clean_instead(&mut self, dirty: &Dirty) {
        self.is_dirty(dirty);
        let Some(Run::Passed(_, replay)) = self.run.take() else {
            return;
        };
        lock(&self.packager).take_complete();
        let mut tags = replay.tags.into_iter();
        let Some(first) = tags.next() else {
            return;
        };
        if self.start_cleaner(&first) {
            std::iter::once(first)
                .chain(tags)
                .for_each(|tag| self.push(tag));
        }
    }

    fn finish_run(&mut self) {
        match self.run.take() {
            Some(Run::Passed(..)) => lock(&self.packager).finish_run(),
            Some(Run::Cleaned(cleaner)) => {
                let outcome = cleaner.finish();
                self.has_ended(outcome);
            }
            None => {}
        }
    }

    fn has_ended(&mut self, outcome: RunOutcome) {
        if self.started.elapsed() >= GOOD_RUN {
            self.failures = 0;
        }
        let Err(error) = outcome else {
            return;
        };
        let longer = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(6));
        let pause = longer.min(LONGEST_PAUSE);
        self.failures += 1;
        self.pause = Some(Instant::now() + pause);
        let seconds = pause.as_secs();
        let text = format!(
            "{}: {error}. It starts again at a keyframe after {seconds} s",
            self.name
        );
        journal::warning("failed")
            .with("stream", self.name.to_string())
            .say(text);
    }
}

/// Returns the headers of the stream: file header, metadata, configurations.
fn headers(caps: &gst::Caps) -> Vec<gst::Buffer> {
    let structure = caps.structure(0);
    let array = structure.and_then(|structure| structure.get::<gst::Array>("streamheader").ok());
    let buffer = |value: &gst::glib::SendValue| value.get::<gst::Buffer>().ok();
    array.map_or_else(Vec::new, |array| array.iter().filter_map(buffer).collect())
}

fn look(
    passthrough: &mut Passthrough,
    buffer: &gst::Buffer,
    time: i64,
) -> Result<Option<Passed>, Dirty> {
    match buffer.map_readable() {
        Ok(bytes) => passthrough.push(time, &bytes),
        Err(_) => Err(Dirty("an unreadable tag".into())),
    }
}
