// SPDX-License-Identifier: MPL-2.0

//! Corrects what muxers write before it is in the file.

use std::ops::ControlFlow;
use std::sync::Arc;

use gst::prelude::*;
use parking_lot::Mutex;

use super::block_flags::{BlockFlags, KEYFRAME};
use super::fragments::FragmentTimes;
use super::location::Container;

/// Corrects the output of a muxer. Returns the times of tracks that MP4 needs for it.
pub(super) fn correct(
    container: Container,
    muxer: &gst::Element,
) -> Option<Arc<Mutex<FragmentTimes>>> {
    let pad = muxer.static_pad("src")?;
    match container {
        Container::Mp4 => return Some(correct_fragments(&pad)),
        Container::Matroska => correct_blocks(&pad),
        Container::MpegTs | Container::Flv => {}
    }
    None
}

fn correct_fragments(pad: &gst::Pad) -> Arc<Mutex<FragmentTimes>> {
    let fragments = Arc::new(Mutex::new(FragmentTimes::default()));
    let times = fragments.clone();
    on_buffers(pad, move |buffer| {
        let kind = buffer.map_readable().map_or(Kind::Other, |map| {
            if !FragmentTimes::concerns(&map) {
                Kind::Other
            } else if times.lock().is_misfit(&map) {
                Kind::Misfit
            } else {
                Kind::Boxes
            }
        });
        if matches!(kind, Kind::Boxes)
            && let Ok(mut map) = buffer.make_mut().map_writable()
        {
            times.lock().handle(&mut map);
        }
        !matches!(kind, Kind::Misfit)
    });
    fragments
}

/// Content of a buffer of MP4.
enum Kind {
    Boxes,
    /// A movie header that is not written.
    Misfit,
    Other,
}

fn correct_blocks(pad: &gst::Pad) {
    let flags = Arc::new(Mutex::new(BlockFlags::default()));
    let after_seek = flags.clone();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info
            .event()
            .is_some_and(|event| event.type_() == gst::EventType::Segment)
        {
            after_seek.lock().seek();
        }
        gst::PadProbeReturn::Ok
    });
    on_buffers(pad, move |buffer| {
        let found = buffer
            .map_readable()
            .ok()
            .and_then(|map| flags.lock().handle(&map));
        if let Some(at) = found
            && let Ok(mut map) = buffer.make_mut().map_writable()
        {
            map[at] |= KEYFRAME;
        }
        true
    });
}

/// Calls a function with each buffer of a pad. It returns whether the buffer is written.
fn on_buffers(pad: &gst::Pad, handle: impl Fn(&mut gst::Buffer) -> bool + Send + Sync + 'static) {
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(kinds, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let is_written = handle(buffer);
            return if is_written {
                gst::PadProbeReturn::Ok
            } else {
                gst::PadProbeReturn::Drop
            };
        }
        if let Some(gst::PadProbeData::BufferList(list)) = &mut info.data {
            list.make_mut().foreach_mut(|mut buffer, _| {
                ControlFlow::Continue(handle(&mut buffer).then_some(buffer))
            });
        }
        gst::PadProbeReturn::Ok
    });
}
