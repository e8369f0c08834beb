//! Invalidations: handlers that remove what events invalidate.

use event_core::{Codec, Context, Event, HandlerDefinition};
use serde_json::Value;

use super::RedisCache;
use super::as_of::places_of;
use super::error::CacheError;
use super::pattern::{Filled, KeyPattern};

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Keys,
    Tagged,
}

/// Removes what matches.
pub(super) fn by_pattern<E: Event>(cache: &RedisCache, pattern: KeyPattern) -> HandlerDefinition {
    let name = format!("invalidate {}:{}", cache.name(), pattern.text());
    handler::<E>(name, cache, pattern, What::Keys)
}

/// Removes what has a tag.
pub(super) fn by_tag<E: Event>(cache: &RedisCache, tag: KeyPattern) -> HandlerDefinition {
    let name = format!("invalidate {} by tag {}", cache.name(), tag.text());
    handler::<E>(name, cache, tag, What::Tagged)
}

fn handler<E: Event>(
    name: String,
    cache: &RedisCache,
    pattern: KeyPattern,
    what: What,
) -> HandlerDefinition {
    let types = E::DEFINITIONS.iter().map(|definition| definition.name());
    // Two kinds of events may be named in the same way.
    let name = format!("{name} on {}", types.clone().collect::<Vec<_>>().join(", "));
    let cache = cache.clone();
    let definition = HandlerDefinition::function(name, move |event: E, context: Context| {
        let cache = cache.clone();
        let filled = fill(&pattern, &event);
        async move { invalidate(&cache, filled?, what, &context).await }
    });
    let definition = types.fold(definition, |definition, name| definition.on(name));
    definition.classify::<CacheError>().allow_replay()
}

/// The event is read as it is written today, so that its fields are those that the program knows.
fn fill<E: Event>(pattern: &KeyPattern, event: &E) -> Result<Filled, CacheError> {
    let unknown = |source| CacheError::Event { source };
    let encoded = Codec::default().encode(event).map_err(unknown)?;
    let payload: Value = serde_json::from_str(encoded.payload()).unwrap_or_default();
    pattern.fill(event.definition().name(), &payload)
}

async fn invalidate(
    cache: &RedisCache,
    filled: Filled,
    what: What,
    context: &Context,
) -> Result<(), CacheError> {
    let places = places_of(context);
    let shared = &cache.shared;
    let removed = match (filled, what) {
        (Filled::Nothing, _) => 0,
        (Filled::Key(tag) | Filled::Matching(tag), What::Tagged) => {
            shared.remove_tagged(&tag, &places).await?
        }
        (Filled::Key(key), What::Keys) => {
            let key = format!("{}{key}", shared.entries);
            shared.remove(vec![key], &places).await?
        }
        (Filled::Matching(pattern), What::Keys) => {
            shared.remove_matching(&pattern, &places).await?
        }
    };
    tracing::debug!(cache = cache.name(), removed, "invalidated");
    Ok(())
}
