// SPDX-License-Identifier: MPL-2.0

use super::write::*;
use super::{Track, Vector};

const CODECS: [(&str, &str, &[u8]); 6] = [
    ("audio-ac-3", "ac-3", &[]),
    ("audio-ec-3", "ec-3", &[]),
    ("audio-opus", "Opus", OPUS_HEAD),
    ("audio-mp3", ".mp3", &[]),
    ("audio-flac", "fLaC", STREAM_INFO),
    ("audio-mp4a", "mp4a", ASC),
];

pub fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = CODECS.into_iter().map(codec).collect();
    vectors.extend([
        flac_block("audio-flac-block", false),
        flac_block("audio-flac-signature", true),
        empty_opus(),
        channels("audio-channels-native", &[1, 2, 0, 0, 0, 3]),
        channels("audio-channels-custom", &[2, 2, 0, 1]),
        channels("audio-channels-unspecified", &[0, 2]),
        legacy_aac(),
        unknown(),
    ]);
    vectors
}

fn codec((name, four_cc, configuration): (&'static str, &'static str, &[u8])) -> Vector {
    let tags = [
        tag(AUDIO, 0, &ex(SOUND, 0, four_cc, configuration)),
        tag(AUDIO, 0, &ex(SOUND, 1, four_cc, b"first")),
        tag(AUDIO, 20, &ex(SOUND, 1, four_cc, b"second")),
        tag(AUDIO, 40, &ex(SOUND, 2, four_cc, b"")),
    ];
    let packets = [key(0, b"first"), key(20, b"second")];
    Vector::good(
        name,
        "SequenceStart, CodedFrames and SequenceEnd of this FourCC",
        &tags,
        &[Track::audio(0, four_cc, configuration, &packets)],
    )
}

/// The vector with a bare STREAMINFO is the form that ffmpeg writes.
fn flac_block(name: &'static str, with_signature: bool) -> Vector {
    let block = join(&[&[0x80, 0, 0, 34], STREAM_INFO]);
    let header = if with_signature {
        join(&[b"fLaC", &block])
    } else {
        block
    };
    let tags = [
        tag(AUDIO, 0, &ex(SOUND, 0, "fLaC", &header)),
        tag(AUDIO, 0, &ex(SOUND, 1, "fLaC", b"first")),
    ];
    let tracks = [Track::audio(0, "fLaC", STREAM_INFO, &[key(0, b"first")])];
    if with_signature {
        let about = "The header of FLAC as specified: signature, block header, STREAMINFO";
        Vector::good(name, about, &tags, &tracks)
    } else {
        let about = "The header of FLAC without its signature";
        Vector::bad(name, about, &tags, &tracks, 0)
    }
}

fn empty_opus() -> Vector {
    let tags = [
        tag(AUDIO, 0, &ex(SOUND, 0, "Opus", b"")),
        tag(AUDIO, 0, &ex(SOUND, 1, "Opus", b"first")),
    ];
    Vector::good(
        "audio-opus-empty-start",
        "Opus without an ID header is mono or stereo",
        &tags,
        &[Track::audio(0, "Opus", &[], &[key(0, b"first")])],
    )
}

fn channels(name: &'static str, config: &[u8]) -> Vector {
    let tags = [
        tag(AUDIO, 0, &[0xAF, 0, 0x11, 0x90]),
        tag(AUDIO, 0, &ex(SOUND, 4, "mp4a", config)),
        tag(AUDIO, 0, b"\xAF\x01first"),
        tag(AUDIO, 20, &ex(SOUND, 4, "Opus", config)),
        tag(AUDIO, 20, b"\xAF\x01second"),
    ];
    let packets = [key(0, b"first"), key(20, b"second")];
    Vector::good(
        name,
        "MultichannelConfig amid legacy AAC, and one of another codec, which is not about this track",
        &tags,
        &[Track::audio(0, "mp4a", ASC, &packets)],
    )
}

fn legacy_aac() -> Vector {
    let tags = [
        tag(AUDIO, 0, &[0xAF, 0]),
        tag(AUDIO, 0, b"\xAF\x01early"),
        tag(AUDIO, 20, &[0xAF, 0, 0x11, 0x90]),
        tag(AUDIO, 20, b"\xAF\x01first"),
        tag(AUDIO, 40, b"\xAF\x01second"),
    ];
    let packets = [key(20, b"first"), key(40, b"second")];
    Vector::bad(
        "audio-late-configuration",
        "An empty configuration, as ffmpeg sends it when it does not know it yet, and the real one later",
        &tags,
        &[Track::audio(0, "mp4a", ASC, &packets)],
        1,
    )
}

fn unknown() -> Vector {
    let tags = [
        tag(AUDIO, 0, &ex(SOUND, 1, "Opus", b"first")),
        tag(AUDIO, 5, &ex(SOUND, 1, "xxxx", b"what")),
        tag(AUDIO, 6, &ex(SOUND, 3, "Opus", b"what")),
        tag(AUDIO, 7, &[0xD0, 1]),
        tag(AUDIO, 8, &ex(SOUND, 1, "Op", b"")),
        tag(AUDIO, 9, &ex(SOUND, 4, "Opus", &[1, 2, 0])),
        tag(AUDIO, 20, &ex(SOUND, 1, "Opus", b"second")),
    ];
    let packets = [key(0, b"first"), key(20, b"second")];
    Vector::bad(
        "audio-unknown",
        "A FourCC, a packet type and a sound format that are not known, half a FourCC and half a channel mask, are \
         skipped",
        &tags,
        &[Track::audio(0, "Opus", &[], &packets)],
        5,
    )
}
