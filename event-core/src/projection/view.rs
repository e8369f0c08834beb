//! Reading projections.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::error::ProjectionError;
use crate::recorded::Position;
use crate::store::{Backend, InvalidProjectionName, ProjectionId, ProjectionVersions};
use crate::token::Token;

/// Reads a projection: the version that is served, or one that is named. Made by
/// [`Service::projection`](crate::Service::projection), or on any store.
///
/// ```
/// # use event_core::prelude::*;
/// # use event_core::{ProjectionView, Token};
/// # use std::time::Duration;
/// # async fn show(service: Service, token: Token) -> Result<(), BoxError> {
/// let pushes = service.projection("pushes")?;
/// // What the token was given for is in what is read now:
/// pushes.wait_for(&token, Duration::from_secs(2)).await?;
/// let commits = pushes.count("octo/hello", "commits").await?;
/// let by: Option<String> = pushes.field("octo/hello", "by").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProjectionView {
    backend: Arc<dyn Backend>,
    /// Its version counts only where one is named.
    id: ProjectionId,
    version: Option<u32>,
}

impl ProjectionView {
    /// Reads the projection of this name in a store.
    ///
    /// # Errors
    /// [`InvalidProjectionName`] where it is no name for a projection.
    pub fn new(store: impl Backend, name: &str) -> Result<Self, InvalidProjectionName> {
        Self::of(Arc::new(store), name)
    }

    pub(crate) fn of(backend: Arc<dyn Backend>, name: &str) -> Result<Self, InvalidProjectionName> {
        Ok(Self {
            backend,
            id: ProjectionId::new(name, 0)?,
            version: None,
        })
    }

    /// The name of the projection.
    pub fn name(&self) -> &str {
        self.id.name()
    }

    /// Reads this version, be it served or not.
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// The version that is read.
    ///
    /// # Errors
    /// [`ProjectionError::NotServed`] where there is none.
    pub async fn served(&self) -> Result<u32, ProjectionError> {
        Ok(self.served_id().await?.version())
    }

    /// The versions that there are.
    ///
    /// # Errors
    /// [`ProjectionError::Store`] where the store does not answer.
    pub async fn versions(&self) -> Result<ProjectionVersions, ProjectionError> {
        Ok(self.backend.projection_versions(self.id.name()).await?)
    }

    async fn served_id(&self) -> Result<ProjectionId, ProjectionError> {
        let version = match self.version {
            Some(version) => version,
            None => {
                let served = self.backend.served_projection(self.id.name()).await?;
                served.ok_or_else(|| ProjectionError::NotServed {
                    name: self.id.name().to_owned(),
                })?
            }
        };
        Ok(self.id.with_version(version))
    }

    /// The document of a key; `None` where it has none.
    ///
    /// # Errors
    /// [`ProjectionError::Form`] where it is no `T`.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ProjectionError> {
        let id = self.served_id().await?;
        let document = self.backend.projection_document(&id, key).await?;
        document.map(|text| self.read(key, &text)).transpose()
    }

    /// A field of a key; `None` where it has none.
    ///
    /// # Errors
    /// [`ProjectionError::Form`] where it is no `T`.
    pub async fn field<T: DeserializeOwned>(
        &self,
        key: &str,
        field: &str,
    ) -> Result<Option<T>, ProjectionError> {
        let id = self.served_id().await?;
        let value = self.backend.projection_field(&id, key, field).await?;
        value.map(|text| self.read(key, &text)).transpose()
    }

    /// All fields of a key.
    ///
    /// # Errors
    /// [`ProjectionError::Form`] where one is no `T`.
    pub async fn fields<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<BTreeMap<String, T>, ProjectionError> {
        let id = self.served_id().await?;
        let fields = self.backend.projection_fields(&id, key).await?;
        let read = |(field, text): (String, String)| Ok((field, self.read(key, &text)?));
        fields.into_iter().map(read).collect()
    }

    /// What a field counts; 0 where nothing was counted.
    ///
    /// # Errors
    /// [`ProjectionError::Form`] where it is no whole number.
    pub async fn count(&self, key: &str, field: &str) -> Result<i64, ProjectionError> {
        Ok(self.field(key, field).await?.unwrap_or_default())
    }

    /// At most `limit` of the keys, in the order of their bytes, from behind `after` on.
    ///
    /// # Errors
    /// [`ProjectionError::Store`] where the store does not answer.
    pub async fn keys(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, ProjectionError> {
        let id = self.served_id().await?;
        Ok(self.backend.projection_keys(&id, after, limit).await?)
    }

    /// Waits until everything that the token says is in the state. Categories that the projection is not
    /// made of are not waited for.
    ///
    /// # Errors
    /// [`ProjectionError::Behind`] where it is not within `timeout`: by how much, it says.
    pub async fn wait_for(&self, token: &Token, timeout: Duration) -> Result<(), ProjectionError> {
        let begun = Instant::now();
        let mut pauses = pauses();
        let all = || token.iter().map(|(p, at)| (p.clone(), at)).collect();
        let mut missing: Vec<_> = all();
        let mut asked: Option<ProjectionId> = None;
        loop {
            let mut reached = Position::START;
            match self.served_id().await {
                Ok(id) => {
                    // What another version has, this one may not have.
                    if asked.as_ref() != Some(&id) {
                        missing = all();
                        asked = Some(id.clone());
                    }
                    let versions = self.backend.projection_versions(id.name()).await?;
                    let known = versions.versions.get(&id.version());
                    if let Some(known) = known {
                        missing.retain(|(p, _)| known.categories.contains(p.category()));
                    }
                    while let Some((partition, wanted)) = missing.last() {
                        reached = self.backend.projection_checkpoint(&id, partition).await?;
                        if reached < *wanted {
                            break;
                        }
                        missing.pop();
                    }
                    if missing.is_empty() && self.served_id().await? != id {
                        continue;
                    }
                }
                Err(ProjectionError::NotServed { .. }) => {}
                Err(error) => return Err(error),
            }
            let Some((partition, wanted)) = missing.last() else {
                return Ok(());
            };
            if begun.elapsed() >= timeout {
                return Err(ProjectionError::Behind {
                    name: self.id.name().to_owned(),
                    partition: partition.clone(),
                    reached,
                    wanted: *wanted,
                    waited: timeout,
                });
            }
            let left = timeout.saturating_sub(begun.elapsed());
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE).min(left)).await;
        }
    }

    fn read<T: DeserializeOwned>(&self, key: &str, text: &str) -> Result<T, ProjectionError> {
        serde_json::from_str(text).map_err(|source| ProjectionError::Form {
            name: self.id.name().to_owned(),
            key: key.to_owned(),
            source,
        })
    }
}

impl fmt::Debug for ProjectionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionView")
            .field("name", &self.id.name())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How long to wait at most before looking again.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait before looking again.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}
