//! The schema: what can be asked, done and followed.

mod build;
mod command;
mod error;
mod event;
mod mutation;
mod query;
mod repository;
mod session;
mod status;
mod subscription;

use async_graphql::Schema;

use crate::live::Live;

pub use mutation::Mutation;
pub use query::Query;
pub use subscription::Subscription;

/// How deep a document may go.
const DEPTH: usize = 12;

/// How many fields a document may have.
const COMPLEXITY: usize = 400;

/// The schema of the service.
pub type LiveSchema = Schema<Query, Mutation, Subscription>;

/// The schema on what is put together.
pub fn schema(live: Live) -> LiveSchema {
    Schema::build(Query, Mutation, Subscription)
        .limit_depth(DEPTH)
        .limit_complexity(COMPLEXITY)
        .data(live)
        .finish()
}

/// The schema in its own language.
pub fn sdl() -> String {
    Schema::build(Query, Mutation, Subscription).finish().sdl()
}
