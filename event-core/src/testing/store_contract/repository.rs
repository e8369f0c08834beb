//! Loads and commands on top of the store.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, AccountEvent, Overdrawn, account, bank};
use super::steps::{feed, fresh, history};
use crate::clock::{Clock, Ids};
use crate::codec::Codec;
use crate::codec::history::HistoryEntry;
use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position};
use crate::repository::{At, Repository, RepositoryError};
use crate::store::{
    Append, AppendError, Appended, EventStore, Expected, FeedEntry, FeedReader, ReadError, Versions,
};

/// Loading an aggregate that has no events is not found.
pub async fn loading_an_unknown_aggregate_is_not_found<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    accounts
        .execute("other", AccountCommand::Deposit(1))
        .await
        .unwrap();
    for loaded in [
        accounts.load("unknown").await,
        accounts.load_at("unknown", At::Version(1)).await,
        accounts
            .load_at("unknown", At::Time(DateTime::UNIX_EPOCH))
            .await,
    ] {
        assert!(
            matches!(&loaded, Err(RepositoryError::NotFound { aggregate }) if aggregate.id() == "unknown"),
            "an unknown aggregate must be not found, and came to {loaded:?}"
        );
    }
}

/// Loading replays every event of the aggregate once and in order, few or many.
pub async fn loading_replays_every_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let mut deposited = 0;
    let mut count = 0;
    for more in [1, 2, 997, 1_000, 500] {
        let events: Vec<_> = (1..=more)
            .map(|amount| AccountEvent::Deposited { amount })
            .collect();
        accounts
            .append("a", Expected::Exact(count), &events)
            .await
            .unwrap();
        deposited += more * (more + 1) / 2;
        count += more;
        let loaded = accounts.load("a").await.unwrap();
        assert_eq!(loaded.version, count);
        assert_eq!(loaded.state.entries, count);
        assert_eq!(loaded.state.balance, deposited);
    }
}

/// Loading at a version stops with its event; a version that is not reached is named with the newest
/// there is.
pub async fn loading_at_a_version_stops_there<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    for amount in 1..=5 {
        accounts
            .execute("a", AccountCommand::Deposit(amount))
            .await
            .unwrap();
    }
    for version in 1..=5 {
        let loaded = accounts.load_at("a", At::Version(version)).await.unwrap();
        assert_eq!(loaded.version, version);
        assert_eq!(loaded.state.balance, version * (version + 1) / 2);
    }
    assert_eq!(accounts.load("a").await.unwrap().version, 5);
    let beyond = accounts.load_at("a", At::Version(6)).await;
    assert!(
        matches!(
            beyond,
            Err(RepositoryError::NoSuchVersion {
                wanted: 6,
                highest: 5,
                ..
            })
        ),
        "a version that is not reached must be named, and came to {beyond:?}"
    );
    let before = accounts.load_at("a", At::Version(0)).await;
    assert!(
        matches!(before, Err(RepositoryError::NotFound { .. })),
        "before its first event there is no aggregate, and came to {before:?}"
    );
}

/// Loading at a time takes every event that was made until then, to the microsecond.
pub async fn loading_at_a_time_stops_there<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let start = DateTime::from_timestamp_micros(1_763_900_000_000_001).unwrap();
    let clock = Clock::standing_at(start);
    let codec = Codec::new(clock.clone(), Ids::random());
    let accounts = Repository::<Account>::with_codec(Arc::new(store.clone()), codec);
    for _ in 0..3 {
        accounts
            .execute("a", AccountCommand::DepositCoins(2))
            .await
            .unwrap();
        clock.advance(TimeDelta::microseconds(10));
    }
    for (micros, version) in [(0, 2), (9, 2), (10, 4), (19, 4), (20, 6), (1_000_000, 6)] {
        let time = start + TimeDelta::microseconds(micros);
        let loaded = accounts.load_at("a", At::Time(time)).await.unwrap();
        assert_eq!(loaded.version, version, "{micros} µs after the first event");
        assert_eq!(loaded.state.balance, version);
    }
    let before = accounts
        .load_at("a", At::Time(start - TimeDelta::microseconds(1)))
        .await;
    assert!(
        matches!(before, Err(RepositoryError::NotFound { .. })),
        "before its first event there is no aggregate, and came to {before:?}"
    );
}

/// A command appends the events that it leads to, and what it returns is what is read afterwards.
pub async fn a_command_appends_what_it_leads_to<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let mut stored = Vec::new();
    for command in [
        AccountCommand::Deposit(5),
        AccountCommand::DepositCoins(3),
        AccountCommand::Withdraw(7),
        AccountCommand::Close,
    ] {
        let executed = accounts.execute("a", command).await.unwrap();
        stored.extend(executed.events);
        let loaded = accounts.load("a").await.unwrap();
        assert_eq!(loaded.state, executed.state);
        assert_eq!(loaded.version, executed.version);
    }
    assert_eq!(history(&store, &account("a")).await, stored);
    assert_eq!(feed(&store, &bank()).await, stored);
}

