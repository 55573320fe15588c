// SPDX-License-Identifier: MPL-2.0

//! Files that ffmpeg makes: the demuxer's output equals ffmpeg's own packets.

use std::collections::BTreeMap;
use std::path::Path;

use support::clients::{FFMPEG, NEW_FFMPEG, ffmpeg};
use support::demuxer::{Packet, Track, Tracks, demux};
use support::media::{SMALL_VIDEO, TONE, made_by};

/// One packet: times in milliseconds, and the payload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    dts: i64,
    pts: i64,
    size: usize,
    hash: String,
}

impl Seen {
    pub fn of(packet: &Packet) -> Self {
        Seen {
            dts: packet.dts_millis(),
            pts: packet.pts_millis(),
            size: packet.data.len(),
            hash: packet.hash(),
        }
    }
}

/// Returns the packets of each stream as ffmpeg reads them.
pub fn seen_by_ffmpeg(file: &Path) -> Vec<Vec<Seen>> {
    let arguments = format!(
        "-copyts -i {} -map 0 -c copy -copyts -avoid_negative_ts disabled -f framehash -hash sha256 -",
        file.display()
    );
    let output = ffmpeg(&*NEW_FFMPEG, &arguments).wait();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut streams = BTreeMap::<usize, Vec<Seen>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [stream, dts, pts, _, size, hash] = fields[..] else {
            panic!("{line}");
        };
        let seen = Seen {
            dts: dts.parse().unwrap(),
            pts: pts.parse().unwrap(),
            size: size.parse().unwrap(),
            hash: hash.to_owned(),
        };
        // Empty packets are not sent on.
        if seen.size > 0 {
            streams
                .entry(stream.parse().unwrap())
                .or_default()
                .push(seen);
        }
    }
    streams.into_values().collect()
}

/// Each track has the packets of one stream of ffmpeg, whatever the size of the input buffers.
#[track_caller]
pub(super) fn assert_as_ffmpeg(file: &Path, pads: &[&str]) -> Tracks {
    let bytes = std::fs::read(file).unwrap();
    let tracks = demux("eflvdemux", &bytes, 4096);
    for piece in [bytes.len(), 7] {
        let again = demux("eflvdemux", &bytes, piece);
        for (name, track) in &tracks {
            assert!(
                track.packets == again[name].packets,
                "{name} in pieces of {piece}"
            );
            assert_eq!(track.caps, again[name].caps);
        }
    }
    let names: Vec<&str> = tracks.keys().map(String::as_str).collect();
    assert_eq!(names, pads);
    let mut expected = seen_by_ffmpeg(file);
    for (name, track) in &tracks {
        let got: Vec<Seen> = track.packets.iter().map(Seen::of).collect();
        assert!(track.is_ended(), "{name}");
        assert_eq!(track.caps.len(), 1, "{name}: {:?}", track.caps);
        let found = expected.iter().position(|stream| *stream == got);
        let Some(found) = found else {
            // The most similar stream shows the difference.
            let like = expected
                .iter()
                .find(|s| s.first().map(|p| &p.hash) == got.first().map(|p| &p.hash));
            let like = like.or(expected.first());
            for (index, pair) in like.unwrap().iter().zip(&got).enumerate() {
                assert_eq!(pair.0, pair.1, "{name}, packet {index}");
            }
            panic!("{name}: {} packets, not {}", got.len(), like.unwrap().len());
        };
        expected.remove(found);
    }
    assert!(
        expected.is_empty(),
        "{} streams are missing",
        expected.len()
    );
    tracks
}

pub fn new_file(name: &str, arguments: &str) -> std::path::PathBuf {
    let name = format!("enhanced-{name}.flv");
    made_by(&*NEW_FFMPEG, &name, &format!("{arguments} -f flv"))
}

#[track_caller]
fn assert_caps(track: &Track, expected: &str) {
    let expected: gst::Caps = expected.parse().unwrap();
    let caps = track.caps.last().unwrap();
    assert!(caps.is_subset(&expected), "{caps} is not {expected}");
}

pub const YUV: &str = "-pix_fmt yuv420p -t 2";

#[test]
fn h264_and_aac() {
    let file = new_file(
        "h264",
        &format!("{SMALL_VIDEO} {TONE} {YUV} -c:v libx264 -bf 2 -g 15 -c:a aac"),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "video_0"]);
    assert_caps(
        &tracks["video_0"],
        "video/x-h264, stream-format=avc, alignment=au, width=320, height=240, profile=high",
    );
    assert_caps(
        &tracks["audio_0"],
        "audio/mpeg, mpegversion=4, stream-format=raw, framed=true, rate=48000, channels=1",
    );
    let video = &tracks["video_0"].packets;
    assert!(video.iter().any(|packet| packet.pts > packet.dts));
    assert_eq!(video.iter().filter(|packet| !packet.is_delta).count(), 4);
}

