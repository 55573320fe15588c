// SPDX-License-Identifier: MPL-2.0

//! The programs in this folder show this to those who run them: a page with all streams, the same as
//! JSON, metrics for Prometheus, and `/stat` in the form of nginx-rtmp.
//!
//! A program implements [`Program`], which says what its streams are, and reports its publishers
//! with [`watch`]. A [`Board`] reads the statistics once a second and keeps ten minutes of them;
//! [`web::router`] serves it all.

pub mod board;
pub mod facts;
pub mod history;
pub mod metrics;
pub mod options;
pub mod program;
pub mod rejected_clients;
pub mod stat;
pub mod state;
pub mod thumbnail;
pub mod watch;
pub mod web;

pub use board::Board;
pub use options::Options;
pub use program::{Control, Detail, ElementStats, Observation, Program};
pub use rejected_clients::RejectedClients;
pub use state::StreamState;
