//! The state machine behind a group, as openraft sees it: one closed enum, three kinds.
//!
//! A partition's rows are written beside its log and un-waited; the tables of the metadata and
//! coordinator groups live in memory and are kept as full snapshots, with the log replayed on top.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use node_core::partition::Membership;
use node_core::position::RaftPosition;
use node_core::zoo::{self, Bug};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::log_store::GroupLog;
use super::types::{
    Applied, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, log_id, term_of,
};
use super::wire;
use crate::limits;
use crate::partition::{CommandOutcome, PartitionMachine};
use crate::storage::WriteBatch;
use crate::tables::AnyTable;

/// What applies a group's entries.
pub(crate) struct Machine {
    kind: MachineKind,
    log: Arc<GroupLog>,
    /// Entries below it are applied and can be read.
    applied_end: watch::Sender<u64>,
    installed: Box<dyn Fn(usize) + Send + Sync>,
}

pub(crate) enum MachineKind {
    Partition(Box<PartitionMachine>),
    Table(Box<dyn AnyTable>),
}

type Answers = Vec<(ApplyResponder<Types>, Applied)>;

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn position(log_id: &LogId) -> RaftPosition {
    RaftPosition { term: term_of(log_id), index: log_id.index() }
}

fn log_id_at(position: RaftPosition) -> LogId {
    log_id(position.term, position.index)
}

fn stored_membership(membership: Option<Membership>) -> io::Result<StoredMembership> {
    let Some(membership) = membership else { return Ok(StoredMembership::default()) };
    let at = membership.position.map(log_id_at);
    wire::stored_membership(at, &membership.bytes).map_err(bad)
}

impl Machine {
    /// `installed` is told the bytes of each snapshot that was installed.
    pub(super) fn new(
        kind: MachineKind,
        log: Arc<GroupLog>,
        installed: Box<dyn Fn(usize) + Send + Sync>,
    ) -> (Self, watch::Receiver<u64>) {
        let applied_end = watch::Sender::new(0);
        let receiver = applied_end.subscribe();
        let machine = Self { kind, log, applied_end, installed };
        machine.announce_applied();
        (machine, receiver)
    }

    fn applied(&self) -> Option<RaftPosition> {
        match &self.kind {
            MachineKind::Partition(machine) => machine.state().applied(),
            MachineKind::Table(machine) => machine.applied(),
        }
    }

    fn membership(&self) -> io::Result<StoredMembership> {
        let membership = match &self.kind {
            MachineKind::Partition(machine) => machine.state().membership().cloned(),
            MachineKind::Table(machine) => machine.membership(),
        };
        stored_membership(membership)
    }

    fn announce_applied(&self) {
        let end = self.applied().map_or(0, |applied| applied.index + 1);
        self.log.applied(end);
        self.applied_end.send_replace(end);
    }

    fn apply_entry(&mut self, entry: Entry) -> io::Result<Applied> {
        let at = position(&entry.log_id);
        match (&mut self.kind, entry.payload) {
            (MachineKind::Partition(machine), EntryPayload::Blank) => machine.apply_blank(at),
            (MachineKind::Table(machine), EntryPayload::Blank) => machine.apply_blank(at),
            (MachineKind::Partition(machine), EntryPayload::Membership(membership)) => {
                machine.apply_membership(at, wire::membership_to_bytes(&membership));
            }
            (MachineKind::Table(machine), EntryPayload::Membership(membership)) => {
                machine.apply_membership(at, wire::membership_to_bytes(&membership));
            }
            (MachineKind::Partition(machine), EntryPayload::Normal(command)) => {
                return Ok(match machine.apply_command(at, command.0)? {
                    CommandOutcome::Batches(outcomes) => Applied::Batches(outcomes),
                    CommandOutcome::StartAdvanced(moved) => Applied::StartAdvanced(moved),
                });
            }
            (MachineKind::Table(machine), EntryPayload::Normal(command)) => {
                return machine.apply_command(at, command.0);
            }
        }
        Ok(Applied::Nothing)
    }

