//! The feeds that the service shows.

use event_core::{
    Backend, Category, FeedEntry, InvalidCategory, InvalidPattern, Partition, Pattern, Position,
    ReadError, RecordedEvent, Token,
};

/// The categories of all events that there are.
const CATEGORIES: [&str; 6] = ["ai", "codebase", "github", "package", "repository", "sdlc"];

/// What the events of repositories are called.
pub const REPOSITORY: &str = "codebase.*";

/// The categories of all events that there are.
///
/// # Errors
/// [`InvalidCategory`] where one is none.
pub fn categories() -> Result<Vec<Category>, InvalidCategory> {
    CATEGORIES.into_iter().map(Category::new).collect()
}

/// A pattern for each category.
///
/// # Errors
/// [`InvalidPattern`] where one is none.
pub fn patterns() -> Result<Vec<Pattern>, InvalidPattern> {
    let patterns = CATEGORIES.iter().map(|category| format!("{category}.*"));
    patterns.map(|pattern| pattern.parse()).collect()
}

/// Where the newest event of each partition lies.
///
/// # Errors
/// [`ReadError`] where the store does not answer.
pub async fn heads(store: &dyn Backend, categories: &[Category]) -> Result<Token, ReadError> {
    let mut token = Token::default();
    for category in categories {
        for number in 0..store.partitions(category).await? {
            let partition = Partition::new(category.clone(), number);
            let head = store.head(&partition).await?;
            token.reach(partition, head);
        }
    }
    Ok(token)
}

/// The newest events up to where `token` says, at most `limit`, the oldest first.
///
/// # Errors
/// [`ReadError`] where the store does not answer.
pub async fn newest(
    store: &dyn Backend,
    token: &Token,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut events = Vec::new();
    for (partition, head) in token.iter() {
        if head == Position::START {
            continue;
        }
        let read = store.read_feed_back(partition, head.next(), limit).await?;
        events.extend(read.into_iter().filter_map(|entry| match entry {
            FeedEntry::Event(event) => Some(event),
            FeedEntry::Undecodable { .. } => None,
        }));
    }
    events.sort_by_cached_key(|event| (event.position(), event.metadata().timestamp));
    Ok(events.split_off(events.len().saturating_sub(limit)))
}
