//! Gets damaged entries again from the group's other replicas, before anybody sees them.
//!
//! The others give committed entries only, which are the same everywhere. This replica may be
//! wrong about which of its own are: an entry is taken in only where it has its place.

use std::io;

use super::{GroupLog, bad};
use crate::limits;
use crate::raft::types::Entry;
use crate::raft::wire;
use crate::storage::entry;
use crate::storage::{Space, StorageError, WriteBatch, keys};

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
        let committed = match self.follows_what_is_committed(index).await? {
            true => self.repair.fetch(self.group, index).await,
            false => None,
        };
        let Some(stored) = committed else {
            let group = self.group;
            let text = format!("entry {index} of {group} is damaged and no replica could give it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let mut batch = WriteBatch::default();
        let key = keys::log_entry(self.group, index);
        batch.put(Space::Log, key, entry::encode(self.group, index, &stored));
        self.write_and_wait(batch).await?;
        tracing::warn!(group = %self.group, index, "damaged entry repaired from another replica");
        self.metrics.repair.repaired.inc();
        wire::entry_from_stored(index, stored).map_err(bad)
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
