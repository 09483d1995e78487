//! Decides whether a batch is new, a retry of one already in the log, or out of order.
//!
//! A producer that gets no answer must be able to send the same batch again without writing it
//! twice. It numbers its records with a sequence; each partition remembers, per producer, the
//! last batches it accepted. The table is part of the replicated state: every replica asks
//! `check` and `record` the same in the same order, so a new leader knows what the old one knew.
//!
//! A retry older than what is remembered can still be told from a gap, because the number of
//! records accepted in the epoch is kept: a sequence less than that far behind the next one was
//! accepted once. Its offset is not known any more, and the answer says so.
//!
//! Not here: who gets which [`ProducerId`] (`metadata`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quipu_batch::{SEQUENCE_MAX, sequence_add};

use crate::ids::{ProducerEpoch, ProducerId};
use crate::limits::{
    PRODUCER_BATCHES_REMEMBERED, PRODUCER_IDLE_MS, PRODUCERS_FORGOTTEN_PER_ENTRY, PRODUCERS_MAX,
};
use crate::time::EntryTime;
use crate::zoo::{self, Bug};

/// What the header of a batch says about its sender. Sequences are per record, not per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchIdentity {
    pub(super) producer: ProducerId,
    pub(super) epoch: ProducerEpoch,
    /// Sequence of the first record, at most [`SEQUENCE_MAX`].
    pub(super) sequence_first: u32,
    /// At least one.
    pub(super) record_count: u32,
}

/// The judgement of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not seen before and in order: append it, then call [`Producers::record`].
    New,
    /// Already in the log, at this base offset where that is still known.
    Duplicate { base_offset: Option<u64> },
    /// A newer session of this producer exists. Final: the sender must stop.
    Fenced { epoch_current: ProducerEpoch },
    /// A sequence is missing before this batch, or it cuts across batches already accepted.
    OutOfOrder { sequence_expected: u32 },
    /// Not remembered, and not at the beginning of its sequence.
    UnknownProducer,
}

/// The remembered producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Producers {
    // Ordered, so that an encoded checkpoint is the same on every replica.
    by_id: BTreeMap<ProducerId, Producer>,
    /// The same producers, the one idle for longest first. Follows from `by_id`.
    by_last_use: BTreeSet<(EntryTime, ProducerId)>,
}

/// One remembered producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: ProducerEpoch,
    /// When the last batch was accepted, by the log's time.
    pub(super) last_use: EntryTime,
    /// Records accepted in this epoch, at least those of `batches`.
    pub(super) epoch_records: u64,
    /// Oldest first, 1 to [`PRODUCER_BATCHES_REMEMBERED`]; adjacent batches have adjacent
    /// sequences, and offsets grow.
    pub(super) batches: VecDeque<AcceptedBatch>,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AcceptedBatch {
    pub(super) sequence_first: u32,
    pub(super) record_count: u32,
    pub(super) base_offset: u64,
}

impl Producers {
    /// Judges a batch without changing anything.
    pub(super) fn check(&self, batch: BatchIdentity) -> Verdict {
        assert!(batch.record_count > 0, "batch facts have at least one record");
        assert!(batch.sequence_first <= SEQUENCE_MAX, "sequence {}", batch.sequence_first);

        let known = self.by_id.get(&batch.producer);
        let epoch = known.map(|it| it.epoch).filter(|_| zoo::is(Bug::EpochIgnored));
        let batch = BatchIdentity { epoch: epoch.unwrap_or(batch.epoch), ..batch };
        match known {
            None if batch.sequence_first == 0 => Verdict::New,
            None => Verdict::UnknownProducer,
            Some(producer) if batch.epoch < producer.epoch => {
                Verdict::Fenced { epoch_current: producer.epoch }
            }
            Some(producer) if batch.epoch > producer.epoch => {
                if batch.sequence_first == 0 {
                    Verdict::New
                } else {
                    Verdict::OutOfOrder { sequence_expected: 0 }
                }
            }
            Some(producer) => producer.check_in_epoch(batch),
        }
    }

    /// Remembers a batch that `check` called new and that now starts at `base_offset`.
    pub(super) fn record(&mut self, batch: BatchIdentity, base_offset: u64, now: EntryTime) {
        assert_eq!(self.check(batch), Verdict::New);

        let producer = self.by_id.entry(batch.producer).or_insert_with(|| Producer {
            epoch: batch.epoch,
            last_use: now,
            epoch_records: 0,
            batches: VecDeque::new(),
        });
        if producer.epoch < batch.epoch {
            producer.epoch = batch.epoch;
            producer.epoch_records = 0;
            producer.batches.clear();
        }
        if producer.batches.len() == PRODUCER_BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(AcceptedBatch {
            sequence_first: batch.sequence_first,
            record_count: batch.record_count,
            base_offset,
        });
        producer.epoch_records += u64::from(batch.record_count);

        self.by_last_use.remove(&(producer.last_use, batch.producer));
        producer.last_use = now;
        self.by_last_use.insert((now, batch.producer));
        assert_eq!(self.by_id.len(), self.by_last_use.len());
    }

