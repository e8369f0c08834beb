//! Couriers: they deliver what lies in outboxes to feeds in other slots.
//!
//! There is a [`Courier`] for each group and partition that something was emitted from, with a [`Route`]
//! to each feed that something was emitted to. Each route has a task of its own while there is something
//! in its outbox, so that a target that cannot be reached holds back nothing else. Others may deliver the
//! same at the same time: the target takes each record once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_core::{AppendError, Partition, ResetError, StoreError};
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{AbortOnDrop, Request, next_pause, pauses_up_to};
use crate::error::{UnexpectedReply, refused};
use crate::keys::FeedKeys;
use crate::outbox::{self, BATCH, Delivered};
use crate::store::Parts;
use crate::wire;

const LOOKING: &str = "look_for_outboxes";

/// The longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// For how long is waited for what is recorded when a partition is given back, while it goes on; and when
/// a group is reset.
const SETTLING: Duration = Duration::from_secs(5);

/// For how long a target that could not be reached is not asked what it would take.
const UNREACHABLE: Duration = Duration::from_secs(30);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type ByGroup = HashMap<Arc<str>, Arc<Courier>>;

/// The couriers of a store. Their tasks end when it is dropped.
pub(crate) struct Couriers {
    parts: Arc<Parts>,
    couriers: Mutex<HashMap<Partition, ByGroup>>,
    /// Dropped with the store.
    open: watch::Sender<()>,
}

impl Couriers {
    pub(crate) fn new(parts: &Arc<Parts>) -> Self {
        Self {
            parts: Arc::clone(parts),
            couriers: Mutex::default(),
            open: watch::Sender::new(()),
        }
    }

    /// The courier of a group for a partition.
    pub(crate) fn of(&self, group: &str, source: &Partition) -> Arc<Courier> {
        let mut couriers = lock(&self.couriers);
        if let Some(courier) = couriers.get(source).and_then(|groups| groups.get(group)) {
            return Arc::clone(courier);
        }
        let group: Arc<str> = group.into();
        let keys = self.parts.keys.of(source);
        let courier = Arc::new(Courier {
            parts: Arc::clone(&self.parts),
            numbers: keys.outboxes(&group),
            from: format!("{group}/{}", keys.feed()),
            keys,
            source: source.clone(),
            group: Arc::clone(&group),
            routes: Mutex::default(),
            look: Mutex::default(),
            open: self.open.subscribe(),
        });
        let groups = couriers.entry(source.clone()).or_default();
        Arc::clone(groups.entry(group).or_insert(courier))
    }

    /// Has delivered what a group has emitted from a partition, before the group is reset there: nobody may
    /// ever look for it again.
    pub(crate) async fn clear(&self, group: &str, source: &Partition) -> Result<(), ResetError> {
        self.of(group, source).clear().await
    }

    /// Waits until what a group has emitted from a partition is delivered: for no longer than it goes on.
    pub(crate) async fn settle(&self, group: &str, source: &Partition) {
        let courier = {
            let couriers = lock(&self.couriers);
            let groups = couriers.get(source);
            groups.and_then(|groups| groups.get(group)).cloned()
        };
        if let Some(courier) = courier {
            courier.settle().await;
        }
    }
}

/// Delivers what a group has emitted while it handled a partition.
pub(crate) struct Courier {
    parts: Arc<Parts>,
    group: Arc<str>,
    source: Partition,
    keys: Arc<FeedKeys>,
    numbers: String,
    from: String,
    routes: Mutex<HashMap<Partition, Arc<Route>>>,
    /// The last task that has looked for what others have left.
    look: Mutex<Option<JoinHandle<()>>>,
    open: watch::Receiver<()>,
}

/// The way to one target.
pub(crate) struct Route {
    target: Partition,
    keys: Arc<FeedKeys>,
    outbox: String,
    task: Mutex<Option<JoinHandle<()>>>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Counts how often there was something to deliver.
    rounds: u64,
    /// Whether there may be something in the outbox.
    is_running: bool,
    /// The highest number that was delivered, as far as is known.
    delivered: u64,
    /// Whether the target has said that it takes what is delivered.
    is_met: bool,
    /// Until when it is not asked, since it could not be reached.
    unreachable: Option<Instant>,
    /// Why the last delivery has failed.
    trouble: Option<String>,
}

