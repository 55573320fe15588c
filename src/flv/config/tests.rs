// SPDX-License-Identifier: MPL-2.0

use super::bits::Bits;
use super::*;

/// A record of x264: 1920x1080, high profile, cropped from 1088 lines.
pub(super) const AVC: &[u8] = &[
    0x01, 0x64, 0x00, 0x28, 0xFF, 0xE1, 0x00, 0x1B, 0x67, 0x64, 0x00, 0x28, 0xAC, 0xD9, 0x40, 0x78,
    0x02, 0x27, 0xE5, 0xC0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xF0, 0x3C,
    0x60, 0xC6, 0x58, 0x01, 0x00, 0x06, 0x68, 0xEA, 0xE3, 0xCB, 0x22, 0xC0, 0xFD, 0xF8, 0xF8, 0x00,
];

/// A record of x265: 1920x1080 in 4:4:4, cropped.
pub(super) const HEVC: &[u8] = &[
    0x01, 0x04, 0x08, 0x00, 0x00, 0x00, 0x9E, 0x08, 0x00, 0x00, 0x00, 0x00, 0x78, 0xF0, 0x00, 0xFC,
    0xFF, 0xF8, 0xF8, 0x00, 0x00, 0x0F, 0x03, 0x20, 0x00, 0x01, 0x00, 0x17, 0x40, 0x01, 0x0C, 0x01,
    0xFF, 0xFF, 0x04, 0x08, 0x00, 0x00, 0x03, 0x00, 0x9E, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00, 0x78,
    0x95, 0x94, 0x09, 0x21, 0x00, 0x01, 0x00, 0x2F, 0x42, 0x01, 0x01, 0x04, 0x08, 0x00, 0x00, 0x03,
    0x00, 0x9E, 0x08, 0x00, 0x00, 0x03, 0x00, 0x00, 0x78, 0x90, 0x00, 0x78, 0x10, 0x02, 0x20, 0xF8,
    0x9C, 0xB2, 0xB2, 0xA5, 0x26, 0x17, 0x80, 0xB7, 0x02, 0x02, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00,
    0x04, 0x00, 0x00, 0x03, 0x00, 0x78, 0x20, 0x22, 0x00, 0x01, 0x00, 0x08, 0x44, 0x01, 0xC0, 0x73,
    0x18, 0x30, 0x18, 0x90,
];

/// A record of SVT-AV1: 322x242.
const AV1: &[u8] = &[
    0x81, 0x00, 0x0C, 0x00, 0x0A, 0x0B, 0x02, 0x00, 0x00, 0x05, 0x21, 0xE8, 0x3E, 0x20, 0x17, 0xC0,
    0x02,
];

#[test]
fn exponential_golomb_codes_are_read() {
    let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
    assert_eq!(
        [bits.ue(), bits.ue(), bits.ue()],
        [Some(0), Some(1), Some(2)]
    );
    assert_eq!(bits.ue(), Some(3));
    assert_eq!(bits.se(), Some(-2));
    assert_eq!(Bits::new(&[0; 8]).ue(), None);
}

#[test]
fn an_avc_record_is_parsed() {
    let config = AvcConfig::parse(AVC).unwrap();
    assert_eq!((config.profile, config.level), (100, 40));
    assert_eq!(config.nal_length_size, 4);
    assert!(config.has_parameter_sets);
    assert_eq!(config.dimensions, Dimensions::new(1920, 1080));
    // The bytes after the parameter sets may be missing: old records have none.
    for length in 0..AVC.len() - 4 {
        assert_eq!(AvcConfig::parse(&AVC[..length]), None, "{length}");
    }
    let other = AvcConfig::parse(HEVC);
    assert!(other.is_none_or(|config| !config.has_parameter_sets));
}

#[test]
fn an_hevc_record_is_parsed() {
    let config = HevcConfig::parse(HEVC).unwrap();
    assert_eq!(
        (config.profile, config.level, config.bit_depth),
        (4, 120, 8)
    );
    assert!(config.has_parameter_sets);
    assert_eq!(config.dimensions, Dimensions::new(1920, 1080));
    for length in 0..HEVC.len() {
        assert_eq!(HevcConfig::parse(&HEVC[..length]), None, "{length}");
    }
}

#[test]
fn an_av1_record_is_parsed() {
    let config = Av1Config::parse(AV1).unwrap();
    assert_eq!((config.profile, config.bit_depth), (0, 8));
    assert_eq!(config.dimensions, Dimensions::new(322, 242));
    assert_eq!(Av1Config::parse(&AV1[..4]).unwrap().dimensions, None);
    let record = Av1Config::record_of_descriptor(&[0x80, 4, 0x81, 0x05, 0x0C, 0x55]);
    assert_eq!(record, Some([0x81, 0x05, 0x0C, 0x15]));
}

