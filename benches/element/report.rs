// SPDX-License-Identifier: MPL-2.0
//! Results as tables for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::scenario::{Bound, Figures, Quantity, Scenario, Target};
use crate::stats::median;
use crate::subject::Subject;

/// All runs of a scenario.
#[derive(Debug)]
pub struct Results {
    pub scenario: Scenario,
    pub rows: Vec<Row>,
    /// Subjects that could not be measured, which have no row.
    pub failures: Vec<Subject>,
}

#[derive(Debug)]
pub struct Row {
    pub subject: Subject,
    pub runs: Vec<Figures>,
}

impl Row {
    fn values(&self, quantity: Quantity) -> Vec<f64> {
        let of_run = |figures: &Figures| {
            let found = figures.iter().find(|(found, _)| *found == quantity);
            found.map(|(_, value)| *value)
        };
        self.runs.iter().filter_map(of_run).collect()
    }

    fn median(&self, quantity: Quantity) -> Option<f64> {
        let values = self.values(quantity);
        (!values.is_empty()).then(|| median(&values))
    }
}

/// Result of a target.
struct Verdict {
    target: Target,
    value: f64,
    met: bool,
}

impl Results {
    /// The quantities of any row, in the order they were measured.
    fn quantities(&self) -> Vec<Quantity> {
        let mut quantities = Vec::new();
        for (quantity, _) in self.rows.iter().flat_map(|row| row.runs.iter().flatten()) {
            if !quantities.contains(quantity) {
                quantities.push(*quantity);
            }
        }
        quantities
    }

    fn row(&self, subject: Subject) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == subject)
    }

    fn ours(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject.is_ours())
    }

    /// Ratio of ours to another's: the median of the rounds' ratios, since both of a round met the
    /// same machine.
    fn ratio(&self, subject: Subject, quantity: Quantity) -> Option<f64> {
        let ours = self.ours()?.values(quantity);
        let theirs = self.row(subject)?.values(quantity);
        let rounds = ours.iter().zip(&theirs);
        let ratios: Vec<f64> = rounds.map(|(ours, theirs)| ours / theirs).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let judge = |target: &Target| {
            let value = match target.against {
                Some(subject) => self.ratio(subject, target.quantity)?,
                None => self.ours()?.median(target.quantity)?,
            };
            let met = match target.bound {
                Bound::AtMost(bound) => value <= bound,
                Bound::AtLeast(bound) => value >= bound,
            };
            Some(Verdict {
                target: *target,
                value,
                met,
            })
        };
        self.scenario.targets.iter().filter_map(judge).collect()
    }

    pub fn table(&self) -> String {
        let quantities = self.quantities();
        let mut lines: Vec<Vec<String>> = vec![vec![String::new()]];
        for quantity in &quantities {
            lines[0].extend([quantity.label().into(), "(min - max)".into(), "ours".into()]);
        }
        for row in &self.rows {
            let mut line = vec![row.subject.name().to_owned()];
            for quantity in &quantities {
                line.extend(self.cells(row, *quantity));
            }
            lines.push(line);
        }

        let mut text = format!("{}: {}\n", self.scenario.name, self.scenario.title());
        let columns = lines[0].len();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for line in &lines {
            let mut padded = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(padded, "  {cell:<width$}"),
                    _ => write!(padded, "  {cell:>width$}"),
                };
            }
            text += padded.trim_end();
            text.push('\n');
        }
        for verdict in self.verdicts() {
            text += &verdict.line();
        }
        text
    }

    fn cells(&self, row: &Row, quantity: Quantity) -> [String; 3] {
        let values = row.values(quantity);
        if values.is_empty() {
            return ["-".into(), String::new(), String::new()];
        }
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let ratio = match self.ratio(row.subject, quantity) {
            Some(ratio) if !row.subject.is_ours() => format!("{ratio:.2} x"),
            _ => String::new(),
        };
        let range = format!("({} - {})", figure(least), figure(most));
        [figure(median(&values)), range, ratio]
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures = self.quantities().into_iter().map(|quantity| {
                json!({
                    "quantity": quantity.label(),
                    "runs": row.values(quantity),
                    "median": row.median(quantity),
                    "ours": self.ratio(row.subject, quantity),
                })
            });
            json!({"subject": row.subject.name(), "figures": figures.collect::<Vec<_>>()})
        });
        let targets = self.verdicts().into_iter().map(|verdict| verdict.json());
        json!({
            "scenario": self.scenario.name,
            "title": self.scenario.title(),
            "subjects": rows.collect::<Vec<_>>(),
            "failed": self.failures.iter().map(|subject| subject.name()).collect::<Vec<_>>(),
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

impl Verdict {
    fn line(&self) -> String {
        let (word, bound) = match self.target.bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let met = if self.met { "met" } else { "NOT MET" };
        let label = self.target.quantity.label();
        match self.target.against {
            Some(subject) => format!(
                "  {met:<7}  {label}: {:.2} times {}, {word} {bound}\n",
                self.value,
                subject.name()
            ),
            None => format!(
                "  {met:<7}  {label}: {}, {word} {bound}\n",
                figure(self.value)
            ),
        }
    }

    fn json(&self) -> Value {
        let (key, bound) = match self.target.bound {
            Bound::AtMost(bound) => ("at-most", bound),
            Bound::AtLeast(bound) => ("at-least", bound),
        };
        json!({
            "quantity": self.target.quantity.label(),
            "against": self.target.against.map(Subject::name),
            key: bound,
            "value": self.value,
            "met": self.met,
        })
    }
}

/// Rounds to three significant digits.
pub fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
