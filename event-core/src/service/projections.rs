//! The projections of a service.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::graph::{Mistake, check_patterns};
use super::{Service, ServiceBuilder};
use crate::event::{Category, Declared};
use crate::pattern::Pattern;
use crate::projection::{
    Filled, InlineProjection, InlineStore, LONGEST_PAUSE, Projection, ProjectionDefinition,
    ProjectionError, ProjectionRunner, ProjectionSink, ProjectionView, Rebuild, Registered,
    SharedDefinition, Target, TargetKind, WaitError, pauses,
};
use crate::store::{Backend, EventStore, InvalidProjectionName, ProjectionId, ServeError};
use crate::token::Token;

/// How long an append waits for an inline projection that was behind.
pub(super) const INLINE_TIMEOUT: Duration = Duration::from_secs(5);

/// A projection as it was given to the builder.
pub(super) enum Registration {
    Stored(SharedDefinition),
    Sink {
        name: String,
        version: u32,
        patterns: Vec<String>,
        sink: Arc<dyn ProjectionSink>,
    },
}

impl ServiceBuilder {
    /// Fills a [projection](mod@crate::projection) while the service runs: a little behind the events, and
    /// whoever has stored them. Any number of instances may have it; one of them works.
    ///
    /// Two versions of one projection may be there: the newer one waits for a
    /// [rebuild](Service::rebuild).
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        let definition = ProjectionDefinition::new(projection, Filled::Behind);
        self.projections
            .push(Registration::Stored(Arc::new(definition)));
        self
    }

    /// Fills a [projection](mod@crate::projection) with the appends of this service: what
    /// [`publish`](Service::publish), the [`Publisher`](crate::Publisher) and repositories of the service
    /// store is in the state as soon as it is stored. What handlers emit, and what other programs store,
    /// comes a little later, as with [`projection`](Self::projection); an append that finds the state
    /// behind waits until it is not.
    ///
    /// All events of the projection must lie on one server: on a cluster it is a mistake.
    pub fn inline_projection<P: Projection>(mut self, projection: P) -> Self {
        let definition = ProjectionDefinition::new(projection, Filled::Inline);
        self.projections
            .push(Registration::Stored(Arc::new(definition)));
        self
    }

    /// How long an append waits for an inline projection that was behind; 5 s by default. Then it is
    /// [`AppendError::NotProjected`](crate::AppendError::NotProjected), with the events stored.
    pub fn inline_timeout(mut self, timeout: Duration) -> Self {
        self.inline_timeout = timeout;
        self
    }

    /// Hands the events that match some patterns to a database of one's own: see [`ProjectionSink`]. Under
    /// this name and version the store knows how far it is. A new version is filled at once, beside the old
    /// one; [`serve_projection`](crate::Projections::serve_projection) says that it is the one to wait
    /// for.
    pub fn projection_sink<N: Into<String>>(
        mut self,
        name: impl Into<String>,
        version: u32,
        patterns: impl IntoIterator<Item = N>,
        sink: impl ProjectionSink,
    ) -> Self {
        self.projections.push(Registration::Sink {
            name: name.into(),
            version,
            patterns: patterns.into_iter().map(Into::into).collect(),
            sink: Arc::new(sink),
        });
        self
    }
}

impl Registration {
    fn name(&self) -> &str {
        match self {
            Registration::Stored(definition) => definition.name,
            Registration::Sink { name, .. } => name,
        }
    }

    fn version(&self) -> u32 {
        match self {
            Registration::Stored(definition) => definition.version,
            Registration::Sink { version, .. } => *version,
        }
    }

    fn check(&self, backend: &dyn Backend, mistakes: &mut Vec<Mistake>) {
        let name = self.name();
        match self {
            Registration::Sink { patterns, .. } => {
                check_patterns(name, patterns, &Declared::Anything, false, mistakes);
            }
            Registration::Stored(definition) => {
                if definition.methods.is_empty() {
                    let handler = name.to_owned();
                    mistakes.push(Mistake::ReactsToNothing { handler });
                }
                for method in &definition.methods {
                    check_patterns(&method.name, &method.on, &method.covers, false, mistakes);
                    let takes_any = matches!(method.covers, Declared::Anything);
                    if definition.filled == Filled::Inline && takes_any {
                        mistakes.push(Mistake::InlineRecorded {
                            method: method.name.clone(),
                        });
                    }
                }
                if definition.filled == Filled::Inline && !backend.projects_inline() {
                    mistakes.push(Mistake::InlineElsewhere {
                        projection: name.to_owned(),
                    });
                }
            }
        }
    }
}

