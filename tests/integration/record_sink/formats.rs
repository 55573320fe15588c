// SPDX-License-Identifier: MPL-2.0

//! Containers and codecs.

use std::process::Command;

use support::clients::{NEW_FFMPEG, Running};
use support::flv::{self, AUDIO, Tag, VIDEO};
use support::media::{self, SMALL_VIDEO, TONE, made_by};
use support::synthetic::{audio_header, video_header};

use super::{Media, Recording, assert_holds, numbered, of_kind, probe, read, read_with};

fn stream(tags: &[Tag]) -> Vec<u8> {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    tags.iter().for_each(|tag| bytes.extend(tag.to_bytes()));
    bytes
}

#[test]
fn mp4_matroska_and_flv_hold_each_packet_unchanged() {
    let source = media::small(3);
    let bytes = std::fs::read(&source).unwrap();
    let tags = flv::parse(&bytes).unwrap();
    for name in ["out.mp4", "out.mkv", "out.flv"] {
        let (recording, finished) = Recording::of_bytes(&bytes, name);
        assert_eq!(finished.get::<String>("reason").unwrap(), "eos");
        let path = recording.path(name);
        assert_holds(std::slice::from_ref(&path), &tags);
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(finished.get::<u64>("bytes").unwrap(), length);
        assert!(recording.files(".part").is_empty());
        // Audio and video are as far from each other as they were.
        let of = |kind: u8| {
            let media = read(&path);
            media.iter().find(|media| media.kind == kind).unwrap().pts as i64 / 1_000_000
        };
        let sent = |kind: u8| {
            let tag = tags.iter().find(|tag| tag.kind == kind && tag.is_coded());
            let tag = tag.unwrap();
            let composition = if kind == VIDEO {
                i64::from(tag.body[4])
            } else {
                0
            };
            i64::from(tag.timestamp) + composition
        };
        let (got, expected) = (of(VIDEO) - of(AUDIO), sent(VIDEO) - sent(AUDIO));
        assert!(
            (got - expected).abs() <= 2,
            "{name}: {got} ms, {expected} ms"
        );
    }
}

/// Returns times since the first of them, in milliseconds and in the order of the file.
fn times_of(media: &[Media], kind: u8) -> Vec<u64> {
    let of_kind = media.iter().filter(|media| media.kind == kind);
    let times: Vec<u64> = of_kind.map(|media| media.pts / 1_000_000).collect();
    let first = times.iter().min().copied().unwrap_or(0);
    times.into_iter().map(|time| time - first).collect()
}

#[test]
fn each_codec_is_in_the_formats_that_have_it() {
    const BOTH: &[u8] = &[VIDEO, AUDIO];
    for (name, codecs, formats) in [
        (
            "h264-aac",
            "-c:v libx264 -preset veryfast -bf 2 -g 15 -c:a aac",
            &[("mp4", BOTH), ("mkv", BOTH), ("ts", BOTH), ("flv", BOTH)][..],
        ),
        (
            "h264-vfr",
            "-vf select=not(mod(n\\,3))+gt(mod(n\\,7)\\,4) -fps_mode vfr -c:v libx264 \
             -preset veryfast -bf 2 -g 9 -c:a libmp3lame -ar 44100",
            &[("mp4", BOTH), ("mkv", BOTH), ("ts", BOTH), ("flv", BOTH)],
        ),
        (
            "hevc-opus",
            "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=2:keyint=15 \
             -c:a libopus",
            &[("mp4", BOTH), ("mkv", BOTH), ("ts", BOTH)],
        ),
        (
            "av1-flac",
            "-c:v libsvtav1 -preset 12 -g 15 -c:a flac",
            &[("mp4", &[VIDEO]), ("mkv", BOTH)],
        ),
        (
            "vp9-ac3",
            "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 15 -c:a ac3",
            &[("mp4", BOTH), ("mkv", BOTH), ("ts", &[AUDIO])],
        ),
    ] {
        let arguments = format!("{SMALL_VIDEO} {TONE} -pix_fmt yuv420p -t 1 {codecs} -f flv");
        let source = made_by(&*NEW_FFMPEG, &format!("recorded-{name}.flv"), &arguments);
        let bytes = std::fs::read(&source).unwrap();
        // ffmpeg ends Opus with a packet without data.
        let mut sent = read_with("eflvdemux", &source);
        sent.retain(|media| !media.payload.is_empty());
        for (format, kinds) in formats {
            let (recording, _) = Recording::of_bytes(&bytes, &format!("out.{format}"));
            let path = recording.path(&format!("out.{format}"));
            let counts = probe(&path);
            for (kind, kind_name) in [(VIDEO, "video"), (AUDIO, "audio")] {
                let expected = if kinds.contains(&kind) {
                    times_of(&sent, kind)
                } else {
                    Vec::new()
                };
                let count = counts.get(kind_name).copied().unwrap_or(0);
                assert_eq!(count, expected.len(), "{kind_name} of {name} in {format}");
                // tsdemux joins packets of audio.
                if *format == "ts" {
                    continue;
                }
                let got = times_of(&read(&path), kind);
                let is_same = |(got, sent): (&u64, &u64)| got.abs_diff(*sent) <= 10;
                assert_eq!(
                    got.len(),
                    expected.len(),
                    "{kind_name} of {name} in {format}"
                );
                assert!(
                    got.iter().zip(&expected).all(is_same),
                    "{kind_name} of {name} in {format}: {got:?}, {expected:?}"
                );
            }
        }
    }
}

