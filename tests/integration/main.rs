// SPDX-License-Identifier: MPL-2.0

//! The element with real and with hostile clients. One file a subject.

mod support;

mod access;
mod authentication;
mod balancer;
mod bin;
mod codecs;
mod dirty;
mod enhanced;
mod fallback;
mod fallback_errors;
mod fallback_failover;
mod fidelity;
mod flood;
mod intruders;
mod late;
mod leaving;
mod many;
mod multi;
mod multicam;
mod network;
mod output;
mod policy;
mod quirks;
mod recording;
mod relay;
mod resume;
mod routes;
mod sequence;
mod signals;
mod sinks;
mod slow;
mod soak;
mod state;
mod telemetry;
mod timestamps;
mod tls;
