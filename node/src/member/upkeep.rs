//! What is done every now and then: retention, the disk's watermark, figures of the log writer.

use std::sync::{Arc, PoisonError};

use super::Member;
use crate::limits;
use crate::raft::probe;
use crate::storage::LogWriterStats;

impl Member {
    /// What each replica that is open here says of itself.
    pub(crate) fn probe(&self) -> Vec<probe::LiveReplica> {
        self.registry.all().iter().map(|replica| probe::look(replica.raft())).collect()
    }

    pub(super) async fn keep_up(self: Arc<Self>) {
        let mut writer = self.ground.writer.stats();
        loop {
            self.watch_disk();
            writer = self.count_writes(&writer);
            self.recent_syncs.lock().unwrap_or_else(PoisonError::into_inner).note(writer);
            tokio::time::sleep(limits::UPKEEP_INTERVAL).await;
        }
    }

    /// On its own: a leader without a majority waits for its proposal, and the disk must be
    /// watched all the while.
    pub(super) async fn retain_always(self: Arc<Self>) {
        loop {
            for replica in self.registry.all() {
                if let Some(partition) = replica.partition() {
                    partition.retain().await;
                }
            }
            tokio::time::sleep(limits::RETENTION_INTERVAL).await;
        }
    }

    /// Adds to the metrics what the log writer did since `last`.
    fn count_writes(&self, last: &LogWriterStats) -> LogWriterStats {
        let now = self.ground.writer.stats();
        let metrics = &self.ground.metrics.log_writer;
        metrics.syncs.inc_by(now.syncs.saturating_sub(last.syncs));
        metrics.bytes.inc_by(now.bytes.saturating_sub(last.bytes));
        for (bucket, (now, last)) in now.sync_latency.iter().zip(last.sync_latency).enumerate() {
            for _ in last..*now {
                metrics.sync_duration.observe(LogWriterStats::bucket_end(bucket));
            }
        }
        now
    }

    /// A disk below its reserve takes no more appends, so that what must be written still can be.
    fn watch_disk(&self) {
        match self.ground.engine.space_left() {
            Ok(Some(bytes)) => {
                self.liveness.set_disk_low(bytes < self.ground.config.disk_reserve_bytes);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the disk's free space can't be told"),
        }
    }
}
