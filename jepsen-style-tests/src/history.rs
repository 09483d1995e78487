//! What the clients asked and were answered, in the order in which it happened.
//!
//! Each operation is invoked once and ends at most once: `ok` with an answer, `fail` when it
//! certainly had no effect, `unknown` when it may have had one or may have it still. The order of
//! the events is the real-time order that the checkers go by: a simulation runs on one thread, so
//! the event that was recorded first happened first. (A history that is put together from several
//! machines must be sorted by time, and at equal times invocations before everything else.)
//!
//! Saved as JSON lines, one event a line, so that it can be searched with ordinary tools.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::trace::Trace;

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Simulated time since the start of the run, microseconds.
    pub at_us: u64,
    /// Who asked: a client's task, or the nemesis.
    pub process: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// An operation begins.
    Invoke {
        /// Its number, unique in the history.
        op: u64,
        /// What is asked.
        call: Call,
    },
    /// It had its effect.
    Ok {
        /// The operation.
        op: u64,
        /// What was answered.
        answer: Answer,
    },
    /// It had no effect and never will.
    Fail {
        /// The operation.
        op: u64,
        /// Why.
        error: Failure,
    },
    /// It may have had its effect, or may have it still.
    Unknown {
        /// The operation.
        op: u64,
        /// Why nobody knows.
        error: Failure,
    },
    /// The nemesis did something.
    Fault {
        /// Which nemesis.
        name: String,
        /// Whether it took hold.
        result: FaultResult,
        /// What exactly, for people.
        detail: String,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub enum Call {
    /// Append these records, in this order, as one batch.
    Append {
        /// Where.
        partition: u32,
        /// The records; each is unique in the history.
        values: Vec<u64>,
    },
    /// Read from an offset on, linearizable.
    Read {
        /// Where.
        partition: u32,
        /// Label of the node that is asked.
        node: u64,
        /// First offset wanted.
        from: u64,
    },
    /// Read the whole log that a node serves, and its chain hash. Done at the end.
    Survey {
        /// Which.
        partition: u32,
        /// Label of the node that is asked.
        node: u64,
    },
    /// Commit a group offset.
    Commit {
        /// The group.
        group: String,
        /// Of which partition.
        partition: u32,
        /// The next offset to consume.
        offset: u64,
    },
    /// Fetch a group offset, linearizable.
    FetchCommitted {
        /// The group.
        group: String,
        /// Of which partition.
        partition: u32,
    },
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Answer {
    /// The append is acknowledged.
    Appended {
        /// Offset of the first record; not known for a very old retry.
        base_offset: Option<u64>,
    },
    /// What was read.
    Records {
        /// In order, from the offset asked for, without gaps.
        values: Vec<u64>,
        /// End (exclusive) of what the node serves.
        end: u64,
    },
    /// What a survey found.
    Log {
        /// First offset kept.
        start: u64,
        /// Every record from there on.
        values: Vec<u64>,
        /// The chain hash below the end of `values`, in hex; not set if the node forgot it.
        chain_hash: Option<String>,
    },
    /// The commit is acknowledged.
    Committed,
    /// The committed offset.
    GroupOffset {
        /// Not set: the group has committed nothing there.
        offset: Option<u64>,
    },
}

/// Why an operation has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The client library's code, as it prints it.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Whether a fault took hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultResult {
    /// It did.
    Installed,
    /// There was nothing to do it to.
    Skipped,
    /// It was taken away again.
    Removed,
}

/// All events of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order in which they happened.
    pub events: Vec<Event>,
}

