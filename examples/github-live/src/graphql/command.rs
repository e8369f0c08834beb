//! Commands on repositories, and what comes of them.

use async_graphql::{Context, Result, SimpleObject, Union};
use event_core::{Aggregate, AppendError, Expected, RepositoryError};
use github_webhooks::github::Origin;
use github_webhooks::repository::{Change, Command, Refusal};
use uuid::Uuid;

use std::sync::Arc;

use super::error::{coded, unavailable, uncertain};
use super::repository::Repository;
use crate::live::Live;

/// How often a command is decided anew, where others are faster and the client named no version.
const DECIDED_AGAIN: usize = 8;

/// What comes of a command.
#[derive(Union)]
pub(super) enum CommandResult {
    /// It was done.
    Accepted(CommandAccepted),
    /// The repository refuses.
    Refused(CommandRefused),
    /// The repository is not at the version that the client knows.
    Conflict(VersionConflict),
    /// Nothing is known of the repository.
    Unknown(UnknownRepository),
}

/// The command was done, or there was nothing to do.
#[derive(SimpleObject)]
pub(super) struct CommandAccepted {
    /// The repository, as it is now.
    repository: Repository,
    /// The types of the events that it led to; none where there was nothing to do.
    events: Vec<String>,
}

/// The repository refuses.
#[derive(SimpleObject)]
pub(super) struct CommandRefused {
    /// A word for programs.
    code: &'static str,
    /// Why.
    reason: String,
}

/// The repository is at another version than the client knows. Look at it anew, and decide again.
#[derive(SimpleObject)]
pub(super) struct VersionConflict {
    /// The version that the client named, if it did.
    expected: Option<u64>,
    /// The version that it is at.
    actual: u64,
}

/// No delivery has spoken of the repository.
#[derive(SimpleObject)]
pub(super) struct UnknownRepository {
    /// The name.
    name: String,
}

/// Who asks for what, of a repository.
pub(super) struct Asked {
    pub(super) name: String,
    /// The version that the client knows.
    pub(super) expected: Option<u64>,
    /// The same id is the same command, done once.
    pub(super) command_id: Option<Uuid>,
    pub(super) change: Change,
}

/// Has a repository decide.
pub(super) async fn execute(ctx: &Context<'_>, asked: Asked) -> Result<CommandResult> {
    let live = ctx.data::<Live>()?;
    let Asked {
        name,
        expected,
        command_id,
        change,
    } = asked;
    let command_id = command_id.unwrap_or_else(Uuid::new_v4);
    let mut actual = 0;
    for _ in 0..DECIDED_AGAIN {
        let loaded = match live.repository().load(&name).await {
            Ok(loaded) => loaded,
            Err(RepositoryError::NotFound { .. } | RepositoryError::InvalidId(_)) => {
                return Ok(CommandResult::Unknown(UnknownRepository { name }));
            }
            Err(error) => return Err(unavailable(error)),
        };
        actual = loaded.version;
        let origin = Origin {
            repository: Some(name.clone()),
            default_branch: loaded.state.default_branch.clone(),
            private: loaded.state.private,
        };
        let command = Command::new(command_id, origin, change.clone());
        if !loaded.state.has_decided(&command) && expected.is_some_and(|known| known != actual) {
            break;
        }
        let events = match loaded.state.handle(command) {
            Ok(events) => events,
            Err(refusal) => return Ok(CommandResult::Refused(refused(&refusal))),
        };
        if !events.is_empty() {
            let at = Expected::Exact(loaded.version);
            match live.repository().append(&name, at, &events).await {
                Ok(_) => {}
                Err(RepositoryError::Append(AppendError::Conflict { .. })) => continue,
                Err(RepositoryError::Append(error @ AppendError::NotReplicated { .. })) => {
                    return Err(coded("NOT_REPLICATED", error));
                }
                Err(error) => return Err(uncertain(error, command_id)),
            }
        }
        // The client may ask for it before the event has come round.
        live.repositories().forget(&name);
        let loaded = live.repository().load(&name).await;
        let repository = loaded.map_err(|error| uncertain(error, command_id))?;
        return Ok(CommandResult::Accepted(CommandAccepted {
            repository: Repository::new(name, Arc::new(repository)),
            events: events
                .iter()
                .map(|event| event_core::Event::definition(event).name().to_owned())
                .collect(),
        }));
    }
    Ok(CommandResult::Conflict(VersionConflict {
        expected,
        actual,
    }))
}

fn refused(refusal: &Refusal) -> CommandRefused {
    CommandRefused {
        code: match refusal {
            Refusal::Archived => "ARCHIVED",
            Refusal::Deleted => "DELETED",
            Refusal::Moved { .. } => "MOVED",
            Refusal::OpenedBefore { .. } => "OPENED_BEFORE",
            Refusal::NotOpen { .. } => "NOT_OPEN",
            Refusal::PhaseOutOfOrder { .. } => "PHASE_OUT_OF_ORDER",
        },
        reason: refusal.to_string(),
    }
}
