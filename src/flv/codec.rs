// SPDX-License-Identifier: MPL-2.0

//! One name for each codec, for its legacy and its enhanced form.

use std::fmt;
use std::str::FromStr;

use super::codes::{AudioFourCc, SoundFormat, VideoCodecId, VideoFourCc};

/// The FourCC of a codec. A legacy codec has the FourCC of Enhanced RTMP if there is one, and
/// otherwise one of this crate: see [`VideoCodecId::name`] and [`SoundFormat::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecName([u8; 4]);

/// A text that names no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no codec: {}", known_names())]
pub struct UnknownCodec {
    text: String,
}

impl CodecName {
    /// Returns the names of all known codecs, in the order of the tables.
    fn known() -> impl Iterator<Item = CodecName> {
        let video = VideoFourCc::KNOWN.iter().map(|codec| codec.name());
        let audio = AudioFourCc::KNOWN.iter().map(|codec| codec.name());
        let legacy_video = VideoCodecId::KNOWN.iter().map(|codec| codec.name());
        let legacy_audio = SoundFormat::KNOWN.iter();
        let legacy_audio = legacy_audio.filter(|format| **format != SoundFormat::ExHeader);
        let legacy_audio = legacy_audio.map(|format| format.name());
        video.chain(audio).chain(legacy_video).chain(legacy_audio)
    }

    fn is_video(self) -> bool {
        let four_ccs = VideoFourCc::KNOWN.iter().map(|codec| codec.name());
        let mut names = four_ccs.chain(VideoCodecId::KNOWN.iter().map(|codec| codec.name()));
        names.any(|name| name == self)
    }
}

fn known_names() -> String {
    let mut names: Vec<String> = CodecName::known().map(|name| name.to_string()).collect();
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let aliases: Vec<&str> = ALIASES.iter().map(|(alias, _)| *alias).collect();
    format!(
        "there are {}, whose case matters, and {}",
        names.join(" "),
        aliases.join(" ")
    )
}

/// Names of codecs that people use.
const ALIASES: [(&str, CodecName); 13] = [
    ("h264", VideoFourCc::Avc.name()),
    ("h265", VideoFourCc::Hevc.name()),
    ("hevc", VideoFourCc::Hevc.name()),
    ("av1", VideoFourCc::Av1.name()),
    ("vp8", VideoFourCc::Vp8.name()),
    ("vp9", VideoFourCc::Vp9.name()),
    ("h266", VideoFourCc::Vvc.name()),
    ("aac", AudioFourCc::Aac.name()),
    ("mp3", AudioFourCc::Mp3.name()),
    ("opus", AudioFourCc::Opus.name()),
    ("flac", AudioFourCc::Flac.name()),
    ("ac3", AudioFourCc::Ac3.name()),
    ("eac3", AudioFourCc::Eac3.name()),
];

fn alias(text: &str) -> Option<CodecName> {
    let mut aliases = ALIASES.iter();
    let found = aliases.find(|(alias, _)| alias.eq_ignore_ascii_case(text));
    found.map(|(_, name)| *name)
}

impl fmt::Display for CodecName {
    /// A client may send any bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl FromStr for CodecName {
    type Err = UnknownCodec;

    fn from_str(text: &str) -> Result<Self, UnknownCodec> {
        let found = CodecName::known().find(|name| name.0 == text.as_bytes());
        let found = found.or_else(|| alias(text));
        found.ok_or_else(|| UnknownCodec {
            text: text.to_owned(),
        })
    }
}

impl VideoFourCc {
    pub const fn name(self) -> CodecName {
        CodecName(self.code())
    }
}

impl AudioFourCc {
    pub const fn name(self) -> CodecName {
        CodecName(self.code())
    }
}

impl VideoCodecId {
    pub const fn name(self) -> CodecName {
        CodecName(match self {
            VideoCodecId::SorensonH263 => *b"flv1",
            VideoCodecId::Screen => *b"fsv1",
            VideoCodecId::Vp6 => *b"vp6f",
            VideoCodecId::Vp6Alpha => *b"vp6a",
            VideoCodecId::Screen2 => *b"fsv2",
            VideoCodecId::Avc => VideoFourCc::Avc.code(),
            VideoCodecId::H263 => *b"h263",
            VideoCodecId::Mpeg4 => *b"mp4v",
            VideoCodecId::Hevc => VideoFourCc::Hevc.code(),
            VideoCodecId::Unknown(code) => [b'v', b'i', b'd', hexadecimal(code)],
        })
    }
}

