// SPDX-License-Identifier: MPL-2.0

//! What comes out of a pad that is not linked is thrown away. Whoever is linked to it later gets the headers of the
//! stream first, and then what decoding can start with.

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// Of one pad.
#[derive(Debug, Default)]
pub(super) struct LateLink {
    /// Something was thrown away since the last buffer that somebody has taken.
    is_missing: bool,
    /// Who has taken that.
    point: glib::WeakRef<gst::Pad>,
}

/// What is to be done with a buffer.
enum Action {
    Pass,
    /// Behind these.
    PassBehind(Vec<gst::Buffer>),
    ThrowAway,
}

impl LateLink {
    fn fate(&self, ghost: &gst::Pad, buffer: &gst::BufferRef) -> Action {
        if !self.is_missing {
            return Action::Pass;
        }
        let Some(peer) = ghost.peer() else {
            return Action::ThrowAway;
        };
        let cannot_start = gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER;
        if buffer.flags().intersects(cannot_start) {
            return Action::ThrowAway;
        }
        let mut headers = headers(ghost, buffer);
        // No stream has a second file header.
        if self.point.upgrade().as_ref() == Some(&peer) && !headers.is_empty() {
            headers.remove(0);
        }
        Action::PassBehind(headers)
    }

    fn note(&mut self, ghost: &gst::Pad, flow: Flow) {
        match flow {
            Ok(_) if self.is_missing || self.point.upgrade().is_none() => {
                self.is_missing = false;
                self.point.set(ghost.peer().as_ref());
            }
            Err(gst::FlowError::NotLinked) => self.is_missing = true,
            _ => {}
        }
    }
}

/// Gives a buffer to whoever is linked, by `chain`. The lock is of the streaming thread alone.
pub(super) fn push(
    late: &Mutex<LateLink>,
    ghost: &gst::Pad,
    mut buffer: gst::Buffer,
    chain: &dyn Fn(gst::Buffer) -> Flow,
) -> Flow {
    let mut late = late.lock();
    let flow = match late.fate(ghost, &buffer) {
        Action::ThrowAway => return Ok(gst::FlowSuccess::Ok),
        Action::Pass => chain(buffer),
        Action::PassBehind(headers) => {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            let buffers = headers.into_iter().chain([buffer]);
            let mut flows = buffers.map(chain);
            flows.try_fold(gst::FlowSuccess::Ok, |_, flow| flow)
        }
    };
    late.note(ghost, flow);
    flow
}

/// The same with several. Most lists pass as they are.
pub(super) fn push_list(
    late: &Mutex<LateLink>,
    ghost: &gst::Pad,
    list: gst::BufferList,
    chain: &dyn Fn(gst::Buffer) -> Flow,
    chain_list: &dyn Fn(gst::BufferList) -> Flow,
) -> Flow {
    let mut present = late.lock();
    if !present.is_missing {
        let flow = chain_list(list);
        present.note(ghost, flow);
        return flow;
    }
    drop(present);
    let mut flows = list.iter_owned().map(|b| push(late, ghost, b, chain));
    flows.try_fold(gst::FlowSuccess::Ok, |_, flow| flow)
}

/// What a stream begins with, at the time of this buffer.
fn headers(ghost: &gst::Pad, buffer: &gst::BufferRef) -> Vec<gst::Buffer> {
    let caps = ghost.current_caps();
    let structure = caps.as_ref().and_then(|caps| caps.structure(0));
    let headers = structure.and_then(|caps| caps.get::<gst::Array>("streamheader").ok());
    let headers = headers.iter().flat_map(|headers| headers.iter());
    let at_its_time = |header: &glib::SendValue| {
        let mut header: gst::Buffer = header.get().ok()?;
        let copy = header.make_mut();
        copy.set_dts(buffer.dts());
        copy.set_pts(buffer.dts_or_pts());
        Some(header)
    };
    headers.filter_map(at_its_time).collect()
}
