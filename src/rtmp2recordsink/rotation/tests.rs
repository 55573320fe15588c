// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::*;

const VIDEO: usize = 0;
const AUDIO: usize = 1;
const FRAME: Time = 40 * MILLISECOND;

/// A recorder that keeps the actions, one text for each file.
struct Files {
    rotation: Rotation<u32>,
    /// Numbers of the packets of each file.
    files: Vec<Vec<u32>>,
    tracks: Vec<Vec<usize>>,
    reasons: Vec<CloseReason>,
    dropped: Vec<u32>,
    ended: Vec<usize>,
    is_open: bool,
    /// Track and key of each packet.
    packets: Vec<(usize, bool)>,
}

impl Files {
    fn new(tracks: &[usize]) -> Self {
        let mut files = Files {
            rotation: Rotation::new(),
            files: Vec::new(),
            tracks: Vec::new(),
            reasons: Vec::new(),
            dropped: Vec::new(),
            ended: Vec::new(),
            is_open: false,
            packets: Vec::new(),
        };
        tracks.iter().for_each(|track| files.configure(*track));
        files
    }

    fn configure(&mut self, track: usize) {
        let mut actions = Vec::new();
        let id = if track == VIDEO { 0 } else { track as u32 - 1 };
        self.rotation
            .configure_track(track, track == VIDEO, id, &mut actions);
        self.keep(actions);
    }

    fn packet(&mut self, track: usize, dts: Time, is_key: bool) -> u32 {
        let mut actions = Vec::new();
        let media = self.packets.len() as u32;
        self.packets.push((track, is_key));
        let packet = Packet {
            track,
            dts,
            pts: dts,
            is_key,
            bytes: 1000,
            media,
        };
        self.rotation.handle_packet(packet, &mut actions);
        self.keep(actions);
        media
    }

    /// Video from a time on, with a keyframe in each second, and audio where it is wanted.
    fn play(&mut self, from: Time, to: Time, with: &[usize]) {
        for index in 0..(to - from) / FRAME {
            let dts = from + index * FRAME;
            if with.contains(&VIDEO) {
                self.packet(VIDEO, dts, index % 25 == 0);
            }
            if with.contains(&AUDIO) {
                self.packet(AUDIO, dts + 7 * MILLISECOND, true);
            }
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        let mut actions = Vec::new();
        self.rotation.finish(reason, &mut actions);
        self.keep(actions);
    }

    fn fail(&mut self) {
        let mut actions = Vec::new();
        self.rotation.fail(&mut actions);
        self.is_open = false;
        self.keep(actions);
    }

    fn keep(&mut self, actions: Vec<Action<u32>>) {
        for action in actions {
            match action {
                Action::Open { tracks, .. } => {
                    assert!(!self.is_open, "one file at a time");
                    self.is_open = true;
                    self.files.push(Vec::new());
                    self.tracks.push(tracks);
                }
                Action::Write(packet) => {
                    assert!(self.is_open, "a packet needs a file");
                    assert!(self.tracks.last().unwrap().contains(&packet.track));
                    self.files.last_mut().unwrap().push(packet.media);
                }
                Action::EndTrack(track) => self.ended.push(track),
                Action::Close(reason) => {
                    assert!(self.is_open, "a file is closed once");
                    self.is_open = false;
                    self.reasons.push(reason);
                }
                Action::Drop(packet) => self.dropped.push(packet.media),
            }
        }
    }

    fn first_packets(&self) -> Vec<u32> {
        self.files.iter().map(|file| file[0]).collect()
    }

    fn assert_complete(&self) {
        let mut all = self.files.concat();
        for track in 0..4 {
            let is_of_track = |media: &&u32| self.packets[**media as usize].0 == track;
            assert!(all.iter().filter(is_of_track).is_sorted(), "{all:?}");
        }
        all.extend(&self.dropped);
        all.sort_unstable();
        let sent = self.packets.len() as u32;
        assert_eq!(all, (0..sent).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_holds_all_tracks() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 3 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.tracks, [[VIDEO, AUDIO]]);
    assert_eq!(files.reasons, [CloseReason::EndOfStream]);
    files.assert_complete();
}

#[test]
fn a_track_that_is_announced_and_missing_delays_the_file_by_a_second() {
    for present in [VIDEO, AUDIO] {
        let mut files = Files::new(&[VIDEO, AUDIO]);
        files.play(0, SECOND, &[present]);
        assert!(files.files.is_empty());
        files.play(SECOND, 2 * SECOND, &[present]);
        assert_eq!(files.tracks, [[present]]);
        files.finish(CloseReason::EndOfStream);
        files.assert_complete();
    }
}

#[test]
fn a_track_that_is_announced_soon_after_the_others_is_in_the_file() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 160 * MILLISECOND, &[VIDEO, AUDIO]);
    files.configure(2);
    files.packet(2, 180 * MILLISECOND, true);
    files.play(200 * MILLISECOND, SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.tracks, [[VIDEO, AUDIO, 2]]);
    files.assert_complete();
}

