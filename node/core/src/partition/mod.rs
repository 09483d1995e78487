//! One partition: what its log means.
//!
//! Raft agrees on entries; this state machine says which of their batches count, which offsets
//! they have, what a retry is answered, and where checkpoints stand. Every replica applies the
//! same entries in the same order and gets the same state, byte for byte.
//!
//! The records themselves are not here: they stay in the Raft entries, and an [`IndexRecord`]
//! says where. The caller stores what [`Applied`] names, in one atomic write per entry or for
//! several entries together.
//!
//! - `command`: what is replicated; `outcome`: what applying it did;
//! - `batch_facts`, `producers`, `chain_hash`, `index_record`: the parts of an append;
//! - `ladder`, `retention`: checkpoints, and which prefix may go;
//! - `persist`: the state's own bytes.

mod batch_facts;
mod chain_hash;
mod command;
mod index_record;
mod ladder;
mod outcome;
mod persist;
mod producers;
pub mod retention;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use self::batch_facts::{BatchFacts, batch_facts};
pub use self::chain_hash::ChainHash;
pub use self::command::{AdvanceStart, Append, AppendBatch, LogCommand};
pub use self::index_record::{IndexRecord, IndexedBatch};
pub use self::ladder::LadderLimits;
use self::ladder::{Ladder, LogEnd};
pub use self::outcome::{Applied, BatchOutcome, LogStartMoved, Rung, RungSummary};
use self::producers::{Producers, Verdict};
use crate::ids::ProducerId;
use crate::limits::{MEMBERSHIP_BYTES_MAX, OFFSET_MAX};
use crate::position::RaftPosition;
use crate::time::EntryTime;
use crate::zoo::{self, Bug};

/// The replicated state of one partition after its applied entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    next_offset: u64,
    log_start: u64,
    chain_hash: ChainHash,
    applied: Option<RaftPosition>,
    membership: Option<Membership>,
    bytes_total: u64,
    /// Of the first append; `None` before it.
    time_first: Option<EntryTime>,
    time_last: EntryTime,
    /// `i64::MIN` before the first record.
    timestamp_max: i64,
    producers: Producers,
    ladder: Ladder,
}

/// The members of the Raft group, as last applied. What the bytes mean is the Raft layer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The entry that set it; `None` for one that was there from the beginning.
    pub position: Option<RaftPosition>,
    /// At most [`MEMBERSHIP_BYTES_MAX`].
    pub bytes: Bytes,
}

impl PartitionState {
    /// The state before the first entry. `limits` must be the same on every replica.
    #[must_use]
    pub fn new(limits: LadderLimits) -> PartitionState {
        PartitionState {
            next_offset: 0,
            log_start: 0,
            chain_hash: ChainHash::default(),
            applied: None,
            membership: None,
            bytes_total: 0,
            time_first: None,
            time_last: EntryTime::default(),
            timestamp_max: i64::MIN,
            producers: Producers::default(),
            ladder: Ladder::new(limits),
        }
    }

    /// Applies an append. A batch sees the effect of those before it in the same entry.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry: a replica that skips or repeats an entry
    /// must not go on.
    pub fn apply_append(&mut self, at: RaftPosition, append: &Append) -> Applied {
        self.advance_to(at);
        let time = self.advance_time(append.time);
        let base_offset = self.next_offset;
        let mut outcomes = Vec::with_capacity(append.batches.len());
        let mut indexed = Vec::new();
        let mut changed = BTreeSet::new();
        for (batch, range) in append.batches.iter().zip(append.ranges()) {
            let (outcome, accepted) = self.apply_batch(batch, time);
            if let Some(facts) = accepted {
                changed.extend(facts.identity.map(|identity| identity.producer));
                indexed.push(IndexedBatch {
                    position_in_entry: small(outcomes.len()),
                    records: facts.record_count,
                    start: small(range.start),
                    bytes: small(range.len()),
                });
            }
            outcomes.push(outcome);
        }
        let payload_bytes = small(append.encoded_bytes());
        self.bytes_total += u64::from(payload_bytes);
        // AFTER the batches, so that a producer that comes back just now is still known.
        let producers_removed = self.producers.forget_idle(time);
        for forgotten in &producers_removed {
            changed.remove(forgotten);
        }
        let index = (!indexed.is_empty()).then_some(IndexRecord {
            base_offset,
            position: at,
            time,
            timestamp_max: self.timestamp_max,
            chain_hash: self.chain_hash,
            payload_bytes,
            batches: indexed,
        });
        let (rung, rungs_removed) = self.make_rung_if_due(at);
        Applied {
            outcomes,
            time,
            index,
            producers_changed: changed.into_iter().collect(),
            producers_removed,
            rung,
            rungs_removed,
            log_start_moved: None,
        }
    }

