use event_core::MAX_AGGREGATE_ID_BYTES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delivery::DeliveryError;
use crate::json::Json;

/// The repository that something happened in, as it was then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Its full name, `OWNER/NAME`.
    pub repository: Option<String>,
    /// The branch that its work comes together in.
    pub default_branch: Option<String>,
    /// Whether only some may see it.
    pub private: Option<bool>,
}

impl Origin {
    pub(super) fn read(payload: Json<'_>) -> Result<Self, DeliveryError> {
        let [full_name, default_branch, private] =
            payload
                .field("repository")
                .fields(["full_name", "default_branch", "private"]);
        let repository = full_name.string().filter(|name| !name.is_empty());
        let bytes = repository.as_deref().map_or(0, str::len);
        if bytes > MAX_AGGREGATE_ID_BYTES {
            return Err(DeliveryError::LongRepository {
                bytes,
                limit: MAX_AGGREGATE_ID_BYTES,
            });
        }
        Ok(Self {
            repository,
            default_branch: default_branch.text(),
            private: private.flag(),
        })
    }

    /// Whether `branch` is the one that the work comes together in.
    pub fn is_default_branch(&self, branch: Option<&str>) -> bool {
        branch.is_some() && branch == self.default_branch.as_deref()
    }

    /// The full name that the repository had before it was renamed or transferred, if it was.
    pub(super) fn previous_name(&self, payload: Json<'_>) -> Option<String> {
        let [repository, owner] = payload.field("changes").fields(["repository", "owner"]);
        let (own_owner, own_name) = self.repository.as_deref()?.split_once('/')?;
        let from = owner.field("from");
        let owner = from
            .at(&["user", "login"])
            .text()
            .or_else(|| from.at(&["organization", "login"]).text());
        let name = repository.at(&["name", "from"]).text();
        let previous = format!(
            "{}/{}",
            owner.as_deref().unwrap_or(own_owner),
            name.as_deref().unwrap_or(own_name)
        );
        let differs = self.repository.as_deref() != Some(&previous);
        (differs && previous.len() <= MAX_AGGREGATE_ID_BYTES).then_some(previous)
    }
}
