// SPDX-License-Identifier: MPL-2.0

//! Forms of chunks.

use gstrtmp2server::internal::rtmp::message::type_id;

use super::{received, send_tags};
use support::flv::Tag;
use support::raw::RawClient;
use support::synthetic::{
    audio, audio_header, delta_frame, from_zero, keyframe, stream, video_header,
};
use support::wire::Wire;

/// Chunk sizes that clients announce, with the largest message length and the largest value.
const CHUNK_SIZES: [u32; 7] = [1, 127, 4096, 60_000, 65_536, 0xFF_FFFF, 0x7FFF_FFFF];

#[test]
fn announced_chunk_sizes_are_followed() {
    let tags = stream(0, 25);
    for size in CHUNK_SIZES {
        let got = received(|client| {
            client.set_chunk_size(size);
            for tag in &tags {
                let mut wire = Wire::of(tag);
                wire.chunk_size = size as usize;
                client.send(&wire.absolute(tag).concat());
            }
        });
        assert_eq!(got, tags, "chunk size {size}");
    }
}

#[test]
fn chunk_size_may_change_within_a_message() {
    let frame = keyframe(0, 1000);
    let got = received(|client| {
        let chunks = Wire::on(6).absolute(&frame);
        client.send(&chunks[..3].concat());
        client.set_chunk_size(300);
        for rest in frame.body[3 * 128..].chunks(300) {
            client.send(&[&[0xC6], rest].concat());
        }
    });
    assert_eq!(got, [frame]);
}

#[test]
fn chunk_stream_ids_of_every_length_are_read() {
    for csid in [3, 63, 64, 65, 319, 320, 65_599] {
        for long_csid in [false, true] {
            if long_csid && csid < 64 {
                continue;
            }
            let tags = stream(0, 3);
            let wire = Wire {
                long_csid,
                ..Wire::on(csid)
            };
            let got = received(|client| {
                for tag in &tags {
                    client.send(&wire.absolute(tag).concat());
                }
            });
            assert_eq!(got, tags, "csid {csid}, long form: {long_csid}");
        }
    }
}

#[test]
fn high_and_wrapping_timestamps_continue() {
    // 100 ms before each wrap, and before the first extended timestamp.
    for limit in [0xFF_FFFF, 1 << 24, 1 << 31, 0] {
        let start = u32::wrapping_sub(limit, 100);
        let tags = stream(start, 25);
        for repeats_extended in [true, false] {
            let got = received(|client| {
                for tag in &tags {
                    let wire = Wire {
                        repeats_extended,
                        ..Wire::of(tag)
                    };
                    client.send(&wire.absolute(tag).concat());
                }
            });
            assert_eq!(
                got,
                from_zero(&tags),
                "from {start}, repeated: {repeats_extended}"
            );
        }
    }
}

/// Sends as ffmpeg, OBS and librtmp do: a full header first, then deltas, and no header where
/// delta, length and type equal those of the previous message.
fn send_with_deltas(client: &mut RawClient, tags: &[Tag]) {
    // Last time, delta, length and kind of each chunk stream.
    let mut states: Vec<(u32, u32, Option<u32>, usize, u8)> = Vec::new();
    for tag in tags {
        let wire = Wire::of(tag);
        let known = states.iter_mut().find(|state| state.0 == wire.csid);
        let Some(state) = known else {
            client.send(&wire.absolute(tag).concat());
            states.push((wire.csid, tag.timestamp, None, tag.body.len(), tag.kind));
            continue;
        };
        let delta = tag.timestamp.wrapping_sub(state.1);
        let same_form = (state.3, state.4) == (tag.body.len(), tag.kind);
        let fmt = match state.2 {
            Some(last) if same_form && last == delta => 3,
            _ if same_form => 2,
            _ => 1,
        };
        client.send(&wire.chunks(fmt, delta, tag).concat());
        *state = (
            wire.csid,
            tag.timestamp,
            Some(delta),
            tag.body.len(),
            tag.kind,
        );
    }
}

#[test]
fn deltas_and_headerless_messages_advance_time() {
    // Equal sizes, so that whole runs of messages start with type 3.
    let mut tags = vec![video_header(500), audio_header(500)];
    for index in 0..50 {
        let time = 500 + 40 * index;
        tags.push(if index == 0 {
            keyframe(time, 300)
        } else {
            delta_frame(time, 300)
        });
        tags.push(audio(time, 160));
        tags.push(audio(time + 20, 160));
    }
    let got = received(|client| send_with_deltas(client, &tags));
    assert_eq!(got, from_zero(&tags));
}

#[test]
fn extended_timestamp_delta_is_read() {
    let far = 40 + 0x0100_0000;
    let tags = [
        keyframe(0, 400),
        delta_frame(40, 400),
        delta_frame(far, 500),
    ];
    let got = received(|client| send_with_deltas(client, &tags));
    assert_eq!(got, tags);
}

