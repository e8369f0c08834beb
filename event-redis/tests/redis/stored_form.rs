//! The document of the stored form: its examples and tables are what the store writes and reads.

use std::collections::BTreeSet;

use event_core::projection::ProjectionWrites;
use event_core::{
    Acquired, AggregateId, Append, Category, Commit, DeadLetter, DeadLetterReason, EventStore,
    Expected, FeedEntry, Groups, Lease, Maintenance, Metadata, NewEvent, ParallelGroup,
    ParallelGroups, Partition, Position, ProjectionId, ProjectionStep, Projections,
    RealtimePublisher, Receipt, Reset, Snapshot, Start, Token, TrimPolicy, Writes, adopt,
};
use event_redis::{AsOf, RedisStore};
use event_tests::RedisServer;

use crate::support::{event, event_as, id, only, project, sdlc, server, store, until};

const DOCUMENT: &str = include_str!("../../../docs/reference/stored-form.md");

/// What stands under a heading, up to the next of any level.
fn section(heading: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("\n{heading}\n")).unwrap() + heading.len() + 2;
    let text = &DOCUMENT[start..];
    &text[..text.find("\n#").unwrap_or(text.len())]
}

/// The names in backticks in the first column of a section's table.
fn names(heading: &str) -> Vec<&'static str> {
    let rows = section(heading)
        .lines()
        .filter(|row| row.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect()
}

/// The example in backticks that begins with some text.
fn example(start: &str) -> &'static str {
    let at = DOCUMENT.find(&format!("`{start}")).unwrap() + 1;
    DOCUMENT[at..].split('`').next().unwrap()
}

/// The event of the example of a history's element.
fn example_event() -> NewEvent {
    let event_id = "0190b6c0-0000-7000-8000-000000000001".parse().unwrap();
    let time = "2025-11-23T12:13:20.000123Z".parse().unwrap();
    let payload = r#"{"from":"plan","to":"build"}"#;
    NewEvent::from_parts("sdlc.phase.changed", payload, Metadata::new(event_id, time)).unwrap()
}

/// An event that says everything of itself.
fn talkative() -> NewEvent {
    let mut event = event("{}");
    let metadata = event.metadata_mut();
    metadata.causation_id = Some(id(1).to_string());
    metadata.source = Some("tests".into());
    metadata.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    metadata.key = Some("octo/hello".into());
    event
}

async fn append_to(server: &RedisServer, aggregate: AggregateId, events: Vec<NewEvent>) {
    let append = Append::to(aggregate, Expected::Any, events);
    store(server).await.append(&append).await.unwrap();
}

fn keys_of(json: &str) -> BTreeSet<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    object.into_iter().map(|(key, _)| key).collect()
}

