// SPDX-License-Identifier: MPL-2.0

//! The media of an FLV file that plays in a loop.

use bytes::Bytes;

use super::super::TimestampUnwrapper;
use super::codec::codec_of;
use crate::amf0::{Value, read_leading, write_all};
use crate::flv::codec::CodecName;
use crate::flv::codes::{AudioFourCc, VideoFourCc};
use crate::flv::{Content, Tag, TagInfo, TagKind};
use crate::memory::Memory;

/// Most bytes of a file. All of it stays in memory, so that no disk can interrupt it.
const MAX_PROGRAM: usize = 512 * 1024 * 1024;

/// Most tracks of a file.
const MAX_TRACKS: usize = 32;

/// Most values in the metadata of a file.
const MAX_METADATA: usize = 1_000_000;

/// Duration in milliseconds of a picture that is the only one.
const STILL: i64 = 1000;

/// The reason for which a file can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error("it has neither audio nor video")]
    NoMedia,
    #[error("its video has no keyframe, so that no decoder can start with it")]
    NoKeyframe,
    #[error("its {0} has no sequence header, so that no decoder can start with it")]
    NoSequenceHeader(CodecName),
    #[error("it has more than 512 MiB, and is kept in memory: use a shorter one")]
    TooLarge,
}

/// A tag of the file.
#[derive(Debug, Clone)]
pub(super) struct StoredTag {
    pub(super) kind: TagKind,
    /// Milliseconds since the start of the loop.
    pub(super) time: i64,
    pub(super) body: Bytes,
    pub(super) info: TagInfo,
}

/// One track, in the order of its times. Sequence headers that change within the file are between
/// its frames.
#[derive(Debug)]
pub(super) struct ProgramTrack {
    pub(super) kind: TagKind,
    pub(super) id: u8,
    pub(super) tags: Vec<StoredTag>,
    /// Duration of a frame in microseconds, on average.
    pub(super) frame: i64,
}

/// An FLV file from its first keyframe on.
#[derive(Debug)]
pub struct Program {
    /// Metadata and sequence headers at the start.
    descriptions: Vec<StoredTag>,
    /// The track that sets the pace is the first.
    pub(super) tracks: Vec<ProgramTrack>,
    /// Duration of the loop in milliseconds.
    pub(super) period: i64,
    /// Sequence headers change within the file.
    has_changes: bool,
}

/// Collects the tags of a file.
#[derive(Debug, Default)]
pub struct ProgramBuilder {
    tags: Vec<StoredTag>,
    unwrapper: TimestampUnwrapper,
    bytes: usize,
}

impl ProgramBuilder {
    /// Adds the next tag. One that no decoder accepts is left out.
    pub fn push(&mut self, kind: TagKind, timestamp: u32, body: &[u8]) -> Result<(), ProgramError> {
        let Ok(info) = TagInfo::of(kind, body) else {
            return Ok(());
        };
        let body = match info.content {
            Content::OnMetaData => match live_metadata(body) {
                Some(body) => Bytes::from(body),
                None => return Ok(()),
            },
            Content::EndOfSequence | Content::Script | Content::Command => return Ok(()),
            _ => Bytes::copy_from_slice(body),
        };
        self.bytes += body.len();
        if self.bytes > MAX_PROGRAM {
            return Err(ProgramError::TooLarge);
        }
        let time = match info.is_coded() {
            true => self.unwrapper.next(timestamp),
            false => self.unwrapper.peek(timestamp),
        };
        self.tags.push(StoredTag {
            kind,
            time,
            body,
            info,
        });
        Ok(())
    }

