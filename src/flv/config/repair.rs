// SPDX-License-Identifier: MPL-2.0

//! Repairs of AVC and HEVC that is not as ISO/IEC 14496-15 has it.
//!
//! Hardware encoders and phones put Annex B into the configuration record, into the parameter sets
//! of a proper record, and into frames. Some cut the record, or leave the parameter sets to the
//! frames. Whatever has the parameter sets becomes a standard record, and Annex B frames get NAL
//! unit lengths.

use super::avc::AvcConfig;
use super::bits::sized;
use super::hevc::{HevcConfig, HevcSps};

/// The codecs whose configuration is a record of parameter sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalCodec {
    Avc,
    Hevc,
}

/// Bytes of a NAL unit's length where no record says it.
const LENGTH_SIZE: u8 = 4;

/// Bytes of a NAL unit's length that no standard record has. ffmpeg plays it all the same.
const ODD_LENGTH_SIZE: u8 = 3;

/// Parameter sets that are kept of each kind: a record of AVC counts to 31.
const MAX_SETS: usize = 31;

/// Longest parameter set, by its length field in a record.
const MAX_SET: usize = u16::MAX as usize;

const AVC_SPS: u8 = 7;
const AVC_PPS: u8 = 8;
const HEVC_VPS: u8 = 32;
const HEVC_SPS: u8 = 33;
const HEVC_PPS: u8 = 34;

#[derive(Debug, Default)]
struct ParameterSets<'a> {
    /// HEVC only.
    vps: Vec<&'a [u8]>,
    sps: Vec<&'a [u8]>,
    pps: Vec<&'a [u8]>,
}

impl<'a> ParameterSets<'a> {
    fn of(codec: NalCodec, nals: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut sets = ParameterSets::default();
        for nal in nals {
            let Some(&first) = nal.first() else {
                continue;
            };
            let list = match (codec, first & 0x1F, first >> 1 & 0x3F) {
                (NalCodec::Avc, AVC_SPS, _) if nal.len() >= 4 => &mut sets.sps,
                (NalCodec::Avc, AVC_PPS, _) => &mut sets.pps,
                (NalCodec::Hevc, _, HEVC_VPS) => &mut sets.vps,
                (NalCodec::Hevc, _, HEVC_SPS) => &mut sets.sps,
                (NalCodec::Hevc, _, HEVC_PPS) => &mut sets.pps,
                _ => continue,
            };
            let fits = list.len() < MAX_SETS && nal.len() <= MAX_SET;
            if fits && !list.contains(&nal) {
                list.push(nal);
            }
        }
        sets
    }

    fn is_complete(&self) -> bool {
        !self.sps.is_empty() && !self.pps.is_empty()
    }

    /// Returns the standard record, if there is a sequence parameter set, for frames whose NAL units
    /// have lengths of `length_size` bytes.
    fn to_record(&self, codec: NalCodec, length_size: u8) -> Option<Vec<u8>> {
        match codec {
            NalCodec::Avc => self.to_avc_record(length_size),
            NalCodec::Hevc => self.to_hevc_record(length_size),
        }
    }

    fn to_avc_record(&self, length_size: u8) -> Option<Vec<u8>> {
        let &[_, profile, constraints, level, ..] = *self.sps.first()? else {
            return None;
        };
        let length = 0xFC | (length_size - 1);
        let mut record = vec![1, profile, constraints, level, length];
        record.push(0xE0 | self.sps.len() as u8);
        write_sets(&mut record, &self.sps);
        record.push(self.pps.len() as u8);
        write_sets(&mut record, &self.pps);
        AvcConfig::parse(&record).map(|_| record)
    }

    fn to_hevc_record(&self, length_size: u8) -> Option<Vec<u8>> {
        let sps = HevcSps::parse(self.sps.first()?.get(2..)?)?;
        let mut record = vec![1];
        record.extend(sps.profile_tier_level);
        // No restriction of slices and tiles is known.
        record.extend([0xF0, 0, 0xFC]);
        record.push(0xFC | sps.chroma_format);
        record.extend([
            0xF8 | (sps.bit_depth_luma - 8),
            0xF8 | (sps.bit_depth_chroma - 8),
        ]);
        // An unknown frame rate.
        record.extend([0, 0]);
        let layers = sps.temporal_layers << 3 | u8::from(sps.is_temporal_nested) << 2;
        record.push(layers | (length_size - 1));
        let arrays = [
            (HEVC_VPS, &self.vps),
            (HEVC_SPS, &self.sps),
            (HEVC_PPS, &self.pps),
        ];
        let arrays = arrays.iter().filter(|(_, sets)| !sets.is_empty());
        record.push(arrays.clone().count() as u8);
        for (kind, sets) in arrays {
            // More of them may be in the frames.
            record.push(*kind);
            record.extend((sets.len() as u16).to_be_bytes());
            write_sets(&mut record, sets);
        }
        HevcConfig::parse(&record).map(|_| record)
    }
}

