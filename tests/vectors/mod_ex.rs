// SPDX-License-Identifier: MPL-2.0

use super::write::*;
use super::{Packet, Track, Vector};

const MOD_EX: u8 = 7;

pub fn vectors() -> Vec<Vector> {
    let nano = |nanoseconds, next| prefix(0, &u24(nanoseconds), next);
    let one = |name, about, prefixes: Vec<u8>, nanoseconds: i64| {
        let tags = [
            tag(
                VIDEO,
                40,
                &join(&[&[KEY | MOD_EX], &prefixes, b"vp09first"]),
            ),
            tag(
                AUDIO,
                40,
                &join(&[&[SOUND | MOD_EX], &prefixes, b"Opussound"]),
            ),
        ];
        let tracks = [
            Track::video(0, "vp09", &[], &[key(40, b"first").later(nanoseconds)]),
            Track::audio(0, "Opus", &[], &[key(40, b"sound").later(nanoseconds)]),
        ];
        Vector::good(name, about, &tags, &tracks)
    };
    let unknown = |length: usize| prefix(9, &vec![0x5A; length], 1);
    vec![
        one(
            "mod-ex-nanoseconds",
            "TimestampOffsetNano before CodedFrames adds to the presentation time",
            nano(123_456, 1),
            123_456,
        ),
        one(
            "mod-ex-nanoseconds-most",
            "The most that it may be",
            nano(999_999, 1),
            999_999,
        ),
        one(
            "mod-ex-unknown",
            "A prefix of an unknown kind is looked through",
            unknown(5),
            0,
        ),
        one("mod-ex-1-byte", "The shortest prefix", unknown(1), 0),
        one(
            "mod-ex-255-bytes",
            "The longest prefix with a short size",
            unknown(255),
            0,
        ),
        one(
            "mod-ex-256-bytes",
            "The shortest prefix with a long size",
            unknown(256),
            0,
        ),
        one(
            "mod-ex-257-bytes",
            "A prefix with a long size",
            unknown(257),
            0,
        ),
        one(
            "mod-ex-65536-bytes",
            "The longest prefix",
            unknown(65536),
            0,
        ),
        one(
            "mod-ex-chain",
            "Prefixes one after the other, of both kinds",
            join(&[
                &prefix(9, b"what", MOD_EX),
                &nano(7, MOD_EX),
                &prefix(15, &[0; 256], 1),
            ]),
            7,
        ),
        multitrack(),
        command(),
        cut(),
    ]
}

fn multitrack() -> Vector {
    let prefix = prefix(0, &u24(500), 6);
    let body = join(&[
        &[INTER | MOD_EX],
        &prefix,
        &[0x11],
        b"vp09",
        &[1],
        &u24(1),
        b"a",
        &[2],
        &u24(1),
        b"b",
    ]);
    let packet = |payload: &[u8]| -> Packet { inter(40, payload).later(500) };
    Vector::good(
        "mod-ex-multitrack",
        "A prefix before multitrack is for all tracks in the tag",
        &[tag(VIDEO, 40, &body)],
        &[
            Track::video(1, "vp09", &[], &[packet(b"a")]),
            Track::video(2, "vp09", &[], &[packet(b"b")]),
        ],
    )
}

fn command() -> Vector {
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 1, "vp09", b"first")),
        tag(
            VIDEO,
            10,
            &join(&[&[COMMAND | MOD_EX], &prefix(0, &u24(1), 1), &[0]]),
        ),
    ];
    Vector::good(
        "mod-ex-command",
        "A command frame behind a prefix",
        &tags,
        &[Track::video(0, "vp09", &[], &[key(0, b"first")])],
    )
}

fn cut() -> Vector {
    let tags = [
        tag(VIDEO, 0, &ex(KEY, 1, "vp09", b"first")),
        tag(VIDEO, 10, &[INTER | MOD_EX]),
        tag(VIDEO, 10, &[INTER | MOD_EX, 2, 0, 0]),
        tag(VIDEO, 10, &[INTER | MOD_EX, 2, 0, 0, 1]),
        tag(VIDEO, 10, &[INTER | MOD_EX, 255, 1]),
        tag(
            VIDEO,
            40,
            &join(&[&[INTER | MOD_EX], &prefix(0, &[1, 2], 1), b"vp09second"]),
        ),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::bad(
        "mod-ex-cut-short",
        "Prefixes that the tag ends in are skipped with it; nanoseconds of two bytes say nothing",
        &tags,
        &[Track::video(0, "vp09", &[], &packets)],
        4,
    )
}
