//! From the server's replies to events. Buffers are moved where they can be, since a reply of many
//! entries is what reading waits for.

use std::borrow::Cow;

use event_core::codec::entry::{self, EntryFields};
use event_core::{AppendedEvent, FeedEntry, Partition, Position, Version};
use redis::Value;

use crate::tap::{self, Reply};

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
            Ok(feed_entry(partition, position, &fields))
        })
        .collect()
}

fn feed_entry(partition: &Partition, position: Position, fields: &EntryFields<'_>) -> FeedEntry {
    match entry::decode(partition, position, fields) {
        Ok(event) => FeedEntry::Event(event),
        Err(error) => FeedEntry::Undecodable { position, error },
    }
}

/// Goes through the streams in a reply to XREAD or XREADGROUP: the key of each, and its entries.
pub(crate) fn each_stream(
    reply: Reply,
    mut handle: impl FnMut(&[u8], Entries<'_, '_>) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    match reply {
        Reply::Parsed(value) => {
            for stream in array(value)? {
                let (key, entries) = self::stream(stream)?;
                handle(&key, Entries::Parsed(entries))?;
            }
        }
        Reply::Raw(raw) => {
            let mut cursor = Cursor(raw.bytes());
            for _ in 0..cursor.array()? {
                cursor.array()?;
                let key = cursor.text()?.ok_or("a stream without a key")?;
                handle(key, Entries::Raw(&mut cursor))?;
            }
        }
    }
    Ok(())
}

/// The entries of one stream in a reply.
pub(crate) enum Entries<'c, 'r> {
    Parsed(Value),
    Raw(&'c mut Cursor<'r>),
}

impl Entries<'_, '_> {
    /// The entries of a feed.
    pub(crate) fn decode(self, partition: &Partition) -> Result<Vec<FeedEntry>, Unreadable> {
        let cursor = match self {
            Self::Parsed(value) => return feed_entries(partition, value),
            Self::Raw(cursor) => cursor,
        };
        let count = cursor.array()?;
        let mut entries = Vec::with_capacity(count.min(MOST_EXPECTED));
        for _ in 0..count {
            let (position, fields) = cursor.entry()?;
            entries.push(feed_entry(partition, position, &fields));
        }
        Ok(entries)
    }

    /// The position of the last of them, if there are any.
    pub(crate) fn last_position(self) -> Result<Option<Position>, Unreadable> {
        let cursor = match self {
            Self::Parsed(value) => return last_position(value),
            Self::Raw(cursor) => cursor,
        };
        let mut last = None;
        for _ in 0..cursor.array()? {
            last = Some(cursor.entry()?.0);
        }
        Ok(last)
    }
}

/// Room is made at once for no more entries than this, whatever a reply says of their number.
const MOST_EXPECTED: usize = 4_096;

/// Where reading has come to in a reply as the server sent it.
pub(crate) struct Cursor<'r>(&'r [u8]);

impl<'r> Cursor<'r> {
    /// What the next element is, and the rest of its first line.
    fn head(&mut self) -> Result<(u8, &'r [u8]), Unreadable> {
        let (line, after) = tap::line(self.0).ok_or("a line without an end")?;
        self.0 = &self.0[after..];
        match line {
            [kind, rest @ ..] => Ok((*kind, rest)),
            [] => Err("an empty line"),
        }
    }

    /// The number of elements of an array; nil is an empty one.
    fn array(&mut self) -> Result<usize, Unreadable> {
        match self.head()? {
            (b'*', b"-1") | (b'_', _) => Ok(0),
            (b'*', count) => tap::length(count).ok_or("an array without a length"),
            _ => Err("not an array"),
        }
    }

    /// A text; nil is none.
    fn text(&mut self) -> Result<Option<&'r [u8]>, Unreadable> {
        match self.head()? {
            (b'$', b"-1") | (b'_', _) => Ok(None),
            (b'$', length) => {
                let length = tap::length(length).ok_or("a text without a length")?;
                let (text, rest) =
                    (self.0.split_at_checked(length)).ok_or("a text without an end")?;
                self.0 = rest.strip_prefix(b"\r\n").ok_or("a text without an end")?;
                Ok(Some(text))
            }
            (b'+', line) => Ok(Some(line)),
            _ => Err("not a string"),
        }
    }

    fn entry(&mut self) -> Result<(Position, EntryFields<'r>), Unreadable> {
        if self.array()? != 2 {
            return Err("an entry of other than two parts");
        }
        let position = position(self.text()?.ok_or("an entry without an id")?)?;
        let mut fields = EntryFields::default();
        // Nil where the entry was deleted while it was read.
        for _ in 0..self.array()? / 2 {
            let name = self.text()?.ok_or("a field without a name")?;
            let value = self.text()?;
            if let Some(field) = field(&mut fields, name) {
                *field = value.map(Cow::Borrowed);
            }
        }
        Ok((position, fields))
    }
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
        if let Some(field) = field(&mut fields, slice(&name)?) {
            *field = Some(Cow::Owned(bytes(value)?));
        }
    }
    Ok(fields)
}

