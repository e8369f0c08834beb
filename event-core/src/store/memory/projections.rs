//! Projections in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Content, Feed, MemoryStore};
use crate::event::Category;
use crate::partition::Partition;
use crate::projection::{FieldWrite, NotACount, ProjectionWrites, incremented};
use crate::recorded::Position;
use crate::store::{
    Append, AppendError, Appended, AppendedProjected, ApplyError, InlineStep, ProjectionCheckpoint,
    ProjectionId, ProjectionStep, ProjectionVersion, ProjectionVersions, Projections, ServeError,
    StoreError,
};

/// What there is of one projection.
#[derive(Default)]
pub(super) struct ProjectionContent {
    served: Option<u32>,
    versions: BTreeMap<u32, VersionContent>,
}

#[derive(Default)]
struct VersionContent {
    categories: Vec<Category>,
    is_live: bool,
    holder: Option<(String, Instant)>,
    checkpoints: HashMap<Partition, Position>,
    keys: BTreeMap<String, KeyContent>,
}

#[derive(Default)]
struct KeyContent {
    document: Option<String>,
    fields: BTreeMap<String, String>,
}

impl ProjectionContent {
    fn versions(&self) -> ProjectionVersions {
        let known = |(version, content): (&u32, &VersionContent)| {
            let known = ProjectionVersion {
                categories: content.categories.clone(),
                is_live: content.is_live,
            };
            (*version, known)
        };
        ProjectionVersions {
            served: self.served,
            versions: self.versions.iter().map(known).collect(),
        }
    }
}

impl VersionContent {
    fn checkpoint(&self, partition: &Partition) -> Position {
        self.checkpoints.get(partition).copied().unwrap_or_default()
    }

