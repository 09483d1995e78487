//! Where a stored log ends, also when the block of its last entry can't be read.
//!
//! A replica whose log is shorter than it said can vote for a leader that lacks what was committed
//! with it. So an end is taken only from the store's own word that nothing stands behind it; what
//! can't be read counts as standing there.

use node_core::ids::GroupId;

use crate::storage::{Engine, ScanLimit, Space, StorageError, keys};

/// The index of the last entry on the disk, whole or damaged; `None` where there is none.
///
/// # Errors
/// If a damaged block also covers what stands behind this log, so that its end is not known, or if
/// the disk can't be read at all.
pub(super) fn last_index(engine: &dyn Engine, group: GroupId) -> Result<Option<u64>, StorageError> {
    match engine.last_before(Space::Log, &keys::log(group)) {
        Ok(None) => Ok(None),
        Ok(Some((key, _))) => Ok(keys::parse_log_entry(&key).map(|(_, index)| index)),
        Err(damaged @ StorageError::Damaged { .. }) => last_held(engine, group, damaged),
        Err(error) => Err(error),
    }
}

/// The greatest index from which on something stands in the log: by doubling, then by halving,
/// since nothing stands behind an index behind which nothing stands.
fn last_held(
    engine: &dyn Engine,
    group: GroupId,
    damaged: StorageError,
) -> Result<Option<u64>, StorageError> {
    if !holds_from(engine, group, 0)? {
        return Ok(None);
    }
    let (mut held, mut free) = (0, 1);
    while holds_from(engine, group, free)? {
        held = free;
        free = free.checked_mul(2).ok_or_else(|| damaged.clone())?;
    }
    while free - held > 1 {
        let middle = held + (free - held) / 2;
        if holds_from(engine, group, middle)? {
            held = middle;
        } else {
            free = middle;
        }
    }
    Ok(Some(held))
}

fn holds_from(engine: &dyn Engine, group: GroupId, index: u64) -> Result<bool, StorageError> {
    match engine.scan(Space::Log, &keys::log_from(group, index), ScanLimit::items(1)) {
        Ok(rows) => Ok(!rows.is_empty()),
        Err(StorageError::Damaged { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
