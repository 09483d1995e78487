//! Consumer groups: what they have consumed, and who is in them. Each group is kept by one
//! coordinator; this node answers where it has a replica of it, and names its leader otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;
use node_core::groups::{GroupOffset, GroupOutcome, GroupTable};
use node_core::ids::{GroupId, GroupName, TopicName};
use prost::Message as _;
use quipu_proto::v1;
use quipu_proto::v1::groups_server::Groups;
use quipu_proto::{MESSAGE_BYTES_MAX, v1::ErrorCode};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::convert::PartitionName;
use super::group_members::{self, heartbeat, of_outcome};
use super::status::{Refusal, answer};
use super::{Door, convert, group_lag, route};
use crate::limits;
use crate::member::{CoordinatorFailure, Member};
use crate::raft::RaftFailure;

/// quipu.v1.Groups.
pub(super) struct GroupsService(pub(super) Arc<Door>);

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn group_heartbeat(
        &self,
        request: Request<v1::GroupHeartbeatRequest>,
    ) -> Result<Response<v1::GroupHeartbeatResponse>, Status> {
        answer(self.0.unless_stopped(heartbeat(&self.0, request.into_inner())).await)
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        answer(commit(&self.0, request.into_inner()).await)
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        answer(self.0.unless_stopped(fetch(&self.0, request.get_ref())).await)
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        answer(self.0.unless_stopped(list(&self.0, request.get_ref())).await)
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        answer(self.0.unless_stopped(describe(&self.0, request.get_ref())).await)
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        answer(delete(&self.0, request.get_ref()).await)
    }
}

async fn commit(
    door: &Door,
    request: v1::CommitOffsetsRequest,
) -> Result<v1::CommitOffsetsResponse, Refusal> {
    let member = door.member()?;
    let (commit, within) = convert::commit(request, member.clock().now_ms())?;
    let group = commit.group.clone();
    let deadline = Instant::now() + within;
    // Offsets of topics that are not there would be acknowledged and soon forgotten.
    let partitions = commit.offsets.iter().map(|offset| (&offset.topic, offset.partition));
    route::partitions_exist(&member, partitions, deadline).await?;
    group_lag::within_ends(&member, &commit, deadline).boxed().await?;
    let outcome = member.commit_offsets(commit, deadline).boxed().await;
    match outcome.map_err(|failure| refused(&member, &group, failure, deadline))? {
        GroupOutcome::Committed => {
            member.metrics().group_offset_commits.inc();
            Ok(v1::CommitOffsetsResponse {})
        }
        other => Err(of_outcome(&group, &other)),
    }
}

async fn delete(
    door: &Door,
    request: &v1::DeleteGroupRequest,
) -> Result<v1::DeleteGroupResponse, Refusal> {
    let member = door.member()?;
    let group = convert::group_name(&request.group)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let outcome = member.delete_group(group.clone(), deadline).boxed().await;
    match outcome.map_err(|failure| refused(&member, &group, failure, deadline))? {
        GroupOutcome::Deleted => Ok(v1::DeleteGroupResponse {}),
        other => Err(of_outcome(&group, &other)),
    }
}

async fn fetch(
    door: &Door,
    request: &v1::FetchOffsetsRequest,
) -> Result<v1::FetchOffsetsResponse, Refusal> {
    let member = door.member()?;
    let (group, wanted) = convert::fetch_offsets(request)?;
    let offsets = look(&member, &group, |table| offsets_of(table, &group, &wanted)).await?;
    Ok(v1::FetchOffsetsResponse { offsets: fits(offsets.unwrap_or_default())? })
}