#[test]
fn hevc_and_opus() {
    let file = new_file(
        "hevc",
        &format!(
            "{SMALL_VIDEO} {TONE} {YUV} -c:v libx265 -preset ultrafast \
             -x265-params log-level=none:bframes=2:keyint=15 -c:a libopus"
        ),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "video_0"]);
    assert_caps(
        &tracks["video_0"],
        "video/x-h265, stream-format=hvc1, alignment=au, width=320, height=240, profile=main",
    );
    assert_caps(
        &tracks["audio_0"],
        "audio/x-opus, channel-mapping-family=0, channels=1, rate=48000",
    );
}

/// Returns a file of 10-bit HEVC with HDR10 metadata.
pub fn hdr10() -> std::path::PathBuf {
    // ffmpeg writes the metadata of frames, and decoded frames have it.
    let first = made_by(
        &*NEW_FFMPEG,
        "enhanced-hdr.mkv",
        &format!(
            "{SMALL_VIDEO} -t 1 -vf setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc \
             -pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -x265-params \
             log-level=none:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400"
        ),
    );
    new_file(
        "hdr10",
        &format!(
            "-i {} -c:v libx265 -preset ultrafast -x265-params log-level=none",
            first.display()
        ),
    )
}

#[test]
fn hevc_with_high_dynamic_range() {
    let tracks = assert_as_ffmpeg(&hdr10(), &["video_0"]);
    let caps = tracks["video_0"].last_caps();
    assert_eq!(caps.get::<&str>("profile"), Ok("main-10"));
    assert_eq!(caps.get::<&str>("colorimetry"), Ok("0:6:14:7"));
    assert_eq!(caps.get::<&str>("content-light-level"), Ok("1000:400"));
    assert_eq!(
        caps.get::<&str>("mastering-display-info"),
        Ok("34000:16000:13250:34500:7500:3000:15635:16450:10000000:1")
    );
}

#[test]
fn av1_and_flac() {
    let file = new_file(
        "av1",
        &format!("{SMALL_VIDEO} {TONE} {YUV} -c:v libsvtav1 -preset 12 -g 30 -c:a flac"),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "video_0"]);
    assert_caps(
        &tracks["video_0"],
        "video/x-av1, stream-format=obu-stream, alignment=tu, width=320, height=240, profile=main",
    );
    assert_caps(
        &tracks["audio_0"],
        "audio/x-flac, framed=true, rate=48000, channels=1",
    );
}

#[test]
fn vp9_and_ac3() {
    let file = new_file(
        "vp9",
        &format!(
            "{SMALL_VIDEO} {TONE} {YUV} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a ac3"
        ),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "video_0"]);
    assert_caps(
        &tracks["video_0"],
        "video/x-vp9, profile=(string)0, width=320, height=240",
    );
    assert_caps(
        &tracks["audio_0"],
        "audio/x-ac3, framed=true, rate=48000, channels=1",
    );
}

#[test]
fn vvc() {
    let file = new_file(
        "vvc",
        "-f lavfi -i testsrc2=size=160x128:rate=10 -t 1 -pix_fmt yuv420p10le -c:v libvvenc -preset faster",
    );
    let tracks = assert_as_ffmpeg(&file, &["video_0"]);
    assert_caps(
        &tracks["video_0"],
        "video/x-h266, stream-format=vvc1, alignment=au",
    );
}

#[test]
fn many_channels() {
    let file = new_file("aac-5.1", &format!("{TONE} -t 2 -ac 6 -c:a aac"));
    let tracks = assert_as_ffmpeg(&file, &["audio_0"]);
    assert_caps(&tracks["audio_0"], "audio/mpeg, channels=6, rate=48000");

    let file = new_file("opus-5.1", &format!("{TONE} -t 2 -ac 6 -c:a libopus"));
    let tracks = assert_as_ffmpeg(&file, &["audio_0"]);
    assert_caps(
        &tracks["audio_0"],
        "audio/x-opus, channel-mapping-family=1, channels=6, stream-count=4, coupled-count=2",
    );

    let file = new_file("eac3-5.1", &format!("{TONE} -t 2 -ac 6 -c:a eac3"));
    let tracks = assert_as_ffmpeg(&file, &["audio_0"]);
    assert_caps(
        &tracks["audio_0"],
        "audio/x-eac3, framed=true, channels=6, rate=48000",
    );
}

