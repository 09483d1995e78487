//! What only a store on a real disk can do: be damaged, be locked, run out of space, give it back.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_core::ids::GroupId;

use super::*;
use crate::storage::keys;

const MIB: u64 = 1 << 20;
pub(super) const GROUP: GroupId = GroupId(7);
const OTHER: GroupId = GroupId(8);

/// Small memtables, and nothing in the background that a test did not ask for.
fn small() -> RocksOptions {
    let reclaim = ReclaimOptions {
        interval: Duration::from_secs(3600),
        garbage_bytes_min: MIB,
        ..ReclaimOptions::default()
    };
    RocksOptions {
        log_memtable_bytes: 4 << 20,
        wal_bytes_max: 16 * MIB,
        reclaim,
        ..RocksOptions::default()
    }
}

pub(super) fn open(path: &Path) -> Result<RocksEngine, StorageError> {
    RocksEngine::open(path, small())
}

pub(super) fn opened(path: &Path) -> RocksEngine {
    open(path).expect("a sound store opens")
}

pub(super) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Bytes that no file system can make smaller, different for each entry.
pub(super) fn entry(index: u64, size: usize) -> Bytes {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

pub(super) fn append(
    engine: &RocksEngine,
    group: GroupId,
    index: u64,
    size: usize,
    durability: Durability,
) {
    let mut batch = WriteBatch::new();
    batch.put(Space::Log, keys::log_entry(group, index), entry(index, size));
    engine.write(batch, durability).expect("the disk is sound");
}

fn purge(engine: &RocksEngine, group: GroupId, index_last: u64) {
    let mut batch = WriteBatch::new();
    batch.delete_range(Space::Log, keys::log_through(group, index_last));
    engine.write(batch, Durability::Synced).expect("the disk is sound");
}

pub(super) fn read(
    engine: &RocksEngine,
    group: GroupId,
    index: u64,
) -> Result<Option<Bytes>, StorageError> {
    engine.get(Space::Log, &keys::log_entry(group, index))
}

fn flush(engine: &RocksEngine) {
    for space in [Space::Log, Space::State] {
        engine.store.db.flush_cf(engine.store.family(space)).expect("the disk is sound");
    }
}

/// The files of `path` with this extension, oldest first.
pub(super) fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(path)
        .expect("readable")
        .map(|file| file.expect("readable").path())
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Turns one bit of the byte that stands `part` of the way through the file.
pub(super) fn flip_bit(path: &Path, numerator: u64, denominator: u64) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).expect("exists");
    let at = file.metadata().expect("exists").len() * numerator / denominator;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("seekable");
    file.read_exact(&mut byte).expect("not at the end");
    file.seek(SeekFrom::Start(at)).expect("seekable");
    file.write_all(&[byte[0] ^ 1]).expect("writable");
}

pub(super) fn is_damaged<T>(outcome: &Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Damaged { .. }))
}

#[test]
fn a_store_that_is_open_is_not_opened_twice() {
    let directory = directory();
    let first = opened(directory.path());
    let second = open(directory.path()).err();
    assert_eq!(second, Some(StorageError::InUse { path: directory.path().to_owned() }));
    drop(first);
    opened(directory.path());
}

#[test]
fn a_record_cut_off_at_the_end_of_the_log_is_dropped_if_it_was_not_synced() {
    for (last, cut_bytes) in [Durability::Buffered, Durability::Synced]
        .into_iter()
        .flat_map(|last| [1, 100, 900].map(|cut_bytes| (last, cut_bytes)))
    {
        let directory = directory();
        let engine = opened(directory.path());
        (1..=8).for_each(|index| append(&engine, GROUP, index, 1000, Durability::Synced));
        append(&engine, GROUP, 9, 1000, last);
        drop(engine);
        let log = files(directory.path(), "log").pop().expect("there is a write-ahead log");
        let file = fs::OpenOptions::new().write(true).open(log).expect("exists");
        let len = file.metadata().expect("exists").len();
        file.set_len(len - cut_bytes).expect("writable");

        if last == Durability::Synced {
            assert!(is_damaged(&open(directory.path())), "it was acknowledged");
            assert!(is_damaged(&open(directory.path())), "and is not forgotten");
        } else {
            let engine = opened(directory.path());
            assert_eq!(read(&engine, GROUP, 8), Ok(Some(entry(8, 1000))));
            assert_eq!(read(&engine, GROUP, 9), Ok(None), "cut by {cut_bytes}");
        }
    }
}

