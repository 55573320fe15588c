// SPDX-License-Identifier: MPL-2.0

//! The element with real and with hostile clients. One file a subject.

mod support;

mod quirks;
mod recording;
