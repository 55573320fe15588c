// SPDX-License-Identifier: MPL-2.0

//! Streams that flvdemux can play: both demuxers have the same output.

use super::broken::file;
use support::clients::NEW_FFMPEG;
use support::demuxer::{Track, Tracks, demux};
use support::flv::{AUDIO, Tag, VIDEO};
use support::media::{full_hd, made_by, small};
use support::synthetic::stream;

#[track_caller]
fn assert_as_flvdemux(what: &str, bytes: &[u8]) {
    let (theirs, ours) = assert_same_packets(what, bytes);
    for (name, track) in &theirs {
        let ours = &ours[&format!("{name}_0")];
        let caps = |caps: &[gst::Caps]| caps[0].structure(0).unwrap().to_owned();
        let (theirs, ours) = (caps(&track.caps), caps(&ours.caps));
        for (field, value) in theirs.iter() {
            // Either header will do: they are equal.
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

#[track_caller]
fn assert_same_packets(what: &str, bytes: &[u8]) -> (Tracks, Tracks) {
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
        let name = |track: &Track| track.last_caps().name().to_owned();
        assert_eq!(name(track), name(ours), "{what}");
    }
    (theirs, ours)
}

#[test]
fn legacy_codecs_are_the_same() {
    for (name, arguments, _) in super::codecs::LEGACY {
        let name = format!("enhanced-{name}.flv");
        let file = made_by(&*NEW_FFMPEG, &name, &format!("{arguments} -f flv"));
        assert_as_flvdemux(&name, &std::fs::read(file).unwrap());
    }
    let speex = std::fs::read(super::codecs::speex()).unwrap();
    assert_as_flvdemux("Speex", &speex);
}

#[test]
fn h264_and_aac_are_the_same() {
    for file in [small(2), full_hd()] {
        assert_as_flvdemux("H.264", &std::fs::read(file).unwrap());
    }
}

/// Times that do not start at zero, and a composition time that would make a PTS negative.
#[test]
fn odd_times_are_the_same() {
    assert_as_flvdemux("late", &file(&stream(1_000_000, 30)));
    let mut early = stream(0, 30);
    early[3].body[2..5].copy_from_slice(&[0xFF, 0xFF, 0xD8]);
    assert_as_flvdemux("early", &file(&early));
}

/// flvdemux shifts each track by itself, which puts them out of step.
#[test]
fn a_restarted_clock_keeps_tracks_in_step() {
    let twice = [stream(0, 100), stream(0, 100)[3..].to_vec()].concat();
    let theirs = demux("flvdemux", &file(&twice), 4096);
    let ours = demux("eflvdemux", &file(&twice), 4096);
    let mut shifts = Vec::new();
    for name in ["video", "audio"] {
        let (theirs, ours) = (&theirs[name], &ours[&format!("{name}_0")]);
        assert_eq!(theirs.packets.len(), ours.packets.len());
        let (first, second) = ours.packets.split_at(100);
        assert!(theirs.packets[..100] == *first, "{name}");
        assert!(first[99].dts < second[0].dts);
        let pairs = first.iter().zip(second);
        shifts.extend(pairs.map(|(a, b)| b.dts_millis() - a.dts_millis()));
    }
    shifts.dedup();
    assert_eq!(shifts.len(), 1, "{shifts:?}");
}

/// Codecs without an available encoder: the bytes are equal, whatever they mean.
#[test]
fn every_codec_id_is_the_same() {
    for codec in [2, 3, 4, 5, 8, 9] {
        let frame = |time, frame_type: u8| {
            let body = [&[frame_type << 4 | codec, 0x34][..], b"a frame"].concat();
            Tag::new(VIDEO, time, body)
        };
        let tags = [frame(0, 1), frame(40, 2), frame(80, 3), frame(120, 1)];
        assert_same_packets(&format!("video codec {codec}"), &file(&tags));
    }
    for format in [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 14] {
        for flags in 0..16 {
            let sound = |time, payload: &[u8]| {
                Tag::new(AUDIO, time, [&[format << 4 | flags], payload].concat())
            };
            // Whole samples of any size: flvdemux sends parts of samples on.
            let tags = [
                sound(0, b"some"),
                sound(20, b"of sound"),
                sound(40, b"more"),
            ];
            let what = format!("sound format {format}, flags {flags}");
            assert_same_packets(&what, &file(&tags));
        }
    }
}
