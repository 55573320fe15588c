// SPDX-License-Identifier: MPL-2.0

//! Media of publishers: clean, dirty and very dirty.

use std::time::{Duration, Instant};

use support::clients::FFMPEG;
use support::flv::{self, Tag};
use support::media::made_by;

pub(super) const PICTURE: &str = "-f lavfi -i testsrc=size=160x120";

pub(super) const NOISE: &str = "-f lavfi -i anoisesrc=amplitude=0.1:sample_rate";

/// 12 frames per second, mono sound of 44.1 kHz, keyframes at these frames.
pub(super) fn dirty_media(seconds: u32, name: &str, keyframes: &str) -> Vec<Tag> {
    let arguments = format!(
        "{PICTURE}:rate=12 {NOISE}=44100 -t {seconds} -c:v libx264 -preset ultrafast -bf 0 \
         -g 1000 -keyint_min 1 -sc_threshold 0 -force_key_frames {keyframes} \
         -c:a aac -ac 1 -b:a 48k -f flv"
    );
    flv::read_file(&made_by(FFMPEG, name, &arguments))
}

/// Clean media.
pub(super) fn clean_media(seconds: u32) -> Vec<Tag> {
    let arguments = format!(
        "{PICTURE}:rate=30 {NOISE}=48000 -t {seconds} -c:v libx264 -preset ultrafast \
         -profile:v baseline -g 60 -keyint_min 60 -sc_threshold 0 -pix_fmt yuv420p \
         -c:a aac -ac 2 -b:a 64k -f flv"
    );
    let name = format!("relay-clean-{seconds}.flv");
    flv::read_file(&made_by(FFMPEG, &name, &arguments))
}

pub(super) fn without(kind: u8, tags: &[Tag]) -> Vec<Tag> {
    tags.iter()
        .filter(|tag| tag.kind != kind)
        .cloned()
        .collect()
}

/// A tag, the time when it is made and sent, and its timestamp, in milliseconds.
pub(super) struct Timed {
    pub(super) tag: Tag,
    pub(super) made: u32,
}

/// 9 to 15 frames per second, groups of 0.07 to 5 s, a clock that is set ahead, and back twice.
pub(super) fn very_dirty(seconds: u32) -> Vec<Timed> {
    // The first group is a frame, the longest one 60 frames.
    let keyframes = "0,0.083,0.25,1,1.1,1.5,2,2.5,7.4,7.5,8,9,10,12,15,19,19.1,20";
    let media = dirty_media(seconds, &format!("relay-dirty-{seconds}.flv"), keyframes);
    // Steps between frames: as before on average.
    let steps = [66, 112, 71, 109, 83, 67, 75].iter().cycle();
    let mut times = steps.scan(0, |time, step| {
        let now = *time;
        *time += step;
        Some(now)
    });
    let mut timed: Vec<Timed> = media
        .into_iter()
        .map(|tag| {
            let made = match tag.is_frame() {
                true => times.next().unwrap(),
                false => tag.timestamp,
            };
            Timed { tag, made }
        })
        .collect();
    timed.sort_by_key(|timed| timed.made);
    let jumps = [(8_000, 3_600_000), (12_300, -50_000), (16_000, -3_550_000)];
    for timed in &mut timed {
        let due = jumps.iter().filter(|(at, _)| *at <= timed.made);
        let by: i64 = due.map(|(_, by)| by).sum();
        timed.tag.timestamp = (i64::from(timed.made) + by) as u32;
    }
    timed
}

/// Waits for a moment of a live publisher: its pace is the subject of the test.
pub(super) fn pace(start: Instant, made: u32) {
    let due = start + Duration::from_millis(made.into());
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