/// What the simulated disk says of a restarted process: a vote that was read after a kill can't be
/// lost by a later power cut.
#[test]
fn opening_makes_durable_what_an_earlier_process_left_un_synced() {
    let (directory, image) = (directory(), directory());
    let engine = opened(directory.path());
    append(&engine, GROUP, 1, 1000, Durability::Buffered);
    drop(engine);
    let engine = opened(directory.path());
    for file in fs::read_dir(directory.path()).expect("readable") {
        let file = file.expect("readable").path();
        // As if nothing of any write-ahead log had reached the disk.
        let is_log = file.extension().is_some_and(|extension| extension == "log");
        let copy = image.path().join(file.file_name().expect("a file"));
        match is_log {
            true => drop(fs::File::create(copy).expect("writable")),
            false => drop(fs::copy(&file, copy).expect("copied")),
        }
    }
    drop(engine);
    assert_eq!(read(&opened(image.path()), GROUP, 1), Ok(Some(entry(1, 1000))));
}

#[test]
fn a_store_with_a_damaged_log_does_not_open() {
    let directory = directory();
    let engine = opened(directory.path());
    (1..=9).for_each(|index| append(&engine, GROUP, index, 1000, Durability::Synced));
    drop(engine);
    let log = files(directory.path(), "log").pop().expect("there is a write-ahead log");
    flip_bit(&log, 1, 2);

    let refused = open(directory.path()).err().expect("synced entries are gone");
    assert!(refused.to_string().contains("count this disk as lost"), "{refused}");
    assert!(is_damaged(&open(directory.path())), "and trying again doesn't change that");
}

#[test]
fn a_store_that_lost_a_file_does_not_open_as_an_empty_one() {
    for lost in ["CURRENT", "sst", "MANIFEST"] {
        let directory = directory();
        let engine = opened(directory.path());
        append(&engine, GROUP, 1, 100, Durability::Synced);
        flush(&engine);
        drop(engine);
        for file in fs::read_dir(directory.path()).expect("readable") {
            let path = file.expect("readable").path();
            if path.to_string_lossy().contains(lost) {
                fs::remove_file(path).expect("deletable");
            }
        }
        assert!(is_damaged(&open(directory.path())), "without {lost}");
    }
}

#[test]
fn a_damaged_entry_is_reported_and_its_neighbours_are_served() {
    let directory = directory();
    let engine = opened(directory.path());
    (1..=3).for_each(|index| append(&engine, GROUP, index, 10_000, Durability::Synced));
    flush(&engine);
    drop(engine);
    let blobs = files(directory.path(), "blob").pop().expect("entries are in a blob file");
    flip_bit(&blobs, 1, 2);

    let engine = opened(directory.path());
    assert!(is_damaged(&read(&engine, GROUP, 2)));
    let scan = engine.scan(Space::Log, &keys::log(GROUP), ScanLimit::items(9));
    assert!(is_damaged(&scan), "not as if the log ended there");
    assert_eq!(read(&engine, GROUP, 1), Ok(Some(entry(1, 10_000))));
    assert_eq!(read(&engine, GROUP, 3), Ok(Some(entry(3, 10_000))));

    append(&engine, GROUP, 2, 10_000, Durability::Synced);
    assert_eq!(read(&engine, GROUP, 2), Ok(Some(entry(2, 10_000))), "repaired by writing it");
}

