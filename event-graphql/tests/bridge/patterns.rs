//! Events of any type, chosen by patterns.

use event_core::Pattern;
use event_graphql::AnyEvent;

use crate::harness::*;

on_both_stores![
    events_that_match_come_as_they_are,
    a_cursor_of_patterns_goes_on_behind_it,
    one_cursor_goes_on_in_all_categories,
    a_pattern_must_say_where_to_look,
];

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn seen(edge: &event_graphql::Edge<AnyEvent>) -> (String, String) {
    let event = edge.event().recorded();
    (event.event_type().to_owned(), event.payload().to_owned())
}

async fn events_that_match_come_as_they_are(world: World) {
    let bridge = world.bridge();
    let all = bridge.matching(patterns(&["counter.*", "other.moved", "other.moved"]));
    let mut all = all.subscribe().await.unwrap();
    let resets = bridge.matching(patterns(&["counter.re*"]));
    let mut resets = resets.subscribe().await.unwrap();
    assert_eq!(bridge.readers(), 2);
    world.move_to("a", 0..1).await;
    let reset = WasReset { lane: "a".into() };
    world.publish(std::slice::from_ref(&reset)).await;
    let mut came = vec![seen(&event(&mut all).await), seen(&event(&mut all).await)];
    world.publish(&[OtherMoved { number: 7 }]).await;
    came.push(seen(&event(&mut all).await));
    let expected = [
        ("counter.moved", r#"{"lane":"a","number":0}"#),
        ("counter.reset", r#"{"lane":"a"}"#),
        ("other.moved", r#"{"number":7}"#),
    ];
    assert_eq!(came, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(seen(&event(&mut resets).await).0, "counter.reset");
}

async fn a_cursor_of_patterns_goes_on_behind_it(world: World) {
    let bridge = world.bridge();
    let wanted = || bridge.matching(patterns(&["counter.*"]));
    let mut stream = wanted().subscribe().await.unwrap();
    world.move_to("a", 0..2).await;
    let first = event(&mut stream).await;
    let again = wanted().after(Some(first.cursor_behind().clone()));
    let mut again = again.subscribe().await.unwrap();
    assert_eq!(
        seen(&event(&mut again).await).1,
        r#"{"lane":"a","number":1}"#
    );
}

async fn a_pattern_must_say_where_to_look(world: World) {
    let bridge = world.bridge();
    let refused = bridge.matching(patterns(&["counter.*", "*"]));
    let refused = refused.subscribe().await.err().unwrap();
    assert!(refused.message.contains("`*`"), "{}", refused.message);
    assert_eq!(code(&refused), "INTERNAL");
    assert_eq!(bridge.readers(), 0);
}

async fn one_cursor_goes_on_in_all_categories(world: World) {
    let wanted = || {
        let bridge = world.bridge();
        bridge.matching(patterns(&["counter.*", "other.*"]))
    };
    let mut stream = wanted().subscribe().await.unwrap();
    for number in 0..20 {
        world.move_to("a", number..number + 1).await;
        world.publish(&[OtherMoved { number }]).await;
    }
    // A new stream after every few, each on a bridge of its own.
    let mut types = Vec::new();
    while types.len() < 40 {
        let edge = event(&mut stream).await;
        types.push(seen(&edge).0);
        if types.len() % 3 == 0 {
            let next = wanted().after(Some(edge.cursor_behind().clone()));
            stream = next.subscribe().await.unwrap();
        }
    }
    let of = |wanted: &str| types.iter().filter(|one| *one == wanted).count();
    assert_eq!((of("counter.moved"), of("other.moved")), (20, 20));
}
