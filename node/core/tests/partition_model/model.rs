//! The naive model: it remembers every accepted batch, and looks through all of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use node_core::ids::ProducerEpoch;
use node_core::limits::{PRODUCER_BATCHES_REMEMBERED, PRODUCER_IDLE_MS};
use node_core::partition::{BatchOutcome, ChainHash};

/// Sequences run in a circle of this many.
pub(crate) const CIRCLE: u64 = 1 << 31;

/// Who sends a batch: id, epoch and first sequence.
pub(crate) type Sender = (u64, u16, u64);

/// A batch as apply sees it: a header and some bytes. What the records are, apply never asks.
fn batch(sender: Option<Sender>, records: u32, timestamp: i64, filler: u8) -> Bytes {
    let mut batch = vec![filler; 61 + usize::from(filler % 40)];
    let (id, epoch, sequence) = sender.unwrap_or((u64::MAX, 0, 0));
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[23..27].copy_from_slice(&(records - 1).to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
    batch[43..51].copy_from_slice(&id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&u32::try_from(sequence).unwrap().to_be_bytes());
    batch[57..61].copy_from_slice(&records.to_be_bytes());
    batch.into()
}

/// Everything that was ever accepted, and what follows from it by looking through all of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Base offset and bytes of each accepted batch.
    pub(crate) log: Vec<(u64, Bytes)>,
    pub(crate) next_offset: u64,
    pub(crate) timestamp_max: Option<i64>,
    pub(crate) time: u64,
    pub(crate) producers: BTreeMap<u64, ModelProducer>,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelProducer {
    pub(crate) epoch: u16,
    last_use_ms: u64,
    /// Of this epoch: first sequence counted from 0 without wrapping, records, base offset.
    pub(crate) batches: Vec<(u64, u32, u64)>,
}

impl ModelProducer {
    pub(crate) fn sequence_end(&self) -> u64 {
        self.batches.last().map_or(0, |(first, records, _)| first + u64::from(*records))
    }

    fn judge(&self, sequence: u64, records: u32) -> Option<BatchOutcome> {
        let end = self.sequence_end();
        let expected = u32::try_from(end % CIRCLE).unwrap();
        let out_of_order = BatchOutcome::OutOfOrder { sequence_expected: expected };
        let behind = (end + CIRCLE - sequence) % CIRCLE;
        if behind == 0 {
            return None;
        }
        if behind >= CIRCLE / 2 || behind > end {
            return Some(out_of_order);
        }
        let first = end - behind;
        let window = self.batches.len().saturating_sub(PRODUCER_BATCHES_REMEMBERED);
        let remembered = &self.batches[window..];
        if let Some(same) = remembered.iter().find(|known| (known.0, known.1) == (first, records)) {
            return Some(BatchOutcome::Duplicate { base_offset: Some(same.2) });
        }
        if first + u64::from(records) <= remembered[0].0 {
            return Some(BatchOutcome::Duplicate { base_offset: None });
        }
        Some(out_of_order)
    }
}

impl Model {
    pub(crate) fn judge(&self, sender: Sender, records: u32) -> Option<BatchOutcome> {
        let (id, epoch, sequence) = sender;
        let Some(producer) = self.producers.get(&id) else {
            return (sequence != 0).then_some(BatchOutcome::UnknownProducer);
        };
        if epoch < producer.epoch {
            let epoch_current = ProducerEpoch(producer.epoch);
            return Some(BatchOutcome::Fenced { epoch_current });
        }
        if epoch > producer.epoch {
            let out_of_order = BatchOutcome::OutOfOrder { sequence_expected: 0 };
            return (sequence != 0).then_some(out_of_order);
        }
        producer.judge(sequence, records)
    }

    pub(crate) fn apply_batch(&mut self, wanted: &Wanted) -> BatchOutcome {
        if let Some(sender) = wanted.sender
            && let Some(outcome) = self.judge(sender, wanted.records)
        {
            return outcome;
        }
        let base_offset = self.next_offset;
        if wanted.expect_end_offset.is_some_and(|expected| expected != base_offset) {
            return BatchOutcome::Conflict { end_offset: base_offset };
        }
        if let Some((id, epoch, _)) = wanted.sender {
            let new = ModelProducer { epoch, last_use_ms: 0, batches: Vec::new() };
            let producer = self.producers.entry(id).or_insert(new);
            if producer.epoch != epoch {
                producer.epoch = epoch;
                producer.batches.clear();
            }
            producer.last_use_ms = self.time >> 16;
            let first = producer.sequence_end();
            producer.batches.push((first, wanted.records, base_offset));
        }
        self.log.push((base_offset, wanted.bytes()));
        self.next_offset += u64::from(wanted.records);
        self.timestamp_max = self.timestamp_max.max(Some(wanted.timestamp));
        BatchOutcome::Appended { base_offset }
    }

    pub(crate) fn end_entry(&mut self) {
        let now_ms = self.time >> 16;
        self.producers.retain(|_, producer| now_ms - producer.last_use_ms < PRODUCER_IDLE_MS);
    }

    pub(crate) fn chain_hash(&self) -> ChainHash {
        let link = |hash: ChainHash, (offset, bytes): &(u64, Bytes)| hash.after(*offset, bytes);
        self.log.iter().fold(ChainHash::default(), link)
    }
}

/// One batch of a random entry.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) sender: Option<Sender>,
    pub(crate) records: u32,
    pub(crate) timestamp: i64,
    pub(crate) filler: u8,
    pub(crate) expect_end_offset: Option<u64>,
}

impl Wanted {
    pub(crate) fn bytes(&self) -> Bytes {
        batch(self.sender, self.records, self.timestamp, self.filler)
    }
}