impl History {
    /// Writes the history as JSON lines.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`History::write`] wrote.
    ///
    /// # Errors
    /// For a line that is no event.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let events = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { events })
    }

    /// The lines about these operations, for people.
    pub fn about(&self, operations: &[u64]) -> Vec<String> {
        let is_about = |event: &&Event| match &event.what {
            What::Invoke { op, .. }
            | What::Ok { op, .. }
            | What::Fail { op, .. }
            | What::Unknown { op, .. } => operations.contains(op),
            What::Fault { .. } => false,
        };
        let about = self.events.iter().filter(is_about);
        about.map(|event| serde_json::to_string(event).unwrap_or_default()).collect()
    }

    /// How many events of each kind of operation and outcome there are, such as "append ok".
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut names: BTreeMap<u64, &'static str> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for event in &self.events {
            let (op, outcome) = match &event.what {
                What::Invoke { op, call } => {
                    names.insert(*op, call.name());
                    continue;
                }
                What::Ok { op, .. } => (op, "ok"),
                What::Fail { op, .. } => (op, "fail"),
                What::Unknown { op, .. } => (op, "unknown"),
                What::Fault { .. } => continue,
            };
            let name = names.get(op).copied().unwrap_or("?");
            *counts.entry(format!("{name} {outcome}")).or_default() += 1;
        }
        counts
    }
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Self::Append { .. } => "append",
            Self::Read { .. } => "read",
            Self::Survey { .. } => "survey",
            Self::Commit { .. } => "commit",
            Self::FetchCommitted { .. } => "fetch_committed",
        }
    }
}

/// Takes down what happens while a simulation runs. Clones write into one history.
#[derive(Clone)]
pub struct Recorder {
    history: Rc<RefCell<History>>,
    operations: Rc<RefCell<u64>>,
    trace: Trace,
}

impl Recorder {
    /// An empty history; its events go into `trace` too.
    pub fn new(trace: Trace) -> Self {
        Self { history: Rc::default(), operations: Rc::default(), trace }
    }

    /// An operation begins. Returns its number.
    pub fn invoke(&self, process: &str, call: Call) -> u64 {
        let op = {
            let mut operations = self.operations.borrow_mut();
            *operations += 1;
            *operations
        };
        self.push(process, What::Invoke { op, call });
        op
    }

    /// It was answered.
    pub fn ok(&self, process: &str, op: u64, answer: Answer) {
        self.push(process, What::Ok { op, answer });
    }

    /// It failed; `unknown` says that it may have had its effect all the same.
    pub fn failed(&self, process: &str, op: u64, unknown: bool, error: Failure) {
        let what = if unknown { What::Unknown { op, error } } else { What::Fail { op, error } };
        self.push(process, what);
    }

    /// The nemesis did something.
    pub fn fault(&self, name: &str, result: FaultResult, detail: String) {
        self.push("nemesis", What::Fault { name: name.to_owned(), result, detail });
    }

    /// A copy of what was taken down so far.
    pub fn history(&self) -> History {
        self.history.borrow().clone()
    }

    fn push(&self, process: &str, what: What) {
        let at_us = u64::try_from(self.trace.now().as_micros()).unwrap_or(u64::MAX);
        let event = Event { at_us, process: process.to_owned(), what };
        self.trace.record("history", format_args!("{process} {:?}", event.what));
        self.history.borrow_mut().events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_the_same_after_it_was_written_and_read() {
        let recorder = Recorder::new(Trace::new());
        let op = recorder.invoke("a", Call::Append { partition: 1, values: vec![7, 8] });
        recorder.ok("a", op, Answer::Appended { base_offset: Some(3) });
        let op = recorder.invoke("b", Call::Read { partition: 1, node: 2, from: 0 });
        let error = Failure { code: "TIMED_OUT".to_owned(), message: "late".to_owned() };
        recorder.failed("b", op, false, error);
        recorder.fault("crash", FaultResult::Skipped, "no leader".to_owned());
        let history = recorder.history();
        let mut bytes = Vec::new();
        history.write(&mut bytes).expect("memory");
        let text = String::from_utf8(bytes).expect("JSON");
        assert_eq!(text.lines().count(), 5);
        assert_eq!(History::parse(&text).expect("as written"), history);
    }

    #[test]
    fn the_lines_about_an_operation_are_its_beginning_and_its_end() {
        let recorder = Recorder::new(Trace::new());
        let first = recorder.invoke("a", Call::Append { partition: 0, values: vec![1] });
        let second = recorder.invoke("b", Call::Append { partition: 0, values: vec![2] });
        recorder.ok("b", second, Answer::Appended { base_offset: Some(0) });
        recorder.ok("a", first, Answer::Appended { base_offset: Some(1) });
        let history = recorder.history();
        assert_eq!(history.about(&[first]).len(), 2);
        assert_eq!(history.counts().get("append ok"), Some(&2));
    }
}
