// SPDX-License-Identifier: MPL-2.0

//! Descriptions of tracks for people and statistics: codec, profile, size, rates and encoder.
//!
//! Decoder configurations count first, then the metadata, which may be missing or wrong.

use std::fmt;

use super::TagKind;
use super::body::{
    AudioBody, AudioPacket, ExVideoContent, Metadata, Script, Sound, VideoBody, VideoPacket,
};
use super::codec::CodecName;
use super::codes::{
    AacPacketType, AudioFourCc, AvcPacketType, SoundFormat, VideoCodecId, VideoFourCc,
};
use super::config::{
    Ac3Header, AudioSpecificConfig, Av1Config, AvcConfig, Dimensions, FlacConfig, HevcConfig,
    Mp3Header, OpusHead, VpxConfig, is_hevc_in_disguise,
};
use super::tag::FRONT_LENGTH;

/// Most characters of an encoder's name. It is a text of the publisher.
const MAX_ENCODER: usize = 64;

/// Most tracks of each kind. A publisher has no reason to send more, and could send 256.
const MAX_TRACKS: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub struct VideoDescription {
    pub track: u8,
    pub codec: CodecName,
    /// As in GStreamer's caps: `high`, `main-10`.
    pub profile: Option<String>,
    pub level: Option<String>,
    pub dimensions: Option<Dimensions>,
    /// Frames per second, as configured or announced.
    pub frame_rate: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioDescription {
    pub track: u8,
    pub codec: CodecName,
    /// Hertz.
    pub rate: Option<u32>,
    pub channels: Option<u32>,
}

/// Description of a publisher's stream. The tracks are in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamDescription {
    pub video: Vec<VideoDescription>,
    pub audio: Vec<AudioDescription>,
    /// The encoder's name for itself, at most 64 characters.
    pub encoder: Option<String>,
}

/// Returns the size of the picture that the sequence header in the body of a video tag states.
pub fn dimensions(body: &[u8]) -> Option<Dimensions> {
    let mut description = StreamDescription::default();
    description.add_video(body, &Metadata::default());
    description.video.first()?.dimensions
}

