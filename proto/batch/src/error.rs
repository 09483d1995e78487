//! Why bytes are not a record batch that we accept.
//!
//! Each variant names one fault and carries the values a person needs to find its cause. All are
//! definite: a batch that is refused has changed nothing.

use crate::Compression;

/// The fault of a batch, found by its header, its checksum or by opening it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: a torn write, or a message cut short.
    #[error("batch is cut short: {needed_bytes} bytes needed, {actual_bytes} present")]
    Truncated {
        /// Size up to which the batch must reach.
        needed_bytes: usize,
        /// Size of what was given.
        actual_bytes: usize,
    },
    /// More bytes than one batch where exactly one was expected.
    #[error("{extra_bytes} bytes follow the batch")]
    BytesAfterBatch {
        /// Bytes behind the end of the batch.
        extra_bytes: usize,
    },
    /// The length field is below the size of a header or above the limit.
    #[error("batch length {length} is outside {length_min}..={length_max}")]
    Length {
        /// The field as read.
        length: i32,
        /// Smallest length that holds a header.
        length_min: usize,
        /// The length of the greatest batch.
        length_max: usize,
    },
    /// Not the second version of the batch format.
    #[error("record format {magic} is not supported, only 2 is (Kafka 0.11 and later)")]
    UnsupportedMagic {
        /// The format's number as read.
        magic: i8,
    },
    /// A codec of Kafka that this log does not read.
    #[error("unsupported codec {codec}: use none, lz4 or zstd")]
    UnsupportedCodec {
        /// The codec's name: gzip or snappy.
        codec: &'static str,
    },
    /// A codec number that Kafka has not defined.
    #[error("unknown codec number {codec}")]
    UnknownCodec {
        /// The number as read, 5 to 7.
        codec: u16,
    },
    /// Written inside a Kafka transaction.
    #[error("transactional batches are not supported")]
    Transactional,
    /// A transaction marker; only a Kafka broker writes these.
    #[error("control batches are not accepted")]
    Control,
    /// Claims that the broker stamped the records; ours leaves the producer's bytes alone.
    #[error("timestamp type log-append-time is not supported")]
    LogAppendTime,
    /// Attribute bits without a meaning in this version.
    #[error("unknown attribute bits {bits:#06x}")]
    UnknownAttributes {
        /// Only the bits that are unknown.
        bits: u16,
    },
    /// The offsets of the records would not be in 0..=2^63-1.
    #[error("base offset {base_offset} is outside the range of offsets")]
    BaseOffset {
        /// The field as read.
        base_offset: i64,
    },
    /// No record, or more than the limit.
    #[error("record count {record_count} is outside 1..={record_count_max}")]
    RecordCount {
        /// The field as read.
        record_count: i32,
        /// The limit.
        record_count_max: u32,
    },
    /// The last offset delta is not the record count less one, so offsets would not be dense.
    #[error("last offset delta {last_offset_delta} does not fit {record_count} records")]
    LastOffsetDelta {
        /// The field as read.
        last_offset_delta: i32,
        /// Records in the batch.
        record_count: u32,
    },
    /// More records are claimed than the bytes can hold; only known without compression.
    #[error("{record_count} records cannot fit into {records_bytes} bytes")]
    TooManyRecordsForSize {
        /// Records in the batch.
        record_count: u32,
        /// Bytes behind the header.
        records_bytes: usize,
    },
    /// A producer id other than -1 needs an epoch and a sequence, none of them negative.
    #[error("producer id {id}, epoch {epoch}, sequence {sequence} is not a producer's identity")]
    Producer {
        /// The field as read.
        id: i64,
        /// The field as read.
        epoch: i16,
        /// The field as read.
        sequence: i32,
    },
    /// The bytes are not those which the producer summed up.
    #[error("checksum mismatch: batch says {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// CRC-32C as stored in the batch.
        stored: u32,
        /// CRC-32C of the bytes present.
        computed: u32,
    },
    /// The codec refused the compressed bytes.
    #[error("{codec} cannot decompress the records: {reason}")]
    Decompress {
        /// The codec of the batch.
        codec: Compression,
        /// What the codec's library says.
        reason: String,
    },
    /// The records expand beyond the limit.
    #[error("records decompress to more than {bytes_max} bytes")]
    DecompressedTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// One record is malformed.
    #[error("record {index} of the batch: {fault}")]
    Record {
        /// Place of the record in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes remain behind the last record.
    #[error("{extra_bytes} bytes follow the last record")]
    BytesAfterRecords {
        /// Bytes that belong to no record.
        extra_bytes: usize,
    },
}

/// The fault of one record inside a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A field reaches behind the end of the record or of the batch.
    #[error("cut short: {needed_bytes} bytes needed, {actual_bytes} present")]
    Truncated {
        /// Bytes which the field claims.
        needed_bytes: usize,
        /// Bytes left.
        actual_bytes: usize,
    },
    /// A variable-length integer does not fit its type.
    #[error("a varint does not fit into {bits} bits")]
    Varint {
        /// Width of the type, 32 or 64.
        bits: u32,
    },
    /// A length or a count is negative where that does not mean "none".
    #[error("negative {field} {value}")]
    Negative {
        /// Name of the field.
        field: &'static str,
        /// The field as read.
        value: i32,
    },
    /// The fields end before the record's length does.
    #[error("{extra_bytes} bytes follow the fields of the record")]
    BytesAfterFields {
        /// Bytes that belong to no field.
        extra_bytes: usize,
    },
    /// Offsets inside a batch are dense: the delta is the record's place.
    #[error("offset delta {offset_delta} where {expected} was expected")]
    OffsetDelta {
        /// The field as read.
        offset_delta: i32,
        /// The record's place.
        expected: u32,
    },
    /// Base timestamp and delta add up to no 64-bit number.
    #[error("timestamp {base_timestamp_ms} + {delta_ms} ms overflows")]
    Timestamp {
        /// Of the batch, milliseconds since 1970.
        base_timestamp_ms: i64,
        /// Of the record.
        delta_ms: i64,
    },
    /// The batch has more headers than the limit.
    #[error("more than {header_count_max} headers in one batch")]
    TooManyHeaders {
        /// The limit for the whole batch.
        header_count_max: u32,
    },
}