    /// Applies an advance of the log start. Where the index is not that of a rung above the log
    /// start nothing moves: the command was overtaken by another. A rung that is due by the
    /// entry's time is made in any case, so that retention also reaches the last records of a
    /// partition which nobody appends to any more.
    ///
    /// The entry itself is after every rung, so at least one entry always stays in the log.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply_advance_start(&mut self, at: RaftPosition, advance: &AdvanceStart) -> Applied {
        self.advance_to(at);
        let time = self.advance_time(advance.time);
        let mut applied = Applied { time, ..Applied::default() };
        let target = self.ladder.find(advance.rung_index);
        if let Some(rung) = target.filter(|rung| rung.next_offset > self.log_start) {
            assert!(rung.position < at, "rung {} is not before {at}", rung.position);
            let moved = LogStartMoved { rung, from: self.log_start, to: rung.next_offset };
            self.log_start = rung.next_offset;
            applied.rungs_removed = self.ladder.remove_below(rung.position.index);
            applied.log_start_moved = Some(moved);
        }
        let (rung, thinned_out) = self.make_rung_if_due(at);
        applied.rung = rung;
        applied.rungs_removed.extend(thinned_out);
        applied
    }

    /// Applies an entry without content (a new leader's first).
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply_blank(&mut self, at: RaftPosition) {
        self.advance_to(at);
    }

    /// Applies a change of the group's members.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry, or over [`MEMBERSHIP_BYTES_MAX`].
    pub fn apply_membership(&mut self, at: RaftPosition, bytes: Bytes) {
        assert!(bytes.len() <= MEMBERSHIP_BYTES_MAX, "a membership of {} bytes", bytes.len());
        self.advance_to(at);
        self.membership = Some(Membership { position: Some(at), bytes });
    }

    /// Offset of the next record: the end (exclusive) of what this replica may serve.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// First offset still to be read.
    #[must_use]
    pub fn log_start(&self) -> u64 {
        self.log_start
    }

    /// Hash over all accepted batches below [`next_offset`](Self::next_offset), from offset 0.
    #[must_use]
    pub fn chain_hash(&self) -> ChainHash {
        self.chain_hash
    }

    /// The last applied entry.
    #[must_use]
    pub fn applied(&self) -> Option<RaftPosition> {
        self.applied
    }

    /// The group's members as last applied.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Payload bytes of all appends since the beginning, with what retention took; never falls.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Payload bytes of the appends that retention has not taken.
    #[must_use]
    pub fn bytes_kept(&self) -> u64 {
        let start = self.ladder.rungs.first().filter(|rung| rung.next_offset == self.log_start);
        self.bytes_total - start.map_or(0, |rung| rung.bytes_total)
    }

    /// The log's time at the last entry that had one.
    #[must_use]
    pub fn time_last(&self) -> EntryTime {
        self.time_last
    }

    /// Greatest record timestamp since the beginning; `i64::MIN` before the first record.
    #[must_use]
    pub fn timestamp_max(&self) -> i64 {
        self.timestamp_max
    }

    /// When rungs are due.
    #[must_use]
    pub fn ladder_limits(&self) -> LadderLimits {
        self.ladder.limits
    }

    /// Rungs from the log start on, oldest first.
    #[must_use]
    pub fn rungs(&self) -> &[RungSummary] {
        &self.ladder.rungs
    }

    /// The same, for readers beside the one who applies; costs nothing.
    #[must_use]
    pub fn rungs_shared(&self) -> Arc<Vec<RungSummary>> {
        Arc::clone(&self.ladder.rungs)
    }

    /// The rung at the log start: what a new replica begins with. `None` while the log still
    /// starts with its first entry.
    #[must_use]
    pub fn start_rung(&self) -> Option<RungSummary> {
        let first = self.ladder.rungs.first()?;
        (first.next_offset == self.log_start).then_some(*first)
    }

    /// Remembered producers.
    #[must_use]
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// The remembered producers' ids, ascending.
    pub fn producer_ids(&self) -> impl Iterator<Item = ProducerId> {
        self.producers.iter().map(|(id, _)| id)
    }

    fn apply_batch(
        &mut self,
        batch: &AppendBatch,
        time: EntryTime,
    ) -> (BatchOutcome, Option<BatchFacts>) {
        let Some(facts) = batch_facts(&batch.bytes) else {
            return (BatchOutcome::Malformed, None);
        };
        #[cfg(quipu_zoo)]
        let facts = self.overlooking_recent_retries(facts);
        // BEFORE the condition: the retry of a conditional append that succeeded is a success.
        if let Some(identity) = facts.identity
            && let Some(outcome) = refusal(self.producers.check(identity))
        {
            return (outcome, None);
        }
        let base_offset = self.next_offset;
        if batch.expect_end_offset.is_some_and(|expected| !is_met(expected, base_offset)) {
            return (BatchOutcome::Conflict { end_offset: base_offset }, None);
        }
        if let Some(identity) = facts.identity {
            self.producers.record(identity, base_offset, time);
        }
        self.next_offset += u64::from(facts.record_count);
        self.chain_hash = self.chain_hash.after(base_offset, &batch.bytes);
        self.timestamp_max = self.timestamp_max.max(facts.timestamp_max);
        (BatchOutcome::Appended { base_offset }, Some(facts))
    }

    fn advance_to(&mut self, at: RaftPosition) {
        if let Some(applied) = self.applied {
            assert!(at.follows(applied), "entry {at} applied after {applied}");
        }
        assert!(self.next_offset <= OFFSET_MAX, "{} records in one partition", self.next_offset);
        self.applied = Some(at);
    }

    /// The log's time never goes back, even where a leader's clock did.
    fn advance_time(&mut self, time: EntryTime) -> EntryTime {
        self.time_last = self.time_last.max(time);
        self.time_last
    }

    fn make_rung_if_due(&mut self, at: RaftPosition) -> (Option<Rung>, Vec<u64>) {
        let time = self.time_last;
        let time_first = *self.time_first.get_or_insert(time);
        let (next_offset, bytes_total) = (self.next_offset, self.bytes_total);
        if !self.ladder.is_due(LogEnd { next_offset, bytes_total, time, time_first }) {
            return (None, Vec::new());
        }
        let number = self.ladder.number_next();
        let summary = RungSummary { number, position: at, next_offset, bytes_total, time };
        let checkpoint = self.encode_as_starting_at(summary);
        let removed = self.ladder.push(summary, self.log_start);
        (Some(Rung { summary, checkpoint }), removed)
    }
}

