//! Lines of input, each with its number, none longer than a limit.
//!
//! A line is everything up to a line feed, as it is: a carriage return or a blank belongs to it.
//! What stands after the last line feed is a line too, unless it is empty.

use std::fmt;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Bytes of a line at most. Leaves room for key and headers below the limit of a batch.
pub(crate) const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
const _: () = assert!(LINE_BYTES_MAX < quipu_batch::BATCH_BYTES_MAX);

/// A line and its number, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) bytes: Bytes,
}

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum LineError {
    TooLong { number: u64, limit_bytes: usize },
    Read { number: u64, source: io::Error },
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::TooLong { number, limit_bytes } => {
                write!(f, "line {number} is longer than {limit_bytes} bytes")
            }
            LineError::Read { number, source } => write!(f, "can't read line {number}: {source}"),
        }
    }
}

impl std::error::Error for LineError {}

/// Reads lines one by one.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
    limit_bytes: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R, limit_bytes: usize) -> Lines<R> {
        Lines { input, number: 0, limit_bytes }
    }

    /// The next line; `None` at the end. After an error there is nothing more to read.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, LineError> {
        self.number += 1;
        let number = self.number;
        let mut line = Vec::new();
        loop {
            let available = self.input.fill_buf().await;
            let available = available.map_err(|source| LineError::Read { number, source })?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(available.len());
            if line.len() + taken > self.limit_bytes {
                return Err(LineError::TooLong { number, limit_bytes: self.limit_bytes });
            }
            line.extend_from_slice(&available[..taken]);
            let is_end_of_input = available.is_empty();
            self.input.consume(taken + usize::from(end.is_some()));
            if is_end_of_input && line.is_empty() {
                return Ok(None);
            }
            if end.is_some() || is_end_of_input {
                return Ok(Some(Line { number, bytes: Bytes::from(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], limit_bytes: usize) -> Result<Vec<String>, String> {
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(3, input), limit_bytes);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.map_err(|error| error.to_string())? {
            assert_eq!(line.number, u64::try_from(read.len()).unwrap() + 1);
            read.push(String::from_utf8(line.bytes.to_vec()).unwrap());
        }
        Ok(read)
    }

    #[tokio::test]
    async fn lines_are_given_as_they_are() {
        let read = lines(b"one\n\n three\r\nlast", 100).await.unwrap();
        assert_eq!(read, ["one", "", " three\r", "last"]);
        assert_eq!(lines(b"one\n", 100).await.unwrap(), ["one"]);
        assert_eq!(lines(b"", 100).await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_an_error_with_its_number() {
        assert_eq!(lines(b"abcd\nabcd", 4).await.unwrap(), ["abcd", "abcd"]);
        let error = lines(b"abcd\nabcde\n", 4).await.unwrap_err();
        assert_eq!(error, "line 2 is longer than 4 bytes");
    }
}
