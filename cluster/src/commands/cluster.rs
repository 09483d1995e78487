//! `quipu cluster …`: local clusters, and forming and checking any cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quipu_client::{Cluster, Health, Node};
use rustix::process::Signal;
use serde_json::json;

use crate::args::{ClusterCommand, DownArgs, GlobalArgs, UpArgs};
use crate::commands::{cluster_dir, connect, is_json};
use crate::failure::{Failure, usage};
use crate::local::layout::{Layout, LocalNode};
use crate::local::ports::{self, BASE_PORT};
use crate::local::processes::{ProcessId, ProcessState};
use crate::local::quipud;
use crate::local::start::{LocalCluster, admin_at};
use crate::output::live::progress;
use crate::output::table::{Column, NONE, table};
use crate::output::{print, print_json, print_line};

/// Nodes of a local cluster where nothing is said.
const NODES_DEFAULT: u16 = 3;

/// A node that was asked to stop hands its leaderships over first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// After SIGKILL only the kernel has something left to do.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &GlobalArgs, command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Up(args) => up(global, &args).await,
        ClusterCommand::Status => status(global).await,
        ClusterCommand::Kill { node } => kill(global, node).await,
        ClusterCommand::Pause { node } => signal(global, node, Signal::STOP, ProcessState::Paused),
        ClusterCommand::Resume { node } => {
            signal(global, node, Signal::CONT, ProcessState::Running)
        }
        ClusterCommand::Restart { node, quipud } => restart(global, node, quipud.as_deref()).await,
        ClusterCommand::Down(args) => down(global, &args).await,
        ClusterCommand::Init => init(global).await,
        ClusterCommand::Health => health(global).await,
    }
}

async fn up(global: &GlobalArgs, args: &UpArgs) -> anyhow::Result<()> {
    let dir = cluster_dir(global);
    let quipud = quipud::find(args.quipud.as_deref())?;
    let known = dir.load()?;
    let layout = layout_for(known, args)?;
    let mut cluster = LocalCluster { dir, layout, quipud };
    if let Some(node) = cluster.nodes_paused().first() {
        bail!("node {node} is paused; `quipu cluster resume {node}` lets it go on");
    }
    let starting = cluster.nodes_down();
    for node_id in &starting {
        let node = cluster.layout.node(*node_id)?;
        ports::check_free([node.listen_port, node.http_port])?;
    }
    let _lock = cluster.dir.lock()?;
    let spinner = progress(None);
    for node_id in &starting {
        spinner.set_message(format!("starting node {node_id}"));
        cluster.start(*node_id)?;
    }
    for node in &cluster.layout.nodes {
        spinner.set_message(format!("waiting for node {}", node.node_id));
        cluster.wait_reachable(node.node_id).await?;
    }
    spinner.set_message("waiting until the cluster is healthy");
    cluster.form().await?;
    cluster.wait_healthy().await?;
    spinner.finish_and_clear();
    status(global).await?;
    if is_json(global) {
        return Ok(());
    }
    print_line(&next_steps(global, starting.len(), cluster.layout.nodes.len()))
}

/// The cluster as it is remembered, or a new one. What is remembered can't be changed by flags.
fn layout_for(known: Option<Layout>, args: &UpArgs) -> anyhow::Result<Layout> {
    let Some(layout) = known else {
        let count = args.count.unwrap_or(NODES_DEFAULT);
        let ports = ports::counted_from(args.base_port.unwrap_or(BASE_PORT), count)?;
        return Ok(Layout::new(&ports));
    };
    let has = layout.nodes.len();
    if args.count.is_some_and(|count| usize::from(count) != has) {
        return usage(format!("this cluster has {has} nodes; -n makes sense with a new one only"));
    }
    let first_port = layout.nodes.first().map(|node| node.listen_port);
    if args.base_port.is_some() && args.base_port != first_port {
        return usage("this cluster has its ports; --base-port makes sense with a new one only");
    }
    Ok(layout)
}

fn next_steps(global: &GlobalArgs, started: usize, nodes: usize) -> String {
    let dir = match &global.dir {
        Some(dir) => format!(" --dir {}", dir.display()),
        None => String::new(),
    };
    let what = match started {
        0 => "All nodes were up already.".to_owned(),
        _ if started == nodes => format!("{started} nodes are up."),
        _ => format!("{started} of {nodes} nodes were down and are up again."),
    };
    let replication = if nodes >= 3 { " -r 3" } else { "" };
    format!(
        "\n{what} Go on with:\n  \
         quipu{dir} topic create orders -p 6{replication}\n  \
         echo '{{\"id\":1}}' | quipu{dir} append orders --key o-1\n  \
         quipu{dir} read orders\n  \
         quipu{dir} cluster kill 1      # and `cluster restart 1`\n  \
         quipu{dir} cluster down        # the data stays; --delete-data deletes it"
    )
}

