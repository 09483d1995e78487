//! Short histories for the tests of the checkers, told operation by operation.

use std::time::Duration;

use crate::checkers::check_all;
use crate::checkers::layout::Case;
use crate::history::{
    Answer, BatchSum, Call, Failure, Level, ProducerStamp, Recorder, VersionedOffset,
};
use crate::observations::{ConsumerStep, GroupObservations, Observations, PartitionObservations};
use crate::trace::Trace;
use crate::violation::Violation;

/// A history of partition 0 and group "g", in the making.
pub(crate) struct Story {
    recorder: Recorder,
    trace: Trace,
}

impl Story {
    pub(crate) fn new() -> Self {
        let trace = Trace::new();
        trace.set_outside_now(Duration::ZERO);
        Self { recorder: Recorder::new(trace.clone()), trace }
    }

    /// Time passes.
    pub(crate) fn wait_ms(&self, ms: u64) {
        self.trace.set_outside_now(self.trace.now() + Duration::from_millis(ms));
    }

    fn invoke(&self, call: Call) -> u64 {
        self.recorder.invoke("test", call)
    }

    fn ok(&self, op: u64, answer: Answer) {
        self.recorder.ok("test", op, answer);
    }

    /// A node begins to run.
    pub(crate) fn started(&self, node: u64) {
        self.recorder.started(node);
    }

    /// An append begins.
    pub(crate) fn append(&self, values: &[u64]) -> u64 {
        self.invoke(Call::Append { partition: 0, values: values.to_vec() })
    }

    /// A conditional append begins.
    pub(crate) fn append_if(&self, values: &[u64], expected: u64) -> u64 {
        self.invoke(Call::AppendWith {
            partition: 0,
            values: values.to_vec(),
            expect_end_offset: Some(expected),
            producer: None,
        })
    }

    /// A numbered append begins.
    pub(crate) fn numbered(&self, id: u64, epoch: u32, sequence: u32, values: &[u64]) -> u64 {
        self.invoke(Call::AppendWith {
            partition: 0,
            values: values.to_vec(),
            expect_end_offset: None,
            producer: Some(ProducerStamp { id, epoch, sequence_first: sequence }),
        })
    }

    /// An append is acknowledged.
    pub(crate) fn acked(&self, op: u64, base_offset: u64) {
        self.ok(op, Answer::Appended { base_offset: Some(base_offset) });
    }

    /// An append is acknowledged, and where it stands is forgotten.
    pub(crate) fn acked_somewhere(&self, op: u64) {
        self.ok(op, Answer::Appended { base_offset: None });
    }

    /// The condition of an append did not hold.
    pub(crate) fn conflicted(&self, op: u64, end_offset: u64) {
        self.ok(op, Answer::Conflict { end_offset });
    }

    /// An operation certainly had no effect.
    pub(crate) fn refused(&self, op: u64, code: &str) {
        self.recorder.failed("test", op, false, failure(code));
    }

    /// An operation may have had its effect.
    pub(crate) fn unknown(&self, op: u64) {
        self.recorder.failed("test", op, true, failure("TIMED_OUT"));
    }

    /// A read begins.
    pub(crate) fn read(&self, from: u64) -> u64 {
        self.invoke(Call::Read { partition: 0, node: 1, from })
    }

    /// A read is answered.
    pub(crate) fn records(&self, op: u64, values: &[u64], end: u64) {
        self.ok(op, Answer::Records { values: values.to_vec(), end });
    }

    /// A read that may lag begins.
    pub(crate) fn read_at(&self, node: u64, from: u64, level: Level) -> u64 {
        self.invoke(Call::ReadAt { partition: 0, node, from, level })
    }

    /// A read that may lag is answered.
    pub(crate) fn records_as_of(&self, op: u64, values: &[u64], end: u64, told_ms: Option<u64>) {
        let values = values.to_vec();
        self.ok(op, Answer::RecordsAsOf { values, end, staleness_ms: told_ms });
    }

    /// A committed read that is answered at once.
    pub(crate) fn has_read_at(&self, node: u64, from: u64, values: &[u64], end: u64) -> u64 {
        let op = self.read_at(node, from, Level::Committed);
        self.records_as_of(op, values, end, None);
        op
    }

    /// A question for the end that is answered at once.
    pub(crate) fn listed(&self, end: u64) -> u64 {
        let op = self.invoke(Call::ListOffsets { partition: 0 });
        self.ok(op, Answer::Offsets { log_start: 0, end });
        op
    }

