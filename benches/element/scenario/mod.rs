// SPDX-License-Identifier: MPL-2.0
//! Scenarios: quantities, subjects and targets.

mod instructions;
mod latency;
mod list;
mod memory;
mod multi;
mod paced;
mod routes;
mod sending;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::media::Profile;
use crate::subject::Subject;

pub use list::all;

/// Quantity that a run of a scenario measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    CpuPerGigabyte,
    Throughput,
    CpuShare,
    CpuShareAdded,
    MemoryEach,
    ConnectMedian,
    Connect99th,
    FirstMedian,
    First99th,
    SteadyMedian,
    Steady99th,
    ConnectOfMany,
    ConnectRatio,
    Stop,
    Instructions,
}

impl Quantity {
    pub const ALL: [Self; 15] = [
        Self::CpuPerGigabyte,
        Self::Throughput,
        Self::CpuShare,
        Self::CpuShareAdded,
        Self::MemoryEach,
        Self::ConnectMedian,
        Self::Connect99th,
        Self::FirstMedian,
        Self::First99th,
        Self::SteadyMedian,
        Self::Steady99th,
        Self::ConnectOfMany,
        Self::ConnectRatio,
        Self::Stop,
        Self::Instructions,
    ];

    /// Returns true for quantities in the picture: the costs, without their spread and their ratios.
    pub fn is_drawn(self) -> bool {
        match self {
            Self::CpuPerGigabyte
            | Self::CpuShare
            | Self::CpuShareAdded
            | Self::MemoryEach
            | Self::ConnectMedian
            | Self::FirstMedian
            | Self::SteadyMedian
            | Self::Stop
            | Self::Instructions => true,
            Self::Throughput
            | Self::Connect99th
            | Self::First99th
            | Self::Steady99th
            | Self::ConnectOfMany
            | Self::ConnectRatio => false,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::CpuPerGigabyte => "CPU s/GB",
            Self::Throughput => "MB/s",
            Self::CpuShare => "CPU % of a core",
            Self::CpuShareAdded => "less the feeding",
            Self::MemoryEach => "PSS kB each",
            Self::ConnectMedian => "connect ms",
            Self::Connect99th => "connect 99th",
            Self::FirstMedian => "first keyframe ms",
            Self::First99th => "first 99th",
            Self::SteadyMedian => "steady ms",
            Self::Steady99th => "steady 99th",
            Self::ConnectOfMany => "with all routes",
            Self::ConnectRatio => "to one route",
            Self::Stop => "stop ms",
            Self::Instructions => "M instructions/MB",
        }
    }
}

/// Figures of one run of one subject.
pub type Figures = Vec<(Quantity, f64)>;

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Target of our element: a ratio to another subject's figure, or a figure.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub quantity: Quantity,
    pub against: Option<Subject>,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One publisher as fast as possible.
    Transfer {
        profile: Profile,
        chunk_size: usize,
        payload: u64,
        record: bool,
    },
    /// Many publishers in real time.
    Paced {
        profile: Profile,
        publishers: usize,
        time: Duration,
    },
    /// Streams sent on in real time.
    Sending {
        profile: Profile,
        streams: usize,
        time: Duration,
    },
    /// Memory that one more publisher adds.
    Memory { profile: Profile, publishers: usize },
    /// Publishers one after the other.
    Latency { connects: usize, tags: usize },
    /// Publishers one after the other, of one route and of many.
    Routes { routes: usize, connects: usize },
    /// Many publishers of one element in real time, and its stop.
    Multi {
        profile: Profile,
        publishers: usize,
        time: Duration,
    },
    /// User-space instructions, as the difference of two transfers.
    Instructions {
        profile: Profile,
        chunk_size: usize,
        payload: u64,
    },
}

/// Condition for running a scenario that is not named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Many,
    Callgrind,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub kind: Kind,
    pub subjects: &'static [Subject],
    pub targets: Vec<Target>,
    pub when: When,
}

impl Scenario {
    /// One run with one subject.
    pub fn run(&self, subject: Subject, folder: &std::path::Path) -> Result<Figures> {
        match self.kind {
            Kind::Transfer {
                profile,
                chunk_size,
                payload,
                record,
            } => transfer::run(subject, profile, chunk_size, payload, record),
            Kind::Paced {
                profile,
                publishers,
                time,
            } => paced::run(subject, profile, publishers, time),
            Kind::Sending {
                profile,
                streams,
                time,
            } => sending::run(subject, profile, streams, time),
            Kind::Memory {
                profile,
                publishers,
            } => memory::run(subject, profile, publishers),
            Kind::Latency { connects, tags } => latency::run(subject, connects, tags),
            Kind::Routes { routes, connects } => routes::run(subject, routes, connects),
            Kind::Multi {
                profile,
                publishers,
                time,
            } => multi::run(subject, profile, publishers, time),
            Kind::Instructions {
                profile,
                chunk_size,
                payload,
            } => {
                let file = |run: &str| -> PathBuf {
                    crate::subject::callgrind_file(folder, self.name, subject, run)
                };
                instructions::run(subject, profile, chunk_size, payload, file)
            }
        }
    }

    /// The same in a fraction of the time: it shows that everything runs, and gives no figure to
    /// quote.
    pub fn quick(mut self) -> Self {
        match &mut self.kind {
            Kind::Transfer { payload, .. } => *payload /= 10,
            Kind::Paced {
                publishers, time, ..
            }
            | Kind::Multi {
                publishers, time, ..
            } => {
                *publishers = (*publishers).min(10);
                *time = Duration::from_secs(1);
            }
            Kind::Sending { time, .. } => *time = Duration::from_secs(2),
            Kind::Memory { publishers, .. } => *publishers = (*publishers).min(10),
            Kind::Latency { connects, tags } => (*connects, *tags) = (10, 20),
            Kind::Routes { routes, connects } => (*routes, *connects) = (100, 10),
            Kind::Instructions { payload, .. } => *payload /= 4,
        }
        self
    }

    pub fn title(&self) -> String {
        let megabytes = |payload: u64| payload / 1_000_000;
        match self.kind {
            Kind::Transfer {
                profile,
                chunk_size,
                payload,
                record,
            } => {
                let sink = if record { "recorded" } else { "discarded" };
                format!(
                    "one publisher as fast as it goes, {sink}: {}, {chunk_size} B chunks, {} MB",
                    profile.name,
                    megabytes(payload)
                )
            }
            Kind::Paced {
                profile,
                publishers,
                time,
            } => format!(
                "{publishers} publishers at their own pace: {}, {} s",
                profile.name,
                time.as_secs()
            ),
            Kind::Sending {
                profile,
                streams,
                time,
            } => format!(
                "{streams} streams sent on: {}, {} s",
                profile.name,
                time.as_secs()
            ),
            Kind::Memory {
                profile,
                publishers,
            } => format!(
                "memory that a publisher adds, of {publishers}: {}",
                profile.name
            ),
            Kind::Latency { connects, tags } => {
                format!("latency: {connects} publishers after each other, {tags} tags")
            }
            Kind::Routes { routes, connects } => {
                format!("{connects} publishers after each other, of one route and of {routes}")
            }
            Kind::Multi {
                profile,
                publishers,
                time,
            } => format!(
                "{publishers} publishers of one element at their own pace: {}, {} s",
                profile.name,
                time.as_secs()
            ),
            Kind::Instructions {
                profile,
                chunk_size,
                payload,
            } => format!(
                "user-space instructions for a payload MB: {}, {chunk_size} B chunks, {} MB",
                profile.name,
                megabytes(payload)
            ),
        }
    }
}
