//! History, then what happens now: without a gap, and without anything twice.

use std::sync::atomic::Ordering;

use crate::harness::{self, *};

on_both_stores![
    a_client_without_a_cursor_gets_what_happens_from_now_on,
    the_seam_between_history_and_now_has_no_gap_and_no_double,
    a_client_goes_on_where_it_was,
    each_event_is_decoded_once,
    what_does_not_fit_its_type_is_told_and_passed,
    #[partitions(4)]
    several_partitions_are_followed_at_once,
];

async fn a_client_without_a_cursor_gets_what_happens_from_now_on(world: World) {
    world.move_to("a", 0..10).await;
    let bridge = world.bridge();
    let mut all = bridge.events::<Moved>().subscribe().await.unwrap();
    let only_b = bridge.events::<Moved>().filter(|event| event.lane == "b");
    let mut only_b = only_b.subscribe().await.unwrap();

    world.move_to("a", 10..12).await;
    world.publish(&[WasReset { lane: "b".into() }]).await;
    world.move_to("b", 12..14).await;

    assert_eq!(numbers(&mut all, 4).await.0, [10, 11, 12, 13]);
    assert_eq!(numbers(&mut only_b, 2).await.0, [12, 13]);
}

async fn the_seam_between_history_and_now_has_no_gap_and_no_double(world: World) {
    const ALL: u64 = 4_000;
    // So little in memory that clients fall out of it again and again.
    let bridge = world.builder().window(32, 1_000_000).build();
    let mut first = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..100).await;
    let (_, cursor) = numbers(&mut first, 100).await;

    let begun = std::sync::Arc::new(tokio::sync::Notify::new());
    let readers = (0..20_u64).map(|reader| {
        let (bridge, begun) = (bridge.clone(), begun.clone());
        let cursor = cursor.clone();
        tokio::spawn(async move {
            if reader % 2 == 1 {
                begun.notified().await;
            }
            let stream = bridge.events::<Moved>().after(cursor).subscribe();
            numbers(&mut stream.await.unwrap(), (ALL - 100) as usize)
                .await
                .0
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut at = 100;
    while at < ALL {
        let next = (at + 50).min(ALL);
        world.move_to("a", at..next).await;
        begun.notify_one();
        at = next;
    }
    let expected: Vec<_> = (100..ALL).collect();
    for reader in readers {
        begun.notify_one();
        assert_eq!(reader.await.unwrap(), expected);
    }
}

async fn a_client_goes_on_where_it_was(world: World) {
    let bridge = world.bridge();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    world.move_to("a", 0..500).await;
    let (mut seen, mut cursor) = numbers(&mut stream, 7).await;
    // Each time with another instance.
    while seen.len() < 500 {
        let bridge = world.bridge();
        let stream = bridge.events::<Moved>().after(cursor.clone()).subscribe();
        let some = 61.min(500 - seen.len());
        let (next, behind) = numbers(&mut stream.await.unwrap(), some).await;
        seen.extend(next);
        cursor = behind;
    }
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

async fn each_event_is_decoded_once(world: World) {
    // The other store's test counts, too.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let before = harness::DECODED.load(Ordering::SeqCst);
    let bridge = world.bridge();
    let _reading = world.reading(&bridge).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(bridge.events::<Counted>().subscribe().await.unwrap());
    }
    world
        .publish(&[Counted { number: 7 }, Counted { number: 8 }])
        .await;
    for stream in &mut streams {
        assert_eq!(event(stream).await.event().number, 7);
        assert_eq!(event(stream).await.event().number, 8);
    }
    assert_eq!(harness::DECODED.load(Ordering::SeqCst) - before, 2);
}

async fn what_does_not_fit_its_type_is_told_and_passed(world: World) {
    #[derive(serde::Serialize, serde::Deserialize, event_core::Event)]
    #[event("counter.moved")]
    struct Other {
        wrong: bool,
    }

    let bridge = world.bridge();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    world.publish(&[Other { wrong: true }]).await;
    world.move_to("a", 1..2).await;

    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(code(&error), "UNDECODABLE");
    assert_eq!(numbers(&mut stream, 1).await.0, [1]);
}

async fn several_partitions_are_followed_at_once(world: World) {
    let bridge = world.bridge();
    let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
    assert_eq!(bridge.readers(), 4);
    let lanes: Vec<_> = (0..20).map(|lane| format!("lane-{lane}")).collect();
    for number in 0..10 {
        for lane in &lanes {
            world.move_to(lane, number..number + 1).await;
        }
    }
    let mut seen = std::collections::HashMap::<String, Vec<u64>>::new();
    let mut cursor = None;
    for step in 0..200 {
        if step % 50 == 49 {
            // Its cursor knows all partitions.
            let again = bridge.events::<Moved>().after(cursor.clone()).subscribe();
            stream = again.await.unwrap();
        }
        let edge = event(&mut stream).await;
        let lane = seen.entry(edge.event().lane.clone()).or_default();
        lane.push(edge.event().number);
        cursor = Some(edge.cursor_behind().clone());
    }
    assert_eq!(seen.len(), 20);
    for (lane, numbers) in seen {
        assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "{lane}");
    }
}
