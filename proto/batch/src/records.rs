//! Opens a batch: the checksum first, then the records one by one, in order.
//!
//! Without compression the records share the memory of the batch. Memory is spent on what is
//! found, never on what a count claims.

use bytes::Bytes;

use crate::codec;
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_BYTES};
use crate::record::{self, OffsetRecord, Place};
use crate::stored::verify;

/// Checks `batch` as [`verify`] does and begins to read its records.
///
/// A fetch from the middle of a batch brings the whole batch; skip what lies before.
///
/// # Errors
/// The faults of [`verify`], and records that cannot be decompressed.
pub fn records(batch: Bytes) -> Result<Records, BatchError> {
    let header = verify(&batch)?;
    let body = codec::decompress(header.compression, batch.slice(HEADER_BYTES..))?;
    Ok(Records { header, body, at: 0, index: 0, header_count: 0, failed: false })
}

/// All records of `batch`. They are few enough to hold: see the limits.
///
/// # Errors
/// The first fault of the batch or of a record; then none of them is given out.
pub fn decode(batch: Bytes) -> Result<Vec<OffsetRecord>, BatchError> {
    records(batch)?.collect()
}

/// The records of one batch; see [`records`]. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
    /// Where the next record begins in `body`.
    at: usize,
    /// Which record is next.
    index: u32,
    /// Headers of all records so far.
    header_count: u32,
    failed: bool,
}

impl Records {
    /// The header of the batch.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
}

impl Iterator for Records {
    type Item = Result<OffsetRecord, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.header.record_count {
            let extra_bytes = self.body.len() - self.at;
            self.failed = extra_bytes > 0;
            return self.failed.then_some(Err(BatchError::BytesAfterRecords { extra_bytes }));
        }
        let place = Place {
            start: self.at,
            index: self.index,
            base_timestamp_ms: self.header.base_timestamp_ms,
            header_count: self.header_count,
        };
        Some(match record::read(&self.body, place) {
            Ok((record, end)) => {
                let offset = self.header.base_offset + u64::from(self.index);
                let headers = u32::try_from(record.headers.len()).unwrap_or(u32::MAX);
                self.header_count = self.header_count.saturating_add(headers);
                self.at = end;
                self.index += 1;
                Ok(OffsetRecord { offset, record })
            }
            Err(fault) => {
                self.failed = true;
                Err(BatchError::Record { index: self.index, fault })
            }
        })
    }
}

impl std::iter::FusedIterator for Records {}
