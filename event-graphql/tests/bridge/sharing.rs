//! What many clients ask for in the same words is executed once, and each gets everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::{
    ComplexObject, Context, EmptyMutation, Object, Result, Schema, SimpleObject, Subscription,
};
use event_core::{Codec, Event};
use event_graphql::{Cursor, Edge, EventSubscriptionBridge, GraphqlTransport, Live, Session};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, soon};
use crate::harness::*;

on_both_stores![
    clients_of_one_audience_share_an_execution,
    other_words_and_other_audiences_are_executed_apart,
    who_has_a_cursor_goes_by_itself,
    who_falls_behind_goes_by_itself_and_misses_nothing,
    who_falls_behind_before_the_first_event_misses_nothing,
    who_falls_behind_without_a_cursor_is_told,
    the_end_of_an_execution_is_that_of_all_its_clients,
    only_what_may_be_is_shared,
    a_request_that_is_wrong_is_answered_to_each,
];

#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("counter.shared")]
#[graphql(complex)]
struct Line {
    number: u64,
    text: String,
}

#[ComplexObject]
impl Line {
    /// Counts how often it is asked for.
    async fn counted(&self, ctx: &Context<'_>) -> usize {
        let counted = ctx.data_unchecked::<Arc<AtomicUsize>>();
        counted.fetch_add(1, Ordering::SeqCst)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, Event, SimpleObject)]
#[event("counter.passing", realtime)]
struct Passing {
    text: String,
}

/// How many subscriptions have begun.
#[derive(Default)]
struct Begun(AtomicUsize);

impl Begun {
    fn note<S>(ctx: &Context<'_>, stream: Result<S>) -> Result<S> {
        ctx.data::<Arc<Begun>>()?.0.fetch_add(1, Ordering::SeqCst);
        stream
    }
}

struct Query;

#[Object]
impl Query {
    async fn nothing(&self) -> bool {
        true
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn lines(
        &self,
        ctx: &Context<'_>,
        at_least: Option<u64>,
        after: Option<Cursor>,
    ) -> Result<impl Stream<Item = Result<Edge<Line>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        let lines = bridge.events::<Line>().after(after).resume(ctx);
        let lines = lines
            .filter(move |line| line.number >= at_least.unwrap_or(0))
            .until_revoked(ctx.data::<CancellationToken>()?.clone());
        Begun::note(ctx, lines.subscribe().await)
    }

    async fn own_lines(&self, ctx: &Context<'_>) -> Result<impl Stream<Item = Result<Edge<Line>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        Begun::note(ctx, bridge.events::<Line>().subscribe().await)
    }

    async fn passing(
        &self,
        ctx: &Context<'_>,
    ) -> Result<impl Stream<Item = Result<Live<Passing>>>> {
        let bridge = ctx.data::<EventSubscriptionBridge>()?;
        Begun::note(ctx, bridge.realtime::<Passing>().subscribe().await)
    }
}

struct Served {
    address: SocketAddr,
    bridge: EventSubscriptionBridge,
    transport: GraphqlTransport<Schema<Query, EmptyMutation, Subscriptions>>,
    counted: Arc<AtomicUsize>,
    begun: Arc<Begun>,
    revoked: CancellationToken,
}

impl Served {
    /// Clients are of the audience that they say; of none where they say none.
    async fn by(world: &World) -> Self {
        let (bridge, counted) = (world.bridge(), Arc::<AtomicUsize>::default());
        let (begun, revoked) = (Arc::<Begun>::default(), CancellationToken::new());
        let schema = Schema::build(Query, EmptyMutation, Subscriptions)
            .data(bridge.clone())
            .data(Arc::clone(&counted))
            .data(Arc::clone(&begun))
            .data(revoked.clone())
            .finish();
        let transport = GraphqlTransport::builder(schema)
            .share(["lines", "passing"])
            .on_init(|init| async move {
                let said = init
                    .payload
                    .and_then(|said| said["audience"].as_str().map(str::to_owned));
                Ok(match said {
                    Some(audience) => Session::default().audience(audience),
                    None => Session::default(),
                })
            })
            .build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = axum::serve(listener, transport.router());
        tokio::spawn(async move { serving.await.unwrap() });
        Self {
            address,
            bridge,
            transport,
            counted,
            begun,
            revoked,
        }
    }

