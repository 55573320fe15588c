// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::amf0::Value;
use crate::rtmp::chunk::ChunkWriter;
use crate::rtmp::status::{Status, code};

/// A session and its client, with both directions in memory.
struct TestClient {
    session: Session,
    writer: ChunkWriter,
    replies: ChunkReader,
}

impl TestClient {
    /// Starts a client and finishes its handshake.
    fn new() -> Self {
        let mut session = Session::new(SessionConfig::default());
        let hello = [&[3][..], &[0; 2 * 1536]].concat();
        assert!(session.read(&mut &hello[..]).unwrap().is_none());
        assert_eq!(session.output().take_replies().len(), 1 + 2 * 1536);
        TestClient {
            session,
            writer: ChunkWriter::default(),
            replies: ChunkReader::new(ReaderLimits::default(), Headroom::default()),
        }
    }

    fn connected() -> Self {
        let mut client = TestClient::new();
        let app = Value::Object(vec![("app".into(), "live".into())]);
        let events = client.command(0, "connect", 1.0, &[app]);
        assert!(matches!(&events[..], [SessionEvent::Connect(c)] if c.application == "live"));
        client.session.accept_connect(&SupportedCodecs::default());
        client.replies();
        client
    }

    fn publishing() -> Self {
        let mut client = TestClient::connected();
        client.command(0, "createStream", 2.0, &[Value::Null]);
        client.replies();
        client.publish("key");
        client.session.accept_publish();
        client.replies();
        client
    }

    fn publish(&mut self, key: &str) -> Vec<SessionEvent> {
        self.command(1, "publish", 3.0, &[Value::Null, key.into(), "live".into()])
    }

    fn command(
        &mut self,
        msid: u32,
        name: &str,
        id: f64,
        arguments: &[Value],
    ) -> Vec<SessionEvent> {
        let body = Command::new(name, id, arguments.to_vec()).write();
        self.message(type_id::COMMAND_AMF0, msid, &body)
    }

    fn message(&mut self, kind: u8, msid: u32, body: &[u8]) -> Vec<SessionEvent> {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, 3, kind, msid, body);
        self.send(&bytes)
    }

    fn send(&mut self, mut bytes: &[u8]) -> Vec<SessionEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.session.read(&mut bytes).unwrap() {
            let needs_decision =
                matches!(event, SessionEvent::Connect(_) | SessionEvent::Publish(_));
            events.push(event);
            if needs_decision {
                break;
            }
        }
        events
    }

    /// Returns the server's messages: csid, type id, msid and command of each.
    fn replies(&mut self) -> Vec<(u32, u8, u32, Option<Command>)> {
        let output = self.session.output();
        let bytes = [output.take_replies(), output.take_droppable()].concat();
        let mut input = &bytes[..];
        let mut replies = Vec::new();
        while let Some(m) = self.replies.read(&mut input).unwrap() {
            let command = Command::read(m.payload.body()).ok();
            let command = command.filter(|_| m.type_id == type_id::COMMAND_AMF0);
            replies.push((m.csid, m.type_id, m.msid, command));
        }
        replies
    }

    /// Returns names and transaction ids of the server's commands.
    fn answers(&mut self) -> Vec<(String, f64)> {
        let commands = self.replies().into_iter().filter_map(|reply| reply.3);
        commands.map(|c| (c.name, c.transaction_id)).collect()
    }
}

fn status_code(command: &Command) -> &str {
    let mut objects = command.arguments.iter();
    let code = objects.find_map(|object| object.get("code")?.as_str());
    code.unwrap_or_default()
}

