//! Applying the commands about nodes: making the cluster, joining it, coming back after a loss.

use std::collections::BTreeSet;

use super::placement::{NodeLoad, Placement, replication_factor};
use super::{
    Bootstrap, BootstrapFault, GroupKind, GroupRecord, MetadataOutcome, MetadataState, NodeRecord,
    NodeSpec, RegisterNode, Replica, Standing,
};
use crate::features::{FeatureLevel, FeatureRange};
use crate::ids::{GroupId, NodeUuid, ReplicaId};
use crate::limits::{
    COORDINATORS_MAX, GROUP_RETIRING_MAX, METADATA_VOTERS_MAX, NODE_RECORDS_MAX, NODES_MAX,
};
use crate::zoo::{self, Bug};

impl MetadataState {
    pub(super) fn bootstrap(&mut self, bootstrap: &Bootstrap) -> MetadataOutcome {
        match self.cluster_id {
            Some(cluster_id) if cluster_id == bootstrap.cluster_id => {
                return MetadataOutcome::Bootstrapped;
            }
            Some(cluster_id) => return MetadataOutcome::AlreadyBootstrapped { cluster_id },
            None => {}
        }
        if let Err(fault) = check_bootstrap(bootstrap) {
            return MetadataOutcome::InvalidBootstrap { fault };
        }
        self.level = founding_level(bootstrap).expect("it was checked");
        self.cluster_id = Some(bootstrap.cluster_id);
        self.coordinators = bootstrap.coordinators;
        let metadata = GroupRecord {
            kind: GroupKind::Metadata,
            replicas: Vec::new(),
            founders: Vec::new(),
            retiring: Vec::new(),
        };
        self.groups.insert(GroupId::METADATA, metadata);
        // BEFORE all other groups, so that the metadata's replica ids are the members' places.
        for member in &bootstrap.members {
            self.add_node(member);
        }
        let founders = self.metadata_group().replicas.iter().filter(|replica| replica.voter);
        let founders = founders.map(|replica| replica.id).collect();
        self.metadata_group().founders = founders;
        self.place_coordinators(bootstrap.coordinators);
        MetadataOutcome::Bootstrapped
    }

    pub(super) fn register_node(&mut self, register: &RegisterNode) -> MetadataOutcome {
        let node = &register.node;
        if self.removed.contains(&node.uuid) {
            return MetadataOutcome::NodeWasRemoved;
        }
        if !node.version.levels().contains(self.level) {
            return MetadataOutcome::LevelNotSpoken { level: self.level };
        }
        let holder = self.node_by_label(node.label).map(|(uuid, _)| uuid);
        let holder = holder.filter(|holder| *holder != node.uuid);
        if let Some(known) = self.nodes.get_mut(&node.uuid) {
            return match (known.replaced_by, holder) {
                (Some(by), _) => MetadataOutcome::NodeWasReplaced { by },
                // Also with `replaces_dead`: this node's own replicas are still where they were,
                // and a node can't be in two places.
                (None, Some(by)) => MetadataOutcome::LabelTaken { by },
                (None, None) => {
                    let (standing, rack) = (known.standing, known.rack.take());
                    *known = NodeRecord { standing, rack, ..record_of(node) };
                    MetadataOutcome::NodeUpdated
                }
            };
        }
        let too_many = |limit: usize| {
            let limit = u32::try_from(limit).expect("a small constant");
            MetadataOutcome::TooManyNodes { limit }
        };
        match holder {
            None if self.members().count() >= NODES_MAX => too_many(NODES_MAX),
            None => {
                self.add_node(node);
                MetadataOutcome::NodeAdded
            }
            Some(by) if !register.replaces_dead => MetadataOutcome::LabelTaken { by },
            Some(_) if self.nodes.len() >= NODE_RECORDS_MAX => too_many(NODE_RECORDS_MAX),
            Some(old) => {
                let replicas = self.replace_node(old, node);
                MetadataOutcome::NodeReplaced { old, replicas }
            }
        }
    }

    /// Gives a node a new replica of a group in the place of one that it has lost.
    pub(super) fn replace_replica(
        &mut self,
        id: GroupId,
        lost: ReplicaId,
        node: NodeUuid,
    ) -> MetadataOutcome {
        let new = self.replica_next;
        let Some(group) = self.groups.get_mut(&id) else {
            return MetadataOutcome::UnknownGroup { group: id };
        };
        let Some(replica) = group.replicas.iter_mut().find(|replica| replica.node == node) else {
            return MetadataOutcome::ReplicaNotReplaced;
        };
        // Ids only grow: an older one was replaced before, and this is the same asked again.
        if replica.id > lost {
            return MetadataOutcome::ReplicaReplaced { new: replica.id };
        }
        if replica.id < lost || group.retiring.len() >= GROUP_RETIRING_MAX {
            return MetadataOutcome::ReplicaNotReplaced;
        }
        group.retiring.push(*replica);
        replica.id = new;
        assert_eq!(self.next_replica(), new);
        MetadataOutcome::ReplicaReplaced { new }
    }

