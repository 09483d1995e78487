//! A group's log as openraft sees it: its two storage traits.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use node_core::zoo::{self, Bug};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::{GroupLog, bad};
use crate::limits;
use crate::raft::types::{Entry, LogId, Types, Vote};
use crate::raft::wire;
use crate::storage::log_writer::WriteRequest;
use crate::storage::{Space, StorageError, WriteBatch, entry, keys, row};

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
        if zoo::is(Bug::VoteNotAwaited) {
            drop(self.0.queue(batch));
        } else if zoo::is(Bug::VoteNotSynced) {
            self.0.write_later(batch, Box::new(|| {}));
        } else {
            self.0.write_and_wait(batch).await?;
        }
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
        let sync = !zoo::is(Bug::EntriesNotSynced);
        self.0.submit(WriteRequest { batch, sync, done });
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
            tail.cuts += 1;
        }
        let mut batch = WriteBatch::default();
        if !zoo::is(Bug::TruncationNotStored) {
            batch.delete_range(Space::Log, keys::log_from(self.0.group, start));
        }
        self.0.write_and_wait(batch).await?;
        // An append that was queued before may have been completed meanwhile.
        let mut tail = self.0.lock();
        tail.flushed_end = tail.flushed_end.min(start);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let mut batch = WriteBatch::default();
        self.0.purge_in(&mut batch, upto);
        self.0.write_later(batch, Box::new(|| {}));
        Ok(())
    }
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
