// SPDX-License-Identifier: MPL-2.0

//! Standby between the publishers of a feed.

use std::sync::Arc;

use super::*;

const MILLI: u64 = 1_000_000;
const AFTER: u64 = 1000 * MILLI;
/// Frame durations in milliseconds: of video, and of AAC with 48 kHz.
const FRAME_TIME: u64 = 40;
const OTHER_HEADER: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 9];

/// A file of a second: 25 frames, the first of them a keyframe, with audio.
fn file(header: &[u8], composition: u8) -> Arc<Program> {
    let mut builder = ProgramBuilder::default();
    builder.push(TagKind::Video, 0, header).unwrap();
    builder.push(TagKind::Audio, 0, AUDIO_HEADER).unwrap();
    for index in 0..25u32 {
        let first = if index == 0 { 0x17 } else { 0x27 };
        let body = [first, 1, 0, 0, composition, 77];
        builder.push(TagKind::Video, index * 40, &body).unwrap();
    }
    for index in 0..47u32 {
        builder
            .push(TagKind::Audio, index * 64 / 3, &[0xAF, 1, 77])
            .unwrap();
    }
    Arc::new(builder.finish().unwrap())
}

fn settings(source: StandbySource) -> StandbySettings {
    StandbySettings {
        source,
        after: AFTER,
        begins_at_once: true,
    }
}

/// A tag that has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    kind: u8,
    dts: u64,
    pts: u64,
    is_header: bool,
    is_standby: bool,
    is_key: bool,
    /// Milliseconds after its running time.
    lateness: i64,
}

/// A feed that is played in real time, as the streaming thread does it.
struct Play {
    feed: Feed<u8>,
    now: u64,
    left: Vec<Left>,
    changes: Vec<StandbyChange>,
    segments: usize,
    headers: usize,
    /// Start and base of the segment in milliseconds.
    segment: (i64, i64),
}

impl Play {
    fn new(mode: TimestampMode, standby: StandbySettings) -> Self {
        let settings = FeedSettings {
            wait_for_keyframe: true,
            imbalance_timeout: 2 * SECOND,
            timestamp_mode: mode,
            max_drift: 1000,
            ..FeedSettings::default()
        };
        Play {
            feed: Feed::new(settings).with_standby(Some(standby)),
            now: 5 * SECOND,
            left: Vec::new(),
            changes: Vec::new(),
            segments: 0,
            headers: 0,
            segment: (0, 0),
        }
    }

    fn with_file(header: &[u8], composition: u8) -> Self {
        let source = StandbySource::File(file(header, composition));
        Play::new(TimestampMode::RunningTime, settings(source))
    }

    fn collect(&mut self) {
        while let Some(output) = self.feed.pop() {
            match output {
                FeedOutput::Tag(tag) if tag.bytes[..3] != *b"FLV" => {
                    let front = &tag.bytes[..crate::flv::FRONT_LENGTH];
                    let body = &tag.bytes[crate::flv::FRONT_LENGTH..tag.bytes.len() - 4];
                    let dts = (tag.dts / MILLI) as i64;
                    let due = dts - self.segment.0 + self.segment.1;
                    self.left.push(Left {
                        kind: front[0],
                        dts: tag.dts / MILLI,
                        lateness: (self.now / MILLI) as i64 - due,
                        pts: tag.pts / MILLI,
                        is_header: tag.is_header,
                        is_standby: body.last() == Some(&77),
                        is_key: front[0] == 9 && !tag.is_delta_unit,
                    });
                }
                FeedOutput::Standby(change) => self.changes.push(change),
                FeedOutput::Segment { start, base } => {
                    self.segments += 1;
                    self.segment = ((start / MILLI) as i64, (base / MILLI) as i64);
                }
                FeedOutput::Headers(_) => self.headers += 1,
                _ => {}
            }
        }
    }

