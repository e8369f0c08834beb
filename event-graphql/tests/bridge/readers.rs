//! One reader for any number of clients, from the first that comes to the last that goes.

use crate::harness::*;

on_both_stores![
    a_thousand_clients_have_one_reader,
    readers_come_and_go_with_their_clients,
    a_reader_that_is_stopped_is_started_again,
];

async fn a_thousand_clients_have_one_reader(world: World) {
    let bridge = world.bridge();
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        streams.push(bridge.events::<Moved>().subscribe().await.unwrap());
    }
    assert_eq!((bridge.readers(), bridge.clients()), (1, 1_000));
    world.move_to("a", 0..3).await;
    for stream in &mut streams {
        assert_eq!(numbers(stream, 3).await.0, [0, 1, 2]);
    }
    drop(streams);
    assert_eq!((bridge.readers(), bridge.clients()), (0, 0));
}

/// A thousand times somebody comes or goes, or an event is stored; whoever is there gets it.
async fn readers_come_and_go_with_their_clients(world: World) {
    let bridge = world.bridge();
    let mut moved = Vec::new();
    let mut others = Vec::new();
    let mut random = fastrand(7);
    let mut number = 0;
    for _ in 0..1_000 {
        match random() % 5 {
            0 => moved.push((number, bridge.events::<Moved>().subscribe().await.unwrap())),
            1 => others.push(bridge.events::<OtherMoved>().subscribe().await.unwrap()),
            2 if !moved.is_empty() => {
                let leaving = random() as usize % moved.len();
                let (mut expected, mut stream) = moved.swap_remove(leaving);
                while expected < number {
                    assert_eq!(event(&mut stream).await.event().number, expected);
                    expected += 1;
                }
            }
            3 if !others.is_empty() => {
                others.swap_remove(random() as usize % others.len());
            }
            _ => {
                world.move_to("a", number..number + 1).await;
                number += 1;
            }
        }
        let expected = usize::from(!moved.is_empty()) + usize::from(!others.is_empty());
        assert_eq!(bridge.readers(), expected);
        assert_eq!(bridge.clients(), moved.len() + others.len());
    }
    assert!(number > 100);
}

async fn a_reader_that_is_stopped_is_started_again(world: World) {
    let bridge = world.bridge();
    for round in 0..20 {
        let mut stream = bridge.events::<Moved>().subscribe().await.unwrap();
        world.move_to("a", round..round + 1).await;
        assert_eq!(numbers(&mut stream, 1).await.0, [round]);
    }
    assert_eq!(bridge.readers(), 0);
}