#[test]
fn nothing_stands_behind_a_last_entry_that_can_not_be_read() {
    let directory = directory();
    let engine = opened(directory.path());
    (1..=3).for_each(|index| append(&engine, GROUP, index, 10_000, Durability::Synced));
    flush(&engine);
    drop(engine);
    let blobs = files(directory.path(), "blob").pop().expect("entries are in a blob file");
    flip_bit(&blobs, 5, 6);

    // What `node/src/raft/log_store/end.rs` finds the end of such a log by.
    let engine = opened(directory.path());
    let from = |index| engine.scan(Space::Log, &keys::log_from(GROUP, index), ScanLimit::items(1));
    assert!(is_damaged(&engine.last_before(Space::Log, &keys::log(GROUP))));
    assert!(is_damaged(&from(3)));
    assert_eq!(from(4), Ok(Vec::new()));
}

#[test]
fn a_damaged_block_of_keys_is_reported_by_every_kind_of_read() {
    let directory = directory();
    let engine = opened(directory.path());
    (1..=5000).for_each(|index| append(&engine, GROUP, index, 100, Durability::Buffered));
    flush(&engine);
    drop(engine);
    let sorted = files(directory.path(), "sst").pop().expect("entries are in a sorted file");
    flip_bit(&sorted, 1, 2);

    let engine = opened(directory.path());
    let everything = ScanLimit::items(usize::MAX);
    assert!(is_damaged(&engine.scan(Space::Log, &keys::log(GROUP), everything)));
    let damaged: Vec<u64> = (1..=5000).filter(|&i| is_damaged(&read(&engine, GROUP, i))).collect();
    let first = *damaged.first().expect("one block is damaged");
    assert!(is_damaged(&engine.last_before(Space::Log, &keys::log_through(GROUP, first))));
    assert!((1..=5000).all(|i| damaged.contains(&i) || read(&engine, GROUP, i).is_ok()));
}

#[test]
fn a_lost_blob_file_is_damage_not_a_missing_key() {
    let directory = directory();
    let engine = opened(directory.path());
    append(&engine, GROUP, 1, 10_000, Durability::Synced);
    flush(&engine);
    drop(engine);
    for blobs in files(directory.path(), "blob") {
        fs::remove_file(blobs).expect("deletable");
    }
    let damaged = open(directory.path()).and_then(|engine| read(&engine, GROUP, 1));
    assert!(is_damaged(&damaged), "{damaged:?}");
}

#[test]
fn purging_most_of_a_log_gives_the_space_back() {
    let directory = directory();
    let engine = RocksEngine::open(directory.path(), RocksOptions::default()).expect("opens");
    let size = 64 << 10;
    (1..=3200).for_each(|index| append(&engine, GROUP, index, size, Durability::Buffered));
    let full = engine.bytes_used().expect("known");
    assert!(full >= 200 * MIB, "{full}");

    purge(&engine, GROUP, 3000);
    engine.reclaim_now().expect("the disk is sound");

    let left = engine.bytes_used().expect("known");
    let lives = 200 * u64::try_from(size).expect("small");
    // Beyond what lives, only the part of the blob file at the border that is deleted.
    assert!(left < lives + 64 * MIB, "{left} bytes left of {full}");
    assert_eq!(read(&engine, GROUP, 3000), Ok(None));
    for index in 3001..=3200 {
        assert_eq!(read(&engine, GROUP, index), Ok(Some(entry(index, size))));
    }
}

#[test]
fn the_space_of_a_purged_log_comes_back_without_being_asked_for() {
    let directory = directory();
    let reclaim = ReclaimOptions {
        interval: Duration::from_millis(10),
        deleted_bytes_min: 8 * MIB,
        // Only the estimate of what was deleted can start a round.
        intervals_max: u32::MAX,
        ..ReclaimOptions::default()
    };
    let options = RocksOptions { reclaim, ..small() };
    let engine = RocksEngine::open(directory.path(), options).expect("opens");
    (1..=1024).for_each(|index| append(&engine, GROUP, index, 64 << 10, Durability::Buffered));
    flush(&engine);
    purge(&engine, GROUP, 1000);

    let lives = 24 * (64 << 10);
    let back = || engine.bytes_used().expect("known") < lives + 16 * MIB;
    // Polled, for at most a minute: the thread tells nobody when it is done.
    let came_back = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        back()
    });
    assert!(came_back, "{} bytes are left of 64 MiB", engine.bytes_used().expect("known"));
}

