// SPDX-License-Identifier: MPL-2.0

pub(crate) mod acceptor;
pub(crate) mod connection_table;
pub(crate) mod listener;
pub(crate) mod process_counters;
pub(crate) mod registry;
