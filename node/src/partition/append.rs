//! The leader's way of an append: it waits in line, becomes part of a Raft entry, is answered.
//!
//! While few entries are under way every append is proposed at once; while many are, those that
//! wait are gathered into one entry. So the entry grows with the load by itself, and nobody lingers
//! without need. The line is bounded in bytes for the whole node: who finds no room waits, and at
//! its deadline is told OVERLOADED.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use node_core::partition::{Append, AppendBatch, BatchOutcome};
use node_core::time::{EntryTime, HybridClock};
use node_core::zoo::{self, Bug};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::index::OffsetIndex;
use super::machine::PartitionShared;
use super::{Partition, PartitionContext};
use crate::limits;
use crate::liveness::Pulse;
use crate::raft::{Applied, Place, RaftFailure, RaftGroup, Role};

/// One batch to append.
#[derive(Debug, Clone)]
pub(crate) struct NewAppend {
    /// One whole batch, verified.
    pub(crate) batch: Bytes,
    pub(crate) expect_end_offset: Option<u64>,
    pub(crate) deadline: Instant,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// `None` for a retry so old that its place is forgotten.
    pub(crate) base_offset: Option<u64>,
    pub(crate) duplicate: bool,
    pub(crate) leader_epoch: u64,
    pub(crate) entry_time_ms: u64,
}

/// Why a batch was not appended, or why nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendFailure {
    #[error("this node does not lead the partition")]
    NotLeader { leader: Option<Place> },
    #[error("the leader has lost touch with the majority")]
    NoQuorum,
    #[error("leadership was lost while the append was under way")]
    LeadershipLost,
    #[error("no answer from a majority in time")]
    TimedOut,
    #[error("too many bytes of appends wait on this node")]
    Overloaded,
    #[error("a disk of the partition is nearly full")]
    DiskFull,
    #[error("the end offset is {end_offset}, not the expected one")]
    Conflict { end_offset: u64 },
    #[error("a newer session of this producer has epoch {epoch_current}")]
    Fenced { epoch_current: u16 },
    #[error("a sequence is missing; {sequence_expected} is the next that will be taken")]
    OutOfOrder { sequence_expected: u32 },
    #[error("the producer is not known here and does not start at sequence 0")]
    UnknownProducer,
    #[error("the batch is malformed")]
    Malformed,
    #[error("this replica has stopped: {0}")]
    Stopped(String),
}

impl From<RaftFailure> for AppendFailure {
    fn from(failure: RaftFailure) -> Self {
        match failure {
            RaftFailure::NotLeader { leader } => Self::NotLeader { leader },
            RaftFailure::NoQuorum => Self::NoQuorum,
            RaftFailure::Busy => Self::Overloaded,
            RaftFailure::OutcomeUnknown => Self::LeadershipLost,
            RaftFailure::Stopped(why) => Self::Stopped(why),
        }
    }
}

type Answer = Result<Appended, AppendFailure>;

struct Waiting {
    append: AppendBatch,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
    /// Given back when the append is answered.
    _room: OwnedSemaphorePermit,
}

/// The line in front of one partition's log.
pub(crate) struct Appender {
    line: mpsc::Sender<Waiting>,
}

/// An append in line.
pub(crate) struct Ticket {
    answer: oneshot::Receiver<Answer>,
    deadline: Instant,
}

impl Ticket {
    /// Waits for the answer, at most until the append's deadline.
    pub(crate) async fn answer(self) -> Answer {
        let mut deadline = self.deadline;
        if zoo::is(Bug::SlowIsRefused) {
            deadline = deadline.min(Instant::now() + std::time::Duration::from_millis(200));
        }
        match tokio::time::timeout_at(deadline, self.answer).await {
            Ok(Ok(answer)) => answer,
            // The task is gone with the replica; the entry may be on its way.
            Ok(Err(_)) => Err(AppendFailure::LeadershipLost),
            Err(_) if zoo::is(Bug::SlowIsRefused) => Err(AppendFailure::Overloaded),
            Err(_) => Err(AppendFailure::TimedOut),
        }
    }
}