/// Checks the projections of a service, and makes what fills them.
pub(super) fn build(
    registrations: Vec<Registration>,
    backend: &Arc<dyn Backend>,
    instance: &str,
    lease: Duration,
    mistakes: &mut Vec<Mistake>,
) -> ProjectionRunner {
    let mut known = BTreeSet::new();
    let mut projections = Vec::new();
    for registration in registrations {
        registration.check(&**backend, mistakes);
        let id = match ProjectionId::new(registration.name(), registration.version()) {
            Ok(id) => id,
            Err(InvalidProjectionName { name }) => {
                mistakes.push(Mistake::InvalidProjectionName { name });
                continue;
            }
        };
        if !known.insert(id.clone()) {
            mistakes.push(Mistake::DuplicateProjection {
                projection: id.to_string(),
            });
        }
        let (categories, filled, kind): (Vec<Category>, _, _) = match registration {
            Registration::Stored(definition) => (
                definition.categories(),
                definition.filled,
                TargetKind::Stored(definition),
            ),
            Registration::Sink { patterns, sink, .. } => {
                let patterns: Vec<Pattern> =
                    patterns.iter().filter_map(|p| p.parse().ok()).collect();
                let categories: BTreeSet<_> =
                    patterns.iter().filter_map(Pattern::category).collect();
                let kind = TargetKind::Sink(sink, patterns.into());
                (categories.into_iter().collect(), Filled::Behind, kind)
            }
        };
        let target = Target {
            backend: Arc::clone(backend),
            id,
            categories: categories.into(),
            kind,
        };
        projections.push(Registered::new(target, filled));
    }
    ProjectionRunner {
        projections,
        instance: instance.to_owned(),
        lease,
    }
}

/// The store that the service's own appends go to.
pub(super) fn appending(
    runner: &ProjectionRunner,
    backend: &Arc<dyn Backend>,
    timeout: Duration,
) -> Arc<dyn EventStore> {
    let inline = runner.projections.iter();
    let inline = inline.filter(|projection| projection.filled == Filled::Inline);
    let projections: Vec<_> = inline
        .filter_map(|projection| InlineProjection::new(projection.target.clone()))
        .collect();
    if projections.is_empty() {
        return Arc::clone(backend) as Arc<dyn EventStore>;
    }
    Arc::new(InlineStore {
        backend: Arc::clone(backend),
        projections,
        timeout,
    })
}

impl Service {
    /// The store that its own appends go to, with its inline projections.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.inner.store
    }

    /// Reads a projection, be it one of this service or of others on the same store.
    ///
    /// # Errors
    /// [`InvalidProjectionName`] where it is no name for a projection.
    pub fn projection(&self, name: &str) -> Result<ProjectionView, InvalidProjectionName> {
        ProjectionView::of(Arc::clone(&self.inner.backend), name)
    }

    /// Rebuilds a projection: the newest version that this service has is filled beside the one that is
    /// read, and then takes its place. Where it was begun before, it goes on.
    ///
    /// # Errors
    /// [`ProjectionError::NotRegistered`] where the service has none of that name in the store;
    /// [`ProjectionError::NothingToRebuild`] where its newest version is the one that is read.
    pub async fn rebuild(&self, name: &str) -> Result<Rebuild, ProjectionError> {
        let runner = &self.inner.projections;
        let newest = runner
            .newest(name)
            .filter(|newest| !newest.target.is_sink());
        let target = newest.map(|newest| newest.target.clone());
        let target = target.ok_or_else(|| ProjectionError::NotRegistered {
            name: name.to_owned(),
        })?;
        let backend = &self.inner.backend;
        if backend.served_projection(name).await? == Some(target.id.version()) {
            return Err(ProjectionError::NothingToRebuild { id: target.id });
        }
        backend
            .open_projection(&target.id, &target.categories)
            .await?;
        let instance = format!(
            "{}/rebuild-{}",
            runner.instance,
            uuid::Uuid::now_v7().simple()
        );
        Ok(Rebuild::new(target, instance, runner.lease))
    }

    /// Removes a version of a projection with all its state, once another one is read, or where it is the last
    /// one; `false` where there was none. A service that still has it registered begins it anew when it is run
    /// again.
    ///
    /// # Errors
    /// [`ServeError::Served`] where it is the version that is read, and there are others.
    pub async fn drop_projection(&self, name: &str, version: u32) -> Result<bool, ProjectionError> {
        let id = ProjectionId::new(name, version).map_err(|_| ProjectionError::NotRegistered {
            name: name.to_owned(),
        })?;
        let dropped = self.inner.backend.drop_projection(&id).await;
        dropped.map_err(|error: ServeError| error.into())
    }

    /// Waits until the handlers of its group that take events in order are through with everything that
    /// the token says, whichever instance runs them. Categories that they do not read are not waited for, and
    /// neither are partitions that there are not.
    ///
    /// # Errors
    /// [`WaitError::Behind`] where they are not within `timeout`.
    pub async fn wait_until_handled(
        &self,
        token: &Token,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let subscription = &self.inner.subscription;
        let begun = Instant::now();
        let mut pauses = pauses();
        for (partition, wanted) in token.iter() {
            // A token comes from outside, and may name what there is not.
            let count = self.inner.backend.partitions(partition.category());
            if !subscription.reads(partition.category()) || partition.number() >= count.await? {
                continue;
            }
            loop {
                let progress = subscription.progress(partition).await?;
                let is_open = progress.open.iter().any(|open| open.position <= wanted);
                if progress.checkpoint >= wanted || progress.reached >= wanted && !is_open {
                    break;
                }
                let left = timeout.saturating_sub(begun.elapsed());
                if left.is_zero() {
                    return Err(WaitError::Behind {
                        group: subscription.group().to_owned(),
                        partition: partition.clone(),
                        reached: progress.checkpoint,
                        wanted,
                        waited: timeout,
                    });
                }
                sleep(pauses.next().unwrap_or(LONGEST_PAUSE).min(left)).await;
            }
        }
        Ok(())
    }
}