#[test]
fn files_end_at_a_keyframe_after_their_time() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    let max_time = 1500 * MILLISECOND;
    files.rotation.set_limits(FileLimits {
        max_time,
        max_bytes: 0,
    });
    files.play(0, 6 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    // A keyframe is packet 0, 50, 100 and so on.
    assert_eq!(files.first_packets(), [0, 100, 200]);
    assert_eq!(files.reasons[..2], [CloseReason::MaxSizeTime; 2]);
    files.assert_complete();
}

#[test]
fn a_file_that_is_to_end_does_so_at_a_keyframe() {
    for with in [&[VIDEO, AUDIO][..], &[AUDIO]] {
        let mut files = Files::new(with);
        assert!(!files.rotation.end_at_keyframe(CloseReason::Publisher));
        files.play(0, 500 * MILLISECOND, with);
        assert!(files.rotation.end_at_keyframe(CloseReason::Publisher));
        files.rotation.keep_file();
        files.play(500 * MILLISECOND, 1500 * MILLISECOND, with);
        assert!(files.rotation.end_at_keyframe(CloseReason::Publisher));
        let last = files.packet(with[0], 1600 * MILLISECOND, with[0] == AUDIO);
        let key = files.packet(with[0], 2000 * MILLISECOND, true);
        files.play(2040 * MILLISECOND, 5000 * MILLISECOND, with);
        files.finish(CloseReason::Stopped);
        let first = if with[0] == VIDEO { key } else { last };
        assert_eq!(files.first_packets()[1], first);
        assert_eq!(
            files.reasons,
            [CloseReason::Publisher, CloseReason::Stopped]
        );
    }
}

#[test]
fn a_track_that_the_file_could_not_wait_for_is_in_the_next_one() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 2 * SECOND, &[VIDEO, AUDIO]);
    files.rotation.end_track(AUDIO);
    files.play(2 * SECOND, 14 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::Stopped);
    assert_eq!(files.tracks, [[VIDEO, AUDIO], [VIDEO, AUDIO]]);
    assert!(files.dropped.is_empty());
}

#[test]
fn files_end_at_a_keyframe_after_their_bytes() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.rotation.set_limits(FileLimits {
        max_time: 0,
        max_bytes: 60_000,
    });
    files.play(0, 6 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.first_packets(), [0, 100, 200]);
    assert_eq!(files.reasons[0], CloseReason::MaxSizeBytes);
    files.assert_complete();
}

#[test]
fn late_audio_waits_for_the_next_keyframe_and_its_file() {
    let mut files = Files::new(&[VIDEO]);
    files.play(0, 2200 * MILLISECOND, &[VIDEO]);
    files.configure(AUDIO);
    let audio = files.packet(AUDIO, 2200 * MILLISECOND, true);
    files.packet(VIDEO, 2240 * MILLISECOND, false);
    assert_eq!(files.files.len(), 1);
    let key = files.packet(VIDEO, 3 * SECOND, true);
    files.finish(CloseReason::Stopped);
    assert_eq!(files.tracks, [vec![VIDEO], vec![VIDEO, AUDIO]]);
    assert_eq!(files.files[1], [audio, key]);
    files.assert_complete();
}

#[test]
fn late_video_begins_its_file_at_once() {
    let mut files = Files::new(&[AUDIO]);
    files.play(0, 2 * SECOND, &[AUDIO]);
    files.configure(VIDEO);
    let key = files.packet(VIDEO, 2 * SECOND, true);
    files.packet(AUDIO, 2 * SECOND, true);
    files.finish(CloseReason::Stopped);
    assert_eq!(files.tracks, [vec![AUDIO], vec![VIDEO, AUDIO]]);
    assert_eq!(files.files[1][0], key);
}

#[test]
fn late_audio_without_another_keyframe_has_a_file_of_its_own() {
    let mut files = Files::new(&[VIDEO]);
    files.play(0, 2 * SECOND, &[VIDEO]);
    files.configure(AUDIO);
    let audio = files.packet(AUDIO, 2 * SECOND, true);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.files[1], [audio]);
    files.assert_complete();
}

#[test]
fn audio_that_waits_for_a_keyframe_too_long_begins_a_file() {
    let mut files = Files::new(&[VIDEO]);
    files.play(0, SECOND, &[VIDEO]);
    files.packet(VIDEO, SECOND, true);
    files.configure(AUDIO);
    for index in 1..300 {
        files.packet(VIDEO, SECOND + index * FRAME, false);
        files.packet(AUDIO, SECOND + index * FRAME, true);
    }
    assert_eq!(files.files.len(), 2);
    files.finish(CloseReason::EndOfStream);
    files.assert_complete();
}

