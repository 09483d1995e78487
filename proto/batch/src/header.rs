//! The 61 bytes before the records: all that a node must know of a batch without opening it.
//!
//! Field by field as in Kafka (`org.apache.kafka.common.record.DefaultRecordBatch`), big-endian.
//! A header that parses is one that we accept: what later code would have to doubt (codec, counts,
//! the range of offsets, who produced it) is refused here.
//!
//! Not here: the checksum, which needs the whole batch (`stored`), and the records (`records`).

use std::fmt;
use std::ops::Range;

use crate::error::BatchError;
use crate::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MIN, RECORDS_MAX};

/// Size of the header in bytes. The records start here.
pub const HEADER_BYTES: usize = 61;

/// Bytes before those which the length field counts: base offset and the length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;

/// The checksum covers everything from this byte to the end of the batch.
///
/// Base offset, length, leader epoch, magic and the checksum itself lie before it.
pub const CHECKSUM_START: usize = 21;

/// Greatest sequence of a record; the next one is 0.
pub const SEQUENCE_MAX: u32 = 0x7fff_ffff;

pub(crate) const BASE_OFFSET: Range<usize> = 0..8;
pub(crate) const LENGTH: Range<usize> = 8..12;
pub(crate) const LEADER_EPOCH: Range<usize> = 12..16;
pub(crate) const MAGIC: usize = 16;
pub(crate) const CHECKSUM: Range<usize> = 17..21;
pub(crate) const MAGIC_V2: u8 = 2;

const CODEC_MASK: u16 = 0b111;
const LOG_APPEND_TIME: u16 = 1 << 3;
const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;
const KNOWN_ATTRIBUTES: u16 = CODEC_MASK | LOG_APPEND_TIME | TRANSACTIONAL | CONTROL;

/// The header of an acceptable batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, at most 2^63-1. Means nothing until apply has given it.
    pub base_offset: u64,
    /// Bytes behind the length field. See [`BatchHeader::size_bytes`] for the whole.
    pub batch_length: u32,
    /// Term under which the batch was appended; -1 in what a producer sends.
    pub partition_leader_epoch: i32,
    /// CRC-32C of the bytes from [`CHECKSUM_START`] on, as stored; `verify` compares it.
    pub crc: u32,
    /// How the records are compressed.
    pub compression: Compression,
    /// Offset of the last record less the base offset; always `record_count - 1`.
    pub last_offset_delta: u32,
    /// Timestamp of the first record, in milliseconds since 1970, by the producer's clock.
    pub base_timestamp_ms: i64,
    /// Greatest timestamp of the records, as the producer claims.
    pub max_timestamp_ms: i64,
    /// Records in the batch, at least one.
    pub record_count: u32,
    producer: Option<ProducerIdentity>,
}

/// Who produced a batch and its place in that producer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerIdentity {
    /// Given by the cluster, at most 2^63-1.
    pub id: u64,
    /// Fences earlier sessions of the same producer; at most 2^15-1.
    pub epoch: u16,
    /// Sequence of the first record, at most [`SEQUENCE_MAX`]. Each record takes one.
    pub sequence_first: u32,
}

/// How the records of a batch are compressed. The header never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// An LZ4 frame.
    Lz4,
    /// A Zstandard frame.
    Zstd,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. The records need not be present.
    ///
    /// # Errors
    /// Every fault that the header alone can show; see [`BatchError`].
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let size_bytes = claimed_size(bytes)?;
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                needed_bytes: HEADER_BYTES,
                actual_bytes: bytes.len(),
            });
        };
        let compression = check_attributes(u16::from_be_bytes(field(header, 21)))?;
        let record_count = check_record_count(
            i32::from_be_bytes(field(header, 57)),
            i32::from_be_bytes(field(header, 23)),
        )?;
        let records_bytes = size_bytes - HEADER_BYTES;
        let room_for_records = records_bytes / RECORD_BYTES_MIN;
        if compression == Compression::None && count_to_usize(record_count) > room_for_records {
            return Err(BatchError::TooManyRecordsForSize { record_count, records_bytes });
        }
        let last_offset_delta = record_count - 1;
        Ok(BatchHeader {
            base_offset: check_base_offset(
                i64::from_be_bytes(field(header, BASE_OFFSET.start)),
                last_offset_delta,
            )?,
            batch_length: u32::from_be_bytes(field(header, LENGTH.start)),
            partition_leader_epoch: i32::from_be_bytes(field(header, LEADER_EPOCH.start)),
            crc: u32::from_be_bytes(field(header, CHECKSUM.start)),
            compression,
            last_offset_delta,
            base_timestamp_ms: i64::from_be_bytes(field(header, 27)),
            max_timestamp_ms: i64::from_be_bytes(field(header, 35)),
            record_count,
            producer: check_producer(
                i64::from_be_bytes(field(header, 43)),
                i16::from_be_bytes(field(header, 51)),
                i32::from_be_bytes(field(header, 53)),
            )?,
        })
    }

    /// Size of the whole batch in bytes, header and all.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        count_to_usize(self.batch_length) + LENGTH_PREFIX_BYTES
    }

    /// Records in the batch, at least one.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.record_count
    }

    /// The producer's identity; `None` for a producer that is not idempotent.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerIdentity> {
        self.producer
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_offset_delta)
    }
}