/// What a step of a delivery has come to.
enum Step {
    /// There is nothing in the outbox.
    Empty,
    Delivered,
    /// Nothing was delivered, and there is something to be looked at again.
    Again,
}

/// How far a delivery is.
#[derive(Default)]
struct Progress {
    /// The outbox can be trimmed up to here.
    delivered: u64,
    /// What the target has said that it has, where that is less than it must be.
    behind: Option<u64>,
    /// So many records can be delivered before one that is refused.
    most: Option<usize>,
}

impl Courier {
    /// The key of the numbers that the outboxes are at.
    pub(crate) fn numbers(&self) -> &str {
        &self.numbers
    }

    /// What targets call it by.
    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// The route to a target.
    pub(crate) fn route(&self, target: &Partition) -> Arc<Route> {
        let mut routes = lock(&self.routes);
        if let Some(route) = routes.get(target) {
            return Arc::clone(route);
        }
        let keys = self.parts.keys.of(target);
        let route = Arc::new(Route {
            target: target.clone(),
            outbox: self.keys.outbox(&self.group, &keys),
            keys,
            task: Mutex::default(),
            state: watch::Sender::default(),
        });
        routes.insert(target.clone(), Arc::clone(&route));
        route
    }

    /// Begins when the partition is taken: everything may have changed since it was owned here.
    pub(crate) fn begin(self: &Arc<Self>) {
        for route in lock(&self.routes).values() {
            route.forget();
        }
        let mut look = lock(&self.look);
        if let Some(before) = look.replace(self.spawn_look()) {
            before.abort();
        }
    }

    /// Looks for what others may have left.
    pub(crate) fn look(self: &Arc<Self>) {
        let mut look = lock(&self.look);
        if look.as_ref().is_none_or(JoinHandle::is_finished) {
            *look = Some(self.spawn_look());
        }
    }

