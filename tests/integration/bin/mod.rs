// SPDX-License-Identifier: MPL-2.0

//! rtmp2serverbin: source and demuxer in one.

mod keyframe;
mod output;
mod proxy;
pub mod receiver;
mod stopping;
mod uri;
