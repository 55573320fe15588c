// SPDX-License-Identifier: MPL-2.0

//! Properties of the protocol core, against an encoder that shares nothing with it.

mod dirty;
mod drift;
mod encoder;
mod growth;
mod meter;
mod never_panics;
mod origins;
mod session;
mod splits;
mod tags;
mod timestamps;
