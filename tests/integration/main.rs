// SPDX-License-Identifier: MPL-2.0

//! Integration tests with real and with hostile clients. One file a subject.

mod access;
mod authentication;
mod bin;
mod cases;
mod codecs;
mod delivery_interval;
mod direct_delivery;
mod drift;
mod dropping;
mod encryption;
mod enhanced;
mod fallback;
mod fallback_errors;
mod fallback_failover;
mod fidelity;
mod flood;
mod hostile_clients;
mod irregular_media;
mod late_publisher;
mod lifecycle;
mod load_balancer;
mod multi;
mod network;
mod output;
mod pausing;
mod policy;
mod quirks;
mod rationing;
mod recording;
mod resume;
mod routes;
mod scaling;
mod script_data;
mod signals;
mod sinks;
mod slow_sinks;
mod soak;
mod starting;
mod state;
mod stats;
mod stopping;
mod successive_publishers;
mod timestamps;
mod tls;
