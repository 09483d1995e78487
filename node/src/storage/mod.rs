//! The node's disk: one ordered store for all groups, and one writer in front of it.
//!
//! Everything the node must remember goes through [`Engine`], a small object-safe trait with two
//! implementations that pass the same tests: [`rocks::RocksEngine`] in production and
//! [`memory::MemoryEngine`] in simulations, which loses what was not synced when its power is cut,
//! and lies, fails and forgets as disks do.
//!
//! Writes of consensus (votes, entries, truncations) go through [`log_writer::LogWriter`] only:
//! it keeps the order of all groups in one queue and pays one fsync for many of them.
//!
//! What the bytes mean is decided elsewhere: keys in [`keys`], a stored Raft entry in [`entry`],
//! the frame of every other value in [`sealed`]. RocksDB is named in this folder only.
//!
//! Calls of an engine block the thread (microseconds from the cache, milliseconds from a disk).

mod batch;
pub mod entry;
mod error;
pub mod identity;
pub mod keys;
pub mod limits;
pub mod log_writer;
pub mod manifest;
pub mod memory;
pub mod rocks;
pub mod row;
pub mod sealed;
mod writer_stats;

pub use batch::{Write, WriteBatch};
use bytes::Bytes;
pub use error::StorageError;
pub use keys::KeyRange;
pub use writer_stats::{LogWriterStats, SYNC_LATENCY_BUCKETS};

/// A part of the store with its own files and its own tuning. One write may touch both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Entries of the Raft logs: large values, written once, read in order, deleted by ranges.
    Log,
    /// All else: votes, partition heads, indexes, checkpoints. Small values, often overwritten.
    State,
}

/// What a power cut may take from a write that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Visible at once, and survives the end of the process. A power cut may lose it, together
    /// with every write after it, until a later `Synced` write.
    Buffered,
    /// On stable storage, with everything written before it.
    Synced,
}

/// Where a scan stops. Whatever the limits, a scan of a range that has keys returns one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// Pairs at most.
    pub items: usize,
    /// Bytes of keys and values at most; only the first pair may exceed it alone.
    pub bytes: usize,
}

impl ScanLimit {
    /// At most `items` pairs of at most `bytes` bytes together.
    pub const fn new(items: usize, bytes: usize) -> Self {
        Self { items, bytes }
    }

    /// At most `items` pairs, of any size.
    pub const fn items(items: usize) -> Self {
        Self { items, bytes: usize::MAX }
    }

    /// Pairs of at most `bytes` bytes together.
    pub const fn bytes(bytes: usize) -> Self {
        Self { items: usize::MAX, bytes }
    }
}

/// A key and its value, as a scan returns them.
pub type KeyValue = (Bytes, Bytes);

/// An ordered store of bytes with atomic, optionally synced writes.
///
/// Keys are ordered as byte strings. A value that can't be trusted is never returned: the call
/// answers [`StorageError::Damaged`]. A missing key is `None`, never an error.
pub trait Engine: Send + Sync {
    /// The value of `key`.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// The pairs of `range`, ascending, until a limit is reached.
    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError>;

    /// The pair with the greatest key of `range`.
    fn last_before(&self, space: Space, range: &KeyRange)
    -> Result<Option<KeyValue>, StorageError>;

    /// Writes all of `batch` or nothing of it, visible to every later read.
    ///
    /// An empty batch that is `Synced` makes everything written before it durable. After an error
    /// it is unknown which of the un-synced writes a restart will find: the caller must stop.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError>;

    /// Bytes this store occupies on its disk, deleted ones included until they are given back.
    fn bytes_used(&self) -> Result<u64, StorageError>;

    /// Bytes the disk has left for this store; `None` where nothing limits it.
    fn space_left(&self) -> Result<Option<u64>, StorageError>;
}
