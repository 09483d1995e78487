//! Applying the commands about topics: making them, changing and deleting them, and taking
//! replicas that have retired off the books.

use std::collections::BTreeSet;

use super::TopicRecord;
use super::placement::{Placement, replication_factor};
use super::{CreateTopic, GroupKind, MetadataOutcome, MetadataState, NodeRecord, Standing};
use crate::ids::{GroupId, ReplicaId, TopicId, TopicName};
use crate::limits::{GROUPS_MAX, TOPIC_PARTITIONS_MAX};
use crate::topic_config::ConfigChange;

impl MetadataState {
    pub(super) fn create_topic(&mut self, create: &CreateTopic) -> MetadataOutcome {
        if let Some(topic) = self.topics.get(&create.name) {
            return if topic.id == create.id {
                MetadataOutcome::TopicCreated
            } else {
                MetadataOutcome::TopicExists { id: topic.id }
            };
        }
        let wanted = create.partitions;
        if !(1..=TOPIC_PARTITIONS_MAX).contains(&wanted) {
            return MetadataOutcome::InvalidPartitions { wanted, limit: TOPIC_PARTITIONS_MAX };
        }
        let takes = |(_, node): &(_, &NodeRecord)| node.standing != Standing::Removing;
        let nodes = self.members().filter(takes).count();
        let nodes = u32::try_from(nodes).expect("at most NODES_MAX nodes");
        let replicas = match replication_factor(create.replication_factor, nodes) {
            Ok(replicas) => replicas,
            Err(refused) => {
                let (wanted, nodes) = (refused.wanted, refused.nodes);
                return MetadataOutcome::InvalidReplication { wanted, nodes };
            }
        };
        let Some(partitions) = self.new_partition_ids(wanted) else {
            let limit = u32::try_from(GROUPS_MAX).expect("a small constant");
            return MetadataOutcome::TooManyGroups { limit };
        };
        let mut placement = Placement::new(self.loads());
        for (index, id) in (0..wanted).zip(&partitions) {
            let kind = GroupKind::Partition { topic: create.id, index };
            let group = self.new_group(kind, placement.place(replicas));
            self.groups.insert(*id, group);
        }
        let topic = TopicRecord {
            id: create.id,
            replication_factor: replicas,
            config: create.config.clone(),
            partitions,
            created_at: create.time,
        };
        self.topics.insert(create.name.clone(), topic);
        MetadataOutcome::TopicCreated
    }

    pub(super) fn alter_topic(
        &mut self,
        name: &TopicName,
        changes: &[ConfigChange],
    ) -> MetadataOutcome {
        match self.topics.get_mut(name).map(|topic| topic.config.alter(changes)) {
            None => MetadataOutcome::UnknownTopic,
            Some(Ok(())) => MetadataOutcome::TopicAltered,
            Some(Err(_)) => MetadataOutcome::SettingFixed,
        }
    }

    pub(super) fn delete_topic(&mut self, name: &TopicName, id: TopicId) -> MetadataOutcome {
        if self.topics.get(name).is_none_or(|topic| topic.id != id) {
            return MetadataOutcome::UnknownTopic;
        }
        let topic = self.topics.remove(name).expect("it was just there");
        for partition in topic.partitions {
            let group = self.groups.get_mut(&partition).expect("made with its topic");
            group.retiring.append(&mut group.replicas);
        }
        MetadataOutcome::TopicDeleted
    }

    pub(super) fn settle(&mut self, id: GroupId, gone: &[ReplicaId]) -> MetadataOutcome {
        let Some(group) = self.groups.get_mut(&id) else {
            return MetadataOutcome::UnknownGroup { group: id };
        };
        let mut nodes = BTreeSet::new();
        group.retiring.retain(|old| {
            let settled = gone.contains(&old.id);
            if settled {
                nodes.insert(old.node);
            }
            !settled
        });
        let retiring = u32::try_from(group.retiring.len()).expect("at most one per node");
        if group.is_deleted() && group.retiring.is_empty() {
            self.groups.remove(&id);
        }
        for node in nodes {
            self.forget_if_unused(node);
        }
        MetadataOutcome::Settled { retiring }
    }

    /// Ids for the partitions of a new topic; `None` where the cluster has too many groups.
    fn new_partition_ids(&mut self, count: u32) -> Option<Vec<GroupId>> {
        let groups = self.groups.len() + usize::try_from(count).ok()?;
        let end = self.group_next.0.checked_add(count)?;
        if groups > GROUPS_MAX {
            return None;
        }
        let ids = (self.group_next.0..end).map(GroupId).collect();
        self.group_next = GroupId(end);
        Some(ids)
    }
}
