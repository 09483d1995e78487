//! The cluster's metadata: which nodes there are, which topics, and which node holds which
//! replica of which Raft group.
//!
//! One replicated state on every node (at most five of them vote on it), so that each knows all
//! of it without asking. It says what should be; nodes compare it with what they have and act.
//!
//! Replica ids are given out here and never again. A node whose disk was lost comes back under a
//! new uuid: each of its replicas then gets a new id in the old place, and the old one retires
//! until the Raft group has dropped it. Where only what the disk has of one group is damaged, that
//! one replica is replaced so.
//!
//! - `command`, `outcome`: what is replicated, and the answers;
//! - `nodes`, `topics`: applying the commands about each; `membership`: a node's life;
//! - `moves`: which replicas leave a node next, and where they go;
//! - `levels`: the finalized feature level; `rebalance`: evening out;
//! - `placement`: who holds what; `snapshot`: the state's bytes.

mod command;
mod levels;
mod membership;
mod moves;
mod nodes;
mod outcome;
pub mod placement;
mod rebalance;
mod snapshot;
mod topics;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use self::command::{Bootstrap, CreateTopic, MetadataCommand, NodeSpec, RegisterNode};
pub use self::membership::{PlaceFault, PlaceGroup, Standing};
pub use self::moves::Move;
pub use self::outcome::{BootstrapFault, MetadataOutcome};
pub use self::rebalance::{Change, rebalance};
use crate::features::FeatureLevel;
use crate::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName, ReplicaId,
    TopicId, TopicName,
};
use crate::limits::{MEMBERSHIP_BYTES_MAX, OFFSET_MAX, PRODUCER_IDS_PER_BLOCK_MAX};
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;
use crate::topic_config::TopicConfig;

/// The state of the metadata group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataState {
    cluster_id: Option<ClusterId>,
    /// Finalized; never goes back.
    level: FeatureLevel,
    coordinators: u32,
    nodes: BTreeMap<NodeUuid, NodeRecord>,
    /// Nodes that were removed, the latest last; at most
    /// [`REMOVED_NODES_MAX`](crate::limits::REMOVED_NODES_MAX).
    removed: Vec<NodeUuid>,
    topics: BTreeMap<TopicName, TopicRecord>,
    groups: BTreeMap<GroupId, GroupRecord>,
    /// The next partition's group.
    group_next: GroupId,
    replica_next: ReplicaId,
    producer_next: u64,
    applied: Option<RaftPosition>,
    membership: Option<Membership>,
}

/// A node that belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What people call it. Of the nodes that were not replaced, each has its own.
    pub label: NodeLabel,
    /// Where the others reach it.
    pub address: NodeAddress,
    /// The build it last started with.
    pub version: NodeVersion,
    /// It was given up as lost, and this one has its place. The record goes when none of its
    /// replicas retires any more.
    pub replaced_by: Option<NodeUuid>,
    /// What it is for.
    pub standing: Standing,
    /// What may fail with it at once: its rack, room or zone.
    pub rack: Option<RackName>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// Tells it from an earlier topic of the same name.
    pub id: TopicId,
    /// Replicas that each partition has, or shall have.
    pub replication_factor: u32,
    /// Its settings.
    pub config: TopicConfig,
    /// The Raft group of each partition, in order.
    pub partitions: Vec<GroupId>,
    /// When it was made.
    pub created_at: EntryTime,
}

/// A Raft group and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// What it replicates.
    pub kind: GroupKind,
    /// Who should belong to it; the first should lead it. Empty: the group is deleted, and its
    /// record goes with the last retiring replica.
    pub replicas: Vec<Replica>,
    /// The voters it was made with. Only they may initialize the Raft group, so that a replica
    /// that lost its disk can never begin a second one.
    pub founders: Vec<ReplicaId>,
    /// Who should leave it, or has left it without saying so.
    pub retiring: Vec<Replica>,
}

/// What a Raft group replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// This state.
    Metadata,
    /// Offsets of consumer groups.
    Coordinator,
    /// One partition's log.
    Partition {
        /// Its topic.
        topic: TopicId,
        /// Its number in the topic.
        index: u32,
    },
}

/// One copy of a group, on one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Its identity in the Raft group.
    pub id: ReplicaId,
    /// Where it is.
    pub node: NodeUuid,
    /// It votes; otherwise it only learns.
    pub voter: bool,
}

impl Default for MetadataState {
    fn default() -> MetadataState {
        MetadataState {
            cluster_id: None,
            level: FeatureLevel::FIRST,
            coordinators: 0,
            nodes: BTreeMap::new(),
            removed: Vec::new(),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            group_next: GroupId::PARTITION_FIRST,
            replica_next: ReplicaId(1),
            producer_next: 1,
            applied: None,
            membership: None,
        }
    }
}

