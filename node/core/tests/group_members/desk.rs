//! A coordinator as its leader keeps it: judges heartbeats first, logs those that change
//! something, and answers from the table.

use std::collections::{BTreeMap, BTreeSet};

use node_core::groups::{
    CommitOffsets, Committer, ExpireMembers, GroupCommand, GroupOutcome, GroupTable, Hearing,
    Heartbeat, LeaveGroup, MemberProfile, OffsetCommit, Roster, TopicFact, TopicNews,
    TopicPartitions,
};
use node_core::ids::{Generation, GroupName, InstanceId, MemberId, TopicId, TopicName};
use node_core::position::RaftPosition;
use node_core::time::EntryTime;
use uuid::Uuid;

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

pub(crate) fn group() -> GroupName {
    GroupName::new("billing").unwrap()
}

pub(crate) fn member(id: &str) -> MemberId {
    MemberId::new(id).unwrap()
}

pub(crate) fn profile(topics: &[&str]) -> MemberProfile {
    MemberProfile {
        instance: None,
        client: "test".to_owned(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        topics: topics.iter().map(|name| topic(name)).collect(),
    }
}

pub(crate) fn with_instance(instance: &str, topics: &[&str]) -> MemberProfile {
    let instance = Some(InstanceId::new(instance).unwrap());
    MemberProfile { instance, ..profile(topics) }
}

pub(crate) fn partitions(topic_name: &str, numbers: &[u32]) -> TopicPartitions {
    match numbers {
        [] => TopicPartitions::new(),
        numbers => [(topic(topic_name), numbers.iter().copied().collect())].into(),
    }
}

/// What a member is told.
pub(crate) type Told = (Generation, TopicPartitions);

#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) table: GroupTable,
    /// Topics as the metadata has them: identity and partitions.
    pub(crate) topics: BTreeMap<TopicName, TopicFact>,
    pub(crate) metadata_index: u64,
    pub(crate) entries: u64,
}

impl Desk {
    pub(crate) fn with_topics(topics: &[(&str, u32)]) -> Desk {
        let mut desk = Desk::default();
        for (name, partitions) in topics {
            desk.make_topic(name, *partitions);
        }
        desk
    }

    /// Makes a topic, or lets it grow; the table is not told.
    pub(crate) fn make_topic(&mut self, name: &str, partitions: u32) {
        self.metadata_index += 1;
        let id = TopicId(Uuid::from_u128(u128::from(self.metadata_index)));
        let fact = self.topics.entry(topic(name)).or_insert(TopicFact { id, partitions });
        fact.partitions = partitions;
    }

    pub(crate) fn delete_topic(&mut self, name: &str) {
        self.metadata_index += 1;
        self.topics.remove(&topic(name));
    }

    pub(crate) fn news(&self, of: impl IntoIterator<Item = TopicName>) -> TopicNews {
        let fact = |topic: TopicName| (topic.clone(), self.topics.get(&topic).copied());
        let topics = of.into_iter().map(fact).collect();
        TopicNews { metadata_index: self.metadata_index, topics }
    }

    /// Tells the table of all topics that it knows or that somebody subscribes to.
    pub(crate) fn tell_news(&mut self) -> GroupOutcome {
        let mut topics: BTreeSet<TopicName> = self.table.topics().keys().cloned().collect();
        for (_, roster) in self.table.rosters() {
            topics.extend(roster.members().values().flat_map(|it| it.profile.topics.clone()));
        }
        let news = self.news(topics);
        self.apply(GroupCommand::TopicsChanged { news, time: EntryTime::default() })
    }

    pub(crate) fn apply(&mut self, command: GroupCommand) -> GroupOutcome {
        let decoded = GroupCommand::decode(command.encode());
        assert_eq!(decoded.as_ref(), Ok(&command));
        self.entries += 1;
        self.table.apply(RaftPosition { term: 1, index: self.entries }, &command)
    }

    pub(crate) fn heartbeat(
        &self,
        id: &str,
        generation: Generation,
        profile: MemberProfile,
        owned: TopicPartitions,
    ) -> Heartbeat {
        let topics = self.news(profile.topics.iter().cloned());
        let (group, member, time) = (group(), member(id), EntryTime::from_ms(self.entries));
        Heartbeat { group, member, generation, profile, owned, topics, time }
    }

    /// As the leader does: only what changes something is logged.
    pub(crate) fn beat(&mut self, heartbeat: &Heartbeat) -> Result<Told, GroupOutcome> {
        match self.table.hear(heartbeat) {
            Hearing::Refused(outcome) => {
                let before = self.table.clone();
                assert_eq!(self.apply(GroupCommand::Heartbeat(heartbeat.clone())), outcome);
                assert_eq!(self.table.roster(&group()), before.roster(&group()));
                return Err(outcome);
            }
            Hearing::AsBefore { .. } => {}
            Hearing::Changes(_) => {
                let outcome = self.apply(GroupCommand::Heartbeat(heartbeat.clone()));
                assert!(matches!(outcome, GroupOutcome::Heard { .. }), "{outcome:?}");
            }
        }
        Ok(self.told(heartbeat.member.as_str()))
    }

    pub(crate) fn join(&mut self, id: &str, profile: MemberProfile) -> Told {
        let heartbeat = self.heartbeat(id, Generation(0), profile, TopicPartitions::new());
        self.beat(&heartbeat).unwrap()
    }

    pub(crate) fn told(&self, id: &str) -> Told {
        let (joined, found) = self.roster().member(&member(id)).expect("a member");
        (found.generation, self.roster().assigned(joined))
    }

    pub(crate) fn roster(&self) -> &Roster {
        self.table.roster(&group()).expect("a group with members")
    }

    pub(crate) fn leave(&mut self, id: &str, stays: bool) -> GroupOutcome {
        let (group, member, time) = (group(), member(id), EntryTime::default());
        self.apply(GroupCommand::Leave(LeaveGroup { group, member, stays, time }))
    }

    pub(crate) fn expire(&mut self, id: &str) -> GroupOutcome {
        let found = self.table.roster(&group()).and_then(|roster| roster.member(&member(id)));
        let joined = found.map_or(Generation(0), |(joined, _)| joined);
        let (members, time) = (vec![(member(id), joined)], EntryTime::default());
        self.apply(GroupCommand::Expire(ExpireMembers { group: group(), members, time }))
    }

    pub(crate) fn commit(
        &mut self,
        by: Option<(&str, Generation)>,
        offsets: &[(&str, u32, u64)],
    ) -> GroupOutcome {
        self.apply(GroupCommand::Commit(commit(by, offsets)))
    }

    pub(crate) fn offset(&self, topic_name: &str, partition: u32) -> Option<u64> {
        Some(self.table.offset(&group(), &topic(topic_name), partition)?.offset)
    }
}

pub(crate) fn commit(
    by: Option<(&str, Generation)>,
    offsets: &[(&str, u32, u64)],
) -> CommitOffsets {
    let offsets = offsets.iter().map(|(name, partition, offset)| OffsetCommit {
        topic: topic(name),
        partition: *partition,
        offset: *offset,
        metadata: None,
    });
    CommitOffsets {
        group: group(),
        offsets: offsets.collect(),
        committer: by.map(|(id, generation)| Committer { member: member(id), generation }),
        reset: false,
        time: EntryTime::default(),
    }
}
