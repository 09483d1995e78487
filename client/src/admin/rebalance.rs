//! Evening out replicas and leaders: the plan, and carrying out its parts.

use quipu_proto::v1;

use super::{Admin, Repeated};
use crate::calls::Target;
use crate::error::AdminError;

/// What would even the cluster out, as things are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebalancePlan {
    /// Groups whose replicas, or the order of them, should change.
    pub changes: Vec<PlannedChange>,
    /// Groups that should be led by another node.
    pub leaders: Vec<LeaderMove>,
    /// Groups of which replicas are being moved right now.
    pub under_way: u32,
}

/// Where the replicas of a group are, and where they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    /// Its Raft group.
    pub group: u32,
    /// "topic/partition", or the group's name.
    pub what: String,
    /// Labels of the nodes; the first should lead.
    pub from_nodes: Vec<u64>,
    /// Likewise.
    pub to_nodes: Vec<u64>,
    /// Size of one replica, in bytes.
    pub bytes: u64,
    /// Replicas that must be made for it; 0: only the order changes.
    pub replicas_made: u32,
}

/// A leadership that should move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderMove {
    /// Its Raft group.
    pub group: u32,
    /// "topic/partition", or the group's name.
    pub what: String,
    /// Label of the node that leads.
    pub from_node: u64,
    /// Label of the node that should.
    pub to_node: u64,
}

impl Admin {
    /// What would even the cluster out. With `replication`, each group should also have at least so
    /// many replicas (3 or 5; 0: as many as it has).
    ///
    /// # Errors
    /// `INVALID_REPLICATION`.
    pub async fn plan_rebalance(&self, replication: u32) -> Result<RebalancePlan, AdminError> {
        let request = v1::PlanRebalanceRequest { replication };
        let answer = self
            .call(Target::Any, Repeated::Harmless, |mut admin| async move {
                admin.plan_rebalance(request).await
            })
            .await?;
        Ok(RebalancePlan {
            changes: answer.changes.into_iter().map(Into::into).collect(),
            leaders: answer.leaders.into_iter().map(Into::into).collect(),
            under_way: answer.under_way,
        })
    }

    /// Has a group's replicas moved. Returns at once.
    ///
    /// # Errors
    /// `STALE_REPLICA` where the replicas are not where the change begins any more.
    pub async fn place_replicas(&self, change: &PlannedChange) -> Result<(), AdminError> {
        let request = v1::PlaceReplicasRequest {
            group: change.group,
            expected_nodes: change.from_nodes.clone(),
            nodes: change.to_nodes.clone(),
        };
        self.call(Target::Any, Repeated::Harmless, |mut admin| {
            let request = request.clone();
            async move { admin.place_replicas(request).await }
        })
        .await?;
        Ok(())
    }

    /// Moves a leadership, asking the node that has it.
    ///
    /// # Errors
    /// What prevents it.
    pub async fn move_group_leader(&self, lead: &LeaderMove) -> Result<(), AdminError> {
        let (group, to_node) = (lead.group, lead.to_node);
        let request = v1::MoveLeaderRequest { group, to_node, ..v1::MoveLeaderRequest::default() };
        self.call(Target::Node(lead.from_node), Repeated::Harmless, |mut admin| {
            let request = request.clone();
            async move { admin.move_leader(request).await }
        })
        .await?;
        Ok(())
    }
}

impl From<v1::PlannedChange> for PlannedChange {
    fn from(change: v1::PlannedChange) -> PlannedChange {
        PlannedChange {
            group: change.group,
            what: change.what,
            from_nodes: change.from_nodes,
            to_nodes: change.to_nodes,
            bytes: change.bytes,
            replicas_made: change.replicas_made,
        }
    }
}

impl From<v1::LeaderMove> for LeaderMove {
    fn from(lead: v1::LeaderMove) -> LeaderMove {
        LeaderMove {
            group: lead.group,
            what: lead.what,
            from_node: lead.from_node,
            to_node: lead.to_node,
        }
    }
}