#[test]
fn connect_is_answered_with_windows_chunk_size_and_result() {
    let mut client = TestClient::new();
    let object = Value::Object(vec![
        ("app".into(), "'live'".into()),
        ("tcurl".into(), "rtmp://h/live".into()),
        ("objectEncoding".into(), 3.0.into()),
    ]);
    let events = client.command(0, "connect", 7.0, &[object]);
    let [SessionEvent::Connect(request)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(request.application, "live");
    assert_eq!(request.tc_url, "rtmp://h/live");
    client.session.accept_connect(&SupportedCodecs::default());
    // The client's reader handles Set Chunk Size by itself.
    let replies = client.replies();
    let kinds: Vec<_> = replies.iter().map(|r| (r.0, r.1)).collect();
    assert_eq!(kinds, [(2, 5), (2, 6), (3, 20)]);
    assert_eq!(client.replies.chunk_size(), 65_536);
    let result = replies[2].3.as_ref().unwrap();
    assert_eq!(
        (result.name.as_str(), result.transaction_id),
        ("_result", 7.0)
    );
    assert_eq!(status_code(result), code::CONNECT_SUCCESS);
    let encoding = result.arguments[1].get("objectEncoding");
    assert_eq!(encoding, Some(&Value::Number(3.0)));
}

/// The rest of the result does not change.
#[test]
fn capabilities_are_in_both_objects_where_offered() {
    let result = |extra: Vec<(String, Value)>| {
        let mut client = TestClient::new();
        let app = vec![("app".to_owned(), Value::from("live"))];
        let object = Value::Object([app, extra].concat());
        client.command(0, "connect", 1.0, &[object]);
        client.session.accept_connect(&SupportedCodecs {
            video: vec!["av01".into()],
            audio: vec![],
            others: false,
        });
        let replies = client.replies();
        replies.into_iter().find_map(|reply| reply.3).unwrap()
    };
    let plain = result(vec![]);
    let list = || Value::StrictArray(vec!["av01".into()]);
    let offer = vec![
        ("fourCcList".to_owned(), list()),
        ("capsEx".to_owned(), 1.0.into()),
    ];
    let answered = result(offer);
    for (plain, answered) in plain.arguments.iter().zip(&answered.arguments) {
        let plain = plain.properties().unwrap();
        let answered = answered.properties().unwrap();
        let (same, more) = answered.split_at(plain.len());
        assert_eq!(same, plain);
        let expected = [
            ("fourCcList".to_owned(), list()),
            ("capsEx".to_owned(), 15.0.into()),
        ];
        assert_eq!(more, expected);
    }
}

#[test]
fn every_command_is_answered_with_its_own_transaction_id() {
    let name = [Value::Null, "key".into()];
    for (command, id, expected) in [
        ("releaseStream", 2.0, vec![("_result", 2.0)]),
        ("releaseStream", 0.0, vec![]),
        ("FCUnpublish", 9.0, vec![("_result", 9.0)]),
        ("_checkbw", 4.0, vec![("_result", 4.0)]),
        ("createStream", 5.0, vec![("_result", 5.0)]),
        ("FCSubscribe", 6.0, vec![("_result", 6.0)]),
        ("getStreamLength", 7.0, vec![("_error", 7.0)]),
        ("whatever", 8.0, vec![("_result", 8.0)]),
        ("receiveAudio", 8.0, vec![]),
        ("deleteStream", 0.0, vec![]),
    ] {
        let mut client = TestClient::connected();
        client.command(0, command, id, &name);
        let answers = client.answers();
        let answers: Vec<_> = answers.iter().map(|(n, id)| (n.as_str(), *id)).collect();
        assert_eq!(answers, expected, "{command}");
    }
}

#[test]
fn publish_status_is_on_its_own_message_stream() {
    let mut client = TestClient::connected();
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.replies();
    let events = client.publish("key?token=x");
    assert!(matches!(&events[..], [SessionEvent::Publish(p)] if p.stream_key == "key?token=x"));
    client.session.accept_publish();
    let replies = client.replies();
    assert_eq!((replies[0].0, replies[0].1), (2, type_id::USER_CONTROL));
    let (csid, _, msid, Some(status)) = &replies[1] else {
        panic!("{replies:?}");
    };
    assert_eq!((*csid, *msid, status.transaction_id), (5, 1, 0.0));
    assert_eq!(status_code(status), code::PUBLISH_START);
}

#[test]
fn announcement_is_confirmed_only_by_the_caller() {
    let mut client = TestClient::connected();
    let events = client.command(0, "FCPublish", 2.0, &[Value::Null, "key".into()]);
    assert!(matches!(events[..], [SessionEvent::Announce(_)]));
    assert_eq!(client.answers(), [("_result".to_owned(), 2.0)]);
    client.session.confirm_announcement();
    assert_eq!(client.answers(), [("onFCPublish".to_owned(), 0.0)]);

    client.publish("key");
    let status = Status::error(code::PUBLISH_BAD_NAME, "no");
    client.session.reject_publish(&status);
    let replies = client.replies();
    assert_eq!(
        status_code(replies[0].3.as_ref().unwrap()),
        code::PUBLISH_BAD_NAME
    );
    assert!(!client.session.is_publishing());
}

#[test]
fn every_end_command_ends_the_stream_once() {
    for (name, arguments) in [
        ("FCUnpublish", vec![Value::Null, "key".into()]),
        ("closeStream", vec![Value::Null]),
        ("deleteStream", vec![Value::Null, 1.0.into()]),
        ("deleteStream", vec![Value::Null, "key".into()]),
        ("deleteStream", vec![]),
    ] {
        let mut client = TestClient::publishing();
        let events = client.command(1, name, 0.0, &arguments);
        assert!(
            matches!(events[..], [SessionEvent::Unpublish]),
            "{name} {events:?}"
        );
        let replies = client.replies();
        let status = replies[0].3.as_ref().unwrap();
        assert_eq!(status_code(status), code::UNPUBLISH_SUCCESS);
        assert!(client.command(1, name, 0.0, &arguments).is_empty());
        // The same connection may publish again.
        client.replies();
        assert!(matches!(
            client.publish("other")[..],
            [SessionEvent::Publish(_)]
        ));
    }
}

#[test]
fn repeated_publish_continues_and_another_stream_is_refused() {
    let mut client = TestClient::publishing();
    assert!(client.publish("key").is_empty());
    let replies = client.replies();
    assert_eq!(
        status_code(replies[1].3.as_ref().unwrap()),
        code::PUBLISH_START
    );
    assert!(client.publish("other").is_empty());
    let replies = client.replies();
    assert_eq!(
        status_code(replies[0].3.as_ref().unwrap()),
        code::PUBLISH_BAD_NAME
    );
    assert!(client.session.is_publishing());
}

#[test]
fn media_before_publish_is_held_in_order() {
    let mut client = TestClient::connected();
    client.command(0, "createStream", 2.0, &[Value::Null]);
    for body in [b"a", b"b"] {
        assert!(client.message(type_id::AUDIO, 1, body).is_empty());
    }
    client.publish("key");
    client.session.accept_publish();
    let bodies: Vec<_> = client
        .send(&[])
        .into_iter()
        .map(|event| match event {
            SessionEvent::Media(media) => media.payload.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bodies, [b"a", b"b"]);
}

#[test]
fn media_on_any_message_stream_belongs_to_the_publish() {
    let mut client = TestClient::publishing();
    client.command(0, "createStream", 4.0, &[Value::Null]);
    for msid in [1, 0, 77, 2] {
        let events = client.message(type_id::VIDEO, msid, b"v");
        assert!(matches!(events[..], [SessionEvent::Media(_)]), "{msid}");
    }
}

#[test]
fn end_commands_of_other_streams_end_nothing() {
    for (msid, name, arguments) in [
        (2, "closeStream", vec![Value::Null]),
        (1, "FCUnpublish", vec![Value::Null, "other".into()]),
        (0, "FCUnpublish", vec!["other".into()]),
        (0, "FCUnpublish", vec![Value::Null, 7.0.into()]),
        (0, "deleteStream", vec![Value::Null, 2.0.into()]),
        (0, "deleteStream", vec![2.0.into()]),
        (0, "deleteStream", vec![Value::Null, "other".into()]),
    ] {
        let mut client = TestClient::publishing();
        client.command(0, "createStream", 4.0, &[Value::Null]);
        let events = client.command(msid, name, 5.0, &arguments);
        assert!(events.is_empty(), "{name} {arguments:?} {events:?}");
        assert!(client.session.is_publishing());
        let events = client.message(type_id::VIDEO, 1, b"v");
        assert!(matches!(events[..], [SessionEvent::Media(_)]));
        // The stream can still be ended by its name.
        let events = client.command(0, "FCUnpublish", 6.0, &[Value::Null, "key".into()]);
        assert!(matches!(events[..], [SessionEvent::Unpublish]));
    }
}

#[test]
fn end_commands_of_the_connection_end_the_stream() {
    // Moblin sends all of them on message stream 0.
    for (name, arguments) in [
        ("closeStream", vec![Value::Null]),
        ("deleteStream", vec![Value::Null, 0.0.into()]),
        ("deleteStream", vec![1.0.into()]),
        ("FCUnpublish", vec![Value::Null]),
        ("FCUnpublish", vec![]),
    ] {
        let mut client = TestClient::publishing();
        let events = client.command(0, name, 0.0, &arguments);
        assert!(
            matches!(events[..], [SessionEvent::Unpublish]),
            "{name} {arguments:?}"
        );
    }
}

#[test]
fn stream_key_may_be_a_number_and_the_command_object_missing() {
    for (arguments, expected) in [
        (vec![Value::Null, 1234.0.into(), "live".into()], "1234"),
        (vec!["key".into(), "live".into()], "key"),
        (vec![5.0.into(), "live".into()], "5"),
        (vec![Value::Null, Value::Null, "live".into()], ""),
    ] {
        for name in ["FCPublish", "publish"] {
            let mut client = TestClient::connected();
            let events = client.command(1, name, 3.0, &arguments);
            let ([SessionEvent::Announce(request)] | [SessionEvent::Publish(request)]) =
                &events[..]
            else {
                panic!("{events:?}");
            };
            assert_eq!(request.stream_key, expected);
        }
    }
}

#[test]
fn refused_announcement_is_answered_with_an_error() {
    let mut client = TestClient::connected();
    client.command(0, "FCPublish", 2.0, &[Value::Null, "key".into()]);
    client.replies();
    let status = Status::error(code::PUBLISH_BAD_NAME, "no");
    client.session.reject_announcement(&status);
    let replies = client.replies();
    let answer = replies[0].3.as_ref().unwrap();
    assert_eq!(
        (answer.name.as_str(), answer.transaction_id),
        ("onFCPublish", 0.0)
    );
    let level = answer.arguments[1].get("level").and_then(Value::as_str);
    assert_eq!(level, Some("error"));
    assert_eq!(status_code(answer), code::PUBLISH_BAD_NAME);
}

#[test]
fn data_before_publish_is_decoded_only_afterwards() {
    let mut client = TestClient::connected();
    client.command(0, "createStream", 2.0, &[Value::Null]);
    client.message(type_id::DATA_AMF0, 1, &[0xFF]);
    let mut metadata = Vec::new();
    crate::amf0::write_all(&mut metadata, &["onMetaData".into(), Value::Object(vec![])]);
    client.message(type_id::DATA_AMF0, 1, &metadata);
    let tag = [&[8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], b"a", &[0, 0, 0, 12]].concat();
    client.message(type_id::AGGREGATE, 1, &[&tag[..], &tag].concat());
    assert!(client.session.buffered() > 0);
    client.publish("key");
    client.session.accept_publish();
    let events = client.send(&[]);
    assert!(
        matches!(
            events[..],
            [
                SessionEvent::Ignored(Ignored::MalformedData),
                SessionEvent::Media(Media {
                    kind: MediaKind::Data,
                    ..
                }),
                SessionEvent::Media(Media {
                    kind: MediaKind::Audio,
                    ..
                }),
                SessionEvent::Media(Media {
                    kind: MediaKind::Audio,
                    ..
                }),
            ]
        ),
        "{events:?}"
    );
    assert_eq!(client.session.buffered(), 0);
}

#[test]
fn name_of_script_data_is_found_after_other_values() {
    let mut client = TestClient::publishing();
    let write = |values: &[Value]| {
        let mut bytes = Vec::new();
        crate::amf0::write_all(&mut bytes, values);
        bytes
    };
    let metadata = write(&["onMetaData".into(), Value::EcmaArray(vec![])]);
    let set: Value = "@setDataFrame".into();
    for before in [
        vec![0.0.into(), 0.0.into(), set.clone()],
        vec![Value::Null, set.clone()],
        vec!["odd".into(), 1.0.into(), set.clone()],
        vec![Value::Object(vec![]), set],
        vec![7.0.into()],
    ] {
        let body = [write(&before), metadata.clone()].concat();
        let events = client.message(18, 1, &body);
        let [SessionEvent::Media(media)] = &events[..] else {
            panic!("{before:?} {events:?}");
        };
        assert_eq!(media.payload.body(), metadata);
    }
}

#[test]
fn bytes_after_script_data_are_cut_off() {
    let mut client = TestClient::publishing();
    let mut metadata = Vec::new();
    crate::amf0::write_all(
        &mut metadata,
        &["onMetaData".into(), Value::EcmaArray(vec![])],
    );
    for trailing in [&[0xFF][..], &[9], &[0, 0, 9], &[2, 0, 99]] {
        let events = client.message(18, 1, &[&metadata, trailing].concat());
        let [SessionEvent::Media(media)] = &events[..] else {
            panic!("{trailing:?} {events:?}");
        };
        assert_eq!(media.payload.body(), metadata);
    }
    // Without a value after the name, it is malformed.
    let truncated = &metadata[..metadata.len() - 5];
    let events = client.message(18, 1, truncated);
    assert!(matches!(
        events[..],
        [SessionEvent::Ignored(Ignored::MalformedData)]
    ));
}

#[test]
fn metadata_of_thousands_of_values_is_received() {
    let mut client = TestClient::publishing();
    let index = Value::StrictArray((0..50_000).map(|n| f64::from(n).into()).collect());
    let object = Value::Object(vec![("keyframes".into(), index)]);
    let mut metadata = Vec::new();
    crate::amf0::write_all(&mut metadata, &["onMetaData".into(), object]);
    let events = client.message(18, 1, &metadata);
    let [SessionEvent::Media(media)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(media.payload.body(), metadata);
}

#[test]
fn last_pong_is_kept_until_it_is_written() {
    let mut client = TestClient::publishing();
    let pongs = |client: &mut TestClient| {
        let bytes = client.session.output().take_droppable();
        let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom::default());
        let mut input = &bytes[..];
        let mut pongs = Vec::new();
        while let Some(m) = reader.read(&mut input).unwrap() {
            if let Some(Control::PingResponse(time)) = Control::read(m.type_id, m.payload.body()) {
                pongs.push(time);
            }
        }
        pongs
    };
    for time in 1..4u8 {
        client.message(type_id::USER_CONTROL, 0, &[0, 6, 0, 0, 0, time]);
    }
    client.session.acknowledge();
    assert_eq!(pongs(&mut client), [1, 2, 3]);
    client.session.output().keep_pong();
    assert_eq!(pongs(&mut client), [3]);
    client.session.output().keep_pong();
    client.message(type_id::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 9]);
    assert_eq!(pongs(&mut client), [3, 9]);
    client.session.output().keep_pong();
    assert_eq!(pongs(&mut client), [9]);
    assert!(client.session.output().is_empty());
}

#[test]
fn acknowledgements_of_flash_encoders_restart_earlier() {
    for (flash_ver, extra, expected) in [
        ("FMLE/3.0 (compatible; FMSc/1.0)", None, true),
        ("FMLE/3.2", None, true),
        // Moblin and HaishinKit.
        (
            "FMLE/3.0 (compatible; FMSc/1.0)",
            Some("audioCodecs"),
            false,
        ),
        ("FMLE/3.0 (compatible; Lavf60.3.100)", None, false),
        ("LNX 9,0,124,2", None, false),
        ("", None, false),
    ] {
        let mut client = TestClient::new();
        let mut object = vec![
            ("app".to_owned(), Value::from("live")),
            ("flashVer".to_owned(), flash_ver.into()),
        ];
        object.extend(extra.map(|name: &str| (name.to_owned(), 1024.0.into())));
        let events = client.command(0, "connect", 1.0, &[Value::Object(object)]);
        let [SessionEvent::Connect(request)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(request.is_flash_encoder, expected, "{flash_ver} {extra:?}");
    }
}

#[test]
fn path_of_many_parts_is_a_violation_and_slashes_in_a_query_are_not() {
    let publish = |key: &str| {
        let mut client = TestClient::connected();
        let arguments = vec![Value::Null, key.into()];
        let body = Command::new("publish", 3.0, arguments).write();
        let mut bytes = Vec::new();
        client.writer.write(&mut bytes, 3, 20, 1, &body);
        client.session.read(&mut &bytes[..]).map(|_| ())
    };
    assert_eq!(publish(&"/".repeat(8000)), Err(Violation::TooManyParts));
    assert_eq!(publish(&"a/".repeat(200)), Err(Violation::TooManyParts));
    assert_eq!(publish(&"a/".repeat(100)), Ok(()));
    assert_eq!(publish(&format!("key?token={}", "a/".repeat(2000))), Ok(()));
}

#[test]
fn script_data_is_unwrapped() {
    let mut client = TestClient::publishing();
    let metadata = [Value::from("onMetaData"), Value::Object(vec![])];
    let mut plain = Vec::new();
    crate::amf0::write_all(&mut plain, &metadata);
    let mut set = Vec::new();
    crate::amf0::write_all(&mut set, &["@setDataFrame".into()]);
    set.extend(&plain);
    // An AMF3 object without members, after the AMF3 marker.
    let mut amf3 = plain[..13].to_vec();
    amf3.extend([0x11, 0x0A, 0x0B, 0x01, 0x01]);
    for (kind, body) in [
        (18, plain.clone()),
        (18, set.clone()),
        (15, [&[0][..], &set].concat()),
        (15, set.clone()),
        (18, amf3),
    ] {
        let events = client.message(kind, 1, &body);
        let [SessionEvent::Media(media)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(media.kind, MediaKind::Data);
        assert_eq!(media.payload.body(), plain);
    }
    let mut clear = Vec::new();
    crate::amf0::write_all(&mut clear, &["@clearDataFrame".into()]);
    assert!(client.message(18, 1, &clear).is_empty());
    assert!(matches!(
        client.message(18, 1, &[0xFF])[..],
        [SessionEvent::Ignored(Ignored::MalformedData)]
    ));
}

#[test]
fn pings_are_answered_and_odd_messages_ignored() {
    let mut client = TestClient::publishing();
    client.message(type_id::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 9]);
    let replies = client.replies();
    assert_eq!((replies[0].0, replies[0].1), (2, type_id::USER_CONTROL));
    for (kind, body) in [
        (4, &[0][..]),
        (20, b"\xFF"),
        (99, b"x"),
        (22, b""),
        (19, b""),
    ] {
        client.message(kind, 1, body);
    }
    let events = client.message(type_id::AUDIO, 1, b"a");
    assert!(matches!(events[..], [SessionEvent::Media(_)]));
}

#[test]
fn announced_window_is_acknowledged_by_halves() {
    let mut client = TestClient::publishing();
    client.message(type_id::WINDOW_ACK_SIZE, 0, &1000u32.to_be_bytes());
    client.message(type_id::AUDIO, 1, &[0; 499]);
    assert_eq!(client.session.ack_due(), AckDue::Now);
    client.session.acknowledge();
    assert_eq!(client.replies()[0].1, type_id::ACKNOWLEDGEMENT);
    assert_eq!(client.session.ack_due(), AckDue::No);
}

#[test]
fn overlong_name_is_a_violation() {
    let mut client = TestClient::new();
    let long = "x".repeat(super::super::limits::MAX_NAME + 1);
    let app = Value::Object(vec![("app".into(), long.as_str().into())]);
    let body = Command::new("connect", 1.0, vec![app]).write();
    let mut bytes = Vec::new();
    client.writer.write(&mut bytes, 3, 20, 0, &body);
    let error = client.session.read(&mut &bytes[..]).unwrap_err();
    assert_eq!(error, Violation::NameTooLong);
}
