//! What an error of RocksDB means for a node. RocksDB hands errors out as text; this is the only
//! place that reads it.

use std::path::Path;

use rocksdb::ErrorKind;

use crate::storage::StorageError;
use crate::storage::error::{ADVICE_STORE, ADVICE_VALUE};

/// What was being done, and hence what a damaged or missing file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Open,
    Read,
    Write,
}

const FULL: [&str; 3] =
    ["No space left on device", "Disk quota exceeded", "Max allowed space was reached"];

const IN_USE: [&str; 2] = ["lock hold by current process", "While lock file"];

/// Translates an error of RocksDB on the store at `path`.
pub(super) fn translate(operation: Operation, path: &Path, error: &rocksdb::Error) -> StorageError {
    let text: &str = error.as_ref();
    let doing = match operation {
        Operation::Open => "opening",
        Operation::Read => "reading from",
        Operation::Write => "writing to",
    };
    let what = format!("{doing} {}: {text}", path.display());
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&FULL) {
        return StorageError::Full { what };
    }
    if operation == Operation::Open && says(&IN_USE) {
        return StorageError::InUse { path: path.to_owned() };
    }
    // A file that RocksDB knows and the disk doesn't have is as bad as one with flipped bits.
    let lost = error.kind() == ErrorKind::Corruption || text.contains("No such file or directory");
    match (lost, operation) {
        (true, Operation::Read) => StorageError::Damaged { what, advice: ADVICE_VALUE },
        (true, Operation::Open | Operation::Write) => {
            StorageError::Damaged { what, advice: ADVICE_STORE }
        }
        (false, _) => StorageError::Io { what },
    }
}
