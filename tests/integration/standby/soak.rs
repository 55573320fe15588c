// SPDX-License-Identifier: MPL-2.0

//! A publisher that is cut at random, beside standby: what leaves has no hole, decodes, and does not
//! end, and memory stays level. A short run is part of the tests; the environment variable says how
//! long another one takes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use support::resources::memory;

/// The environment variable with the duration in seconds.
const SECONDS: &str = "RTMP2SERVER_TEST_STANDBY_SOAK_SECONDS";
const SHORT: u64 = 12;

/// Rounds after which everything that is created once exists, in a short run and in a long one.
const WARM_UP: usize = 5;
const LONG_WARM_UP: usize = 50;

/// Growth that the allocator may cause, in kB: decoders and pools fill up in a short run.
const MAX_GROWTH: u64 = 32 * 1024;
const LONG_MAX_GROWTH: u64 = 8 * 1024;

/// Largest steps of decoding times that a pad has seen, without keeping them.
#[derive(Debug, Default)]
struct Steps {
    last: AtomicU64,
    largest: AtomicU64,
    frames: AtomicU64,
    back: AtomicU64,
}

impl Steps {
    fn note(&self, time: u64) {
        let last = self.last.swap(time, Ordering::SeqCst);
        if self.frames.fetch_add(1, Ordering::SeqCst) == 0 {
            return;
        }
        match time.checked_sub(last) {
            Some(step) => self.largest.fetch_max(step, Ordering::SeqCst),
            None => self.back.fetch_add(1, Ordering::SeqCst),
        };
    }

    fn watch(pipeline: &gst::Pipeline, element: &str) -> Arc<Steps> {
        let steps: Arc<Steps> = Arc::default();
        let noted = steps.clone();
        let element = pipeline.by_name(element).unwrap();
        let pad = element.static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                noted.note(buffer.dts_or_pts().unwrap().nseconds());
            }
            gst::PadProbeReturn::Ok
        });
        steps
    }
}

#[test]
fn random_cuts_leave_no_hole_and_no_memory() {
    support::init();
    let seconds = std::env::var(SECONDS)
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds = seconds.unwrap_or(SHORT);
    let text = format!(
        "rtmp2serversrc name=src port=0 resume-timeout=300 {} ! eflvdemux name=d \
         d.video_0 ! queue name=coded ! h264parse ! avdec_h264 ! fakesink name=shown sync=true \
         max-lateness=5000000000 \
         d.audio_0 ! queue ! aacparse ! avdec_aac ! fakesink name=heard sync=true \
         max-lateness=5000000000",
        of_file(200)
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let element = pipeline.by_name("src").unwrap();
    let coded = Steps::watch(&pipeline, "coded");
    let shown = Steps::watch(&pipeline, "shown");
    let heard = Steps::watch(&pipeline, "heard");
    pipeline.set_state(gst::State::Playing).unwrap();
    let port = element.property::<u32>("current-port") as u16;
    let bus = pipeline.bus().unwrap();
    let tags = flv::read_file(&small(60));
    let mut random = fastrand::Rng::with_seed(14);
    let begun = Instant::now();
    let (warm_up, max_growth) = match seconds {
        ..=SHORT => (WARM_UP, MAX_GROWTH),
        _ => (LONG_WARM_UP, LONG_MAX_GROWTH),
    };
    let (mut level, mut round) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) || round <= warm_up {
        round += 1;
        let mut client = RawClient::publish(port, "live", "key");
        let length = random.u32(200..2500);
        let start = Instant::now();
        for tag in tags.iter().take_while(|tag| tag.timestamp < length) {
            let due = Duration::from_millis(tag.timestamp.into());
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            client.send(&bytes(std::slice::from_ref(tag)));
        }
        // It is cut, leaves, or falls silent for a while before it is cut.
        match random.u8(..3) {
            0 => unpublish(client),
            1 => {
                std::thread::sleep(Duration::from_millis(random.u64(100..1500)));
                drop(client);
            }
            _ => drop(client),
        }
        std::thread::sleep(Duration::from_millis(random.u64(..900)));
        let kinds = [
            gst::MessageType::Error,
            gst::MessageType::Warning,
            gst::MessageType::Eos,
        ];
        while let Some(message) = bus.pop() {
            assert!(!kinds.contains(&message.type_()), "{message:?}");
        }
        if round == warm_up {
            level = memory();
        }
        let growth = memory().saturating_sub(level);
        if round % 20 == 0 {
            println!("{round} publishers, {} kB", memory());
        }
        assert!(level == 0 || growth < max_growth, "{growth} kB in {round}");
    }
    let growth = memory().saturating_sub(level);
    for (name, steps, most) in [
        ("coded", &coded, HOLE),
        ("shown", &shown, HOLE),
        // Audio of 48 kHz continues after its last frame, in whole milliseconds.
        ("heard", &heard, 30_000_000),
    ] {
        println!("{name}: {steps:?}");
        assert_eq!(steps.back.load(Ordering::SeqCst), 0, "{name}");
        let largest = steps.largest.load(Ordering::SeqCst);
        assert!(largest <= most, "{name}: {largest}");
        // It goes on to the end.
        let frames = steps.frames.load(Ordering::SeqCst);
        let least = begun.elapsed().as_secs().saturating_sub(4) * 25;
        assert!(frames >= least, "{name}: {frames} of {least}");
    }
    println!("{round} publishers, growth {growth} kB of {level} kB");
    pipeline.set_state(gst::State::Null).unwrap();
}
