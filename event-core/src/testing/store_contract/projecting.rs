//! Projections that services fill: each event once, whoever fills them and whatever ends in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::StoreHarness;
use super::bank::{Account, AccountCommand, AccountEvent, account, bank, deposit, deposits};
use super::steps::{SHORT, append, append_to_feed, feed, fresh, send, within};
use crate::BoxError;
use crate::handler::{Context, HandlerDefinition};
use crate::partition::Partition;
use crate::projection::{
    Projection, ProjectionError, ProjectionFailure, ProjectionMethod, ProjectionSink, Rebuilt,
    SinkBatch, WaitError, Writes,
};
use crate::recorded::{Position, RecordedEvent};
use crate::repository::{Repository, RepositoryError};
use crate::service::{Mistake, ServiceBuilder, ServiceError};
use crate::store::{
    Append, AppendError, Backend, EventStore, Expected, Maintenance, ProjectionId, Projections,
    TrimPolicy,
};
use crate::testing::running::{Running, build, eventually, service};
use crate::token::Token;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// By account: how much was paid in, and how often.
struct Balances;

/// As [`Balances`], with the amounts doubled.
struct Doubled;

fn pay_in(event: &RecordedEvent, factor: i64, writes: &mut Writes) -> Result<(), BoxError> {
    if let Some(AccountEvent::Deposited { amount }) = event.view()? {
        let account = event
            .aggregate()
            .map_or("nobody", |aggregate| &aggregate.id);
        writes.increment(account, "balance", factor * i64::try_from(amount)?);
        writes.increment(account, "entries", 1);
        writes.set(account, &amount)?;
    }
    Ok(())
}

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let pay_in =
            |_: &Self, event: RecordedEvent, writes: &mut Writes| pay_in(&event, 1, writes);
        vec![ProjectionMethod::new("pay_in", pay_in).on("bank.*")]
    }
}

impl Projection for Doubled {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 2;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let pay_in =
            |_: &Self, event: RecordedEvent, writes: &mut Writes| pay_in(&event, 2, writes);
        vec![ProjectionMethod::new("pay_in", pay_in).on("bank.*")]
    }
}

/// How much was paid in, in all.
struct Total;

impl Projection for Total {
    const NAME: &'static str = "total";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let add = |_: &Self, event: AccountEvent, writes: &mut Writes| {
            if let AccountEvent::Deposited { amount } = event {
                writes.increment("bank", "total", i64::try_from(amount).unwrap_or(i64::MAX));
            }
        };
        vec![ProjectionMethod::new("add", add).on("bank.*")]
    }
}

/// Appends one deposit to each of some accounts, several times; says where they lie.
async fn deposit_to_each(store: &impl EventStore, accounts: usize, times: usize) -> Token {
    let mut token = Token::default();
    for _ in 0..times {
        for number in 0..accounts {
            let account = account(&number.to_string());
            let appended = append(store, &account, Expected::Any, vec![deposit()]).await;
            token.merge(&appended.token());
        }
    }
    token
}

async fn expect_balances(store: &(impl Backend + Clone), version: u32, accounts: usize, each: i64) {
    let service = build(service(store, "reads"));
    let view = service.projection("balances").unwrap().version(version);
    for number in 0..accounts {
        let account = number.to_string();
        let balance = view.count(&account, "balance").await.unwrap();
        let entries = view.count(&account, "entries").await.unwrap();
        assert_eq!(
            (balance, entries),
            (each * i64::from(version), each),
            "account {account}"
        );
        assert_eq!(view.get::<u64>(&account).await.unwrap(), Some(1));
    }
    assert_eq!(view.keys(None, 10_000).await.unwrap().len(), accounts);
}

