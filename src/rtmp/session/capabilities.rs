// SPDX-License-Identifier: MPL-2.0

//! Capabilities of client and server in `connect` (Enhanced RTMP v2, "Enhancing NetConnection
//! connect Command").
//!
//! Nothing depends on them: a client that announces none may send everything, and many do.

use crate::amf0::{Properties, Value};

/// Bit of `capsEx`: the client reconnects on request; the server may request it.
pub(super) const CAPS_EX_RECONNECT: u32 = 0x01;
const CAPS_EX_MULTITRACK: u32 = 0x02;
const CAPS_EX_MOD_EX: u32 = 0x04;
const CAPS_EX_NANOSECONDS: u32 = 0x08;
const CAPS_EX: u32 = CAPS_EX_RECONNECT | CAPS_EX_MULTITRACK | CAPS_EX_MOD_EX | CAPS_EX_NANOSECONDS;

/// Bits of `videoFunction`. Old players set the first, since they seek.
const FUNCTION_SEEK: u32 = 0x01;
const FUNCTION_HDR: u32 = 0x02;
const FUNCTION_METADATA: u32 = 0x04;

/// Capability of a server for a codec: it neither decodes nor encodes.
const CAN_FORWARD: f64 = 4.0;

/// Stands for any codec.
const WILDCARD: &str = "*";

/// Codecs that the server accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupportedCodecs {
    /// FourCCs.
    pub video: Vec<String>,
    pub audio: Vec<String>,
    /// True if all other codecs are accepted too.
    pub others: bool,
}

/// Presence of each capability property in `connect`. Their contents are not kept, however long
/// they are: the answer states the capabilities of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    four_cc_list: bool,
    video_map: bool,
    audio_map: bool,
    caps_ex: bool,
    video_function: bool,
}

impl Offer {
    /// Malformed properties count as absent.
    pub(super) fn read(object: Option<&Value>) -> Self {
        let get = |name| object.and_then(|object| object.get(name));
        let is_map = |name| {
            let properties = get(name).and_then(Value::properties).unwrap_or_default();
            properties.iter().any(|(_, v)| v.as_number().is_some())
        };
        let functions = get("videoFunction").and_then(Value::as_number);
        Offer {
            four_cc_list: match get("fourCcList") {
                Some(Value::StrictArray(items)) => items.iter().any(|i| i.as_str().is_some()),
                _ => false,
            },
            video_map: is_map("videoFourCcInfoMap"),
            audio_map: is_map("audioFourCcInfoMap"),
            caps_ex: get("capsEx").and_then(Value::as_number).is_some(),
            video_function: functions.is_some_and(|bits| bits as u32 & !FUNCTION_SEEK != 0),
        }
    }

