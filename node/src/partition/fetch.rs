//! Reading a partition replica: at a level, from an offset, waiting for more where asked to.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Partition;
use super::barrier::{Level, ReadFailure};
use super::machine::PartitionView;
use crate::limits;
use crate::raft::Role;

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchQuery {
    pub(crate) offset: u64,
    pub(crate) bytes_max: usize,
    pub(crate) bytes_min: usize,
    /// Until when to wait for `bytes_min`.
    pub(crate) wait_until: Instant,
    pub(crate) level: Level,
    /// Until when the level's condition must be met.
    pub(crate) deadline: Instant,
}

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) record_set: Bytes,
    pub(crate) next_offset: u64,
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
    pub(crate) staleness: Option<Duration>,
}

/// Which offset is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetPosition {
    Earliest,
    Latest,
    EntryTime(u64),
    EventTime(i64),
}

/// An offset, and where the log begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OffsetsFound {
    pub(crate) offset: u64,
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
}

impl Partition {
    /// Reads whole batches from the one that holds the offset.
    pub(crate) async fn fetch(&self, query: FetchQuery) -> Result<Fetched, ReadFailure> {
        let within = query.deadline.saturating_duration_since(Instant::now());
        let mut staleness = self.barrier(query.level, query.deadline).await?;
        let led = self.leads();
        // Who waits for records of a leader that was deposed should ask another node.
        let is_over = || Instant::now() >= query.wait_until || (led && !self.leads());
        let mut changes = self.shared.view.subscribe();
        loop {
            let view = changes.borrow_and_update().clone();
            self.check_offset(query.offset, query.level, &view)?;
            let run = self.reader.read(query.offset, view.high_watermark, query.bytes_max).await;
            let run = match run {
                Ok(run) => run,
                Err(fault) => {
                    // Retention may have taken it between the look and the read.
                    self.check_offset(query.offset, query.level, &self.view())?;
                    return Err(fault.into());
                }
            };
            // What is cut by `bytes_max` will not grow by waiting.
            let cut = run.next_offset < view.high_watermark;
            let enough = !run.bytes.is_empty() && (cut || run.bytes.len() >= query.bytes_min);
            if enough || is_over() {
                return Ok(Fetched {
                    record_set: run.bytes,
                    next_offset: run.next_offset,
                    log_start: view.log_start,
                    high_watermark: view.high_watermark,
                    staleness,
                });
            }
            let _waiting = self.context.metrics.fetch.waiting.hold(1);
            while !is_over() {
                let look = query.wait_until.min(Instant::now() + limits::FETCH_LOOK);
                match tokio::time::timeout_at(look, changes.changed()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => {
                        return Err(ReadFailure::Stopped("the replica is closing".to_owned()));
                    }
                    Err(_) if look == query.wait_until => {}
                    Err(_) => staleness = self.barrier(query.level, look + within).await?,
                }
            }
        }
    }

    fn leads(&self) -> bool {
        self.raft.brief().role == Role::Leader
    }

    fn check_offset(
        &self,
        offset: u64,
        level: Level,
        view: &PartitionView,
    ) -> Result<(), ReadFailure> {
        let (log_start, high_watermark) = (view.log_start, view.high_watermark);
        // A follower that lags can't tell an offset to come from one that never will.
        let knows_end = level == Level::Linearizable || self.leads();
        if offset < log_start || (offset > high_watermark && knows_end) {
            return Err(ReadFailure::OutOfRange { offset, log_start, high_watermark });
        }
        Ok(())
    }

    /// Finds an offset by position or time.
    pub(crate) async fn find_offset(
        &self,
        position: OffsetPosition,
        level: Level,
        deadline: Instant,
    ) -> Result<OffsetsFound, ReadFailure> {
        self.barrier(level, deadline).await?;
        let view = self.view();
        let (log_start, high_watermark) = (view.log_start, view.high_watermark);
        let offset = match position {
            OffsetPosition::Earliest => log_start,
            OffsetPosition::Latest => high_watermark,
            OffsetPosition::EntryTime(ms) => {
                let reached = |record: &node_core::partition::IndexRecord| record.time.ms() >= ms;
                self.reader.first_entry_where(log_start, high_watermark, reached)?
            }
            OffsetPosition::EventTime(ms) => {
                let reached =
                    |record: &node_core::partition::IndexRecord| record.timestamp_max >= ms;
                let from = self.reader.first_entry_where(log_start, high_watermark, reached)?;
                self.reader.first_at_event_time(from, high_watermark, ms).await?
            }
        };
        Ok(OffsetsFound { offset, log_start, high_watermark })
    }
}
