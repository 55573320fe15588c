// SPDX-License-Identifier: MPL-2.0

//! Writes MPEG transport streams (ISO/IEC 13818-1) with one track of H.264, one of AAC, or both.
//!
//! A segment has to be cut at a frame, begin with its tables, and have counters that go on from the
//! one before, over publishers that leave and come back. mpegtsmux does none of that by itself, and
//! waits for tracks; what is needed of the format is this page.

/// Ticks in a second.
pub const CLOCK: u64 = 90_000;

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
const PAYLOAD: usize = PACKET - 4;

const PAT_PID: u16 = 0;
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;

const H264: u8 = 0x1B;
const AAC_ADTS: u8 = 0x0F;

/// By how much the clock is behind what is to be shown: time for the bytes of a keyframe to come in.
const HEAD_START: u64 = CLOCK / 2;

/// The tracks of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tracks {
    pub video: bool,
    pub audio: bool,
}

/// What is counted of each kind of packet, and the version of the tables.
#[derive(Debug, Default)]
pub struct Writer {
    pat: Counter,
    pmt: Counter,
    video: Counter,
    audio: Counter,
    tracks: Tracks,
    version: u8,
}

/// Of the packets of one kind.
#[derive(Debug, Default)]
struct Counter {
    next: u8,
    has_started: bool,
}

impl Counter {
    /// The adaptation field of the next packet without its length. The very first one says that whatever was
    /// counted before, by another writer, does not go on.
    fn field(&mut self, is_random_access: bool, clock: Option<u64>) -> Vec<u8> {
        let is_first = !std::mem::replace(&mut self.has_started, true);
        let flags = [
            (is_first, 0x80),
            (is_random_access, 0x40),
            (clock.is_some(), 0x10),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let flags = flags.fold(0, |all, (_, flag)| all | flag);
        if flags == 0 {
            return Vec::new();
        }
        let mut field = vec![flags];
        if let Some(clock) = clock {
            let base = (clock & 0x1_FFFF_FFFF) << 15 | 0x7E00;
            field.extend(&base.to_be_bytes()[2..]);
        }
        field
    }
}

impl Writer {
    /// The tables that a segment begins with.
    pub fn tables(&mut self, out: &mut Vec<u8>, tracks: Tracks) {
        if tracks != self.tracks {
            self.tracks = tracks;
            self.version = (self.version + 1) & 0x1F;
        }
        let version = 0xC1 | self.version << 1;
        let [high, low] = (0xE000 | PMT_PID).to_be_bytes();
        let pat = section(0, &[0, 1, version, 0, 0, 0, 1, high, low]);
        table(out, PAT_PID, &mut self.pat, &pat);
        let clock_pid = if tracks.video { VIDEO_PID } else { AUDIO_PID };
        let [high, low] = (0xE000 | clock_pid).to_be_bytes();
        let mut pmt = vec![0, 1, version, 0, 0, high, low, 0xF0, 0];
        let streams = [
            (tracks.video, H264, VIDEO_PID),
            (tracks.audio, AAC_ADTS, AUDIO_PID),
        ];
        for (_, kind, pid) in streams.into_iter().filter(|(is_there, ..)| *is_there) {
            let [high, low] = (0xE000 | pid).to_be_bytes();
            pmt.extend([kind, high, low, 0xF0, 0]);
        }
        table(out, PMT_PID, &mut self.pmt, &section(2, &pmt));
    }

    /// A picture in Annex B.
    pub fn picture(&mut self, out: &mut Vec<u8>, time: u64, is_idr: bool, bytes: &[u8]) {
        let clock = time.saturating_sub(HEAD_START);
        let field = self.video.field(is_idr, Some(clock));
        // No length: pictures may be longer than it can say.
        let pes = pes(0xE0, 0, time, bytes);
        packets(out, VIDEO_PID, &mut self.video, field, &pes);
    }

    /// AAC with its ADTS header.
    pub fn sound(&mut self, out: &mut Vec<u8>, time: u64, bytes: &[u8]) {
        let has_clock = !self.tracks.video;
        let clock = has_clock.then_some(time.saturating_sub(HEAD_START));
        let field = self.audio.field(has_clock, clock);
        let length = u16::try_from(bytes.len() + 8).unwrap_or(0);
        let pes = pes(0xC0, length, time, bytes);
        packets(out, AUDIO_PID, &mut self.audio, field, &pes);
    }
}

/// A table with its length and checksum, behind its pointer field.
fn section(table: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = (0xB000 | (body.len() + 4) as u16).to_be_bytes();
    let mut section = vec![table, high, low];
    section.extend_from_slice(body);
    let checksum = crc32(&section).to_be_bytes();
    section.extend(checksum);
    section.insert(0, 0);
    section
}

/// One packet, which is filled up.
fn table(out: &mut Vec<u8>, pid: u16, counter: &mut Counter, section: &[u8]) {
    let field = counter.field(false, None);
    let used = if field.is_empty() { 0 } else { field.len() + 1 };
    let mut section = section.to_vec();
    section.resize(PAYLOAD - used, 0xFF);
    packets(out, pid, counter, field, &section);
}

/// ISO/IEC 13818-1, annex A.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            let carry = crc & 1 << 31 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x04C1_1DB7;
            }
        }
    }
    crc
}

