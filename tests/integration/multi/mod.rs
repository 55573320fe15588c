// SPDX-License-Identifier: MPL-2.0

//! Many publishers, nobody knows which, through one element.

mod access;
mod branches;
mod crowd;
mod ending;
pub mod multi_recorder;
mod stopping;
mod streams;