    /// A client of an audience that has subscribed.
    async fn client(&self, audience: Option<&str>, query: &str, variables: Value) -> Client {
        let mut client = Client::connect(self.address).await;
        let init = json!({ "type": "connection_init", "payload": { "audience": audience } });
        client.say(init).await;
        client.hear().await;
        let payload = json!({ "query": query, "variables": variables });
        client
            .say(json!({ "type": "subscribe", "id": "1", "payload": payload }))
            .await;
        client
    }

    /// Two clients of one execution, which has begun.
    async fn two(&self, query: &str) -> [Client; 2] {
        let mut clients = [
            self.client(Some("a"), query, json!({})).await,
            self.client(Some("a"), query, json!({})).await,
        ];
        self.reading(1, &mut clients).await;
        clients
    }

    /// Waits until so many subscriptions have begun, and those that share one have joined it.
    async fn reading(&self, subscriptions: usize, sharing: &mut [Client]) {
        joined(sharing).await;
        until("they have begun", || {
            self.begun.0.load(Ordering::SeqCst) == subscriptions
        })
        .await;
    }
}

/// Waits until what these clients have asked for is being done: what a client says is done in its order.
async fn joined(clients: &mut [Client]) {
    for client in clients {
        client.say(json!({ "type": "ping" })).await;
        assert_eq!(client.hear().await["type"], "pong");
    }
}

const LINES: &str = "subscription { lines { node { number } cursor } }";

fn line(number: u64, bytes: usize) -> Line {
    let text = "x".repeat(bytes);
    Line { number, text }
}

async fn write(world: &World, numbers: std::ops::Range<u64>, bytes: usize) {
    let lines: Vec<_> = numbers.map(|number| line(number, bytes)).collect();
    world.publish(&lines).await;
}

/// The next result of the subscription's field.
async fn result(client: &mut Client) -> Value {
    let message = client.hear().await;
    assert_eq!(message["type"], "next", "{message}");
    message["payload"]["data"].clone()
}

async fn expect_lines(client: &mut Client, numbers: std::ops::Range<u64>) -> String {
    let mut cursor = String::new();
    for number in numbers {
        let result = result(client).await;
        assert_eq!(result["lines"]["node"]["number"], number);
        cursor = result["lines"]["cursor"].as_str().unwrap().to_owned();
    }
    cursor
}

/// Waits until so many executions are shared, and so many others run.
async fn shared(served: &Served, executions: usize, streams: usize) {
    until("as many are shared as should be", || {
        served.transport.shared_executions() == executions && served.bridge.clients() == streams
    })
    .await;
}

async fn clients_of_one_audience_share_an_execution(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription { lines { node { number counted } cursor } }";
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(served.client(Some("all"), query, json!({})).await);
    }
    served.reading(1, &mut clients).await;
    write(&world, 0..5, 1).await;
    for client in &mut clients {
        expect_lines(client, 0..5).await;
    }
    assert_eq!(served.counted.load(Ordering::SeqCst), 5);
    shared(&served, 1, 1).await;
    // One that goes leaves the others where they are; with the last, it ends.
    clients.truncate(1);
    write(&world, 5..6, 1).await;
    expect_lines(&mut clients[0], 5..6).await;
    drop(clients);
    shared(&served, 0, 0).await;
}

async fn other_words_and_other_audiences_are_executed_apart(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription($from: Int) { lines(atLeast: $from) { node { number } cursor } }";
    let mut clients = Vec::new();
    for (audience, from) in [
        (Some("a"), json!({})),
        (Some("a"), json!({ "from": 1 })),
        (Some("a"), json!({ "from": 2 })),
        (Some("b"), json!({ "from": 2 })),
        (None, json!({ "from": 2 })),
        (None, json!({ "from": 2 })),
    ] {
        clients.push(served.client(audience, query, from).await);
    }
    shared(&served, 4, 6).await;
    served.reading(6, &mut []).await;
    write(&world, 0..4, 1).await;
    for (client, first) in clients.iter_mut().zip([0, 1, 2, 2, 2, 2]) {
        expect_lines(client, first..4).await;
    }
}

