// SPDX-License-Identifier: MPL-2.0

//! The output: line after line, or on a terminal with a table of all streams at its end, repainted
//! over and over.

use std::io::{self, IsTerminal, Write};

use common::journal;
use rustix::termios::tcgetwinsize;

use super::table::{self, Row};

pub struct Screen {
    is_terminal: bool,
    /// Lines that the next painting replaces.
    painted: usize,
}

impl Screen {
    pub fn new() -> Self {
        Screen {
            is_terminal: io::stdout().is_terminal(),
            painted: 0,
        }
    }

    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Returns whether there was a terminal, and it was closed.
    pub fn is_gone(&self) -> bool {
        self.is_terminal && tcgetwinsize(io::stdout()).is_err()
    }

    /// Prints a line that stays.
    pub fn print(&mut self, text: &str) {
        self.wipe();
        journal::write_line(io::stdout(), text);
    }

    /// Prints a warning.
    pub fn warn(&mut self, text: &str) {
        self.wipe();
        journal::write_line(io::stderr(), text);
    }

    /// Shows a table of these streams at the end of the terminal.
    pub fn paint(&mut self, rows: &[Row]) {
        self.wipe();
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (size.ws_row.into(), size.ws_col.into()));
        let (lines, width) = size.filter(|size| *size != (0, 0)).unwrap_or((24, 80));
        let lines = fitted(&table::lines(rows, width), (lines, width));
        let mut out = io::stdout().lock();
        for line in &lines {
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
        self.painted = lines.len();
    }

    fn wipe(&mut self) {
        if self.painted > 0 {
            // Up to the first of them, and clear everything below.
            let _ = write!(io::stdout(), "\x1b[{}F\x1b[J", self.painted);
            self.painted = 0;
        }
    }
}

/// Returns as many lines, and as much of each, as fit.
fn fitted(lines: &[String], (rows, columns): (usize, usize)) -> Vec<String> {
    let room = rows.saturating_sub(1).max(1);
    let cut = |line: &str| line.chars().take(columns).collect::<String>();
    if lines.len() <= room {
        return lines.iter().map(|line| cut(line)).collect();
    }
    let mut fitted: Vec<String> = lines[..room - 1].iter().map(|line| cut(line)).collect();
    fitted.push(cut(&format!("and {} more", lines.len() - (room - 1))));
    fitted
}

#[test]
fn painted_lines_fit_the_terminal() {
    let lines = ["one", "two and more", "three"].map(str::to_owned);
    assert_eq!(fitted(&lines, (4, 6)), ["one", "two an", "three"]);
    assert_eq!(fitted(&lines, (3, 80)), ["one", "and 2 more"]);
    assert_eq!(fitted(&lines, (1, 80)), ["and 3 more"]);
}
