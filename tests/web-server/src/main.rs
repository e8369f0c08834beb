//! A GraphQL server on Redis, for the tests with clients of the web (`cargo xtask test-web`).
//!
//! It prints its address as one line of JSON, serves `/graphql` (POST), `/graphql/ws`, `/graphql/stream`, and what
//! tests turn and look at under `/test`. On SIGTERM it sends its clients elsewhere and ends.

mod arguments;
mod control;
mod events;
mod rights;
mod schema;
mod stars;

use std::sync::Arc;

use anyhow::Context;
use axum::routing::post;
use axum::{Json, Router};
use clap::Parser;
use event_core::{Category, Service, shutdown_signal};
use event_graphql::{EventSubscriptionBridge, FreshPerEvent, GraphqlTransport};
use tokio::net::TcpListener;

use arguments::Arguments;
use control::Controls;
use rights::Rights;
use schema::{ServerSchema, schema};
use stars::{Barrier, CachedStars};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let store = arguments.store().connect().await?;
    let service = Service::builder("web").store(store.clone()).build()?;
    let bridge = EventSubscriptionBridge::builder(store.clone())
        .cursor_secret(arguments.secret.as_bytes())
        .build();

    let barrier = Arc::new(Barrier::default());
    let stars = CachedStars::new(service.repository(), Arc::clone(&barrier));
    let listening = match arguments.cache {
        true => {
            let categories = [Category::new("repository")?];
            Some(bridge.invalidate(categories, stars.cache()).await?)
        }
        false => None,
    };
    let rights = Rights::default();
    let schema = schema()
        .data(bridge.clone())
        .data(service.clone())
        .data(rights.clone())
        .extension(FreshPerEvent::new().loader(stars.clone()))
        .finish();
    let shared: &[&str] = if arguments.share { &["stepped"] } else { &[] };
    let transport = GraphqlTransport::builder(schema.clone())
        .share(shared.iter().copied())
        .limits(arguments.limits())
        .on_init(rights::on_init)
        .on_sse(rights::on_sse)
        .build();
    let controls = Controls {
        store,
        bridge,
        service,
        transport: transport.clone(),
        rights,
        stars,
        barrier,
    };
    let app = Router::new()
        .route("/graphql", post(execute).with_state(schema))
        .merge(transport.router())
        .nest("/test", control::router(controls));

    let listener = TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .with_context(|| format!("port {} is not to be had", arguments.port))?;
    println!(r#"{{"port":{}}}"#, listener.local_addr()?.port());
    tokio::select! {
        served = axum::serve(transport.listener(listener), app).into_future() => served?,
        () = shutdown_signal() => transport.shutdown().await,
    }
    drop(listening);
    Ok(())
}

/// Queries and mutations by POST.
async fn execute(
    axum::extract::State(schema): axum::extract::State<ServerSchema>,
    Json(request): Json<async_graphql::Request>,
) -> Json<async_graphql::Response> {
    Json(schema.execute(request).await)
}
