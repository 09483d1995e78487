//! The log of one group: entries, vote and purge point, kept by the node's one log writer.
//!
//! An append goes into a tail in memory, where it can be read at once, and into the writer's
//! queue; openraft hears when it is on disk. Votes, truncations and appends of all groups go
//! through the one queue in the order they were decided: their order is what makes them safe.
//!
//! The tail keeps what is not yet on disk or not yet applied, and beyond that the newest entries up
//! to [`limits::TAIL_BYTES_MAX`], so that consumers at the end and followers that keep up never
//! read from disk. A damaged entry is fetched again from another replica before openraft sees it.

mod repair;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use node_core::ids::GroupId;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::tail::{Tail, payload_bytes};
use super::types::{Entry, LogId, Types, Vote, term_of};
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
    metrics: Arc<Metrics>,
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
    /// Opens the log as the disk has it.
    pub(crate) async fn open(parts: LogParts) -> io::Result<Arc<Self>> {
        let LogParts { group, engine, writer, repair, keeps_committed, metrics } = parts;
        let tail = Mutex::default();
        let log = Arc::new(Self { group, engine, writer, repair, keeps_committed, tail, metrics });
        let vote = log.state(keys::vote(group))?;
        let vote = vote.map(|bytes| wire::vote_from_bytes(&bytes)).transpose().map_err(bad)?;
        let purged = log.state(keys::last_purged(group))?;
        let purged = purged.map(|bytes| wire::log_id_from_bytes(&bytes)).transpose();
        let purged = purged.map_err(bad)?;
        // Known BEFORE the last entry is read: it may have to be repaired.
        log.lock().purged = purged;
        let last = match log.last_index()? {
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
        if let Some(entry) = cached.first() {
            return Ok(Some(wire::entry_to_stored(entry)));
        }
        let key = keys::log_entry(self.group, index);
        let value = self.engine.get(Space::Log, &key).map_err(io::Error::other)?;
        let stored = value.map(|value| entry::decode(self.group, index, value));
        stored.transpose().map_err(bad)
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
                    tracing::error!(group = %self.group, index, %damaged, "stored entry damaged");
                    entries.push(self.repair(index).await?);
                }
                Err(_) => break,
            }
        }
        Ok(entries)
    }

    fn is_purged(&self, index: u64) -> bool {
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
        self.writer.submit(WriteRequest { batch, sync: false, done });
    }

    /// Writes and waits until it, and all that was queued before it, is on stable storage.
    pub(super) async fn write_and_wait(&self, batch: WriteBatch) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.writer.submit(WriteRequest { batch, sync: true, done });
        match receiver.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log writer has stopped")),
        }
    }

    fn state(&self, key: Bytes) -> io::Result<Option<Bytes>> {
        row::get(&*self.engine, &key).map_err(io::Error::other)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        let last = self.engine.last_before(Space::Log, &keys::log(self.group));
        match last.map_err(io::Error::other)? {
            None => Ok(None),
            Some((key, _)) => {
                let (_, index) = keys::parse_log_entry(&key).ok_or_else(|| bad("log key"))?;
                Ok(Some(index))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // A panic elsewhere ends the process; the tail itself is whole between statements.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// The handle that openraft holds.
#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Arc<GroupLog>);

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.0.read(start, end, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.0.read(start, end, limits::REPLICATE_BYTES_MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let state = (self.0.clone(), start, VecDeque::<Entry>::new());
        Box::pin(futures::stream::unfold(state, move |(log, next, mut read)| async move {
            if read.is_empty() && next < end {
                match log.read(next, end, limits::APPLY_BYTES_MAX).await {
                    // openraft takes the end of the stream for the end of the range: what is not
                    // here must be an error, or it would count as applied.
                    Ok(entries) if entries.is_empty() => {
                        let text = format!("entry {next} of {} is missing", log.group);
                        return Some((Err(io::Error::other(text)), (log, end, read)));
                    }
                    Ok(entries) => read.extend(entries),
                    Err(error) => return Some((Err(error), (log, end, VecDeque::new()))),
                }
            }
            let entry = read.pop_front()?;
            let next = entry.log_id.index() + 1;
            Some((Ok(entry), (log, next, read)))
        }))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let tail = self.0.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = WriteBatch::default();
        row::put(&mut batch, keys::vote(self.0.group), &wire::vote_to_bytes(vote));
        self.0.write_and_wait(batch).await?;
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed
            && self.0.keeps_committed
        {
            let mut batch = WriteBatch::default();
            let value = wire::log_id_to_bytes(&committed);
            row::put(&mut batch, keys::committed(self.0.group), &value);
            self.0.write_later(batch, Box::new(|| {}));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        if !self.0.keeps_committed {
            return Ok(None);
        }
        let bytes = self.0.state(keys::committed(self.0.group))?;
        let committed = bytes.map(|bytes| wire::log_id_from_bytes(&bytes)).transpose();
        // Written un-synced: it may be newer than what a power cut left of the log.
        let last = self.0.lock().last;
        Ok(committed.map_err(bad)?.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let group = self.0.group;
        // A disk that can't keep up holds back whoever appends, a leader's stream included.
        self.0.writer.room().await.map_err(io::Error::other)?;
        let mut batch = WriteBatch::default();
        let mut flushed_end = 0;
        {
            let mut tail = self.0.lock();
            for entry in entries {
                let index = entry.log_id.index();
                let stored = wire::entry_to_stored(&entry);
                let value = entry::encode(group, index, &stored);
                batch.put(Space::Log, keys::log_entry(group, index), value);
                flushed_end = index + 1;
                tail.push(entry);
            }
        }
        let log = self.0.clone();
        let done = Box::new(move |result: Result<(), StorageError>| {
            if result.is_ok() {
                let mut tail = log.lock();
                tail.flushed_end = tail.flushed_end.max(flushed_end);
                tail.evict();
            }
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.0.writer.submit(WriteRequest { batch, sync: true, done });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let start = last.map_or(0, |last| last.index() + 1);
        {
            let mut tail = self.0.lock();
            if tail.last > last {
                let group = self.0.group;
                tracing::debug!(%group, from = start, "a conflicting suffix is truncated");
            }
            tail.truncate(start);
            tail.last = last;
        }
        let mut batch = WriteBatch::default();
        batch.delete_range(Space::Log, keys::log_from(self.0.group, start));
        self.0.write_and_wait(batch).await?;
        // An append that was queued before may have been completed meanwhile.
        let mut tail = self.0.lock();
        tail.flushed_end = tail.flushed_end.min(start);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let end = upto.index() + 1;
        {
            let mut tail = self.0.lock();
            tail.purge(end);
            tail.purged = tail.purged.max(Some(upto));
            // By index: a snapshot also covers entries of a later term that were never committed.
            if tail.last.is_none_or(|last| last.index() < upto.index()) {
                tail.last = Some(upto);
            }
            tail.flushed_end = tail.flushed_end.max(end);
        }
        let group = self.0.group;
        let mut batch = WriteBatch::default();
        row::put(&mut batch, keys::last_purged(group), &wire::log_id_to_bytes(&upto));
        batch.delete_range(Space::Log, keys::log_through(group, upto.index()));
        self.0.write_later(batch, Box::new(|| {}));
        Ok(())
    }
}
