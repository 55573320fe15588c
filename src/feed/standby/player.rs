// SPDX-License-Identifier: MPL-2.0

//! The media of standby with its times: pure, without a clock.

use std::sync::Arc;

use bytes::Bytes;

use super::last_media::LastMedia;
use super::program::{Program, ProgramTrack, StoredTag};
use crate::flv::{Silence, TagKind};

/// Interval in milliseconds at which a frozen picture is sent again.
pub(super) const PICTURE_INTERVAL: i64 = 1000;

/// Most milliseconds by which audio of a file starts before its video, to continue other audio.
const MAX_LEAD: i64 = 1000;

/// A tag that standby sends, at its time on the outgoing stream in milliseconds.
#[derive(Debug, Clone)]
pub(in crate::feed) struct PlayedTag {
    pub(in crate::feed) kind: TagKind,
    pub(in crate::feed) time: i64,
    pub(in crate::feed) body: Bytes,
    /// The loop of the file starts again with it.
    pub(in crate::feed) restarts: bool,
    /// Nothing fills the time before it.
    pub(in crate::feed) is_discont: bool,
}

#[derive(Debug)]
pub(super) enum Player {
    File(FilePlayer),
    Freeze(FreezePlayer),
}

impl Player {
    /// Returns the time of the next tag.
    pub(super) fn next_time(&self) -> Option<i64> {
        match self {
            Player::File(player) => player.next_time(),
            Player::Freeze(player) => player.next_time(),
        }
    }

    /// Returns the next tag.
    pub(super) fn pop(&mut self) -> Option<PlayedTag> {
        match self {
            Player::File(player) => player.pop(),
            Player::Freeze(player) => player.pop(),
        }
    }

    /// Moves all that is still to come by these milliseconds.
    pub(super) fn delay(&mut self, by: i64) {
        match self {
            Player::File(player) => player.cursors.iter_mut().for_each(|c| c.start += by),
            Player::Freeze(player) => {
                player.pictures.iter_mut().for_each(|p| p.next += by);
                player.silences.iter_mut().for_each(|s| s.start += by);
            }
        }
    }
}

/// Plays a file in a loop.
///
/// The first track sets the pace, and each loop continues by the duration of its last frame. Other
/// video keeps its distance to it. Frames of audio rarely fill a loop exactly: at each start, audio
/// goes on without a hole from the frame whose own time is nearest, so that it is hardly
/// more than a frame away from its picture.
#[derive(Debug)]
pub(super) struct FilePlayer {
    program: Arc<Program>,
    cursors: Vec<Cursor>,
}

/// The place of one track.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    index: usize,
    /// Time at which the present loop of the file starts.
    start: i64,
    /// Added to the start for the times of this track.
    shift: i64,
}

impl FilePlayer {
    /// Starts a file at a time. `end` returns the end of the media before, for the audio track of an
    /// id.
    pub(super) fn new(program: Arc<Program>, start: i64, end: impl Fn(u8) -> Option<i64>) -> Self {
        let cursor = |(index, track): (usize, &ProgramTrack)| {
            let at_start = Cursor {
                index: 0,
                start,
                shift: 0,
            };
            if index == 0 || track.kind != TagKind::Audio {
                return at_start;
            }
            let Some(end) = end(track.id) else {
                return at_start;
            };
            let end = end.max(start - MAX_LEAD.min(program.period));
            at_start
                .continued(track, end, program.period)
                .unwrap_or(at_start)
        };
        let cursors = program.tracks.iter().enumerate().map(cursor).collect();
        FilePlayer { program, cursors }
    }

    fn next_track(&self) -> Option<(usize, i64)> {
        let times = self.program.tracks.iter().zip(&self.cursors);
        let times = times.map(|(track, cursor)| cursor.time(track));
        times.enumerate().min_by_key(|(_, time)| *time)
    }

    fn next_time(&self) -> Option<i64> {
        self.next_track().map(|(_, time)| time)
    }

    fn pop(&mut self) -> Option<PlayedTag> {
        let (index, time) = self.next_track()?;
        let (track, cursor) = (&self.program.tracks[index], &mut self.cursors[index]);
        let tag: &StoredTag = track.tags.get(cursor.index)?;
        let played = PlayedTag {
            kind: tag.kind,
            time,
            body: tag.body.clone(),
            restarts: index == 0 && cursor.index == 0,
            is_discont: false,
        };
        cursor.index += 1;
        if cursor.index == track.tags.len() {
            let next = Cursor {
                index: 0,
                start: cursor.start + self.program.period,
                shift: 0,
            };
            let is_filler = index > 0 && track.kind == TagKind::Audio;
            let end = time + (track.frame + 500) / 1000;
            let continued = is_filler.then(|| next.continued(track, end, self.program.period));
            *cursor = continued.flatten().unwrap_or(next);
        }
        Some(played)
    }
}

