// SPDX-License-Identifier: MPL-2.0

//! The queue between the streaming thread and the recording thread. It waits for a slow disk, as
//! long as that writes at all, and never for one that does not.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::rotation::Packet;

/// Media that may wait for the recording thread.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Time without progress of the recording thread after which media is dropped.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) enum Entry {
    /// A track, or its new configuration.
    Track {
        index: usize,
        name: String,
        caps: gst::Caps,
    },
    Packet(Packet<gst::Buffer>),
    /// `rtmp2-stream-status` of the source.
    Status(gst::Structure),
    /// Packets that were dropped here.
    Lost(u64),
    /// The stream goes on at another place.
    Flush,
    Eos(gst::Seqnum),
    /// The present file may have failed.
    Failure,
    Stop,
}

#[derive(Debug, Default)]
struct InputState {
    entries: VecDeque<Entry>,
    bytes: u64,
    /// Entries that the recording thread has taken.
    taken: u64,
    lost: u64,
    is_stalled: bool,
    /// The streaming thread waits no more.
    is_released: bool,
}

impl InputState {
    fn add_lost(&mut self) {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.entries.push_back(Entry::Lost(lost));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Input {
    state: Mutex<InputState>,
    added: Condvar,
    taken: Condvar,
}

impl Input {
    /// Adds an entry that is never dropped.
    pub(super) fn push(&self, entry: Entry) {
        let mut state = self.state.lock();
        state.add_lost();
        state.entries.push_back(entry);
        drop(state);
        self.added.notify_one();
    }

    /// Adds a packet. Returns whether it has found room.
    pub(super) fn push_packet(&self, packet: Packet<gst::Buffer>) -> bool {
        let mut state = self.state.lock();
        while state.bytes > MAX_BYTES && !state.is_released {
            let before = state.taken;
            if !state.is_stalled {
                let is_idle = |state: &mut InputState| {
                    state.bytes > MAX_BYTES && state.taken == before && !state.is_released
                };
                self.taken.wait_while_for(&mut state, is_idle, PATIENCE);
            }
            if state.taken == before && state.bytes > MAX_BYTES && !state.is_released {
                state.is_stalled = true;
                state.lost += 1;
                return false;
            }
        }
        if state.is_stalled && state.bytes > MAX_BYTES / 2 && !state.is_released {
            state.lost += 1;
            return false;
        }
        state.is_stalled = false;
        state.add_lost();
        state.bytes += packet.bytes;
        state.entries.push_back(Entry::Packet(packet));
        drop(state);
        self.added.notify_one();
        true
    }

    pub(super) fn pop(&self) -> Entry {
        let mut state = self.state.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                if let Entry::Packet(packet) = &entry {
                    state.bytes -= packet.bytes;
                }
                state.taken += 1;
                drop(state);
                self.taken.notify_one();
                return entry;
            }
            self.added.wait(&mut state);
        }
    }

    /// Lets the streaming thread go, which may wait for room.
    pub(super) fn release(&self) {
        self.state.lock().is_released = true;
        self.taken.notify_one();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: u64) -> Packet<gst::Buffer> {
        Packet {
            track: 0,
            dts: 0,
            pts: 0,
            is_key: true,
            bytes,
            media: gst::Buffer::new(),
        }
    }

    #[test]
    fn a_recording_thread_that_takes_nothing_costs_packets_and_not_the_pipeline() {
        gst::init().unwrap();
        let input = Input::default();
        assert!(input.push_packet(packet(MAX_BYTES + 1)));
        // The first one waits, the second one does not.
        assert!(!input.push_packet(packet(1)));
        assert!(!input.push_packet(packet(1)));
        assert!(matches!(input.pop(), Entry::Packet(_)));
        assert!(input.push_packet(packet(1)));
        assert!(matches!(input.pop(), Entry::Lost(2)));
        assert!(matches!(input.pop(), Entry::Packet(_)));
        assert_eq!(input.bytes(), 0);
    }

    #[test]
    fn losses_are_told_before_the_end() {
        gst::init().unwrap();
        let input = Input::default();
        assert!(input.push_packet(packet(MAX_BYTES + 1)));
        assert!(!input.push_packet(packet(1)));
        input.push(Entry::Stop);
        assert!(matches!(input.pop(), Entry::Packet(_)));
        assert!(matches!(input.pop(), Entry::Lost(1)));
        assert!(matches!(input.pop(), Entry::Stop));
    }

    #[test]
    fn a_released_thread_does_not_wait() {
        gst::init().unwrap();
        let input = Input::default();
        assert!(input.push_packet(packet(MAX_BYTES + 1)));
        input.release();
        assert!(input.push_packet(packet(1)));
    }
}
