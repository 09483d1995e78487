//! Which replica a call is for, and who leads it instead of this node.

use std::sync::Arc;

use futures::FutureExt as _;
use node_core::ids::{GroupId, TopicName};
use node_core::metadata::MetadataState;
use tokio::time::Instant;

use super::convert::PartitionName;
use super::status::Refusal;
use crate::member::{Member, RouteFailure};
use crate::partition::Partition;
use crate::raft::{Place, Role};

/// The replica of a partition on this node. That there is no such partition is said only by the
/// newest metadata: those on this node may lag.
pub(super) async fn partition(
    member: &Member,
    name: &PartitionName,
    deadline: Instant,
) -> Result<Arc<Partition>, Refusal> {
    let failure = match member.partition(&name.topic, name.number) {
        Ok(partition) => return Ok(partition),
        Err(RouteFailure::NotHere { group }) => return Err(elsewhere(member, name, group)),
        Err(RouteFailure::NotOpen { group, why }) => {
            return Err(not_open(member, &name.to_string(), group, &why));
        }
        Err(failure @ (RouteFailure::UnknownTopic | RouteFailure::UnknownPartition { .. })) => {
            failure
        }
    };
    tracing::debug!(%name, %failure, "asks for the newest metadata");
    fresh_metadata(member, deadline).await?;
    member.partition(&name.topic, name.number).map_err(|failure| match failure {
        RouteFailure::UnknownTopic => Refusal::unknown_topic(name.topic.as_str()),
        RouteFailure::UnknownPartition { count } => {
            Refusal::unknown_partition(name.topic.as_str(), name.number, count)
        }
        RouteFailure::NotHere { group } => elsewhere(member, name, group),
        RouteFailure::NotOpen { group, why } => not_open(member, &name.to_string(), group, &why),
    })
}

/// As [`partition`], where this node leads it.
pub(super) async fn led_partition(
    member: &Member,
    name: &PartitionName,
    deadline: Instant,
) -> Result<Arc<Partition>, Refusal> {
    let partition = partition(member, name, deadline).await?;
    match partition.raft().brief().role {
        // What a stopped replica means the partition itself will say.
        Role::Leader | Role::Stopped => Ok(partition),
        Role::Follower | Role::Candidate | Role::Learner => {
            Err(elsewhere(member, name, partition.group()))
        }
    }
}

fn elsewhere(member: &Member, name: &PartitionName, group: GroupId) -> Refusal {
    Refusal::not_leader(&name.to_string(), leader_address(member, group, None))
}

/// This node has a replica of the group, which is being opened or can't be.
pub(super) fn not_open(member: &Member, what: &str, group: GroupId, why: &str) -> Refusal {
    Refusal::not_open(what, why, leader_address(member, group, None))
}

/// Where another node leads a group: `hint`, or what this node has heard.
pub(super) fn leader_address(
    member: &Member,
    group: GroupId,
    hint: Option<Place>,
) -> Option<String> {
    let heard = || member.leader_of(group).map(|(place, _)| place);
    let other = |place: &Place| place.node != member.me();
    let leader = hint.filter(other).or_else(|| heard().filter(other))?;
    member.address_of(leader.node)
}

/// The metadata with everything acknowledged before this call.
pub(super) async fn fresh_metadata(
    member: &Member,
    deadline: Instant,
) -> Result<Arc<MetadataState>, Refusal> {
    // Boxed: its future is deep, and this one is part of nearly every call's.
    let fresh = member.fresh_metadata(deadline).boxed().await;
    fresh.map_err(|failure| Refusal::of_proposal(failure, "the metadata", true))
}

/// The metadata in which all of `partitions` are. Asks the newest before it says that one is not.
pub(super) async fn partitions_exist(
    member: &Member,
    partitions: impl Iterator<Item = (&TopicName, u32)> + Clone,
    deadline: Instant,
) -> Result<Arc<MetadataState>, Refusal> {
    let metadata = member.metadata();
    if missing(&metadata, partitions.clone()).is_none() {
        return Ok(metadata);
    }
    let metadata = fresh_metadata(member, deadline).await?;
    match missing(&metadata, partitions) {
        None => Ok(metadata),
        Some(refusal) => Err(refusal),
    }
}

/// What is said of the first partition that is not there.
fn missing<'a>(
    metadata: &MetadataState,
    mut partitions: impl Iterator<Item = (&'a TopicName, u32)>,
) -> Option<Refusal> {
    let (topic, number) =
        partitions.find(|(topic, number)| metadata.partition_group(topic, *number).is_none())?;
    Some(match metadata.topics().get(topic) {
        None => Refusal::unknown_topic(topic.as_str()),
        Some(record) => {
            let count = u32::try_from(record.partitions.len()).unwrap_or(u32::MAX);
            Refusal::unknown_partition(topic.as_str(), number, count)
        }
    })
}
