// SPDX-License-Identifier: MPL-2.0

//! Caps that parsers, decoders and muxers accept without further information.

use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoTransferFunction,
};

use super::codec::Codec;
use crate::flv::body::{ColorInfo, DisplayPrimaries, MasteringDisplay, Metadata, Sound};
use crate::flv::codes::SoundFormat;
use crate::flv::config::{
    Ac3Header, AudioSpecificConfig, Av1Config, AvcConfig, FlacConfig, HevcConfig, Mp3Header,
    OpusHead, VpxConfig,
};

const VIDEO: &str = "video/x-h264, stream-format=avc, alignment=au; \
    video/x-h265, stream-format=hvc1, alignment=au; \
    video/x-h266, stream-format=vvc1, alignment=au; \
    video/x-av1, stream-format=obu-stream, alignment=tu; \
    video/x-vp9; video/x-vp8; \
    video/x-flash-video, flvversion=1; video/x-flash-screen; \
    video/x-vp6-flash; video/x-vp6-alpha; \
    video/x-h263; video/mpeg, mpegversion=4, systemstream=false";

const AUDIO: &str = "audio/mpeg, mpegversion=4, stream-format=raw, framed=true; \
    audio/mpeg, mpegversion=1, layer=[1, 3], parsed=true; \
    audio/x-opus; audio/x-flac, framed=true; \
    audio/x-ac3, framed=true; audio/x-eac3, framed=true; \
    audio/x-raw, format={ U8, S16LE }, layout=interleaved; \
    audio/x-adpcm, layout=swf; audio/x-alaw; audio/x-mulaw; \
    audio/x-speex; audio/x-nellymoser";

pub(super) fn sink() -> gst::Caps {
    gst::Caps::new_empty_simple("video/x-flv")
}

pub(super) fn of_video_pads() -> gst::Caps {
    parse(VIDEO)
}

pub(super) fn of_audio_pads() -> gst::Caps {
    parse(AUDIO)
}

fn parse(text: &str) -> gst::Caps {
    text.parse().unwrap_or_else(|_| gst::Caps::new_any())
}

/// The facts that the caps of a track are made from.
#[derive(Debug)]
pub(super) struct TrackFacts<'a> {
    pub(super) track: u8,
    /// Decoder configuration, empty if there is none.
    pub(super) configuration: &'a [u8],
    pub(super) color: Option<&'a ColorInfo>,
    /// Channels of a channel configuration, 0 without one.
    pub(super) channels: u8,
    pub(super) metadata: Option<&'a Metadata>,
    /// From the packets of codecs without a configuration.
    pub(super) frame_header: Option<FrameHeader>,
}

/// Description of the stream in the packets of codecs without a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameHeader {
    Mp3(Mp3Header),
    Ac3(Ac3Header),
}

pub(super) fn frame_header(codec: Codec, packet: &[u8]) -> Option<FrameHeader> {
    match codec {
        Codec::Mp3 => Mp3Header::parse(packet).map(FrameHeader::Mp3),
        Codec::Ac3 | Codec::Eac3 => Ac3Header::parse(packet).map(FrameHeader::Ac3),
        _ => None,
    }
}

impl TrackFacts<'_> {
    fn codec_data(&self) -> gst::Buffer {
        gst::Buffer::from_slice(self.configuration.to_vec())
    }
}

pub(super) fn of(codec: Codec, facts: &TrackFacts<'_>) -> gst::Caps {
    match codec {
        Codec::Avc
        | Codec::Hevc
        | Codec::Vvc
        | Codec::Av1
        | Codec::Vp8
        | Codec::Vp9
        | Codec::SorensonH263
        | Codec::H263
        | Codec::Mpeg4
        | Codec::Vp6
        | Codec::Vp6Alpha
        | Codec::Screen => video(codec, facts),
        Codec::Aac => aac(facts),
        Codec::Mp3 => mp3(facts),
        Codec::Opus => opus(facts),
        Codec::Flac => flac(facts),
        Codec::Ac3 => ac3("audio/x-ac3", facts),
        Codec::Eac3 => ac3("audio/x-eac3", facts),
        Codec::Plain(format, sound) => plain(format, sound),
    }
}

