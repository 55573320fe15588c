// SPDX-License-Identifier: MPL-2.0

use super::header::{BasicHeader, MessageHeader};
use super::*;
use crate::rtmp::message::{Message, type_id};
use crate::rtmp::{Headroom, Violation, limits};

/// Encoded bytes, written chunk by chunk.
#[derive(Default)]
struct ChunkBytes(Vec<u8>);

impl ChunkBytes {
    fn chunk(mut self, csid: u32, header: MessageHeader, payload: &[u8]) -> Self {
        let fmt = match (header.length_and_type, header.msid) {
            (Some(_), Some(_)) => 0,
            (Some(_), None) => 1,
            _ => 2,
        };
        BasicHeader { fmt, csid }.write(&mut self.0);
        header.write(&mut self.0);
        self.0.extend_from_slice(payload);
        self
    }

    fn type3(mut self, csid: u32, extended: Option<u32>, payload: &[u8]) -> Self {
        BasicHeader { fmt: 3, csid }.write(&mut self.0);
        if let Some(time) = extended {
            self.0.extend_from_slice(&time.to_be_bytes());
        }
        self.0.extend_from_slice(payload);
        self
    }

    /// Reads all bytes, in pieces of `step`.
    fn read(&self, step: usize) -> Result<Vec<Received>, Violation> {
        let headroom = Headroom { front: 11, back: 4 };
        let mut reader = ChunkReader::new(ReaderLimits::default(), headroom);
        let mut messages = Vec::new();
        for mut piece in self.0.chunks(step) {
            while let Some(message) = reader.read(&mut piece)? {
                messages.push(Received::from(message));
            }
            assert!(piece.is_empty());
        }
        Ok(messages)
    }

    /// Reads in pieces of every size up to 40, and asserts that it makes no difference.
    fn messages(&self) -> Vec<Received> {
        let expected = self.read(1).unwrap();
        for step in (2..40).chain([usize::MAX]) {
            assert_eq!(self.read(step).unwrap(), expected, "pieces of {step}");
        }
        expected
    }

    fn violation(&self) -> Violation {
        self.read(usize::MAX).unwrap_err()
    }
}

/// csid, type id, msid, timestamp and body of a message.
#[derive(Debug, PartialEq)]
struct Received(u32, u8, u32, u32, Vec<u8>);

impl From<Message> for Received {
    fn from(m: Message) -> Self {
        let body = m.payload.body().to_vec();
        Received(m.csid, m.type_id, m.msid, m.timestamp, body)
    }
}

fn full(time: u32, length: usize, type_id: u8, msid: u32) -> MessageHeader {
    MessageHeader {
        time,
        extended: time >= 0xFF_FFFF,
        length_and_type: Some((length as u32, type_id)),
        msid: Some(msid),
    }
}

fn with_length(delta: u32, length: usize, type_id: u8) -> MessageHeader {
    MessageHeader {
        msid: None,
        ..full(delta, length, type_id, 0)
    }
}

fn delta(delta: u32) -> MessageHeader {
    MessageHeader {
        length_and_type: None,
        ..with_length(delta, 0, 0)
    }
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + 1) as u8).collect()
}

fn timestamps(messages: &[Received]) -> Vec<u32> {
    messages.iter().map(|m| m.3).collect()
}

#[test]
fn header_types_inherit_omitted_fields() {
    let messages = ChunkBytes::default()
        .chunk(4, full(1000, 3, 9, 1), b"abc")
        .chunk(4, with_length(20, 2, 9), b"de")
        .chunk(4, delta(30), b"fg")
        .type3(4, None, b"hi")
        .messages();
    assert_eq!(
        messages,
        [
            Received(4, 9, 1, 1000, b"abc".to_vec()),
            Received(4, 9, 1, 1020, b"de".to_vec()),
            Received(4, 9, 1, 1050, b"fg".to_vec()),
            Received(4, 9, 1, 1080, b"hi".to_vec()),
        ]
    );
}

