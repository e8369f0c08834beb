//! Dead letters in memory.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::codec::entry::EntryFields;
use crate::partition::Partition;
use crate::store::{
    Chosen, DeadLetter, DeadLetterError, DeadLetterId, DeadLetters, InspectedDeadLetter, StoreError,
};

#[async_trait]
impl DeadLetters for MemoryStore {
    async fn list_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut content = self.content();
        let Some(handling) = content.group(group).handling(partition) else {
            return Ok(Vec::new());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(handling
            .dead_letters
            .range::<DeadLetterId, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, (letter, _))| letter.clone())
            .collect())
    }

    async fn inspect_dead_letter(
        &self,
        group: &str,
        partition: &Partition,
        id: &DeadLetterId,
    ) -> Result<Option<InspectedDeadLetter>, StoreError> {
        let mut content = self.content();
        Ok(content
            .group(group)
            .handling(partition)
            .and_then(|handling| handling.dead_letters.get(id))
            .map(|(letter, raw)| InspectedDeadLetter {
                letter: letter.clone(),
                raw: fields(raw),
            }))
    }

    async fn redrive_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        let mut content = self.content();
        let group = content.group(group);
        let Some(handling) = group.handling(partition) else {
            return Ok(0);
        };
        if let Chosen::One(id) = chosen
            && let Some((letter, _)) = handling.dead_letters.get(id)
            && let Some(key) = &letter.key
            && let Some(first) = handling
                .dead_letters
                .values()
                .map(|(other, _)| other)
                .find(|other| other.handler == letter.handler && other.key.as_ref() == Some(key))
            && first.position < letter.position
        {
            return Err(DeadLetterError::NotFirst {
                chosen: id.clone(),
                key: key.clone(),
                first: first.id(),
            });
        }
        let mut count = 0;
        for (letter, _) in handling.dead_letters.values_mut() {
            if chosen.contains(letter) {
                letter.redrive = true;
                count += 1;
            }
        }
        group.changed();
        Ok(count)
    }

    async fn discard_dead_letters(
        &self,
        group: &str,
        partition: &Partition,
        chosen: &Chosen,
    ) -> Result<usize, DeadLetterError> {
        let mut content = self.content();
        let group = content.group(group);
        let Some(handling) = group.handling(partition) else {
            return Ok(0);
        };
        let before = handling.dead_letters.len();
        handling
            .dead_letters
            .retain(|_, (letter, _)| !chosen.contains(letter));
        let count = before - handling.dead_letters.len();
        group.changed();
        Ok(count)
    }
}

/// The fields of an entry by name, as they lie in a feed.
fn fields(raw: &EntryFields<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    [
        ("type", &raw.event_type),
        ("payload", &raw.payload),
        ("aggregate", &raw.aggregate),
        ("metadata", &raw.metadata),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let value = value.as_deref()?;
        Some((name.as_bytes().to_vec(), value.to_vec()))
    })
    .collect()
}
