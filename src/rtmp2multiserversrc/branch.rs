// SPDX-License-Identifier: MPL-2.0

//! A branch of the bin: the source of one stream, and its pad.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use parking_lot::Mutex;

use super::late_link::{self, LateLink, Output};
use super::state_lock::StateLock;
use super::{CAT, Rtmp2MultiServerSrc, Rtmp2MultiServerSrcPad};
use crate::rtmp2serversrc::Rtmp2ServerSrc;
use crate::rtmp2serversrc::signals::pad_name;
use crate::server::{Dropped, Publisher, Stream, StreamClaim};

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) source: Rtmp2ServerSrc,
    pub(super) pad: Rtmp2MultiServerSrcPad,
    progress: Arc<Mutex<BranchProgress>>,
    state_lock: Arc<StateLock>,
}

#[derive(Debug, Default)]
struct BranchProgress {
    phase: BranchPhase,
    /// Probe that holds back the first media until the pad is added.
    barrier: Option<gst::PadProbeId>,
    /// The pad is removed, or about to be.
    pad_is_removed: bool,
}

/// Progress of the work on a branch. Starting the source and adding the pad take a while, since
/// handlers of the application run; the element may be stopped meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum BranchPhase {
    #[default]
    Idle,
    Busy,
    /// The thread that works on the branch has to close it.
    Abandoned,
}

impl Branch {
    pub(super) fn new(
        bin: &gst::Bin,
        state_lock: Arc<StateLock>,
        run: u64,
        claim: StreamClaim,
        publisher: Arc<Publisher>,
    ) -> Result<Self, glib::BoolError> {
        let number = claim.number();
        let stream = Arc::downgrade(claim.stream());
        let source: Rtmp2ServerSrc = glib::Object::builder()
            .property("name", format!("stream_{run}_{number}"))
            .build();
        source.imp().attach(claim);
        let pad = build_pad(bin, &pad_name(number), stream.clone())?;
        pad.imp().set_stream(source.clone(), publisher);
        let branch = Branch {
            source,
            pad,
            progress: Arc::default(),
            state_lock,
        };
        branch.progress.lock().barrier = branch.block_media(stream);
        Ok(branch)
    }

    /// Holds the first media back until the pad is added, and reports that there is media.
    fn block_media(&self, stream: Weak<Stream>) -> Option<gst::PadProbeId> {
        let is_reported = AtomicBool::new(false);
        let kinds =
            gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let source = self.source.static_pad("src")?;
        source.add_probe(kinds, move |_, _| {
            if !is_reported.swap(true, Ordering::Relaxed)
                && let Some(stream) = stream.upgrade()
            {
                stream.post_flowing();
            }
            gst::PadProbeReturn::Ok
        })
    }

    /// Adds the source to the bin, and starts it. The pad is added with the first media: until
    /// then, an element linked to it would keep the whole pipeline waiting.
    pub(super) fn open(&self, bin: &gst::Bin) {
        self.work(bin, || {
            // A bin unlinks an element that is added to it, so the pad gets its target after that. The
            // bin may change its state meanwhile: without a target the first media would be an error.
            self.lock_source_state();
            let opened = bin
                .add(&self.source)
                .and_then(|()| self.pad.set_target(self.source.static_pad("src").as_ref()))
                .and_then(|()| self.pad.set_active(true));
            if let Err(error) = opened {
                gst::error!(CAT, obj = bin, "{error}");
            }
            self.state_lock.hold(|| {
                if self.progress.lock().phase != BranchPhase::Abandoned {
                    self.source.set_locked_state(false);
                    let _ = self.source.sync_state_with_parent();
                }
            });
        });
    }

    /// Adds the pad, which the application may link, and then lets the first media pass.
    pub(super) fn add_pad(&self, bin: &gst::Bin) {
        self.work(bin, || {
            if let Err(error) = bin.add_pad(&self.pad) {
                gst::error!(CAT, obj = bin, "{error}");
            }
            let barrier = self.progress.lock().barrier.take();
            if let (Some(barrier), Some(source)) = (barrier, self.source.static_pad("src")) {
                source.remove_probe(barrier);
            }
        });
    }

