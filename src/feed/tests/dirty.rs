// SPDX-License-Identifier: MPL-2.0

//! Publishers with wrong timestamps.

use super::*;
use TagKind::{Audio as AUDIO_TRACK, Video as VIDEO_TRACK};

const MILLI: u64 = 1_000_000;

/// A publisher that has started with a keyframe and audio at 0, four seconds into the pipeline.
fn started(settings: FeedSettings) -> FeedTest {
    let mut run = FeedTest::new(settings);
    run.video(0, VIDEO_HEADER)
        .video(0, KEYFRAME)
        .audio(0, AUDIO);
    run.emitted();
    run
}

/// Milliseconds since the publisher started.
fn at(run: &mut FeedTest, millis: u64) -> &mut FeedTest {
    run.arrival = 4 * SECOND + millis * MILLI;
    run
}

fn media(emitted: Vec<Emitted>) -> Vec<Emitted> {
    let is_media = |tag: &Emitted| matches!(tag, Video(..) | Audio(..));
    emitted.into_iter().filter(is_media).collect()
}

#[test]
fn a_jump_ahead_is_repaired_and_keeps_audio_and_video_together() {
    let mut run = started(FeedSettings::default());
    at(&mut run, 2040).video(2040, FRAME).audio(2023, AUDIO);
    at(&mut run, 2080).audio(3_600_046, AUDIO);
    at(&mut run, 2090)
        .video(2080, FRAME)
        .video(3_600_120, FRAME);
    at(&mut run, 2130)
        .audio(3_600_069, AUDIO)
        .video(3_600_160, FRAME);
    let expected = [
        Video(2040, 1),
        Audio(2023, 1),
        jump(JumpKind::Ahead, AUDIO_TRACK, 2023, 3_600_046),
        Audio(2080, 1),
        Video(2080, 1),
        Video(2154, 1),
        Audio(2103, 1),
        Video(2194, 1),
    ];
    assert_eq!(run.emitted(), expected);
    assert_eq!(run.feed.repairs().jumps, 1);
}

#[test]
fn a_jump_of_a_publisher_ahead_of_its_arrivals_keeps_its_pace() {
    let mut run = started(FeedSettings::default());
    at(&mut run, 40).video(2040, FRAME).audio(2040, AUDIO);
    at(&mut run, 80).video(500, FRAME).audio(500, AUDIO);
    let expected = [
        Video(2040, 1),
        Audio(2040, 1),
        Video(2080, 1),
        Audio(2080, 1),
    ];
    assert_eq!(media(run.emitted()), expected);
}

#[test]
fn a_jump_back_while_audio_waits_for_a_keyframe_does_not_delay_the_start() {
    let mut run = FeedTest::default();
    at(&mut run, 0)
        .video(3_600_000, VIDEO_HEADER)
        .audio(3_600_000, AUDIO);
    at(&mut run, 23).audio(3_600_023, AUDIO);
    at(&mut run, 46).audio(0, AUDIO);
    at(&mut run, 50).video(4, KEYFRAME);
    let expected = [
        Video(0, 0),
        Audio(0, 1),
        Audio(23, 1),
        Audio(46, 1),
        Video(50, 1),
    ];
    assert_eq!(media(run.emitted()), expected);
}

/// At its start the track seems to have a clock of its own, two seconds behind.
#[test]
fn a_track_that_starts_before_the_other_one_sees_a_jump_stays_with_it() {
    let mut run = FeedTest::new(FeedSettings::default());
    at(&mut run, 0).audio(3000, AUDIO);
    at(&mut run, 552).audio(3552, AUDIO);
    at(&mut run, 567).video(1566, KEYFRAME);
    at(&mut run, 575).audio(1574, AUDIO);
    at(&mut run, 607).video(1606, FRAME);
    let expected = [
        Audio(0, 1),
        Audio(552, 1),
        Video(567, 1),
        Audio(575, 1),
        Video(607, 1),
    ];
    assert_eq!(media(run.emitted()), expected);
    assert_eq!(run.feed.repairs().jumps, 1);
}

#[test]
fn a_gap_in_a_file_that_is_sent_fast_stays() {
    let mut run = started(FeedSettings::default());
    run.video(40, FRAME).video(16_777_256, FRAME);
    assert_eq!(run.emitted(), [Video(40, 1), Video(16_777_256, 1)]);
}