/// Each event is in the state once, in all partitions, while several instances fill it and one of them
/// vanishes.
pub async fn a_projection_has_each_event_once<H: StoreHarness>(harness: &H) {
    const ACCOUNTS: usize = 20;
    let store = harness.partitioned(&bank(), 4).await;
    deposit_to_each(&store, ACCOUNTS, 5).await;
    let start = |store: &H::Store, instance: &str| {
        let builder = service(store, "fills").projection(Balances).lease(SHORT);
        Running::start(builder.instance(instance))
    };
    let first = start(&store, "a");
    let other = harness.other_client(&store).await;
    let second = start(&other, "b");
    deposit_to_each(&other, ACCOUNTS, 5).await;
    first.vanish().await;
    let token = deposit_to_each(&store, ACCOUNTS, 5).await;
    let view = build(service(&store, "reads"))
        .projection("balances")
        .unwrap();
    view.wait_for(&token, PATIENCE).await.unwrap();
    expect_balances(&store, 1, ACCOUNTS, 15).await;
    second.stop().await;
}

/// What was written is waited for by its token; where nobody fills the projection, it is said how far it is.
pub async fn own_writes_are_waited_for<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let fills = build(service(&store, "fills").projection(Balances));
    let accounts: Repository<Account> = fills.repository();
    let done = accounts
        .execute("a", AccountCommand::DepositCoins(3))
        .await
        .unwrap();
    let token: Token = done.token().to_string().parse().unwrap();
    assert_eq!(token, done.token());
    let view = fills.projection("balances").unwrap();
    match view.wait_for(&token, Duration::ZERO).await {
        Err(ProjectionError::Behind {
            reached, wanted, ..
        }) => {
            assert_eq!(reached, Position::START);
            assert_eq!(wanted, done.events[2].position());
        }
        other => panic!("nobody fills it, and it came to {other:?}"),
    }
    let running = Running::of(&fills);
    view.wait_for(&token, PATIENCE).await.unwrap();
    assert_eq!(view.count("a", "entries").await.unwrap(), 3);
    let nothing = accounts
        .execute("a", AccountCommand::DepositCoins(0))
        .await
        .unwrap();
    assert!(nothing.token().is_empty());
    view.wait_for(&nothing.token(), Duration::ZERO)
        .await
        .unwrap();
    running.stop().await;
}

/// Handlers are waited for by the same token.
pub async fn handlers_are_waited_for<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let seen = Arc::new(Mutex::new(0));
    let sees = Arc::clone(&seen);
    let handler = HandlerDefinition::function("see", move |_: RecordedEvent, _: Context| {
        *sees.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        async {}
    });
    let handles = build(service(&store, "handles").handler(handler.on("bank.*")));
    let token = append_to_feed(&store, &bank(), deposits(3)).await.token();
    match handles.wait_until_handled(&token, Duration::ZERO).await {
        Err(WaitError::Behind { group, reached, .. }) => {
            assert_eq!((group.as_str(), reached), ("handles", Position::START));
        }
        other => panic!("nothing is handled, and it came to {other:?}"),
    }
    let running = Running::of(&handles);
    handles.wait_until_handled(&token, PATIENCE).await.unwrap();
    assert_eq!(*seen.lock().unwrap_or_else(PoisonError::into_inner), 3);
    running.stop().await;
}

/// What is no event is not skipped: the projection stops before it, and says so.
pub async fn a_projection_stops_before_what_is_no_event<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let before = deposit_to_each(&store, 1, 3).await;
    let fields = [("type", "bank.deposited"), ("payload", "{")];
    let wrong = harness.append_foreign(&store, &bank(), &fields).await;
    let behind = deposit_to_each(&store, 1, 2).await;
    let fills = build(service(&store, "fills").projection(Balances));
    match fills.run_until_idle().await {
        Err(ServiceError::Projection(ProjectionError::Stopped(stopped))) => {
            assert_eq!(stopped.position, wrong);
        }
        other => panic!("it must stop, and came to {other:?}"),
    }
    let running = Running::of(&fills);
    eventually("the health tells of it", async || {
        let health = fills.health().await.unwrap();
        let of_bank = &health.projections[0].partitions[0];
        assert_eq!(of_bank.lag, 3);
        of_bank.stopped.is_some()
    })
    .await;
    let view = fills.projection("balances").unwrap();
    view.wait_for(&before, Duration::ZERO).await.unwrap();
    let waited = view.wait_for(&behind, Duration::ZERO).await;
    assert!(
        matches!(waited, Err(ProjectionError::Behind { .. })),
        "{waited:?}"
    );
    expect_balances(&store, 1, 1, 3).await;
    running.stop().await;
}