async fn describe(
    door: &Door,
    request: &v1::DescribeGroupRequest,
) -> Result<v1::DescribeGroupResponse, Refusal> {
    let member = door.member()?;
    let group = convert::group_name(&request.group)?;
    let (offsets, roster, shares) = look(&member, &group, |table| {
        let shares = request.with_lag.then(|| group_lag::shares(table, &group));
        (offsets_of(table, &group, &[]), table.roster(&group).cloned(), shares)
    })
    .await?;
    let offsets = offsets.ok_or_else(|| Refusal::unknown_group(group.as_str()))?;
    let coordinator = coordinator_of(&member, &group)?;
    let leader = member.leader_of(coordinator);
    let leader = leader.and_then(|(place, _)| member.label_of(place.node));
    let mut description = v1::DescribeGroupResponse {
        group: group.to_string(),
        coordinator: coordinator.0,
        leader_node: leader.map_or(0, |label| label.0),
        offsets: fits(offsets)?,
        ..v1::DescribeGroupResponse::default()
    };
    group_members::describe(roster.as_ref(), &mut description);
    if let Some(shares) = shares {
        description.lags = group_lag::lags(&member, shares).boxed().await;
    }
    check_size(description.encoded_len())?;
    Ok(description)
}

async fn list(
    door: &Door,
    request: &v1::ListGroupsRequest,
) -> Result<v1::ListGroupsResponse, Refusal> {
    let member = door.member()?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let count = member.metadata().coordinator_count();
    if count == 0 {
        return Err(Refusal::not_leader("the coordinators", None));
    }
    let page = convert::groups_page(request)?;
    let mut groups: BTreeSet<String> = BTreeSet::new();
    let mut more = false;
    for coordinator in convert::coordinators(&request.coordinators, count) {
        let names = names_of(door, &member, request, coordinator, deadline).await?;
        more |= names.more;
        groups.extend(names.groups);
    }
    let mut groups: Vec<String> = groups.into_iter().collect();
    more |= groups.len() > page.limit;
    groups.truncate(page.limit);
    check_size(groups.iter().map(|name| name.len() + ANSWER_ITEM_BYTES).sum())?;
    Ok(v1::ListGroupsResponse { groups, more })
}

/// Bytes that one item of an answer takes beside its texts, at most.
const ANSWER_ITEM_BYTES: usize = 64;

/// Names of the groups of one coordinator: from this node's replica, else from another node's.
async fn names_of(
    door: &Door,
    member: &Member,
    request: &v1::ListGroupsRequest,
    coordinator: GroupId,
    deadline: Instant,
) -> Result<v1::ListGroupsResponse, Refusal> {
    let page = convert::groups_page(request)?;
    let names = |table: &GroupTable| {
        let mut names = table.group_names_after(page.after.as_ref());
        let groups = names.by_ref().take(page.limit).map(ToString::to_string).collect();
        v1::ListGroupsResponse { groups, more: names.next().is_some() }
    };
    let failure = match member.read_groups(coordinator, deadline, names).boxed().await {
        Ok(names) => return Ok(names),
        Err(failure) => failure,
    };
    // Who names coordinators asks this node, and nobody else.
    let asks_only_this_node = !request.coordinators.is_empty();
    match failure {
        CoordinatorFailure::NotHere { .. } if !asks_only_this_node => {
            let request =
                v1::ListGroupsRequest { coordinators: vec![coordinator.0], ..request.clone() };
            names_elsewhere(door, member, request, coordinator, deadline).await
        }
        failure => Err(refused_by(member, coordinator, failure, deadline)),
    }
}

async fn names_elsewhere(
    door: &Door,
    member: &Member,
    request: v1::ListGroupsRequest,
    coordinator: GroupId,
    deadline: Instant,
) -> Result<v1::ListGroupsResponse, Refusal> {
    let metadata = member.metadata();
    let replicas = metadata.groups().get(&coordinator).map_or(&[][..], |group| &group.replicas);
    for replica in replicas {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !member.liveness().is_alive(replica.node) {
            continue;
        }
        let Some(link) = door.ground.peers.get(replica.node) else { continue };
        match link.list_groups(request.clone(), left).await {
            Ok(response) => return Ok(response),
            Err(error) => tracing::debug!(%coordinator, %error, "its groups are asked elsewhere"),
        }
    }
    let what = format!("coordinator {coordinator}");
    Err(Refusal::not_leader(&what, route::leader_address(member, coordinator, None)))
}