    /// Returns the file as a loop.
    pub fn finish(self) -> Result<Program, ProgramError> {
        let coded = || self.tags.iter().filter(|tag| tag.info.is_coded());
        let videos = coded().filter(|tag| tag.kind == TagKind::Video);
        let start = match videos.map(|tag| tag.info.track).min() {
            Some(track) => coded()
                .find(|tag| tag.info.content == Content::Keyframe && tag.info.track == track)
                .ok_or(ProgramError::NoKeyframe)?,
            None => coded().next().ok_or(ProgramError::NoMedia)?,
        };
        let (origin, pace) = (start.time, (start.kind, start.info.track));
        let mut descriptions: Vec<StoredTag> = Vec::new();
        let mut tracks: Vec<ProgramTrack> = Vec::new();
        let mut has_changes = false;
        for mut tag in self.tags {
            let key = (tag.kind, tag.info.track);
            let known = tracks.iter().position(|t| (t.kind, t.id) == key);
            tag.time -= origin;
            if !tag.info.is_coded() {
                let is_same = |d: &&mut StoredTag| {
                    (d.kind, d.info.content, d.info.track)
                        == (tag.kind, tag.info.content, tag.info.track)
                };
                // A description from before the first keyframe, or of a new track, holds from the start.
                match (descriptions.iter_mut().find(is_same), known) {
                    (Some(earlier), _) if earlier.body == tag.body => {}
                    (Some(_), Some(index)) => {
                        has_changes = true;
                        tracks[index].tags.push(tag);
                    }
                    (Some(earlier), None) => *earlier = tag,
                    (None, _) => descriptions.push(tag),
                }
                continue;
            }
            let starts = tag.kind != TagKind::Video || tag.info.content == Content::Keyframe;
            if tag.time < 0 || (known.is_none() && !starts) {
                continue;
            }
            match known {
                Some(index) => {
                    let last = tracks[index].tags.last().map_or(0, |last| last.time);
                    tag.time = tag.time.max(last);
                    tracks[index].tags.push(tag);
                }
                None if tracks.len() == MAX_TRACKS => {}
                None => tracks.push(ProgramTrack {
                    kind: tag.kind,
                    id: tag.info.track,
                    tags: vec![tag],
                    frame: 0,
                }),
            }
        }
        if let Some(codec) = tracks
            .iter()
            .find_map(|track| track.lacks_header(&descriptions))
        {
            return Err(ProgramError::NoSequenceHeader(codec));
        }
        tracks.sort_by_key(|track| (track.kind, track.id) != pace);
        for track in &mut tracks {
            track.frame = track.average_frame();
        }
        let period = period_of(&tracks);
        for track in &mut tracks {
            track.tags.retain(|tag| tag.time < period);
        }
        tracks.retain(|track| !track.tags.is_empty());
        Ok(Program {
            descriptions,
            tracks,
            period,
            has_changes,
        })
    }
}

impl Program {
    /// Returns the descriptions at its start, as tags.
    pub(in crate::feed) fn descriptions(&self) -> Vec<Tag> {
        let tags = self.descriptions.iter().filter_map(|tag| {
            let body = Memory::from_vec(tag.body.to_vec(), 0);
            Tag::new(tag.kind, 0, body).ok()
        });
        tags.collect()
    }

    /// Returns kind, number and first media of each track.
    pub(in crate::feed) fn first_tags(&self) -> impl Iterator<Item = (TagKind, u8, &[u8])> {
        let tracks = self.tracks.iter();
        tracks.filter_map(|track| Some((track.kind, track.id, &track.tags.first()?.body[..])))
    }

    /// Returns true where sequence headers change within the file.
    pub(in crate::feed) fn has_changes(&self) -> bool {
        self.has_changes
    }
}

impl ProgramTrack {
    /// Returns the codec if it needs a sequence header and none is there. One header may be of several
    /// tracks.
    fn lacks_header(&self, descriptions: &[StoredTag]) -> Option<CodecName> {
        let needing = [
            VideoFourCc::Avc.name(),
            VideoFourCc::Hevc.name(),
            VideoFourCc::Vvc.name(),
            AudioFourCc::Aac.name(),
        ];
        let codec = codec_of(self.kind, &self.tags.first()?.body)?;
        let is_header =
            |tag: &StoredTag| tag.kind == self.kind && tag.info.content == Content::SequenceHeader;
        let lacks = needing.contains(&codec) && !descriptions.iter().any(is_header);
        lacks.then_some(codec)
    }

    fn average_frame(&self) -> i64 {
        let mut coded = self.tags.iter().filter(|tag| tag.info.is_coded());
        let first = coded.next().map_or(0, |tag| tag.time);
        let (count, last) = coded.fold((0, first), |(count, _), tag| (count + 1, tag.time));
        match count {
            0 => STILL * 1000,
            count => ((last - first) * 1000 / count).max(1000),
        }
    }
}

/// Returns the time at which the loop starts again: after the duration of the last frame, which is
/// that of the frame before.
fn period_of(tracks: &[ProgramTrack]) -> i64 {
    let Some(pace) = tracks.first() else {
        return STILL;
    };
    let times: Vec<i64> = pace.tags.iter().map(|tag| tag.time).collect();
    match times[..] {
        [.., before, last] if last > before => last + (last - before),
        [.., last] => {
            // A still picture lasts as long as the audio beside it.
            let ends = tracks.iter().map(|track| {
                let last = track.tags.last().map_or(0, |tag| tag.time);
                last + (track.frame / 1000).min(STILL)
            });
            ends.max().unwrap_or_default().max(last + 1)
        }
        [] => STILL,
    }
}