/// A local cluster's processes, with what one of its nodes says; or any cluster's nodes.
async fn status(global: &GlobalArgs) -> anyhow::Result<()> {
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

fn state_of(node: &LocalNode) -> ProcessState {
    node.process.as_ref().map_or(ProcessState::Down, ProcessId::state)
}

fn state_name(state: ProcessState) -> &'static str {
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

/// The process of a node that has to run.
fn process_of(layout: &Layout, node_id: u64) -> anyhow::Result<&ProcessId> {
    let node = layout.node(node_id)?;
    let process = node.process.as_ref().filter(|_| state_of(node) != ProcessState::Down);
    process.with_context(|| format!("node {node_id} is down"))
}

async fn kill(global: &GlobalArgs, node_id: u64) -> anyhow::Result<()> {
    let layout = cluster_dir(global).load_existing()?;
    let process = process_of(&layout, node_id)?;
    process.signal(Signal::KILL)?;
    if !process.wait_down(KILL_TIMEOUT).await {
        bail!("node {node_id} (process {}) is still there after SIGKILL", process.pid);
    }
    told(global, node_id, process, ProcessState::Down, "killed; `cluster restart` starts it again")
}

fn signal(
    global: &GlobalArgs,
    node_id: u64,
    signal: Signal,
    state: ProcessState,
) -> anyhow::Result<()> {
    let layout = cluster_dir(global).load_existing()?;
    let process = process_of(&layout, node_id)?;
    process.signal(signal)?;
    let what = match state {
        ProcessState::Paused => "paused; `cluster resume` lets it go on",
        ProcessState::Running | ProcessState::Down => "goes on",
    };
    told(global, node_id, process, state, what)
}

fn told(
    global: &GlobalArgs,
    node_id: u64,
    process: &ProcessId,
    state: ProcessState,
    what: &str,
) -> anyhow::Result<()> {
    if is_json(global) {
        return print_json(&json!({
            "node": node_id, "pid": process.pid, "state": state_name(state),
        }));
    }
    print_line(&format!("node {node_id} (process {}) {what}", process.pid))
}

async fn restart(global: &GlobalArgs, node_id: u64, quipud: Option<&Path>) -> anyhow::Result<()> {
    let dir = cluster_dir(global);
    let layout = dir.load_existing()?;
    let _lock = dir.lock()?;
    let mut cluster = LocalCluster { dir, layout, quipud: quipud::find(quipud)? };
    if let Ok(process) = process_of(&cluster.layout, node_id) {
        ask_to_stop(process)?;
        if !process.wait_down(STOP_TIMEOUT).await {
            let seconds = STOP_TIMEOUT.as_secs();
            bail!("node {node_id} doesn't stop within {seconds} s; `cluster kill` ends it at once");
        }
    }
    let node = cluster.layout.node(node_id)?;
    ports::check_free([node.listen_port, node.http_port])?;
    cluster.start(node_id)?;
    cluster.wait_reachable(node_id).await?;
    let node = cluster.layout.node(node_id)?;
    let process = node.process.as_ref().context("it was just started")?;
    told(global, node_id, process, ProcessState::Running, "is up")
}

/// SIGTERM, also to a process that is paused, which acts on it when it goes on.
fn ask_to_stop(process: &ProcessId) -> anyhow::Result<()> {
    process.signal(Signal::TERM)?;
    if process.state() == ProcessState::Paused {
        process.signal(Signal::CONT)?;
    }
    Ok(())
}

async fn down(global: &GlobalArgs, args: &DownArgs) -> anyhow::Result<()> {
    let dir = cluster_dir(global);
    let mut layout = dir.load_existing()?;
    let lock = dir.lock()?;
    let running: Vec<(u64, ProcessId)> = layout
        .nodes
        .iter()
        .filter(|node| state_of(node) != ProcessState::Down)
        .filter_map(|node| Some((node.node_id, node.process.clone()?)))
        .collect();
    for (_, process) in &running {
        // One that has just ended by itself is as good as stopped.
        let _ = ask_to_stop(process);
    }
    let mut killed = Vec::new();
    for (node_id, process) in &running {
        if !process.wait_down(STOP_TIMEOUT).await {
            let _ = process.signal(Signal::KILL);
            process.wait_down(KILL_TIMEOUT).await;
            killed.push(node_id.to_string());
        }
    }
    for node in &mut layout.nodes {
        node.process = None;
    }
    dir.save(&layout)?;
    if args.delete_data {
        dir.delete(&layout)?;
    }
    drop(lock);
    if is_json(global) {
        return print_json(&json!({
            "stopped": running.len(), "killed": killed.len(), "deleted": args.delete_data,
        }));
    }
    let data = if args.delete_data { "the data is deleted" } else { "the data stays" };
    let path = dir.path().display();
    print_line(&format!("{} nodes stopped; {data} ({path})", running.len()))?;
    if !killed.is_empty() {
        let seconds = STOP_TIMEOUT.as_secs();
        let nodes = killed.join(", ");
        print_line(&format!("killed, since they didn't stop within {seconds} s: node {nodes}"))?;
    }
    Ok(())
}

async fn init(global: &GlobalArgs) -> anyhow::Result<()> {
    if global.nodes.is_empty() {
        return usage("init needs --nodes with the addresses of all nodes that form the cluster");
    }
    let admin = connect(global).await?.admin().at_address(&global.nodes[0]);
    let cluster_id = admin.init_cluster(&global.nodes).await?;
    if is_json(global) {
        return print_json(&json!({ "cluster_id": cluster_id, "nodes": global.nodes }));
    }
    print_line(&format!("formed cluster {cluster_id} of {} nodes", global.nodes.len()))
}

async fn health(global: &GlobalArgs) -> anyhow::Result<()> {
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::local::ports::NodePorts;

    fn layout() -> Layout {
        Layout::new(&[
            NodePorts { listen: 9400, http: 9500 },
            NodePorts { listen: 9401, http: 9501 },
        ])
    }

    #[test]
    fn a_cluster_keeps_its_size_and_its_ports() {
        let args = |count, base_port| UpArgs { count, base_port, quipud: None };
        assert_eq!(layout_for(None, &args(None, None)).unwrap().nodes.len(), 3);
        assert_eq!(layout_for(Some(layout()), &args(None, None)).unwrap(), layout());
        assert_eq!(layout_for(Some(layout()), &args(Some(2), Some(9400))).unwrap(), layout());
        assert!(layout_for(Some(layout()), &args(Some(3), None)).is_err());
        assert!(layout_for(Some(layout()), &args(None, Some(9500))).is_err());
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
