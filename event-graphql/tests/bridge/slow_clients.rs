//! What becomes of clients that are slower than what happens.

use event_graphql::SlowClient;

use crate::harness::*;

on_both_stores![
    a_slow_client_gets_everything,
    a_slow_client_may_lose_the_oldest_and_is_told_how_many,
    a_slow_client_may_want_the_newest_only,
    a_slow_client_may_be_sent_away,
    history_is_not_slowness,
];

async fn a_slow_client_gets_everything(world: World) {
    let bridge = world.builder().window(16, 1_000_000).build();
    let mut slow = bridge.events::<Moved>().subscribe().await.unwrap();
    let _reading = world.reading(&bridge).await;
    world.move_to("a", 0..3_000).await;
    world.until_read(&bridge).await;
    assert_eq!(
        numbers(&mut slow, 3_000).await.0,
        (0..3_000).collect::<Vec<_>>()
    );
}

async fn a_slow_client_may_lose_the_oldest_and_is_told_how_many(world: World) {
    let bridge = world.builder().window(16, 1_000_000).build();
    let slow = bridge.events::<Moved>().slow_client(SlowClient::DropOldest);
    let mut slow = slow.subscribe().await.unwrap();
    let _reading = world.reading(&bridge).await;
    world.move_to("a", 0..1).await;
    numbers(&mut slow, 1).await;
    world.move_to("a", 1..1_000).await;
    world.until_read(&bridge).await;

    // The window has 16 of 999.
    let edge = event(&mut slow).await;
    assert_eq!((edge.event().number, edge.left_out()), (984, 983));
    assert_eq!(
        numbers(&mut slow, 15).await.0,
        (985..1_000).collect::<Vec<_>>()
    );
    world.move_to("a", 1_000..1_001).await;
    let edge = event(&mut slow).await;
    assert_eq!((edge.event().number, edge.left_out()), (1_000, 0));
}

async fn a_slow_client_may_want_the_newest_only(world: World) {
    let bridge = world.builder().window(16, 1_000_000).build();
    let newest = bridge.events::<Moved>().slow_client(SlowClient::Latest);
    let mut newest = newest
        .filter(|event| event.number % 2 == 0)
        .subscribe()
        .await
        .unwrap();
    let _reading = world.reading(&bridge).await;
    world.move_to("a", 0..12).await;
    world.until_read(&bridge).await;
    let edge = event(&mut newest).await;
    // 0, 2, 4, 6 and 8 came before.
    assert_eq!((edge.event().number, edge.left_out()), (10, 5));
    world.move_to("a", 12..500).await;
    world.until_read(&bridge).await;
    assert_eq!(event(&mut newest).await.event().number, 498);
}

async fn a_slow_client_may_be_sent_away(world: World) {
    let bridge = world.builder().window(16, 1_000_000).build();
    let slow = bridge.events::<Moved>().slow_client(SlowClient::Disconnect);
    let mut slow = slow.subscribe().await.unwrap();
    let _reading = world.reading(&bridge).await;
    world.move_to("a", 0..1).await;
    let (_, cursor) = numbers(&mut slow, 1).await;
    world.move_to("a", 1..200).await;
    world.until_read(&bridge).await;

    let error = loop {
        if let Err(error) = next(&mut slow).await.unwrap() {
            break error;
        }
    };
    assert_eq!(code(&error), "TOO_SLOW");
    assert!(next(&mut slow).await.is_none());
    let again = bridge.events::<Moved>().after(cursor).subscribe();
    let seen = numbers(&mut again.await.unwrap(), 199).await.0;
    assert_eq!(seen, (1..200).collect::<Vec<_>>());
}

async fn history_is_not_slowness(world: World) {
    let bridge = world.builder().window(16, 1_000_000).build();
    let mut first = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..1_000).await;
    let (_, cursor) = numbers(&mut first, 1).await;
    for slow_client in [SlowClient::Disconnect, SlowClient::DropOldest] {
        let stream = bridge.events::<Moved>().after(cursor.clone());
        let stream = stream.slow_client(slow_client).subscribe();
        let seen = numbers(&mut stream.await.unwrap(), 999).await.0;
        assert_eq!(seen, (1..1_000).collect::<Vec<_>>(), "{slow_client:?}");
    }
}
