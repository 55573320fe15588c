// SPDX-License-Identifier: MPL-2.0

//! The relay from its publishers to its segments, in a process of its own.
//!
//! A stream is complete when its publisher has ended it and the program says that it is gone: then
//! all of its media is in segments, however long the machine took for it. So most of these
//! publishers send as fast as they can.

mod access;
mod cleaning;
mod failing;
mod media;
mod passing;
mod program;
mod segments;
mod sharing;