    /// Lets time pass: standby wakes by its deadlines.
    fn pass(&mut self, millis: u64) {
        let until = self.now + millis * MILLI;
        loop {
            let due = self.feed.standby_deadline().into_iter();
            let Some(due) = due.chain(self.feed.deadline()).min() else {
                break;
            };
            if due > until {
                break;
            }
            self.now = self.now.max(due);
            self.feed.expire(self.now);
            self.feed.run_standby(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn push(&mut self, kind: TagKind, timestamp: u64, body: &[u8]) {
        self.push_after(kind, timestamp, body, 0);
    }

    /// Pushes a tag that has waited for the pipeline for this time in milliseconds.
    fn push_after(&mut self, kind: TagKind, timestamp: u64, body: &[u8], waited: u64) {
        let tag = Tag::new(kind, timestamp as u32, Memory::from_vec(body.to_vec(), 0));
        let reception = Reception {
            arrival: self.now - waited * MILLI,
            now: self.now,
            is_newest: true,
            discont: false,
        };
        self.feed.push(tag.unwrap(), reception);
        self.collect();
    }

    fn start_publisher(&mut self, header: &[u8]) {
        self.feed.start_publisher();
        self.push(TagKind::Video, 0, header);
        self.push(TagKind::Audio, 0, AUDIO_HEADER);
    }

    /// Sends live media from this time on, for so many frames with a keyframe each second.
    fn publish(&mut self, from: u64, frames: u64) {
        let mut audio = (from * 3).div_ceil(64);
        for index in 0..frames {
            let time = from + index * FRAME_TIME;
            let body = if index % 25 == 0 { KEYFRAME } else { FRAME };
            self.push(TagKind::Video, time, body);
            while audio * 64 / 3 < time + FRAME_TIME {
                self.push(TagKind::Audio, audio * 64 / 3, &[0xAF, 1, 5]);
                audio += 1;
            }
            self.pass(FRAME_TIME);
        }
    }

    /// Asserts that nothing leaves later than standby may begin.
    #[track_caller]
    fn assert_in_time(&self) {
        let most = (AFTER / MILLI) as i64;
        let late = self.left.iter().find(|tag| tag.lateness > most);
        assert_eq!(late, None);
    }

    fn of(&self, kind: u8) -> Vec<Left> {
        let coded = self.left.iter().filter(|tag| !tag.is_header);
        coded.copied().filter(|tag| tag.kind == kind).collect()
    }

    /// Asserts that no track goes back or has a hole of more than this many milliseconds.
    #[track_caller]
    fn assert_continuous(&self, video_hole: u64, audio_hole: u64) {
        for (kind, hole) in [(9, video_hole), (8, audio_hole)] {
            for pair in self.of(kind).windows(2) {
                let step = pair[1].dts.checked_sub(pair[0].dts);
                assert!(step.is_some_and(|step| step <= hole), "{kind}: {pair:?}");
            }
        }
        let mut shown: Vec<u64> = self.of(9).iter().map(|tag| tag.pts).collect();
        shown.sort_unstable();
        for pair in shown.windows(2) {
            assert!(pair[1] - pair[0] <= video_hole, "{pair:?}");
        }
    }
}

fn reconfigurations(changes: &[StandbyChange]) -> Vec<(bool, bool)> {
    let facts = changes.iter().map(|change| match change {
        StandbyChange::Started { reconfigures } => (true, *reconfigures),
        StandbyChange::Ended { reconfigures, .. } => (false, *reconfigures),
    });
    facts.collect()
}

#[test]
fn file_plays_from_the_start_and_the_publisher_takes_over_with_its_keyframe() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.pass(2500);
    let video = play.of(9);
    assert_eq!((video[0].dts, video.len()), (0, 63));
    play.start_publisher(VIDEO_HEADER);
    play.push(TagKind::Video, 960, FRAME);
    play.pass(40);
    assert!(play.of(9).iter().all(|tag| tag.is_standby));
    play.publish(1000, 50);
    let first = play.of(9).into_iter().find(|tag| !tag.is_standby).unwrap();
    assert!(first.is_key && first.dts == 2540, "{first:?}");
    play.assert_continuous(40, 46);
    assert_eq!(
        reconfigurations(&play.changes),
        [(true, true), (false, false)]
    );
    assert_eq!((play.segments, play.headers), (1, 1));
    assert_eq!(play.feed.dropped().before_keyframe, 1);
}

#[test]
fn other_configuration_is_told_at_each_change() {
    let mut play = Play::with_file(OTHER_HEADER, 0);
    play.pass(500);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 50);
    play.pass(3000);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 10);
    let expected = [(true, true), (false, true), (true, true), (false, true)];
    assert_eq!(reconfigurations(&play.changes), expected);
    assert_eq!(play.headers, 4);
}

#[test]
fn file_with_pictures_out_of_order_shows_no_hole() {
    for composition in [0, 80] {
        let mut play = Play::with_file(VIDEO_HEADER, composition);
        play.pass(500);
        for _ in 0..5 {
            play.start_publisher(VIDEO_HEADER);
            play.publish(0, 30);
            play.pass(2345);
        }
        play.assert_continuous(composition as u64 + 41, 46);
        let mut shown: Vec<u64> = play.of(9).iter().map(|tag| tag.pts).collect();
        shown.sort_unstable();
        assert!(shown.windows(2).all(|pair| pair[1] - pair[0] <= 44));
    }
}