impl Cursor {
    fn time(&self, track: &ProgramTrack) -> i64 {
        self.start + self.shift + track.tags.get(self.index).map_or(0, |tag| tag.time)
    }

    /// Returns the cursor at the frame of its loop, or of one beside it, that continues at `end`, if
    /// that is near one.
    fn continued(self, track: &ProgramTrack, end: i64, period: i64) -> Option<Cursor> {
        let frame = track.frame / 1000;
        let natural = |start: i64, index: usize| start + track.tags[index].time;
        let mut candidates = [self.start - period, self.start, self.start + period]
            .into_iter()
            .flat_map(|start| (0..track.tags.len()).map(move |index| (start, index)))
            .skip_while(|(start, index)| natural(*start, *index) + (frame + 1) / 2 < end);
        let (start, index) = candidates.next()?;
        let shift = end - natural(start, index);
        // Audio that pauses in the file pauses here.
        let is_near = shift.abs() <= 2 * frame;
        Some(Cursor {
            index,
            start,
            shift: if is_near { shift } else { 0 },
        })
    }
}

/// Sends the last keyframe again and again, with silence.
#[derive(Debug)]
pub(super) struct FreezePlayer {
    pictures: Vec<Picture>,
    silences: Vec<PlayedSilence>,
}

#[derive(Debug)]
struct Picture {
    body: Bytes,
    next: i64,
}

#[derive(Debug)]
struct PlayedSilence {
    body: Bytes,
    silence: Silence,
    start: i64,
    frames: u64,
}

impl PlayedSilence {
    fn next(&self) -> i64 {
        let time = i64::try_from(self.silence.time(self.frames));
        self.start.saturating_add(time.unwrap_or(i64::MAX))
    }
}

impl FreezePlayer {
    /// Returns None where the last publisher has sent nothing that can be sent again. `headers` are
    /// the bodies of its audio sequence headers, with their tracks.
    pub(super) fn new(last: &LastMedia, headers: &[(u8, Bytes)], now: i64) -> Option<Self> {
        let pictures = last.current().filter_map(|track| {
            let body = track.picture.clone()?;
            // The decoder has the picture already that it shows, so the first one may wait.
            let next = (track.dts + PICTURE_INTERVAL).min(now.max(track.end()));
            Some(Picture { body, next })
        });
        let pictures: Vec<Picture> = pictures.collect();
        let video_end = pictures.iter().map(|picture| picture.next).min();
        let ends = |id| last.track(TagKind::Audio, id).filter(|t| t.is_current);
        let mut silences: Vec<PlayedSilence> = Vec::new();
        let mut add = |silence: Silence, start: i64| {
            silences.push(PlayedSilence {
                body: Bytes::copy_from_slice(silence.body()),
                silence,
                start,
                frames: 0,
            });
        };
        for (id, header) in headers {
            // A track that is only announced has no listener to keep.
            let end = ends(*id).map(|track| track.end()).or(video_end);
            if let (Some(silence), Some(end)) = (Silence::of_header(header), end) {
                add(silence, end);
            }
        }
        for track in last.current().filter(|track| track.kind == TagKind::Audio) {
            let is_described = headers.iter().any(|(id, _)| *id == track.id);
            if let Some(silence) = Silence::of_media(&track.front).filter(|_| !is_described) {
                add(silence, track.end());
            }
        }
        let is_empty = pictures.is_empty() && silences.is_empty();
        (!is_empty).then_some(FreezePlayer { pictures, silences })
    }

    fn next_time(&self) -> Option<i64> {
        let pictures = self.pictures.iter().map(|picture| picture.next);
        let silences = self.silences.iter().map(PlayedSilence::next);
        pictures.chain(silences).min()
    }

