//! Every bound of the format, with its unit and its reason.
//!
//! They belong to the format and not to a node's configuration: a node may allow less, never more,
//! because a reader refuses what lies beyond them.

/// Greatest size of a whole batch as stored and sent, in bytes (8 MiB).
///
/// Chosen: one batch fits in one Raft entry and one gRPC message with room to spare, and a node
/// can hold dozens in flight. Kafka's default is 1 MiB.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Greatest size of the records of one batch after decompression, in bytes (64 MiB).
///
/// Chosen: eight times the greatest batch. What expands further is refused while it is being
/// expanded, so that a few kilobytes cannot take a reader's memory.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Greatest number of records in one batch.
///
/// Chosen: a full batch of records of 32 bytes. A reader that collects them all spends about
/// 27 MiB on the records themselves.
pub const RECORDS_MAX: u32 = 262_144;

/// Greatest number of record headers in one batch, summed over its records.
///
/// Chosen: an empty header takes 2 bytes on the wire and about 64 in memory; this keeps what a
/// reader spends on them below 64 MiB.
pub const HEADERS_MAX: u32 = 1_048_576;

/// Smallest size of one record in bytes: its length, attributes, two deltas, two lengths and the
/// header count, a byte each.
pub const RECORD_BYTES_MIN: usize = 7;

const _: () = assert!(DECOMPRESSED_BYTES_MAX >= BATCH_BYTES_MAX);
