// SPDX-License-Identifier: MPL-2.0

//! Silent audio in the codec and configuration of a track.

use super::body::{AudioBody, AudioPacket, AudioTrack, ExAudio, Tracks};
use super::codes::{AacPacketType, AudioFourCc, SoundFormat};
use super::config::{AudioSpecificConfig, Element, Mp3Header, OpusHead, frame_elements};

/// A silent frame, over and over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    body: Vec<u8>,
    /// Samples of a frame.
    samples: u32,
    /// Samples per second.
    rate: u32,
}

impl Silence {
    /// Returns silence for a track with this sequence header: AAC or Opus.
    pub fn of_header(header: &[u8]) -> Option<Self> {
        match AudioBody::parse(header).ok()? {
            AudioBody::Aac {
                sound,
                packet_type: AacPacketType::SequenceHeader,
                payload,
            } => {
                let (frame, samples, rate) = aac(payload)?;
                let body = AudioBody::Aac {
                    sound,
                    packet_type: AacPacketType::Raw,
                    payload: &frame,
                };
                Some(Silence::new(&body, samples, rate))
            }
            AudioBody::Ex(ExAudio { tracks, .. }) => {
                let track = first(&tracks)?;
                let AudioPacket::SequenceStart(config) = track.packet else {
                    return None;
                };
                let (frame, samples, rate) = match track.four_cc {
                    AudioFourCc::Aac => aac(config)?,
                    AudioFourCc::Opus => opus(config)?,
                    _ => return None,
                };
                Some(Silence::enhanced(&tracks, &frame, samples, rate))
            }
            _ => None,
        }
    }

    /// Returns silence for a track without a sequence header that sends this: MP3 or G.711.
    pub fn of_media(body: &[u8]) -> Option<Self> {
        match AudioBody::parse(body).ok()? {
            AudioBody::Legacy {
                format,
                sound,
                payload,
            } => {
                let (frame, samples, rate) = match format {
                    SoundFormat::Mp3 | SoundFormat::Mp3At8k => mp3(payload)?,
                    SoundFormat::ALaw => g711(0xD5, sound.is_stereo),
                    SoundFormat::MuLaw => g711(0xFF, sound.is_stereo),
                    _ => return None,
                };
                let body = AudioBody::Legacy {
                    format,
                    sound,
                    payload: &frame,
                };
                Some(Silence::new(&body, samples, rate))
            }
            AudioBody::Ex(ExAudio { tracks, .. }) => {
                let track = first(&tracks)?;
                let AudioPacket::CodedFrames(payload) = track.packet else {
                    return None;
                };
                if track.four_cc != AudioFourCc::Mp3 {
                    return None;
                }
                let (frame, samples, rate) = mp3(payload)?;
                Some(Silence::enhanced(&tracks, &frame, samples, rate))
            }
            AudioBody::Aac { .. } => None,
        }
    }

    fn new(body: &AudioBody<'_>, samples: u32, rate: u32) -> Self {
        let mut bytes = Vec::new();
        body.write(&mut bytes);
        Silence {
            body: bytes,
            samples,
            rate: rate.max(1),
        }
    }

    /// Returns silence of one track in the form of these tracks.
    fn enhanced(tracks: &Tracks<AudioTrack<'_>>, frame: &[u8], samples: u32, rate: u32) -> Self {
        let silent = |track: &AudioTrack<'_>| AudioTrack {
            four_cc: track.four_cc,
            packet: AudioPacket::CodedFrames(frame),
        };
        let form = match tracks {
            Tracks::Unwrapped(track) => Tracks::Unwrapped(silent(track)),
            Tracks::OneTrack(id, track) => Tracks::OneTrack(*id, silent(track)),
            Tracks::ManyTracks(many) | Tracks::ManyTracksManyCodecs(many) => {
                let (id, track) = &many[0];
                Tracks::OneTrack(*id, silent(track))
            }
        };
        let body = AudioBody::Ex(ExAudio {
            mod_ex: Vec::new(),
            tracks: form,
        });
        Silence::new(&body, samples, rate)
    }

    /// Returns the body of each tag.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the time of a frame after the first one's, in milliseconds.
    pub fn time(&self, frame: u64) -> u64 {
        let samples = u128::from(frame) * u128::from(self.samples) * 1000;
        u64::try_from(samples / u128::from(self.rate)).unwrap_or(u64::MAX)
    }
}