/// Fails while it is told to.
struct Moody(Arc<AtomicBool>);

impl Projection for Moody {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let pay_in = |this: &Self, event: RecordedEvent, writes: &mut Writes| {
            pay_in(&event, 1, writes)?;
            let is_fifth = event.aggregate().is_some_and(|own| own.version == 5);
            match this.0.load(Ordering::Relaxed) && is_fifth {
                true => Err(BoxError::from("not today")),
                false => Ok(()),
            }
        };
        vec![ProjectionMethod::new("pay_in", pay_in).on("bank.*")]
    }
}

/// An event at which a method fails is tried again, and is in the state once when it succeeds.
pub async fn a_failing_method_is_tried_again<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let fails = Arc::new(AtomicBool::new(true));
    let builder = service(&store, "fills").projection(Moody(Arc::clone(&fails)));
    let fills = build(builder);
    let token = deposit_to_each(&store, 1, 10).await;
    let running = Running::of(&fills);
    let partition = Partition::from(bank());
    eventually("it has stopped", async || {
        let health = fills.health().await.unwrap();
        let stopped = &health.projections[0].partitions[0].stopped;
        stopped
            .as_ref()
            .is_some_and(|why| why.contains("not today"))
    })
    .await;
    expect_balances(&store, 1, 1, 4).await;
    assert_eq!(
        store
            .projection_checkpoints(&partition)
            .await
            .unwrap()
            .len(),
        1
    );
    fails.store(false, Ordering::Relaxed);
    let view = fills.projection("balances").unwrap();
    view.wait_for(&token, PATIENCE).await.unwrap();
    expect_balances(&store, 1, 1, 10).await;
    eventually("the health tells that it goes on", async || {
        let health = fills.health().await.unwrap();
        health.projections[0].partitions[0].stopped.is_none()
    })
    .await;
    running.stop().await;
}

fn inline(store: &(impl Backend + Clone)) -> ServiceBuilder {
    service(store, "inline").inline_projection(Total)
}

/// Whether the store fills projections inline; where it does not, a service says so when it is built.
fn fills_inline(store: &(impl Backend + Clone)) -> bool {
    if store.projects_inline() {
        return true;
    }
    let error = inline(store).build().unwrap_err();
    let refuses = |mistake: &Mistake| matches!(mistake, Mistake::InlineElsewhere { .. });
    assert!(error.mistakes().iter().any(refuses), "{error}");
    false
}

/// What a service appends is in its inline projections as soon as it is stored; of what others have appended
/// before, the same.
pub async fn an_inline_projection_has_what_is_appended<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    if !fills_inline(&store) {
        return;
    }
    let writes = build(inline(&store));
    let view = writes.projection("total").unwrap();
    let accounts: Repository<Account> = writes.repository();
    let total = async || view.count("bank", "total").await.unwrap();
    accounts
        .execute("a", AccountCommand::Deposit(5))
        .await
        .unwrap();
    assert_eq!(total().await, 5);
    accounts
        .execute("b", AccountCommand::DepositCoins(3))
        .await
        .unwrap();
    assert_eq!(total().await, 8);
    deposit_to_each(&harness.other_client(&store).await, 2, 2).await;
    assert_eq!(total().await, 8, "others know nothing of it");
    accounts
        .execute("a", AccountCommand::Deposit(10))
        .await
        .unwrap();
    assert_eq!(
        total().await,
        22,
        "an append waits for what others have appended"
    );
    accounts.execute("a", AccountCommand::Close).await.unwrap();
    assert_eq!(total().await, 22);
    writes.run_until_idle().await.unwrap();
    assert_eq!(total().await, 22);
}

