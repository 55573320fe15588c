// SPDX-License-Identifier: MPL-2.0

//! Collection of media in the socket, so that one wake-up serves many tags.
//!
//! A publisher's read waits until `delivery-interval` is over or [`ENOUGH`] has arrived, and returns
//! all of it. The system does that: the socket has a low-water mark and a read timeout. A connection
//! that ends wakes the thread at once, and so does a full receive window.
//!
//! Nothing is collected before the first keyframe, and none of what a read has left. A publisher that
//! is silent causes no wake-ups: after some intervals without a byte the thread blocks in its usual
//! read.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
// The macro for options names the others like this.
use nix::{libc, setsockopt_impl, sockopt_impl};

use crate::flv::{Content, Tag};
use crate::server::log::CAT;

/// Time after the first media from which on a publisher without keyframes is collected from too.
const WITHOUT_KEYFRAME: Duration = Duration::from_secs(1);

/// Bytes that end a wait: half of the receive window that a connection has at first, so that the
/// publisher goes on sending while they are read.
const ENOUGH: i32 = 32 * 1024;

/// Low-water mark of a socket whose reads return whatever has arrived.
const ANY: i32 = 1;

/// Intervals in a row without a byte after which a publisher counts as silent. A low frame rate has
/// one or two between its frames.
const SILENT_INTERVALS: u32 = 3;

sockopt_impl!(
    /// The low-water mark of reads: SO_RCVLOWAT of socket(7).
    ReceiveLowWater,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32
);

/// Decides for how long media is collected.
#[derive(Debug)]
pub(super) struct Collecting {
    /// Arrival of the first media.
    first_media: Option<Instant>,
    has_keyframe: bool,
    silent_intervals: u32,
    /// The socket's low-water mark, as it was last set.
    low_water: i32,
}

impl Default for Collecting {
    fn default() -> Self {
        Collecting {
            first_media: None,
            has_keyframe: false,
            silent_intervals: 0,
            low_water: ANY,
        }
    }
}

impl Collecting {
    /// Forgets what is known of a publisher.
    pub(super) fn reset(&mut self) {
        *self = Collecting {
            low_water: self.low_water,
            ..Collecting::default()
        };
    }

    pub(super) fn note_tag(&mut self, tag: &Tag, arrival: Instant) {
        if tag.info.is_coded() {
            self.first_media.get_or_insert(arrival);
        }
        self.has_keyframe |= tag.info.content == Content::Keyframe;
    }

    pub(super) fn note_read(&mut self) {
        self.silent_intervals = 0;
    }

    /// Notes that a read has waited in vain.
    pub(super) fn note_silence(&mut self) {
        self.silent_intervals = self.silent_intervals.saturating_add(1);
    }

    /// Returns the longest time for which the next read waits for more than a byte. None where it
    /// returns what there is.
    pub(super) fn longest_wait(&self, last_read: Instant, interval: Duration) -> Option<Duration> {
        let first_media = self.first_media?;
        let has_begun = self.has_keyframe || last_read >= first_media + WITHOUT_KEYFRAME;
        let collects = has_begun && self.silent_intervals < SILENT_INTERVALS && !interval.is_zero();
        // Linux rounds the times of long waits up, by up to an eighth.
        collects.then(|| interval - interval / 8)
    }

    /// Returns true while reads of the socket wait for enough.
    pub(super) fn is_on(&self) -> bool {
        self.low_water != ANY
    }

    /// Sets the socket's low-water mark, if it has to change.
    pub(super) fn set_low_water(&mut self, socket: &TcpStream, collects: bool) {
        let low_water = if collects { ENOUGH } else { ANY };
        if std::mem::replace(&mut self.low_water, low_water) != low_water
            && let Err(error) = setsockopt(socket, ReceiveLowWater, &low_water)
        {
            gst::debug!(
                CAT,
                "Could not set the low-water mark of a connection: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
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
        assert_eq!(collecting.longest_wait(now, INTERVAL), None);
        collecting.note_tag(&tag(TagKind::Video, &[0x17, 0, 0, 0, 0, 1]), now);
        collecting.note_tag(&frame(), now);
        assert_eq!(collecting.longest_wait(now, INTERVAL), None);
        collecting.note_tag(&keyframe(), now);
        assert_eq!(
            collecting.longest_wait(now, INTERVAL),
            Some(INTERVAL - INTERVAL / 8)
        );
        assert_eq!(
            collecting.longest_wait(now, Duration::ZERO),
            None,
            "it is off"
        );
    }

    #[test]
    fn publisher_without_keyframes_is_collected_from_after_a_second() {
        let now = Instant::now();
        let mut collecting = Collecting::default();
        collecting.note_tag(&tag(TagKind::Audio, &[0xAF, 1, 7]), now);
        let later = now + WITHOUT_KEYFRAME;
        let just_before = later - Duration::from_millis(1);
        assert_eq!(collecting.longest_wait(just_before, INTERVAL), None);
        assert_eq!(
            collecting.longest_wait(later, INTERVAL),
            Some(INTERVAL - INTERVAL / 8)
        );
    }

    #[test]
    fn silence_ends_collection_and_media_begins_it_again() {
        let now = Instant::now();
        let mut collecting = Collecting::default();
        collecting.note_tag(&keyframe(), now);
        for _ in 0..SILENT_INTERVALS {
            assert!(collecting.longest_wait(now, INTERVAL).is_some());
            collecting.note_silence();
        }
        assert_eq!(collecting.longest_wait(now, INTERVAL), None);
        collecting.note_read();
        assert!(collecting.longest_wait(now, INTERVAL).is_some());
    }

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (client, server)
    }

    #[test]
    fn reads_wait_for_enough_while_media_is_collected() {
        let (mut client, mut server) = connected();
        let mut collecting = Collecting::default();
        let mut buffer = [0; 2 * ENOUGH as usize];
        assert!(!collecting.is_on());
        collecting.set_low_water(&server, true);
        assert!(collecting.is_on());
        server.set_read_timeout(Some(INTERVAL)).unwrap();
        client.write_all(&[1; 100]).unwrap();
        let start = Instant::now();
        assert_eq!(server.read(&mut buffer).unwrap(), 100);
        assert!(start.elapsed() >= INTERVAL, "100 bytes are not enough");

        // Much longer than any test may take.
        let long = Duration::from_secs(1000);
        server.set_read_timeout(Some(long)).unwrap();
        let start = Instant::now();
        client.write_all(&[1; ENOUGH as usize]).unwrap();
        server.read_exact(&mut buffer[..ENOUGH as usize]).unwrap();

        client.write_all(&[1; 100]).unwrap();
        collecting.set_low_water(&server, false);
        assert_eq!(server.read(&mut buffer).unwrap(), 100);

        collecting.set_low_water(&server, true);
        client.write_all(&[1; 100]).unwrap();
        drop(client);
        assert_eq!(server.read(&mut buffer).unwrap(), 100);
        assert!(start.elapsed() < long);
    }
}
