// SPDX-License-Identifier: MPL-2.0

//! Segments and playlists, read by independent programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use m3u8_rs::MediaPlaylist;

use support::clients::FFMPEG;

pub(super) fn playlist(stream: &Path) -> MediaPlaylist {
    let text = std::fs::read(stream.join("index.m3u8")).unwrap();
    m3u8_rs::parse_media_playlist_res(&text).unwrap()
}

/// The output of ffprobe for one file. Times are ticks of 90 kHz.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) video: Vec<Packet>,
    pub(super) audio: Vec<Packet>,
    /// Codec, profile, and rate and channels of sound.
    pub(super) streams: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) time: i64,
    pub(super) duration: i64,
    pub(super) is_key: bool,
}

/// Returns the segments of all files that are there, in their order.
pub(super) fn segments(stream: &Path) -> Vec<Segment> {
    let entries = std::fs::read_dir(stream).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ts"));
    paths.sort();
    paths.into_iter().map(probe).collect()
}

fn probe(path: PathBuf) -> Segment {
    let show =
        "stream=codec_name,profile,sample_rate,channels:packet=codec_type,pts,duration,flags";
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "compact=p=1", "-show_entries", show])
        .arg(&path)
        .output();
    let output = output.unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let mut segment = Segment {
        path,
        ..Segment::default()
    };
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let value = |key: &str| {
            let mut fields = line.split('|').filter_map(|field| field.split_once('='));
            fields
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        if line.starts_with("stream|") {
            let values = ["codec_name", "profile", "sample_rate", "channels"];
            let values: Vec<_> = values.into_iter().filter_map(value).collect();
            let stream = values.join(" ");
            // ffprobe shows those of programs once more.
            if !segment.streams.contains(&stream) {
                segment.streams.push(stream);
            }
        } else if line.starts_with("packet|") {
            let number = |key| value(key).unwrap().parse().unwrap_or(0);
            let packet = Packet {
                time: number("pts"),
                duration: number("duration"),
                is_key: value("flags").unwrap().starts_with('K'),
            };
            match value("codec_type") {
                Some("video") => segment.video.push(packet),
                _ => segment.audio.push(packet),
            }
        }
    }
    segment
}

const FRAME: i64 = 3000;

/// Asserts the relay's promises about each segment with both tracks.
#[track_caller]
pub(super) fn assert_clean(segments: &[Segment]) {
    for segment in segments {
        assert_pictures(segment);
        let [video, audio] = [&segment.video, &segment.audio];
        // Less than a listener notices: sound is in frames of 21 ms.
        let skew = (audio[0].time - video[0].time).abs();
        assert!(skew <= 2 * FRAME, "{skew} in {}", segment.path.display());
        let ends = [video, audio].map(|packets| packets.last().unwrap().time);
        assert!(
            (ends[0] - ends[1]).abs() <= 3 * FRAME,
            "{ends:?} in {}",
            segment.path.display()
        );
        for pair in audio.windows(2) {
            assert!((pair[1].time - pair[0].time - 1920).abs() <= 1, "{pair:?}");
        }
        assert!(segment.streams.contains(&"aac LC 48000 2".to_owned()));
    }
}

#[track_caller]
pub(super) fn assert_pictures(segment: &Segment) {
    let video = &segment.video;
    assert_eq!(video.len(), 60, "{}", segment.path.display());
    assert_eq!(video.iter().filter(|packet| packet.is_key).count(), 1);
    assert!(video[0].is_key, "it starts with its IDR picture");
    for pair in video.windows(2) {
        assert_eq!(pair[1].time - pair[0].time, FRAME, "{pair:?}");
        assert_eq!(pair[0].duration, FRAME);
    }
    let profile = "h264 Constrained Baseline";
    assert!(
        segment.streams.iter().any(|stream| stream == profile),
        "{:?}",
        segment.streams
    );
}

/// Asserts that each segment continues where the one before ended.
#[track_caller]
pub(super) fn assert_goes_on(segments: &[Segment]) {
    for pair in segments.windows(2) {
        let [before, after] = [&pair[0].video, &pair[1].video];
        assert_eq!(after[0].time - before.last().unwrap().time, FRAME);
    }
}

/// Asserts that the whole list plays without an error.
#[track_caller]
pub(super) fn assert_plays(stream: &Path) {
    // It stays open for a while, and ffmpeg would wait for more.
    let open = std::fs::read_to_string(stream.join("index.m3u8")).unwrap();
    let ended = stream.join("ended.m3u8");
    std::fs::write(&ended, open + "#EXT-X-ENDLIST\n").unwrap();
    let output = Command::new(FFMPEG)
        .args(["-nostdin", "-v", "error", "-xerror", "-i"])
        .arg(ended)
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
}
