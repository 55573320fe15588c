// SPDX-License-Identifier: MPL-2.0

//! Broadcast performance metrics, as OBS sends them with keyframes: messages of user data that start
//! with a UUID.
//!
//! ```text
//! times     uuid, number of times - 1 (u8), times
//! session   uuid, number of times - 1 (u8), times, number of counters - 1 (u8), counters
//! rendition the same
//! time      type (u8), event (u8), a value by its type:
//!           1 a text of RFC 3339 and a zero, 2 milliseconds since the epoch (u64), 3 nanoseconds (u64)
//! counter   name (u8), frames since the last message (u32)
//! ```
//!
//! The upper halves of the numbers of times and counters are reserved.

use super::date::StatedTime;
use super::user_data::UserData;
use crate::flv::picture::CodedPicture;

const TIMES: [u8; 16] = *b"\x0a\xec\xff\xe7\x52\x72\x4e\x2f\xa6\x2f\xd1\x9c\xd6\x1a\x93\xb5";
const SESSION: [u8; 16] = *b"\xca\x60\xe7\x1c\x6a\x8b\x43\x88\xa3\x77\x15\x1d\xf7\xbf\x8a\xc2";
const RENDITION: [u8; 16] = *b"\xf1\xfb\xc1\xd5\x10\x1e\x4f\xb5\xa6\x1e\xb8\xce\x3c\x07\xb8\xc0";

const TYPE_RFC_3339: u8 = 1;
const TYPE_SINCE_EPOCH: u8 = 2;
const TYPE_DELTA: u8 = 3;

const EVENT_COMPOSITION: u8 = 1;
const EVENT_ENCODE_REQUEST: u8 = 2;
const EVENT_ENCODE_COMPLETE: u8 = 3;
const EVENT_INTERLEAVE: u8 = 4;

/// Longest text of a time, in bytes.
const MAX_TIME: usize = 64;

/// The times of one frame, and the encoder's counters since the keyframe before it. Times are in
/// nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BroadcastMetrics {
    /// The frame was composed of its sources.
    pub composed: Option<u64>,
    /// The frame was handed to the encoder.
    pub encode_requested: Option<u64>,
    /// The encoder had finished the frame.
    pub encoded: Option<u64>,
    /// The packet was queued to be sent.
    pub interleaved: Option<u64>,
    pub session: Option<SessionFrames>,
    pub rendition: Option<RenditionFrames>,
}

/// Frames of the whole session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionFrames {
    /// Time of the count.
    pub counted: Option<u64>,
    pub rendered: u32,
    /// Frames that were composed too late.
    pub lagged: u32,
    /// Frames that were not sent, since the network was too slow.
    pub dropped: u32,
    pub output: u32,
}

/// Frames of one encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenditionFrames {
    /// Time of the count.
    pub counted: Option<u64>,
    pub input: u32,
    /// Frames that were not encoded, since the encoder was too slow.
    pub skipped: u32,
    pub output: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Times,
    Session,
    Rendition,
}

impl BroadcastMetrics {
    /// Finds the metrics in a coded picture. Of several messages of a kind the first one counts.
    pub fn find(picture: &CodedPicture<'_>) -> Option<Self> {
        let mut metrics = BroadcastMetrics::default();
        let mut found = [false; 3];
        let mut user_data = UserData::new(picture);
        while let Some(message) = user_data.next_message() {
            let Some((uuid, body)) = message.split_first_chunk::<16>() else {
                continue;
            };
            let kind = match *uuid {
                TIMES => Message::Times,
                SESSION => Message::Session,
                RENDITION => Message::Rendition,
                _ => continue,
            };
            if std::mem::replace(&mut found[kind as usize], true) {
                continue;
            }
            // Values before the end of a message that is cut short count.
            let _ = metrics.read(kind, body);
            if found == [true; 3] {
                break;
            }
        }
        (metrics != BroadcastMetrics::default()).then_some(metrics)
    }

    /// Returns the earliest stated moment of the frame: its composition, if that is stated.
    pub fn captured(&self) -> Option<u64> {
        let steps = [
            self.composed,
            self.encode_requested,
            self.encoded,
            self.interleaved,
        ];
        steps.into_iter().flatten().next()
    }

    fn read(&mut self, kind: Message, body: &[u8]) -> Option<()> {
        let mut rest = body;
        let mut counted = None;
        for _ in 0..count(&mut rest)? {
            let (event, time) = time(&mut rest)?;
            let place = match (kind, event) {
                (Message::Times, EVENT_COMPOSITION) => &mut self.composed,
                (Message::Times, EVENT_ENCODE_REQUEST) => &mut self.encode_requested,
                (Message::Times, EVENT_ENCODE_COMPLETE) => &mut self.encoded,
                (Message::Times, EVENT_INTERLEAVE) => &mut self.interleaved,
                (Message::Times, _) => continue,
                _ => &mut counted,
            };
            *place = time.or(*place);
        }
        let counter = |name: u8| {
            let mut counters = rest
                .get(1..)?
                .chunks_exact(5)
                .take(usize::from(rest[0] & 0x0F) + 1);
            let found = counters.find(|counter| counter[0] == name)?;
            Some(u32::from_be_bytes([found[1], found[2], found[3], found[4]]))
        };
        match kind {
            Message::Times => {}
            Message::Session => {
                self.session = Some(SessionFrames {
                    counted,
                    rendered: counter(1).unwrap_or(0),
                    lagged: counter(2).unwrap_or(0),
                    dropped: counter(3).unwrap_or(0),
                    output: counter(4).unwrap_or(0),
                });
            }
            Message::Rendition => {
                self.rendition = Some(RenditionFrames {
                    counted,
                    input: counter(1).unwrap_or(0),
                    skipped: counter(2).unwrap_or(0),
                    output: counter(3).unwrap_or(0),
                });
            }
        }
        Some(())
    }
}

fn count(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some((first & 0x0F) + 1)
}

/// Reads an event and its time, if that can be used.
fn time(rest: &mut &[u8]) -> Option<(u8, Option<u64>)> {
    let (&[kind, event], after) = rest.split_first_chunk()?;
    let (time, after) = match kind {
        TYPE_RFC_3339 => {
            let end = after
                .iter()
                .take(MAX_TIME + 1)
                .position(|&byte| byte == 0)?;
            let text = std::str::from_utf8(&after[..end]).ok();
            let time = text.and_then(StatedTime::parse).map(StatedTime::nanos);
            (time, &after[end + 1..])
        }
        TYPE_SINCE_EPOCH => {
            let (millis, after) = after.split_first_chunk()?;
            let time = StatedTime::from_millis(u64::from_be_bytes(*millis));
            (time.map(StatedTime::nanos), after)
        }
        // It is not stated from when on.
        TYPE_DELTA => (None, after.get(8..)?),
        _ => return None,
    };
    *rest = after;
    Some((event, time))
}