#[test]
fn random_cuts_leave_no_hole() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.pass(100);
    for _ in 0..100 {
        play.start_publisher(VIDEO_HEADER);
        play.publish(random.u64(0..100_000), random.u64(1..60));
        play.pass(random.u64(0..3000));
    }
    play.assert_continuous(44, 46);
    play.assert_in_time();
    assert!(play.changes.len() > 50);
}

#[test]
fn audio_ahead_of_its_picture_leaves_no_hole() {
    for ahead in 0..80 {
        let mut play = Play::with_file(VIDEO_HEADER, 0);
        play.start_publisher(VIDEO_HEADER);
        play.publish(0, 5);
        play.push(TagKind::Audio, 160 + ahead, &[0xAF, 1, 5]);
        // It returns at once.
        play.start_publisher(VIDEO_HEADER);
        play.publish(0, 5);
        play.assert_continuous(44, u64::MAX);
    }
}

#[test]
fn audio_before_the_first_picture_leaves_no_hole() {
    for lead in 0..80 {
        let mut play = Play::with_file(VIDEO_HEADER, 0);
        play.start_publisher(VIDEO_HEADER);
        play.publish(0, 5);
        play.start_publisher(VIDEO_HEADER);
        play.push(TagKind::Audio, 0, &[0xAF, 1, 5]);
        play.push(TagKind::Video, lead, KEYFRAME);
        play.assert_continuous(44, u64::MAX);
    }
}

#[test]
fn freeze_sends_the_last_keyframe_each_second_and_silence() {
    let mut play = Play::new(TimestampMode::RunningTime, settings(StandbySource::Freeze));
    play.pass(5000);
    assert!(play.left.is_empty(), "there is nothing to freeze yet");
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 40);
    let before = play.of(9).len();
    play.pass(5000);
    let frozen = &play.of(9)[before..];
    assert_eq!(frozen.len(), 5, "{frozen:?}");
    assert!(frozen.iter().all(|tag| tag.is_key));
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 40);
    play.assert_continuous(1000, 46);
    play.assert_in_time();
    assert_eq!(
        reconfigurations(&play.changes),
        [(true, false), (false, false)]
    );
    assert_eq!(play.headers, 1);
}

/// A publisher that has been silent for four seconds sends what it had to send meanwhile.
fn burst(frames: u64) -> Play {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 50);
    play.pass(4000);
    for index in 0..frames {
        let body = if index % 25 == 0 { KEYFRAME } else { FRAME };
        play.push(TagKind::Video, 2000 + index * 40, body);
    }
    assert_eq!(play.feed.dropped().late, 75);
    play
}

#[test]
fn late_media_is_skipped_to_its_newest_keyframe() {
    let mut play = burst(90);
    assert!(play.feed.is_standby_playing());
    play.pass(150);
    assert!(!play.feed.is_standby_playing());
    let published = |play: &Play| play.of(9).iter().filter(|tag| !tag.is_standby).count();
    assert_eq!(published(&play), 50 + 15);
    for index in 90..120 {
        play.push(TagKind::Video, 2000 + index * 40, FRAME);
        play.pass(40);
    }
    assert_eq!(published(&play), 50 + 45);
    play.assert_continuous(40, u64::MAX);
}

#[test]
fn keyframe_in_time_needs_no_late_media() {
    let mut play = burst(100);
    play.publish(6000, 30);
    assert_eq!(play.feed.dropped().late, 100);
    let published = play.of(9).into_iter().filter(|tag| !tag.is_standby);
    assert_eq!(published.count(), 50 + 30);
    play.assert_continuous(40, 46);
}

#[test]
fn publisher_that_is_in_time_again_starts_with_its_next_keyframe() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 25);
    play.pass(4020);
    // The frames meanwhile are lost, and these in time.
    for index in 0..5 {
        play.push(TagKind::Video, 5020 + index * 40, FRAME);
        play.pass(40);
    }
    assert!(play.feed.is_standby_playing());
    play.publish(5220, 10);
    assert!(!play.feed.is_standby_playing());
    play.assert_continuous(40, 46);
}