    /// Does work that may run handlers of the application, unless the element was stopped.
    fn work(&self, bin: &gst::Bin, work: impl FnOnce()) {
        let mut progress = self.progress.lock();
        if progress.phase == BranchPhase::Abandoned {
            return;
        }
        progress.phase = BranchPhase::Busy;
        drop(progress);
        work();
        let mut progress = self.progress.lock();
        let is_abandoned = progress.phase == BranchPhase::Abandoned;
        if !is_abandoned {
            progress.phase = BranchPhase::Idle;
        }
        drop(progress);
        if is_abandoned {
            self.close(bin);
        }
    }

    /// Closes the branch, or makes the thread that works on it close it as soon as it is done.
    pub(super) fn abandon(&self, bin: &gst::Bin) {
        let mut progress = self.progress.lock();
        let before = std::mem::replace(&mut progress.phase, BranchPhase::Abandoned);
        drop(progress);
        match before {
            BranchPhase::Idle => self.close(bin),
            // A handler of the application may use the pad. Its name is free for the next.
            BranchPhase::Busy => {
                self.lock_source_state();
                self.remove_pad(bin);
            }
            BranchPhase::Abandoned => {}
        }
    }

    /// Begins the end of a branch on which no thread works. Returns false where one does, which closes
    /// it.
    pub(super) fn begin_close(&self) -> bool {
        let mut progress = self.progress.lock();
        let is_idle = progress.phase == BranchPhase::Idle;
        if is_idle {
            progress.phase = BranchPhase::Abandoned;
        }
        is_idle
    }

    pub(super) fn deactivate_pad(&self) {
        if self.pad.parent().is_some() {
            let _ = self.pad.set_active(false);
        }
    }

    /// Ends the streaming thread, and waits for that. What follows from it is left to
    /// [`Branch::close`], so that any thread may call this.
    pub(super) fn stop_streaming(&self) {
        self.source.imp().defer_stop();
        let _ = self.source.set_state(gst::State::Null);
    }

    /// Drops and reports what is left of the stream, after it has ended.
    pub(super) fn drop_rest(&self) {
        self.source.imp().drop_rest();
    }

    /// Stops the source, and removes source and pad. The streaming thread has ended, or ends with
    /// this.
    pub(super) fn close(&self, bin: &gst::Bin) {
        self.pad.imp().keep_stats();
        self.lock_source_state();
        let _ = self.source.set_state(gst::State::Null);
        self.source.imp().finish_stop();
        self.source.imp().detach();
        self.remove_pad(bin);
        let _ = bin.remove(&self.source);
    }

    /// Keeps the source's state, whatever the state of the bin becomes.
    pub(super) fn lock_source_state(&self) {
        self.state_lock.hold(|| {
            self.source.set_locked_state(true);
        });
    }

    /// Removes the pad, unless it is not added yet or removed already.
    fn remove_pad(&self, bin: &gst::Bin) {
        if self.pad.parent().is_none() {
            return;
        }
        let is_removed = std::mem::replace(&mut self.progress.lock().pad_is_removed, true);
        if !is_removed {
            let _ = self.pad.set_active(false);
            let _ = bin.remove_pad(&self.pad);
        }
    }
}

