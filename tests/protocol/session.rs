// SPDX-License-Identifier: MPL-2.0

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::Violation;
use gstrtmp2server::internal::rtmp::chunk::ChunkWriter;
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::session::{
    Session, SessionConfig, SessionEvent, SupportedCodecs,
};
use proptest::prelude::*;

/// Returns the bytes of a publisher: handshake, commands, media.
pub fn publisher(media: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 1 + 2 * 1536];
    bytes[0] = 3;
    let writer = ChunkWriter::default();
    let mut command = |msid, name: &str, id, arguments| {
        let body = Command::new(name, id, arguments).write();
        writer.write(&mut bytes, 3, 20, msid, &body);
    };
    command(0, "connect", 1.0, vec![]);
    command(0, "createStream", 2.0, vec![]);
    command(1, "publish", 3.0, vec![Value::Null, "key".into()]);
    for body in media {
        writer.write(&mut bytes, 4, 9, 1, body);
    }
    bytes
}

/// Returns the events of a session as text, its output, and its result.
fn run(bytes: &[u8], step: usize) -> (Vec<String>, Vec<u8>, Result<(), Violation>) {
    let mut session = Session::new(SessionConfig::default());
    let (mut events, mut output) = (Vec::new(), Vec::new());
    for mut piece in bytes.chunks(step) {
        loop {
            let event = match session.read(&mut piece) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => return (events, output, Err(violation)),
            };
            events.push(match &event {
                SessionEvent::Media(media) => {
                    format!("{:?} {:?}", media.kind, media.payload.body())
                }
                other => format!("{other:?}"),
            });
            match event {
                SessionEvent::Connect(_) => session.accept_connect(&SupportedCodecs::default()),
                SessionEvent::Publish(_) => session.accept_publish(),
                _ => {}
            }
        }
        output.extend(session.output().take_replies());
    }
    (events, output, Ok(()))
}

proptest! {
    #![proptest_config(properties::cases(100))]

    #[test]
    fn pieces_make_no_difference(
        media in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
        mutations in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = publisher(&media);
        let whole = run(&bytes, usize::MAX);
        prop_assert_eq!(whole.0.len(), 2 + media.len());
        prop_assert_eq!(&run(&bytes, 1), &whole);
        let length = bytes.len() - 3073;
        for (position, byte) in mutations {
            bytes[3073 + position % length] = byte;
        }
        let (events, _, result) = run(&bytes, usize::MAX);
        let (by_byte, _, same) = run(&bytes, 1);
        prop_assert_eq!((by_byte, same), (events, result));
    }
}