impl ProducerIdentity {
    /// The sequence that this producer's next batch starts with.
    #[must_use]
    pub fn sequence_next(&self, record_count: u32) -> u32 {
        sequence_add(self.sequence_first, record_count)
    }
}

impl Compression {
    /// The number in the lowest three bits of the attributes.
    pub(crate) fn number(self) -> u16 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

/// The sequence `count` records after `sequence`. After 2^31-1 comes 0, as in Kafka.
#[must_use]
pub fn sequence_add(sequence: u32, count: u32) -> u32 {
    // 2^31 divides 2^32, so wrapping at 32 bits first changes nothing.
    sequence.wrapping_add(count) & SEQUENCE_MAX
}

/// Size of the whole batch as its first bytes claim; within limits, not compared with `bytes`.
///
/// Looks at the magic first where it can: the formats before version 2 keep it in the same place,
/// and their sender should hear of the format and not of a wrong length.
pub(crate) fn claimed_size(bytes: &[u8]) -> Result<usize, BatchError> {
    if let Some(&magic) = bytes.get(MAGIC)
        && magic != MAGIC_V2
    {
        return Err(BatchError::UnsupportedMagic { magic: magic.cast_signed() });
    }
    let Some(prefix) = bytes.first_chunk::<LENGTH_PREFIX_BYTES>() else {
        return Err(BatchError::Truncated {
            needed_bytes: HEADER_BYTES,
            actual_bytes: bytes.len(),
        });
    };
    let length = i32::from_be_bytes(field(prefix, LENGTH.start));
    let length_min = HEADER_BYTES - LENGTH_PREFIX_BYTES;
    let length_max = BATCH_BYTES_MAX - LENGTH_PREFIX_BYTES;
    match usize::try_from(length) {
        Ok(bytes) if (length_min..=length_max).contains(&bytes) => Ok(bytes + LENGTH_PREFIX_BYTES),
        _ => Err(BatchError::Length { length, length_min, length_max }),
    }
}

fn check_attributes(attributes: u16) -> Result<Compression, BatchError> {
    let bits = attributes & !KNOWN_ATTRIBUTES;
    if bits != 0 {
        return Err(BatchError::UnknownAttributes { bits });
    }
    if attributes & CONTROL != 0 {
        return Err(BatchError::Control);
    }
    if attributes & TRANSACTIONAL != 0 {
        return Err(BatchError::Transactional);
    }
    if attributes & LOG_APPEND_TIME != 0 {
        return Err(BatchError::LogAppendTime);
    }
    match attributes & CODEC_MASK {
        0 => Ok(Compression::None),
        1 => Err(BatchError::UnsupportedCodec { codec: "gzip" }),
        2 => Err(BatchError::UnsupportedCodec { codec: "snappy" }),
        3 => Ok(Compression::Lz4),
        4 => Ok(Compression::Zstd),
        codec => Err(BatchError::UnknownCodec { codec }),
    }
}

fn check_record_count(record_count: i32, last_offset_delta: i32) -> Result<u32, BatchError> {
    let count = match u32::try_from(record_count) {
        Ok(count) if (1..=RECORDS_MAX).contains(&count) => count,
        _ => return Err(BatchError::RecordCount { record_count, record_count_max: RECORDS_MAX }),
    };
    if u32::try_from(last_offset_delta) != Ok(count - 1) {
        return Err(BatchError::LastOffsetDelta { last_offset_delta, record_count: count });
    }
    Ok(count)
}

fn check_base_offset(base_offset: i64, last_offset_delta: u32) -> Result<u64, BatchError> {
    match u64::try_from(base_offset) {
        Ok(first) if base_offset.checked_add(i64::from(last_offset_delta)).is_some() => Ok(first),
        _ => Err(BatchError::BaseOffset { base_offset }),
    }
}

/// Without a producer id, epoch and sequence are ignored: some clients send 0 there, some -1.
fn check_producer(
    id: i64,
    epoch: i16,
    sequence: i32,
) -> Result<Option<ProducerIdentity>, BatchError> {
    if id == -1 {
        return Ok(None);
    }
    match (u64::try_from(id), u16::try_from(epoch), u32::try_from(sequence)) {
        (Ok(id), Ok(epoch), Ok(sequence_first)) => {
            Ok(Some(ProducerIdentity { id, epoch, sequence_first }))
        }
        _ => Err(BatchError::Producer { id, epoch, sequence }),
    }
}

/// The `N` bytes at `start`, a constant within the array at every call.
fn field<const SIZE: usize, const N: usize>(bytes: &[u8; SIZE], start: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[start..start + N]);
    value
}

