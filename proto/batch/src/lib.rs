//! The record batch: Kafka's version 2 layout, read and written byte for byte.
//!
//! A batch is the unit of append. It is made by the producer, stored as it came and handed to
//! consumers unchanged but for its place (base offset and leader epoch), so that the producer's
//! checksum holds to the end. `docs/formats/record-batch.md` has the grammar and worked bytes.
//!
//! - `header`: what a node reads of a batch; `stored`: check, place and split without opening;
//! - `record`, `varint`: one record and its bytes; `codec`: compression within limits;
//! - `builder`: records to a batch; `records`: a batch to records;
//! - `partitioner`: which partition a key belongs to;
//! - `limits`: every bound; `error`: every refusal.
//!
//! Everything here is a pure function of its arguments. No input, however made, makes a reader
//! panic or allocate beyond the limits.

mod builder;
mod codec;
mod error;
mod header;
mod limits;
mod partitioner;
mod record;
mod records;
mod stored;
mod varint;

pub use builder::{BatchBuilder, BuildError, PushError};
pub use error::{BatchError, RecordFault};
pub use header::{
    BatchHeader, CHECKSUM_START, Compression, HEADER_BYTES, LENGTH_PREFIX_BYTES, ProducerIdentity,
    SEQUENCE_MAX, sequence_add,
};
pub use limits::{
    BATCH_BYTES_MAX, DECOMPRESSED_BYTES_MAX, HEADERS_MAX, RECORD_BYTES_MIN, RECORDS_MAX,
};
pub use partitioner::partition_of_key;
pub use record::{Header, OffsetRecord, Record};
pub use records::{Records, decode, records};
pub use stored::{Batches, content, patch, split, verify};
