// SPDX-License-Identifier: MPL-2.0

//! The bin's output, and when its pads are added and removed.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::receiver::Receiver;
use support::clients::{FFMPEG, publish};
use support::demuxer::Demuxer;
use support::flv::Tag;
use support::launch::Launch;
use support::media::small;
use support::raw::RawClient;
use support::synthetic::{audio, audio_header, keyframe, stream, video_header};

fn send(client: &mut RawClient, tags: &[Tag]) {
    for tag in tags {
        client.media(tag.kind, tag.timestamp, &tag.body, 128);
    }
}

/// A separate demuxer makes exactly the same of the same buffers.
#[test]
fn the_bins_output_equals_that_of_a_separate_demuxer() {
    let receiver = Receiver::new("", |_| true);
    let buffers = Arc::new(Mutex::new(Vec::new()));
    let kept = buffers.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let pad = receiver.child("source").static_pad("src").unwrap();
    pad.add_probe(kinds, move |_, info| {
        let mut kept = kept.lock().unwrap();
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => kept.push(buffer.clone()),
            Some(gst::PadProbeData::BufferList(list)) => kept.extend(list.iter_owned()),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    receiver.play();
    let file = small(4);
    publish(FFMPEG, &file, false, &receiver.url("live/key")).succeed();
    let tracks = receiver.finish();

    let time = gst::FormattedSegment::<gst::ClockTime>::new();
    let demuxer = Demuxer::with_segment("eflvdemux", time.upcast_ref());
    for buffer in buffers.lock().unwrap().drain(..) {
        demuxer.push_buffer(buffer).unwrap();
    }
    let expected = demuxer.finish();
    let names =
        |tracks: &support::demuxer::Tracks| -> Vec<String> { tracks.keys().cloned().collect() };
    assert_eq!(names(&tracks), ["audio_0", "video_0"]);
    assert_eq!(names(&expected), names(&tracks));
    for (name, track) in tracks {
        let expected = &expected[&name];
        assert!(
            track.packets.len() > 100 && track.packets == expected.packets,
            "{name}"
        );
        assert_eq!(track.caps, expected.caps);
        assert!(track.is_ended());
    }
}

#[test]
fn the_bin_is_a_live_source() {
    let receiver = Receiver::new("latency=170", |_| true);
    let paused = receiver.bin.set_state(gst::State::Paused).unwrap();
    assert_eq!(paused, gst::StateChangeSuccess::NoPreroll);
    receiver.play();
    publish(FFMPEG, &small(1), false, &receiver.url("live/key")).succeed();
    receiver.finish();
    for pad in receiver.bin.src_pads() {
        let mut query = gst::query::Latency::new();
        assert!(pad.query(&mut query));
        let expected = (true, gst::ClockTime::from_mseconds(170), None);
        assert_eq!(query.result(), expected);
    }
}

/// A new pad describes itself from the start.
#[test]
fn pads_have_caps_and_stream_ids_when_added() {
    let receiver = Receiver::new("keep-listening=true", |_| true);
    let ids = Arc::new(Mutex::new(Vec::new()));
    let kept = ids.clone();
    receiver.bin.connect_pad_added(move |_, pad| {
        assert!(pad.current_caps().is_some());
        let template = pad.pad_template().unwrap().name_template().to_string();
        let stream = pad.stream().unwrap();
        let id = pad.stream_id().unwrap();
        assert_eq!(stream.stream_id().unwrap(), id);
        kept.lock().unwrap().push((template, id.to_string()));
    });
    receiver.play();
    let mut client = RawClient::publish(receiver.port(), "live", "key");
    send(&mut client, &stream(0, 3));
    receiver.wait_until("all pads", |seen| {
        (seen.pads == ["video_0", "audio_0", "no-more-pads"]).then_some(())
    });
    let ids = ids.lock().unwrap().clone();
    assert_eq!(ids[0].0, "video_%u");
    assert_eq!(ids[1].0, "audio_%u");
    // The collection on the bus has the same streams.
    let collection = receiver.inspect(|seen| {
        let mut messages = seen.messages.iter();
        messages.find_map(|message| match message.view() {
            gst::MessageView::StreamCollection(message) => Some(message.stream_collection()),
            _ => None,
        })
    });
    let streams = collection.unwrap();
    let streams = streams.iter().map(|s| s.stream_id().unwrap().to_string());
    let expected: Vec<String> = ids.into_iter().map(|(_, id)| id).collect();
    assert_eq!(streams.collect::<Vec<_>>(), expected);
}

#[test]
fn an_unlinked_track_blocks_no_other_track() {
    let file = small(4);
    for (wanted, least) in [("video_0", 120), ("audio_0", 150)] {
        for uri in [false, true] {
            let receiver = Receiver::new("", move |pad| pad == wanted);
            if uri {
                receiver.set_uri("rtmpserver://127.0.0.1:0");
            }
            receiver.play();
            publish(FFMPEG, &file, false, &receiver.url("live/key")).succeed();
            let tracks = receiver.finish();
            assert_eq!(tracks.len(), 1);
            let packets = &tracks[wanted].packets;
            assert!(packets.len() >= least, "{}", packets.len());
        }
    }
}

#[test]
fn a_track_linked_late_gets_caps_and_status() {
    for uri in [false, true] {
        let receiver = Receiver::new("", |pad| pad == "video_0");
        if uri {
            receiver.set_uri("rtmpserver://127.0.0.1:0");
        }
        receiver.play();
        let mut client = RawClient::publish(receiver.port(), "live", "key");
        send(&mut client, &stream(0, 20));
        receiver.wait_for_packets("video_0", 20);
        receiver.link("audio_0");
        for index in 20..40 {
            let time = index * 40;
            send(&mut client, &[keyframe(time, 100), audio(time + 7, 50)]);
        }
        drop(client);
        let tracks = receiver.finish();
        assert_eq!(tracks["video_0"].packets.len(), 40);
        let late = &tracks["audio_0"];
        assert!(
            (20..=40).contains(&late.packets.len()),
            "{}",
            late.packets.len()
        );
        // A late branch gets all sticky events.
        assert_eq!(late.caps.len(), 1);
        let has_status = late.events.iter().any(|event| {
            let structure = event.structure();
            structure.is_some_and(|structure| structure.name() == "rtmp2-stream-status")
        });
        assert!(has_status);
    }
}

#[test]
fn a_track_that_starts_late_gets_a_pad() {
    let receiver = Receiver::start("");
    let mut client = RawClient::publish(receiver.port(), "live", "key");
    let mut tags = vec![video_header(0)];
    tags.extend((0..300).map(|index| keyframe(index * 40, 100)));
    send(&mut client, &tags);
    receiver.wait_for_packets("video_0", 300);
    // After so long without another track, the bin has announced that no more pads follow.
    receiver.inspect(|seen| assert_eq!(seen.pads, ["video_0", "no-more-pads"]));
    send(&mut client, &[audio_header(12_000), audio(12_000, 50)]);
    send(&mut client, &[keyframe(12_000, 100)]);
    receiver.wait_for_packets("audio_0", 1);
    receiver.wait_for_packets("video_0", 301);
    drop(client);
    let tracks = receiver.finish();
    assert_eq!(tracks["video_0"].packets.len(), 301);
    assert_eq!(tracks["audio_0"].packets.len(), 1);
    let collections = receiver.inspect(|seen| {
        let messages = seen.messages.iter();
        let sizes = messages.filter_map(|message| match message.view() {
            gst::MessageView::StreamCollection(m) => Some(m.stream_collection().len()),
            _ => None,
        });
        sizes.collect::<Vec<_>>()
    });
    assert_eq!(collections, [1, 2]);
}

#[test]
fn pads_persist_across_publishers() {
    let receiver = Receiver::start("keep-listening=true");
    let file = small(1);
    for index in 1..=3 {
        publish(FFMPEG, &file, false, &receiver.url("live/key")).succeed();
        receiver.wait_for_packets("video_0", 30 * index);
    }
    receiver.inspect(|seen| {
        assert_eq!(seen.pads, ["video_0", "audio_0", "no-more-pads"]);
        let track = &seen.tracks["video_0"];
        assert_eq!(track.packets.len(), 90);
        assert!(!track.is_ended());
        let times: Vec<_> = track.packets.iter().map(|packet| packet.dts).collect();
        assert!(times.is_sorted());
    });
}

#[test]
fn gst_launch_links_pads_as_they_appear() {
    let text = "rtmp2serverbin name=s port=0 s.video_0 ! queue ! h264parse ! avdec_h264 ! \
                fakesink silent=false sync=true";
    let mut launch = Launch::start("", text);
    let port = launch.port();
    let url = format!("rtmp://127.0.0.1:{port}/live/key");
    publish(FFMPEG, &small(2), true, &url).succeed();
    let (status, _) = launch.wait();
    assert!(status.success(), "{}", launch.output());
    let frames = launch.output().matches("last-message = chain").count();
    assert_eq!(frames, 60, "{}", launch.output());
}
