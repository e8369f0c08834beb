//! Replies as the server sent them.
//!
//! The client makes a value of its own of every text in a reply, which for a reply of many entries
//! takes longer than anything else that happens to them. So a connection that reads feeds has a tap in
//! its stream: an array that answers a read is kept back as it came, and the client gets a short text
//! in its place. Everything else, errors too, passes to the client untouched.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What the client gets in place of a reply that was kept back.
const INSTEAD: &[u8] = b"+TAPPED\r\n";

/// How much is read at once, in bytes, at least.
const PIECE: usize = 64 * 1024;

/// A reply.
pub(crate) enum Reply {
    /// As the client has parsed it.
    Parsed(Value),
    /// An array as the server sent it.
    Raw(Raw),
}

/// A buffer that is larger is not kept, since few replies are so large.
const LARGEST_SPARE: usize = 1024 * 1024;

/// A reply as the server sent it. Its buffer is used again.
pub(crate) struct Raw {
    buffer: BytesMut,
    tap: Tap,
}

impl Raw {
    /// A reply as it might have come.
    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            buffer: bytes.into(),
            tap: Tap::default(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        if buffer.capacity() <= LARGEST_SPARE {
            self.tap.state().spare = buffer;
        }
    }
}

/// Says which reply is to be kept back.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What has come of the next reply, while it is to be kept back.
    open: Option<Incoming>,
    /// A reply that was kept back.
    tapped: Option<BytesMut>,
    /// What the client is still to get.
    passing: BytesMut,
    /// A buffer to use again.
    spare: BytesMut,
}

#[derive(Default)]
struct Incoming {
    buffer: BytesMut,
    extent: Extent,
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next reply kept back, if it is an array. Nothing else may be on its way.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        let buffer = std::mem::take(&mut state.spare);
        let extent = Extent::default();
        state.open = Some(Incoming { buffer, extent });
        state.tapped = None;
    }

    /// What was kept back since it was opened.
    pub(crate) fn take(&self) -> Option<Raw> {
        let mut state = self.state();
        state.open = None;
        let buffer = state.tapped.take()?;
        Some(Raw {
            buffer,
            tap: self.clone(),
        })
    }
}

/// A stream with a tap in it.
pub(crate) struct Tapped<S> {
    stream: S,
    tap: Tap,
}

