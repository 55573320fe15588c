// SPDX-License-Identifier: MPL-2.0

//! Times of tracks in fragmented MP4.
//!
//! mp4mux begins each track at 0, however much later than the file the track begins, which would
//! move audio against video. This adds the difference to the decode times of its fragments (tfdt).

const MOOV: &[u8; 4] = b"moov";
const MOOF: &[u8; 4] = b"moof";

/// Times of the tracks of a file, in the order of their ids from 1 on.
#[derive(Debug, Default)]
pub(super) struct FragmentTimes {
    tracks: Vec<TrackTimes>,
}

#[derive(Debug, Default, Clone)]
struct TrackTimes {
    /// Time of the first packet in nanoseconds.
    start: u64,
    /// Units of a second.
    timescale: u64,
    /// The muxer says by an edit list when the track begins.
    has_edits: bool,
    /// What is added, once it is known.
    offset: Option<u64>,
}

impl FragmentTimes {
    /// Sets the time of the first packet of a track.
    pub(super) fn set_start(&mut self, index: usize, start: u64) {
        self.track(index).start = start;
    }

    fn track(&mut self, index: usize) -> &mut TrackTimes {
        if self.tracks.len() <= index {
            self.tracks.resize(index + 1, TrackTimes::default());
        }
        &mut self.tracks[index]
    }

    /// Returns whether these bytes of the muxer are boxes that matter here.
    pub(super) fn concerns(bytes: &[u8]) -> bool {
        let kind = bytes.get(4..8);
        kind == Some(MOOV) || kind == Some(MOOF)
    }

    /// Handles whole boxes of the muxer.
    pub(super) fn handle(&mut self, bytes: &mut [u8]) {
        for_boxes(bytes, |kind, body| match kind {
            MOOV => for_boxes(body, |kind, body| {
                if kind == b"trak" {
                    self.read_track(body);
                }
            }),
            MOOF => for_boxes(body, |kind, body| {
                if kind == b"traf" {
                    self.correct(body);
                }
            }),
            _ => {}
        });
    }

    fn read_track(&mut self, track: &mut [u8]) {
        let (mut id, mut timescale, mut has_edits) = (None, 0, false);
        for_boxes(track, |kind, body| match kind {
            b"tkhd" => id = number(body, if is_version_1(body) { 20 } else { 12 }),
            b"edts" => has_edits = true,
            b"mdia" => for_boxes(body, |kind, body| {
                if kind == b"mdhd" {
                    let at = if is_version_1(body) { 20 } else { 12 };
                    timescale = number(body, at).unwrap_or(0);
                }
            }),
            _ => {}
        });
        if let Some(index) = id.and_then(|id| (id as usize).checked_sub(1))
            && index < self.tracks.len()
        {
            let track = &mut self.tracks[index];
            track.timescale = timescale.into();
            track.has_edits = has_edits;
        }
    }

    fn correct(&mut self, fragment: &mut [u8]) {
        let mut index = None;
        for_boxes(fragment, |kind, body| match kind {
            b"tfhd" => {
                index = number(body, 4).and_then(|id| (id as usize).checked_sub(1));
            }
            b"tfdt" => {
                let track = index.and_then(|index| self.tracks.get_mut(index));
                if let Some(track) = track {
                    track.correct(body);
                }
            }
            _ => {}
        });
    }
}

impl TrackTimes {
    fn correct(&mut self, tfdt: &mut [u8]) {
        let is_long = is_version_1(tfdt);
        let Some(field) = tfdt.get_mut(4..if is_long { 12 } else { 8 }) else {
            return;
        };
        let time = field
            .iter()
            .fold(0, |time, byte| time << 8 | u64::from(*byte));
        // A muxer that says it itself is right.
        let start = u128::from(self.start) * u128::from(self.timescale) / 1_000_000_000;
        let is_missing = time == 0 && !self.has_edits;
        let missing = if is_missing { start as u64 } else { 0 };
        let time = time.saturating_add(*self.offset.get_or_insert(missing));
        let bytes = time.to_be_bytes();
        let length = field.len();
        if is_long || time <= u64::from(u32::MAX) {
            field.copy_from_slice(&bytes[8 - length..]);
        }
    }
}

fn is_version_1(body: &[u8]) -> bool {
    body.first() == Some(&1)
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Calls a function with kind and body of each box.
fn for_boxes(mut bytes: &mut [u8], mut handle: impl FnMut(&[u8; 4], &mut [u8])) {
    while let Some(size) = number(bytes, 0) {
        let size = size as usize;
        if size < 8 || size > bytes.len() {
            return;
        }
        let (this, rest) = bytes.split_at_mut(size);
        let (header, body) = this.split_at_mut(8);
        let kind = [header[4], header[5], header[6], header[7]];
        handle(&kind, body);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = (body.len() as u32 + 8).to_be_bytes();
        [&size[..], kind, body].concat()
    }

    fn moov(timescale: u32, edits: &[u8]) -> Vec<u8> {
        let tkhd = boxed(b"tkhd", &[[0; 12].as_slice(), &2u32.to_be_bytes()].concat());
        let mdhd = [[0; 12].as_slice(), &timescale.to_be_bytes()].concat();
        let mdia = boxed(b"mdia", &boxed(b"mdhd", &mdhd));
        boxed(
            b"moov",
            &boxed(b"trak", &[&tkhd[..], edits, &mdia].concat()),
        )
    }

    fn moof(version: u8, time: &[u8]) -> Vec<u8> {
        let tfhd = boxed(b"tfhd", &[[0; 4], 2u32.to_be_bytes()].concat());
        let tfdt = boxed(b"tfdt", &[&[version, 0, 0, 0], time].concat());
        boxed(b"moof", &boxed(b"traf", &[tfhd, tfdt].concat()))
    }

    /// Returns the decode times of these fragments after the correction.
    fn corrected(moov: &mut [u8], times: [u64; 2]) -> [u64; 2] {
        let mut fragments = FragmentTimes::default();
        fragments.set_start(1, 500_000_000);
        fragments.handle(moov);
        times.map(|time| {
            let mut long = moof(1, &time.to_be_bytes());
            fragments.handle(&mut long);
            u64::from_be_bytes(long[long.len() - 8..].try_into().unwrap())
        })
    }

    #[test]
    fn a_track_begins_at_its_time() {
        let times = corrected(&mut moov(48_000, &[]), [0, 48_000]);
        assert_eq!(times, [24_000, 72_000]);
    }

    #[test]
    fn a_muxer_that_is_right_is_left_alone() {
        let times = corrected(&mut moov(48_000, &[]), [24_000, 72_000]);
        assert_eq!(times, [24_000, 72_000]);
        let edits = boxed(b"edts", &[]);
        let times = corrected(&mut moov(48_000, &edits), [0, 48_000]);
        assert_eq!(times, [0, 48_000]);
    }

    #[test]
    fn short_times_are_corrected_too() {
        let mut fragments = FragmentTimes::default();
        fragments.set_start(1, 1_000_000_000);
        fragments.handle(&mut moov(1000, &[]));
        let mut short = moof(0, &[0; 4]);
        fragments.handle(&mut short);
        assert_eq!(short[short.len() - 4..], 1000u32.to_be_bytes());
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn any_bytes_are_handled(mut bytes in any::<Vec<u8>>(), kind in 0..2usize) {
            let mut fragments = FragmentTimes::default();
            fragments.set_start(1, 1);
            let kind = [MOOV, MOOF][kind];
            bytes.truncate(2000);
            fragments.handle(&mut boxed(kind, &bytes));
        }
    }
}
