// SPDX-License-Identifier: MPL-2.0

//! The RTMP protocol, server side, without I/O: bytes in, events and bytes out.
//!
//! Layers, lowest first: [`handshake`], [`chunk`] (bytes to messages and back), [`control`],
//! [`command`] and [`aggregate`] (messages to meanings), [`session`] (the conversation).
//! Specification: Adobe, "Real-Time Messaging Protocol (RTMP) specification", version 1.0, 2012.
//!
//! This module knows no GStreamer, sockets, threads or clocks.

pub mod aggregate;
pub mod authentication;
pub mod chunk;
pub mod command;
pub mod control;
mod error;
pub mod handshake;
pub mod limits;
pub mod message;
pub mod session;
pub mod status;

pub use error::Violation;

/// The body of a message.
pub type Payload = crate::memory::Memory;

/// Bytes to leave free around the body of a message, so that a later layer can frame it in place
/// instead of copying it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headroom {
    pub front: usize,
    pub back: usize,
}
