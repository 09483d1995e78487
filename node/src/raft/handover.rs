//! Handing a leadership over while appends go on.
//!
//! openraft's leader stops taking writes when it is told to hand over, and has no way back, so it
//! is told only when the next leader has everything. Under load that is never so by itself:
//! therefore nothing new is proposed for a moment, until what is under way has arrived. Who waits
//! to propose waits on, and is then sent to the new leader.

use std::time::Duration;

use node_core::ids::ReplicaId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::group::{RaftFailure, RaftGroup, Role, stopped};
use crate::limits;

/// Holds proposals of one group back for a moment.
pub(super) struct Hold(watch::Sender<Option<Instant>>);

impl Default for Hold {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Hold {
    /// Resolves when nothing is held back, or not any longer.
    pub(super) async fn passed(&self) {
        let mut held = self.0.subscribe();
        loop {
            let until = *held.borrow_and_update();
            match until {
                Some(until) if Instant::now() < until => {
                    drop(tokio::time::timeout_at(until, held.changed()).await);
                }
                Some(_) | None => return,
            }
        }
    }
}

impl RaftGroup {
    /// Hands leadership to the voter `to` as soon as it has everything, which is made sure of by
    /// holding proposals back, at most for `within`. Fails with [`RaftFailure::NoQuorum`] where it
    /// does not catch up by then; nothing is changed in that case.
    pub(crate) async fn hand_over(
        &self,
        to: ReplicaId,
        within: Duration,
    ) -> Result<(), RaftFailure> {
        let until = Instant::now() + within;
        self.hold().0.send_replace(Some(until));
        let handed = self.transfer_by(to, until).await;
        self.hold().0.send_replace(None);
        handed
    }

    async fn transfer_by(&self, to: ReplicaId, until: Instant) -> Result<(), RaftFailure> {
        loop {
            match self.transfer_leader(to).await {
                Err(RaftFailure::NoQuorum) if Instant::now() + limits::QUORUM_POLL < until => {
                    tokio::time::sleep(limits::QUORUM_POLL).await;
                }
                ended => return ended,
            }
        }
    }

    /// Hands leadership to `to`, which must have everything: openraft stops taking writes at once
    /// and has no way back but another election.
    async fn transfer_leader(&self, to: ReplicaId) -> Result<(), RaftFailure> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(RaftFailure::NotLeader { leader: status.leader });
        }
        if to == self.replica() {
            return Ok(());
        }
        let behind = status.matched.get(&to).copied().flatten() != status.last_index;
        if behind || !status.voters.contains(&to) {
            return Err(RaftFailure::NoQuorum);
        }
        self.raft().trigger().transfer_leader(to.0).await.map_err(stopped)
    }
}