/// Looks at a group's coordinator, if this node has a replica of it.
async fn look<R>(
    member: &Member,
    group: &GroupName,
    look: impl FnOnce(&GroupTable) -> R + Send,
) -> Result<R, Refusal> {
    let coordinator = coordinator_of(member, group)?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let looked = member.read_groups(coordinator, deadline, look).boxed().await;
    looked.map_err(|failure| refused_by(member, coordinator, failure, deadline))
}

fn coordinator_of(member: &Member, group: &GroupName) -> Result<GroupId, Refusal> {
    // None while the cluster is being formed.
    member.coordinator_of(group).ok_or_else(|| Refusal::not_leader("the coordinators", None))
}

/// The offsets of a group for the partitions wanted, for none of them: for all. `None`: there is
/// no such group.
fn offsets_of(
    table: &GroupTable,
    group: &GroupName,
    wanted: &[PartitionName],
) -> Option<Vec<v1::GroupOffset>> {
    if wanted.is_empty() {
        let all = table.offsets(group)?.iter();
        return Some(all.map(|((topic, partition), it)| offset(topic, *partition, it)).collect());
    }
    let found = wanted.iter().filter_map(|PartitionName { topic, number }| {
        Some(offset(topic, *number, table.offset(group, topic, *number)?))
    });
    Some(found.collect())
}

fn offset(topic: &TopicName, partition: u32, committed: &GroupOffset) -> v1::GroupOffset {
    v1::GroupOffset {
        topic: topic.to_string(),
        partition,
        offset: committed.offset,
        metadata: committed.metadata.clone(),
        committed_at_ms: committed.committed_at.ms(),
    }
}

/// An answer that a client takes.
fn fits(offsets: Vec<v1::GroupOffset>) -> Result<Vec<v1::GroupOffset>, Refusal> {
    let bytes = |offset: &v1::GroupOffset| {
        let metadata_bytes = offset.metadata.as_ref().map_or(0, String::len);
        ANSWER_ITEM_BYTES + offset.topic.len() + metadata_bytes
    };
    check_size(offsets.iter().map(bytes).sum())?;
    Ok(offsets)
}

fn check_size(bytes: usize) -> Result<(), Refusal> {
    if bytes <= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the answer would have more than {MESSAGE_BYTES_MAX} bytes; ask for some partitions at a \
         time, or delete groups that are not used any more"
    );
    Err(Refusal::new(ErrorCode::NotSupported, message))
}

pub(super) fn refused(
    member: &Member,
    group: &GroupName,
    failure: CoordinatorFailure,
    deadline: Instant,
) -> Refusal {
    match coordinator_of(member, group) {
        Ok(coordinator) => refused_by(member, coordinator, failure, deadline),
        Err(refusal) => refusal,
    }
}

fn refused_by(
    member: &Member,
    coordinator: GroupId,
    failure: CoordinatorFailure,
    deadline: Instant,
) -> Refusal {
    let what = format!("coordinator {coordinator}");
    match failure {
        CoordinatorFailure::NotHere { .. } => match member.registry_ref().why_closed(coordinator) {
            Some(why) => route::not_open(member, &what, coordinator, &why),
            None => Refusal::not_leader(&what, route::leader_address(member, coordinator, None)),
        },
        CoordinatorFailure::Raft(RaftFailure::NotLeader { leader }) => {
            Refusal::not_leader(&what, route::leader_address(member, coordinator, leader))
        }
        CoordinatorFailure::Raft(failure) => {
            Refusal::of_proposal(failure, &what, Instant::now() < deadline)
        }
    }
}
