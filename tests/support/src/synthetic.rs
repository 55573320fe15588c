// SPDX-License-Identifier: MPL-2.0

//! Tags with the headers of H.264 and AAC and with bodies of any bytes, for receivers that do not
//! decode them.

use super::flv::{AUDIO, SCRIPT, Tag, VIDEO};

/// Milliseconds between frames.
const FRAME_STEP: u32 = 40;

pub fn video_header(timestamp: u32) -> Tag {
    let record = [
        1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 4, 0x67, 1, 2, 3, 1, 0, 2, 0x68, 4,
    ];
    Tag::new(
        VIDEO,
        timestamp,
        [&[0x17, 0, 0, 0, 0], &record[..]].concat(),
    )
}

pub fn audio_header(timestamp: u32) -> Tag {
    Tag::new(AUDIO, timestamp, [0xAF, 0, 0x11, 0x90])
}

pub fn keyframe(timestamp: u32, length: usize) -> Tag {
    coded(VIDEO, timestamp, &[0x17, 1, 0, 0, 0], length)
}

pub fn delta_frame(timestamp: u32, length: usize) -> Tag {
    coded(VIDEO, timestamp, &[0x27, 1, 0, 0, 0], length)
}

pub fn audio(timestamp: u32, length: usize) -> Tag {
    coded(AUDIO, timestamp, &[0xAF, 1], length)
}

pub fn end_of_sequence(timestamp: u32) -> Tag {
    Tag::new(VIDEO, timestamp, [0x17, 2, 0, 0, 0])
}

/// `onMetaData` with one property, as it is in a file.
pub fn metadata(timestamp: u32) -> Tag {
    let mut body = vec![2, 0, 10];
    body.extend(b"onMetaData");
    body.extend([8, 0, 0, 0, 1, 0, 5]);
    body.extend(b"width\x00");
    body.extend(320f64.to_be_bytes());
    body.extend([0, 0, 9]);
    Tag::new(SCRIPT, timestamp, body)
}

/// A payload of this length in which no stretch is like another, so that lost, doubled or moved
/// bytes show.
fn coded(kind: u8, timestamp: u32, front: &[u8], length: usize) -> Tag {
    let mut state = u64::from(timestamp) << 20 | length as u64 | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 56) as u8
    });
    let body: Vec<u8> = front.iter().copied().chain(noise.take(length)).collect();
    Tag::new(kind, timestamp, body)
}

/// Metadata, sequence headers and so many frames, each with audio beside it. The lengths of
/// consecutive tags differ. Times wrap.
pub fn stream(start: u32, frames: u32) -> Vec<Tag> {
    let mut tags = vec![metadata(start), video_header(start), audio_header(start)];
    for index in 0..frames {
        let time = start.wrapping_add(index * FRAME_STEP);
        let length = 200 + 97 * index as usize;
        if index % 10 == 0 {
            tags.push(keyframe(time, 3 * length));
        } else {
            tags.push(delta_frame(time, length));
        }
        tags.push(audio(time.wrapping_add(7), 50 + index as usize));
    }
    tags
}

/// Returns the same tags with the first one's time as time 0.
pub fn from_zero(tags: &[Tag]) -> Vec<Tag> {
    let start = tags[0].timestamp;
    tags.iter()
        .map(|tag| {
            Tag::new(
                tag.kind,
                tag.timestamp.wrapping_sub(start),
                tag.body.clone(),
            )
        })
        .collect()
}