fn first<'a>(tracks: &Tracks<AudioTrack<'a>>) -> Option<AudioTrack<'a>> {
    tracks.iter().next().map(|(_, track)| *track)
}

/// Writes bits from the front of a byte on.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: usize) {
        for shift in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> shift & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }
}

/// Returns a frame of AAC without any spectrum, its samples and its rate (ISO/IEC 14496-3, 4.4.2). A
/// decoder of HE-AAC has nothing to replicate then.
fn aac(config: &[u8]) -> Option<(Vec<u8>, u32, u32)> {
    let core = AudioSpecificConfig::parse(config)?;
    // Main, LC and LTP have this syntax; parametric stereo and band replication extend it.
    if !matches!(core.object_type, 1 | 2 | 4) {
        return None;
    }
    let (elements, is_short) = frame_elements(config)?;
    let mut frame = BitWriter::default();
    for (element, tag) in elements {
        let id = match element {
            Element::Single => 0,
            Element::Pair => 1,
            Element::LowFrequency => 3,
        };
        frame.put(id, 3);
        frame.put(tag, 4);
        let channels = match element {
            Element::Pair => {
                frame.put(1, 1);
                put_ics_info(&mut frame);
                // No mid/side stereo.
                frame.put(0, 2);
                2
            }
            _ => 1,
        };
        for _ in 0..channels {
            // The gain, of nothing.
            frame.put(0, 8);
            if element != Element::Pair {
                put_ics_info(&mut frame);
            }
            // No pulses, noise shaping or gain control.
            frame.put(0, 3);
        }
    }
    // The end.
    frame.put(7, 3);
    Some((frame.bytes, if is_short { 960 } else { 1024 }, core.rate))
}

/// One long window without a single band.
fn put_ics_info(frame: &mut BitWriter) {
    frame.put(0, 1 + 2 + 1 + 6 + 1);
}

/// Returns a packet of 20 ms in which each stream has a CELT frame that is marked silent (RFC 6716,
/// 3 and 4.3.1).
fn opus(config: &[u8]) -> Option<(Vec<u8>, u32, u32)> {
    // Some encoders send another header, or none. Any decoder plays stereo.
    let head = OpusHead::parse(config).unwrap_or_else(|| OpusHead::of_channels(2));
    let mut packet = Vec::new();
    for stream in 0..head.streams {
        packet.push(if stream < head.coupled { 0xFC } else { 0xF8 });
        // All but the last one tell their length.
        if stream + 1 < head.streams {
            packet.push(2);
        }
        packet.extend([0xFF, 0xFE]);
    }
    Some((packet, 960, 48_000))
}

/// Returns a frame of MP3 without any spectrum, at the lowest bit rate.
fn mp3(payload: &[u8]) -> Option<(Vec<u8>, u32, u32)> {
    let header = Mp3Header::parse(payload)?;
    let &[first, second, third, fourth, ..] = payload else {
        return None;
    };
    if header.layer != 3 {
        return None;
    }
    let is_first_version = second >> 3 & 3 == 3;
    let (length, samples) = match is_first_version {
        true => (144 * 32_000 / header.rate, 1152),
        false => (72 * 8_000 / header.rate, 576),
    };
    let mut frame = vec![0; length as usize];
    // Without a checksum, and without the extension of joint stereo.
    let front = [first, second | 1, 1 << 4 | third & 0x0C, fourth & 0xCF];
    frame.get_mut(..4)?.copy_from_slice(&front);
    Some((frame, samples, header.rate))
}