#[test]
fn publisher_without_video_takes_over_after_a_while() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.pass(1000);
    play.feed.start_publisher();
    for index in 0..150 {
        play.push(TagKind::Audio, index * 64 / 3, &[0xAF, 1, 5]);
        play.pass(21);
    }
    assert!(!play.feed.is_standby_playing());
    play.assert_continuous(u64::MAX, 46);
    // Known to have none, it returns at once.
    play.pass(2000);
    assert!(play.feed.is_standby_playing());
    play.push(TagKind::Audio, 60_000, &[0xAF, 1, 5]);
    play.pass(200);
    assert!(!play.feed.is_standby_playing());
}

#[test]
fn publisher_that_sent_ahead_of_its_time_has_it() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    for index in 0..250 {
        let body = if index % 25 == 0 { KEYFRAME } else { FRAME };
        play.push(TagKind::Video, index * 40, body);
    }
    play.pass(9900);
    assert!(!play.feed.is_standby_playing());
    play.pass(2000);
    assert!(play.feed.is_standby_playing());
    play.assert_continuous(40, 46);
}

#[test]
fn standby_continues_the_publishers_own_time() {
    let source = StandbySource::File(file(VIDEO_HEADER, 0));
    let mut play = Play::new(TimestampMode::Publisher, settings(source));
    play.pass(500);
    play.start_publisher(VIDEO_HEADER);
    play.publish(70_000, 25);
    play.pass(3000);
    let video = play.of(9);
    let first = video.iter().position(|tag| !tag.is_standby).unwrap();
    assert_eq!(video[first].dts, 70_000);
    assert_eq!(video[first + 25].dts, 71_000, "the first of standby");
    let last = video[video.len() - 1];
    assert!(
        last.is_standby && last.dts.abs_diff(74_000) <= 40,
        "{last:?}"
    );
}

/// Sends frames of a publisher whose clock is 800 ppm fast, with a keyframe each second.
fn publish_fast(play: &mut Play, frames: std::ops::Range<u64>) {
    for index in frames {
        let body = if index % 25 == 0 { KEYFRAME } else { FRAME };
        play.push(TagKind::Video, index * 40 + index * 32 / 1000, body);
        play.pass(40);
    }
}

#[test]
fn publisher_whose_drift_is_corrected_returns_in_time() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    publish_fast(&mut play, 0..15_000);
    let before = play.feed.drift();
    assert!(before.corrected < -400 * MILLI as i64, "{before:?}");
    play.pass(75 * 40);
    assert!(play.feed.is_standby_playing());
    publish_fast(&mut play, 15_075..15_076);
    assert!(!play.feed.is_standby_playing(), "its keyframe is in time");
    publish_fast(&mut play, 15_076..15_078);
    assert_eq!(play.feed.dropped().late, 0);
    play.assert_continuous(44, u64::MAX);
    // It is the same clock, and goes on to be corrected.
    let after = play.feed.drift();
    assert!((after.ppm - 800.0).abs() < 50.0, "{after:?}");
    publish_fast(&mut play, 15_078..30_000);
    let corrected = before.corrected - play.feed.drift().corrected;
    assert!(corrected > 400 * MILLI as i64, "{corrected}");
    assert!(!play.feed.is_standby_playing());
    play.assert_in_time();
}

#[test]
fn media_that_waited_for_the_pipeline_is_no_silence() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 25);
    // Nothing has run for half a minute, and the publisher has waited too.
    play.now += 30 * SECOND;
    for index in 0..10 {
        play.push_after(TagKind::Video, 1000 + index * 40, FRAME, 30_000);
        play.pass(20);
    }
    assert!(!play.feed.is_standby_playing());
    play.pass(1000);
    assert!(play.feed.is_standby_playing());
}

#[test]
fn media_that_is_collected_is_no_silence() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.feed.set_delivery_interval(SECOND);
    play.start_publisher(VIDEO_HEADER);
    let second = |play: &mut Play, from: u64| {
        for index in 0..25 {
            let body = if index == 0 { KEYFRAME } else { FRAME };
            play.push(TagKind::Video, (from + index) * 40, body);
        }
    };
    for from in 0..5 {
        second(&mut play, from * 25);
        play.pass(1100);
        assert!(!play.feed.is_standby_playing());
    }
    play.pass(1000);
    assert!(play.feed.is_standby_playing());
}

#[test]
fn descriptions_that_wait_for_the_publishers_return_are_no_drops() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 25);
    play.pass(2000);
    assert!(play.feed.is_standby_playing());
    play.feed.end_publisher();
    assert_eq!(play.feed.dropped().at_end, 0);
    // Another one describes itself, and sends nothing.
    play.start_publisher(VIDEO_HEADER);
    play.feed.end_publisher();
    assert_eq!(play.feed.dropped().at_end, 2);
}

