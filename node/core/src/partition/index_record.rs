//! What the index keeps of one entry: where its accepted batches are and which offsets they have.
//!
//! Batches that apply rejected stay in the entry's payload, since a Raft entry can't be changed,
//! but no reader ever sees them: fetch, chain hash and checks go by the index record. An entry
//! with no accepted batch has none.
//!
//! The layout is in `docs/formats/checkpoints.md`.

use std::ops::Range;

use bytes::Bytes;

use super::chain_hash::ChainHash;
use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::{BATCH_RECORDS_MAX, ENTRY_BATCHES_MAX, ENTRY_BYTES_MAX, OFFSET_MAX};
use crate::position::RaftPosition;
use crate::time::EntryTime;

const VERSION: u8 = 1;
const ROW_BYTES: usize = 2 + 4 + 4 + 4;

/// The accepted batches of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRecord {
    /// Offset of the first record of the first accepted batch.
    pub base_offset: u64,
    /// The entry. Its term is the leader epoch of its batches.
    pub position: RaftPosition,
    /// The log's time at this entry; never falls from one record to the next.
    pub time: EntryTime,
    /// Greatest record timestamp of the partition up to and with this entry, by the producers'
    /// clocks, in milliseconds since 1970. Never falls, so the first record at or after an event
    /// time is found by bisection.
    pub timestamp_max: i64,
    /// Chain hash after this entry's last accepted batch.
    pub chain_hash: ChainHash,
    /// Size of the entry's payload.
    pub payload_bytes: u32,
    /// In the order of their offsets, at least one.
    pub batches: Vec<IndexedBatch>,
}

/// One accepted batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedBatch {
    /// Place among all batches of the entry, from 0.
    pub position_in_entry: u32,
    /// Records; the next batch's base offset is so much higher.
    pub records: u32,
    /// Where the batch starts in the entry's payload.
    pub start: u32,
    /// Size of the batch.
    pub bytes: u32,
}

impl IndexRecord {
    /// The offset after the entry's last record.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        let records: u64 = self.batches.iter().map(|batch| u64::from(batch.records)).sum();
        self.base_offset + records
    }

    /// The accepted batches, each with its base offset.
    pub fn batches_with_offsets(&self) -> impl Iterator<Item = (u64, IndexedBatch)> {
        let mut base_offset = self.base_offset;
        self.batches.iter().map(move |batch| {
            let placed = (base_offset, *batch);
            base_offset += u64::from(batch.records);
            placed
        })
    }

    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(67 + self.batches.len() * ROW_BYTES);
        writer.u8(VERSION);
        writer.u64(self.base_offset);
        self.position.write(&mut writer);
        writer.u64(self.time.0);
        writer.i64(self.timestamp_max);
        self.chain_hash.write(&mut writer);
        writer.u32(self.payload_bytes);
        writer.count(self.batches.len());
        for batch in &self.batches {
            let position = u16::try_from(batch.position_in_entry);
            writer.u16(position.expect("an entry has at most ENTRY_BATCHES_MAX batches"));
            writer.u32(batch.records);
            writer.u32(batch.start);
            writer.u32(batch.bytes);
        }
        writer.finish()
    }

    /// Reads what [`IndexRecord::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<IndexRecord, DecodeError> {
        let mut reader = Reader::new("index record", bytes);
        reader.version(VERSION)?;
        let base_offset = reader.u64()?;
        let mut record = IndexRecord {
            base_offset,
            position: RaftPosition::read(&mut reader)?,
            time: EntryTime(reader.u64()?),
            timestamp_max: reader.i64()?,
            chain_hash: ChainHash::read(&mut reader)?,
            payload_bytes: reader.u32()?,
            batches: Vec::new(),
        };
        let count = reader.count(ENTRY_BATCHES_MAX, ROW_BYTES)?;
        record.batches.reserve_exact(count);
        for _ in 0..count {
            record.batches.push(IndexedBatch {
                position_in_entry: u32::from(reader.u16()?),
                records: reader.u32()?,
                start: reader.u32()?,
                bytes: reader.u32()?,
            });
        }
        record.check(&reader)?;
        reader.finish()?;
        Ok(record)
    }

    /// What later code relies on: it slices payloads and adds up offsets unchecked.
    fn check(&self, reader: &Reader) -> Result<(), DecodeError> {
        if self.base_offset > OFFSET_MAX {
            return Err(reader.invalid("an offset is out of range"));
        }
        if usize::try_from(self.payload_bytes).map_or(true, |bytes| bytes > ENTRY_BYTES_MAX) {
            return Err(reader.invalid("a payload is over the limit"));
        }
        if self.batches.is_empty() {
            return Err(reader.invalid("an indexed entry has no batch"));
        }
        let mut position_min = 0;
        let mut start_min = 0;
        for batch in &self.batches {
            if batch.position_in_entry < position_min || batch.start < start_min {
                return Err(reader.invalid("batches are not in order"));
            }
            if !(1..=BATCH_RECORDS_MAX).contains(&batch.records) {
                return Err(reader.invalid("a batch has no record, or too many"));
            }
            match batch.start.checked_add(batch.bytes) {
                Some(end) if end <= self.payload_bytes => start_min = end,
                _ => return Err(reader.invalid("a batch ends after its entry")),
            }
            position_min = batch.position_in_entry + 1;
        }
        Ok(())
    }
}

