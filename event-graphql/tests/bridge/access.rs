//! Who may see what, and for how long.

use event_graphql::Access;
use tokio_util::sync::CancellationToken;

use crate::harness::*;

on_both_stores![
    who_may_see_nothing_is_refused,
    some_events_may_be_hidden,
    a_right_that_is_taken_away_ends_the_stream_at_the_next_event,
    a_right_that_is_taken_away_ends_the_stream_without_an_event,
];

async fn who_may_see_nothing_is_refused(world: World) {
    let bridge = world.bridge();
    let asked = bridge.events::<Moved>().authorize(|event| match event {
        None => Access::Revoked,
        Some(_) => Access::Granted,
    });
    let refused = asked.subscribe().await.err().unwrap();
    assert_eq!(code(&refused), "FORBIDDEN");
    assert_eq!((bridge.readers(), bridge.clients()), (0, 0));
}

async fn some_events_may_be_hidden(world: World) {
    let bridge = world.bridge();
    let stream = bridge.events::<Moved>().authorize(|event| match event {
        Some(event) if event.lane == "secret" => Access::Hidden,
        _ => Access::Granted,
    });
    let mut stream = stream.subscribe().await.unwrap();
    world.move_to("open", 0..1).await;
    world.move_to("secret", 1..5).await;
    world.move_to("open", 5..6).await;
    assert_eq!(numbers(&mut stream, 2).await.0, [0, 5]);
}

async fn a_right_that_is_taken_away_ends_the_stream_at_the_next_event(world: World) {
    let bridge = world.bridge();
    let stream = bridge.events::<Moved>().authorize(|event| match event {
        Some(event) if event.number >= 2 => Access::Revoked,
        _ => Access::Granted,
    });
    let mut stream = stream.subscribe().await.unwrap();
    world.move_to("a", 0..4).await;
    assert_eq!(numbers(&mut stream, 2).await.0, [0, 1]);
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(code(&error), "REVOKED");
    assert!(next(&mut stream).await.is_none());
}

async fn a_right_that_is_taken_away_ends_the_stream_without_an_event(world: World) {
    let bridge = world.bridge();
    let revoked = CancellationToken::new();
    let stream = bridge.events::<Moved>().until_revoked(revoked.clone());
    let mut stream = stream.subscribe().await.unwrap();
    world.move_to("a", 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await.0, [0]);
    let waiting = tokio::spawn(async move { (next(&mut stream).await, next(&mut stream).await) });
    revoked.cancel();
    let (error, end) = waiting.await.unwrap();
    assert_eq!(code(&error.unwrap().unwrap_err()), "REVOKED");
    assert!(end.is_none());
    until("nobody looks any more", || bridge.readers() == 0).await;
}