    /// Forgets producers that are idle for too long at `now`, and those past the limit, the one
    /// idle for longest first. Each is looked up, not searched for.
    pub(super) fn forget_idle(&mut self, now: EntryTime) -> Vec<ProducerId> {
        let mut forgotten = Vec::new();
        while let Some(&(last_use, id)) = self.by_last_use.first() {
            let idle_ms = now.ms().saturating_sub(last_use.ms());
            let idle_too_long =
                idle_ms >= PRODUCER_IDLE_MS && forgotten.len() < PRODUCERS_FORGOTTEN_PER_ENTRY;
            if !idle_too_long && self.by_id.len() <= PRODUCERS_MAX {
                break;
            }
            self.by_last_use.pop_first();
            self.by_id.remove(&id);
            forgotten.push(id);
        }
        forgotten
    }

    /// Puts back a producer read from storage. Answers false where it is there already.
    pub(super) fn restore(&mut self, id: ProducerId, producer: Producer) -> bool {
        self.by_last_use.insert((producer.last_use, id));
        self.by_id.insert(id, producer).is_none()
    }

    pub(super) fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Producer {
    fn check_in_epoch(&self, batch: BatchIdentity) -> Verdict {
        let sequence_expected = self.sequence_next();
        if batch.sequence_first == sequence_expected {
            return Verdict::New;
        }
        if let Some(accepted) = self.batches.iter().find(|accepted| accepted.is(batch)) {
            let newest = self.batches.back().filter(|_| zoo::is(Bug::RetryGetsNewest));
            let base_offset = newest.unwrap_or(accepted).base_offset;
            return Verdict::Duplicate { base_offset: Some(base_offset) };
        }
        // How far the batch begins behind the next sequence. Sequences run in a circle, so one
        // more than half of it behind is rather one ahead.
        let behind = distance(batch.sequence_first, sequence_expected);
        let remembered = distance(self.oldest().sequence_first, sequence_expected);
        let ends_before_window =
            u64::from(behind) >= u64::from(remembered) + u64::from(batch.record_count);
        let once_accepted = behind <= SEQUENCE_MAX / 2 && u64::from(behind) <= self.epoch_records;
        if once_accepted && ends_before_window {
            return Verdict::Duplicate { base_offset: None };
        }
        Verdict::OutOfOrder { sequence_expected }
    }

    /// The sequence that continues this epoch.
    pub(super) fn sequence_next(&self) -> u32 {
        let newest = self.batches.back().expect("a producer is made with its first batch");
        sequence_add(newest.sequence_first, newest.record_count)
    }

    fn oldest(&self) -> &AcceptedBatch {
        self.batches.front().expect("a producer is made with its first batch")
    }
}

impl AcceptedBatch {
    fn is(self, batch: BatchIdentity) -> bool {
        self.sequence_first == batch.sequence_first && self.record_count == batch.record_count
    }
}

/// Steps from one sequence forward to another, around the circle of 2^31.
fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & SEQUENCE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EntryTime = EntryTime(1 << 40);

    fn batch(epoch: u16, sequence_first: u32, record_count: u32) -> BatchIdentity {
        BatchIdentity {
            producer: ProducerId(7),
            epoch: ProducerEpoch(epoch),
            sequence_first,
            record_count,
        }
    }

    fn table(batches: &[(BatchIdentity, u64)]) -> Producers {
        let mut table = Producers::default();
        for &(batch, base_offset) in batches {
            table.record(batch, base_offset, NOW);
        }
        table
    }

    /// A table whose producer stands `ahead` records before the end of the sequence circle.
    fn near_wrap(ahead: u32) -> Producers {
        let mut table = Producers::default();
        let first = AcceptedBatch {
            sequence_first: SEQUENCE_MAX - ahead - 9,
            record_count: 10,
            base_offset: 50,
        };
        let producer = Producer {
            epoch: ProducerEpoch(0),
            last_use: NOW,
            epoch_records: u64::from(SEQUENCE_MAX - ahead) + 1,
            batches: VecDeque::from([first]),
        };
        assert!(table.restore(ProducerId(7), producer));
        table
    }

    #[test]
    fn a_retry_gets_the_offset_of_the_first_copy() {
        let table = table(&[(batch(0, 0, 3), 100), (batch(0, 3, 2), 110)]);
        let first = Verdict::Duplicate { base_offset: Some(100) };
        assert_eq!(table.check(batch(0, 0, 3)), first);
        assert_eq!(table.check(batch(0, 3, 2)), Verdict::Duplicate { base_offset: Some(110) });
        assert_eq!(table.check(batch(0, 5, 2)), Verdict::New);
    }

