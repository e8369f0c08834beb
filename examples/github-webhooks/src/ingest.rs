//! Ingesting: deliveries go in line by line, and the handlers follow in batches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use event_core::{
    Category, EventRegistration, EventStore, FeedEntry, InvalidCategory, Position, ReadError,
    RepositoryError, Service, ServiceError,
};
use tokio::io::AsyncBufRead;

use crate::delivery::{Delivery, DeliveryError};
use crate::github::GithubEvent;
use crate::inlet::{Inlet, InletError};
use crate::lines::{Line, Lines};
use crate::report::{Rejected, Report, RepositoryReport};
use crate::repository::GithubRepository;
use crate::signature::Signatures;

/// After how many events the handlers are called. Their number is all that waits in between.
const HANDLE_EVERY: u64 = 256;

/// How many entries of a feed are counted at once.
const COUNTED_AT_ONCE: usize = 1_000;

/// How far an ingest has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes that were read.
    pub bytes: u64,
    /// The deliveries that were taken in.
    pub accepted: u64,
    /// Those that were not.
    pub rejected: u64,
}

/// Takes every line of a file in as a delivery, lets the service react, and says what came of it.
/// Empty lines are none.
///
/// A line that is no delivery is rejected with a reason, and the rest goes on. A delivery that was
/// taken in before is accepted, and nothing happens: its event has the same id, and the store keeps
/// it once.
///
/// `service` must run on `store`. No more of the file is in memory than one line.
///
/// # Errors
/// [`IngestError`] where the file or the store fails. The same file can then be ingested again.
pub async fn ingest<R: AsyncBufRead + Unpin>(
    lines: &mut Lines<R>,
    signatures: &Signatures,
    service: &Service,
    store: &impl EventStore,
    mut progress: impl FnMut(Progress),
) -> Result<Report, IngestError> {
    let heads = heads(store).await?;
    let inlet = Inlet::new(store)?;
    let mut report = Report::default();
    let mut repositories = BTreeSet::new();
    let mut unhandled = 0;
    let limit = lines.limit();
    while let Some(line) = lines.next().await? {
        let taken = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => continue,
            Line::Whole(line) => take(&inlet, signatures, line).await?,
            Line::TooLong => Err(DeliveryError::TooLong { limit }.to_string()),
        };
        report.deliveries += 1;
        match taken {
            Ok(event) => {
                report.accepted += 1;
                unhandled += 1;
                for name in [event.repository(), event.previous_repository()] {
                    repositories.extend(name.map(str::to_owned));
                }
            }
            Err(reason) => report.rejected.push(Rejected {
                line: lines.number(),
                reason,
            }),
        }
        if unhandled == HANDLE_EVERY {
            service.run_until_idle().await?;
            unhandled = 0;
        }
        progress(Progress {
            bytes: lines.bytes(),
            accepted: report.accepted,
            rejected: report.deliveries - report.accepted,
        });
    }
    service.run_until_idle().await?;
    report.events = count_since(store, heads).await?;
    report.repositories = load(service, repositories).await?;
    Ok(report)
}

/// Takes a line in, or says why not.
async fn take<S: EventStore>(
    inlet: &Inlet<'_, S>,
    signatures: &Signatures,
    line: &[u8],
) -> Result<Result<GithubEvent, String>, IngestError> {
    let delivery = match Delivery::read(line, signatures) {
        Ok(delivery) => delivery,
        Err(reason) => return Ok(Err(reason.to_string())),
    };
    match inlet.take(&delivery).await {
        Ok(event) => Ok(Ok(event)),
        Err(error) if error.is_of_store() => Err(error.into()),
        Err(reason) => Ok(Err(reason.to_string())),
    }
}

/// The newest position of each feed that this program writes to.
async fn heads(store: &impl EventStore) -> Result<BTreeMap<Category, Position>, IngestError> {
    let categories: BTreeSet<Category> = EventRegistration::all()
        .flat_map(EventRegistration::definitions)
        .filter(|definition| !definition.is_realtime())
        .map(|definition| definition.category())
        .collect();
    let mut heads = BTreeMap::new();
    for category in categories {
        let head = store.head(&category.clone().into()).await?;
        heads.insert(category, head);
    }
    Ok(heads)
}

/// The events that were stored after `heads`, by type.
async fn count_since(
    store: &impl EventStore,
    heads: BTreeMap<Category, Position>,
) -> Result<BTreeMap<String, u64>, IngestError> {
    let mut counts = BTreeMap::new();
    for (category, mut after) in heads {
        loop {
            let entries = store
                .read_feed(&category.clone().into(), after, COUNTED_AT_ONCE)
                .await?;
            let Some(last) = entries.last() else { break };
            after = last.position();
            for entry in entries {
                if let FeedEntry::Event(event) = entry {
                    *counts.entry(event.event_type().to_owned()).or_default() += 1;
                }
            }
        }
    }
    Ok(counts)
}

/// The repositories that were spoken of, as they are now.
async fn load(
    service: &Service,
    names: BTreeSet<String>,
) -> Result<BTreeMap<String, RepositoryReport>, IngestError> {
    let repositories = service.repository::<GithubRepository>();
    let mut found = BTreeMap::new();
    for name in names {
        match repositories.load(&name).await {
            Ok(loaded) => {
                found.insert(name, RepositoryReport::of(loaded));
            }
            // A name that a repository had before anything was known of it.
            Err(RepositoryError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// An ingest that broke off. What was taken in is stored; ingesting the same again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file cannot be read on.
    #[error("the deliveries cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The store did not take an event.
    #[error(transparent)]
    Inlet(#[from] InletError),
    /// A feed cannot be read.
    #[error(transparent)]
    Feed(#[from] ReadError),
    /// The handlers did not get through.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A repository cannot be loaded.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The category is none.
    #[error(transparent)]
    Category(#[from] InvalidCategory),
}
