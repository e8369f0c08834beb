//! What a value knows of.

use std::collections::BTreeMap;

use event_core::{AggregateId, Context, Partition, Position, Token, Version};

/// Up to where a value knows what has happened: which events it need not be invalidated by.
///
/// - [`AsOf::version`]: the version of an aggregate that it was made of.
/// - [`AsOf::token`]: the positions that what it was made of had come to. It must know **everything** of
///   these partitions up to there, as far as it concerns the value: a projection that was
///   [waited for](event_core::ProjectionView::wait_for), for example.
///
/// ```
/// use event_core::{AggregateId, Category};
/// use event_redis::AsOf;
///
/// let project = AggregateId::new(Category::new("sdlc")?, "project", "gothic")?;
/// let team = AggregateId::new(Category::new("team")?, "team", "a")?;
/// let of_both = AsOf::version(&project, 7).and(AsOf::version(&team, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsOf {
    /// By place, numbers written so that the order of the texts is theirs.
    places: BTreeMap<String, String>,
}

impl AsOf {
    /// As of a version of an aggregate. Of the aggregate's events it decides alone, whatever a token says.
    pub fn version(aggregate: &AggregateId, version: Version) -> Self {
        let place = aggregate_place(
            aggregate.category().as_str(),
            aggregate.aggregate_type(),
            aggregate.id(),
        );
        Self::default().at(place, ordered_version(version))
    }

    /// As of these positions.
    pub fn token(token: &Token) -> Self {
        token.iter().fold(Self::default(), |as_of, (at, position)| {
            as_of.at(partition_place(at), ordered_position(position))
        })
    }

    /// As of both. Where both know of one aggregate or partition, what is made of them knows only as much as
    /// the older.
    pub fn and(self, other: AsOf) -> Self {
        let others = other.places.into_iter();
        others.fold(self, |as_of, (place, number)| as_of.at(place, number))
    }

    fn at(mut self, place: String, number: String) -> Self {
        let known = self.places.entry(place).or_insert_with(|| number.clone());
        if number < *known {
            *known = number;
        }
        self
    }

    /// As scripts read it.
    pub(super) fn json(&self) -> String {
        serde_json::json!(self.places).to_string()
    }
}

/// Where an event is, as scripts compare it: in its aggregate, and in its partition.
pub(super) fn places_of(context: &Context) -> Vec<(String, String)> {
    let event = context.event();
    let category = event.event_type().split('.').next().unwrap_or_default();
    let mut places = Vec::new();
    if let Some(aggregate) = event.aggregate()
        // Another program may have given none.
        && aggregate.version > 0
    {
        let place = aggregate_place(category, &aggregate.aggregate_type, &aggregate.id);
        places.push((place, ordered_version(aggregate.version)));
    }
    if let Some(partition) = context.partition() {
        let position = ordered_position(event.position());
        places.push((partition_place(partition), position));
    }
    places
}

fn aggregate_place(category: &str, aggregate_type: &str, id: &str) -> String {
    format!("aggregate:{category}:{aggregate_type}:{id}")
}

fn partition_place(partition: &Partition) -> String {
    format!("partition:{partition}")
}

fn ordered_version(version: Version) -> String {
    format!("{version:020}")
}

fn ordered_position(position: Position) -> String {
    let (milliseconds, sequence) = (position.milliseconds(), position.sequence());
    format!("{milliseconds:020}-{sequence:020}")
}

#[cfg(test)]
mod tests {
    use event_core::Category;

    use super::*;

    #[test]
    fn of_two_the_older_counts() {
        let project = AggregateId::new(Category::new("sdlc").unwrap(), "project", "a").unwrap();
        let (older, newer) = (AsOf::version(&project, 9), AsOf::version(&project, 10));
        assert_eq!(newer.clone().and(older.clone()), older);
        assert_eq!(older.clone().and(newer), older);
        assert!(ordered_position(Position::new(9, 10)) < ordered_position(Position::new(10, 2)));
    }
}
