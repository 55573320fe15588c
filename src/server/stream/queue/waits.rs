// SPDX-License-Identifier: MPL-2.0

//! Ends of the waits at a queue.

/// The queue is closed or flushing, or accepts nothing from this publisher any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The end of a wait of the streaming thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// There are items, or it was called.
    Called,
    /// The deadline has come.
    TimedOut,
}