impl Partition {
    /// Takes a place in line. Appends of one caller keep the order in which this returned.
    pub(crate) async fn enqueue(&self, append: NewAppend) -> Result<Ticket, AppendFailure> {
        let NewAppend { batch, expect_end_offset, deadline } = append;
        if self.raft.brief().role != Role::Leader {
            return Err(AppendFailure::NotLeader { leader: self.raft.status().leader });
        }
        if self.context.linearizer.liveness.any_disk_low()
            && self.context.linearizer.liveness.disk_low(self.raft.status().members.into_values())
        {
            return Err(AppendFailure::DiskFull);
        }
        let bytes = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = self.context.append_bytes.clone().acquire_many_owned(bytes);
        let room = match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(AppendFailure::Stopped("the node is stopping".to_owned())),
            Err(_) => return Err(AppendFailure::Overloaded),
        };
        let (sender, answer) = oneshot::channel();
        let append = AppendBatch { expect_end_offset, bytes: batch };
        let waiting = Waiting { append, deadline, answer: sender, _room: room };
        match tokio::time::timeout_at(deadline, self.appender.line.send(waiting)).await {
            Ok(Ok(())) => Ok(Ticket { answer, deadline }),
            Ok(Err(_)) => Err(AppendFailure::Stopped("the replica is closing".to_owned())),
            Err(_) => Err(AppendFailure::Overloaded),
        }
    }

    /// Fills in when and under whom a retry's first copy was appended.
    pub(crate) fn place_of(&self, mut appended: Appended) -> Appended {
        if appended.duplicate
            && let Some(base_offset) = appended.base_offset
            && let Ok(Some(record)) = self.shared.index.at(base_offset)
        {
            appended.leader_epoch = record.position.term;
            appended.entry_time_ms = record.time.ms();
        }
        appended
    }
}

impl Appender {
    pub(super) fn start(
        raft: Arc<RaftGroup>,
        shared: Arc<PartitionShared>,
        context: Arc<PartitionContext>,
        pulse: Arc<Pulse>,
    ) -> Self {
        let (line, waiting) = mpsc::channel(limits::APPENDS_WAITING_MAX);
        let worker = Worker {
            raft,
            shared,
            context,
            pulse,
            clock: HybridClock::default(),
            #[cfg(quipu_zoo)]
            foretold: (0, 0),
        };
        // Ends when the partition, and with it the sender, is dropped.
        crate::env::spawn(worker.run(waiting));
        Self { line }
    }
}

struct Worker {
    raft: Arc<RaftGroup>,
    shared: Arc<PartitionShared>,
    context: Arc<PartitionContext>,
    pulse: Arc<Pulse>,
    clock: HybridClock,
    /// Term, and the end offset that the entries proposed in it will make.
    #[cfg(quipu_zoo)]
    foretold: (u64, u64),
}

