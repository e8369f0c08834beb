//! Realtime events: sent to whoever listens now, and kept nowhere.

use super::StoreHarness;
use super::bank::{Notice, bank, category};
use super::steps::{feed, fresh, head, new_ids, recorded_ids, within};
use crate::codec::NewEvent;
use crate::pattern::Pattern;
use crate::realtime::{DEFAULT_CAPACITY, Realtime, RealtimeItem, RealtimeSubscription};
use crate::recorded::{Position, RecordedEvent};

async fn subscribe(store: &impl Realtime, patterns: &[&str]) -> RealtimeSubscription {
    let patterns: Vec<Pattern> = patterns
        .iter()
        .map(|pattern| pattern.parse().expect("a pattern of the suite is one"))
        .collect();
    match store.subscribe(&patterns).await {
        Ok(subscription) => subscription,
        Err(error) => panic!("it must be possible to subscribe: {error}"),
    }
}

async fn publish(store: &impl Realtime, events: &[NewEvent]) {
    if let Err(error) = store.publish_realtime(events).await {
        panic!("it must be possible to publish: {error}");
    }
}

/// Everything that was sent before now, in which nothing may be missed.
async fn heard(subscription: &mut RealtimeSubscription) -> Vec<RecordedEvent> {
    let drained = within("what was sent arrives", subscription.drain()).await;
    let items = match drained {
        Ok(items) => items,
        Err(error) => panic!("a subscription must go on: {error}"),
    };
    items
        .into_iter()
        .map(|item| match item {
            RealtimeItem::Event(event) => event,
            RealtimeItem::Missed { channel, count } => {
                panic!("{count} events of `{channel}` were missed, and there was room for them")
            }
        })
        .collect()
}

fn types(events: &[RecordedEvent]) -> Vec<&str> {
    let mut types: Vec<_> = events.iter().map(RecordedEvent::event_type).collect();
    types.sort_unstable();
    types
}

/// Subscribes, sends one event of each type and makes sure of which are heard.
async fn expect_heard<H: StoreHarness>(harness: &H, patterns: &[&str], expected: &[&str]) {
    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, patterns).await;
    for number in 0..2 {
        publish(&store, &Notice::of_each_type(number)).await;
        let found = heard(&mut subscription).await;
        assert_eq!(types(&found), expected, "heard with {patterns:?}");
    }
}

/// A pattern without `*` hears its own type alone.
pub async fn an_exact_pattern_hears_its_type_alone<H: StoreHarness>(harness: &H) {
    expect_heard(harness, &["bank.rate.quoted"], &["bank.rate.quoted"]).await;
    expect_heard(harness, &["bank.rate.quote"], &[]).await;
    expect_heard(harness, &["rate.quoted"], &[]).await;
}

/// A pattern hears every type that it matches, where `*` is any run of characters.
pub async fn a_pattern_hears_every_type_it_matches<H: StoreHarness>(harness: &H) {
    let rate = ["bank.rate.quoted", "bank.rate.withdrawn"];
    expect_heard(harness, &["bank.rate.*"], &rate).await;
    let bank = [
        "bank.rate.quoted",
        "bank.rate.withdrawn",
        "bank.rates.closed",
    ];
    expect_heard(harness, &["bank.*"], &bank).await;
    expect_heard(harness, &["bank.rate*"], &bank).await;
    let ending_in_ed = ["bank.rate.quoted", "bank.rates.closed"];
    expect_heard(harness, &["bank.*ed"], &ending_in_ed).await;
    expect_heard(harness, &["shop.*"], &[]).await;
}

/// A `*` in the first segment hears every category.
pub async fn a_star_hears_every_category<H: StoreHarness>(harness: &H) {
    let all = [
        "bank.rate.quoted",
        "bank.rate.withdrawn",
        "bank.rates.closed",
        "weather.rain.begun",
    ];
    expect_heard(harness, &["*"], &all).await;
    expect_heard(harness, &["*.rain.begun"], &["weather.rain.begun"]).await;
    expect_heard(harness, &["*a*.begun"], &["weather.rain.begun"]).await;
}

