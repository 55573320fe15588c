// SPDX-License-Identifier: MPL-2.0

//! The properties in `onMetaData` (E.5; Enhanced RTMP v2, "Enhancing onMetaData").

use super::Script;
use crate::amf0::Value;

/// The properties in `onMetaData`: advice that may be missing, wrong or repeated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    properties: Vec<(String, Value)>,
}

impl Metadata {
    /// The name of its script tag.
    pub const NAME: &str = "onMetaData";

    /// Extracts the metadata from script data, if it has any. Encoders write an ECMA array or an
    /// object.
    pub fn of(script: Script) -> Option<Self> {
        if script.name != Metadata::NAME {
            return None;
        }
        let mut values = script.values.into_iter();
        values.find_map(|value| match value {
            Value::Object(properties) | Value::EcmaArray(properties) => {
                Some(Metadata { properties })
            }
            _ => None,
        })
    }

    /// Returns a property of the whole stream. The case of its name matters.
    pub fn get(&self, name: &str) -> Option<&Value> {
        find(&self.properties, name)
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(finite)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Returns a property of a video track: its entry in `videoTrackIdInfoMap`, or otherwise the
    /// stream's own.
    pub fn video(&self, track: u8, name: &str) -> Option<f64> {
        self.of_track("videoTrackIdInfoMap", track, name)
    }

    /// Returns a property of an audio track, like [`Metadata::video`].
    pub fn audio(&self, track: u8, name: &str) -> Option<f64> {
        self.of_track("audioTrackIdInfoMap", track, name)
    }

    /// Returns a text of the track alone: a language, a title.
    pub fn track_text(&self, map: &str, track: u8, name: &str) -> Option<&str> {
        let own = self.track(map, track)?;
        find(own, name).and_then(Value::as_str)
    }

    /// Returns the ids in a map of tracks.
    pub fn tracks(&self, map: &str) -> impl Iterator<Item = u8> {
        let map = self.get(map).and_then(Value::properties);
        map.unwrap_or_default()
            .iter()
            .filter_map(|(id, _)| id.parse().ok())
    }

    fn of_track(&self, map: &str, track: u8, name: &str) -> Option<f64> {
        let own = self.track(map, track);
        let own = own.and_then(|own| find(own, name));
        // A track without an entry is not described, and the description of track 0 may not fit it.
        // An entry may have only the differences.
        match (own, track) {
            (Some(value), _) => finite(value),
            (None, 0) => self.number(name),
            (None, _) if self.track(map, track).is_some() => self.number(name),
            (None, _) => None,
        }
    }

    fn track(&self, map: &str, track: u8) -> Option<&[(String, Value)]> {
        let map = self.get(map)?.properties()?;
        let (_, own) = map.iter().find(|(id, _)| id.parse() == Ok(track))?;
        own.properties()
    }
}

fn find<'a>(properties: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    let mut found = properties.iter().filter(|(n, _)| n == name);
    found.next().map(|(_, value)| value)
}

fn finite(value: &Value) -> Option<f64> {
    value.as_number().filter(|number| number.is_finite())
}
