// SPDX-License-Identifier: MPL-2.0

use super::write::*;
use super::{Track, Vector};

const VIDEO_TRACKS: u8 = 6;
const AUDIO_TRACKS: u8 = 5;

const ONE: u8 = 0x00;
const MANY: u8 = 0x10;
const MANY_CODECS: u8 = 0x20;

fn sized(id: u8, body: &[u8]) -> Vec<u8> {
    join(&[&[id], &u24(body.len() as u32), body])
}

fn video(time: u32, first: u8, kinds: u8, rest: &[u8]) -> Vec<u8> {
    tag(VIDEO, time, &join(&[&[first | VIDEO_TRACKS, kinds], rest]))
}

fn audio(time: u32, kinds: u8, rest: &[u8]) -> Vec<u8> {
    tag(AUDIO, time, &join(&[&[SOUND | AUDIO_TRACKS, kinds], rest]))
}

pub fn vectors() -> Vec<Vector> {
    vec![
        one_track(),
        many_tracks(),
        many_codecs(),
        beside_legacy(),
        highest_id(),
        empty_track(),
        broken(),
        overrun(),
    ]
}

fn one_track() -> Vector {
    let tags = [
        video(0, KEY, ONE, &join(&[b"hvc1", &[1], HVCC])),
        video(0, KEY, ONE | 1, &join(&[b"hvc1", &[1, 0, 0, 40], b"first"])),
        video(40, INTER, ONE | 3, &join(&[b"hvc1", &[1], b"second"])),
        video(80, KEY, ONE | 2, &join(&[b"hvc1", &[1]])),
        audio(0, ONE, &join(&[b"Opus", &[2], OPUS_HEAD])),
        audio(0, ONE | 1, &join(&[b"Opus", &[2], b"sound"])),
    ];
    let frames = [key(0, b"first").later(40_000_000), inter(40, b"second")];
    Vector::good(
        "multitrack-one-track",
        "OneTrack: no size field, the track goes to the end of the tag",
        &tags,
        &[
            Track::video(1, "hvc1", HVCC, &frames),
            Track::audio(2, "Opus", OPUS_HEAD, &[key(0, b"sound")]),
        ],
    )
}

fn many_tracks() -> Vector {
    let tags = [
        video(
            0,
            KEY,
            MANY,
            &join(&[b"avc1", &sized(0, AVCC), &sized(1, AVCC)]),
        ),
        video(
            0,
            KEY,
            MANY | 1,
            &join(&[b"avc1", &sized(0, b"\0\0\0a"), &sized(1, b"\xFF\xFF\xFFbb")]),
        ),
        audio(
            0,
            MANY | 1,
            &join(&[b"Opus", &sized(0, b"x"), &sized(1, b"yy")]),
        ),
    ];
    Vector::good(
        "multitrack-many-tracks",
        "ManyTracks: one FourCC, a size for each track; each frame has its own composition time",
        &tags,
        &[
            Track::video(0, "avc1", AVCC, &[key(0, b"a")]),
            Track::video(1, "avc1", AVCC, &[key(0, b"bb").later(-1_000_000)]),
            Track::audio(0, "Opus", &[], &[key(0, b"x")]),
            Track::audio(1, "Opus", &[], &[key(0, b"yy")]),
        ],
    )
}

fn many_codecs() -> Vector {
    let tags = [
        video(
            0,
            KEY,
            MANY_CODECS,
            &join(&[b"av01", &sized(0, AV1C), b"vp09", &sized(1, VPCC)]),
        ),
        video(
            40,
            KEY,
            MANY_CODECS | 1,
            &join(&[b"av01", &sized(0, b"a"), b"vp09", &sized(1, b"bb")]),
        ),
        audio(
            40,
            MANY_CODECS | 1,
            &join(&[b"Opus", &sized(0, b"x"), b"ac-3", &sized(1, b"yy")]),
        ),
    ];
    Vector::good(
        "multitrack-many-codecs",
        "ManyTracksManyCodecs: a FourCC and a size for each track",
        &tags,
        &[
            Track::video(0, "av01", AV1C, &[key(40, b"a")]),
            Track::video(1, "vp09", VPCC, &[key(40, b"bb")]),
            Track::audio(0, "Opus", &[], &[key(40, b"x")]),
            Track::audio(1, "ac-3", &[], &[key(40, b"yy")]),
        ],
    )
}

