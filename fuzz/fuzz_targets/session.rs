// SPDX-License-Identifier: MPL-2.0

//! Any client. The first byte selects how its bytes are cut and how it is answered, the second one
//! whether its handshake is correct; the rest are its bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::meter;
use rtmp2server_core::pieces::pieces;
use rtmp2server_core::rtmp::Headroom;
use rtmp2server_core::rtmp::chunk::{ChunkReader, ReaderLimits};
use rtmp2server_core::rtmp::handshake::BLOCK_LENGTH;
use rtmp2server_core::rtmp::session::{
    AckDue, Session, SessionConfig, SessionEvent, SupportedCodecs,
};
use rtmp2server_core::rtmp::status::{Status, code};

const HEADROOM: Headroom = Headroom { front: 11, back: 4 };
const MAX_MESSAGE_SIZE: u32 = 40_000;

/// The effects of a client: its events as text, the replies, and the reason of its close.
#[derive(Default)]
struct Outcome {
    events: Vec<String>,
    replies: Vec<u8>,
    closed: Option<String>,
}

fn converse<'a>(input: impl Iterator<Item = &'a [u8]>, answers: u8) -> Outcome {
    let mut session = Session::new(SessionConfig {
        max_message_size: MAX_MESSAGE_SIZE,
        headroom: HEADROOM,
        ..SessionConfig::default()
    });
    let mut outcome = Outcome::default();
    for mut piece in input {
        loop {
            let event = match session.read(&mut piece) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => {
                    outcome.replies.extend(session.output().take_replies());
                    outcome.closed = Some(violation.to_string());
                    return outcome;
                }
            };
            outcome.events.push(describe(&session, &event));
            let end = answer(&mut session, event, answers);
            outcome.replies.extend(session.output().take_replies());
            if end {
                outcome.closed = Some("refused".into());
                return outcome;
            }
        }
        assert!(piece.is_empty(), "bytes were left without an event");
        outcome.replies.extend(session.output().take_replies());
        // The time of an acknowledgement depends on the ends of the pieces.
        if session.ack_due() != AckDue::No {
            session.acknowledge();
        }
        let droppable = session.output().take_droppable();
        check_messages(&droppable, true);
    }
    outcome
}

fn describe(session: &Session, event: &SessionEvent) -> String {
    let SessionEvent::Media(media) = event else {
        return format!("{event:?}");
    };
    assert!(session.is_publishing(), "media without a published stream");
    assert!(media.payload.len() <= MAX_MESSAGE_SIZE as usize);
    format!(
        "{:?} at {}: {:?}",
        media.kind,
        media.timestamp,
        media.payload.body()
    )
}

/// Answers as the caller must, and returns true if the client was refused.
fn answer(session: &mut Session, event: SessionEvent, answers: u8) -> bool {
    match event {
        SessionEvent::Connect(_) if answers & 0x10 != 0 => {
            session.reject_connect(&Status::error(code::CONNECT_INVALID_APP, "no"));
            true
        }
        SessionEvent::Connect(_) => {
            session.accept_connect(&SupportedCodecs::default());
            false
        }
        SessionEvent::Announce(_) if answers & 0x20 == 0 => {
            session.confirm_announcement();
            false
        }
        SessionEvent::Publish(_) if answers & 0x40 != 0 => {
            session.reject_publish(&Status::error(code::PUBLISH_BAD_NAME, "no"));
            assert!(!session.is_publishing());
            true
        }
        SessionEvent::Publish(_) => {
            session.accept_publish();
            assert!(session.is_publishing());
            false
        }
        SessionEvent::Media(media) => {
            assert!(
                media.payload.front() >= HEADROOM.front,
                "no room before the payload"
            );
            false
        }
        SessionEvent::Refused(_) => true,
        SessionEvent::Announce(_) | SessionEvent::Unpublish | SessionEvent::Ignored(_) => false,
    }
}

/// Checks that a client can read the server's messages.
fn check_messages(mut bytes: &[u8], only_control: bool) {
    let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom::default());
    while let Some(message) = reader.read(&mut bytes).expect("own messages can be read") {
        assert!(!only_control || message.csid == 2);
    }
    assert!(bytes.is_empty());
    assert_eq!(reader.buffered(), 0, "half a message was sent");
}

fuzz_target!(|data: &[u8]| {
    let [seed, shake, client @ ..] = data else {
        return;
    };
    let mut input = Vec::new();
    if shake & 1 == 0 {
        input.push(3);
        input.resize(1 + 2 * BLOCK_LENGTH, 0);
    }
    input.extend_from_slice(client);

    let (whole, held) = meter::peak(|| converse(std::iter::once(&input[..]), *seed));
    // Event texts and replies are small multiples of the input. The session's own limits do the
    // rest.
    let limit = 200 * input.len() + 12 * 1024 * 1024;
    assert!(held <= limit, "{held} bytes held, {limit} are plenty");

    let hello = (1 + 2 * BLOCK_LENGTH).min(whole.replies.len());
    assert!(hello == 0 || hello == 1 + 2 * BLOCK_LENGTH);
    check_messages(&whole.replies[hello..], false);

    let cut = converse(pieces(*seed, &input), *seed);
    assert_eq!(whole.events, cut.events);
    assert_eq!(whole.closed, cut.closed);
    assert!(whole.replies == cut.replies, "other replies");
});