#[test]
fn basic_headers_of_every_size_are_read() {
    for csid in [2, 63, 64, 319, 320, 65_599] {
        let wire = ChunkBytes::default().chunk(csid, full(1, 2, 8, 1), b"ab");
        assert_eq!(wire.messages(), [Received(csid, 8, 1, 1, b"ab".to_vec())]);
    }
    let mut wire = ChunkBytes::default();
    BasicHeader { fmt: 0, csid: 320 }.write(&mut wire.0);
    assert_eq!(wire.0, [1, 0, 1], "the three-byte form is little-endian");
}

#[test]
fn chunk_streams_interleave_and_control_messages_interrupt() {
    let (audio, video) = (body(130), body(300));
    let messages = ChunkBytes::default()
        .chunk(6, full(5, 300, 9, 1), &video[..128])
        .chunk(4, full(6, 130, 8, 1), &audio[..128])
        .type3(6, None, &video[128..256])
        .chunk(2, full(0, 4, type_id::ACKNOWLEDGEMENT, 0), &[0, 0, 0, 9])
        .type3(4, None, &audio[128..])
        .type3(6, None, &video[256..])
        .messages();
    assert_eq!(
        messages,
        [
            Received(2, 3, 0, 0, vec![0, 0, 0, 9]),
            Received(4, 8, 1, 6, audio),
            Received(6, 9, 1, 5, video),
        ]
    );
}

#[test]
fn new_chunk_size_applies_from_the_next_chunk() {
    let video = body(500);
    let messages = ChunkBytes::default()
        .chunk(6, full(5, 500, 9, 1), &video[..128])
        .chunk(2, full(0, 4, 1, 0), &200u32.to_be_bytes())
        .type3(6, None, &video[128..328])
        .chunk(2, full(0, 4, 1, 0), &0x7FFF_FFFFu32.to_be_bytes())
        .type3(6, None, &video[328..])
        .messages();
    assert_eq!(messages, [Received(6, 9, 1, 5, video)]);
}

#[test]
fn chunk_size_zero_is_a_violation_and_the_top_bit_is_ignored() {
    let set = |size: u32| ChunkBytes::default().chunk(2, full(0, 4, 1, 0), &size.to_be_bytes());
    assert_eq!(set(0).violation(), Violation::ChunkSizeZero);
    assert_eq!(set(0x8000_0000).violation(), Violation::ChunkSizeZero);
    let messages = set(0x8000_0002)
        .chunk(4, full(0, 3, 8, 1), b"ab")
        .type3(4, None, b"c")
        .messages();
    assert_eq!(messages, [Received(4, 8, 1, 0, b"abc".to_vec())]);
}

#[test]
fn abort_drops_the_partial_message_and_nothing_else() {
    let video = body(300);
    let messages = ChunkBytes::default()
        .chunk(6, full(5, 300, 9, 1), &video[..128])
        .chunk(2, full(0, 4, type_id::ABORT, 0), &6u32.to_be_bytes())
        .chunk(6, full(9, 2, 9, 1), b"ab")
        .messages();
    assert_eq!(messages, [Received(6, 9, 1, 9, b"ab".to_vec())]);
}

#[test]
fn extended_timestamps_are_absolute_in_type_0_and_deltas_elsewhere() {
    let messages = ChunkBytes::default()
        .chunk(4, full(0x0100_0000, 1, 8, 1), b"a")
        .chunk(4, delta(40), b"b")
        .chunk(4, delta(0x0200_0000), b"c")
        .chunk(4, delta(0u32.wrapping_sub(20)), b"d")
        .chunk(4, full(0xFF_FFFF, 1, 8, 1), b"e")
        .messages();
    let expected = [
        0x0100_0000,
        0x0100_0028,
        0x0300_0028,
        0x0300_0014,
        0xFF_FFFF,
    ];
    assert_eq!(timestamps(&messages), expected);
}

