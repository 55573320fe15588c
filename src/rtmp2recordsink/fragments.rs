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
    /// Bytes of the movie header that the file has.
    movie_length: Option<usize>,
}

#[derive(Debug, Default, Clone)]
struct TrackTimes {
    /// Time of the first packet in nanoseconds.
    start: u64,
    /// Units of a second.
    timescale: u64,
    /// The muxer says by an edit list when the track begins.
    has_edits: bool,
    /// Time that is added, once it is known.
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

    /// Returns whether this is a movie header that does not fit in the place of the first one. mp4mux
    /// writes it again at the end, with a box more for AC-3, and over the first fragment.
    pub(super) fn is_misfit(&mut self, bytes: &[u8]) -> bool {
        if bytes.get(4..8) != Some(MOOV) {
            return false;
        }
        *self.movie_length.get_or_insert(bytes.len()) != bytes.len()
    }

    /// Handles whole boxes of the muxer.
    pub(super) fn handle(&mut self, bytes: &mut [u8]) {
        for_boxes(bytes, |kind, body| match kind {
            MOOV => self.handle_movie(body),
            MOOF => for_boxes(body, |kind, body| {
                if kind == b"traf" {
                    self.correct(body);
                }
            }),
            _ => {}
        });
    }

    fn handle_movie(&mut self, movie: &mut [u8]) {
        let mut timescale = 0;
        for_boxes(movie, |kind, body| match kind {
            b"mvhd" => timescale = timescale_in(body),
            b"trak" => self.read_track(body),
            b"mvex" => for_boxes(body, |kind, body| {
                if kind == b"mehd" {
                    self.correct_duration(body, timescale);
                }
            }),
            _ => {}
        });
    }

    /// Adds the time by which the latest track begins later. Players end at this duration.
    fn correct_duration(&self, mehd: &mut [u8], timescale: u64) {
        let Some((duration, is_long)) = time_in(mehd) else {
            return;
        };
        let late = self.tracks.iter().filter(|track| track.offset > Some(0));
        let most = late.map(|track| track.start).max().unwrap_or(0);
        if duration > 0 && most > 0 {
            let more = units(most, timescale).saturating_add(1);
            set_time(mehd, is_long, duration.saturating_add(more));
        }
    }

    fn read_track(&mut self, track: &mut [u8]) {
        let (mut id, mut timescale, mut has_edits) = (None, 0, false);
        for_boxes(track, |kind, body| match kind {
            b"tkhd" => id = number(body, if is_version_1(body) { 20 } else { 12 }),
            b"edts" => has_edits = true,
            b"mdia" => for_boxes(body, |kind, body| {
                if kind == b"mdhd" {
                    timescale = timescale_in(body);
                }
            }),
            _ => {}
        });
        if let Some(index) = id.and_then(|id| (id as usize).checked_sub(1))
            && index < self.tracks.len()
        {
            let track = &mut self.tracks[index];
            track.timescale = timescale;
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
        let Some((time, is_long)) = time_in(tfdt) else {
            return;
        };
        let start = units(self.start, self.timescale);
        // A muxer that says it itself is right. The other one may round its 0 up.
        let is_missing = time < start / 2 && !self.has_edits;
        let missing = if is_missing { start - time } else { 0 };
        let offset = *self.offset.get_or_insert(missing);
        set_time(tfdt, is_long, time.saturating_add(offset));
    }
}

/// Returns nanoseconds in other units.
fn units(nanoseconds: u64, timescale: u64) -> u64 {
    let units = u128::from(nanoseconds) * u128::from(timescale) / 1_000_000_000;
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// Returns the timescale of mvhd and mdhd.
fn timescale_in(body: &[u8]) -> u64 {
    let at = if is_version_1(body) { 20 } else { 12 };
    number(body, at).unwrap_or(0).into()
}

/// Returns the time of tfdt and mehd, and whether it has eight bytes.
fn time_in(body: &[u8]) -> Option<(u64, bool)> {
    let is_long = is_version_1(body);
    let high = if is_long { number(body, 4)? } else { 0 };
    let low = number(body, if is_long { 8 } else { 4 })?;
    Some((u64::from(high) << 32 | u64::from(low), is_long))
}

fn set_time(body: &mut [u8], is_long: bool, time: u64) {
    let bytes = time.to_be_bytes();
    let (range, bytes) = if is_long {
        (4..12, &bytes[..])
    } else if time <= u64::from(u32::MAX) {
        (4..8, &bytes[4..])
    } else {
        return;
    };
    if let Some(field) = body.get_mut(range) {
        field.copy_from_slice(bytes);
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
    fn a_start_that_is_rounded_is_no_start() {
        let times = corrected(&mut moov(48_000, &[]), [1, 48_001]);
        assert_eq!(times, [24_000, 72_000]);
    }

    #[test]
    fn a_muxer_that_is_right_is_left_alone() {
        let times = corrected(&mut moov(48_000, &[]), [24_000, 72_000]);
        assert_eq!(times, [24_000, 72_000]);
        let times = corrected(&mut moov(48_000, &[]), [23_999, 72_000]);
        assert_eq!(times, [23_999, 72_000]);
        let edits = boxed(b"edts", &[]);
        let times = corrected(&mut moov(48_000, &edits), [0, 48_000]);
        assert_eq!(times, [0, 48_000]);
    }

    #[test]
    fn a_later_movie_header_of_another_length_is_a_misfit() {
        let (movie, larger) = (moov(48_000, &[]), moov(48_000, &boxed(b"edts", &[])));
        let mut fragments = FragmentTimes::default();
        assert!(!fragments.is_misfit(&movie));
        assert!(!fragments.is_misfit(&moof(0, &[0; 4])));
        assert!(!fragments.is_misfit(&movie));
        assert!(fragments.is_misfit(&larger));
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