impl SoundFormat {
    pub const fn name(self) -> CodecName {
        CodecName(match self {
            SoundFormat::Pcm | SoundFormat::PcmLittleEndian => *b"lpcm",
            SoundFormat::Adpcm => *b"adpc",
            SoundFormat::Mp3 | SoundFormat::Mp3At8k => AudioFourCc::Mp3.code(),
            SoundFormat::Nellymoser16k | SoundFormat::Nellymoser8k | SoundFormat::Nellymoser => {
                *b"nell"
            }
            SoundFormat::ALaw => *b"alaw",
            SoundFormat::MuLaw => *b"ulaw",
            SoundFormat::Aac => AudioFourCc::Aac.code(),
            SoundFormat::Speex => *b"spex",
            SoundFormat::DeviceSpecific => *b"devs",
            SoundFormat::ExHeader | SoundFormat::Unknown(_) => {
                [b'a', b'u', b'd', hexadecimal(self.code())]
            }
        })
    }
}

const fn hexadecimal(code: u8) -> u8 {
    b"0123456789abcdef"[(code & 0x0F) as usize]
}

/// The accepted codecs; an empty list accepts all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AcceptedCodecs(Vec<CodecName>);

impl AcceptedCodecs {
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownCodec> {
        let names: Result<Vec<_>, _> = texts.into_iter().map(str::parse).collect();
        names.map(AcceptedCodecs)
    }

    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    pub fn accepts(&self, codec: CodecName) -> bool {
        self.is_all() || self.0.contains(&codec)
    }

    /// Returns true if any video codec is accepted.
    pub fn accepts_video(&self) -> bool {
        self.is_all() || self.0.iter().any(|name| name.is_video())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_displayed_name_parses_as_itself() {
        for name in CodecName::known() {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert_eq!(CodecName(*b"a\0\"\xFF").to_string(), "a\\x00\\\"\\xff");
    }

    #[test]
    fn a_codec_has_one_name_with_and_without_an_ex_header() {
        assert_eq!(VideoCodecId::Avc.name(), VideoFourCc::Avc.name());
        assert_eq!(VideoCodecId::Hevc.name(), VideoFourCc::Hevc.name());
        assert_eq!(SoundFormat::Aac.name(), AudioFourCc::Aac.name());
        assert_eq!(SoundFormat::Mp3At8k.name(), AudioFourCc::Mp3.name());
        assert_eq!(VideoCodecId::Unknown(11).name().to_string(), "vidb");
        assert_eq!(SoundFormat::Unknown(13).name().to_string(), "audd");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        for text in ["", "opuz", "h26", "hvc", "hvc11", "vidb", "*", "avc1 "] {
            let error = AcceptedCodecs::parse(["avc1", text]).unwrap_err();
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("\"{text}\" is no codec")),
                "{message}"
            );
            assert!(message.contains(" Opus ") && message.contains(" flv1 "));
        }
    }

    #[test]
    fn common_names_stand_for_four_ccs_in_any_case() {
        for (alias, name) in [
            ("h264", "avc1"),
            ("H265", "hvc1"),
            ("AAC", "mp4a"),
            ("opus", "Opus"),
            ("mp3", ".mp3"),
        ] {
            assert_eq!(alias.parse::<CodecName>(), name.parse::<CodecName>());
        }
    }

    #[test]
    fn an_empty_list_accepts_all() {
        let all = AcceptedCodecs::default();
        assert!(all.accepts(VideoFourCc::Unknown(*b"xxxx").name()) && all.accepts_video());
        let some = AcceptedCodecs::parse(["Opus", "avc1"]).unwrap();
        assert!(some.accepts(VideoCodecId::Avc.name()) && some.accepts_video());
        assert!(!some.accepts(AudioFourCc::Aac.name()));
        assert!(!AcceptedCodecs::parse(["Opus"]).unwrap().accepts_video());
    }
}