/// A subscription with several patterns hears what any of them matches.
pub async fn several_patterns_hear_what_any_of_them_matches<H: StoreHarness>(harness: &H) {
    let expected = ["bank.rates.closed", "weather.rain.begun"];
    expect_heard(harness, &["weather.*", "bank.rates.closed"], &expected).await;
}

/// An event that several patterns of one subscription match is heard once.
pub async fn overlapping_patterns_hear_an_event_once<H: StoreHarness>(harness: &H) {
    let rate = ["bank.rate.quoted", "bank.rate.withdrawn"];
    expect_heard(harness, &["bank.rate.quoted", "bank.rate.*"], &rate).await;
    expect_heard(
        harness,
        &[
            "bank.rate.quoted",
            "bank.*quoted",
            "*.quoted",
            "bank.rate.quoted",
        ],
        &["bank.rate.quoted"],
    )
    .await;

    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, &["bank.*", "*", "bank.rate.quoted"]).await;
    let sent: Vec<_> = (0..200)
        .map(|number| Notice::RateQuoted { number }.encode())
        .collect();
    publish(&store, &sent).await;
    assert_eq!(
        recorded_ids(&heard(&mut subscription).await),
        new_ids(&sent)
    );
}

/// Events of one type arrive in the order in which they were sent.
pub async fn events_of_a_type_arrive_in_order<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, &["*"]).await;
    let mut sent = Vec::new();
    for number in 0..100 {
        let notices = Notice::of_each_type(number);
        publish(&store, &notices).await;
        sent.extend(notices);
    }
    // One by one, as a subscriber hears them.
    let mut found = Vec::new();
    while found.len() < sent.len() {
        match within("what was sent is heard", subscription.next()).await {
            Some(RealtimeItem::Event(event)) => found.push(event),
            other => panic!("an event must follow, and not {other:?}"),
        }
    }
    for event_type in [
        "bank.rate.quoted",
        "bank.rates.closed",
        "weather.rain.begun",
    ] {
        let found: Vec<_> = found
            .iter()
            .filter(|event| event.event_type() == event_type)
            .cloned()
            .collect();
        let sent: Vec<_> = sent
            .iter()
            .filter(|event| event.event_type() == event_type)
            .cloned()
            .collect();
        assert_eq!(
            recorded_ids(&found),
            new_ids(&sent),
            "the order of `{event_type}`"
        );
    }
}

/// Type, payload and all metadata of a realtime event survive; it lies nowhere and belongs to no
/// aggregate.
pub async fn a_realtime_event_survives<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, &["bank.*"]).await;
    let plain = Notice::RateQuoted { number: u64::MAX }.encode();
    let mut rich = Notice::RateQuoted { number: 0 }.encode();
    let metadata = rich.metadata_mut();
    metadata.correlation_id = "order \"7\" 🦀".into();
    metadata.causation_id = Some("cause".into());
    metadata.source = Some("rates".into());
    metadata.schema_version = 2;
    metadata.traceparent = Some("00-1-2-01".into());
    metadata.key = Some("ünïcode \u{0}".into());
    rich.insert_metadata("userId", 3).unwrap();
    for sent in [plain, rich] {
        publish(&store, std::slice::from_ref(&sent)).await;
        let found = heard(&mut subscription).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].event_type(), sent.event_type());
        assert_eq!(found[0].payload(), sent.payload());
        assert_eq!(found[0].metadata(), sent.metadata());
        assert_eq!(found[0].position(), Position::START);
        assert_eq!(found[0].aggregate(), None);
    }
}

/// Everybody who has subscribed hears everything.
pub async fn every_subscriber_hears_everything<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut subscriptions = Vec::new();
    for patterns in [["bank.*"], ["bank.rate.quoted"], ["*"], ["bank.*"]] {
        subscriptions.push(subscribe(&store, &patterns).await);
    }
    let sent: Vec<_> = (0..50)
        .map(|number| Notice::RateQuoted { number }.encode())
        .collect();
    publish(&store, &sent).await;
    for subscription in &mut subscriptions {
        assert_eq!(recorded_ids(&heard(subscription).await), new_ids(&sent));
    }
}