/// A command that leads to nothing appends nothing.
pub async fn a_command_that_leads_to_nothing_appends_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    let nothing = AccountCommand::DepositCoins(0);
    let executed = accounts.execute("a", nothing).await.unwrap();
    assert_eq!((executed.version, executed.events), (0, Vec::new()));
    assert_eq!(history(&store, &account("a")).await, []);

    accounts.execute("a", AccountCommand::Close).await.unwrap();
    let executed = accounts.execute("a", AccountCommand::Close).await.unwrap();
    assert_eq!((executed.version, executed.events), (1, Vec::new()));
    assert_eq!(feed(&store, &bank()).await.len(), 1);
}

/// A command that the aggregate refuses appends nothing, and its own error comes back.
pub async fn a_refused_command_appends_nothing<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let accounts = Repository::<Account>::new(store.clone());
    for balance in [0, 3] {
        let refused = accounts
            .execute("a", AccountCommand::Withdraw(balance + 1))
            .await
            .unwrap_err();
        assert_eq!(
            refused.rejection::<Overdrawn>(),
            Some(&Overdrawn { balance })
        );
        assert_eq!(history(&store, &account("a")).await.len() as u64, balance);
        accounts
            .execute("a", AccountCommand::DepositCoins(3))
            .await
            .unwrap();
    }
}

/// Of 64 commands that are executed at the same time on one aggregate each counts: who was slower
/// decides again.
pub async fn of_64_commands_at_once_each_counts<H: StoreHarness>(harness: &H) {
    const COMMANDS: u64 = 64;
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let colliding = Arc::new(Colliding::new(COMMANDS));
    let repositories = [store.clone(), other].map(|store| {
        let store = CollidingClient {
            store,
            colliding: Arc::clone(&colliding),
        };
        Arc::new(Repository::<Account>::new(store))
    });
    let mut commands = JoinSet::new();
    for number in 1..=COMMANDS {
        let accounts = Arc::clone(&repositories[(number % 2) as usize]);
        commands.spawn(async move { accounts.execute("a", AccountCommand::Deposit(number)).await });
    }
    let mut versions = Vec::new();
    for executed in commands.join_all().await {
        match executed {
            Ok(executed) => versions.push(executed.version),
            Err(error) => panic!("a command must be decided again until it is accepted: {error}"),
        }
    }
    let conflicts = colliding.conflicts.load(Ordering::SeqCst);
    assert!(
        conflicts >= COMMANDS - 1,
        "all but the first must have been in conflict once, and {conflicts} were"
    );
    versions.sort_unstable();
    let each_once: Vec<_> = (1..=COMMANDS).collect();
    assert_eq!(
        versions, each_once,
        "each command must have its own version"
    );
    let loaded = Repository::<Account>::new(store).load("a").await.unwrap();
    assert_eq!(loaded.state.balance, COMMANDS * (COMMANDS + 1) / 2);
    assert_eq!(loaded.version, COMMANDS);
}

/// Holds each writer's first append back until all of them have come so far, so that all have
/// decided on the same version.
struct Colliding {
    first_appends_to_come: AtomicU64,
    all_here: Barrier,
    conflicts: AtomicU64,
}

impl Colliding {
    fn new(writers: u64) -> Self {
        Self {
            first_appends_to_come: AtomicU64::new(writers),
            all_here: Barrier::new(writers as usize),
            conflicts: AtomicU64::new(0),
        }
    }

    async fn wait(&self) {
        // Nobody comes a second time before everybody has come once.
        let to_come = self.first_appends_to_come.load(Ordering::SeqCst);
        if to_come > 0 {
            self.first_appends_to_come.fetch_sub(1, Ordering::SeqCst);
            self.all_here.wait().await;
        }
    }
}

struct CollidingClient<S> {
    store: S,
    colliding: Arc<Colliding>,
}

#[async_trait]
impl<S: EventStore> EventStore for CollidingClient<S> {
    async fn append(&self, append: &Append) -> Result<Appended, AppendError> {
        self.colliding.wait().await;
        let appended = self.store.append(append).await;
        if let Err(AppendError::Conflict { .. }) = appended {
            self.colliding.conflicts.fetch_add(1, Ordering::SeqCst);
        }
        appended
    }

    async fn replay(
        &self,
        aggregate: &AggregateId,
        versions: &Versions,
        visit: &mut (dyn for<'a> FnMut(HistoryEntry<'a>) -> ControlFlow<()> + Send),
    ) -> Result<(), ReadError> {
        self.store.replay(aggregate, versions, visit).await
    }

    async fn partitions(&self, category: &Category) -> Result<u32, ReadError> {
        self.store.partitions(category).await
    }

    async fn read_feed(
        &self,
        partition: &Partition,
        after: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.store.read_feed(partition, after, limit).await
    }

    async fn read_feed_back(
        &self,
        partition: &Partition,
        before: Position,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, ReadError> {
        self.store.read_feed_back(partition, before, limit).await
    }

    async fn follow(
        &self,
        partition: &Partition,
        after: Position,
    ) -> Result<Box<dyn FeedReader>, ReadError> {
        self.store.follow(partition, after).await
    }

    async fn head(&self, partition: &Partition) -> Result<Position, ReadError> {
        self.store.head(partition).await
    }
}