#[test]
fn a_gap_of_days_is_a_jump_also_in_a_file_that_is_sent_fast() {
    let mut run = started(FeedSettings::default());
    at(&mut run, 40).video(1_700_000_040, FRAME);
    at(&mut run, 80).video(1_700_000_080, FRAME);
    assert_eq!(media(run.emitted()), [Video(40, 1), Video(80, 1)]);
    assert_eq!(run.feed.repairs().jumps, 1);
}

#[test]
fn a_small_jump_of_a_live_clock_is_repaired_however_long_it_has_run() {
    let mut run = started(FeedSettings::default());
    // The clock is a little fast: ten seconds in the end.
    for step in 1..5000 {
        at(&mut run, 1000 * step).video(1002 * step as u32, FRAME);
    }
    run.emitted();
    at(&mut run, 5_000_000).video(5_019_000, FRAME);
    let emitted = media(run.emitted());
    let Video(time, _) = emitted[0] else {
        panic!("{emitted:?}");
    };
    assert!((5_008_997..5_011_000).contains(&time), "{time}");
    assert_eq!(run.feed.repairs().jumps, 1);
}

#[test]
fn audio_far_ahead_of_video_is_no_jump() {
    let mut run = started(FeedSettings::default());
    for step in 1..500 {
        at(&mut run, 40 * step)
            .audio(40 * step as u32 + 4000, AUDIO)
            .video(40 * step as u32, FRAME);
    }
    assert_eq!(run.feed.repairs(), Repairs::default());
}

#[test]
fn times_without_end_stay_in_order() {
    let mut run = started(FeedSettings {
        timestamp_mode: TimestampMode::Publisher,
        ..FeedSettings::default()
    });
    let mut time = 0u32;
    let mut last = 0;
    for _ in 0..20_000 {
        time = time.wrapping_add(i32::MAX as u32);
        run.video(time, FRAME);
        for tag in run.tags() {
            assert!(tag.dts >= last);
            last = tag.dts;
        }
    }
}

#[test]
fn a_header_that_is_sent_again_does_not_go_back() {
    let mut run = started(FeedSettings::default());
    at(&mut run, 4000).video(4000, FRAME).video(0, VIDEO_HEADER);
    run.video(4040, FRAME);
    let expected = [Video(4000, 1), Video(4000, 0), Video(4040, 1)];
    assert_eq!(run.emitted(), expected);
}

#[test]
fn a_pause_of_the_publisher_is_no_jump() {
    let mut run = started(FeedSettings::default());
    at(&mut run, 60_000).video(60_000, FRAME);
    assert_eq!(run.emitted(), [Video(60_000, 1)]);
}

#[test]
fn a_file_that_is_sent_fast_does_not_jump_where_one_track_is_sparse() {
    let mut run = started(FeedSettings::default());
    for time in (40..60_000).step_by(40) {
        run.video(time, FRAME);
    }
    run.audio(59_990, AUDIO).video(60_000, FRAME);
    let emitted = run.emitted();
    assert_eq!(
        emitted[emitted.len() - 2..],
        [Audio(59_990, 1), Video(60_000, 1)]
    );
    assert_eq!(run.feed.repairs(), Repairs::default());
}

#[test]
fn a_track_that_restarts_alone_does_not_move_the_other() {
    let mut run = started(FeedSettings::default());
    let mut expected = Vec::new();
    for start in [10_000, 20_000, 30_000] {
        for step in 0..100 {
            let time = start + 40 * step;
            at(&mut run, time)
                .video(time as u32, FRAME)
                .audio(40 * step as u32, AUDIO);
            expected.push(Video(time as u32, 1));
        }
    }
    let emitted = media(run.emitted());
    let (video, audio): (Vec<_>, Vec<_>) = emitted
        .into_iter()
        .partition(|item| matches!(item, Video(..)));
    assert_eq!(video, expected);
    // Each time after the video that has left already.
    assert_eq!(audio[100], Audio(20_001, 1));
    assert_eq!(audio[299], Audio(30_001 + 99 * 40, 1));
    assert_eq!(run.feed.repairs().jumps, 2);
}

