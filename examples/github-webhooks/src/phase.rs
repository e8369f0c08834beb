//! Phases: where a repository stands in the life cycle of its software.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a repository stands: plan → build → test → release, and again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is talked about what to do.
    Plan,
    /// Work comes together on the default branch.
    Build,
    /// Workflows run on what was built.
    Test,
    /// It can be had.
    Release,
}

impl Phase {
    /// Whether this phase can follow another. What was not built cannot be tested, and what was not
    /// tested cannot be released; back to an earlier phase leads every way but from work to plans.
    pub fn can_follow(self, previous: Phase) -> bool {
        matches!(
            (previous, self),
            (Phase::Plan, Phase::Build)
                | (Phase::Build, Phase::Test)
                | (Phase::Test, Phase::Build | Phase::Release)
                | (Phase::Release, Phase::Plan | Phase::Build | Phase::Test)
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Plan => "plan",
            Phase::Build => "build",
            Phase::Test => "test",
            Phase::Release => "release",
        })
    }
}
