use std::collections::BTreeMap;

use event_core::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::delivery::DeliveryError;
use crate::json::Json;

/// How many bytes the files may take in an event as JSON, so that it stays below what a store takes.
const MAX_FILES_BYTES: usize = 512 * 1024;

/// The most bytes that the counts of one file take as JSON.
const COUNTS_BYTES: usize = 64;

/// How GitHub writes that there is no commit.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// Commits came to a branch, or a branch or a tag was made, moved or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Event)]
#[event("github.push", key = repository)]
pub struct GithubPush {
    /// The repository's full name.
    pub repository: String,
    /// The branch that its work comes together in.
    pub default_branch: Option<String>,
    /// Whether only some may see it.
    pub private: Option<bool>,
    /// What was pushed to: `refs/heads/main`, `refs/tags/v1`.
    pub reference: String,
    /// The commit that it is at now; none where it was removed.
    pub head: Option<String>,
    /// The number of commits.
    pub commits: u32,
    /// What the commits did to each file, by path.
    #[serde(default)]
    pub files: BTreeMap<String, FileChanges>,
    /// How many more files are not named here, since there are too many.
    #[serde(default)]
    pub files_left_out: u32,
}

/// How many commits of a push did what to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChanges {
    /// How many added it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub added: u32,
    /// How many changed it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub modified: u32,
    /// How many removed it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u32,
}

// The signature is serde's.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl FileChanges {
    /// How many commits touched it.
    pub fn total(self) -> u32 {
        self.added + self.modified + self.removed
    }
}

impl GithubPush {
    /// The repository it was pushed to.
    pub fn origin(&self) -> Origin {
        Origin {
            repository: Some(self.repository.clone()),
            default_branch: self.default_branch.clone(),
            private: self.private,
        }
    }

    /// The branch, if it was one and still is there.
    pub fn branch(&self) -> Option<&str> {
        self.head.as_ref()?;
        self.reference.strip_prefix("refs/heads/")
    }
}

pub(super) fn read(origin: Origin, payload: Json<'_>) -> Result<GithubPush, DeliveryError> {
    let repository = origin
        .repository
        .ok_or_else(|| DeliveryError::NoRepository {
            name: "push".to_owned(),
        })?;
    let [reference, head, commits] = payload.fields(["ref", "after", "commits"]);
    let mut push = GithubPush {
        repository,
        default_branch: origin.default_branch,
        private: origin.private,
        reference: reference.text().unwrap_or_default(),
        head: head.text().filter(|head| head != NO_COMMIT),
        ..GithubPush::default()
    };
    let mut files_bytes = 0;
    commits.each(|commit| {
        push.commits += 1;
        let [added, modified, removed] = commit.fields(["added", "modified", "removed"]);
        let mut count = |paths: Json<'_>, change: fn(&mut FileChanges) -> &mut u32| {
            paths.each(|path| {
                let Some(path) = path.text() else { return };
                if let Some(file) = push.files.get_mut(&path) {
                    *change(file) += 1;
                    return;
                }
                let bytes = json_bytes(&path) + COUNTS_BYTES;
                if files_bytes + bytes > MAX_FILES_BYTES {
                    push.files_left_out += 1;
                    return;
                }
                files_bytes += bytes;
                *change(push.files.entry(path).or_default()) += 1;
            });
        };
        count(added, |file| &mut file.added);
        count(modified, |file| &mut file.modified);
        count(removed, |file| &mut file.removed);
    });
    Ok(push)
}

/// How many bytes a text takes as JSON: some characters must be escaped.
fn json_bytes(text: &str) -> usize {
    let escaped = |c: char| if c.is_control() { 6 } else { c.len_utf8() + 1 };
    text.chars().map(escaped).sum()
}
