//! Applying the commands about a node's life in its cluster: draining, moving replicas away,
//! leaving for good; and cancelling that.
//!
//! A removal is a standing of the node and nothing else: whoever leads the metadata proposes the
//! moves one by one, by the newest state, so that the next leader goes on where the last one
//! ended. `docs/operating/scaling.md` has the whole of it.

use std::collections::BTreeSet;

use super::{GroupKind, GroupRecord, MetadataOutcome, MetadataState, Replica};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{GroupId, NodeUuid, RackName};
use crate::limits::{METADATA_VOTERS_MAX, REMOVED_NODES_MAX};

/// What a node is for, in the operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Standing {
    /// It holds replicas and leads groups.
    #[default]
    Active,
    /// It holds replicas and leads nothing while anybody else can.
    Drained,
    /// Its replicas go to other nodes, and then the node.
    Removing,
    /// It belongs to the cluster no more. Its record goes when nothing of it retires any more.
    Removed,
}

/// Where the replicas of a group shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceGroup {
    /// Whose.
    pub group: GroupId,
    /// Where they are, as the proposer has it: a plan of yesterday is refused.
    pub expected: Vec<NodeUuid>,
    /// Where they shall be; the first should lead. As many as before, or 3 or 5 if that is more.
    pub nodes: Vec<NodeUuid>,
    /// The node whose removal this is a part of. Once that is cancelled, it is refused: it may
    /// have been on its way meanwhile.
    pub removal_of: Option<NodeUuid>,
}

/// Why a group's replicas are not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceFault {
    /// They are not where the proposer thought, or the removal that moved them was cancelled.
    Changed,
    /// The last move is not over.
    Busy,
    /// The metadata are on every node; they can't be placed.
    Metadata,
    /// A node twice, or one that takes no replicas.
    Node,
    /// Fewer replicas than now, or an even number of more.
    Count,
}

impl MetadataState {
    pub(super) fn set_standing(&mut self, node: NodeUuid, standing: Standing) -> MetadataOutcome {
        let Some(record) = self.nodes.get(&node).filter(|record| record.is_member()) else {
            return MetadataOutcome::UnknownNode;
        };
        let now = record.standing;
        match (now, standing) {
            // Only the last step of a removal makes a node a removed one.
            (_, Standing::Removed) => return MetadataOutcome::UnknownNode,
            (Standing::Removing, Standing::Drained) => return MetadataOutcome::NodeIsRemoving,
            (Standing::Active | Standing::Drained, Standing::Removing) => {
                if let Some(group) = self.would_lack_a_node(node) {
                    return MetadataOutcome::ReplicationNotKept { group };
                }
            }
            (Standing::Removing, Standing::Active) => self.take_back(node),
            _ => {}
        }
        if let Some(record) = self.nodes.get_mut(&node) {
            record.standing = standing;
        }
        MetadataOutcome::StandingSet
    }

    /// A group that could not keep its number of replicas without `node`; the one of most replicas.
    #[must_use]
    pub fn would_lack_a_node(&self, node: NodeUuid) -> Option<GroupId> {
        let others = self.members().filter(|(uuid, record)| {
            *uuid != node && matches!(record.standing, Standing::Active | Standing::Drained)
        });
        let others = others.count();
        let on_it = |group: &GroupRecord| group.replicas.iter().any(|it| it.node == node);
        let placed = self.groups.iter().filter(|(id, group)| {
            **id != GroupId::METADATA && on_it(group) && group.replicas.len() > others
        });
        if others == 0 {
            return Some(GroupId::METADATA);
        }
        placed.max_by_key(|(_, group)| group.replicas.len()).map(|(id, _)| *id)
    }

