//! One replica as its node knows it, and moving the leadership of a partition.

use std::sync::Arc;

use futures::FutureExt as _;
use node_core::ids::{GroupId, NodeLabel, NodeUuid};
use node_core::metadata::MetadataState;
use node_core::survey::name_of;
use quipu_proto::v1;
use quipu_proto::v1::ErrorCode;
use tokio::time::Instant;

use super::super::convert::{self, PartitionName};
use super::super::route;
use super::super::status::Refusal;
use super::Door;
use crate::limits;
use crate::member::Member;
use crate::partition::{Partition, PartitionView};
use crate::raft::{RaftFailure, Role};

pub(super) async fn describe(
    door: &Door,
    request: &v1::DescribeReplicaRequest,
) -> Result<v1::DescribeReplicaResponse, Refusal> {
    let member = door.member()?;
    let name = convert::partition_name(&request.topic, request.partition)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let (group, metadata) = group_of(&member, &name, deadline).await?;
    let Some(partition) = member.registry_ref().partition(group) else {
        return Err(not_here(&member, &metadata, group, &name));
    };
    let brief = partition.raft().brief();
    let view = partition.view();
    let offset = request.at_offset.unwrap_or(view.high_watermark);
    let hash = hash_at(&partition, &view, offset);
    Ok(v1::DescribeReplicaResponse {
        node_id: member.label().0,
        replica_id: partition.replica().0,
        role: role_name(brief.role).to_owned(),
        term: brief.term,
        log_start_offset: view.log_start,
        high_watermark: view.high_watermark,
        chain_hash: hash.map_or_else(Vec::new, Vec::from).into(),
        chain_hash_offset: offset,
        bytes: view.bytes_kept,
        producers: u64::try_from(view.producers).unwrap_or(u64::MAX),
        staleness_ms: partition.lag().map(convert::ms_rounded_up),
    })
}

/// The view is one moment's, while the partition goes on.
fn hash_at(partition: &Partition, view: &PartitionView, offset: u64) -> Option<[u8; 16]> {
    if offset == view.high_watermark {
        Some(view.chain_hash.0)
    } else {
        partition.chain_hash_at(offset)
    }
}

/// A parked leader is a leader all the same.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

pub(super) async fn move_leader(
    door: &Door,
    request: &v1::MoveLeaderRequest,
) -> Result<v1::MoveLeaderResponse, Refusal> {
    let member = door.member()?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let (group, name, metadata) = group_asked(&member, request, deadline).await?;
    let to = target(&metadata, group, &name, NodeLabel(request.to_node))?;
    if metadata.nodes().get(&to).is_some_and(|node| !node.standing.takes_leaderships()) {
        let label = request.to_node;
        return Err(Refusal::invalid(format!(
            "to_node: node {label} is drained or being removed and takes no leaderships; see \
             `quipu node status {label}`"
        )));
    }
    loop {
        let leader = member.leader_of(group).map(|(place, _)| place);
        if leader.is_some_and(|place| place.node == to) && to != member.me() {
            return Ok(v1::MoveLeaderResponse {});
        }
        let failure = match member.move_leader(group, to, deadline).boxed().await {
            Ok(()) => return Ok(v1::MoveLeaderResponse {}),
            Err(failure) => failure,
        };
        let in_time = Instant::now() + limits::READ_INDEX_RETRY < deadline;
        match failure {
            // Under load the target is always a little behind, until it is not.
            RaftFailure::NoQuorum if in_time => {}
            RaftFailure::NoQuorum => {
                let label = request.to_node;
                return Err(Refusal::stale(format!(
                    "node {label} is behind in {name}, or can't be reached; try again later or \
                     choose another"
                )));
            }
            RaftFailure::NotLeader { leader } => {
                let address = route::leader_address(&member, group, leader);
                return Err(Refusal::not_leader(&name, address));
            }
            failure => {
                let what = format!("moving the leader of {name}");
                return Err(Refusal::of_proposal(failure, &what, in_time));
            }
        }
        tokio::time::sleep(limits::READ_INDEX_RETRY).await;
    }
}

/// The group of a request to move a leader, what people call it, and the metadata that say so.
async fn group_asked(
    member: &Member,
    request: &v1::MoveLeaderRequest,
    deadline: Instant,
) -> Result<(GroupId, String, Arc<MetadataState>), Refusal> {
    let group = GroupId(request.group);
    if request.group == 0 {
        let name = convert::partition_name(&request.topic, request.partition)?;
        let (group, metadata) = group_of(member, &name, deadline).await?;
        return Ok((group, name.to_string(), metadata));
    }
    let metadata = member.metadata();
    let record = metadata.groups().get(&group).filter(|record| !record.is_deleted());
    let name = record.map(|record| name_of(&metadata, group, record));
    let name = name.ok_or_else(|| Refusal::invalid(format!("group: there is no group {group}")))?;
    Ok((group, name, metadata))
}

/// The group of a partition, and the metadata that say so.
async fn group_of(
    member: &Member,
    name: &PartitionName,
    deadline: Instant,
) -> Result<(GroupId, Arc<MetadataState>), Refusal> {
    let partition = [(&name.topic, name.number)];
    let metadata = route::partitions_exist(member, partition.into_iter(), deadline).await?;
    let group = metadata.partition_group(&name.topic, name.number);
    let group = group.expect("it was just found to be there");
    Ok((group, metadata))
}

/// The node that shall lead; it must have a replica.
fn target(
    metadata: &MetadataState,
    group: GroupId,
    name: &str,
    label: NodeLabel,
) -> Result<NodeUuid, Refusal> {
    let holders = holders(metadata, group);
    let found = metadata.node_by_label(label).map(|(uuid, _)| uuid);
    let found = found.filter(|uuid| {
        let record = metadata.groups().get(&group);
        record.is_some_and(|record| record.replicas.iter().any(|replica| replica.node == *uuid))
    });
    found.ok_or_else(|| {
        Refusal::invalid(format!("to_node: node {label} has no replica of {name}; {holders}"))
    })
}

fn not_here(
    member: &Member,
    metadata: &MetadataState,
    group: GroupId,
    name: &PartitionName,
) -> Refusal {
    let record = metadata.groups().get(&group);
    let placed = record
        .is_some_and(|record| record.replicas.iter().any(|replica| replica.node == member.me()));
    if placed {
        return Refusal::stale(format!("this node has not opened its replica of {name} yet"));
    }
    let (label, holders) = (member.label(), holders(metadata, group));
    let message = format!("node {label} has no replica of {name}; {holders}");
    Refusal::new(ErrorCode::UnknownPartition, message)
}

/// Who has replicas of a group, for people.
fn holders(metadata: &MetadataState, group: GroupId) -> String {
    let replicas = metadata.groups().get(&group).map_or(&[][..], |record| &record.replicas);
    let labels = replicas.iter().filter_map(|replica| metadata.nodes().get(&replica.node));
    let labels: Vec<String> = labels.map(|node| node.label.to_string()).collect();
    format!("it is on nodes {}", labels.join(", "))
}
