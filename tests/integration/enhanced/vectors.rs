// SPDX-License-Identifier: MPL-2.0

//! The conformance vectors: the demuxer's output of each file equals its description, and the files
//! equal the output of their generator.

#[path = "../../vectors/mod.rs"]
mod generator;

use std::path::PathBuf;

use serde_json::{Value, json};

use support::demuxer::{Demuxer, Packet, Track};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/enhanced-flv")
}

#[test]
fn the_files_equal_the_output_of_the_generator() {
    let mut names = vec!["README.md".to_owned(), "vectors.json".to_owned()];
    for vector in generator::all() {
        let name = vector.file_name();
        assert!(
            std::fs::read(folder().join(&name)).unwrap() == vector.bytes,
            "{name}"
        );
        names.push(name);
    }
    let text = std::fs::read_to_string(folder().join("vectors.json")).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(description, generator::description());
    let present = std::fs::read_dir(folder()).unwrap();
    let mut present: Vec<_> = present
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    present.sort();
    names.sort();
    assert_eq!(present, names);
}

fn seen(packet: &Packet) -> Value {
    json!({
        "dts": packet.dts,
        "pts": packet.pts,
        "key": !packet.is_delta,
        "payload": generator::hex(&packet.data),
    })
}

fn media_type(codec: &str) -> &'static str {
    match codec {
        "vp08" => "video/x-vp8",
        "vp09" => "video/x-vp9",
        "av01" => "video/x-av1",
        "avc1" => "video/x-h264",
        "hvc1" => "video/x-h265",
        "vvc1" => "video/x-h266",
        "flv1" => "video/x-flash-video",
        "ac-3" => "audio/x-ac3",
        "ec-3" => "audio/x-eac3",
        "Opus" => "audio/x-opus",
        "fLaC" => "audio/x-flac",
        ".mp3" | "mp4a" => "audio/mpeg",
        other => panic!("{other}"),
    }
}

/// Returns the configuration from the field that caps of the codec have for it.
fn configuration(codec: &str, track: &Track) -> Option<Vec<u8>> {
    let caps = track.last_caps();
    let bytes = |buffer: gst::Buffer| buffer.map_readable().unwrap().to_vec();
    match codec {
        "Opus" | "fLaC" => {
            let headers: gst::Array = caps.get("streamheader").unwrap();
            let header = bytes(headers[0].get::<gst::Buffer>().unwrap());
            Some(if codec == "Opus" {
                header
            } else {
                header[17..].to_vec()
            })
        }
        _ => caps.get::<gst::Buffer>("codec_data").ok().map(bytes),
    }
}

#[test]
fn the_output_of_the_demuxer_equals_the_descriptions() {
    for vector in generator::all() {
        let name = vector.name;
        let bytes = std::fs::read(folder().join(vector.file_name())).unwrap();
        for piece in [1, 100, bytes.len()] {
            let demuxer = Demuxer::new("eflvdemux");
            for piece in bytes.chunks(piece) {
                demuxer.push(piece).unwrap();
            }
            let tracks = demuxer.finish();
            assert!(
                demuxer.messages(gst::MessageType::Error).is_empty(),
                "{name}"
            );
            let found: Vec<&str> = tracks.keys().map(String::as_str).collect();
            let mut expected: Vec<String> = vector
                .tracks
                .iter()
                .map(|track| format!("{}_{}", track.kind, track.id))
                .collect();
            expected.sort();
            assert_eq!(found, expected, "{name}");
            for expected in &vector.tracks {
                let track = &tracks[&format!("{}_{}", expected.kind, expected.id)];
                assert_eq!(
                    track.last_caps().name(),
                    media_type(expected.codec),
                    "{name}"
                );
                let packets: Vec<Value> = track.packets.iter().map(seen).collect();
                let wanted: Vec<Value> = expected
                    .packets
                    .iter()
                    .map(|p| {
                        json!({
                            "dts": p.dts,
                            "pts": p.pts,
                            "key": p.is_key,
                            "payload": generator::hex(&p.payload),
                        })
                    })
                    .collect();
                assert_eq!(packets, wanted, "{name}");
                if let Some(wanted) = &expected.configuration
                    // Caps of these codecs have the record's values, and not the record itself.
                    && !["vp08", "vp09"].contains(&expected.codec)
                {
                    let found = configuration(expected.codec, track);
                    assert_eq!(found.as_ref(), Some(wanted), "{name}");
                }
            }
            let kinds = [
                "unknown-tags",
                "bad-tags",
                "bad-scripts",
                "unknown-codecs",
                "unknown-packets",
                "bad-configurations",
                "without-configuration",
            ];
            let skipped: u64 = kinds.iter().map(|kind| demuxer.count(kind)).sum();
            assert_eq!(
                skipped,
                u64::from(vector.skipped),
                "{name}: {}",
                demuxer.stats()
            );
        }
    }
}
