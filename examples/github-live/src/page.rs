//! The page: files that are part of the program, so that there is nothing to build and nothing to find.

use async_graphql::http::GraphiQLSource;
use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::{MethodRouter, get};

/// Everything comes from here, and nothing is written into the page as markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The page and what belongs to it, and GraphiQL.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", file(HTML, include_str!("page/index.html")))
        .route("/page/style.css", file(CSS, include_str!("page/style.css")))
        .route("/page/icon.svg", file(SVG, include_str!("page/icon.svg")))
        .route("/page/app.js", file(JS, include_str!("page/app.js")))
        .route("/page/client.js", file(JS, include_str!("page/client.js")))
        .route("/page/dom.js", file(JS, include_str!("page/dom.js")))
        .route("/page/events.js", file(JS, include_str!("page/events.js")))
        .route("/page/graph.js", file(JS, include_str!("page/graph.js")))
        .route(
            "/page/repositories.js",
            file(JS, include_str!("page/repositories.js")),
        )
        .route(
            "/page/session.js",
            file(JS, include_str!("page/session.js")),
        )
        .route("/page/status.js", file(JS, include_str!("page/status.js")))
        .route("/graphiql", get(graphiql))
}

fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: &'static str,
) -> MethodRouter<S> {
    get(move || async move {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // It changes with the program, and is small.
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, text)
    })
}

/// GraphiQL. Its own code is loaded from a public CDN, so that it works online only.
async fn graphiql() -> impl IntoResponse {
    let source = GraphiQLSource::build()
        .endpoint("/graphql")
        .subscription_endpoint("/graphql/ws")
        .title("github-live · GraphiQL");
    Html(source.finish())
}