impl Worker {
    async fn run(mut self, mut line: mpsc::Receiver<Waiting>) {
        let mut under_way: FuturesOrdered<BoxFuture<'static, ()>> = FuturesOrdered::new();
        // The first of those that wait for their turn.
        let mut carried: Option<Waiting> = None;
        let raft = self.raft.clone();
        loop {
            let may_propose = under_way.len() < limits::ENTRIES_UNDER_WAY_MAX;
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                first = line.recv(), if carried.is_none() => {
                    let Some(first) = first else { break };
                    carried = Some(first);
                }
                // A disk that can't keep up holds back appends here, BEFORE the group's core has
                // them: there votes and heartbeats would wait behind them. One that has failed
                // lets them pass, to be answered.
                _ = raft.log().room(), if may_propose && carried.is_some() => {
                    let Some(first) = carried.take() else { continue };
                    let gathered = gather(first, &mut carried, &mut line);
                    if let Some(entry) = self.propose(gathered).await {
                        under_way.push_back(entry);
                    }
                }
                // Entries under way stay open for as long as no majority is heard of. Those who
                // wait behind them were never proposed: they can go elsewhere.
                () = tokio::time::sleep(limits::LEADERSHIP_LOOK), if carried.is_some() => {
                    if self.raft.brief().role != Role::Leader {
                        let failure =
                            AppendFailure::NotLeader { leader: self.raft.status().leader };
                        let waiting = carried.take().into_iter();
                        let waiting = waiting.chain(std::iter::from_fn(|| line.try_recv().ok()));
                        refuse(waiting.collect(), &failure);
                    }
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Proposes one entry. The future answers those who wait for it.
    async fn propose(&mut self, gathered: Vec<Waiting>) -> Option<BoxFuture<'static, ()>> {
        self.pulse.touch();
        let deadline = gathered.iter().map(|waiting| waiting.deadline).min()?;
        if let Err(failure) = self.raft.ensure_writable(deadline).await {
            refuse(gathered, &failure.into());
            return None;
        }
        self.clock.observe(self.shared.view.borrow().time_last);
        let time = self.clock.stamp(self.context.clock.now_ms());
        let (batches, answers): (Vec<_>, Vec<_>) = gathered
            .into_iter()
            .map(|waiting| (waiting.append, (waiting.answer, waiting._room)))
            .unzip();
        #[cfg(quipu_zoo)]
        let sizes: Vec<u64> = batches.iter().map(record_count).collect();
        let command = Append { time, batches }.encode();
        let held = self.context.metrics.raft.proposals_in_flight.hold(1);
        let proposed = match self.raft.propose(command).await {
            Ok(proposed) => proposed,
            Err(failure) => {
                let failure = AppendFailure::from(failure);
                for (answer, _) in answers {
                    drop(answer.send(Err(failure.clone())));
                }
                return None;
            }
        };
        #[cfg(quipu_zoo)]
        let foreseen = self.foresee(&sizes);
        #[cfg(quipu_zoo)]
        let answers = self.acknowledge_before_quorum(&foreseen, answers, time.ms());
        let shared = self.shared.clone();
        Some(Box::pin(async move {
            let outcome = proposed.outcome().await;
            drop(held);
            match outcome {
                Ok((Applied::Batches(outcomes), position)) => {
                    let time_ms = time_in(&shared.index, &outcomes).unwrap_or(time).ms();
                    #[cfg(quipu_zoo)]
                    let outcomes = as_foreseen(outcomes, &foreseen);
                    for ((answer, _), outcome) in answers.into_iter().zip(outcomes) {
                        let answered = answer_of(outcome, position.term, time_ms);
                        drop(answer.send(answered));
                    }
                }
                Ok((other, _)) => {
                    tracing::error!(?other, "an append was answered as something else");
                }
                Err(failure) => {
                    let failure = AppendFailure::from(failure);
                    for (answer, _) in answers {
                        drop(answer.send(Err(failure.clone())));
                    }
                }
            }
        }))
    }
}

#[cfg(quipu_zoo)]
type Answers = Vec<(oneshot::Sender<Answer>, OwnedSemaphorePermit)>;

#[cfg(quipu_zoo)]
fn record_count(append: &AppendBatch) -> u64 {
    quipu_batch::BatchHeader::parse(&append.bytes).map_or(1, |header| header.records().into())
}

#[cfg(quipu_zoo)]
impl Worker {
    /// The offsets that batches of these sizes will have if nothing comes between.
    fn foresee(&mut self, sizes: &[u64]) -> Vec<u64> {
        let leader_epoch = self.raft.brief().term;
        let end = self.shared.view.borrow().high_watermark;
        let (term, foretold) = self.foretold;
        let mut next = if term == leader_epoch { end.max(foretold) } else { end };
        let foreseen = sizes.iter().map(|size| {
            next += size;
            next - size
        });
        let foreseen = foreseen.collect();
        self.foretold = (leader_epoch, next);
        foreseen
    }

    /// [`Bug::AckBeforeQuorum`].
    fn acknowledge_before_quorum(
        &self,
        foreseen: &[u64],
        answers: Answers,
        entry_time_ms: u64,
    ) -> Answers {
        if !zoo::is(Bug::AckBeforeQuorum) {
            return answers;
        }
        let leader_epoch = self.foretold.0;
        for ((answer, _), base) in answers.into_iter().zip(foreseen) {
            let base_offset = Some(*base);
            let appended = Appended { base_offset, duplicate: false, leader_epoch, entry_time_ms };
            drop(answer.send(Ok(appended)));
        }
        Vec::new()
    }
}

/// [`Bug::OffsetForetold`].
#[cfg(quipu_zoo)]
fn as_foreseen(mut outcomes: Vec<BatchOutcome>, foreseen: &[u64]) -> Vec<BatchOutcome> {
    for (outcome, foreseen) in outcomes.iter_mut().zip(foreseen) {
        if let BatchOutcome::Appended { base_offset } = outcome
            && zoo::is(Bug::OffsetForetold)
        {
            *base_offset = *foreseen;
        }
    }
    outcomes
}

/// Takes from the line what goes into one entry. What would make it too large is carried over.
fn gather(
    first: Waiting,
    carried: &mut Option<Waiting>,
    line: &mut mpsc::Receiver<Waiting>,
) -> Vec<Waiting> {
    let mut bytes = first.append.bytes.len();
    let mut gathered = vec![first];
    while gathered.len() < limits::ENTRY_BATCHES_MAX {
        let Ok(waiting) = line.try_recv() else { break };
        bytes += waiting.append.bytes.len();
        if bytes > limits::ENTRY_BYTES_MAX {
            *carried = Some(waiting);
            break;
        }
        gathered.push(waiting);
    }
    gathered
}

fn refuse(gathered: Vec<Waiting>, failure: &AppendFailure) {
    for waiting in gathered {
        drop(waiting.answer.send(Err(failure.clone())));
    }
}

/// The log's time at an entry that was just applied. Later than the leader's stamp where entries
/// of a leader whose clock was ahead came before it.
fn time_in(index: &OffsetIndex, outcomes: &[BatchOutcome]) -> Option<EntryTime> {
    let base_offset = outcomes.iter().find_map(|outcome| match outcome {
        BatchOutcome::Appended { base_offset } => Some(*base_offset),
        _ => None,
    })?;
    index.at(base_offset).ok().flatten().map(|record| record.time)
}

fn answer_of(outcome: BatchOutcome, leader_epoch: u64, entry_time_ms: u64) -> Answer {
    let appended = |base_offset, duplicate| {
        Ok(Appended { base_offset, duplicate, leader_epoch, entry_time_ms })
    };
    match outcome {
        BatchOutcome::Appended { base_offset } => appended(Some(base_offset), false),
        BatchOutcome::Duplicate { base_offset } => appended(base_offset, true),
        BatchOutcome::Conflict { end_offset } => Err(AppendFailure::Conflict { end_offset }),
        BatchOutcome::Fenced { epoch_current } => {
            Err(AppendFailure::Fenced { epoch_current: epoch_current.0 })
        }
        BatchOutcome::OutOfOrder { sequence_expected } => {
            Err(AppendFailure::OutOfOrder { sequence_expected })
        }
        BatchOutcome::UnknownProducer => Err(AppendFailure::UnknownProducer),
        BatchOutcome::Malformed => Err(AppendFailure::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use node_core::ids::GroupId;
    use node_core::partition::PartitionState;
    use node_core::position::RaftPosition;
    use quipu_batch::{BatchBuilder, Compression, Record};

    use super::*;
    use crate::storage::memory::MemoryEngine;

    #[test]
    fn the_time_that_is_answered_is_the_logs_and_never_goes_back() {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 10);
        builder.push(&Record::default()).expect("it fits");
        let bytes = builder.build(None).expect("a batch");
        let index = OffsetIndex::new(GroupId(1_000), Arc::new(MemoryEngine::new()));
        let mut state = PartitionState::new(node_core::partition::LadderLimits::default());
        let mut told = Vec::new();
        // The second leader's clock is behind.
        for (at, ms) in [(0, 9_000), (1, 5_000), (2, 9_500)] {
            let batches = vec![AppendBatch { expect_end_offset: None, bytes: bytes.clone() }];
            let append = Append { time: EntryTime::from_ms(ms), batches };
            let applied = state.apply_append(RaftPosition { term: at + 1, index: at }, &append);
            index.push(applied.index.expect("accepted"));
            told.push(time_in(&index, &applied.outcomes).map(EntryTime::ms));
        }
        assert_eq!(told, [Some(9_000), Some(9_000), Some(9_500)]);
        assert_eq!(time_in(&index, &[BatchOutcome::Malformed]), None);
    }
}
