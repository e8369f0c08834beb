//! Cursors are checked, and what cannot be gone on from is said.

use event_core::{Partition, Token, TrimPolicy};
use event_graphql::Cursor;

use crate::harness::*;

on_both_stores![
    a_cursor_that_was_made_up_is_refused,
    a_cursor_of_other_events_is_refused,
    a_cursor_with_another_secret_is_refused,
    a_cursor_behind_which_events_were_trimmed_away_has_expired,
    a_cursor_moves_past_what_is_left_out,
    a_client_begins_where_a_state_was_read,
    a_cursor_ahead_of_a_server_that_has_lost_events_is_told_from_others,
];

async fn refused(world: &World, cursor: Cursor) -> String {
    let bridge = world.bridge();
    let refused = bridge
        .events::<Moved>()
        .after(Some(cursor))
        .subscribe()
        .await;
    code(&refused.err().unwrap())
}

async fn a_cursor_that_was_made_up_is_refused(world: World) {
    for text in ["", "counter~0-0", "AAAA", "🙂"] {
        assert_eq!(refused(&world, Cursor::new(text)).await, "CURSOR_INVALID");
    }
}

async fn a_cursor_of_other_events_is_refused(world: World) {
    let bridge = world.bridge();
    let mut others = bridge.events::<OtherMoved>().subscribe().await.unwrap();
    world.publish(&[OtherMoved { number: 1 }]).await;
    let cursor = event(&mut others).await.cursor_behind().clone();
    assert_eq!(refused(&world, cursor).await, "CURSOR_OF_ANOTHER_FEED");
}

async fn a_cursor_with_another_secret_is_refused(world: World) {
    let secret = world.builder().cursor_secret("known to nobody").build();
    let mut stream = secret.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..1).await;
    let cursor = event(&mut stream).await.cursor_behind().clone();
    assert_eq!(refused(&world, cursor.clone()).await, "CURSOR_INVALID");

    let same = world.builder().cursor_secret("known to nobody").build();
    world.move_to("a", 1..2).await;
    let stream = same.events::<Moved>().after(Some(cursor)).subscribe();
    assert_eq!(numbers(&mut stream.await.unwrap(), 1).await.0, [1]);
}

async fn a_cursor_behind_which_events_were_trimmed_away_has_expired(world: World) {
    let reading = world.bridge();
    let _reading = world.reading(&reading).await;
    let mut stream = reading.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..1_000).await;
    let (_, cursor) = numbers(&mut stream, 1).await;
    world.until_read(&reading).await;
    let policy = TrimPolicy::new().max_entries(10);
    let partition = Partition::new(counter(), 0);
    let trimmed = world
        .store
        .trim_partition(&partition, &policy)
        .await
        .unwrap();
    assert!(trimmed.removed > 800, "{trimmed:?}");

    // Another instance, which has nothing of it in memory.
    let bridge = world.bridge();
    let late = bridge.events::<Moved>().after(cursor).subscribe().await;
    let error = next(&mut late.unwrap()).await.unwrap().unwrap_err();
    assert_eq!(code(&error), "CURSOR_EXPIRED");
    let extensions = error.extensions.unwrap();
    assert!(extensions.get("firstAvailable").is_some());
    // Who has all of it in memory goes on.
    assert_eq!(
        numbers(&mut stream, 999).await.0,
        (1..1_000).collect::<Vec<_>>()
    );
}

async fn a_cursor_moves_past_what_is_left_out(world: World) {
    let bridge = world.bridge();
    let wanted = || {
        bridge
            .events::<Moved>()
            .filter(|event| event.lane == "wanted")
    };
    let mut stream = wanted().subscribe().await.unwrap();
    world.move_to("wanted", 0..1).await;
    world.move_to("other", 1..900).await;
    world.move_to("wanted", 900..901).await;
    let (seen, cursor) = numbers(&mut stream, 2).await;
    assert_eq!(seen, [0, 900]);

    // Behind it there is nothing but what comes now, whatever is wanted.
    world.move_to("other", 901..902).await;
    let stream = bridge.events::<Moved>().after(cursor).subscribe();
    assert_eq!(numbers(&mut stream.await.unwrap(), 1).await.0, [901]);
}

async fn a_client_begins_where_a_state_was_read(world: World) {
    let bridge = world.bridge();
    world.move_to("a", 0..5).await;
    let partition = Partition::new(counter(), 0);
    let head = world.store.head(&partition).await.unwrap();
    world.move_to("a", 5..9).await;

    let mut token = Token::default();
    token.reach(partition, head);
    let stream = bridge.events::<Moved>().after(Some(bridge.cursor(&token)));
    let (numbers, _) = numbers(&mut stream.subscribe().await.unwrap(), 4).await;
    assert_eq!(numbers, [5, 6, 7, 8]);
}

async fn a_cursor_ahead_of_a_server_that_has_lost_events_is_told_from_others(world: World) {
    // Where the events were that the client has seen.
    let before = World::memory(1).await;
    let bridge = before.bridge();
    world.move_to("a", 0..1).await;
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    before.move_to("a", 0..3).await;
    let (_, cursor) = numbers(&mut stream, 3).await;
    assert_eq!(refused(&world, cursor.unwrap()).await, "CURSOR_AHEAD");
}
