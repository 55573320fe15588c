// SPDX-License-Identifier: MPL-2.0

//! What flvdemux plays is the same through both demuxers.

use crate::support::clients::NEW_FFMPEG;
use crate::support::demuxer::demux;
use crate::support::flv;
use crate::support::media::{full_hd, made_by, small};
use crate::support::synthetic::stream;

#[track_caller]
fn assert_as_flvdemux(what: &str, bytes: &[u8]) {
    let theirs = demux("flvdemux", bytes, 4096);
    let ours = demux("eflvdemux", bytes, 4096);
    assert!(!theirs.is_empty(), "{what}");
    assert_eq!(theirs.len(), ours.len(), "{what}");
    for (name, track) in &theirs {
        let ours = &ours[&format!("{name}_0")];
        assert_eq!(track.packets.len(), ours.packets.len(), "{what}, {name}");
        for (index, pair) in track.packets.iter().zip(&ours.packets).enumerate() {
            assert!(
                pair.0 == pair.1,
                "{what}, {name}, packet {index}: {:?} {:?}",
                (pair.0.dts, pair.0.pts, pair.0.data.len(), pair.0.is_delta),
                (pair.1.dts, pair.1.pts, pair.1.data.len(), pair.1.is_delta),
            );
        }
        let caps = |caps: &[gst::Caps]| caps[0].structure(0).unwrap().to_owned();
        let (theirs, ours) = (caps(&track.caps), caps(&ours.caps));
        for (field, value) in theirs.iter() {
            // One header or the other, they say the same.
            if field == "streamheader" {
                continue;
            }
            let other = ours.value(field);
            let other = other.unwrap_or_else(|_| panic!("{what}: {ours} has no {field}"));
            let same = format!("{value:?}") == format!("{other:?}") || field == "codec_data";
            assert!(same, "{what}, {field}: {theirs} and {ours}");
        }
    }
}

#[test]
fn legacy_codecs_are_the_same() {
    for (name, arguments, _) in super::codecs::LEGACY {
        let name = format!("enhanced-{name}.flv");
        let file = made_by(&*NEW_FFMPEG, &name, &format!("{arguments} -f flv"));
        assert_as_flvdemux(&name, &std::fs::read(file).unwrap());
    }
}

#[test]
fn h264_and_aac_are_the_same() {
    for file in [small(2), full_hd()] {
        assert_as_flvdemux("H.264", &std::fs::read(file).unwrap());
    }
}

/// Times that do not start at zero, a composition time that would make one negative, and a clock that
/// starts anew.
#[test]
fn odd_times_are_the_same() {
    let file = |tags: &[flv::Tag]| {
        let tags = tags.iter().map(flv::Tag::to_bytes);
        let header = vec![b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec()];
        header
            .into_iter()
            .chain(tags)
            .flatten()
            .collect::<Vec<u8>>()
    };
    assert_as_flvdemux("late", &file(&stream(1_000_000, 30)));
    let mut early = stream(0, 30);
    early[3].body[2..5].copy_from_slice(&[0xFF, 0xFF, 0xD8]);
    assert_as_flvdemux("early", &file(&early));
    let twice = [stream(0, 100), stream(0, 100)[3..].to_vec()].concat();
    assert_as_flvdemux("anew", &file(&twice));
}
