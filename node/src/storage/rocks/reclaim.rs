//! Gives the disk the space of deleted log ranges back.
//!
//! A deleted range is only a mark in the newest file. Its entries go when a compaction brings the
//! mark down to them, which on a quiet node may be never; and a blob file goes when nothing in it
//! lives, which one topic that keeps everything can prevent for ever. So a thread of its own does
//! two things, each in proportion to what it frees:
//!
//! 1. It compacts the deleted ranges once they hold enough. That copies keys, not values.
//! 2. It rewrites the blob files once half of their bytes are garbage. That copies values, at
//!    most one live byte for each byte it frees. RocksDB's own way, rewriting the oldest quarter
//!    in every compaction, would copy a growing part of ALL data with every few memtables.
//!
//! Nothing here is needed for correctness. What is forgotten at a restart is deleted anew by the
//! group's next purge, whose range begins at the same place.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use rocksdb::{
    BottommostLevelCompaction, CompactOptions, Range, ReadOptions, WaitForCompactOptions,
};

use super::failure::Operation;
use super::options::ReclaimOptions;
use super::{Space, Store, io_error};
use crate::storage::{KeyRange, StorageError};

/// Ranges of different groups are compacted together if no more bytes of keys lie between them:
/// one file's worth, which would be copied for either of them anyway.
const GAP_BYTES_MAX: u64 = 8 << 20;

/// Deleted ranges remembered; past it they are joined into one that spans all of them.
const RANGES_MAX: usize = 65_536;

/// How long a round waits for the other jobs of RocksDB: ten seconds.
const JOBS_WAIT_MICROS_MAX: u64 = 10_000_000;

const BLOB_FILES: &str = "rocksdb.num-blob-files";
const LIVE_BLOB_BYTES: &str = "rocksdb.live-blob-file-size";
const GARBAGE_BLOB_BYTES: &str = "rocksdb.live-blob-file-garbage-size";
const SORTED_BYTES: &str = "rocksdb.total-sst-files-size";

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Spans of deleted ranges that were compacted.
    pub compactions: usize,
    /// Passes over the blob files.
    pub rewrites: u32,
}

pub(super) struct Reclaimer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    options: ReclaimOptions,
    state: Mutex<State>,
    stopped: Condvar,
    /// Only one round at a time: they would undo each other's option changes.
    round: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Start to end, disjoint as groups are: a purge of a group begins where its last one did.
    deleted: BTreeMap<Bytes, Bytes>,
    /// Intervals since the first of them.
    intervals: u32,
    stop: bool,
}

