//! What the clients asked and were answered, in the order in which it happened.
//!
//! Each operation is invoked once and ends at most once: `ok` with an answer, `fail` when it
//! certainly had no effect, `unknown` when it may have had one or may have it still. The order of
//! the events is the real-time order that the checkers go by: a simulation runs on one thread, so
//! the event that was recorded first happened first. (A history that is put together from several
//! machines must be sorted by time, and at equal times invocations before everything else.)
//!
//! Saved as JSON lines, one event a line, so that it can be searched with ordinary tools.

mod recorder;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

pub use recorder::Recorder;

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
    /// A node began to run: at the beginning, or after it had stopped in whatever way. What it had
    /// in memory before is gone.
    Started {
        /// Its label.
        node: u64,
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
    /// Append these records as one batch: on a condition, with a producer's number, or both.
    ///
    /// A retry that a client decides on is a call of its own with the same `producer` and the same
    /// values; only such calls may share values. Refused because of the condition: answer
    /// [`Answer::Conflict`].
    AppendWith {
        /// Where.
        partition: u32,
        /// The records.
        values: Vec<u64>,
        /// Append only if this is the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_end_offset: Option<u64>,
        /// Who sends it, and which of its batches it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        producer: Option<ProducerStamp>,
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
    /// Read from an offset on, at a level that may lag.
    ReadAt {
        /// Where.
        partition: u32,
        /// Label of the node that is asked.
        node: u64,
        /// First offset wanted.
        from: u64,
        /// How fresh it must be.
        level: Level,
    },
    /// Ask where a partition begins and ends, linearizable.
    ListOffsets {
        /// Which.
        partition: u32,
    },
    /// A consumer goes to an offset: assigned there, or sought. The next poll begins there.
    Seek {
        /// The consumer: a name that is unique in the history.
        consumer: String,
        /// Where.
        partition: u32,
        /// The next offset to be given out.
        offset: u64,
    },
    /// A consumer takes what comes next, of whichever partition.
    Poll {
        /// The consumer.
        consumer: String,
    },
    /// A member of a group takes what comes next, of whichever partition it has.
    GroupPoll {
        /// The group.
        group: String,
        /// One life of one client: a name that is unique in the history.
        member: String,
    },
    /// A member commits a group offset.
    MemberCommit {
        /// The group.
        group: String,
        /// Of which partition.
        partition: u32,
        /// The next offset to consume.
        offset: u64,
        /// The member id.
        member: String,
        /// One that the member was told, not before it was given the partition.
        generation: i64,
    },
    /// Read the whole log that a node serves, and its chain hash. Done at the end.
    Survey {
        /// Which.
        partition: u32,
        /// Label of the node that is asked.
        node: u64,
    },
    /// Ask a node for the stored form of its batches. Done at the end.
    SurveyBatches {
        /// Which partition.
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
    /// Commit a group offset, or set it back, with a version in its metadata that is unique in the
    /// history. A group and partition has either such commits or plain ones.
    CommitVersion {
        /// The group.
        group: String,
        /// Of which partition.
        partition: u32,
        /// The next offset to consume.
        offset: u64,
        /// Told by whoever fetches this commit.
        version: u64,
        /// An explicit reset, which may go back.
        reset: bool,
    },
    /// Fetch a group offset, linearizable.
    FetchCommitted {
        /// The group.
        group: String,
        /// Of which partition.
        partition: u32,
    },
    /// Create a topic.
    CreateTopic {
        /// Its name.
        topic: String,
        /// How many partitions.
        partitions: u32,
    },
    /// Delete a topic. Partitions of a topic of the same name that is created later have numbers
    /// of their own in the history: a record of the older one that is read there came from nowhere.
    DeleteTopic {
        /// Its name.
        topic: String,
    },
}

/// Which of its batches a producer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProducerStamp {
    /// The producer's id.
    pub id: u64,
    /// Its epoch. A higher one of the same id fences this one.
    pub epoch: u32,
    /// Sequence of the batch's first record.
    pub sequence_first: u32,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Level {
    /// Whatever the node has applied.
    Committed,
    /// No older than this.
    Bounded {
        /// Milliseconds.
        max_ms: u64,
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
    /// The condition of an append did not hold: nothing was appended.
    Conflict {
        /// The end instead.
        end_offset: u64,
    },
    /// What was read at a level that may lag.
    RecordsAsOf {
        /// In order, from the offset asked for, without gaps.
        values: Vec<u64>,
        /// End (exclusive) of what the node serves.
        end: u64,
        /// How old that may be, as the node said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        staleness_ms: Option<u64>,
    },
    /// Where a partition begins and ends.
    Offsets {
        /// First offset kept.
        log_start: u64,
        /// End (exclusive).
        end: u64,
    },
    /// What a poll gave out.
    Polled {
        /// Of which partition.
        partition: u32,
        /// Offset of the first record.
        base_offset: u64,
        /// In order, without gaps.
        values: Vec<u64>,
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
    /// The stored batches of a node, in order.
    Batches {
        /// Each of them.
        batches: Vec<BatchSum>,
    },
    /// The commit is acknowledged.
    Committed,
    /// The commit was refused because it would have gone back.
    Regression {
        /// The offset in force.
        committed: u64,
    },
    /// The committed offset.
    GroupOffset {
        /// Not set: the group has committed nothing there.
        offset: Option<u64>,
    },
    /// The committed offset, and the version it came with.
    GroupVersion {
        /// Not set: the group has committed nothing there.
        found: Option<VersionedOffset>,
    },
    /// It was done; there is nothing to tell.
    Done,
}

/// A group offset and the commit it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionedOffset {
    /// The next offset to consume.
    pub offset: u64,
    /// As in [`Call::CommitVersion`].
    pub version: u64,
}

/// A stored batch in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSum {
    /// Offset of its first record.
    pub base_offset: u64,
    /// How many it has.
    pub record_count: u32,
    /// A hash of all its bytes, in hex.
    pub hash: String,
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
            What::Fault { .. } | What::Started { .. } => false,
        };
        let about = self.events.iter().filter(is_about);
        about.map(|event| serde_json::to_string(event).unwrap_or_default()).collect()
    }

    /// The same history with nothing in it but these operations, and what happened to nodes.
    pub fn only(&self, operations: &[u64]) -> Self {
        let is_kept = |event: &&Event| match &event.what {
            What::Invoke { op, .. }
            | What::Ok { op, .. }
            | What::Fail { op, .. }
            | What::Unknown { op, .. } => operations.contains(op),
            What::Fault { .. } | What::Started { .. } => true,
        };
        Self { events: self.events.iter().filter(is_kept).cloned().collect() }
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
                What::Fault { .. } | What::Started { .. } => continue,
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
            Self::AppendWith { expect_end_offset: Some(_), .. } => "append_if",
            Self::AppendWith { .. } => "append_numbered",
            Self::Read { .. } => "read",
            Self::ReadAt { level: Level::Committed, .. } => "read_committed",
            Self::ReadAt { level: Level::Bounded { .. }, .. } => "read_bounded",
            Self::ListOffsets { .. } => "list_offsets",
            Self::Seek { .. } => "seek",
            Self::Poll { .. } => "poll",
            Self::GroupPoll { .. } => "group_poll",
            Self::MemberCommit { .. } => "member_commit",
            Self::Survey { .. } => "survey",
            Self::SurveyBatches { .. } => "survey_batches",
            Self::Commit { .. } => "commit",
            Self::CommitVersion { reset: true, .. } => "reset",
            Self::CommitVersion { .. } => "commit_version",
            Self::FetchCommitted { .. } => "fetch_committed",
            Self::CreateTopic { .. } => "create_topic",
            Self::DeleteTopic { .. } => "delete_topic",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Trace;

    #[test]
    fn a_history_is_the_same_after_it_was_written_and_read() {
        let recorder = Recorder::new(Trace::new());
        let op = recorder.invoke("a", Call::Append { partition: 1, values: vec![7, 8] });
        recorder.ok("a", op, Answer::Appended { base_offset: Some(3) });
        let op = recorder.invoke("b", Call::Read { partition: 1, node: 2, from: 0 });
        let error = Failure { code: "TIMED_OUT".to_owned(), message: "late".to_owned() };
        recorder.failed("b", op, false, error);
        recorder.started(2);
        recorder.fault("crash", FaultResult::Skipped, "no leader".to_owned());
        let history = recorder.history();
        let mut bytes = Vec::new();
        history.write(&mut bytes).expect("memory");
        let text = String::from_utf8(bytes).expect("JSON");
        assert_eq!(text.lines().count(), 6);
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
