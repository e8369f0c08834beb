//! The page is served whole, from here alone.

use crate::client::get;
use crate::harness::*;

/// What a page refers to by these attributes.
fn references(html: &str) -> Vec<&str> {
    ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| html.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .filter(|reference| !reference.starts_with('#'))
        .collect()
}

/// What a script imports.
fn imports(script: &str) -> Vec<&str> {
    script
        .split(" from \"./")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[tokio::test]
async fn the_page_and_all_it_refers_to_are_served() {
    let served = Served::in_memory().await;
    let page = get(served.address, "/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html; charset=utf-8"));
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none';")
    );
    let found = references(&page.body);
    assert!(found.len() >= 6, "{found:?}");
    for reference in found {
        assert!(reference.starts_with('/'), "{reference} is elsewhere");
        assert_eq!(
            get(served.address, reference).await.status,
            200,
            "{reference}"
        );
    }
}

#[tokio::test]
async fn every_script_that_is_imported_is_served() {
    let served = Served::in_memory().await;
    let mut wanted = vec!["app.js".to_owned()];
    let mut seen = Vec::new();
    while let Some(name) = wanted.pop() {
        if seen.contains(&name) {
            continue;
        }
        let script = get(served.address, &format!("/page/{name}")).await;
        assert_eq!(script.status, 200, "{name}");
        assert!(script.head.contains("content-type: text/javascript"));
        assert!(!script.body.contains("innerHTML"), "{name} writes markup");
        wanted.extend(imports(&script.body).into_iter().map(str::to_owned));
        seen.push(name);
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[tokio::test]
async fn graphiql_is_served() {
    let served = Served::in_memory().await;
    let page = get(served.address, "/graphiql").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("/graphql/ws"));
}