    /// Queues the rows, lets readers see the effects, then answers the proposers: whoever reads
    /// after its answer finds what it wrote.
    fn finish(&mut self, answers: &mut Answers) {
        match &mut self.kind {
            MachineKind::Partition(machine) => {
                if let Some((batch, finished)) = machine.finish() {
                    self.log.write_later(batch, Box::new(finished.stored()));
                    machine.publish(&finished);
                }
            }
            MachineKind::Table(machine) => machine.publish(),
        }
        self.announce_applied();
        for (responder, applied) in answers.drain(..) {
            responder.send(applied);
        }
    }

    /// Makes the snapshot: a partition's checkpoint at its log start, a table's whole state.
    async fn build(&mut self) -> io::Result<Option<Snapshot>> {
        // What apply queued un-waited must be in the store, and stay there, before openraft
        // purges the log up to it.
        self.log.write_and_wait(WriteBatch::new()).await?;
        let (at, membership, data) = match &mut self.kind {
            MachineKind::Partition(machine) => {
                let Some((rung, state, data)) = machine.start_checkpoint()? else {
                    return Ok(None);
                };
                (Some(rung.position), state.membership().cloned(), data)
            }
            MachineKind::Table(machine) => {
                let (batch, data) = machine.snapshot();
                self.log.write_and_wait(batch).await?;
                (machine.applied(), machine.membership(), data)
            }
        };
        let last_membership = stored_membership(membership)?;
        let meta = SnapshotMeta { last_log_id: at.map(log_id_at), last_membership };
        Ok(Some(Snapshot { meta, snapshot: data }))
    }
}

/// A snapshot that is already made: building one is quick, and openraft's own task would need the
/// machine's state.
pub(crate) struct Built(Snapshot);

impl RaftSnapshotBuilder<Types> for Built {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(self.0.clone())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Built;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied().map(log_id_at), self.membership()?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Answers::new();
        let mut unfinished = 0;
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let applied = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                answers.push((responder, applied));
            }
            unfinished += 1;
            if unfinished >= limits::APPLY_ENTRIES_MAX {
                self.finish(&mut answers);
                unfinished = 0;
            }
        }
        self.finish(&mut answers);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Built> {
        match self.build().await {
            Ok(snapshot) => snapshot.map(Built),
            Err(error) => {
                tracing::error!(%error, "no snapshot could be made");
                None
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Built {
        // openraft calls the method above; this one is left over from its older interface.
        Built(
            self.build().await.ok().flatten().unwrap_or_else(|| Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: Bytes::new(),
            }),
        )
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: Bytes,
    ) -> Result<(), io::Error> {
        let bytes = data.len();
        let mut batch = match &mut self.kind {
            MachineKind::Partition(machine) => machine.install(data)?,
            MachineKind::Table(machine) => machine.install(data)?,
        };
        if self.applied().map(log_id_at) != meta.last_log_id {
            return Err(bad("a snapshot is not of the position it was sent for"));
        }
        // In one write with what it replaces: never is one found without the other.
        if zoo::is(Bug::PurgedBeforeInstalled) {
            let mut purge = WriteBatch::new();
            meta.last_log_id.iter().for_each(|last| self.log.purge_in(&mut purge, *last));
            self.log.write_and_wait(purge).await?;
        } else if let Some(last) = meta.last_log_id {
            self.log.purge_in(&mut batch, last);
        }
        self.log.write_and_wait(batch).await?;
        match &mut self.kind {
            MachineKind::Partition(machine) => machine.publish_installed(),
            MachineKind::Table(machine) => machine.publish(),
        }
        self.announce_applied();
        (self.installed)(bytes);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        match &mut self.kind {
            MachineKind::Partition(_) => self.build().await,
            MachineKind::Table(machine) => {
                let Some(stored) = machine.stored_snapshot()? else { return Ok(None) };
                let last_membership = stored_membership(stored.membership)?;
                let meta =
                    SnapshotMeta { last_log_id: Some(log_id_at(stored.at)), last_membership };
                Ok(Some(Snapshot { meta, snapshot: stored.data }))
            }
        }
    }
}