/// A packet of the elementary stream. Nothing is reordered, so one time is enough.
fn pes(stream: u8, length: u16, time: u64, bytes: &[u8]) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let time = time & 0x1_FFFF_FFFF;
    let marked = |bits: u64| (bits << 1) as u8 | 1;
    let mut pes = vec![0, 0, 1, stream, high, low, 0x84, 0x80, 5];
    pes.push(0x20 | marked(time >> 30 & 7));
    pes.extend([(time >> 22) as u8, marked(time >> 15 & 0x7F)]);
    pes.extend([(time >> 7) as u8, marked(time & 0x7F)]);
    pes.extend_from_slice(bytes);
    pes
}

/// Cuts into packets. The first has this adaptation field; the last is filled up.
fn packets(out: &mut Vec<u8>, pid: u16, counter: &mut Counter, first: Vec<u8>, bytes: &[u8]) {
    let mut field = (!first.is_empty()).then_some(first);
    let mut rest = bytes;
    let mut is_start = true;
    while !rest.is_empty() {
        let mut field = field.take();
        let used = field.as_ref().map_or(0, |field| field.len() + 1);
        let (now, later) = rest.split_at(rest.len().min(PAYLOAD - used));
        let missing = PAYLOAD - used - now.len();
        match &mut field {
            Some(field) => field.resize(field.len() + missing, 0xFF),
            None if missing > 0 => {
                // The length, and then perhaps flags, none of which is set.
                let mut filler = vec![0xFF; missing - 1];
                filler.iter_mut().take(1).for_each(|flags| *flags = 0);
                field = Some(filler);
            }
            None => {}
        }
        let [high, low] = (u16::from(is_start) << 14 | pid).to_be_bytes();
        let contents = if field.is_some() { 0x30 } else { 0x10 };
        out.extend([SYNC, high, low, contents | counter.next]);
        if let Some(field) = field {
            out.push(field.len() as u8);
            out.extend(field);
        }
        out.extend_from_slice(now);
        counter.next = (counter.next + 1) & 0x0F;
        (rest, is_start) = (later, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Tracks = Tracks {
        video: true,
        audio: true,
    };

    #[test]
    fn checksum_of_a_table_as_known() {
        // Over a whole section, checksum included, it is 0.
        let pat = section(0, &[0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0]);
        assert_eq!(crc32(&pat[1..17]), 0);
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
    }

    #[test]
    fn packets_are_whole_and_counted_whatever_the_length() {
        let mut writer = Writer::default();
        let mut out = Vec::new();
        writer.tables(&mut out, BOTH);
        let mut expected = Vec::new();
        for length in 1..600 {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            writer.picture(&mut out, length as u64, length % 7 == 0, &payload);
            writer.sound(&mut out, length as u64, &payload);
            expected.extend(payload);
        }
        assert_eq!(out.len() % PACKET, 0);
        let (mut got, mut counters) = (Vec::new(), std::collections::HashMap::new());
        for packet in out.chunks(PACKET) {
            assert_eq!(packet[0], SYNC);
            let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1FFF;
            let counter = counters.entry(pid).or_insert(0);
            assert_eq!(packet[3] & 0x0F, *counter, "of {pid}");
            *counter = (*counter + 1) & 0x0F;
            let field = match packet[3] & 0x20 {
                0 => 0,
                _ => 1 + usize::from(packet[4]),
            };
            if pid == VIDEO_PID {
                let front = if packet[1] & 0x40 != 0 { 14 } else { 0 };
                got.extend_from_slice(&packet[4 + field + front..]);
            }
        }
        assert_eq!(got, expected);
    }

    #[test]
    fn tables_have_a_new_version_with_other_tracks() {
        let mut writer = Writer::default();
        let version = |writer: &mut Writer, tracks| {
            let mut out = Vec::new();
            writer.tables(&mut out, tracks);
            let field = match out[PACKET + 3] & 0x20 {
                0 => 0,
                _ => 1 + usize::from(out[PACKET + 4]),
            };
            out[PACKET + field + 10]
        };
        let first = version(&mut writer, BOTH);
        assert_eq!(version(&mut writer, BOTH), first);
        let alone = Tracks {
            video: true,
            audio: false,
        };
        assert_ne!(version(&mut writer, alone), first);
    }
}