fn write_sets(record: &mut Vec<u8>, sets: &[&[u8]]) {
    for set in sets {
        record.extend((set.len() as u16).to_be_bytes());
        record.extend_from_slice(set);
    }
}

/// Returns the standard record for one that has a sequence parameter set in any form: Annex B,
/// start codes before the parameter sets of a proper record, or a record that is cut after it.
pub fn repaired_record(codec: NalCodec, record: &[u8]) -> Option<Vec<u8>> {
    let entries = match codec {
        NalCodec::Avc => avc_entries(record),
        NalCodec::Hevc => hevc_entries(record),
    };
    let length_size = stated_length_size(codec, record).unwrap_or(LENGTH_SIZE);
    let proper = ParameterSets::of(codec, entries.into_iter().flat_map(nals_of_annexb));
    if proper.is_complete() {
        return proper.to_record(codec, length_size);
    }
    // Lengths that do not count the start codes lead nowhere, the start codes do.
    let annexb = ParameterSets::of(codec, nals_of_annexb(record));
    if annexb.is_complete() || proper.sps.is_empty() {
        return annexb.to_record(codec, length_size);
    }
    proper.to_record(codec, length_size)
}

/// Place of the byte that holds the size of lengths in a record, in its last two bits.
fn length_size_place(codec: NalCodec) -> usize {
    match codec {
        NalCodec::Avc => 4,
        NalCodec::Hevc => 21,
    }
}

/// Returns the bytes of a NAL unit's length, if the record says it.
fn stated_length_size(codec: NalCodec, record: &[u8]) -> Option<u8> {
    let byte = record.get(length_size_place(codec))?;
    (record[0] == 1).then_some((byte & 3) + 1)
}

/// Returns a standard record for frames whose lengths are made four bytes long.
pub fn record_with_long_lengths(codec: NalCodec, record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    if let Some(byte) = record.get_mut(length_size_place(codec)) {
        *byte |= LENGTH_SIZE - 1;
    }
    record
}

/// Returns true for a size of lengths that parsers refuse.
pub fn is_odd_length_size(length_size: u8) -> bool {
    length_size == ODD_LENGTH_SIZE
}

/// Returns a frame with lengths of four bytes, from one with lengths of any size or start codes.
pub fn frame_with_long_lengths(frame: &[u8], length_size: u8) -> Option<Vec<u8>> {
    with_lengths(nals(frame, length_size), LENGTH_SIZE)
}

/// Returns a record of the parameter sets in a frame, if it has all of them.
pub fn record_of_frame(codec: NalCodec, frame: &[u8], length_size: u8) -> Option<Vec<u8>> {
    let sets = ParameterSets::of(codec, nals(frame, length_size));
    if !sets.is_complete() {
        return None;
    }
    sets.to_record(codec, length_size.clamp(1, 4))
}

fn nals(frame: &[u8], length_size: u8) -> Vec<&[u8]> {
    if is_annexb(frame, length_size) {
        nals_of_annexb(frame)
    } else {
        PrefixedNals::new(frame, length_size).collect()
    }
}

/// Returns an Annex B frame with NAL unit lengths instead of start codes, or None if the frame has
/// them already.
pub fn frame_of_annexb(frame: &[u8], length_size: u8) -> Option<Vec<u8>> {
    if !is_annexb(frame, length_size) {
        return None;
    }
    with_lengths(nals_of_annexb(frame), length_size)
}

/// Returns the NAL units with their lengths, or None if one is too long.
fn with_lengths(nals: Vec<&[u8]>, length_size: u8) -> Option<Vec<u8>> {
    let length_size = usize::from(length_size.clamp(1, 4));
    let bytes: usize = nals.iter().map(|nal| 4 + nal.len()).sum();
    let mut prefixed = Vec::with_capacity(bytes);
    for nal in nals {
        let length = u32::try_from(nal.len()).ok()?.to_be_bytes();
        let (unused, length) = length.split_at(4 - length_size);
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        prefixed.extend_from_slice(length);
        prefixed.extend_from_slice(nal);
    }
    (!prefixed.is_empty()).then_some(prefixed)
}

