// SPDX-License-Identifier: MPL-2.0

//! Marks threads of the server that call handlers of the application. A handler may stop elements,
//! and stopping an element joins its threads, which must not happen on one of them.

use std::cell::Cell;

thread_local! {
    static IS_CALLBACK_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread. Call it first on each thread that may call a handler.
pub(crate) fn enter() {
    IS_CALLBACK_THREAD.set(true);
}

/// Returns true on a marked thread.
pub(crate) fn is() -> bool {
    IS_CALLBACK_THREAD.get()
}