/// Video continues on the clock to which audio has changed, unless it shows that the publisher's
/// clock has jumped again.
#[test]
fn a_track_that_misses_a_jump_stays_with_the_other() {
    for by in [-1202i64, 1_000_000] {
        let mut run = started(FeedSettings::default());
        for time in (40..=2000).step_by(40) {
            at(&mut run, time)
                .video(time as u32, FRAME)
                .audio(time as u32, AUDIO);
        }
        // Audio after the first jump, and video after both of them.
        for time in [2023, 2046, 2069] {
            at(&mut run, time).audio(time as u32 - 1202, AUDIO);
        }
        run.emitted();
        let stamp = |time: i64| (time - 1202 + by) as u32;
        at(&mut run, 2090).video(stamp(2090), FRAME);
        at(&mut run, 2092).audio(stamp(2092), AUDIO);
        at(&mut run, 2120).video(stamp(2120), FRAME);
        let expected = [Video(2090, 1), Audio(2092, 1), Video(2120, 1)];
        assert_eq!(media(run.emitted()), expected, "{by}");
        assert_eq!(run.feed.repairs().jumps, 2);
    }
}

#[test]
fn a_live_clock_that_jumps_ahead_is_still_live() {
    let mut run = started(FeedSettings::default());
    for time in (40..=2000).step_by(40) {
        at(&mut run, time).video(time as u32, FRAME);
    }
    run.emitted();
    at(&mut run, 2040).video(502_040, FRAME);
    at(&mut run, 2080).video(1_002_080, FRAME);
    assert_eq!(media(run.emitted()), [Video(2040, 1), Video(2080, 1)]);
    assert_eq!(run.feed.repairs().jumps, 2);
}

/// Audio is sent seconds before the video of the same time.
#[test]
fn tracks_far_apart_change_to_a_new_clock_together() {
    for first in [TagKind::Audio, TagKind::Video] {
        let mut run = started(FeedSettings::default());
        let mut send = |time: u64, jumped: u32| {
            let (audio, video) = (time as u32 + 3000 + jumped, time as u32 + jumped);
            let run = at(&mut run, time);
            match first {
                TagKind::Audio => run.audio(audio, AUDIO).video(video, FRAME),
                _ => run.video(video, FRAME).audio(audio, AUDIO),
            };
            media(run.emitted())
        };
        for time in (40..=4000).step_by(40) {
            send(time, 0);
        }
        for time in (4040..=8000).step_by(40) {
            let mut times: Vec<u32> = send(time, 500_000)
                .iter()
                .filter_map(|item| match item {
                    Video(time, _) | Audio(time, _) => Some(*time),
                    _ => None,
                })
                .collect();
            times.sort_unstable();
            assert_eq!(times[1] - times[0], 3000, "{first:?} first");
        }
        assert_eq!(run.feed.repairs().jumps, 1, "{first:?} first");
    }
}

#[test]
fn one_jump_of_all_tracks_is_one_with_the_publishers_own_time() {
    let mut run = started(FeedSettings {
        timestamp_mode: TimestampMode::Publisher,
        ..FeedSettings::default()
    });
    at(&mut run, 100_000)
        .video(100_000, FRAME)
        .audio(100_000, AUDIO);
    at(&mut run, 100_040).video(40, FRAME).audio(40, AUDIO);
    at(&mut run, 100_080).video(80, FRAME).audio(80, AUDIO);
    let emitted = media(run.emitted());
    assert_eq!(emitted[4..], [Video(80, 1), Audio(80, 1)]);
    assert_eq!(run.feed.repairs().jumps, 1);
}

#[test]
fn timestamps_that_stand_still_are_replaced_by_arrival_times() {
    let mut run = started(FeedSettings::default());
    for step in 1..=50 {
        at(&mut run, 40 * step).video(0, FRAME).audio(0, AUDIO);
    }
    let emitted = run.emitted();
    let events = emitted
        .iter()
        .filter(|item| matches!(item, Emitted::Event(_)));
    assert_eq!(events.count(), 1);
    let emitted = media(emitted);
    // Until it is clear that they stand still, they are used as they are.
    let expected = [Video(0, 1), Audio(0, 1), Video(1000, 1), Audio(1000, 1)];
    assert_eq!(emitted[46..50], expected);
    assert_eq!(emitted[98..], [Video(2000, 1), Audio(2000, 1)]);
    assert_eq!(run.feed.repairs().frozen, 52);
    // They move again, from anywhere.
    at(&mut run, 2040).video(77, FRAME).audio(75, AUDIO);
    at(&mut run, 2080).video(117, FRAME);
    assert_eq!(
        media(run.emitted()),
        [Video(2040, 1), Audio(2038, 1), Video(2080, 1)]
    );
}

