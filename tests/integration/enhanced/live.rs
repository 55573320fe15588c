// SPDX-License-Identifier: MPL-2.0

//! Every codec from a publisher through both elements into a decoder.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::codecs::{LEGACY, Seen, YUV, hdr10, new_file, seen_by_ffmpeg, speex};
use support::clients::{FFMPEG, NEW_FFMPEG, ffmpeg, publish};
use support::demuxer::{Packet, demux};
use support::flv::VIDEO;
use support::media::{SMALL_VIDEO, TONE, copy, made_by};
use support::raw::RawClient;
use support::recorder::Recorder;

/// Output of a pad, and the amount that a decoder made of it: video frames, bytes of 16-bit audio.
#[derive(Clone, Default)]
struct Pad {
    name: String,
    caps: Option<gst::Caps>,
    packets: Arc<Mutex<Vec<Packet>>>,
    decoded: Option<Arc<AtomicU64>>,
}

/// Returns the decoder for caps, or None where GStreamer 1.22 has none.
fn decoder(caps: &gst::StructureRef) -> Option<&'static str> {
    let is_mp3 = caps.get::<i32>("mpegversion") == Ok(1);
    Some(match caps.name().as_str() {
        "video/x-h264" => "h264parse ! avdec_h264",
        "video/x-h265" => "h265parse ! avdec_h265",
        "video/x-av1" => "av1parse ! av1dec",
        "video/x-vp9" => "vp9dec",
        "video/x-vp8" => "vp8dec",
        "video/x-flash-video" => "avdec_flv",
        "video/x-flash-screen" => "avdec_flashsv",
        "video/x-h266" => return None,
        "audio/mpeg" if is_mp3 => "mpegaudioparse ! avdec_mp3",
        "audio/mpeg" => "aacparse ! avdec_aac",
        "audio/x-opus" => "opusdec",
        "audio/x-flac" => "flacparse ! flacdec",
        "audio/x-ac3" => "ac3parse ! avdec_ac3",
        "audio/x-eac3" => "ac3parse ! avdec_eac3",
        "audio/x-raw" => "identity",
        "audio/x-alaw" => "alawdec",
        "audio/x-mulaw" => "mulawdec",
        "audio/x-nellymoser" => "avdec_nellymoser",
        "audio/x-adpcm" => "avdec_adpcm_swf",
        "audio/x-speex" => "speexdec",
        other => panic!("what is {other}?"),
    })
}

/// Collects the output of the demuxer `d`, and decodes it where there is a decoder.
fn collect_output(recorder: &Recorder) -> Arc<Mutex<Vec<Pad>>> {
    let pads = Arc::new(Mutex::new(Vec::new()));
    let kept = pads.clone();
    let pipeline = recorder.pipeline.downgrade();
    let demuxer = recorder.pipeline.by_name("d").unwrap();
    demuxer.connect_pad_added(move |_, pad| {
        let pipeline = pipeline.upgrade().unwrap();
        let caps = pad.current_caps().unwrap();
        let caps = caps.structure(0).unwrap();
        let end = match caps.name().split_once('/').unwrap().0 {
            "video" => "identity",
            _ => "audioconvert ! audio/x-raw,format=S16LE",
        };
        let text = match decoder(caps) {
            Some(decoder) => format!("{decoder} ! {end}"),
            None => "identity".into(),
        };
        let text = format!(
            "queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! {text} ! \
             fakesink name=end sync=false async=false"
        );
        let bin = gst::parse::bin_from_description(&text, true).unwrap();
        let mut new = Pad {
            name: pad.name().into(),
            caps: pad.current_caps(),
            ..Pad::default()
        };
        if decoder(caps).is_some() {
            let count = Arc::new(AtomicU64::new(0));
            let counted = count.clone();
            let is_video = end == "identity";
            let sink = bin.by_name("end").unwrap().static_pad("sink").unwrap();
            sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                    let amount = if is_video { 1 } else { buffer.size() as u64 };
                    counted.fetch_add(amount, Ordering::Relaxed);
                }
                gst::PadProbeReturn::Ok
            });
            new.decoded = Some(count);
        }
        let packets = new.packets.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                packets.lock().unwrap().push(Packet::of(buffer));
            }
            gst::PadProbeReturn::Ok
        });
        kept.lock().unwrap().push(new);
        pipeline.add(&bin).unwrap();
        bin.sync_state_with_parent().unwrap();
        pad.link(&bin.static_pad("sink").unwrap()).unwrap();
    });
    pads
}

