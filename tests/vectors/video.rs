// SPDX-License-Identifier: MPL-2.0

use super::write::*;
use super::{Packet, Track, Vector};

const CODECS: [(&str, &str, &[u8], bool); 6] = [
    ("video-vp08", "vp08", VPCC, false),
    ("video-vp09", "vp09", VPCC, false),
    ("video-av01", "av01", AV1C, false),
    ("video-avc1", "avc1", AVCC, true),
    ("video-hvc1", "hvc1", HVCC, true),
    ("video-vvc1", "vvc1", VVCC, true),
];

pub fn vectors() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = CODECS.into_iter().map(codec).collect();
    vectors.extend([
        composition_time(),
        legacy(
            12,
            "video-legacy-hevc",
            "HEVC under the codec id 12, as it was before FourCCs",
        ),
        legacy(
            7,
            "video-legacy-avc",
            "H.264 in the legacy form, with its end of sequence",
        ),
        color(),
        transport_stream(),
        command(),
        legacy_command(),
        empty(),
        changed(),
        unknown(),
        cut(),
    ]);
    vectors
}

/// Start, frames with and without the field of the composition time, end.
fn codec(
    (name, four_cc, configuration, has_time): (&'static str, &'static str, &[u8], bool),
) -> Vector {
    let time: &[u8] = if has_time { &[0, 0, 0] } else { &[] };
    let coded = |payload: &[u8]| join(&[time, payload]);
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 0, four_cc, configuration)),
        tag(VIDEO, 0, &ex(KEY, 1, four_cc, &coded(b"first"))),
        tag(VIDEO, 40, &ex(INTER, 1, four_cc, &coded(b"second"))),
        tag(VIDEO, 80, &ex(INTER, 3, four_cc, b"third")),
        tag(VIDEO, 120, &ex(KEY, 2, four_cc, b"")),
    ];
    let packets = [key(0, b"first"), inter(40, b"second"), inter(80, b"third")];
    let about = "SequenceStart, CodedFrames, CodedFramesX and SequenceEnd of this FourCC; only avc1, hvc1 and vvc1 \
                 have a composition time in CodedFrames";
    Vector::good(
        name,
        about,
        &tags,
        &[Track::video(0, four_cc, configuration, &packets)],
    )
}

fn composition_time() -> Vector {
    let frame = |time, first, offset: i32, payload: &[u8]| {
        let offset = u24(offset as u32);
        tag(
            VIDEO,
            time,
            &ex(first, 1, "hvc1", &join(&[&offset, payload])),
        )
    };
    let tags = [
        tag(VIDEO, 1000, &ex(KEY, 0, "hvc1", HVCC)),
        frame(1000, KEY, 80, b"first"),
        frame(1040, INTER, -40, b"second"),
        frame(1080, INTER, 0x7F_FFFF, b"third"),
    ];
    let packets = [
        key(1000, b"first").later(80_000_000),
        inter(1040, b"second").later(-40_000_000),
        inter(1080, b"third").later(0x7F_FFFF * 1_000_000),
    ];
    Vector::good(
        "video-composition-time",
        "Composition times are 24 bits with a sign",
        &tags,
        &[Track::video(0, "hvc1", HVCC, &packets)],
    )
}

fn legacy(id: u8, name: &'static str, about: &'static str) -> Vector {
    let (codec, record) = if id == 7 {
        ("avc1", AVCC)
    } else {
        ("hvc1", HVCC)
    };
    let body = |frame_type: u8, packet_type, offset: i32, payload: &[u8]| {
        let front = [frame_type << 4 | id, packet_type];
        join(&[&front, &u24(offset as u32), payload])
    };
    let tags = [
        tag(VIDEO, 0, &body(1, 0, 0, record)),
        tag(VIDEO, 0, &body(1, 1, 40, b"first")),
        tag(VIDEO, 40, &body(2, 1, -40, b"second")),
        tag(VIDEO, 80, &body(1, 2, 0, b"")),
    ];
    let packets = [
        key(0, b"first").later(40_000_000),
        inter(40, b"second").later(-40_000_000),
    ];
    let tracks = [Track::video(0, codec, record, &packets)];
    if id == 7 {
        Vector::good(name, about, &tags, &tracks)
    } else {
        Vector::bad(name, about, &tags, &tracks, 0)
    }
}

fn color() -> Vector {
    let number = |name: &str, value: f64| {
        let length = (name.len() as u16).to_be_bytes();
        join(&[&length, name.as_bytes(), &[0], &value.to_be_bytes()])
    };
    let object = |name: &str, properties: &[Vec<u8>]| {
        let length = (name.len() as u16).to_be_bytes();
        join(&[
            &length,
            name.as_bytes(),
            &[3],
            &properties.concat(),
            &[0, 0, 9],
        ])
    };
    let config = object(
        "colorConfig",
        &[
            number("bitDepth", 10.0),
            number("colorPrimaries", 9.0),
            number("transferCharacteristics", 16.0),
            number("matrixCoefficients", 9.0),
        ],
    );
    let light = object(
        "hdrCll",
        &[number("maxFall", 400.0), number("maxCLL", 1000.0)],
    );
    let name = b"\x02\0\x09colorInfo";
    let set = join(&[name, &[3], &config, &light, &[0, 0, 9]]);
    let reset = join(&[name, &[6]]);
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 0, "av01", AV1C)),
        tag(VIDEO, 0, &ex(COMMAND, 4, "av01", &set)),
        tag(VIDEO, 0, &ex(KEY, 1, "av01", b"first")),
        tag(VIDEO, 40, &ex(0x80, 4, "av01", &reset)),
        tag(VIDEO, 40, &ex(KEY, 1, "av01", b"second")),
    ];
    let packets = [key(0, b"first"), key(40, b"second")];
    Vector::good(
        "video-metadata-color",
        "colorInfo with a frame type of command, and taken back as undefined with a frame type of 0; neither is a \
         frame",
        &tags,
        &[Track::video(0, "av01", AV1C, &packets)],
    )
}