#[test]
fn tracks_that_begin_apart_stay_so_and_ffmpeg_copies_and_reads_all_of_them() {
    // Video has frames before its first one, and the rate of the audio has no whole milliseconds.
    let arguments = format!(
        "{SMALL_VIDEO} {TONE} -pix_fmt yuv420p -t 2 -c:v libx264 -preset veryfast -bf 2 -g 15 \
         -c:a aac -ar 44100 -f flv"
    );
    let source = made_by(&*NEW_FFMPEG, "recorded-44100.flv", &arguments);
    let bytes = std::fs::read(&source).unwrap();
    let sent = read_with("eflvdemux", &source);
    let first = |media: &[Media], kind: u8| {
        let times = media.iter().filter(|media| media.kind == kind);
        times
            .map(|media| media.pts as i64 / 1_000_000)
            .min()
            .unwrap()
    };
    let apart = |media: &[Media]| first(media, VIDEO) - first(media, AUDIO);
    assert!(apart(&sent) > 5, "{}", apart(&sent));
    for name in ["out.mp4", "out.mkv", "out.flv"] {
        let (recording, _) = Recording::of_bytes(&bytes, name);
        let path = recording.path(name);
        let got = apart(&read(&path));
        assert!(got.abs_diff(apart(&sent)) <= 2, "{name}: {got} ms");
        let mut ffmpeg = Command::new(&*NEW_FFMPEG);
        ffmpeg.args(["-v", "error", "-i"]).arg(&path);
        ffmpeg.args(["-map", "0", "-c", "copy", "-f", "framecrc", "-"]);
        let output = Running::spawn(&mut ffmpeg).wait();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.is_empty(), "{name}: {errors}");
        let lines = String::from_utf8_lossy(&output.stdout);
        for (stream, kind) in [("0,", VIDEO), ("1,", AUDIO)] {
            let copied = lines
                .lines()
                .filter(|line| line.starts_with(stream))
                .count();
            assert_eq!(copied, of_kind(&sent, kind).len(), "{name}, {stream}");
        }
    }
}

#[test]
fn a_transport_stream_holds_each_packet() {
    let source = media::small(3);
    let bytes = std::fs::read(&source).unwrap();
    let tags = flv::parse(&bytes).unwrap();
    let (recording, _) = Recording::of_bytes(&bytes, "out.ts");
    let counts = probe(&recording.path("out.ts"));
    for (name, kind) in [("video", VIDEO), ("audio", AUDIO)] {
        assert_eq!(counts[name], super::payloads(&tags, kind).len(), "{name}");
    }
}

#[test]
fn video_or_audio_alone_is_recorded() {
    for (kind, header) in [(VIDEO, video_header(0)), (AUDIO, audio_header(0))] {
        let mut tags = vec![header];
        tags.extend(numbered(0, 50, 0).into_iter().filter(|t| t.kind == kind));
        for name in ["out.mp4", "out.mkv"] {
            let (recording, _) = Recording::of_bytes(&stream(&tags), name);
            assert_holds(&[recording.path(name)], &tags);
        }
    }
}

#[test]
fn a_codec_that_the_format_lacks_is_left_out_with_a_warning() {
    let mut tags = vec![video_header(0)];
    for tag in numbered(0, 50, 0) {
        // Nellymoser has no place in MP4.
        tags.push(match tag.kind {
            AUDIO => Tag::new(AUDIO, tag.timestamp, [0x62, 1, 2, 3, 4]),
            _ => tag,
        });
    }
    let bytes = stream(&tags);
    let recording = Recording::start_source(&bytes, "out.mp4");
    let warning = recording.wait_for_warning("audio_0");
    assert!(warning.contains("not recorded"), "{warning}");
    recording.wait_for_eos();
    let media = read(&recording.path("out.mp4"));
    assert_eq!(of_kind(&media, VIDEO).len(), 50);
    assert_eq!(of_kind(&media, AUDIO).len(), 0);
    assert_eq!(recording.stat("dropped-codec"), 50);
}

#[test]
fn of_three_hundred_tracks_a_file_has_some_and_the_rest_is_told() {
    // Enhanced FLV, one track a tag: AVC and AAC.
    let video = |id: u8, time: u32, packet: u8, payload: &[u8]| {
        let mut body = vec![0x80 | 0x10 | 6, packet];
        body.extend(b"avc1");
        body.push(id);
        if packet == 1 {
            body.extend([0, 0, 0]);
        }
        body.extend(payload);
        Tag::new(VIDEO, time, body)
    };
    let audio = |id: u8, time: u32, packet: u8, payload: &[u8]| {
        let mut body = vec![0x90 | 5, packet];
        body.extend(b"mp4a");
        body.push(id);
        body.extend(payload);
        Tag::new(AUDIO, time, body)
    };
    let record = video_header(0).body[5..].to_vec();
    let mut tags = Vec::new();
    for id in 0..150 {
        tags.push(video(id, 0, 0, &record));
        tags.push(audio(id, 0, 0, &[0x11, 0x90]));
    }
    let frames = numbered(0, 30, 0);
    for pair in frames.chunks(2) {
        for id in 0..150 {
            tags.push(video(id, pair[0].timestamp, 1, &pair[0].body[5..]));
            tags.push(audio(id, pair[1].timestamp, 1, &pair[1].body[2..]));
        }
    }
    let bytes = stream(&tags);
    let recording = Recording::start_source(&bytes, "out.mkv");
    let warning = recording.wait_for_warning("is not recorded");
    assert!(warning.contains("32 tracks"), "{warning}");
    recording.wait_for_eos();
    let counts = probe(&recording.path("out.mkv"));
    assert_eq!(counts.values().sum::<usize>(), 32 * 30);
    assert_eq!(recording.stat("dropped-codec"), (300 - 32) * 30);
}
