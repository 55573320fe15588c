// SPDX-License-Identifier: MPL-2.0

//! The status of all streams as a table that fits the terminal, with the reason of each trouble.

/// Columns in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Stream,
    Source,
    Sink,
    Bitrate,
    Dropped,
    Since,
    Server,
    Reason,
}

use Column::{Bitrate, Dropped, Reason, Server, Since, Sink, Source, Stream};

const COLUMNS: [Column; 8] = [
    Stream, Source, Sink, Bitrate, Dropped, Since, Server, Reason,
];

/// Columns that a narrow terminal does not show, the first ones first: the reason needs their space.
const OPTIONAL: [Column; 4] = [Since, Dropped, Server, Bitrate];

const GAP: &str = "  ";

/// Width from which on a cut reason is worth more than another column.
const MIN_REASON: usize = 24;

/// One stream.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub stream: String,
    pub source: String,
    pub sink: String,
    pub bitrate: String,
    pub dropped: String,
    pub since: String,
    pub server: String,
    /// Empty without trouble so far.
    pub reason: String,
}

impl Row {
    fn cell(&self, column: Column) -> &str {
        match column {
            Stream => &self.stream,
            Source => &self.source,
            Sink => &self.sink,
            Bitrate => &self.bitrate,
            Dropped => &self.dropped,
            Since => &self.since,
            Server => &self.server,
            Reason => &self.reason,
        }
    }

    fn titles() -> Row {
        let text = str::to_owned;
        Row {
            stream: text("STREAM"),
            source: text("SOURCE"),
            sink: text("SINK"),
            bitrate: text("BITRATE"),
            dropped: text("DROPPED"),
            since: text("SINCE"),
            server: text("SERVER"),
            reason: text("LAST ERROR"),
        }
    }
}

/// Returns the lines of the table, each of at most `width` characters.
pub fn lines(rows: &[Row], width: usize) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let titles = Row::titles();
    let all: Vec<&Row> = std::iter::once(&titles).chain(rows).collect();
    let widest = |column: Column| {
        let widths = all.iter().map(|row| row.cell(column).chars().count());
        widths.max().unwrap_or_default()
    };
    let has_reason = rows.iter().any(|row| !row.reason.is_empty());
    let mut columns = COLUMNS.to_vec();
    if !has_reason {
        columns.retain(|column| *column != Reason);
    }
    let before_reason = |columns: &[Column]| -> usize {
        let others = columns.iter().filter(|column| **column != Reason);
        others.map(|column| widest(*column) + GAP.len()).sum()
    };
    let needed = if has_reason {
        widest(Reason).min(MIN_REASON)
    } else {
        0
    };
    for optional in OPTIONAL {
        if before_reason(&columns) + needed <= width {
            break;
        }
        columns.retain(|column| *column != optional);
    }
    // A column of names that leaves no space is cut too.
    let excess = (before_reason(&columns) + needed).saturating_sub(width);
    let line = |row: &&Row| {
        let mut line = String::new();
        for column in &columns {
            let cell = row.cell(*column);
            let full = match column {
                Reason => cell.chars().count(),
                Stream => widest(Stream).saturating_sub(excess).max(1),
                other => widest(*other),
            };
            let room = width.saturating_sub(line.chars().count());
            let padded = if *column == Reason { 0 } else { full };
            let cell = cut(cell, full.min(room));
            line.push_str(&format!("{cell:padded$}"));
            if *column != Reason {
                line.push_str(GAP);
            }
        }
        cut(line.trim_end(), width)
    };
    all.iter().map(line).collect()
}

/// Returns the start of a text, with a mark where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let start: String = text.chars().take(width.saturating_sub(1)).collect();
    let mark = if width > 0 { "…" } else { "" };
    format!("{start}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stream: &str, reason: &str) -> Row {
        let text = str::to_owned;
        Row {
            stream: text(stream),
            source: text("active"),
            sink: text("connected"),
            bitrate: text("2.0 Mbit/s"),
            dropped: text("3"),
            since: text("04:05:06"),
            server: text("rtmp://second.example/live/ca…"),
            reason: text(reason),
        }
    }

    #[test]
    fn wide_terminals_show_all_columns() {
        let rows = [row("7/main", "Connection refused"), row("8/sub", "")];
        assert_eq!(
            lines(&rows, 120),
            [
                "STREAM  SOURCE  SINK       BITRATE     DROPPED  SINCE     SERVER                          LAST ERROR",
                "7/main  active  connected  2.0 Mbit/s  3        04:05:06  rtmp://second.example/live/ca…  Connection refused",
                "8/sub   active  connected  2.0 Mbit/s  3        04:05:06  rtmp://second.example/live/ca…",
            ]
        );
    }

    #[test]
    fn narrow_terminals_keep_the_reason_in_sight() {
        let rows = [row("7/main", "Connection refused"), row("8/sub", "")];
        for width in 40..120 {
            let lines = lines(&rows, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width));
            let reason = &lines[1];
            if width >= 46 {
                assert!(reason.ends_with("Connection refused"), "{width}: {reason}");
            }
            assert!(reason.contains("Connection"), "{width}: {reason}");
            assert!(lines[0].contains("LAST ERROR"), "{width}");
        }
        assert_eq!(
            lines(&rows, 60)[1],
            "7/main  active  connected  2.0 Mbit/s  Connection refused"
        );
        let long = [row("7/main", &"a reason that is long ".repeat(9))];
        let lines = lines(&long, 80);
        assert!(
            lines[1].contains("connected  2.0 Mbit/s  a reason that is long"),
            "{lines:?}"
        );
        assert!(
            lines[1].ends_with('…') && lines[1].chars().count() == 80,
            "{lines:?}"
        );
    }

    #[test]
    fn long_names_and_tiny_terminals_are_cut() {
        let rows = [row(&"x".repeat(70), "Connection refused")];
        for width in [0, 1, 10, 30, 80] {
            let lines = lines(&rows, width);
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{width}: {lines:?}"
            );
        }
        assert!(lines(&rows, 80)[1].ends_with("Connection refused"));
        assert_eq!(lines(&[], 80), [""; 0]);
    }
}
