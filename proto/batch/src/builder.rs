//! Makes a batch from records.
//!
//! Sizes are counted before compression, so a batch never comes out greater than the builder
//! said. If compression saves nothing, the records are written plain, and the header says so.

use bytes::Bytes;

use crate::codec;
use crate::header::{
    BASE_OFFSET, CHECKSUM, Compression, HEADER_BYTES, LEADER_EPOCH, LENGTH, LENGTH_PREFIX_BYTES,
    MAGIC, MAGIC_V2, ProducerIdentity, SEQUENCE_MAX,
};
use crate::limits::{BATCH_BYTES_MAX, HEADERS_MAX, RECORDS_MAX};
use crate::record::{self, Deltas, Record};
use crate::stored::checksum;

/// Collects the records of one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    bytes_max: usize,
    /// The records' bytes, not compressed.
    records: Vec<u8>,
    record_count: u32,
    header_count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// Why a record did not go into a batch. The builder is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The record fits a batch but not this one: build this and push into the next.
    #[error("the batch is full")]
    Full,
    /// The record alone is greater than a batch may be.
    #[error("record needs a batch of {batch_bytes} bytes, over the limit of {bytes_max}")]
    RecordTooLarge {
        /// Size of a batch with only this record, before compression.
        batch_bytes: usize,
        /// The builder's limit.
        bytes_max: usize,
    },
    /// The record alone has more headers than a batch may have.
    #[error("record has {header_count} headers, over the limit of {header_count_max}")]
    TooManyHeaders {
        /// Headers of the record.
        header_count: usize,
        /// The limit of a batch.
        header_count_max: u32,
    },
    /// A header's name is not UTF-8, which every reader expects.
    #[error("the name of header {index} is not UTF-8")]
    HeaderName {
        /// Place of the header in its record, from 0.
        index: usize,
    },
}

/// Why no batch was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A batch has at least one record.
    #[error("no record was pushed")]
    Empty,
    /// A number of the identity is beyond the width of its field.
    #[error("{producer:?} does not fit a batch: its id has 63 bits, epoch 15, sequence 31")]
    Producer {
        /// The identity as given.
        producer: ProducerIdentity,
    },
}

impl BatchBuilder {
    /// An empty batch of at most `bytes_max` bytes before compression, header included.
    ///
    /// More than [`BATCH_BYTES_MAX`] counts as that.
    #[must_use]
    pub fn new(compression: Compression, bytes_max: usize) -> BatchBuilder {
        BatchBuilder {
            compression,
            bytes_max: bytes_max.min(BATCH_BYTES_MAX),
            records: Vec::new(),
            record_count: 0,
            header_count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
        }
    }