async fn who_has_a_cursor_goes_by_itself(world: World) {
    let served = Served::by(&world).await;
    let mut first = served.client(Some("a"), LINES, json!({})).await;
    served.reading(1, std::slice::from_mut(&mut first)).await;
    write(&world, 0..3, 1).await;
    let cursor = expect_lines(&mut first, 0..2).await;
    let query = "subscription($after: Cursor) { lines(after: $after) { node { number } cursor } }";
    let mut others = Vec::new();
    for _ in 0..3 {
        let after = json!({ "after": cursor });
        let mut other = served.client(Some("a"), query, after).await;
        expect_lines(&mut other, 2..3).await;
        others.push(other);
    }
    shared(&served, 1, 4).await;
    write(&world, 3..4, 1).await;
    for other in &mut others {
        expect_lines(other, 3..4).await;
    }
    expect_lines(&mut first, 2..4).await;
}

/// How many events, and of how many bytes, are more than the buffers of a connection hold.
const MANY: u64 = 400;
const LONG: usize = 64 * 1024;

async fn who_falls_behind_goes_by_itself_and_misses_nothing(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription { lines { node { number text } cursor } }";
    let [mut quick, mut slow] = served.two(query).await;
    write(&world, 0..1, 1).await;
    expect_lines(&mut quick, 0..1).await;
    expect_lines(&mut slow, 0..1).await;
    for number in 1..MANY {
        write(&world, number..number + 1, LONG).await;
        expect_lines(&mut quick, number..number + 1).await;
    }
    expect_lines(&mut slow, 1..MANY).await;
    shared(&served, 1, 2).await;
    write(&world, MANY..MANY + 1, 1).await;
    expect_lines(&mut slow, MANY..MANY + 1).await;
}

async fn who_falls_behind_before_the_first_event_misses_nothing(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription { lines { node { number text } cursor } }";
    // The first one joins before it has begun.
    let [mut slow, mut quick] = served.two(query).await;
    for number in 0..MANY {
        write(&world, number..number + 1, LONG).await;
        expect_lines(&mut quick, number..number + 1).await;
    }
    expect_lines(&mut slow, 0..MANY).await;
}

async fn who_falls_behind_without_a_cursor_is_told(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription { passing { node { text } } }";
    let [mut quick, mut slow] = served.two(query).await;
    let text = "x".repeat(LONG);
    for _ in 0..MANY {
        let sent = Codec::default().encode(&Passing { text: text.clone() });
        let sent = [sent.unwrap()];
        world.store.publish_realtime(&sent).await.unwrap();
        assert_eq!(quick.hear().await["type"], "next");
    }
    let end = soon(async {
        loop {
            let message = slow.hear().await;
            if message["type"] != "next" {
                return message;
            }
        }
    })
    .await;
    assert_eq!(end["type"], "error");
    assert_eq!(end["payload"][0]["extensions"]["code"], "TOO_SLOW");
    shared(&served, 1, 1).await;
}

async fn the_end_of_an_execution_is_that_of_all_its_clients(world: World) {
    let served = Served::by(&world).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(served.client(Some("a"), LINES, json!({})).await);
    }
    served.reading(1, &mut clients).await;
    write(&world, 0..1, 1).await;
    for client in &mut clients {
        expect_lines(client, 0..1).await;
    }
    served.revoked.cancel();
    for client in &mut clients {
        let message = client.hear().await;
        let error = &message["payload"]["errors"][0];
        assert_eq!(error["extensions"]["code"], "REVOKED");
        assert_eq!(client.hear().await["type"], "complete");
    }
    shared(&served, 0, 0).await;
}

async fn only_what_may_be_is_shared(world: World) {
    let served = Served::by(&world).await;
    let queries = [
        "subscription { ownLines { node { number } } }",
        "query { nothing }",
    ];
    let mut clients = Vec::new();
    for query in queries.into_iter().flat_map(|query| [query, query]) {
        clients.push(served.client(Some("a"), query, json!({})).await);
    }
    until("those that are subscriptions run", || {
        served.bridge.clients() == 2
    })
    .await;
    assert_eq!(served.transport.shared_executions(), 0);
}

async fn a_request_that_is_wrong_is_answered_to_each(world: World) {
    let served = Served::by(&world).await;
    let query = "subscription { lines { nothing } }";
    for _ in 0..2 {
        let mut client = served.client(Some("a"), query, json!({})).await;
        let message = client.hear().await;
        assert_eq!(message["type"], "error", "{message}");
    }
    shared(&served, 0, 0).await;
}
