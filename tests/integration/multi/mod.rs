// SPDX-License-Identifier: MPL-2.0

//! Many publishers, nobody knows which, through one element.

mod access;
mod branches;
mod crowd;
mod ending;
mod stopping;
mod streams;
pub mod studio;