/// Appends that many make at once, and that are sent again, are each in the state once.
pub async fn an_inline_projection_has_each_event_once<H: StoreHarness>(harness: &H) {
    const TASKS: usize = 8;
    const TIMES: usize = 25;
    let store = fresh(harness).await;
    if !fills_inline(&store) {
        return;
    }
    let mut appending = tokio::task::JoinSet::new();
    for number in 0..TASKS {
        let store = harness.other_client(&store).await;
        let inlined = build(inline(&store)).store().clone();
        appending.spawn(async move {
            let account = account(&number.to_string());
            for time in 0..TIMES {
                let expected = match number % 2 {
                    0 => Expected::Any,
                    _ => Expected::Exact(time as u64),
                };
                let append = Append::to(account.clone(), expected, vec![deposit()]);
                // Every third of them is foreign to the projection.
                match time % 3 {
                    0 => send(&store, &append).await,
                    _ => send(&inlined, &append).await,
                };
                let again = send(&inlined, &append).await;
                assert!(again.events[0].repeated);
            }
        });
    }
    within("all is appended", appending.join_all()).await;
    let view = build(inline(&store)).projection("total").unwrap();
    let expected = i64::try_from(TASKS * TIMES).unwrap();
    assert_eq!(view.count("bank", "total").await.unwrap(), expected);
}

/// Where an inline projection cannot take an event in, the append says that it is stored.
pub async fn an_append_says_that_it_is_stored_where_a_projection_stops<H: StoreHarness>(
    harness: &H,
) {
    let store = fresh(harness).await;
    if !fills_inline(&store) {
        return;
    }
    let writes = build(inline(&store));
    let fields = [("type", "bank.deposited"), ("payload", "{")];
    harness.append_foreign(&store, &bank(), &fields).await;
    let append = Append::to(account("a"), Expected::NoStream, vec![deposit()]);
    match writes.store().append(&append).await {
        Err(AppendError::NotProjected { position, .. }) => {
            assert_eq!(store.head(&bank().into()).await.unwrap(), position);
        }
        other => panic!("the projection stops, and it came to {other:?}"),
    }
}

/// A new version is filled beside the one that is read, from where it was left each time it is broken off,
/// and then takes its place.
pub async fn a_rebuild_goes_on_and_switches<H: StoreHarness>(harness: &H) {
    const ACCOUNTS: usize = 10;
    let store = harness.partitioned(&bank(), 2).await;
    let old = build(service(&store, "fills").projection(Balances));
    let mut times = 400;
    for number in 0..ACCOUNTS {
        append(
            &store,
            &account(&number.to_string()),
            Expected::NoStream,
            deposits(times),
        )
        .await;
    }
    old.run_until_idle().await.unwrap();
    let nothing = old.rebuild("balances").await;
    assert!(matches!(
        nothing,
        Err(ProjectionError::NothingToRebuild { .. })
    ));
    let unknown = old.rebuild("others").await;
    assert!(matches!(
        unknown,
        Err(ProjectionError::NotRegistered { .. })
    ));

    let both = service(&store, "fills")
        .projection(Balances)
        .projection(Doubled);
    let both = build(both.lease(SHORT));
    let view = both.projection("balances").unwrap();
    assert_eq!(
        both.run_until_idle().await.unwrap().entries,
        0,
        "it waits for a rebuild"
    );
    let mut broken_off = 0;
    let mut microseconds = 50;
    let rebuilt = within("the rebuild is done", async {
        loop {
            assert_eq!(view.served().await.unwrap(), 1);
            let rebuild = both.rebuild("balances").await.unwrap();
            let progress = rebuild.progress();
            let patience = Duration::from_micros(microseconds);
            match timeout(patience, rebuild.run()).await {
                Ok(Ok(rebuilt)) => {
                    let told = *progress.borrow();
                    assert_eq!(told.done, told.total);
                    break rebuilt;
                }
                // The one before still has its lease.
                Ok(Err(ProjectionError::Held { .. })) => {}
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {
                    broken_off += 1;
                    // The next one a little later.
                    microseconds += microseconds / 2;
                    deposit_to_each(&store, ACCOUNTS, 1).await;
                    times += 1;
                }
            }
        }
    })
    .await;
    assert_eq!(
        rebuilt,
        Rebuilt::Switched {
            from: Some(1),
            to: 2
        }
    );
    assert!(broken_off > 0);
    both.run_until_idle().await.unwrap();
    assert_eq!(view.served().await.unwrap(), 2);
    let times = i64::try_from(times).unwrap();
    expect_balances(&store, 2, ACCOUNTS, times).await;
    expect_balances(&store, 1, ACCOUNTS, times).await;

    let served = both.drop_projection("balances", 2).await;
    assert!(
        matches!(served, Err(ProjectionError::Serve(_))),
        "{served:?}"
    );
    assert!(both.drop_projection("balances", 1).await.unwrap());
    expect_balances(&store, 2, ACCOUNTS, times).await;
}