#[test]
fn a_track_that_thaws_is_back_with_the_other_one() {
    let mut run = started(FeedSettings::default());
    for step in 1..=100 {
        let time = 40 * step;
        let frozen = if step < 50 { time } else { 2000 };
        at(&mut run, time)
            .audio(time as u32, AUDIO)
            .video(frozen as u32, FRAME);
    }
    at(&mut run, 4040).audio(4040, AUDIO).video(4040, FRAME);
    let emitted = media(run.emitted());
    assert_eq!(
        emitted[emitted.len() - 2..],
        [Audio(4040, 1), Video(4040, 1)]
    );
    assert_eq!(run.feed.repairs().jumps, 0);
}

#[test]
fn jumps_without_end_are_reported_once_a_second() {
    let mut run = started(FeedSettings::default());
    for step in 1..200 {
        at(&mut run, 20 * step).video([0, 500_000][step as usize % 2], FRAME);
    }
    let emitted = run.emitted();
    let events = emitted
        .iter()
        .filter(|item| matches!(item, Emitted::Event(_)));
    assert_eq!(events.count(), 4);
    assert!(run.feed.repairs().jumps > 90);
    let times: Vec<u32> = emitted
        .iter()
        .filter_map(|item| match item {
            Video(time, _) => Some(*time),
            _ => None,
        })
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_missing_track_is_reported_in_its_place() {
    let mut run = started(FeedSettings {
        imbalance_timeout: SECOND,
        ..FeedSettings::default()
    });
    for step in 1..=60 {
        at(&mut run, 20 * step).audio(20 * step as u32, AUDIO);
    }
    at(&mut run, 1220).video(1220, KEYFRAME);
    let emitted = run.emitted();
    let imbalance = |time, is_over| {
        Emitted::Event(FeedEvent::Imbalance(Imbalance {
            missing: VIDEO_TRACK,
            time,
            is_over,
        }))
    };
    assert_eq!(emitted[49], imbalance(SECOND, false));
    assert_eq!(emitted[50], Audio(1000, 1));
    assert_eq!(emitted[61], imbalance(1_200 * MILLI, true));
    assert_eq!(emitted[62], Video(1220, 1));
}

#[test]
fn a_backlog_that_a_publisher_starts_with_does_not_stay() {
    let mut run = started(FeedSettings {
        max_lateness: SECOND,
        ..FeedSettings::default()
    });
    // Eight seconds at once, with a keyframe each second, and then at its own pace.
    for time in (40..8000).step_by(40) {
        let body = if time % 1000 == 0 { KEYFRAME } else { FRAME };
        run.video(time, body).audio(time, AUDIO);
    }
    for time in (8000..12_000).step_by(40) {
        let body = if time % 1000 == 0 { KEYFRAME } else { FRAME };
        at(&mut run, u64::from(time - 8000)).video(time, body);
        run.audio(time, AUDIO);
    }
    let emitted = run.emitted();
    let skipped = run.feed.dropped().late;
    let event = Emitted::Event(FeedEvent::BacklogSkipped(skipped));
    let index = emitted.iter().position(|item| *item == event).unwrap();
    // Everything up to a second ahead, then nothing up to a keyframe, and then everything.
    assert_eq!(media(emitted[..index].to_vec()).len(), 2 * 25);
    assert_eq!(
        emitted[index + 1..index + 3],
        [Video(1001, 1), Audio(1001, 1)]
    );
    let last = &emitted[emitted.len() - 2..];
    assert_eq!(last, [Video(3961, 1), Audio(3961, 1)]);
    assert_eq!(media(emitted).len() as u64 + skipped, 2 * (12_000 / 40) - 2);
}
