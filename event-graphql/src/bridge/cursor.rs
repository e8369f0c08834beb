//! Cursors: where a subscription goes on.

use std::fmt;
use std::str::FromStr;

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event_core::{Partition, Position, Token};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::error::BridgeError;

/// How many bytes of the signature a cursor carries.
const SIGNATURE_BYTES: usize = 12;

/// Where a subscription goes on: everything behind it is new to the client. To clients it is an opaque
/// text; it is signed, so that one that was made up is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// A cursor as a client has sent it. Whether it is one is checked when it is used.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text for the client.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cursor {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// Where a subscription goes on. Opaque: keep it as it is, and send it back to resume.
#[Scalar(name = "Cursor")]
impl ScalarType for Cursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self::new(text)),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.as_str().to_owned())
    }
}

/// What cursors are signed with.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
}

impl Signer {
    pub(crate) fn new(secret: &[u8]) -> Self {
        // A key of any length will do: longer ones are hashed. There is no error to speak of.
        let mac = Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { mac }
    }

    /// The cursor of these positions.
    pub(crate) fn cursor(&self, token: &Token) -> Cursor {
        let text = token.to_string();
        let mut bytes = self.signature(text.as_bytes()).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        Cursor(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// The positions of a cursor, one for each of `partitions` in their order.
    pub(crate) fn positions(
        &self,
        cursor: &Cursor,
        partitions: &[Partition],
    ) -> Result<Vec<Position>, BridgeError> {
        let token = self.open(cursor).ok_or(BridgeError::CursorInvalid)?;
        let known: Vec<_> = token.iter().collect();
        let positions: Option<Vec<_>> = partitions
            .iter()
            .map(|partition| {
                let found = known.iter().find(|(known, _)| *known == partition);
                found.map(|(_, position)| *position)
            })
            .collect();
        match positions {
            Some(positions) if known.len() == partitions.len() => Ok(positions),
            _ => Err(BridgeError::CursorOfAnotherFeed),
        }
    }

    fn open(&self, cursor: &Cursor) -> Option<Token> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor.as_str()).ok()?;
        let (signature, text) = bytes.split_at_checked(SIGNATURE_BYTES)?;
        let mut mac = self.mac.clone();
        mac.update(text);
        mac.verify_truncated_left(signature).ok()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn signature(&self, text: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut mac = self.mac.clone();
        mac.update(text);
        let whole = mac.finalize().into_bytes();
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(&whole[..SIGNATURE_BYTES]);
        signature
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use event_core::Category;

    use super::*;

    fn partition(category: &str, number: u32) -> Partition {
        Partition::new(Category::new(category).unwrap(), number)
    }

    fn token(partitions: &[Partition]) -> Token {
        let mut token = Token::default();
        for partition in partitions {
            token.reach(partition.clone(), Position::new(7, 1));
        }
        token
    }

    #[test]
    fn a_cursor_gives_the_positions_it_was_made_of() {
        let signer = Signer::new(b"secret");
        let partitions = [partition("order", 0), partition("order", 1)];
        let cursor = signer.cursor(&token(&partitions));
        let positions = signer.positions(&cursor, &partitions).unwrap();
        assert_eq!(positions, [Position::new(7, 1), Position::new(7, 1)]);
    }

    #[test]
    fn a_cursor_that_was_made_up_is_refused() {
        let signer = Signer::new(b"secret");
        let partitions = [partition("order", 0)];
        let other = Signer::new(b"other").cursor(&token(&partitions));
        let good = signer.cursor(&token(&partitions)).to_string();
        let changed = format!("{}A", &good[..good.len() - 1]);
        for text in ["", "x", "not base 64!", other.as_str(), changed.as_str()] {
            let refused = signer.positions(&Cursor::new(text), &partitions);
            assert!(
                matches!(refused, Err(BridgeError::CursorInvalid)),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_cursor_of_other_partitions_is_refused() {
        let signer = Signer::new(b"secret");
        let cursor = signer.cursor(&token(&[partition("order", 0), partition("order", 1)]));
        for partitions in [
            vec![partition("order", 0)],
            vec![partition("stock", 0), partition("stock", 1)],
        ] {
            let refused = signer.positions(&cursor, &partitions);
            assert!(matches!(refused, Err(BridgeError::CursorOfAnotherFeed)));
        }
    }
}
