//! Mutations.

use async_graphql::{Context, ID, Object, Result};
use github_webhooks::repository::Change;
use uuid::Uuid;

use super::command::{Asked, CommandResult, execute};
use super::error::{coded, unavailable};
use super::repository::Phase;
use super::status::SampleStatus;
use crate::ai::AiSessionStarted;
use crate::live::Live;

/// The longest text that a client may give, in characters.
const LONGEST: usize = 500;

/// What can be done.
pub struct Mutation;

#[Object]
impl Mutation {
    /// Has a repository enter a phase. With `expectedVersion`, only where it is at that; with `commandId`, a
    /// uuid, once however often it is sent.
    async fn enter_phase(
        &self,
        ctx: &Context<'_>,
        repository: String,
        phase: Phase,
        because: String,
        expected_version: Option<u64>,
        command_id: Option<ID>,
    ) -> Result<CommandResult> {
        let because = text("because", because)?;
        let phase = phase.into();
        let asked = Asked {
            name: repository,
            expected: expected_version,
            command_id: uuid(command_id)?,
            change: Change::Enter { phase, because },
        };
        execute(ctx, asked).await
    }

    /// Has a repository be read only, or written to again.
    async fn archive(
        &self,
        ctx: &Context<'_>,
        repository: String,
        #[graphql(default = true)] archived: bool,
        expected_version: Option<u64>,
        command_id: Option<ID>,
    ) -> Result<CommandResult> {
        let asked = Asked {
            name: repository,
            expected: expected_version,
            command_id: uuid(command_id)?,
            change: if archived {
                Change::Archive
            } else {
                Change::Unarchive
            },
        };
        execute(ctx, asked).await
    }

    /// Asks the scripted stand-in about a repository. The client makes the session's id, a uuid, so that it can
    /// subscribe to `aiSession` before anything happens. Gives the id.
    async fn start_ai_session(
        &self,
        ctx: &Context<'_>,
        session: ID,
        repository: String,
        prompt: String,
    ) -> Result<ID> {
        let Some(id) = uuid(Some(session.clone()))? else {
            return Ok(session);
        };
        let started = AiSessionStarted {
            session: id.to_string(),
            repository: text("repository", repository)?,
            prompt: text("prompt", prompt)?,
        };
        let live = ctx.data::<Live>()?;
        live.ai_agent()
            .publish(started)
            .await
            .map_err(unavailable)?;
        Ok(id.into())
    }

    /// Plays the sample again, under new delivery ids. Repositories refuse what they have seen before.
    async fn play_sample(&self, ctx: &Context<'_>) -> Result<SampleStatus> {
        let live = ctx.data::<Live>()?;
        match live.sample() {
            Some(sample) => Ok(SampleStatus::of(sample.play_again())),
            None => Err(coded(
                "NO_SAMPLE",
                "no sample is played here; start the server with `--sample true`",
            )),
        }
    }
}

fn uuid(id: Option<ID>) -> Result<Option<Uuid>> {
    let Some(id) = id else { return Ok(None) };
    match Uuid::try_parse(&id) {
        Ok(id) => Ok(Some(id)),
        Err(error) => Err(coded(
            "BAD_ID",
            format!("`{}` is no uuid: {error}", id.as_str()),
        )),
    }
}

fn text(name: &str, text: String) -> Result<String> {
    match text.trim().chars().count() {
        0 => Err(coded("BAD_TEXT", format!("`{name}` is empty"))),
        1..=LONGEST => Ok(text.trim().to_owned()),
        _ => {
            let most = format!("`{name}` may have {LONGEST} characters");
            Err(coded("BAD_TEXT", most))
        }
    }
}