/// Two logs whose entries alternate, so that no blob file holds those of one only.
fn alternate(engine: &RocksEngine, count: u64) {
    for index in 1..=count {
        append(engine, GROUP, index, 16 << 10, Durability::Buffered);
        if index % 4 == 0 {
            append(engine, OTHER, index, 16 << 10, Durability::Buffered);
        }
        // Before the memtable is full. Flushes that wait for each other on a busy machine become
        // one, with blob files of one log only, which go without being rewritten.
        if index % 128 == 0 {
            flush(engine);
        }
    }
    flush(engine);
}

#[test]
fn a_log_that_keeps_everything_does_not_keep_the_space_of_its_neighbour() {
    let directory = directory();
    let engine = opened(directory.path());
    let count = 4096;
    alternate(&engine, count);
    purge(&engine, GROUP, count);

    let done = engine.reclaim_now().expect("the disk is sound");

    assert!(done.compactions == 1 && done.rewrites >= 1, "{done:?}");
    let left = engine.bytes_used().expect("known");
    let lives = 16 * MIB;
    assert!(left < 3 * lives, "{left} bytes hold {lives} live ones of once {}", 5 * lives);
    for index in (4..=count).step_by(4) {
        assert_eq!(read(&engine, OTHER, index), Ok(Some(entry(index, 16 << 10))));
    }
}

#[test]
fn a_damaged_entry_does_not_stop_the_store_when_space_is_reclaimed() {
    let directory = directory();
    let engine = opened(directory.path());
    alternate(&engine, 1024);
    // A value of the log that stays, so that rewriting would have to copy it.
    append(&engine, OTHER, 9999, 100_000, Durability::Buffered);
    flush(&engine);
    drop(engine);
    flip_bit(&files(directory.path(), "blob").pop().expect("the youngest"), 1, 2);

    let engine = opened(directory.path());
    purge(&engine, GROUP, 1024);
    assert!(is_damaged(&engine.reclaim_now()), "nothing is rewritten before it is repaired");
    append(&engine, OTHER, 9999, 100_000, Durability::Synced);
    purge(&engine, GROUP, 1024);
    let done = engine.reclaim_now().expect("the entry is repaired");
    assert!(done.rewrites >= 1, "{done:?}");
    assert_eq!(read(&engine, OTHER, 9999), Ok(Some(entry(9999, 100_000))));
}

#[test]
fn old_write_ahead_logs_go_though_one_space_is_hardly_written() {
    let directory = directory();
    let engine = opened(directory.path());
    let mut batch = WriteBatch::new();
    batch.put(Space::State, keys::vote(GROUP), Bytes::from_static(b"vote"));
    engine.write(batch, Durability::Synced).expect("the disk is sound");
    for index in 1..=1024 {
        append(&engine, GROUP, index, 64 << 10, Durability::Buffered);
    }
    let logs = files(directory.path(), "log");
    let bytes: u64 =
        logs.iter().filter_map(|log| fs::metadata(log).ok()).map(|log| log.len()).sum();
    // The bound, and the log and the memtable that are being written.
    assert!(bytes < 16 * MIB + 2 * 4 * MIB, "{bytes} bytes in {} files", logs.len());
}

#[test]
fn dropping_the_store_stops_its_thread_at_once() {
    let directory = directory();
    let engine = opened(directory.path());
    append(&engine, GROUP, 1, 100, Durability::Synced);
    purge(&engine, GROUP, 1);
    // The reclaimer's interval is an hour.
    drop(engine);
    opened(directory.path());
}
