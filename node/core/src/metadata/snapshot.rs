//! The bytes of the metadata group's whole state; see `docs/formats/checkpoints.md`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{GroupKind, GroupRecord, MetadataState, NodeRecord, Replica, Standing, TopicRecord};
use crate::codec::{DecodeError, Reader, Writer};
use crate::features::FeatureLevel;
use crate::ids::{
    ClusterId, GroupId, NodeAddress, NodeLabel, NodeUuid, NodeVersion, RackName, ReplicaId,
    TopicId, TopicName,
};
use crate::limits::{
    GROUP_REPLICAS_MAX, GROUPS_MAX, NODE_RECORDS_MAX, OFFSET_MAX, REMOVED_NODES_MAX,
    TOPIC_PARTITIONS_MAX,
};
use crate::partition::Membership;
use crate::position::RaftPosition;
use crate::time::EntryTime;
use crate::topic_config::TopicConfig;

/// As quipu 0.1 wrote it.
const VERSION_FIRST: u8 = 1;
/// With the feature level; with the standings and racks of nodes, and the nodes that were removed.
const VERSION_LEVELS: u8 = 2;

const KIND_METADATA: u8 = 1;
const KIND_COORDINATOR: u8 = 2;
const KIND_PARTITION: u8 = 3;

impl MetadataState {
    /// The whole state in one buffer; the same bytes on every replica.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        let mut writer = Writer::default();
        // Below the level that brings it, the bytes are those of the builds that don't know it:
        // no command that makes a standing or a rack is admitted there.
        let has_level = self.level > FeatureLevel::FIRST;
        writer.u8(if has_level { VERSION_LEVELS } else { VERSION_FIRST });
        if has_level {
            self.level.write(&mut writer);
        }
        RaftPosition::write_option(self.applied, &mut writer);
        Membership::write_option(self.membership.as_ref(), &mut writer);
        writer.option(self.cluster_id, |writer, id| id.write(writer));
        writer.u32(self.coordinators);
        self.group_next.write(&mut writer);
        self.replica_next.write(&mut writer);
        writer.u64(self.producer_next);
        writer.count(self.nodes.len());
        for (uuid, node) in &self.nodes {
            uuid.write(&mut writer);
            node.write(&mut writer);
        }
        writer.count(self.topics.len());
        for (name, topic) in &self.topics {
            name.write(&mut writer);
            topic.write(&mut writer);
        }
        writer.count(self.groups.len());
        for (id, group) in &self.groups {
            id.write(&mut writer);
            group.write(&mut writer);
        }
        if has_level {
            self.write_membership(&mut writer);
        }
        writer.finish_with_checksum()
    }

    /// Reads what [`MetadataState::encode_snapshot`] wrote.
    pub fn decode_snapshot(bytes: Bytes) -> Result<MetadataState, DecodeError> {
        let version = bytes.first().copied().filter(|version| *version == VERSION_FIRST);
        let version = version.unwrap_or(VERSION_LEVELS);
        let mut reader = Reader::with_checksum("metadata snapshot", version, bytes)?;
        let level = match version {
            VERSION_FIRST => FeatureLevel::FIRST,
            _ => FeatureLevel::read(&mut reader)?,
        };
        let mut state = MetadataState {
            level,
            applied: RaftPosition::read_option(&mut reader)?,
            membership: Membership::read_option(&mut reader)?,
            cluster_id: reader.option(ClusterId::read)?,
            coordinators: reader.u32()?,
            group_next: GroupId::read(&mut reader)?,
            replica_next: ReplicaId::read(&mut reader)?,
            producer_next: reader.u64()?,
            ..MetadataState::default()
        };
        state.nodes = read_map(&mut reader, NODE_RECORDS_MAX, NodeUuid::read, NodeRecord::read)?;
        state.topics = read_map(&mut reader, GROUPS_MAX, TopicName::read, TopicRecord::read)?;
        state.groups = read_map(&mut reader, GROUPS_MAX, GroupId::read, GroupRecord::read)?;
        if version >= VERSION_LEVELS {
            state.read_membership(&mut reader)?;
        }
        state.check(&reader)?;
        reader.finish()?;
        Ok(state)
    }

    fn write_membership(&self, writer: &mut Writer) {
        for node in self.nodes.values() {
            node.standing.write(writer);
            writer.option(node.rack.as_ref(), |writer, rack| rack.write(writer));
        }
        writer.list(&self.removed, REMOVED_NODES_MAX, |writer, node| node.write(writer));
    }

    fn read_membership(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        for node in self.nodes.values_mut() {
            node.standing = Standing::read(reader)?;
            node.rack = reader.option(RackName::read)?;
        }
        self.removed = reader.list(REMOVED_NODES_MAX, 16, NodeUuid::read)?;
        Ok(())
    }

    /// What apply relies on.
    fn check(&self, reader: &Reader) -> Result<(), DecodeError> {
        if self.cluster_id.is_none() && self.level > FeatureLevel::FIRST {
            return Err(reader.invalid("a feature level without a cluster"));
        }
        if self.replica_next.0 > OFFSET_MAX || self.producer_next > OFFSET_MAX {
            return Err(reader.invalid("a counter is out of range"));
        }
        if self.cluster_id.is_some() != self.groups.contains_key(&GroupId::METADATA) {
            return Err(reader.invalid("a cluster without metadata group, or the reverse"));
        }
        let mut partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        if !partitions.all(|partition| self.groups.contains_key(partition)) {
            return Err(reader.invalid("a topic's partition is missing"));
        }
        if self.groups.keys().next_back().is_some_and(|last| *last >= self.group_next) {
            return Err(reader.invalid("a group was never given out"));
        }
        let metadata = self.groups.get(&GroupId::METADATA);
        let on_metadata: BTreeSet<NodeUuid> =
            metadata.iter().flat_map(|group| &group.replicas).map(|replica| replica.node).collect();
        if !self.members().all(|(member, _)| on_metadata.contains(&member)) {
            return Err(reader.invalid("a member has no replica of the metadata group"));
        }
        let mut ids = BTreeSet::new();
        for group in self.groups.values() {
            for replica in group.replicas.iter().chain(&group.retiring) {
                if replica.id >= self.replica_next || !ids.insert(replica.id) {
                    return Err(reader.invalid("a replica id was never given out, or twice"));
                }
                if !self.nodes.contains_key(&replica.node) {
                    return Err(reader.invalid("a replica is on no node"));
                }
            }
        }
        Ok(())
    }
}

