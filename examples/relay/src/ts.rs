// SPDX-License-Identifier: MPL-2.0

//! Writes MPEG transport streams (ISO/IEC 13818-1) with one track of H.264, one of AAC, or both.
//!
//! A segment must be cut at a frame, begin with its tables, and have counters that continue those
//! of the segment before, over publishers that leave and return. mpegtsmux does none of that by
//! itself, and waits for tracks. So the content of each packet is decided here; `mpeg2ts` writes
//! the packets.

use mpeg2ts::es::{StreamId, StreamType};
use mpeg2ts::pes::PesHeader;
use mpeg2ts::time::{ClockReference, Timestamp};
use mpeg2ts::ts::payload::{Bytes, Pat, Pes, Pmt};
use mpeg2ts::ts::{
    AdaptationField, ContinuityCounter, EsInfo, Pid, ProgramAssociation,
    TransportScramblingControl, TsHeader, TsPacket, TsPacketWriter, TsPayload, VersionNumber,
    WriteTsPacket,
};

/// Ticks per second.
pub const CLOCK: u64 = Timestamp::RESOLUTION;

const PAT_PID: u16 = Pid::PAT;
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
const PROGRAM: u16 = 1;

/// Ticks by which the clock is behind the pictures: time for the bytes of a keyframe to arrive.
const HEAD_START: u64 = CLOCK / 2;

/// Bytes before each picture and each piece of sound, and how many of them its length counts.
const PES_HEADER: usize = 14;
const PES_HEADER_COUNTED: usize = 8;

/// The tracks of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracks {
    pub video: bool,
    pub audio: bool,
}

/// A counter for each kind of packet, and the version of the tables.
#[derive(Debug, Default)]
pub struct TsWriter {
    pat: Counter,
    pmt: Counter,
    video: Counter,
    audio: Counter,
    tracks: Tracks,
    version: u8,
}

/// The counter of one kind of packet.
#[derive(Debug, Default)]
struct Counter {
    next: ContinuityCounter,
    has_started: bool,
}

/// A piece of a track.
struct Piece<'a> {
    pid: u16,
    stream: u8,
    is_random_access: bool,
    /// No picture is reordered, so one time is enough.
    time: u64,
    has_clock: bool,
    /// `None` where it may be longer than its length field can say.
    length: Option<u16>,
    bytes: &'a [u8],
}

impl TsWriter {
    /// Writes the tables that a segment begins with.
    pub fn tables(&mut self, out: &mut Vec<u8>, tracks: Tracks) {
        if tracks != self.tracks {
            self.tracks = tracks;
            self.version = (self.version + 1) & VersionNumber::MAX;
        }
        let version_number = valid(VersionNumber::from_u8(self.version));
        let pat = TsPayload::Pat(Pat {
            transport_stream_id: 1,
            version_number,
            table: vec![ProgramAssociation {
                program_num: PROGRAM,
                program_map_pid: pid(PMT_PID),
            }],
        });
        let streams = [
            (tracks.video, StreamType::H264, VIDEO_PID),
            (tracks.audio, StreamType::AdtsAac, AUDIO_PID),
        ];
        let there = streams.into_iter().filter(|(is_there, ..)| *is_there);
        let info = |(_, stream_type, number)| EsInfo {
            stream_type,
            elementary_pid: pid(number),
            descriptors: Vec::new(),
        };
        let clock_pid = if tracks.video { VIDEO_PID } else { AUDIO_PID };
        let pmt = TsPayload::Pmt(Pmt {
            program_num: PROGRAM,
            pcr_pid: Some(pid(clock_pid)),
            version_number,
            program_info: Vec::new(),
            es_info: there.map(info).collect(),
        });
        let field = self.pat.field(false, None);
        self.pat.write(out, PAT_PID, field, pat);
        let field = self.pmt.field(false, None);
        self.pmt.write(out, PMT_PID, field, pmt);
    }