    /// Adds `record` behind those already pushed.
    ///
    /// # Errors
    /// [`PushError::Full`] asks for another batch; the other errors are the record's own.
    pub fn push(&mut self, record: &Record) -> Result<(), PushError> {
        if let Some(index) =
            record.headers.iter().position(|header| std::str::from_utf8(&header.name).is_err())
        {
            return Err(PushError::HeaderName { index });
        }
        let header_count = check_header_count(record.headers.len())?;
        self.check_alone(record)?;

        let timestamp_ms = if self.is_empty() {
            Some(0)
        } else {
            // Two timestamps more than 2^63 ms apart cannot share a batch; apart they can.
            record.timestamp_ms.checked_sub(self.base_timestamp_ms)
        };
        let Some(timestamp_ms) = timestamp_ms else { return Err(PushError::Full) };
        let deltas = Deltas { timestamp_ms, offset: self.record_count };
        let body_bytes = record::body_bytes(record, deltas);
        let bytes_after = self.estimated_bytes().saturating_add(record::size_bytes(body_bytes));
        if bytes_after > self.bytes_max
            || self.record_count == RECORDS_MAX
            || header_count > HEADERS_MAX - self.header_count
        {
            return Err(PushError::Full);
        }

        record::write(record, deltas, body_bytes, &mut self.records);
        assert_eq!(self.estimated_bytes(), bytes_after, "a record's size and bytes disagree");
        if self.is_empty() {
            self.base_timestamp_ms = record.timestamp_ms;
            self.max_timestamp_ms = record.timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        self.record_count += 1;
        self.header_count += header_count;
        Ok(())
    }

    /// Size of the batch in bytes if it were built without compression: what it takes at most.
    #[must_use]
    pub fn estimated_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Records pushed so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether there is nothing to build yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The batch, with base offset 0 and no leader epoch: the log fills these in.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self, producer: Option<ProducerIdentity>) -> Result<Bytes, BuildError> {
        if self.is_empty() {
            return Err(BuildError::Empty);
        }
        let (id, epoch, sequence) = producer_fields(producer)?;
        let compressed = codec::compress(self.compression, &self.records);
        let compression = compressed.as_ref().map_or(Compression::None, |_| self.compression);
        let records = compressed.unwrap_or(self.records);

        let size_bytes = HEADER_BYTES + records.len();
        assert!(size_bytes <= BATCH_BYTES_MAX, "built {size_bytes} bytes, over the limit");
        let length =
            i32::try_from(size_bytes - LENGTH_PREFIX_BYTES).expect("a batch is within 8 MiB");
        let count = i32::try_from(self.record_count).expect("the record limit is below 2^31");
        let mut batch = Vec::with_capacity(size_bytes);
        batch.resize(CHECKSUM.end, 0);
        batch[BASE_OFFSET].copy_from_slice(&0_i64.to_be_bytes());
        batch[LENGTH].copy_from_slice(&length.to_be_bytes());
        batch[LEADER_EPOCH].copy_from_slice(&(-1_i32).to_be_bytes());
        batch[MAGIC] = MAGIC_V2;
        batch.extend_from_slice(&compression.number().to_be_bytes());
        batch.extend_from_slice(&(count - 1).to_be_bytes());
        batch.extend_from_slice(&self.base_timestamp_ms.to_be_bytes());
        batch.extend_from_slice(&self.max_timestamp_ms.to_be_bytes());
        batch.extend_from_slice(&id.to_be_bytes());
        batch.extend_from_slice(&epoch.to_be_bytes());
        batch.extend_from_slice(&sequence.to_be_bytes());
        batch.extend_from_slice(&count.to_be_bytes());
        assert_eq!(batch.len(), HEADER_BYTES, "the header has another size than its reader's");
        batch.extend_from_slice(&records);
        let sum = checksum(&batch);
        batch[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
        Ok(Bytes::from(batch))
    }

    /// Whether `record` could be the only one of a batch.
    fn check_alone(&self, record: &Record) -> Result<(), PushError> {
        let body_bytes = record::body_bytes(record, Deltas { timestamp_ms: 0, offset: 0 });
        let batch_bytes = record::size_bytes(body_bytes).saturating_add(HEADER_BYTES);
        if batch_bytes > self.bytes_max {
            return Err(PushError::RecordTooLarge { batch_bytes, bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

fn check_header_count(header_count: usize) -> Result<u32, PushError> {
    match u32::try_from(header_count) {
        Ok(count) if count <= HEADERS_MAX => Ok(count),
        _ => Err(PushError::TooManyHeaders { header_count, header_count_max: HEADERS_MAX }),
    }
}

/// The three fields of a producer as they are written; all -1 for none.
fn producer_fields(producer: Option<ProducerIdentity>) -> Result<(i64, i16, i32), BuildError> {
    let Some(producer) = producer else { return Ok((-1, -1, -1)) };
    let fields = (
        i64::try_from(producer.id),
        i16::try_from(producer.epoch),
        i32::try_from(producer.sequence_first),
    );
    match fields {
        (Ok(id), Ok(epoch), Ok(sequence)) => Ok((id, epoch, sequence)),
        _ => Err(BuildError::Producer { producer }),
    }
}

const _: () = assert!(SEQUENCE_MAX == 0x7fff_ffff, "a sequence fills a positive i32");