fn owned(names: Vec<&str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_example_of_a_history_is_what_is_written() {
    let server = server();
    let events = vec![event("{}"), example_event()];
    append_to(&server, project("gothic"), events).await;
    let history = ["LRANGE", "{events:sdlc}:history:project:gothic", "1", "1"];
    let written = server.command(&history).unwrap();

    let json = DOCUMENT.split("```json\n").nth(1).unwrap();
    let documented = json.lines().next().unwrap();
    let position = |element: &str| {
        let values: Vec<serde_json::Value> = serde_json::from_str(element).unwrap();
        values[5].as_str().unwrap().to_owned()
    };
    // Only the position is the server's own.
    let expected = documented.replace(&position(documented), &position(&written));
    assert_eq!(written, expected);
}

#[tokio::test]
async fn an_entry_has_the_fields_of_the_table() {
    let server = server();
    let events = vec![event("{}"), event("{}"), talkative()];
    append_to(&server, project("gothic"), events).await;
    let newest = ["XREVRANGE", "events:sdlc", "+", "-", "COUNT", "1"];
    let entry = server.command(&newest).unwrap();
    let fields: Vec<&str> = entry.lines().skip(1).collect();
    let written: Vec<&str> = fields.iter().step_by(2).copied().collect();
    assert_eq!(written, names("## An entry of a feed"));
    assert_eq!(fields[5], example(r#"{"type":"project""#));
    assert_eq!(keys_of(fields[7]), owned(names("### Metadata")));
}

#[tokio::test]
async fn the_command_of_another_program_writes_a_whole_event() {
    let server = server();
    let words: Vec<&str> = example("XADD")
        .split(' ')
        .map(|word| word.trim_matches('\''))
        .collect();
    server.command(&words).unwrap();
    let store = store(&server).await;
    let feed = store.read_feed(&only(), Position::START, 10).await.unwrap();
    let [FeedEntry::Event(event)] = &feed[..] else {
        panic!("{feed:?}");
    };
    assert_eq!(event.event_type(), "sdlc.phase.changed");
    assert_eq!(event.payload(), r#"{"from":"plan","to":"build"}"#);
}

#[tokio::test]
async fn the_keys_are_those_of_the_table() {
    let server = server();
    let shop = Category::new("shop").unwrap();
    let builder = crate::support::builder(&server)
        .without_shared_slots()
        .publish_on_commit(sdlc())
        .publish_on_commit(shop.clone())
        .partitions(shop.clone(), 2);
    let store = builder.connect().await.unwrap();
    let both = [
        (sdlc(), "sdlc.phase.changed"),
        (shop.clone(), "shop.order.placed"),
    ];
    for (category, event_type) in both {
        // As many as lie in both partitions.
        for n in 0..20 {
            let append = Append::to_feed(category.clone(), vec![event_as(id(n), event_type, "1")]);
            store.append(&append).await.unwrap();
        }
    }
    let receipt = Receipt {
        command_id: "request-1".into(),
        keep: std::time::Duration::from_secs(60),
    };
    let append = Append::to(project("gothic"), Expected::Any, vec![event("{}")]).once(receipt);
    let appended = store.append(&append).await.unwrap();
    let receipt = "{events:sdlc}:receipt:project:6:gothic:request-1";
    assert_eq!(server.command(&["GET", receipt]).unwrap(), "1-1");
    let snapshot = Snapshot {
        version: 1,
        event_id: id(1),
        state_version: 1,
        state: "{}".into(),
    };
    let saved = store.save_snapshot(&project("gothic"), &snapshot).await;
    assert!(saved.unwrap());
    let fields = ["HKEYS", "{events:sdlc}:snapshot:project:gothic"];
    let fields = server.command(&fields).unwrap();
    assert_eq!(fields.lines().collect::<Vec<_>>(), names("## A snapshot"));
    trim_and_adopt(&server, &store).await;
    let long = std::time::Duration::from_secs(60);
    let handler = ParallelGroup {
        group: "agents".into(),
        handler: "on_push".into(),
    };
    let start = Start::Now;
    let opened = store.open_parallel(&handler, &only(), start).await;
    opened.unwrap();
    let reset = store.reset("agents", &only(), Reset::MoveTo(start)).await;
    reset.unwrap();
    store.open("agents", &only(), start).await.unwrap();
    store.join("agents", "a", long).await.unwrap();
    let acquired = store.acquire("agents", &only(), "a", long).await.unwrap();
    let Acquired::Yes { lease, .. } = acquired else {
        panic!("{acquired:?}");
    };
    let letter = dead_letter(appended.position());
    let commit = Commit {
        number: 1,
        parked: vec![letter.clone()],
        ..Commit::default()
    };
    store.commit(&lease, &commit).await.unwrap();
    emit_both_ways(&server, &store, &lease, &shop).await;

    project_pushes(&server, &store).await;
    keep_pushes(&server, &store).await;

    // One of the two with known ids is only there when the other has been full.
    let documented = names("## Keys").into_iter().filter(|key| *key != "…:ids:1");
    let named = |key: &str| {
        key.replace(
            "<type>:<bytes>:<id>:<command>",
            "project:6:gothic:request-1",
        )
        .replace("<type>:<id>", "project:gothic")
        .replace("<group>", "agents")
        .replace("<feed>", "events:shop")
        .replace("<handler>", "on_push")
        .replace("<n>", "1")
        .replace("<name>", "pushes")
        .replace("<version>", "3")
        .replace("<key>", "octo/hello")
        .replace("<tag>", "octo")
    };
    let (of_shop, others): (Vec<_>, Vec<_>) =
        documented.partition(|key| key.ends_with(":<n>") || key.ends_with(":partitions"));
    let mut expected: BTreeSet<String> = others
        .iter()
        .map(|key| named(key).replace("<category>", "sdlc"))
        .collect();
    expected.extend(
        of_shop
            .iter()
            .map(|key| named(key).replace("<category>", "shop")),
    );
    let keys = server.command(&["KEYS", "*"]).unwrap();
    let found: BTreeSet<String> = keys
        .lines()
        // What each feed has is in the table once.
        .filter(|key| expected.contains(*key) || !key.contains("events:shop"))
        .map(str::to_owned)
        .collect();
    assert_eq!(found, expected);

    let progress = server
        .command(&["HKEYS", "{events:sdlc}:group:agents"])
        .unwrap();
    assert_eq!(
        owned(progress.lines().collect()),
        owned(names("## How far a group is"))
    );
    let outbox = "{events:sdlc}:outbox:agents:events:shop";
    let newest = server.command(&["XRANGE", outbox, "-", "+"]).unwrap();
    let fields: Vec<&str> = newest.lines().skip(1).collect();
    let written: Vec<&str> = fields.iter().step_by(2).copied().collect();
    assert_eq!(written, names("## What is emitted to another slot"));
    let head = example(r#"{"type":"project""#).split("3}").next().unwrap();
    assert!(section("## What is emitted to another slot").contains(&format!("`{head}`")));
    let (before_id, behind_id) = head.split_once("gothic").unwrap();
    assert!(fields[1].starts_with(&before_id.replace("project", "basket")));
    assert!(fields[1].ends_with(behind_id));
    let last = ["HGET", "{events:sdlc}:outboxes:agents", "events:shop"];
    let last = server.command(&last).unwrap();
    let (last, run) = last.split_once(' ').unwrap();
    let counted = |number: &str| number.parse::<u64>().unwrap() % 16_384;
    assert_eq!(counted(last), 2);
    let info = server.command(&["INFO", "server"]).unwrap();
    assert!(info.contains(&format!("run_id:{run}")), "{run}");
    let from = ["HGET", "{events:sdlc}:delivered", "agents/events:shop"];
    assert_eq!(counted(&server.command(&from).unwrap()), 1);
    let remembered = server
        .command(&["HKEYS", "{events:sdlc}:parallel:agents/on_push"])
        .unwrap();
    assert_eq!(
        owned(remembered.lines().collect()),
        owned(names("## Parallel delivery"))
    );
    let json = [
        "HGET",
        "{events:sdlc}:dead:agents",
        &letter.id().to_string(),
    ];
    let json = server.command(&json).unwrap();
    assert_eq!(keys_of(&json), owned(names("## A dead letter")));
    let order = ["ZRANGE", "{events:sdlc}:dead-order:agents", "0", "-1"];
    let member = server.command(&order).unwrap();
    assert_eq!(member.len(), example("00000001763").len());
}

/// Has the first entries of a feed removed, and one of another program put into a history.
async fn trim_and_adopt(server: &RedisServer, store: &RedisStore) {
    let aggregate = r#"{"type":"project","id":"gothic"}"#;
    let entry = [
        "type",
        "phase.changed",
        "payload",
        "1",
        "aggregate",
        aggregate,
    ];
    let position = server.command(&[&["XADD", "events:sdlc", "*"][..], &entry].concat());
    let position = position.unwrap();
    assert_eq!(adopt(store, &sdlc()).await.unwrap().adopted, 1);
    let adopted = server.command(&["HGETALL", "{events:sdlc}:adopted"]);
    assert_eq!(adopted.unwrap(), format!("{position}\n2"));
    let policy = TrimPolicy::new().max_entries(20);
    let trimmed = store.trim_partition(&only(), &policy).await.unwrap();
    assert_eq!(trimmed.removed, 2);
    let fields = ["HKEYS", "{events:sdlc}:trimmed"];
    let fields = server.command(&fields).unwrap();
    assert_eq!(
        fields.lines().collect::<Vec<_>>(),
        names("## What is trimmed away")
    );
}

/// Leaves everything that there is of a cache.
async fn keep_pushes(server: &RedisServer, store: &RedisStore) {
    let entry = store.cache("pushes").unwrap().entry("octo/hello");
    let mut token = Token::default();
    token.reach(only(), Position::new(1_763_900_000_000, 3));
    let entry = entry.tag("octo");
    assert!(entry.set(&1, AsOf::token(&token)).await.unwrap());
    let key = "cache:pushes:octo/hello";
    let fields = server.command(&["HKEYS", key]).unwrap();
    assert_eq!(
        owned(fields.lines().collect()),
        owned(names("## An entry of a cache"))
    );
    let as_of = server.command(&["HGET", key, "asOf"]).unwrap();
    let place = example("[\"partition").replace("\",\"", "\":\"");
    assert_eq!(as_of, format!("{{{}}}", place.trim_matches(['[', ']'])));
    let under = server.command(&["ZRANGE", "cache-tag:pushes:octo", "0", "-1"]);
    assert_eq!(under.unwrap(), key);
}

/// Leaves everything that there is of a projection.
async fn project_pushes(server: &RedisServer, store: &RedisStore) {
    let id = ProjectionId::new("pushes", 3).unwrap();
    let categories = [sdlc(), Category::new("stock").unwrap()];
    store.open_projection(&id, &categories).await.unwrap();
    let long = std::time::Duration::from_secs(60);
    assert!(store.hold_projection(&id, "a", long).await.unwrap());
    let mut writes = Writes::default();
    writes.set("octo/hello", &[1]).unwrap();
    writes.set_field("octo/hello", "by", "mona").unwrap();
    writes.increment("octo/hello", "commits", 2);
    let step = ProjectionStep {
        from: Position::START,
        to: Position::new(7, 0),
        writes: ProjectionWrites::of(writes).unwrap(),
    };
    let third = Partition::new(sdlc(), 3);
    store.apply_projection(&id, &third, &step).await.unwrap();
    let asked = |command: &[&str]| server.command(command).unwrap();
    let versions = "{projection:pushes}:versions";
    assert_eq!(asked(&["HGET", versions, "served"]), "3");
    assert_eq!(asked(&["HGET", versions, "3"]), "live sdlc stock");
    assert!(section("## A projection").contains("`live order stock`"));
    let of_version = |rest: &str| format!("{{projection:pushes}}:v3:{rest}");
    assert_eq!(asked(&["GET", &of_version("document:octo/hello")]), "[1]");
    let fields = of_version("fields:octo/hello");
    assert_eq!(asked(&["HGET", &fields, "by"]), "\"mona\"");
    assert_eq!(asked(&["HGET", &fields, "commits"]), "2");
    assert_eq!(
        asked(&["HGET", &of_version("checkpoints"), "sdlc:3"]),
        "7-0"
    );
}

/// Has something delivered from one category to the other and back, and something left in an outbox.
async fn emit_both_ways(server: &RedisServer, store: &RedisStore, lease: &Lease, shop: &Category) {
    let basket = (1..)
        .map(|n| AggregateId::new(shop.clone(), "basket", format!("b{n}")).unwrap())
        .find(|basket| Partition::of_aggregate(basket, 2).number() == 0)
        .unwrap();
    let order = || event_as(event_core::Ids::random().next(), "shop.order.placed", "1");
    let commit = |number, append| Commit {
        number,
        emitted: vec![vec![append]],
        ..Commit::default()
    };
    let first = Append::to(basket.clone(), Expected::Any, vec![order()]);
    store.commit(lease, &commit(2, first)).await.unwrap();
    let arrived = "{events:shop}:delivered";
    until("a delivery", || {
        server.command(&["EXISTS", arrived]).unwrap() == "1"
    })
    .await;
    // The next is refused, and stays.
    let history = format!("{{events:shop}}:history:{basket}");
    server.command(&["SET", &history, "x"]).unwrap();
    let second = Append::to(basket, Expected::Any, vec![order()]);
    store.commit(lease, &commit(3, second)).await.unwrap();

    let long = std::time::Duration::from_secs(60);
    let source = shop.into();
    let acquired = store.acquire("agents", &source, "a", long);
    let Ok(Acquired::Yes { lease, .. }) = acquired.await else {
        panic!("it is free");
    };
    let back = Append::to_feed(sdlc(), vec![event("{}")]);
    store.commit(&lease, &commit(1, back)).await.unwrap();
    until("a delivery", || {
        server
            .command(&["EXISTS", "{events:sdlc}:delivered"])
            .unwrap()
            == "1"
    })
    .await;
}

fn dead_letter(position: Position) -> DeadLetter {
    let time = "2025-11-23T12:13:20Z".parse().unwrap();
    DeadLetter {
        position,
        handler: "on_push".into(),
        key: None,
        event_type: None,
        event_id: None,
        reason: DeadLetterReason::Rejected,
        errors: vec![],
        attempts: 1,
        first_failed_at: time,
        last_failed_at: time,
        redrive: false,
    }
}

#[test]
fn a_message_has_the_names_of_the_table() {
    let message = RealtimePublisher::default().encode(&talkative()).unwrap();
    let mut expected = owned(names("## A realtime message"));
    expected.extend(owned(names("### Metadata")));
    assert_eq!(keys_of(&message), expected);
}
