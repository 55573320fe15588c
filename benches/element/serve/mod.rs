// SPDX-License-Identifier: MPL-2.0
//! The benchmark's server, in a process of its own: this same program, called with a hidden
//! command.
//!
//! It prints a line `ports N...` once it listens, and `done` once every publisher has left and all
//! received data has passed. It answers lines on its standard input and exits when that ends, with
//! its CPU time readable until then.

mod floor;
mod latency;
mod pipeline;
mod push;

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::Result;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Serve {
    /// Reads and discards.
    #[command(hide = true)]
    ReadLoop {
        #[arg(long, default_value_t = 1)]
        count: usize,
    },
    /// Reads and discards, in a thread for each publisher.
    #[command(hide = true)]
    ReadThreads {
        #[arg(long, default_value_t = 1)]
        count: usize,
    },
    /// Reads in a thread for each publisher, and pushes each read into a sink.
    #[command(hide = true)]
    PushThreads {
        #[arg(long, default_value_t = 1)]
        count: usize,
    },
    /// Reads, and copies each payload byte once into its message's memory.
    #[command(hide = true)]
    OneCopy {
        /// Writes the messages as FLV tags.
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// Runs pipelines whose source is named `source`.
    #[command(hide = true)]
    Pipeline {
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Measures the age of stamped tags as they leave the source.
        #[arg(long)]
        latency: bool,
        /// Further elements on the first one's port, with a route each.
        #[arg(long, default_value_t = 0)]
        further_routes: usize,
        /// Description as for gst-launch-1.0. `{n}` is the pipeline's number, `{port}` 0 in the
        /// first and its port in the others.
        launch: String,
    },
    /// Feeds sinks with media at their own pace.
    #[command(hide = true)]
    Push {
        #[arg(long)]
        count: usize,
        /// Element as for gst-launch-1.0. `{n}` is its number.
        sink: String,
    },
}

pub fn serve(command: Serve) -> Result<()> {
    match command {
        Serve::ReadLoop { count } => floor::read_loop(count)?,
        Serve::ReadThreads { count } => floor::read_threads(count)?,
        Serve::PushThreads { count } => floor::push_threads(count)?,
        Serve::OneCopy { record } => floor::one_copy(record)?,
        Serve::Pipeline {
            count,
            latency,
            further_routes,
            launch,
        } => return pipeline::run(count, latency, further_routes, &launch),
        Serve::Push { count, sink } => return push::run(count, &sink),
    }
    wait_for_end_of_input(|_| {});
    Ok(())
}

fn print_ports(ports: &[u16]) {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    println!("ports {}", ports.join(" "));
}

fn wait_for_end_of_input(mut on_line: impl FnMut(&str)) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        on_line(&line);
    }
}