/// Returns metadata without what is true of a file only: its length and its index.
fn live_metadata(body: &[u8]) -> Option<Vec<u8>> {
    const OF_A_FILE: [&str; 10] = [
        "duration",
        "filesize",
        "keyframes",
        "hasKeyframes",
        "hasCuePoints",
        "canSeekToEnd",
        "lasttimestamp",
        "lastkeyframetimestamp",
        "lastkeyframelocation",
        "datasize",
    ];
    // An index of keyframes may be long.
    let mut values = read_leading(body, MAX_METADATA).decoded.values;
    if values.len() < 2 {
        return None;
    }
    for value in &mut values {
        if let Value::Object(properties) | Value::EcmaArray(properties) = value {
            properties.retain(|(name, _)| !OF_A_FILE.contains(&name.as_str()));
        }
    }
    let mut body = Vec::new();
    write_all(&mut body, &values);
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a file of these tags, after sequence headers.
    fn program(tags: &[(TagKind, u32, &[u8])]) -> Result<Program, ProgramError> {
        let headers: [(TagKind, u32, &[u8]); 2] = [(Video, 0, HEADER), (Audio, 0, AUDIO_HEADER)];
        of_tags(&[&headers[..], tags].concat())
    }

    fn of_tags(tags: &[(TagKind, u32, &[u8])]) -> Result<Program, ProgramError> {
        let mut builder = ProgramBuilder::default();
        for (kind, time, body) in tags {
            builder.push(*kind, *time, body)?;
        }
        builder.finish()
    }

    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 9];
    const DELTA: &[u8] = &[0x27, 1, 0, 0, 0, 9];
    const HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const AUDIO_HEADER: &[u8] = &[0xAF, 0, 0x12, 0x10];
    const SOUND: &[u8] = &[0xAF, 1, 9];
    use TagKind::{Audio, Script, Video};

    fn times(program: &Program, track: usize) -> Vec<i64> {
        let tags = program.tracks[track].tags.iter();
        tags.map(|tag| tag.time).collect()
    }

    #[test]
    fn loop_begins_with_the_first_keyframe_and_lasts_to_the_end_of_the_last_frame() {
        let program = program(&[
            (Audio, 60, SOUND),
            (Video, 70, DELTA),
            (Audio, 90, SOUND),
            (Video, 100, KEY),
            (Audio, 113, SOUND),
            (Video, 140, DELTA),
            (Audio, 136, SOUND),
            (Video, 180, DELTA),
            (Audio, 220, SOUND),
        ])
        .unwrap();
        assert_eq!(times(&program, 0), [0, 40, 80]);
        assert_eq!(times(&program, 1), [13, 36], "audio after the end is cut");
        assert_eq!((program.period, program.descriptions.len()), (120, 2));
    }

    #[test]
    fn unusable_files_say_why() {
        let error = |tags: &[(TagKind, u32, &[u8])]| of_tags(tags).unwrap_err();
        assert_eq!(error(&[]), ProgramError::NoMedia);
        assert_eq!(error(&[(Video, 0, HEADER)]), ProgramError::NoMedia);
        let frames = [(Audio, 0, SOUND), (Video, 0, DELTA)];
        assert_eq!(error(&frames), ProgramError::NoKeyframe);
        let avc = ProgramError::NoSequenceHeader(VideoFourCc::Avc.name());
        assert_eq!(error(&[(Video, 0, KEY)]), avc);
        let aac = ProgramError::NoSequenceHeader(AudioFourCc::Aac.name());
        assert_eq!(
            error(&[(Video, 0, HEADER), (Video, 0, KEY), (Audio, 0, SOUND)]),
            aac
        );
    }

    #[test]
    fn still_picture_lasts_a_second_or_as_long_as_its_audio() {
        assert_eq!(program(&[(Video, 5, KEY)]).unwrap().period, 1000);
        let sounds = (0..100).map(|i| (Audio, i * 20, SOUND));
        let tags: Vec<_> = [(Video, 0, KEY)].into_iter().chain(sounds).collect();
        assert_eq!(program(&tags).unwrap().period, 2000);
    }

    #[test]
    fn audio_alone_plays_too() {
        let sounds: Vec<_> = (0..10).map(|i| (Audio, 7 + i * 20, SOUND)).collect();
        let program = program(&sounds).unwrap();
        assert_eq!((program.period, times(&program, 0)[9]), (200, 180));
    }

    #[test]
    fn header_that_changes_stays_in_its_place() {
        let other = [0x17, 0, 0, 0, 0, 2];
        let program = program(&[
            (Video, 0, KEY),
            (Video, 40, HEADER),
            (Video, 40, &other),
            (Video, 40, KEY),
        ])
        .unwrap();
        assert!(program.has_changes);
        assert_eq!(times(&program, 0), [0, 40, 40]);
        assert_eq!(program.period, 80);
    }

    #[test]
    fn metadata_says_nothing_of_the_file() {
        let mut body = Vec::new();
        let properties = ["duration", "width", "filesize"].map(|name| (name.into(), 5.0.into()));
        let values = ["onMetaData".into(), Value::EcmaArray(properties.into())];
        write_all(&mut body, &values);
        let program = program(&[(Script, 0, &body), (Video, 0, KEY)]).unwrap();
        let metadata = read_leading(&program.descriptions[2].body, 9)
            .decoded
            .values;
        let width = Value::EcmaArray(vec![("width".into(), 5.0.into())]);
        assert_eq!(metadata, ["onMetaData".into(), width]);
    }
}