    fn pop(&mut self) -> Option<PlayedTag> {
        let time = self.next_time()?;
        if let Some(picture) = self.pictures.iter_mut().find(|p| p.next == time) {
            picture.next += PICTURE_INTERVAL;
            return Some(PlayedTag {
                kind: TagKind::Video,
                time,
                body: picture.body.clone(),
                restarts: false,
                is_discont: false,
            });
        }
        let silence = self.silences.iter_mut().find(|s| s.next() == time)?;
        silence.frames += 1;
        Some(PlayedTag {
            kind: TagKind::Audio,
            time,
            body: silence.body.clone(),
            restarts: false,
            is_discont: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::ProgramBuilder;
    use super::*;
    use crate::flv::Tag;
    use crate::memory::Memory;
    use TagKind::{Audio, Video};

    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const DELTA: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    const SOUND: &[u8] = &[0xAF, 1, 9];

    /// A file of 25 frames per second with AAC of 44.1 kHz.
    fn program(frames: u32) -> Arc<Program> {
        let mut builder = ProgramBuilder::default();
        builder.push(Video, 0, &[0x17, 0, 0, 0, 0, 1]).unwrap();
        builder.push(Audio, 0, &[0xAF, 0, 0x12, 0x10]).unwrap();
        for index in 0..frames {
            let body = if index % 25 == 0 { KEY } else { DELTA };
            builder.push(Video, 1000 + index * 40, body).unwrap();
        }
        for index in 0..u64::from(frames) * 40 * 441 / 10240 {
            let time = 1000 + index * 10240 / 441;
            builder.push(Audio, time as u32, SOUND).unwrap();
        }
        Arc::new(builder.finish().unwrap())
    }

    fn times(player: &mut FilePlayer, kind: TagKind, until: i64) -> Vec<i64> {
        let mut times = Vec::new();
        while let Some(tag) = player.pop().filter(|tag| tag.time < until) {
            if tag.kind == kind {
                times.push(tag.time);
            }
        }
        times
    }

    fn steps(times: &[i64]) -> (i64, i64) {
        let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
        (steps.clone().min().unwrap(), steps.max().unwrap())
    }

    #[test]
    fn loops_have_neither_holes_nor_overlaps() {
        for frames in [1, 7, 25, 26, 100, 255] {
            let mut player = FilePlayer::new(program(frames.max(2)), 500, |_| None);
            let video = times(&mut player, Video, 60_000);
            assert_eq!((video[0], steps(&video)), (500, (40, 40)), "{frames}");
            let mut player = FilePlayer::new(program(frames.max(7)), 500, |_| None);
            let audio = times(&mut player, Audio, 60_000);
            let (least, most) = steps(&audio);
            assert!(least >= 22 && most <= 25, "{frames}: {least} to {most}");
        }
    }

    #[test]
    fn audio_stays_with_its_picture() {
        let program = program(26);
        let mut player = FilePlayer::new(program.clone(), 0, |_| Some(-17));
        let mut bodies = 0;
        while bodies < 100_000 {
            let tag = player.pop().unwrap();
            assert_eq!(tag.kind == Audio, tag.body[..] == *SOUND);
            for cursor in &player.cursors[1..] {
                assert!(cursor.shift.abs() <= 35, "{cursor:?}");
            }
            let apart = player.cursors[0].start - player.cursors[1].start;
            assert!(apart.abs() <= program.period, "{apart}");
            bodies += 1;
        }
    }

    #[test]
    fn audio_continues_the_audio_before_it() {
        for end in [-400, -17, 0, 5, 12, 333] {
            let mut player = FilePlayer::new(program(50), 1000, |_| Some(1000 + end));
            let audio = times(&mut player, Audio, 3000);
            assert_eq!(audio[0], 1000 + end);
            let mut player = FilePlayer::new(program(50), 1000, |_| Some(1000 + end));
            assert_eq!(times(&mut player, Video, 3000)[0], 1000);
        }
    }

    fn last(tags: &[(TagKind, i64, &[u8])]) -> LastMedia {
        let mut last = LastMedia::new(true);
        for (kind, time, body) in tags {
            let tag = Tag::new(*kind, 0, Memory::from_vec(body.to_vec(), 0)).unwrap();
            last.note(&tag, *time);
        }
        last
    }

    #[test]
    fn freeze_repeats_the_picture_once_a_second_and_fills_in_silence() {
        let media = [
            (Video, 0, KEY),
            (Audio, 10, SOUND),
            (Video, 40, DELTA),
            (Audio, 33, SOUND),
        ];
        let headers = [(0, Bytes::from_static(&[0xAF, 0, 0x12, 0x10]))];
        let mut player = FreezePlayer::new(&last(&media), &headers, 500).unwrap();
        let mut played = Vec::new();
        while player.next_time().is_some_and(|time| time < 3000) {
            played.extend(player.pop());
        }
        let times = |kind| -> Vec<i64> {
            let of_kind = played.iter().filter(|tag| tag.kind == kind);
            of_kind.map(|tag| tag.time).collect()
        };
        assert_eq!(times(Video), [500, 1500, 2500]);
        assert_eq!(times(Audio)[..3], [56, 79, 102]);
        assert_eq!(steps(&times(Audio)), (23, 24));
        let pictures = played.iter().filter(|tag| tag.kind == Video);
        assert!(pictures.into_iter().all(|tag| tag.body[..] == *KEY));
    }

    #[test]
    fn freeze_after_a_long_pause_has_no_hole_of_more_than_its_interval() {
        let mut player = FreezePlayer::new(&last(&[(Video, 0, KEY)]), &[], 2500).unwrap();
        assert_eq!(player.pop().unwrap().time, 1000);
        assert_eq!(player.pop().unwrap().time, 2000);
        assert_eq!(player.next_time(), Some(3000));
    }

    #[test]
    fn media_that_cannot_be_repeated_has_no_standby() {
        // FLAC alone.
        let media: [(TagKind, i64, &[u8]); 1] = [(Audio, 0, b"\x91fLaC123")];
        assert!(FreezePlayer::new(&last(&media), &[], 100).is_none());
        assert!(FreezePlayer::new(&LastMedia::new(true), &[], 100).is_none());
    }
}