/// The field of that name. A reader passes over those that it does not know.
fn field<'f, 'v>(
    fields: &'f mut EntryFields<'v>,
    name: &[u8],
) -> Option<&'f mut Option<Cow<'v, [u8]>>> {
    match name {
        b"type" => Some(&mut fields.event_type),
        b"payload" => Some(&mut fields.payload),
        b"aggregate" => Some(&mut fields.aggregate),
        b"metadata" => Some(&mut fields.metadata),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use event_core::Category;

    use super::*;
    use crate::tap::Raw;

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

    /// As the server writes it.
    fn write(value: &Value, into: &mut Vec<u8>) {
        match value {
            Value::Array(values) => {
                into.extend(format!("*{}\r\n", values.len()).bytes());
                values.iter().for_each(|value| write(value, into));
            }
            Value::BulkString(text) => {
                into.extend(format!("${}\r\n", text.len()).bytes());
                into.extend(text);
                into.extend(b"\r\n");
            }
            Value::Nil => into.extend(b"*-1\r\n"),
            _ => unreachable!("no reply to XREAD has it"),
        }
    }

    /// Each stream of a reply, with its entries and where they end.
    fn streams(mut reply: impl FnMut() -> Reply) -> Result<Vec<String>, Unreadable> {
        let partition = Partition::from(Category::new("sdlc").unwrap());
        let mut found = Vec::new();
        each_stream(reply(), |key, entries| {
            found.push(format!("{key:?} {:?}", entries.decode(&partition)?));
            Ok(())
        })?;
        each_stream(reply(), |_, entries| {
            found.push(format!("{:?}", entries.last_position()?));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn a_reply_is_read_alike_parsed_and_as_it_was_sent() {
        let entry = |id: &str, fields: &[&str]| {
            let fields = fields.iter().map(|field| text(field)).collect();
            Value::Array(vec![text(id), Value::Array(fields)])
        };
        let stream = |key: &str, entries| Value::Array(vec![text(key), Value::Array(entries)]);
        let metadata = r#"{"eventId":"0190b6c0-0000-7000-8000-000000000001","user":"\r\n ü"}"#;
        let aggregate = r#"{"type":"project","id":"*1","version":3}"#;
        let reply = Value::Array(vec![
            stream(
                "events:sdlc",
                vec![
                    entry("1-0", &["type", "phase.changed", "payload", "{}", "x", "y"]),
                    entry(
                        "2-7",
                        &[
                            "metadata",
                            metadata,
                            "aggregate",
                            aggregate,
                            "payload",
                            "\"\r\n\"",
                            "type",
                            "a.b",
                        ],
                    ),
                    entry("3-0", &["payload", ""]),
                    Value::Array(vec![text("4-0"), Value::Nil]),
                ],
            ),
            stream("changes", vec![entry("5-1", &["change", "members"])]),
            stream("nothing", Vec::new()),
        ]);
        let mut bytes = Vec::new();
        write(&reply, &mut bytes);

        let parsed = streams(|| Reply::Parsed(reply.clone())).unwrap();
        assert_eq!(parsed.len(), 6);
        assert!(parsed[3].contains("sequence: 0"), "{}", parsed[3]);
        let raw = |bytes: &[u8]| streams(|| Reply::Raw(Raw::of(bytes)));
        assert_eq!(raw(&bytes).unwrap(), parsed);

        // Whatever is wrong with it is an error.
        for end in 0..bytes.len() {
            assert!(raw(&bytes[..end]).is_err(), "{end}");
        }
        for (at, byte) in bytes.iter().enumerate() {
            let mut broken = bytes.clone();
            broken[at] = byte.wrapping_add(1);
            // Some are only another reply.
            let _ = raw(&broken);
        }
        assert!(raw(b"*1\r\n*2\r\n$1\r\na\r\n*99999999999999999\r\n").is_err());
        assert!(raw(b"*1\r\n*2\r\n$18446744073709551615\r\na\r\n").is_err());
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
