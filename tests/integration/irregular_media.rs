// SPDX-License-Identifier: MPL-2.0

//! Publishers with irregular timestamps or tracks, and publishers that send a backlog.

use std::time::{Duration, Instant};

use gstrtmp2server::StreamEvent;

use support::PATIENCE;
use support::flv::{self, Tag};
use support::raw::{RawClient, send};
use support::recorder::Recorder;
use support::synthetic::{audio, delta_frame, keyframe, stream, video_header};

const EVENT: &str = "rtmp2-stream-event";

/// Time between tags of a live publisher.
const STEP: Duration = Duration::from_millis(40);

/// Returns the details of the first event of a kind, if one was posted.
fn details(recorder: &Recorder, wanted: StreamEvent) -> Option<gst::Structure> {
    let all = recorder.messages(EVENT, 0);
    let mut of_kind = all.iter().filter(|s| s.get("event") == Ok(wanted));
    of_kind.next().map(|s| s.get("details").unwrap())
}

/// Publishes one step after the other at a live pace until an event of this kind is posted.
#[track_caller]
fn publish_until(
    recorder: &Recorder,
    client: &mut RawClient,
    wanted: StreamEvent,
    mut tags: impl FnMut(u32) -> Vec<Tag>,
) -> gst::Structure {
    let start = Instant::now();
    for step in 1.. {
        send(client, &tags(step));
        // The pace of a live publisher is under test. No result depends on its precision.
        std::thread::sleep((start + STEP * step).saturating_duration_since(Instant::now()));
        if let Some(details) = details(recorder, wanted) {
            return details;
        }
        assert!(start.elapsed() < PATIENCE, "{wanted:?} did not come");
    }
    unreachable!()
}

fn assert_no_track_goes_back(tags: &[Tag]) {
    for kind in [flv::AUDIO, flv::VIDEO] {
        let times: Vec<u32> = tags
            .iter()
            .filter(|tag| tag.kind == kind)
            .map(|tag| tag.timestamp)
            .collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}

#[test]
fn a_clock_restart_is_posted_and_counted() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(50_000, 20));
    send(
        &mut client,
        &[
            keyframe(10, 100),
            audio(12, 100),
            delta_frame(50, 100),
            audio(35, 100),
        ],
    );
    drop(client);
    let tags = recorder.finish();
    assert_no_track_goes_back(&tags);
    // The offset between audio and video is unchanged.
    let last: Vec<u32> = tags[tags.len() - 4..].iter().map(|t| t.timestamp).collect();
    let from_first: Vec<u32> = last.iter().map(|time| time - last[0]).collect();
    assert_eq!(from_first, [0, 2, 40, 25]);
    let details = details(&recorder, StreamEvent::TimestampJump).unwrap();
    assert_eq!(details.get("kind"), Ok("backward"));
    assert_eq!(details.get("track"), Ok("video"));
    assert_eq!(details.get("from"), Ok(50_760_000_000_i64));
    assert_eq!(details.get("to"), Ok(10_000_000_i64));
    assert_eq!(recorder.stats().get("timestamp-jumps"), Ok(1u64));
    let marked = recorder.buffers();
    let jumped = &marked[marked.len() - 4];
    assert!(jumped.flags().contains(gst::BufferFlags::DISCONT));
}

#[test]
fn timestamps_that_are_all_zero_become_arrival_times() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &[video_header(0), keyframe(0, 100)]);
    let wanted = StreamEvent::TimestampJump;
    let details = publish_until(&recorder, &mut client, wanted, |step| {
        vec![delta_frame(0, 10 + step as usize)]
    });
    assert_eq!(details.get("kind"), Ok("frozen"));
    drop(client);
    let tags = recorder.finish();
    assert_no_track_goes_back(&tags);
    assert!(tags[tags.len() - 1].timestamp >= 1000);
    assert!(recorder.stats().get::<u64>("timestamps-frozen").unwrap() > 0);
}

#[test]
fn a_missing_track_and_its_return_are_posted() {
    let recorder = Recorder::start("imbalance-timeout=500");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    send(&mut client, &stream(0, 1));
    let wanted = StreamEvent::Imbalance;
    let first = publish_until(&recorder, &mut client, wanted, |step| {
        vec![audio(40 * step, 20)]
    });
    assert_eq!(first.get("missing"), Ok("video"));
    assert_eq!(first.get("over"), Ok(false));
    assert!(first.get::<u64>("time").unwrap() >= 500_000_000);
    send(&mut client, &[keyframe(60_000, 100)]);
    drop(client);
    recorder.finish();
    let all = recorder.messages(EVENT, 0);
    let imbalances = all
        .iter()
        .filter(|s| s.get("event") == Ok(StreamEvent::Imbalance));
    let over: Vec<bool> = imbalances
        .map(|s| s.get::<gst::Structure>("details").unwrap())
        .map(|details| details.get("over").unwrap())
        .collect();
    assert_eq!(over, [false, true]);
}

#[test]
fn a_backlog_is_skipped_and_posted() {
    let recorder = Recorder::start("max-lateness=1000");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    // Eight seconds at once, with a keyframe every 400 ms.
    let backlog = stream(0, 200);
    send(&mut client, &backlog);
    let details = publish_until(&recorder, &mut client, StreamEvent::Dropped, |step| {
        let time = 40 * (200 + step);
        match step % 10 {
            0 => vec![keyframe(time, 900)],
            _ => vec![delta_frame(time, 900)],
        }
    });
    assert_eq!(details.get("reason"), Ok("late"));
    let dropped: u64 = details.get("tags").unwrap();
    drop(client);
    let tags = flv::media(&recorder.finish());
    assert_eq!(recorder.stats().get("dropped-late"), Ok(dropped));
    assert_no_track_goes_back(&tags);
    // The accepted part of the backlog is its start, and the media after it begins with a keyframe.
    let length = |tag: &&Tag| tag.kind == flv::VIDEO && tag.body.len() == 905;
    let first_live = tags.iter().position(|tag| length(&tag)).unwrap();
    assert_eq!(tags[first_live].body[0], 0x17);
    let sent = flv::media(&backlog);
    let bodies = |tags: &[Tag]| tags.iter().map(|t| t.body.clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&tags[..first_live]), bodies(&sent[..first_live]));
    // Without the skip it would be eight seconds ahead of its time.
    let rest_after = tags[first_live].timestamp;
    assert!(rest_after < 5000, "{rest_after}");
}

#[test]
fn a_backlog_without_max_lateness_is_kept() {
    let recorder = Recorder::start("");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let tags = stream(0, 500);
    send(&mut client, &tags);
    drop(client);
    flv::assert_same_media(&tags, &recorder.finish());
    assert_eq!(recorder.stats().get("dropped-late"), Ok(0u64));
}
