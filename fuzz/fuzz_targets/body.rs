// SPDX-License-Identifier: MPL-2.0

//! Any bytes as a whole tag body, parsed and written again. The first byte selects the kind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::flv::body::{
    AudioBody, AudioPacket, ColorInfo, ExVideo, ExVideoContent, Metadata, Script, VideoBody,
    VideoPacket,
};
use rtmp2server_core::flv::time_of_day::{BroadcastMetrics, of_script};
use rtmp2server_core::flv::{CodedPicture, PictureCodec, config};
use rtmp2server_core::meter;

/// Returns the most memory that a body of this length may cost: each track of a list costs its
/// place, and an AMF value of one byte costs a value.
fn allowance(length: usize) -> usize {
    4096 + 200 * length
}

fn configurations(bytes: &[u8]) {
    let _ = config::AvcConfig::parse(bytes);
    let _ = config::HevcConfig::parse(bytes);
    let _ = config::Av1Config::parse(bytes);
    let _ = config::Av1Config::record_of_descriptor(bytes);
    let _ = config::VpxConfig::parse(bytes);
    let _ = config::AudioSpecificConfig::parse(bytes);
    let _ = config::AdtsHeader::parse(bytes);
    let _ = config::FlacConfig::parse(bytes);
    let _ = config::Ac3Header::parse(bytes);
    let _ = config::Mp3Header::parse(bytes);
    if let Some(head) = config::OpusHead::parse(bytes)
        && head.family != 0
    {
        let again = config::OpusHead::parse(&head.to_bytes());
        assert_eq!(again, Some(head));
    }
}

fn metrics(data: &[u8]) {
    use PictureCodec::{Av1, Avc, Hevc, Vvc};
    for codec in [Avc, Hevc, Vvc, Av1] {
        let picture = CodedPicture {
            codec,
            nal_length_size: 4,
            data,
        };
        let (_, held) = meter::peak(|| BroadcastMetrics::find(&picture));
        assert!(held <= 2 * 4096 + 1024, "{held} bytes held");
    }
}

fn video(body: &[u8]) {
    metrics(body);
    let (parsed, held) = meter::peak(|| VideoBody::parse(body));
    assert!(held <= allowance(body.len()), "{held} bytes held");
    let Ok(parsed) = parsed else {
        return;
    };
    let mut written = Vec::new();
    parsed.write(&mut written);
    assert_eq!(VideoBody::parse(&written).as_ref(), Ok(&parsed));
    if let VideoBody::Avc { payload, .. } = parsed {
        configurations(payload);
    }
    if let VideoBody::Ex(ExVideo {
        content: ExVideoContent::Tracks(tracks),
        ..
    }) = &parsed
    {
        for (_, track) in tracks.iter() {
            match track.packet {
                VideoPacket::SequenceStart(body) | VideoPacket::Mpeg2TsSequenceStart(body) => {
                    configurations(body);
                }
                VideoPacket::Metadata(body) => {
                    let _ = ColorInfo::parse(body);
                }
                _ => {}
            }
        }
    }
}

fn audio(body: &[u8]) {
    let (parsed, held) = meter::peak(|| AudioBody::parse(body));
    assert!(held <= allowance(body.len()), "{held} bytes held");
    let Ok(parsed) = parsed else {
        return;
    };
    let mut written = Vec::new();
    parsed.write(&mut written);
    assert_eq!(AudioBody::parse(&written).as_ref(), Ok(&parsed));
    match &parsed {
        AudioBody::Aac { payload, .. } | AudioBody::Legacy { payload, .. } => {
            configurations(payload);
        }
        AudioBody::Ex(ex) => {
            for (_, track) in ex.tracks.iter() {
                if let AudioPacket::SequenceStart(body) | AudioPacket::CodedFrames(body) =
                    track.packet
                {
                    configurations(body);
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => audio(body),
        1 => video(body),
        _ => {
            let _ = of_script(body);
            let (script, held) = meter::peak(|| Script::parse(body));
            assert!(held <= allowance(body.len()), "{held} bytes held");
            if let Some(metadata) = script.ok().and_then(Metadata::of) {
                let _ = metadata.video(1, "width");
                let _ = metadata.tracks("audioTrackIdInfoMap").count();
            }
        }
    }
});
