// SPDX-License-Identifier: MPL-2.0

//! Sends the streams of many cameras to RTMP servers, each by a pipeline of its own and with
//! fallbacks.
//!
//! ```sh
//! cargo run --release --package rtmp2-multicam -- --metrics 127.0.0.1:9420 cameras.json
//! cargo run --release --package rtmp2-multicam -- --help
//! ```

mod cameras;
mod changes;
mod config;
mod flv;
mod metrics;
mod object;
mod options;
mod plan;
mod program;
mod remux;
mod screen;
mod source;
mod status;
mod stream;
mod table;
mod template;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use common::journal;

use options::Options;
use program::Program;

/// The exit code of a wrong command line too.
const WRONG_CONFIGURATION: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    options.dashboard.start_log();
    let plans = match plan::load(&options.file) {
        Ok(plans) => plans,
        Err(error) => {
            journal::warning("configuration").say(error.to_string());
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    if options.check {
        println!("{}: {} streams", options.file.display(), plans.len());
        return ExitCode::SUCCESS;
    }
    journal::exit_code(run(options, plans).await)
}

async fn run(options: Options, plans: Vec<plan::Plan>) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;
    Program::new(options).run(plans).await?;
    Ok(())
}
