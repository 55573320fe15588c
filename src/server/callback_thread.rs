// SPDX-License-Identifier: MPL-2.0

//! Threads of this module call handlers of the application, which may stop elements. Whoever stops
//! an element waits for its threads, and must not do that on one of them.

use std::cell::Cell;

thread_local! {
    static IS_OWN: Cell<bool> = const { Cell::new(false) };
}

/// To be called at the start of each thread that may call a handler.
pub(crate) fn enter() {
    IS_OWN.set(true);
}

/// Whether this is such a thread.
pub(crate) fn is() -> bool {
    IS_OWN.get()
}