    /// A consumer goes elsewhere.
    pub(crate) fn sought(&self, consumer: &str, offset: u64) -> u64 {
        let op = self.invoke(Call::Seek { consumer: consumer.to_owned(), partition: 0, offset });
        self.ok(op, Answer::Done);
        op
    }

    /// A consumer is given records.
    pub(crate) fn polled(&self, consumer: &str, base_offset: u64, values: &[u64]) -> u64 {
        let op = self.invoke(Call::Poll { consumer: consumer.to_owned() });
        self.ok(op, Answer::Polled { partition: 0, base_offset, values: values.to_vec() });
        op
    }

    /// The log of a node at the end.
    pub(crate) fn survey(&self, node: u64, values: &[u64], chain_hash: &str) -> u64 {
        let op = self.invoke(Call::Survey { partition: 0, node });
        let chain_hash = Some(chain_hash.to_owned());
        self.ok(op, Answer::Log { start: 0, values: values.to_vec(), chain_hash });
        op
    }

    /// The stored batches of a node at the end: base offset, records, hash.
    pub(crate) fn batches(&self, node: u64, batches: &[(u64, u32, &str)]) -> u64 {
        let op = self.invoke(Call::SurveyBatches { partition: 0, node });
        let batches = batches.iter().map(|(base_offset, record_count, hash)| BatchSum {
            base_offset: *base_offset,
            record_count: *record_count,
            hash: (*hash).to_owned(),
        });
        self.ok(op, Answer::Batches { batches: batches.collect() });
        op
    }

    /// A commit begins.
    pub(crate) fn commit(&self, offset: u64) -> u64 {
        self.invoke(Call::Commit { group: "g".to_owned(), partition: 0, offset })
    }

    /// A commit with a version begins.
    pub(crate) fn commit_version(&self, offset: u64, version: u64, reset: bool) -> u64 {
        let group = "g".to_owned();
        self.invoke(Call::CommitVersion { group, partition: 0, offset, version, reset })
    }

    /// A commit is acknowledged.
    pub(crate) fn committed(&self, op: u64) {
        self.ok(op, Answer::Committed);
    }

    /// A commit is refused because a higher offset is in force.
    pub(crate) fn regressed(&self, op: u64, committed: u64) {
        self.ok(op, Answer::Regression { committed });
    }

    /// A fetch of a group offset begins and is answered.
    pub(crate) fn fetched(&self, offset: Option<u64>) -> u64 {
        let op = self.fetch();
        self.ok(op, Answer::GroupOffset { offset });
        op
    }

    /// A fetch that sees a commit with a version begins and is answered.
    pub(crate) fn fetched_version(&self, offset: u64, version: u64) -> u64 {
        let op = self.fetch();
        let found = Some(VersionedOffset { offset, version });
        self.ok(op, Answer::GroupVersion { found });
        op
    }

    /// A fetch of a group offset begins.
    pub(crate) fn fetch(&self) -> u64 {
        self.invoke(Call::FetchCommitted { group: "g".to_owned(), partition: 0 })
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

    /// What one checker says of the partition. That the operations which it names are enough to
    /// show the same is checked on the way.
    pub(crate) fn judge(
        &self,
        check: impl Fn(&Case<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let judged = check(&Case::new(0, &self.partition()));
        if let Err(violation) = &judged {
            let shown = self.recorder.history().only(&violation.operations());
            let shown = Observations::of(&shown).partitions.remove(&0).unwrap_or_default();
            assert!(check(&Case::new(0, &shown)).is_err(), "{violation} names too little");
        }
        judged
    }

    /// What all checkers say.
    pub(crate) fn verdict(&self) -> Vec<Violation> {
        check_all(&Observations::of(&self.recorder.history()))
    }

    pub(crate) fn partition(&self) -> PartitionObservations {
        let mut observations = Observations::of(&self.recorder.history());
        observations.partitions.remove(&0).unwrap_or_default()
    }

    pub(crate) fn group(&self) -> GroupObservations {
        let mut observations = Observations::of(&self.recorder.history());
        observations.groups.remove(&("g".to_owned(), 0)).unwrap_or_default()
    }

    pub(crate) fn consumer(&self, name: &str) -> Vec<ConsumerStep> {
        let mut observations = Observations::of(&self.recorder.history());
        observations.consumers.remove(&(name.to_owned(), 0)).unwrap_or_default()
    }
}

fn failure(code: &str) -> Failure {
    Failure { code: code.to_owned(), message: "told by a test".to_owned() }
}
