//! One replica's storage without Raft: the real log store and the real machine, driven by hand as
//! openraft drives them, so that the power can be cut between any two of their writes.
//!
//! For `quipu-sim cuts` only; no node uses it. It decides nothing itself: what it does at a start
//! is what openraft does then, and everything else is handed through.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use node_core::groups::GroupTable;
use node_core::ids::GroupId;
use node_core::partition::LadderLimits;
use node_core::position::RaftPosition;
use openraft::EntryPayload;
use openraft::storage::{
    IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::type_config::TypeConfigExt;

use super::log_store::{EntrySource, GroupLog, LogParts, LogStore};
use super::machine::{Machine, MachineKind};
use super::types::{Command, Entry, LogId, SnapshotMeta, Types, Vote, log_id, term_of};
use crate::metrics::Metrics;
use crate::partition::PartitionMachine;
use crate::storage::entry::StoredEntry;
use crate::storage::log_writer::LogWriter;
use crate::storage::{Engine, WriteBatch};
use crate::tables::TableMachine;

/// What the replica is of.
#[derive(Debug, Clone, Copy)]
pub enum RigKind {
    /// A log group: its entries are the data.
    Partition(LadderLimits),
    /// A table group: its snapshot is the data.
    Coordinator,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RigEntry {
    /// Where it stands.
    pub at: RaftPosition,
    /// The encoded command; empty for a blank entry.
    pub command: Bytes,
}

/// One replica.
pub struct ReplicaRig {
    log: Arc<GroupLog>,
    store: LogStore,
    machine: Machine,
}

/// Resolves when an append is on stable storage, or failed.
pub struct Appended(BoxFuture<'static, bool>);

impl Appended {
    /// Whether the append is on stable storage.
    pub async fn is_durable(self) -> bool {
        self.0.await
    }
}

/// There is nobody else to ask.
struct Alone;

impl EntrySource for Alone {
    fn fetch(&self, _: GroupId, _: u64) -> BoxFuture<'static, Option<StoredEntry>> {
        Box::pin(std::future::ready(None))
    }
}

impl ReplicaRig {
    /// Opens the replica as the disk has it, and does what openraft does at a start: a log that
    /// ends before what is applied (a snapshot was installed, and its log was not purged yet) is
    /// purged up to there; a table applies what it knows to be committed.
    pub async fn open(
        engine: Arc<dyn Engine>,
        writer: LogWriter,
        group: GroupId,
        kind: RigKind,
    ) -> io::Result<Self> {
        let log = GroupLog::open(LogParts {
            group,
            engine: engine.clone(),
            writer,
            repair: Arc::new(Alone),
            keeps_committed: matches!(kind, RigKind::Coordinator),
            metrics: Arc::new(Metrics::new()),
        })
        .await?;
        let kind = match kind {
            RigKind::Partition(limits) => {
                let (machine, _) = PartitionMachine::open(group, engine, limits)?;
                MachineKind::Partition(Box::new(machine))
            }
            RigKind::Coordinator => {
                let (machine, _) =
                    TableMachine::<GroupTable>::open(group, engine, Box::new(|_| {}))?;
                MachineKind::Table(Box::new(machine))
            }
        };
        let (machine, _) = Machine::new(kind, log.clone(), Box::new(|_| {}));
        let mut rig = Self { store: LogStore(log.clone()), log, machine };
        let (applied, _) = rig.machine.applied_state().await?;
        if let Some(applied) = applied
            && rig.last().await?.is_none_or(|last| last.index < applied.index())
        {
            rig.store.purge(applied).await?;
        }
        if let Some(committed) = rig.store.read_committed().await? {
            rig.apply_through(committed.index()).await?;
        }
        Ok(rig)
    }

    /// Term and candidate of the vote.
    pub async fn vote(&mut self) -> io::Result<Option<(u64, u64)>> {
        let vote = self.store.read_vote().await?;
        Ok(vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for)))
    }

    /// The last entry, or the last purged one.
    pub async fn last(&mut self) -> io::Result<Option<RaftPosition>> {
        Ok(self.store.get_log_state().await?.last_log_id.map(position))
    }

    /// The last purged entry.
    pub async fn purged(&mut self) -> io::Result<Option<RaftPosition>> {
        Ok(self.store.get_log_state().await?.last_purged_log_id.map(position))
    }

    /// The last applied entry.
    pub async fn applied(&mut self) -> io::Result<Option<RaftPosition>> {
        Ok(self.machine.applied_state().await?.0.map(position))
    }

    /// Entries of `start..end`, as openraft reads them to replicate them.
    pub async fn entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RigEntry>> {
        let entries = self.store.try_get_log_entries(start..end).await?;
        let taken_apart = entries.into_iter().map(|entry| RigEntry {
            at: position(entry.log_id),
            command: match entry.payload {
                EntryPayload::Normal(command) => command.0,
                EntryPayload::Blank | EntryPayload::Membership(_) => Bytes::new(),
            },
        });
        Ok(taken_apart.collect())
    }

    /// Votes, and waits until that is on stable storage.
    pub async fn save_vote(&mut self, term: u64, candidate: u64) -> io::Result<()> {
        self.store.save_vote(&Vote::new(term, candidate)).await
    }

    /// Appends, and does not wait.
    pub async fn append(&mut self, entries: &[RigEntry]) -> io::Result<Appended> {
        let (sender, receiver) = Types::oneshot();
        let entries: Vec<Entry> = entries
            .iter()
            .map(|entry| Entry {
                log_id: id(entry.at),
                payload: match entry.command.is_empty() {
                    true => EntryPayload::Blank,
                    false => EntryPayload::Normal(Command(entry.command.clone())),
                },
            })
            .collect();
        self.store.append(entries, IOFlushed::signal(sender)).await?;
        Ok(Appended(Box::pin(async move { matches!(receiver.await, Ok(Ok(()))) })))
    }

    /// Removes everything after `last`, and waits until that is on stable storage.
    pub async fn truncate_after(&mut self, last: Option<RaftPosition>) -> io::Result<()> {
        self.store.truncate_after(last.map(id)).await
    }

    /// Learns that everything up to `committed` is committed, and applies it.
    pub async fn commit(&mut self, committed: RaftPosition) -> io::Result<()> {
        self.store.save_committed(Some(id(committed))).await?;
        self.apply_through(committed.index).await
    }

    async fn apply_through(&mut self, last: u64) -> io::Result<()> {
        let (applied, _) = self.machine.applied_state().await?;
        let start = applied.map_or(0, |applied| applied.index() + 1);
        if start > last {
            return Ok(());
        }
        let entries = self.store.entries_stream(start..last + 1).await;
        let mut batch = Vec::new();
        let mut entries = std::pin::pin!(entries);
        while let Some(entry) = entries.next().await {
            batch.push(entry.map(|entry| (entry, None)));
        }
        self.machine.apply(stream::iter(batch)).await
    }

    /// Makes the snapshot and purges the log up to it, as after the log start moved.
    pub async fn snapshot_and_purge(&mut self) -> io::Result<Option<RaftPosition>> {
        let Some(mut builder) = self.machine.try_create_snapshot_builder(true).await else {
            return Ok(None);
        };
        let Some(at) = builder.build_snapshot().await?.meta.last_log_id else { return Ok(None) };
        let known = self.purged().await?;
        if known.is_none_or(|purged| purged.index < at.index()) {
            self.store.purge(at).await?;
        }
        Ok(Some(position(at)))
    }

    /// Begins anew with a snapshot of another replica at `at`: what openraft does, in its order.
    pub async fn install(&mut self, at: RaftPosition, data: Bytes) -> io::Result<()> {
        let stands = self.entries(at.index, at.index + 1).await?;
        let conflicts = stands.first().is_some_and(|entry| entry.at != at);
        if conflicts {
            let (applied, _) = self.machine.applied_state().await?;
            self.store.truncate_after(applied).await?;
        }
        let meta = SnapshotMeta { last_log_id: Some(id(at)), ..SnapshotMeta::default() };
        self.machine.install_snapshot(&meta, data).await?;
        self.store.purge(id(at)).await
    }

    /// Waits until everything written so far is on stable storage.
    pub async fn settle(&self) -> io::Result<()> {
        self.log.write_and_wait(WriteBatch::new()).await
    }
}

fn id(at: RaftPosition) -> LogId {
    log_id(at.term, at.index)
}

fn position(at: LogId) -> RaftPosition {
    RaftPosition { term: term_of(&at), index: at.index() }
}