impl<S> Tapped<S> {
    pub(crate) fn new(stream: S, tap: Tap) -> Self {
        Self { stream, tap }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let Self { stream, tap } = self.get_mut();
        let state = &mut *tap.state();
        loop {
            if !state.passing.is_empty() {
                let count = state.passing.len().min(into.remaining());
                into.put_slice(&state.passing[..count]);
                state.passing.advance(count);
                return Poll::Ready(Ok(()));
            }
            let Some(incoming) = &mut state.open else {
                return Pin::new(stream).poll_read(context, into);
            };
            incoming.buffer.reserve(PIECE);
            let count = ready!(poll_read_buf(
                Pin::new(&mut *stream),
                context,
                &mut incoming.buffer
            ))?;
            if count == 0 {
                // The end of the stream.
                return Poll::Ready(Ok(()));
            }
            let end = match incoming.extent.end(&incoming.buffer) {
                Progress::More => continue,
                Progress::Untapped => 0,
                Progress::End(end) => end,
            };
            let mut buffer = state.open.take().unwrap_or_default().buffer;
            if end == 0 {
                state.passing = buffer;
            } else {
                state.passing.extend_from_slice(INSTEAD);
                state.passing.extend_from_slice(&buffer[end..]);
                buffer.truncate(end);
                state.tapped = Some(buffer);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Finds where a reply ends, as it comes in piece by piece.
struct Extent {
    /// Up to here it was looked at.
    at: usize,
    /// How many elements are still to come.
    elements: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { at: 0, elements: 1 }
    }
}

#[derive(Debug, PartialEq)]
enum Progress {
    /// Not all of it is there.
    More,
    /// It is none that is kept back.
    Untapped,
    /// It ends before this place.
    End(usize),
}

impl Extent {
    fn end(&mut self, bytes: &[u8]) -> Progress {
        while self.elements > 0 {
            let Some(rest) = bytes.get(self.at..) else {
                return Progress::More;
            };
            let Some((line, after)) = line(rest) else {
                return Progress::More;
            };
            let kind = line.first();
            if self.at == 0 && (kind != Some(&b'*') || line == b"*-1") {
                return Progress::Untapped;
            }
            let count = line.get(1..).and_then(length);
            self.elements -= 1;
            self.at += after;
            match (kind, count) {
                (Some(b'*'), Some(count)) => self.elements = self.elements.saturating_add(count),
                (Some(b'$'), Some(count)) => {
                    self.at = self.at.saturating_add(count).saturating_add(2);
                }
                // A nil, a number, a text of one line.
                _ => {}
            }
        }
        if self.at <= bytes.len() {
            Progress::End(self.at)
        } else {
            Progress::More
        }
    }
}

/// The first line without its end, and where the next one begins; `None` where it has no end yet.
pub(crate) fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    // Lines of a reply are short: nothing is faster.
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    (bytes.get(end + 1)? == &b'\n').then_some((&bytes[..end], end + 2))
}

/// The number of elements or bytes that a line tells; `None` for nil.
pub(crate) fn length(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0usize, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const REPLY: &[u8] =
        b"*1\r\n*2\r\n$6\r\nevents\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\na\r\n$4\r\n\r\n\r\n\r\n*2\r\n$3\r\n2-0\r\n*-1\r\n";

    #[test]
    fn a_reply_ends_where_its_last_element_does() {
        for split in 1..REPLY.len() {
            let mut extent = Extent::default();
            assert_eq!(extent.end(&REPLY[..split]), Progress::More, "{split}");
            assert_eq!(extent.end(REPLY), Progress::End(REPLY.len()), "{split}");
        }
    }

    #[test]
    fn what_is_no_array_is_left_to_the_client() {
        for reply in [
            "*-1\r\n",
            "-ERR no\r\n",
            "+PONG\r\n",
            ":1\r\n",
            "$-1\r\n",
            "_\r\n",
        ] {
            let mut extent = Extent::default();
            assert_eq!(extent.end(reply.as_bytes()), Progress::Untapped, "{reply}");
        }
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let tap = Tap::default();
        for (size, kept) in [(LARGEST_SPARE, LARGEST_SPARE), (2 * LARGEST_SPARE, 0)] {
            let buffer = BytesMut::with_capacity(size);
            drop(Raw {
                buffer,
                tap: tap.clone(),
            });
            assert_eq!(std::mem::take(&mut tap.state().spare).capacity(), kept);
        }
    }

    #[tokio::test]
    async fn only_the_reply_that_is_asked_for_is_kept_back() {
        let (mut server, client) = tokio::io::duplex(7);
        let tap = Tap::default();
        let mut client = Tapped::new(client, tap.clone());
        tokio::spawn(async move {
            for reply in [b"+PONG\r\n", REPLY, b"-ERR no\r\n", b"*1\r\n:7\r\n"] {
                server.write_all(reply).await.unwrap();
            }
        });
        let mut read = async |count: usize| {
            let mut buffer = vec![0; count];
            client.read_exact(&mut buffer).await.unwrap();
            buffer
        };
        assert_eq!(read(7).await, b"+PONG\r\n");

        tap.open();
        assert_eq!(read(INSTEAD.len()).await, INSTEAD);
        assert_eq!(tap.take().unwrap().bytes(), REPLY);

        tap.open();
        assert_eq!(read(9).await, b"-ERR no\r\n");
        assert!(tap.take().is_none());
        assert_eq!(read(8).await, b"*1\r\n:7\r\n");
        assert!(tap.take().is_none());
    }
}
