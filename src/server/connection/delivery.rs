// SPDX-License-Identifier: MPL-2.0

use std::time::Instant;

use crate::flv::{KeyframeDetector, Tag, TagKind};
use crate::memory::Slack;
use crate::server::connection::capture_clock::CaptureClock;
use crate::server::connection::phase::Published;
use crate::server::stats::CaptureStats;
use crate::server::stream::Stream;
use crate::server::stream::queue::{QueueItem, Stopped};

/// Media of a publisher on its way to the queue of its stream.
#[derive(Debug)]
pub(super) struct Delivery {
    client: u64,
    /// Items of one read.
    batch: Vec<QueueItem>,
    slack: Slack,
    /// The queue holds items that the streaming thread has not been woken for, and more may follow.
    is_unannounced: bool,
    /// The streaming thread waits for what the queue holds.
    is_due: bool,
    /// Bytes of incomplete audio and video messages after the last read.
    partial_media: usize,
    keyframes: KeyframeDetector,
    capture: CaptureClock,
}

impl Delivery {
    pub(super) fn new(client: u64) -> Self {
        Delivery {
            client,
            batch: Vec::new(),
            slack: Slack::default(),
            is_unannounced: false,
            is_due: false,
            partial_media: 0,
            keyframes: KeyframeDetector::default(),
            capture: CaptureClock::default(),
        }
    }

    /// Forgets what is known of a publisher. The next media belongs to another one.
    pub(super) fn reset(&mut self) {
        self.is_unannounced = false;
        self.is_due = false;
        self.keyframes = KeyframeDetector::default();
        self.capture = CaptureClock::default();
    }

    /// Corrects the flags of a tag from its bitstream, and reads the time of day that it states.
    pub(super) fn read(&mut self, tag: &mut Tag, arrival: Instant) {
        self.keyframes.correct(tag);
        self.capture.read(tag, &self.keyframes, arrival);
    }

    /// Returns what the publisher states about its capture.
    pub(super) fn capture_stats(&self) -> &CaptureStats {
        self.capture.stats()
    }

    pub(super) fn add(&mut self, tag: Tag, arrival: Instant) {
        self.batch.push(QueueItem::Tag {
            tag,
            arrival,
            discont: false,
        });
    }

    pub(super) fn is_unannounced(&self) -> bool {
        self.is_unannounced
    }

    /// Notes that nothing follows the items in the queue for now.
    pub(super) fn announce(&mut self, stream: &Stream) {
        self.is_unannounced = false;
        self.is_due |= stream.queue().is_reader_due();
    }

    /// Returns true where the streaming thread has to be woken for what the queue holds, or this one
    /// has to deliver it.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Notes that the items in the queue are taken care of.
    pub(super) fn set_delivered(&mut self) {
        self.is_due = false;
    }

    /// Returns true where the queue has space for the batch.
    pub(super) fn fits(&self, published: Option<&Published>) -> bool {
        published.is_none_or(|it| it.stream.queue().has_space_for(&self.batch))
    }

    /// Moves the batch of a read at `arrival` to the queue. A read that filled its buffer has probably left more pending,
    /// and waking the streaming thread for each of those would cost more than all else.
    pub(super) fn hand_over(
        &mut self,
        published: Option<&Published>,
        partial_media: usize,
        arrival: Instant,
        more_is_likely: bool,
    ) -> Result<(), Stopped> {
        // A large frame on a slow network takes its time, and is media all the while.
        let has_grown = partial_media > std::mem::replace(&mut self.partial_media, partial_media);
        let Some(Published { stream, handle, .. }) = published else {
            self.batch.clear();
            return Ok(());
        };
        let queue = stream.queue();
        let has_progress = has_grown || self.batch.iter().any(is_media);
        if has_progress && handle.is_stalled() {
            // First the time: a contender may look in between.
            handle.note_media(Instant::now());
            if handle.set_stalled(false) {
                queue.post_from(self.client, QueueItem::Resumed);
            }
        }
        let count = self.batch.len();
        let space_waits = queue.space_waits();
        if more_is_likely {
            self.is_due |= queue.push_quietly(self.client, &mut self.batch)?;
        } else if self.is_unannounced || !self.batch.is_empty() {
            self.is_due |= queue.push(self.client, &mut self.batch)?;
        }
        if self.slack.note(count, self.batch.capacity()) {
            self.batch.shrink_to(Slack::KEPT);
        }
        if has_progress {
            let has_waited = queue.space_waits() != space_waits;
            handle.note_media(if has_waited { Instant::now() } else { arrival });
        }
        self.is_unannounced = more_is_likely;
        Ok(())
    }
}

fn is_media(item: &QueueItem) -> bool {
    matches!(item, QueueItem::Tag { tag, .. } if tag.kind != TagKind::Script)
}
