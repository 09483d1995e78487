//! `quipu cluster status`: the processes of a local cluster, or the nodes of any cluster.

use quipu_client::{Cluster, Node};
use serde_json::json;

use crate::args::GlobalArgs;
use crate::commands::{cluster_dir, connect, is_json};
use crate::local::layout::LocalNode;
use crate::local::processes::{ProcessId, ProcessState};
use crate::local::start::admin_at;
use crate::output::table::{Column, NONE, table};
use crate::output::{print, print_json};

/// A local cluster's processes, with what one of its nodes says; or any cluster's nodes.
pub(super) async fn run(global: &GlobalArgs) -> anyhow::Result<()> {
    if !global.nodes.is_empty() {
        let cluster = connect(global).await?.admin().describe_cluster().await?;
        return remote_status(global, &cluster);
    }
    let layout = cluster_dir(global).load_existing()?;
    let mut seen = None;
    for node in &layout.nodes {
        if state_of(node) == ProcessState::Running
            && let Ok(admin) = admin_at(&node.address()).await
            && let Ok(cluster) = admin.describe_cluster().await
        {
            seen = Some(cluster);
            break;
        }
    }
    let known = |node_id| {
        let nodes = seen.iter().flat_map(|cluster| &cluster.nodes);
        nodes.into_iter().find(|node: &&Node| node.node_id == node_id)
    };
    if is_json(global) {
        for node in &layout.nodes {
            print_json(&local_json(node, known(node.node_id)))?;
        }
        return Ok(());
    }
    let rows: Vec<(&LocalNode, ProcessState, Option<&Node>)> =
        layout.nodes.iter().map(|node| (node, state_of(node), known(node.node_id))).collect();
    print(local_text(&rows).as_bytes())
}

pub(super) fn state_of(node: &LocalNode) -> ProcessState {
    node.process.as_ref().map_or(ProcessState::Down, ProcessId::state)
}

pub(super) fn state_name(state: ProcessState) -> &'static str {
    match state {
        ProcessState::Running => "running",
        ProcessState::Paused => "paused",
        ProcessState::Down => "down",
    }
}

fn local_json(node: &LocalNode, known: Option<&Node>) -> serde_json::Value {
    let state = state_of(node);
    let pid = node.process.as_ref().filter(|_| state != ProcessState::Down);
    json!({
        "node": node.node_id,
        "address": node.address(),
        "http_address": node.http_address(),
        "state": state_name(state),
        "pid": pid.map(|process| process.pid),
        "leaders": known.map(|node| node.leaders),
        "replicas": known.map(|node| node.replicas),
        "version": known.map(|node| &node.version),
    })
}

fn local_text(rows: &[(&LocalNode, ProcessState, Option<&Node>)]) -> String {
    let columns = [
        Column::Number("node"),
        Column::Text("state"),
        Column::Number("pid"),
        Column::Text("address"),
        Column::Text("metrics"),
        Column::Number("leaders"),
        Column::Number("replicas"),
    ];
    let rows = rows.iter().map(|(node, state, known)| {
        let pid = node.process.as_ref().filter(|_| *state != ProcessState::Down);
        vec![
            node.node_id.to_string(),
            state_name(*state).to_owned(),
            pid.map_or(NONE.to_owned(), |process| process.pid.to_string()),
            node.address(),
            format!("http://{}/metrics", node.http_address()),
            known.map_or(NONE.to_owned(), |node| node.leaders.to_string()),
            known.map_or(NONE.to_owned(), |node| node.replicas.to_string()),
        ]
    });
    table(&columns, rows)
}

fn remote_status(global: &GlobalArgs, cluster: &Cluster) -> anyhow::Result<()> {
    let columns = [
        Column::Number("node"),
        Column::Text("state"),
        Column::Text("address"),
        Column::Number("leaders"),
        Column::Number("replicas"),
        Column::Text("version"),
    ];
    let state = |node: &Node| if node.alive { "alive" } else { "silent" };
    if is_json(global) {
        for node in &cluster.nodes {
            print_json(&json!({
                "node": node.node_id,
                "address": node.address,
                "state": state(node),
                "leaders": node.leaders,
                "replicas": node.replicas,
                "version": node.version,
            }))?;
        }
        return Ok(());
    }
    let rows = cluster.nodes.iter().map(|node| {
        vec![
            node.node_id.to_string(),
            state(node).to_owned(),
            node.address.clone(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.version.clone(),
        ]
    });
    let formed = match &cluster.cluster_id {
        Some(id) => format!("cluster {id}, as node {} sees it\n\n", cluster.asked_node),
        None => "no cluster was formed yet; `quipu cluster init --nodes …` does\n\n".to_owned(),
    };
    print(format!("{formed}{}", table(&columns, rows)).as_bytes())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::local::layout::Layout;
    use crate::local::ports::NodePorts;

    fn layout() -> Layout {
        Layout::new(&[
            NodePorts { listen: 9400, http: 9500 },
            NodePorts { listen: 9401, http: 9501 },
        ])
    }

    #[test]
    fn the_status_shows_processes_and_what_the_cluster_says() {
        let layout = layout();
        let known = Node {
            node_id: 1,
            uuid: "u".to_owned(),
            address: "127.0.0.1:9400".to_owned(),
            alive: true,
            leaders: 4,
            replicas: 11,
            version: "0.1.0".to_owned(),
        };
        let rows = [
            (&layout.nodes[0], ProcessState::Running, Some(&known)),
            (&layout.nodes[1], ProcessState::Down, None),
        ];
        expect![[r#"
            NODE  STATE    PID  ADDRESS         METRICS                        LEADERS  REPLICAS
               1  running    -  127.0.0.1:9400  http://127.0.0.1:9500/metrics        4        11
               2  down       -  127.0.0.1:9401  http://127.0.0.1:9501/metrics        -         -
        "#]]
        .assert_eq(&local_text(&rows));
    }
}
