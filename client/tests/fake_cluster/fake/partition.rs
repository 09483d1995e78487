//! One partition: what the log promises of appends and reads, without replication.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;

use super::{final_refusal, refusal};

#[derive(Default)]
pub(crate) struct FakePartition {
    pub(crate) leader: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) log_start: u64,
    /// What a replica that lags would say; the log itself ends at `end`.
    pub(crate) high_watermark_shown: Option<u64>,
    batches: Vec<(u64, u32, Bytes)>,
    producers: BTreeMap<u64, FakeProducer>,
}

#[derive(Default)]
struct FakeProducer {
    sequence_expected: u32,
    /// First sequence to base offset.
    taken: BTreeMap<u32, u64>,
}

impl FakePartition {
    pub(crate) fn led_by(node: u64) -> FakePartition {
        FakePartition { leader: Some(node), epoch: 1, ..FakePartition::default() }
    }

    pub(crate) fn end(&self) -> u64 {
        self.batches.last().map_or(0, |(base, count, _)| base + u64::from(*count))
    }

    /// Forgets all producers, as a partition does after a long time.
    pub(crate) fn forget_producers(&mut self) {
        self.producers.clear();
    }

    pub(crate) fn producers(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn batch_sizes(&self) -> Vec<u32> {
        self.batches.iter().map(|(_, count, _)| *count).collect()
    }

    /// Damages the stored bytes of the batch that begins at `base`.
    pub(crate) fn damage(&mut self, base: u64) {
        let (_, _, batch) = self.batches.iter_mut().find(|batch| batch.0 == base).unwrap();
        let mut bytes = BytesMut::from(&batch[..]);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        *batch = bytes.freeze();
    }

    /// Loses the batch that begins at `base`.
    pub(crate) fn lose(&mut self, base: u64) {
        self.batches.retain(|batch| batch.0 != base);
    }

    pub(crate) fn values(&self) -> Vec<String> {
        let records = self.batches.iter().flat_map(|(_, _, batch)| {
            quipu_batch::decode(batch.clone()).expect("verified when it came")
        });
        let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("tests write text");
        records.map(|one| one.record.value.map(text).unwrap_or_default()).collect()
    }

    /// Appends a batch for each value.
    pub(crate) fn fill(&mut self, values: &[&str]) {
        for value in values {
            self.add(value);
        }
    }

    /// Appends a batch of one record, as another client would.
    pub(crate) fn add(&mut self, value: &str) {
        let mut builder = quipu_batch::BatchBuilder::new(quipu_batch::Compression::None, 1 << 20);
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        builder.push(&quipu_batch::Record { value, ..Default::default() }).unwrap();
        let batch = builder.build(None).unwrap();
        let request = v1::AppendRequest { batch, ..Default::default() };
        self.append(&request).expect("no condition");
    }

    pub(crate) fn append(
        &mut self,
        request: &v1::AppendRequest,
    ) -> Result<v1::AppendResponse, v1::Error> {
        let header = quipu_batch::verify(&request.batch).map_err(|error| v1::Error {
            message: error.to_string(),
            ..final_refusal(ErrorCode::BatchCorrupt)
        })?;
        let base_offset = self.end();
        if let Some(identity) = header.producer() {
            if let Some(base) = self.dedupe(identity)? {
                return Ok(self.answer(base, true));
            }
            self.check_condition(request, base_offset)?;
            let producer = self.producers.entry(identity.id).or_default();
            producer.taken.insert(identity.sequence_first, base_offset);
            producer.sequence_expected = identity.sequence_next(header.records());
        } else {
            self.check_condition(request, base_offset)?;
        }
        let mut batch = BytesMut::from(&request.batch[..]);
        let epoch = u32::try_from(self.epoch).expect("tests elect seldom");
        quipu_batch::patch(&mut batch, base_offset, epoch);
        self.batches.push((base_offset, header.records(), batch.freeze()));
        Ok(self.answer(base_offset, false))
    }

    fn answer(&self, base: u64, duplicate: bool) -> v1::AppendResponse {
        v1::AppendResponse {
            base_offset: Some(base),
            duplicate,
            leader_epoch: self.epoch,
            entry_time_ms: 1,
        }
    }

    fn dedupe(&self, identity: quipu_batch::ProducerIdentity) -> Result<Option<u64>, v1::Error> {
        let sequence = identity.sequence_first;
        let Some(producer) = self.producers.get(&identity.id) else {
            return match sequence {
                0 => Ok(None),
                _ => Err(final_refusal(ErrorCode::UnknownProducer)),
            };
        };
        if let Some(base) = producer.taken.get(&sequence) {
            return Ok(Some(*base));
        }
        if sequence != producer.sequence_expected {
            return Err(v1::Error {
                sequence_expected: Some(producer.sequence_expected),
                ..refusal(ErrorCode::SequenceOutOfOrder)
            });
        }
        Ok(None)
    }

    fn check_condition(&self, request: &v1::AppendRequest, end: u64) -> Result<(), v1::Error> {
        match request.expect_end_offset {
            Some(expected) if expected != end => Err(v1::Error {
                end_offset: Some(end),
                ..final_refusal(ErrorCode::EndOffsetConflict)
            }),
            _ => Ok(()),
        }
    }

    /// At most one batch, so that tests see many fetches.
    pub(crate) fn read(&self, offset: u64) -> Result<v1::FetchResponse, v1::Error> {
        let high_watermark = self.high_watermark_shown.unwrap_or(self.end());
        if !(self.log_start..=high_watermark).contains(&offset) {
            return Err(v1::Error {
                log_start_offset: Some(self.log_start),
                high_watermark: Some(high_watermark),
                ..final_refusal(ErrorCode::OffsetOutOfRange)
            });
        }
        let found = self.batches.iter().find(|(base, count, _)| base + u64::from(*count) > offset);
        let found = found.filter(|(base, _, _)| *base < high_watermark);
        Ok(v1::FetchResponse {
            record_set: found.map(|(_, _, batch)| batch.clone()).unwrap_or_default(),
            next_offset: found.map_or(offset, |(base, count, _)| base + u64::from(*count)),
            log_start_offset: self.log_start,
            high_watermark,
            staleness_ms: Some(0),
            served_by: self.leader.unwrap_or(0),
        })
    }
}
