//! What is replicated in the metadata group's log, and its bytes; see `docs/formats/commands.md`.

use bytes::Bytes;

use super::{PlaceGroup, Standing};
use crate::codec::{DecodeError, Reader, Writer};
use crate::features::FeatureLevel;
use crate::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName, ReplicaId,
    TopicId, TopicName,
};
use crate::limits::{CONFIG_CHANGES_MAX, GROUP_REPLICAS_MAX, NODES_MAX};
use crate::time::EntryTime;
use crate::topic_config::{ConfigChange, TopicConfig};

const VERSION: u8 = 1;
const KIND_BOOTSTRAP: u8 = 1;
const KIND_REGISTER_NODE: u8 = 2;
const KIND_CREATE_TOPIC: u8 = 3;
const KIND_ALTER_TOPIC: u8 = 4;
const KIND_DELETE_TOPIC: u8 = 5;
const KIND_ALLOCATE_PRODUCER_IDS: u8 = 6;
const KIND_REPLICAS_SETTLED: u8 = 7;
const KIND_REPLACE_REPLICA: u8 = 8;
const KIND_FINALIZE_LEVEL: u8 = 9;
// What moves nodes and replicas is together; 10 to 15 were never given out.
const KIND_SET_STANDING: u8 = 16;
const KIND_PLACE_GROUP: u8 = 17;
const KIND_REMOVE_NODE: u8 = 18;
const KIND_SET_RACK: u8 = 19;

/// A command of the metadata group. Each may be proposed again after an unknown outcome: the
/// second time changes nothing (but another block of producer ids is given out).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataCommand {
    /// Makes the cluster. Once.
    Bootstrap(Bootstrap),
    /// A node says who it is and where, at each of its starts.
    RegisterNode(RegisterNode),
    /// Makes a topic and places its partitions.
    CreateTopic(CreateTopic),
    /// Changes settings of a topic, all or none.
    AlterTopic {
        /// Which.
        name: TopicName,
        /// At most [`CONFIG_CHANGES_MAX`]; those not named stay.
        changes: Vec<ConfigChange>,
    },
    /// Deletes a topic with all its records.
    DeleteTopic {
        /// Which.
        name: TopicName,
        /// Only if it still is this one, and not a later topic of the same name.
        id: TopicId,
    },
    /// Gives out a block of producer ids.
    AllocateProducerIds {
        /// How many; at least 1 are given, and no more than the limit.
        count: u32,
    },
    /// Retiring replicas have left their Raft group and their disk, or both are lost.
    ReplicasSettled {
        /// Whose.
        group: GroupId,
        /// Which; those that are not retiring are passed over.
        gone: Vec<ReplicaId>,
    },
    /// What a node has on its disk of one replica can't be trusted: it gets a new one there.
    ReplaceReplica {
        /// Whose.
        group: GroupId,
        /// Which.
        lost: ReplicaId,
        /// Where it is.
        node: NodeUuid,
    },
    /// Drains a node, has it removed, or takes either back.
    SetStanding {
        /// Which.
        node: NodeUuid,
        /// Not [`Standing::Removed`]: that is the end of a removal.
        standing: Standing,
    },
    /// Moves replicas of a group.
    PlaceGroup(PlaceGroup),
    /// A node that shall be removed holds nothing any more: it leaves.
    RemoveNode {
        /// Which.
        node: NodeUuid,
    },
    /// A node says in which rack it stands.
    SetRack {
        /// Which.
        node: NodeUuid,
        /// `None`: in none that it was told of.
        rack: Option<RackName>,
    },
    /// Raises the finalized feature level. Proposed only when every member speaks it.
    FinalizeLevel {
        /// To this.
        level: FeatureLevel,
    },
}

/// See [`MetadataCommand::Bootstrap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The new cluster's identity.
    pub cluster_id: ClusterId,
    /// The nodes that make it. The replica ids of the metadata group are their places, from 1;
    /// the first five are its voters.
    pub members: Vec<NodeSpec>,
    /// Coordinator groups the cluster will have, for ever.
    pub coordinators: u32,
}

/// See [`MetadataCommand::RegisterNode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterNode {
    /// The node.
    pub node: NodeSpec,
    /// The node that has the label now is dead and its disk lost: take its place.
    pub replaces_dead: bool,
}

/// See [`MetadataCommand::CreateTopic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: TopicName,
    /// Its identity, made anew by the proposer: tells a retry from a second topic.
    pub id: TopicId,
    /// How many.
    pub partitions: u32,
    /// Replicas of each partition: 1, 3 or 5; 0 for 3 where there are so many nodes, else 1.
    pub replication_factor: u32,
    /// Its settings.
    pub config: TopicConfig,
    /// When the leader proposed it.
    pub time: EntryTime,
}