    /// Returns the same properties with the capabilities of the server.
    pub(super) fn answer(self, codecs: &SupportedCodecs) -> Properties {
        let wildcard = codecs.others.then_some(WILDCARD);
        let names = |codecs: &[&[String]]| -> Vec<String> {
            let names = codecs.iter().flat_map(|codecs| codecs.iter());
            names.cloned().chain(wildcard.map(str::to_owned)).collect()
        };
        let list = || {
            let names = names(&[&codecs.video, &codecs.audio]);
            Value::StrictArray(names.into_iter().map(Value::String).collect())
        };
        let map = |codecs: &[String]| {
            let names = names(&[codecs]).into_iter();
            Value::Object(names.map(|name| (name, CAN_FORWARD.into())).collect())
        };
        let functions = f64::from(FUNCTION_HDR | FUNCTION_METADATA);
        let mut answer = Properties::new();
        let mut add = |is_offered: bool, name: &str, value: &dyn Fn() -> Value| {
            if is_offered {
                answer.push((name.to_owned(), value()));
            }
        };
        add(self.four_cc_list, "fourCcList", &list);
        add(self.video_map, "videoFourCcInfoMap", &|| map(&codecs.video));
        add(self.audio_map, "audioFourCcInfoMap", &|| map(&codecs.audio));
        add(self.caps_ex, "capsEx", &|| f64::from(CAPS_EX).into());
        add(self.video_function, "videoFunction", &|| functions.into());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(properties: Vec<(&str, Value)>) -> Value {
        let properties = properties.into_iter();
        Value::Object(properties.map(|(n, v)| (n.to_owned(), v)).collect())
    }

    fn list(names: &[&str]) -> Value {
        Value::StrictArray(names.iter().map(|name| (*name).into()).collect())
    }

    fn map(names: &[&str]) -> Value {
        object(names.iter().map(|name| (*name, 4.0.into())).collect())
    }

    fn answer(offer: Value, codecs: &SupportedCodecs) -> Value {
        Value::Object(Offer::read(Some(&offer)).answer(codecs))
    }

    fn some() -> SupportedCodecs {
        SupportedCodecs {
            video: vec!["hvc1".into(), "avc1".into()],
            audio: vec!["Opus".into()],
            others: false,
        }
    }

    fn all() -> SupportedCodecs {
        SupportedCodecs {
            others: true,
            ..some()
        }
    }

    /// Publishers without Enhanced RTMP: ffmpeg without its option, OBS, and old players with their
    /// one function.
    #[test]
    fn connect_without_offer_gets_no_capabilities() {
        let ffmpeg = object(vec![
            ("app", "live".into()),
            ("type", "nonprivate".into()),
            ("flashVer", "FMLE/3.0 (compatible; Lavf59.27.100)".into()),
            ("tcUrl", "rtmp://127.0.0.1/live".into()),
        ]);
        let player = object(vec![
            ("audioCodecs", 3575.0.into()),
            ("videoCodecs", 252.0.into()),
            ("videoFunction", 1.0.into()),
            ("objectEncoding", 0.0.into()),
        ]);
        for offer in [ffmpeg, player, object(vec![]), Value::Null] {
            assert_eq!(answer(offer, &all()), object(vec![]));
        }
        assert_eq!(Offer::read(None), Offer::default());
    }

    /// ffmpeg with `-rtmp_enhanced_codecs hvc1,av01`.
    #[test]
    fn codec_list_is_answered_with_a_list() {
        let offer = || object(vec![("fourCcList", list(&["hvc1", "av01"]))]);
        let expected = object(vec![("fourCcList", list(&["hvc1", "avc1", "Opus", "*"]))]);
        assert_eq!(answer(offer(), &all()), expected);
        let expected = object(vec![("fourCcList", list(&["hvc1", "avc1", "Opus"]))]);
        assert_eq!(answer(offer(), &some()), expected);
    }

    #[test]
    fn complete_offer_is_answered_in_specification_order() {
        let offer = object(vec![
            ("capsEx", 1.0.into()),
            ("fourccList", list(&["*"])),
            ("videoFunction", 7.0.into()),
            (
                "audioFourCcInfoMap",
                Value::EcmaArray(vec![("*".into(), 4.0.into())]),
            ),
            ("videoFourCcInfoMap", map(&["*"])),
        ]);
        let expected = object(vec![
            ("fourCcList", list(&["hvc1", "avc1", "Opus", "*"])),
            ("videoFourCcInfoMap", map(&["hvc1", "avc1", "*"])),
            ("audioFourCcInfoMap", map(&["Opus", "*"])),
            ("capsEx", 15.0.into()),
            ("videoFunction", 6.0.into()),
        ]);
        assert_eq!(answer(offer, &all()), expected);
    }

    #[test]
    fn malformed_properties_count_as_absent() {
        let nested = Value::StrictArray(vec![list(&["avc1"])]);
        let offer = object(vec![
            ("fourCcList", nested),
            ("videoFourCcInfoMap", object(vec![("avc1", "yes".into())])),
            ("audioFourCcInfoMap", list(&["Opus"])),
            ("capsEx", "15".into()),
            ("videoFunction", f64::NAN.into()),
        ]);
        assert_eq!(answer(offer, &all()), object(vec![]));
        for offer in ["avc1".into(), 1.0.into(), object(vec![]), list(&[])] {
            let offer = object(vec![("fourCcList", offer)]);
            assert_eq!(answer(offer, &all()), object(vec![]));
        }
    }

    /// The length of the answer does not depend on the length of the offer.
    #[test]
    fn long_offers_have_short_answers() {
        let names: Vec<String> = (0..900).map(|n| format!("{n:0>4}").repeat(100)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let long = object(vec![
            ("fourCcList", list(&names)),
            ("videoFourCcInfoMap", map(&names)),
            ("capsEx", 1e300.into()),
        ]);
        let short = object(vec![
            ("fourCcList", list(&["avc1"])),
            ("videoFourCcInfoMap", map(&["avc1"])),
            ("capsEx", 0.0.into()),
        ]);
        assert_eq!(answer(long, &all()), answer(short, &all()));
    }
}
