// SPDX-License-Identifier: MPL-2.0

use super::write::*;
use super::{Track, Vector};

pub fn vectors() -> Vec<Vector> {
    vec![
        metadata(),
        unknown_tags(),
        two_headers(),
        back_pointers(),
        noise(),
        wrap(),
        cut(),
    ]
}

fn frame(time: u32, payload: &[u8]) -> Vec<u8> {
    tag(VIDEO, time, &ex(KEY, 1, "vp09", payload))
}

fn tracks() -> [Track; 1] {
    [Track::video(
        0,
        "vp09",
        &[],
        &[key(0, b"first"), key(40, b"second")],
    )]
}

/// As specified, but for what is done to the bytes.
fn changed(
    name: &'static str,
    about: &'static str,
    skipped: u32,
    change: impl FnOnce(&mut Vec<u8>, usize),
) -> Vector {
    let mut vector = Vector::bad(name, about, &[frame(0, b"first")], &tracks(), skipped);
    let middle = vector.bytes.len();
    vector.bytes.extend(frame(40, b"second"));
    change(&mut vector.bytes, middle);
    vector
}

fn metadata() -> Vector {
    let name = |name: &str| join(&[&(name.len() as u16).to_be_bytes(), name.as_bytes()]);
    let number = |key: &str, value: f64| join(&[&name(key), &[0], &value.to_be_bytes()]);
    let end = [0, 0, 9];
    let one = join(&[
        &name("1"),
        &[3],
        &number("width", 160.0),
        &number("height", 120.0),
        &end,
    ]);
    let map = join(&[&name("videoTrackIdInfoMap"), &[3], &one, &end]);
    let body = join(&[
        &[2],
        &name("onMetaData"),
        &[8, 0, 0, 0, 3],
        &number("width", 320.0),
        &number("height", 240.0),
        &map,
        &end,
    ]);
    let tags = [
        tag(SCRIPT, 0, &body),
        frame(0, b"first"),
        tag(
            VIDEO,
            0,
            &join(&[&[KEY | 6, 0x01], b"vp09", &[1], b"other"]),
        ),
        tag(SCRIPT, 10, &join(&[&[2], &name("onTextData"), &[5]])),
        frame(40, b"second"),
    ];
    let [first] = tracks();
    Vector::good(
        "metadata-track-map",
        "onMetaData with videoTrackIdInfoMap: track 0 is 320x240, track 1 is 160x120; other script data means nothing",
        &tags,
        &[first, Track::video(1, "vp09", &[], &[key(0, b"other")])],
    )
}

fn unknown_tags() -> Vector {
    let tags = [
        frame(0, b"first"),
        tag(15, 10, b"what"),
        tag(VIDEO | 0x20, 20, b"encrypted"),
        frame(40, b"second"),
    ];
    Vector::bad(
        "tag-unknown",
        "Tags of an unknown type, and encrypted ones, are skipped",
        &tags,
        &tracks(),
        2,
    )
}

fn two_headers() -> Vector {
    changed(
        "file-two-headers",
        "A second file header, as in files that were put together",
        0,
        |bytes, middle| {
            bytes.splice(middle..middle, file(&[]));
        },
    )
}

fn back_pointers() -> Vector {
    changed(
        "file-wrong-back-pointer",
        "A wrong back pointer between tags that are right",
        0,
        |bytes, middle| bytes[middle - 1] ^= 0xFF,
    )
}

fn noise() -> Vector {
    changed(
        "file-noise",
        "Bytes that are no tag, between tags that are right",
        0,
        |bytes, middle| {
            bytes.splice(middle..middle, [0x55; 100]);
        },
    )
}

fn wrap() -> Vector {
    let tags = [frame(u32::MAX - 19, b"first"), frame(20, b"second")];
    let start = u64::from(u32::MAX) - 19;
    let packets = [key(start, b"first"), key(start + 40, b"second")];
    Vector::good(
        "time-wrap",
        "Times are modulo 2^32, and go on behind it",
        &tags,
        &[Track::video(0, "vp09", &[], &packets)],
    )
}

fn cut() -> Vector {
    changed(
        "file-cut-short",
        "The file ends within a tag",
        0,
        |bytes, _| bytes.extend(&frame(80, b"third")[..20]),
    )
}