    fn spawn_look(self: &Arc<Self>) -> JoinHandle<()> {
        let courier = Arc::clone(self);
        self.spawn(async move {
            let mut pauses = pauses_up_to(LONGEST_PAUSE);
            loop {
                let mut task = AbortOnDrop(tokio::spawn(Arc::clone(&courier).look_once()));
                match (&mut task.0).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(group = %courier.group, feed = courier.keys.feed(), %error, "the task that looks for what is to be delivered has ended by itself; it begins anew");
                    }
                }
                sleep(next_pause(&mut pauses)).await;
            }
        })
    }

    /// `false` where the server does not tell.
    async fn look_once(self: Arc<Self>) -> bool {
        match self.find_outboxes().await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(group = %self.group, feed = self.keys.feed(), %error, "what is to be delivered cannot be looked for; trying again");
                false
            }
        }
    }

    /// Runs until it ends, or the store is dropped.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let mut open = self.open.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                // Nothing is ever sent.
                _ = open.changed() => {}
            }
        })
    }

    /// Delivers from all outboxes that have something, and gives the ways that this goes.
    async fn find_outboxes(self: &Arc<Self>) -> Result<Vec<Arc<Route>>, StoreError> {
        let unreadable = |what| UnexpectedReply::form("HKEYS", what).refused(LOOKING);
        let mut command = redis::cmd("HKEYS");
        command.arg(&self.numbers);
        let request = Request::Command(&command);
        let reply = self.parts.connections.ask(LOOKING, request, None).await?;
        let mut routes = Vec::new();
        for feed in wire::array(reply).map_err(unreadable)? {
            let feed = wire::text(&feed).map_err(unreadable)?;
            match self.parts.keys.partition_of(feed) {
                Some(target) => routes.push(self.route(&target)),
                None => {
                    tracing::warn!(
                        key = self.numbers,
                        feed,
                        "there is an outbox for what is no feed"
                    );
                }
            }
        }
        if routes.is_empty() {
            return Ok(routes);
        }
        let mut pipeline = Pipeline::with_capacity(routes.len());
        for route in &routes {
            pipeline.cmd("EXISTS").arg(&route.outbox);
        }
        let request = Request::Pipeline(&pipeline);
        let replies = self.parts.connections.ask(LOOKING, request, None).await?;
        let mut found = Vec::new();
        for (route, reply) in routes
            .into_iter()
            .zip(wire::array(replies).map_err(unreadable)?)
        {
            match reply {
                Value::Int(0) => {}
                Value::ServerError(error) => return Err(refused(LOOKING, error.into())),
                _ => {
                    self.deliver(&route);
                    found.push(route);
                }
            }
        }
        Ok(found)
    }

    /// Says that there is something in an outbox.
    pub(crate) fn deliver(self: &Arc<Self>, route: &Arc<Route>) {
        let mut task = lock(&route.task);
        let was_running = route.state.borrow().is_running;
        route.state.send_modify(|state| {
            state.rounds += 1;
            state.is_running = true;
        });
        // It may have ended with the runtime that it ran on.
        if !was_running || task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (courier, route) = (Arc::clone(self), Arc::clone(route));
            *task = Some(self.spawn(courier.supervise(route)));
        }
    }

    async fn supervise(self: Arc<Self>, route: Arc<Route>) {
        let mut pauses = pauses_up_to(LONGEST_PAUSE);
        loop {
            let work = Arc::clone(&self).run(Arc::clone(&route));
            let mut task = AbortOnDrop(tokio::spawn(work));
            let Err(error) = (&mut task.0).await else {
                return;
            };
            tracing::error!(group = %self.group, to = %route.target, %error, "the task of a delivery has ended by itself; it begins anew");
            sleep(next_pause(&mut pauses)).await;
        }
    }

    /// Delivers until the outbox is empty.
    async fn run(self: Arc<Self>, route: Arc<Route>) {
        let mut pauses = pauses_up_to(LONGEST_PAUSE);
        let mut progress = Progress::default();
        loop {
            let round = route.state.borrow().rounds;
            match self.step(&route, &mut progress).await {
                Ok(Step::Empty) => {
                    if route.end(round) {
                        return;
                    }
                }
                Ok(Step::Delivered) => pauses = pauses_up_to(LONGEST_PAUSE),
                Ok(Step::Again) => {}
                Err(error) => {
                    let why = chain(&error);
                    tracing::error!(
                        group = %self.group,
                        feed = self.keys.feed(),
                        to = %route.target,
                        error = why,
                        "what was emitted cannot be delivered; trying again"
                    );
                    let is_refused =
                        !matches!(error, AppendError::Store(StoreError::Unavailable { .. }));
                    route.state.send_modify(|state| {
                        state.trouble = Some(why);
                        // What comes is looked at again before it is recorded.
                        state.is_met &= !is_refused;
                    });
                    sleep(next_pause(&mut pauses)).await;
                }
            }
        }
    }

    async fn step(&self, route: &Route, progress: &mut Progress) -> Result<Step, AppendError> {
        let parts = &self.parts;
        let most = progress.most.take().unwrap_or(BATCH);
        let (outbox, target) = (&route.outbox, &route.target);
        let records = outbox::take(parts, outbox, target, progress.delivered, most).await?;
        let Some(first) = records.first() else {
            return Ok(Step::Empty);
        };
        // Whoever trims an outbox has read at the target that it has what it trims. So where the target
        // has less than that, it has lost something; and what it has is looked at in the same step.
        let behind = progress.behind.take();
        let accepted = behind.filter(|behind| first.number > behind + 1);
        if let Some(delivered) = accepted {
            tracing::warn!(
                group = %self.group,
                feed = self.keys.feed(),
                to = %route.target,
                delivered,
                next = first.number,
                "records between these are lost, or the target has lost that it has them; going on behind them"
            );
        }
        let delivered = outbox::deliver(parts, &self.from, &route.keys, &records, accepted);
        match delivered.await? {
            Delivered::UpTo(number) => {
                progress.delivered = number;
                route.note(number);
                Ok(Step::Delivered)
            }
            Delivered::Gap(number) => {
                progress.delivered = 0;
                progress.behind = Some(number);
                Ok(Step::Again)
            }
            Delivered::Refused(0, error) => Err(error),
            Delivered::Refused(record, _) => {
                progress.most = Some(record);
                Ok(Step::Again)
            }
        }
    }

    async fn clear(self: &Arc<Self>) -> Result<(), ResetError> {
        let deadline = Instant::now() + SETTLING;
        for route in self.find_outboxes().await? {
            let mut states = route.state.subscribe();
            let cleared = states.wait_for(|state| !state.is_running);
            if timeout_at(deadline, cleared).await.is_err() {
                return Err(ResetError::Undelivered {
                    group: self.group.to_string(),
                    partition: self.source.clone(),
                    target: route.target.clone(),
                    waited: SETTLING,
                    why: route.state.borrow().trouble.clone(),
                });
            }
        }
        Ok(())
    }

    async fn settle(&self) {
        let deadline = Instant::now() + SETTLING;
        let routes: Vec<_> = lock(&self.routes).values().cloned().collect();
        for route in routes {
            let mut states = route.state.subscribe();
            let settled = states.wait_for(|state| !state.is_running || state.trouble.is_some());
            let is_late = timeout_at(deadline, settled).await.is_err();
            let state = route.state.borrow();
            if is_late || state.is_running {
                tracing::warn!(
                    group = %self.group,
                    feed = self.keys.feed(),
                    to = %route.target,
                    "something is still to be delivered; whoever takes the partition next does it"
                );
            }
        }
    }
}

