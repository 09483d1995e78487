//! The log of one group: entries, vote and purge point, kept by the node's one log writer.
//!
//! An append goes into a tail in memory, where it can be read at once, and into the writer's
//! queue; openraft hears when it is on disk. Votes, truncations and appends of all groups go
//! through the one queue in the order they were decided: their order is what makes them safe.
//! Nothing here waits for room in that queue: votes and heartbeats would wait with it. Who brings
//! work waits, before openraft has it ([`GroupLog::room`]).
//!
//! A closed log writes nothing more, whatever is still at work on it: what is queued after it was
//! closed, as the deletion of the group, is the last that the disk hears of it.
//!
//! The tail keeps what is not yet on disk or not yet applied, and beyond that the newest entries up
//! to [`limits::TAIL_BYTES_MAX`], so that consumers at the end and followers that keep up never
//! read from disk. A damaged entry is fetched again from another replica before openraft sees it.

mod end;
mod handle;
mod repair;
#[cfg(test)]
mod tests;

pub(crate) use handle::LogStore;
pub(super) use repair::{committed_end, purged_end, stored_entry};

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use node_core::ids::GroupId;
#[cfg(quipu_zoo)]
use node_core::zoo::{self, Bug};
use openraft::EntryPayload;
use tokio::sync::oneshot;

use super::tail::{Tail, payload_bytes};
use super::types::{Entry, LogId, term_of};
use super::wire;
use crate::limits;
use crate::metrics::Metrics;
use crate::storage::entry::{self, StoredEntry};
use crate::storage::log_writer::{LogWriter, WriteRequest};
use crate::storage::{Engine, ScanLimit, Space, StorageError, WriteBatch, keys, row};

/// Where a damaged entry can be had again: another replica of the group.
pub(crate) trait EntrySource: Send + Sync {
    /// The committed entry at `index` from a replica that has it whole.
    fn fetch(&self, group: GroupId, index: u64) -> BoxFuture<'static, Option<StoredEntry>>;
}

/// What all handles of one group's log share.
pub(crate) struct GroupLog {
    group: GroupId,
    engine: Arc<dyn Engine>,
    writer: LogWriter,
    repair: Arc<dyn EntrySource>,
    /// Applied state is not kept beside the log (table groups): remember what was committed.
    keeps_committed: bool,
    tail: Mutex<Tail>,
    /// Held while a request is queued, so that none comes after it was closed.
    gate: Mutex<Gate>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    /// Damaged entries are fetched from other replicas, else they are errors.
    repairs: bool,
    unrepaired: Option<Unrepaired>,
}

/// An entry that is damaged and that no other replica could give when it was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of {group} is damaged and no replica could give it")]
pub(crate) struct Unrepaired {
    group: GroupId,
    pub(crate) index: u64,
}

/// The command of an entry; empty for entries without one.
pub(crate) struct LogCommandBytes {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) bytes: Bytes,
}

/// What a group's log needs.
pub(crate) struct LogParts {
    pub(crate) group: GroupId,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) writer: LogWriter,
    pub(crate) repair: Arc<dyn EntrySource>,
    pub(crate) keeps_committed: bool,
    pub(crate) metrics: Arc<Metrics>,
}

impl GroupLog {
    /// Opens the log as the disk has it; damaged entries are fetched from other replicas.
    pub(crate) async fn open(parts: LogParts) -> io::Result<Arc<Self>> {
        Self::open_repairing(parts, true).await
    }

    /// Opens the log. Damaged entries are errors until [`allow_repair`](Self::allow_repair), unless
    /// it `repairs` from the start.
    pub(super) async fn open_repairing(parts: LogParts, repairs: bool) -> io::Result<Arc<Self>> {
        let LogParts { group, engine, writer, repair, keeps_committed, metrics } = parts;
        let gate = Mutex::new(Gate { repairs, ..Gate::default() });
        let tail = Mutex::default();
        let log = Self { group, engine, writer, repair, keeps_committed, tail, gate, metrics };
        let log = Arc::new(log);
        let vote = log.state(keys::vote(group))?;
        let vote = vote.map(|bytes| wire::vote_from_bytes(&bytes)).transpose().map_err(bad)?;
        let purged = log.state(keys::last_purged(group))?;
        let purged = purged.map(|bytes| wire::log_id_from_bytes(&bytes)).transpose();
        let purged = purged.map_err(bad)?;
        // Known BEFORE the last entry is read: it may have to be repaired.
        log.lock().purged = purged;
        #[cfg(quipu_zoo)]
        log.cut_at_first_damage().await?;
        let last = match end::last_index(&*log.engine, group).map_err(io::Error::other)? {
            Some(index) => Some(log.read_one(index).await?.log_id),
            None => purged,
        };
        let last = last.max(purged);
        let mut tail = log.lock();
        tail.vote = vote;
        tail.last = last;
        tail.flushed_end = last.map_or(0, |last| last.index() + 1);
        drop(tail);
        Ok(log)
    }

