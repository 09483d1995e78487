//! What is done every now and then: retention, the disk's watermark, figures of the log writer.

use std::sync::Arc;

use super::Member;
use crate::limits;

impl Member {
    pub(super) async fn keep_up(self: Arc<Self>) {
        let mut round: u64 = 0;
        loop {
            self.watch_disk();
            if round.is_multiple_of(limits::RETENTION_EVERY_ROUNDS) {
                self.retain().await;
            }
            round = round.wrapping_add(1);
            tokio::time::sleep(limits::UPKEEP_INTERVAL).await;
        }
    }

    async fn retain(&self) {
        for replica in self.registry.all() {
            if let Some(partition) = replica.partition() {
                partition.retain().await;
            }
        }
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