impl StreamDescription {
    /// Describes the stream that these framed tags belong to: metadata, sequence headers, and the
    /// first frame of codecs that have none. Other bytes, such as a file header, are skipped.
    pub fn of_tags<'a>(tags: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let bodies: Vec<(TagKind, &[u8])> = tags.into_iter().filter_map(body).collect();
        let scripts = bodies.iter().filter(|(kind, _)| *kind == TagKind::Script);
        let mut metadata = scripts.filter_map(|(_, body)| Metadata::of(Script::parse(body).ok()?));
        let metadata = metadata.next_back().unwrap_or_default();
        let mut description = StreamDescription {
            encoder: metadata.text("encoder").and_then(encoder_name),
            ..StreamDescription::default()
        };
        for (kind, body) in &bodies {
            match kind {
                TagKind::Video => description.add_video(body, &metadata),
                TagKind::Audio => description.add_audio(body, &metadata),
                TagKind::Script => {}
            }
        }
        description.add_announced(&metadata);
        description.video.sort_by_key(|video| video.track);
        description.audio.sort_by_key(|audio| audio.track);
        description
    }

    /// Returns true where no track is known.
    pub fn is_empty(&self) -> bool {
        self.video.is_empty() && self.audio.is_empty()
    }

    /// Names the encoder by the `flashVer` of its connection, where the stream does not name it.
    pub fn name_encoder(&mut self, flash_ver: &str) {
        if self.encoder.is_some() {
            return;
        }
        let inner = flash_ver.split_once("(compatible; ");
        let inner = inner.and_then(|(_, rest)| rest.strip_suffix(')'));
        // The name of a server, which clients copy from each other.
        let name = inner.unwrap_or(flash_ver);
        if !name.starts_with("FMSc/") {
            self.encoder = encoder_name(name);
        }
    }

    /// Adds the tracks of one more framed tag, where they are not known yet.
    pub fn add_tag(&mut self, tag: &[u8]) {
        match body(tag) {
            Some((TagKind::Video, body)) if self.video.is_empty() => {
                self.add_video(body, &Metadata::default());
            }
            Some((TagKind::Audio, body)) if self.audio.is_empty() => {
                self.add_audio(body, &Metadata::default());
            }
            _ => {}
        }
    }

    fn add_video(&mut self, body: &[u8], metadata: &Metadata) {
        let Ok(body) = VideoBody::parse(body) else {
            return;
        };
        match body {
            VideoBody::Avc {
                codec,
                packet_type,
                payload,
                ..
            } => {
                let is_header = packet_type == AvcPacketType::SequenceHeader;
                let record = if is_header { payload } else { &[] };
                let codec = match codec {
                    VideoCodecId::Avc if is_hevc_in_disguise(record) => VideoFourCc::Hevc.name(),
                    codec => codec.name(),
                };
                self.put_video(0, codec, record, metadata);
            }
            VideoBody::Plain { codec, .. } | VideoBody::Vp6 { codec, .. } => {
                self.put_video(0, codec.name(), &[], metadata);
            }
            VideoBody::Ex(ex) => {
                let ExVideoContent::Tracks(tracks) = &ex.content else {
                    return;
                };
                for (track, part) in tracks.iter() {
                    let record = match part.packet {
                        VideoPacket::SequenceStart(record) => record,
                        VideoPacket::CodedFrames { .. }
                        | VideoPacket::CodedFramesX(_)
                        | VideoPacket::Mpeg2TsSequenceStart(_) => &[],
                        _ => continue,
                    };
                    self.put_video(track, part.four_cc.name(), record, metadata);
                }
            }
            VideoBody::Command { .. } => {}
        }
    }

    /// Puts a track in the place of its description so far.
    fn put_video(&mut self, track: u8, codec: CodecName, record: &[u8], metadata: &Metadata) {
        let mut video = configured_video(track, codec, record);
        let number = |name| metadata.video(track, name);
        video.frame_rate = video.frame_rate.or_else(|| {
            let rate = number("framerate");
            rate.filter(|rate| (0.1..=1000.0).contains(rate))
        });
        video.dimensions = video.dimensions.or_else(|| {
            let length = |name| number(name).map(|length| length as u32);
            Dimensions::new(length("width")?, length("height")?)
        });
        self.video.retain(|known| known.track != track);
        if self.video.len() < MAX_TRACKS {
            self.video.push(video);
        }
    }

    fn add_audio(&mut self, body: &[u8], metadata: &Metadata) {
        let Ok(body) = AudioBody::parse(body) else {
            return;
        };
        match body {
            AudioBody::Aac {
                packet_type,
                payload,
                ..
            } => {
                let is_header = packet_type == AacPacketType::SequenceHeader;
                let config = if is_header { payload } else { &[] };
                let audio = configured_audio(0, AudioFourCc::Aac, config);
                self.put_audio(audio, metadata);
            }
            AudioBody::Legacy {
                format,
                sound,
                payload,
            } => self.put_audio(legacy_audio(format, sound, payload), metadata),
            AudioBody::Ex(ex) => {
                for (track, part) in ex.tracks.iter() {
                    let config = match part.packet {
                        AudioPacket::SequenceStart(config) | AudioPacket::CodedFrames(config) => {
                            config
                        }
                        _ => continue,
                    };
                    let audio = configured_audio(track, part.four_cc, config);
                    self.put_audio(audio, metadata);
                }
            }
        }
    }

    fn put_audio(&mut self, mut audio: AudioDescription, metadata: &Metadata) {
        let number = |name| metadata.audio(audio.track, name);
        let rate = audio.rate.or_else(|| sane_rate(number("audiosamplerate")?));
        let channels = audio
            .channels
            .or_else(|| announced_channels(metadata, audio.track));
        (audio.rate, audio.channels) = (rate, channels);
        self.audio.retain(|known| known.track != audio.track);
        if self.audio.len() < MAX_TRACKS {
            self.audio.push(audio);
        }
    }

    /// Adds tracks that only the metadata announces.
    fn add_announced(&mut self, metadata: &Metadata) {
        let code = |name| metadata.number(name).filter(|code| *code >= 0.0);
        if self.video.is_empty()
            && let Some(code) = code("videocodecid")
        {
            let codec = match four_cc(code) {
                Some(four_cc) => VideoFourCc::from_code(four_cc).name(),
                None => VideoCodecId::from_code(code as u8).name(),
            };
            self.put_video(0, codec, &[], metadata);
        }
        if self.audio.is_empty()
            && let Some(code) = code("audiocodecid")
        {
            let codec = match four_cc(code) {
                Some(four_cc) => AudioFourCc::from_code(four_cc).name(),
                None => SoundFormat::from_code(code as u8).name(),
            };
            let audio = AudioDescription {
                track: 0,
                codec,
                rate: None,
                channels: None,
            };
            self.put_audio(audio, metadata);
        }
    }
}