    /// Undoes the moves from a node that are under way: what was on its way instead goes again.
    fn take_back(&mut self, node: NodeUuid) {
        for group in self.groups.values_mut().filter(|group| !group.is_deleted()) {
            let here = |replica: &Replica| replica.node == node;
            if group.replicas.iter().any(here) {
                continue;
            }
            let Some(left) = group.retiring.iter().position(here) else { continue };
            // Ids only grow, so the greatest is the one that came instead.
            let came = group.replicas.iter().enumerate().max_by_key(|(_, replica)| replica.id);
            let Some((place, _)) = came else { continue };
            let back = group.retiring.remove(left);
            let gone = std::mem::replace(&mut group.replicas[place], back);
            group.retiring.push(gone);
        }
    }

    pub(super) fn place_group(&mut self, place: &PlaceGroup) -> MetadataOutcome {
        match self.check_place(place) {
            Err(fault) => return MetadataOutcome::NotPlaced { fault },
            Ok(true) => return MetadataOutcome::Placed,
            Ok(false) => {}
        }
        let old = self.groups.get(&place.group).map(|group| group.replicas.clone());
        let old = old.expect("it was just checked");
        let new: Vec<Replica> = place
            .nodes
            .iter()
            .map(|node| {
                let kept = old.iter().find(|replica| replica.node == *node).copied();
                kept.unwrap_or_else(|| Replica {
                    id: self.next_replica(),
                    node: *node,
                    voter: true,
                })
            })
            .collect();
        let group = self.groups.get_mut(&place.group).expect("it was just there");
        let leaves = old.into_iter().filter(|replica| !place.nodes.contains(&replica.node));
        group.retiring.extend(leaves);
        group.replicas = new;
        self.note_replication(place.group);
        MetadataOutcome::Placed
    }

    /// A topic has as many replicas as the partition that has least.
    fn note_replication(&mut self, group: GroupId) {
        let kind = self.groups.get(&group).map(|group| group.kind);
        let Some(GroupKind::Partition { topic, .. }) = kind else { return };
        let Some(record) = self.topics.values_mut().find(|record| record.id == topic) else {
            return;
        };
        let all = record.partitions.iter().filter_map(|id| self.groups.get(id));
        let least = all.map(|group| group.replicas.len()).min();
        if let Some(least) = least.and_then(|least| u32::try_from(least).ok()) {
            record.replication_factor = least;
        }
    }

    /// Whether the replicas are there already.
    fn check_place(&self, place: &PlaceGroup) -> Result<bool, PlaceFault> {
        if place.group == GroupId::METADATA {
            return Err(PlaceFault::Metadata);
        }
        let group = self.groups.get(&place.group).filter(|group| !group.is_deleted());
        let group = group.ok_or(PlaceFault::Changed)?;
        let now: Vec<NodeUuid> = group.replicas.iter().map(|replica| replica.node).collect();
        if now == place.nodes {
            return Ok(true);
        }
        if now != place.expected {
            return Err(PlaceFault::Changed);
        }
        if !group.retiring.is_empty() {
            return Err(PlaceFault::Busy);
        }
        let is_leaving = |node: &NodeUuid| {
            self.nodes.get(node).is_some_and(|record| record.standing == Standing::Removing)
        };
        if place.removal_of.is_some_and(|node| !is_leaving(&node)) {
            return Err(PlaceFault::Changed);
        }
        let distinct: BTreeSet<&NodeUuid> = place.nodes.iter().collect();
        let takes = |node: &NodeUuid| {
            now.contains(node)
                || self.nodes.get(node).is_some_and(|record| {
                    record.is_member() && record.standing != Standing::Removing
                })
        };
        if distinct.len() != place.nodes.len() || !place.nodes.iter().all(takes) {
            return Err(PlaceFault::Node);
        }
        let more = matches!(place.nodes.len(), 3 | 5) && place.nodes.len() > now.len();
        if place.nodes.len() != now.len() && !more {
            return Err(PlaceFault::Count);
        }
        Ok(false)
    }

