//! What only a real server shows.

use std::collections::HashSet;

use crate::harness::*;

/// The connections that the server has, but for the one that asks.
fn connections(world: &World) -> HashSet<String> {
    let server = world.server.as_ref().unwrap();
    let clients = server.command(&["CLIENT", "LIST"]).unwrap();
    let others = clients
        .lines()
        .filter(|line| !line.contains("cmd=client|list"));
    let id = |line: &str| line.split(' ').next().unwrap().to_owned();
    others.map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_cost_one_connection() {
    let world = World::redis(1).await;
    let bridge = world.bridge();
    // The store has its own connections from its first command on.
    world.move_to("a", 0..1).await;
    let before = connections(&world);
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(bridge.events::<Moved>().subscribe().await.unwrap());
    }
    world.move_to("a", 1..2).await;
    numbers(&mut streams[999], 1).await;
    assert_eq!(connections(&world).difference(&before).count(), 1);
    drop(streams);
    until("the connection is gone", || {
        connections(&world).is_subset(&before)
    })
    .await;
}

/// The server is killed again and again, and nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_survive_that_the_server_is_restarted() {
    let mut world = World::redis(1).await;
    let bridge = world.builder().window(64, 1_000_000).build();
    let mut fast = bridge.events::<Moved>().subscribe().await.unwrap();
    let mut slow = bridge.events::<Moved>().subscribe().await.unwrap();
    let following = tokio::spawn(async move { numbers(&mut fast, 1_200).await.0 });
    for round in 0..4 {
        world.move_to("a", round * 300..round * 300 + 300).await;
        let mut server = world.server.take().unwrap();
        let restarted = tokio::task::spawn_blocking(move || {
            server.stop().unwrap();
            server.restart().unwrap();
            server
        });
        world.server = Some(restarted.await.unwrap());
    }
    let expected: Vec<_> = (0..1_200).collect();
    assert_eq!(following.await.unwrap(), expected);
    assert_eq!(numbers(&mut slow, 1_200).await.0, expected);
}
