//! Asks every node what it knows at first hand, so that the gate can decide.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{
    Admin, Client, ClientConfig, Code, ErrorCode, Features, LedGroup, NodeReport, VoterLag,
};

use super::gate::Facts;
use crate::local::start::admin_at;

/// For finding the cluster at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The cluster at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) facts: Facts,
    pub(crate) features: Features,
    /// "host:port" by label.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Label of the node that leads the metadata group.
    pub(crate) metadata_leader: Option<u64>,
}

impl Look {
    /// Asks through the nodes at these addresses, then each node itself.
    pub(crate) async fn at(nodes: &[String]) -> anyhow::Result<Look> {
        let config = ClientConfig {
            connect_timeout: CONNECT_WITHIN,
            request_timeout: CONNECT_WITHIN,
            retry_timeout: CONNECT_WITHIN,
            ..ClientConfig::new(nodes)
        };
        let admin = Client::connect(config).await.context("can't reach the cluster")?.admin();
        let cluster = admin.describe_cluster().await?;
        let health = admin.health().await?;
        let addresses: BTreeMap<u64, String> =
            cluster.nodes.iter().map(|node| (node.node_id, node.address.clone())).collect();
        let asked = addresses.iter().map(|(label, address)| async { (*label, ask(address).await) });
        let answers = futures::future::join_all(asked).await;
        let (mut nodes, mut blind) = (BTreeMap::new(), Vec::new());
        for (label, answer) in answers {
            let known = cluster.nodes.iter().find(|node| node.node_id == label);
            let version = known.map_or_else(String::new, |node| node.version.clone());
            let report = match answer {
                Answer::Report(report) => Some(report),
                Answer::OfFirstRelease => {
                    blind.push(label);
                    Some(first_release(label, version))
                }
                Answer::Silence => None,
            };
            nodes.insert(label, report);
        }
        let groups = match blind.is_empty() {
            true => health.groups,
            false => {
                look_for(&admin, &blind, &mut nodes).await?;
                let led: usize = nodes.values().flatten().map(|report| report.led.len()).sum();
                u32::try_from(led).unwrap_or(u32::MAX).saturating_add(health.leaderless_groups)
            }
        };
        let features = features(&cluster.nodes).await?;
        let facts = Facts { nodes, groups };
        Ok(Look { facts, features, addresses, metadata_leader: cluster.metadata_leader })
    }
}

/// A node of quipu 0.1 knows nothing of levels, and where one runs the level is 1. It is assumed
/// nowhere else: a finalized level must never be overlooked.
async fn features(nodes: &[quipu_client::Node]) -> anyhow::Result<Features> {
    let mut is_first = false;
    for node in nodes {
        let Ok(admin) = admin_at(&node.address).await else { continue };
        match admin.describe_features().await {
            Ok(features) => return Ok(features),
            Err(error) => is_first |= error.code() == Code::Server(ErrorCode::NotSupported),
        }
    }
    match is_first {
        true => Ok(Features { level: 1, level_common: Some(1), nodes: Vec::new() }),
        false => bail!("no node tells the finalized feature level"),
    }
}

/// What a node said when it was asked for its report.
enum Answer {
    Report(NodeReport),
    /// It does not know the question: quipu 0.1.
    OfFirstRelease,
    Silence,
}

async fn ask(address: &str) -> Answer {
    let Ok(admin) = admin_at(address).await else { return Answer::Silence };
    match admin.inspect().await {
        Ok(report) => Answer::Report(report),
        Err(error) if error.code() == Code::Server(ErrorCode::NotSupported) => {
            Answer::OfFirstRelease
        }
        Err(_) => Answer::Silence,
    }
}

/// A node that can't be asked for a report: quipu 0.1.
fn first_release(node_id: u64, version: String) -> NodeReport {
    NodeReport {
        node_id,
        version,
        disk_free_bytes: None,
        disk_reserve_bytes: 0,
        led: Vec::new(),
        closed: Vec::new(),
    }
}

/// What nodes without reports lead, found out by asking each replica of each of their partitions.
/// Records count as entries. Of the metadata and the coordinators it is only known that they have
/// a leader.
async fn look_for(
    admin: &Admin,
    blind: &[u64],
    nodes: &mut BTreeMap<u64, Option<NodeReport>>,
) -> anyhow::Result<()> {
    for topic in admin.list_topics().await? {
        let described = admin.describe_topic(&topic.name).await?;
        for partition in described.partitions {
            let Some(leader) = partition.leader.filter(|leader| blind.contains(leader)) else {
                continue;
            };
            let number = partition.partition;
            let mut ends = BTreeMap::new();
            for node in &partition.replicas {
                let replica = admin.describe_replica(*node, &topic.name, number, None);
                ends.insert(*node, replica.await.ok().map(|replica| replica.high_watermark));
            }
            let end = ends.values().copied().flatten().max().unwrap_or(0);
            let voters = ends.into_iter().map(|(node_id, at)| VoterLag {
                node_id,
                behind_entries: at.map(|at| end.saturating_sub(at)),
            });
            let group =
                LedGroup { name: format!("{}/{number}", topic.name), voters: voters.collect() };
            if let Some(Some(report)) = nodes.get_mut(&leader) {
                report.led.push(group);
            }
        }
    }
    Ok(())
}