#[test]
fn a_changed_configuration_of_video_begins_a_file() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 2500 * MILLISECOND, &[VIDEO, AUDIO]);
    files.configure(VIDEO);
    let key = files.packet(VIDEO, 2500 * MILLISECOND, true);
    files.packet(AUDIO, 2500 * MILLISECOND, true);
    files.finish(CloseReason::Stopped);
    assert_eq!(files.first_packets(), [0, key]);
    let reasons = [CloseReason::Configuration, CloseReason::Stopped];
    assert_eq!(files.reasons, reasons);
}

#[test]
fn a_configuration_that_changes_while_packets_wait_begins_a_file() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.packet(VIDEO, 0, true);
    files.configure(VIDEO);
    files.packet(VIDEO, FRAME, true);
    files.packet(AUDIO, FRAME, true);
    files.finish(CloseReason::Stopped);
    assert_eq!(files.files, [vec![0], vec![1, 2]]);
}

#[test]
fn a_silent_track_ends_and_returns_with_another_file() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 2 * SECOND, &[VIDEO, AUDIO]);
    files.play(2 * SECOND, 12 * SECOND, &[VIDEO]);
    assert_eq!(files.ended, [AUDIO]);
    files.play(12 * SECOND, 14 * SECOND, &[VIDEO, AUDIO]);
    assert_eq!(files.tracks, [[VIDEO, AUDIO], [VIDEO, AUDIO]]);
    // It pauses as long again.
    files.play(14 * SECOND, 20 * SECOND, &[VIDEO]);
    files.play(20 * SECOND, 22 * SECOND, &[VIDEO, AUDIO]);
    assert_eq!(files.files.len(), 2);
    files.finish(CloseReason::EndOfStream);
    files.assert_complete();
}

#[test]
fn rare_pictures_beside_audio_stay_in_few_files() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    for index in 0..10_000u64 {
        let dts = index * FRAME;
        if index % 125 == 0 {
            files.packet(VIDEO, dts, true);
        }
        files.packet(AUDIO, dts, true);
    }
    files.finish(CloseReason::EndOfStream);
    assert!(files.files.len() <= 3, "{}", files.files.len());
    files.assert_complete();
}

#[test]
fn an_outage_silences_no_track() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 2 * SECOND, &[VIDEO, AUDIO]);
    files.play(62 * SECOND, 64 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.files.len(), 1);
    assert!(files.ended.is_empty());
}

#[test]
fn after_a_failure_a_file_begins_with_a_keyframe() {
    let mut files = Files::new(&[VIDEO, AUDIO]);
    files.play(0, 1200 * MILLISECOND, &[VIDEO, AUDIO]);
    files.fail();
    files.play(1200 * MILLISECOND, 2 * SECOND, &[AUDIO]);
    files.play(2 * SECOND, 6 * SECOND, &[VIDEO, AUDIO]);
    files.finish(CloseReason::EndOfStream);
    assert_eq!(files.files.len(), 2);
    assert!(!files.dropped.is_empty());
    let first = files.files[1][0] as usize;
    assert_eq!(files.packets[first], (VIDEO, true));
    files.assert_complete();
}

#[derive(Debug, Clone)]
enum Step {
    Packet {
        track: usize,
        after: Time,
        is_key: bool,
    },
    Configure(usize),
    Finish,
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..4usize, 0..200u64, prop::bool::weighted(0.2)).prop_map(
            |(track, after, is_key)| Step::Packet {
                track,
                after: after * MILLISECOND,
                is_key
            }
        ),
        1 => (0..4usize, 0..20_000u64).prop_map(|(track, after)| Step::Packet {
            track,
            after: after * MILLISECOND,
            is_key: true
        }),
        2 => (0..4usize).prop_map(Step::Configure),
        1 => Just(Step::Finish),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    #![proptest_config(properties::cases(256))]

    #[test]
    fn each_packet_is_in_one_file_or_counted(
        steps in prop::collection::vec(step(), 0..400),
        max_time in 0..5u64,
        max_bytes in 0..50_000u64,
    ) {
        let mut files = Files::new(&[VIDEO, AUDIO, 2, 3]);
        files.rotation.set_limits(FileLimits { max_time: max_time * SECOND, max_bytes });
        let (mut dts, mut has_failed) = (0, false);
        for step in steps {
            match step {
                Step::Packet { track, after, is_key } => {
                    dts += after;
                    files.packet(track, dts, is_key);
                }
                Step::Configure(track) => files.configure(track),
                Step::Finish => files.finish(CloseReason::Publisher),
                Step::Fail => {
                    has_failed = true;
                    files.fail();
                }
            }
        }
        files.finish(CloseReason::EndOfStream);
        prop_assert!(!files.is_open);
        files.assert_complete();
        prop_assert!(has_failed || files.dropped.is_empty());
        prop_assert!(files.files.iter().all(|file| !file.is_empty()));
    }
}
