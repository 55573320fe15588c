// SPDX-License-Identifier: MPL-2.0

//! Silence is silent: the decoders of GStreamer say so.

use super::*;
use gstrtmp2server::internal::flv::Silence;
use gstrtmp2server::internal::flv::config::OpusHead;

/// Frames that are decoded.
const FRAMES: u64 = 60;

/// Decodes a header and silence, and returns the samples.
fn decoded(header: Option<&[u8]>, silence: &Silence, name: &str) -> Vec<i16> {
    support::init();
    let folder = tempfile::tempdir().unwrap();
    let (file, raw) = (folder.path().join("in.flv"), folder.path().join("out.raw"));
    let mut bytes = FILE_HEADER.to_vec();
    bytes.extend(
        header
            .into_iter()
            .flat_map(|h| Tag::new(AUDIO, 0, h).to_bytes()),
    );
    for frame in 0..FRAMES {
        let time = silence.time(frame) as u32;
        bytes.extend(Tag::new(AUDIO, time, silence.body()).to_bytes());
    }
    std::fs::write(&file, bytes).unwrap();
    let text = format!(
        "filesrc location={} ! eflvdemux ! decodebin ! audioconvert ! \
         audio/x-raw,format=S16LE ! filesink location={}",
        file.display(),
        raw.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let patience = gst::ClockTime::try_from(support::PATIENCE).unwrap();
    let kinds = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Warning,
    ];
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(patience, &kinds).expect(name);
    pipeline.set_state(gst::State::Null).unwrap();
    let is_end = message.type_() == gst::MessageType::Eos;
    assert!(is_end, "{name}: {message:?}");
    let raw = std::fs::read(&raw).unwrap();
    let samples = raw
        .chunks_exact(2)
        .map(|s| i16::from_le_bytes([s[0], s[1]]));
    samples.collect()
}

#[track_caller]
fn assert_silent(name: &str, header: Option<&[u8]>, media: &[u8], channels: usize) {
    let silence = match header {
        Some(header) => Silence::of_header(header),
        None => Silence::of_media(media),
    };
    let silence = silence.unwrap_or_else(|| panic!("{name} has no silence"));
    let samples = decoded(header, &silence, name);
    // At 8 kHz or more, less what a decoder leaves out at the start.
    let least = (silence.time(FRAMES) as usize - 150) * 8 * channels;
    assert!(samples.len() >= least, "{name}: {} samples", samples.len());
    let loudest = samples.iter().map(|sample| sample.unsigned_abs()).max();
    assert!(loudest <= Some(8), "{name}: {loudest:?}");
}

#[test]
fn silence_of_aac_is_silent_in_every_usual_configuration() {
    // Object type 2: low complexity, with the index of the rate and the channels.
    for (rate, channels) in [(4, 1), (4, 2), (3, 2), (3, 6), (8, 1), (3, 7), (3, 4)] {
        let config = [0x10 | rate >> 1, (rate & 1) << 7 | channels << 3];
        let header = [&[0xAF, 0], &config[..]].concat();
        let name = format!("AAC {rate} {channels}");
        assert_silent(&name, Some(&header), &[], usize::from(channels));
    }
    // HE-AAC of 48 kHz, as it is announced, and with parametric stereo.
    assert_silent("HE-AAC", Some(&[0xAF, 0, 0x2B, 0x11, 0x88, 0]), &[], 2);
    assert_silent("HE-AAC v2", Some(&[0xAF, 0, 0xEB, 0x09, 0x88, 0]), &[], 1);
}

#[test]
fn silence_of_opus_is_silent() {
    for channels in [1, 2, 6] {
        let head = OpusHead::of_channels(channels).to_bytes();
        let header = [&b"\x90Opus"[..], &head].concat();
        let name = format!("Opus {channels}");
        assert_silent(&name, Some(&header), &[], usize::from(channels));
    }
}

#[test]
fn silence_of_codecs_without_a_header_is_silent() {
    // 44.1 kHz stereo and mono, 24 kHz.
    for (name, media, channels) in [
        ("MP3", &[0x2F, 0xFF, 0xFB, 0x90, 0x04, 0][..], 2),
        ("MP3 mono", &[0x2E, 0xFF, 0xFB, 0x90, 0xC4, 0], 1),
        ("MP3 24 kHz", &[0x2B, 0xFF, 0xF3, 0x84, 0x04, 0], 2),
        ("A-law", &[0x72, 1, 2, 3], 1),
        ("mu-law", &[0x82, 1, 2, 3], 1),
    ] {
        assert_silent(name, None, media, channels);
    }
}
