// SPDX-License-Identifier: MPL-2.0
//! Results as a picture: a chart of bars for each scenario and quantity, in SVG.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::report::figure;
use crate::scenario::Quantity;
use crate::subject::Subject;

/// In pixels.
const WIDTH: usize = 860;
const MARGIN: usize = 20;
const GAP: usize = 28;
const COLUMN: usize = (WIDTH - 2 * MARGIN - GAP) / 2;
const TITLE: usize = 24;
const ROW: usize = 20;
const BAR: usize = 12;
const NAMES: usize = 138;
const FIGURES: usize = 52;

struct Theme {
    name: &'static str,
    background: &'static str,
    text: &'static str,
    ours: &'static str,
    other: &'static str,
    floor: &'static str,
}

const THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        background: "#ffffff",
        text: "#1f2328",
        ours: "#0969da",
        other: "#8c959f",
        floor: "#d1d9e0",
    },
    Theme {
        name: "dark",
        background: "#0d1117",
        text: "#f0f6fc",
        ours: "#4493f8",
        other: "#818b98",
        floor: "#3d444d",
    },
];

/// Medians of one quantity in one scenario.
struct Chart {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    subject: String,
    least: f64,
    median: f64,
    most: f64,
}

/// Writes the picture of results, which [`Results::json`](crate::report::Results::json) has made,
/// for light and for dark pages.
pub fn write(scenarios: &[Value], folder: &Path) -> Result<()> {
    let charts: Vec<Chart> = scenarios.iter().flat_map(charts).collect();
    for theme in &THEMES {
        let path = folder.join(format!("element-{}.svg", theme.name));
        fs::write(&path, draw(&charts, theme)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn charts(scenario: &Value) -> Vec<Chart> {
    let quantities = Quantity::ALL.iter().filter(|quantity| quantity.is_drawn());
    let charts = quantities.map(|quantity| Chart {
        title: format!("{}: {}", text(&scenario["scenario"]), quantity.label()),
        bars: list(&scenario["subjects"])
            .iter()
            .filter_map(|row| bar(row, *quantity))
            .collect(),
    });
    charts.filter(|chart| !chart.bars.is_empty()).collect()
}

fn bar(row: &Value, quantity: Quantity) -> Option<Bar> {
    let mut figures = list(&row["figures"]).iter();
    let found = figures.find(|figures| text(&figures["quantity"]) == quantity.label())?;
    let runs = list(&found["runs"]).iter().filter_map(Value::as_f64);
    Some(Bar {
        subject: text(&row["subject"]).to_owned(),
        least: runs.clone().fold(f64::INFINITY, f64::min),
        median: found["median"].as_f64()?,
        most: runs.fold(0.0, f64::max),
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn draw(charts: &[Chart], theme: &Theme) -> String {
    let mut content = String::new();
    // Each chart is added to the shorter of two columns.
    let mut heights = [MARGIN; 2];
    for chart in charts {
        let column = usize::from(heights[1] < heights[0]);
        let left = MARGIN + column * (COLUMN + GAP);
        chart.draw(&mut content, left, heights[column], theme);
        heights[column] += TITLE + chart.bars.len() * ROW + GAP;
    }
    let height = heights[0].max(heights[1]) - GAP + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{}\">\n\
         <title>Results of the benchmarks: less is better</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n{content}</svg>\n",
        theme.text, theme.background
    )
}

impl Chart {
    fn draw(&self, svg: &mut String, left: usize, top: usize, theme: &Theme) {
        let (title, baseline) = (escape(&self.title), top + TITLE / 2);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{baseline}\" font-weight=\"600\">{title}</text>"
        );
        let most = self.bars.iter().map(|bar| bar.most).fold(0.0, f64::max);
        for (index, bar) in self.bars.iter().enumerate() {
            bar.draw(svg, left, top + TITLE + index * ROW, most, theme);
        }
    }
}

impl Bar {
    fn draw(&self, svg: &mut String, left: usize, top: usize, most: f64, theme: &Theme) {
        let space = (COLUMN - NAMES - FIGURES) as f64;
        let scale = |value: f64| {
            if most > 0.0 {
                value / most * space
            } else {
                0.0
            }
        };
        let start = (left + NAMES) as f64;
        let (subject, value) = (escape(&self.subject), figure(self.median));
        let color = color(&self.subject, theme);
        let (baseline, middle) = (top + BAR - 2, top + BAR / 2);
        let (names_end, figures_start) = (left + NAMES - 8, start + scale(self.most) + 6.0);
        let (width, least, most) = (
            scale(self.median).max(1.0),
            start + scale(self.least),
            start + scale(self.most),
        );
        let _ = writeln!(
            svg,
            "<text x=\"{names_end}\" y=\"{baseline}\" text-anchor=\"end\">{subject}</text>\n\
             <rect x=\"{start:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" \
             fill=\"{color}\"/>\n\
             <path d=\"M{least:.1} {middle}H{most:.1}\" stroke=\"{}\"/>\n\
             <text x=\"{figures_start:.1}\" y=\"{baseline}\">{value}</text>",
            theme.text
        );
    }
}

fn color(subject: &str, theme: &Theme) -> &'static str {
    match Subject::ALL.iter().find(|known| known.name() == subject) {
        Some(subject) if subject.is_ours() => theme.ours,
        Some(subject) if subject.is_floor() => theme.floor,
        _ => theme.other,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