impl MetadataState {
    /// Applies one command.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply(&mut self, at: RaftPosition, command: &MetadataCommand) -> MetadataOutcome {
        self.apply_blank(at);
        if let Err(refused) = self.admits(command) {
            return refused;
        }
        match command {
            MetadataCommand::Bootstrap(bootstrap) => self.bootstrap(bootstrap),
            _ if self.cluster_id.is_none() => MetadataOutcome::NotBootstrapped,
            MetadataCommand::RegisterNode(register) => self.register_node(register),
            MetadataCommand::CreateTopic(create) => self.create_topic(create),
            MetadataCommand::AlterTopic { name, changes } => self.alter_topic(name, changes),
            MetadataCommand::DeleteTopic { name, id } => self.delete_topic(name, *id),
            MetadataCommand::AllocateProducerIds { count } => self.allocate_producer_ids(*count),
            MetadataCommand::ReplicasSettled { group, gone } => self.settle(*group, gone),
            MetadataCommand::ReplaceReplica { group, lost, node } => {
                self.replace_replica(*group, *lost, *node)
            }
            MetadataCommand::SetStanding { node, standing } => self.set_standing(*node, *standing),
            MetadataCommand::PlaceGroup(place) => self.place_group(place),
            MetadataCommand::RemoveNode { node } => self.remove_node(*node),
            MetadataCommand::SetRack { node, rack } => self.set_rack(*node, rack.as_ref()),
            MetadataCommand::FinalizeLevel { level } => self.finalize_level(*level),
        }
    }

    /// Applies an entry without content.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry.
    pub fn apply_blank(&mut self, at: RaftPosition) {
        if let Some(applied) = self.applied {
            assert!(at.follows(applied), "entry {at} applied after {applied}");
        }
        self.applied = Some(at);
    }

    /// Applies a change of the metadata group's own members.
    ///
    /// # Panics
    /// If `at` does not follow the last applied entry, or over [`MEMBERSHIP_BYTES_MAX`].
    pub fn apply_membership(&mut self, at: RaftPosition, bytes: Bytes) {
        assert!(bytes.len() <= MEMBERSHIP_BYTES_MAX, "a membership of {} bytes", bytes.len());
        self.apply_blank(at);
        self.membership = Some(Membership { position: Some(at), bytes });
    }

    /// The last applied entry.
    #[must_use]
    pub fn applied(&self) -> Option<RaftPosition> {
        self.applied
    }

    /// The metadata group's members as last applied.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// The cluster; `None` before its bootstrap.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// The feature level that is finalized.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        self.level
    }

    /// Coordinator groups; 0 before the bootstrap.
    #[must_use]
    pub fn coordinator_count(&self) -> u32 {
        self.coordinators
    }

    /// All nodes, those that were replaced or removed and not yet forgotten too.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeUuid, NodeRecord> {
        &self.nodes
    }

    /// Nodes that were neither replaced nor removed.
    pub fn members(&self) -> impl Iterator<Item = (NodeUuid, &NodeRecord)> {
        let member = |(uuid, node): (&NodeUuid, _)| (*uuid, node);
        self.nodes.iter().map(member).filter(|(_, node): &(_, &NodeRecord)| node.is_member())
    }

    /// The node that has a label now.
    #[must_use]
    pub fn node_by_label(&self, label: NodeLabel) -> Option<(NodeUuid, &NodeRecord)> {
        self.members().find(|(_, node)| node.label == label)
    }

    /// All topics by name.
    #[must_use]
    pub fn topics(&self) -> &BTreeMap<TopicName, TopicRecord> {
        &self.topics
    }

    /// All Raft groups, deleted ones with retiring replicas too.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, GroupRecord> {
        &self.groups
    }

    /// The group of a partition.
    #[must_use]
    pub fn partition_group(&self, topic: &TopicName, partition: u32) -> Option<GroupId> {
        let place = usize::try_from(partition).ok()?;
        self.topics.get(topic)?.partitions.get(place).copied()
    }

    /// What a node should hold: each group with its replica there.
    pub fn replicas_on(
        &self,
        node: NodeUuid,
    ) -> impl Iterator<Item = (GroupId, &GroupRecord, Replica)> {
        self.groups.iter().flat_map(move |(id, group)| {
            let here = group.replicas.iter().filter(move |replica| replica.node == node);
            here.map(move |replica| (*id, group, *replica))
        })
    }

    fn allocate_producer_ids(&mut self, count: u32) -> MetadataOutcome {
        let count = count.clamp(1, PRODUCER_IDS_PER_BLOCK_MAX);
        let first = self.producer_next;
        self.producer_next += u64::from(count);
        assert!(self.producer_next <= OFFSET_MAX, "producer id {}", self.producer_next);
        MetadataOutcome::ProducerIds { first, count }
    }

    fn next_replica(&mut self) -> ReplicaId {
        let id = self.replica_next;
        self.replica_next = ReplicaId(id.0 + 1);
        assert!(id.0 < OFFSET_MAX, "replica id {id}");
        id
    }
}

impl NodeRecord {
    /// It was neither replaced nor removed.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.replaced_by.is_none() && self.standing != Standing::Removed
    }
}

impl GroupRecord {
    /// The replica that should lead; `None` for a deleted group.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<Replica> {
        self.replicas.first().copied()
    }

    /// Deleted, with replicas that are not settled.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.replicas.is_empty()
    }

    /// A replica by its id, retiring ones too.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<Replica> {
        self.replicas.iter().chain(&self.retiring).find(|replica| replica.id == id).copied()
    }
}
