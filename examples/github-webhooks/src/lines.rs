//! Lines of a file that may be of any size: one at a time, and none longer than a limit.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line that is taken in, in bytes: GitHub sends payloads of at most 25 MB.
pub const MAX_LINE_BYTES: usize = 25 * 1024 * 1024;

/// A buffer that a long line has left behind is given back above this size.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

/// Reads lines, with no more of the file in memory than one of them.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    limit: usize,
    buffer: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line.
    Whole(&'a [u8]),
    /// It was longer than the limit, and has been read past.
    TooLong,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Lines of at most [`MAX_LINE_BYTES`].
    pub fn of(reader: R) -> Self {
        Self::with_limit(reader, MAX_LINE_BYTES)
    }

    /// Lines of at most `limit` bytes, without the line end.
    pub fn with_limit(reader: R, limit: usize) -> Self {
        Self {
            reader,
            limit,
            buffer: Vec::new(),
            number: 0,
            bytes: 0,
        }
    }

    /// The longest line that is taken in, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The number of the line that was read last, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes have been read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// Where the file cannot be read on.
    pub async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        let mut length = 0_usize;
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                if length == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            length = length.saturating_add(part.len());
            if length <= self.limit {
                self.buffer.extend_from_slice(part);
            } else {
                self.buffer = Vec::new();
            }
            let consumed = part.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            self.bytes += consumed as u64;
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        if length > self.limit {
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(Line::Whole(&self.buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], limit: usize, capacity: usize) -> Vec<Option<Vec<u8>>> {
        let reader = tokio::io::BufReader::with_capacity(capacity, text);
        let mut lines = Lines::with_limit(reader, limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(match line {
                Line::Whole(bytes) => Some(bytes.to_vec()),
                Line::TooLong => None,
            });
        }
        assert_eq!(lines.number(), found.len() as u64);
        assert_eq!(lines.bytes(), text.len() as u64);
        found
    }

    #[tokio::test]
    async fn lines_come_one_by_one_however_they_are_cut() {
        for capacity in [1, 2, 3, 7, 64] {
            let whole = |text: &str| Some(text.as_bytes().to_vec());
            assert_eq!(lines(b"", 8, capacity).await, []);
            assert_eq!(
                lines(b"a\nbb\n", 8, capacity).await,
                [whole("a"), whole("bb")]
            );
            assert_eq!(
                lines(b"a\n\nb", 8, capacity).await,
                [whole("a"), whole(""), whole("b")]
            );
            assert_eq!(
                lines(b"123\n1234\n12345\n1", 4, capacity).await,
                [whole("123"), whole("1234"), None, whole("1")]
            );
        }
    }

    #[tokio::test]
    async fn a_long_line_is_read_past_without_being_kept() {
        let mut text = vec![b'x'; 3 * KEPT_BUFFER_BYTES];
        text.extend_from_slice(b"\nnext");
        let mut lines = Lines::with_limit(&text[..], 2 * KEPT_BUFFER_BYTES);
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(b"next")));
        assert!(lines.buffer.capacity() <= KEPT_BUFFER_BYTES);
    }
}