/// Returns true if a frame may have start codes: two zeros or more before a one.
#[inline]
pub fn may_be_annexb(frame: &[u8]) -> bool {
    match frame {
        [0, 0, 1, ..] | [0, 0, 0, 1, ..] => true,
        [0, 0, 0, 0, rest @ ..] => rest.iter().find(|byte| **byte != 0) == Some(&1),
        _ => false,
    }
}

/// Returns true if a frame has start codes. Lengths may look like them: 256 to 511 bytes do. Some
/// encoders pad frames, so a few bytes may follow these.
pub fn is_annexb(frame: &[u8], length_size: u8) -> bool {
    if !may_be_annexb(frame) {
        return false;
    }
    let mut nals = PrefixedNals::new(frame, length_size);
    let has_nals = nals.by_ref().next().is_some();
    nals.by_ref().for_each(drop);
    let is_padded = has_nals && nals.length_size == 4 && frame[2] == 1 && is_padding(nals.rest);
    !(nals.rest.is_empty() || is_padded)
}

/// Returns true for bytes after the last NAL unit that have no other in them.
fn is_padding(bytes: &[u8]) -> bool {
    bytes.len() < 4 || bytes.iter().all(|byte| *byte == 0)
}

/// The NAL units of a frame with lengths, up to one that is cut short or is none.
pub(in crate::flv) struct PrefixedNals<'a> {
    rest: &'a [u8],
    length_size: usize,
}

impl<'a> PrefixedNals<'a> {
    pub(in crate::flv) fn new(frame: &'a [u8], length_size: u8) -> Self {
        PrefixedNals {
            rest: frame,
            length_size: length_size.clamp(1, 4).into(),
        }
    }
}

impl<'a> Iterator for PrefixedNals<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (length, after) = self.rest.split_at_checked(self.length_size)?;
            let length = length
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            let (nal, after) = after.split_at_checked(length)?;
            // The first bit of every NAL unit is 0.
            if nal.first().is_some_and(|first| first & 0x80 != 0) {
                return None;
            }
            self.rest = after;
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    }
}

/// Returns the NAL units between start codes, and what is before the first one.
fn nals_of_annexb(bytes: &[u8]) -> Vec<&[u8]> {
    let mut nals = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at + 3 <= bytes.len() {
        if bytes[at + 2] > 1 {
            at += 3;
        } else if bytes[at..at + 3] == [0, 0, 1] {
            nals.push(&bytes[start..at]);
            at += 3;
            start = at;
        } else {
            at += 1;
        }
    }
    nals.push(&bytes[start..]);
    // Zeros before a start code are part of it. No NAL unit ends with one.
    nals.iter_mut().for_each(|nal| {
        let end = nal.iter().rposition(|byte| *byte != 0);
        *nal = &nal[..end.map_or(0, |end| end + 1)];
    });
    nals.retain(|nal| !nal.is_empty());
    nals
}

/// Returns the parameter sets of an AVC record as far as they are whole.
fn avc_entries(record: &[u8]) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    let &[1, _, _, _, _, sps_count, ref rest @ ..] = record else {
        return entries;
    };
    let mut rest = rest;
    for _ in 0..sps_count & 0x1F {
        let Some(entry) = sized(&mut rest) else {
            return entries;
        };
        entries.push(entry);
    }
    let Some((&pps_count, after)) = rest.split_first() else {
        return entries;
    };
    rest = after;
    for _ in 0..pps_count {
        let Some(entry) = sized(&mut rest) else {
            return entries;
        };
        entries.push(entry);
    }
    entries
}

