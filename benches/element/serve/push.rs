// SPDX-License-Identifier: MPL-2.0
//! Sinks fed with media in real time from one thread, one buffer a tag, as flvmux makes them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gst::prelude::*;

use crate::media::{self, GOP, SENT_ON};

pub(super) struct Sink {
    pipeline: gst::Pipeline,
    element: gst::Element,
    pad: gst::Pad,
}

impl Sink {
    /// Pushes a copy of these bytes.
    pub(super) fn push(&self, bytes: &[u8]) {
        let _ = self.pad.push(gst::Buffer::from_slice(bytes.to_vec()));
    }
}

pub fn run(count: usize, sink: &str) -> Result<()> {
    crate::subject::init_gstreamer()?;
    let sinks = (0..count).map(|number| start(&sink.replace("{n}", &number.to_string())));
    let sinks = Arc::new(sinks.collect::<Result<Vec<_>>>()?);
    let (stop, lateness) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let feeder = {
        let (sinks, stop, lateness) = (sinks.clone(), stop.clone(), lateness.clone());
        thread::spawn(move || feed(&sinks, &stop, &lateness))
    };
    println!("ready");
    super::wait_for_end_of_input(|_| {
        let complete = sinks.iter().all(|sink| takes_all(&sink.element));
        println!("state {} {complete}", lateness.load(Ordering::Relaxed));
    });
    stop.store(true, Ordering::Relaxed);
    for sink in sinks.iter() {
        sink.pipeline.set_state(gst::State::Null)?;
    }
    let _ = feeder.join();
    Ok(())
}

/// Starts a pipeline of a sink, and of a pad that feeds it.
pub(super) fn start(sink: &str) -> Result<Sink> {
    let text = format!("{sink} name=sink sync=false async=false");
    let bin = gst::parse::bin_from_description(&text, false)?;
    let element = bin.by_name("sink").context("no sink")?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&bin)?;
    let pad = gst::Pad::builder(gst::PadDirection::Src)
        .name("src")
        .build();
    pad.set_active(true)?;
    pad.link(&element.static_pad("sink").context("no sink pad")?)?;
    pipeline.set_state(gst::State::Playing)?;
    pad.push_event(gst::event::StreamStart::new("bench"));
    let caps = gst::Caps::new_empty_simple("video/x-flv");
    pad.push_event(gst::event::Caps::new(&caps));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    pad.push_event(gst::event::Segment::new(&segment));
    Ok(Sink {
        pipeline,
        element,
        pad,
    })
}

/// Returns true unless the sink reports dropped data.
fn takes_all(sink: &gst::Element) -> bool {
    let stats = sink.property::<gst::Structure>("stats");
    stats.get::<u64>("tags-dropped").unwrap_or_default() == 0
}

fn feed(sinks: &[Sink], stop: &AtomicBool, lateness: &AtomicU64) {
    let (headers, gop) = (media::sequence_headers(SENT_ON), media::gop(SENT_ON));
    for sink in sinks {
        for (kind, body) in &headers {
            let _ = sink.pad.push(tag(*kind, 0, body));
        }
    }
    let (start, count) = (Instant::now(), sinks.len() as u32);
    // Keyframes of different streams do not coincide.
    let first = |number: u32| Reverse((GOP * number / count, number, 0));
    let mut queue: BinaryHeap<_> = (0..count).map(first).collect();
    while let Some(Reverse((due, number, index))) = queue.pop() {
        let now = start.elapsed();
        let at = Duration::from_millis(due.into());
        match at.checked_sub(now) {
            Some(early) => thread::sleep(early),
            None => {
                let late = (now - at).as_millis() as u64;
                lateness.fetch_max(late, Ordering::Relaxed);
            }
        }
        let (_, kind, body) = &gop[index];
        let pushed = sinks[number as usize].pad.push(tag(*kind, due, body));
        if pushed.is_err() || stop.load(Ordering::Relaxed) {
            return;
        }
        let next = (index + 1) % gop.len();
        let step = match next {
            0 => GOP - gop[index].0,
            _ => gop[next].0 - gop[index].0,
        };
        queue.push(Reverse((due + step, number, next)));
    }
}

fn tag(kind: u8, timestamp: u32, body: &[u8]) -> gst::Buffer {
    let length = (body.len() as u32).to_be_bytes();
    let [high, a, b, c] = timestamp.to_be_bytes();
    let mut bytes = Vec::with_capacity(body.len() + 15);
    bytes.extend([
        kind, length[1], length[2], length[3], a, b, c, high, 0, 0, 0,
    ]);
    bytes.extend(body);
    bytes.extend((body.len() as u32 + 11).to_be_bytes());
    gst::Buffer::from_mut_slice(bytes)
}
