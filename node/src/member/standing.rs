//! What a node's standing makes of it: a drained one gives its leaderships away, one that is being
//! removed its replicas, too.
//!
//! The standing is in the metadata, so whoever starts or takes over in the middle goes on with it.
//! Leaderships are given away by the node that has them. Moves are proposed by whoever leads the
//! metadata; the members of a moved group are changed by the group's leader, one change at a time
//! (`reconcile`). `docs/operating/scaling.md` has it for operators.

use std::sync::Arc;

use futures::StreamExt as _;
use node_core::ids::{NodeUuid, ReplicaId};
use node_core::metadata::{MetadataCommand, MetadataState};
use tokio::time::Instant;

use super::Member;
use super::replica::Replica;
use crate::limits;
use crate::raft::{GroupStatus, Role};

impl Member {
    /// Gives leaderships away for as long as this node shall have none.
    pub(super) async fn stand_aside_always(self: Arc<Self>) {
        let mut changes = self.metadata.clone();
        loop {
            let aside = !takes_leaderships(&self.metadata(), self.ground.me);
            if aside {
                self.give_leaderships_away().await;
            }
            let pause = if aside { limits::DRAIN_LOOK } else { limits::RECONCILE_INTERVAL };
            drop(tokio::time::timeout(pause, changes.changed()).await);
        }
    }

    async fn give_leaderships_away(&self) {
        let led = self.registry.all().into_iter();
        let led = led.filter(|replica| replica.raft().brief().role == Role::Leader);
        let metadata = self.metadata();
        let handing_over = led.filter_map(|replica| {
            let to = self.next_leader(&metadata, &replica)?;
            Some((replica, to))
        });
        futures::stream::iter(handing_over)
            .for_each_concurrent(limits::HAND_OVERS_AT_ONCE, async |(replica, to)| {
                self.hand_over_group(&replica, to).await;
            })
            .await;
    }

    /// Hands every leadership of this node to another live replica, as far as there is one.
    pub(crate) async fn hand_over(&self, deadline: Instant) {
        let led = self.registry.all().into_iter();
        let led = led.filter(|replica| replica.raft().brief().role == Role::Leader);
        let metadata = self.metadata();
        let handing_over = led.filter_map(|replica| {
            let alive = |node| node != self.ground.me && self.liveness.is_alive(node);
            let to = self.next_leader(&metadata, &replica);
            let to = to.or_else(|| choose(&replica.raft().status(), 0, alive))?;
            Some((replica, to))
        });
        let all = futures::stream::iter(handing_over).for_each_concurrent(
            limits::HAND_OVERS_AT_ONCE,
            async |(replica, to)| {
                self.hand_over_group(&replica, to).await;
            },
        );
        drop(tokio::time::timeout_at(deadline, all).await);
    }

    /// Hands one group over, and waits a moment for the next leader, so that not too many groups
    /// are without one at a time.
    pub(super) async fn hand_over_group(&self, replica: &Replica, to: ReplicaId) {
        let group = replica.hosted().group;
        // Followers of a parked group have no timers; a transfer that fails would need them.
        replica.pulse().touch();
        let deadline = Instant::now() + limits::HAND_OVER_SEEN_MAX;
        if let Err(failure) = replica.raft().ensure_writable(deadline).await {
            tracing::debug!(%group, %failure, "leads no more, or has no majority");
            return;
        }
        if let Err(failure) = replica.raft().hand_over(to, limits::HAND_OVER_HOLD).await {
            tracing::debug!(%group, %failure, "not handed over; the next round tries again");
            return;
        }
        self.ground.metrics.raft.handed_over.inc();
        while Instant::now() < deadline && replica.raft().brief().role == Role::Leader {
            tokio::time::sleep(limits::QUORUM_POLL).await;
        }
    }

    /// Who should lead a group instead of this node: a live voter that may lead, one of those that
    /// have most of the log. Groups with the same voters are spread over them.
    pub(super) fn next_leader(
        &self,
        metadata: &MetadataState,
        replica: &Replica,
    ) -> Option<ReplicaId> {
        let status = replica.raft().status();
        let fit = |node: NodeUuid| {
            node != self.ground.me
                && self.liveness.is_alive(node)
                && takes_leaderships(metadata, node)
        };
        let turn = usize::try_from(replica.hosted().group.0).unwrap_or(0);
        choose(&status, turn, fit)
    }

