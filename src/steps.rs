// SPDX-License-Identifier: MPL-2.0

//! A counter of steps, for tests that assert that work does not grow with what waits. Outside of tests
//! it does nothing.

#[cfg(not(test))]
#[inline(always)]
pub(crate) fn count() {}

#[cfg(test)]
pub(crate) fn count() {
    STEPS.with(|steps| steps.set(steps.get() + 1));
}

/// Returns the number of steps of this thread.
#[cfg(test)]
pub(crate) fn counted() -> u64 {
    STEPS.get()
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