/// Builds the pad of a stream. Where it is not linked, or where an element downstream fails, that
/// affects no other stream.
fn build_pad(
    bin: &gst::Bin,
    name: &str,
    stream: Weak<Stream>,
) -> Result<Rtmp2MultiServerSrcPad, glib::BoolError> {
    let template = bin.pad_template("src_%u");
    let template = template.ok_or_else(|| glib::bool_error!("There is no template src_%u"))?;
    let late: Arc<Mutex<LateLink>> = Arc::default();
    let late_for_lists = late.clone();
    let report_dropped = report_function(bin, stream.clone());
    let report_dropped_lists = report_function(bin, stream.clone());
    let builder = gst::PadBuilder::<Rtmp2MultiServerSrcPad>::from_template(&template)
        .name(name)
        .proxy_pad_chain_function(move |pad, parent, buffer| {
            let chain = |buffer| gst::ProxyPad::chain_default(pad, parent, buffer);
            let chain_list = |list| gst::ProxyPad::chain_list_default(pad, parent, list);
            contain_failure(match ghost_pad(parent) {
                Some(ghost) => {
                    let output = Output {
                        ghost,
                        chain: &chain,
                        chain_list: &chain_list,
                        report_dropped: &report_dropped,
                    };
                    late_link::push(&late, &output, buffer)
                }
                None => chain(buffer),
            })
        })
        .proxy_pad_chain_list_function(move |pad, parent, list| {
            let chain = |buffer| gst::ProxyPad::chain_default(pad, parent, buffer);
            let chain_list = |list| gst::ProxyPad::chain_list_default(pad, parent, list);
            contain_failure(match ghost_pad(parent) {
                Some(ghost) => {
                    let output = Output {
                        ghost,
                        chain: &chain,
                        chain_list: &chain_list,
                        report_dropped: &report_dropped_lists,
                    };
                    late_link::push_list(&late_for_lists, &output, list)
                }
                None => chain_list(list),
            })
        })
        .event_function(|pad, parent, event| match event.type_() {
            // A live source has no queued data to discard, and it would not go on after a flush.
            gst::EventType::FlushStart => true,
            gst::EventType::FlushStop => {
                restore_segment(pad);
                true
            }
            _ => gst::Pad::event_default(pad, parent, event),
        })
        .proxy_pad_event_function(move |pad, parent, event| {
            let is_end = event.type_() == gst::EventType::Eos;
            let is_handled = gst::Pad::event_default(pad, parent, event);
            // After the event: until then, elements downstream still use the stream.
            if is_end && let Some(stream) = stream.upgrade() {
                stream.finish();
            }
            is_handled
        });
    let pad = builder.build();
    if let Some(element) = bin.downcast_ref::<Rtmp2MultiServerSrc>() {
        element.imp().links().watch(&pad);
    }
    Ok(pad)
}

/// Returns the function that counts tags of a stream which were dropped at its pad. Any failure but
/// that of an unlinked pad ends the stream.
fn report_function(
    bin: &gst::Bin,
    stream: Weak<Stream>,
) -> impl Fn(gst::FlowError, u64, Option<gst::ClockTime>) + Send + Sync + 'static {
    let bin = bin.downgrade();
    move |error, tags, time| {
        if error == gst::FlowError::NotLinked
            && let Some(bin) = bin.upgrade()
            && let Some(element) = bin.downcast_ref::<Rtmp2MultiServerSrc>()
        {
            element.imp().note_dropped(time);
        }
        let mut dropped = Dropped::default();
        match error {
            gst::FlowError::NotLinked => dropped.not_linked = tags,
            _ => dropped.at_end = tags,
        }
        if let Some(stream) = stream.upgrade() {
            stream.add_dropped_output(dropped);
        }
    }
}

/// Stores the segment again, which a pad forgets when it is flushed.
fn restore_segment(pad: &Rtmp2MultiServerSrcPad) {
    if let Some(inner) = pad.internal() {
        inner.sticky_events_foreach(|event| {
            if event.type_() == gst::EventType::Segment {
                let _ = pad.store_sticky_event(event);
            }
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
    }
}

/// Returns the ghost pad of a proxy pad.
fn ghost_pad(parent: Option<&gst::Object>) -> Option<&gst::Pad> {
    parent.and_then(|parent| parent.downcast_ref())
}

/// Maps the flow downstream to the flow for the source. A failure downstream ends the stream, and
/// the failed element has posted its error. A format that does not fit stays an error, since no
/// other element reports it.
fn contain_failure(
    flow: Result<gst::FlowSuccess, gst::FlowError>,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    match flow {
        Ok(success) => Ok(success),
        Err(gst::FlowError::NotLinked) => Ok(gst::FlowSuccess::Ok),
        Err(error @ (gst::FlowError::NotNegotiated | gst::FlowError::NotSupported)) => Err(error),
        Err(_) => Err(gst::FlowError::Eos),
    }
}
