//! The store of a real node: one RocksDB with two column families.
//!
//! Entries of 512 bytes and more are kept in blob files, so that compaction moves only their
//! keys. A store that doesn't open cleanly is not repaired: the disk counts as lost and the node
//! comes back as a new replica (decision 5a.5). Settings are in `options`, giving back the space
//! of deleted ranges in `reclaim`, the meaning of errors in `failure`, what may be missing at the
//! end of the write-ahead log in `torn`.

mod failure;
mod options;
mod reclaim;
#[cfg(test)]
mod tests;
mod torn;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions, WriteOptions};

use self::failure::{Operation, translate};
pub use self::options::{ReclaimOptions, RocksOptions};
pub use self::reclaim::Reclaimed;
use self::reclaim::Reclaimer;
use self::torn::SyncedNote;
use super::error::ADVICE_STORE;
use super::{
    Durability, Engine, KeyRange, KeyValue, ScanLimit, Space, StorageError, Write, WriteBatch,
};

/// Files of these kinds hold data; a directory that has them has a store.
const DATA_FILE_EXTENSIONS: [&str; 3] = ["sst", "blob", "log"];

/// The file that RocksDB opens first. Without it, it would begin an empty store over the old one.
const FIRST_FILE: &str = "CURRENT";

/// A file that is there for a moment while a store is opened.
const DIRECT_IO_PROBE: &str = "direct-io-probe";

/// An open store. Dropping it closes it and stops its threads; nothing is lost by that.
pub struct RocksEngine {
    store: Arc<Store>,
    reclaimer: Reclaimer,
}

/// The part that the reclaimer's thread uses too.
struct Store {
    db: DB,
    path: PathBuf,
    /// Held during each write, so that what is noted is what was synced.
    synced: Mutex<SyncedNote>,
}

impl RocksEngine {
    /// Opens the store in the directory `path`, or begins one if there is none.
    ///
    /// Errors: [`StorageError::InUse`] while another process has it open,
    /// [`StorageError::Damaged`] if it doesn't open cleanly.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, StorageError> {
        refuse_headless_store(path)?;
        fs::create_dir_all(path).map_err(|error| io_error("creating", path, &error))?;
        let db = Self::open_database(path, options)?;
        let found = db.latest_sequence_number();
        if let Some(synced) = torn::read_note(path).filter(|synced| found < *synced) {
            let path = path.display();
            return Err(StorageError::Damaged {
                what: format!("{path} was synced up to write {synced} and ends at {found}"),
                advice: ADVICE_STORE,
            });
        }
        // The directory's own entry in its parent must survive a power cut like its content does.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(|error| io_error("syncing", parent, &error))?;
        }
        let synced = SyncedNote::open(path, found);
        let synced = synced.map_err(|error| io_error("noting what is synced in", path, &error))?;
        let store = Arc::new(Store { db, path: path.to_owned(), synced: Mutex::new(synced) });
        let reclaimer = Reclaimer::start(Arc::clone(&store), options.reclaim)?;
        Ok(Self { store, reclaimer })
    }

    /// Opens the database; if it doesn't open because a power cut tore its last record, without
    /// that record.
    fn open_database(path: &Path, options: RocksOptions) -> Result<DB, StorageError> {
        let direct = supports_direct_io(path);
        if !direct {
            tracing::info!(path = %path.display(), "no direct I/O here: writing costs more");
        }
        let open = || {
            DB::open_cf_descriptors(&options.database(direct), path, options.column_families())
                .map_err(|error| translate(Operation::Open, path, error.as_ref()))
        };
        let damaged = match open() {
            Err(damaged @ StorageError::Damaged { .. }) => damaged,
            opened => return opened,
        };
        match torn::cut_off(path) {
            Ok(Some(torn)) => {
                let (log, at, bytes) = (torn.log.display(), torn.at, torn.bytes);
                tracing::warn!(%log, at, bytes, "cut a torn, never synced record off the log");
                open()
            }
            Ok(None) => Err(damaged),
            Err(error) => Err(io_error("looking for a torn record in", path, &error)),
        }
    }

    /// Gives back the space of all ranges deleted so far, at once instead of in the background.
    /// Takes as long as copying the keys around them, and the live values if half is garbage.
    pub fn reclaim_now(&self) -> Result<Reclaimed, StorageError> {
        self.reclaimer.reclaim_now()
    }
}