#[test]
fn extended_timestamps_on_type_3_are_accepted_with_and_without_repetition() {
    let video = body(300);
    let time = 0x0100_0000;
    for extended in [Some(time), None] {
        let messages = ChunkBytes::default()
            .chunk(6, full(time, 300, 9, 1), &video[..128])
            .type3(6, extended, &video[128..256])
            .type3(6, extended, &video[256..])
            .chunk(6, delta(33), &video[..128])
            .type3(6, None, &video[128..256])
            .type3(6, None, &video[256..])
            .messages();
        assert_eq!(timestamps(&messages), [time, time + 33]);
        assert!(messages.iter().all(|m| m.4 == video));
    }
}

#[test]
fn payload_that_looks_like_the_start_of_a_repeated_timestamp_is_payload() {
    // Without repetition, and with a last chunk that is shorter than a timestamp.
    let time = 0x0100_0000u32;
    for tail in [&[1][..], &[1, 0], &[1, 0, 0], &[1, 0, 0, 7]] {
        let video = [&body(128)[..], tail].concat();
        let messages = ChunkBytes::default()
            .chunk(6, full(time, video.len(), 9, 1), &video[..128])
            .type3(6, None, tail)
            .chunk(4, full(7, 2, 8, 1), b"ab")
            .messages();
        assert_eq!(messages[0].4, video);
        assert_eq!(messages[1], Received(4, 8, 1, 7, b"ab".to_vec()));
    }
}

#[test]
fn type_3_at_the_start_of_a_message_repeats_the_delta() {
    // After type 0 the delta is its timestamp, unless that would be a large step.
    let start = |time| ChunkBytes::default().chunk(4, full(time, 1, 8, 1), b"a");
    let near = start(40).type3(4, None, b"b").type3(4, None, b"c");
    assert_eq!(timestamps(&near.messages()), [40, 80, 120]);
    let far = start(50_000).type3(4, None, b"b");
    assert_eq!(timestamps(&far.messages()), [50_000, 50_000]);
    let extended = start(0x0100_0000).type3(4, Some(0x0100_0000), b"b");
    assert_eq!(timestamps(&extended.messages()), [0x0100_0000, 0x0100_0000]);
}

#[test]
fn type_3_after_a_delta_repeats_any_delta() {
    for step in [12_000, 3_600_000, 0u32.wrapping_sub(40)] {
        let extended = (step >= 0xFF_FFFF).then_some(step);
        let messages = ChunkBytes::default()
            .chunk(6, full(50_000, 1, 9, 1), b"a")
            .chunk(6, delta(step), b"b")
            .type3(6, extended, b"c")
            .type3(6, extended, b"d")
            .messages();
        let expected = [0, 1, 2, 3].map(|n| 50_000u32.wrapping_add(step.wrapping_mul(n)));
        assert_eq!(timestamps(&messages), expected);
    }
    // ffmpeg repeats the form of an extended delta, with another value.
    let messages = ChunkBytes::default()
        .chunk(6, full(0, 1, 9, 1), b"a")
        .chunk(6, delta(0x0100_0000), b"b")
        .type3(6, Some(0x0100_0028), b"c")
        .messages();
    assert_eq!(timestamps(&messages), [0, 0x0100_0000, 0x0200_0028]);
}

#[test]
fn type_3_after_a_step_back_is_simultaneous() {
    // go-rtmp writes type 0 after a step back, and then type 3 for the same time.
    let messages = ChunkBytes::default()
        .chunk(6, full(5000, 1, 9, 1), b"a")
        .chunk(6, delta(40), b"b")
        .chunk(6, full(5020, 1, 9, 1), b"c")
        .type3(6, None, b"d")
        .chunk(6, delta(40), b"e")
        .messages();
    assert_eq!(timestamps(&messages), [5000, 5040, 5020, 5020, 5060]);
}