    /// Says that everything below `end` is applied and need not be kept in memory for that.
    pub(super) fn applied(&self, end: u64) {
        let mut tail = self.lock();
        tail.applied_end = tail.applied_end.max(end);
        tail.evict();
    }

    /// Reads entries of `start..end`: at least one if there is one, then up to `bytes_max` of
    /// payload. Stops at a gap.
    pub(crate) async fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let tail_start = {
            let tail = self.lock();
            tail.copy(start, end, bytes_max, &mut entries);
            tail.entries.front().map_or(u64::MAX, |entry| entry.log_id.index())
        };
        if !entries.is_empty() || start >= end || start >= tail_start {
            return Ok(entries);
        }
        let mut next = start;
        let stored_end = end.min(tail_start);
        while next < stored_end && bytes < bytes_max {
            let read = self.read_stored(next, stored_end, bytes_max - bytes).await?;
            let Some(last) = read.last() else { break };
            next = last.log_id.index() + 1;
            bytes += read.iter().map(payload_bytes).sum::<usize>();
            entries.extend(read);
        }
        if next == tail_start && bytes < bytes_max {
            self.lock().copy(next, end, bytes_max - bytes, &mut entries);
        }
        Ok(entries)
    }

    /// Reads the commands of `start..end`, as [`read`](Self::read) does.
    pub(crate) async fn read_commands(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<LogCommandBytes>> {
        let entries = self.read(start, end, bytes_max).await?;
        let commands = entries.into_iter().map(|entry| LogCommandBytes {
            index: entry.log_id.index(),
            term: term_of(&entry.log_id),
            bytes: match entry.payload {
                EntryPayload::Normal(command) => command.0,
                EntryPayload::Blank | EntryPayload::Membership(_) => Bytes::new(),
            },
        });
        Ok(commands.collect())
    }

    /// The entry at `index` if it is here and whole; never asks another replica, which may be
    /// asking this one.
    pub(super) fn read_whole(&self, index: u64) -> io::Result<Option<StoredEntry>> {
        let mut cached = Vec::new();
        self.lock().copy(index, index + 1, 1, &mut cached);
        match cached.first() {
            Some(entry) => Ok(Some(wire::entry_to_stored(entry))),
            None => stored_entry(&*self.engine, self.group, index),
        }
    }

    /// Reads one entry.
    pub(crate) async fn read_one(&self, index: u64) -> io::Result<Entry> {
        let read = self.read(index, index + 1, 1).await?;
        let missing = || io::Error::other(format!("entry {index} of {} is missing", self.group));
        read.into_iter().next().ok_or_else(missing)
    }

    async fn read_stored(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let range = keys::log_entries(self.group, start, end);
        let limit = ScanLimit::new(limits::SCAN_ENTRIES_MAX, bytes_max.max(1));
        let rows = match self.engine.scan(Space::Log, &range, limit) {
            Ok(rows) => rows,
            // A damaged block: find the entries around it one by one.
            Err(StorageError::Damaged { .. }) => {
                return Ok(vec![self.read_or_repair(start).await?]);
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        if rows.is_empty() && self.should_hold(start) {
            return Ok(vec![self.repair(start).await?]);
        }
        let mut entries = Vec::with_capacity(rows.len());
        for ((key, value), index) in rows.into_iter().zip(start..) {
            let found = keys::parse_log_entry(&key).map(|(_, index)| index);
            if found != Some(index) {
                // A hole: purged, if it is the log's beginning; else a write that went astray.
                if entries.is_empty() && !self.is_purged(index) {
                    entries.push(self.repair(index).await?);
                }
                break;
            }
            match entry::decode(self.group, index, value) {
                Ok(stored) => entries.push(wire::entry_from_stored(index, stored).map_err(bad)?),
                Err(damaged) if entries.is_empty() => {
                    tracing::warn!(group = %self.group, index, %damaged, "stored entry damaged");
                    entries.push(self.repair(index).await?);
                }
                Err(_) => break,
            }
        }
        Ok(entries)
    }

    pub(in crate::raft) fn is_purged(&self, index: u64) -> bool {
        self.lock().purged.is_some_and(|purged| index <= purged.index())
    }

    /// The log reaches to `index` and has not been purged that far.
    fn should_hold(&self, index: u64) -> bool {
        let reaches = self.lock().last.is_some_and(|last| index <= last.index());
        reaches && !self.is_purged(index)
    }

    /// Queues a write that need not be waited for: it never outlives what was queued before it.
    /// `stored` is called when it can be read.
    pub(super) fn write_later(&self, batch: WriteBatch, stored: Box<dyn FnOnce() + Send>) {
        let done = Box::new(move |result: Result<(), StorageError>| {
            // A failed write has stopped the writer, and soon the process.
            if result.is_ok() {
                stored();
            }
        });
        self.submit(WriteRequest { batch, sync: false, done });
    }

    /// Writes and waits until it, and all that was queued before it, is on stable storage.
    pub(super) async fn write_and_wait(&self, batch: WriteBatch) -> io::Result<()> {
        written(self.queue(batch)).await
    }

    /// Queues a synced write. The receiver hears of it.
    fn queue(&self, batch: WriteBatch) -> Queued {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.submit(WriteRequest { batch, sync: true, done });
        receiver
    }

    fn submit(&self, request: WriteRequest) {
        let gate = self.gate();
        if gate.closed {
            drop(gate);
            let reason = format!("the log of {} is closed", self.group);
            (request.done)(Err(StorageError::Stopped { reason }));
        } else {
            self.writer.submit(request);
        }
    }

    /// The node's writer has something to do, for this group or another.
    pub(super) fn has_writes_under_way(&self) -> bool {
        self.writer.is_busy()
    }

    /// Waits until the disk keeps up: for whoever brings entries, before openraft has them.
    pub(crate) async fn room(&self) -> Result<(), StorageError> {
        self.writer.room().await
    }

    /// From now on nothing is written any more; what was queued before still is.
    pub(crate) fn close(&self) {
        self.gate().closed = true;
    }

    /// From now on damaged entries are fetched again from other replicas.
    pub(super) fn allow_repair(&self) {
        self.gate().repairs = true;
    }

    /// What of this log is damaged and could not be had again, if that is how it is.
    pub(crate) fn unrepaired(&self) -> Option<Unrepaired> {
        self.gate().unrepaired
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to `batch` what forgets the entries up to and with `upto`.
    pub(super) fn purge_in(&self, batch: &mut WriteBatch, upto: LogId) {
        let end = upto.index() + 1;
        {
            let mut tail = self.lock();
            tail.purge(end);
            tail.purged = tail.purged.max(Some(upto));
            // By index: a snapshot also covers entries of a later term that were never committed.
            if tail.last.is_none_or(|last| last.index() < upto.index()) {
                tail.last = Some(upto);
            }
            tail.flushed_end = tail.flushed_end.max(end);
        }
        row::put(batch, keys::last_purged(self.group), &wire::log_id_to_bytes(&upto));
        batch.delete_range(Space::Log, keys::log_through(self.group, upto.index()));
    }

    fn state(&self, key: Bytes) -> io::Result<Option<Bytes>> {
        row::get(&*self.engine, &key).map_err(io::Error::other)
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // A panic elsewhere ends the process; the tail itself is whole between statements.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(quipu_zoo)]
impl GroupLog {
    /// [`Bug::RecoveryCutsShort`].
    async fn cut_at_first_damage(&self) -> io::Result<()> {
        // A partition's group would not open: openraft refuses a log that ends before what is
        // applied. The state of the others is made from the log when they open.
        if !zoo::is(Bug::RecoveryCutsShort) || !self.keeps_committed {
            return Ok(());
        }
        let last = end::last_index(&*self.engine, self.group).map_err(io::Error::other)?;
        let Some(last) = last else { return Ok(()) };
        let start = self.lock().purged.map_or(0, |purged| purged.index() + 1);
        let damaged = |index: &u64| !matches!(self.read_whole(*index), Ok(Some(_)));
        let Some(end) = (start..=last).find(damaged) else { return Ok(()) };
        let mut batch = WriteBatch::default();
        batch.delete_range(Space::Log, keys::log_from(self.group, end));
        self.write_and_wait(batch).await
    }
}

type Queued = oneshot::Receiver<Result<(), StorageError>>;

async fn written(queued: Queued) -> io::Result<()> {
    match queued.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the log writer has stopped")),
    }
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