/// Returns the parameter sets of an HEVC record as far as they are whole.
fn hevc_entries(record: &[u8]) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    let Some((fixed, mut rest)) = record.split_first_chunk::<23>() else {
        return entries;
    };
    if fixed[0] > 1 {
        return entries;
    }
    for _ in 0..fixed[22] {
        let &[_, high, low, ref after @ ..] = rest else {
            return entries;
        };
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let Some(entry) = sized(&mut rest) else {
                return entries;
            };
            entries.push(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AVC, HEVC};
    use super::*;
    use crate::flv::config::Dimensions;

    const START: &[u8] = &[0, 0, 0, 1];

    fn sets(codec: NalCodec, record: &[u8]) -> Vec<&[u8]> {
        match codec {
            NalCodec::Avc => avc_entries(record),
            NalCodec::Hevc => hevc_entries(record),
        }
    }

    /// Whole records.
    const RECORDS: [(NalCodec, &[u8]); 2] = [(NalCodec::Avc, AVC), (NalCodec::Hevc, HEVC)];

    fn assert_repaired(codec: NalCodec, record: &[u8], expected: &[&[u8]]) {
        let repaired = repaired_record(codec, record).expect("the record can be repaired");
        assert_eq!(sets(codec, &repaired), expected, "{codec:?}");
        let (is_complete, dimensions) = match codec {
            NalCodec::Avc => {
                let config = AvcConfig::parse(&repaired).unwrap();
                (config.has_parameter_sets, config.dimensions)
            }
            NalCodec::Hevc => {
                let config = HevcConfig::parse(&repaired).unwrap();
                (config.has_parameter_sets, config.dimensions)
            }
        };
        assert!(is_complete);
        assert_eq!(dimensions, Dimensions::new(1920, 1080));
    }

    #[test]
    fn records_in_annexb_become_standard() {
        for (codec, record) in RECORDS {
            let sets = sets(codec, record);
            for start in [START, &START[1..], &[0, 0, 0, 0, 1]] {
                let nals = sets.iter().flat_map(|set| [start, *set]);
                let annexb: Vec<u8> = nals.flatten().copied().collect();
                assert_repaired(codec, &annexb, &sets);
            }
        }
    }

    #[test]
    fn start_codes_within_a_record_are_removed() {
        for (codec, record) in RECORDS {
            let sets = sets(codec, record);
            let entry = |set: &[u8], counts_start: bool| {
                let length = set.len() + if counts_start { START.len() } else { 0 };
                [&(length as u16).to_be_bytes(), START, set].concat()
            };
            for counts_start in [true, false] {
                let mut broken = match codec {
                    NalCodec::Avc => record[..6].to_vec(),
                    NalCodec::Hevc => record[..23].to_vec(),
                };
                for (index, set) in sets.iter().enumerate() {
                    match codec {
                        NalCodec::Avc if index == 1 => broken.push(1),
                        NalCodec::Avc => {}
                        NalCodec::Hevc => broken.extend([set[0] >> 1, 0, 1]),
                    }
                    broken.extend(entry(set, counts_start));
                }
                let repaired = repaired_record(codec, &broken).unwrap();
                if counts_start {
                    assert_repaired(codec, &broken, &sets);
                } else {
                    // Bytes between the sets stay with the set before them.
                    let found = self::sets(codec, &repaired);
                    assert_eq!(found.len(), sets.len());
                    for (found, set) in found.iter().zip(&sets) {
                        assert!(found.starts_with(set));
                    }
                }
            }
        }
    }

    #[test]
    fn a_record_that_is_cut_keeps_its_whole_sets() {
        let sets = sets(NalCodec::Avc, AVC);
        let sps_end = 8 + sets[0].len();
        for length in 0..AVC.len() {
            let repaired = repaired_record(NalCodec::Avc, &AVC[..length]);
            assert_eq!(repaired.is_some(), length >= sps_end, "{length}");
        }
        assert!(repaired_record(NalCodec::Avc, HEVC).is_none());
        assert!(repaired_record(NalCodec::Hevc, AVC).is_none());
    }

    #[test]
    fn a_record_is_made_of_the_sets_in_a_frame() {
        for (codec, record) in RECORDS {
            let sets = sets(codec, record);
            let picture: &[u8] = match codec {
                NalCodec::Avc => &[0x65, 1, 2],
                NalCodec::Hevc => &[0x26, 1, 2],
            };
            let nals = || sets.iter().copied().chain([picture]);
            let annexb: Vec<u8> = nals().flat_map(|nal| [START, nal].concat()).collect();
            let prefixed: Vec<u8> = nals()
                .flat_map(|nal| [&(nal.len() as u32).to_be_bytes(), nal].concat())
                .collect();
            let made = record_of_frame(codec, &annexb, 4).unwrap();
            assert_eq!(record_of_frame(codec, &prefixed, 4), Some(made.clone()));
            assert_repaired(codec, &made, &sets);
            assert_eq!(frame_of_annexb(&annexb, 4), Some(prefixed.clone()));
            assert_eq!(frame_of_annexb(&prefixed, 4), None);
            let alone = [START, picture].concat();
            assert_eq!(record_of_frame(codec, &alone, 4), None);
        }
    }

    /// Also where padding follows the last NAL unit.
    #[test]
    fn padded_frames_have_lengths() {
        let padding: [&[u8]; 6] = [&[0], &[0, 0], &[0, 0, 0], &[0; 8], &[7], &[1, 2, 3]];
        for first in [30, 256, 300, 511, 600] {
            for padding in padding {
                let nals = [vec![0x41; first], vec![0x41; 50]];
                let nals = nals.iter().flat_map(|nal| {
                    let length = (nal.len() as u32).to_be_bytes();
                    [&length[..], nal].concat()
                });
                let frame: Vec<u8> = nals.chain(padding.iter().copied()).collect();
                assert_eq!(frame_of_annexb(&frame, 4), None, "{first} {padding:?}");
            }
        }
        // Start codes stay start codes.
        for padding in padding {
            for start in [&START[1..], START] {
                let frame = [start, &[0x09, 0x10], start, &[0x41; 700], padding].concat();
                assert!(is_annexb(&frame, 4), "{padding:?}");
                let short = [start, &[0x09], padding].concat();
                let is_ambiguous = start.len() == 4 && padding == [0; 8];
                assert!(is_ambiguous || is_annexb(&short, 4), "{padding:?}");
            }
        }
        // The sets in a padded frame.
        for (codec, record) in RECORDS {
            let nals = sets(codec, record).into_iter();
            let nals = nals.flat_map(|nal| [&(nal.len() as u32).to_be_bytes(), nal].concat());
            let frame: Vec<u8> = nals.chain([0]).collect();
            assert!(record_of_frame(codec, &frame, 4).is_some(), "{codec:?}");
        }
    }

    #[test]
    fn zeros_before_the_first_start_code_belong_to_it() {
        for zeros in 0..6 {
            for start in [&START[1..], START] {
                let zeros = vec![0; zeros];
                let annexb = [&zeros[..], start, &[0x41, 5], START, &[0x41, 6]].concat();
                let prefixed = [0, 0, 0, 2, 0x41, 5, 0, 0, 0, 2, 0x41, 6];
                assert_eq!(frame_of_annexb(&annexb, 4), Some(prefixed.to_vec()));
            }
        }
        // Empty NAL units are none.
        let empty = [&[0; 4][..], &[0, 0, 0, 1, 0x09], &[0, 0, 0, 2, 0x41, 5]].concat();
        assert_eq!(frame_of_annexb(&empty, 4), None);
    }

    #[test]
    fn a_repaired_record_keeps_the_size_of_lengths() {
        for size in 1..=4_u8 {
            for (codec, record) in RECORDS {
                let sets = sets(codec, record);
                let first = match codec {
                    NalCodec::Avc => 6,
                    NalCodec::Hevc => 26,
                };
                let mut broken = record.to_vec();
                let place = length_size_place(codec);
                broken[place] = broken[place] & 0xFC | (size - 1);
                let length = sets[0].len() + START.len();
                broken[first..first + 2].copy_from_slice(&(length as u16).to_be_bytes());
                broken.splice(first + 2..first + 2, START.iter().copied());
                assert_repaired(codec, &broken, &sets);
                let repaired = repaired_record(codec, &broken).unwrap();
                assert_eq!(repaired[place] & 3, size - 1, "{codec:?}");
                assert_eq!(record_with_long_lengths(codec, &repaired)[place] & 3, 3);
                let nals = sets.iter().flat_map(|set| {
                    let length = (set.len() as u32).to_be_bytes();
                    [&length[4 - usize::from(size)..], set].concat()
                });
                let frame: Vec<u8> = nals.collect();
                let made = record_of_frame(codec, &frame, size).unwrap();
                assert_eq!(made[place] & 3, size - 1, "{codec:?}");
                let long = frame_with_long_lengths(&frame, size).unwrap();
                assert_eq!(PrefixedNals::new(&long, 4).collect::<Vec<_>>(), sets);
            }
        }
    }

    #[test]
    fn lengths_that_look_like_start_codes_are_lengths() {
        for length in [256, 300, 511] {
            let mut frame = (length as u32).to_be_bytes().to_vec();
            frame.resize(4 + length, 0x41);
            assert_eq!(frame_of_annexb(&frame, 4), None, "{length}");
        }
        // A NAL unit of one byte, the end of a sequence.
        assert_eq!(frame_of_annexb(&[0, 0, 0, 1, 0x0A], 4), None);
        let annexb = [0, 0, 1, 0x41, 5, 0, 0, 0, 1, 0x41, 6, 0];
        let prefixed = [0, 0, 0, 2, 0x41, 5, 0, 0, 0, 2, 0x41, 6];
        assert_eq!(frame_of_annexb(&annexb, 4), Some(prefixed.to_vec()));
        // In a length of one byte.
        let prefixed = [2, 0x41, 5, 2, 0x41, 6];
        assert_eq!(frame_of_annexb(&annexb, 1), Some(prefixed.to_vec()));
        let long = [&annexb[..4], &[7; 300]].concat();
        assert_eq!(frame_of_annexb(&long, 1), None);
    }
}
