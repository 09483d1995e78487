//! A history, sorted by what it is about: the form in which checkers want it.
//!
//! An operation is here one value with the moment at which it was invoked and, if it was
//! answered, the moment at which it returned. Moments are places in the history: see `history`
//! for why that is real time. An operation whose outcome is unknown never returns, because its
//! effect may come at any time.

mod sorting;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::{BatchSum, Failure, ProducerStamp};

/// A place in the history.
pub type Moment = usize;

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// By number.
    pub partitions: BTreeMap<u32, PartitionObservations>,
    /// By group and partition.
    pub groups: BTreeMap<(String, u32), GroupObservations>,
    /// What each consumer did in each partition, in order.
    pub consumers: BTreeMap<(String, u32), Vec<ConsumerStep>>,
    /// What members of each group were given of each partition, in the order of invocation.
    pub deliveries: BTreeMap<(String, u32), Vec<Delivery>>,
    /// When each group was last asked for records.
    pub last_polls: BTreeMap<String, Moment>,
    /// What members committed, by group and partition, in the order of invocation. They are also
    /// among `groups`.
    pub member_commits: BTreeMap<(String, u32), Vec<MemberCommit>>,
}

/// What the moments of a history were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// Simulated time of each moment, microseconds.
    pub times_us: Vec<u64>,
    /// When each node, by its label, began to run.
    pub starts: BTreeMap<u64, Vec<Moment>>,
}

/// What it showed of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionObservations {
    /// In the order of invocation. Calls that repeat a batch of a producer are one append.
    pub appends: Vec<Append>,
    /// Every call that sent a numbered batch, in the order of invocation.
    pub attempts: Vec<Attempt>,
    /// Conditions of appends that did not hold, in the order of invocation.
    pub conflicts: Vec<Conflict>,
    /// Linearizable ones that were answered, in the order of invocation: reads, questions for the
    /// end, and conflicts, which tell the end too.
    pub reads: Vec<Read>,
    /// Those at a level that may lag, and the polls of consumers, in the order of invocation.
    pub lagging_reads: Vec<LaggingRead>,
    /// Those that were answered, in the order of invocation.
    pub surveys: Vec<Survey>,
    /// Those that were answered, in the order of invocation.
    pub batch_surveys: Vec<BatchSurvey>,
    /// Reads and surveys that failed, in the order of invocation.
    pub failed_reads: Vec<FailedRead>,
    /// The whole history's.
    pub course: Arc<Course>,
}

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The operation.
    pub op: u64,
    /// Its records, in order.
    pub values: Vec<u64>,
    /// The end offset that was its condition.
    pub expects: Option<u64>,
    /// When it, or the first attempt at it, began.
    pub invoked: Moment,
    /// How it ended: the best that any attempt was told.
    pub outcome: AppendOutcome,
}

/// One call that sent a numbered batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The operation.
    pub op: u64,
    /// Which batch of whom.
    pub stamp: ProducerStamp,
    /// When it began.
    pub invoked: Moment,
    /// When it was acknowledged and where the batch stands, as it was told.
    pub acked: Option<(Moment, Option<u64>)>,
    /// The error it was refused with.
    pub refused: Option<Failure>,
}

/// An append whose condition did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The operation.
    pub op: u64,
    /// The end that was its condition.
    pub expected: u64,
    /// The end, as it was told.
    pub end: u64,
}

/// How an append ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Acknowledged.
    Acked {
        /// Offset of the first record; not known for a very old retry.
        base_offset: Option<u64>,
        /// When.
        returned: Moment,
    },
    /// It had no effect and never will.
    Refused(Failure),
    /// Nobody knows, or it had not ended when the run did.
    Unknown,
}

/// One answered linearizable read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The operation.
    pub op: u64,
    /// Label of the node that was asked; none if it could be any.
    pub node: Option<u64>,
    /// First offset wanted, and offset of the first record returned.
    pub from: u64,
    /// The records returned.
    pub values: Vec<u64>,
    /// End (exclusive) of what the node serves, as it said.
    pub end: u64,
    /// When it began.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
}

/// One answered read that may lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaggingRead {
    /// The operation.
    pub op: u64,
    /// Label of the node that was asked; none if it could be any.
    pub node: Option<u64>,
    /// Offset of the first record returned.
    pub from: u64,
    /// The records returned.
    pub values: Vec<u64>,
    /// End (exclusive) of what the node serves, as it said.
    pub end: u64,
    /// How old that may be: the least of what was allowed and of what the node said.
    pub staleness_ms: Option<u64>,
    /// When it began.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
}