    /// Whether everything can be written.
    fn check(&self, writes: &ProjectionWrites) -> Result<(), NotACount> {
        for (key, of_key) in writes.iter() {
            for (field, write) in &of_key.fields {
                let FieldWrite::Increment(by) = write else {
                    continue;
                };
                let value = self.keys.get(key).and_then(|known| known.fields.get(field));
                if incremented(value.map(String::as_str), *by).is_none() {
                    return Err(NotACount {
                        key: key.to_owned(),
                        field: field.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Writes what was looked at.
    fn write(&mut self, partition: &Partition, to: Position, writes: &ProjectionWrites) {
        for (key, of_key) in writes.iter() {
            if of_key.removed {
                self.keys.remove(key);
            }
            let known = self.keys.entry(key.to_owned()).or_default();
            if let Some(document) = &of_key.document {
                known.document = Some(document.clone());
            }
            for (field, write) in &of_key.fields {
                let value = match write {
                    FieldWrite::Set(value) => Some(value.clone()),
                    FieldWrite::Increment(by) => {
                        let value = known.fields.get(field).map(String::as_str);
                        incremented(value, *by).map(|sum| sum.to_string())
                    }
                    FieldWrite::Remove => None,
                };
                match value {
                    Some(value) => known.fields.insert(field.clone(), value),
                    None => known.fields.remove(field),
                };
            }
            if known.document.is_none() && known.fields.is_empty() {
                self.keys.remove(key);
            }
        }
        self.checkpoints.insert(partition.clone(), to);
    }
}

impl Content {
    fn version_of(&self, id: &ProjectionId) -> Option<&VersionContent> {
        self.projections.get(id.name())?.versions.get(&id.version())
    }

    fn version_of_mut(&mut self, id: &ProjectionId) -> Option<&mut VersionContent> {
        let projection = self.projections.get_mut(id.name())?;
        projection.versions.get_mut(&id.version())
    }

    fn key_of(&self, id: &ProjectionId, key: &str) -> Option<&KeyContent> {
        self.version_of(id)?.keys.get(key)
    }

    /// Which of the projections are at the end of a partition, and may be written.
    pub(super) fn up_to_date(&self, partition: &Partition, inline: &[InlineStep]) -> Vec<bool> {
        // What is trimmed away counts, too: it may not have been taken in.
        let last = self.feeds.get(partition);
        let last = last.map_or(Position::START, Feed::head);
        let may_be_written = |step: &InlineStep| {
            self.version_of(&step.id).is_some_and(|version| {
                version.checkpoint(partition) >= last && version.check(&step.writes).is_ok()
            })
        };
        inline.iter().map(may_be_written).collect()
    }

    /// Writes what an append leads to, as far as that may be, and gives the projections that are behind.
    pub(super) fn project(
        &mut self,
        partition: &Partition,
        appended: &Appended,
        inline: &[InlineStep],
        up_to_date: &[bool],
    ) -> Vec<usize> {
        let all_new = appended.events.iter().all(|event| !event.repeated);
        let mut behind = Vec::new();
        for (index, step) in inline.iter().enumerate() {
            let up_to_date = up_to_date.get(index).is_some_and(|is| *is);
            let projection = self.projections.get(step.id.name());
            let is_read = projection.is_some_and(|one| one.served == Some(step.id.version()));
            match self.version_of_mut(&step.id) {
                Some(version) if up_to_date && all_new => {
                    version.write(partition, appended.position(), &step.writes);
                }
                Some(_) if is_read => behind.push(index),
                _ => {}
            }
        }
        behind
    }
}

impl Content {
    pub(super) fn projection_checkpoints(
        &self,
        partition: &Partition,
    ) -> Vec<ProjectionCheckpoint> {
        let mut checkpoints = Vec::new();
        for (name, projection) in &self.projections {
            for (number, version) in &projection.versions {
                if !version.categories.contains(partition.category()) {
                    continue;
                }
                // It was one when it was opened.
                if let Ok(id) = ProjectionId::new(name.as_str(), *number) {
                    let position = version.checkpoint(partition);
                    checkpoints.push(ProjectionCheckpoint { id, position });
                }
            }
        }
        checkpoints.sort_by(|a, b| a.id.cmp(&b.id));
        checkpoints
    }
}

#[async_trait]
impl Projections for MemoryStore {
    async fn open_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        let mut content = self.content();
        let projections = &mut content.projections;
        let projection = projections.entry(id.name().to_owned()).or_default();
        let is_first = projection.served.is_none();
        let version = projection.versions.entry(id.version()).or_default();
        version.categories = categories.to_vec();
        if is_first {
            version.is_live = true;
            projection.served = Some(id.version());
        }
        Ok(projection.versions())
    }

    async fn open_first_projection(
        &self,
        id: &ProjectionId,
        categories: &[Category],
    ) -> Result<ProjectionVersions, StoreError> {
        {
            let content = self.content();
            if let Some(projection) = content.projections.get(id.name())
                && projection.served.is_some()
                && !projection.versions.contains_key(&id.version())
            {
                return Ok(projection.versions());
            }
        }
        self.open_projection(id, categories).await
    }

    async fn projection_versions(&self, name: &str) -> Result<ProjectionVersions, StoreError> {
        let content = self.content();
        let projection = content.projections.get(name);
        Ok(projection
            .map(ProjectionContent::versions)
            .unwrap_or_default())
    }

    async fn serve_projection(&self, id: &ProjectionId) -> Result<Option<u32>, ServeError> {
        let mut content = self.content();
        let unknown = || ServeError::Unknown { id: id.clone() };
        let projection = content.projections.get_mut(id.name()).ok_or_else(unknown)?;
        let version = projection.versions.get_mut(&id.version());
        version.ok_or_else(unknown)?.is_live = true;
        Ok(projection.served.replace(id.version()))
    }

    async fn switch_projection(&self, id: &ProjectionId, served: u32) -> Result<bool, ServeError> {
        let mut content = self.content();
        let unknown = || ServeError::Unknown { id: id.clone() };
        let projection = content.projections.get_mut(id.name()).ok_or_else(unknown)?;
        let own = projection.versions.get(&id.version()).ok_or_else(unknown)?;
        if projection.served == Some(id.version()) {
            return Ok(true);
        }
        let is_behind = |(partition, checkpoint): (&Partition, &Position)| {
            own.categories.contains(partition.category()) && own.checkpoint(partition) < *checkpoint
        };
        let read = projection.versions.get(&served);
        let is_behind = read.is_some_and(|read| read.checkpoints.iter().any(is_behind));
        if projection.served != Some(served) || is_behind {
            return Ok(false);
        }
        if let Some(own) = projection.versions.get_mut(&id.version()) {
            own.is_live = true;
        }
        projection.served = Some(id.version());
        Ok(true)
    }

    async fn drop_projection(&self, id: &ProjectionId) -> Result<bool, ServeError> {
        let mut content = self.content();
        let Some(projection) = content.projections.get_mut(id.name()) else {
            return Ok(false);
        };
        if projection.served == Some(id.version()) {
            if projection.versions.len() > 1 {
                return Err(ServeError::Served { id: id.clone() });
            }
            projection.served = None;
        }
        Ok(projection.versions.remove(&id.version()).is_some())
    }

    async fn hold_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut content = self.content();
        let projection = content.projections.entry(id.name().to_owned()).or_default();
        let Some(version) = projection.versions.get_mut(&id.version()) else {
            return Ok(false);
        };
        match &version.holder {
            Some((holder, until)) if holder != instance && *until > now => Ok(false),
            _ => {
                version.holder = Some((instance.to_owned(), now + lease));
                Ok(true)
            }
        }
    }

    async fn release_projection(
        &self,
        id: &ProjectionId,
        instance: &str,
    ) -> Result<(), StoreError> {
        let mut content = self.content();
        if let Some(version) = content.version_of_mut(id) {
            version.holder.take_if(|(holder, _)| holder == instance);
        }
        Ok(())
    }

    async fn projection_checkpoint(
        &self,
        id: &ProjectionId,
        partition: &Partition,
    ) -> Result<Position, StoreError> {
        let content = self.content();
        let version = content.version_of(id);
        Ok(version.map_or(Position::START, |version| version.checkpoint(partition)))
    }

    async fn apply_projection(
        &self,
        id: &ProjectionId,
        partition: &Partition,
        step: &ProjectionStep,
    ) -> Result<(), ApplyError> {
        let mut content = self.content();
        let Some(version) = content.version_of_mut(id) else {
            return Err(ApplyError::Unknown { id: id.clone() });
        };
        let checkpoint = version.checkpoint(partition);
        if checkpoint != step.from {
            return Err(ApplyError::Moved { checkpoint });
        }
        let checked = version.check(&step.writes);
        checked.map_err(|NotACount { key, field }| ApplyError::NotACount { key, field })?;
        version.write(partition, step.to, &step.writes);
        Ok(())
    }

    async fn projection_document(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<Option<String>, StoreError> {
        let content = self.content();
        Ok(content
            .key_of(id, key)
            .and_then(|known| known.document.clone()))
    }

    async fn projection_field(
        &self,
        id: &ProjectionId,
        key: &str,
        field: &str,
    ) -> Result<Option<String>, StoreError> {
        let content = self.content();
        let known = content.key_of(id, key);
        Ok(known.and_then(|known| known.fields.get(field).cloned()))
    }

    async fn projection_fields(
        &self,
        id: &ProjectionId,
        key: &str,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let content = self.content();
        let known = content.key_of(id, key);
        Ok(known.map(|known| known.fields.clone()).unwrap_or_default())
    }

    async fn projection_keys(
        &self,
        id: &ProjectionId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let content = self.content();
        let Some(version) = content.version_of(id) else {
            return Ok(Vec::new());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = version.keys.range::<str, _>((from, Bound::Unbounded));
        Ok(keys.take(limit).map(|(key, _)| key.clone()).collect())
    }

    async fn projection_checkpoints(
        &self,
        partition: &Partition,
    ) -> Result<Vec<ProjectionCheckpoint>, StoreError> {
        Ok(self.content().projection_checkpoints(partition))
    }

    async fn entries_after(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<u64, StoreError> {
        let content = self.content();
        Ok(content.feeds.get(partition).map_or(0, |feed| {
            let entries = &feed.entries;
            let passed = entries.partition_point(|(position, _)| *position <= after);
            (entries.len() - passed) as u64
        }))
    }

    fn projects_inline(&self) -> bool {
        true
    }

    async fn append_projected(
        &self,
        append: &Append,
        inline: &[InlineStep],
    ) -> Result<AppendedProjected, AppendError> {
        let (appended, behind) = self.append_and_project(append, inline).await?;
        Ok(AppendedProjected { appended, behind })
    }
}
