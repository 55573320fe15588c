// SPDX-License-Identifier: MPL-2.0

//! The element with real and with hostile clients. One file a subject.

mod support;

mod access;
mod enhanced;
mod fidelity;
mod intruders;
mod late;
mod leaving;
mod output;
mod quirks;
mod recording;
mod sequence;
mod sinks;
mod slow;
mod timestamps;
