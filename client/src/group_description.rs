//! What the cluster says of a group: its members, their partitions, and how far it is behind.

use std::time::Duration;

use quipu_proto::v1;

use crate::groups::{GroupOffset, sorted};
use crate::record::TopicPartition;

/// A group: who keeps it, who is in it, what it has committed, how far it is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Raft group that keeps it.
    pub coordinator: u32,
    /// Label of the node that leads that Raft group; `None`: none known.
    pub leader_node: Option<u64>,
    /// Of the last change of its members; 0 without members.
    pub generation: i64,
    /// Every partition is with the member that should have it.
    pub settled: bool,
    /// In the order they joined.
    pub members: Vec<GroupMember>,
    /// What it has committed, by topic and partition.
    pub offsets: Vec<GroupOffset>,
    /// By topic and partition: all that it has an offset for or that a member subscribes to, but
    /// none of topics that were deleted.
    pub lags: Vec<PartitionLag>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Drawn by its process when it started.
    pub member_id: String,
    /// Kept over restarts, where it has one.
    pub instance_id: Option<String>,
    /// What it says of itself.
    pub client: String,
    /// Of the last change of its assignment.
    pub generation: i64,
    /// Silence after which it is expired.
    pub session_timeout: Duration,
    /// Time it has to give up a partition that should go to another.
    pub max_processing: Duration,
    /// Milliseconds since 1970.
    pub joined_at_ms: u64,
    /// It left for a moment and is expected back.
    pub away: bool,
    /// What it subscribes to.
    pub topics: Vec<String>,
    /// What it has and keeps.
    pub assigned: Vec<TopicPartition>,
    /// What it still has and is to give up.
    pub giving_up: Vec<TopicPartition>,
    /// What it will get when others have given it up.
    pub waiting_for: Vec<TopicPartition>,
}

/// How far a group is behind in one partition, by the partition's own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition's topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The next offset the group will consume; `None`: it has committed nothing.
    pub group_offset: Option<u64>,
    /// First offset kept. Above `group_offset`, records were purged before the group saw them.
    /// `None`, as the three that follow: no replica that knows could be asked.
    pub log_start_offset: Option<u64>,
    /// End (exclusive) of the partition.
    pub high_watermark: Option<u64>,
    /// Records between the group's offset and the end that are still there; without an offset all.
    pub lag: Option<u64>,
    /// How long the first of them has been waiting; zero without any.
    pub lag_time: Option<Duration>,
    /// The member that has the partition.
    pub member_id: Option<String>,
}

impl From<v1::DescribeGroupResponse> for GroupDescription {
    fn from(answer: v1::DescribeGroupResponse) -> GroupDescription {
        let mut lags: Vec<PartitionLag> = answer.lags.into_iter().map(Into::into).collect();
        lags.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        GroupDescription {
            group: answer.group,
            coordinator: answer.coordinator,
            leader_node: (answer.leader_node != 0).then_some(answer.leader_node),
            generation: answer.generation,
            settled: answer.settled,
            members: answer.members.into_iter().map(Into::into).collect(),
            offsets: sorted(answer.offsets),
            lags,
        }
    }
}

impl From<v1::GroupMember> for GroupMember {
    fn from(member: v1::GroupMember) -> GroupMember {
        GroupMember {
            member_id: member.member_id,
            instance_id: some_text(member.instance_id),
            client: member.client,
            generation: member.generation,
            session_timeout: Duration::from_millis(member.session_timeout_ms.into()),
            max_processing: Duration::from_millis(member.rebalance_timeout_ms.into()),
            joined_at_ms: member.joined_at_ms,
            away: member.away,
            topics: member.topics,
            assigned: places(member.assigned),
            giving_up: places(member.giving_up),
            waiting_for: places(member.waiting_for),
        }
    }
}

impl From<v1::PartitionLag> for PartitionLag {
    fn from(lag: v1::PartitionLag) -> PartitionLag {
        PartitionLag {
            topic: lag.topic,
            partition: lag.partition,
            group_offset: lag.group_offset,
            log_start_offset: lag.log_start_offset,
            high_watermark: lag.high_watermark,
            lag: lag.lag,
            lag_time: lag.lag_ms.map(Duration::from_millis),
            member_id: some_text(lag.member_id),
        }
    }
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn places(parts: Vec<v1::TopicPartitions>) -> Vec<TopicPartition> {
    let places = parts.into_iter().flat_map(|part| {
        let topic = part.topic;
        part.partitions.into_iter().map(move |number| TopicPartition::new(topic.clone(), number))
    });
    places.collect()
}
