// SPDX-License-Identifier: MPL-2.0

//! Encoders, set up for what all segments are to be.

use gst::prelude::*;
use gst_app::AppSrc;

use crate::segmenter::FRAMES;

/// Bits of a pixel, in thousandths, and what the whole may be, in kbit/s.
const BITS: u32 = 100;
const MIN_BITRATE: u32 = 150;
const MAX_BITRATE: u32 = 8000;

/// The first of them that is installed, with its properties.
const AAC: [&str; 3] = [
    "fdkaacenc bitrate=128000",
    "avenc_aac bitrate=128000",
    "voaacenc bitrate=128000",
];

/// Raw pictures of these caps, 30 a second -> H.264 baseline in Annex B: one IDR picture in 60, each behind
/// its parameter sets, and no picture that is kept back.
pub fn video(caps: &gst::Caps) -> Result<(AppSrc, gst::Bin), String> {
    let mut caps = caps.clone();
    caps.make_mut().set("framerate", gst::Fraction::new(30, 1));
    let length = |field| {
        let structure = caps.structure(0);
        let length = structure.and_then(|structure| structure.get::<i32>(field).ok());
        length.and_then(|length| u32::try_from(length).ok())
    };
    let (width, height) = length("width")
        .zip(length("height"))
        .ok_or("pictures without a size")?;
    let bits = u64::from(width) * u64::from(height) * 30 * u64::from(BITS) / 1_000_000;
    let bitrate = bits.clamp(u64::from(MIN_BITRATE), u64::from(MAX_BITRATE));
    start(
        &caps,
        &format!(
            "x264enc speed-preset=veryfast tune=zerolatency bitrate={bitrate} bframes=0 key-int-max={FRAMES} \
             option-string=scenecut=0:min-keyint={FRAMES}:open-gop=0 \
             ! video/x-h264,profile=constrained-baseline ! h264parse config-interval=-1 \
             ! video/x-h264,stream-format=byte-stream,alignment=au"
        ),
    )
}

/// Samples of 16 bits, 48,000 a second in two channels -> AAC with ADTS headers.
pub fn audio() -> Result<(AppSrc, gst::Bin), String> {
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("rate", 48_000)
        .field("channels", 2)
        .field("layout", "interleaved")
        .build();
    let is_there = |encoder: &&&str| {
        let name = encoder.split(' ').next().unwrap_or_default();
        gst::ElementFactory::find(name).is_some()
    };
    let encoder = AAC.iter().find(is_there).ok_or(
        "no encoder of AAC is installed: avenc_aac is in gstreamer1.0-libav, voaacenc in \
         gstreamer1.0-plugins-bad",
    )?;
    start(
        &caps,
        &format!(
            "audioconvert ! {encoder} ! aacparse ! audio/mpeg,mpegversion=4,stream-format=adts"
        ),
    )
}

/// An encoder between a source that makes who pushes wait, and a sink.
fn start(caps: &gst::Caps, encoder: &str) -> Result<(AppSrc, gst::Bin), String> {
    let description = format!(
        "appsrc name=source format=time block=true max-buffers=30 max-bytes=0 max-time=0 ! {encoder} \
         ! appsink name=sink sync=false async=false max-buffers=1"
    );
    let bin = gst::parse::bin_from_description(&description, false);
    let bin = bin.map_err(|error| error.to_string())?;
    let source = bin.by_name("source").and_downcast::<AppSrc>();
    let source = source.ok_or("an encoder without a source")?;
    source.set_caps(Some(caps));
    Ok((source, bin))
}
