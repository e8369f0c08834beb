//! What is put together: the services on a store, the bridge, the caches. Everything that answers a client
//! has it.

use std::sync::Arc;
use std::time::Duration;

use event_core::projection::ProjectionView;
use event_core::{
    Backend, BoxError, Category, Health, ProjectionError, Repository, Service, ServiceError, Token,
};
use event_graphql::{EventSubscriptionBridge, Listening};
use github_webhooks::analyzer::PathAnalyzer;
use github_webhooks::repository::GithubRepository;
use github_webhooks::service;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ai::{Contexts, ai_agent};
use crate::correlation::{CorrelationIndex, Correlations};
use crate::feeds;
use crate::names::RepositoryNames;
use crate::repositories::{ByRepository, Repositories, RepositoryLoader};
use crate::sample::Sample;
use event_graphql::LoaderCache;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long after one delivery of the sample the next is sent; no sample without.
    pub sample: Option<Duration>,
    /// Whether an index says where the events of a correlation lie.
    pub correlation_index: bool,
    /// How long the AI stand-in takes from one chunk to the next.
    pub ai_pause: Duration,
    /// What cursors are signed with, the same in all instances; a fixed one without.
    pub cursor_secret: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sample: None,
            correlation_index: false,
            ai_pause: Duration::from_millis(60),
            cursor_secret: None,
        }
    }
}

/// The service with everything that its face needs. A clone is the same.
#[derive(Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Backend>,
    repo_agent: Service,
    ai_agent: Service,
    bridge: EventSubscriptionBridge,
    repository: Arc<Repository<GithubRepository>>,
    repositories: Repositories,
    contexts: Contexts,
    correlations: Correlations,
    names: ProjectionView,
    codebase: Category,
    sample: Option<Sample>,
    /// The caches hear of events for as long as these live.
    _listening: [Listening; 2],
}

impl Live {
    /// Puts everything together on a store. Nothing runs before [`run`](Self::run).
    ///
    /// # Errors
    /// Whatever does not fit together, and a store that does not answer.
    pub async fn new(store: impl Backend + Clone, settings: Settings) -> Result<Self, BoxError> {
        let backend: Arc<dyn Backend> = Arc::new(store.clone());
        let mut repo_agent = service::builder(Arc::new(PathAnalyzer))
            .store(store.clone())
            .projection(RepositoryNames);
        if settings.correlation_index {
            repo_agent = repo_agent.projection(CorrelationIndex);
        }
        let repo_agent = repo_agent.build()?;
        let index = match settings.correlation_index {
            true => Some(repo_agent.projection(CorrelationIndex::NAME)?),
            false => None,
        };
        let names = repo_agent.projection(RepositoryNames::NAME)?;
        let correlations = Correlations::new(Arc::clone(&backend), feeds::categories()?, index);

        let loader = RepositoryLoader::new(repo_agent.repository());
        let repositories = ByRepository::new(LoaderCache::builder(loader.clone()));
        let contexts = Contexts::new(loader);
        let ai_agent = ai_agent(store.clone(), contexts.clone(), settings.ai_pause)?;

        let mut bridge = EventSubscriptionBridge::builder(store);
        if let Some(secret) = settings.cursor_secret {
            bridge = bridge.cursor_secret(secret);
        }
        let bridge = bridge.build();
        let codebase = Category::new("codebase")?;
        let listening = [
            bridge
                .invalidate([codebase.clone()], repositories.clone())
                .await?,
            bridge
                .invalidate([codebase.clone()], contexts.invalidated().clone())
                .await?,
        ];
        Ok(Self {
            inner: Arc::new(Inner {
                store: backend,
                repository: Arc::new(repo_agent.repository()),
                repo_agent,
                ai_agent,
                bridge,
                repositories,
                contexts,
                correlations,
                names,
                codebase,
                sample: settings.sample.map(Sample::new),
                _listening: listening,
            }),
        })
    }

    /// Runs the services and the sample until `stopping` is cancelled, or one of them fails.
    ///
    /// # Errors
    /// What ended one of them; the others have been stopped then, too.
    pub async fn run(&self, stopping: CancellationToken) -> Result<(), BoxError> {
        let mut tasks: JoinSet<Result<(), BoxError>> = JoinSet::new();
        for service in self.services() {
            let (service, stopping) = (service.clone(), stopping.clone());
            tasks.spawn(async move { Ok(service.run_until(stopping.cancelled_owned()).await?) });
        }
        if let Some(sample) = self.sample() {
            let (sample, store) = (sample.clone(), Arc::clone(self.store()));
            let stopping = stopping.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stopping.cancelled() => Ok(()),
                    ended = sample.play(store) => ended,
                }
            });
        }
        let mut failure = None;
        while let Some(ended) = tasks.join_next().await {
            // One that has ended takes the others with it: half a service is none.
            stopping.cancel();
            if let Err(error) = ended.map_err(BoxError::from).flatten() {
                tracing::error!(%error, "a part of the service has failed, and all of it stops");
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The services: what handles deliveries, and what answers sessions.
    pub fn services(&self) -> [&Service; 2] {
        [&self.inner.repo_agent, &self.inner.ai_agent]
    }

    /// How each service is doing.
    ///
    /// # Errors
    /// [`ServiceError`] where the store does not answer.
    pub async fn health(&self) -> Result<[Health; 2], ServiceError> {
        let [first, second] = self.services();
        Ok([first.health().await?, second.health().await?])
    }

    /// The names of repositories that are known, in their order.
    ///
    /// # Errors
    /// [`ProjectionError`] where the store does not answer.
    pub async fn names(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, ProjectionError> {
        match self.inner.names.keys(after, limit).await {
            // No service has run yet, so nothing is known.
            Err(ProjectionError::NotServed { .. }) => Ok(Vec::new()),
            names => names,
        }
    }

    /// Of these positions, those of the feed that repositories lie in.
    pub fn repository_heads(&self, heads: &Token) -> Token {
        let mut own = Token::default();
        for (partition, position) in heads.iter() {
            if *partition.category() == self.inner.codebase {
                own.reach(partition.clone(), position);
            }
        }
        own
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Backend> {
        &self.inner.store
    }

    /// The service that answers sessions.
    pub fn ai_agent(&self) -> &Service {
        &self.inner.ai_agent
    }

    /// What gives events to clients.
    pub fn bridge(&self) -> &EventSubscriptionBridge {
        &self.inner.bridge
    }

    /// Repositories as they are stored, for decisions.
    pub fn repository(&self) -> &Repository<GithubRepository> {
        &self.inner.repository
    }

    /// Repositories as they are kept, for looking.
    pub fn repositories(&self) -> &Repositories {
        &self.inner.repositories
    }

    /// The contexts of sessions.
    pub fn contexts(&self) -> &Contexts {
        &self.inner.contexts
    }

    /// What finds events that belong together.
    pub fn correlations(&self) -> &Correlations {
        &self.inner.correlations
    }

    /// The sample, where one is played.
    pub fn sample(&self) -> Option<&Sample> {
        self.inner.sample.as_ref()
    }
}
