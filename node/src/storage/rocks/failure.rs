//! What an error of RocksDB means for a node. RocksDB hands errors out as text; this is the only
//! place that reads it.

use std::path::Path;

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

/// Translates an error of RocksDB, given as its text, on the store at `path`.
pub(super) fn translate(operation: Operation, path: &Path, text: &str) -> StorageError {
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
    // A file that RocksDB knows and the disk doesn't have is as bad as one with flipped bits, and
    // so is a block that the disk can't read back (EIO). A write that fails is another matter.
    let unreadable = operation == Operation::Read && text.contains("Input/output error");
    let lost = text.starts_with("Corruption") || text.contains("No such file or directory");
    let lost = lost || unreadable;
    match (lost, operation) {
        (true, Operation::Read) => StorageError::Damaged { what, advice: ADVICE_VALUE },
        (true, Operation::Open | Operation::Write) => {
            StorageError::Damaged { what, advice: ADVICE_STORE }
        }
        (false, _) => StorageError::Io { what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(operation: Operation, text: &str) -> StorageError {
        translate(operation, Path::new("/data"), text)
    }

    #[test]
    fn errors_are_told_apart_by_what_they_mean() {
        let locked = "IO error: While lock file: /data/LOCK: Resource temporarily unavailable";
        assert!(matches!(meaning(Operation::Open, locked), StorageError::InUse { .. }));
        let full = "IO error: No space left on device: While appending to file: /data/000008.log";
        assert!(matches!(meaning(Operation::Write, full), StorageError::Full { .. }));
        let broken = "IO error: While fsync: /data/000008.log: Input/output error";
        assert!(matches!(meaning(Operation::Write, broken), StorageError::Io { .. }));
        let damaged = "Corruption: block checksum mismatch: stored = 1, computed = 2";
        assert!(matches!(meaning(Operation::Read, damaged), StorageError::Damaged { .. }));
        let lost = "IO error: No such file or directory: While open a file: /data/000009.blob";
        assert!(matches!(meaning(Operation::Read, lost), StorageError::Damaged { .. }));
        let bad_sector = "IO error: Input/output error: While pread offset 5 len 6: /data/9.blob";
        assert!(matches!(meaning(Operation::Read, bad_sector), StorageError::Damaged { .. }));
        assert!(matches!(meaning(Operation::Open, bad_sector), StorageError::Io { .. }));
    }

    #[test]
    fn a_damaged_value_is_repaired_and_a_damaged_store_is_given_up() {
        let advice = |operation| match meaning(operation, "Corruption: bad") {
            StorageError::Damaged { advice, .. } => advice,
            other => panic!("{other}"),
        };
        assert_eq!(advice(Operation::Read), ADVICE_VALUE);
        assert_eq!(advice(Operation::Open), ADVICE_STORE);
        assert_eq!(advice(Operation::Write), ADVICE_STORE);
    }
}
