// SPDX-License-Identifier: MPL-2.0

//! The output equals, tag by tag, what real publishers send.

use std::path::{Path, PathBuf};

use support::clients::{FFMPEG, NEW_FFMPEG, ffmpeg, gst_launch, publish};
use support::flv::{self, Tag, assert_same_media};
use support::media::{SMALL_VIDEO, TONE, full_hd, made_by, small};
use support::nginx::Nginx;
use support::recorder::Recorder;

/// Often enough to meet a client that closes while its last data is in flight.
const RUNS: usize = 5;

/// Returns the tags that this ffmpeg sends for a file: those of the FLV that it writes.
fn sent_by(program: &Path, file: &Path, name: &str) -> Vec<Tag> {
    let copy = made_by(
        program,
        name,
        &format!("-i {} -map 0 -c copy -f flv", file.display()),
    );
    flv::read_file(&copy)
}

fn assert_ffmpeg_arrives_unharmed(program: &Path, file: &Path, name: &str) {
    let expected = sent_by(program, file, name);
    for _ in 0..RUNS {
        let recorder = Recorder::start("");
        publish(program, file, false, &recorder.url("live/key")).succeed();
        assert_same_media(&expected, &recorder.finish());
    }
}

#[test]
fn full_hd_from_ffmpeg() {
    assert_ffmpeg_arrives_unharmed(Path::new(FFMPEG), &full_hd(), "full-hd-sent.flv");
}

#[test]
fn full_hd_from_new_ffmpeg() {
    assert_ffmpeg_arrives_unharmed(&NEW_FFMPEG, &full_hd(), "full-hd-sent-new.flv");
}

#[test]
fn paced_from_both_ffmpegs() {
    let file = small(6);
    let programs = [
        (PathBuf::from(FFMPEG), "small-sent.flv"),
        (NEW_FFMPEG.clone(), "small-sent-new.flv"),
    ];
    let running = programs.map(|(program, name)| {
        let expected = sent_by(&program, &file, name);
        let recorder = Recorder::start("");
        let client = publish(&program, &file, true, &recorder.url("live/key"));
        (expected, recorder, client)
    });
    for (expected, recorder, client) in running {
        client.succeed();
        assert_same_media(&expected, &recorder.finish());
    }
}

/// Publishes a file with a GStreamer pipeline that keeps a copy of what it sends.
fn assert_gstreamer_arrives_unharmed(sink: impl Fn(&Recorder) -> String, paced: bool) {
    let file = if paced { small(6) } else { full_hd() };
    let sync = if paced { "identity sync=true !" } else { "" };
    for _ in 0..if paced { 1 } else { RUNS } {
        let recorder = Recorder::start("");
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("sent.flv");
        let pipeline = format!(
            "filesrc location={} ! flvdemux name=d \
             d.video ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! h264parse ! {sync} mux. \
             d.audio ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! aacparse ! mux. \
             flvmux name=mux streamable=true ! tee name=t \
             t. ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! filesink location={} \
             t. ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! {}",
            file.display(),
            copy.display(),
            sink(&recorder)
        );
        gst_launch(&pipeline).succeed();
        let got = recorder.finish();
        assert_same_media(&flv::read_file(&copy), &got);
    }
}

#[test]
fn full_hd_from_rtmp2sink() {
    let sink = |r: &Recorder| format!("rtmp2sink location={}", r.url("live/key"));
    assert_gstreamer_arrives_unharmed(sink, false);
}

#[test]
fn paced_from_rtmp2sink() {
    let sink = |r: &Recorder| format!("rtmp2sink location={}", r.url("live/key"));
    assert_gstreamer_arrives_unharmed(sink, true);
}

#[test]
fn full_hd_from_librtmp() {
    let sink = |r: &Recorder| format!("rtmpsink location={}", r.url("live/key"));
    assert_gstreamer_arrives_unharmed(sink, false);
}

#[test]
fn paced_from_librtmp() {
    let sink = |r: &Recorder| format!("rtmpsink location={}", r.url("live/key"));
    assert_gstreamer_arrives_unharmed(sink, true);
}

#[test]
fn paced_from_nginx_as_a_relay() {
    let file = small(6);
    let expected = sent_by(Path::new(FFMPEG), &file, "small-relayed.flv");
    let recorder = Recorder::start("");
    let nginx = Nginx::relay_to(&recorder.url("live/key"));
    let url = nginx.url("key");
    publish(FFMPEG, &file, true, &url).succeed();
    // nginx caches sequence headers and sends them in its own order.
    let (headers, coded) = split(&expected);
    let (got_headers, got_coded) = split(&recorder.finish());
    for header in &got_headers {
        assert!(headers.iter().any(|h| h.body == header.body), "{header:?}");
    }
    assert!(got_headers.len() >= headers.len());
    assert_same_media(&coded, &got_coded);
}

