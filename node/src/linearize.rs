//! Makes a replica fit for a linearizable read: everything that was acknowledged before the call
//! is applied here (Raft dissertation, section 6.4). The leader makes sure of its leadership with
//! a round of heartbeats; a follower asks the leader and waits until it has applied as much.

use std::sync::Arc;

use node_core::position::RaftPosition;
use node_core::zoo::{self, Bug};
use quipu_proto::peer::v1 as pb;
use tokio::time::Instant;

use crate::limits;
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::raft::{RaftFailure, RaftGroup, Role};

/// What asking for the read index needs, whatever the group.
#[derive(Clone)]
pub(crate) struct Linearizer {
    pub(crate) cluster_id: uuid::Uuid,
    pub(crate) peers: Arc<Peers>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Linearizer {
    /// Waits until everything is applied here that was acknowledged before this call. Asks again
    /// while leadership is unclear, until the deadline.
    pub(crate) async fn linearize(
        &self,
        raft: &RaftGroup,
        deadline: Instant,
    ) -> Result<(), RaftFailure> {
        let term = raft.brief().term;
        loop {
            let failure = match self.read_index(raft, deadline).await {
                Ok(_) if zoo::is(Bug::ReadBeforeApply) => return Ok(()),
                Ok(position) => match raft.wait_applied(position, deadline).await {
                    Ok(()) => {
                        note_leader_change(raft, term);
                        return Ok(());
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            if matches!(failure, RaftFailure::Stopped(_))
                || Instant::now() + limits::READ_INDEX_RETRY >= deadline
            {
                return Err(failure);
            }
            tokio::time::sleep(limits::READ_INDEX_RETRY).await;
        }
    }

    /// The read index, from this replica if it leads, else from the one that does.
    async fn read_index(
        &self,
        raft: &RaftGroup,
        deadline: Instant,
    ) -> Result<RaftPosition, RaftFailure> {
        let left = deadline.saturating_duration_since(Instant::now()).min(limits::READ_INDEX_MAX);
        if raft.brief().role == Role::Leader {
            self.metrics.raft.read_index_given.inc();
            let asked = tokio::time::timeout(left, raft.read_index());
            return asked.await.unwrap_or(Err(RaftFailure::NoQuorum));
        }
        let group = raft.group();
        let leader = raft.status().leader.or_else(|| self.liveness.leader_of(group));
        let Some(leader) = leader else { return Err(RaftFailure::NotLeader { leader: None }) };
        let not_leader = RaftFailure::NotLeader { leader: Some(leader) };
        let Some(link) = self.peers.get(leader.node) else { return Err(not_leader) };
        self.metrics.raft.read_index_asked.inc();
        let target = RaftGroup::target(self.cluster_id, group, leader.replica);
        let ask = || async move {
            let request = pb::ReadIndexRequest { target: Some(target) };
            let answer = link.read_index(request, limits::READ_INDEX_MAX).await;
            let position = answer.ok().and_then(|answer| answer.log_id).ok_or(not_leader)?;
            Ok(RaftPosition { term: position.term, index: position.index })
        };
        let asked = tokio::time::timeout(left, raft.read_index_of(leader, ask));
        asked.await.unwrap_or(Err(RaftFailure::NoQuorum))
    }
}

/// For simulations, which count how often this happens.
fn note_leader_change(raft: &RaftGroup, term_before: u64) {
    if raft.brief().term != term_before {
        let group = raft.group();
        tracing::debug!(%group, "a read index was taken across a change of leader");
    }
}
