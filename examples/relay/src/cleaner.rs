// SPDX-License-Identifier: MPL-2.0

//! The pipeline that cleans a stream: it decodes the stream, converts its frame rate, and encodes
//! it again.
//!
//! ```text
//! appsrc -> eflvdemux -+-> decoder -> deinterlace, scale -> appsink -+           +-> appsrc -> x264enc -> h264parse -> appsink -+
//!                      |                                            +-> FrameRateConverter +                                              +-> Packager
//!                      +-> decoder -> convert, resample -> appsink -+           +-> appsrc -> AAC -> aacparse -------> appsink -+
//! ```
//!
//! Everything up to the frame-rate converter runs on one thread, so that the output does not depend
//! on whether pictures or sound are decoded faster. Each stream has a pipeline of its own: a
//! failure in it is an outcome in the mailbox of that stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::journal;
use dashboard::thumbnail::LastPicture;
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks, AppSrc, AppSrcCallbacks};

use crate::encoder;
use crate::frame_rate::{
    Converted, FrameCounts, FrameRateConverter, PICTURES, RATE, SECOND, convert,
};
use crate::mailbox::{Mailbox, RunOutcome};
use crate::packager::Packager;
use crate::segmenter::{AccessUnit, FRAME};
use crate::ts::CLOCK;

/// Media that may wait before the demuxer.
const MAX_WAITING: gst::ClockTime = gst::ClockTime::from_mseconds(500);
const MAX_WAITING_BYTES: u64 = 1 << 20;

/// Time that the rest of a run may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30);

const VIDEO: &str = "deinterlace ! videoconvert ! videoscale \
    ! video/x-raw,format=I420,width=(int)[2,8192,2],height=(int)[2,8192,2],interlace-mode=progressive \
    ! appsink name=sink sync=false async=false max-buffers=1";
const AUDIO: &str = "audioconvert ! audioresample \
    ! audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved \
    ! appsink name=sink sync=false async=false max-buffers=1";
const NOTHING: &str = "fakesink sync=false async=false";

#[derive(Debug)]
pub struct Cleaner {
    pipeline: gst::Pipeline,
    source: AppSrc,
    core: Arc<CleanerCore>,
}

/// State that the threads of the pipeline share.
#[derive(Debug)]
struct CleanerCore {
    stream: String,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    mailbox: Arc<Mailbox>,
    packager: Arc<Mutex<Packager>>,
    picture: Arc<LastPicture>,
    /// Locked before the packager.
    state: Mutex<CleanerState>,
    /// The sources of the encoders. Threads that push into them may be waiting for room.
    encoders: Mutex<Vec<AppSrc>>,
}

