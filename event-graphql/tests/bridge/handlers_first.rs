//! Clients that get an event only when handlers are through with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_core::{Context, HandlerDefinition, Service};
use event_redis::RedisStore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::*;

on_both_stores![
    clients_get_what_is_handled,
    a_handler_is_not_waited_for_without_end,
    what_no_handler_reads_is_not_waited_for,
];

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(600);

/// A service that runs until it is dropped.
struct Running {
    service: Service,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(world: &World, handler: HandlerDefinition) -> Self {
        let service = world.service().handler(handler).build().unwrap();
        // Its group begins here, and not somewhere behind the first event.
        service.run_until_idle().await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let runs = service.clone();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            runs.run_until(stopped).await.unwrap();
        });
        Self {
            service,
            stop: Some(stop),
            task,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

async fn clients_get_what_is_handled(world: World) {
    let handled = Arc::<Mutex<Vec<u64>>>::default();
    let notes = Arc::clone(&handled);
    let handler = HandlerDefinition::function("first", move |event: Moved, _: Context| {
        let notes = Arc::clone(&notes);
        async move {
            // Others have their turn, who must not get it yet.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            notes.lock().unwrap().push(event.number);
        }
    });
    let running = Running::start(&world, handler.on("counter.moved")).await;
    let bridge = world
        .builder()
        .handlers_first(running.service.clone(), LONG)
        .build();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    for number in 0..50 {
        world.move_to("a", number..number + 1).await;
        assert_eq!(event(&mut stream).await.event().number, number);
        assert!(handled.lock().unwrap().contains(&number), "{number}");
    }
    running.stop().await;
}

async fn a_handler_is_not_waited_for_without_end(world: World) {
    let handler = HandlerDefinition::function("first", |_: Moved, _: Context| async {
        std::future::pending::<()>().await;
    });
    // Nothing runs it: it is as if it were stuck.
    let service = world.service().handler(handler.on("counter.moved"));
    let service = service.build().unwrap();
    let bridge = world
        .builder()
        .handlers_first(service, Duration::from_millis(20))
        .build();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..3).await;
    assert_eq!(numbers(&mut stream, 3).await.0, [0, 1, 2]);
}

/// A group that stands still does not cost clients the whole time with each event. The clock of this test goes on by
/// itself when everybody waits for it.
#[tokio::test(start_paused = true)]
async fn handlers_that_are_late_are_waited_for_again_when_they_have_come_so_far() {
    const AT_MOST: Duration = Duration::from_secs(2);
    let world = World::memory(1).await;
    let handler = HandlerDefinition::function("first", |_: Moved, _: Context| async {});
    let service = world.service().handler(handler.on("counter.moved"));
    let service = service.build().unwrap();
    let bridge = world
        .builder()
        .handlers_first(service.clone(), AT_MOST)
        .build();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    let mut waited = Vec::new();
    for number in 0..6 {
        if number == 3 {
            service.run_until_idle().await.unwrap();
        }
        let begun = Instant::now();
        world.move_to("a", number..number + 1).await;
        assert_eq!(event(&mut stream).await.event().number, number);
        waited.push(begun.elapsed() >= AT_MOST);
    }
    assert_eq!(waited, [true, false, false, true, false, false]);
}

async fn what_no_handler_reads_is_not_waited_for(world: World) {
    let handler = HandlerDefinition::function("first", |_: Moved, _: Context| async {});
    let service = world.service().handler(handler.on("counter.moved"));
    let service = service.build().unwrap();
    let bridge = world.builder().handlers_first(service, LONG).build();
    let mut stream = bridge.events::<OtherMoved>().subscribe().await.unwrap();
    world.publish(&[OtherMoved { number: 7 }]).await;
    assert_eq!(event(&mut stream).await.event().number, 7);
}

/// The handlers of a cache that processes share are not later than the clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_in_redis_has_nothing_old_when_a_client_gets_the_event() {
    let world = World::redis(1).await;
    let store = RedisStore::builder(world.server.as_ref().unwrap().url());
    let store = store.partitions(counter(), 1).connect().await.unwrap();
    let lanes = store.cache("lanes").unwrap();
    let running = Running::start(&world, lanes.invalidate::<Moved>("{lane}:*").unwrap()).await;
    let bridge = world
        .builder()
        .handlers_first(running.service.clone(), LONG)
        .build();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    for number in 0..30 {
        let load = async || Ok::<_, std::convert::Infallible>(number);
        let kept: u64 = lanes.get_or_load("a:place", load).await.unwrap();
        assert_eq!(kept, number);
        world.move_to("a", number..number + 1).await;
        event(&mut stream).await;
        let kept: Option<u64> = lanes.get("a:place").await.unwrap();
        assert_eq!(kept, None, "{number}");
    }
    running.stop().await;
}