fn read_map<K: Ord, V>(
    reader: &mut Reader,
    limit: usize,
    key: fn(&mut Reader) -> Result<K, DecodeError>,
    value: fn(&mut Reader) -> Result<V, DecodeError>,
) -> Result<BTreeMap<K, V>, DecodeError> {
    let mut map = BTreeMap::new();
    for _ in 0..reader.count(limit, 4)? {
        if map.insert(key(reader)?, value(reader)?).is_some() {
            return Err(reader.invalid("a key stands there twice"));
        }
    }
    Ok(map)
}

impl NodeRecord {
    fn write(&self, writer: &mut Writer) {
        self.label.write(writer);
        self.address.write(writer);
        self.version.write(writer);
        writer.option(self.replaced_by, |writer, by| by.write(writer));
    }

    fn read(reader: &mut Reader) -> Result<NodeRecord, DecodeError> {
        Ok(NodeRecord {
            label: NodeLabel::read(reader)?,
            address: NodeAddress::read(reader)?,
            version: NodeVersion::read(reader)?,
            replaced_by: reader.option(NodeUuid::read)?,
            standing: Standing::Active,
            rack: None,
        })
    }
}

impl TopicRecord {
    fn write(&self, writer: &mut Writer) {
        self.id.write(writer);
        writer.u32(self.replication_factor);
        self.config.write(writer);
        writer.u64(self.created_at.0);
        writer.list(&self.partitions, partitions_max(), |writer, group| group.write(writer));
    }

    fn read(reader: &mut Reader) -> Result<TopicRecord, DecodeError> {
        Ok(TopicRecord {
            id: TopicId::read(reader)?,
            replication_factor: reader.u32()?,
            config: TopicConfig::read(reader)?,
            created_at: EntryTime(reader.u64()?),
            partitions: reader.list(partitions_max(), 4, GroupId::read)?,
        })
    }
}

impl GroupRecord {
    fn write(&self, writer: &mut Writer) {
        match self.kind {
            GroupKind::Metadata => writer.u8(KIND_METADATA),
            GroupKind::Coordinator => writer.u8(KIND_COORDINATOR),
            GroupKind::Partition { topic, index } => {
                writer.u8(KIND_PARTITION);
                topic.write(writer);
                writer.u32(index);
            }
        }
        writer.list(&self.replicas, GROUP_REPLICAS_MAX, Replica::write);
        writer.list(&self.founders, GROUP_REPLICAS_MAX, |writer, id| id.write(writer));
        writer.list(&self.retiring, GROUP_REPLICAS_MAX, Replica::write);
    }

    fn read(reader: &mut Reader) -> Result<GroupRecord, DecodeError> {
        let kind = match reader.u8()? {
            KIND_METADATA => GroupKind::Metadata,
            KIND_COORDINATOR => GroupKind::Coordinator,
            KIND_PARTITION => {
                GroupKind::Partition { topic: TopicId::read(reader)?, index: reader.u32()? }
            }
            kind => return Err(reader.unknown_kind(kind)),
        };
        Ok(GroupRecord {
            kind,
            replicas: reader.list(GROUP_REPLICAS_MAX, 25, Replica::read)?,
            founders: reader.list(GROUP_REPLICAS_MAX, 8, ReplicaId::read)?,
            retiring: reader.list(GROUP_REPLICAS_MAX, 25, Replica::read)?,
        })
    }
}

impl Replica {
    fn write(writer: &mut Writer, replica: &Replica) {
        replica.id.write(writer);
        replica.node.write(writer);
        writer.bool(replica.voter);
    }

    fn read(reader: &mut Reader) -> Result<Replica, DecodeError> {
        Ok(Replica {
            id: ReplicaId::read(reader)?,
            node: NodeUuid::read(reader)?,
            voter: reader.bool()?,
        })
    }
}

fn partitions_max() -> usize {
    usize::try_from(TOPIC_PARTITIONS_MAX).expect("a small constant")
}
