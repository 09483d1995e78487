//! Takes down the history of real clients, which run at the same time on several threads.
//!
//! One lock orders all events. An invocation is taken down before the request leaves and an ending
//! after the answer came, so that an operation looks longer than it was, never shorter: what then
//! breaks a promise breaks it for sure. Events are written to the file as they happen; a harness
//! that is killed leaves the history up to there.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quipu_client::{Code, Outcome, ReadError};
use tokio::time::Instant;

use crate::history::{Answer, Call, Event, Failure, FaultResult, History, What};

/// Clones write into one history.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    inner: Arc<Mutex<Inner>>,
    started: Instant,
}

#[derive(Debug)]
struct Inner {
    history: History,
    operations: u64,
    file: BufWriter<File>,
    /// What went wrong first in writing the file.
    failed: Option<io::Error>,
}

impl Recorder {
    /// An empty history, to be written to this file too.
    ///
    /// # Errors
    /// If the file can't be created.
    pub(super) fn to_file(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let inner = Inner { history: History::default(), operations: 0, file, failed: None };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), started: Instant::now() })
    }

    /// An operation begins. Returns its number.
    pub(super) fn invoke(&self, process: &str, call: Call) -> u64 {
        let mut inner = self.inner();
        inner.operations += 1;
        let op = inner.operations;
        inner.push(self.event(process, What::Invoke { op, call }));
        op
    }

    /// It was answered.
    pub(super) fn ok(&self, process: &str, op: u64, answer: Answer) {
        self.inner().push(self.event(process, What::Ok { op, answer }));
    }

    /// It failed.
    pub(super) fn failed(&self, process: &str, op: u64, outcome: Outcome, error: Failure) {
        let what = match outcome {
            Outcome::Definite => What::Fail { op, error },
            Outcome::Unknown => What::Unknown { op, error },
        };
        self.inner().push(self.event(process, what));
    }

    /// Something was broken or mended.
    pub(super) fn fault(&self, name: &str, result: FaultResult, detail: String) {
        let what = What::Fault { name: name.to_owned(), result, detail };
        self.inner().push(self.event("nemesis", what));
    }

    /// The whole history, of which nothing stays here.
    ///
    /// # Errors
    /// If it could not be written to the file.
    pub(super) fn finish(&self) -> io::Result<History> {
        let mut inner = self.inner();
        inner.file.flush()?;
        match inner.failed.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut inner.history)),
        }
    }

    /// To be called with the lock held, so that times stand in the order of the events.
    fn event(&self, process: &str, what: What) -> Event {
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Event { at_us, process: process.to_owned(), what }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, event: Event) {
        let written = serde_json::to_writer(&mut self.file, &event).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| self.file.write_all(b"\n")) {
            self.failed.get_or_insert(error);
        }
        self.history.events.push(event);
    }
}

/// As the checkers want it.
pub(super) fn failure(code: Code, message: impl ToString) -> Failure {
    Failure { code: code.name().to_owned(), message: message.to_string() }
}

/// A failed read. Damage has codes of its own: it is the library that found it, and it is no
/// honest answer.
pub(super) fn read_failure(error: &ReadError) -> Failure {
    let code = match error {
        ReadError::Corrupt { .. } => "Corrupt",
        ReadError::Gap { .. } => "Gap",
        ReadError::OffsetOutOfRange { .. } | ReadError::Call(_) => error.code().name(),
    };
    Failure { code: code.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_what_was_taken_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let recorder = Recorder::to_file(&path).unwrap();
        let op = recorder.invoke("a", Call::Append { partition: 0, values: vec![1] });
        recorder.ok("a", op, Answer::Appended { base_offset: Some(0) });
        recorder.fault("kill", FaultResult::Installed, "node 1".to_owned());
        let history = recorder.finish().unwrap();
        assert_eq!(history.events.len(), 3);
        assert_eq!(History::parse(&std::fs::read_to_string(path).unwrap()).unwrap(), history);
    }

    #[test]
    fn damage_is_told_from_an_honest_refusal() {
        let gap = ReadError::Gap { expected: 1, found: 3 };
        assert_eq!(read_failure(&gap).code, "Gap");
        let outside =
            ReadError::OffsetOutOfRange { offset: 9, log_start_offset: 0, high_watermark: 3 };
        assert_eq!(read_failure(&outside).code, "OFFSET_OUT_OF_RANGE");
    }
}