/// A database of one's own, in memory.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<LedgerContent>>);

#[derive(Default)]
struct LedgerContent {
    positions: BTreeMap<Partition, Position>,
    paid_in: u64,
    is_broken: bool,
}

#[async_trait]
impl ProjectionSink for Ledger {
    async fn checkpoint(&self, partition: &Partition) -> Result<Position, BoxError> {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ledger.positions.get(partition).copied().unwrap_or_default())
    }

    async fn apply(&self, batch: &SinkBatch<'_>) -> Result<bool, BoxError> {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ledger.is_broken {
            return Err("the disk is full".into());
        }
        let position = ledger.positions.get(batch.partition).copied();
        if position.unwrap_or_default() != batch.from {
            return Ok(false);
        }
        let mut paid_in = 0;
        for event in batch.events {
            if let AccountEvent::Deposited { amount } = event.decode()? {
                paid_in += amount;
            }
        }
        ledger.paid_in += paid_in;
        ledger.positions.insert(batch.partition.clone(), batch.to);
        Ok(true)
    }
}

/// A database of one's own has each event once, while several instances hand events to it; what it refuses,
/// it is handed again; and it is waited for as any other projection.
pub async fn a_sink_has_each_event_once<H: StoreHarness>(harness: &H) {
    const ACCOUNTS: usize = 10;
    let store = harness.partitioned(&bank(), 2).await;
    let ledger = Ledger::default();
    ledger
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_broken = true;
    deposit_to_each(&store, ACCOUNTS, 10).await;
    let start = |store: &H::Store, instance: &str| {
        let builder = service(store, "fills").lease(SHORT).instance(instance);
        let builder = builder.projection_sink("ledger", 1, ["bank.deposited"], ledger.clone());
        build(builder)
    };
    let first = start(&store, "a");
    let stopped = first.run_until_idle().await;
    assert!(
        matches!(stopped, Err(ServiceError::Projection(_))),
        "{stopped:?}"
    );
    ledger
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_broken = false;
    let other = harness.other_client(&store).await;
    let (running, second) = (Running::of(&first), Running::of(&start(&other, "b")));
    deposit_to_each(&store, ACCOUNTS, 5).await;
    running.vanish().await;
    let mut token = deposit_to_each(&other, ACCOUNTS, 5).await;
    append(&store, &account("0"), Expected::Any, vec![deposit()]).await;
    token.merge(&deposit_to_each(&store, 1, 1).await);
    let view = first.projection("ledger").unwrap();
    view.wait_for(&token, PATIENCE).await.unwrap();
    let paid_in = ledger
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .paid_in;
    assert_eq!(paid_in, 20 * ACCOUNTS as u64 + 2);
    second.stop().await;
}

/// What a database of one's own has, its checkpoint in the store has, too, also where whoever filled it was
/// broken off in between. A database that fails in another way than by an error stops the projection.
pub async fn a_sink_is_waited_for_whoever_filled_it<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let token = deposit_to_each(&store, 1, 2).await;
    let ledger = Ledger::default();
    let partition = Partition::from(bank());
    let events: Vec<_> = feed(&store, &bank()).await;
    let batch = SinkBatch {
        partition: &partition,
        from: Position::START,
        to: events[1].position(),
        events: &events,
    };
    assert!(ledger.apply(&batch).await.unwrap());
    let fills = service(&store, "fills").projection_sink("ledger", 1, ["bank.*"], ledger);
    let fills = build(fills);
    fills.run_until_idle().await.unwrap();
    let view = fills.projection("ledger").unwrap();
    view.wait_for(&token, Duration::ZERO).await.unwrap();

    for panics in [false, true] {
        let sink = Stubborn(panics);
        let fills = service(&store, "fails").projection_sink("stubborn", 1, ["bank.*"], sink);
        match build(fills).run_until_idle().await {
            Err(ServiceError::Projection(ProjectionError::Stopped(stopped))) => {
                let is_panic = matches!(&*stopped.failure, ProjectionFailure::Panicked(_));
                assert_eq!(is_panic, panics, "{stopped}");
            }
            other => panic!("it must stop, and came to {other:?}"),
        }
    }
}

