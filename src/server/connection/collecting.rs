// SPDX-License-Identifier: MPL-2.0

//! Collection of media in the socket, so that one wake-up serves many tags.
//!
//! After a read the thread leaves the socket alone until `delivery-interval` is over, and then reads
//! what has arrived. It waits only for the end of the connection meanwhile. A publisher that is silent
//! causes no wake-ups: after the interval the thread blocks in its usual read. Nothing is collected
//! before the first keyframe, and while reads fill the buffer.

use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::flv::{Content, Tag};

/// Time after the first media from which on a publisher without keyframes is collected from too.
const WITHOUT_KEYFRAME: Duration = Duration::from_secs(1);

/// Distance of the times at which connections wake together, and the least interval for that.
const SHARED_STEP: Duration = Duration::from_millis(10);
const MIN_SHARED_INTERVAL: Duration = Duration::from_millis(50);

/// Decides until when media is collected.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    /// Arrival of the first media.
    first_media: Option<Instant>,
    has_keyframe: bool,
    /// The last read filled its buffer: more is there.
    is_filled: bool,
}

impl Collecting {
    /// Forgets what is known of a publisher.
    pub(super) fn reset(&mut self) {
        *self = Collecting::default();
    }

    pub(super) fn note_tag(&mut self, tag: &Tag, arrival: Instant) {
        if tag.info.is_coded() {
            self.first_media.get_or_insert(arrival);
        }
        self.has_keyframe |= tag.info.content == Content::Keyframe;
    }

    pub(super) fn note_read(&mut self, is_filled: bool) {
        self.is_filled = is_filled;
    }

    /// Returns the time of the next read. None for now.
    pub(super) fn next_read(&self, last_read: Instant, interval: Duration) -> Option<Instant> {
        let first_media = self.first_media?;
        let has_begun = self.has_keyframe || last_read >= first_media + WITHOUT_KEYFRAME;
        let collects = has_begun && !self.is_filled && !interval.is_zero();
        collects.then(|| last_read + interval)
    }
}

/// Returns the time at or before `time` that is common to many connections, where `interval` is long
/// enough. One wake-up of a core serves all of them then.
pub(super) fn common_time(time: Instant, interval: Duration) -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    if interval < MIN_SHARED_INTERVAL {
        return time;
    }
    let elapsed = time.saturating_duration_since(*ORIGIN).as_nanos();
    let past = elapsed % SHARED_STEP.as_nanos();
    time - Duration::from_nanos(past as u64)
}

/// Waits until a time, or until the other end has closed the connection.
pub(super) fn wait_for_end(socket: &TcpStream, until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    if let Ok(left) = Timespec::try_from(left)
        && !(left.tv_sec == 0 && left.tv_nsec == 0)
    {
        // An error or a signal only makes the wait shorter.
        let _ = poll(&mut [PollFd::new(socket, END)], Some(&left));
    }
}

/// The end of a connection. The system reports a reset in any case.
#[cfg(any(target_os = "linux", target_os = "android"))]
const END: PollFlags = PollFlags::RDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const END: PollFlags = PollFlags::empty();

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::flv::TagKind;
    use crate::memory::Memory;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn tag(kind: TagKind, start: &[u8]) -> Tag {
        Tag::new(kind, 0, Memory::from_vec(start.to_vec(), 0)).unwrap()
    }

    fn keyframe() -> Tag {
        tag(TagKind::Video, &[0x17, 1, 0, 0, 0, 9])
    }

    fn frame() -> Tag {
        tag(TagKind::Video, &[0x27, 1, 0, 0, 0, 9])
    }

    #[test]
    fn collection_begins_with_the_first_keyframe() {
        let now = Instant::now();
        let mut collecting = Collecting::default();
        assert_eq!(collecting.next_read(now, INTERVAL), None);
        collecting.note_tag(&tag(TagKind::Video, &[0x17, 0, 0, 0, 0, 1]), now);
        collecting.note_tag(&frame(), now);
        assert_eq!(collecting.next_read(now, INTERVAL), None);
        collecting.note_tag(&keyframe(), now);
        assert_eq!(collecting.next_read(now, INTERVAL), Some(now + INTERVAL));
        assert_eq!(collecting.next_read(now, Duration::ZERO), None, "it is off");
    }

    #[test]
    fn publisher_without_keyframes_is_collected_from_after_a_second() {
        let now = Instant::now();
        let mut collecting = Collecting::default();
        collecting.note_tag(&tag(TagKind::Audio, &[0xAF, 1, 7]), now);
        let later = now + WITHOUT_KEYFRAME;
        let just_before = later - Duration::from_millis(1);
        assert_eq!(collecting.next_read(just_before, INTERVAL), None);
        assert_eq!(
            collecting.next_read(later, INTERVAL),
            Some(later + INTERVAL)
        );
    }

    #[test]
    fn full_reads_are_not_collected() {
        let now = Instant::now();
        let mut collecting = Collecting::default();
        collecting.note_tag(&keyframe(), now);
        collecting.note_read(true);
        assert_eq!(collecting.next_read(now, INTERVAL), None);
        collecting.note_read(false);
        assert_eq!(collecting.next_read(now, INTERVAL), Some(now + INTERVAL));
    }

    #[test]
    fn connections_that_collect_wake_at_common_times() {
        common_time(Instant::now(), INTERVAL);
        let start = common_time(Instant::now(), INTERVAL) + SHARED_STEP;
        for millis in 0..10 {
            let time = start + Duration::from_millis(millis);
            assert_eq!(common_time(time, INTERVAL), start);
            assert_eq!(
                common_time(time, INTERVAL / 10),
                time,
                "the step is as long"
            );
        }
        assert_eq!(
            common_time(start + SHARED_STEP, INTERVAL),
            start + SHARED_STEP
        );
    }

    #[test]
    fn end_of_the_connection_ends_the_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[1; 100]).unwrap();
        let start = Instant::now();
        wait_for_end(&server, start + INTERVAL);
        assert!(start.elapsed() >= INTERVAL, "data does not end it");
        drop(client);
        // Much longer than any test may take.
        let long = Duration::from_secs(1000);
        wait_for_end(&server, Instant::now() + long);
        assert!(start.elapsed() < long);
    }
}
