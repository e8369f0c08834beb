//! From the server's replies to events. Buffers are moved where they can be, since a reply of many
//! entries is what reading waits for.

use std::borrow::Cow;

use event_core::codec::entry::{self, EntryFields};
use event_core::{AppendedEvent, FeedEntry, Partition, Position, Version};
use redis::Value;

/// A reply is not what was expected.
pub(crate) type Unreadable = &'static str;

/// An array; nil is an empty one.
pub(crate) fn array(value: Value) -> Result<Vec<Value>, Unreadable> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err("not an array"),
    }
}

/// A text.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, Unreadable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err("not a string"),
    }
}

/// A text that is only looked at.
pub(crate) fn slice(value: &Value) -> Result<&[u8], Unreadable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        _ => Err("not a string"),
    }
}

/// A text of characters.
pub(crate) fn text(value: &Value) -> Result<&str, Unreadable> {
    std::str::from_utf8(slice(value)?).map_err(|_| "not UTF-8")
}

/// A number.
pub(crate) fn integer(value: &Value) -> Result<i64, Unreadable> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err("not a number"),
    }
}

/// A number that counts something.
pub(crate) fn count(value: &Value) -> Result<u64, Unreadable> {
    u64::try_from(integer(value)?).map_err(|_| "a negative number")
}

/// A position as the server writes it.
pub(crate) fn position(text: &[u8]) -> Result<Position, Unreadable> {
    let mut parts = text.splitn(2, |byte| *byte == b'-');
    match (
        parts.next().and_then(unsigned),
        parts.next().and_then(unsigned),
    ) {
        (Some(milliseconds), Some(sequence)) => Ok(Position::new(milliseconds, sequence)),
        _ => Err("not a position"),
    }
}

fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Where an event of an append lies: `position:version`, after a `=` where it lay there before.
pub(crate) fn place(value: &Value) -> Result<AppendedEvent, Unreadable> {
    let text = slice(value)?;
    let (repeated, text) = match text.strip_prefix(b"=") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b':');
    Ok(AppendedEvent {
        position: position(parts.next().unwrap_or_default())?,
        version: parts
            .next()
            .and_then(unsigned)
            .ok_or("a place without a version")?,
        repeated,
    })
}

/// Where events of an append lie that got one version after the other.
pub(crate) fn stored(
    positions: &[Value],
    first: Version,
    has_versions: bool,
) -> Result<Vec<AppendedEvent>, Unreadable> {
    positions
        .iter()
        .zip(first..)
        .map(|(value, version)| {
            Ok(AppendedEvent {
                position: position(slice(value)?)?,
                version: if has_versions { version } else { 0 },
                repeated: false,
            })
        })
        .collect()
}

/// The entries of one feed: what XRANGE replies, and XREAD for each stream.
pub(crate) fn feed_entries(
    partition: &Partition,
    value: Value,
) -> Result<Vec<FeedEntry>, Unreadable> {
    array(value)?
        .into_iter()
        .map(|entry| {
            let (position, fields) = self::entry(entry)?;
            Ok(match entry::decode(partition, position, &fields) {
                Ok(event) => FeedEntry::Event(event),
                Err(error) => FeedEntry::Undecodable { position, error },
            })
        })
        .collect()
}

/// One of the streams in a reply to XREAD: its key, and its entries.
pub(crate) fn stream(value: Value) -> Result<(Vec<u8>, Value), Unreadable> {
    let mut parts = array(value)?.into_iter();
    match (parts.next(), parts.next()) {
        (Some(key), Some(entries)) => Ok((bytes(key)?, entries)),
        _ => Err("a stream without entries"),
    }
}

/// The position of the last of some entries, if there are any.
pub(crate) fn last_position(entries: Value) -> Result<Option<Position>, Unreadable> {
    let Some(entry) = array(entries)?.pop() else {
        return Ok(None);
    };
    let entry = array(entry)?;
    let id = entry.first().ok_or("an entry without an id")?;
    position(slice(id)?).map(Some)
}

/// The first of some entries, if there are any.
pub(crate) fn first_entry(
    entries: &Value,
) -> Result<Option<(Position, EntryFields<'static>)>, Unreadable> {
    let first = array(entries.clone())?.into_iter().next();
    first.map(entry).transpose()
}

fn entry(entry: Value) -> Result<(Position, EntryFields<'static>), Unreadable> {
    let mut parts = array(entry)?.into_iter();
    let position = position(slice(&parts.next().ok_or("an entry without an id")?)?)?;
    // Nil where the entry was deleted while it was read.
    let fields = entry_fields(array(parts.next().unwrap_or_default())?)?;
    Ok((position, fields))
}

fn entry_fields(values: Vec<Value>) -> Result<EntryFields<'static>, Unreadable> {
    let mut fields = EntryFields::default();
    let mut values = values.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        let field = match slice(&name)? {
            b"type" => &mut fields.event_type,
            b"payload" => &mut fields.payload,
            b"aggregate" => &mut fields.aggregate,
            b"metadata" => &mut fields.metadata,
            // A reader passes over fields that it does not know.
            _ => continue,
        };
        *field = Some(Cow::Owned(bytes(value)?));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use event_core::Category;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn positions_are_read_without_detours() {
        assert_eq!(
            position(b"1763900000000-3"),
            Ok(Position::new(1_763_900_000_000, 3))
        );
        assert_eq!(
            position(b"18446744073709551615-18446744073709551615"),
            Ok(Position::new(u64::MAX, u64::MAX))
        );
        for bad in [
            "",
            "1",
            "1-",
            "-1",
            "a-1",
            "1-2-3",
            "18446744073709551616-0",
        ] {
            assert!(position(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_tell_what_was_there_before() {
        let place = place(&text("=5-1:7")).unwrap();
        assert_eq!(place.position, Position::new(5, 1));
        assert_eq!(place.version, 7);
        assert!(place.repeated);
        assert!(super::place(&text("5-1")).is_err());
    }

    #[test]
    fn an_entry_that_is_no_event_stops_nothing() {
        let partition = Partition::from(Category::new("sdlc").unwrap());
        let entry = |id: &str, fields: &[&str]| {
            let fields = fields.iter().map(|field| text(field)).collect();
            Value::Array(vec![text(id), Value::Array(fields)])
        };
        let reply = Value::Array(vec![
            entry(
                "1-0",
                &["type", "phase.changed", "payload", "{}", "other", "x"],
            ),
            entry("2-0", &["payload", "{}"]),
            Value::Array(vec![text("3-0"), Value::Nil]),
        ]);
        let entries = feed_entries(&partition, reply).unwrap();
        assert_eq!(entries.len(), 3);
        assert!(matches!(&entries[0], FeedEntry::Event(event)
            if event.event_type() == "sdlc.phase.changed"));
        assert!(matches!(entries[1], FeedEntry::Undecodable { .. }));
        assert!(matches!(entries[2], FeedEntry::Undecodable { .. }));
    }

    #[test]
    fn a_reply_that_is_none_is_an_error() {
        let partition = Partition::from(Category::new("sdlc").unwrap());
        assert!(feed_entries(&partition, Value::Int(1)).is_err());
        assert!(stream(Value::Array(vec![Value::Int(1)])).is_err());
        assert!(stream(Value::Nil).is_err());
        assert_eq!(last_position(Value::Nil), Ok(None));
        assert!(last_position(Value::Array(vec![Value::Int(1)])).is_err());
    }
}
