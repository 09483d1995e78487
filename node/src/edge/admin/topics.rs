//! Making, describing, changing and deleting topics.

use std::time::Duration;

use futures::FutureExt as _;
use node_core::ids::{GroupId, TopicId, TopicName};
use node_core::metadata::{
    CreateTopic, GroupRecord, MetadataCommand, MetadataOutcome, MetadataState, TopicRecord,
};
use node_core::time::EntryTime;
use quipu_proto::v1;
use tokio::time::Instant;

use super::super::convert;
use super::super::route;
use super::super::status::Refusal;
use super::Door;
use crate::limits;
use crate::member::Member;
use crate::raft::RaftFailure;

/// What may be proposed again after an unknown outcome, because a second time changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Harmful,
}

pub(super) async fn create(
    door: &Door,
    request: v1::CreateTopicRequest,
) -> Result<v1::CreateTopicResponse, Refusal> {
    let member = door.member()?;
    let wish = convert::create_topic(request)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let (name, id) = (wish.name, TopicId(crate::env::random_uuid()));
    let create = CreateTopic {
        name: name.clone(),
        id,
        partitions: wish.partitions,
        replication_factor: wish.replication_factor,
        config: wish.config,
        time: EntryTime::from_ms(member.clock().now_ms()),
    };
    // The id tells a repeat from a second topic.
    let command = MetadataCommand::CreateTopic(create);
    match propose(&member, command, Repeat::Harmless, deadline).await? {
        MetadataOutcome::TopicCreated => {}
        other => return Err(Refusal::of_outcome(other, name.as_str())),
    }
    let topic = created(&member, &name, id, deadline).await?;
    Ok(v1::CreateTopicResponse { topic: Some(topic) })
}

/// The new topic, when all of its partitions have a leader, or when time is up.
async fn created(
    member: &Member,
    name: &TopicName,
    id: TopicId,
    deadline: Instant,
) -> Result<v1::TopicInfo, Refusal> {
    loop {
        let metadata = member.metadata();
        let topic = metadata.topics().get(name).filter(|topic| topic.id == id);
        let is_late = Instant::now() + limits::LEADERS_POLL >= deadline;
        let is_led = |topic: &TopicRecord| {
            topic.partitions.iter().all(|group| member.leader_of(*group).is_some())
        };
        match topic {
            Some(topic) if is_late || is_led(topic) => {
                return Ok(info(member, &metadata, name, topic));
            }
            // It was made, and this node has not heard of it, or has heard of its end.
            None if is_late => {
                return Err(Refusal::outcome_unknown("the creation of the topic", false));
            }
            Some(_) | None => tokio::time::sleep(limits::LEADERS_POLL).await,
        }
    }
}

pub(super) async fn list(door: &Door) -> Result<v1::ListTopicsResponse, Refusal> {
    let member = door.member()?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let metadata = route::fresh_metadata(&member, deadline).await?;
    let topics = metadata.topics().iter().map(|(name, topic)| v1::TopicSummary {
        topic: name.to_string(),
        partitions: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        replication_factor: topic.replication_factor,
    });
    Ok(v1::ListTopicsResponse { topics: topics.collect() })
}

pub(super) async fn describe(
    door: &Door,
    request: &v1::DescribeTopicRequest,
) -> Result<v1::DescribeTopicResponse, Refusal> {
    let member = door.member()?;
    let name = convert::topic_name(&request.topic)?;
    let now = Instant::now();
    // Clients look for new leaders this way, just when the metadata may have lost theirs. What this
    // node has of the topic is then enough; only that there is no such topic it can't know.
    let led = member.leader_of(GroupId::METADATA);
    let led = led.is_some_and(|(place, _)| member.liveness().is_alive(place.node));
    let patience = if led { limits::METADATA_FRESH_WITHIN } else { Duration::ZERO };
    let metadata = match route::fresh_metadata(&member, now + patience).await {
        Ok(fresh) => fresh,
        Err(_) if member.metadata().topics().contains_key(&name) => member.metadata(),
        Err(_) => route::fresh_metadata(&member, now + limits::CALL_WITHIN).await?,
    };
    let topic = describe_in(&member, &metadata, &name)?;
    Ok(v1::DescribeTopicResponse { topic: Some(topic) })
}

