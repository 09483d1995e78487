//! A row of [`Space::State`]: a sealed value of the one version this node writes.

use bytes::Bytes;

use super::error::ADVICE_STORE;
use super::{Engine, KeyRange, ScanLimit, Space, StorageError, WriteBatch, sealed};

const ROW_VERSION: u8 = 1;

/// Writes a row.
pub fn put(batch: &mut WriteBatch, key: Bytes, body: &[u8]) {
    let value = sealed::seal(&key, ROW_VERSION, body);
    batch.put(Space::State, key, value);
}

/// Reads a row.
pub fn get(engine: &dyn Engine, key: &Bytes) -> Result<Option<Bytes>, StorageError> {
    match engine.get(Space::State, key)? {
        None => Ok(None),
        Some(value) => open(key, value).map(Some),
    }
}

/// Reads all rows of a range, in the order of their keys.
pub fn list(engine: &dyn Engine, range: &KeyRange) -> Result<Vec<Bytes>, StorageError> {
    let rows = engine.scan(Space::State, range, ScanLimit::items(usize::MAX))?;
    rows.into_iter().map(|(key, value)| open(&key, value)).collect()
}

/// Takes a row's value out of its seal.
pub fn open(key: &[u8], value: Bytes) -> Result<Bytes, StorageError> {
    let damaged = |what: String| StorageError::Damaged { what, advice: ADVICE_STORE };
    let opened = sealed::open(key, value).map_err(|error| damaged(error.to_string()))?;
    if opened.version == ROW_VERSION {
        Ok(opened.body)
    } else {
        Err(damaged(format!("a row of version {}, known is {ROW_VERSION}", opened.version)))
    }
}
