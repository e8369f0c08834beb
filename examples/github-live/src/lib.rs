//! The repository service with a face: GitHub's webhooks in, GraphQL and a live page out.
//!
//! webhook → event → handlers (of `github-webhooks`) → events → bridge → GraphQL → page
//!
//! - [`webhook`]: deliveries in
//! - [`live`]: the services on a store, the bridge and the caches, put together
//! - [`repositories`], [`names`], [`correlation`], [`feeds`]: what is read
//! - [`ai`]: a session with a scripted stand-in, streamed
//! - [`graphql`]: queries, mutations, subscriptions
//! - [`sample`]: deliveries to look at
//! - [`health`]: for those who watch
//! - [`server`], [`cli`]: all of it, served

pub mod webhook;

pub mod feeds;
pub mod names;
pub mod repositories;

pub mod correlation;

pub mod ai;
pub mod sample;

pub mod live;

pub mod graphql;

mod page;

pub mod health;
pub mod server;

pub mod cli;