#[test]
fn equal_times_of_librtmp_stay_equal() {
    // OBS: video and three audio tracks on one chunk stream, two of them of equal size.
    let mut bytes = ChunkBytes::default()
        .chunk(4, full(0, 2, 9, 1), b"hv")
        .chunk(4, full(0, 2, 8, 1), b"ha")
        .chunk(4, full(0, 3, 8, 1), b"hb2");
    let mut expected = vec![0, 0, 0];
    for frame in 1..200u32 {
        let time = frame * 21;
        bytes = bytes
            .chunk(4, with_length(16, 3, 9), b"vvv")
            .chunk(4, with_length(5, 2, 8), b"a0")
            .chunk(4, with_length(0, 3, 8), b"a1+")
            .type3(4, None, b"a2+")
            .type3(4, None, b"a3+");
        expected.extend([time - 5, time, time, time, time]);
    }
    assert_eq!(timestamps(&bytes.messages()), expected);
}

#[test]
fn wrong_meaning_of_type_3_is_mended_by_the_next_header_that_shows_it() {
    // Two audio tracks of librtmp without video: deltas of 21, 22 and 21 fit either meaning.
    let messages = ChunkBytes::default()
        .chunk(4, full(0, 1, 8, 1), b"a")
        .chunk(4, delta(21), b"a")
        .type3(4, None, b"b")
        .chunk(4, delta(21), b"a")
        .type3(4, None, b"b")
        .chunk(4, delta(22), b"a")
        .type3(4, None, b"b")
        .messages();
    // The second delta of 21 would have been a type 3 chunk where that repeats deltas.
    assert_eq!(timestamps(&messages), [0, 21, 42, 42, 42, 64, 64]);

    // Video on the same chunk stream that repeats deltas: a type 2 chunk with delta 0 shows it.
    let messages = ChunkBytes::default()
        .chunk(4, full(0, 1, 8, 1), b"a")
        .chunk(4, with_length(10, 1, 9), b"v")
        .type3(4, None, b"v")
        .type3(4, None, b"v")
        .chunk(4, delta(0), b"v")
        .type3(4, None, b"v")
        .chunk(4, delta(10), b"v")
        .type3(4, None, b"v")
        .messages();
    assert_eq!(timestamps(&messages), [0, 10, 10, 10, 30, 30, 40, 50]);
}

#[test]
fn full_time_shows_the_meaning_of_type_3() {
    let start = |time| {
        ChunkBytes::default()
            .chunk(4, full(0, 1, 8, 1), b"a")
            .chunk(4, delta(20), b"a")
            .type3(4, None, b"b")
            .chunk(4, full(time, 1, 8, 1), b"a")
            .chunk(4, delta(20), b"a")
            .type3(4, None, b"b")
    };
    let same_delta = timestamps(&start(60).messages());
    assert_eq!(same_delta, [0, 20, 40, 60, 80, 100]);
    let same_time = timestamps(&start(40).messages());
    assert_eq!(same_time, [0, 20, 40, 40, 60, 60]);
}

#[test]
fn other_track_shows_the_meaning_of_type_3() {
    // Audio of two tracks on chunk stream 4, video on 6: audio would advance twice as fast.
    let mut bytes = ChunkBytes::default()
        .chunk(6, full(90_000, 1, 9, 1), b"v")
        .chunk(4, full(0, 1, 8, 1), b"a");
    for _ in 0..100 {
        bytes = bytes
            .chunk(4, with_length(40, 2, 8), b"a1")
            .type3(4, None, b"a2")
            .chunk(6, with_length(40, 1, 9), b"v");
    }
    let messages = bytes.messages();
    let audio: Vec<u32> = messages.iter().filter(|m| m.0 == 4).map(|m| m.3).collect();
    assert_eq!(audio[audio.len() - 2..], [4000, 4000]);
    let video = messages.iter().rfind(|m| m.0 == 6).unwrap();
    assert_eq!(video.3, 94_000);
}

