// SPDX-License-Identifier: MPL-2.0

//! Many publishers, unknown in advance, through one element.

mod access;
mod branches;
mod churn;
mod ending;
pub mod multi_recorder;
mod stopping;
mod streams;
