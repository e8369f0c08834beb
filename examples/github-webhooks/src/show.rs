//! Showing: a repository as its history says, and nothing else.

use event_core::{
    AggregateId, At, EventStore, InvalidAggregateId, ReadError, RecordedEvent, Repository,
    RepositoryError, Version, Versions,
};

use crate::report::{RepositoryReport, Table, printable};
use crate::repository::GithubRepository;

/// A repository with the events it is made of.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The repository.
    pub repository: RepositoryReport,
    /// Its events, oldest first.
    pub history: Vec<RecordedEvent>,
}

/// Rebuilds a repository from its history, as it is now or as it was at a version.
///
/// # Errors
/// [`ShowError`], above all where nothing is known of it.
pub async fn show(
    store: impl EventStore + Clone,
    name: &str,
    at: Option<Version>,
) -> Result<Shown, ShowError> {
    let repositories = Repository::<GithubRepository>::new(store.clone());
    let loaded = match at {
        None => repositories.load(name).await,
        Some(version) => repositories.load_at(name, At::Version(version)).await,
    };
    let loaded = loaded.map_err(|error| ShowError::of(error, name))?;
    let versions = Versions::all().to(loaded.version);
    let id = AggregateId::of::<GithubRepository>(name)?;
    Ok(Shown {
        history: store.read_aggregate(&id, &versions).await?,
        repository: RepositoryReport::of(loaded),
    })
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.repository.fmt(f)?;
        writeln!(f, "\nhistory")?;
        let mut history = Table::default();
        for event in &self.history {
            let version = event.aggregate().map_or(0, |aggregate| aggregate.version);
            history.row([
                version.to_string(),
                event
                    .metadata()
                    .timestamp
                    .format("%Y-%m-%d %H:%M:%S")
                    .to_string(),
                event.event_type().to_owned(),
                printable(event.payload()),
            ]);
        }
        history.fmt(f)
    }
}

/// A repository that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// No delivery has spoken of it.
    #[error("nothing is known of a repository {name}; ingest its deliveries first")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It has not got so far.
    #[error("{name} has no version {wanted}; give one of 1 to {highest}")]
    NoSuchVersion {
        /// The name.
        name: String,
        /// The version that was asked for.
        wanted: Version,
        /// The newest there is.
        highest: Version,
    },
    /// It cannot be rebuilt.
    #[error(transparent)]
    Repository(RepositoryError),
    /// Its history cannot be read.
    #[error(transparent)]
    History(#[from] ReadError),
    /// No repository can have this name.
    #[error(transparent)]
    Name(#[from] InvalidAggregateId),
}

impl ShowError {
    fn of(error: RepositoryError, name: &str) -> Self {
        let name = name.to_owned();
        match error {
            RepositoryError::NotFound { .. } => Self::Unknown { name },
            RepositoryError::NoSuchVersion {
                wanted, highest, ..
            } => Self::NoSuchVersion {
                name,
                wanted,
                highest,
            },
            other => Self::Repository(other),
        }
    }
}
