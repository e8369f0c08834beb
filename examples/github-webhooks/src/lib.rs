//! A repository service: it takes GitHub's webhook deliveries in, and knows from them what became of
//! each repository.
//!
//! lines → delivery → signature → github event → handlers → repository, and what they announce
//!
//! - [`ingest`]: takes a file of deliveries in, line by line, through the [`inlet`]
//! - [`delivery`], [`signature`]: what one line holds, and whether GitHub sent it
//! - [`github`]: what GitHub tells, as events (`github.push`, `github.pr.opened`, …)
//! - [`repository`], [`phase`]: the aggregate, rebuilt by replay, with the rules that can refuse
//! - [`handlers`], [`analyzer`]: reactions to what GitHub tells
//! - [`events`]: what the handlers announce (`repository.analyzed`, `sdlc.phase.changed`, …)
//! - [`service`]: all of it put together
//! - [`report`], [`show`], [`cli`]: what a user sees

pub mod lines;

pub mod json;

pub mod delivery;
pub mod signature;

pub mod github;

pub mod phase;
pub mod repository;

pub mod analyzer;
pub mod events;
pub mod handlers;
pub mod service;

pub mod ingest;
pub mod inlet;
pub mod sample;

pub mod report;
pub mod show;

pub mod cli;
