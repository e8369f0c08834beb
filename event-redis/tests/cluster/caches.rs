//! Caches whose entries lie on all nodes.

use event_core::prelude::*;
use event_core::testing::TestService;
use event_redis::{AsOf, RedisCache};
use serde::{Deserialize, Serialize};

use crate::support::Cluster;

#[derive(Serialize, Deserialize, Event)]
#[event("repository.updated", key = repository)]
struct RepositoryUpdated {
    repository: String,
}

const COUNT: usize = 300;

async fn fill(pages: &RedisCache) {
    for number in 0..COUNT {
        for name in ["a", "b"] {
            let entry = pages.entry(format!("repo:{name}:{number}"));
            let entry = entry.tag(format!("repo:{name}"));
            assert!(entry.set(&number, AsOf::default()).await.unwrap());
        }
    }
}

async fn kept(pages: &RedisCache, name: &str) -> usize {
    let mut count = 0;
    for number in 0..COUNT {
        let value: Option<usize> = pages.get(&format!("repo:{name}:{number}")).await.unwrap();
        count += usize::from(value.is_some());
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_removes_what_it_names_on_every_node() {
    for by_tag in [false, true] {
        let cluster = Cluster::take();
        let store = cluster.builder().connect().await.unwrap();
        let pages = store.cache("pages").unwrap();
        let handler = if by_tag {
            pages.invalidate_tag::<RepositoryUpdated>("repo:{repository}")
        } else {
            pages.invalidate::<RepositoryUpdated>("repo:{repository}:*")
        };
        let builder = Service::builder("caches").without_discovered_handlers();
        let builder = builder.handler(handler.unwrap());
        let test = TestService::start_on(store, builder).await.unwrap();
        fill(&pages).await;
        // Each node has some.
        for node in cluster.servers().nodes() {
            let keys = node.command(&["KEYS", "cache:pages:repo:a:*"]).unwrap();
            assert!(keys.lines().count() > COUNT / 10, "{keys}");
        }
        let repository = "a".to_owned();
        test.publish(RepositoryUpdated { repository })
            .await
            .unwrap();
        test.run_until_idle().await.unwrap();
        assert_eq!(kept(&pages, "a").await, 0);
        assert_eq!(kept(&pages, "b").await, COUNT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_finds_what_is_on_its_way_to_another_node() {
    let cluster = Cluster::take();
    let servers = cluster.servers();
    let store = cluster.builder().connect().await.unwrap();
    let pages = store.cache("pages").unwrap();
    fill(&pages).await;
    let key = "cache:pages:repo:a:7";
    let from = servers.owner_of(key).unwrap();
    let to = (from + 1) % servers.nodes().len();
    let runtime = tokio::runtime::Handle::current();
    let is_there = || {
        let keys = servers.node(to).command(&["KEYS", key]).unwrap();
        !keys.trim().is_empty()
    };
    let mut removed = None;
    tokio::task::block_in_place(|| {
        let meanwhile = || {
            // It is with the one node, and its slot is still served by the other.
            if is_there() {
                removed = Some(runtime.block_on(pages.remove_matching("repo:a:*")).unwrap());
            }
        };
        servers.move_slot(key, to, meanwhile).unwrap();
    });
    assert_eq!(removed, Some(COUNT as u64));
    assert_eq!(kept(&pages, "b").await, COUNT);
}
