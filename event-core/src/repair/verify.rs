use futures::StreamExt;
use futures::stream;

use super::compare::{Wrong, compare};
use super::{Checks, Finding, Findings, Found, PAGE, Pages};
use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::{AggregateId, Position, RecordedEvent, Version};
use crate::store::{FeedEntry, Maintenance, ReadError, Versions};

/// Entries of a feed that are asked for at once.
const AT_ONCE: usize = 64;

/// Compares the histories of a category with its feed: whether each event is in both and the same, in
/// order and without holes, and whether each payload can be read. Others may write meanwhile; what they
/// write after it has begun may be left out, and is no mistake.
///
/// It reads everything once, and every entry of an aggregate a second time, in pages: what it takes in
/// memory does not grow with the feed.
///
/// ```
/// use event_core::prelude::*;
/// use event_core::{Category, Checks, verify};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let store = MemoryStore::new();
/// let findings = verify(&store, &Category::new("sdlc")?, &Checks::new()).await?;
/// println!("{findings}");
/// for (kind, found) in findings.kinds() {
///     for finding in &found.first {
///         println!("{kind}: {finding}");
///     }
/// }
/// assert!(findings.is_sound());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`ReadError::Store`] where the store does not answer.
pub async fn verify<S: Maintenance + ?Sized>(
    store: &S,
    category: &Category,
    checks: &Checks,
) -> Result<Findings, ReadError> {
    let count = store.partitions(category).await?;
    let mut findings = Findings::default();
    for number in 0..count {
        let partition = Partition::new(category.clone(), number);
        let mut verification = Verification::new(store, &partition, count, checks);
        verification.feed(None).await?;
        let mut cursor = None;
        loop {
            let page = store.histories(&partition, cursor.as_deref()).await?;
            for aggregate in &page.aggregates {
                verification.history(aggregate).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        verification.add_to(&mut findings);
    }
    Ok(findings)
}

/// Compares the history of one aggregate with its feed, which it reads as a whole; see [`verify`].
///
/// # Errors
/// [`ReadError::Store`] where the store does not answer.
pub async fn verify_aggregate<S: Maintenance + ?Sized>(
    store: &S,
    aggregate: &AggregateId,
    checks: &Checks,
) -> Result<Findings, ReadError> {
    let count = store.partitions(aggregate.category()).await?;
    let partition = Partition::of_aggregate(aggregate, count);
    let mut verification = Verification::new(store, &partition, count, checks);
    verification.feed(Some(aggregate)).await?;
    verification.history(aggregate).await?;
    Ok(verification.findings)
}

/// Looks through one partition.
struct Verification<'v, S: ?Sized> {
    store: &'v S,
    partition: &'v Partition,
    /// How many partitions the category has.
    count: u32,
    checks: &'v Checks,
    findings: Findings,
}

impl<'v, S: Maintenance + ?Sized> Verification<'v, S> {
    fn new(store: &'v S, partition: &'v Partition, count: u32, checks: &'v Checks) -> Self {
        Self {
            store,
            partition,
            count,
            checks,
            findings: Findings::default(),
        }
    }

    fn add_to(self, all: &mut Findings) {
        let found = self.findings;
        let most = self.checks.most();
        all.histories += found.histories;
        all.events += found.events;
        all.entries += found.entries;
        all.trimmed += found.trimmed;
        all.compacted += found.compacted;
        for (all, found) in [
            (&mut all.missing_in_feed, found.missing_in_feed),
            (&mut all.missing_in_history, found.missing_in_history),
            (&mut all.different, found.different),
            (&mut all.out_of_order, found.out_of_order),
            (&mut all.holes, found.holes),
            (&mut all.unreadable, found.unreadable),
            (&mut all.unknown_types, found.unknown_types),
        ] {
            all.count += found.count;
            let room = most.saturating_sub(all.first.len());
            all.first.extend(found.first.into_iter().take(room));
        }
    }

    fn report(
        &mut self,
        kind: fn(&mut Findings) -> &mut Found,
        position: Option<Position>,
        of: Option<(&AggregateId, Version)>,
        what: impl FnOnce() -> String,
    ) {
        let partition = self.partition;
        kind(&mut self.findings).add(self.checks.most(), || Finding {
            partition: partition.clone(),
            position,
            aggregate: of.map(|(aggregate, _)| aggregate.clone()),
            version: of
                .map(|(_, version)| version)
                .filter(|version| *version > 0),
            what: what(),
        });
    }

    /// Looks through the feed: whether the histories have all of it, and what is of no aggregate.
    async fn feed(&mut self, only: Option<&AggregateId>) -> Result<(), ReadError> {
        let mut pages = Pages::new(self.store, self.partition).await?;
        loop {
            let entries = pages.next().await?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut own = Vec::new();
            for entry in entries {
                let position = entry.position();
                let event = match entry {
                    FeedEntry::Event(event) => event,
                    FeedEntry::Undecodable { error, .. } => {
                        if only.is_none() {
                            self.findings.entries += 1;
                            self.report(
                                |f| &mut f.unreadable,
                                Some(position),
                                None,
                                || error.to_string(),
                            );
                        }
                        continue;
                    }
                };
                let aggregate = event.aggregate_id();
                if let Some(only) = only
                    && !matches!(&aggregate, Ok(Some(aggregate)) if aggregate == only)
                {
                    continue;
                }
                self.findings.entries += 1;
                match aggregate {
                    Ok(None) => self.decode(&event, None),
                    Err(error) => {
                        self.report(
                            |f| &mut f.unreadable,
                            Some(position),
                            None,
                            || error.to_string(),
                        );
                    }
                    Ok(Some(aggregate)) => {
                        let place = Partition::of_aggregate(&aggregate, self.count);
                        if place == *self.partition {
                            own.push((aggregate, event));
                            continue;
                        }
                        let version = event.aggregate().map_or(0, |own| own.version);
                        self.report(
                            |f| &mut f.missing_in_history,
                            Some(position),
                            Some((&aggregate, version)),
                            || format!("it belongs in `{place}`, where its aggregate lies"),
                        );
                    }
                }
            }
            self.expect_in_histories(own).await?;
        }
    }

    async fn expect_in_histories(
        &mut self,
        own: Vec<(AggregateId, RecordedEvent)>,
    ) -> Result<(), ReadError> {
        if own.is_empty() {
            return Ok(());
        }
        let events: Vec<_> = own.iter().map(|(_, event)| event.clone()).collect();
        let store = self.store;
        let missing = store.missing_in_history(self.partition, &events).await?;
        for (aggregate, event) in own {
            if missing.contains(&event.position()) {
                let version = event.aggregate().map_or(0, |own| own.version);
                self.report(
                    |f| &mut f.missing_in_history,
                    Some(event.position()),
                    Some((&aggregate, version)),
                    || "the history does not have this entry".to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Looks whether the program's types can read an event.
    fn decode(&mut self, event: &RecordedEvent, of: Option<(&AggregateId, Version)>) {
        let position = Some(event.position());
        match self.checks.read(event) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                self.report(|f| &mut f.unreadable, position, of, || error.to_string());
            }
            None => self.report(
                |f| &mut f.unknown_types,
                position,
                of,
                || format!("`{}` is unknown to this program", event.event_type()),
            ),
        }
    }

    /// Looks through a history: its versions, its order, and whether the feed has the same.
    async fn history(&mut self, aggregate: &AggregateId) -> Result<(), ReadError> {
        let (mut next, mut last) = (1, Position::START);
        self.findings.histories += 1;
        loop {
            let versions = Versions::from(next).limit(PAGE);
            let events = match self.store.read_aggregate(aggregate, &versions).await {
                Ok(events) => events,
                Err(ReadError::HistoryTrimmed {
                    first_available, ..
                }) => {
                    if next == 1 {
                        self.findings.compacted += 1;
                    }
                    next = first_available.max(next + 1);
                    continue;
                }
                // It went away meanwhile, or has come to its end.
                Err(ReadError::NotFound { .. }) => return Ok(()),
                Err(ReadError::Codec(error)) => {
                    self.report(
                        |f| &mut f.unreadable,
                        None,
                        Some((aggregate, next)),
                        || format!("the history cannot be read from here on: {error}"),
                    );
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if events.is_empty() {
                return Ok(());
            }
            let is_whole = self.page(aggregate, &events, &mut next, &mut last).await?;
            if !is_whole || events.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Looks through some events of a history; whether there is no hole among them.
    async fn page(
        &mut self,
        aggregate: &AggregateId,
        events: &[RecordedEvent],
        next: &mut Version,
        last: &mut Position,
    ) -> Result<bool, ReadError> {
        let store = self.store;
        let positions: Vec<_> = events.iter().map(RecordedEvent::position).collect();
        let adopted = store.adopted_versions(self.partition, &positions).await?;
        let partition = self.partition;
        let wrong: Vec<_> = stream::iter(events.iter().zip(&adopted))
            .map(|(event, adopted)| compare(store, partition, event, adopted.is_some()))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut is_whole = true;
        for ((event, adopted), wrong) in events.iter().zip(&adopted).zip(wrong) {
            let version = event.aggregate().map_or(0, |own| own.version);
            let (position, of) = (event.position(), Some((aggregate, version)));
            self.findings.events += 1;
            if version != *next {
                is_whole = false;
                let expected = *next;
                self.report(
                    |f| &mut f.holes,
                    Some(position),
                    of,
                    || format!("version {expected} should be here"),
                );
            }
            *next = version + 1;
            // What was adopted is known as long as its entry is there.
            if adopted.is_none() && !matches!(wrong, Ok(Some(Wrong::Trimmed))) {
                if position <= *last {
                    let before = *last;
                    self.report(
                        |f| &mut f.out_of_order,
                        Some(position),
                        of,
                        || format!("the version before lies at {before}"),
                    );
                }
                *last = position.max(*last);
            }
            match wrong? {
                None => {}
                Some(Wrong::Trimmed) => self.findings.trimmed += 1,
                // Looked at once more: the history may have been made anew since it was read.
                Some(_) => match self.again(aggregate, version, adopted.is_some()).await? {
                    None => {}
                    Some(Wrong::Trimmed) => self.findings.trimmed += 1,
                    Some(Wrong::MissingInFeed) => {
                        self.report(
                            |f| &mut f.missing_in_feed,
                            Some(position),
                            of,
                            || "the feed has nothing here, though it is whole".to_owned(),
                        );
                    }
                    Some(Wrong::Different(what)) => {
                        self.report(|f| &mut f.different, Some(position), of, || what);
                    }
                },
            }
            self.decode(event, of);
        }
        Ok(is_whole)
    }

    /// Compares one event anew.
    async fn again(
        &self,
        aggregate: &AggregateId,
        version: Version,
        is_adopted: bool,
    ) -> Result<Option<Wrong>, ReadError> {
        let versions = Versions::from(version).to(version);
        match self.store.read_aggregate(aggregate, &versions).await {
            Ok(events) => match events.first() {
                Some(event) => compare(self.store, self.partition, event, is_adopted).await,
                None => Ok(None),
            },
            Err(ReadError::HistoryTrimmed { .. } | ReadError::NotFound { .. }) => Ok(None),
            Err(ReadError::Codec(error)) => Ok(Some(Wrong::Different(error.to_string()))),
            Err(error) => Err(error),
        }
    }
}
