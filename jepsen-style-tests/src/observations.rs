//! A history, sorted by what it is about: the form in which checkers want it.
//!
//! An operation is here one value with the moment at which it was invoked and, if it was
//! answered, the moment at which it returned. Moments are places in the history: see `history`
//! for why that is real time. An operation whose outcome is unknown never returns, because its
//! effect may come at any time.

use std::collections::BTreeMap;

use crate::history::{Answer, Call, Failure, History, What};

/// A place in the history.
pub type Moment = usize;

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// By number.
    pub partitions: BTreeMap<u32, PartitionObservations>,
    /// By group and partition.
    pub groups: BTreeMap<(String, u32), GroupObservations>,
}

/// What it showed of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionObservations {
    /// In the order of invocation.
    pub appends: Vec<Append>,
    /// Those that were answered, in the order of invocation.
    pub reads: Vec<Read>,
    /// Those that were answered, in the order of invocation.
    pub surveys: Vec<Survey>,
    /// Reads and surveys that failed, in the order of invocation.
    pub failed_reads: Vec<FailedRead>,
}

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The operation.
    pub op: u64,
    /// Its records, in order.
    pub values: Vec<u64>,
    /// When it began.
    pub invoked: Moment,
    /// How it ended.
    pub outcome: AppendOutcome,
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
    /// Label of the node that was asked.
    pub node: u64,
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
    /// When it was answered.
    pub returned: Moment,
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
}

/// One answered fetch of a group offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedFetch {
    /// The operation.
    pub op: u64,
    /// What it saw.
    pub offset: Option<u64>,
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

/// An operation that has begun.
struct Open {
    call: Call,
    invoked: Moment,
}

enum Ending {
    Ok(Answer, Moment),
    Fail(Failure),
    Unknown,
}

impl Observations {
    /// Sorts a history.
    pub fn of(history: &History) -> Self {
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        let mut ended: BTreeMap<u64, (Open, Ending)> = BTreeMap::new();
        for (moment, event) in history.events.iter().enumerate() {
            let (op, ending) = match &event.what {
                What::Invoke { op, call } => {
                    open.insert(*op, Open { call: call.clone(), invoked: moment });
                    continue;
                }
                What::Ok { op, answer } => (op, Ending::Ok(answer.clone(), moment)),
                What::Fail { op, error } => (op, Ending::Fail(error.clone())),
                What::Unknown { op, .. } => (op, Ending::Unknown),
                What::Fault { .. } => continue,
            };
            if let Some(begun) = open.remove(op) {
                ended.insert(*op, (begun, ending));
            }
        }
        // What had not ended when the run did may have had its effect.
        ended.extend(open.into_iter().map(|(op, begun)| (op, (begun, Ending::Unknown))));
        let mut observations = Self::default();
        // Operations are numbered in the order of invocation.
        for (op, (begun, ending)) in ended {
            observations.add(op, begun, ending);
        }
        observations
    }

    fn add(&mut self, op: u64, Open { call, invoked }: Open, ending: Ending) {
        match call {
            Call::Append { partition, values } => {
                let outcome = match ending {
                    Ending::Ok(Answer::Appended { base_offset }, returned) => {
                        AppendOutcome::Acked { base_offset, returned }
                    }
                    Ending::Fail(error) => AppendOutcome::Refused(error),
                    Ending::Ok(..) | Ending::Unknown => AppendOutcome::Unknown,
                };
                let append = Append { op, values, invoked, outcome };
                self.partitions.entry(partition).or_default().appends.push(append);
            }
            Call::Read { partition, node, from } => {
                let partition = self.partitions.entry(partition).or_default();
                match ending {
                    Ending::Ok(Answer::Records { values, end }, returned) => {
                        let read = Read { op, node, from, values, end, invoked, returned };
                        partition.reads.push(read);
                    }
                    Ending::Fail(error) => partition.failed_reads.push(FailedRead { op, error }),
                    Ending::Ok(..) | Ending::Unknown => {}
                }
            }
            Call::Survey { partition, node } => {
                let partition = self.partitions.entry(partition).or_default();
                match ending {
                    Ending::Ok(Answer::Log { start, values, chain_hash }, returned) => {
                        let survey = Survey { op, node, start, values, chain_hash, returned };
                        partition.surveys.push(survey);
                    }
                    Ending::Fail(error) => partition.failed_reads.push(FailedRead { op, error }),
                    Ending::Ok(..) | Ending::Unknown => {}
                }
            }
            Call::Commit { group, partition, offset } => {
                let returned = match ending {
                    Ending::Ok(_, returned) => Some(returned),
                    Ending::Fail(_) | Ending::Unknown => None,
                };
                let refused = matches!(ending, Ending::Fail(_));
                let commit = Commit { op, offset, invoked, returned, refused };
                self.groups.entry((group, partition)).or_default().commits.push(commit);
            }
            Call::FetchCommitted { group, partition } => {
                if let Ending::Ok(Answer::GroupOffset { offset }, returned) = ending {
                    let fetch = CommittedFetch { op, offset, invoked, returned };
                    self.groups.entry((group, partition)).or_default().fetches.push(fetch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Recorder;
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