#[test]
fn long_pause_of_the_pipeline_is_caught_up_in_pieces() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.now += 3600 * SECOND;
    play.feed.run_standby(play.now);
    play.now += 60 * SECOND;
    let mut pieces = 0;
    while play
        .feed
        .standby_deadline()
        .is_some_and(|due| due <= play.now)
    {
        play.feed.run_standby(play.now);
        assert!(play.feed.tags_ahead() <= 64);
        play.collect();
        pieces += 1;
    }
    assert!(pieces > 60, "{pieces}");
    play.assert_continuous(40, 46);
}

#[test]
fn without_standby_nothing_has_a_deadline() {
    let mut run = FeedTest::default();
    run.video(0, VIDEO_HEADER).video(0, KEYFRAME);
    assert_eq!(run.feed.standby_deadline(), None);
    assert!(!run.feed.fills_gaps() && !run.feed.is_standby_playing());
    run.feed.run_standby(100 * SECOND);
    run.emitted();
    assert!(!run.feed.has_output());
}

/// A returning publisher's late keyframe waits for the end of its burst when it is cut off.
#[test]
fn standby_goes_on_when_a_returning_publisher_is_lost_in_its_burst() {
    let mut play = Play::with_file(VIDEO_HEADER, 0);
    play.start_publisher(VIDEO_HEADER);
    play.publish(0, 25);
    play.pass(5000);
    play.push(TagKind::Video, 1000, KEYFRAME);
    assert!(play.feed.is_standby_playing());
    play.feed.end_publisher();
    let before = play.of(9).len();
    play.pass(1000);
    assert!(play.feed.is_standby_playing());
    assert!(play.of(9).len() >= before + 24);
    assert!(play.feed.standby_deadline().unwrap() > play.now);
    play.assert_continuous(40, 46);
}

/// Composition times have 24 bits, which is over two hours.
#[test]
fn wrong_composition_time_keeps_standby_and_publishers_where_they_are() {
    for composition in [[0x7F, 0xFF, 0xFF], [0x80, 0, 0]] {
        let [a, b, c] = composition;
        let mut play = Play::with_file(VIDEO_HEADER, 0);
        play.start_publisher(VIDEO_HEADER);
        play.publish(0, 25);
        play.push(TagKind::Video, 1000, &[0x27, 1, a, b, c, 5]);
        // The longest composition time that counts is five seconds.
        play.pass(8000);
        let standby = play.of(8).into_iter().filter(|tag| tag.is_standby);
        assert!(standby.count() > 40, "{composition:?}");
        // The publisher takes over with such a keyframe, too.
        play.push(TagKind::Video, 9000, &[0x17, 1, a, b, c, 5]);
        play.publish(9040, 50);
        assert!(!play.feed.is_standby_playing());
        let last = play.of(9).last().unwrap().dts;
        let now = (play.now / MILLI) as i64 - play.segment.1 + play.segment.0;
        assert!(
            last as i64 - now < 10_000,
            "{composition:?}: {last} of {now}"
        );
        assert!(play.of(8).len() < 1000, "{}", play.of(8).len());
    }
}

#[test]
fn a_pipeline_that_was_blocked_for_an_hour_gets_no_hour_of_standby() {
    const HOUR: u64 = 3600 * SECOND;
    for is_freeze in [false, true] {
        for returns in [false, true] {
            let mut play = Play::with_file(VIDEO_HEADER, 0);
            if is_freeze {
                play = Play::new(TimestampMode::RunningTime, settings(StandbySource::Freeze));
            }
            play.start_publisher(VIDEO_HEADER);
            play.publish(0, 25);
            play.pass(5000);
            assert!(play.feed.is_standby_playing());
            let before = play.left.len();
            // Nothing is handled meanwhile.
            play.now += HOUR;
            if returns {
                play.push(TagKind::Video, 3_606_000, KEYFRAME);
                assert!(!play.feed.is_standby_playing());
                play.publish(3_606_040, 25);
            }
            play.pass(1000);
            let after = play.left[before..].iter().filter(|tag| !tag.is_header);
            let after: Vec<_> = after.collect();
            assert!((1..200).contains(&after.len()), "{}", after.len());
            assert!(after[0].lateness.abs() < 1500, "{:?}", after[0]);
        }
    }
}
