// SPDX-License-Identifier: MPL-2.0

//! Clients that need a sign of life of the server.

use std::io::ErrorKind;
use std::time::Duration;

use gstrtmp2server::internal::rtmp::message::type_id;

use support::flv::AUDIO;
use support::raw::RawClient;
use support::recorder::Recorder;

/// rtmp2sink 1.29.1 fails after 5 s without a byte. At a low rate, the window of acknowledgements takes
/// minutes to fill.
#[test]
fn publisher_of_a_low_rate_gets_an_acknowledgement_within_four_seconds() {
    const PACE: Duration = Duration::from_millis(50);
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    client.socket.set_read_timeout(Some(PACE)).unwrap();
    let is_acknowledged = (0..80).any(|index| {
        client.media(AUDIO, index * PACE.as_millis() as u32, &[0x2F, 1, 2], 128);
        // Reading takes the time of the pace where nothing arrives.
        match client.read_message() {
            Ok(message) => message.is_some_and(|m| m.type_id == type_id::ACKNOWLEDGEMENT),
            Err(error) => {
                let kinds = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                assert!(kinds.contains(&error.kind()), "{error}");
                false
            }
        }
    });
    assert!(is_acknowledged);
}
