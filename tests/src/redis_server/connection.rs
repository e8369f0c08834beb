//! One command over a plain socket, without any Redis client.
//!
//! Tests of a client must not depend on a client to know what the server holds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer of the server.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// What `redis-cli --raw` would print: arrays one element a line, nothing for nil.
    Text(String),
    /// An error, in the server's own words.
    Error(String),
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Address<'a> {
    Tcp(SocketAddr),
    Unix(&'a Path),
}

/// Connects, sends one command and reads its reply, none of it longer than `timeout`.
pub(super) fn ask(address: Address<'_>, words: &[&str], timeout: Duration) -> io::Result<Reply> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(stream, words)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            exchange(stream, words)
        }
    }
}

fn exchange(mut stream: impl Read + Write, words: &[&str]) -> io::Result<Reply> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    read_reply(&mut BufReader::new(stream))
}

/// Reads one reply of RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
fn read_reply(input: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let Some(line) = line.strip_suffix("\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| unreadable(line))?;
    match kind {
        "+" | ":" => Ok(Reply::Text(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        "$" => {
            let Some(length) = length(rest)? else {
                return Ok(Reply::Text(String::new()));
            };
            let mut bytes = vec![0; length + 2];
            input.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        "*" => {
            let mut lines = Vec::new();
            for _ in 0..length(rest)?.unwrap_or(0) {
                // An error inside an array is the outcome of one command of a transaction.
                let (Reply::Text(line) | Reply::Error(line)) = read_reply(input)?;
                lines.push(line);
            }
            Ok(Reply::Text(lines.join("\n")))
        }
        _ => Err(unreadable(line)),
    }
}

/// A length, or nothing for the -1 that stands for nil.
fn length(text: &str) -> io::Result<Option<usize>> {
    if text == "-1" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| unreadable(text))
}

fn unreadable(line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{line:?} is no reply of RESP2"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Text(text.to_owned())
    }

    #[test]
    fn renders_replies_as_redis_cli_does() {
        let cases = [
            ("+OK\r\n", text("OK")),
            (":-3\r\n", text("-3")),
            ("$4\r\na\r\nb\r\n", text("a\r\nb")),
            ("$-1\r\n", text("")),
            ("*-1\r\n", text("")),
            ("*2\r\n$1\r\na\r\n*2\r\n:1\r\n$1\r\nb\r\n", text("a\n1\nb")),
            ("-ERR no\r\n", Reply::Error("ERR no".to_owned())),
            ("*2\r\n:1\r\n-ERR no\r\n", text("1\nERR no")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read_reply(&mut bytes.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn reports_what_is_no_reply() {
        for (bytes, expected) in [
            ("", io::ErrorKind::UnexpectedEof),
            ("+OK", io::ErrorKind::UnexpectedEof),
            ("$3\r\na", io::ErrorKind::UnexpectedEof),
            ("\r\n", io::ErrorKind::InvalidData),
            ("HTTP/1.1\r\n", io::ErrorKind::InvalidData),
            ("$x\r\n", io::ErrorKind::InvalidData),
        ] {
            let error = read_reply(&mut bytes.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), expected, "{bytes:?}");
        }
    }
}