/// Returns kind and body of a framed tag.
fn body(tag: &[u8]) -> Option<(TagKind, &[u8])> {
    let kind = match tag.first()? {
        8 => TagKind::Audio,
        9 => TagKind::Video,
        18 => TagKind::Script,
        _ => return None,
    };
    let length = u32::from_be_bytes([0, *tag.get(1)?, *tag.get(2)?, *tag.get(3)?]);
    let body = tag.get(FRONT_LENGTH..)?.get(..length as usize)?;
    Some((kind, body))
}

/// Returns the FourCC that Enhanced RTMP writes as a number. Legacy codes have one byte.
fn four_cc(code: f64) -> Option<[u8; 4]> {
    (code > 255.0 && code <= f64::from(u32::MAX)).then(|| (code as u32).to_be_bytes())
}

fn configured_video(track: u8, codec: CodecName, record: &[u8]) -> VideoDescription {
    let mut video = VideoDescription {
        track,
        codec,
        profile: None,
        level: None,
        dimensions: None,
        frame_rate: None,
    };
    let name = |name: Option<&str>| name.map(str::to_owned);
    if codec == VideoFourCc::Avc.name() {
        if let Some(config) = AvcConfig::parse(record) {
            video.profile = name(config.profile_name());
            video.level = config.level_name();
            video.dimensions = config.dimensions;
            video.frame_rate = config.frame_rate();
        }
    } else if codec == VideoFourCc::Hevc.name() {
        if let Some(config) = HevcConfig::parse(record) {
            video.profile = name(config.profile_name());
            video.level = config.level_name();
            video.dimensions = config.dimensions;
        }
    } else if codec == VideoFourCc::Av1.name() {
        if let Some(config) = Av1Config::parse(record) {
            video.profile = name(config.profile_name());
            video.dimensions = config.dimensions;
        }
    } else if codec == VideoFourCc::Vp9.name()
        && let Some(config) = VpxConfig::parse(record)
    {
        video.profile = Some(config.profile.to_string());
    }
    video
}

/// Describes a track by its configuration, or by a frame for codecs without one.
fn configured_audio(track: u8, codec: AudioFourCc, bytes: &[u8]) -> AudioDescription {
    let (rate, channels) = match codec {
        AudioFourCc::Aac => AudioSpecificConfig::parse(bytes)
            .map(|config| (config.rate, config.channels))
            .unzip(),
        AudioFourCc::Opus => {
            let head = OpusHead::parse(bytes);
            // Its decoder has one rate.
            (Some(48_000), head.map(|head| head.channels))
        }
        AudioFourCc::Flac => FlacConfig::parse(bytes)
            .map(|config| (config.rate, config.channels))
            .unzip(),
        AudioFourCc::Mp3 => Mp3Header::parse(bytes)
            .map(|header| (header.rate, header.channels))
            .unzip(),
        AudioFourCc::Ac3 | AudioFourCc::Eac3 => Ac3Header::parse(bytes)
            .map(|header| (header.rate, header.channels))
            .unzip(),
        AudioFourCc::Unknown(_) => (None, None),
    };
    AudioDescription {
        track,
        codec: codec.name(),
        rate,
        channels: channels.map(u32::from),
    }
}

fn legacy_audio(format: SoundFormat, sound: Sound, payload: &[u8]) -> AudioDescription {
    let channels = if sound.is_stereo { 2 } else { 1 };
    let (rate, channels) = match format {
        SoundFormat::Mp3 | SoundFormat::Mp3At8k => match Mp3Header::parse(payload) {
            Some(header) => (header.rate, header.channels),
            None => (sound.rate(), channels),
        },
        // Their rates are fixed, whatever the flags say.
        SoundFormat::Speex | SoundFormat::Nellymoser16k => (16_000, 1),
        SoundFormat::ALaw | SoundFormat::MuLaw | SoundFormat::Nellymoser8k => (8000, channels),
        _ => (sound.rate(), channels),
    };
    AudioDescription {
        track: 0,
        codec: format.name(),
        rate: Some(rate),
        channels: Some(channels.into()),
    }
}

fn sane_rate(rate: f64) -> Option<u32> {
    (1000.0..=768_000.0).contains(&rate).then_some(rate as u32)
}

fn announced_channels(metadata: &Metadata, track: u8) -> Option<u32> {
    let count = metadata.audio(track, "audiochannels");
    let count = count.filter(|count| (1.0..=255.0).contains(count));
    let is_stereo = || match metadata.get("stereo")? {
        crate::amf0::Value::Boolean(is_stereo) => Some(1 + u32::from(*is_stereo)),
        _ => None,
    };
    count.map(|count| count as u32).or_else(is_stereo)
}