// Video

fn video(codec: Codec, facts: &TrackFacts<'_>) -> gst::Caps {
    let configuration = facts.configuration;
    let mut dimensions = None;
    let mut builder;
    match codec {
        Codec::Avc => {
            builder = gst::Caps::builder("video/x-h264")
                .field("stream-format", "avc")
                .field("alignment", "au")
                .field("codec_data", facts.codec_data());
            if let Some(config) = AvcConfig::parse(configuration) {
                dimensions = config.dimensions;
                builder = builder
                    .field_if_some("profile", config.profile_name())
                    .field_if_some("level", config.level_name());
            }
        }
        Codec::Hevc => {
            builder = gst::Caps::builder("video/x-h265")
                .field("stream-format", "hvc1")
                .field("alignment", "au")
                .field("codec_data", facts.codec_data());
            if let Some(config) = HevcConfig::parse(configuration) {
                dimensions = config.dimensions;
                let tier = if config.is_high_tier { "high" } else { "main" };
                builder = builder
                    .field_if_some("profile", config.profile_name())
                    .field("tier", tier)
                    .field_if_some("level", config.level_name());
            }
        }
        Codec::Vvc => {
            builder = gst::Caps::builder("video/x-h266")
                .field("stream-format", "vvc1")
                .field("alignment", "au")
                .field("codec_data", facts.codec_data());
        }
        Codec::Av1 => {
            builder = gst::Caps::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu");
            if let Some(config) = Av1Config::parse(configuration) {
                dimensions = config.dimensions;
                builder = builder
                    .field("codec_data", facts.codec_data())
                    .field_if_some("profile", config.profile_name())
                    .field("bit-depth-luma", u32::from(config.bit_depth));
                if !config.is_monochrome {
                    builder = builder.field("bit-depth-chroma", u32::from(config.bit_depth));
                }
            }
        }
        Codec::Vp9 => {
            builder = gst::Caps::builder("video/x-vp9");
            if let Some(config) = VpxConfig::parse(configuration) {
                let chroma = match config.chroma {
                    0 | 1 => Some("4:2:0"),
                    2 => Some("4:2:2"),
                    3 => Some("4:4:4"),
                    _ => None,
                };
                builder = builder
                    .field("profile", config.profile.to_string())
                    .field_if_some("chroma-format", chroma)
                    .field("bit-depth-luma", u32::from(config.bit_depth))
                    .field("bit-depth-chroma", u32::from(config.bit_depth));
            }
        }
        Codec::Vp8 => builder = gst::Caps::builder("video/x-vp8"),
        Codec::SorensonH263 => {
            builder = gst::Caps::builder("video/x-flash-video").field("flvversion", 1);
        }
        Codec::Screen => builder = gst::Caps::builder("video/x-flash-screen"),
        Codec::Vp6 => builder = gst::Caps::builder("video/x-vp6-flash"),
        Codec::Vp6Alpha => builder = gst::Caps::builder("video/x-vp6-alpha"),
        Codec::H263 => builder = gst::Caps::builder("video/x-h263").field("variant", "itu"),
        _ => {
            builder = gst::Caps::builder("video/mpeg")
                .field("mpegversion", 4)
                .field("systemstream", false);
        }
    }
    let announced = |name| {
        let length = facts.metadata?.video(facts.track, name)?;
        (1.0..65536.0).contains(&length).then_some(length as i32)
    };
    let width = dimensions.map(|d| d.width as i32);
    let height = dimensions.map(|d| d.height as i32);
    builder = builder
        .field_if_some("width", width.or_else(|| announced("width")))
        .field_if_some("height", height.or_else(|| announced("height")));
    let metadata = facts.metadata;
    let number = |name| metadata.and_then(|m| m.video(facts.track, name));
    if let Some(rate) = number("framerate").filter(|rate| (0.1..=1000.0).contains(rate)) {
        let duration = gst::ClockTime::from_nseconds((1e9 / rate) as u64);
        builder = builder.field_if_some("framerate", gst_video::guess_framerate(duration));
    }
    if let (Some(x), Some(y)) = (number("AspectRatioX"), number("AspectRatioY"))
        && (1.0..65536.0).contains(&x)
        && (1.0..65536.0).contains(&y)
    {
        builder = builder.field("pixel-aspect-ratio", gst::Fraction::new(x as i32, y as i32));
    }
    let mut caps = builder.build();
    if let (Some(color), Some(caps)) = (facts.color, caps.get_mut()) {
        add_color(caps, color, has_full_chroma(codec, configuration));
    }
    caps
}

