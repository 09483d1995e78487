//! How RocksDB is set up, and what that costs in memory. Reasons and measurements are in
//! docs/adr/0004-storage-engine-settings.md.

use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options,
};

use crate::storage::Space;

/// Values of this size and more are kept outside the sorted files, where compaction of keys
/// doesn't copy them.
const BLOB_VALUE_BYTES_MIN: u64 = 512;

/// Files that RocksDB keeps open at most. Well below 1024, the usual limit of a process, so that
/// sockets have their part.
const OPEN_FILES_MAX: i32 = 400;

/// RocksDB's own log: five files of 8 MiB.
const INFO_LOG_BYTES_MAX: usize = 8 << 20;
const INFO_LOG_FILES_MAX: usize = 5;

/// Block size of the sorted files. Larger than RocksDB's 4 KiB: log keys are read in runs.
const BLOCK_BYTES: usize = 16 << 10;

const MIB: usize = 1 << 20;

/// The settings that a deployment may want to change; everything else is fixed in this file.
///
/// Memory is bounded by `memtables_bytes` (a flush begins there; RocksDB may exceed it by the one
/// memtable that is being written) plus `block_cache_bytes`, which holds the indexes and filters
/// of the files too: 256 MiB with the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksOptions {
    /// One memtable of the log. A flush makes one blob file of about this size.
    pub log_memtable_bytes: usize,
    /// All memtables together; reached, the oldest is flushed.
    pub memtables_bytes: usize,
    /// Blocks, indexes and filters of sorted files. Values of the log are not cached here: the
    /// operating system and the raft layer's tail cache have them.
    pub block_cache_bytes: usize,
    /// Write-ahead logs together; reached, memtables are flushed so that the oldest can go.
    pub wal_bytes_max: u64,
    /// How the space of purged entries is given back.
    pub reclaim: ReclaimOptions,
}

/// When the space of deleted ranges is given back. Deleting a range only marks it; its bytes go
/// when a compaction meets the mark and, for values of 512 bytes and more, when their blob file
/// holds nothing else or is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReclaimOptions {
    /// How often the deleted ranges are looked at.
    pub interval: Duration,
    /// Deleted ranges are compacted when they hold about this many bytes ...
    pub deleted_bytes_min: u64,
    /// ... or at the latest after so many intervals.
    pub intervals_max: u32,
    /// Blob files are rewritten when this much of them is garbage and it is at least as much as
    /// what lives: each live byte that is copied frees one byte or more.
    pub garbage_bytes_min: u64,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            log_memtable_bytes: 64 * MIB,
            memtables_bytes: 192 * MIB,
            block_cache_bytes: 64 * MIB,
            wal_bytes_max: 256 << 20,
            reclaim: ReclaimOptions::default(),
        }
    }
}

impl Default for ReclaimOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            deleted_bytes_min: 64 << 20,
            intervals_max: 20,
            garbage_bytes_min: 256 << 20,
        }
    }
}

impl RocksOptions {
    /// Options of the whole store.
    ///
    /// `direct`: flushes and compactions go past the page cache, which the file system must
    /// support. Copying into the cache costs more than everything else in writing a record, and
    /// what is read again soon is in memory anyway.
    pub(super) fn database(&self, direct: bool) -> Options {
        let mut options = Options::default();
        options.set_use_direct_io_for_flush_and_compaction(direct);
        options.create_if_missing(true);
        options.create_missing_column_families(true);

        // Only a record that was cut off at the very end of the log may be dropped. Everything
        // else that doesn't read back is a damaged disk and must not open. Recycled log files
        // would blur where the end is.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_recycle_log_file_num(0);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_paranoid_checks(true);
        options.set_max_total_wal_size(self.wal_bytes_max);

        options.set_db_write_buffer_size(self.memtables_bytes);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_background_jobs(4);
        // Written back while a file grows, so that its last sync doesn't hold up the fsyncs of
        // the log.
        options.set_bytes_per_sync(1 << 20);

        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// Both column families, sharing one cache.
    pub(super) fn column_families(&self) -> Vec<ColumnFamilyDescriptor> {
        let cache = Cache::new_lru_cache(self.block_cache_bytes);
        vec![
            ColumnFamilyDescriptor::new(Space::Log.column_family(), self.log(&cache)),
            ColumnFamilyDescriptor::new(Space::State.column_family(), Self::state(&cache)),
        ]
    }

    fn log(&self, cache: &Cache) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&table(cache));
        // Record batches come compressed by their producers.
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(self.log_memtable_bytes);
        options.set_max_write_buffer_number(3);

        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_VALUE_BYTES_MIN);
        options.set_blob_file_size(u64_of(self.log_memtable_bytes));
        options.set_blob_compression_type(DBCompressionType::None);
        // RocksDB would copy the oldest values in EVERY compaction that meets their keys, and
        // keys of all groups meet in every compaction. The reclaimer turns it on when it pays.
        options.set_enable_blob_gc(false);

        // What is sorted are keys of about 40 bytes: small files keep the compaction of one
        // group's deleted range from copying the keys of the others.
        options.set_target_file_size_base(8 << 20);
        options.set_max_bytes_for_level_base(64 << 20);
        options
    }

    fn state(cache: &Cache) -> Options {
        let mut table = table(cache);
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(16 * MIB);
        options.set_max_write_buffer_number(3);
        options.set_target_file_size_base(16 << 20);
        options.set_max_bytes_for_level_base(64 << 20);
        options
    }
}

fn table(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    // In the cache, so that memory doesn't grow with the number of files.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

impl Space {
    /// The name under which RocksDB keeps this space; stored, never changed.
    pub(super) const fn column_family(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::State => "state",
        }
    }
}

fn u64_of(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a usize fits 64 bits")
}