/// Returns 20 ms of G.711.
fn g711(zero: u8, is_stereo: bool) -> (Vec<u8>, u32, u32) {
    let channels = if is_stereo { 2 } else { 1 };
    (vec![zero; 160 * channels], 160, 8000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_aac(config: &[u8]) -> Option<Silence> {
        Silence::of_header(&[&[0xAF, 0], config].concat())
    }

    #[test]
    fn frame_of_aac_has_the_elements_of_its_configuration() {
        // 44.1 kHz, mono and stereo.
        let mono = of_aac(&[0x12, 0x08]).unwrap();
        assert_eq!(mono.body(), [0xAF, 1, 0, 0, 0, 7]);
        let stereo = of_aac(&[0x12, 0x10]).unwrap();
        assert_eq!(stereo.body(), [0xAF, 1, 0x21, 0, 0, 0, 0, 0x1C]);
        assert_eq!(
            [1, 2, 43, 44].map(|frame| mono.time(frame)),
            [23, 46, 998, 1021]
        );
        // Spectral band replication doubles the rate, and the samples too.
        let replicated = of_aac(&[0x2B, 0x92, 0x08, 0]).unwrap();
        assert_eq!(replicated.time(1), 46);
        for configuration in 1..16u8 {
            let config = [0x11, 0x80 | configuration << 3];
            let is_known = matches!(configuration, 1..=7 | 11 | 12 | 14);
            assert_eq!(of_aac(&config).is_some(), is_known, "{configuration}");
        }
    }

    #[test]
    fn unknown_object_types_have_no_silence() {
        // Low delay, and configurations that are cut short.
        assert_eq!(of_aac(&[0xB9, 0x90]), None);
        for length in 0..2 {
            assert_eq!(of_aac(&[0x12, 0x10][..length]), None);
        }
        assert_eq!(Silence::of_header(&[]), None);
        assert_eq!(Silence::of_media(&[]), None);
        assert_eq!(Silence::of_media(&[0xAF, 1, 2]), None);
    }

    #[test]
    fn packet_of_opus_has_a_frame_for_each_stream() {
        let silence = |channels| {
            let head = OpusHead::of_channels(channels).to_bytes();
            Silence::of_header(&[&b"\x90Opus"[..], &head].concat()).unwrap()
        };
        let body = |packet: &[u8]| [&b"\x91Opus"[..], packet].concat();
        assert_eq!(silence(1).body(), body(&[0xF8, 0xFF, 0xFE]));
        assert_eq!(silence(2).body(), body(&[0xFC, 0xFF, 0xFE]));
        let six = [
            0xFC, 2, 0xFF, 0xFE, 0xFC, 2, 0xFF, 0xFE, 0xF8, 2, 0xFF, 0xFE, 0xF8, 0xFF, 0xFE,
        ];
        assert_eq!(silence(6).body(), body(&six));
        assert_eq!(silence(2).time(50), 1000);
    }

    #[test]
    fn numbered_track_keeps_its_number() {
        let head = OpusHead::of_channels(2).to_bytes();
        let header = [&b"\x95\x00Opus\x03"[..], &head].concat();
        let silence = Silence::of_header(&header).unwrap();
        assert_eq!(silence.body(), b"\x95\x01Opus\x03\xFC\xFF\xFE");
    }

    #[test]
    fn frame_of_mp3_has_the_rate_and_the_channels_of_the_publisher() {
        // 128 kbit/s, 44.1 kHz, joint stereo.
        let silence = Silence::of_media(&[0x2F, 0xFF, 0xFB, 0x90, 0x64, 0, 0]).unwrap();
        assert_eq!(silence.body()[..5], [0x2F, 0xFF, 0xFB, 0x10, 0x44]);
        assert_eq!(silence.body().len(), 1 + 104);
        assert_eq!(silence.time(1), 26);
        // MPEG 2, 24 kHz.
        let silence = Silence::of_media(&[0x2B, 0xFF, 0xF3, 0x84, 0xC4, 0, 0]).unwrap();
        assert_eq!(silence.body().len(), 1 + 24);
        assert_eq!(silence.time(1), 24);
    }

    #[test]
    fn g711_has_the_level_of_silence() {
        let law = |first| Silence::of_media(&[first, 1, 2, 3]).unwrap();
        assert_eq!(law(0x72).body(), [&[0x72][..], &[0xD5; 160]].concat());
        assert_eq!(law(0x83).body(), [&[0x83][..], &[0xFF; 320]].concat());
        assert_eq!(law(0x72).time(50), 1000);
    }
}