/// A node as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Identity; in its data directory.
    pub uuid: NodeUuid,
    /// What people call it.
    pub label: NodeLabel,
    /// Where the others reach it.
    pub address: NodeAddress,
    /// The build it runs.
    pub version: NodeVersion,
}

impl MetadataCommand {
    /// The first level whose builds know this command. It is proposed only where every member is
    /// of such a build: [`MetadataState::admits`](super::MetadataState::admits).
    #[must_use]
    pub fn known_since(&self) -> FeatureLevel {
        match self {
            MetadataCommand::Bootstrap(_)
            | MetadataCommand::RegisterNode(_)
            | MetadataCommand::CreateTopic(_)
            | MetadataCommand::AlterTopic { .. }
            | MetadataCommand::DeleteTopic { .. }
            | MetadataCommand::AllocateProducerIds { .. }
            | MetadataCommand::ReplicasSettled { .. }
            | MetadataCommand::ReplaceReplica { .. } => FeatureLevel::FIRST,
            MetadataCommand::SetStanding { .. }
            | MetadataCommand::PlaceGroup(_)
            | MetadataCommand::RemoveNode { .. }
            | MetadataCommand::SetRack { .. }
            | MetadataCommand::FinalizeLevel { .. } => FeatureLevel::MEMBERSHIP,
        }
    }

    /// The payload of the Raft entry.
    ///
    /// # Panics
    /// Over [`NODES_MAX`] members, [`CONFIG_CHANGES_MAX`] changes or [`GROUP_REPLICAS_MAX`]
    /// replicas: no replica could read it again.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        match self {
            MetadataCommand::Bootstrap(bootstrap) => {
                writer.u8(KIND_BOOTSTRAP);
                bootstrap.write(&mut writer);
            }
            MetadataCommand::RegisterNode(register) => {
                writer.u8(KIND_REGISTER_NODE);
                register.node.write(&mut writer);
                writer.bool(register.replaces_dead);
            }
            MetadataCommand::CreateTopic(create) => {
                writer.u8(KIND_CREATE_TOPIC);
                create.write(&mut writer);
            }
            MetadataCommand::AlterTopic { name, changes } => {
                writer.u8(KIND_ALTER_TOPIC);
                name.write(&mut writer);
                writer.list(changes, CONFIG_CHANGES_MAX, |writer, change| change.write(writer));
            }
            MetadataCommand::DeleteTopic { name, id } => {
                writer.u8(KIND_DELETE_TOPIC);
                name.write(&mut writer);
                id.write(&mut writer);
            }
            MetadataCommand::AllocateProducerIds { count } => {
                writer.u8(KIND_ALLOCATE_PRODUCER_IDS);
                writer.u32(*count);
            }
            MetadataCommand::ReplicasSettled { group, gone } => {
                writer.u8(KIND_REPLICAS_SETTLED);
                group.write(&mut writer);
                writer.list(gone, GROUP_REPLICAS_MAX, |writer, replica| replica.write(writer));
            }
            MetadataCommand::ReplaceReplica { group, lost, node } => {
                writer.u8(KIND_REPLACE_REPLICA);
                group.write(&mut writer);
                lost.write(&mut writer);
                node.write(&mut writer);
            }
            MetadataCommand::SetStanding { node, standing } => {
                writer.u8(KIND_SET_STANDING);
                node.write(&mut writer);
                standing.write(&mut writer);
            }
            MetadataCommand::PlaceGroup(place) => {
                writer.u8(KIND_PLACE_GROUP);
                place.write(&mut writer);
            }
            MetadataCommand::RemoveNode { node } => {
                writer.u8(KIND_REMOVE_NODE);
                node.write(&mut writer);
            }
            MetadataCommand::SetRack { node, rack } => {
                writer.u8(KIND_SET_RACK);
                node.write(&mut writer);
                writer.option(rack.as_ref(), |writer, rack| rack.write(writer));
            }
            MetadataCommand::FinalizeLevel { level } => {
                writer.u8(KIND_FINALIZE_LEVEL);
                level.write(&mut writer);
            }
        }
        writer.finish()
    }

    /// Reads a payload. Where the error [needs a newer build](DecodeError::needs_newer_build), the
    /// replica must stop, not skip.
    pub fn decode(payload: Bytes) -> Result<MetadataCommand, DecodeError> {
        let mut reader = Reader::new("metadata command", payload);
        reader.version(VERSION)?;
        let kind = reader.u8()?;
        let command = MetadataCommand::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(command)
    }

    fn read(kind: u8, reader: &mut Reader) -> Result<MetadataCommand, DecodeError> {
        Ok(match kind {
            KIND_BOOTSTRAP => MetadataCommand::Bootstrap(Bootstrap::read(reader)?),
            KIND_REGISTER_NODE => MetadataCommand::RegisterNode(RegisterNode {
                node: NodeSpec::read(reader)?,
                replaces_dead: reader.bool()?,
            }),
            KIND_CREATE_TOPIC => MetadataCommand::CreateTopic(CreateTopic::read(reader)?),
            KIND_ALTER_TOPIC => MetadataCommand::AlterTopic {
                name: TopicName::read(reader)?,
                changes: reader.list(CONFIG_CHANGES_MAX, 10, ConfigChange::read)?,
            },
            KIND_DELETE_TOPIC => MetadataCommand::DeleteTopic {
                name: TopicName::read(reader)?,
                id: TopicId::read(reader)?,
            },
            KIND_ALLOCATE_PRODUCER_IDS => {
                MetadataCommand::AllocateProducerIds { count: reader.u32()? }
            }
            KIND_REPLICAS_SETTLED => MetadataCommand::ReplicasSettled {
                group: GroupId::read(reader)?,
                gone: reader.list(GROUP_REPLICAS_MAX, 8, ReplicaId::read)?,
            },
            KIND_REPLACE_REPLICA => MetadataCommand::ReplaceReplica {
                group: GroupId::read(reader)?,
                lost: ReplicaId::read(reader)?,
                node: NodeUuid::read(reader)?,
            },
            KIND_SET_STANDING => MetadataCommand::SetStanding {
                node: NodeUuid::read(reader)?,
                standing: Standing::read(reader)?,
            },
            KIND_PLACE_GROUP => MetadataCommand::PlaceGroup(PlaceGroup::read(reader)?),
            KIND_REMOVE_NODE => MetadataCommand::RemoveNode { node: NodeUuid::read(reader)? },
            KIND_SET_RACK => MetadataCommand::SetRack {
                node: NodeUuid::read(reader)?,
                rack: reader.option(RackName::read)?,
            },
            KIND_FINALIZE_LEVEL => {
                MetadataCommand::FinalizeLevel { level: FeatureLevel::read(reader)? }
            }
            kind => return Err(reader.unknown_kind(kind)),
        })
    }
}