    /// Who leads a group on from which this replica, its leader, is to be dropped.
    pub(super) fn staying_leader(
        &self,
        metadata: &MetadataState,
        replica: &Replica,
    ) -> Option<ReplicaId> {
        let status = replica.raft().status();
        let record = metadata.groups().get(&replica.hosted().group)?;
        let stays = |node: NodeUuid| {
            let stays = |it: &node_core::metadata::Replica| it.node == node && it.voter;
            self.liveness.is_alive(node) && record.replicas.iter().any(stays)
        };
        let turn = usize::try_from(replica.hosted().group.0).unwrap_or(0);
        // Better one that may lead than one that gives it away again.
        let fit = |node| stays(node) && takes_leaderships(metadata, node);
        choose(&status, turn, fit).or_else(|| choose(&status, turn, stays))
    }

    /// Begins the next moves of removals, and ends removals that are through. On the metadata's
    /// leader.
    pub(super) async fn drive_removals(&self, known: &MetadataState) {
        if known.leaving().next().is_none() || !self.leads_metadata() {
            return;
        }
        let deadline = Instant::now() + limits::READ_INDEX_MAX;
        let Ok(metadata) = self.fresh_metadata(deadline).await else { return };
        let room = limits::MOVES_AT_ONCE.saturating_sub(metadata.moves_under_way());
        for next in metadata.next_moves(room, |node| self.liveness.is_alive(node)) {
            tracing::info!(group = %next.place.group, from = %next.from, to = %next.to, "moves");
            self.ground.metrics.raft.moves_begun.inc();
            self.propose_quietly(MetadataCommand::PlaceGroup(next.place)).await;
        }
        for (node, _) in metadata.leaving() {
            if holds_only_metadata(&metadata, node) {
                tracing::info!(%node, "holds nothing any more, and leaves the cluster");
                self.propose_quietly(MetadataCommand::RemoveNode { node }).await;
            }
        }
    }
}

/// A node may be given leaderships.
pub(super) fn takes_leaderships(metadata: &MetadataState, node: NodeUuid) -> bool {
    let record = metadata.nodes().get(&node);
    record.is_none_or(|record| record.standing.takes_leaderships())
}

fn holds_only_metadata(metadata: &MetadataState, node: NodeUuid) -> bool {
    metadata.groups().iter().all(|(id, group)| {
        *id == node_core::ids::GroupId::METADATA
            || !group.replicas.iter().chain(&group.retiring).any(|replica| replica.node == node)
    })
}

/// Of the voters on fit nodes, one that has most; `turn` chooses among equals.
pub(super) fn choose(
    status: &GroupStatus,
    turn: usize,
    fit: impl Fn(NodeUuid) -> bool,
) -> Option<ReplicaId> {
    let voters: Vec<(ReplicaId, u64)> = status
        .members
        .iter()
        .filter(|(replica, node)| status.voters.contains(replica) && fit(**node))
        .filter_map(|(replica, _)| Some((*replica, status.matched.get(replica).copied()??)))
        .collect();
    let needed = status.last_index.unwrap_or(0).saturating_sub(limits::CAUGHT_UP_ENTRIES);
    let near: Vec<ReplicaId> =
        voters.into_iter().filter(|(_, has)| *has >= needed).map(|(replica, _)| replica).collect();
    near.get(turn % near.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn status(matched: &[(u64, Option<u64>)], voters: &[u64]) -> GroupStatus {
        let node = |replica: u64| NodeUuid(uuid::Uuid::from_u128(replica.into()));
        GroupStatus {
            role: Role::Leader,
            term: 1,
            leader: None,
            vote_committed: true,
            last_index: Some(5_000),
            voters: voters.iter().map(|id| ReplicaId(*id)).collect::<BTreeSet<_>>(),
            members: matched.iter().map(|(id, _)| (ReplicaId(*id), node(*id))).collect(),
            joint: false,
            members_settled: true,
            matched: matched
                .iter()
                .map(|(id, at)| (ReplicaId(*id), *at))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn a_leadership_goes_to_a_fit_voter_that_has_the_log_and_groups_take_turns() {
        let all = [(1, Some(5_000)), (2, Some(4_990)), (3, Some(5_000)), (4, Some(5_000))];
        let status = status(&all, &[1, 2, 3]);
        let others = |node: NodeUuid| node.0.as_u128() != 1;
        let chosen: Vec<_> = (0..4).map(|turn| choose(&status, turn, others)).collect();
        assert_eq!(chosen, [2, 3, 2, 3].map(|id| Some(ReplicaId(id))));
    }

    #[test]
    fn who_is_far_behind_or_unheard_of_leads_nothing() {
        let status = status(&[(1, Some(5_000)), (2, Some(3_000)), (3, None)], &[1, 2, 3]);
        assert_eq!(choose(&status, 0, |node| node.0.as_u128() != 1), None);
    }
}
