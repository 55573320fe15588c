// SPDX-License-Identifier: MPL-2.0

//! Any bytes as chunks. The first byte selects how they are cut; the cut changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::meter;
use rtmp2server_core::pieces::pieces;
use rtmp2server_core::rtmp::chunk::{ChunkReader, ChunkWriter, ReaderLimits};
use rtmp2server_core::rtmp::message::{Message, type_id};
use rtmp2server_core::rtmp::{Headroom, Violation};

/// Small limits, so that inputs of a fuzzer's size reach them.
const LIMITS: ReaderLimits = ReaderLimits {
    max_message_size: 40_000,
    max_buffered: 100_000,
};
const HEADROOM: Headroom = Headroom { front: 11, back: 4 };

/// The messages, and the violation that ended them, if any.
type Outcome = (Vec<Message>, Option<Violation>);

fn read_pieces<'a>(input: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = ChunkReader::new(LIMITS, HEADROOM);
    let mut messages = Vec::new();
    for mut piece in input {
        loop {
            let before = piece.len();
            match reader.read(&mut piece) {
                Ok(Some(message)) => {
                    assert!(message.payload.len() <= LIMITS.max_message_size as usize);
                    assert!(
                        !matches!(message.type_id, type_id::SET_CHUNK_SIZE | type_id::ABORT),
                        "a message for the reader itself came out of it"
                    );
                    messages.push(message);
                }
                Ok(None) => {
                    assert!(piece.is_empty(), "{} of {before} bytes left", piece.len());
                    break;
                }
                Err(violation) => return (messages, Some(violation)),
            }
            assert!(reader.buffered() <= LIMITS.max_buffered);
        }
    }
    (messages, None)
}

fn same(a: &Message, b: &Message) -> bool {
    (a.csid, a.type_id, a.msid, a.timestamp) == (b.csid, b.type_id, b.msid, b.timestamp)
        && a.payload.body() == b.payload.body()
}

/// Checks that written messages are read as the same, except for the timestamp, which is written as
/// 0.
fn round_trip(messages: Vec<Message>) {
    let mut bytes = Vec::new();
    let writer = ChunkWriter::default();
    let written: Vec<Message> = messages
        .into_iter()
        .map(|message| Message {
            timestamp: 0,
            ..message
        })
        .collect();
    for message in &written {
        writer.write(
            &mut bytes,
            message.csid,
            message.type_id,
            message.msid,
            message.payload.body(),
        );
    }
    let (read, violation) = read_pieces(std::iter::once(&bytes[..]));
    assert_eq!(violation, None);
    assert_eq!(read.len(), written.len());
    assert!(read.iter().zip(&written).all(|(a, b)| same(a, b)));
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, input)) = data.split_first() else {
        return;
    };
    let ((whole, violation), held) = meter::peak(|| read_pieces(std::iter::once(input)));
    // Complete messages belong to the caller. A message takes the memory of its bytes twice at
    // most, and the reader's own memory is limited.
    let bodies: usize = whole
        .iter()
        .map(|message| 2 * message.payload.len() + 1000)
        .sum();
    let limit = 2 * bodies + 2 * LIMITS.max_buffered + 100_000;
    assert!(held <= limit, "{held} bytes held, {limit} are plenty");

    let (cut, other) = read_pieces(pieces(seed, input));
    assert_eq!(violation, other);
    assert_eq!(whole.len(), cut.len());
    assert!(whole.iter().zip(&cut).all(|(a, b)| same(a, b)));

    round_trip(whole);
});