/// Takes nothing in: panics, or says that it has come further.
struct Stubborn(bool);

#[async_trait]
impl ProjectionSink for Stubborn {
    async fn checkpoint(&self, _: &Partition) -> Result<Position, BoxError> {
        Ok(Position::START)
    }

    async fn apply(&self, _: &SinkBatch<'_>) -> Result<bool, BoxError> {
        assert!(!self.0, "no");
        Ok(false)
    }
}

/// Takes in nothing.
struct Broken;

impl Projection for Broken {
    const NAME: &'static str = "total";
    const VERSION: u32 = 0;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let fail = |_: &Self, _: AccountEvent, _: &mut Writes| Err(BoxError::from("no"));
        vec![ProjectionMethod::new("fail", fail).on("bank.*")]
    }
}

/// An inline projection that nobody reads fails no append; and one whose events were trimmed away does not
/// begin with those that come.
pub async fn appends_do_not_hang_on_what_nobody_reads<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    if !fills_inline(&store) {
        return;
    }
    let both = build(
        service(&store, "inline")
            .inline_projection(Broken)
            .inline_projection(Total)
            .inline_timeout(Duration::from_secs(1)),
    );
    let publish = async |account: &str| {
        let accounts: Repository<Account> = both.repository();
        accounts.execute(account, AccountCommand::Deposit(5)).await
    };
    let stopped = publish("a").await;
    assert!(matches!(
        stopped,
        Err(RepositoryError::Append(AppendError::NotProjected { .. }))
    ));
    both.rebuild("total").await.unwrap().run().await.unwrap();
    publish("b").await.unwrap();
    let view = both.projection("total").unwrap();
    assert_eq!(view.served().await.unwrap(), 1);
    assert_eq!(view.count("bank", "total").await.unwrap(), 10);

    both.drop_projection("total", 0).await.unwrap();
    let policy = TrimPolicy::new().max_entries(0);
    let trimmed = store
        .trim_partition(&Partition::from(bank()), &policy)
        .await;
    assert_eq!(trimmed.unwrap().removed, 2);
    let late = build(service(&store, "late").inline_projection(Late));
    let late_accounts: Repository<Account> = late.repository();
    let stored = late_accounts.execute("c", AccountCommand::Deposit(5)).await;
    assert!(matches!(
        stored,
        Err(RepositoryError::Append(AppendError::NotProjected { .. }))
    ));
    let id = ProjectionId::new("late", 1).unwrap();
    let checkpoint = store
        .projection_checkpoint(&id, &Partition::from(bank()))
        .await;
    assert_eq!(checkpoint.unwrap(), Position::START);
}

/// As [`Total`], by another name.
struct Late;

impl Projection for Late {
    const NAME: &'static str = "late";
    const VERSION: u32 = 1;

    fn methods() -> Vec<ProjectionMethod<Self>> {
        let count = |_: &Self, _: AccountEvent, writes: &mut Writes| {
            writes.increment("bank", "count", 1);
        };
        vec![ProjectionMethod::new("count", count).on("bank.*")]
    }
}

/// A token may come from anybody: what it names and there is not, is not waited for, and not made.
pub async fn partitions_that_there_are_not_are_not_waited_for<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let token = deposit_to_each(&store, 1, 1).await;
    let handles = HandlerDefinition::function("h", |_: AccountEvent, _: Context| async {});
    let handles = build(service(&store, "handles").handler(handles.on("bank.*")));
    handles.run_until_idle().await.unwrap();
    let (_, at) = token.iter().next().expect("something was deposited");
    let mut foreign = token.clone();
    foreign.reach(Partition::new(bank(), 4_000_000), at);
    let waited = handles.wait_until_handled(&foreign, Duration::ZERO).await;
    waited.unwrap();
}
