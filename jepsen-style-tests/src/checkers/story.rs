//! Short histories for the tests of the checkers, told operation by operation.

use crate::history::{Answer, Call, Failure, Recorder};
use crate::observations::{GroupObservations, Observations, PartitionObservations};
use crate::trace::Trace;

/// A history of partition 0 and group "g", in the making.
pub(crate) struct Story(Recorder);

impl Story {
    pub(crate) fn new() -> Self {
        Self(Recorder::new(Trace::new()))
    }

    /// An append begins.
    pub(crate) fn append(&self, values: &[u64]) -> u64 {
        self.0.invoke("test", Call::Append { partition: 0, values: values.to_vec() })
    }

    /// An append is acknowledged.
    pub(crate) fn acked(&self, op: u64, base_offset: u64) {
        self.0.ok("test", op, Answer::Appended { base_offset: Some(base_offset) });
    }

    /// An operation certainly had no effect.
    pub(crate) fn refused(&self, op: u64, code: &str) {
        self.0.failed("test", op, false, failure(code));
    }

    /// An operation may have had its effect.
    pub(crate) fn unknown(&self, op: u64) {
        self.0.failed("test", op, true, failure("TIMED_OUT"));
    }

    /// A read begins.
    pub(crate) fn read(&self, from: u64) -> u64 {
        self.0.invoke("test", Call::Read { partition: 0, node: 1, from })
    }

    /// A read is answered.
    pub(crate) fn records(&self, op: u64, values: &[u64], end: u64) {
        self.0.ok("test", op, Answer::Records { values: values.to_vec(), end });
    }

    /// The log of a node at the end.
    pub(crate) fn survey(&self, node: u64, values: &[u64], chain_hash: &str) -> u64 {
        let op = self.0.invoke("test", Call::Survey { partition: 0, node });
        let chain_hash = Some(chain_hash.to_owned());
        self.0.ok("test", op, Answer::Log { start: 0, values: values.to_vec(), chain_hash });
        op
    }

    /// A commit begins.
    pub(crate) fn commit(&self, offset: u64) -> u64 {
        self.0.invoke("test", Call::Commit { group: "g".to_owned(), partition: 0, offset })
    }

    /// A commit is acknowledged.
    pub(crate) fn committed(&self, op: u64) {
        self.0.ok("test", op, Answer::Committed);
    }

    /// A fetch of a group offset begins and is answered.
    pub(crate) fn fetched(&self, offset: Option<u64>) -> u64 {
        let op = self.fetch();
        self.0.ok("test", op, Answer::GroupOffset { offset });
        op
    }

    /// A fetch of a group offset begins.
    pub(crate) fn fetch(&self) -> u64 {
        self.0.invoke("test", Call::FetchCommitted { group: "g".to_owned(), partition: 0 })
    }

    /// An append that is acknowledged at once.
    pub(crate) fn appended(&self, values: &[u64], base_offset: u64) -> u64 {
        let op = self.append(values);
        self.acked(op, base_offset);
        op
    }

    /// A read that is answered at once.
    pub(crate) fn has_read(&self, from: u64, values: &[u64], end: u64) -> u64 {
        let op = self.read(from);
        self.records(op, values, end);
        op
    }

    pub(crate) fn partition(&self) -> PartitionObservations {
        let mut observations = Observations::of(&self.0.history());
        observations.partitions.remove(&0).unwrap_or_default()
    }

    pub(crate) fn group(&self) -> GroupObservations {
        let mut observations = Observations::of(&self.0.history());
        observations.groups.remove(&("g".to_owned(), 0)).unwrap_or_default()
    }
}

fn failure(code: &str) -> Failure {
    Failure { code: code.to_owned(), message: "told by a test".to_owned() }
}