/// Returns true where the configuration says that chroma has as many samples as luma (4:4:4).
fn has_full_chroma(codec: Codec, configuration: &[u8]) -> bool {
    match codec {
        // High 4:4:4 Predictive and CAVLC 4:4:4 Intra.
        Codec::Avc => {
            AvcConfig::parse(configuration).is_some_and(|c| matches!(c.profile, 244 | 44))
        }
        // `chroma_format_idc`.
        Codec::Hevc => configuration.get(16).is_some_and(|byte| byte & 3 == 3),
        Codec::Av1 => Av1Config::parse(configuration).is_some_and(|c| c.is_full_chroma),
        Codec::Vp9 => VpxConfig::parse(configuration).is_some_and(|c| c.chroma == 3),
        _ => false,
    }
}

fn add_color(caps: &mut gst::CapsRef, color: &ColorInfo, has_full_chroma: bool) {
    if let Some(config) = &color.config {
        // RGB has no subsampled chroma. ffmpeg 9 writes it for a matrix that it does not know, when
        // it copies a stream.
        let matrix = config.matrix.filter(|code| *code != 0.0 || has_full_chroma);
        let colorimetry = VideoColorimetry::new(
            // colorInfo has no range. The bitstream states it.
            VideoColorRange::Unknown,
            VideoColorMatrix::from_iso(iso_code(matrix)),
            VideoTransferFunction::from_iso(iso_code(config.transfer)),
            VideoColorPrimaries::from_iso(iso_code(config.primaries)),
        );
        // Encoders may know a part of it only. Decoders add the rest from the bitstream.
        let is_known = colorimetry.matrix() != VideoColorMatrix::Unknown
            || colorimetry.transfer() != VideoTransferFunction::Unknown
            || colorimetry.primaries() != VideoColorPrimaries::Unknown;
        if is_known {
            caps.set("colorimetry", colorimetry.to_string());
        }
    }
    if let Some(light) = &color.light {
        // 0 is unknown (CTA-861.3).
        let whole = |nits: Option<f64>| nits.map_or(0, |n| n.clamp(0.0, 65535.0).round() as u16);
        let (max, average) = (whole(light.max), whole(light.max_average));
        if (max, average) != (0, 0) {
            gst_video::VideoContentLightLevel::new(max, average).add_to_caps(caps);
        }
    }
    if let Some(display) = &color.mastering {
        add_mastering_display(caps, display);
    }
}

/// Returns a code of the tables in ITU-T H.273. One that is missing or impossible is unspecified,
/// and not 0: as a matrix that is RGB.
fn iso_code(number: Option<f64>) -> u32 {
    const UNSPECIFIED: u32 = 2;
    let possible = number.filter(|n| (0.0..=255.0).contains(n) && n.fract() == 0.0);
    possible.map_or(UNSPECIFIED, |n| n as u32)
}

