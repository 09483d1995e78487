//! The tables of the metadata and coordinator groups: small states in memory, kept as full
//! snapshots, with the log replayed on top.
//!
//! Not here: what the commands mean (`node_core::groups`, `node_core::metadata`), nor who proposes
//! them (`metadata.rs`, `coordinator.rs`).

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use node_core::codec::DecodeError;
use node_core::features::{FeatureLevel, FeatureRange, SUPPORTED};
use node_core::groups::{GroupCommand, GroupTable};
use node_core::ids::GroupId;
use node_core::metadata::{MetadataCommand, MetadataState};
use node_core::partition::Membership;
use node_core::position::RaftPosition;
use tokio::sync::Notify;

use crate::limits;
use crate::raft::Applied;
use crate::storage::{Engine, WriteBatch, keys, row};

/// A replicated table.
pub(crate) trait Table: Sized + Send + 'static {
    /// The state before the first entry.
    fn empty() -> Self;
    /// Applies an encoded command, if it is of those levels. An error means that this replica
    /// can't go on; nothing was changed.
    fn apply_encoded(
        &mut self,
        at: RaftPosition,
        command: Bytes,
        spoken: FeatureRange,
    ) -> Result<Applied, Unreadable>;
    /// The feature level that its bytes are of.
    fn level(&self) -> FeatureLevel;
    fn apply_blank(&mut self, at: RaftPosition);
    fn apply_membership(&mut self, at: RaftPosition, membership: Bytes);
    fn applied(&self) -> Option<RaftPosition>;
    fn membership(&self) -> Option<&Membership>;
    fn encode(&self) -> Bytes;
    fn decode(bytes: Bytes) -> Result<Self, DecodeError>;
}

impl Table for GroupTable {
    fn empty() -> Self {
        Self::default()
    }
    fn apply_encoded(
        &mut self,
        at: RaftPosition,
        command: Bytes,
        _: FeatureRange,
    ) -> Result<Applied, Unreadable> {
        let command = GroupCommand::decode(command)?;
        Ok(Applied::Group(self.apply(at, &command)))
    }
    fn level(&self) -> FeatureLevel {
        FeatureLevel::FIRST
    }
    fn apply_blank(&mut self, at: RaftPosition) {
        self.apply_blank(at);
    }
    fn apply_membership(&mut self, at: RaftPosition, membership: Bytes) {
        self.apply_membership(at, membership);
    }
    fn applied(&self) -> Option<RaftPosition> {
        self.applied()
    }
    fn membership(&self) -> Option<&Membership> {
        self.membership()
    }
    fn encode(&self) -> Bytes {
        self.encode_snapshot()
    }
    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::decode_snapshot(bytes)
    }
}

impl Table for MetadataState {
    fn empty() -> Self {
        Self::default()
    }
    fn apply_encoded(
        &mut self,
        at: RaftPosition,
        command: Bytes,
        spoken: FeatureRange,
    ) -> Result<Applied, Unreadable> {
        let command = MetadataCommand::decode(command)?;
        Unreadable::unless_spoken(command.known_since(), spoken)?;
        if let MetadataCommand::FinalizeLevel { level } = command {
            Unreadable::unless_spoken(level, spoken)?;
        }
        Ok(Applied::Metadata(self.apply(at, &command)))
    }
    fn level(&self) -> FeatureLevel {
        self.level()
    }
    fn apply_blank(&mut self, at: RaftPosition) {
        self.apply_blank(at);
    }
    fn apply_membership(&mut self, at: RaftPosition, membership: Bytes) {
        self.apply_membership(at, membership);
    }
    fn applied(&self) -> Option<RaftPosition> {
        self.applied()
    }
    fn membership(&self) -> Option<&Membership> {
        self.membership()
    }
    fn encode(&self) -> Bytes {
        self.encode_snapshot()
    }
    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::decode_snapshot(bytes)
    }
}

/// A command or a snapshot that this build can't take. Its replica stops, and has changed nothing:
/// a build that can goes on where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(
        "this needs feature level {needed}, and this build speaks {spoken}: start the node with a \
         build that speaks it; nothing was changed"
    )]
    Level { needed: FeatureLevel, spoken: FeatureRange },
}

impl Unreadable {
    fn unless_spoken(needed: FeatureLevel, spoken: FeatureRange) -> Result<(), Self> {
        // What an earlier level brought stays readable; only what is newer can't be known.
        match needed <= spoken.max {
            true => Ok(()),
            false => Err(Self::Level { needed, spoken }),
        }
    }
}

/// A table that readers look at while its machine applies.
pub(crate) struct Shared<T> {
    table: Mutex<T>,
    /// The log has grown long since the last snapshot.
    pub(crate) wants_snapshot: Notify,
}

