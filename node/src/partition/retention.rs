//! The leader's part of retention: it proposes, apply decides the same on every replica.

use node_core::partition::retention::{RetainedLog, rung_to_advance_to};
use node_core::partition::{AdvanceStart, LogCommand};
use node_core::time::HybridClock;
use tokio::time::Instant;

use super::Partition;
use crate::limits;
use crate::raft::Role;

impl Partition {
    /// Proposes to move the log start where the topic's settings let records go. Does nothing
    /// where this replica does not lead.
    pub(crate) async fn retain(&self) {
        let retention = self.config().retention;
        if (retention.bytes.is_none() && retention.ms.is_none())
            || self.raft.brief().role != Role::Leader
        {
            return;
        }
        let now_ms = self.context.clock.now_ms();
        if !self.context.linearizer.liveness.clock_is_trusted() {
            tracing::warn!(group = %self.group(), "retention waits: the clocks disagree");
            return;
        }
        let view = self.view();
        let log = RetainedLog {
            rungs: &view.rungs,
            log_start: view.log_start,
            bytes_total: view.bytes_total,
        };
        let rung_index = match rung_to_advance_to(log, retention, now_ms) {
            Some(rung_index) => rung_index,
            None if view.rung_clock.wants_rung(retention, now_ms) => 0,
            None => return,
        };
        let mut clock = HybridClock::default();
        clock.observe(view.time_last);
        let time = clock.stamp(now_ms);
        self.pulse.touch();
        let command = LogCommand::AdvanceStart(AdvanceStart { time, rung_index }).encode();
        let deadline = Instant::now() + limits::PROPOSAL_MAX;
        if let Err(failure) = self.raft.execute(command, deadline).await {
            tracing::debug!(group = %self.group(), %failure, "the log start was not moved");
        }
    }
}