impl Reclaimer {
    pub(super) fn start(store: Arc<Store>, options: ReclaimOptions) -> Result<Self, StorageError> {
        let path = store.path.clone();
        let shared = Arc::new(Shared {
            store,
            options,
            state: Mutex::default(),
            stopped: Condvar::new(),
            round: Mutex::default(),
        });
        let thread = std::thread::Builder::new()
            .name("quipu-reclaim".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|error| io_error("starting a thread for", &path, &error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Remembers a range that a write has just deleted.
    pub(super) fn deleted(&self, range: &KeyRange) {
        let mut state = self.shared.state();
        let end = state.deleted.entry(range.start.clone()).or_default();
        if *end < range.end {
            *end = range.end.clone();
        }
        if state.deleted.len() > RANGES_MAX {
            state.join_all();
        }
    }

    pub(super) fn reclaim_now(&self) -> Result<Reclaimed, StorageError> {
        self.shared.round()
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.stopped.notify_all();
        // Ends a compaction that is under way instead of waiting for it.
        self.shared.store.db.cancel_all_background_work(false);
        if let Some(thread) = self.thread.take() {
            // Its only way to fail is a panic, which was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl State {
    fn join_all(&mut self) {
        let start = self.deleted.keys().next().cloned();
        let end = self.deleted.values().max().cloned();
        self.deleted = start.into_iter().zip(end).collect();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock can panic")
    }

    fn run(&self) {
        while self.wait() {
            if !self.is_worth_it() {
                continue;
            }
            match self.round() {
                Ok(done) => tracing::debug!(
                    compactions = done.compactions,
                    rewrites = done.rewrites,
                    "gave back the space of deleted log entries"
                ),
                Err(error) => tracing::error!(%error, "could not give back deleted space"),
            }
        }
    }

    /// Waits for one interval; `false` if the thread shall end.
    fn wait(&self) -> bool {
        let until_stopped = |state: &mut State| !state.stop;
        let waited =
            self.stopped.wait_timeout_while(self.state(), self.options.interval, until_stopped);
        let (mut state, _) = waited.expect("no code that holds this lock can panic");
        state.intervals = state.intervals.saturating_add(1);
        !state.stop
    }

    fn is_worth_it(&self) -> bool {
        let (ranges, intervals) = {
            let mut state = self.state();
            if state.deleted.is_empty() {
                state.intervals = 0;
                return false;
            }
            (state.deleted.clone(), state.intervals)
        };
        intervals >= self.options.intervals_max
            || self.bytes_of(&ranges) >= self.options.deleted_bytes_min
    }

    /// About how many bytes of entries the ranges hold on disk: their part of the sorted files,
    /// scaled up by what the blob files hold for each byte of those.
    fn bytes_of(&self, ranges: &BTreeMap<Bytes, Bytes>) -> u64 {
        let sorted_all = u128::from(self.number(SORTED_BYTES).max(1));
        let blobs_all = u128::from(self.number(LIVE_BLOB_BYTES));
        let sorted = ranges.iter().map(|(start, end)| self.sorted_bytes(start, end)).sum::<u64>();
        let bytes = u128::from(sorted) * (sorted_all + blobs_all) / sorted_all;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn round(&self) -> Result<Reclaimed, StorageError> {
        let _one_at_a_time = self.round.lock().expect("a round doesn't panic");
        let ranges = {
            let mut state = self.state();
            state.intervals = 0;
            std::mem::take(&mut state.deleted)
        };
        let mut done = Reclaimed::default();
        if !ranges.is_empty() {
            // The write-ahead logs hold the entries too, until both memtables are on disk.
            for space in [Space::State, Space::Log] {
                let flushed = self.store.db.flush_cf(self.store.family(space));
                flushed.map_err(|error| self.store.failed(Operation::Write, &error))?;
            }
        }
        for (start, end) in self.spans(&ranges) {
            if self.state().stop {
                return Ok(done);
            }
            self.compact(Some(&start), Some(&end), BottommostLevelCompaction::Skip);
            done.compactions += 1;
        }
        done.rewrites = self.rewrite_blobs()?;
        if done != Reclaimed::default() {
            self.delete_files()?;
        }
        Ok(done)
    }

    /// Deletes the files that nothing refers to any more. RocksDB does so at the end of each job;
    /// but a file that another job still looked at then is left to the next job, which on a quiet
    /// node doesn't come.
    fn delete_files(&self) -> Result<(), StorageError> {
        let mut options = WaitForCompactOptions::default();
        options.set_timeout(JOBS_WAIT_MICROS_MAX);
        // On a busy node there always is a next job: no need to wait for the last one.
        let _ = self.store.db.wait_for_compact(&options);
        let swept = self
            .store
            .db
            .disable_file_deletions()
            .and_then(|()| self.store.db.enable_file_deletions());
        swept.map_err(|error| self.store.failed(Operation::Write, &error))
    }

    /// The ranges, with neighbours joined.
    fn spans(&self, ranges: &BTreeMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
        let mut spans: Vec<(Bytes, Bytes)> = Vec::new();
        for (start, end) in ranges {
            match spans.last_mut() {
                Some((_, last)) if self.sorted_bytes(last, start) <= GAP_BYTES_MAX => {
                    if *last < *end {
                        *last = end.clone();
                    }
                }
                _ => spans.push((start.clone(), end.clone())),
            }
        }
        spans
    }

    /// Rewrites blob files, oldest first and each at most once, while half or more of all their
    /// bytes are garbage.
    fn rewrite_blobs(&self) -> Result<u32, StorageError> {
        let mut files_left = self.number(BLOB_FILES);
        let mut passes = 0;
        while files_left > 0 && self.half_is_garbage() && !self.state().stop {
            let files = self.files_of_a_pass()?.min(files_left);
            if files == 0 {
                tracing::warn!("too little space is left to rewrite blob files");
                return Ok(passes);
            }
            if passes == 0 {
                // A damaged value met by a compaction makes RocksDB refuse all writes from then
                // on. Met here it only postpones the rewriting until the entry is repaired.
                self.read_everything()?;
            }
            self.rewrite_oldest(files)?;
            files_left -= files;
            passes += 1;
        }
        Ok(passes)
    }

    /// How many blob files the next pass rewrites: a quarter of them, or fewer if the copies could
    /// take more than a quarter of the space that is left. 0 if not even one can be afforded.
    fn files_of_a_pass(&self) -> Result<u64, StorageError> {
        let files = self.number(BLOB_FILES);
        let file_bytes = self.number(LIVE_BLOB_BYTES) / files.max(1);
        let affordable = self.store.space_left()? / 4 / file_bytes.max(1);
        Ok(files.div_ceil(4).min(affordable))
    }

    fn half_is_garbage(&self) -> bool {
        let garbage = self.number(GARBAGE_BLOB_BYTES);
        garbage >= self.options.garbage_bytes_min && garbage >= self.number(LIVE_BLOB_BYTES) / 2
    }

    fn rewrite_oldest(&self, files: u64) -> Result<(), StorageError> {
        let log = self.store.family(Space::Log);
        let count = |files: u64| f64::from(u32::try_from(files).unwrap_or(u32::MAX));
        // RocksDB takes a part and rounds down; the half keeps it from rounding to one too few.
        let part = (count(files) + 0.5) / count(self.number(BLOB_FILES)).max(1.0);
        let part = part.min(1.0).to_string();
        let set = |enabled: &str| {
            let changes = [
                ("enable_blob_garbage_collection", enabled),
                ("blob_garbage_collection_age_cutoff", part.as_str()),
            ];
            let set = self.store.db.set_options_cf(log, &changes);
            set.map_err(|error| self.store.failed(Operation::Write, &error))
        };
        set("true")?;
        self.compact(None, None, BottommostLevelCompaction::ForceOptimized);
        set("false")
    }

    fn compact(
        &self,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
        bottommost: BottommostLevelCompaction,
    ) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(bottommost);
        self.store.db.compact_range_cf_opt(self.store.family(Space::Log), start, end, &options);
    }

    /// Reads every value of the log, which checks every checksum.
    fn read_everything(&self) -> Result<(), StorageError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let log = self.store.family(Space::Log);
        let mut iterator = self.store.db.raw_iterator_cf_opt(log, options);
        iterator.seek_to_first();
        while iterator.valid() && !self.state().stop {
            iterator.next();
        }
        iterator.status().map_err(|error| self.store.failed(Operation::Read, &error))
    }

    fn sorted_bytes(&self, start: &[u8], end: &[u8]) -> u64 {
        if start >= end {
            return 0;
        }
        let log = self.store.family(Space::Log);
        let sizes = self.store.db.get_approximate_sizes_cf(log, &[Range::new(start, end)]);
        sizes.into_iter().sum()
    }

    /// A number that RocksDB counts for the log; 0 if it doesn't.
    fn number(&self, property: &str) -> u64 {
        let log = self.store.family(Space::Log);
        self.store.db.property_int_value_cf(log, property).ok().flatten().unwrap_or(0)
    }
}