/// Values out of their range are unknown (H.265, D.3.28), and 0 is.
fn add_mastering_display(caps: &mut gst::CapsRef, display: &MasteringDisplay) {
    // In steps of 0.00002.
    const PARTS: f64 = 50_000.0;
    let is_possible = |n: &f64| (0.0..=1.0).contains(n);
    let point = |point: fn(&DisplayPrimaries) -> (f64, f64)| {
        let (x, y) = display.primaries.as_ref().map(point)?;
        (is_possible(&x) && is_possible(&y)).then(|| ((x * PARTS).round(), (y * PARTS).round()))
    };
    let points = [
        point(|p| p.red),
        point(|p| p.green),
        point(|p| p.blue),
        point(|p| p.white),
    ];
    // In 0.0001 cd/m².
    let luminance = |nits: Option<f64>| {
        let nits = nits.unwrap_or(0.0).clamp(0.0, 400_000.0);
        (nits * 10_000.0).round() as u32
    };
    let luminances = [display.max_luminance, display.min_luminance].map(luminance);
    let has_point = points.iter().flatten().any(|point| *point != (0.0, 0.0));
    if !has_point && luminances == [0, 0] {
        return;
    }
    let [red, green, blue, white] = points.map(|point| {
        let (x, y) = point.unwrap_or((0.0, 0.0));
        // The conversion truncates, so the value goes into the middle of its step.
        let inside = |n: f64| ((n + 0.25) / PARTS) as f32;
        gst_video::VideoMasteringDisplayInfoCoordinate::new(inside(x), inside(y))
    });
    let [max, min] = luminances;
    gst_video::VideoMasteringDisplayInfo::new([red, green, blue], white, max, min)
        .add_to_caps(caps);
}

// Audio

fn aac(facts: &TrackFacts<'_>) -> gst::Caps {
    let builder = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("framed", true)
        .field("stream-format", "raw")
        .field("codec_data", facts.codec_data());
    match AudioSpecificConfig::parse(facts.configuration) {
        Some(config) => builder
            .field("rate", config.rate as i32)
            .field("channels", i32::from(config.channels))
            .build(),
        None => builder.build(),
    }
}

fn mp3(facts: &TrackFacts<'_>) -> gst::Caps {
    let builder = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 1)
        .field("parsed", true);
    match facts.frame_header {
        Some(FrameHeader::Mp3(header)) => builder
            .field("layer", i32::from(header.layer))
            .field("rate", header.rate as i32)
            .field("channels", i32::from(header.channels))
            .build(),
        _ => builder.field("layer", 3).build(),
    }
}

fn opus(facts: &TrackFacts<'_>) -> gst::Caps {
    // As it came: it has the gain, and what later versions may add.
    let (head, header) = match OpusHead::parse(facts.configuration) {
        Some(head) => (head, facts.configuration.to_vec()),
        None => {
            let announced = facts.metadata;
            let announced = announced.and_then(|m| m.audio(facts.track, "channels"));
            let head = OpusHead::of_channels(match (facts.channels, announced) {
                (0, Some(channels)) if (1.0..2.0).contains(&channels) => 1,
                (0, _) => 2,
                (channels, _) => channels,
            });
            let header = head.to_bytes();
            (head, header)
        }
    };
    let mut builder = gst::Caps::builder("audio/x-opus")
        .field("rate", 48000)
        .field("channels", i32::from(head.channels))
        .field("channel-mapping-family", i32::from(head.family))
        .field("stream-count", i32::from(head.streams))
        .field("coupled-count", i32::from(head.coupled));
    if !head.mapping.is_empty() {
        let mapping = head.mapping.iter().map(|&channel| i32::from(channel));
        builder = builder.field("channel-mapping", gst::Array::new(mapping));
    }
    let comment = [b"OpusTags", &no_comments()[..]].concat();
    builder
        .field("streamheader", stream_header([header, comment]))
        .build()
}

