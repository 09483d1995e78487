//! Evening out: what would be moved, and one group's replicas placed anew.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use node_core::ids::{GroupId, NodeLabel, NodeUuid};
use node_core::metadata::{
    Change, MetadataCommand, MetadataOutcome, MetadataState, PlaceFault, PlaceGroup, rebalance,
};
use node_core::survey::{Survey, name_of};
use quipu_proto::v1;
use tokio::time::Instant;

use super::super::route;
use super::super::status::Refusal;
use super::Door;
use crate::limits;

pub(super) async fn plan(
    door: &Door,
    request: &v1::PlanRebalanceRequest,
) -> Result<v1::PlanRebalanceResponse, Refusal> {
    let member = door.member()?;
    let replication = match request.replication {
        factor @ (0 | 1 | 3 | 5) => usize::try_from(factor).unwrap_or(0),
        other => {
            let what = format!("replication: 1, 3 or 5 replicas are possible, not {other}");
            return Err(Refusal::new(v1::ErrorCode::InvalidReplication, what));
        }
    };
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let metadata = route::fresh_metadata(&member, deadline).await?;
    let survey = member.survey().boxed().await;
    let serves = |node| survey.nodes.contains_key(&node);
    let changes = rebalance(&metadata, replication, serves, |group| survey.bytes_of(group));
    let leaders = leader_moves(&metadata, &survey, &changes);
    let under_way = metadata.groups().iter().filter(|(id, _)| is_moving(&metadata, &survey, **id));
    Ok(v1::PlanRebalanceResponse {
        changes: changes.iter().map(|change| told(&metadata, change)).collect(),
        leaders,
        under_way: u32::try_from(under_way.count()).unwrap_or(u32::MAX),
    })
}

fn told(metadata: &MetadataState, change: &Change) -> v1::PlannedChange {
    let labels = |nodes: &[NodeUuid]| nodes.iter().map(|node| label(metadata, *node)).collect();
    v1::PlannedChange {
        group: change.place.group.0,
        what: name(metadata, change.place.group),
        from_nodes: labels(&change.place.expected),
        to_nodes: labels(&change.place.nodes),
        bytes: change.bytes,
        replicas_made: u32::try_from(change.replicas_made()).unwrap_or(u32::MAX),
    }
}

/// Groups whose places stay, and that are led by another than their first replica.
fn leader_moves(
    metadata: &MetadataState,
    survey: &Survey,
    changes: &[Change],
) -> Vec<v1::LeaderMove> {
    let changed: BTreeSet<GroupId> = changes.iter().map(|change| change.place.group).collect();
    let stay = metadata.groups().iter().filter(|(id, group)| {
        **id != GroupId::METADATA
            && !group.is_deleted()
            && !changed.contains(*id)
            && !is_moving(metadata, survey, **id)
    });
    let moves = stay.filter_map(|(id, group)| {
        let wanted = group.preferred_leader()?.node;
        let (leads, _) = survey.lead(*id)?;
        let may = metadata.nodes().get(&wanted)?.standing.takes_leaderships();
        (wanted != leads && may && survey.nodes.contains_key(&wanted)).then(|| v1::LeaderMove {
            group: id.0,
            what: name(metadata, *id),
            from_node: label(metadata, leads),
            to_node: label(metadata, wanted),
        })
    });
    moves.collect()
}

/// Its voters are not those that it should have.
fn is_moving(metadata: &MetadataState, survey: &Survey, id: GroupId) -> bool {
    let Some(group) = metadata.groups().get(&id).filter(|group| !group.is_deleted()) else {
        return false;
    };
    let behind = survey.lead(id).is_some_and(|(_, lead)| {
        group.replicas.iter().any(|replica| {
            lead.members.get(&replica.id).is_none_or(|member| member.voter != replica.voter)
        })
    });
    behind || !group.retiring.is_empty()
}

pub(super) async fn place(
    door: &Door,
    request: &v1::PlaceReplicasRequest,
) -> Result<v1::PlaceReplicasResponse, Refusal> {
    let member = door.member()?;
    let deadline = Instant::now() + limits::CALL_WITHIN;
    let metadata = route::fresh_metadata(&member, deadline).await?;
    let group = GroupId(request.group);
    let place = PlaceGroup {
        group,
        expected: nodes(&metadata, &request.expected_nodes)?,
        nodes: nodes(&metadata, &request.nodes)?,
        removal_of: None,
    };
    let proposed = member.propose(MetadataCommand::PlaceGroup(place), deadline).boxed().await;
    let in_time = Instant::now() < deadline;
    let what = "the new places of the replicas";
    let outcome = proposed.map_err(|failure| Refusal::of_proposal(failure, what, in_time))?;
    let name = name(&metadata, group);
    match outcome {
        MetadataOutcome::Placed => Ok(v1::PlaceReplicasResponse {}),
        MetadataOutcome::NotPlaced { fault } => Err(match fault {
            PlaceFault::Changed => Refusal::stale(format!(
                "the replicas of {name} are not where the request says any more; plan again"
            )),
            PlaceFault::Busy => {
                Refusal::stale(format!("replicas of {name} are being moved; plan again later"))
            }
            PlaceFault::Metadata => {
                Refusal::invalid("group: the metadata are on every node, and are not placed")
            }
            PlaceFault::Node => Refusal::invalid(
                "nodes: one stands there twice, or takes no replicas; see `quipu node ls`",
            ),
            PlaceFault::Count => Refusal::invalid(
                "nodes: a group keeps its number of replicas, or gets 3 or 5 if that is more",
            ),
        }),
        other => Err(Refusal::of_outcome(other, "")),
    }
}

fn nodes(metadata: &MetadataState, labels: &[u64]) -> Result<Vec<NodeUuid>, Refusal> {
    let found = |label: &u64| {
        let found = metadata.node_by_label(NodeLabel(*label)).map(|(node, _)| node);
        found.ok_or_else(|| Refusal::invalid(format!("nodes: there is no node {label}")))
    };
    labels.iter().take(limits::PLACES_MAX).map(found).collect()
}

fn label(metadata: &MetadataState, node: NodeUuid) -> u64 {
    metadata.nodes().get(&node).map_or(0, |node| node.label.0)
}

fn name(metadata: &MetadataState, id: GroupId) -> String {
    let group = metadata.groups().get(&id);
    group.map_or_else(|| format!("group {id}"), |group| name_of(metadata, id, group))
}
