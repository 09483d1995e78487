//! Forming the cluster, describing its nodes, and saying what is wrong with it.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use node_core::features::FeatureLevel;
use node_core::ids::{GroupId, NodeUuid};
use node_core::metadata::{GroupKind, MetadataState, NodeRecord, Standing};
use node_core::survey::{Finding, Severity, findings, mixed_versions, name_of};
use quipu_proto::v1;

use super::super::convert;
use super::super::status::Refusal;
use super::Door;
use crate::member::Member;
use crate::raft::Role;

/// Groups named in one problem; the rest are counted.
const GROUPS_NAMED_MAX: usize = 5;

pub(super) async fn init(
    door: &Door,
    request: v1::InitClusterRequest,
) -> Result<v1::InitClusterResponse, Refusal> {
    let addresses = convert::addresses(request.addresses)?;
    let formed = door.unless_stopped(async {
        let formed = door.formation.init_cluster(addresses).boxed().await;
        formed.map_err(|failure| Refusal::of_formation(&failure))
    });
    Ok(v1::InitClusterResponse { cluster_id: formed.await?.to_string() })
}

pub(super) fn describe(door: &Door) -> Result<v1::DescribeClusterResponse, Refusal> {
    let asked_node = door.ground.label.0;
    let member = match door.member() {
        Ok(member) => member,
        // A node that belongs to no cluster says so, and knows of nobody.
        Err(_) if !door.ground.stop.is_cancelled() => {
            return Ok(v1::DescribeClusterResponse {
                asked_node,
                ..v1::DescribeClusterResponse::default()
            });
        }
        Err(refusal) => return Err(refusal),
    };
    let metadata = member.metadata();
    let held = held(&member, &metadata);
    let nodes = metadata.members().map(|(uuid, node)| {
        let held = held.get(&uuid).copied().unwrap_or_default();
        v1::NodeInfo {
            node_id: node.label.0,
            uuid: uuid.to_string(),
            address: node.address.to_string(),
            alive: member.liveness().is_alive(uuid),
            leaders: held.leaders,
            replicas: held.replicas,
            version: node.version.build().to_owned(),
            standing: standing_of(node.standing).into(),
            rack: node.rack.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    });
    let leader = member.leader_of(GroupId::METADATA);
    let leader = leader.and_then(|(place, _)| member.label_of(place.node));
    Ok(v1::DescribeClusterResponse {
        cluster_id: metadata.cluster_id().map(|id| id.to_string()).unwrap_or_default(),
        asked_node,
        nodes: nodes.collect(),
        metadata_leader: leader.map_or(0, |label| label.0),
    })
}

/// As the metadata have it; how far the node has got there, [`super::nodes`] tells.
fn standing_of(standing: Standing) -> v1::Standing {
    match standing {
        Standing::Active => v1::Standing::Active,
        Standing::Drained => v1::Standing::Drained,
        Standing::Removing => v1::Standing::Removing,
        Standing::Removed => v1::Standing::Removed,
    }
}

/// What a node has of partitions.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    leaders: u32,
    replicas: u32,
}

fn held(member: &Member, metadata: &MetadataState) -> BTreeMap<NodeUuid, Held> {
    let mut held: BTreeMap<NodeUuid, Held> = BTreeMap::new();
    for (group, record) in metadata.groups() {
        if !matches!(record.kind, GroupKind::Partition { .. }) || record.is_deleted() {
            continue;
        }
        for replica in &record.replicas {
            held.entry(replica.node).or_default().replicas += 1;
        }
        if let Some((place, _)) = member.leader_of(*group) {
            held.entry(place.node).or_default().leaders += 1;
        }
    }
    held
}

pub(super) async fn health(
    door: &Door,
    request: &v1::HealthRequest,
) -> Result<v1::HealthResponse, Refusal> {
    let member = match door.member() {
        Ok(member) => member,
        Err(_) if !door.ground.stop.is_cancelled() => {
            let problem = format!(
                "node {} belongs to no cluster yet: form one with `quipu cluster init`, or start \
                 it with --join",
                door.ground.label
            );
            return Ok(response(vec![problem], Figures::default()));
        }
        Err(refusal) => return Err(refusal),
    };
    let metadata = member.metadata();
    if metadata.cluster_id().is_none() {
        let problem = format!(
            "node {} waits for the cluster's metadata: if it lasts, start the other nodes that \
             form the cluster",
            member.label()
        );
        return Ok(response(vec![problem], Figures::default()));
    }
    // A node of the first release can't be asked: what it leads would seem to be led by nobody.
    let answers = |(_, node): (NodeUuid, &NodeRecord)| {
        node.version.levels().contains(FeatureLevel::MEMBERSHIP)
    };
    let all_answer = metadata.members().all(answers);
    if request.all_nodes && all_answer {
        let survey = member.survey().boxed().await;
        let found = findings(&member.metadata(), &survey);
        return Ok(response_of(&member, &metadata, &found));
    }
    let (mut problems, mut figures) = (Vec::new(), Figures::default());
    look_at_nodes(&member, &metadata, &mut problems, &mut figures);
    look_at_groups(&member, &metadata, &mut problems, &mut figures);
    look_at_own_replicas(&member, &metadata, &mut problems);
    if !member.liveness().clock_is_trusted() {
        problems.push(format!(
            "the clock of node {} is far from those of the others: retention waits; set the clock",
            member.label()
        ));
    }
    let mut findings = Vec::new();
    if request.all_nodes {
        let alone = |problem: &String| v1::Finding {
            trouble: "seen_by_one".to_owned(),
            severity: v1::Severity::Warning.into(),
            node_id: member.label().0,
            what: problem.clone(),
            advice: "while a node of 0.1 is there, one node alone tells what it sees".to_owned(),
        };
        findings.extend(problems.iter().map(alone));
        findings.extend(mixed_versions(&metadata).as_ref().map(told));
    }
    Ok(v1::HealthResponse { findings, ..response(problems, figures) })
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    groups: usize,
    leaderless_groups: usize,
    dead_nodes: usize,
}