impl Route {
    pub(crate) fn target(&self) -> &Partition {
        &self.target
    }

    pub(crate) fn outbox(&self) -> &str {
        &self.outbox
    }

    /// The highest number that was delivered, as far as is known.
    pub(crate) fn delivered(&self) -> u64 {
        self.state.borrow().delivered
    }

    /// Whether the target is to be asked whether it takes what is delivered.
    pub(crate) fn must_meet(&self) -> bool {
        let state = self.state.borrow();
        let is_unreachable = state
            .unreachable
            .is_some_and(|until| until > Instant::now());
        !state.is_met && !is_unreachable
    }

    /// The target takes what is delivered, and has this number already.
    pub(crate) fn meet(&self, delivered: u64) {
        self.state.send_modify(|state| {
            state.is_met = true;
            state.unreachable = None;
            state.delivered = state.delivered.max(delivered);
        });
    }

    /// The target could not be asked.
    pub(crate) fn miss(&self) {
        self.state.send_modify(|state| {
            state.unreachable = Some(Instant::now() + UNREACHABLE);
        });
    }

    fn forget(&self) {
        self.state.send_modify(|state| {
            state.is_met = false;
            state.unreachable = None;
        });
    }

    fn note(&self, delivered: u64) {
        self.state.send_modify(|state| {
            state.delivered = state.delivered.max(delivered);
            state.trouble = None;
            state.unreachable = None;
        });
    }

    /// Ends its task, unless there is something new since this round.
    fn end(&self, round: u64) -> bool {
        let _task = lock(&self.task);
        self.state.send_if_modified(|state| {
            let ends = state.rounds == round;
            if ends {
                state.is_running = false;
                state.trouble = None;
            }
            ends
        })
    }

    /// Waits until something is delivered, or has failed.
    pub(crate) async fn changed(&self) {
        // The sender is here.
        let _ = self.state.subscribe().changed().await;
    }

    /// Waits until a record is delivered. `false` where it is not by then, or cannot be.
    pub(crate) async fn wait_for(&self, number: u64, deadline: Instant) -> bool {
        let mut states = self.state.subscribe();
        let arrived = states.wait_for(|state| {
            state.delivered >= number || state.trouble.is_some() || !state.is_running
        });
        let arrived = timeout_at(deadline, arrived).await;
        // Where nothing is left to deliver, others may have delivered it.
        arrived.is_ok_and(|state| {
            state.is_ok_and(|state| state.delivered >= number || !state.is_running)
        })
    }
}

/// An error with what it comes from.
fn chain(error: &AppendError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
