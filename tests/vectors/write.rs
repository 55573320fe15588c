// SPDX-License-Identifier: MPL-2.0

use super::{Packet, Track, Vector};

pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;
pub const SCRIPT: u8 = 18;

/// First bytes of ex-headers, without the packet type.
pub const KEY: u8 = 0x90;
pub const INTER: u8 = 0xA0;
pub const COMMAND: u8 = 0xD0;
pub const SOUND: u8 = 0x90;

/// Records that decoders accept: baseline H.264 of 320x240, HEVC of 320x240, AV1, VP9, VVC, and so
/// on.
pub const AVCC: &[u8] = &[
    0x01, 0x42, 0xC0, 0x0D, 0xFF, 0xE1, 0x00, 0x18, 0x67, 0x42, 0xC0, 0x0D, 0xD9, 0x01, 0x41, 0xFB,
    0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xC0, 0xF1, 0x42, 0xA4, 0x80,
    0x01, 0x00, 0x05, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];
pub const HVCC: &[u8] = &[
    0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3C, 0xF0, 0x00, 0xFC,
    0xFD, 0xF8, 0xF8, 0x00, 0x00, 0x0F, 0x00,
];
pub const AV1C: &[u8] = &[
    0x81, 0x00, 0x0C, 0x00, 0x0A, 0x0B, 0x02, 0x00, 0x00, 0x05, 0x21, 0xE8, 0x3E, 0x20, 0x17, 0xC0,
    0x02,
];
pub const VPCC: &[u8] = &[1, 0, 0, 0, 0, 10, 0x82, 1, 1, 1, 0, 0];
pub const VVCC: &[u8] = &[0xFF, 0x00, 0x65, 0x5F];
pub const ASC: &[u8] = &[0x11, 0x90];
pub const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\0\0\0\0\0";
pub const STREAM_INFO: &[u8] = &[
    0x12, 0x00, 0x12, 0x00, 0, 0, 0, 0, 0, 0, 0x0B, 0xB8, 0x02, 0xF0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6,
    7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];

pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub fn u24(number: u32) -> [u8; 3] {
    let [_, a, b, c] = number.to_be_bytes();
    [a, b, c]
}

/// Returns a tag and its back pointer.
pub fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
    let length = u24(body.len() as u32);
    let [high, rest @ ..] = time.to_be_bytes();
    let back = (body.len() as u32 + 11).to_be_bytes();
    join(&[&[kind], &length, &rest, &[high, 0, 0, 0], body, &back])
}

/// Returns a file of these tags.
pub fn file(tags: &[Vec<u8>]) -> Vec<u8> {
    join(&[b"FLV\x01\x05\0\0\0\x09\0\0\0\0", &tags.concat()])
}

/// Returns an ex-header without prefixes, its FourCC and its body.
pub fn ex(first: u8, packet_type: u8, four_cc: &str, body: &[u8]) -> Vec<u8> {
    join(&[&[first | packet_type], four_cc.as_bytes(), body])
}

/// Returns one prefix, which follows the first byte or another prefix.
pub fn prefix(kind: u8, data: &[u8], next: u8) -> Vec<u8> {
    let size = data.len() - 1;
    let size = if size < 255 {
        vec![size as u8]
    } else {
        vec![255, (size >> 8) as u8, size as u8]
    };
    join(&[&size, data, &[kind << 4 | next]])
}

pub fn key(millis: u64, payload: &[u8]) -> Packet {
    Packet {
        dts: millis * 1_000_000,
        pts: millis * 1_000_000,
        is_key: true,
        payload: payload.to_vec(),
    }
}

pub fn inter(millis: u64, payload: &[u8]) -> Packet {
    Packet {
        is_key: false,
        ..key(millis, payload)
    }
}

impl Packet {
    pub fn later(mut self, nanoseconds: i64) -> Self {
        self.pts = self.pts.saturating_add_signed(nanoseconds);
        self
    }
}

impl Track {
    pub fn video(id: u8, codec: &'static str, configuration: &[u8], packets: &[Packet]) -> Self {
        Track {
            kind: "video",
            id,
            codec,
            configuration: (!configuration.is_empty()).then(|| configuration.to_vec()),
            packets: packets.to_vec(),
        }
    }

    pub fn audio(id: u8, codec: &'static str, configuration: &[u8], packets: &[Packet]) -> Self {
        Track {
            kind: "audio",
            ..Track::video(id, codec, configuration, packets)
        }
    }
}

impl Vector {
    pub fn good(
        name: &'static str,
        about: &'static str,
        tags: &[Vec<u8>],
        tracks: &[Track],
    ) -> Self {
        Vector {
            name,
            about,
            is_valid: true,
            bytes: file(tags),
            tracks: tracks.to_vec(),
            skipped: 0,
        }
    }

    pub fn bad(
        name: &'static str,
        about: &'static str,
        tags: &[Vec<u8>],
        tracks: &[Track],
        skipped: u32,
    ) -> Self {
        Vector {
            is_valid: false,
            skipped,
            ..Vector::good(name, about, tags, tracks)
        }
    }
}
