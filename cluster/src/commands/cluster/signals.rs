//! Ends, stops and restarts nodes of a local cluster: `kill`, `pause`, `resume`, `restart`, `down`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use serde_json::json;

use crate::args::{DownArgs, GlobalArgs};
use crate::commands::cluster::status::{state_name, state_of};
use crate::commands::{cluster_dir, is_json};
use crate::local::layout::Layout;
use crate::local::ports;
use crate::local::processes::{ProcessId, ProcessState};
use crate::local::quipud;
use crate::local::start::LocalCluster;
use crate::output::{print_json, print_line};

/// A node that was asked to stop hands its leaderships over first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// After SIGKILL only the kernel has something left to do.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The process of a node that has to run.
fn process_of(layout: &Layout, node_id: u64) -> anyhow::Result<&ProcessId> {
    let node = layout.node(node_id)?;
    let process = node.process.as_ref().filter(|_| state_of(node) != ProcessState::Down);
    process.with_context(|| format!("node {node_id} is down"))
}

pub(super) async fn kill(global: &GlobalArgs, node_id: u64) -> anyhow::Result<()> {
    let layout = cluster_dir(global).load_existing()?;
    let process = process_of(&layout, node_id)?;
    process.signal(Signal::KILL)?;
    if !process.wait_down(KILL_TIMEOUT).await {
        bail!("node {node_id} (process {}) is still there after SIGKILL", process.pid);
    }
    told(global, node_id, process, ProcessState::Down, "killed; `cluster restart` starts it again")
}

pub(super) fn send(
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

pub(super) async fn restart(
    global: &GlobalArgs,
    node_id: u64,
    quipud: Option<&Path>,
) -> anyhow::Result<()> {
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

pub(super) async fn down(global: &GlobalArgs, args: &DownArgs) -> anyhow::Result<()> {
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
