//! Topics that were deleted and made again under their names: what groups had committed in the
//! first must not be where they begin in the second. Pure.
//!
//! Group offsets name a topic, not its id, so a name that is there again before anybody looked
//! shows nothing. Each node therefore remembers the ids that it has seen; where one changed, what
//! was committed until then is stale, until it is gone from the table. Every replica remembers,
//! since any of them may lead when it is to be forgotten; a node that was not running can't.

use std::collections::BTreeMap;

use node_core::groups::GroupTable;
use node_core::ids::{GroupId, TopicId, TopicName};
use node_core::metadata::MetadataState;
use node_core::time::EntryTime;

/// What a node remembers of topics' ids.
#[derive(Debug, Default)]
pub(in crate::member) struct Recreated {
    ids: BTreeMap<TopicName, TopicId>,
    /// The newest commit that is of an earlier topic, by coordinator and topic.
    stale: BTreeMap<(GroupId, TopicName), EntryTime>,
}

impl Recreated {
    /// Takes note of the topics there are. `newest` answers each coordinator whose table has
    /// offsets of a topic, with the time of the newest.
    pub(super) fn note(
        &mut self,
        metadata: &MetadataState,
        newest: impl Fn(&TopicName) -> Vec<(GroupId, EntryTime)>,
    ) {
        for (name, topic) in metadata.topics() {
            let before = self.ids.insert(name.clone(), topic.id);
            if before.is_none_or(|before| before == topic.id) {
                continue;
            }
            for (coordinator, time) in newest(name) {
                self.stale.insert((coordinator, name.clone()), time);
            }
        }
        // A deleted name is remembered for as long as there is something that could be taken for
        // its successor's.
        let known = |name: &TopicName| metadata.topics().contains_key(name);
        self.ids.retain(|name, _| known(name) || !newest(name).is_empty());
    }

    /// The topics of which a coordinator's table still has stale offsets.
    pub(super) fn stale_in(&mut self, coordinator: GroupId, table: &GroupTable) -> Vec<TopicName> {
        let mut stale = Vec::new();
        self.stale.retain(|(group, name), until| {
            if *group != coordinator {
                return true;
            }
            let is_stale = commits_of(table, name).any(|committed| committed <= *until);
            if is_stale {
                stale.push(name.clone());
            }
            is_stale
        });
        stale
    }
}

/// When each offset of a topic was committed.
pub(super) fn commits_of<'a>(
    table: &'a GroupTable,
    topic: &'a TopicName,
) -> impl Iterator<Item = EntryTime> + 'a {
    let groups = table.group_names().filter_map(|group| table.offsets(group));
    let of_topic =
        groups.flat_map(move |offsets| offsets.iter().filter(move |((name, _), _)| name == topic));
    of_topic.map(|(_, offset)| offset.committed_at)
}

#[cfg(test)]
mod tests {
    use node_core::groups::{CommitOffsets, GroupCommand, OffsetCommit};
    use node_core::ids::{ClusterId, NodeLabel, NodeUuid};
    use node_core::metadata::{Bootstrap, CreateTopic, MetadataCommand, NodeSpec};
    use node_core::position::RaftPosition;
    use node_core::topic_config::TopicConfig;
    use uuid::Uuid;

    use super::*;

    const COORDINATOR: GroupId = GroupId(2);

    fn apply(metadata: &mut MetadataState, command: &MetadataCommand) {
        let index = metadata.applied().map_or(0, |applied| applied.index + 1);
        metadata.apply(RaftPosition { term: 1, index }, command);
    }

    fn cluster() -> MetadataState {
        let mut metadata = MetadataState::default();
        let node = NodeSpec {
            uuid: NodeUuid(Uuid::from_u128(1)),
            label: NodeLabel(1),
            address: "127.0.0.1:1".parse().expect("an address"),
            version: "0.1.0".parse().expect("a version"),
        };
        let (cluster_id, members) = (ClusterId(Uuid::from_u128(7)), vec![node]);
        let bootstrap = Bootstrap { cluster_id, members, coordinators: 1 };
        apply(&mut metadata, &MetadataCommand::Bootstrap(bootstrap));
        metadata
    }

    fn name() -> TopicName {
        "orders".parse().expect("a name")
    }

    fn make(metadata: &mut MetadataState, id: u128) {
        let create = CreateTopic {
            name: name(),
            id: TopicId(Uuid::from_u128(id)),
            partitions: 1,
            replication_factor: 1,
            config: TopicConfig::default(),
            time: EntryTime::from_ms(1),
        };
        apply(metadata, &MetadataCommand::CreateTopic(create));
    }

    fn delete(metadata: &mut MetadataState, id: u128) {
        let id = TopicId(Uuid::from_u128(id));
        apply(metadata, &MetadataCommand::DeleteTopic { name: name(), id });
    }

    fn change(table: &mut GroupTable, command: &GroupCommand) {
        let index = table.applied().map_or(0, |applied| applied.index + 1);
        table.apply(RaftPosition { term: 1, index }, command);
    }

    fn commit(table: &mut GroupTable, ms: u64) {
        let offset = OffsetCommit { topic: name(), partition: 0, offset: ms, metadata: None };
        let commit = CommitOffsets {
            group: "billing".parse().expect("a name"),
            offsets: vec![offset],
            committer: None,
            reset: true,
            time: EntryTime::from_ms(ms),
        };
        change(table, &GroupCommand::Commit(commit));
    }

    fn note(recreated: &mut Recreated, metadata: &MetadataState, table: &GroupTable) {
        recreated.note(metadata, |topic| {
            let newest = commits_of(table, topic).max();
            newest.into_iter().map(|newest| (COORDINATOR, newest)).collect()
        });
    }

    #[test]
    fn offsets_of_a_topic_made_again_between_two_looks_are_stale_until_they_are_gone() {
        let (mut metadata, mut table) = (cluster(), GroupTable::default());
        let mut recreated = Recreated::default();
        make(&mut metadata, 1);
        commit(&mut table, 100);
        note(&mut recreated, &metadata, &table);
        assert!(recreated.stale_in(COORDINATOR, &table).is_empty());

        delete(&mut metadata, 1);
        make(&mut metadata, 2);
        note(&mut recreated, &metadata, &table);
        assert_eq!(recreated.stale_in(COORDINATOR, &table), [name()]);
        assert_eq!(recreated.stale_in(COORDINATOR, &table), [name()], "whoever leads by then");
        assert!(recreated.stale_in(GroupId(3), &table).is_empty());

        change(&mut table, &GroupCommand::ForgetTopic { topic: name() });
        commit(&mut table, 101);
        assert!(recreated.stale_in(COORDINATOR, &table).is_empty());
        note(&mut recreated, &metadata, &table);
        assert!(recreated.stale_in(COORDINATOR, &table).is_empty());
    }

    #[test]
    fn a_name_that_was_gone_in_between_is_not_taken_for_the_same_topic() {
        let (mut metadata, mut table) = (cluster(), GroupTable::default());
        let mut recreated = Recreated::default();
        make(&mut metadata, 1);
        commit(&mut table, 100);
        note(&mut recreated, &metadata, &table);
        delete(&mut metadata, 1);
        note(&mut recreated, &metadata, &table);
        make(&mut metadata, 2);
        note(&mut recreated, &metadata, &table);
        assert_eq!(recreated.stale_in(COORDINATOR, &table), [name()]);

        // Once nothing is left of it, nothing is remembered.
        change(&mut table, &GroupCommand::ForgetTopic { topic: name() });
        delete(&mut metadata, 2);
        note(&mut recreated, &metadata, &table);
        assert!(recreated.ids.is_empty());
    }
}
