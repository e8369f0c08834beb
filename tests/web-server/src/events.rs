//! The events that are served.

use async_graphql::dataloader::DataLoader;
use async_graphql::{ComplexObject, Context, Result, SimpleObject};
use event_core::prelude::*;
use serde::{Deserialize, Serialize};

use crate::stars::{CachedStars, RepositoryKey};

/// A step. Steps of a lane are numbered, so that clients see whether one is missing or comes twice.
#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("web.stepped", key = lane)]
pub(crate) struct Stepped {
    pub(crate) lane: String,
    pub(crate) number: u64,
    /// Makes it as long as it is to be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
}

/// A step in another feed.
#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("other.stepped")]
pub(crate) struct OtherStepped {
    pub(crate) number: u64,
}

/// A piece of an answer, which is kept nowhere.
#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("ai.response.chunk", realtime)]
pub(crate) struct ResponseChunk {
    pub(crate) text: String,
}

/// A star was given to a repository.
#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("repository.starred")]
#[graphql(complex)]
pub(crate) struct Starred {
    pub(crate) repository: String,
    pub(crate) by: String,
}

#[ComplexObject]
impl Starred {
    /// How many stars the repository has, as loaded through the cache.
    async fn stars(&self, ctx: &Context<'_>) -> Result<u64> {
        let loader = ctx.data::<DataLoader<CachedStars>>()?;
        let key = RepositoryKey(self.repository.clone());
        Ok(loader.load_one(key).await?.unwrap_or_default())
    }
}

/// A repository, and how many stars it has.
#[derive(Default)]
pub(crate) struct Repo {
    pub(crate) stars: u64,
}

/// Gives a repository a star.
#[derive(Clone)]
pub(crate) struct Star {
    pub(crate) repository: String,
    pub(crate) by: String,
}

impl Aggregate for Repo {
    const TYPE: &'static str = "repository";
    type Event = Starred;
    type Command = Star;
    type Error = std::convert::Infallible;

    fn apply(&mut self, _: &Starred) {
        self.stars += 1;
    }

    fn handle(&self, Star { repository, by }: Star) -> Result<Vec<Starred>, Self::Error> {
        Ok(vec![Starred { repository, by }])
    }
}
