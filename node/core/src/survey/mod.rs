//! What the nodes of a cluster say of themselves at one moment, and what follows from it.
//!
//! - here: the survey itself, as data;
//! - `health`: what is wrong, what it means, what to do;
//! - `status`: one node's way through its life, and whether it may be stopped.
//!
//! Pure: a survey and the metadata in, conclusions out, so that each of them is tested without a
//! cluster.

mod health;
mod status;

use std::collections::{BTreeMap, BTreeSet};

pub use self::health::{Finding, Severity, Trouble, findings, mixed_versions, name_of, worst};
pub use self::status::{NodeStatus, Phase, node_status};
use crate::ids::{GroupId, NodeUuid, ReplicaId};

/// Entries that a replica may miss and still count as one that has the log: what is on its way
/// under load.
pub const CAUGHT_UP_ENTRIES: u64 = 1_000;

/// What every node that answered said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// By node; who did not answer is not there.
    pub nodes: BTreeMap<NodeUuid, NodeSurvey>,
}

/// What one node said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSurvey {
    /// Free bytes of its disk, where that can be told.
    pub disk_free_bytes: Option<u64>,
    /// Free bytes below which it takes no appends.
    pub disk_reserve_bytes: u64,
    /// 99th percentile of its synced writes of the last minute, in microseconds.
    pub sync_p99_us: Option<u64>,
    /// How far its clock is from that of the node that asked, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Nodes that it can't reach.
    pub unreachable: BTreeSet<NodeUuid>,
    /// What it holds.
    pub replicas: BTreeMap<GroupId, ReplicaSurvey>,
}

/// What a node said of one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSurvey {
    /// Its id.
    pub replica: ReplicaId,
    /// It is open, and its Raft core runs.
    pub runs: bool,
    /// What it keeps, in bytes.
    pub bytes: u64,
    /// Where it leads.
    pub leads: Option<LeadSurvey>,
}

/// What a leader said of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadSurvey {
    /// Since when it leads.
    pub term: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// Who belongs to the group, this replica too.
    pub members: BTreeMap<ReplicaId, MemberSurvey>,
}

/// What a leader said of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSurvey {
    /// Where it is.
    pub node: NodeUuid,
    /// It votes; otherwise it only learns.
    pub voter: bool,
    /// The last entry it is known to have.
    pub matched: Option<u64>,
}

impl Survey {
    /// Who leads a group. Two may say so for a moment; the later one does.
    #[must_use]
    pub fn lead(&self, group: GroupId) -> Option<(NodeUuid, &LeadSurvey)> {
        let leads = self.nodes.iter().filter_map(|(node, survey)| {
            let lead = survey.replicas.get(&group)?.leads.as_ref()?;
            Some((*node, lead))
        });
        leads.max_by_key(|(_, lead)| lead.term)
    }

    /// The greatest size that a replica of a group told, in bytes.
    #[must_use]
    pub fn bytes_of(&self, group: GroupId) -> u64 {
        let replicas = self.nodes.values().filter_map(|node| node.replicas.get(&group));
        replicas.map(|replica| replica.bytes).max().unwrap_or(0)
    }
}

impl LeadSurvey {
    /// Entries that a member misses; `None` where it is no member, or was not heard of.
    #[must_use]
    pub fn behind(&self, replica: ReplicaId) -> Option<u64> {
        let matched = self.members.get(&replica)?.matched?;
        Some(self.last_index.saturating_sub(matched))
    }

    /// The voters that have the log but for its newest entries.
    pub fn caught_up_voters(&self) -> impl Iterator<Item = NodeUuid> {
        let has = |member: &&MemberSurvey| {
            let needed = self.last_index.saturating_sub(CAUGHT_UP_ENTRIES);
            member.voter && member.matched.is_some_and(|matched| matched >= needed)
        };
        self.members.values().filter(has).map(|member| member.node)
    }

    /// How many of the voters must have an entry for it to be committed.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.members.values().filter(|member| member.voter).count() / 2 + 1
    }
}