/// Returns the amount that ffmpeg decodes of a stream: frames of video, bytes of 16-bit audio.
pub fn decoded_by_ffmpeg(file: &Path, stream: &str) -> u64 {
    let format = if stream.starts_with('v') {
        "-fps_mode passthrough -f framecrc"
    } else {
        "-c:a pcm_s16le -f s16le"
    };
    let arguments = format!("-i {} -map 0:{stream} {format} -", file.display());
    let output = ffmpeg(&*NEW_FFMPEG, &arguments).wait();
    assert!(output.status.success(), "{stream} of {}", file.display());
    if !stream.starts_with('v') {
        return output.stdout.len() as u64;
    }
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).count() as u64
}

/// Returns the bytes of encoder delay that ffmpeg cuts off and GStreamer's decoder does not. All
/// other codecs here have no delay, or FLV has no field for it, and neither cuts anything off.
fn encoder_delay(caps: &gst::StructureRef) -> u64 {
    if caps.name() != "audio/x-opus" {
        return 0;
    }
    let headers: gst::Array = caps.get("streamheader").unwrap();
    let head = headers[0].get::<gst::Buffer>().unwrap();
    let head = head.map_readable().unwrap();
    let samples = u16::from_le_bytes([head[10], head[11]]);
    let channels: i32 = caps.get("channels").unwrap();
    assert!(samples > 0);
    u64::from(samples) * channels as u64 * 2
}

/// Publishes a file, and compares the output with the packets that ffmpeg reads from the same tags.
#[track_caller]
fn assert_output_is_complete(program: &Path, file: &Path, pads: &[&str]) {
    let sent = copy(program, file);
    let recorder = Recorder::start_into("timestamp-mode=publisher", "eflvdemux name=d");
    let outputs = collect_output(&recorder);
    publish(program, file, false, &recorder.url("live/key")).succeed();
    recorder.wait_for(gst::MessageType::Eos);

    let by_itself = demux("eflvdemux", &std::fs::read(&sent).unwrap(), 1 << 20);
    let mut expected = seen_by_ffmpeg(&sent);
    let mut outputs = outputs.lock().unwrap().clone();
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = outputs.iter().map(|pad| &pad.name[..]).collect();
    assert_eq!(names, pads);
    for pad in &outputs {
        let packets = pad.packets.lock().unwrap();
        let got: Vec<Seen> = packets.iter().map(Seen::of).collect();
        let found = expected.iter().position(|stream| *stream == got);
        let Some(found) = found else {
            for stream in &expected {
                eprintln!("{:?}\nis not {:?}", stream.first(), got.first());
            }
            panic!("{}: {} packets differ", pad.name, got.len());
        };
        expected.remove(found);
        let by_itself = by_itself[&pad.name].caps.last();
        assert_eq!(pad.caps.as_ref(), by_itself, "{}", pad.name);

        let stream = pad.name.replace("video_", "v:").replace("audio_", "a:");
        let by_ffmpeg = decoded_by_ffmpeg(&sent, &stream);
        assert!(by_ffmpeg > 0, "{}", pad.name);
        match &pad.decoded {
            Some(decoded) => {
                let decoded = decoded.load(Ordering::Relaxed);
                let caps = pad.caps.as_ref().unwrap().structure(0).unwrap();
                assert_eq!(decoded, by_ffmpeg + encoder_delay(caps), "{}", pad.name);
            }
            // ffmpeg decodes the output of the source.
            None => {
                let mut left = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
                std::io::Write::write_all(&mut left, &recorder.bytes()).unwrap();
                assert_eq!(decoded_by_ffmpeg(left.path(), &stream), by_ffmpeg);
            }
        }
    }
    assert!(
        expected.is_empty(),
        "{} streams are missing",
        expected.len()
    );
}

fn assert_both(name: &str, codecs: &str) {
    let file = new_file(name, &format!("{SMALL_VIDEO} {TONE} {YUV} {codecs}"));
    assert_output_is_complete(&NEW_FFMPEG, &file, &["audio_0", "video_0"]);
}

fn assert_audio(name: &str, codec: &str) {
    let file = new_file(name, &format!("{TONE} -t 2 {codec}"));
    assert_output_is_complete(&NEW_FFMPEG, &file, &["audio_0"]);
}

#[test]
fn h264_and_aac() {
    assert_both("h264", "-c:v libx264 -bf 2 -g 15 -c:a aac");
}

#[test]
fn hevc_and_opus() {
    assert_both(
        "hevc",
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=2:keyint=15 \
         -c:a libopus",
    );
}