fn flac(facts: &TrackFacts<'_>) -> gst::Caps {
    let builder = gst::Caps::builder("audio/x-flac").field("framed", true);
    let Some(config) = FlacConfig::parse(facts.configuration) else {
        return builder.build();
    };
    // As in Ogg: a mapping header with one more packet, then the stream information, then comments.
    let front = [
        &b"\x7FFLAC\x01\x00\x00\x01fLaC\x00\x00\x00\x22"[..],
        &config.stream_info,
    ]
    .concat();
    let comments = no_comments();
    let length = (comments.len() as u32).to_be_bytes();
    let comment = [&[0x84], &length[1..], &comments].concat();
    builder
        .field("rate", config.rate as i32)
        .field("channels", i32::from(config.channels))
        .field("streamheader", stream_header([front, comment]))
        .build()
}

fn ac3(name: &str, facts: &TrackFacts<'_>) -> gst::Caps {
    let builder = gst::Caps::builder(name).field("framed", true);
    match facts.frame_header {
        Some(FrameHeader::Ac3(header)) => builder
            .field("rate", header.rate as i32)
            .field("channels", i32::from(header.channels))
            .build(),
        _ => builder.build(),
    }
}

fn plain(format: SoundFormat, sound: Sound) -> gst::Caps {
    let channels = if sound.is_stereo { 2 } else { 1 };
    let (builder, rate, channels) = match format {
        SoundFormat::Adpcm => (
            gst::Caps::builder("audio/x-adpcm").field("layout", "swf"),
            sound.rate(),
            channels,
        ),
        SoundFormat::Nellymoser16k => (gst::Caps::builder("audio/x-nellymoser"), 16000, 1),
        SoundFormat::Nellymoser8k => (gst::Caps::builder("audio/x-nellymoser"), 8000, 1),
        SoundFormat::Nellymoser => (
            gst::Caps::builder("audio/x-nellymoser"),
            sound.rate(),
            channels,
        ),
        SoundFormat::ALaw => (gst::Caps::builder("audio/x-alaw"), 8000, channels),
        SoundFormat::MuLaw => (gst::Caps::builder("audio/x-mulaw"), 8000, channels),
        // In FLV it is always 16 kHz and mono, whatever the tag says.
        SoundFormat::Speex => (
            gst::Caps::builder("audio/x-speex")
                .field("streamheader", stream_header([speex_head(), no_comments()])),
            16000,
            1,
        ),
        _ => {
            let width = if sound.is_16_bit { "S16LE" } else { "U8" };
            let builder = gst::Caps::builder("audio/x-raw")
                .field("format", width)
                .field("layout", "interleaved");
            (builder, sound.rate(), channels)
        }
    };
    builder
        .field("rate", rate as i32)
        .field("channels", channels)
        .build()
}

/// The header that a Speex decoder needs and FLV lacks: wideband, mono, one frame per packet (Speex
/// manual, "Ogg file format").
fn speex_head() -> Vec<u8> {
    const LENGTH: u32 = 80;
    let mut head = b"Speex   1.2".to_vec();
    head.resize(28, 0);
    let version = 1_u32;
    let (rate, mode, bitstream, channels) = (16000_u32, 1_u32, 4_u32, 1_u32);
    let (unknown_bitrate, frame_size) = (u32::MAX, 320_u32);
    let (variable, frames_per_packet) = (0_u32, 1_u32);
    let numbers = [
        version,
        LENGTH,
        rate,
        mode,
        bitstream,
        channels,
        unknown_bitrate,
        frame_size,
        variable,
        frames_per_packet,
    ];
    head.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    head.resize(LENGTH as usize, 0);
    head
}

/// An empty list of Vorbis comments.
fn no_comments() -> Vec<u8> {
    const VENDOR: &[u8] = b"eflvdemux";
    let length = (VENDOR.len() as u32).to_le_bytes();
    [&length[..], VENDOR, &[0; 4]].concat()
}

