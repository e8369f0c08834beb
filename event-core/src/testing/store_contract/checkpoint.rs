//! Checkpoints: how far a group has come.

use super::StoreHarness;
use super::bank::{account, bank, category, deposits};
use super::steps::{append, append_to_feed, feed, follow, fresh, head, next_events};
use crate::event::Category;
use crate::recorded::Position;
use crate::store::{Checkpoints, Expected};

async fn load(store: &impl Checkpoints, group: &str, category: &Category) -> Option<Position> {
    match store.load_checkpoint(group, category).await {
        Ok(checkpoint) => checkpoint,
        Err(error) => panic!("a checkpoint must be loaded: {error}"),
    }
}

async fn save(store: &impl Checkpoints, group: &str, category: &Category, position: Position) {
    if let Err(error) = store.save_checkpoint(group, category, position).await {
        panic!("a checkpoint must be saved: {error}");
    }
}

/// Before a group has saved a checkpoint there is none, with events and without.
pub async fn there_is_none_before_it_is_saved<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    assert_eq!(load(&store, "agents", &bank()).await, None);
    append_to_feed(&store, &bank(), deposits(3)).await;
    assert_eq!(load(&store, "agents", &bank()).await, None);
}

/// A checkpoint that was saved is loaded, however often.
pub async fn what_was_saved_is_loaded<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let appended = append(&store, &account("a"), Expected::Any, deposits(3)).await;
    let position = appended.events[1].position;
    save(&store, "agents", &bank(), position).await;
    for _ in 0..2 {
        assert_eq!(load(&store, "agents", &bank()).await, Some(position));
    }
    append_to_feed(&store, &bank(), deposits(1)).await;
    assert_eq!(load(&store, "agents", &bank()).await, Some(position));
}

/// The checkpoint that was saved last counts.
pub async fn the_newest_checkpoint_counts<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let appended = append_to_feed(&store, &bank(), deposits(12)).await;
    for event in appended.events {
        save(&store, "agents", &bank(), event.position).await;
        assert_eq!(load(&store, "agents", &bank()).await, Some(event.position));
    }
}

/// A group may save the start as its checkpoint, of an empty feed, too, and that is not the same as
/// none.
pub async fn the_start_is_a_checkpoint<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    save(&store, "agents", &bank(), Position::START).await;
    assert_eq!(load(&store, "agents", &bank()).await, Some(Position::START));
    append_to_feed(&store, &bank(), deposits(1)).await;
    assert_eq!(load(&store, "agents", &bank()).await, Some(Position::START));
}

/// Each group has a checkpoint of its own, whatever it is called.
pub async fn each_group_has_its_own<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let groups = [
        "agents",
        "agent",
        "repo-agent",
        "a:b",
        "a",
        "b",
        "{a}",
        "*",
        "a b",
        "ünïcode",
        "0",
    ];
    let appended = append_to_feed(&store, &bank(), deposits(groups.len())).await;
    for (group, event) in groups.iter().zip(&appended.events) {
        assert_eq!(load(&store, group, &bank()).await, None, "group `{group}`");
        save(&store, group, &bank(), event.position).await;
    }
    for (group, event) in groups.iter().zip(&appended.events) {
        let found = load(&store, group, &bank()).await;
        assert_eq!(found, Some(event.position), "group `{group}`");
    }
}

/// A group has a checkpoint of its own in each category.
pub async fn each_category_has_its_own<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let categories = ["bank", "bank2", "ban", "shop"].map(category);
    for (category, sequence) in categories.iter().zip(1..) {
        assert_eq!(load(&store, "agents", category).await, None);
        save(&store, "agents", category, Position::new(1, sequence)).await;
    }
    for (category, sequence) in categories.iter().zip(1..) {
        let found = load(&store, "agents", category).await;
        assert_eq!(found, Some(Position::new(1, sequence)), "of `{category}`");
    }
}

/// Saving a checkpoint adds nothing to the feed, moves no head and moves no follower.
pub async fn a_checkpoint_adds_nothing_to_the_feed<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    save(&store, "agents", &bank(), Position::START).await;
    assert_eq!(feed(&store, &bank()).await, []);
    assert_eq!(head(&store, &bank()).await, Position::START);

    let mut follower = follow(&store, &bank(), Position::START).await;
    append_to_feed(&store, &bank(), deposits(2)).await;
    let all = feed(&store, &bank()).await;
    save(&store, "agents", &bank(), all[1].position()).await;
    assert_eq!(feed(&store, &bank()).await, all);
    assert_eq!(head(&store, &bank()).await, all[1].position());
    assert_eq!(next_events(&mut *follower, 2, 1).await, all);
}

/// A checkpoint that one client has saved is loaded by another.
pub async fn a_checkpoint_is_known_to_another_client<H: StoreHarness>(harness: &H) {
    let store = fresh(harness).await;
    let other = harness.other_client(&store).await;
    let appended = append_to_feed(&store, &bank(), deposits(1)).await;
    save(&store, "agents", &bank(), appended.position()).await;
    let found = load(&other, "agents", &bank()).await;
    assert_eq!(found, Some(appended.position()));
}
