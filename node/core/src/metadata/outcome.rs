//! What became of a metadata command. It travels back to the node that sent the command on, so it
//! has bytes; see `docs/formats/commands.md`.

use bytes::Bytes;

use super::PlaceFault;
use crate::codec::{DecodeError, Reader, Writer};
use crate::features::FeatureLevel;
use crate::ids::{ClusterId, GroupId, NodeLabel, NodeUuid, ReplicaId, TopicId};

const VERSION: u8 = 1;

/// What became of a metadata command. Unless said otherwise, a refused command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataOutcome {
    /// The cluster is made, by this command or by its first copy.
    Bootstrapped,
    /// Another cluster was made here before.
    AlreadyBootstrapped {
        /// That one.
        cluster_id: ClusterId,
    },
    /// The cluster can't be made like this.
    InvalidBootstrap {
        /// Why.
        fault: BootstrapFault,
    },
    /// There is no cluster yet; everything but a bootstrap is refused.
    NotBootstrapped,
    /// A new node.
    NodeAdded,
    /// A known node, perhaps with a new address, label or version.
    NodeUpdated,
    /// The node took the place of a lost one.
    NodeReplaced {
        /// The lost one.
        old: NodeUuid,
        /// Replicas it gets, under new replica ids.
        replicas: u32,
    },
    /// Another node has the label.
    LabelTaken {
        /// That one.
        by: NodeUuid,
    },
    /// This node was given up as lost and replaced. It must not go on with its old disk.
    NodeWasReplaced {
        /// By that one.
        by: NodeUuid,
    },
    /// The cluster has as many nodes as it may.
    TooManyNodes {
        /// The limit.
        limit: u32,
    },
    /// The topic is made, by this command or by its first copy.
    TopicCreated,
    /// The name is taken.
    TopicExists {
        /// By that one.
        id: TopicId,
    },
    /// Neither 1, 3 nor 5, or more than there are nodes.
    InvalidReplication {
        /// As given.
        wanted: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// None, or too many.
    InvalidPartitions {
        /// As given.
        wanted: u32,
        /// Most that one topic may have.
        limit: u32,
    },
    /// The cluster has as many Raft groups as it may.
    TooManyGroups {
        /// The limit.
        limit: u32,
    },
    /// The settings are changed.
    TopicAltered,
    /// One of the settings can be given only when a topic is made.
    SettingFixed,
    /// The topic is deleted; its replicas retire.
    TopicDeleted,
    /// There is no such topic.
    UnknownTopic,
    /// `first` to `first + count - 1` are the asker's, for ever.
    ProducerIds {
        /// The first.
        first: u64,
        /// How many; perhaps not as many as asked for.
        count: u32,
    },
    /// The replicas are off the books.
    Settled {
        /// Replicas of the group that still retire.
        retiring: u32,
    },
    /// There is no such group.
    UnknownGroup {
        /// As given.
        group: GroupId,
    },
    /// The node has a new replica of the group, by this command or by its first copy.
    ReplicaReplaced {
        /// Its id.
        new: ReplicaId,
    },
    /// The node has no such replica, or so many of the group retire that no more can.
    ReplicaNotReplaced,
    /// The feature level is finalized, by this command or by an earlier one.
    LevelFinalized {
        /// The one that is; perhaps higher than asked for.
        level: FeatureLevel,
    },
    /// A member does not speak the level.
    LevelRefused {
        /// That one.
        node: NodeUuid,
    },
    /// The cluster's feature level is one that the node does not speak.
    LevelNotSpoken {
        /// The cluster's.
        level: FeatureLevel,
    },
    /// The command belongs to a level that is not finalized.
    LevelTooLow {
        /// The command's.
        needed: FeatureLevel,
    },
    /// There is no such node, or none any more.
    UnknownNode,
    /// The node's standing is as wanted.
    StandingSet,
    /// Without the node this group could not keep its number of replicas; that of the metadata
    /// stands for all: there is no other node.
    ReplicationNotKept {
        /// One of those; that of most replicas.
        group: GroupId,
    },
    /// The node is being removed; that is to be cancelled before.
    NodeIsRemoving,
    /// The group's replicas are where they shall be, or on their way.
    Placed,
    /// The group's replicas stay.
    NotPlaced {
        /// Why.
        fault: PlaceFault,
    },
    /// The node belongs to the cluster no more.
    NodeRemoved,
    /// The node can't leave yet, or shall not leave.
    NodeHoldsReplicas {
        /// Groups of which it has a replica; 0: it shall not leave.
        groups: u32,
    },
    /// The node was removed before. It must not come back with its old disk.
    NodeWasRemoved,
}

/// Why a cluster can't be made of some nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapFault {
    /// No node.
    NoMembers,
    /// More than the limit.
    TooManyMembers,
    /// Two nodes have one label.
    LabelTwice {
        /// This one.
        label: NodeLabel,
    },
    /// One node stands there twice.
    NodeTwice {
        /// This one.
        node: NodeUuid,
    },
    /// None, or more than the limit.
    Coordinators,
    /// There is no feature level that all members speak.
    Levels,
}

