//! What this disk must know of a group to open its replica again, before any metadata is there.

use bytes::Bytes;
use node_core::codec::{DecodeError, Reader, Writer};
use node_core::ids::{GroupId, NodeUuid, ReplicaId, TopicId, TopicName};
use node_core::topic_config::TopicConfig;

use crate::raft::ReplicaNode;
use crate::storage::manifest::HostedReplica;

const VERSION: u8 = 1;
const FOUNDERS_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 1_024;

/// One group hosted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hosted {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) kind: HostedKind,
    /// The group's first voters, if this replica is one of them: only founders may give a group
    /// its first members.
    pub(crate) founders: Vec<(ReplicaId, ReplicaNode)>,
    /// Index of the metadata log with which this replica came to be. An older state of the
    /// metadata says nothing about it.
    pub(crate) since: u64,
}

/// What the group is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostedKind {
    Metadata,
    Coordinator,
    Partition { topic: TopicName, topic_id: TopicId, number: u32, config: TopicConfig },
}

impl Hosted {
    pub(crate) fn to_manifest(&self) -> HostedReplica {
        let mut writer = Writer::default();
        self.replica.write(&mut writer);
        writer.u64(self.since);
        match &self.kind {
            HostedKind::Metadata => writer.u8(1),
            HostedKind::Coordinator => writer.u8(2),
            HostedKind::Partition { topic, topic_id, number, config } => {
                writer.u8(3);
                topic.write(&mut writer);
                topic_id.write(&mut writer);
                writer.u32(*number);
                config.write(&mut writer);
            }
        }
        writer.list(&self.founders, FOUNDERS_MAX, |writer, (replica, node)| {
            replica.write(writer);
            NodeUuid(node.uuid).write(writer);
            writer.bytes(node.address.as_bytes());
        });
        HostedReplica { group: self.group, version: VERSION, body: writer.finish() }
    }

    pub(crate) fn of_manifest(record: &HostedReplica) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("hosted replica", record.body.clone());
        if record.version != VERSION {
            return Err(reader.invalid("its version is not known"));
        }
        let replica = ReplicaId::read(&mut reader)?;
        let since = reader.u64()?;
        let kind = match reader.u8()? {
            1 => HostedKind::Metadata,
            2 => HostedKind::Coordinator,
            3 => HostedKind::Partition {
                topic: TopicName::read(&mut reader)?,
                topic_id: TopicId::read(&mut reader)?,
                number: reader.u32()?,
                config: TopicConfig::read(&mut reader)?,
            },
            kind => return Err(reader.unknown_kind(kind)),
        };
        let founders = reader.list(FOUNDERS_MAX, 28, |reader| {
            let replica = ReplicaId::read(reader)?;
            let uuid = NodeUuid::read(reader)?.0;
            let address = text(reader)?;
            Ok((replica, ReplicaNode { uuid, address }))
        })?;
        reader.finish()?;
        Ok(Self { group: record.group, replica, kind, founders, since })
    }
}

fn text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes: Bytes = reader.bytes(ADDRESS_BYTES_MAX)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.invalid("an address is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_the_manifest() {
        let node = ReplicaNode { uuid: uuid::Uuid::from_u128(5), address: "a:1".to_owned() };
        let hosted = Hosted {
            group: GroupId(1_000),
            replica: ReplicaId(7),
            kind: HostedKind::Partition {
                topic: "flights".parse().expect("a name"),
                topic_id: TopicId(uuid::Uuid::from_u128(9)),
                number: 3,
                config: TopicConfig::default(),
            },
            founders: vec![(ReplicaId(7), node)],
            since: 12,
        };
        assert_eq!(Hosted::of_manifest(&hosted.to_manifest()), Ok(hosted));
    }
}
