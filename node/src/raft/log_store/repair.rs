//! Gets damaged entries again from the group's other replicas, before anybody sees them.
//!
//! The others give committed entries only, which are the same everywhere. This replica may be
//! wrong about which of its own are: an entry is taken in only where it has its place.

use std::io;

use node_core::ids::GroupId;
use node_core::partition::PartitionState;

use super::{GroupLog, Queued, Unrepaired, bad, written};
use crate::limits;
use crate::raft::types::Entry;
use crate::raft::wire;
use crate::storage::entry::{self, StoredEntry};
use crate::storage::{Engine, Space, StorageError, WriteBatch, keys, row};

/// The entry at `index` as the disk has it, if it is there and whole. Needs no open log.
pub(crate) fn stored_entry(
    engine: &dyn Engine,
    group: GroupId,
    index: u64,
) -> io::Result<Option<StoredEntry>> {
    let value = engine.get(Space::Log, &keys::log_entry(group, index)).map_err(io::Error::other)?;
    let stored = value.map(|value| entry::decode(group, index, value));
    stored.transpose().map_err(bad)
}

/// Entries below it are committed, as far as a disk knows whose log is not open: a row that says so
/// is written after the entries themselves, so what it speaks of was never cut off again.
pub(crate) fn committed_end(engine: &dyn Engine, group: GroupId) -> u64 {
    let row = |key| row::get(engine, &key).ok().flatten();
    let applied = || {
        let (head, ladder) = (row(keys::head(group))?, row(keys::ladder(group))?);
        PartitionState::restore(head, ladder, []).ok()?.applied().map(|applied| applied.index)
    };
    let committed = || {
        let committed = wire::log_id_from_bytes(&row(keys::committed(group))?).ok()?;
        Some(committed.index())
    };
    applied().max(committed()).map_or(0, |index| index + 1)
}

/// Entries below it went with the log's beginning, as far as a disk knows whose log is not open.
pub(crate) fn purged_end(engine: &dyn Engine, group: GroupId) -> u64 {
    let purged = row::get(engine, &keys::last_purged(group)).ok().flatten();
    let purged = purged.and_then(|bytes| wire::log_id_from_bytes(&bytes).ok());
    purged.map_or(0, |purged| purged.index() + 1)
}

impl GroupLog {
    pub(super) async fn read_or_repair(&self, index: u64) -> io::Result<Entry> {
        match self.engine.get(Space::Log, &keys::log_entry(self.group, index)) {
            Ok(Some(value)) => {
                if let Ok(stored) = entry::decode(self.group, index, value) {
                    return wire::entry_from_stored(index, stored).map_err(bad);
                }
            }
            Ok(None) | Err(StorageError::Damaged { .. }) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        self.repair(index).await
    }

    /// Gets a damaged entry again from another replica, and keeps it.
    pub(super) async fn repair(&self, index: u64) -> io::Result<Entry> {
        self.metrics.repair.corrupt.inc();
        let cuts = self.lock().cuts;
        let asks = self.gate().repairs;
        let committed = match asks && self.follows_what_is_committed(index).await? {
            true => self.repair.fetch(self.group, index).await,
            false => None,
        };
        let Some(stored) = committed else {
            let unrepaired = Unrepaired { group: self.group, index };
            self.gate().unrepaired = Some(unrepaired);
            return Err(bad(unrepaired));
        };
        self.gate().unrepaired = None;
        // Whoever reads an entry that was cut off meanwhile began to before; it is not kept.
        if let Some(queued) = self.queue_repaired(index, &stored, cuts) {
            written(queued).await?;
            tracing::warn!(group = %self.group, index, "damaged entry repaired from another one");
            self.metrics.repair.repaired.inc();
        }
        wire::entry_from_stored(index, stored).map_err(bad)
    }

    /// Queues the write of a repaired entry, if the log still has a place for it. Under the lock of
    /// the tail: a truncation or purge is noted there BEFORE its deletion is queued, so this write
    /// is either before that deletion or not made.
    fn queue_repaired(&self, index: u64, stored: &StoredEntry, cuts: u64) -> Option<Queued> {
        let mut batch = WriteBatch::default();
        let key = keys::log_entry(self.group, index);
        batch.put(Space::Log, key, entry::encode(self.group, index, stored));
        let tail = self.lock();
        let purged = tail.purged.is_some_and(|purged| index <= purged.index());
        (tail.cuts == cuts && !purged).then(|| self.queue(batch))
    }

    /// Whether the committed entry at `index` has its place in this log. What is applied here is
    /// committed; beyond that this log may be one that a later leader has overruled. Then the last
    /// whole entry before it must be the committed one: two logs with an entry in common are the
    /// same up to it (Raft, figure 3: log matching).
    async fn follows_what_is_committed(&self, index: u64) -> io::Result<bool> {
        let (applied_end, purged_end) = {
            let tail = self.lock();
            (tail.applied_end, tail.purged.map_or(0, |purged| purged.index() + 1))
        };
        let known_end = applied_end.max(purged_end);
        let first = known_end.max(index.saturating_sub(limits::REPAIR_LOOK_BACK_MAX));
        for before in (first..index).rev() {
            let Ok(Some(own)) = self.read_whole(before) else { continue };
            let committed = self.repair.fetch(self.group, before).await;
            return Ok(committed.is_some_and(|committed| committed.term == own.term));
        }
        // All that lies between is damaged too, and will be the committed entries, or unknown.
        Ok(first == known_end)
    }
}