impl MetadataOutcome {
    /// The bytes that travel back.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(32);
        writer.u8(VERSION);
        writer.u8(self.kind());
        match *self {
            MetadataOutcome::Bootstrapped
            | MetadataOutcome::NotBootstrapped
            | MetadataOutcome::NodeAdded
            | MetadataOutcome::NodeUpdated
            | MetadataOutcome::TopicCreated
            | MetadataOutcome::TopicAltered
            | MetadataOutcome::SettingFixed
            | MetadataOutcome::TopicDeleted
            | MetadataOutcome::UnknownTopic
            | MetadataOutcome::ReplicaNotReplaced
            | MetadataOutcome::UnknownNode
            | MetadataOutcome::StandingSet
            | MetadataOutcome::NodeIsRemoving
            | MetadataOutcome::Placed
            | MetadataOutcome::NodeRemoved
            | MetadataOutcome::NodeWasRemoved => {}
            MetadataOutcome::AlreadyBootstrapped { cluster_id } => cluster_id.write(&mut writer),
            MetadataOutcome::InvalidBootstrap { fault } => fault.write(&mut writer),
            MetadataOutcome::NodeReplaced { old, replicas } => {
                old.write(&mut writer);
                writer.u32(replicas);
            }
            MetadataOutcome::LabelTaken { by } | MetadataOutcome::NodeWasReplaced { by } => {
                by.write(&mut writer);
            }
            MetadataOutcome::TooManyNodes { limit } | MetadataOutcome::TooManyGroups { limit } => {
                writer.u32(limit);
            }
            MetadataOutcome::TopicExists { id } => id.write(&mut writer),
            MetadataOutcome::InvalidReplication { wanted, nodes: most }
            | MetadataOutcome::InvalidPartitions { wanted, limit: most } => {
                writer.u32(wanted);
                writer.u32(most);
            }
            MetadataOutcome::ProducerIds { first, count } => {
                writer.u64(first);
                writer.u32(count);
            }
            MetadataOutcome::Settled { retiring } => writer.u32(retiring),
            MetadataOutcome::UnknownGroup { group }
            | MetadataOutcome::ReplicationNotKept { group } => group.write(&mut writer),
            MetadataOutcome::NotPlaced { fault } => fault.write(&mut writer),
            MetadataOutcome::NodeHoldsReplicas { groups } => writer.u32(groups),
            MetadataOutcome::ReplicaReplaced { new } => new.write(&mut writer),
            MetadataOutcome::LevelRefused { node } => node.write(&mut writer),
            MetadataOutcome::LevelFinalized { level }
            | MetadataOutcome::LevelNotSpoken { level }
            | MetadataOutcome::LevelTooLow { needed: level } => level.write(&mut writer),
        }
        writer.finish()
    }

    /// Reads what [`MetadataOutcome::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<MetadataOutcome, DecodeError> {
        let mut reader = Reader::new("metadata outcome", bytes);
        reader.version(VERSION)?;
        let kind = reader.u8()?;
        let outcome = MetadataOutcome::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(outcome)
    }

    fn kind(&self) -> u8 {
        match self {
            MetadataOutcome::Bootstrapped => 1,
            MetadataOutcome::AlreadyBootstrapped { .. } => 2,
            MetadataOutcome::InvalidBootstrap { .. } => 3,
            MetadataOutcome::NotBootstrapped => 4,
            MetadataOutcome::NodeAdded => 5,
            MetadataOutcome::NodeUpdated => 6,
            MetadataOutcome::NodeReplaced { .. } => 7,
            MetadataOutcome::LabelTaken { .. } => 8,
            MetadataOutcome::NodeWasReplaced { .. } => 9,
            MetadataOutcome::TooManyNodes { .. } => 10,
            MetadataOutcome::TopicCreated => 11,
            MetadataOutcome::TopicExists { .. } => 12,
            MetadataOutcome::InvalidReplication { .. } => 13,
            MetadataOutcome::InvalidPartitions { .. } => 14,
            MetadataOutcome::TooManyGroups { .. } => 15,
            MetadataOutcome::TopicAltered => 16,
            MetadataOutcome::SettingFixed => 17,
            MetadataOutcome::TopicDeleted => 18,
            MetadataOutcome::UnknownTopic => 19,
            MetadataOutcome::ProducerIds { .. } => 20,
            MetadataOutcome::Settled { .. } => 21,
            MetadataOutcome::UnknownGroup { .. } => 22,
            MetadataOutcome::ReplicaReplaced { .. } => 23,
            MetadataOutcome::ReplicaNotReplaced => 24,
            MetadataOutcome::LevelFinalized { .. } => 25,
            MetadataOutcome::LevelRefused { .. } => 26,
            MetadataOutcome::LevelNotSpoken { .. } => 27,
            MetadataOutcome::LevelTooLow { .. } => 28,
            MetadataOutcome::UnknownNode => 32,
            MetadataOutcome::StandingSet => 33,
            MetadataOutcome::ReplicationNotKept { .. } => 34,
            MetadataOutcome::NodeIsRemoving => 35,
            MetadataOutcome::Placed => 36,
            MetadataOutcome::NotPlaced { .. } => 37,
            MetadataOutcome::NodeRemoved => 38,
            MetadataOutcome::NodeHoldsReplicas { .. } => 39,
            MetadataOutcome::NodeWasRemoved => 40,
        }
    }

    fn read(kind: u8, reader: &mut Reader) -> Result<MetadataOutcome, DecodeError> {
        Ok(match kind {
            1 => MetadataOutcome::Bootstrapped,
            2 => MetadataOutcome::AlreadyBootstrapped { cluster_id: ClusterId::read(reader)? },
            3 => MetadataOutcome::InvalidBootstrap { fault: BootstrapFault::read(reader)? },
            4 => MetadataOutcome::NotBootstrapped,
            5 => MetadataOutcome::NodeAdded,
            6 => MetadataOutcome::NodeUpdated,
            7 => MetadataOutcome::NodeReplaced {
                old: NodeUuid::read(reader)?,
                replicas: reader.u32()?,
            },
            8 => MetadataOutcome::LabelTaken { by: NodeUuid::read(reader)? },
            9 => MetadataOutcome::NodeWasReplaced { by: NodeUuid::read(reader)? },
            10 => MetadataOutcome::TooManyNodes { limit: reader.u32()? },
            11 => MetadataOutcome::TopicCreated,
            12 => MetadataOutcome::TopicExists { id: TopicId::read(reader)? },
            13 => {
                MetadataOutcome::InvalidReplication { wanted: reader.u32()?, nodes: reader.u32()? }
            }
            14 => {
                MetadataOutcome::InvalidPartitions { wanted: reader.u32()?, limit: reader.u32()? }
            }
            15 => MetadataOutcome::TooManyGroups { limit: reader.u32()? },
            16 => MetadataOutcome::TopicAltered,
            17 => MetadataOutcome::SettingFixed,
            18 => MetadataOutcome::TopicDeleted,
            19 => MetadataOutcome::UnknownTopic,
            20 => MetadataOutcome::ProducerIds { first: reader.u64()?, count: reader.u32()? },
            21 => MetadataOutcome::Settled { retiring: reader.u32()? },
            22 => MetadataOutcome::UnknownGroup { group: GroupId::read(reader)? },
            23 => MetadataOutcome::ReplicaReplaced { new: ReplicaId::read(reader)? },
            24 => MetadataOutcome::ReplicaNotReplaced,
            25 => MetadataOutcome::LevelFinalized { level: FeatureLevel::read(reader)? },
            26 => MetadataOutcome::LevelRefused { node: NodeUuid::read(reader)? },
            27 => MetadataOutcome::LevelNotSpoken { level: FeatureLevel::read(reader)? },
            28 => MetadataOutcome::LevelTooLow { needed: FeatureLevel::read(reader)? },
            32 => MetadataOutcome::UnknownNode,
            33 => MetadataOutcome::StandingSet,
            34 => MetadataOutcome::ReplicationNotKept { group: GroupId::read(reader)? },
            35 => MetadataOutcome::NodeIsRemoving,
            36 => MetadataOutcome::Placed,
            37 => MetadataOutcome::NotPlaced { fault: PlaceFault::read(reader)? },
            38 => MetadataOutcome::NodeRemoved,
            39 => MetadataOutcome::NodeHoldsReplicas { groups: reader.u32()? },
            40 => MetadataOutcome::NodeWasRemoved,
            kind => return Err(reader.unknown_kind(kind)),
        })
    }
}

impl BootstrapFault {
    fn write(self, writer: &mut Writer) {
        match self {
            BootstrapFault::NoMembers => writer.u8(1),
            BootstrapFault::TooManyMembers => writer.u8(2),
            BootstrapFault::LabelTwice { label } => {
                writer.u8(3);
                label.write(writer);
            }
            BootstrapFault::NodeTwice { node } => {
                writer.u8(4);
                node.write(writer);
            }
            BootstrapFault::Coordinators => writer.u8(5),
            BootstrapFault::Levels => writer.u8(6),
        }
    }

    fn read(reader: &mut Reader) -> Result<BootstrapFault, DecodeError> {
        Ok(match reader.u8()? {
            1 => BootstrapFault::NoMembers,
            2 => BootstrapFault::TooManyMembers,
            3 => BootstrapFault::LabelTwice { label: NodeLabel::read(reader)? },
            4 => BootstrapFault::NodeTwice { node: NodeUuid::read(reader)? },
            5 => BootstrapFault::Coordinators,
            6 => BootstrapFault::Levels,
            kind => return Err(reader.unknown_kind(kind)),
        })
    }
}
