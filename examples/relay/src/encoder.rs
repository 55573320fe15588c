// SPDX-License-Identifier: MPL-2.0

//! Encoders, set up for the common format of all segments.

use gst::prelude::*;
use gst_app::AppSrc;

use crate::segmenter::FRAMES;

/// Pictures and pieces of sound that wait for their encoder. A thread that brings more waits too.
const MAX_WAITING: u32 = 15;

/// Bits per pixel, in thousandths, and the limits of the bit rate, in kbit/s.
const BITS: u32 = 100;
const MIN_BITRATE: u32 = 150;
const MAX_BITRATE: u32 = 8000;

/// The first installed encoder is used. The number is the samples that it puts before its input: it
/// stamps them as if they came first, which would delay the sound by as much.
const AAC: [(&str, i64); 2] = [("avenc_aac", 1024), ("voaacenc", 0)];

/// Encodes raw pictures of these caps, 30 per second, as H.264 baseline in Annex B: every 60th
/// picture is an IDR picture after its parameter sets, and no picture is kept back.
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

/// Encodes samples of 16 bits, 48,000 per second in two channels, as AAC with ADTS headers. Also
/// returns the delay in samples.
pub fn audio() -> Result<(AppSrc, gst::Bin, i64), String> {
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("rate", 48_000)
        .field("channels", 2)
        .field("layout", "interleaved")
        .build();
    let mut encoders = AAC.into_iter();
    let (encoder, late) = encoders
        .find(|(encoder, _)| gst::ElementFactory::find(encoder).is_some())
        .ok_or(
            "no encoder of AAC is installed: avenc_aac is in gstreamer1.0-libav, voaacenc in \
             gstreamer1.0-plugins-bad",
        )?;
    let description = format!(
        "audioconvert ! {encoder} bitrate=128000 ! aacparse ! audio/mpeg,mpegversion=4,stream-format=adts"
    );
    let (source, bin) = start(&caps, &description)?;
    Ok((source, bin, late))
}

/// Puts an encoder between a source that blocks its pusher and a sink.
fn start(caps: &gst::Caps, encoder: &str) -> Result<(AppSrc, gst::Bin), String> {
    let description = format!(
        "appsrc name=source format=time block=true max-buffers={MAX_WAITING} max-bytes=0 max-time=0 ! {encoder} \
         ! appsink name=sink sync=false async=false max-buffers=1"
    );
    let bin = gst::parse::bin_from_description(&description, false);
    let bin = bin.map_err(|error| error.to_string())?;
    let source = bin.by_name("source").and_downcast::<AppSrc>();
    let source = source.ok_or("an encoder without a source")?;
    source.set_caps(Some(caps));
    Ok((source, bin))
}
