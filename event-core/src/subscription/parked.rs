//! What is parked: the dead letters of a partition, as its owner knows them.

use std::collections::{BTreeMap, HashMap};

use crate::partition::Partition;
use crate::store::{Backend, DeadLetter, DeadLetterId, StoreError};

/// How many dead letters are listed at once.
const PAGE: usize = 1_000;

/// All dead letters of one group and partition, without their raw entries.
#[derive(Default)]
pub(super) struct Parked {
    letters: BTreeMap<DeadLetterId, DeadLetter>,
    /// How many there are of each handler and key.
    blocked: HashMap<String, HashMap<String, usize>>,
}

impl Parked {
    /// Reads them from the store.
    pub(super) async fn load(
        backend: &dyn Backend,
        group: &str,
        partition: &Partition,
    ) -> Result<Self, StoreError> {
        let mut parked = Self::default();
        let mut after = None;
        loop {
            let page = backend
                .list_dead_letters(group, partition, after.as_ref(), PAGE)
                .await?;
            after = page.last().map(DeadLetter::id);
            let is_last = page.len() < PAGE;
            for letter in page {
                parked.insert(letter);
            }
            if is_last {
                return Ok(parked);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn insert(&mut self, letter: DeadLetter) {
        let id = letter.id();
        if !self.letters.contains_key(&id)
            && let Some(key) = &letter.key
        {
            let keys = self.blocked.entry(letter.handler.clone()).or_default();
            *keys.entry(key.clone()).or_default() += 1;
        }
        self.letters.insert(id, letter);
    }

    pub(super) fn remove(&mut self, id: &DeadLetterId) {
        let Some(letter) = self.letters.remove(id) else {
            return;
        };
        if let Some(key) = &letter.key
            && let Some(keys) = self.blocked.get_mut(&letter.handler)
            && let Some(count) = keys.get_mut(key)
        {
            *count -= 1;
            if *count == 0 {
                keys.remove(key);
            }
        }
    }

    pub(super) fn get(&self, id: &DeadLetterId) -> Option<&DeadLetter> {
        self.letters.get(id)
    }

    /// Whether events of this key must wait behind dead letters of this handler.
    pub(super) fn blocks(&self, handler: &str, key: &str) -> bool {
        !self.letters.is_empty()
            && self
                .blocked
                .get(handler)
                .is_some_and(|keys| keys.contains_key(key))
    }

    /// The dead letters of this handler and key, in order.
    pub(super) fn of<'a>(
        &'a self,
        handler: &'a str,
        key: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a DeadLetter> {
        self.letters
            .values()
            .filter(move |letter| letter.handler == handler && letter.key.as_deref() == Some(key))
    }

    /// Those that are to be handled again, in order.
    pub(super) fn to_redrive(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.values().filter(|letter| letter.redrive)
    }
}
