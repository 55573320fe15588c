// SPDX-License-Identifier: MPL-2.0

//! Memory that one client can make the process use before it is authorized.

use std::time::{Duration, Instant};

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::rtmp::command::Command;
use gstrtmp2server::internal::rtmp::message::type_id;

use support::launch::Launch;
use support::raw::RawClient;

/// Bytes that one connection may hold.
const MAX_CONNECTION: u64 = 32 << 20;

/// Bytes for buffers of TCP and the thread.
const MARGIN: u64 = 2 << 20;

/// Bytes of the largest message.
const LENGTH: usize = 0xFF_FFFF;

/// Returns a value of `/proc/PID/status`, in bytes.
fn memory(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse::<u64>().unwrap() * 1024
}

/// Fills a message up to the largest length.
fn filled(mut front: Vec<u8>, unit: &[u8]) -> Vec<u8> {
    while front.len() + unit.len() <= LENGTH {
        front.extend_from_slice(unit);
    }
    front
}

/// A command or script data with this name and the marker of an AMF3 value.
fn with_amf3(name: &str, value: &[u8]) -> Vec<u8> {
    let mut body = Command::new(name, 1.0, vec![]).write();
    body.push(0x11);
    body.extend(value);
    body
}

/// Names and bodies of messages that are expensive to decode.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    // Text that is not UTF-8 becomes three times as long, and is kept for references.
    let length = (LENGTH as u32 - 64) << 1 | 1;
    let u29 = [
        (length >> 22 & 0x7F) as u8 | 0x80,
        (length >> 15 & 0x7F) as u8 | 0x80,
        (length >> 8 & 0x7F) as u8 | 0x80,
        length as u8,
    ];
    let amf3_text = with_amf3("onMetaData", &[&[6][..], &u29].concat());
    let amf3_array = with_amf3("onMetaData", &[9, 0x83, 0xFF, 0xFF, 0xFF, 1]);
    let name = Command::new("onMetaData", 1.0, vec![]).write();
    let long_text = [&name[..], &[0x0C], &(LENGTH as u32 - 64).to_be_bytes()].concat();
    let array = [&name[..], &[0x0A], &u32::MAX.to_be_bytes()].concat();
    let object = [&name[..], &[3]].concat();
    vec![
        ("AMF3 text", filled(amf3_text, &[0xFF])),
        ("AMF3 array", filled(amf3_array, &[6, 3, 0xFF])),
        ("text", filled(long_text, &[0xFF])),
        ("array", filled(array, &[5])),
        ("object", filled(object, &[0, 0, 5])),
        ("values", filled(name, &[5])),
        (
            "parts",
            filled(
                Vec::new(),
                &[8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 12],
            ),
        ),
    ]
}

/// Waits until the server has read everything that the client sent.
fn wait_for_answer(client: &mut RawClient) {
    let ping = [&[0, 6][..], &77u32.to_be_bytes()].concat();
    client.message(2, type_id::USER_CONTROL, 0, &ping);
    while client
        .next_message()
        .expect("the connection is open")
        .type_id
        != type_id::USER_CONTROL
    {}
}

#[test]
fn one_message_before_publish_costs_no_more_than_a_connection_may() {
    let types = [
        type_id::COMMAND_AMF0,
        type_id::COMMAND_AMF3,
        type_id::DATA_AMF0,
        type_id::DATA_AMF3,
        type_id::AGGREGATE,
    ];
    for (name, body) in shapes() {
        for type_id in types {
            // A process for each, since memory that was freed counts too.
            let mut launch = Launch::start("", "rtmp2serversrc port=0 ! fakesink");
            let port = launch.port();
            let before = memory(launch.id(), "VmRSS:");
            let mut client = RawClient::connect(port);
            client.handshake();
            client.connect_application("live");
            client.command(0, "createStream", 2.0, &[Value::Null]);
            client.set_chunk_size(0xFF_FFFF);
            client.message(3, type_id, 1, &body);
            wait_for_answer(&mut client);
            let highest = memory(launch.id(), "VmHWM:");
            assert!(
                highest <= before + MAX_CONNECTION + MARGIN,
                "{name} in a message of type {type_id}: {before} bytes grew to {highest}"
            );
        }
    }
}

#[test]
fn incomplete_messages_cost_no_more_than_a_connection_may() {
    let mut launch = Launch::start("", "rtmp2serversrc port=0 ! fakesink");
    let port = launch.port();
    let before = memory(launch.id(), "VmRSS:");
    let mut client = RawClient::connect(port);
    client.handshake();
    client.connect_application("live");
    client.set_chunk_size(1 << 20);
    let body = vec![7; 1 << 20];
    let deadline = Instant::now() + Duration::from_secs(60);
    // One chunk of a message on each chunk stream, until the server has enough.
    for csid in 4..64u8 {
        let mut chunk = vec![csid, 0, 0, 0, 0xFF, 0xFF, 0xFF, type_id::VIDEO, 1, 0, 0, 0];
        chunk.extend(&body);
        if std::io::Write::write_all(&mut client.socket, &chunk).is_err() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    while let Ok(Some(_)) = client.read_message() {}
    let highest = memory(launch.id(), "VmHWM:");
    assert!(
        highest <= before + MAX_CONNECTION + MARGIN,
        "{before} bytes grew to {highest}"
    );
}