fn response(problems: Vec<String>, figures: Figures) -> v1::HealthResponse {
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    v1::HealthResponse {
        healthy: problems.is_empty(),
        problems,
        groups: number(figures.groups),
        leaderless_groups: number(figures.leaderless_groups),
        dead_nodes: number(figures.dead_nodes),
        findings: Vec::new(),
    }
}

/// The findings of all nodes. Advice alone leaves a cluster healthy.
fn response_of(member: &Member, metadata: &MetadataState, found: &[Finding]) -> v1::HealthResponse {
    let mut figures = Figures::default();
    look_at_nodes(member, metadata, &mut Vec::new(), &mut figures);
    look_at_groups(member, metadata, &mut Vec::new(), &mut figures);
    let bad = found.iter().filter(|finding| finding.severity > Severity::Advice);
    let problems = bad.map(|finding| format!("{}: {}", finding.what, finding.advice)).collect();
    let findings = found.iter().map(told).collect();
    v1::HealthResponse { findings, ..response(problems, figures) }
}

fn told(finding: &Finding) -> v1::Finding {
    v1::Finding {
        trouble: finding.trouble.code().to_owned(),
        severity: match finding.severity {
            Severity::Advice => v1::Severity::Advice,
            Severity::Warning => v1::Severity::Warning,
            Severity::Critical => v1::Severity::Critical,
        }
        .into(),
        node_id: finding.node.map_or(0, |label| label.0),
        what: finding.what.clone(),
        advice: finding.advice.clone(),
    }
}

fn look_at_nodes(
    member: &Member,
    metadata: &MetadataState,
    problems: &mut Vec<String>,
    figures: &mut Figures,
) {
    for (uuid, node) in metadata.members() {
        if !member.liveness().is_alive(uuid) {
            figures.dead_nodes += 1;
            problems.push(format!(
                "node {} ({}) does not answer: start it, or look at its log and network; until \
                 then the groups on it survive one loss less",
                node.label, node.address
            ));
        } else if member.liveness().disk_low([uuid].into_iter()) {
            problems.push(format!(
                "the disk of node {} is nearly full and its partitions take no appends: free \
                 space, shorten retention with `quipu topic set`, or give it a larger disk",
                node.label
            ));
        }
    }
}

fn look_at_groups(
    member: &Member,
    metadata: &MetadataState,
    problems: &mut Vec<String>,
    figures: &mut Figures,
) {
    let groups = metadata.groups().iter().filter(|(_, record)| !record.is_deleted());
    let mut leaderless = Vec::new();
    for (group, record) in groups {
        figures.groups += 1;
        let leader = member.leader_of(*group);
        if !leader.is_some_and(|(place, _)| member.liveness().is_alive(place.node)) {
            leaderless.push(name_of(metadata, *group, record));
        }
    }
    figures.leaderless_groups = leaderless.len();
    if !leaderless.is_empty() {
        problems.push(format!(
            "{} of {} groups have no leader ({}): an election is under way, or a majority of \
             their nodes is down; start those nodes",
            leaderless.len(),
            figures.groups,
            named(&leaderless)
        ));
    }
}

/// Replicas that should be open on this node and are not, or have stopped.
fn look_at_own_replicas(member: &Member, metadata: &MetadataState, problems: &mut Vec<String>) {
    let placed = metadata.replicas_on(member.me());
    let works = |group: GroupId| {
        let replica = member.registry_ref().replica(group);
        replica.is_some_and(|replica| replica.raft().brief().role != Role::Stopped)
    };
    let broken = placed.filter(|(group, _, _)| !works(*group));
    let broken: Vec<_> = broken.map(|(id, record, _)| name_of(metadata, id, record)).collect();
    if !broken.is_empty() {
        problems.push(format!(
            "node {} has {} replicas that do not run ({}): if it lasts, its log says why",
            member.label(),
            broken.len(),
            named(&broken)
        ));
    }
}

fn named(names: &[String]) -> String {
    let mut text = names.iter().take(GROUPS_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > GROUPS_NAMED_MAX {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_groups_without_a_leader_are_one_short_line() {
        let names: Vec<String> = (0..9).map(|number| format!("t/{number}")).collect();
        assert_eq!(named(&names[..2]), "t/0, t/1");
        assert_eq!(named(&names), "t/0, t/1, t/2, t/3, t/4, …");
    }

    #[test]
    fn a_node_with_a_problem_is_not_healthy() {
        assert!(response(Vec::new(), Figures::default()).healthy);
        assert!(!response(vec!["a".to_owned()], Figures::default()).healthy);
    }
}
