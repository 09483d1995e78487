//! What apply reads of a record batch.
//!
//! Not `BatchHeader::parse`: that is the rule for what a node takes in, and it may grow with a
//! version (another codec, say). Apply must judge the same entry the same way on nodes of
//! different versions, so it looks only at the fields it needs, and its rule never changes.

use quipu_batch::{HEADER_BYTES, LENGTH_PREFIX_BYTES, SEQUENCE_MAX};

use super::producers::BatchIdentity;
use crate::ids::{ProducerEpoch, ProducerId};
use crate::limits::BATCH_RECORDS_MAX;

/// The facts of one well-formed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchFacts {
    /// 1 to [`BATCH_RECORDS_MAX`].
    pub(super) record_count: u32,
    /// Greatest timestamp of a record, by the producer's clock.
    pub(super) timestamp_max: i64,
    /// `None`: the producer does not ask for idempotence.
    pub(super) identity: Option<BatchIdentity>,
}

/// Reads the facts; `None` where the bytes are not one whole batch. The edge checks every batch
/// before it is proposed, so that is another node's fault, and the batch is not appended.
pub(super) fn batch_facts(batch: &[u8]) -> Option<BatchFacts> {
    let header = batch.first_chunk::<HEADER_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(field(header, 8))).ok()?;
    if length.checked_add(LENGTH_PREFIX_BYTES)? != batch.len() {
        return None;
    }
    let record_count = u32::from_be_bytes(field(header, 57));
    if !(1..=BATCH_RECORDS_MAX).contains(&record_count) {
        return None;
    }
    if u32::from_be_bytes(field(header, 23)) != record_count - 1 {
        return None;
    }
    let identity = match i64::from_be_bytes(field(header, 43)) {
        -1 => None,
        id => Some(BatchIdentity {
            producer: ProducerId(u64::try_from(id).ok()?),
            epoch: ProducerEpoch(u16::try_from(i16::from_be_bytes(field(header, 51))).ok()?),
            sequence_first: sequence(u32::from_be_bytes(field(header, 53)))?,
            record_count,
        }),
    };
    let timestamp_max = i64::from_be_bytes(field(header, 35));
    Some(BatchFacts { record_count, timestamp_max, identity })
}

fn sequence(value: u32) -> Option<u32> {
    (value <= SEQUENCE_MAX).then_some(value)
}

/// The `N` bytes at `start`, a constant within the header at every call.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], start: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[start..start + N]);
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quipu_batch::{
        BATCH_BYTES_MAX, BatchBuilder, BatchHeader, Compression, ProducerIdentity, RECORDS_MAX,
        Record,
    };

    use super::*;

    const _: () = assert!(BATCH_RECORDS_MAX >= RECORDS_MAX);

    fn batch(producer: Option<ProducerIdentity>, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
        for _ in 0..records {
            builder.push(&Record::default()).expect("an empty record fits");
        }
        builder.build(producer).expect("records").to_vec()
    }

    #[test]
    fn the_facts_are_those_of_the_header() {
        let producer = ProducerIdentity { id: 9, epoch: 2, sequence_first: 40 };
        let facts = batch_facts(&batch(Some(producer), 3)).expect("a whole batch");
        let identity = BatchIdentity {
            producer: ProducerId(9),
            epoch: ProducerEpoch(2),
            sequence_first: 40,
            record_count: 3,
        };
        assert_eq!(facts.record_count, 3);
        assert_eq!(facts.identity, Some(identity));
        assert_eq!(batch_facts(&batch(None, 1)).expect("a whole batch").identity, None);
    }

    #[test]
    fn a_cut_or_lengthened_batch_has_no_facts() {
        let mut bytes = batch(None, 2);
        bytes.push(0);
        assert_eq!(batch_facts(&bytes), None);
        assert_eq!(batch_facts(&bytes[..bytes.len() - 2]), None);
        assert_eq!(batch_facts(&[]), None);
    }

    proptest! {
        // What the edge lets in must never be rejected as malformed by apply.
        #[test]
        fn every_header_the_edge_accepts_has_facts(
            at in 8_usize..61,
            value in any::<[u8; 4]>(),
            records in 1_usize..4,
        ) {
            let producer = ProducerIdentity { id: 9, epoch: 2, sequence_first: 40 };
            let mut bytes = batch(Some(producer), records);
            let end = (at + 4).min(61);
            bytes[at..end].copy_from_slice(&value[..end - at]);
            if let Ok(header) = BatchHeader::parse(&bytes)
                && header.size_bytes() == bytes.len()
            {
                let facts = batch_facts(&bytes).expect("accepted by the edge");
                prop_assert_eq!(facts.record_count, header.record_count);
                prop_assert_eq!(facts.timestamp_max, header.max_timestamp_ms);
                let read = facts.identity.map(|i| (i.producer.0, i.epoch.0, i.sequence_first));
                let parsed = header.producer().map(|p| (p.id, p.epoch, p.sequence_first));
                prop_assert_eq!(read, parsed);
            }
        }
    }
}