/// What one client sends is heard by subscribers of another, and several clients are heard beside
/// each other.
pub async fn another_client_hears_what_one_sends<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let mut subscription = subscribe(&store, &["bank.*"]).await;
    let mut sent = Vec::new();
    for number in 0..20 {
        let notice = Notice::RateQuoted { number }.encode();
        let client = if number % 2 == 0 { &other } else { &store };
        publish(client, std::slice::from_ref(&notice)).await;
        sent.push(notice);
    }
    let mut found = Vec::new();
    // What another client sends by another node of a cluster comes when that passes it on.
    while found.len() < sent.len() {
        match within("what was sent arrives", subscription.next()).await {
            Some(RealtimeItem::Event(event)) => found.push(event.metadata().event_id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard(&mut subscription).await, []);
    let mut sent = new_ids(&sent);
    found.sort_unstable();
    sent.sort_unstable();
    assert_eq!(found, sent);
}

/// What was sent before a subscription began is not heard by it, and counts as nothing missed.
pub async fn what_was_sent_before_is_not_heard<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    publish(&store, &Notice::of_each_type(1)).await;
    let mut subscription = subscribe(&store, &["*"]).await;
    assert_eq!(heard(&mut subscription).await, []);
    publish(&store, &Notice::of_each_type(2)).await;
    assert_eq!(heard(&mut subscription).await.len(), 4);
}

/// What does not fit into the buffer of a slow subscriber is counted: what it hears and what it is
/// told that it missed is everything, in order.
pub async fn what_did_not_fit_is_counted<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, &["bank.*"]).await;
    let total = DEFAULT_CAPACITY * 3;
    let mut sent = Vec::new();
    for number in 0..total as u64 {
        sent.push(Notice::RateQuoted { number }.encode());
    }
    for some in sent.chunks(100) {
        publish(&store, some).await;
    }
    let mut items = within("what was sent arrives", subscription.drain())
        .await
        .unwrap();
    assert!(
        items.len() < total,
        "a subscriber that does not listen must have a bounded buffer"
    );
    // What was lost last shows when the next one arrives.
    let last = Notice::RateQuoted { number: 0 }.encode();
    publish(&store, std::slice::from_ref(&last)).await;
    items.extend(
        within("what was sent arrives", subscription.drain())
            .await
            .unwrap(),
    );
    sent.push(last);

    let mut next = 0;
    for item in items {
        match item {
            RealtimeItem::Event(event) => {
                assert_eq!(
                    event.metadata().event_id,
                    sent[next].metadata().event_id,
                    "what was missed before an event must be told before it, in full"
                );
                next += 1;
            }
            RealtimeItem::Missed { channel, count } => {
                assert_eq!(channel, "bank.rate.quoted");
                next += usize::try_from(count).unwrap();
            }
        }
    }
    assert_eq!(next, sent.len(), "heard and missed must be everything");

    // And then it goes on as before.
    publish(&store, &Notice::of_each_type(1)).await;
    assert_eq!(heard(&mut subscription).await.len(), 3);
}

/// Realtime events get into no feed.
pub async fn realtime_events_are_not_stored<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut subscription = subscribe(&store, &["*"]).await;
    publish(&store, &Notice::of_each_type(1)).await;
    assert_eq!(heard(&mut subscription).await.len(), 4);
    for category in [bank(), category("weather")] {
        assert_eq!(feed(&store, &category).await, []);
        assert_eq!(head(&store, &category).await, Position::START);
    }
}

/// A subscription that is dropped hears nothing more, disturbs nobody, and one that begins later
/// hears only what is sent from then on.
pub async fn nothing_is_heard_after_drop<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let mut stays = subscribe(&store, &["*"]).await;
    for number in 0..20 {
        let mut leaves = subscribe(&store, &["*"]).await;
        publish(&store, &Notice::of_each_type(number)).await;
        assert_eq!(heard(&mut leaves).await.len(), 4);
        publish(&store, &Notice::of_each_type(number)).await;
        drop(leaves);
        publish(&store, &Notice::of_each_type(number)).await;
    }
    assert_eq!(heard(&mut stays).await.len(), 20 * 3 * 4);
}