#[derive(Debug, Default)]
struct CleanerState {
    converter: FrameRateConverter<gst::Buffer>,
    counted: FrameCounts,
    /// Tracks that have not ended.
    tracks: usize,
    has_video: bool,
    has_audio: bool,
    picture_caps: Option<gst::Caps>,
    had_pressure: bool,
    pictures: Option<AppSrc>,
    sound: Option<AppSrc>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cleaner {
    pub fn start(
        stream: String,
        mailbox: Arc<Mailbox>,
        packager: Arc<Mutex<Packager>>,
    ) -> Result<Self, String> {
        mailbox.clear_outcome();
        lock(&packager).start_run(false);
        let picture = lock(&packager).last_picture();
        let pipeline = gst::Pipeline::new();
        let woken = mailbox.clone();
        let source = AppSrc::builder()
            .caps(&gst::Caps::new_empty_simple("video/x-flv"))
            .format(gst::Format::Time)
            // So that decoders do not keep frames back to decode several at a time.
            .is_live(true)
            .max_bytes(0)
            .min_percent(50)
            .callbacks(
                AppSrcCallbacks::builder()
                    .need_data(move |_, _| woken.wake())
                    .build(),
            )
            .build();
        let demuxer = make("eflvdemux")?;
        let core = Arc::new(CleanerCore {
            stream,
            pipeline: pipeline.downgrade(),
            mailbox,
            packager,
            picture,
            state: Mutex::default(),
            encoders: Mutex::default(),
        });
        let weak = Arc::downgrade(&core);
        demuxer.connect_pad_added(move |demuxer, pad| {
            if let Some(core) = weak.upgrade()
                && let Err(error) = core.add_track(pad)
            {
                gst::element_error!(demuxer, gst::CoreError::Failed, ("{error}"));
            }
        });
        let all = [source.upcast_ref(), &demuxer];
        let linked = pipeline
            .add_many(all)
            .and_then(|()| gst::Element::link_many(all));
        linked.map_err(|error| error.to_string())?;
        watch(&pipeline, &core.mailbox);
        let cleaner = Cleaner {
            pipeline,
            source,
            core,
        };
        match cleaner.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(cleaner),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn is_full(&self) -> bool {
        self.source.current_level_time() >= MAX_WAITING
            || self.source.current_level_bytes() >= MAX_WAITING_BYTES
    }

    /// Pushes a tag at its running time; `None` for a tag of the stream header that is sent again.
    pub fn push(&self, buffer: &gst::Buffer, time: Option<i64>) {
        let mut buffer = buffer.clone();
        let stamp = time.and_then(|time| u64::try_from(time).ok());
        let stamp = stamp.map(gst::ClockTime::from_nseconds);
        let writable = buffer.make_mut();
        // The demuxer computes the presentation time itself.
        writable.set_dts(stamp);
        writable.set_pts(stamp);
        // Where this fails, the outcome says why.
        let _ = self.source.push_buffer(buffer);
    }

    /// Waits until everything is encoded.
    pub fn finish(self) -> RunOutcome {
        let outcome = match self.source.end_of_stream() {
            Ok(_) => self.core.mailbox.wait_for_outcome(FINISH_TIMEOUT),
            Err(error) => Some(Err(error.to_string())),
        };
        let outcome = outcome.unwrap_or_else(|| Err("its rest takes too long to encode".into()));
        // Output that arrives after the timeout is lost.
        let packager = self.core.packager.clone();
        drop(self);
        lock(&packager).finish_run();
        outcome
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        // A decoder that waits for its encoder would block its own end.
        for encoder in lock(&self.core.encoders).drain(..) {
            let _ = encoder.set_state(gst::State::Null);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        self.core.mailbox.clear_outcome();
    }
}

fn make(factory: &str) -> Result<gst::Element, String> {
    let element = gst::ElementFactory::make(factory).build();
    element.map_err(|_| format!("there is no GStreamer element {factory}"))
}

/// Reports how the run ends. Handles all messages here, so that none stays on the bus.
fn watch(pipeline: &gst::Pipeline, mailbox: &Arc<Mailbox>) {
    let mailbox = mailbox.clone();
    let Some(bus) = pipeline.bus() else {
        return;
    };
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Eos(_) => mailbox.set_outcome(Ok(())),
            gst::MessageView::Error(error) => {
                let source = message.src().map(|source| source.name());
                let source = source.as_deref().unwrap_or("a pipeline");
                mailbox.set_outcome(Err(format!("{source}: {}", error.error())));
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
}

impl CleanerCore {
    /// Decodes the first video track and the first audio track.
    fn add_track(self: &Arc<Self>, pad: &gst::Pad) -> Result<(), String> {
        let pipeline = self.pipeline.upgrade().ok_or("the pipeline is gone")?;
        let caps = pad.current_caps().ok_or("a track without caps")?;
        let is_video = pad.name().starts_with("video");
        let decoder = decoder(&caps, is_video);
        if decoder.is_none() {
            let text = format!(
                "{}: a track is dropped, since no decoder is installed for {caps}",
                self.stream
            );
            journal::warning("no-decoder")
                .with("stream", self.stream.as_str())
                .say(text);
        }
        let mut state = lock(&self.state);
        let has = match is_video {
            true => &mut state.has_video,
            false => &mut state.has_audio,
        };
        let decoder = decoder.filter(|_| !*has);
        if decoder.is_some() {
            *has = true;
            state.tracks += 1;
            if is_video {
                state.converter.expect_pictures();
            }
        }
        drop(state);
        let description = match (&decoder, is_video) {
            (None, _) => NOTHING.to_owned(),
            (Some(decoder), true) => format!("{} ! {VIDEO}", decoder.name()),
            (Some(decoder), false) => format!("{} ! {AUDIO}", decoder.name()),
        };
        let bin = gst::parse::bin_from_description(&description, true);
        let bin = bin.map_err(|error| error.to_string())?;
        if let Some(sink) = bin.by_name("sink").and_downcast::<AppSink>() {
            self.receive(&sink, is_video);
        }
        let failed = |error: gst::glib::BoolError| error.to_string();
        pipeline.add(&bin).map_err(failed)?;
        bin.sync_state_with_parent().map_err(failed)?;
        let entry = bin.static_pad("sink").ok_or("a decoder without a pad")?;
        pad.link(&entry).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Accepts decoded frames.
    fn receive(self: &Arc<Self>, sink: &AppSink, is_video: bool) {
        let (weak, at_end) = (Arc::downgrade(self), Arc::downgrade(self));
        let callbacks = AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let core = weak.upgrade().ok_or(gst::FlowError::Flushing)?;
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let result = match is_video {
                    true => core.picture(&sample),
                    false => core.sound(&sample),
                };
                result.inspect_err(|error| {
                    if *error == gst::FlowError::Error {
                        gst::element_error!(sink, gst::CoreError::Failed, ("it cannot be encoded"));
                    }
                })?;
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                if let Some(core) = at_end.upgrade() {
                    core.track_ended();
                }
            });
        sink.set_callbacks(callbacks.build());
    }

    fn picture(self: &Arc<Self>, sample: &gst::Sample) -> Result<(), gst::FlowError> {
        let (Some(buffer), Some(time)) = (sample.buffer_owned(), running_time(sample)) else {
            return Ok(());
        };
        let caps = sample.caps_owned().ok_or(gst::FlowError::NotNegotiated)?;
        self.picture.offer(&buffer, &caps);
        let mut state = lock(&self.state);
        if state.picture_caps.as_ref() != Some(&caps) {
            if state.picture_caps.is_some() {
                // Another run encodes other pictures.
                self.mailbox.set_outcome(Ok(()));
                return Err(gst::FlowError::Eos);
            }
            state.pictures = Some(self.code_pictures(&caps)?);
            state.picture_caps = Some(caps);
        }
        let pressure = self.mailbox.has_pressure();
        if pressure && !std::mem::replace(&mut state.had_pressure, true) {
            let text = format!(
                "{}: pictures are dropped, since they come faster than they can be encoded, and the last one is repeated. \
                 This machine has too many streams, or pictures that are too large for it",
                self.stream
            );
            journal::warning("overload")
                .with("stream", self.stream.as_str())
                .say(text);
        }
        state.converter.picture(time, buffer, pressure);
        self.deliver(&mut state)
    }

    fn sound(self: &Arc<Self>, sample: &gst::Sample) -> Result<(), gst::FlowError> {
        let (Some(buffer), Some(time)) = (sample.buffer(), running_time(sample)) else {
            return Ok(());
        };
        let samples = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        let mut state = lock(&self.state);
        state.converter.sound(time, samples.to_vec());
        self.deliver(&mut state)
    }

    fn track_ended(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.tracks = state.tracks.saturating_sub(1);
        if state.tracks > 0 {
            return;
        }
        state.converter.finish();
        // A failure in here has already been reported.
        let _ = self.deliver(&mut state);
        for encoder in [&state.pictures, &state.sound].into_iter().flatten() {
            let _ = encoder.end_of_stream();
        }
    }

    /// Pushes frames to the encoders, waiting for room in them.
    fn deliver(self: &Arc<Self>, state: &mut CleanerState) -> Result<(), gst::FlowError> {
        for output in state.converter.take() {
            match output {
                Converted::Picture(mut buffer, place) => {
                    let Some(encoder) = &state.pictures else {
                        continue;
                    };
                    let at = |place| moment(place, PICTURES);
                    let picture = buffer.make_mut();
                    picture.set_pts(at(place));
                    picture.set_dts(gst::ClockTime::NONE);
                    picture.set_duration(at(place + 1) - at(place));
                    picture.unset_flags(gst::BufferFlags::DISCONT);
                    encoder.push_buffer(buffer)?;
                }
                Converted::Sound(samples, first) => {
                    let encoder = match &state.sound {
                        Some(encoder) => encoder,
                        None => state.sound.insert(self.code_sound()?),
                    };
                    let mut buffer = gst::Buffer::from_mut_slice(samples);
                    buffer.make_mut().set_pts(moment(first, RATE));
                    encoder.push_buffer(buffer)?;
                }
            }
        }
        self.count(state);
        Ok(())
    }

    fn count(&self, state: &mut CleanerState) {
        let now = state.converter.counts();
        let before = std::mem::replace(&mut state.counted, now);
        lock(&self.packager).count(|counts| {
            counts.frames_in += now.pictures_in - before.pictures_in;
            counts.frames_out += now.pictures_out - before.pictures_out;
            counts.frames_duplicated += now.duplicated - before.duplicated;
            counts.frames_dropped += now.dropped - before.dropped;
        });
    }

    fn code_pictures(&self, caps: &gst::Caps) -> Result<AppSrc, gst::FlowError> {
        let (source, bin) = encoder::video(caps).map_err(|error| self.failed(&error))?;
        lock(&self.packager).expect_pictures();
        let packager = self.packager.clone();
        self.code(source, bin, move |unit| {
            let mut unit = unit;
            // Nanoseconds are not exact.
            let frame = FRAME as i64;
            unit.time = (unit.time + frame / 2).div_euclid(frame) * frame;
            lock(&packager).picture(unit);
        })
    }

    fn code_sound(&self) -> Result<AppSrc, gst::FlowError> {
        let (source, bin, late) = encoder::audio().map_err(|error| self.failed(&error))?;
        lock(&self.packager).expect_sound();
        let packager = self.packager.clone();
        let late = late * CLOCK as i64 / RATE;
        self.code(source, bin, move |unit| {
            let time = unit.time - late;
            lock(&packager).sound(AccessUnit { time, ..unit });
        })
    }

    fn failed(&self, error: &str) -> gst::FlowError {
        self.mailbox.set_outcome(Err(error.to_owned()));
        gst::FlowError::Error
    }

    fn code(
        &self,
        source: AppSrc,
        bin: gst::Bin,
        take: impl Fn(AccessUnit) + Send + Sync + 'static,
    ) -> Result<AppSrc, gst::FlowError> {
        let pipeline = self.pipeline.upgrade().ok_or(gst::FlowError::Flushing)?;
        let sink = bin.by_name("sink").and_downcast::<AppSink>();
        let sink = sink.ok_or(gst::FlowError::Error)?;
        let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Some(unit) = unit(&sample) {
                take(unit);
            }
            Ok(gst::FlowSuccess::Ok)
        });
        sink.set_callbacks(callbacks.build());
        lock(&self.encoders).push(source.clone());
        let started = pipeline
            .add(&bin)
            .and_then(|()| bin.sync_state_with_parent());
        started.map_err(|error| self.failed(&error.to_string()))?;
        Ok(source)
    }
}

/// Returns the time of the picture or sample with this number, at `rate` of them per second.
fn moment(number: u64, rate: i64) -> gst::ClockTime {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let time = convert(number, SECOND, rate);
    gst::ClockTime::from_nseconds(u64::try_from(time).unwrap_or_default())
}

fn running_time(sample: &gst::Sample) -> Option<i64> {
    let time = sample.buffer()?.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let time = segment.to_running_time(time)?;
    i64::try_from(time.nseconds()).ok()
}

/// Returns a coded picture or piece of sound, at its time since the start of the run.
fn unit(sample: &gst::Sample) -> Option<AccessUnit> {
    let buffer = sample.buffer()?;
    Some(AccessUnit {
        time: convert(running_time(sample)?, CLOCK as i64, SECOND),
        is_idr: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        bytes: buffer.map_readable().ok()?.to_vec(),
    })
}

/// Returns the best installed decoder. The demuxer tells everything about a track that a parser
/// would find out, and decodebin would not be part of a live pipeline until its first frame, for
/// which its sink waits.
fn decoder(caps: &gst::Caps, is_video: bool) -> Option<gst::ElementFactory> {
    let media = match is_video {
        true => gst::ElementFactoryType::MEDIA_VIDEO,
        false => gst::ElementFactoryType::MEDIA_AUDIO,
    };
    let kind = gst::ElementFactoryType::DECODER | media;
    let factories = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    let fitting = factories
        .into_iter()
        .filter(|factory| factory.can_sink_all_caps(caps));
    fitting.max_by_key(|factory| factory.rank())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_after_ten_years() {
        let seconds = 10 * 366 * 86_400;
        for rate in [PICTURES, RATE] {
            let number = seconds * rate as u64;
            assert_eq!(moment(number, rate), gst::ClockTime::from_seconds(seconds));
        }
    }
}