fn transport_stream() -> Vector {
    let tags = [
        tag(
            VIDEO,
            0,
            &ex(KEY, 5, "av01", &[0x80, 4, 0x81, 0x05, 0x0C, 0x00]),
        ),
        tag(VIDEO, 0, &ex(KEY, 1, "av01", b"first")),
    ];
    let packets = [key(0, b"first")];
    Vector::good(
        "video-mpeg2-ts-sequence-start",
        "The video descriptor of MPEG-2 TS; its configuration is given as the AV1 record that says the same",
        &tags,
        &[Track::video(0, "av01", &[0x81, 0x05, 0x0C, 0x00], &packets)],
    )
}

fn command() -> Vector {
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 1, "vp09", b"first")),
        tag(VIDEO, 10, &[COMMAND, 0]),
        tag(VIDEO, 10, &[COMMAND | 1, 1]),
        tag(VIDEO, 40, &ex(INTER, 1, "vp09", b"second")),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::good(
        "video-command",
        "Command frames have one byte and no FourCC, whatever the packet type",
        &tags,
        &[Track::video(0, "vp09", &[], &packets)],
    )
}

fn legacy_command() -> Vector {
    let tags = [
        tag(VIDEO, 0, b"\x12first"),
        tag(VIDEO, 10, &[0x52, 0]),
        tag(VIDEO, 40, b"\x22second"),
        tag(VIDEO, 80, b"\x32third"),
    ];
    let packets = [key(0, b"first"), inter(40, b"second"), inter(80, b"third")];
    Vector::good(
        "video-legacy-h263",
        "Sorenson H.263, with a command frame and a disposable frame",
        &tags,
        &[Track::video(0, "flv1", &[], &packets)],
    )
}

fn empty() -> Vector {
    let tags = [
        tag(VIDEO, 0, b""),
        tag(VIDEO, 0, &ex(KEY, 0, "hvc1", b"")),
        tag(VIDEO, 0, &ex(KEY, 0, "hvc1", HVCC)),
        tag(VIDEO, 0, &ex(KEY, 3, "hvc1", b"first")),
        tag(VIDEO, 40, &ex(INTER, 1, "hvc1", b"")),
        tag(VIDEO, 80, &ex(INTER, 1, "hvc1", &[0, 0, 0])),
        tag(VIDEO, 120, &ex(INTER, 3, "hvc1", b"")),
        tag(VIDEO, 160, &ex(INTER, 3, "hvc1", b"second")),
    ];
    let packets = [key(0, b"first"), inter(160, b"second")];
    Vector::bad(
        "video-empty",
        "An empty tag, an empty SequenceStart and empty frames harm nothing and are no packets",
        &tags,
        &[Track::video(0, "hvc1", HVCC, &packets)],
        0,
    )
}

fn changed() -> Vector {
    let mut other = AVCC.to_vec();
    other[3] = 0x1E;
    let frame = |time, payload: &[u8]| tag(VIDEO, time, &ex(KEY, 3, "avc1", payload));
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 0, "avc1", AVCC)),
        frame(0, b"first"),
        tag(VIDEO, 40, &ex(KEY, 0, "avc1", AVCC)),
        frame(40, b"second"),
        tag(VIDEO, 80, &ex(KEY, 0, "avc1", &other)),
        frame(80, b"third"),
    ];
    let packets: [Packet; 3] = [key(0, b"first"), key(40, b"second"), key(80, b"third")];
    Vector::good(
        "video-new-configuration",
        "The same configuration again changes nothing; another one does",
        &tags,
        &[Track::video(0, "avc1", &other, &packets)],
    )
}

fn unknown() -> Vector {
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 1, "vp09", b"first")),
        tag(VIDEO, 10, &ex(KEY, 1, "xxxx", b"what")),
        tag(VIDEO, 20, &ex(KEY, 9, "vp09", b"what")),
        tag(VIDEO, 40, &ex(INTER, 1, "vp09", b"second")),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::bad(
        "video-unknown",
        "A FourCC and a packet type that are not known are skipped",
        &tags,
        &[Track::video(0, "vp09", &[], &packets)],
        2,
    )
}

fn cut() -> Vector {
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 0, "avc1", AVCC)),
        tag(VIDEO, 0, &ex(KEY, 3, "avc1", b"first")),
        tag(VIDEO, 10, &[INTER | 1]),
        tag(VIDEO, 10, &ex(INTER, 1, "av", b"")),
        tag(VIDEO, 20, &ex(INTER, 1, "avc1", &[0, 0])),
        tag(VIDEO, 30, &ex(INTER, 0, "avc1", &AVCC[..20])),
        tag(VIDEO, 40, &ex(INTER, 3, "avc1", b"second")),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::bad(
        "video-cut-short",
        "A header without a FourCC, with half of one, with half a composition time, and half a configuration, are \
         skipped",
        &tags,
        &[Track::video(0, "avc1", AVCC, &packets)],
        4,
    )
}
