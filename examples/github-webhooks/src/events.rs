//! What the handlers announce, to whoever wants to know.

use event_core::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analyzer::Analysis;
use crate::phase::Phase;

/// A push was analyzed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("repository.analyzed", key = repository)]
pub struct RepositoryAnalyzed {
    /// The repository's full name.
    pub repository: String,
    /// What was pushed to: `refs/heads/main`.
    pub reference: String,
    /// The commit that was analyzed; none where the branch was removed.
    pub head: Option<String>,
    /// What the push says about the code.
    #[serde(flatten)]
    pub analysis: Analysis,
}

/// A version of a package can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("package.published", key = name)]
pub struct PackagePublished {
    /// The package's name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// The kind of package: `npm`, `container`, ….
    pub ecosystem: Option<String>,
    /// The repository it was made from, if any.
    pub repository: Option<String>,
}

/// A repository has come to another phase of its life cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("sdlc.phase.changed", key = repository)]
pub struct PhaseChanged {
    /// The repository's full name.
    pub repository: String,
    /// Where it was; unknown at first.
    pub from: Option<Phase>,
    /// Where it is now.
    pub to: Phase,
    /// What told.
    pub because: String,
}
