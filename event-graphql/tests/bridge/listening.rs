//! What is told of events before clients get them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_graphql::dataloader::Loader;
use event_graphql::{LoaderCache, News};

use crate::harness::*;

on_both_stores![
    listeners_are_told_before_any_client,
    listeners_are_told_without_clients,
    a_listener_that_panics_ends_nothing,
    a_cache_has_nothing_old_when_a_client_gets_the_event,
];

/// The numbers that a listener was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u64>>>);

impl Told {
    fn note(&self, news: News<'_>) {
        if let News::Event(event) = news
            && let Ok(moved) = event.decode::<Moved>()
        {
            self.0.lock().unwrap().push(moved.number);
        }
    }

    fn knows(&self, number: u64) -> bool {
        self.0.lock().unwrap().contains(&number)
    }
}

async fn listeners_are_told_before_any_client(world: World) {
    let bridge = world.builder().window(8, 1_000_000).build();
    let told = Told::default();
    let note = told.clone();
    let listening = bridge.listen([counter()], move |news| note.note(news));
    let listening = listening.await.unwrap();
    let mut first = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..1).await;
    let (_, cursor) = numbers(&mut first, 1).await;

    let following = |cursor| {
        let (bridge, told) = (bridge.clone(), told.clone());
        tokio::spawn(async move {
            let stream = bridge.events::<Moved>().after(cursor).subscribe();
            let mut stream = stream.await.unwrap();
            for expected in 1..1_500 {
                let number = event(&mut stream).await.event().number;
                assert_eq!(number, expected);
                assert!(told.knows(number), "{number}");
            }
        })
    };
    let clients: Vec<_> = (0..4).map(|_| following(cursor.clone())).collect();
    world.move_to("a", 1..1_500).await;
    for client in clients {
        client.await.unwrap();
    }
    drop(listening);
}

async fn listeners_are_told_without_clients(world: World) {
    let bridge = world.bridge();
    let told = Told::default();
    let note = told.clone();
    let listening = bridge.listen([counter()], move |news| note.note(news));
    let listening = listening.await.unwrap();
    assert_eq!(bridge.readers(), 1);
    world.move_to("a", 0..1).await;
    until("it is told", || told.knows(0)).await;
    drop(listening);
    assert_eq!(bridge.readers(), 0);
}

/// Where each lane is, as a database has it.
#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<HashMap<String, u64>>>);

impl Loader<String> for Lanes {
    type Value = u64;
    type Error = std::convert::Infallible;

    async fn load(&self, keys: &[String]) -> Result<HashMap<String, u64>, Self::Error> {
        let lanes = self.0.lock().unwrap();
        let known = |key: &String| Some((key.clone(), *lanes.get(key)?));
        Ok(keys.iter().filter_map(known).collect())
    }
}

async fn a_cache_has_nothing_old_when_a_client_gets_the_event(world: World) {
    let bridge = world.bridge();
    let lanes = Lanes::default();
    let cache = LoaderCache::builder(lanes.clone())
        .invalidates(|moved: &Moved| moved.lane.clone())
        .build();
    let listening = bridge.invalidate([counter()], cache.clone()).await;
    let _listening = listening.unwrap();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    for number in 0..300 {
        lanes.0.lock().unwrap().insert("a".to_owned(), number);
        world.move_to("a", number..number + 1).await;
        assert_eq!(event(&mut stream).await.event().number, number);
        let loaded = cache.load_one("a".to_owned()).await.unwrap();
        assert_eq!(loaded, Some(number));
    }
}

async fn a_listener_that_panics_ends_nothing(world: World) {
    let bridge = world.bridge();
    let gaps = Arc::new(Mutex::new(0));
    let noted = Arc::clone(&gaps);
    let listening = bridge.listen([counter()], move |news| match news {
        News::Gap => *noted.lock().unwrap() += 1,
        News::Event(_) => panic!("as a listener may"),
    });
    let _listening = listening.await.unwrap();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..3).await;
    assert_eq!(numbers(&mut stream, 3).await.0, [0, 1, 2]);
    assert!(*gaps.lock().unwrap() >= 3);
}
