//! What a node does with a batch that it never opens: check it, find its end, give it its place.
//!
//! The bytes stay the producer's. Only base offset and leader epoch are filled in, and they lie
//! before the part which the checksum covers, so the sum made by the producer still holds when
//! the consumer looks.
//!
//! Everything here is O(bytes) or better and allocates nothing.

use bytes::Bytes;

use crate::error::BatchError;
use crate::header::{
    BASE_OFFSET, BatchHeader, CHECKSUM_START, HEADER_BYTES, LEADER_EPOCH, LENGTH, MAGIC,
    claimed_size,
};

/// Checks that `batch` is exactly one whole, acceptable and undamaged batch.
///
/// # Errors
/// The first fault found: size and header first, the checksum last.
pub fn verify(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let size_bytes = header.size_bytes();
    if batch.len() < size_bytes {
        return Err(BatchError::Truncated { needed_bytes: size_bytes, actual_bytes: batch.len() });
    }
    if batch.len() > size_bytes {
        return Err(BatchError::BytesAfterBatch { extra_bytes: batch.len() - size_bytes });
    }
    let computed = checksum(batch);
    if computed != header.crc {
        return Err(BatchError::Checksum { stored: header.crc, computed });
    }
    Ok(header)
}

/// Gives a batch its place in the log. The checksum stays valid.
///
/// # Panics
/// If `batch` is shorter than a header, `base_offset` above 2^63-1 or `leader_epoch` above
/// 2^31-1: the caller has verified the one and gives out the others.
pub fn patch(batch: &mut [u8], base_offset: u64, leader_epoch: u32) {
    assert!(batch.len() >= HEADER_BYTES, "patched {} bytes, less than a header", batch.len());
    let base_offset = i64::try_from(base_offset).expect("offsets stay below 2^63");
    let leader_epoch = i32::try_from(leader_epoch).expect("leader epochs stay below 2^31");
    batch[BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
    batch[LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// The two stretches of a batch that [`patch`] leaves alone, in order: what a chain hash covers.
///
/// Equal for the batch as sent, as stored and as read at any place in any log.
///
/// # Panics
/// If `batch` is shorter than a header; the caller has verified it.
#[must_use]
pub fn content(batch: &[u8]) -> [&[u8]; 2] {
    assert!(batch.len() >= HEADER_BYTES, "content of {} bytes, less than a header", batch.len());
    [&batch[LENGTH], &batch[MAGIC..]]
}

/// Walks the batches of a record set that stand one behind the other, without copying them.
///
/// Only sizes and the format number are looked at: [`verify`] each batch before trusting it.
#[must_use]
pub fn split(record_set: Bytes) -> Batches {
    Batches { rest: record_set }
}

/// The batches of a record set; see [`split`]. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<Bytes, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = claimed_size(&self.rest).and_then(|size_bytes| {
            if self.rest.len() < size_bytes {
                return Err(BatchError::Truncated {
                    needed_bytes: size_bytes,
                    actual_bytes: self.rest.len(),
                });
            }
            Ok(self.rest.split_to(size_bytes))
        });
        if batch.is_err() {
            // Where the next batch would start is not known any more.
            self.rest.clear();
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for Batches {}

/// CRC-32C of the part which the stored sum covers. `batch` holds at least a header.
pub(crate) fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[CHECKSUM_START..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BATCH_BYTES_MAX, BatchBuilder, Compression, Record};

    fn batch(value: &'static [u8]) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
        let value = Some(Bytes::from_static(value));
        builder.push(&Record { value, ..Record::default() }).expect("a small record fits");
        builder.build(None).expect("one record")
    }

    #[test]
    fn a_patched_batch_is_valid_and_has_the_same_content() {
        let sent = batch(b"placed");
        let mut stored = sent.to_vec();
        patch(&mut stored, 1_000_000, 9);

        let header = verify(&stored).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (1_000_000, 9));
        assert_eq!(content(&stored), content(&sent));
        assert_ne!(stored, sent);
    }

    #[test]
    fn exactly_one_whole_batch_is_verified() {
        let mut bytes = batch(b"placed").to_vec();
        let size_bytes = bytes.len();
        let cut =
            Err(BatchError::Truncated { needed_bytes: size_bytes, actual_bytes: size_bytes - 1 });
        assert_eq!(verify(&bytes[..size_bytes - 1]), cut);
        bytes.push(0);
        assert_eq!(verify(&bytes), Err(BatchError::BytesAfterBatch { extra_bytes: 1 }));
    }

    #[test]
    fn batches_are_split_without_copying_them() {
        let [first, second] = [batch(b"placed"), batch(b"shipped")];
        let set = Bytes::from([first.as_ref(), second.as_ref()].concat());
        let found: Vec<Bytes> = split(set.clone()).map(Result::unwrap).collect();
        assert_eq!(found, [first, second]);
        assert_eq!(found[0].as_ptr(), set.as_ptr());
    }

    #[test]
    fn a_torn_tail_is_an_error_after_the_whole_batches_and_the_end() {
        let whole = batch(b"placed");
        for torn_bytes in [1, 11, 12, 16, 17, 60, whole.len() - 1] {
            let set = Bytes::from([whole.as_ref(), &whole[..torn_bytes]].concat());
            let mut batches = split(set);
            assert_eq!(batches.next(), Some(Ok(whole.clone())));
            let tail = batches.next().expect("bytes are left");
            assert!(matches!(tail, Err(BatchError::Truncated { .. })), "{torn_bytes}: {tail:?}");
            assert_eq!(batches.next(), None);
        }
    }
}