fn count_to_usize(count: u32) -> usize {
    usize::try_from(count).expect("a usize has at least 32 bits on every supported target")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Record};

    /// The header of one plain record, with `bytes` written at `at`.
    fn parse_with(at: usize, bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let mut builder = BatchBuilder::new(Compression::None, BATCH_BYTES_MAX);
        builder.push(&Record::default()).expect("an empty record fits");
        let producer = ProducerIdentity { id: 7, epoch: 1, sequence_first: 41 };
        let mut batch = builder.build(Some(producer)).expect("one record").to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::parse(&batch)
    }

    fn parse_with_attributes(attributes: u16) -> Result<BatchHeader, BatchError> {
        parse_with(21, &attributes.to_be_bytes())
    }

    #[test]
    fn codecs_that_we_do_not_read_are_refused_by_name() {
        let gzip = BatchError::UnsupportedCodec { codec: "gzip" };
        let snappy = BatchError::UnsupportedCodec { codec: "snappy" };
        assert_eq!(parse_with_attributes(1), Err(gzip));
        assert_eq!(parse_with_attributes(2), Err(snappy));
        assert_eq!(parse_with_attributes(5), Err(BatchError::UnknownCodec { codec: 5 }));
        assert_eq!(parse_with_attributes(3).unwrap().compression, Compression::Lz4);
        assert_eq!(parse_with_attributes(4).unwrap().compression, Compression::Zstd);
    }

    #[test]
    fn attributes_that_ask_for_what_we_do_not_do_are_refused() {
        assert_eq!(parse_with_attributes(LOG_APPEND_TIME), Err(BatchError::LogAppendTime));
        assert_eq!(parse_with_attributes(TRANSACTIONAL), Err(BatchError::Transactional));
        assert_eq!(parse_with_attributes(CONTROL | TRANSACTIONAL), Err(BatchError::Control));
        let unknown = BatchError::UnknownAttributes { bits: 0x0040 };
        assert_eq!(parse_with_attributes(0x0040), Err(unknown));
    }

    #[test]
    fn an_older_format_is_refused_by_its_number_whatever_its_length() {
        assert_eq!(parse_with(MAGIC, &[1]), Err(BatchError::UnsupportedMagic { magic: 1 }));
        let mut message_v0 = [0_u8; 26];
        message_v0[11] = 14;
        let refused = BatchError::UnsupportedMagic { magic: 0 };
        assert_eq!(BatchHeader::parse(&message_v0), Err(refused));
    }

    #[test]
    fn counts_must_agree_with_each_other_and_with_the_size() {
        let none = BatchError::RecordCount { record_count: 0, record_count_max: RECORDS_MAX };
        assert_eq!(parse_with(57, &[0; 4]), Err(none));
        let delta = BatchError::LastOffsetDelta { last_offset_delta: 1, record_count: 1 };
        assert_eq!(parse_with(23, &[0, 0, 0, 1]), Err(delta));

        let mut lying = [0; 38];
        lying[3] = 1;
        lying[4..34].fill(0xff);
        lying[37] = 2;
        let crowded = BatchError::TooManyRecordsForSize { record_count: 2, records_bytes: 7 };
        assert_eq!(parse_with(23, &lying), Err(crowded));
    }

    #[test]
    fn a_length_outside_the_limits_is_refused_before_anything_is_allocated() {
        for length in [-1, 0, 48, 8 * 1024 * 1024 - 11, i32::MAX] {
            let error = parse_with(LENGTH.start, &length.to_be_bytes()).unwrap_err();
            assert!(matches!(error, BatchError::Length { length: l, .. } if l == length));
        }
    }

    #[test]
    fn offsets_end_at_two_to_the_63() {
        let negative = BatchError::BaseOffset { base_offset: -1 };
        assert_eq!(parse_with(0, &(-1_i64).to_be_bytes()), Err(negative));
        let last = parse_with(0, &i64::MAX.to_be_bytes()).unwrap();
        assert_eq!(last.last_offset(), 0x7fff_ffff_ffff_ffff);
    }

    #[test]
    fn a_producer_is_whole_or_absent() {
        let producer = ProducerIdentity { id: 7, epoch: 1, sequence_first: 41 };
        assert_eq!(parse_with(0, &[]).unwrap().producer(), Some(producer));
        assert_eq!(parse_with(43, &(-1_i64).to_be_bytes()).unwrap().producer(), None);
        let error = BatchError::Producer { id: 7, epoch: -1, sequence: 41 };
        assert_eq!(parse_with(51, &(-1_i16).to_be_bytes()), Err(error));
    }

    #[test]
    fn a_sequence_goes_on_at_0_behind_the_greatest() {
        assert_eq!(sequence_add(0, 3), 3);
        assert_eq!(sequence_add(SEQUENCE_MAX - 1, 1), SEQUENCE_MAX);
        assert_eq!(sequence_add(SEQUENCE_MAX, 1), 0);
        assert_eq!(sequence_add(SEQUENCE_MAX - 1, 10), 8);
    }
}
