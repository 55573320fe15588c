// SPDX-License-Identifier: MPL-2.0

//! Conformance vectors of Enhanced FLV: small files and their meaning.
//!
//! They are written byte by byte, without the crate that is tested with them.

mod audio;
mod container;
mod mod_ex;
mod multitrack;
mod video;
mod write;

use serde_json::{Value, json};

/// A file and its meaning.
#[derive(Debug, Clone)]
pub struct Vector {
    pub name: &'static str,
    /// The subject, for readers of `vectors.json`.
    pub about: &'static str,
    /// The whole file is as specified.
    pub is_valid: bool,
    pub bytes: Vec<u8>,
    /// In the order of kinds and ids.
    pub tracks: Vec<Track>,
    /// Number of unusable tags, or packets of tracks within tags.
    pub skipped: u32,
}

#[derive(Debug, Clone)]
pub struct Track {
    pub kind: &'static str,
    pub id: u8,
    pub codec: &'static str,
    /// The last decoder configuration.
    pub configuration: Option<Vec<u8>>,
    pub packets: Vec<Packet>,
}

#[derive(Debug, Clone)]
pub struct Packet {
    pub dts: u64,
    /// Nanoseconds, including the composition time and ModEx.
    pub pts: u64,
    pub is_key: bool,
    pub payload: Vec<u8>,
}

pub fn all() -> Vec<Vector> {
    let mut vectors = Vec::new();
    vectors.extend(video::vectors());
    vectors.extend(audio::vectors());
    vectors.extend(mod_ex::vectors());
    vectors.extend(multitrack::vectors());
    vectors.extend(container::vectors());
    vectors
}

/// Returns the contents of `vectors.json`.
pub fn description() -> Value {
    let vectors: Vec<Value> = all().iter().map(Vector::description).collect();
    json!({ "version": 1, "vectors": vectors })
}

impl Vector {
    pub fn file_name(&self) -> String {
        format!("{}.flv", self.name)
    }

    fn description(&self) -> Value {
        let tracks: Vec<Value> = self.tracks.iter().map(Track::description).collect();
        json!({
            "name": self.name,
            "file": self.file_name(),
            "about": self.about,
            "valid": self.is_valid,
            "skipped": self.skipped,
            "tracks": tracks,
        })
    }
}

impl Track {
    fn description(&self) -> Value {
        let packets: Vec<Value> = self.packets.iter().map(Packet::description).collect();
        json!({
            "kind": self.kind,
            "id": self.id,
            "codec": self.codec,
            "configuration": self.configuration.as_deref().map(hex),
            "packets": packets,
        })
    }
}

impl Packet {
    fn description(&self) -> Value {
        json!({
            "dts": self.dts,
            "pts": self.pts,
            "key": self.is_key,
            "payload": hex(&self.payload),
        })
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
