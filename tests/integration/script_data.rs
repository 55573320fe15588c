// SPDX-License-Identifier: MPL-2.0

//! Script data other than onMetaData passes the source unchanged, at its own time.

use support::flv::{self, Tag};
use support::raw::{RawClient, send, unpublish};
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, keyframe, metadata, video_header};

fn script(name: &str, timestamp: u32, value: &str) -> Tag {
    let mut body = vec![2];
    for text in [name, value] {
        if body.len() > 1 {
            body.push(2);
        }
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    Tag::new(flv::SCRIPT, timestamp, body)
}

#[test]
fn script_data_passes_in_order_and_at_its_time() {
    let recorder = Recorder::start("timestamp-mode=publisher");
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    let mut sent = vec![
        metadata(0),
        video_header(0),
        audio_header(0),
        script("onCaption", 0, "before any media"),
        keyframe(0, 100),
        audio(5, 20),
    ];
    let names = ["onTextData", "onCuePoint", "onCaption", "my own name"];
    for (index, name) in names.iter().cycle().take(40).enumerate() {
        let time = 40 * (index as u32 + 1);
        sent.push(script(name, time, &format!("value {}", index % 3)));
        sent.push(keyframe(time + 5, 100));
    }
    send(&mut client, &sent);
    unpublish(client);
    let got = recorder.finish();
    let all = |tags: &[Tag]| -> Vec<(u8, u32, Vec<u8>)> {
        let tag = |tag: &Tag| (tag.kind, tag.timestamp, tag.body.clone());
        tags.iter().map(tag).collect()
    };
    assert_eq!(all(&got), all(&sent));
    // Late clients need none of it.
    for buffer in recorder.buffers() {
        let is_script = buffer.map_readable().unwrap()[0] == flv::SCRIPT;
        let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
        let is_metadata = buffer.size() == flv_size(&metadata(0));
        assert!(!is_script || is_header == is_metadata);
    }
}

/// Returns the size of a tag with its header and its trailer.
fn flv_size(tag: &Tag) -> usize {
    11 + tag.body.len() + 4
}
