//! What events lead to in a projection: operations on keys, which are put together before they are stored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Serialize;

use super::error::ProjectionFailure;

/// The largest whole number that a field can count to, and its negative the smallest: 2^53 - 1, up to which
/// readers in every language know the exact value.
pub const MAX_COUNT: i64 = (1 << 53) - 1;

/// Takes the writes of one event. Keys and fields are any text that the projection chooses.
///
/// A key has a document, or fields, or both. Nothing is read here: what a projection writes depends on the
/// event alone.
///
/// ```
/// use event_core::projection::Writes;
///
/// let mut writes = Writes::default();
/// writes.increment("octo/hello", "pushes", 1);
/// writes.set_field("octo/hello", "by", &"mona")?;
/// writes.set("newest", &("octo/hello", 2))?;
/// writes.remove("octo/gone");
/// # Ok::<(), event_core::projection::NotJson>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writes {
    writes: Vec<Write>,
}

/// A value that cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("a value cannot be written as JSON; give it a form that serde_json takes")]
pub struct NotJson(#[source] serde_json::Error);

#[derive(Clone, Debug, PartialEq)]
enum Write {
    Set(String, String),
    SetField(String, String, String),
    Increment(String, String, i64),
    Remove(String),
    RemoveField(String, String),
}

impl Writes {
    /// Makes `value` the document of a key.
    ///
    /// # Errors
    /// [`NotJson`] where it cannot be written as JSON.
    pub fn set(
        &mut self,
        key: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), NotJson> {
        let value = serde_json::to_string(value).map_err(NotJson)?;
        self.writes.push(Write::Set(key.into(), value));
        Ok(())
    }

    /// Makes `value` the value of a field.
    ///
    /// # Errors
    /// [`NotJson`] where it cannot be written as JSON.
    pub fn set_field(
        &mut self,
        key: impl Into<String>,
        field: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), NotJson> {
        let value = serde_json::to_string(value).map_err(NotJson)?;
        let write = Write::SetField(key.into(), field.into(), value);
        self.writes.push(write);
        Ok(())
    }

    /// Adds to a field, which counts from 0. One that holds something other than a whole number, or would
    /// go beyond [`MAX_COUNT`], stops the projection at this event.
    pub fn increment(&mut self, key: impl Into<String>, field: impl Into<String>, by: i64) {
        let write = Write::Increment(key.into(), field.into(), by);
        self.writes.push(write);
    }

    /// Removes a key with its document and all its fields.
    pub fn remove(&mut self, key: impl Into<String>) {
        self.writes.push(Write::Remove(key.into()));
    }

    /// Removes a field.
    pub fn remove_field(&mut self, key: impl Into<String>, field: impl Into<String>) {
        let write = Write::RemoveField(key.into(), field.into());
        self.writes.push(write);
    }
}

impl Writes {
    /// How many operations there are.
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }
}

/// What events lead to together: for each key what becomes of it. This is what stores write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectionWrites {
    keys: HashMap<String, KeyWrites>,
}

/// What becomes of a key, in this order: it is removed, gets a document, and its fields change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyWrites {
    /// Whether everything that it has is removed first.
    pub removed: bool,
    /// The document that it gets, as JSON.
    pub document: Option<String>,
    /// What becomes of its fields.
    pub fields: HashMap<String, FieldWrite>,
}

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldWrite {
    /// It gets this value, as JSON.
    Set(String),
    /// This is added to it.
    Increment(i64),
    /// It is removed.
    Remove,
}

/// A field that cannot be counted up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotACount {
    pub(crate) key: String,
    pub(crate) field: String,
}

/// The value of a field of which something is added to, if it is one and stays within bounds.
pub(crate) fn incremented(value: Option<&str>, by: i64) -> Option<i64> {
    let before: i64 = value.map_or(Some(0), |value| value.parse().ok())?;
    before
        .checked_add(by)
        .filter(|sum| is_count(&before) && is_count(sum))
}

fn is_count(number: &i64) -> bool {
    (-MAX_COUNT..=MAX_COUNT).contains(number)
}

impl ProjectionWrites {
    /// Puts writes together.
    ///
    /// # Errors
    /// [`ProjectionFailure::NotACount`] where a field is incremented that was set to something other than a
    /// whole number.
    pub fn of(mut writes: Writes) -> Result<Self, ProjectionFailure> {
        let mut together = Self::default();
        let added = together.add(&mut writes);
        added.map_err(|NotACount { key, field }| ProjectionFailure::NotACount { key, field })?;
        Ok(together)
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys are written.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Each key with what becomes of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KeyWrites)> {
        self.keys.iter().map(|(key, writes)| (key.as_str(), writes))
    }

    /// Adds the writes of one event, which is empty afterwards. Where one is refused, some are added
    /// already, and all of this is of no use.
    pub(crate) fn add(&mut self, writes: &mut Writes) -> Result<(), NotACount> {
        for write in writes.writes.drain(..) {
            match write {
                Write::Set(key, value) => self.key(key).document = Some(value),
                Write::SetField(key, field, value) => {
                    let fields = &mut self.key(key).fields;
                    fields.insert(field, FieldWrite::Set(value));
                }
                Write::Increment(key, field, by) => self.increment(key, field, by)?,
                Write::Remove(key) => {
                    let removed = KeyWrites {
                        removed: true,
                        ..KeyWrites::default()
                    };
                    self.keys.insert(key, removed);
                }
                Write::RemoveField(key, field) => {
                    self.key(key).fields.insert(field, FieldWrite::Remove);
                }
            }
        }
        Ok(())
    }

    fn key(&mut self, key: String) -> &mut KeyWrites {
        self.keys.entry(key).or_default()
    }

    fn increment(&mut self, key: String, field: String, by: i64) -> Result<(), NotACount> {
        match self.keys.entry(key) {
            Entry::Occupied(mut entry) => match entry.get_mut().increment(field, by) {
                Ok(()) => Ok(()),
                Err(field) => Err(NotACount {
                    key: entry.key().clone(),
                    field,
                }),
            },
            Entry::Vacant(entry) => {
                let mut writes = KeyWrites::default();
                match writes.increment(field, by) {
                    Ok(()) => {
                        entry.insert(writes);
                        Ok(())
                    }
                    Err(field) => Err(NotACount {
                        key: entry.into_key(),
                        field,
                    }),
                }
            }
        }
    }
}

impl KeyWrites {
    /// The field where it cannot be counted up.
    fn increment(&mut self, field: String, by: i64) -> Result<(), String> {
        let was_removed = self.removed;
        match self.fields.entry(field) {
            Entry::Occupied(mut entry) => {
                let summed = match entry.get() {
                    FieldWrite::Increment(before) => {
                        let sum = before.checked_add(by).filter(is_count);
                        sum.map(FieldWrite::Increment)
                    }
                    FieldWrite::Set(value) => set_to(incremented(Some(value), by)),
                    FieldWrite::Remove => set_to(incremented(None, by)),
                };
                match summed {
                    Some(summed) => entry.insert(summed),
                    None => return Err(entry.remove_entry().0),
                };
            }
            Entry::Vacant(entry) => {
                let summed = match was_removed {
                    true => set_to(incremented(None, by)),
                    false => Some(by).filter(is_count).map(FieldWrite::Increment),
                };
                match summed {
                    Some(summed) => entry.insert(summed),
                    None => return Err(entry.into_key()),
                };
            }
        }
        Ok(())
    }
}

fn set_to(number: Option<i64>) -> Option<FieldWrite> {
    number.map(|number| FieldWrite::Set(number.to_string()))
}