    /// Writes a picture in Annex B.
    pub fn picture(&mut self, out: &mut Vec<u8>, time: u64, is_idr: bool, bytes: &[u8]) {
        let piece = Piece {
            pid: VIDEO_PID,
            stream: StreamId::VIDEO_MIN,
            is_random_access: is_idr,
            time,
            has_clock: true,
            length: None,
            bytes,
        };
        self.video.cut(out, &piece);
    }

    /// Writes AAC with its ADTS header.
    pub fn sound(&mut self, out: &mut Vec<u8>, time: u64, bytes: &[u8]) {
        let has_clock = !self.tracks.video;
        let piece = Piece {
            pid: AUDIO_PID,
            stream: StreamId::AUDIO_MIN,
            is_random_access: has_clock,
            time,
            has_clock,
            length: u16::try_from(bytes.len() + PES_HEADER_COUNTED).ok(),
            bytes,
        };
        self.audio.cut(out, &piece);
    }
}

impl Counter {
    /// Returns the adaptation field of the next packet, if it needs one. The very first one says
    /// that the counters of an earlier writer do not go on.
    fn field(&mut self, is_random_access: bool, clock: Option<u64>) -> Option<AdaptationField> {
        let is_first = !std::mem::replace(&mut self.has_started, true);
        let is_needed = is_first || is_random_access || clock.is_some();
        let ticks = ClockReference::RESOLUTION / CLOCK;
        let reference = |time| valid(ClockReference::new((time & Timestamp::MAX) * ticks));
        is_needed.then(|| AdaptationField {
            discontinuity_indicator: is_first,
            random_access_indicator: is_random_access,
            es_priority_indicator: false,
            pcr: clock.map(reference),
            opcr: None,
            splice_countdown: None,
            transport_private_data: Vec::new(),
            extension: None,
        })
    }

    /// Cuts a piece into packets, the last of which is filled up.
    fn cut(&mut self, out: &mut Vec<u8>, piece: &Piece<'_>) {
        let clock = piece.time.saturating_sub(HEAD_START);
        let field = self.field(piece.is_random_access, piece.has_clock.then_some(clock));
        let room = Bytes::MAX_SIZE - PES_HEADER - size(field.as_ref());
        let (first, rest) = piece.bytes.split_at(piece.bytes.len().min(room));
        let header = PesHeader {
            stream_id: StreamId::new(piece.stream),
            priority: false,
            data_alignment_indicator: true,
            copyright: false,
            original_or_copy: false,
            pts: Some(valid(Timestamp::new(piece.time & Timestamp::MAX))),
            dts: None,
            escr: None,
        };
        let start = TsPayload::PesStart(Pes {
            header,
            pes_packet_len: piece.length.unwrap_or(0),
            data: valid(Bytes::new(first)),
        });
        self.write(out, piece.pid, field, start);
        for bytes in rest.chunks(Bytes::MAX_SIZE) {
            let bytes = valid(Bytes::new(bytes));
            self.write(out, piece.pid, None, TsPayload::PesContinuation(bytes));
        }
    }

    /// Writes one packet.
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        number: u16,
        adaptation_field: Option<AdaptationField>,
        payload: TsPayload,
    ) {
        let header = TsHeader {
            transport_error_indicator: false,
            transport_priority: false,
            pid: pid(number),
            transport_scrambling_control: TransportScramblingControl::NotScrambled,
            continuity_counter: self.next,
        };
        self.next.increment();
        let packet = TsPacket {
            header,
            adaptation_field,
            payload: Some(payload),
        };
        valid(TsPacketWriter::new(out).write_ts_packet(&packet));
    }
}

/// Returns the bytes of length, flags and clock.
fn size(field: Option<&AdaptationField>) -> usize {
    field.map_or(0, |field| if field.pcr.is_some() { 8 } else { 2 })
}

fn pid(number: u16) -> Pid {
    valid(Pid::new(number))
}