#[test]
fn aac_configurations_are_parsed() {
    let parse = AudioSpecificConfig::parse;
    let config = |object_type, rate, channels| {
        Some(AudioSpecificConfig {
            object_type,
            rate,
            channels,
        })
    };
    assert_eq!(parse(&[0x11, 0x90]), config(2, 48000, 2));
    assert_eq!(parse(&[0x12, 0x08]), config(2, 44100, 1));
    // Explicit SBR over 24 kHz.
    assert_eq!(parse(&[0x2B, 0x11, 0x88, 0]), config(2, 24000, 2));
    assert_eq!(parse(&[0x11]), None);
    assert_eq!(parse(&[]), None);
}

#[test]
fn an_adts_header_is_parsed() {
    let frame = [0xFF, 0xF1, 0x4C, 0x80, 0x01, 0x1F, 0xFC, 0x21];
    let header = AdtsHeader::parse(&frame).unwrap();
    assert_eq!((header.config, header.length), ([0x11, 0x90], 7));
    assert_eq!(AdtsHeader::parse(&frame[..7]), None);
}

#[test]
fn an_opus_head_survives_a_round_trip() {
    let mut bytes = OpusHead::of_channels(2).to_bytes();
    assert_eq!(OpusHead::parse(&bytes), Some(OpusHead::of_channels(2)));
    bytes[18] = 1;
    assert_eq!(OpusHead::parse(&bytes), None);
    bytes.extend([1, 1, 0, 1]);
    let head = OpusHead::parse(&bytes).unwrap();
    assert_eq!(
        (head.streams, head.coupled, &head.mapping[..]),
        (1, 1, &[0, 1][..])
    );
    assert_eq!(head.to_bytes(), bytes);
}

#[test]
fn an_opus_head_with_channels_of_no_stream_is_none() {
    let head = |family, streams, coupled, mapping: &[u8]| {
        let mut bytes = OpusHead::of_channels(3).to_bytes();
        bytes.truncate(18);
        bytes.extend([family, streams, coupled]);
        bytes.extend(mapping);
        OpusHead::parse(&bytes)
    };
    assert!(head(1, 2, 1, &[0, 2, 1]).is_some());
    assert!(head(255, 3, 0, &[0, 1, 2]).is_some());
    assert!(head(255, 1, 0, &[0, 255, 255]).is_some(), "silence");
    assert!(head(1, 2, 1, &[0, 3, 1]).is_none());
    assert!(head(255, 200, 100, &[0, 1, 2]).is_none());
    // A matrix of two bytes for each channel and stream.
    let projection = head(3, 2, 1, &[0xFF; 18]).unwrap();
    assert!(projection.mapping.is_empty());
}

#[test]
fn flac_is_parsed_with_and_without_its_front() {
    let mut bare = [0; STREAM_INFO_LENGTH];
    bare[10..14].copy_from_slice(&[0x0B, 0xB8, 0x02, 0xF0]);
    let config = FlacConfig::parse(&bare).unwrap();
    assert_eq!((config.rate, config.channels, config.bits), (48000, 2, 16));
    let block = [&[0x80, 0, 0, 34][..], &bare].concat();
    let whole = [&b"fLaC"[..], &block].concat();
    assert_eq!(FlacConfig::parse(&block), Some(config));
    assert_eq!(FlacConfig::parse(&whole), Some(config));
    assert_eq!(FlacConfig::parse(&whole[..41]), None);
}

#[test]
fn frames_describe_themselves() {
    let header = Ac3Header::parse(&[0x0B, 0x77, 1, 2, 0x1E, 0x40, 0xE1, 0]).unwrap();
    assert_eq!((header.rate, header.channels), (48000, 6));
    let header = Mp3Header::parse(&[0xFF, 0xFB, 0x94, 0x44]).unwrap();
    assert_eq!((header.layer, header.rate, header.channels), (3, 48000, 2));
}

#[test]
fn vpx_is_parsed_with_and_without_version() {
    let record = [2, 10, 0xA2, 9, 16, 9, 0, 0];
    let config = VpxConfig::parse(&record).unwrap();
    assert_eq!(
        (config.profile, config.bit_depth, config.chroma),
        (2, 10, 1)
    );
    let boxed = [&[1, 0, 0, 0][..], &record].concat();
    assert_eq!(VpxConfig::parse(&boxed), Some(config));
}