impl IndexedBatch {
    /// Where the batch stands in the entry's payload.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        let start = usize::try_from(self.start).expect("a usize has at least 32 bits");
        let length = usize::try_from(self.bytes).expect("a usize has at least 32 bits");
        start..start + length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_record()(
            base_offset in 0..OFFSET_MAX,
            term in any::<u64>(),
            index in any::<u64>(),
            time in any::<u64>(),
            timestamp_max in any::<i64>(),
            chain_hash in any::<[u8; 16]>(),
            rows in proptest::collection::vec((1_u32..5, 1_u32..100, 0_u32..50, 0_u32..500), 1..9),
            rest in 0_u32..100,
        ) -> IndexRecord {
            let (mut position, mut end) = (0, 14);
            let mut batches = Vec::new();
            for (skipped, records, gap, bytes) in rows {
                position += skipped;
                let start = end + gap;
                batches.push(IndexedBatch { position_in_entry: position, records, start, bytes });
                end = start + bytes;
            }
            IndexRecord {
                base_offset,
                position: RaftPosition { term, index },
                time: EntryTime(time),
                timestamp_max,
                chain_hash: ChainHash(chain_hash),
                payload_bytes: end + rest,
                batches,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(record in any_record()) {
            prop_assert_eq!(IndexRecord::decode(record.encode()), Ok(record));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            valid_version in any::<bool>(),
        ) {
            if let (Some(version), true) = (bytes.first_mut(), valid_version) {
                *version = VERSION;
            }
            if let Ok(record) = IndexRecord::decode(bytes.into()) {
                prop_assert!(record.next_offset() > record.base_offset);
            }
        }

        #[test]
        fn a_changed_byte_gives_an_error_or_a_usable_record(
            record in any_record(),
            place in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            let mut bytes = record.encode().to_vec();
            let place = place.index(bytes.len());
            bytes[place] = value;
            if let Ok(record) = IndexRecord::decode(bytes.into()) {
                let payload = vec![0; record.payload_bytes as usize];
                for (_, batch) in record.batches_with_offsets() {
                    let _ = &payload[batch.range()];
                }
            }
        }
    }

    #[test]
    fn base_offsets_follow_from_the_records_before() {
        let batch = |position_in_entry, records| IndexedBatch {
            position_in_entry,
            records,
            start: 20,
            bytes: 0,
        };
        let record = IndexRecord {
            base_offset: 100,
            position: RaftPosition { term: 1, index: 1 },
            time: EntryTime(0),
            timestamp_max: 0,
            chain_hash: ChainHash::default(),
            payload_bytes: 20,
            batches: vec![batch(0, 3), batch(2, 5)],
        };
        let offsets: Vec<u64> = record.batches_with_offsets().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [100, 103]);
        assert_eq!(record.next_offset(), 108);
    }
}
