// SPDX-License-Identifier: MPL-2.0

//! Drops the output of unlinked pads. A pad linked later starts with the stream headers and a keyframe.

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// The link state of one pad.
#[derive(Debug, Default)]
pub(super) struct LateLink {
    /// Buffers were dropped since the last one that a peer has accepted.
    is_missing: bool,
    /// The peer that has accepted the first buffer after the last gap.
    peer: glib::WeakRef<gst::Pad>,
}

/// Treatment of a buffer.
enum Action {
    Pass,
    /// Pass after these headers.
    PassAfter(Vec<gst::Buffer>),
    Drop,
}

impl LateLink {
    fn action(&self, ghost: &gst::Pad, buffer: &gst::BufferRef) -> Action {
        if !self.is_missing {
            return Action::Pass;
        }
        let Some(peer) = ghost.peer() else {
            return Action::Drop;
        };
        let cannot_start = gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER;
        if buffer.flags().intersects(cannot_start) {
            return Action::Drop;
        }
        let mut headers = headers(ghost, buffer);
        // No stream has a second file header.
        if self.peer.upgrade().as_ref() == Some(&peer) && !headers.is_empty() {
            headers.remove(0);
        }
        Action::PassAfter(headers)
    }

    fn update(&mut self, ghost: &gst::Pad, flow: Flow) {
        match flow {
            Ok(_) if self.is_missing || self.peer.upgrade().is_none() => {
                self.is_missing = false;
                self.peer.set(ghost.peer().as_ref());
            }
            Err(gst::FlowError::NotLinked) => self.is_missing = true,
            _ => {}
        }
    }
}

/// Pushes a buffer to the peer, by `chain`. The lock belongs to the streaming thread alone.
pub(super) fn push(
    late: &Mutex<LateLink>,
    ghost: &gst::Pad,
    mut buffer: gst::Buffer,
    chain: &dyn Fn(gst::Buffer) -> Flow,
) -> Flow {
    let mut late = late.lock();
    let flow = match late.action(ghost, &buffer) {
        Action::Drop => return Ok(gst::FlowSuccess::Ok),
        Action::Pass => chain(buffer),
        Action::PassAfter(headers) => {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            let buffers = headers.into_iter().chain([buffer]);
            let mut flows = buffers.map(chain);
            flows.try_fold(gst::FlowSuccess::Ok, |_, flow| flow)
        }
    };
    late.update(ghost, flow);
    flow
}

/// Pushes a list of buffers. Most lists pass unchanged.
pub(super) fn push_list(
    late: &Mutex<LateLink>,
    ghost: &gst::Pad,
    list: gst::BufferList,
    chain: &dyn Fn(gst::Buffer) -> Flow,
    chain_list: &dyn Fn(gst::BufferList) -> Flow,
) -> Flow {
    let mut state = late.lock();
    if !state.is_missing {
        let flow = chain_list(list);
        state.update(ghost, flow);
        return flow;
    }
    drop(state);
    let mut flows = list
        .iter_owned()
        .map(|buffer| push(late, ghost, buffer, chain));
    flows.try_fold(gst::FlowSuccess::Ok, |_, flow| flow)
}

/// Returns the headers of the stream, with the time of this buffer.
fn headers(ghost: &gst::Pad, buffer: &gst::BufferRef) -> Vec<gst::Buffer> {
    let caps = ghost.current_caps();
    let structure = caps.as_ref().and_then(|caps| caps.structure(0));
    let headers = structure.and_then(|caps| caps.get::<gst::Array>("streamheader").ok());
    let headers = headers.iter().flat_map(|headers| headers.iter());
    let with_time = |header: &glib::SendValue| {
        let mut header: gst::Buffer = header.get().ok()?;
        let copy = header.make_mut();
        copy.set_dts(buffer.dts());
        copy.set_pts(buffer.dts_or_pts());
        Some(header)
    };
    headers.filter_map(with_time).collect()
}
