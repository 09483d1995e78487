//! What commands print: tables for people, one JSON object a line for scripts, records, progress.
//!
//! All of stdout goes through here, so that a reader who closes the pipe (`quipu read t | head`)
//! ends the command quietly instead of with an error.

pub(crate) mod live;
pub(crate) mod record;
pub(crate) mod table;
pub(crate) mod template;

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// Whoever read stdout has enough. Not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipeClosed;

impl fmt::Display for PipeClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout was closed")
    }
}

impl std::error::Error for PipeClosed {}

/// Writes to stdout and flushes it.
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(PipeClosed.into()),
        Err(error) => Err(error).context("can't write to stdout"),
    }
}

/// Prints a line for people.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(format!("{line}\n").as_bytes())
}

/// Prints one object of JSON on a line of its own.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value).context("can't encode the answer as JSON")?;
    line.push(b'\n');
    print(&line)
}
