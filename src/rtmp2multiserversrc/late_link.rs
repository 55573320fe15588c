// SPDX-License-Identifier: MPL-2.0

//! Drops the output of unlinked pads. A pad linked later starts with the stream headers and a
//! keyframe.

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// The link state of one pad.
#[derive(Debug, Default)]
pub(super) struct LateLink {
    /// The next buffer does not continue what the present peer has got.
    is_missing: bool,
    /// A buffer has left.
    has_begun: bool,
    /// The peer that has accepted the last buffer.
    peer: glib::WeakRef<gst::Pad>,
}

/// Treatment of a buffer.
enum Action {
    Pass,
    /// Pass after these headers.
    PassAfter(Vec<gst::Buffer>),
    Drop,
}

/// The pad of a stream, and its functions that push downstream and report dropped tags.
pub(super) struct Output<'a> {
    pub(super) ghost: &'a gst::Pad,
    pub(super) chain: &'a dyn Fn(gst::Buffer) -> Flow,
    pub(super) chain_list: &'a dyn Fn(gst::BufferList) -> Flow,
    pub(super) report_dropped: &'a dyn Fn(gst::FlowError, u64, Option<gst::ClockTime>),
}

impl LateLink {
    /// Looks for another peer than the one before, which has got nothing of the stream: also one
    /// that was linked between two buffers.
    fn check_peer(&mut self, ghost: &gst::Pad) -> Option<gst::Pad> {
        let peer = ghost.peer();
        if self.has_begun && peer.is_some() && self.peer.upgrade() != peer {
            self.is_missing = true;
        }
        peer
    }

    fn action(&self, ghost: &gst::Pad, peer: Option<&gst::Pad>, buffer: &gst::BufferRef) -> Action {
        if !self.is_missing {
            return Action::Pass;
        }
        let Some(peer) = peer else {
            return Action::Drop;
        };
        let cannot_start = gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER;
        if buffer.flags().intersects(cannot_start) {
            return Action::Drop;
        }
        let mut headers = headers(ghost, buffer);
        // No stream has a second file header.
        if self.peer.upgrade().as_ref() == Some(peer) && !headers.is_empty() {
            headers.remove(0);
        }
        Action::PassAfter(headers)
    }

    fn update(&mut self, peer: Option<&gst::Pad>, flow: Flow) {
        match flow {
            Ok(_) => {
                if self.is_missing || !self.has_begun {
                    self.peer.set(peer);
                }
                self.is_missing = false;
                self.has_begun = true;
            }
            Err(gst::FlowError::NotLinked) => self.is_missing = true,
            Err(_) => {}
        }
    }
}

/// Pushes a buffer to the peer. The lock belongs to the streaming thread alone.
pub(super) fn push(late: &Mutex<LateLink>, output: &Output<'_>, mut buffer: gst::Buffer) -> Flow {
    let mut late = late.lock();
    let peer = late.check_peer(output.ghost);
    let time = buffer.dts();
    let flow = match late.action(output.ghost, peer.as_ref(), &buffer) {
        Action::Drop => {
            (output.report_dropped)(gst::FlowError::NotLinked, 1, time);
            return Ok(gst::FlowSuccess::Ok);
        }
        Action::Pass => (output.chain)(buffer),
        Action::PassAfter(headers) => {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            let buffers = headers.into_iter().chain([buffer]);
            let mut flows = buffers.map(output.chain);
            flows.try_fold(gst::FlowSuccess::Ok, |_, flow| flow)
        }
    };
    if let Err(error) = flow {
        (output.report_dropped)(error, 1, time);
    }
    late.update(peer.as_ref(), flow);
    flow
}

/// Pushes a list of buffers. Most lists pass unchanged.
pub(super) fn push_list(
    late: &Mutex<LateLink>,
    output: &Output<'_>,
    list: gst::BufferList,
) -> Flow {
    let mut state = late.lock();
    let peer = state.check_peer(output.ghost);
    if !state.is_missing {
        let count = list.len() as u64;
        let time = list.get(0).and_then(|buffer| buffer.dts());
        let flow = (output.chain_list)(list);
        // The elements downstream may have used some of them.
        if let Err(error) = flow {
            (output.report_dropped)(error, count, time);
        }
        state.update(peer.as_ref(), flow);
        return flow;
    }
    drop(state);
    let mut rest = list.len() as u64;
    for buffer in list.iter_owned() {
        rest -= 1;
        if let Err(error) = push(late, output, buffer) {
            (output.report_dropped)(error, rest, None);
            return Err(error);
        }
    }
    Ok(gst::FlowSuccess::Ok)
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
