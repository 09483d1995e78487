//! Applies a partition's entries and keeps what they changed: the pure state of `node_core`, and
//! its rows in the store, written in one batch with the position they belong to.
//!
//! Not here: Raft itself. `raft/machine.rs` hands in entries in order and writes what `finish`
//! gives; nothing here is waited for, because the entries themselves are on disk already and a
//! restart applies again what the rows do not have.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use node_core::ids::{GroupId, ProducerId};
use node_core::partition::retention::RungClock;
use node_core::partition::{
    Applied, BatchOutcome, ChainHash, LadderLimits, LogCommand, LogStartMoved, PartitionState,
    RungSummary,
};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use node_core::zoo::{self, Bug};
use tokio::sync::{Notify, watch};

use super::index::OffsetIndex;
use crate::storage::{Engine, Space, WriteBatch, keys, row};

/// What of a partition replica's state others look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) log_start: u64,
    /// End (exclusive) of what this replica may serve.
    pub(crate) high_watermark: u64,
    pub(crate) chain_hash: ChainHash,
    pub(crate) bytes_kept: u64,
    pub(crate) producers: usize,
    pub(crate) time_last: EntryTime,
    /// Rungs, and what retention needs beside them.
    pub(crate) rungs: Arc<Vec<RungSummary>>,
    pub(crate) bytes_total: u64,
    pub(crate) rung_clock: RungClock,
}

/// What the machine shares with readers.
pub(crate) struct PartitionShared {
    pub(crate) index: Arc<OffsetIndex>,
    pub(crate) view: watch::Sender<PartitionView>,
    /// The log start moved: openraft shall take the rung there as its snapshot.
    pub(crate) start_moved: Notify,
}

/// The state machine of one partition replica.
pub(crate) struct PartitionMachine {
    group: GroupId,
    engine: Arc<dyn Engine>,
    state: PartitionState,
    shared: Arc<PartitionShared>,
    changed: Changed,
    /// Of [`Bug::HeadBeforeRows`].
    #[cfg(quipu_zoo)]
    late: WriteBatch,
}