/// All values written here are in their range and fit, and writing to memory never fails.
fn valid<T>(result: mpeg2ts::Result<T>) -> T {
    result.expect("a valid packet")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use mpeg2ts::ts::{ReadTsPacket, TsPacketReader};

    use super::*;

    const BOTH: Tracks = Tracks {
        video: true,
        audio: true,
    };

    fn read(bytes: &[u8]) -> Vec<TsPacket> {
        let mut reader = TsPacketReader::new(bytes);
        let packets = std::iter::from_fn(|| reader.read_ts_packet().unwrap());
        packets.collect()
    }

    #[test]
    fn packets_of_any_length_are_whole_and_counted() {
        let mut writer = TsWriter::default();
        let mut out = Vec::new();
        writer.tables(&mut out, BOTH);
        let mut expected = Vec::new();
        for length in 1..600 {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            writer.picture(&mut out, length as u64, length % 7 == 0, &payload);
            writer.sound(&mut out, length as u64, &payload);
            expected.extend(payload);
        }
        assert_eq!(out.len() % TsPacket::SIZE, 0);
        let mut got: HashMap<u16, Vec<u8>> = HashMap::new();
        let mut counters = HashMap::new();
        for packet in read(&out) {
            let pid = packet.header.pid.as_u16();
            let counter = counters.entry(pid).or_insert(ContinuityCounter::new());
            assert_eq!(packet.header.continuity_counter, *counter, "of {pid}");
            counter.increment();
            match packet.payload.unwrap() {
                TsPayload::PesStart(pes) => got.entry(pid).or_default().extend(&*pes.data),
                TsPayload::PesContinuation(bytes) => got.entry(pid).or_default().extend(&*bytes),
                _ => {}
            }
        }
        assert_eq!(got[&VIDEO_PID], expected);
        assert_eq!(got[&AUDIO_PID], expected);
    }

    #[test]
    fn times_and_flags_are_in_their_places() {
        let mut writer = TsWriter::default();
        let mut out = Vec::new();
        writer.tables(&mut out, BOTH);
        let time = (1 << 33) + 2 * CLOCK;
        writer.picture(&mut out, time, true, b"picture");
        writer.sound(&mut out, time, b"sound");
        let packets = read(&out);
        let [_, _, picture, sound] = &packets[..] else {
            panic!("{packets:?}");
        };
        let field = picture.adaptation_field.as_ref().unwrap();
        assert!(field.discontinuity_indicator && field.random_access_indicator);
        assert_eq!(field.pcr.unwrap().as_u64(), 300 * 3 * CLOCK / 2);
        let field = sound.adaptation_field.as_ref().unwrap();
        assert!(field.discontinuity_indicator && !field.random_access_indicator);
        assert_eq!(field.pcr, None);
        for (packet, length) in [(picture, 0), (sound, 13)] {
            let Some(TsPayload::PesStart(pes)) = &packet.payload else {
                panic!("{packet:?}");
            };
            assert_eq!(pes.header.pts.unwrap().as_u64(), 2 * CLOCK);
            assert_eq!(pes.pes_packet_len, length);
        }
    }

    #[test]
    fn tables_of_other_tracks_have_a_new_version() {
        let mut writer = TsWriter::default();
        let mut tables = |tracks| {
            let mut out = Vec::new();
            writer.tables(&mut out, tracks);
            match read(&out).swap_remove(1).payload {
                Some(TsPayload::Pmt(pmt)) => {
                    let streams = pmt.es_info.iter().map(|info| info.stream_type);
                    (pmt.version_number, streams.collect::<Vec<_>>())
                }
                other => panic!("{other:?}"),
            }
        };
        let first = tables(BOTH);
        assert_eq!(first.1, [StreamType::H264, StreamType::AdtsAac]);
        assert_eq!(tables(BOTH), first);
        let alone = Tracks {
            video: true,
            audio: false,
        };
        let second = tables(alone);
        assert_eq!(second.1, [StreamType::H264]);
        assert_ne!(second.0, first.0);
    }
}
