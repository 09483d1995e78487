//! Nodes: how they are, draining them, removing them, and taking that back.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use node_core::ids::{GroupId, NodeLabel, NodeUuid};
use node_core::metadata::{MetadataCommand, MetadataOutcome, MetadataState, Move, Standing};
use node_core::survey::{Phase, Survey, name_of, node_status};
use quipu_proto::v1;
use tokio::time::Instant;

use super::super::route;
use super::super::status::Refusal;
use super::Door;
use crate::limits;
use crate::member::Member;

/// What a removal may begin or end with.
const CHANGES: &str = "the standing of the node";

pub(super) async fn describe(
    door: &Door,
    request: &v1::DescribeNodesRequest,
) -> Result<v1::DescribeNodesResponse, Refusal> {
    let member = door.member()?;
    let metadata = member.metadata();
    for label in &request.node_ids {
        known(&metadata, *label)?;
    }
    let survey = member.survey().boxed().await;
    // What happened while the others were asked is known by now.
    let metadata = member.metadata();
    let wanted: BTreeSet<u64> = request.node_ids.iter().copied().collect();
    let nodes =
        metadata.members().filter(|(_, node)| wanted.is_empty() || wanted.contains(&node.label.0));
    let mut nodes: Vec<v1::NodeStatus> =
        nodes.map(|(uuid, _)| status_of(&member, &metadata, &survey, uuid)).collect();
    nodes.sort_by_key(|node| node.node_id);
    Ok(v1::DescribeNodesResponse { nodes })
}

pub(super) async fn drain(
    door: &Door,
    request: &v1::DrainNodeRequest,
) -> Result<v1::DrainNodeResponse, Refusal> {
    let node = Some(stand(door, request.node_id, Standing::Drained).await?);
    Ok(v1::DrainNodeResponse { node })
}

pub(super) async fn resume(
    door: &Door,
    request: &v1::ResumeNodeRequest,
) -> Result<v1::ResumeNodeResponse, Refusal> {
    let member = door.member()?;
    let metadata = fresh(&member).await?;
    let (node, standing) = known(&metadata, request.node_id)?;
    if standing == Standing::Removing {
        return Err(is_removing(request.node_id));
    }
    let node = Some(stand_in(&member, node, request.node_id, Standing::Active).await?);
    Ok(v1::ResumeNodeResponse { node })
}

