//! A schema to be served, and the server.

use std::net::SocketAddr;

use async_graphql::{Context, Data, Object, Schema, SimpleObject, Subscription};
use event_graphql::{GraphqlTransport, GraphqlTransportBuilder, Limits, Refusal, Resume, Session};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{broadcast, watch};

pub(crate) type TestSchema = Schema<Query, Mutation, Subscriptions>;

/// Who the client said it is.
pub(crate) struct Name(pub(crate) String);

/// Counts the streams that are alive.
pub(crate) struct Alive(watch::Sender<usize>);

impl Alive {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|alive| *alive += 1);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|alive| *alive -= 1);
    }
}

fn alive(ctx: &Context<'_>) -> Alive {
    Alive::begin(ctx.data_unchecked::<watch::Sender<usize>>())
}

pub(crate) struct Query;

#[Object]
impl Query {
    async fn name(&self, ctx: &Context<'_>) -> String {
        ctx.data_opt::<Name>()
            .map_or_else(|| "nobody".to_owned(), |name| name.0.clone())
    }

    async fn failing(&self) -> async_graphql::Result<i32> {
        Err("it failed".into())
    }

    async fn panicking(&self) -> i32 {
        "no number".parse().unwrap()
    }
}

pub(crate) struct Mutation;

#[Object]
impl Mutation {
    async fn double(&self, number: i32) -> i32 {
        number * 2
    }
}

#[derive(SimpleObject)]
#[graphql(complex)]
struct Line {
    number: u64,
}

#[async_graphql::ComplexObject]
impl Line {
    async fn cursor(&self, ctx: &Context<'_>) -> u64 {
        if let Some(resume) = ctx.data_opt::<Resume>() {
            resume.note(&self.number.to_string());
        }
        self.number
    }
}

pub(crate) struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn count(&self, to: i32) -> impl Stream<Item = i32> {
        stream::iter(0..to)
    }

    async fn forever(&self, ctx: &Context<'_>, bytes: usize) -> impl Stream<Item = String> {
        let alive = alive(ctx);
        stream::repeat("x".repeat(bytes)).map(move |text| {
            let _alive = &alive;
            text
        })
    }

    async fn bell(&self, ctx: &Context<'_>) -> impl Stream<Item = i32> {
        let rings = ctx.data_unchecked::<broadcast::Sender<i32>>().subscribe();
        let alive = alive(ctx);
        stream::unfold((rings, alive), |(mut rings, alive)| async move {
            let ring = rings.recv().await.ok()?;
            Some((ring, (rings, alive)))
        })
    }

    async fn lines(&self, ctx: &Context<'_>, to: u64) -> impl Stream<Item = Line> {
        let after = ctx
            .data_opt::<Resume>()
            .and_then(|resume| resume.last_event_id()?.parse::<u64>().ok())
            .unwrap_or(0);
        stream::iter(after + 1..=to).map(|number| Line { number })
    }

    /// Begins behind 7, and has nothing.
    async fn none(&self, ctx: &Context<'_>) -> impl Stream<Item = Line> {
        if let Some(resume) = ctx.data_opt::<Resume>() {
            resume.begin("7");
        }
        stream::pending()
    }
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) transport: GraphqlTransport<TestSchema>,
    pub(crate) alive: watch::Receiver<usize>,
    pub(crate) bell: broadcast::Sender<i32>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(|transport| transport.limits(limits)).await
    }

    pub(crate) async fn with(
        settings: impl FnOnce(
            GraphqlTransportBuilder<TestSchema>,
        ) -> GraphqlTransportBuilder<TestSchema>,
    ) -> Self {
        let (count, alive) = watch::channel(0);
        let (bell, _) = broadcast::channel(16);
        let schema = Schema::build(Query, Mutation, Subscriptions)
            .data(count)
            .data(bell.clone())
            .finish();
        let builder = GraphqlTransport::builder(schema)
            .on_init(|init| async move {
                let token = init
                    .payload
                    .as_ref()
                    .map(|payload| payload["token"].clone());
                match token.as_ref().and_then(|token| token.as_str()) {
                    Some("stolen") => Err(Refusal::Forbidden("the token is stolen".into())),
                    Some("slow") => std::future::pending().await,
                    Some(token) => {
                        let agent = init.headers.get("user-agent");
                        let agent = agent.map(|agent| agent.to_str().unwrap().to_owned());
                        Ok(Session {
                            ack: Some(serde_json::json!({ "agent": agent })),
                            ..Session::from(named(token))
                        })
                    }
                    None => Ok(Session::default()),
                }
            })
            .on_sse(|headers| async move {
                match headers
                    .get("authorization")
                    .map(|token| token.to_str().unwrap())
                {
                    Some("stolen") => Err(Refusal::Forbidden("the token is stolen".into())),
                    Some("unknown") => Err(Refusal::Unauthenticated("log in".into())),
                    Some(token) => Ok(named(token)),
                    None => Ok(Data::default()),
                }
            });
        let transport = settings(builder).build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = transport.router();
        let listener = transport.listener(listener);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            transport,
            alive,
            bell,
            task,
        }
    }

    /// Waits until so many streams are alive.
    pub(crate) async fn streams(&mut self, count: usize) {
        super::client::soon(self.alive.wait_for(|alive| *alive == count))
            .await
            .unwrap();
    }
}

fn named(token: &str) -> Data {
    let mut data = Data::default();
    data.insert(Name(token.to_owned()));
    data
}
