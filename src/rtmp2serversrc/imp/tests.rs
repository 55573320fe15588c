// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::flv::{Tag, TagKind};
use crate::memory::Memory;
use crate::rtmp2serversrc::StreamEvent;
use crate::server::{Publisher, QueueItem};

const CLIENT: u64 = 1;

fn push_video(stream: &Stream, timestamp: u32, body: &[u8]) {
    let tag = Tag::new(
        TagKind::Video,
        timestamp,
        Memory::from_vec(body.to_vec(), 0),
    );
    let item = QueueItem::Tag {
        tag: tag.unwrap(),
        arrival: Instant::now(),
        discont: false,
    };
    stream.queue().push(CLIENT, &mut vec![item]).unwrap();
}

/// Returns the reasons and numbers of tags in the events about dropped media.
fn reported(bus: &gst::Bus) -> Vec<(String, u64)> {
    let messages = std::iter::from_fn(|| bus.pop());
    let details = messages.filter_map(|message| {
        let structure = message.structure()?;
        let is_drop = structure.get("event") == Ok(StreamEvent::Dropped);
        is_drop.then(|| structure.get::<gst::Structure>("details").unwrap())
    });
    details
        .map(|details| (details.get("reason").unwrap(), details.get("tags").unwrap()))
        .collect()
}

/// The base class gets its output from this test, which never confirms it.
#[test]
fn output_that_the_base_class_drops_in_a_pause_is_counted_and_reported() {
    gst::init().unwrap();
    let element: crate::rtmp2serversrc::Rtmp2ServerSrc = glib::Object::builder()
        .property("host", "127.0.0.1")
        .property("port", 0u32)
        .build();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    // In PAUSED the base class does not call create().
    element.set_state(gst::State::Paused).unwrap();
    let imp = element.imp();
    imp.pause_gate.resume();
    let stream = imp.stream().unwrap();
    stream.queue().start(Arc::new(Publisher::example(CLIENT)));
    push_video(&stream, 0, &[0x17, 0, 0, 0, 0, 1, 66, 0, 30]);
    push_video(&stream, 0, &[0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65]);
    let create = || match PushSrcImpl::create(imp, None).unwrap() {
        CreateSuccess::NewBuffer(buffer) => vec![buffer],
        CreateSuccess::NewBufferList(list) => list.iter_owned().collect(),
        CreateSuccess::FilledBuffer => panic!("there is no buffer to fill"),
    };
    let header = create();
    assert_eq!(header.len(), 1);
    let lost = create().len() as u64;
    assert_eq!(reported(&bus), [("pause".to_owned(), 1)]);
    push_video(&stream, 40, &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41]);
    let next = create();
    assert!(next[0].flags().contains(gst::BufferFlags::DISCONT));
    assert_eq!(reported(&bus), [("pause".to_owned(), lost)]);
    let stats = imp.stats();
    assert_eq!(stats.get("dropped-in-pause"), Ok(1 + lost));
    let process: gst::Structure = stats.get("process").unwrap();
    assert!(process.get::<u64>("dropped").unwrap() > lost);
    element.set_state(gst::State::Null).unwrap();
}