fn stream_header(headers: [Vec<u8>; 2]) -> gst::Array {
    gst::Array::new(headers.into_iter().map(|header| {
        let mut buffer = gst::Buffer::from_slice(header);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_flags(gst::BufferFlags::HEADER);
        }
        buffer
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(configuration: &[u8]) -> TrackFacts<'_> {
        TrackFacts {
            track: 0,
            configuration,
            color: None,
            channels: 0,
            metadata: None,
            frame_header: None,
        }
    }

    fn head_in(caps: &gst::Caps) -> Vec<u8> {
        let headers: gst::Array = caps.structure(0).unwrap().get("streamheader").unwrap();
        let head = headers[0].get::<gst::Buffer>().unwrap();
        head.map_readable().unwrap().to_vec()
    }

    #[test]
    fn an_opus_head_is_passed_as_it_came() {
        gst::init().unwrap();
        let mut head = OpusHead::of_channels(2).to_bytes();
        // A pre-skip, a gain of -3 dB and an extension.
        head[10..12].copy_from_slice(&312_u16.to_le_bytes());
        head[16..18].copy_from_slice(&(-768_i16).to_le_bytes());
        head.extend(b"later");
        assert_eq!(head_in(&of(Codec::Opus, &facts(&head))), head);
    }

    #[test]
    fn opus_without_a_head_has_the_channels_of_its_configuration() {
        gst::init().unwrap();
        for channels in 1..=10 {
            let mut facts = facts(&[]);
            facts.channels = channels;
            let caps = of(Codec::Opus, &facts);
            let head = OpusHead::parse(&head_in(&caps)).unwrap();
            assert_eq!(head.channels, channels);
            assert_eq!(head.streams + head.coupled, channels);
            let caps = caps.structure(0).unwrap();
            assert_eq!(caps.get("channels"), Ok(i32::from(channels)));
        }
    }

    #[test]
    fn caps_state_no_colour_range_and_a_part_of_the_display() {
        gst::init().unwrap();
        let color = ColorInfo {
            config: Some(crate::flv::body::ColorConfig {
                bit_depth: None,
                primaries: Some(1.0),
                transfer: Some(1.0),
                matrix: Some(1.0),
            }),
            light: Some(crate::flv::body::ContentLight {
                max: Some(1000.0),
                max_average: None,
            }),
            mastering: Some(MasteringDisplay {
                primaries: None,
                max_luminance: Some(1000.0),
                min_luminance: Some(0.005),
            }),
        };
        let mut facts = facts(&[]);
        facts.color = Some(&color);
        let caps = of(Codec::Vp9, &facts);
        let caps = caps.structure(0).unwrap();
        let colorimetry: VideoColorimetry =
            caps.get::<&str>("colorimetry").unwrap().parse().unwrap();
        assert_eq!(colorimetry.range(), VideoColorRange::Unknown);
        assert_eq!(colorimetry.matrix(), VideoColorMatrix::Bt709);
        assert_eq!(caps.get("content-light-level"), Ok("1000:0"));
        let display = "0:0:0:0:0:0:0:0:10000000:50";
        assert_eq!(caps.get("mastering-display-info"), Ok(display));
    }

    /// Configurations of VP9.
    const SUBSAMPLED: [u8; 8] = [0, 10, 0x82, 2, 2, 2, 0, 0];
    const FULL_CHROMA: [u8; 8] = [1, 10, 0x86, 2, 2, 2, 0, 0];

    /// Returns the caps of VP9 with these colours.
    fn colored(color: &ColorInfo, configuration: &[u8]) -> gst::Caps {
        gst::init().unwrap();
        let mut facts = facts(configuration);
        facts.color = Some(color);
        of(Codec::Vp9, &facts)
    }

    #[test]
    fn chroma_is_full_where_the_configuration_says_so() {
        for (codec, record, expected) in [
            (Codec::Avc, &b"\x01\xF4\x00\x1E\xFF\xE0\x00"[..], true),
            (Codec::Avc, b"\x01\x64\x00\x1E\xFF\xE0\x00", false),
            (Codec::Av1, b"\x81\x20\x00\x00", true),
            (Codec::Av1, b"\x81\x00\x0C\x00", false),
            (Codec::Av1, b"\x81\x00\x10\x00", false),
            (Codec::Vp9, &FULL_CHROMA, true),
            (Codec::Vp9, &SUBSAMPLED, false),
            (Codec::Vp8, b"", false),
        ] {
            assert_eq!(has_full_chroma(codec, record), expected, "{codec:?}");
        }
        let mut hevc = [0; 23];
        assert!(!has_full_chroma(Codec::Hevc, &hevc));
        hevc[16] = 0xFF;
        assert!(has_full_chroma(Codec::Hevc, &hevc));
    }

    /// ffmpeg leaves out what it does not know.
    #[test]
    fn caps_state_the_part_of_the_colours_that_is_known() {
        let code = |n: f64| Some(n);
        for (primaries, transfer, matrix, expected) in [
            (code(9.0), code(16.0), None, Some("0:0:14:7")),
            (code(9.0), None, None, Some("0:0:0:7")),
            (None, None, code(9.0), Some("0:6:0:0")),
            (code(9.0), code(16.0), code(-1.0), Some("0:0:14:7")),
            (code(9.0), code(16.5), code(300.0), Some("0:0:0:7")),
            (code(9.0), code(16.0), code(0.0), Some("0:0:14:7")),
            (None, None, code(0.0), None),
            (code(2.0), code(2.0), code(2.0), None),
            (None, None, None, None),
        ] {
            let config = crate::flv::body::ColorConfig {
                bit_depth: None,
                primaries,
                transfer,
                matrix,
            };
            let color = ColorInfo {
                config: Some(config),
                ..ColorInfo::default()
            };
            let caps = colored(&color, &SUBSAMPLED);
            let stated = caps.structure(0).unwrap().get::<&str>("colorimetry").ok();
            assert_eq!(stated, expected, "{config:?}");
        }
        let rgb = crate::flv::body::ColorConfig {
            matrix: code(0.0),
            ..Default::default()
        };
        let color = ColorInfo {
            config: Some(rgb),
            ..ColorInfo::default()
        };
        let caps = colored(&color, &FULL_CHROMA);
        assert_eq!(caps.structure(0).unwrap().get("colorimetry"), Ok("0:1:0:0"));
    }

    #[test]
    fn caps_state_no_display_and_no_light_that_are_unknown() {
        let white = (0.3127, 0.329);
        let primaries = DisplayPrimaries {
            red: (1.5, 0.3),
            green: (-0.1, 0.6),
            blue: (0.0, 0.0),
            white,
        };
        let mut color = ColorInfo {
            config: None,
            light: Some(crate::flv::body::ContentLight {
                max: Some(0.0),
                max_average: Some(-1.0),
            }),
            mastering: Some(MasteringDisplay {
                primaries: Some(primaries),
                max_luminance: Some(0.0),
                min_luminance: None,
            }),
        };
        let caps = colored(&color, &SUBSAMPLED);
        let caps = caps.structure(0).unwrap();
        assert!(!caps.has_field("content-light-level"));
        let display = "0:0:0:0:0:0:15635:16450:0:0";
        assert_eq!(caps.get("mastering-display-info"), Ok(display));

        color.mastering = Some(MasteringDisplay {
            primaries: Some(DisplayPrimaries {
                white: (0.0, 0.0),
                ..primaries
            }),
            max_luminance: Some(0.0),
            min_luminance: Some(0.0),
        });
        let caps = colored(&color, &SUBSAMPLED);
        let caps = caps.structure(0).unwrap();
        assert!(!caps.has_field("mastering-display-info"));
    }

    #[test]
    fn h263_has_its_variant() {
        gst::init().unwrap();
        let caps = of(Codec::H263, &facts(&[]));
        assert_eq!(caps.structure(0).unwrap().get("variant"), Ok("itu"));
    }
}