fn describe_in(
    member: &Member,
    metadata: &MetadataState,
    name: &TopicName,
) -> Result<v1::TopicInfo, Refusal> {
    let topic = metadata.topics().get(name);
    let topic = topic.ok_or_else(|| Refusal::unknown_topic(name.as_str()))?;
    Ok(info(member, metadata, name, topic))
}

pub(super) async fn alter(
    door: &Door,
    request: v1::AlterTopicRequest,
) -> Result<v1::AlterTopicResponse, Refusal> {
    let member = door.member()?;
    let (name, changes) = convert::alter_topic(request)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let command = MetadataCommand::AlterTopic { name: name.clone(), changes };
    match propose(&member, command, Repeat::Harmful, deadline).await? {
        MetadataOutcome::TopicAltered => {}
        other => return Err(Refusal::of_outcome(other, name.as_str())),
    }
    let metadata = route::fresh_metadata(&member, deadline).await;
    // The change is made, only its result can't be shown.
    let unseen = |_| Refusal::outcome_unknown("the change of the topic", false);
    let metadata = metadata.map_err(unseen)?;
    Ok(v1::AlterTopicResponse { topic: Some(describe_in(&member, &metadata, &name)?) })
}

pub(super) async fn delete(
    door: &Door,
    request: &v1::DeleteTopicRequest,
) -> Result<v1::DeleteTopicResponse, Refusal> {
    let member = door.member()?;
    let name = convert::topic_name(&request.topic)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let metadata = route::fresh_metadata(&member, deadline).await?;
    let topic = metadata.topics().get(&name);
    let id = topic.ok_or_else(|| Refusal::unknown_topic(name.as_str()))?.id;
    let command = MetadataCommand::DeleteTopic { name: name.clone(), id };
    match propose(&member, command, Repeat::Harmless, deadline).await? {
        // Also where it is gone by now: this one will not come back.
        MetadataOutcome::TopicDeleted | MetadataOutcome::UnknownTopic => {
            Ok(v1::DeleteTopicResponse {})
        }
        other => Err(Refusal::of_outcome(other, name.as_str())),
    }
}

/// Has the metadata group apply a command. While the cluster is being formed, and after an unknown
/// outcome where that is harmless, it is proposed again.
async fn propose(
    member: &Member,
    command: MetadataCommand,
    repeat: Repeat,
    deadline: Instant,
) -> Result<MetadataOutcome, Refusal> {
    loop {
        let outcome = member.propose(command.clone(), deadline).boxed().await;
        let may_repeat = match &outcome {
            Ok(outcome) => *outcome == MetadataOutcome::NotBootstrapped,
            Err(RaftFailure::OutcomeUnknown) => repeat == Repeat::Harmless,
            Err(_) => false,
        };
        let in_time = Instant::now() + limits::READ_INDEX_RETRY < deadline;
        if !(may_repeat && in_time) {
            let what = "the change of the metadata";
            return outcome.map_err(|failure| Refusal::of_proposal(failure, what, in_time));
        }
        tokio::time::sleep(limits::READ_INDEX_RETRY).await;
    }
}

fn info(
    member: &Member,
    metadata: &MetadataState,
    name: &TopicName,
    topic: &TopicRecord,
) -> v1::TopicInfo {
    let configs = topic.config.pairs().into_iter();
    let partitions = topic.partitions.iter().zip(0..).map(|(group, number)| {
        partition_info(member, metadata.groups().get(group), *group, number)
    });
    v1::TopicInfo {
        topic: name.to_string(),
        topic_id: topic.id.to_string(),
        replication_factor: topic.replication_factor,
        configs: configs.map(|(name, value)| (name.to_owned(), value)).collect(),
        partitions: partitions.collect(),
    }
}

fn partition_info(
    member: &Member,
    record: Option<&GroupRecord>,
    group: GroupId,
    number: u32,
) -> v1::PartitionInfo {
    let leader = member.leader_of(group);
    let node = leader.map(|(place, _)| place.node);
    let label = node.and_then(|node| member.label_of(node));
    let replicas = record.map_or(&[][..], |record| &record.replicas).iter();
    let labels = replicas.filter_map(|replica| member.label_of(replica.node));
    v1::PartitionInfo {
        partition: number,
        group: group.0,
        leader: label.map_or(0, |label| label.0),
        leader_address: node.and_then(|node| member.address_of(node)).unwrap_or_default(),
        leader_epoch: leader.map_or(0, |(_, term)| term),
        replicas: labels.map(|label| label.0).collect(),
    }
}