#[test]
fn shared_chunk_stream_may_step_back_in_time() {
    // librtmp has all media on one chunk stream; a step back is a delta near 2^32.
    let tags = [
        keyframe(1000, 300),
        audio(1000, 60),
        delta_frame(1080, 200),
        audio(1040, 60),
        delta_frame(1120, 200),
    ];
    let wire = Wire::on(4);
    let got = received(|client| {
        client.send(&wire.absolute(&tags[0]).concat());
        for pair in tags.windows(2) {
            let delta = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
            client.send(&wire.chunks(1, delta, &pair[1]).concat());
        }
    });
    assert_eq!(got, from_zero(&tags));
}

#[test]
fn headerless_message_after_full_header_advances_by_its_time() {
    let wire = Wire::on(6);
    let tags = [keyframe(40, 100), delta_frame(80, 100)];
    let got = received(|client| {
        client.send(&wire.absolute(&tags[0]).concat());
        client.send(&wire.chunks(3, 40, &tags[1]).concat());
    });
    assert_eq!(got, from_zero(&tags));
}

#[test]
fn headerless_message_after_large_time_is_simultaneous() {
    // Adding the timestamp once more would be a step of hours: librtmp means the same time again.
    let wire = Wire::on(6);
    let tags = [keyframe(7_200_000, 100), delta_frame(7_200_000, 100)];
    let got = received(|client| {
        client.send(&wire.absolute(&tags[0]).concat());
        client.send(&wire.chunks(3, 7_200_000, &tags[1]).concat());
    });
    assert_eq!(got, from_zero(&tags));
}

#[test]
fn equal_times_of_several_audio_tracks_stay_equal() {
    // OBS has all media on one chunk stream, and no header where time, size and type are equal.
    let mut tags = vec![video_header(0), audio_header(0), keyframe(0, 300)];
    for index in 1..80 {
        let time = index * 21;
        tags.push(delta_frame(time, 200 + index as usize));
        tags.extend([audio(time, 60), audio(time, 60), audio(time, 60)]);
    }
    let got = received(|client| {
        let wire = Wire::on(4);
        client.send(&wire.absolute(&tags[0]).concat());
        for pair in tags.windows(2) {
            let delta = pair[1].timestamp - pair[0].timestamp;
            let is_same = (pair[0].kind, pair[0].body.len()) == (pair[1].kind, pair[1].body.len());
            let fmt = match is_same {
                true if delta == 0 => 3,
                true => 2,
                false => 1,
            };
            client.send(&wire.chunks(fmt, delta, &pair[1]).concat());
        }
    });
    assert_eq!(got, tags);
}

#[test]
fn repeated_delta_may_be_long() {
    let tags = [0, 12_000, 24_000, 36_000].map(|time| match time {
        0 => keyframe(0, 300),
        _ => delta_frame(time, 300),
    });
    let got = received(|client| send_with_deltas(client, &tags));
    assert_eq!(got, tags);
}

#[test]
fn interleaved_messages_leave_in_the_order_of_their_ends() {
    let video = keyframe(0, 1000);
    let first = audio(0, 200);
    let second = audio(20, 200);
    let got = received(|client| {
        let mut video_chunks = Wire::of(&video).absolute(&video).into_iter();
        for tag in [&first, &second] {
            for chunk in Wire::of(tag).absolute(tag) {
                client.send(&video_chunks.next().unwrap());
                client.send(&chunk);
                // Control messages may be between the chunks of others.
                client.message(2, type_id::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 1]);
            }
        }
        for chunk in video_chunks {
            client.send(&chunk);
        }
    });
    // Audio was complete before the first keyframe: it waited for that.
    assert_eq!(got, [first, second, video]);
}

#[test]
fn abort_drops_only_its_message() {
    let aborted = delta_frame(40, 1000);
    let [first, next, sound] = [keyframe(0, 500), delta_frame(80, 700), audio(50, 300)];
    let got = received(|client| {
        send_tags(client, std::slice::from_ref(&first));
        let sound_chunks = Wire::of(&sound).absolute(&sound);
        client.send(&Wire::of(&aborted).absolute(&aborted)[..4].concat());
        client.send(&sound_chunks[0]);
        client.message(2, type_id::ABORT, 0, &6u32.to_be_bytes());
        client.send(&sound_chunks[1..].concat());
        send_tags(client, std::slice::from_ref(&next));
    });
    assert_eq!(got, [first, sound, next]);
}

#[test]
fn single_byte_writes_are_read() {
    let tags = stream(0, 4);
    let got = received(|client| {
        for tag in &tags {
            for byte in Wire::of(tag).absolute(tag).concat() {
                client.send(&[byte]);
            }
        }
    });
    assert_eq!(got, tags);
}

#[test]
fn twelve_megabyte_message_is_received() {
    let tags = [keyframe(0, 12 << 20), delta_frame(40, 100)];
    let got = received(|client| send_tags(client, &tags));
    assert!(got == tags, "got {got:?}");
}

#[test]
fn chunk_stream_starting_with_delta_header_starts_at_its_delta() {
    // librtmp starts chunk streams with type 1: time counts from 0, and the msid is missing.
    let tags = [keyframe(0, 300), audio(33, 60), audio(53, 60)];
    let got = received(|client| {
        send_tags(client, &tags[..1]);
        let wire = Wire::on(9);
        client.send(&wire.chunks(1, 33, &tags[1]).concat());
        client.send(&wire.chunks(2, 20, &tags[2]).concat());
    });
    assert_eq!(got, tags);
}