/// What entries changed since the last `finish`.
#[derive(Default)]
struct Changed {
    batch: WriteBatch,
    producers: BTreeSet<ProducerId>,
    ladder: bool,
    any: bool,
    start_moved: bool,
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl PartitionMachine {
    /// The replica as the store has it; a new one has `limits` for its ladder.
    pub(crate) fn open(
        group: GroupId,
        engine: Arc<dyn Engine>,
        limits: LadderLimits,
    ) -> io::Result<(Self, Arc<PartitionShared>)> {
        let state = match row::get(&*engine, &keys::head(group)).map_err(io::Error::other)? {
            None => PartitionState::new(limits),
            Some(head) => {
                // Written with the first head: without it this replica would count its rungs anew.
                let ladder = row::get(&*engine, &keys::ladder(group)).map_err(io::Error::other)?;
                let ladder = ladder.ok_or_else(|| bad("a partition without its ladder"))?;
                let producers =
                    row::list(&*engine, &keys::producers(group)).map_err(io::Error::other)?;
                PartitionState::restore(head, ladder, producers).map_err(bad)?
            }
        };
        let shared = Arc::new(PartitionShared {
            index: Arc::new(OffsetIndex::new(group, engine.clone())),
            view: watch::Sender::new(view_of(&state)),
            start_moved: Notify::new(),
        });
        shared.index.stored(state.next_offset());
        let changed = Changed { ladder: state.applied().is_none(), ..Changed::default() };
        let machine = Self {
            group,
            engine,
            state,
            shared: shared.clone(),
            changed,
            #[cfg(quipu_zoo)]
            late: WriteBatch::new(),
        };
        Ok((machine, shared))
    }

    pub(crate) fn state(&self) -> &PartitionState {
        &self.state
    }

    pub(crate) fn apply_blank(&mut self, at: RaftPosition) {
        self.state.apply_blank(at);
        self.changed.any = true;
    }

    pub(crate) fn apply_membership(&mut self, at: RaftPosition, membership: Bytes) {
        self.state.apply_membership(at, membership);
        self.changed.any = true;
    }

    /// Applies a command. An error means that this replica can't go on: it would differ.
    pub(crate) fn apply_command(
        &mut self,
        at: RaftPosition,
        command: Bytes,
    ) -> io::Result<CommandOutcome> {
        match LogCommand::decode(command).map_err(bad)? {
            LogCommand::Append(append) => {
                let mut applied = self.state.apply_append(at, &append);
                let outcomes = std::mem::take(&mut applied.outcomes);
                self.keep(applied);
                Ok(CommandOutcome::Batches(outcomes))
            }
            LogCommand::AdvanceStart(advance) => {
                let applied = self.state.apply_advance_start(at, &advance);
                let moved = applied.log_start_moved.is_some();
                self.keep(applied);
                Ok(CommandOutcome::StartAdvanced(moved))
            }
        }
    }

    fn keep(&mut self, applied: Applied) {
        let group = self.group;
        let changed = &mut self.changed;
        changed.any = true;
        changed.ladder |= applied.ladder_changed();
        if let Some(record) = applied.index {
            row::put(&mut changed.batch, keys::index(group, record.base_offset), &record.encode());
            self.shared.index.push(record);
        }
        changed.producers.extend(applied.producers_changed);
        for gone in applied.producers_removed {
            changed.producers.remove(&gone);
            changed.batch.delete(Space::State, keys::producer(group, gone));
        }
        if let Some(rung) = applied.rung {
            let key = keys::rung(group, rung.summary.position.index);
            row::put(&mut changed.batch, key, &rung.checkpoint);
        }
        for index in applied.rungs_removed {
            changed.batch.delete(Space::State, keys::rung(group, index));
        }
        if let Some(LogStartMoved { to, .. }) = applied.log_start_moved {
            let last = to - u64::from(!zoo::is(Bug::IndexCutTooFar));
            changed.batch.delete_range(Space::State, keys::indexes_through(group, last));
            changed.start_moved = true;
        }
    }

    /// The rows of all that was applied since the last time, to be written in one batch, and what
    /// to do when they are. `None` where nothing was applied.
    pub(crate) fn finish(&mut self) -> Option<(WriteBatch, Finished)> {
        if !self.changed.any {
            return None;
        }
        let changed = std::mem::take(&mut self.changed);
        let mut batch = changed.batch;
        for id in changed.producers {
            if let Some(producer) = self.state.encode_producer(id) {
                row::put(&mut batch, keys::producer(self.group, id), &producer);
            }
        }
        if changed.ladder {
            row::put(&mut batch, keys::ladder(self.group), &self.state.encode_ladder());
        }
        #[cfg(quipu_zoo)]
        if zoo::is(Bug::HeadBeforeRows) {
            batch = std::mem::replace(&mut self.late, batch);
        }
        row::put(&mut batch, keys::head(self.group), &self.state.encode_head());
        let finished = Finished {
            index: self.shared.index.clone(),
            indexed_end: self.state.next_offset(),
            start_moved: changed.start_moved,
        };
        Some((batch, finished))
    }

    /// Announces what was applied. AFTER `finish`, so that the index has it.
    pub(crate) fn publish(&self, finished: &Finished) {
        self.shared.view.send_replace(view_of(&self.state));
        if finished.start_moved {
            self.shared.start_moved.notify_one();
        }
    }

    /// The checkpoint at the log start: what a new replica begins with. `None` while the log
    /// still starts with its first entry. The rows must be in the store.
    pub(crate) fn start_checkpoint(
        &self,
    ) -> io::Result<Option<(RungSummary, PartitionState, Bytes)>> {
        let Some(rung) = self.state.start_rung() else { return Ok(None) };
        let key = keys::rung(self.group, rung.position.index);
        let missing = || bad(format!("checkpoint {} of {} is missing", rung.position, self.group));
        let checkpoint =
            row::get(&*self.engine, &key).map_err(io::Error::other)?.ok_or_else(missing)?;
        let state = PartitionState::from_checkpoint(checkpoint.clone()).map_err(bad)?;
        Ok(Some((rung, state, checkpoint)))
    }

    /// Begins anew with a checkpoint that another replica gave. The batch must be on stable
    /// storage before anything else is applied.
    pub(crate) fn install(&mut self, checkpoint: Bytes) -> io::Result<WriteBatch> {
        let state = PartitionState::from_checkpoint(checkpoint.clone()).map_err(bad)?;
        let rung = state.start_rung().ok_or_else(|| bad("a checkpoint without its rung"))?;
        let group = self.group;
        let mut batch = WriteBatch::new();
        batch.delete_range(Space::State, keys::indexes(group));
        batch.delete_range(Space::State, keys::producers(group));
        batch.delete_range(Space::State, keys::rungs(group));
        row::put(&mut batch, keys::rung(group, rung.position.index), &checkpoint);
        for id in state.producer_ids() {
            if let Some(producer) = state.encode_producer(id) {
                row::put(&mut batch, keys::producer(group, id), &producer);
            }
        }
        row::put(&mut batch, keys::ladder(group), &state.encode_ladder());
        row::put(&mut batch, keys::head(group), &state.encode_head());
        self.state = state;
        self.changed = Changed::default();
        self.shared.index.clear();
        Ok(batch)
    }

    /// Announces an installed checkpoint.
    pub(crate) fn publish_installed(&self) {
        self.shared.view.send_replace(view_of(&self.state));
    }
}

/// What a command answered.
#[derive(Debug)]
pub(crate) enum CommandOutcome {
    Batches(Vec<BatchOutcome>),
    StartAdvanced(bool),
}

/// What is to be done about rows that `finish` gave.
pub(crate) struct Finished {
    index: Arc<OffsetIndex>,
    indexed_end: u64,
    start_moved: bool,
}

impl Finished {
    /// To be called when the rows are in the store.
    pub(crate) fn stored(&self) -> impl FnOnce() + Send + 'static {
        let (index, end) = (self.index.clone(), self.indexed_end);
        move || index.stored(end)
    }
}

fn view_of(state: &PartitionState) -> PartitionView {
    PartitionView {
        log_start: state.log_start(),
        high_watermark: state.next_offset(),
        chain_hash: state.chain_hash(),
        bytes_kept: state.bytes_kept(),
        producers: state.producer_count(),
        time_last: state.time_last(),
        rungs: state.rungs_shared(),
        bytes_total: state.bytes_total(),
        rung_clock: state.rung_clock(),
    }
}
