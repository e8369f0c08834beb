//! The rows: what came out, and whether it is what is wanted.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::rounds::Sides;

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(bound) => write!(f, "≥ {bound}"),
            Bound::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// What a row has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Our figure, as a part of the ceiling's, where that matters.
    ratio: Option<Bound>,
    /// Our figure itself, where that matters.
    value: Option<Bound>,
}

impl Reach {
    pub(crate) fn ratio(ratio: Bound) -> Self {
        Self {
            ratio: Some(ratio),
            value: None,
        }
    }

    pub(crate) fn value(value: Bound) -> Self {
        Self {
            ratio: None,
            value: Some(value),
        }
    }

    pub(crate) fn and_value(mut self, value: Bound) -> Self {
        self.value = Some(value);
        self
    }

    fn is_met_by(self, ratio: f64, value: f64) -> bool {
        self.ratio.is_none_or(|bound| bound.is_met_by(ratio))
            && self.value.is_none_or(|bound| bound.is_met_by(value))
    }

    fn text(self, unit: &str) -> String {
        let ratio = self.ratio.map(|bound| bound.to_string());
        let value = self.value.map(|bound| format!("{bound} {unit}"));
        let bounds: Vec<_> = ratio.into_iter().chain(value).collect();
        bounds.join(" and ")
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// `None` where there is nothing to compare with.
    ceiling: Option<f64>,
    ratio: Option<f64>,
    /// What is wanted is this program's business, not that of who reads the figures. `None` where
    /// nothing is.
    #[serde(skip)]
    wanted: Option<Wanted>,
}

/// What a row had to reach.
struct Wanted {
    reach: String,
    ok: bool,
}

/// All rows.
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Begins the table, to which rows are added as they come.
    pub(crate) fn begin() -> Self {
        println!(
            "{:<16} {:>11} {:>11} {:<11} {:>6}  {:<3} reach",
            "row", "ours", "ceiling", "unit", "ratio", "met"
        );
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, sides: Sides, reach: Reach) {
        let ratio = sides.ours / sides.ceiling;
        self.push(Row {
            name: name.to_owned(),
            value: rounded(sides.ours),
            unit,
            ceiling: Some(rounded(sides.ceiling)),
            ratio: Some((ratio * 1_000.0).round() / 1_000.0),
            wanted: Some(Wanted {
                reach: reach.text(unit),
                ok: reach.is_met_by(ratio, sides.ours),
            }),
        });
    }

    /// Adds a row that stands alone: without a ceiling, and without anything that it must reach.
    pub(crate) fn add_alone(&mut self, name: &str, unit: &'static str, value: f64) {
        self.push(Row {
            name: name.to_owned(),
            value: rounded(value),
            unit,
            ceiling: None,
            ratio: None,
            wanted: None,
        });
    }

    fn push(&mut self, row: Row) {
        println!("{row}");
        self.rows.push(row);
    }

    /// Says more about the row before.
    pub(crate) fn note(&self, note: &str) {
        println!("{:<16} {note}", "");
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(&self.rows)?;
        json.push('\n');
        fs::write(path, json).with_context(|| format!("cannot write {path:?}"))
    }
}

/// To what can be told apart: whole numbers where there are many, else thousandths.
fn rounded(value: f64) -> f64 {
    if value >= 1_000.0 {
        value.round()
    } else {
        (value * 1_000.0).round() / 1_000.0
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:>11} ", self.name, self.value)?;
        match self.ceiling {
            Some(ceiling) => write!(f, "{ceiling:>11}")?,
            None => write!(f, "{:>11}", "-")?,
        }
        write!(f, " {:<11} ", self.unit)?;
        match self.ratio {
            Some(ratio) => write!(f, "{ratio:>6.3}")?,
            None => write!(f, "{:>6}", "-")?,
        }
        match &self.wanted {
            Some(Wanted { reach, ok }) => {
                write!(f, "  {:<3} {reach}", if *ok { "yes" } else { "NO" })
            }
            None => Ok(()),
        }
    }
}
