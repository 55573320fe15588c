// SPDX-License-Identifier: MPL-2.0

//! When to acknowledge received bytes (section 5.4.3).
//!
//! A client that announces a window is owed an acknowledgement for each window, and gets one each
//! half window. A client that announces none is owed nothing, and some of those never read: librtmp
//! in most programs never does, ffmpeg only sometimes. When such a client closes its socket with
//! unread data, its system sends a reset and discards the end of the stream that is still on its
//! way. But a few encoders stop without acknowledgements although they announced no window. So a
//! client without a window is acknowledged when it pauses after half of the server's window: a
//! client that keeps streaming does not need it, and one that waits gets it.

/// Urgency of the next acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckDue {
    No,
    /// Due if the client sends nothing for a moment.
    WhenIdle,
    Now,
}

/// Bytes at which the count restarts: it has 32 bits. Moblin computes its bytes in flight from the
/// count and expects no restart before. After an earlier one it would never slow down again.
const COUNT_RESTART: u64 = 1 << 32;

/// Bytes at which the count restarts for Flash Media Live Encoder, as in Flash Media Server. The
/// encoder stops near 4 GiB if a server does not.
const FLASH_ENCODER_COUNT_RESTART: u64 = 0xF000_0000;

#[derive(Debug)]
pub(super) struct Acknowledgement {
    server_window: u32,
    client_window: Option<u32>,
    unacknowledged: u64,
    total_acknowledged: u64,
    count: u64,
    count_restart: u64,
    acknowledged_by_client: u32,
}

impl Acknowledgement {
    pub(super) fn new(server_window: u32) -> Self {
        Acknowledgement {
            server_window,
            client_window: None,
            unacknowledged: 0,
            total_acknowledged: 0,
            count: 0,
            count_restart: COUNT_RESTART,
            acknowledged_by_client: 0,
        }
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.unacknowledged += bytes as u64;
    }

    pub(super) fn set_client_window(&mut self, size: u32) {
        self.client_window = (size > 0).then_some(size);
    }

    pub(super) fn set_flash_encoder(&mut self, is_flash_encoder: bool) {
        self.count_restart = if is_flash_encoder {
            FLASH_ENCODER_COUNT_RESTART
        } else {
            COUNT_RESTART
        };
    }

    pub(super) fn client_window(&self) -> u32 {
        self.client_window.unwrap_or(0)
    }

    pub(super) fn client_acknowledged(&mut self, count: u32) {
        self.acknowledged_by_client = count;
    }

    pub(super) fn acknowledged_by_client(&self) -> u32 {
        self.acknowledged_by_client
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.total_acknowledged
    }

    pub(super) fn due(&self) -> AckDue {
        let window = self
            .server_window
            .min(self.client_window.unwrap_or(u32::MAX));
        if self.unacknowledged < u64::from(window / 2).max(1) {
            AckDue::No
        } else if self.client_window.is_some() {
            AckDue::Now
        } else {
            AckDue::WhenIdle
        }
    }

    /// Returns the count to send.
    pub(super) fn acknowledge(&mut self) -> u32 {
        self.count = (self.count + self.unacknowledged) % self.count_restart;
        self.total_acknowledged += self.unacknowledged;
        self.unacknowledged = 0;
        self.count as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_window_is_acknowledged_at_half_of_the_smaller_window() {
        let mut ack = Acknowledgement::new(1000);
        ack.set_client_window(500);
        ack.received(249);
        assert_eq!(ack.due(), AckDue::No);
        ack.received(1);
        assert_eq!(ack.due(), AckDue::Now);
        assert_eq!(ack.acknowledge(), 250);
        assert_eq!(ack.due(), AckDue::No);
        ack.set_client_window(1_000_000);
        ack.received(500);
        assert_eq!(ack.due(), AckDue::Now);
        assert_eq!(ack.acknowledge(), 750);
    }

    #[test]
    fn client_without_window_is_acknowledged_in_a_pause() {
        let mut ack = Acknowledgement::new(1000);
        ack.received(5000);
        assert_eq!(ack.due(), AckDue::WhenIdle);
        assert_eq!(ack.acknowledge(), 5000);
        assert_eq!(ack.due(), AckDue::No);
    }

    #[test]
    fn count_restarts_at_32_bits_and_earlier_for_flash_encoders() {
        for (is_flash_encoder, restart) in [(false, 1u64 << 32), (true, 0xF000_0000)] {
            let mut ack = Acknowledgement::new(1000);
            ack.set_flash_encoder(is_flash_encoder);
            ack.received(restart as usize - 1);
            assert_eq!(u64::from(ack.acknowledge()), restart - 1);
            ack.received(3);
            assert_eq!(ack.acknowledge(), 2);
            assert_eq!(ack.acknowledged(), restart + 2);
            // Several restarts between two acknowledgements.
            ack.received(3 * restart as usize + 5);
            assert_eq!(ack.acknowledge(), 7);
        }
    }

    #[test]
    fn tiny_window_makes_nothing_due() {
        let mut ack = Acknowledgement::new(1000);
        ack.set_client_window(1);
        assert_eq!(ack.due(), AckDue::No);
    }
}