/// Separates sequence headers from coded media. The end of sequence is left out, since a relay need
/// not pass it on.
fn split(tags: &[Tag]) -> (Vec<Tag>, Vec<Tag>) {
    let media = flv::media(tags).into_iter();
    let media = media.filter(|tag| !tag.is_end_of_sequence());
    media.partition(Tag::is_sequence_header)
}

/// Encodes with these options and publishes the result unchanged.
fn assert_codec_passes(program: &Path, name: &str, options: &str) {
    let made = made_by(
        program,
        &format!("{name}.flv"),
        &format!("{options} -f flv"),
    );
    assert_ffmpeg_arrives_unharmed(program, &made, &format!("{name}-sent.flv"));
}

macro_rules! codecs {
    ($($name:ident: $program:expr, $options:expr;)*) => {
        $(#[test]
        fn $name() {
            let options = $options.replace("{video}", SMALL_VIDEO).replace("{tone}", TONE);
            assert_codec_passes(Path::new(&*$program), stringify!($name), &options);
        })*
    };
}

codecs! {
    h264_and_mp3: FFMPEG, "{video} {tone} -t 3 -c:v libx264 -preset ultrafast -c:a libmp3lame -ar 44100";
    h264_and_a_law: FFMPEG, "{video} {tone} -t 3 -c:v libx264 -preset ultrafast -c:a pcm_alaw -ar 8000 -ac 1";
    h264_and_mu_law: FFMPEG, "{video} {tone} -t 3 -c:v libx264 -preset ultrafast -c:a pcm_mulaw -ar 8000 -ac 1";
    h264_and_speex: FFMPEG, "{video} {tone} -t 3 -c:v libx264 -preset ultrafast -c:a libspeex -ar 16000 -ac 1";
    sorenson_h263: FFMPEG, "{video} {tone} -t 3 -c:v flv1 -c:a aac";
    video_only: FFMPEG, "{video} -t 3 -c:v libx264 -preset ultrafast";
    audio_only: FFMPEG, "{tone} -t 3 -c:a aac";
    a_law_only: FFMPEG, "{tone} -t 3 -c:a pcm_alaw -ar 8000 -ac 1";
    hevc: *NEW_FFMPEG, "{video} {tone} -t 3 -c:v libx265 -preset ultrafast -x265-params log-level=none -c:a aac";
    av1_and_opus: *NEW_FFMPEG, "{video} {tone} -t 2 -c:v libsvtav1 -preset 12 -c:a libopus";
    vp9_and_flac: *NEW_FFMPEG, "{video} {tone} -t 2 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a flac";
    h264_and_ac3: *NEW_FFMPEG, "{video} {tone} -t 2 -c:v libx264 -preset ultrafast -c:a ac3";
    h264_and_eac3: *NEW_FFMPEG, "{video} {tone} -t 2 -c:v libx264 -preset ultrafast -c:a eac3";
    multitrack: *NEW_FFMPEG, "{video} {tone} {video} {tone} -map 0 -map 1 -map 2 -map 3 -t 2 -c:v libx264 -preset ultrafast -c:a aac";
}

#[test]
fn successive_publishers_make_one_playable_stream() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.flv");
    let sink = format!("filesink location={}", file.display());
    let recorder = Recorder::start_into("keep-listening=true", &sink);
    let other = made_by(
        FFMPEG,
        "other-size.flv",
        "-f lavfi -i testsrc=size=640x360:rate=25 -t 2 -c:v libx264 -preset ultrafast -f flv",
    );
    let mut expected = 0;
    for clip in [small(2), small(2), other] {
        ffmpeg(
            FFMPEG,
            &format!(
                "-re -i {} -c copy -f flv {}",
                clip.display(),
                recorder.url("live/key")
            ),
        )
        .succeed();
        let frames = flv::read_file(&clip)
            .iter()
            .filter(|t| t.is_frame())
            .count();
        expected += frames;
        recorder.wait_until("all frames", |buffers| {
            let bodies = buffers.iter().filter(|b| b.size() > 20);
            let video = bodies.filter(|b| {
                let map = b.map_readable().unwrap();
                map[0] == flv::VIDEO && map[12] == 1
            });
            video.count() == expected
        });
    }
    let tags = recorder.tags();
    drop(recorder);
    let mut last = [0; 2];
    for tag in tags.iter().filter(|t| t.is_media()) {
        let last = &mut last[usize::from(tag.kind == flv::VIDEO)];
        assert!(tag.timestamp >= *last, "{tag:?} after {last}");
        *last = tag.timestamp;
    }
    let frames = tags.iter().filter(|t| t.is_frame()).count();
    assert_eq!(frames, expected);

    support::init();
    let text = format!(
        "filesrc location={} ! flvdemux ! h264parse ! avdec_h264 ! fakesink name=sink sync=false",
        file.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    assert_eq!(support::rendered(&pipeline), expected as u64);
}