fn beside_legacy() -> Vector {
    let tags = [
        tag(AUDIO, 0, &[0xAF, 0, 0x11, 0x90]),
        audio(0, ONE, &join(&[b"mp4a", &[1], ASC])),
        tag(AUDIO, 0, b"\xAF\x01first"),
        audio(0, ONE | 1, &join(&[b"mp4a", &[1], b"other"])),
    ];
    Vector::good(
        "multitrack-beside-legacy",
        "Track 0 in the legacy form and the others as OneTrack, which is what OBS and ffmpeg send",
        &tags,
        &[
            Track::audio(0, "mp4a", ASC, &[key(0, b"first")]),
            Track::audio(1, "mp4a", ASC, &[key(0, b"other")]),
        ],
    )
}

fn highest_id() -> Vector {
    let tags = [video(0, KEY, ONE | 1, &join(&[b"vp09", &[255], b"first"]))];
    Vector::good(
        "multitrack-highest-id",
        "Track ids go to 255, and none has to come before",
        &tags,
        &[Track::video(255, "vp09", &[], &[key(0, b"first")])],
    )
}

fn empty_track() -> Vector {
    let tags = [
        video(
            0,
            KEY,
            MANY | 1,
            &join(&[b"vp09", &sized(0, b"a"), &sized(1, b"b")]),
        ),
        video(
            40,
            INTER,
            MANY | 1,
            &join(&[b"vp09", &sized(0, b""), &sized(1, b"bb")]),
        ),
    ];
    Vector::good(
        "multitrack-empty-track",
        "A track without a frame in a tag that has one of another track",
        &tags,
        &[
            Track::video(0, "vp09", &[], &[key(0, b"a")]),
            Track::video(1, "vp09", &[], &[key(0, b"b"), inter(40, b"bb")]),
        ],
    )
}

fn broken() -> Vector {
    let tags = [
        video(0, KEY, ONE | 1, &join(&[b"vp09", &[1], b"first"])),
        video(10, INTER, 0x30 | 1, &join(&[b"vp09", &[1], b"what"])),
        video(10, INTER, ONE | 6, &join(&[&[1], b"vp09", &[1], b"what"])),
        video(
            10,
            INTER,
            ONE | 7,
            &join(&[&[0, 0, 1], b"vp09", &[1], b"what"]),
        ),
        video(10, INTER, MANY | 1, b"vp09"),
        video(10, INTER, ONE | 1, b"vp09"),
        video(40, INTER, ONE | 1, &join(&[b"vp09", &[1], b"second"])),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::bad(
        "multitrack-broken",
        "A type that is not known, multitrack or ModEx within a track, and no track at all, are skipped",
        &tags,
        &[Track::video(1, "vp09", &[], &packets)],
        5,
    )
}

fn overrun() -> Vector {
    let tags = [
        video(0, KEY, MANY | 1, &join(&[b"vp09", &sized(1, b"first")])),
        video(
            10,
            INTER,
            MANY | 1,
            &join(&[b"vp09", &sized(1, b"what"), &[2, 0, 0, 9, 1]]),
        ),
        video(
            20,
            INTER,
            MANY | 1,
            &join(&[b"vp09", &sized(1, b"what"), &[2, 0]]),
        ),
        video(40, INTER, MANY | 1, &join(&[b"vp09", &sized(1, b"second")])),
    ];
    let packets = [key(0, b"first"), inter(40, b"second")];
    Vector::bad(
        "multitrack-overrun",
        "Where the size of a track is beyond the tag, no track of the tag can be trusted",
        &tags,
        &[Track::video(1, "vp09", &[], &packets)],
        2,
    )
}