impl PlaceGroup {
    fn write(&self, writer: &mut Writer) {
        self.group.write(writer);
        for nodes in [&self.expected, &self.nodes] {
            writer.list(nodes, GROUP_REPLICAS_MAX, |writer, node| node.write(writer));
        }
        writer.option(self.removal_of, |writer, node| node.write(writer));
    }

    fn read(reader: &mut Reader) -> Result<PlaceGroup, DecodeError> {
        Ok(PlaceGroup {
            group: GroupId::read(reader)?,
            expected: reader.list(GROUP_REPLICAS_MAX, 16, NodeUuid::read)?,
            nodes: reader.list(GROUP_REPLICAS_MAX, 16, NodeUuid::read)?,
            removal_of: reader.option(NodeUuid::read)?,
        })
    }
}

impl Bootstrap {
    fn write(&self, writer: &mut Writer) {
        self.cluster_id.write(writer);
        writer.list(&self.members, NODES_MAX, |writer, member| member.write(writer));
        writer.u32(self.coordinators);
    }

    fn read(reader: &mut Reader) -> Result<Bootstrap, DecodeError> {
        Ok(Bootstrap {
            cluster_id: ClusterId::read(reader)?,
            members: reader.list(NODES_MAX, 34, NodeSpec::read)?,
            coordinators: reader.u32()?,
        })
    }
}

impl CreateTopic {
    fn write(&self, writer: &mut Writer) {
        self.name.write(writer);
        self.id.write(writer);
        writer.u32(self.partitions);
        writer.u32(self.replication_factor);
        self.config.write(writer);
        writer.u64(self.time.0);
    }

    fn read(reader: &mut Reader) -> Result<CreateTopic, DecodeError> {
        Ok(CreateTopic {
            name: TopicName::read(reader)?,
            id: TopicId::read(reader)?,
            partitions: reader.u32()?,
            replication_factor: reader.u32()?,
            config: TopicConfig::read(reader)?,
            time: EntryTime(reader.u64()?),
        })
    }
}

impl NodeSpec {
    fn write(&self, writer: &mut Writer) {
        self.uuid.write(writer);
        self.label.write(writer);
        self.address.write(writer);
        self.version.write(writer);
    }

    fn read(reader: &mut Reader) -> Result<NodeSpec, DecodeError> {
        Ok(NodeSpec {
            uuid: NodeUuid::read(reader)?,
            label: NodeLabel::read(reader)?,
            address: NodeAddress::read(reader)?,
            version: NodeVersion::read(reader)?,
        })
    }
}
