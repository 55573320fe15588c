// SPDX-License-Identifier: MPL-2.0

//! Code that the programs in this folder share.

pub mod connection;
pub mod exposition;
pub mod flv;
pub mod journal;
pub mod statistics;
pub mod supervisor;