impl<T> Shared<T> {
    /// Looks at the table as applied so far.
    pub(crate) fn read(&self) -> MutexGuard<'_, T> {
        // Apply leaves the table whole or panics, and a panic ends the process.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine of one table replica.
pub(crate) struct TableMachine<T> {
    group: GroupId,
    engine: Arc<dyn Engine>,
    shared: Arc<Shared<T>>,
    published: Box<dyn Fn(&T) + Send + Sync>,
    entries_since_snapshot: u64,
    /// What this build speaks.
    spoken: FeatureRange,
}

/// What Raft needs of a table's machine, whatever the table.
pub(crate) trait AnyTable: Send + Sync {
    fn apply_blank(&mut self, at: RaftPosition);
    fn apply_membership(&mut self, at: RaftPosition, membership: Bytes);
    fn apply_command(&mut self, at: RaftPosition, command: Bytes) -> io::Result<Applied>;
    /// Lets readers see what was applied.
    fn publish(&mut self);
    fn applied(&self) -> Option<RaftPosition>;
    fn membership(&self) -> Option<Membership>;
    /// The snapshot as of now, and the write that keeps it.
    fn snapshot(&mut self) -> (WriteBatch, Bytes);
    /// The snapshot that is kept, if there is one.
    fn stored_snapshot(&self) -> io::Result<Option<StoredSnapshot>>;
    /// Begins anew with a snapshot that another replica gave.
    fn install(&mut self, snapshot: Bytes) -> io::Result<WriteBatch>;
}

/// A kept snapshot, and where in the log it stands.
pub(crate) struct StoredSnapshot {
    pub(crate) at: RaftPosition,
    pub(crate) membership: Option<Membership>,
    pub(crate) data: Bytes,
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn decode_spoken<T: Table>(snapshot: Bytes, spoken: FeatureRange) -> Result<T, Unreadable> {
    let table = T::decode(snapshot)?;
    Unreadable::unless_spoken(table.level(), spoken)?;
    Ok(table)
}

impl<T: Table> TableMachine<T> {
    /// The table as its snapshot in the store has it. `published` sees every later state.
    pub(crate) fn open(
        group: GroupId,
        engine: Arc<dyn Engine>,
        published: Box<dyn Fn(&T) + Send + Sync>,
    ) -> io::Result<(Self, Arc<Shared<T>>)> {
        Self::open_speaking(SUPPORTED, group, engine, published)
    }

    /// The same for a node that acts as another release.
    pub(crate) fn open_speaking(
        spoken: FeatureRange,
        group: GroupId,
        engine: Arc<dyn Engine>,
        published: Box<dyn Fn(&T) + Send + Sync>,
    ) -> io::Result<(Self, Arc<Shared<T>>)> {
        let stored = row::get(&*engine, &keys::snapshot(group)).map_err(io::Error::other)?;
        let table = match stored {
            None => T::empty(),
            Some(snapshot) => decode_spoken(snapshot, spoken).map_err(bad)?,
        };
        let shared = Arc::new(Shared { table: Mutex::new(table), wants_snapshot: Notify::new() });
        let entries_since_snapshot = 0;
        let machine = Self {
            group,
            engine,
            shared: shared.clone(),
            published,
            entries_since_snapshot,
            spoken,
        };
        (machine.published)(&machine.shared.read());
        Ok((machine, shared))
    }

    fn applied_one(&mut self) {
        self.entries_since_snapshot += 1;
        if self.entries_since_snapshot == limits::TABLE_SNAPSHOT_ENTRIES {
            self.shared.wants_snapshot.notify_one();
        }
    }
}

impl<T: Table> AnyTable for TableMachine<T> {
    fn apply_blank(&mut self, at: RaftPosition) {
        self.shared.read().apply_blank(at);
        self.applied_one();
    }

    fn apply_membership(&mut self, at: RaftPosition, membership: Bytes) {
        self.shared.read().apply_membership(at, membership);
        self.applied_one();
    }

    fn apply_command(&mut self, at: RaftPosition, command: Bytes) -> io::Result<Applied> {
        let applied = self.shared.read().apply_encoded(at, command, self.spoken).map_err(bad)?;
        self.applied_one();
        Ok(applied)
    }

    fn publish(&mut self) {
        (self.published)(&self.shared.read());
    }

    fn applied(&self) -> Option<RaftPosition> {
        self.shared.read().applied()
    }

    fn membership(&self) -> Option<Membership> {
        self.shared.read().membership().cloned()
    }

    fn snapshot(&mut self) -> (WriteBatch, Bytes) {
        self.entries_since_snapshot = 0;
        let snapshot = self.shared.read().encode();
        let mut batch = WriteBatch::new();
        row::put(&mut batch, keys::snapshot(self.group), &snapshot);
        (batch, snapshot)
    }

    fn stored_snapshot(&self) -> io::Result<Option<StoredSnapshot>> {
        let stored = row::get(&*self.engine, &keys::snapshot(self.group));
        let Some(data) = stored.map_err(io::Error::other)? else { return Ok(None) };
        let table = T::decode(data.clone()).map_err(bad)?;
        let at = table.applied().ok_or_else(|| bad("a snapshot of nothing"))?;
        Ok(Some(StoredSnapshot { at, membership: table.membership().cloned(), data }))
    }

    fn install(&mut self, snapshot: Bytes) -> io::Result<WriteBatch> {
        let table = decode_spoken(snapshot.clone(), self.spoken).map_err(bad)?;
        *self.shared.read() = table;
        self.entries_since_snapshot = 0;
        let mut batch = WriteBatch::new();
        row::put(&mut batch, keys::snapshot(self.group), &snapshot);
        Ok(batch)
    }
}
