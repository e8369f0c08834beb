//! Reports: what an ingest has led to, as JSON or for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use event_core::{Loaded, Version};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use crate::repository::{GithubRepository, PullRequestState};

/// What an ingest has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many deliveries there were.
    pub deliveries: u64,
    /// How many were taken in, those that had been before included.
    pub accepted: u64,
    /// The others, with the reason for each.
    pub rejected: Vec<Rejected>,
    /// The events that were stored meanwhile, by type: none where all deliveries had been taken in
    /// before.
    pub events: BTreeMap<String, u64>,
    /// The repositories that the deliveries spoke of, by name, as they are now.
    pub repositories: BTreeMap<String, RepositoryReport>,
}

/// A line that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its number, counted from 1.
    pub line: u64,
    /// Why not.
    pub reason: String,
}

/// A repository, rebuilt from its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepositoryReport {
    /// The number of events it is made of.
    pub version: Version,
    /// What is known of it.
    #[serde(flatten, serialize_with = "told")]
    pub state: GithubRepository,
}

/// What a user is told of a repository: not which commands it has decided on.
fn told<S: Serializer>(state: &GithubRepository, serializer: S) -> Result<S::Ok, S::Error> {
    let mut told = serde_json::to_value(state).map_err(S::Error::custom)?;
    if let Some(fields) = told.as_object_mut() {
        fields.remove("commands");
    }
    told.serialize(serializer)
}

impl RepositoryReport {
    /// Reports a repository as it was loaded.
    pub fn of(loaded: Loaded<GithubRepository>) -> Self {
        Self {
            version: loaded.version,
            state: loaded.state,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} deliveries: {} accepted, {} rejected",
            self.deliveries,
            self.accepted,
            self.rejected.len()
        )?;
        for rejected in &self.rejected {
            writeln!(
                f,
                "  line {}: {}",
                rejected.line,
                printable(&rejected.reason)
            )?;
        }
        let stored: u64 = self.events.values().sum();
        writeln!(f, "\n{stored} new events")?;
        let mut events = Table::default();
        for (event_type, count) in &self.events {
            events.row([event_type.clone(), count.to_string()]);
        }
        events.fmt(f)?;
        writeln!(f, "\n{} repositories", self.repositories.len())?;
        let mut repositories = Table::default();
        if !self.repositories.is_empty() {
            let head = [
                "",
                "version",
                "phase",
                "open PRs",
                "merged",
                "open issues",
                "refused",
            ];
            repositories.row(head.map(str::to_owned));
        }
        for (name, RepositoryReport { version, state }) in &self.repositories {
            let count = |wanted: PullRequestState| {
                let found = state
                    .pull_requests
                    .values()
                    .filter(|state| **state == wanted);
                found.count().to_string()
            };
            repositories.row([
                printable(name),
                version.to_string(),
                state
                    .phase
                    .map_or_else(|| "–".to_owned(), |phase| phase.to_string()),
                count(PullRequestState::Open),
                count(PullRequestState::Merged),
                state.open_issues.len().to_string(),
                state.refusals.to_string(),
            ]);
        }
        repositories.fmt(f)
    }
}

impl fmt::Display for RepositoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        let mut facts = Table::default();
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                facts.row([name.to_owned(), value]);
            }
        };
        let word = |word: &Option<String>| word.as_deref().map(printable).unwrap_or_default();
        let pairs = |pairs: &BTreeMap<String, String>| {
            list(pairs.iter().map(|(name, value)| format!("{name} {value}")))
        };
        let pull_requests = |wanted: PullRequestState| {
            let found = state
                .pull_requests
                .iter()
                .filter(|(_, state)| **state == wanted);
            list(found.map(|(number, _)| format!("#{number}")))
        };
        fact(
            "phase",
            state
                .phase
                .map(|phase| phase.to_string())
                .unwrap_or_default(),
        );
        fact("default branch", word(&state.default_branch));
        fact("commits", state.commits.to_string());
        fact("heads", pairs(&state.heads));
        fact("open PRs", pull_requests(PullRequestState::Open));
        fact("merged PRs", pull_requests(PullRequestState::Merged));
        fact("closed PRs", pull_requests(PullRequestState::Closed));
        fact(
            "open issues",
            list(state.open_issues.iter().map(|number| format!("#{number}"))),
        );
        fact("releases", list(state.releases.iter().cloned()));
        fact("packages", pairs(&state.packages));
        fact("checks", pairs(&state.checks));
        fact("private", state.private.map(yes).unwrap_or_default());
        fact("archived", yes(state.archived));
        fact("deleted", yes(state.deleted));
        fact("called now", word(&state.moved_to));
        fact("called before", list(state.previous_names.iter().cloned()));
        fact("refused", state.refusals.to_string());
        let name = word(&state.name);
        writeln!(f, "{name}, version {}", self.version)?;
        facts.fmt(f)
    }
}

/// `yes`, or nothing.
fn yes(flag: bool) -> String {
    if flag {
        "yes".to_owned()
    } else {
        String::new()
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    printable(&items.collect::<Vec<_>>().join(", "))
}

/// A text without control characters: names and reasons come from strangers, and a terminal obeys.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut printable, c| {
            if c.is_control() {
                printable.extend(c.escape_default());
            } else {
                printable.push(c);
            }
            printable
        })
}

fn is_number(cell: &str) -> bool {
    cell.bytes().all(|byte| byte.is_ascii_digit())
}

/// Rows whose columns stand below each other, those of numbers to the right.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let columns: Vec<(usize, bool)> = (0..columns)
            .map(|column| {
                let cells = || self.rows.iter().filter_map(|row| row.get(column));
                let width = cells().map(|cell| cell.chars().count()).max();
                // The first row may be the head.
                let of_numbers = cells()
                    .skip(1)
                    .chain(cells().next_back())
                    .all(|cell| is_number(cell));
                (width.unwrap_or_default(), of_numbers)
            })
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &(width, of_numbers)) in row.iter().zip(&columns) {
                if of_numbers {
                    write!(line, "  {cell:>width$}")?;
                } else {
                    write!(line, "  {cell:width$}")?;
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::default();
        table.row(["a".to_owned(), "1".to_owned(), "x".to_owned()]);
        table.row(["bcd".to_owned(), "10".to_owned(), "yz".to_owned()]);
        assert_eq!(table.to_string(), "  a     1  x\n  bcd  10  yz\n");
        assert_eq!(Table::default().to_string(), "");
    }

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(printable("o\u{1b}[2Jü\n"), "o\\u{1b}[2Jü\\n");
    }

    #[test]
    fn the_document_has_its_fields() {
        let mut report = Report::default();
        let mut state = GithubRepository::default();
        state.name = Some("octo-team/hello".into());
        let repository = RepositoryReport { version: 3, state };
        report
            .repositories
            .insert("octo-team/hello".into(), repository);
        report.rejected.push(Rejected {
            line: 7,
            reason: "odd".into(),
        });
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["rejected"],
            serde_json::json!([{"line": 7, "reason": "odd"}])
        );
        assert_eq!(json["repositories"]["octo-team/hello"]["version"], 3);
        assert_eq!(
            json["repositories"]["octo-team/hello"]["pull_requests"],
            serde_json::json!({})
        );
        let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            fields,
            [
                "accepted",
                "deliveries",
                "events",
                "rejected",
                "repositories"
            ]
        );
    }
}