    /// Forgets a replaced or removed node when none of its replicas retires any more.
    pub(super) fn forget_if_unused(&mut self, uuid: NodeUuid) {
        let gone = self.nodes.get(&uuid).is_some_and(|node| !node.is_member());
        let retires = |group: &GroupRecord| group.retiring.iter().any(|old| old.node == uuid);
        if gone && !self.groups.values().any(retires) {
            self.nodes.remove(&uuid);
        }
    }

    /// What each member holds of the groups that were placed; all hold the metadata alike.
    pub(super) fn loads(&self) -> Vec<NodeLoad> {
        let mut loads: Vec<NodeLoad> = self
            .members()
            .map(|(node, record)| NodeLoad {
                node,
                label: record.label,
                replicas: 0,
                leaders: 0,
                standing: record.standing,
            })
            .collect();
        // Sorted by uuid, as the members are.
        for group in self.groups.values().filter(|group| group.kind != GroupKind::Metadata) {
            for (place, replica) in group.replicas.iter().enumerate() {
                if let Ok(found) = loads.binary_search_by_key(&replica.node, |load| load.node) {
                    loads[found].replicas += 1;
                    loads[found].leaders += u32::from(place == 0);
                }
            }
        }
        loads
    }

    /// Gives new replica ids to the nodes of a new group.
    pub(super) fn new_group(&mut self, kind: GroupKind, nodes: Vec<NodeUuid>) -> GroupRecord {
        let replica = |node| Replica { id: self.next_replica(), node, voter: true };
        let replicas: Vec<Replica> = nodes.into_iter().map(replica).collect();
        let founders = replicas.iter().map(|replica| replica.id).collect();
        GroupRecord { kind, replicas, founders, retiring: Vec::new() }
    }

    fn place_coordinators(&mut self, count: u32) {
        let members = u32::try_from(self.nodes.len()).expect("at most NODES_MAX nodes");
        let replicas = replication_factor(0, members).expect("the members were checked");
        let mut placement = Placement::new(self.loads());
        for place in 0..count {
            let group = self.new_group(GroupKind::Coordinator, placement.place(replicas));
            self.groups.insert(GroupId(GroupId::COORDINATOR_FIRST.0 + place), group);
        }
    }

    fn add_node(&mut self, node: &NodeSpec) {
        self.nodes.insert(node.uuid, record_of(node));
        let id = self.next_replica();
        let metadata = self.metadata_group();
        let voters = metadata.replicas.iter().filter(|replica| replica.voter).count();
        let voter = voters < METADATA_VOTERS_MAX;
        metadata.replicas.push(Replica { id, node: node.uuid, voter });
    }

    /// Puts `new` in every place of `old`, under new replica ids. Answers how many there were.
    fn replace_node(&mut self, old: NodeUuid, new: &NodeSpec) -> u32 {
        self.nodes.insert(new.uuid, record_of(new));
        if let Some(record) = self.nodes.get_mut(&old) {
            record.replaced_by = Some(new.uuid);
        }
        let mut replaced = 0;
        let mut id = self.replica_next;
        for group in self.groups.values_mut() {
            for replica in group.replicas.iter_mut().filter(|replica| replica.node == old) {
                let kept = zoo::is(Bug::WipedKeepsId);
                group.retiring.extend((!kept).then_some(*replica));
                let given = if kept { replica.id } else { id };
                *replica = Replica { id: given, node: new.uuid, voter: replica.voter };
                id.0 += 1;
                replaced += 1;
            }
        }
        self.replica_next = id;
        assert!(replaced > 0, "{old} had no replica of the metadata group");
        replaced
    }

    pub(super) fn metadata_group(&mut self) -> &mut GroupRecord {
        self.groups.get_mut(&GroupId::METADATA).expect("made by the bootstrap, never deleted")
    }
}

fn check_bootstrap(bootstrap: &Bootstrap) -> Result<(), BootstrapFault> {
    if bootstrap.members.is_empty() {
        return Err(BootstrapFault::NoMembers);
    }
    if bootstrap.members.len() > NODES_MAX {
        return Err(BootstrapFault::TooManyMembers);
    }
    if !(1..=COORDINATORS_MAX).contains(&bootstrap.coordinators) {
        return Err(BootstrapFault::Coordinators);
    }
    let (mut labels, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for member in &bootstrap.members {
        if !labels.insert(member.label) {
            return Err(BootstrapFault::LabelTwice { label: member.label });
        }
        if !nodes.insert(member.uuid) {
            return Err(BootstrapFault::NodeTwice { node: member.uuid });
        }
    }
    match founding_level(bootstrap) {
        Some(_) => Ok(()),
        None => Err(BootstrapFault::Levels),
    }
}

/// A new cluster begins with all that its members have in common.
fn founding_level(bootstrap: &Bootstrap) -> Option<FeatureLevel> {
    FeatureRange::highest_common(bootstrap.members.iter().map(|member| member.version.levels()))
}

fn record_of(node: &NodeSpec) -> NodeRecord {
    NodeRecord {
        label: node.label,
        address: node.address.clone(),
        version: node.version.clone(),
        replaced_by: None,
        standing: Standing::Active,
        rack: None,
    }
}
