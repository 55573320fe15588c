// SPDX-License-Identifier: MPL-2.0

//! The way of coded pictures and sound into segments, files and the catalog.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use common::journal;
use dashboard::thumbnail::LastPicture;
use url::Url;

use crate::catalog::{Catalog, StreamCounters, StreamName};
use crate::segment_store::SegmentStore;
use crate::segmenter::{AccessUnit, Segment, Segmenter};

/// Segments that a playlist needs to be playable.
const READY: u64 = 2;

#[derive(Debug)]
pub struct Packager {
    name: StreamName,
    /// The address of the playlist.
    address: Url,
    catalog: Arc<Catalog>,
    segmenter: Segmenter,
    store: SegmentStore,
    listed: u64,
    /// Counts frames as they come, since that is unknown for a cleaned stream.
    counts_frames: bool,
    has_failed: bool,
}

impl Packager {
    pub fn new(
        name: StreamName,
        address: Url,
        catalog: Arc<Catalog>,
        directory: &Path,
    ) -> io::Result<Self> {
        let store = SegmentStore::open(directory, SystemTime::now())?;
        Ok(Packager {
            name,
            address,
            catalog,
            segmenter: Segmenter::new(store.next()),
            store,
            listed: 0,
            counts_frames: false,
            has_failed: false,
        })
    }

    /// `is_passed`: the media is as its publisher made it.
    pub fn start_run(&mut self, is_passed: bool) {
        self.counts_frames = is_passed;
        self.segmenter.start_run(is_passed);
        self.catalog
            .update(&self.name, |stream| stream.is_passed_through = is_passed);
    }

    pub fn expect_pictures(&mut self) {
        let segment = self.segmenter.expect_pictures();
        self.list(segment);
    }

    pub fn expect_sound(&mut self) {
        self.segmenter.expect_sound();
    }

    pub fn picture(&mut self, unit: AccessUnit) {
        let segment = self.segmenter.picture(unit);
        self.list(segment);
    }

    pub fn sound(&mut self, unit: AccessUnit) {
        let segment = self.segmenter.sound(unit);
        self.list(segment);
    }

    /// Keeps complete segments; the rest will come again in another way.
    pub fn take_complete(&mut self) {
        let segments = self.segmenter.take_complete();
        self.list(segments);
    }

    pub fn finish_run(&mut self) {
        let segments = self.segmenter.finish_run();
        self.list(segments);
    }

    /// Returns the place of the stream's last picture.
    pub fn last_picture(&self) -> Arc<LastPicture> {
        self.catalog.last_picture(&self.name)
    }

    pub fn count(&self, change: impl FnOnce(&mut StreamCounters)) {
        self.catalog
            .update(&self.name, |stream| change(&mut stream.counts));
    }

    fn list(&mut self, segments: impl IntoIterator<Item = Segment>) {
        for segment in segments {
            let result = self.store.add(&segment, SystemTime::now());
            let has_gap = match result {
                Ok(has_gap) => has_gap,
                Err(error) => {
                    self.report(Err(error), Ok(()));
                    continue;
                }
            };
            let removed = self.store.tidy_up();
            self.report(Ok(()), removed);
            self.listed += 1;
            let frames = if self.counts_frames {
                segment.frames
            } else {
                0
            };
            self.count(|counts| {
                counts.segments += 1;
                counts.segment_bytes += segment.bytes.len() as u64;
                counts.discontinuities += u64::from(has_gap);
                counts.frames_in += frames;
                counts.frames_out += frames;
            });
            if self.listed == READY {
                self.catalog
                    .update(&self.name, |stream| stream.is_ready = true);
                journal::info("ready")
                    .with("stream", self.name.to_string())
                    .with("playlist", self.address.as_str())
                    .say(format!("ready {} {}", self.name, self.address));
            }
        }
    }

    /// Logs a problem once, until it works again.
    fn report(&mut self, written: io::Result<()>, removed: io::Result<()>) {
        let failure = match (written, removed) {
            (Err(error), _) => Some(format!(
                "its segments cannot be written: {error}. They are missing until there is space and \
                 permission to write in --directory"
            )),
            (_, Err(error)) => Some(format!("its old segments cannot be removed: {error}")),
            (Ok(()), Ok(())) => None,
        };
        let news = match &failure {
            Some(failure) if !self.has_failed => Some(failure.as_str()),
            None if self.has_failed => Some("its files work again"),
            _ => None,
        };
        if let Some(news) = news {
            journal::warning("files")
                .with("stream", self.name.to_string())
                .say(format!("{}: {news}", self.name));
        }
        self.has_failed = failure.is_some();
        self.catalog
            .update(&self.name, |stream| stream.failure = failure);
    }
}