/// Name, arguments of ffmpeg and caps of codecs without an ex-header.
pub const LEGACY: &[(&str, &str, &str)] = &[
    (
        "flv1",
        "-f lavfi -i testsrc2=size=320x240:rate=30 -t 2 -pix_fmt yuv420p -c:v flv",
        "video/x-flash-video, flvversion=1, width=320, height=240",
    ),
    (
        "flashsv",
        "-f lavfi -i testsrc2=size=320x240:rate=10 -t 2 -c:v flashsv",
        "video/x-flash-screen, width=320, height=240",
    ),
    (
        "mp3",
        "-f lavfi -i sine -t 2 -c:a libmp3lame -ar 44100",
        "audio/mpeg, mpegversion=1, layer=3, rate=44100, channels=1",
    ),
    (
        "pcm",
        "-f lavfi -i sine -t 2 -c:a pcm_s16le -ar 44100 -ac 2",
        "audio/x-raw, format=S16LE, layout=interleaved, rate=44100, channels=2",
    ),
    (
        "pcm-8",
        "-f lavfi -i sine -t 2 -c:a pcm_u8 -ar 11025 -ac 1",
        "audio/x-raw, format=U8, layout=interleaved, rate=11025, channels=1",
    ),
    (
        "alaw",
        "-f lavfi -i sine -t 2 -c:a pcm_alaw -ar 8000 -ac 1",
        "audio/x-alaw, rate=8000, channels=1",
    ),
    (
        "mulaw",
        "-f lavfi -i sine -t 2 -c:a pcm_mulaw -ar 8000 -ac 1",
        "audio/x-mulaw, rate=8000, channels=1",
    ),
    (
        "nellymoser",
        "-f lavfi -i sine -t 2 -c:a nellymoser -ar 22050 -ac 1",
        "audio/x-nellymoser, rate=22050, channels=1",
    ),
    (
        "adpcm",
        "-f lavfi -i sine -t 2 -c:a adpcm_swf -ar 22050 -ac 1",
        "audio/x-adpcm, layout=swf, rate=22050, channels=1",
    ),
];

/// Returns a file that the newer ffmpeg can't make.
pub fn speex() -> std::path::PathBuf {
    made_by(
        FFMPEG,
        "enhanced-speex.flv",
        "-f lavfi -i sine -t 2 -c:a libspeex -ar 16000 -ac 1 -f flv",
    )
}

#[test]
fn legacy_codecs() {
    for (name, arguments, caps) in LEGACY {
        let file = new_file(name, arguments);
        let pad = if caps.starts_with("video") {
            "video_0"
        } else {
            "audio_0"
        };
        let tracks = assert_as_ffmpeg(&file, &[pad]);
        assert_caps(&tracks[pad], caps);
    }
    let tracks = assert_as_ffmpeg(&speex(), &["audio_0"]);
    assert_caps(&tracks["audio_0"], "audio/x-speex, rate=16000, channels=1");
}

#[test]
fn two_tracks_of_each() {
    let file = new_file(
        "multitrack",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} {YUV} -map 0 -map 1 -map 2 -map 3 \
             -c:v libx264 -preset ultrafast -bf 2 -g 15 -filter:v:1 scale=160:120 -c:a aac -ac:a:1 2"
        ),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "audio_1", "video_0", "video_1"]);
    assert_caps(&tracks["video_1"], "video/x-h264, width=160, height=120");
    assert_caps(&tracks["audio_1"], "audio/mpeg, channels=2");
}

#[test]
fn three_tracks_of_audio() {
    let file = new_file(
        "three-audio",
        &format!(
            "{TONE} {TONE} {TONE} -t 2 -map 0 -map 1 -map 2 -c:a:0 aac -c:a:1 libopus -c:a:2 flac"
        ),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "audio_1", "audio_2"]);
    assert_caps(&tracks["audio_2"], "audio/x-flac");
}

#[test]
fn tracks_of_mixed_codecs() {
    let file = new_file(
        "mixed",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} {YUV} -map 0 -map 1 -map 2 -map 3 \
             -c:v:0 libx264 -preset:v:0 ultrafast -c:v:1 libx265 -preset:v:1 ultrafast \
             -x265-params log-level=none -c:a:0 aac -c:a:1 libopus"
        ),
    );
    let tracks = assert_as_ffmpeg(&file, &["audio_0", "audio_1", "video_0", "video_1"]);
    assert_caps(&tracks["video_1"], "video/x-h265, stream-format=hvc1");
    assert_caps(&tracks["audio_1"], "audio/x-opus");
}