/// Returns an encoder's text on one line and of a readable length.
fn encoder_name(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    // OBS names a library first: "obs-output module (libobs version 30.1.0)".
    let version = text.split_once("libobs version ").map(|(_, rest)| rest);
    let name = match version {
        Some(version) => {
            let end = version.find(|c: char| !c.is_ascii_digit() && c != '.');
            let version = &version[..end.unwrap_or(version.len())];
            format!("OBS {}", version.strip_suffix(".0").unwrap_or(version))
        }
        None => text.to_owned(),
    };
    let name: String = name.chars().take(MAX_ENCODER).collect();
    (!name.is_empty()).then_some(name)
}

impl CodecName {
    /// Returns the name that people use.
    pub fn common_name(self) -> String {
        const VIDEO: [(VideoFourCc, &str); 6] = [
            (VideoFourCc::Avc, "H.264"),
            (VideoFourCc::Hevc, "H.265"),
            (VideoFourCc::Vvc, "H.266"),
            (VideoFourCc::Av1, "AV1"),
            (VideoFourCc::Vp8, "VP8"),
            (VideoFourCc::Vp9, "VP9"),
        ];
        const AUDIO: [(AudioFourCc, &str); 6] = [
            (AudioFourCc::Aac, "AAC"),
            (AudioFourCc::Mp3, "MP3"),
            (AudioFourCc::Opus, "Opus"),
            (AudioFourCc::Flac, "FLAC"),
            (AudioFourCc::Ac3, "AC-3"),
            (AudioFourCc::Eac3, "E-AC-3"),
        ];
        const LEGACY: [(&str, &str); 14] = [
            ("flv1", "Sorenson H.263"),
            ("fsv1", "Screen Video"),
            ("fsv2", "Screen Video 2"),
            ("vp6f", "VP6"),
            ("vp6a", "VP6 with alpha"),
            ("h263", "H.263"),
            ("mp4v", "MPEG-4"),
            ("lpcm", "PCM"),
            ("alaw", "G.711 A-law"),
            ("ulaw", "G.711 mu-law"),
            ("adpc", "ADPCM"),
            ("nell", "Nellymoser"),
            ("spex", "Speex"),
            ("devs", "device-specific audio"),
        ];
        let video = VIDEO.iter().map(|(codec, name)| (codec.name(), *name));
        let audio = AUDIO.iter().map(|(codec, name)| (codec.name(), *name));
        let mut names = video.chain(audio);
        if let Some((_, name)) = names.find(|(codec, _)| *codec == self) {
            return name.to_owned();
        }
        let text = self.to_string();
        let legacy = LEGACY.iter().find(|(codec, _)| *codec == text);
        legacy.map_or(text, |(_, name)| (*name).to_owned())
    }
}

impl fmt::Display for VideoDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.codec.common_name())?;
        if let Some(profile) = &self.profile {
            write!(f, " {}", title(profile))?;
        }
        if let Some(Dimensions { width, height }) = self.dimensions {
            write!(f, " {width}x{height}")?;
        }
        match self.frame_rate {
            Some(rate) => write!(f, " {} fps", rounded(rate, 2)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AudioDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.codec.common_name())?;
        if let Some(rate) = self.rate {
            write!(f, " {} kHz", rounded(f64::from(rate) / 1000.0, 3))?;
        }
        match self.channels {
            Some(1) => f.write_str(" mono"),
            Some(2) => f.write_str(" stereo"),
            Some(channels) => write!(f, " {channels} channels"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for StreamDescription {
    /// Writes "H.264 High 1280x720 25 fps, AAC 48 kHz stereo (OBS 30.1)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let video = self.video.iter().map(ToString::to_string);
        let audio = self.audio.iter().map(ToString::to_string);
        let tracks: Vec<String> = video.chain(audio).collect();
        f.write_str(&tracks.join(", "))?;
        match &self.encoder {
            Some(encoder) if tracks.is_empty() => write!(f, "({encoder})"),
            Some(encoder) => write!(f, " ({encoder})"),
            None => Ok(()),
        }
    }
}

/// Writes `constrained-baseline` as "Constrained Baseline".
fn title(profile: &str) -> String {
    let words = profile.split('-').map(|word| {
        let mut chars = word.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Writes a number with at most so many decimals.
fn rounded(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