    #[test]
    fn a_gap_is_refused_and_tells_where_to_resume() {
        let table = table(&[(batch(0, 0, 3), 100)]);
        let gap = Verdict::OutOfOrder { sequence_expected: 3 };
        assert_eq!(table.check(batch(0, 4, 1)), gap);
        assert_eq!(table.check(batch(0, 1, 2)), gap, "cuts across an accepted batch");
        assert_eq!(table.check(batch(0, 2, 3)), gap, "cuts across the end");
    }

    #[test]
    fn a_sequence_before_the_first_was_never_accepted() {
        let table = table(&[(batch(0, 0, 3), 100)]);
        let never = Verdict::OutOfOrder { sequence_expected: 3 };
        assert_eq!(table.check(batch(0, SEQUENCE_MAX, 1)), never);
        assert_eq!(table.check(batch(0, SEQUENCE_MAX - 100, 5)), never);
    }

    #[test]
    fn a_newer_epoch_fences_the_older_and_starts_at_0() {
        let mut table = table(&[(batch(0, 0, 1), 100)]);
        let not_at_0 = Verdict::OutOfOrder { sequence_expected: 0 };
        assert_eq!(table.check(batch(1, 1, 1)), not_at_0);
        table.record(batch(1, 0, 1), 101, NOW);
        let fenced = Verdict::Fenced { epoch_current: ProducerEpoch(1) };
        assert_eq!(table.check(batch(0, 1, 1)), fenced);
        assert_eq!(table.check(batch(1, 1, 1)), Verdict::New);
    }

    #[test]
    fn an_unknown_producer_must_start_at_0() {
        let table = Producers::default();
        assert_eq!(table.check(batch(4, 0, 1)), Verdict::New);
        assert_eq!(table.check(batch(4, 1, 1)), Verdict::UnknownProducer);
    }

    #[test]
    fn a_retry_older_than_the_window_is_a_duplicate_without_offset() {
        let mut table = Producers::default();
        for number in 0..100 {
            table.record(batch(0, number * 2, 2), u64::from(number), NOW);
        }
        let forgotten = Verdict::Duplicate { base_offset: None };
        assert_eq!(table.check(batch(0, 0, 2)), forgotten);
        assert_eq!(table.check(batch(0, 70, 2)), forgotten, "the youngest forgotten");
        assert_eq!(table.check(batch(0, 72, 2)), Verdict::Duplicate { base_offset: Some(36) });
        let cut_across = Verdict::OutOfOrder { sequence_expected: 200 };
        assert_eq!(table.check(batch(0, 71, 2)), cut_across);
    }

    #[test]
    fn sequences_go_on_at_0_behind_the_greatest() {
        let mut table = near_wrap(1);
        assert_eq!(table.check(batch(0, SEQUENCE_MAX, 4)), Verdict::New);
        table.record(batch(0, SEQUENCE_MAX, 4), 60, NOW);
        assert_eq!(table.check(batch(0, 3, 1)), Verdict::New);
        let retry = Verdict::Duplicate { base_offset: Some(60) };
        assert_eq!(table.check(batch(0, SEQUENCE_MAX, 4)), retry);
        assert_eq!(table.check(batch(0, 4, 1)), Verdict::OutOfOrder { sequence_expected: 3 });
    }

    #[test]
    fn a_retry_from_before_the_wrap_is_older_than_the_window() {
        let mut table = near_wrap(0);
        let mut sequence = 0;
        for _ in 0..PRODUCER_BATCHES_REMEMBERED {
            table.record(batch(0, sequence, 5), 60, NOW);
            sequence = sequence_add(sequence, 5);
        }
        let forgotten = Verdict::Duplicate { base_offset: None };
        assert_eq!(table.check(batch(0, SEQUENCE_MAX - 9, 10)), forgotten);
    }

    #[test]
    fn a_producer_idle_for_seven_days_is_forgotten() {
        let mut table = table(&[(batch(0, 0, 1), 0)]);
        let day_ms = 24 * 60 * 60 * 1_000;
        let after = |days: u64| EntryTime::from_ms(NOW.ms() + days * day_ms);
        assert_eq!(table.forget_idle(after(6)), []);
        table.record(batch(0, 1, 1), 1, after(6));
        assert_eq!(table.forget_idle(after(12)), []);
        assert_eq!(table.forget_idle(after(13)), [ProducerId(7)]);
        assert_eq!(table, Producers::default());
    }

    #[test]
    fn past_the_limit_the_one_idle_for_longest_is_forgotten() {
        let mut table = Producers::default();
        for number in 0..=PRODUCERS_MAX as u64 {
            let identity = BatchIdentity { producer: ProducerId(number), ..batch(0, 0, 1) };
            table.record(identity, number, EntryTime(NOW.0 + number));
        }
        assert_eq!(table.forget_idle(NOW), [ProducerId(0)]);
        assert_eq!(table.len(), PRODUCERS_MAX);
    }
}
