//! Where one node is on its way through a cluster, and whether it may be stopped.

use super::{CAUGHT_UP_ENTRIES, Survey};
use crate::ids::{GroupId, NodeUuid};
use crate::metadata::{GroupRecord, MetadataState, Standing};

/// A node's standing, with how far it has got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Taken in; it has not the metadata yet.
    Joining,
    /// It works.
    Active,
    /// It shall lead nothing, and leads something still.
    Draining,
    /// It leads nothing that another node could lead.
    Drained,
    /// Its replicas are being moved.
    Removing,
    /// It belongs to the cluster no more.
    Removed,
}

/// What there is to say of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where it is on its way.
    pub phase: Phase,
    /// It answered.
    pub alive: bool,
    /// Raft groups of all kinds that it leads.
    pub leaders: u32,
    /// Replicas of all kinds that it should hold.
    pub replicas: u32,
    /// What its replicas keep, in bytes.
    pub bytes: u64,
    /// Its replicas that are not open, don't vote yet where they should, or miss more than
    /// [`CAUGHT_UP_ENTRIES`].
    pub behind: u32,
    /// The most that one of them misses, in entries.
    pub behind_entries: u64,
    /// Groups that have no majority without it, or of which nobody could say that they have.
    pub critical: Vec<GroupId>,
    /// Groups of which it has the only replica.
    pub only_copies: Vec<GroupId>,
    /// Groups of this node that nobody who answered leads.
    pub unknown: u32,
    /// While it is removed: groups that are not moved yet.
    pub moves_left: Vec<GroupId>,
    /// And what of them is to be moved, in bytes.
    pub bytes_left: u64,
}

impl NodeStatus {
    /// Stopping it now stops no group that others could go on with, and it would miss nothing.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        self.critical.is_empty()
    }

    /// All its replicas are open and have their logs.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.alive && self.behind == 0 && self.unknown == 0
    }
}

/// What a survey says of one node.
#[must_use]
pub fn node_status(metadata: &MetadataState, survey: &Survey, node: NodeUuid) -> NodeStatus {
    let own = survey.nodes.get(&node);
    let mut status = NodeStatus {
        phase: Phase::Active,
        alive: own.is_some(),
        leaders: 0,
        replicas: 0,
        bytes: own.map_or(0, |own| own.replicas.values().map(|replica| replica.bytes).sum()),
        behind: 0,
        behind_entries: 0,
        critical: Vec::new(),
        only_copies: Vec::new(),
        unknown: 0,
        moves_left: Vec::new(),
        bytes_left: 0,
    };
    let mut leads_movable = false;
    for (id, group) in metadata.groups() {
        let leads = survey.lead(*id).is_some_and(|(leader, _)| leader == node);
        status.leaders += u32::from(leads);
        leads_movable |= leads && group.replicas.len() > 1;
        if holds(group, node) && *id != GroupId::METADATA {
            status.moves_left.push(*id);
            status.bytes_left = status.bytes_left.saturating_add(survey.bytes_of(*id));
        }
        look_at_group(survey, (*id, group), node, &mut status);
    }
    let standing = metadata.nodes().get(&node).map(|record| record.standing);
    status.phase = match standing {
        None | Some(Standing::Removed) => Phase::Removed,
        Some(Standing::Removing) => Phase::Removing,
        Some(Standing::Drained) if leads_movable => Phase::Draining,
        Some(Standing::Drained) => Phase::Drained,
        Some(Standing::Active) if is_joining(metadata, survey, node) => Phase::Joining,
        Some(Standing::Active) => Phase::Active,
    };
    if status.phase != Phase::Removing {
        status.moves_left.clear();
        status.bytes_left = 0;
    }
    status
}

/// A replica of the group is on the node, or leaves it.
fn holds(group: &GroupRecord, node: NodeUuid) -> bool {
    group.replicas.iter().chain(&group.retiring).any(|replica| replica.node == node)
}

fn look_at_group(
    survey: &Survey,
    (id, group): (GroupId, &GroupRecord),
    node: NodeUuid,
    status: &mut NodeStatus,
) {
    let Some(placed) = group.replicas.iter().find(|replica| replica.node == node) else { return };
    status.replicas += 1;
    let lead = survey.lead(id).map(|(_, lead)| lead);
    let own = survey.nodes.get(&node).and_then(|own| own.replicas.get(&id));
    let runs = own.is_some_and(|own| own.runs && own.replica == placed.id);
    let member = lead.and_then(|lead| lead.members.get(&placed.id));
    let votes = member.is_some_and(|member| member.voter || !placed.voter);
    let behind = lead.and_then(|lead| lead.behind(placed.id));
    status.unknown += u32::from(lead.is_none());
    if lead.is_some() {
        let lags = behind.is_none_or(|entries| entries > CAUGHT_UP_ENTRIES);
        status.behind += u32::from(!runs || !votes || lags);
        status.behind_entries = status.behind_entries.max(behind.unwrap_or(0));
    }
    if group.replicas.len() == 1 {
        status.only_copies.push(id);
        return;
    }
    // A learner can go without any harm to its group.
    if !placed.voter && lead.is_some() {
        return;
    }
    let others = lead.map_or(0, |lead| {
        let answers = |other: &NodeUuid| *other != node && survey.nodes.contains_key(other);
        lead.caught_up_voters().filter(answers).count()
    });
    if lead.is_none_or(|lead| others < lead.majority()) {
        status.critical.push(id);
    }
}

/// It has not got the metadata yet, by which it learns of everything else.
fn is_joining(metadata: &MetadataState, survey: &Survey, node: NodeUuid) -> bool {
    let Some((_, lead)) = survey.lead(GroupId::METADATA) else { return false };
    let group = metadata.groups().get(&GroupId::METADATA);
    let placed = group.and_then(|group| group.replicas.iter().find(|it| it.node == node));
    placed.is_some_and(|placed| lead.behind(placed.id).is_none())
}