impl Engine for RocksEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let found = self.store.db.get_pinned_cf(self.store.family(space), key);
        let found = found.map_err(|error| self.store.failed(Operation::Read, &error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        limit: ScanLimit,
    ) -> Result<Vec<KeyValue>, StorageError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut iterator = self.store.iterator(space, range);
        iterator.seek(&range.start);
        let mut pairs = Vec::new();
        let mut bytes = 0;
        while let Some((key, value)) = iterator.item() {
            bytes += key.len() + value.len();
            if !pairs.is_empty() && (pairs.len() >= limit.items || bytes > limit.bytes) {
                return Ok(pairs);
            }
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if pairs.len() >= limit.items {
                return Ok(pairs);
            }
            iterator.next();
        }
        // An iterator that met a damaged block looks as if it had reached the end.
        iterator.status().map_err(|error| self.store.failed(Operation::Read, &error))?;
        Ok(pairs)
    }

    fn last_before(
        &self,
        space: Space,
        range: &KeyRange,
    ) -> Result<Option<KeyValue>, StorageError> {
        if range.is_empty() {
            return Ok(None);
        }
        let mut iterator = self.store.iterator(space, range);
        iterator.seek_to_last();
        let last = iterator
            .item()
            .map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        iterator.status().map_err(|error| self.store.failed(Operation::Read, &error))?;
        Ok(last)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StorageError> {
        let synced = durability == Durability::Synced;
        let note = self.store.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let written = if batch.is_empty() {
            if synced { self.store.db.flush_wal(true) } else { Ok(()) }
        } else {
            let mut options = WriteOptions::default();
            options.set_sync(synced);
            self.store.db.write_opt(self.store.to_rocksdb(&batch), &options)
        };
        written.map_err(|error| self.store.failed(Operation::Write, &error))?;
        if synced {
            note.set(self.store.db.latest_sequence_number());
        }
        drop(note);
        for write in batch.writes() {
            if let Write::DeleteRange { space: Space::Log, range } = write {
                self.reclaimer.deleted(range);
            }
        }
        Ok(())
    }

    fn bytes_used(&self) -> Result<u64, StorageError> {
        let path = &self.store.path;
        let failed = |error| io_error("listing", path, &error);
        let mut bytes = 0;
        for file in fs::read_dir(path).map_err(failed)? {
            match file.and_then(|file| file.metadata()) {
                Ok(metadata) => bytes += allocated_bytes(&metadata),
                // RocksDB deletes files at any time.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(bytes)
    }

    fn space_left(&self) -> Result<Option<u64>, StorageError> {
        self.store.space_left().map(Some)
    }
}

impl Store {
    fn family(&self, space: Space) -> &ColumnFamily {
        self.db.cf_handle(space.column_family()).expect("open creates both column families")
    }

    fn failed(&self, operation: Operation, error: &rocksdb::Error) -> StorageError {
        translate(operation, &self.path, error.as_ref())
    }

    /// Without bounds an iterator would run on into the next group.
    fn iterator(&self, space: Space, range: &KeyRange) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.start.as_ref());
        options.set_iterate_upper_bound(range.end.as_ref());
        self.db.raw_iterator_cf_opt(self.family(space), options)
    }

    fn to_rocksdb(&self, batch: &WriteBatch) -> rocksdb::WriteBatch {
        let mut converted = rocksdb::WriteBatch::with_capacity_bytes(batch.bytes());
        for write in batch.writes() {
            match write {
                Write::Put { space, key, value } => {
                    converted.put_cf(self.family(*space), key, value);
                }
                Write::Delete { space, key } => converted.delete_cf(self.family(*space), key),
                Write::DeleteRange { space, range } => {
                    converted.delete_range_cf(self.family(*space), &range.start, &range.end);
                }
            }
        }
        converted
    }

    fn space_left(&self) -> Result<u64, StorageError> {
        let disk = rustix::fs::statvfs(&self.path)
            .map_err(|error| io_error("asking for the space of", &self.path, &error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn allocated_bytes(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // As in stat(2), whatever the block size of the file system.
    const STAT_BLOCK_BYTES: u64 = 512;
    if metadata.is_file() { metadata.blocks() * STAT_BLOCK_BYTES } else { 0 }
}

/// Whether files in `path` can be written past the page cache. Asked of the file system itself,
/// by a file that is taken away again.
fn supports_direct_io(path: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let probe = path.join(DIRECT_IO_PROBE);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&probe, flags, Mode::RUSR | Mode::WUSR);
    // Left behind it would harm nothing.
    let _ = fs::remove_file(&probe);
    opened.is_ok()
}

/// A directory with data but without its first file is a damaged store, not an empty one.
fn refuse_headless_store(path: &Path) -> Result<(), StorageError> {
    let files = match fs::read_dir(path) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("listing", path, &error)),
    };
    let mut data_file = None;
    for file in files {
        let name = PathBuf::from(file.map_err(|e| io_error("listing", path, &e))?.file_name());
        if name.as_os_str() == FIRST_FILE {
            return Ok(());
        }
        let extension = name.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| DATA_FILE_EXTENSIONS.contains(&extension)) {
            data_file = Some(name);
        }
    }
    match data_file {
        None => Ok(()),
        Some(name) => Err(StorageError::Damaged {
            what: format!("{} has {} but no {FIRST_FILE}", path.display(), name.display()),
            advice: ADVICE_STORE,
        }),
    }
}

fn io_error(doing: &str, path: &Path, error: &std::io::Error) -> StorageError {
    let what = format!("{doing} {}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StorageError::Full { what }
        }
        _ => StorageError::Io { what },
    }
}
