// SPDX-License-Identifier: MPL-2.0
//! Benchmark of the whole element, against its alternatives and against the least cost of
//! receiving.
//!
//! docs/benchmarks.md says how to run it and how to read it.

mod amf;
mod chunk;
mod machine;
mod measure;
mod media;
mod paced_publishers;
mod picture;
mod publisher;
mod report;
mod scenario;
mod serve;
mod stats;
mod subject;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use report::{Results, Row};
use scenario::{Scenario, When};
use subject::Subject;

/// Measures rtmp2serversrc beside other ways to receive a publisher.
#[derive(Parser)]
struct Options {
    /// Scenarios to run, by name; all but the slow ones if none is given.
    scenarios: Vec<String>,
    /// Runs of each subject; medians are of these.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// One short run of everything, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Also the scenarios with 1,000 publishers.
    #[arg(long)]
    many: bool,
    /// Also count instructions under valgrind.
    #[arg(long)]
    callgrind: bool,
    /// Only these subjects, by name.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Only draw the picture, of results that were measured before.
    #[arg(long, value_name = "JSON", value_delimiter = ',')]
    draw: Vec<PathBuf>,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
    /// cargo bench says this.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    serve: Option<serve::Serve>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(command) = options.serve {
        return serve::serve(command);
    }
    if options.list {
        for scenario in scenario::all() {
            println!("{:<20} {}", scenario.name, scenario.title());
        }
        return Ok(());
    }
    if !options.draw.is_empty() {
        return draw(&options.draw);
    }
    subject::init_gstreamer()?;
    subject::allow_many_files()?;
    let folder = results_folder()?;
    println!("{}\n", machine::describe());

    let subjects = present(&options);
    let mut results = Vec::new();
    let mut failures = 0;
    for scenario in chosen(&options)? {
        let result = measure(scenario, &subjects, &options, &folder);
        println!("{}", result.table());
        failures += result.failures.len();
        results.push(result.json());
        // After each, so that a stopped benchmark keeps its measurements.
        let text = serde_json::to_string_pretty(&json!({
            "machine": machine::describe(),
            "quick": options.quick,
            "scenarios": results,
        }))?;
        fs::write(folder.join("element.json"), text)?;
        picture::write(&results, &folder)?;
    }
    ensure!(failures == 0, "{failures} could not be measured");
    Ok(())
}

/// Draws the picture of results in these files, in their order.
fn draw(files: &[PathBuf]) -> Result<()> {
    let mut scenarios = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let results: Value = serde_json::from_str(&text)?;
        scenarios.extend(results["scenarios"].as_array().cloned().unwrap_or_default());
    }
    picture::write(&scenarios, &results_folder()?)
}

fn chosen(options: &Options) -> Result<Vec<Scenario>> {
    let all = scenario::all();
    for name in &options.scenarios {
        let known = all.iter().any(|scenario| scenario.name == name);
        ensure!(known, "no scenario {name}; --list names them");
    }
    let wanted = |scenario: &Scenario| {
        if !options.scenarios.is_empty() {
            return options.scenarios.iter().any(|name| name == scenario.name);
        }
        match scenario.when {
            When::Always => true,
            When::Many => options.many,
            When::Callgrind => options.callgrind,
        }
    };
    let chosen = all.into_iter().filter(wanted);
    Ok(if options.quick {
        chosen.map(Scenario::quick).collect()
    } else {
        chosen.collect()
    })
}

/// The requested subjects that this machine has.
fn present(options: &Options) -> Vec<Subject> {
    let names = &options.subjects;
    let wanted =
        |subject: &Subject| names.is_empty() || names.iter().any(|name| name == subject.name());
    let mut subjects = Subject::ALL.to_vec();
    subjects.retain(wanted);
    subjects.retain(|subject| {
        let missing = subject.missing();
        if let Some(reason) = &missing {
            println!("without {}: {reason}\n", subject.name());
        }
        missing.is_none()
    });
    subjects
}

/// Runs the subjects in turn, so that other work of the machine affects all of them.
fn measure(
    scenario: Scenario,
    subjects: &[Subject],
    options: &Options,
    folder: &std::path::Path,
) -> Results {
    let mut rows: Vec<Row> = scenario
        .subjects
        .iter()
        .copied()
        .filter(|subject| subjects.contains(subject))
        .map(|subject| Row {
            subject,
            runs: Vec::new(),
        })
        .collect();
    let runs = match scenario.when {
        // Counts are nearly the same each time, and take long.
        When::Callgrind => 1,
        _ if options.quick => 1,
        _ => options.runs,
    };
    let mut failures = Vec::new();
    for _ in 0..runs {
        // A subject that cannot be measured must not cost the others' figures.
        rows.retain_mut(|row| match scenario.run(row.subject, folder) {
            Ok(figures) => {
                row.runs.push(figures);
                true
            }
            Err(error) => {
                println!("{} with {}: {error:#}", scenario.name, row.subject.name());
                failures.push(row.subject);
                false
            }
        });
    }
    Results {
        scenario,
        rows,
        failures,
    }
}

/// Returns target/bench, beside the folder of this program.
fn results_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(3)
        .context("not run from a target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