    /// The last step of a removal. Refused while the node holds anything but the metadata.
    pub(super) fn remove_node(&mut self, node: NodeUuid) -> MetadataOutcome {
        if self.removed.contains(&node) {
            return MetadataOutcome::NodeRemoved;
        }
        let Some(record) = self.nodes.get(&node).filter(|record| record.is_member()) else {
            return MetadataOutcome::UnknownNode;
        };
        if record.standing != Standing::Removing {
            return MetadataOutcome::NodeHoldsReplicas { groups: 0 };
        }
        let holds = self.groups.iter().filter(|(id, group)| {
            let mut all = group.replicas.iter().chain(&group.retiring);
            **id != GroupId::METADATA && all.any(|replica| replica.node == node)
        });
        let holds = u32::try_from(holds.count()).expect("at most GROUPS_MAX groups");
        if holds > 0 {
            return MetadataOutcome::NodeHoldsReplicas { groups: holds };
        }
        self.leave_metadata(node);
        if let Some(record) = self.nodes.get_mut(&node) {
            record.standing = Standing::Removed;
        }
        if self.removed.len() >= REMOVED_NODES_MAX {
            self.removed.remove(0);
        }
        self.removed.push(node);
        MetadataOutcome::NodeRemoved
    }

    /// Takes a node out of the metadata group; a learner votes in its place.
    fn leave_metadata(&mut self, node: NodeUuid) {
        let leaving: BTreeSet<NodeUuid> = self
            .nodes
            .iter()
            .filter(|(_, record)| record.standing == Standing::Removing)
            .map(|(uuid, _)| *uuid)
            .collect();
        let group = self.metadata_group();
        let Some(place) = group.replicas.iter().position(|replica| replica.node == node) else {
            return;
        };
        let left = group.replicas.remove(place);
        group.retiring.push(left);
        let voters = group.replicas.iter().filter(|replica| replica.voter).count();
        if voters < METADATA_VOTERS_MAX
            && let Some(learner) = group
                .replicas
                .iter_mut()
                .find(|replica| !replica.voter && !leaving.contains(&replica.node))
        {
            learner.voter = true;
        }
    }

    pub(super) fn set_rack(&mut self, node: NodeUuid, rack: Option<&RackName>) -> MetadataOutcome {
        match self.nodes.get_mut(&node).filter(|record| record.is_member()) {
            Some(record) => {
                record.rack = rack.cloned();
                MetadataOutcome::NodeUpdated
            }
            None => MetadataOutcome::UnknownNode,
        }
    }

    /// Nodes that were removed, the latest last. They are refused for ever, as far as remembered.
    #[must_use]
    pub fn removed_nodes(&self) -> &[NodeUuid] {
        &self.removed
    }
}

impl Standing {
    /// Replicas and leaderships may be given to it.
    #[must_use]
    pub fn takes_leaderships(self) -> bool {
        self == Standing::Active
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.u8(match self {
            Standing::Active => 0,
            Standing::Drained => 1,
            Standing::Removing => 2,
            Standing::Removed => 3,
        });
    }

    pub(super) fn read(reader: &mut Reader) -> Result<Standing, DecodeError> {
        Ok(match reader.u8()? {
            0 => Standing::Active,
            1 => Standing::Drained,
            2 => Standing::Removing,
            3 => Standing::Removed,
            kind => return Err(reader.unknown_kind(kind)),
        })
    }
}

impl PlaceFault {
    pub(super) fn write(self, writer: &mut Writer) {
        writer.u8(match self {
            PlaceFault::Changed => 1,
            PlaceFault::Busy => 2,
            PlaceFault::Metadata => 3,
            PlaceFault::Node => 4,
            PlaceFault::Count => 5,
        });
    }

    pub(super) fn read(reader: &mut Reader) -> Result<PlaceFault, DecodeError> {
        Ok(match reader.u8()? {
            1 => PlaceFault::Changed,
            2 => PlaceFault::Busy,
            3 => PlaceFault::Metadata,
            4 => PlaceFault::Node,
            5 => PlaceFault::Count,
            kind => return Err(reader.unknown_kind(kind)),
        })
    }
}
