// SPDX-License-Identifier: MPL-2.0

//! Listening ports of the process, and what their connections share.

pub(crate) mod acceptor;
pub(crate) mod connection_table;
pub(crate) mod listener;
pub(crate) mod process_counters;
pub(crate) mod registry;
pub(crate) mod socket;
pub(crate) mod state;
pub(crate) mod timers;