#[test]
fn chunk_stream_may_start_with_type_1_but_not_with_less() {
    let messages = ChunkBytes::default()
        .chunk(5, with_length(9, 1, 8), b"a")
        .messages();
    assert_eq!(messages, [Received(5, 8, 0, 9, b"a".to_vec())]);
    let no_chunk = |fmt| Violation::NoPrecedingChunk { csid: 5, fmt };
    let wire = ChunkBytes::default().chunk(5, delta(9), b"a");
    assert_eq!(wire.violation(), no_chunk(2));
    let wire = ChunkBytes::default().type3(5, None, b"a");
    assert_eq!(wire.violation(), no_chunk(3));
}

#[test]
fn header_within_a_message_continues_replaces_or_fails() {
    let video = body(200);
    let start = |same: MessageHeader, rest: &[u8]| {
        ChunkBytes::default()
            .chunk(6, full(5, 200, 9, 1), &video[..128])
            .chunk(6, same, rest)
    };
    let continued = start(full(5, 200, 9, 1), &video[128..]).messages();
    assert_eq!(continued, [Received(6, 9, 1, 5, video.clone())]);
    let replaced = start(full(8, 2, 9, 1), b"ab").messages();
    assert_eq!(replaced, [Received(6, 9, 1, 8, b"ab".to_vec())]);
    let broken = start(with_length(8, 2, 9), b"ab");
    let violation = Violation::MessageWithinMessage { csid: 6 };
    assert_eq!(broken.violation(), violation);
}

#[test]
fn empty_messages_are_messages() {
    let messages = ChunkBytes::default()
        .chunk(4, full(1, 0, 8, 1), b"")
        .type3(4, None, b"")
        .messages();
    assert_eq!(
        messages,
        [Received(4, 8, 1, 1, vec![]), Received(4, 8, 1, 2, vec![])]
    );
}

#[test]
fn claimed_length_reserves_only_the_initial_memory() {
    let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom::default());
    let wire = ChunkBytes::default().chunk(4, full(0, 0xFF_FFFF, 9, 1), b"x");
    assert!(reader.read(&mut &wire.0[..]).unwrap().is_none());
    assert!(reader.buffered() <= limits::INITIAL_RESERVE);
}

#[test]
fn reader_limits_are_enforced() {
    let mut reader = ChunkReader::new(
        ReaderLimits {
            max_message_size: 1000,
            max_buffered: 40_000,
        },
        Headroom::default(),
    );
    let wire = ChunkBytes::default().chunk(4, full(0, 1001, 9, 1), b"");
    let too_large = Violation::MessageTooLarge {
        length: 1001,
        limit: 1000,
    };
    assert_eq!(reader.read(&mut &wire.0[..]).unwrap_err(), too_large);

    reader.set_max_message_size(limits::MAX_MESSAGE_LENGTH);
    let mut wire = ChunkBytes::default();
    for csid in 10..20 {
        wire = wire.chunk(csid, full(0, 0xFF_FFFF, 9, 1), &[0; 128]);
    }
    let error = reader.read(&mut &wire.0[..]).unwrap_err();
    assert_eq!(error, Violation::TooMuchBuffered);

    let mut wire = ChunkBytes::default();
    for csid in 0..65 {
        wire = wire.chunk(100 + csid, full(0, 1, 9, 1), b"a");
    }
    assert_eq!(wire.violation(), Violation::TooManyChunkStreams);
}

#[test]
fn grown_message_keeps_its_headroom() {
    let video = body(3_000_000);
    let mut writer = ChunkWriter::default();
    writer.set_chunk_size(4096);
    let mut wire = ChunkBytes::default().chunk(2, full(0, 4, 1, 0), &4096u32.to_be_bytes());
    writer.write(&mut wire.0, 6, 9, 1, &video);
    let headroom = Headroom { front: 11, back: 4 };
    let mut reader = ChunkReader::new(ReaderLimits::default(), headroom);
    let message = reader.read(&mut &wire.0[..]).unwrap().unwrap();
    assert_eq!(message.payload.body(), video);
    assert_eq!(reader.buffered(), 0);
    let payload = message.payload;
    assert_eq!(payload.front(), headroom.front);
    assert!(payload.capacity() >= headroom.front + payload.len() + headroom.back);
}