pub(super) async fn remove(
    door: &Door,
    request: &v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Refusal> {
    let member = door.member()?;
    let metadata = fresh(&member).await?;
    let (node, _) = known(&metadata, request.node_id)?;
    if let Some(group) = metadata.would_lack_a_node(node) {
        return Err(not_kept(&metadata, group, request.node_id));
    }
    let survey = member.survey().boxed().await;
    let serves = |node| survey.nodes.contains_key(&node);
    let planned = metadata.moves_of_removal(node, serves);
    let told = |planned: &[Move]| -> Vec<v1::ReplicaMove> {
        planned.iter().map(|next| told(&metadata, &survey, next)).collect()
    };
    if request.dry_run {
        let mut status = status_of(&member, &metadata, &survey, node);
        status.moves_left = u32::try_from(planned.len()).unwrap_or(u32::MAX);
        let bytes = planned.iter().map(|next| survey.bytes_of(next.place.group));
        status.bytes_left = bytes.fold(0, u64::saturating_add);
        return Ok(v1::RemoveNodeResponse { node: Some(status), moves: told(&planned) });
    }
    let status = stand_in(&member, node, request.node_id, Standing::Removing).await?;
    Ok(v1::RemoveNodeResponse { node: Some(status), moves: told(&planned) })
}

pub(super) async fn cancel(
    door: &Door,
    request: &v1::CancelRemovalRequest,
) -> Result<v1::CancelRemovalResponse, Refusal> {
    let member = door.member()?;
    let metadata = fresh(&member).await?;
    let label = request.node_id;
    match known(&metadata, label)? {
        (node, Standing::Removing) => {
            let node = Some(stand_in(&member, node, label, Standing::Active).await?);
            Ok(v1::CancelRemovalResponse { node })
        }
        _ => Err(Refusal::invalid(format!(
            "node {label} is not being removed; `quipu node ls` shows how each node is"
        ))),
    }
}

async fn stand(door: &Door, label: u64, standing: Standing) -> Result<v1::NodeStatus, Refusal> {
    let member = door.member()?;
    let metadata = fresh(&member).await?;
    let (node, _) = known(&metadata, label)?;
    stand_in(&member, node, label, standing).await
}

/// Has the metadata say what a node is for from now on. Safe to repeat.
async fn stand_in(
    member: &Member,
    node: NodeUuid,
    label: u64,
    standing: Standing,
) -> Result<v1::NodeStatus, Refusal> {
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let command = MetadataCommand::SetStanding { node, standing };
    let proposed = member.propose(command, deadline).boxed().await;
    let in_time = Instant::now() < deadline;
    let outcome = proposed.map_err(|failure| Refusal::of_proposal(failure, CHANGES, in_time))?;
    let metadata = fresh(member).await?;
    match outcome {
        MetadataOutcome::StandingSet => {
            let survey = member.survey().boxed().await;
            Ok(status_of(member, &metadata, &survey, node))
        }
        MetadataOutcome::ReplicationNotKept { group } => Err(not_kept(&metadata, group, label)),
        MetadataOutcome::NodeIsRemoving => Err(is_removing(label)),
        MetadataOutcome::UnknownNode => Err(unknown_node(&metadata, label)),
        other => Err(Refusal::of_outcome(other, "")),
    }
}

async fn fresh(member: &Member) -> Result<std::sync::Arc<MetadataState>, Refusal> {
    route::fresh_metadata(member, Instant::now() + limits::CALL_WITHIN).await
}

fn known(metadata: &MetadataState, label: u64) -> Result<(NodeUuid, Standing), Refusal> {
    let found = metadata.node_by_label(NodeLabel(label));
    let found = found.map(|(uuid, record)| (uuid, record.standing));
    found.ok_or_else(|| unknown_node(metadata, label))
}

fn unknown_node(metadata: &MetadataState, label: u64) -> Refusal {
    let mut labels: Vec<u64> = metadata.members().map(|(_, node)| node.label.0).collect();
    labels.sort_unstable();
    let labels: Vec<String> = labels.iter().map(u64::to_string).collect();
    Refusal::invalid(format!(
        "there is no node {label}; the cluster has nodes {}",
        labels.join(", ")
    ))
}

fn is_removing(label: u64) -> Refusal {
    Refusal::invalid(format!(
        "node {label} is being removed; `quipu node cancel {label}` ends that before it can be \
         drained or resumed"
    ))
}

/// Why a removal would leave too few nodes.
fn not_kept(metadata: &MetadataState, group: GroupId, label: u64) -> Refusal {
    if group == GroupId::METADATA {
        let what = format!("node {label} is the last one; there is nobody to take its replicas");
        return Refusal::invalid(what);
    }
    let record = metadata.groups().get(&group);
    let name = record.map_or_else(String::new, |record| name_of(metadata, group, record));
    let replicas = record.map_or(0, |record| record.replicas.len());
    let leaving = metadata.leaving().filter(|(_, node)| node.label.0 != label).count();
    let left = metadata.members().count().saturating_sub(leaving + 1);
    Refusal::new(
        v1::ErrorCode::InvalidReplication,
        format!(
            "without node {label} only {left} nodes would be left, and {name} has {replicas} \
             replicas: add a node before (start quipud with --join), or delete what needs so many"
        ),
    )
}

fn told(metadata: &MetadataState, survey: &Survey, next: &Move) -> v1::ReplicaMove {
    let label = |node| metadata.nodes().get(&node).map_or(0, |node| node.label.0);
    v1::ReplicaMove {
        what: names(metadata, &[next.place.group]).pop().unwrap_or_default(),
        from_node: label(next.from),
        to_node: label(next.to),
        bytes: survey.bytes_of(next.place.group),
    }
}

/// One node as it is told.
fn status_of(
    member: &Member,
    metadata: &MetadataState,
    survey: &Survey,
    node: NodeUuid,
) -> v1::NodeStatus {
    let status = node_status(metadata, survey, node);
    let Some(record) = metadata.nodes().get(&node) else { return v1::NodeStatus::default() };
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    v1::NodeStatus {
        node_id: record.label.0,
        uuid: node.to_string(),
        address: record.address.to_string(),
        version: record.version.build().to_owned(),
        rack: record.rack.as_ref().map(ToString::to_string).unwrap_or_default(),
        alive: status.alive,
        standing: standing_name(status.phase).into(),
        leaders: status.leaders,
        replicas: status.replicas,
        bytes: status.bytes,
        behind: status.behind,
        behind_entries: status.behind_entries,
        critical: count(status.critical.len()),
        critical_names: names(metadata, &status.critical),
        only_copies: count(status.only_copies.len()),
        only_copy_names: names(metadata, &status.only_copies),
        unknown: status.unknown,
        moves_left: count(status.moves_left.len()),
        bytes_left: status.bytes_left,
        waits: waits(member, metadata, survey, &status.moves_left),
    }
}

fn standing_name(phase: Phase) -> v1::Standing {
    match phase {
        Phase::Joining => v1::Standing::Joining,
        Phase::Active => v1::Standing::Active,
        Phase::Draining => v1::Standing::Draining,
        Phase::Drained => v1::Standing::Drained,
        Phase::Removing => v1::Standing::Removing,
        Phase::Removed => v1::Standing::Removed,
    }
}

fn names(metadata: &MetadataState, groups: &[GroupId]) -> Vec<String> {
    let groups = groups.iter().take(limits::NAMES_TOLD_MAX);
    let named = groups.filter_map(|group| {
        let record = metadata.groups().get(group)?;
        Some(name_of(metadata, *group, record))
    });
    named.collect()
}

/// Why the moves from a node are not over.
fn waits(
    member: &Member,
    metadata: &MetadataState,
    survey: &Survey,
    groups: &[GroupId],
) -> Vec<String> {
    let mut waits = Vec::new();
    for group in groups.iter().take(limits::NAMES_TOLD_MAX) {
        let Some(record) = metadata.groups().get(group) else { continue };
        let name = name_of(metadata, *group, record);
        let label = |node| metadata.nodes().get(&node).map_or(0, |node| node.label.0);
        if record.is_deleted() {
            waits.push(format!("{name}: is being deleted"));
            continue;
        }
        if record.retiring.is_empty() {
            waits.push(format!("{name}: its turn comes"));
            continue;
        }
        let Some((_, lead)) = survey.lead(*group) else {
            waits.push(format!("{name}: has no leader"));
            continue;
        };
        for replica in &record.replicas {
            let node = label(replica.node);
            if !member.liveness().is_alive(replica.node) {
                waits.push(format!("{name}: node {node} does not answer"));
                continue;
            }
            match (lead.members.get(&replica.id), lead.behind(replica.id)) {
                (None, _) => waits.push(format!("{name}: node {node} gets a replica")),
                (Some(_), None) => waits.push(format!("{name}: node {node} begins")),
                (Some(_), Some(entries)) if entries > node_core::survey::CAUGHT_UP_ENTRIES => {
                    waits.push(format!("{name}: node {node} misses {entries} entries"));
                }
                (Some(told), Some(_)) if !told.voter && replica.voter => {
                    waits.push(format!("{name}: node {node} is about to vote"));
                }
                _ => {}
            }
        }
    }
    waits.truncate(limits::NAMES_TOLD_MAX);
    waits
}
