// SPDX-License-Identifier: MPL-2.0

//! Draws the latency of publishers over 30 simulated days, without and with the correction of drift.
//!
//! ```sh
//! cargo run --release --example drift_plot
//! ```

#[allow(dead_code)]
mod simulation;

use std::fmt::Write;
use std::path::Path;
use std::thread;

use simulation::{DAY, HOUR, Scenario, run};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
const PANEL: f64 = 210.0;
const TOP: f64 = 56.0;
const GAP: f64 = 74.0;
const DAYS: f64 = 30.0;

/// Time in seconds that one point of a curve stands for.
const POINT: f64 = 3.0 * HOUR;

/// The drift in parts per million of each publisher, and its colour on a light and a dark ground.
const PUBLISHERS: [(f64, &str, &str); 4] = [
    (200.0, "#b3261e", "#ff8a80"),
    (50.0, "#9a6700", "#e3b341"),
    (-50.0, "#116329", "#56d364"),
    (-200.0, "#0550ae", "#79c0ff"),
];

/// A publisher over a month: jitter, stalls, bursts, a reconnect each five days, and a temperature
/// that changes its clock by day and night.
fn scenario(drift: f64, max_drift: u32) -> Scenario {
    Scenario {
        seed: 14,
        drift,
        daily_drift: 1.0,
        jitter: 0.15,
        stalls: 600.0,
        bursts: 1800.0,
        reconnects: match max_drift {
            // A reconnect would start at the latency of the begin.
            0 => f64::INFINITY,
            _ => 5.0 * DAY,
        },
        duration: DAYS * DAY,
        max_drift,
        ..Scenario::default()
    }
}

/// Returns for each [`POINT`] the change of the latency since the begin that is furthest from 0, in
/// milliseconds.
fn curve(scenario: &Scenario) -> Vec<f64> {
    let mut points = vec![0f64; (DAYS * DAY / POINT) as usize];
    let mut first = None;
    run(scenario, |sent| {
        let change = sent.latency - *first.get_or_insert(sent.latency);
        if let Some(point) = points.get_mut((sent.captured / POINT) as usize)
            && change.abs() >= point.abs()
        {
            *point = change;
        }
    });
    points
}

/// One of the two diagrams.
struct Panel<'a> {
    title: &'a str,
    unit: &'a str,
    /// Largest value, and the distance of grid lines.
    maximum: f64,
    grid: f64,
    top: f64,
    /// In the unit of the diagram.
    curves: Vec<Vec<f64>>,
}

impl Panel<'_> {
    fn y(&self, value: f64) -> f64 {
        self.top + PANEL / 2.0 * (1.0 - value / self.maximum)
    }

    fn draw(&self, svg: &mut String) -> std::fmt::Result {
        let right = WIDTH - RIGHT;
        let heading = self.top - 14.0;
        let title = self.title;
        writeln!(
            svg,
            "<text class=\"title\" x=\"{LEFT}\" y=\"{heading}\">{title}</text>"
        )?;
        let lines = (self.maximum / self.grid) as i32;
        for line in -lines..=lines {
            let value = f64::from(line) * self.grid;
            let y = self.y(value);
            let class = if line == 0 { "axis" } else { "grid" };
            writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"label\" \
                 x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value} {}</text>",
                LEFT - 8.0,
                y + 4.0,
                self.unit
            )?;
        }
        for day in (0..=30).step_by(5) {
            let x = x(f64::from(day));
            let bottom = self.top + PANEL;
            writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {}V{bottom}\"/><text class=\"label\" x=\"{x:.1}\" \
                 y=\"{}\" text-anchor=\"middle\">day {day}</text>",
                self.top,
                bottom + 18.0
            )?;
        }
        for (index, curve) in self.curves.iter().enumerate() {
            let points: Vec<String> = curve
                .iter()
                .enumerate()
                .map(|(number, value)| {
                    let day = (number as f64 + 0.5) * POINT / DAY;
                    format!("{:.1},{:.1}", x(day), self.y(*value))
                })
                .collect();
            writeln!(
                svg,
                "<polyline class=\"curve p{index}\" points=\"{}\"/>",
                points.join(" ")
            )?;
        }
        Ok(())
    }
}

fn x(day: f64) -> f64 {
    LEFT + (WIDTH - RIGHT - LEFT) * day / DAYS
}

fn style() -> String {
    let curves = |colour: fn(&(f64, &'static str, &'static str)) -> &'static str| {
        let rules = PUBLISHERS.iter().enumerate().map(|(index, publisher)| {
            let colour = colour(publisher);
            format!(".p{index}{{stroke:{colour}}}.t{index}{{fill:{colour}}}")
        });
        rules.collect::<String>()
    };
    let ground = |back: &str, text: &str, grid: &str, axis: &str| {
        format!(
            ".back{{fill:{back}}}text{{fill:{text}}}.grid{{stroke:{grid}}}.axis{{stroke:{axis}}}"
        )
    };
    format!(
        "text{{font-family:sans-serif}}.title{{font-size:15px;font-weight:600}}\
         .label{{font-size:12px}}path,polyline{{fill:none}}.curve{{stroke-width:1.6}}\
         {}{}@media (prefers-color-scheme:dark){{{}{}}}",
        ground("#ffffff", "#1f2328", "#d8dee4", "#6e7781"),
        curves(|publisher| publisher.1),
        ground("#0d1117", "#e6edf3", "#30363d", "#8b949e"),
        curves(|publisher| publisher.2),
    )
}

/// Draws the curves without and with the correction, both in milliseconds.
fn draw(before: Vec<Vec<f64>>, after: Vec<Vec<f64>>) -> Result<String, std::fmt::Error> {
    let height = TOP + 2.0 * PANEL + GAP + 40.0;
    let in_seconds = |curve: Vec<f64>| curve.iter().map(|value| value / 1000.0).collect();
    let panels = [
        Panel {
            title: "Change of the latency in 30 days without the correction",
            unit: "s",
            maximum: 600.0,
            grid: 200.0,
            top: TOP,
            curves: before.into_iter().map(in_seconds).collect(),
        },
        Panel {
            title: "With drift-correction: a peak is a reconnect whose first tag was delayed",
            unit: "ms",
            maximum: 100.0,
            grid: 50.0,
            top: TOP + PANEL + GAP,
            curves: after,
        },
    ];
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>Latency of publishers whose clocks drift</title><style>{}</style>\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>",
        style()
    )?;
    for panel in &panels {
        panel.draw(&mut svg)?;
        for (index, (drift, ..)) in PUBLISHERS.iter().enumerate() {
            writeln!(
                svg,
                "<text class=\"label t{index}\" x=\"{}\" y=\"{}\">clock {drift:+} ppm</text>",
                WIDTH - RIGHT + 14.0,
                panel.top + 20.0 + 22.0 * index as f64
            )?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let curves = |max_drift| {
        let threads = PUBLISHERS.map(|(drift, ..)| {
            let scenario = scenario(drift, max_drift);
            thread::spawn(move || curve(&scenario))
        });
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images/drift.svg");
    std::fs::create_dir_all(path.parent().expect("a folder"))?;
    std::fs::write(&path, draw(curves(0), curves(1000))?)?;
    println!("{}", path.display());
    Ok(())
}