#[test]
fn hevc_of_ten_bits() {
    assert_output_is_complete(&NEW_FFMPEG, &hdr10(), &["video_0"]);
}

#[test]
fn av1_and_flac() {
    assert_both("av1", "-c:v libsvtav1 -preset 12 -g 30 -c:a flac");
}

#[test]
fn vp9_and_ac3() {
    assert_both(
        "vp9",
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a ac3",
    );
}

#[test]
fn vvc() {
    let file = new_file(
        "vvc",
        "-f lavfi -i testsrc2=size=160x128:rate=10 -t 1 -pix_fmt yuv420p10le -c:v libvvenc -preset faster",
    );
    assert_output_is_complete(&NEW_FFMPEG, &file, &["video_0"]);
}

/// Returns the frames of an IVF file, each with its time in milliseconds.
fn frames_of_ivf(file: &Path) -> Vec<(u32, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (rate, scale) = (number(16), number(20));
    let mut frames = Vec::new();
    let mut at = 32;
    while at < bytes.len() {
        let (length, time) = (number(at) as usize, number(at + 4));
        let start = at + 12;
        frames.push((
            time * 1000 * scale / rate,
            bytes[start..start + length].to_vec(),
        ));
        at = start + length;
    }
    frames
}

/// No available program puts VP8 into FLV, so this test makes the tags.
#[test]
fn vp8() {
    let file = made_by(
        &*NEW_FFMPEG,
        "enhanced-vp8.ivf",
        &format!("{SMALL_VIDEO} -t 2 -c:v libvpx -deadline realtime -f ivf"),
    );
    let frames = frames_of_ivf(&file);
    let recorder = Recorder::start_into("timestamp-mode=publisher", "eflvdemux name=d");
    let outputs = collect_output(&recorder);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for (time, frame) in &frames {
        // The lowest bit is zero for a keyframe.
        let first = if frame[0] & 1 == 0 { 0x91 } else { 0xA1 };
        let body = [&[first], &b"vp08"[..], frame].concat();
        client.media(VIDEO, *time, &body, 128);
    }
    drop(client);
    recorder.wait_for(gst::MessageType::Eos);
    let pads = outputs.lock().unwrap();
    let [pad] = &pads[..] else {
        panic!("{} pads", pads.len());
    };
    let packets = pad.packets.lock().unwrap();
    let got: Vec<_> = packets
        .iter()
        .map(|p| (p.pts_millis() as u32, p.data.clone()))
        .collect();
    assert!(got == frames);
    let decoded = pad.decoded.as_ref().unwrap().load(Ordering::Relaxed);
    assert_eq!(decoded, decoded_by_ffmpeg(&file, "v:0"));
    assert_eq!(decoded, frames.len() as u64);
}

#[test]
fn many_channels() {
    assert_audio("aac-5.1", "-ac 6 -c:a aac");
    assert_audio("opus-5.1", "-ac 6 -c:a libopus");
    assert_audio("eac3-5.1", "-ac 6 -c:a eac3");
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
        assert_output_is_complete(&NEW_FFMPEG, &file, &[pad]);
    }
    assert_output_is_complete(Path::new(FFMPEG), &speex(), &["audio_0"]);
}

#[test]
fn several_tracks() {
    let two = new_file(
        "multitrack",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} {YUV} -map 0 -map 1 -map 2 -map 3 \
             -c:v libx264 -preset ultrafast -bf 2 -g 15 -filter:v:1 scale=160:120 -c:a aac -ac:a:1 2"
        ),
    );
    let pads = ["audio_0", "audio_1", "video_0", "video_1"];
    assert_output_is_complete(&NEW_FFMPEG, &two, &pads);
    let mixed = new_file(
        "mixed",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} {YUV} -map 0 -map 1 -map 2 -map 3 \
             -c:v:0 libx264 -preset:v:0 ultrafast -c:v:1 libx265 -preset:v:1 ultrafast \
             -x265-params log-level=none -c:a:0 aac -c:a:1 libopus"
        ),
    );
    assert_output_is_complete(&NEW_FFMPEG, &mixed, &pads);
    let audio = new_file(
        "three-audio",
        &format!(
            "{TONE} {TONE} {TONE} -t 2 -map 0 -map 1 -map 2 -c:a:0 aac -c:a:1 libopus -c:a:2 flac"
        ),
    );
    assert_output_is_complete(&NEW_FFMPEG, &audio, &["audio_0", "audio_1", "audio_2"]);
}
