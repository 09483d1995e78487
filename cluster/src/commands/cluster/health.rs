//! `quipu cluster health`: what every node thinks is wrong, as one answer.

use quipu_client::Health;
use serde_json::json;

use crate::args::GlobalArgs;
use crate::commands::{connect, is_json};
use crate::failure::Failure;
use crate::output::{print_json, print_line};

pub(super) async fn run(global: &GlobalArgs) -> anyhow::Result<()> {
    let admin = connect(global).await?.admin();
    let cluster = admin.describe_cluster().await?;
    let asked = cluster.nodes.iter().map(|node| {
        let admin = admin.clone();
        async move { (node, admin.at_address(&node.address).health().await) }
    });
    let mut merged = Health {
        healthy: cluster.cluster_id.is_some(),
        problems: Vec::new(),
        groups: 0,
        leaderless_groups: 0,
        dead_nodes: 0,
    };
    if cluster.cluster_id.is_none() {
        let what = "no cluster was formed yet; `quipu cluster init --nodes …` does";
        merged.problems.push(what.to_owned());
    }
    for (node, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(health) => merge(&mut merged, health),
            Err(error) => {
                merged.healthy = false;
                merged.problems.push(format!("node {} doesn't answer: {error}", node.node_id));
            }
        }
    }
    merged.problems.sort();
    merged.problems.dedup();
    report_health(global, &merged)
}

/// Every node sees what it sees; the cluster is as bad as the worst of it.
fn merge(merged: &mut Health, health: Health) {
    merged.healthy &= health.healthy;
    merged.problems.extend(health.problems);
    merged.groups = merged.groups.max(health.groups);
    merged.leaderless_groups = merged.leaderless_groups.max(health.leaderless_groups);
    merged.dead_nodes = merged.dead_nodes.max(health.dead_nodes);
}

fn report_health(global: &GlobalArgs, health: &Health) -> anyhow::Result<()> {
    if is_json(global) {
        print_json(&json!({
            "healthy": health.healthy,
            "problems": health.problems,
            "groups": health.groups,
            "leaderless_groups": health.leaderless_groups,
            "dead_nodes": health.dead_nodes,
        }))?;
    } else if health.healthy {
        print_line("healthy")?;
    } else {
        print_line("not healthy:")?;
        for problem in &health.problems {
            print_line(&format!("  {problem}"))?;
        }
    }
    if health.healthy { Ok(()) } else { Err(Failure::Reported.into()) }
}
