// SPDX-License-Identifier: MPL-2.0

//! The last decoded picture of a stream, which becomes a small JPEG when someone looks at it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;

/// Interval at which pictures are kept, and for which a JPEG is good.
const INTERVAL: Duration = Duration::from_secs(2);
const WIDTH: i32 = 320;
const CONVERSION_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(3);

#[derive(Debug, Default)]
pub struct LastPicture(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    picture: Option<gst::Sample>,
    /// Time of that picture.
    taken: Option<Instant>,
    /// The JPEG of an earlier or of this picture, and the time of that picture.
    jpeg: Option<(Instant, Bytes)>,
}

impl LastPicture {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a picture now and then. The pixels are not copied.
    pub fn offer(&self, buffer: &gst::Buffer, caps: &gst::Caps) {
        let now = Instant::now();
        let mut state = self.lock();
        let is_due = |taken: Instant| now.saturating_duration_since(taken) >= INTERVAL;
        if state.taken.is_none_or(is_due) {
            let sample = gst::Sample::builder().buffer(buffer).caps(caps);
            state.picture = Some(sample.build());
            state.taken = Some(now);
        }
    }

    /// Keeps pictures that pass a pad.
    pub fn watch(self: &std::sync::Arc<Self>, pad: &gst::Pad) {
        let picture = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) {
                picture.offer(buffer, &caps);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Forgets the picture of a stream that has ended.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    pub fn exists(&self) -> bool {
        self.lock().picture.is_some()
    }

    /// Returns the picture as a JPEG. Takes some milliseconds, so no thread that serves others may
    /// call it.
    pub fn jpeg(&self) -> Option<Bytes> {
        let state = self.lock();
        let (sample, taken) = (state.picture.clone()?, state.taken?);
        if let Some((time, jpeg)) = &state.jpeg
            && *time == taken
        {
            return Some(jpeg.clone());
        }
        drop(state);
        let jpeg = encode(&sample)?;
        self.lock().jpeg = Some((taken, jpeg.clone()));
        Some(jpeg)
    }
}

fn encode(sample: &gst::Sample) -> Option<Bytes> {
    let structure = sample.caps()?.structure(0)?;
    let (width, height): (i32, i32) = (structure.get("width").ok()?, structure.get("height").ok()?);
    // Even sizes, which all formats have.
    let scaled = (i64::from(WIDTH) * i64::from(height) / i64::from(width.max(1))) & !1;
    let height = i32::try_from(scaled.clamp(2, 4 * i64::from(WIDTH))).ok()?;
    let caps = gst::Caps::builder("image/jpeg")
        .field("width", WIDTH)
        .field("height", height)
        .build();
    let jpeg = gst_video::convert_sample(sample, &caps, Some(CONVERSION_TIMEOUT)).ok()?;
    let map = jpeg.buffer()?.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_small_jpegs_of_their_shape() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", 640)
            .field("height", 480)
            .field("framerate", gst::Fraction::new(25, 1))
            .build();
        let picture = LastPicture::default();
        assert!(!picture.exists() && picture.jpeg().is_none());
        let buffer = gst::Buffer::from_slice(vec![128_u8; 640 * 480 * 3 / 2]);
        picture.offer(&buffer, &caps);
        let jpeg = picture.jpeg().unwrap();
        // Start of image, and the size in its frame header.
        assert_eq!(jpeg[..2], [0xff, 0xd8]);
        let header = jpeg
            .windows(2)
            .position(|pair| pair == [0xff, 0xc0])
            .unwrap();
        assert_eq!(jpeg[header + 5..header + 9], [0, 240, 1, 64]);
        // The same picture is encoded once.
        assert_eq!(picture.jpeg().unwrap().as_ptr(), jpeg.as_ptr());
        picture.clear();
        assert!(!picture.exists() && picture.jpeg().is_none());
    }
}
