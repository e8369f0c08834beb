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
    /// Our figure, as a part of the ceiling's.
    ratio: Bound,
    /// Our figure itself, where that matters, too.
    value: Option<Bound>,
}

impl Reach {
    pub(crate) fn ratio(ratio: Bound) -> Self {
        Self { ratio, value: None }
    }

    pub(crate) fn and_value(mut self, value: Bound) -> Self {
        self.value = Some(value);
        self
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    ceiling: f64,
    ratio: f64,
    /// What is wanted is this program's business, not that of who reads the figures.
    #[serde(skip)]
    reach: String,
    #[serde(skip)]
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
            "{:<15} {:>11} {:>11} {:<11} {:>6}  {:<3} reach",
            "row", "ours", "ceiling", "unit", "ratio", "met"
        );
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, sides: Sides, reach: Reach) {
        let ratio = sides.ours / sides.ceiling;
        let mut text = reach.ratio.to_string();
        if let Some(value) = reach.value {
            text.push_str(&format!(" and {value} {unit}"));
        }
        let row = Row {
            name: name.to_owned(),
            value: rounded(sides.ours),
            unit,
            ceiling: rounded(sides.ceiling),
            ratio: (ratio * 1_000.0).round() / 1_000.0,
            ok: reach.ratio.is_met_by(ratio)
                && reach.value.is_none_or(|bound| bound.is_met_by(sides.ours)),
            reach: text,
        };
        println!("{row}");
        self.rows.push(row);
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
        write!(
            f,
            "{:<15} {:>11} {:>11} {:<11} {:>6.3}  {:<3} {}",
            self.name,
            self.value,
            self.ceiling,
            self.unit,
            self.ratio,
            if self.ok { "yes" } else { "NO" },
            self.reach,
        )
    }
}