#[cfg(quipu_zoo)]
impl PartitionState {
    /// [`Bug::RetryCheckedEarly`]: what was appended within the last fifty records
    /// was not yet applied when its retry was looked for.
    fn overlooking_recent_retries(&self, facts: BatchFacts) -> BatchFacts {
        let verdict = facts.identity.map(|identity| self.producers.check(identity));
        match verdict {
            Some(Verdict::Duplicate { base_offset: Some(base_offset) })
                if zoo::is(Bug::RetryCheckedEarly) && self.next_offset - base_offset < 50 =>
            {
                BatchFacts { identity: None, ..facts }
            }
            _ => facts,
        }
    }
}

/// Whether a condition holds where the log ends.
fn is_met(expected: u64, end_offset: u64) -> bool {
    expected == end_offset || zoo::is(Bug::ConditionAtLeast) && expected < end_offset
}

/// What a batch that is not new is answered.
fn refusal(verdict: Verdict) -> Option<BatchOutcome> {
    match verdict {
        Verdict::New => None,
        Verdict::Duplicate { base_offset } => Some(BatchOutcome::Duplicate { base_offset }),
        Verdict::Fenced { epoch_current } => Some(BatchOutcome::Fenced { epoch_current }),
        Verdict::OutOfOrder { sequence_expected } => {
            Some(BatchOutcome::OutOfOrder { sequence_expected })
        }
        Verdict::UnknownProducer => Some(BatchOutcome::UnknownProducer),
    }
}

/// Counts and places inside one entry.
fn small(value: usize) -> u32 {
    u32::try_from(value).expect("an entry has at most ENTRY_BYTES_MAX bytes")
}
