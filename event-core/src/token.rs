//! Tokens: how far something must have come to know of what one has written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::event::Category;
use crate::partition::Partition;
use crate::recorded::Position;

/// Where one's own events lie: for each partition the last position. A projection or a group that has come
/// so far has seen them all. As a text it is short, and fits into a cookie, a header or a URL.
///
/// ```
/// use event_core::{Category, Partition, Position, Token};
///
/// let mut token = Token::default();
/// let orders = Partition::new(Category::new("order")?, 3);
/// token.reach(orders.clone(), "1763900000000-1".parse()?);
/// token.reach(Category::new("stock")?.into(), "1763900000007-0".parse()?);
///
/// let text = token.to_string();
/// assert_eq!(text, "order:3~1763900000000-1.stock~1763900000007-0");
/// assert_eq!(text.parse::<Token>()?, token);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    positions: BTreeMap<Partition, Position>,
}

impl Token {
    /// Adds that a partition must have come so far.
    pub fn reach(&mut self, partition: Partition, position: Position) {
        let known = self.positions.entry(partition).or_default();
        *known = position.max(*known);
    }

    /// Adds everything that another one says.
    pub fn merge(&mut self, other: &Token) {
        for (partition, position) in other.iter() {
            self.reach(partition.clone(), position);
        }
    }

    /// Each partition with how far it must have come.
    pub fn iter(&self) -> impl Iterator<Item = (&Partition, Position)> {
        self.positions
            .iter()
            .map(|(partition, at)| (partition, *at))
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (partition, position)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "." };
            write!(f, "{separator}{partition}~{position}")?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut token = Token::default();
        for part in text.split('.').filter(|_| !text.is_empty()) {
            let (partition, position) = part_of(part).ok_or_else(|| InvalidToken {
                text: text.to_owned(),
            })?;
            token.reach(partition, position);
        }
        Ok(token)
    }
}

fn part_of(text: &str) -> Option<(Partition, Position)> {
    let (partition, position) = text.split_once('~')?;
    let (category, number) = match partition.split_once(':') {
        Some((category, number)) => (category, number.parse().ok()?),
        None => (partition, 0),
    };
    let category = Category::new(category.to_owned()).ok()?;
    Some((Partition::new(category, number), position.parse().ok()?))
}

impl serde::Serialize for Token {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no token; hand on what `Token` was written as")]
pub struct InvalidToken {
    /// What was given.
    pub text: String,
}