/// The whole log as one node serves it at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The operation.
    pub op: u64,
    /// Label of the node.
    pub node: u64,
    /// First offset kept.
    pub start: u64,
    /// Every record from there on.
    pub values: Vec<u64>,
    /// The chain hash below the end of `values`.
    pub chain_hash: Option<String>,
    /// When it began.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
}

/// The stored batches of one node at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSurvey {
    /// The operation.
    pub op: u64,
    /// Label of the node.
    pub node: u64,
    /// Each batch in short.
    pub batches: Vec<BatchSum>,
}

/// What a consumer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerStep {
    /// It went elsewhere.
    Seek {
        /// The operation.
        op: u64,
        /// Where it goes on.
        offset: u64,
    },
    /// It was given records.
    Poll {
        /// The operation.
        op: u64,
        /// Offset of the first one.
        base_offset: u64,
        /// How many.
        record_count: u64,
    },
}

/// Records that a member of a group was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The operation.
    pub op: u64,
    /// Offset of the first one.
    pub base_offset: u64,
    /// How many.
    pub record_count: u64,
}

/// A commit by a member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberCommit {
    /// The operation.
    pub op: u64,
    /// Who.
    pub member: String,
    /// One that it was told, not before it was given the partition.
    pub generation: i64,
    /// What was committed.
    pub offset: u64,
    /// When it began.
    pub invoked: Moment,
    /// When it was accepted, if it was.
    pub returned: Option<Moment>,
}

/// A read without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRead {
    /// The operation.
    pub op: u64,
    /// Why.
    pub error: Failure,
}

/// What it showed of one group in one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupObservations {
    /// In the order of invocation.
    pub commits: Vec<Commit>,
    /// Those that were answered, in the order of invocation.
    pub fetches: Vec<CommittedFetch>,
}

/// One commit of a group offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The operation.
    pub op: u64,
    /// What was committed.
    pub offset: u64,
    /// When it began.
    pub invoked: Moment,
    /// When it was acknowledged, if it was.
    pub returned: Option<Moment>,
    /// It certainly had no effect.
    pub refused: bool,
    /// Unique in the history, where commits have one.
    pub version: Option<u64>,
    /// An explicit reset.
    pub reset: bool,
}

/// One answered fetch of a group offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedFetch {
    /// The operation.
    pub op: u64,
    /// What it saw.
    pub offset: Option<u64>,
    /// Which commit it saw, where commits have versions.
    pub version: Option<u64>,
    /// It is a commit that was refused because the offset in force, which it was told, is higher.
    pub refusal: bool,
    /// When it began.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
}

impl Append {
    /// The offset of each record, where it is known.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let base = match &self.outcome {
            AppendOutcome::Acked { base_offset, .. } => *base_offset,
            AppendOutcome::Refused(_) | AppendOutcome::Unknown => None,
        };
        base.into_iter().flat_map(|base| (base..).zip(self.values.iter().copied()))
    }
}

impl Read {
    /// Offset and record of what was returned.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.from..).zip(self.values.iter().copied())
    }
}

impl Survey {
    /// Offset and record of what was returned.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.start..).zip(self.values.iter().copied())
    }

    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.start + u64::try_from(self.values.len()).expect("a usize fits")
    }
}

impl LaggingRead {
    /// Offset and record of what was returned.
    pub fn offsets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (self.from..).zip(self.values.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Call, Recorder};
    use crate::trace::Trace;

    #[test]
    fn an_append_that_had_not_ended_when_the_run_did_may_have_had_its_effect() {
        let recorder = Recorder::new(Trace::new());
        recorder.invoke("a", Call::Append { partition: 0, values: vec![1] });
        let observations = Observations::of(&recorder.history());
        let append = &observations.partitions[&0].appends[0];
        assert_eq!(append.outcome, AppendOutcome::Unknown);
    }

    #[test]
    fn moments_are_places_in_the_history() {
        let recorder = Recorder::new(Trace::new());
        let first = recorder.invoke("a", Call::Append { partition: 0, values: vec![1] });
        let second = recorder.invoke("b", Call::Append { partition: 0, values: vec![2] });
        recorder.ok("b", second, Answer::Appended { base_offset: Some(0) });
        recorder.ok("a", first, Answer::Appended { base_offset: Some(1) });
        let observations = Observations::of(&recorder.history());
        let appends = &observations.partitions[&0].appends;
        assert_eq!((appends[0].op, appends[0].invoked), (first, 0));
        let outcome = AppendOutcome::Acked { base_offset: Some(1), returned: 3 };
        assert_eq!(appends[0].outcome, outcome);
    }
}
